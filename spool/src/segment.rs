//! Segments: which there are, where the next record goes, what each still holds.
//!
//! A segment file begins with a page that names its size and generation, and ends with a copy of it: a bad block costs at
//! most one of the two. The generation rises with each use of any segment and is never given out twice: it orders the
//! log. The stamp is drawn anew for each use and stands in each record: it makes stale and forged records invalid.

use crate::{
    disk::Region,
    index::MessageKey,
    record::{self, Header, Kind, Place},
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

/// Bytes of the first page; records begin behind it.
pub(crate) const HEAD: usize = 4096;
/// Bytes at the end that hold the second copy of the head; records end before it.
pub(crate) const FOOT: usize = 512;
/// Gathered records are written at the latest when there are so many bytes of them.
const GATHER: usize = 256 << 10;
const MAGIC: &[u8; 8] = b"MRSPOOL1";
/// Bytes of a head that say something.
const HEAD_USED: usize = 44;

/// What the first page of a segment says, and its last sector again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Place of this use in the order of the log.
    pub(crate) generation: u64,
    /// Random number that each record of this use carries.
    pub(crate) stamp: u64,
    /// What was durable when the segment was made ready: all that it held before is below it, so that recovery does not
    /// take its absence for a loss.
    pub(crate) watermark: u64,
}

impl Head {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_USED);
        bytes.extend_from_slice(MAGIC);
        for number in [self.size, self.generation, self.stamp, self.watermark] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// One copy, from its first byte on.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let used = bytes.get(..HEAD_USED)?;
        if &used[..8] != MAGIC || record::u32_at(used, 40) != crc32c::crc32c(&used[..40]) {
            return None;
        }
        Some(Self {
            size: record::u64_at(used, 8),
            generation: record::u64_at(used, 16),
            stamp: record::u64_at(used, 24),
            watermark: record::u64_at(used, 32),
        })
    }

    /// The copy in front, and the one at the end.
    pub(crate) fn copies(bytes: &[u8]) -> (Option<Self>, Option<Self>) {
        (Self::read(bytes), bytes.len().checked_sub(FOOT).and_then(|at| Self::read(&bytes[at..])))
    }

    /// Reads both copies. The newer one counts: a power cut may have come between them. Also whether both say so.
    pub(crate) fn read_both(bytes: &[u8]) -> Option<(Self, bool)> {
        let (front, back) = Self::copies(bytes);
        let newest = front.into_iter().chain(back).max_by_key(|head| head.generation)?;
        Some((newest, front == back))
    }
}

/// An empty segment, ready to be the next head.
pub(crate) struct Spare<R> {
    pub(crate) generation: u64,
    pub(crate) stamp: u64,
    pub(crate) file: u32,
    pub(crate) region: R,
}

/// A segment that holds records.
pub(crate) struct Segment<R> {
    pub(crate) file: u32,
    pub(crate) stamp: u64,
    region: R,
    /// Records behind those that the region has: a group is gathered here, and written at once. Only the head has any.
    gathered: Vec<u8>,
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
    /// Live messages that compaction could not move, and need not look at again.
    pub(crate) unmovable: Vec<MessageKey>,
    /// Generations whose messages are ended by records in here: those must go first, or they would come back.
    pub(crate) ends: SmallVec<[u64; 4]>,
    /// Its end is being made durable.
    pub(crate) retiring: bool,
    /// Recovery found holes in it: walking over its records must check each.
    pub(crate) damaged: bool,
}

/// All segments of a spool.
pub(crate) struct Segments<R> {
    /// Where records must end.
    end: usize,
    /// By generation; the last one is the head unless it is sealed.
    pub(crate) used: BTreeMap<u64, Segment<R>>,
    /// Empty ones, in order of generation: used in another order, the log would have none.
    pub(crate) spares: VecDeque<Spare<R>>,
    /// Files that hold nothing and have no valid generation yet.
    pub(crate) blank: Vec<u32>,
    pub(crate) next_file: u32,
    pub(crate) next_generation: u64,
    pub(crate) next_sequence: u64,
    /// Files that a chore makes now; those that it retires are among `used` until they are.
    pub(crate) in_work: usize,
    head: u64,
    /// Generations written to since the last sync began.
    pub(crate) dirty: SmallVec<[u64; 2]>,
    /// A write has failed: what is on disk is uncertain from there on.
    broken: Option<io::Error>,
    live_bytes: u64,
}

