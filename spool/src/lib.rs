//! Durable store of one shard: memory-mapped, append-only segments with group commit.
//!
//! A [`Spool`] keeps messages until each of their recipients is settled, and every outcome until its event is out. It
//! knows no SMTP, no policy, no clock and no runtime: what blocks is handed out as a job ([`SyncJob`], [`Chore`]) for
//! the caller to run where it may block.
//!
//! It must never: lose a message for which a [`Durable`] was given out, bring one back whose outcome is durable,
//! invent one, or read a page that has no disk block behind it. `FORMAT.md` draws the bytes and argues each crash.
#![deny(unsafe_code)]

mod append;
mod census;
mod chore;
mod commit;
mod compact;
mod damage;
mod disk;
mod error;
mod index;
pub mod inspect;
mod limits;
mod map;
mod note;
mod outbox;
mod record;
mod recover;
pub mod repair;
mod scan;
mod segment;
mod settle;
#[doc(hidden)]
pub mod sim;
mod view;

pub use append::{Appended, ChunkRef, NewMessage};
pub use chore::{Chore, ChoreDone};
pub use commit::{Durable, Position, SyncJob};
pub use damage::{Damage, Harm, LostKind, LostRecord};
pub use disk::{Disk, Prepare, RealDisk, Region};
pub use error::{Failed, Full, OpenError};
pub use index::{MessageKey, RecipientState};
pub use limits::Limits;
pub use outbox::{Cursor, OutboxKind, OutboxRecord};
pub use recover::Recovery;
pub use settle::{SettleKind, Settled};
pub use view::MessageView;

use index::Index;
use note::Notes;
use segment::Segments;

/// The store of one shard. *One per shard; never leaves its thread.*
pub struct Spool<D: Disk = RealDisk> {
    disk: D,
    limits: Limits,
    segments: Segments<D::Region>,
    index: Index,
    notes: Notes,
    commit: commit::State,
    outbox: outbox::State,
    chores: chore::State,
    compacting: compact::State,
    scratch: Vec<u8>,
}

/// How full the spool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segment files, spares included.
    pub segments: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Bytes that unsettled messages hold.
    pub live_bytes: u64,
    /// Messages not wholly settled.
    pub messages: u64,
    /// Recipients not settled.
    pub recipients: u64,
    /// Why no new message is taken, if so.
    pub full: Option<String>,
    /// Why the spool has failed for good, if so.
    pub failed: Option<String>,
}

impl<D: Disk> Spool<D> {
    /// How full it is; cheap enough for each status question.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let segments = self.segments.files() as u64;
        Usage {
            segments,
            bytes: segments * self.limits.segment_size as u64,
            live_bytes: self.segments.live_bytes(),
            messages: self.index.len() as u64,
            recipients: self.index.recipients(),
            full: self.full_reason(),
            failed: self.commit.failed.as_ref().map(ToString::to_string),
        }
    }

    /// Recipients not settled.
    #[must_use]
    pub fn recipients(&self) -> u64 {
        self.index.recipients()
    }

    /// Messages not wholly settled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// No message is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }
}
