//! Taking a message in: reserve → fill → seal. One copy, from the caller's buffers to the group that is written next.

use crate::{
    Spool,
    commit::Position,
    disk::{Disk, Region},
    error::Full,
    index::{Entry, MessageKey, RecipientState, States},
    record::{self, Kind, Place, Reader},
    segment::Segments,
};

/// A piece of a message that is not whole yet. Give it to [`Spool::append_message`] or to [`Spool::discard_chunks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub(crate) place: Place,
    pub(crate) length: u32,
}

impl ChunkRef {
    /// Bytes of content in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// A message to keep.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// The caller's name for it, at most 64 bytes, given back with each event.
    pub id: &'a [u8],
    /// Time of acceptance, milliseconds since the epoch.
    pub accepted_ms: u64,
    /// Opaque to the store: the envelope.
    pub meta: &'a [u8],
    /// At least one.
    pub recipients: u16,
    /// Content that came before `parts`, in order.
    pub chunks: &'a [ChunkRef],
    /// The last, or only, piece of content, gathered in order.
    pub parts: &'a [&'a [u8]],
}

/// A message taken in. It is safe only once [`Spool::proof`] says so of its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its name from now on.
    pub key: MessageKey,
    /// What must be durable for it to be safe.
    pub position: Position,
}

pub(crate) const CHUNK: usize = 16;
pub(crate) const STATE: usize = 11;
const MOVED: u8 = 1;
/// One part in so many of the segments is never given to new mail, and [`OUTCOME_SEGMENTS`] at least. Outcomes can be let
/// go of only after the mail that they speak of, and compaction needs room to work in: a spool filled to the brim with
/// mail could not record its way out.
const OUTCOME_SHARE: u64 = 8;
const OUTCOME_SEGMENTS: u64 = 3;

/// Payload of a message record.
#[derive(Clone, Copy)]
pub(crate) struct MessageRecord<'a> {
    /// Sequence of the first copy; 0 in the first copy itself.
    pub(crate) identity: u64,
    pub(crate) accepted_ms: u64,
    /// Bytes of content, chunks included.
    pub(crate) total: u64,
    /// A copy made by compaction: told before.
    pub(crate) moved: bool,
    pub(crate) recipients: u16,
    pub(crate) id: &'a [u8],
    pub(crate) states: &'a [u8],
    pub(crate) chunks: &'a [u8],
    pub(crate) meta: &'a [u8],
    pub(crate) content: &'a [u8],
}

impl<'a> MessageRecord<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (identity, accepted_ms, total) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (flags, id_len, recipients, chunks) = (reader.u8()?, reader.u8()?, reader.u16()?, reader.u16()?);
        let _padding = reader.u16()?;
        let (meta_len, content_len) = (reader.u32()?, reader.u32()?);
        let moved = flags & MOVED != 0;
        let id = reader.take(usize::from(id_len))?;
        let states = reader.take(if moved { usize::from(recipients) * STATE } else { 0 })?;
        let chunks = reader.take(usize::from(chunks) * CHUNK)?;
        let meta = reader.take(meta_len as usize)?;
        let content = reader.take(content_len as usize)?;
        Some(Self { identity, accepted_ms, total, moved, recipients, id, states, chunks, meta, content })
    }

    pub(crate) fn chunk_refs(&self) -> impl DoubleEndedIterator<Item = ChunkRef> + 'a {
        self.chunks.chunks_exact(CHUNK).map(|bytes| ChunkRef {
            place: Place { generation: record::u64_at(bytes, 0), offset: record::u32_at(bytes, 8) },
            length: record::u32_at(bytes, 12),
        })
    }

    pub(crate) fn recipient_states(&self) -> impl Iterator<Item = RecipientState> + 'a {
        self.states.chunks_exact(STATE).map(RecipientState::read)
    }
}

/// Everything of a message record before its meta and content.
pub(crate) struct MessageHead<'a> {
    pub(crate) identity: u64,
    pub(crate) accepted_ms: u64,
    pub(crate) total: u64,
    pub(crate) id: &'a [u8],
    pub(crate) recipients: u16,
    /// Of a moved copy.
    pub(crate) states: Option<&'a [RecipientState]>,
    pub(crate) chunks: &'a [ChunkRef],
    pub(crate) meta_len: usize,
    pub(crate) content_len: usize,
}

impl MessageHead<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_le_bytes());
        out.extend_from_slice(&self.accepted_ms.to_le_bytes());
        out.extend_from_slice(&self.total.to_le_bytes());
        out.push(if self.states.is_some() { MOVED } else { 0 });
        out.push(self.id.len() as u8);
        out.extend_from_slice(&self.recipients.to_le_bytes());
        out.extend_from_slice(&(self.chunks.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.meta_len as u32).to_le_bytes());
        out.extend_from_slice(&(self.content_len as u32).to_le_bytes());
        out.extend_from_slice(self.id);
        write_states(self.states.unwrap_or_default(), out);
        for chunk in self.chunks {
            chunk.place.write(out);
            out.extend_from_slice(&chunk.length.to_le_bytes());
        }
    }
}

/// [`STATE`] bytes for each.
pub(crate) fn write_states(states: &[RecipientState], out: &mut Vec<u8>) {
    for state in states {
        out.push(u8::from(state.settled));
        out.extend_from_slice(&state.attempts.to_le_bytes());
        out.extend_from_slice(&state.next_try_ms.to_le_bytes());
    }
}

