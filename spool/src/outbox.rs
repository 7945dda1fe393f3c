//! The outbox: durable records that make events, in the order they were written, until they are acknowledged.

use crate::{
    Spool,
    append::MessageRecord,
    disk::Disk,
    note,
    record::{self, Kind, Place},
    segment::HEAD,
    settle::{OutcomeRecord, SettleKind},
};

/// How far events are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxKind {
    /// A message was taken in; all its recipients.
    Accepted,
    /// Recipients came to their end.
    Settled(SettleKind),
    /// Recipients were put off.
    Deferred {
        /// Tries so far.
        attempts: u16,
        /// Next try, milliseconds since the epoch.
        next_try_ms: u64,
    },
    /// A try that changed nothing.
    Attempt,
}

/// One record of the outbox.
pub struct OutboxRecord<'a> {
    /// Acknowledges this record and all before it.
    pub cursor: Cursor,
    /// What happened.
    pub kind: OutboxKind,
    /// The message's name, as given at acceptance.
    pub id: &'a [u8],
    /// Time of acceptance, milliseconds since the epoch.
    pub accepted_ms: u64,
    /// The envelope, as given at acceptance.
    pub meta: &'a [u8],
    /// Bytes of content.
    pub content_len: u64,
    /// Opaque, as given with the outcome; empty for `Accepted`.
    pub detail: &'a [u8],
    numbers: &'a [u8],
}

impl<'a> OutboxRecord<'a> {
    /// A record that is in no spool, about the first recipient of a message: to try out what is made of records.
    #[doc(hidden)]
    #[must_use]
    pub fn of_first_recipient(
        kind: OutboxKind,
        id: &'a [u8],
        accepted_ms: u64,
        meta: &'a [u8],
        content_len: u64,
        detail: &'a [u8],
    ) -> Self {
        Self { cursor: Cursor(0), kind, id, accepted_ms, meta, content_len, detail, numbers: &[0, 0] }
    }

    /// Numbers of the recipients concerned; none for `Accepted`, which concerns all.
    pub fn recipients(&self) -> impl Iterator<Item = u16> + 'a {
        self.numbers.chunks_exact(2).map(|bytes| record::u16_at(bytes, 0))
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) acknowledged: u64,
    /// Where to read on.
    generation: u64,
    offset: usize,
}

impl State {
    pub(crate) fn recovered(acknowledged: u64) -> Self {
        Self { acknowledged, generation: 0, offset: 0 }
    }
}

impl<D: Disk> Spool<D> {
    /// Gives durable records not given before to `f`, until it has had about `most` bytes of them. Returns the cursor of
    /// the last one, or none if there was none.
    pub fn read_outbox(&mut self, most: usize, mut f: impl FnMut(OutboxRecord<'_>)) -> Option<Cursor> {
        let (mut given, mut last) = (0, None);
        while given < most {
            let Some((place, next)) = self.next_record() else { break };
            let Some((header, payload)) = self.segments.read(place) else { break };
            if header.sequence > self.commit.durable {
                break;
            }
            (self.outbox.generation, self.outbox.offset) = next;
            if header.sequence <= self.outbox.acknowledged {
                continue;
            }
            let cursor = Cursor(header.sequence);
            let Some(told) = self.told(header.kind, payload, cursor) else {
                // Of a message that went because this was out already: a crash has only forgotten how far out that was.
                if matches!(header.kind, Kind::Settle | Kind::Defer | Kind::Attempt) {
                    last = Some(cursor);
                }
                continue;
            };
            given += record::size(told.meta.len() + told.detail.len());
            last = Some(told.cursor);
            f(told);
        }
        last
    }

    /// Reads again from the last acknowledged record: what was given since did not go out.
    pub fn rewind_outbox(&mut self) {
        (self.outbox.generation, self.outbox.offset) = (0, 0);
    }

    /// Events up to `cursor` are out. Recovery goes on behind it, once the note of it is durable.
    pub fn acknowledge_outbox(&mut self, cursor: Cursor) {
        if cursor.0 > self.outbox.acknowledged {
            self.outbox.acknowledged = cursor.0;
            // Without room for the note, events since the last one would be told again after a crash: allowed.
            let _ = self.note(note::OUTBOX, &cursor.0.to_le_bytes());
        }
    }

    /// The next record to look at, and where to go on behind it.
    fn next_record(&self) -> Option<(Place, (u64, usize))> {
        let (mut generation, mut offset) = (self.outbox.generation, self.outbox.offset);
        loop {
            let (found, segment) = self.segments.used.range(generation..).next()?;
            if *found != generation {
                (generation, offset) = (*found, HEAD);
            }
            if segment.last <= self.outbox.acknowledged && segment.sealed {
                // All of it is out: do not touch its pages.
                generation += 1;
                offset = HEAD;
            } else if offset < segment.tail {
                let place = Place { generation, offset: offset as u32 };
                match segment.record_at(offset) {
                    Some((header, _)) => return Some((place, (generation, offset + record::size(header.length)))),
                    // Damage that recovery has named: the next record behind it.
                    None => offset += 8,
                }
            } else if segment.sealed {
                generation += 1;
                offset = HEAD;
            } else {
                return None;
            }
        }
    }

    fn told<'a>(&'a self, kind: Kind, payload: &'a [u8], cursor: Cursor) -> Option<OutboxRecord<'a>> {
        if kind == Kind::Message {
            let message = MessageRecord::parse(payload).filter(|message| !message.moved)?;
            return Some(OutboxRecord {
                cursor,
                kind: OutboxKind::Accepted,
                id: message.id,
                accepted_ms: message.accepted_ms,
                meta: message.meta,
                content_len: message.total,
                detail: &[],
                numbers: &[],
            });
        }
        if !matches!(kind, Kind::Settle | Kind::Defer | Kind::Attempt) {
            return None;
        }
        let outcome = OutcomeRecord::parse(payload)?;
        let what = match kind {
            Kind::Settle => OutboxKind::Settled(SettleKind::from_u8(outcome.how)?),
            Kind::Defer => OutboxKind::Deferred { attempts: outcome.attempts, next_try_ms: outcome.next_try_ms },
            _ => OutboxKind::Attempt,
        };
        let (header, payload) = self.segments.read(outcome.message)?;
        let message = MessageRecord::parse(payload).filter(|_| header.kind == Kind::Message)?;
        Some(OutboxRecord {
            cursor,
            kind: what,
            id: message.id,
            accepted_ms: message.accepted_ms,
            meta: message.meta,
            content_len: message.total,
            detail: outcome.detail,
            numbers: outcome.recipients,
        })
    }
}
