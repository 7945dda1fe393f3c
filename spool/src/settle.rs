//! What became of a message: settle ends recipients, defer keeps them, attempt only tells.
//!
//! These records need no sync of their own. A crash before they are durable makes the recipient be tried again, which
//! SMTP allows; it never loses one.

use crate::{
    MessageKey, Spool,
    append::MessageRecord,
    disk::Disk,
    record::{self, Kind, Place, Reader},
};

/// How a recipient left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SettleKind {
    /// A host took responsibility.
    Delivered = 1,
    /// Refused for good.
    Bounced = 2,
    /// Not delivered in time.
    Expired = 3,
    /// On a suppression list, never tried.
    Suppressed = 4,
    /// Taken out by an operator, without a DSN.
    Cancelled = 5,
    /// Lives on in another shard's spool, which has made it durable.
    Moved = 6,
}

impl SettleKind {
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Delivered,
            2 => Self::Bounced,
            3 => Self::Expired,
            4 => Self::Suppressed,
            5 => Self::Cancelled,
            6 => Self::Moved,
            _ => return None,
        })
    }
}

/// That recipients were settled.
#[derive(Clone, Copy, Debug)]
#[must_use = "the queue must let go of what was settled"]
pub struct Settled {
    /// No recipient of the message is left; its key means nothing any more.
    pub wholly: bool,
    /// False if there was no room for the record: a crash would try these recipients again.
    pub recorded: bool,
}

/// Payload of a settle, defer or attempt record.
pub(crate) struct OutcomeRecord<'a> {
    pub(crate) identity: u64,
    pub(crate) message: Place,
    pub(crate) how: u8,
    pub(crate) attempts: u16,
    pub(crate) next_try_ms: u64,
    pub(crate) recipients: &'a [u8],
    pub(crate) detail: &'a [u8],
}

impl<'a> OutcomeRecord<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (identity, message) = (reader.u64()?, Place::read(&mut reader)?);
        let (how, attempts, next_try_ms) = (reader.u8()?, reader.u16()?, reader.u64()?);
        let count = reader.u16()?;
        let recipients = reader.take(usize::from(count) * 2)?;
        Some(Self { identity, message, how, attempts, next_try_ms, recipients, detail: reader.0 })
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u16> + 'a {
        self.recipients.chunks_exact(2).map(|bytes| record::u16_at(bytes, 0))
    }

    fn write(&self, recipients: &[u16], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_le_bytes());
        self.message.write(out);
        out.push(self.how);
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.extend_from_slice(&self.next_try_ms.to_le_bytes());
        out.extend_from_slice(&(recipients.len() as u16).to_le_bytes());
        for recipient in recipients {
            out.extend_from_slice(&recipient.to_le_bytes());
        }
        out.extend_from_slice(self.detail);
    }
}

impl<D: Disk> Spool<D> {
    /// Is there room for outcomes? While not, nothing more should be delivered: it could not be recorded. What makes room
    /// again, compaction, keeps a segment for itself.
    #[must_use]
    pub fn room_for_outcomes(&self) -> bool {
        self.segments.room() > self.segments.capacity() + self.limits.reserve / 2
    }

    /// Ends `recipients` (numbers below the message's count; those settled before are passed over). `detail` is opaque,
    /// for the event.
    pub fn settle(&mut self, key: MessageKey, recipients: &[u16], how: SettleKind, detail: &[u8]) -> Settled {
        let recorded = self.outcome(Kind::Settle, key, recipients, how as u8, 0, 0, detail);
        let Some(entry) = self.index.get_mut(key) else { return Settled { wholly: true, recorded } };
        let states = entry.states.as_mut_slice();
        let mut ended = 0;
        for recipient in recipients {
            if let Some(state) = states.get_mut(usize::from(*recipient)).filter(|state| !state.settled) {
                state.settled = true;
                ended += 1;
            }
        }
        self.index.close(key, ended);
        let wholly = self.index.get(key).is_none_or(|entry| entry.open == 0);
        if wholly {
            self.forget(key);
        }
        Settled { wholly, recorded }
    }

    /// Keeps `recipients` for another try.
    pub fn defer(
        &mut self,
        key: MessageKey,
        recipients: &[u16],
        attempts: u16,
        next_try_ms: u64,
        detail: &[u8],
    ) -> bool {
        let recorded = self.outcome(Kind::Defer, key, recipients, 0, attempts, next_try_ms, detail);
        if let Some(entry) = self.index.get_mut(key) {
            for recipient in recipients {
                if let Some(state) = entry.states.as_mut_slice().get_mut(usize::from(*recipient)) {
                    (state.attempts, state.next_try_ms) = (attempts, next_try_ms);
                }
            }
        }
        recorded
    }

    /// Tells of a try that changed nothing. False if there was no room for it.
    pub fn attempt(&mut self, key: MessageKey, recipients: &[u16], detail: &[u8]) -> bool {
        self.outcome(Kind::Attempt, key, recipients, 0, 0, 0, detail)
    }

    #[expect(clippy::too_many_arguments, reason = "the members of one record, written in one place")]
    fn outcome(
        &mut self,
        kind: Kind,
        key: MessageKey,
        recipients: &[u16],
        how: u8,
        attempts: u16,
        next_try_ms: u64,
        detail: &[u8],
    ) -> bool {
        let Some(entry) = self.index.get(key) else { return false };
        let (identity, message) = (entry.identity, entry.place);
        self.scratch.clear();
        let outcome = OutcomeRecord { identity, message, how, attempts, next_try_ms, recipients: &[], detail };
        outcome.write(recipients, &mut self.scratch);
        let length = self.scratch.len();
        if self.commit.failed.is_some() || !self.segments.make_room(length, self.commit.durable) {
            return false;
        }
        let scratch = &self.scratch;
        let (place, sequence) =
            self.segments.write(kind, length, self.commit.durable, |at| at.copy_from_slice(scratch));
        self.segments.told(place.generation, sequence);
        self.segments.refer(place.generation, message.generation, sequence);
        true
    }

    /// Lets go of a message that is wholly settled.
    fn forget(&mut self, key: MessageKey) {
        let Some(entry) = self.index.remove(key) else { return };
        let mut chunks = std::mem::take(&mut self.compacting.chunks);
        chunks.clear();
        let mut bytes = 0;
        if let Some((header, payload)) = self.segments.read(entry.place) {
            bytes = record::size(header.length);
            if let Some(message) = MessageRecord::parse(payload) {
                chunks.extend(message.chunk_refs());
            }
        }
        self.segments.unpin(entry.place.generation, bytes);
        let settled = self.segments.next_sequence - 1;
        for chunk in &chunks {
            self.segments.unpin(chunk.place.generation, record::size(chunk.len()));
            // Until the end of the message is durable it may come back, and then needs its content.
            if let Some(segment) = self.segments.used.get_mut(&chunk.place.generation) {
                segment.durable_barrier = segment.durable_barrier.max(settled);
            }
        }
        self.compacting.chunks = chunks;
    }
}
