//! The reconciliation: what became of each recipient that got a 250, by three books that know nothing of each other: the
//! load generator's, the receivers', and the server's event log.

use mailrail_bench::ledger::Ledger;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// A recipient of an accepted message.
type Recipient = (String, String);

/// What the load generator was told, one entry a transaction.
#[derive(Debug, Default)]
pub(super) struct Accepted(Vec<Transaction>);

#[derive(Debug)]
struct Transaction {
    load_id: String,
    message_id: String,
    recipients: Vec<String>,
}

impl Accepted {
    /// Notes a transaction that ended in 250; `reply` is its text, which ends in the message id.
    pub(super) fn add(&mut self, load_id: &str, reply: &str, recipients: &[&str]) {
        let message_id = reply.split_whitespace().next_back().unwrap_or_default().to_owned();
        let recipients = recipients.iter().map(|recipient| (*recipient).to_owned()).collect();
        self.0.push(Transaction { load_id: load_id.to_owned(), message_id, recipients });
    }

    /// Messages in all.
    pub(super) fn messages(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Recipients that the event log says have ended without delivery.
#[derive(Debug, Default)]
pub(super) struct Ended {
    ended: HashMap<Recipient, u32>,
    /// Recipients by `bounceType/bounceSubType`, and `Expired`.
    pub(super) reasons: BTreeMap<String, u64>,
    /// Lines of the log by event type.
    pub(super) events: BTreeMap<String, u64>,
}

impl Ended {
    /// Reads all files of an event log. A line that came twice counts once.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let mut ended = Self::default();
        let mut seen = HashSet::new();
        for path in mailrail_engine::event::log::files(directory)? {
            for line in BufReader::new(fs::File::open(path)?).lines() {
                let line = line?;
                if let Ok(event) = serde_json::from_str::<Value>(&line)
                    && seen.insert(line)
                {
                    ended.take(&event);
                }
            }
        }
        Ok(ended)
    }

    fn take(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let kind = text("eventType");
        *self.events.entry(kind.to_owned()).or_default() += 1;
        let reason = match kind {
            "Bounce" => format!("{}/{}", text("bounceType"), text("bounceSubType")),
            "Expired" => "Expired".to_owned(),
            _ => return,
        };
        *self.reasons.entry(reason).or_default() += 1;
        *self.ended.entry((text("messageId").to_owned(), text("recipient").to_lowercase())).or_default() += 1;
    }
}

/// The result, in recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reconciliation {
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) bounced: u64,
    pub(super) queued: u64,
    /// In none of the books.
    pub(super) lost: u64,
    /// More than once in them.
    pub(super) duplicated: u64,
}

/// Compares the books. `queued` holds (message id, recipient) of what the server says is still waiting.
pub(super) fn reconcile(
    accepted: &Accepted,
    delivered: &Ledger,
    ended: &Ended,
    queued: &HashSet<Recipient>,
) -> Reconciliation {
    let mut result = Reconciliation::default();
    for transaction in &accepted.0 {
        for recipient in &transaction.recipients {
            result.accepted += 1;
            let copies =
                delivered.get(transaction.load_id.as_bytes(), recipient.as_bytes()).map_or(0, |entry| entry.count);
            let key = (transaction.message_id.clone(), recipient.to_lowercase());
            let ends = ended.ended.get(&key).copied().unwrap_or(0);
            match (copies, ends) {
                (0, 0) if queued.contains(&key) => result.queued += 1,
                (0, 0) => result.lost += 1,
                (1, 0) => result.delivered += 1,
                (0, 1) => result.bounced += 1,
                _ => {
                    result.duplicated += 1;
                    *if copies > 0 { &mut result.delivered } else { &mut result.bounced } += 1;
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_recipient_is_in_one_book_or_it_shows() {
        let mut accepted = Accepted::default();
        accepted.add("run-1", "2.0.0 Ok m1", &["a@x.test", "B@x.test", "c@x.test"]);
        accepted.add("run-2", "2.0.0 Ok m2", &["a@x.test", "d@x.test", "e@x.test"]);
        let mut delivered = Ledger::new();
        delivered.add(b"run-1", b"a@x.test", 1);
        delivered.add(b"run-2", b"a@x.test", 1);
        delivered.add(b"run-2", b"a@x.test", 2);
        let mut ended = Ended::default();
        ended.take(
            &json!({"eventType": "Bounce", "messageId": "m1", "recipient": "b@x.test", "bounceType": "Permanent"}),
        );
        ended.take(&json!({"eventType": "Delivery", "messageId": "m1", "recipient": "a@x.test"}));
        let queued = HashSet::from([("m1".to_owned(), "c@x.test".to_owned())]);
        let result = reconcile(&accepted, &delivered, &ended, &queued);
        let expected = Reconciliation { accepted: 6, delivered: 2, bounced: 1, queued: 1, lost: 2, duplicated: 1 };
        assert_eq!(result, expected);
    }
}
