//! What the medium has lost: where, and what stood there as far as that can still be told. Nothing here is believed.

use crate::{
    append::MessageRecord,
    record::{self, Kind},
    settle::OutcomeRecord,
};
use std::{fmt, ops::Range};

/// A place of a spool that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment file.
    pub segment: u32,
    /// Bytes of the file that say nothing.
    pub bytes: Range<u64>,
    /// What that means.
    pub what: Harm,
    /// What stood there, by its own word: its checksum did not hold.
    pub lost: Vec<LostRecord>,
}

/// What a damaged place means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Both copies of the head are unreadable: nothing in the file counts, and it is left as it is.
    Headless,
    /// The other copy of the head does its work.
    OneHead,
    /// The file ends here; it was longer.
    Short {
        /// Bytes it should have.
        should_be: u64,
    },
    /// The medium gives an error when these bytes are read.
    Unreadable,
    /// Records are missing: the sequences of the first and the last of them, where what is around tells.
    Records(Option<(u64, u64)>),
    /// A message whose record is sound, but of whose content a piece is gone.
    Message {
        /// The caller's name for it.
        id: Vec<u8>,
    },
}

/// What a record said that cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRecord {
    /// Byte of the file at which it begins.
    pub offset: u64,
    /// Its sequence; for a message also the identity that outcomes name.
    pub sequence: u64,
    /// What it was.
    pub what: LostKind,
}

/// What a lost record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostKind {
    /// A message: the caller's name for it, its envelope, how many recipients it had.
    Message {
        /// The caller's name.
        id: Vec<u8>,
        /// The envelope, as given at acceptance.
        meta: Vec<u8>,
        /// How many.
        recipients: u16,
        /// Sequence of its first copy.
        identity: u64,
    },
    /// An outcome; a lost end of a recipient means that it is tried again.
    Outcome {
        /// Of the message with this identity.
        identity: u64,
        /// Numbers of the recipients.
        recipients: Vec<u16>,
    },
    /// A piece of a message, named where that message is.
    Chunk,
    /// A ledger or cursor: the one before it counts.
    Note,
    /// Nothing that anybody misses.
    Other,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bytes: Range { start, end }, what, lost } = self;
        write!(f, "segment {segment:08}, bytes {start} to {end}: {what}")?;
        for record in lost {
            match &record.what {
                LostKind::Message { id, recipients, .. } => {
                    write!(f, "; message {} to {recipients} recipients", name(id))?;
                }
                LostKind::Outcome { .. } => f.write_str("; an outcome, so that it may be tried again")?,
                LostKind::Chunk => f.write_str("; a piece of a message")?,
                LostKind::Note => f.write_str("; a ledger or cursor")?,
                LostKind::Other => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headless => f.write_str("both copies of its head are unreadable; set aside"),
            Self::OneHead => f.write_str("one copy of its head is unreadable, the other one is used"),
            Self::Short { should_be } => write!(f, "cut off, it had {should_be} bytes"),
            Self::Unreadable => f.write_str("the medium gives an error"),
            Self::Records(Some((only, last))) if only == last => write!(f, "record {only} is unreadable"),
            Self::Records(Some((first, last))) => write!(f, "records {first} to {last} are unreadable"),
            Self::Records(None) => f.write_str("unreadable"),
            Self::Message { id } => write!(f, "a piece of the content of message {} is gone", name(id)),
        }
    }
}

/// A name that the caller gave, readable where it is text.
fn name(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
        _ => id.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// What records in `hole`, which begins at `offset` of its file, say of themselves.
pub(crate) fn salvage(hole: &[u8], offset: usize, stamp: u64) -> Vec<LostRecord> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(bytes) = hole.get(at..).filter(|bytes| bytes.len() >= record::HEADER) {
        // Each hole begins with a record, whatever became of its mark; an old one does not have the stamp.
        if record::plausible(bytes, stamp) || at == 0 && record::u64_at(bytes, 16) == stamp {
            found.push(read(bytes, (offset + at) as u64));
        }
        at += 8;
    }
    found
}

fn read(bytes: &[u8], offset: u64) -> LostRecord {
    let length = record::u32_at(bytes, 4) as usize;
    let end = record::HEADER.saturating_add(length).min(bytes.len());
    let payload = &bytes[record::HEADER..end];
    let sequence = record::u64_at(bytes, 8);
    let what = match record::kind_at(bytes) {
        Some(Kind::Message) => MessageRecord::parse(payload).map(|message| LostKind::Message {
            id: message.id.to_vec(),
            meta: message.meta.to_vec(),
            recipients: message.recipients,
            identity: if message.moved { message.identity } else { sequence },
        }),
        Some(Kind::Settle | Kind::Defer | Kind::Attempt) => OutcomeRecord::parse(payload)
            .map(|outcome| LostKind::Outcome { identity: outcome.identity, recipients: outcome.numbers().collect() }),
        Some(Kind::Chunk) => Some(LostKind::Chunk),
        Some(Kind::Note) => Some(LostKind::Note),
        Some(Kind::Seal | Kind::Lost | Kind::Census) | None => None,
    };
    LostRecord { offset, sequence, what: what.unwrap_or(LostKind::Other) }
}