impl<D: Disk> Spool<D> {
    /// Keeps a piece of a message that is larger than one receive buffer.
    ///
    /// # Errors
    /// [`Full`]; nothing was kept.
    pub fn append_chunk(&mut self, parts: &[&[u8]]) -> Result<ChunkRef, Full> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.admit(length)?;
        let (place, _) = self.segments.write(Kind::Chunk, length, self.commit.durable, |at| gather(at, parts));
        self.segments.pin(place.generation, record::size(length));
        Ok(ChunkRef { place, length: length as u32 })
    }

    /// Gives up the pieces of a message that will not come to its end.
    pub fn discard_chunks(&mut self, chunks: &[ChunkRef]) {
        for chunk in chunks {
            self.segments.unpin(chunk.place.generation, record::size(chunk.len()));
        }
    }

    /// Keeps a message. It must not be acknowledged before [`Spool::proof`] of the position given back.
    ///
    /// # Errors
    /// [`Full`]; nothing was kept, the chunks are still the caller's.
    pub fn append_message(&mut self, new: &NewMessage<'_>) -> Result<Appended, Full> {
        let content_len = new.parts.iter().map(|part| part.len()).sum();
        if new.chunks.len() > usize::from(u16::MAX) {
            return Err(Full::TooLarge(content_len));
        }
        let chunked: u64 = new.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let head = MessageHead {
            identity: 0,
            accepted_ms: new.accepted_ms,
            total: chunked + content_len as u64,
            id: &new.id[..new.id.len().min(64)],
            recipients: new.recipients.max(1),
            states: None,
            chunks: new.chunks,
            meta_len: new.meta.len(),
            content_len,
        };
        self.scratch.clear();
        head.write(&mut self.scratch);
        let front = self.scratch.len();
        let length = front + new.meta.len() + content_len;
        self.admit(length)?;
        let scratch = &self.scratch;
        let (place, sequence) = self.segments.write(Kind::Message, length, self.commit.durable, |at| {
            at[..front].copy_from_slice(scratch);
            at[front..front + new.meta.len()].copy_from_slice(new.meta);
            gather(&mut at[front + new.meta.len()..], new.parts);
        });
        self.segments.told(place.generation, sequence);
        self.segments.pin(place.generation, record::size(length));
        let states = States::new(head.recipients);
        let key = self.index.insert(Entry { identity: sequence, place, open: head.recipients, states });
        member(&mut self.segments, key, place, new.chunks.iter().copied());
        Ok(Appended { key, position: Position(sequence) })
    }

    /// May new mail of so many payload bytes come in? Makes room for it.
    fn admit(&mut self, length: usize) -> Result<(), Full> {
        if let Some(failed) = &self.commit.failed {
            return Err(Full::Failed(failed.clone()));
        }
        if length > self.segments.largest() || u32::try_from(length).is_err() {
            return Err(Full::TooLarge(length));
        }
        if self.is_over_mail_share() {
            return Err(Full::NoSpace(self.over_mail_share()));
        }
        let kept = record::size(length) + record::size(0) + self.kept_from_mail();
        if self.segments.room() >= kept && self.segments.make_room(length, self.commit.durable) {
            return Ok(());
        }
        let reason = self.chores.why_full().unwrap_or_else(|| "a new segment is being made".into());
        Err(Full::NoSpace(reason))
    }

    /// Room that mail never takes: a segment for compaction, and the reserve for outcomes. The disk may be full before
    /// `max_bytes` is reached, and then nothing can be made to deliver the way out with.
    fn kept_from_mail(&self) -> usize {
        self.segments.capacity() + self.limits.reserve
    }

    /// Why there will be no room soon, if so. While [`Full::NoSpace`] is answered and this is none, a segment is being made:
    /// waiting a moment helps.
    #[must_use]
    pub fn cannot_grow(&self) -> Option<String> {
        let failed = self.commit.failed.as_ref().map(ToString::to_string);
        failed.or_else(|| self.is_over_mail_share().then(|| self.over_mail_share())).or_else(|| self.chores.why_full())
    }

    /// The rest of `max_bytes` is for what becomes of the mail that is here.
    fn is_over_mail_share(&self) -> bool {
        let most = self.limits.max_bytes / self.limits.segment_size as u64;
        self.segments.used.len() as u64 > most.saturating_sub(OUTCOME_SEGMENTS.max(most / OUTCOME_SHARE))
    }

    fn over_mail_share(&self) -> String {
        format!("max_bytes of {} is reached", self.limits.max_bytes)
    }

    pub(crate) fn full_reason(&self) -> Option<String> {
        if self.is_over_mail_share() {
            return Some(self.over_mail_share());
        }
        if self.segments.room() > self.kept_from_mail() + record::HEADER {
            return None;
        }
        Some(self.chores.why_full().unwrap_or_else(|| "a new segment is being made".into()))
    }
}

/// Remembers in each segment which messages to look at when it is compacted.
pub(crate) fn member<R: Region>(
    segments: &mut Segments<R>,
    key: MessageKey,
    place: Place,
    chunks: impl Iterator<Item = ChunkRef>,
) {
    segments.enrol(place.generation, key);
    let mut last = place.generation;
    for chunk in chunks {
        if chunk.place.generation != last {
            last = chunk.place.generation;
            segments.enrol(last, key);
        }
    }
}

fn gather(mut at: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        let (here, rest) = at.split_at_mut(part.len());
        here.copy_from_slice(part);
        at = rest;
    }
}
