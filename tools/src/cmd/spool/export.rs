//! `mailrail spool export`: each message as a file that any mail program reads, with its envelope beside it.

use super::{Reading, Where};
use crate::{
    cmd::{Failure, Outcome},
    ui,
};
use jiff::Timestamp;
use mailrail_engine::message::kept::{self, KeptEnvelope};
use mailrail_spool::{
    SettleKind,
    inspect::{Inspection, Kept},
};
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// Write each queued message as ID.eml, with its envelope as ID.json
///
/// Changes nothing in the spool. Files without a head may hold mail or what is left of it: that goes to DIR/unsure. A message
/// of which damage has cost a piece is written as ID.partial.eml; then, or if anything else is damaged, it ends with 1. A
/// message that moved to another leased IP in part is two: ID.eml and ID.2.eml, each with its recipients in its envelope. One
/// that is queued in both was just moving when the server was killed: it is to get the message once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write; a directory that is empty or not there
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Also messages that are settled, as far as they are still there
    #[arg(long)]
    settled: bool,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Endings of the content.
const WHOLE: &str = ".eml";
const PARTIAL: &str = ".partial.eml";

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    messages: u64,
    settled: u64,
    partial: u64,
    /// Of files without a head, in `unsure/`.
    unsure: u64,
    /// Damaged places of the spool.
    damage: u64,
}

/// The envelope file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    shard: u16,
    accepted: String,
    size: u64,
    whole: bool,
    #[serde(flatten)]
    envelope: &'a KeptEnvelope,
    /// How far each recipient is, in the same order.
    states: Vec<Recipient<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recipient<'a> {
    recipient: &'a str,
    state: &'static str,
    attempts: u16,
    /// Milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try: Option<u64>,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Outcome {
    let shards = args.place.shards()?;
    let cannot = |error: io::Error| Failure::Operation(format!("writing to {}: {error}", args.to.display()));
    fs::create_dir_all(&args.to).map_err(cannot)?;
    if fs::read_dir(&args.to).map_err(cannot)?.next().is_some() {
        return Err(Failure::Usage(format!("{} is not empty; name another directory", args.to.display())));
    }
    let reading = Reading::new(&shards, args.json);
    let mut counts = Counts::default();
    for (number, path) in &shards {
        let inspection = reading.inspect(path)?;
        counts.damage += inspection.recovery().lost.len() as u64;
        export(&inspection, *number, args, &mut counts).map_err(cannot)?;
    }
    reading.end();
    File::open(&args.to).and_then(|directory| Ok(rustix::fs::syncfs(&directory)?)).map_err(cannot)?;
    if args.json {
        ui::print_json(&counts)?;
    } else {
        let Counts { messages, settled, partial, unsure, .. } = counts;
        let place = args.to.display();
        ui::print(&format!(
            "{messages} queued messages, {settled} settled ones, {partial} in part, {unsure} unsure, to {place}\n"
        ))?;
    }
    match counts.damage {
        0 => Ok(()),
        damage => Err(Failure::Operation(format!(
            "exported all that is intact; damaged places: {damage}, `mailrail spool check` names what is lost"
        ))),
    }
}

fn export(inspection: &Inspection, shard: u16, args: &Args, counts: &mut Counts) -> io::Result<()> {
    let mut result = Ok(());
    inspection.for_each(|kept| {
        let moved = !kept.live && kept.ends.iter().any(|(_, how)| *how == SettleKind::Moved);
        if result.is_err() || moved || !(kept.live || args.settled) {
            return;
        }
        match write(&kept, shard, &args.to) {
            Ok(whole) => {
                *if kept.live { &mut counts.messages } else { &mut counts.settled } += 1;
                counts.partial += u64::from(!whole);
            }
            Err(error) => result = Err(error),
        }
    });
    result.and_then(|()| export_unsure(inspection, shard, &args.to.join("unsure"), counts))
}

fn export_unsure(inspection: &Inspection, shard: u16, to: &Path, counts: &mut Counts) -> io::Result<()> {
    let mut result = Ok(());
    inspection.for_each_unsure(|kept| {
        if result.is_ok() && kept.live {
            result = fs::create_dir_all(to).and_then(|()| write(&kept, shard, to)).map(|_| counts.unsure += 1);
        }
    })?;
    result
}

/// Both files; the envelope last, so that where it is the content is whole. Says whether the message is.
fn write(kept: &Kept<'_>, shard: u16, to: &Path) -> io::Result<bool> {
    let view = &kept.view;
    let envelope = KeptEnvelope::decode(view.meta);
    let hex = || view.id.iter().map(|byte| format!("{byte:02x}")).collect();
    let id: String = kept::id_of(view.id).unwrap_or_else(hex);
    let whole = view.is_whole();
    let name = free_name(to, id)?;
    let mut content = create(&to.join(format!("{name}{}", if whole { WHOLE } else { PARTIAL })))?;
    for piece in view.pieces() {
        content.write_all(piece)?;
    }
    content.flush()?;
    let mut file = create(&to.join(format!("{name}.json")))?;
    match &envelope {
        Some(envelope) => serde_json::to_writer_pretty(&mut file, &described(kept, shard, whole, envelope))?,
        None => serde_json::to_writer_pretty(&mut file, &serde_json::json!({ "envelope": "cannot be read" }))?,
    }
    file.write_all(b"\n")?;
    file.flush()?;
    Ok(whole)
}

/// The id, or that with a number: what moved to another leased IP in part is twice in the spools.
fn free_name(to: &Path, id: String) -> io::Result<String> {
    let is_taken = |name: &str| -> io::Result<bool> {
        Ok(to.join(format!("{name}{WHOLE}")).try_exists()? || to.join(format!("{name}{PARTIAL}")).try_exists()?)
    };
    let (mut name, mut number) = (id.clone(), 1_u32);
    while is_taken(&name)? {
        number += 1;
        name = format!("{id}.{number}");
    }
    Ok(name)
}

/// Never over another file.
fn create(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.map(BufWriter::new).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn described<'a>(kept: &'a Kept<'_>, shard: u16, whole: bool, envelope: &'a KeptEnvelope) -> Envelope<'a> {
    let accepted = i64::try_from(kept.view.accepted_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let states = envelope.recipients.iter().enumerate().map(|(number, recipient)| {
        let state = kept.view.recipients.get(number).copied().unwrap_or_default();
        let how = kept.ends.iter().find(|(ended, _)| usize::from(*ended) == number).map(|(_, how)| *how);
        Recipient {
            recipient,
            state: if state.settled { ended(how) } else { "queued" },
            attempts: state.attempts,
            next_try: (!state.settled && state.next_try_ms > 0).then_some(state.next_try_ms),
        }
    });
    Envelope {
        shard,
        accepted: accepted.map(|time| time.to_string()).unwrap_or_default(),
        size: kept.view.content_len,
        whole,
        envelope,
        states: states.collect(),
    }
}

fn ended(how: Option<SettleKind>) -> &'static str {
    match how {
        Some(SettleKind::Delivered) => "delivered",
        Some(SettleKind::Bounced) => "bounced",
        Some(SettleKind::Expired) => "expired",
        Some(SettleKind::Suppressed) => "suppressed",
        Some(SettleKind::Cancelled) => "cancelled",
        Some(SettleKind::Moved) => "moved",
        // The record of it went with its segment; the state was carried on.
        None => "settled",
    }
}
