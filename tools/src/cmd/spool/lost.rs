//! What damage means for people: places, and the mail that was in them.

use mailrail_engine::message::kept::{self, KeptEnvelope};
use mailrail_spool::{Damage, Harm, LostKind, LostRecord, inspect::Inspection};
use serde::Serialize;
use std::fmt::Write;

/// A damaged place.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    segment: u32,
    /// First byte, and the first one behind.
    from: u64,
    to: u64,
    what: String,
    /// What is known of what was there.
    lost: Vec<Lost>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lost {
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    /// Recipients that had not come to their ends.
    recipients: Vec<String>,
    means: &'static str,
}

impl Place {
    pub(super) fn of(damage: &Damage, inspection: &Inspection) -> Self {
        let lost = damage.lost.iter().filter_map(|record| lost(record, inspection));
        let mut what = match &damage.what {
            Harm::Message { .. } => "a piece of a message's content is gone".to_owned(),
            other => other.to_string(),
        };
        let mut all: Vec<_> = lost.collect();
        if let Harm::Message { id } = &damage.what {
            let means = "not whole: the server bounces it";
            let message = kept::id_of(id);
            all.push(Lost { offset: damage.bytes.start, message, sender: None, recipients: Vec::new(), means });
        }
        if damage.what == Harm::Headless {
            what.push_str("; whether it was in use cannot be told, so export what it holds before a repair");
        }
        Self { segment: damage.segment, from: damage.bytes.start, to: damage.bytes.end, what, lost: all }
    }

    /// A line for the place, and one for each record.
    pub(super) fn write(&self, out: &mut String) {
        let Self { segment, from, to, what, lost } = self;
        let _ = writeln!(out, "  segment {segment:08}, bytes {from} to {to}: {what}");
        for Lost { offset, message, sender, recipients, means } in lost {
            let _ = write!(out, "    at {offset}: {}", message.as_deref().unwrap_or("a record"));
            if let Some(sender) = sender {
                let _ = write!(out, " from <{sender}>");
            }
            if !recipients.is_empty() {
                let _ = write!(out, " to {}", recipients.join(", "));
            }
            let _ = writeln!(out, ": {means}");
        }
    }

    /// Messages in it that are surely lost.
    pub(super) fn messages(&self) -> usize {
        self.lost.iter().filter(|lost| lost.means == GONE).count()
    }
}

const GONE: &str = "lost";

/// What a lost record means, beside what is intact; none for one that nobody misses.
fn lost(record: &LostRecord, inspection: &Inspection) -> Option<Lost> {
    let offset = record.offset;
    let plain = |means| Some(Lost { offset, message: None, sender: None, recipients: Vec::new(), means });
    match &record.what {
        LostKind::Message { id, meta, recipients, identity } => {
            let envelope = KeptEnvelope::decode(meta);
            let message = kept::id_of(id).or_else(|| envelope.as_ref().map(|envelope| envelope.message_id.clone()));
            let ended = |number: &u16| inspection.ends(*identity).iter().any(|(ended, _)| ended == number);
            let open: Vec<u16> = (0..*recipients).filter(|number| !ended(number)).collect();
            let means = match () {
                () if inspection.name(*identity).is_some() => "another copy of it is intact",
                () if open.is_empty() => "all its recipients had come to their ends",
                () => GONE,
            };
            let address = |number: &u16| envelope.as_ref()?.recipients.get(usize::from(*number)).cloned();
            let recipients = open.iter().filter_map(address).collect();
            Some(Lost { offset, message, sender: envelope.as_ref().map(|e| e.sender.clone()), recipients, means })
        }
        LostKind::Outcome { identity, .. } => {
            let message = inspection.name(*identity).and_then(kept::id_of);
            let means = "what became of some recipients: they may be tried again";
            Some(Lost { offset, message, sender: None, recipients: Vec::new(), means })
        }
        LostKind::Chunk => plain("a piece of a message that is named elsewhere, if it was still needed"),
        LostKind::Note => plain("a ledger or cursor: the one before it counts"),
        LostKind::Other => None,
    }
}