impl<R: Region> Segments<R> {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            end: size - FOOT,
            used: BTreeMap::new(),
            spares: VecDeque::new(),
            blank: Vec::new(),
            next_file: 0,
            next_generation: 1,
            next_sequence: 1,
            in_work: 0,
            head: 0,
            dirty: SmallVec::new(),
            broken: None,
            live_bytes: 0,
        }
    }

    /// Files on disk, or about to be.
    pub(crate) fn files(&self) -> usize {
        self.used.len() + self.spares.len() + self.blank.len() + self.in_work
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes that records may take in an empty segment.
    pub(crate) fn capacity(&self) -> usize {
        self.end - HEAD
    }

    /// Bytes that records may still take without a new segment being made.
    pub(crate) fn room(&self) -> usize {
        let head = self.used.get(&self.head).filter(|s| !s.sealed).map_or(0, |s| self.end - s.tail);
        head + self.spares.len() * (self.end - HEAD)
    }

    /// Would records with these payloads, one after the other, find room? What is left at the end of a segment is no use to
    /// a record that is larger.
    pub(crate) fn room_for(&self, payloads: impl Iterator<Item = usize>) -> bool {
        let mut left = self.used.get(&self.head).filter(|s| !s.sealed).map_or(0, |s| self.end - s.tail);
        let mut spares = self.spares.len();
        for payload in payloads {
            let need = record::size(payload) + record::size(0);
            if left < need {
                if spares == 0 || payload > self.largest() {
                    return false;
                }
                spares -= 1;
                left = self.end - HEAD;
            }
            left -= record::size(payload);
        }
        true
    }

    /// Largest payload that fits an empty segment, with the seal behind it.
    pub(crate) fn largest(&self) -> usize {
        self.end - HEAD - record::size(0) - record::HEADER - 8
    }

    /// The unsealed last segment becomes the head again, after recovery.
    pub(crate) fn resume(&mut self, generation: u64) {
        self.head = generation;
    }

    /// Makes room for a record with such a payload at the end of the log; false if no segment has it.
    pub(crate) fn make_room(&mut self, payload: usize, watermark: u64) -> bool {
        let need = record::size(payload) + record::size(0);
        if self.used.get(&self.head).is_some_and(|s| !s.sealed && self.end - s.tail >= need) {
            return true;
        }
        if self.spares.is_empty() || payload > self.largest() {
            return false;
        }
        let mut gathered = Vec::new();
        if self.used.get(&self.head).is_some_and(|s| !s.sealed) {
            self.write(Kind::Seal, 0, watermark, |_| {});
            self.write_out();
            if let Some(head) = self.used.get_mut(&self.head) {
                // What could not be written stays where it is read from; else the buffer is used again.
                if head.gathered.is_empty() {
                    gathered = std::mem::take(&mut head.gathered);
                }
                head.sealed = true;
                head.region.sealed();
                head.members.shrink_to_fit();
            }
        }
        let Some(Spare { generation, stamp, file, region }) = self.spares.pop_front() else { return false };
        debug_assert!(generation > self.head);
        self.used.insert(generation, Segment { gathered, ..Segment::new(file, stamp, region, HEAD) });
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
        let begin = head.gathered.len();
        head.gathered.resize(begin + record::size(length), 0);
        let at = &mut head.gathered[begin..];
        fill(&mut at[record::HEADER..record::HEADER + length]);
        record::seal(at, Header { kind, sequence, stamp: head.stamp, watermark, length });
        let place = Place { generation, offset: head.tail as u32 };
        head.tail += record::size(length);
        head.last = sequence;
        if self.dirty.last() != Some(&generation) && !self.dirty.contains(&generation) {
            self.dirty.push(generation);
        }
        if head.gathered.len() >= GATHER {
            self.write_out();
        }
        (place, sequence)
    }

    /// Writes what was gathered to the head segment.
    pub(crate) fn write_out(&mut self) {
        let Some(head) = self.used.get_mut(&self.head).filter(|head| !head.gathered.is_empty()) else { return };
        // After a failure it is kept, to be read; nothing of it will ever count as durable.
        if self.broken.is_none() {
            match head.region.write(head.written(), &head.gathered) {
                Ok(()) => head.gathered.clear(),
                Err(error) => self.broken = Some(error),
            }
        }
    }

    /// Why writing has failed, if it has.
    pub(crate) fn broken(&self) -> Option<&io::Error> {
        self.broken.as_ref()
    }

    /// The record at `place`.
    pub(crate) fn read(&self, place: Place) -> Option<(Header, &[u8])> {
        let segment = self.used.get(&place.generation)?;
        segment.record_at(place.offset as usize)
    }

    /// An empty segment is ready; also after recovery, which finds them in any order.
    pub(crate) fn add_spare(&mut self, spare: Spare<R>) {
        let at = self.spares.partition_point(|other| other.generation < spare.generation);
        self.spares.insert(at, spare);
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
        self.tell_of(of, sequence);
        self.outlive(by, of);
    }

    /// The record `sequence` speaks of a message in `of`, which must stay until that is out.
    pub(crate) fn tell_of(&mut self, of: u64, sequence: u64) {
        if let Some(segment) = self.used.get_mut(&of) {
            segment.told_barrier = segment.told_barrier.max(sequence);
        }
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

impl<R: Region> Segment<R> {
    /// The record at `offset`. Where recovery found holes, a place may point into one: there each record is checked.
    pub(crate) fn record_at(&self, offset: usize) -> Option<(Header, &[u8])> {
        let written = self.written();
        let at = match offset.checked_sub(written) {
            Some(offset) => self.gathered.get(offset..)?,
            None => self.region.bytes().get(offset..written)?,
        };
        if self.damaged { record::parse(at, self.stamp) } else { record::parse_trusted(at) }
    }
}

impl<R> Segment<R> {
    /// End of what the region has.
    fn written(&self) -> usize {
        self.tail - self.gathered.len()
    }

    /// The bytes, to use for another segment.
    pub(crate) fn into_region(self) -> R {
        self.region
    }

    pub(crate) fn region(&self) -> &R {
        &self.region
    }

    pub(crate) fn region_mut(&mut self) -> &mut R {
        &mut self.region
    }

    /// The events of its records, and of those that speak of its messages, are out.
    pub(crate) fn is_told(&self, out: u64) -> bool {
        self.told_barrier <= out && self.last_told <= out
    }

    /// Nothing in it is needed for itself.
    pub(crate) fn is_empty(&self, out: u64, durable: u64) -> bool {
        self.sealed
            && !self.retiring
            && self.live == 0
            && self.notes == 0
            && self.is_told(out)
            && self.durable_barrier <= durable
            && self.last <= durable
    }

    pub(crate) fn new(file: u32, stamp: u64, region: R, tail: usize) -> Self {
        Self {
            file,
            stamp,
            region,
            gathered: Vec::new(),
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
            unmovable: Vec::new(),
            ends: SmallVec::new(),
            retiring: false,
            damaged: false,
        }
    }
}
