//! What became of each recipient that got a 250 from a server that was killed in between: by the load generator's book,
//! the receivers', the server's queue, its event log, and the DSNs that arrived. It reads no clock and no socket.
//!
//! Messages and recipients are known by 64-bit hashes of both: any two of 30 million meet with a chance of 1 in 40,000.

use mailrail_bench::ledger::{Entry, Ledger};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

/// A copy that came so long before a kill is not explained by it, milliseconds. An outcome waits at most 50 ms for its sync;
/// the rest is room for a slow receiver's reply and a busy machine. What is exact is [`Balance::delivered_twice`]: no outcome
/// that was durable is followed by another delivery.
pub(super) const DOUBT_MS: u64 = 2_000;
/// What the server says of recipients that an order of its operator has ended.
const BY_ORDER: &str = "by the operator of this host";
/// Recipients named of those that something is wrong with.
const EXAMPLES: usize = 10;

/// Message id and recipient as one number.
pub(super) fn key(message: &str, recipient: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(message.as_bytes());
    // In no address and no id, so that the two cannot run into each other.
    hasher.write_u8(0xff);
    recipient.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
    hasher.finish()
}

/// What the load generator was told: one line a message in a file, so that a long run needs no memory for it, and a failed
/// one can be looked into.
pub(super) struct Promises {
    file: BufWriter<File>,
    /// Recipients that got a 250.
    pub(super) accepted: u64,
    /// Recipients behind whose final dot the connection was lost: nobody promised anything.
    pub(super) in_doubt: u64,
}

impl Promises {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), accepted: 0, in_doubt: 0 })
    }

    /// Notes a transaction that ended in 250; `reply` is its text, which ends in the message id.
    pub(super) fn add(&mut self, load_id: &str, reply: &str, recipients: &[&str]) -> io::Result<()> {
        self.accepted += recipients.len() as u64;
        let message_id = reply.split_whitespace().next_back().unwrap_or_default();
        writeln!(self.file, "{load_id} {message_id} {}", recipients.join(" "))
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What is known of a recipient by the event log.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    sent: bool,
    delivered: bool,
    /// Bounced or expired.
    ended: bool,
    /// It was on a suppression list.
    suppressed: bool,
    /// An order of the operator ended it.
    ordered: bool,
    /// Such an order that tells no sender.
    cancelled: bool,
    /// Two Delivery events that differ: it was delivered again though the first outcome was durable.
    twice: bool,
    /// Attempts of which the server says that it cannot know.
    doubts: u8,
    /// Hash of its Delivery event.
    line: u32,
}

/// What the event log says, each fact once: a crash may repeat lines, as they were.
#[derive(Debug, Default)]
pub(super) struct Events {
    facts: HashMap<u64, Facts>,
    doubts: HashSet<u64>,
    read: BTreeSet<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    message_id: Cow<'a, str>,
    #[serde(borrow, default)]
    recipient: Cow<'a, str>,
    #[serde(borrow, default)]
    bounce_sub_type: Cow<'a, str>,
    #[serde(borrow, default)]
    diagnostic_code: Cow<'a, str>,
    #[serde(default)]
    in_doubt: bool,
}

impl Events {
    /// Reads the files that are complete and not read yet; with `current` the one that is being written, too.
    pub(super) fn read(&mut self, directory: &Path, current: bool) -> io::Result<()> {
        for path in mailrail_engine::event::log::files(directory)? {
            let is_current = path.file_name().is_some_and(|name| name == "events.jsonl");
            if self.read.contains(&path) || (is_current && !current) {
                continue;
            }
            for line in BufReader::new(fs::File::open(&path)?).split(b'\n') {
                self.take(&line?);
            }
            self.read.insert(path);
        }
        Ok(())
    }

