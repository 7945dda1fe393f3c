//! Compaction: the few live messages of an old segment go to the head of the log, so that it can be used again.

use crate::{
    MessageKey, Spool,
    append::{ChunkRef, MessageHead, MessageRecord, member},
    disk::Disk,
    record::{self, Kind},
    view::ReadChunk as _,
};

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Reused list of chunks.
    pub(crate) chunks: Vec<ChunkRef>,
    pub(crate) buffer: Vec<u8>,
}

impl<D: Disk> Spool<D> {
    /// Moves up to about `budget` bytes; true if there is more to do now. Cheap when there is nothing to do.
    pub fn compact(&mut self, budget: usize) -> bool {
        let (out, durable) = (self.outbox.acknowledged, self.commit.durable);
        let only_notes = |s: &crate::segment::Segment<D::Region>| s.sealed && s.live == 0 && s.notes > 0 && !s.retiring;
        if let Some(generation) = self.segments.used.iter().find(|(_, s)| only_notes(s)).map(|(g, _)| *g) {
            self.carry_notes(generation);
        }
        if self.take_census(out, durable, self.is_tight()) {
            return true;
        }
        let Some(victim) = self.victim(out, durable) else { return false };
        let mut moved = 0;
        while moved < budget {
            let Some(segment) = self.segments.used.get_mut(&victim) else { return false };
            let Some(key) = segment.members.pop() else { return false };
            match self.relocate(key, victim) {
                Some(0) => {
                    if self.lives_in(key, victim)
                        && let Some(segment) = self.segments.used.get_mut(&victim)
                    {
                        segment.unmovable.push(key);
                    }
                }
                Some(bytes) => moved += bytes,
                None => {
                    if let Some(segment) = self.segments.used.get_mut(&victim) {
                        segment.members.push(key);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// The segment to empty next: the root of a chain that holds up many dead ones though a census could not help, one that
    /// is nearly dead, or, when room is short, whichever gives most for least. Only one that can be emptied wholly: half of it moved would free nothing.
    fn victim(&self, out: u64, durable: u64) -> Option<u64> {
        let tight = self.is_tight();
        let room = self.segments.room() as u64;
        let size = self.limits.segment_size as u64;
        // While its events are not out, a segment stays, emptied or not: to empty it would only take room, which deliveries
        // need when the event log has none to write to.
        let candidates = || {
            let sealed = self.segments.used.iter().filter(|(_, s)| s.sealed && !s.retiring && s.is_told(out));
            sealed.filter(|(_, s)| s.live > 0 && !s.members.is_empty())
        };
        // A bound segment may itself hold up others; the root of each chain has live messages.
        let bound = || self.segments.used.values().filter(|s| s.is_empty(out, durable) && self.segments.is_bound(s));
        let held = bound().count() as u64 * size;
        if held > 0 && (tight || held > self.segments.live_bytes() / 2 + 8 * size) {
            let roots = bound().flat_map(|s| s.ends.iter().copied());
            let oldest = roots.filter(|generation| self.segments.used.contains_key(generation)).min();
            let root = candidates().find(|(generation, s)| Some(**generation) == oldest && s.live_bytes < room);
            if let Some((generation, _)) = root {
                return Some(*generation);
            }
        }
        // Short of room, the last of it is for a segment that gains an eighth of one at least and is not held by another;
        // otherwise the last segment is left for such times.
        let (most, left) = match tight {
            true => (size * 7 / 8, 0),
            false => (size * u64::from(self.limits.compact_below_percent) / 100, self.segments.capacity() as u64),
        };
        let fits = candidates().filter(|(_, s)| s.live_bytes <= most && s.live_bytes + left < room);
        let fits = fits.filter(|(_, s)| !tight || !self.segments.is_bound(s));
        fits.min_by_key(|(_, s)| s.live_bytes).map(|(generation, _)| *generation)
    }

    /// No segment is free, or nearly none, and none can be made.
    fn is_tight(&self) -> bool {
        let full = (self.segments.files() as u64 + 1) * self.limits.segment_size as u64 > self.limits.max_bytes;
        self.segments.spares.len() <= 1 && (full || self.chores.why_full().is_some())
    }

    /// Is its record in this segment?
    pub(crate) fn lives_in(&self, key: MessageKey, generation: u64) -> bool {
        self.index.get(key).is_some_and(|entry| entry.place.generation == generation)
    }

    /// Copies one message out of `victim`. Bytes moved (0 if it was gone already), or none if there is no room.
    fn relocate(&mut self, key: MessageKey, victim: u64) -> Option<usize> {
        let Some(entry) = self.index.get(key) else { return Some(0) };
        let (identity, old) = (entry.identity, entry.place);
        let Some((header, payload)) = self.segments.read(old) else { return Some(0) };
        let old_size = record::size(header.length);
        let Some(message) = MessageRecord::parse(payload) else { return Some(0) };
        let mut chunks: Vec<_> = message.chunk_refs().collect();
        if old.generation != victim && chunks.iter().all(|chunk| chunk.place.generation != victim) {
            return Some(0);
        }
        // One that is damaged stays where it is until it has been bounced.
        if chunks.iter().any(|chunk| self.segments.chunk(*chunk).len() != chunk.len()) {
            return Some(0);
        }
        let states = entry.states.as_slice();
        let head = |chunks: &[ChunkRef], out: &mut Vec<u8>| {
            out.clear();
            let head = MessageHead {
                identity,
                accepted_ms: message.accepted_ms,
                total: message.total,
                id: message.id,
                recipients: message.recipients,
                states: Some(states),
                chunks,
                meta_len: message.meta.len(),
                content_len: message.content.len(),
            };
            head.write(out);
            out.extend_from_slice(message.meta);
            out.extend_from_slice(message.content);
        };
        let mut buffer = std::mem::take(&mut self.compacting.buffer);
        head(&chunks, &mut buffer);
        let carried = chunks.iter().filter(|c| c.place.generation == victim).map(ChunkRef::len);
        let fits = buffer.len() <= self.segments.largest();
        // All of it or nothing: a chunk that was copied without its message would be let go of twice. The last of the room
        // is for this, not for outcomes: it is what makes room again.
        let room = self.segments.room_for(carried.chain([buffer.len()]));
        self.compacting.buffer = buffer;
        if !fits || !room {
            return (!fits).then_some(0);
        }
        for chunk in chunks.iter_mut().filter(|chunk| chunk.place.generation == victim) {
            *chunk = self.copy_chunk(*chunk)?;
        }
        self.rewrite(key, old_size, victim, &chunks)
    }

    fn copy_chunk(&mut self, chunk: ChunkRef) -> Option<ChunkRef> {
        let length = chunk.len();
        if !self.segments.make_room(length, self.commit.durable) {
            return None;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(self.segments.read(chunk.place)?.1);
        let scratch = &self.scratch;
        let (place, sequence) =
            self.segments.write(Kind::Chunk, length, self.commit.durable, |at| at.copy_from_slice(scratch));
        self.segments.pin(place.generation, record::size(length));
        self.moved_out(chunk.place.generation, place.generation, sequence, record::size(length));
        Some(ChunkRef { place, length: chunk.length })
    }

    /// Writes the record in `compacting.buffer` anew, with these chunks, and lets go of the old one.
    fn rewrite(&mut self, key: MessageKey, old_size: usize, victim: u64, chunks: &[ChunkRef]) -> Option<usize> {
        let buffer = std::mem::take(&mut self.compacting.buffer);
        let done = (|| {
            let length = buffer.len();
            if !self.segments.make_room(length, self.commit.durable) {
                return None;
            }
            let message = MessageRecord::parse(&buffer)?;
            let refs = message.chunks.as_ptr() as usize - buffer.as_ptr() as usize;
            let (place, sequence) = self.segments.write(Kind::Message, length, self.commit.durable, |at| {
                at.copy_from_slice(&buffer);
                for (chunk, at) in chunks.iter().zip(at[refs..].chunks_exact_mut(crate::append::CHUNK)) {
                    at[..8].copy_from_slice(&chunk.place.generation.to_le_bytes());
                    at[8..12].copy_from_slice(&chunk.place.offset.to_le_bytes());
                    at[12..].copy_from_slice(&chunk.length.to_le_bytes());
                }
            });
            self.segments.pin(place.generation, record::size(length));
            let old = std::mem::replace(&mut self.index.get_mut(key)?.place, place);
            self.moved_out(old.generation, place.generation, sequence, old_size);
            // Until this record is durable the old one counts, and it names the old chunks.
            if let Some(segment) = self.segments.used.get_mut(&victim) {
                segment.durable_barrier = segment.durable_barrier.max(sequence);
            }
            member(&mut self.segments, key, place, chunks.iter().copied());
            Some(record::size(length))
        })();
        self.compacting.buffer = buffer;
        done
    }

    /// `bytes` of `from` live on in `to`, as record `sequence`.
    fn moved_out(&mut self, from: u64, to: u64, sequence: u64, bytes: usize) {
        self.segments.unpin(from, bytes);
        if let Some(segment) = self.segments.used.get_mut(&from) {
            segment.durable_barrier = segment.durable_barrier.max(sequence);
        }
        self.segments.outlive(to, from);
    }
}
