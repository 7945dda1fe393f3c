//! Segments: which there are, where the next record goes, what each still holds.
//!
//! A segment file begins with a page that names its size and generation. The generation rises with each use of any
//! segment and is never given out twice: it orders the log, and makes stale records of an earlier use invalid.

use crate::{
    disk::Region,
    index::MessageKey,
    record::{self, Header, Kind, Place},
};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of the first page; records begin behind it.
pub(crate) const HEAD: usize = 4096;
const MAGIC: &[u8; 8] = b"MRSPOOL1";

/// The first bytes of a segment.
///
/// `watermark` is what was durable then: all that the segment held before is below it, so that recovery does not take its
/// absence for a loss.
pub(crate) fn head_bytes(size: usize, generation: u64, watermark: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(40);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&(size as u64).to_le_bytes());
    head.extend_from_slice(&generation.to_le_bytes());
    head.extend_from_slice(&watermark.to_le_bytes());
    let crc = crc32c::crc32c(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    head
}

/// What the first page of a segment says.
pub(crate) enum HeadPage {
    /// Size, generation, watermark.
    Valid { size: u64, generation: u64, watermark: u64 },
    /// Not a segment, or damaged.
    Invalid,
}

pub(crate) fn read_head(bytes: &[u8]) -> HeadPage {
    if bytes.len() < 36 || &bytes[..8] != MAGIC || record::u32_at(bytes, 32) != crc32c::crc32c(&bytes[..32]) {
        return HeadPage::Invalid;
    }
    HeadPage::Valid {
        size: record::u64_at(bytes, 8),
        generation: record::u64_at(bytes, 16),
        watermark: record::u64_at(bytes, 24),
    }
}

/// A segment that holds records.
pub(crate) struct Segment<R> {
    pub(crate) file: u32,
    pub(crate) region: R,
    /// End of the last record.
    pub(crate) tail: usize,
    pub(crate) sealed: bool,
    /// Messages and chunks in it that belong to unsettled messages.
    pub(crate) live: u32,
    /// Bytes of these.
    pub(crate) live_bytes: u64,
    /// Notes in it that are the last of their name.
    pub(crate) notes: u32,
    /// May go only once the outbox is done up to here: outcomes that refer to its messages.
    pub(crate) told_barrier: u64,
    /// May go only once this is durable: copies of what was moved out of it.
    pub(crate) durable_barrier: u64,
    /// Last record in it that makes an event.
    pub(crate) last_told: u64,
    /// Last record in it.
    pub(crate) last: u64,
    /// Messages to look at when it is compacted; some may be gone or moved.
    pub(crate) members: Vec<MessageKey>,
    /// Generations whose messages are ended by records in here: those must go first, or they would come back.
    pub(crate) ends: SmallVec<[u64; 4]>,
    /// Its end is being made durable.
    pub(crate) retiring: bool,
    /// Recovery found holes in it: walking over its records must check each.
    pub(crate) damaged: bool,
}

/// All segments of a spool.
pub(crate) struct Segments<R> {
    size: usize,
    /// By generation; the last one is the head unless it is sealed.
    pub(crate) used: BTreeMap<u64, Segment<R>>,
    /// Empty ones with their generations, oldest first.
    pub(crate) spares: VecDeque<(u64, u32, R)>,
    /// Files that hold nothing and have no valid generation yet.
    pub(crate) blank: Vec<u32>,
    pub(crate) next_file: u32,
    pub(crate) next_generation: u64,
    pub(crate) next_sequence: u64,
    /// Files that a chore works on now.
    pub(crate) in_work: usize,
    head: u64,
    /// Generations written to since the last sync began.
    pub(crate) dirty: SmallVec<[u64; 2]>,
    live_bytes: u64,
}