    /// A line that a crash cut short says nothing.
    fn take(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(line) else { return };
        let mut hasher = DefaultHasher::new();
        hasher.write(line);
        let hash = hasher.finish();
        let facts = self.facts.entry(key(&event.message_id, &event.recipient)).or_default();
        if event.in_doubt && self.doubts.insert(hash) {
            facts.doubts = facts.doubts.saturating_add(1);
        }
        match &*event.event_type {
            "Send" => facts.sent = true,
            "Delivery" => {
                facts.twice |= facts.delivered && facts.line != hash as u32;
                (facts.delivered, facts.line) = (true, hash as u32);
            }
            "Bounce" | "Expired" => facts.ended = true,
            "Cancel" => (facts.ended, facts.cancelled) = (true, true),
            "Complaint" => (facts.ended, facts.suppressed) = (true, true),
            _ => {}
        }
        facts.ordered |= event.diagnostic_code.contains(BY_ORDER);
        facts.suppressed |= event.bounce_sub_type.ends_with("SuppressionList");
    }
}

/// When a server was killed, and when the next one served: microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) at_us: u64,
    pub(super) back_us: u64,
}

/// Milliseconds from a copy to the kill that left it in doubt; none: there was no kill after it.
fn age_ms(kills: &[Kill], copy_us: u64) -> Option<u64> {
    let kill = kills.get(kills.partition_point(|kill| kill.back_us < copy_us))?;
    Some(kill.at_us.saturating_sub(copy_us) / 1000)
}

/// All that is compared with the promises.
pub(super) struct Books<'a> {
    pub(super) receivers: &'a Ledger,
    pub(super) events: &'a Events,
    /// Of what the server says is waiting.
    pub(super) queued: &'a HashSet<u64>,
    /// Of recipients that a DSN has told its sender of.
    pub(super) notices: &'a HashSet<u64>,
    pub(super) kills: &'a [Kill],
}

/// The result, in recipients that got a 250.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Balance {
    pub(super) accepted: u64,
    /// A receiver has it.
    pub(super) delivered: u64,
    /// Ended without delivery, and its sender has the DSN.
    pub(super) bounced: u64,
    /// Not sent to, because it bounced before.
    pub(super) suppressed: u64,
    /// Ended by an order, of which nobody is told.
    pub(super) cancelled: u64,
    /// The server says that it waits.
    pub(super) queued: u64,
    /// In no book: must be 0.
    pub(super) lost: u64,
    /// Ended without delivery, and no DSN of it came: must be 0.
    pub(super) without_dsn: u64,
    /// Copies beyond the first after attempts that the server itself called in doubt.
    pub(super) copies_in_doubt: u64,
    /// Copies beyond the first after a kill: the outcome of the first was not durable.
    pub(super) copies_of_kills: u64,
    /// A receiver has it, the outcome was in doubt, and then an order ended it before it was tried again.
    pub(super) ended_in_doubt: u64,
    /// Of copies of kills, the longest time from the first copy to the kill, in milliseconds.
    pub(super) oldest_doubt_ms: u64,
    /// Copies that nothing explains: must be 0.
    pub(super) unexplained: u64,
    /// Delivered again after the outcome was durable: must be 0.
    pub(super) delivered_twice: u64,
    /// Accepted without a Send event: must be 0.
    pub(super) without_send: u64,
    /// A receiver has it and no Delivery event says so, or the other way round: must be 0.
    pub(super) disagree: u64,
    /// Both delivered and ended: must be 0.
    pub(super) contradict: u64,
    /// Some of those that something is wrong with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) examples: Vec<String>,
}

impl Balance {
    /// What is wrong, in words.
    pub(super) fn wrong(&self) -> Vec<String> {
        let figures = [
            (self.lost, "lost"),
            (self.without_dsn, "bounced without a DSN"),
            (self.unexplained, "copies that nothing explains"),
            (self.delivered_twice, "delivered again after a durable outcome"),
            (self.without_send, "without Send event"),
            (self.disagree, "where receivers and events disagree"),
            (self.contradict, "both delivered and bounced"),
        ];
        let mut wrong: Vec<_> =
            figures.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if self.accepted == 0 {
            wrong.push("nothing was accepted, which proves nothing".into());
        }
        wrong
    }

    fn take(&mut self, books: &Books<'_>, (load, message, recipient): (&str, &str, &str)) {
        let key = key(message, recipient);
        let entry = books.receivers.get(load.as_bytes(), recipient.as_bytes());
        let facts = books.events.facts.get(&key).copied().unwrap_or_default();
        let (came, waits) = (entry.is_some(), books.queued.contains(&key));
        let silent = !came && facts.ended && !facts.suppressed && !facts.cancelled && !books.notices.contains(&key);
        let lost = !came && !facts.ended && !waits;
        self.accepted += 1;
        self.delivered += u64::from(came);
        self.suppressed += u64::from(!came && facts.suppressed);
        self.cancelled += u64::from(!came && facts.cancelled);
        self.bounced += u64::from(!came && facts.ended && !facts.suppressed && !facts.cancelled);
        self.queued += u64::from(!came && !facts.ended && waits);
        self.lost += u64::from(lost);
        self.without_dsn += u64::from(silent);
        self.delivered_twice += u64::from(facts.twice);
        self.without_send += u64::from(!facts.sent);
        // What is still to be tried again may be in doubt.
        let in_doubt = entry.is_some_and(|entry| facts.ordered && !facts.delivered && doubtful(books, entry, facts));
        self.ended_in_doubt += u64::from(in_doubt);
        let disagree = facts.delivered != came && !waits && !in_doubt;
        self.disagree += u64::from(disagree);
        let contradict = facts.ended && (facts.delivered || came) && !in_doubt;
        self.contradict += u64::from(contradict);
        let unexplained = entry.is_some_and(|entry| !self.explain(books, entry.count, entry.first_us, facts));
        let wrong = [
            (lost, "lost"),
            (silent, "no DSN"),
            (facts.twice, "delivered twice"),
            (!facts.sent, "no Send event"),
            (disagree, "disagree"),
            (contradict, "contradict"),
            (unexplained, "unexplained copy"),
        ];
        let wrong: Vec<_> = wrong.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
        if !wrong.is_empty() && self.examples.len() < EXAMPLES {
            self.examples.push(format!("{load} {message} {recipient}: {}", wrong.join(", ")));
        }
    }

    /// Finds the reason of copies beyond the first; false if there is none.
    fn explain(&mut self, books: &Books<'_>, count: u32, first_us: u64, facts: Facts) -> bool {
        let extra = u64::from(count.saturating_sub(1));
        let doubts = extra.min(facts.doubts.into());
        self.copies_in_doubt += doubts;
        let rest = extra - doubts;
        if rest == 0 {
            return true;
        }
        let age = age_ms(books.kills, first_us);
        // After an attempt in doubt as well it may be the second copy that the kill came after, of which there is no time.
        let explained = rest <= books.kills.len() as u64 && (doubts > 0 || age.is_some_and(|age| age <= DOUBT_MS));
        if explained {
            self.copies_of_kills += rest;
        } else {
            self.unexplained += rest;
        }
        if doubts == 0 {
            self.oldest_doubt_ms = self.oldest_doubt_ms.max(age.unwrap_or(0));
        }
        explained
    }
}

/// May the server not have known that a receiver has it?
fn doubtful(books: &Books<'_>, entry: Entry, facts: Facts) -> bool {
    // Of the second copy there is no time; that it may be there is looked at by itself.
    facts.doubts > 0 || entry.count > 1 || age_ms(books.kills, entry.first_us).is_some_and(|age| age <= DOUBT_MS)
}

/// Compares the promises, as [`Promises`] wrote them, with the books.
pub(super) fn balance(promises: impl BufRead, books: &Books<'_>) -> io::Result<Balance> {
    let mut result = Balance::default();
    for line in promises.lines() {
        let line = line?;
        let mut words = line.split(' ');
        let (Some(load), Some(message)) = (words.next(), words.next()) else { continue };
        words.for_each(|recipient| result.take(books, (load, message, recipient)));
    }
    Ok(result)
}

#[cfg(test)]
mod tests;