impl<R: Region> Segments<R> {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            used: BTreeMap::new(),
            spares: VecDeque::new(),
            blank: Vec::new(),
            next_file: 0,
            next_generation: 1,
            next_sequence: 1,
            in_work: 0,
            head: 0,
            dirty: SmallVec::new(),
            live_bytes: 0,
        }
    }

    /// Files on disk, or about to be.
    pub(crate) fn files(&self) -> usize {
        let retiring = self.used.values().filter(|s| s.retiring).count();
        self.used.len() + self.spares.len() + self.blank.len() + self.in_work - retiring.min(self.in_work)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes that records may still take without a new segment being made.
    pub(crate) fn room(&self) -> usize {
        let head = self.used.get(&self.head).filter(|s| !s.sealed).map_or(0, |s| self.size - s.tail);
        head + self.spares.len() * (self.size - HEAD)
    }

    /// Largest payload that fits an empty segment, with the seal behind it.
    pub(crate) fn largest(&self) -> usize {
        self.size - HEAD - record::size(0) - record::HEADER - 8
    }

    /// The unsealed last segment becomes the head again, after recovery.
    pub(crate) fn resume(&mut self, generation: u64) {
        self.head = generation;
    }

    /// Makes room for a record with such a payload at the end of the log; false if no segment has it.
    pub(crate) fn make_room(&mut self, payload: usize, watermark: u64) -> bool {
        let need = record::size(payload) + record::size(0);
        if self.used.get(&self.head).is_some_and(|s| !s.sealed && self.size - s.tail >= need) {
            return true;
        }
        if self.spares.is_empty() || payload > self.largest() {
            return false;
        }
        if self.used.get(&self.head).is_some_and(|s| !s.sealed) {
            self.write(Kind::Seal, 0, watermark, |_| {});
            if let Some(head) = self.used.get_mut(&self.head) {
                head.sealed = true;
            }
        }
        let Some((generation, file, region)) = self.spares.pop_front() else { return false };
        self.used.insert(generation, Segment::new(file, region, HEAD));
        self.head = generation;
        true
    }

    /// Appends a record for which there is room; `fill` writes the payload.
    pub(crate) fn write(
        &mut self,
        kind: Kind,
        length: usize,
        watermark: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> (Place, u64) {
        let generation = self.head;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let Some(head) = self.used.get_mut(&generation) else {
            unreachable!("a record is written only after make_room gave it a head segment");
        };
        let at = &mut head.region.bytes_mut()[head.tail..];
        fill(&mut at[record::HEADER..record::HEADER + length]);
        record::seal(at, Header { kind, sequence, generation, watermark, length });
        let place = Place { generation, offset: head.tail as u32 };
        head.tail += record::size(length);
        head.last = sequence;
        if self.dirty.last() != Some(&generation) && !self.dirty.contains(&generation) {
            self.dirty.push(generation);
        }
        (place, sequence)
    }

    /// The record at `place`.
    pub(crate) fn read(&self, place: Place) -> Option<(Header, &[u8])> {
        let segment = self.used.get(&place.generation)?;
        record::parse_trusted(segment.region.bytes().get(place.offset as usize..segment.tail)?)
    }

    /// A message or chunk of `bytes` in `generation` belongs to a live message from now on.
    pub(crate) fn pin(&mut self, generation: u64, bytes: usize) {
        if let Some(segment) = self.used.get_mut(&generation) {
            segment.live += 1;
            segment.live_bytes += bytes as u64;
            self.live_bytes += bytes as u64;
        }
    }

    /// It does not any more.
    pub(crate) fn unpin(&mut self, generation: u64, bytes: usize) {
        if let Some(segment) = self.used.get_mut(&generation) {
            debug_assert!(segment.live > 0);
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(bytes as u64);
            self.live_bytes = self.live_bytes.saturating_sub(bytes as u64);
        }
    }

    /// The record `sequence` in `generation` makes an event.
    pub(crate) fn told(&mut self, generation: u64, sequence: u64) {
        if let Some(segment) = self.used.get_mut(&generation) {
            segment.last_told = sequence;
        }
    }

    /// Look at this message when `generation` is compacted.
    pub(crate) fn enrol(&mut self, generation: u64, key: MessageKey) {
        if let Some(segment) = self.used.get_mut(&generation) {
            segment.members.push(key);
        }
    }

    /// The record `sequence` in `by` speaks of a message in `of`: `of` must stay until that is out, `by` must stay until
    /// `of` is gone.
    pub(crate) fn refer(&mut self, by: u64, of: u64, sequence: u64) {
        if let Some(segment) = self.used.get_mut(&of) {
            segment.told_barrier = segment.told_barrier.max(sequence);
        }
        self.outlive(by, of);
    }

    /// `by` must stay until `of` is gone: it ends, or replaces, messages that could be read back from there.
    pub(crate) fn outlive(&mut self, by: u64, of: u64) {
        if by != of
            && let Some(segment) = self.used.get_mut(&by)
            && segment.ends.last() != Some(&of)
            && !segment.ends.contains(&of)
        {
            segment.ends.push(of);
        }
    }

    /// A sealed segment that may go, given that the outbox is done up to `out` and everything up to `durable` is on disk.
    pub(crate) fn dead(&self, out: u64, durable: u64) -> Option<u64> {
        let dead = self.used.iter().find(|(_, s)| s.is_empty(out, durable) && !self.is_bound(s));
        dead.map(|(generation, _)| *generation)
    }

    /// Must it stay for the sake of an older one?
    pub(crate) fn is_bound(&self, segment: &Segment<R>) -> bool {
        segment.ends.iter().any(|of| self.used.contains_key(of))
    }
}

impl<R> Segment<R> {
    /// Nothing in it is needed for itself.
    pub(crate) fn is_empty(&self, out: u64, durable: u64) -> bool {
        self.sealed
            && !self.retiring
            && self.live == 0
            && self.notes == 0
            && self.told_barrier <= out
            && self.last_told <= out
            && self.durable_barrier <= durable
            && self.last <= durable
    }
}

impl<R> Segment<R> {
    pub(crate) fn new(file: u32, region: R, tail: usize) -> Self {
        Self {
            file,
            region,
            tail,
            sealed: false,
            live: 0,
            live_bytes: 0,
            notes: 0,
            told_barrier: 0,
            durable_barrier: 0,
            last_told: 0,
            last: 0,
            members: Vec::new(),
            ends: SmallVec::new(),
            retiring: false,
            damaged: false,
        }
    }
}
