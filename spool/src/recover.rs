//! Opening a spool: what the segments say, and nothing else, is the truth.
//!
//! A record counts if its checksum holds and nothing is missing before it that could have been durable later than it.
//! The first hole above the last known watermark is a torn tail: it and all behind it was never answered, and goes. A
//! hole below the watermark is damage: it is named, and what is intact behind it is kept.

use crate::{
    Limits, Spool,
    append::{ChunkRef, MessageRecord, member},
    chore, commit, compact,
    disk::{Disk, Region},
    error::OpenError,
    index::{Entry, Index, States},
    note::{self, Notes},
    outbox,
    record::{self, Header, Kind, Place},
    segment::{self, HEAD, HeadPage, Segment, Segments},
    settle::OutcomeRecord,
};
use rustc_hash::FxHashMap;
use std::io;

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Messages not wholly settled.
    pub messages: usize,
    /// Records read.
    pub records: u64,
    /// Records thrown away because they were never durable: nobody was told of them.
    pub torn: u64,
    /// Damage, a line each: what cannot be read any more, and where. Empty on a sound disk.
    pub lost: Vec<String>,
}

/// A record that was found, before it is known whether it counts.
struct Found {
    header: Header,
    offset: u32,
}

/// A segment as it was found.
struct Scanned<R> {
    file: u32,
    generation: u64,
    region: R,
    records: Vec<Found>,
}

/// All segments, and the highest watermark of their first pages.
type Scan<R> = (Vec<Scanned<R>>, u64);

impl<D: Disk> Spool<D> {
    /// Opens the spool, reads all of it, and makes the first segment if there is none. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]: the disk, or a file that is not a segment of this size.
    pub fn open(mut disk: D, limits: Limits) -> Result<(Self, Recovery), OpenError> {
        let mut recovery = Recovery::default();
        let mut segments = Segments::new(limits.segment_size);
        let (mut scanned, mut watermark) = scan_all(&mut disk, &limits, &mut segments, &mut recovery)?;
        scanned.sort_unstable_by_key(|found| found.generation);
        for found in scanned.iter().flat_map(|segment| &segment.records) {
            watermark = watermark.max(found.header.watermark);
        }
        let mut spool = Self {
            disk,
            segments,
            index: Index::default(),
            notes: Notes::default(),
            commit: commit::State::default(),
            outbox: outbox::State::default(),
            chores: chore::State::default(),
            compacting: compact::State::default(),
            scratch: Vec::new(),
            limits,
        };
        let kept = choose(&mut scanned, watermark, &mut recovery);
        spool.adopt(scanned, &kept, &mut recovery)?;
        recovery.messages = spool.index.len();
        Ok((spool, recovery))
    }

    /// Takes over what was found, of each segment the first `kept` records.
    fn adopt(
        &mut self,
        scanned: Vec<Scanned<D::Region>>,
        kept: &[usize],
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let mut last = 0;
        let mut replay = Vec::new();
        let mut torn_tails = Vec::new();
        let newest = kept.iter().rposition(|n| *n > 0);
        let mut unused = Vec::new();
        for (position, (mut segment, kept)) in scanned.into_iter().zip(kept).enumerate() {
            recovery.torn += (segment.records.len() - kept) as u64;
            recovery.records += *kept as u64;
            let torn = segment.records.len() > *kept;
            segment.records.truncate(*kept);
            let Some(end) = segment.records.last() else {
                unused.push((segment.file, segment.generation, segment.region, torn));
                continue;
            };
            last = last.max(end.header.sequence);
            let sealed = end.header.kind == Kind::Seal;
            let tail = end.offset as usize + record::size(end.header.length);
            let mut used = Segment::new(segment.file, segment.region, tail);
            used.last = end.header.sequence;
            used.damaged = has_holes(&segment.records);
            if sealed || newest != Some(position) {
                used.sealed = true;
            } else {
                self.segments.resume(segment.generation);
                // What lies behind the tail must never be taken for a record of ours again.
                if torn || has_candidates(&used.region.bytes()[tail..], segment.generation) {
                    used.region.bytes_mut()[tail..].fill(0);
                    torn_tails.push(segment.file);
                }
            }
            self.segments.used.insert(segment.generation, used);
            replay.extend(segment.records.into_iter().map(|found| (segment.generation, found)));
        }
        for file in torn_tails {
            self.blocking(file, "sync after cutting the torn tail", |disk| disk.sync(file))?;
        }
        self.segments.next_sequence = last + 1;
        self.commit = commit::State::recovered(last);
        self.replay(replay);
        for (file, generation, region, torn) in unused {
            if torn || self.segments.used.last_key_value().is_some_and(|(newest, _)| generation < *newest) {
                self.make_spare_now(file, region)?;
            } else {
                self.segments.spares.push_back((generation, file, region));
            }
        }
        if self.segments.spares.is_empty() && self.segments.room() == 0 {
            let file = self.segments.blank.pop().unwrap_or_else(|| {
                self.segments.next_file += 1;
                self.segments.next_file - 1
            });
            self.prepare_now(file)?;
        }
        Ok(())
    }

    fn replay(&mut self, records: Vec<(u64, Found)>) {
        let mut building = Building::default();
        for (generation, found) in records {
            let place = Place { generation, offset: found.offset };
            let Some((header, payload)) = self.segments.read(place) else { continue };
            match header.kind {
                Kind::Message => {
                    self.segments.told(generation, header.sequence);
                    let Some((_, payload)) = self.segments.read(place) else { continue };
                    building.message(place, header.sequence, payload);
                }
                Kind::Settle | Kind::Defer | Kind::Attempt => {
                    let Some(outcome) = OutcomeRecord::parse(payload) else { continue };
                    building.outcome(header.kind, &outcome);
                    let of = outcome.message.generation;
                    self.segments.told(generation, header.sequence);
                    self.segments.refer(generation, of, header.sequence);
                }
                Kind::Note => {
                    if let Some((name, value)) = note::parse(payload) {
                        let (name, value) = (name.to_vec(), value.to_vec());
                        self.put(&name, &value, generation, header.sequence);
                    }
                }
                Kind::Chunk | Kind::Seal => {}
            }
        }
        for (newer, older) in &building.moves {
            self.segments.outlive(*newer, *older);
        }
        let mut entries: Vec<_> = building.entries.into_values().filter(|entry| entry.open > 0).collect();
        entries.sort_unstable_by_key(|entry| entry.identity);
        let mut chunks = Vec::new();
        for entry in entries {
            chunks.clear();
            let place = entry.place;
            let Some((header, payload)) = self.segments.read(place) else { continue };
            let bytes = record::size(header.length);
            if let Some(message) = MessageRecord::parse(payload) {
                chunks.extend(message.chunk_refs());
            }
            self.segments.pin(place.generation, bytes);
            for chunk in &chunks {
                self.segments.pin(chunk.place.generation, record::size(ChunkRef::len(chunk)));
            }
            let key = self.index.insert(entry);
            member(&mut self.segments, key, place, chunks.iter().copied());
        }
        let acknowledged =
            self.noted(note::OUTBOX).and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
        self.outbox = outbox::State::recovered(acknowledged);
    }

    /// Gives a file a new generation before anything else is written, so that nothing in it can come back.
    fn make_spare_now(&mut self, file: u32, region: D::Region) -> Result<(), OpenError> {
        drop(region);
        self.prepare_now(file)
    }

    fn prepare_now(&mut self, file: u32) -> Result<(), OpenError> {
        let size = self.limits.segment_size;
        let generation = self.segments.next_generation;
        self.segments.next_generation += 1;
        let head = segment::head_bytes(size, generation, self.commit.durable);
        self.blocking(file, "make a segment", |disk| disk.prepare(file, size, head))?;
        let region = self.disk.map(file, size).map_err(|source| io_error(&self.disk, file, "map", source))?;
        self.segments.spares.push_back((generation, file, region));
        Ok(())
    }

    fn blocking(&self, file: u32, what: &'static str, job: impl FnOnce(&D) -> crate::Prepare) -> Result<(), OpenError> {
        job(&self.disk)().map_err(|source| io_error(&self.disk, file, what, source))
    }
}

fn io_error<D: Disk>(disk: &D, file: u32, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: disk.path(file), what, source }
}

/// Maps and scans every segment file.
fn scan_all<D: Disk>(
    disk: &mut D,
    limits: &Limits,
    segments: &mut Segments<D::Region>,
    recovery: &mut Recovery,
) -> Result<Scan<D::Region>, OpenError> {
    let (mut scanned, mut highest) = (Vec::new(), 0);
    let files = disk.list().map_err(|source| io_error(disk, 0, "list the directory of", source))?;
    for file in files {
        segments.next_file = segments.next_file.max(file + 1);
        let region = match disk.map(file, limits.segment_size) {
            Ok(region) => region,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let reason = format!("{error}; keep segment_size as it was when the spool was made");
                return Err(OpenError::Foreign { path: disk.path(file), reason });
            }
            Err(source) => return Err(io_error(disk, file, "map", source)),
        };
        let generation = match segment::read_head(region.bytes()) {
            HeadPage::Valid { size, generation, watermark } if size == limits.segment_size as u64 => {
                highest = highest.max(watermark);
                generation
            }
            HeadPage::Valid { size, .. } => {
                let reason = format!("a segment of {size} bytes; set segment_size = {size} or empty the spool first");
                return Err(OpenError::Foreign { path: disk.path(file), reason });
            }
            HeadPage::Invalid => {
                let Some(generation) = guess_generation(region.bytes()) else {
                    recovery
                        .lost
                        .push(format!("{}: first page unreadable, no record found", disk.path(file).display()));
                    segments.blank.push(file);
                    continue;
                };
                recovery.lost.push(format!("{}: first page unreadable, records kept", disk.path(file).display()));
                generation
            }
        };
        segments.next_generation = segments.next_generation.max(generation + 1);
        let records = scan(region.bytes(), generation);
        scanned.push(Scanned { file, generation, region, records });
    }
    Ok((scanned, highest))
}

/// The generation that the first record names, if that record is sound.
fn guess_generation(bytes: &[u8]) -> Option<u64> {
    let at = bytes.get(HEAD..)?;
    let generation = record::u64_at(at.get(..record::HEADER)?, 16);
    record::parse(at, generation).map(|_| generation)
}

/// All sound records of `generation`, in order of place.
fn scan(bytes: &[u8], generation: u64) -> Vec<Found> {
    let mut found = Vec::new();
    let mut offset = HEAD;
    while offset + record::HEADER <= bytes.len() {
        match record::parse(&bytes[offset..], generation) {
            Some((header, _)) => {
                found.push(Found { header, offset: offset as u32 });
                if header.kind == Kind::Seal {
                    break;
                }
                offset += record::size(header.length);
            }
            None => offset += 8,
        }
    }
    found
}

/// Is something between the records that is none?
fn has_holes(records: &[Found]) -> bool {
    let mut expected = HEAD;
    records.iter().any(|found| {
        let hole = found.offset as usize != expected;
        expected = found.offset as usize + record::size(found.header.length);
        hole
    })
}

fn has_candidates(bytes: &[u8], generation: u64) -> bool {
    bytes.chunks_exact(8).enumerate().any(|(word, _)| record::plausible(&bytes[word * 8..], generation))
}

/// How many records of each segment count, in order of generation. Names damage.
fn choose<R>(scanned: &mut [Scanned<R>], watermark: u64, recovery: &mut Recovery) -> Vec<usize> {
    let mut kept = vec![0; scanned.len()];
    let mut last: Option<(u64, bool)> = None;
    for (position, segment) in scanned.iter().enumerate() {
        let mut end = HEAD as u32;
        for (number, found) in segment.records.iter().enumerate() {
            let sequence = found.header.sequence;
            let (previous, sealed) = last.unwrap_or((0, true));
            if last.is_some() && sequence <= previous {
                return kept;
            }
            // What went with a retired segment is below the watermark; anything else missing up there is a torn tail.
            if sequence != previous + 1 && sequence - 1 > watermark {
                return kept;
            }
            let inside = number > 0;
            if sequence != previous + 1 && (inside || !sealed) {
                let missing = format!("records {} to {} are unreadable", previous + 1, sequence - 1);
                recovery.lost.push(format!("segment {:08}: {missing}, at byte {end}", segment.file));
            }
            if number == 0 && found.offset as usize != HEAD {
                recovery
                    .lost
                    .push(format!("segment {:08}: bytes {HEAD} to {} are unreadable", segment.file, found.offset));
            }
            last = Some((sequence, found.header.kind == Kind::Seal));
            end = found.offset + record::size(found.header.length) as u32;
            kept[position] = number + 1;
        }
    }
    kept
}

/// Messages while the log is replayed.
#[derive(Default)]
struct Building {
    entries: FxHashMap<u64, Entry>,
    /// Copies and what they replaced: newer generation, older generation.
    moves: Vec<(u64, u64)>,
}

impl Building {
    fn message(&mut self, place: Place, sequence: u64, payload: &[u8]) {
        let Some(message) = MessageRecord::parse(payload) else { return };
        let identity = if message.moved { message.identity } else { sequence };
        let mut states = States::new(message.recipients);
        for (state, was) in states.as_mut_slice().iter_mut().zip(message.recipient_states()) {
            *state = was;
        }
        let open = states.as_slice().iter().filter(|state| !state.settled).count() as u16;
        if let Some(old) = self.entries.insert(identity, Entry { identity, place, open, states })
            && old.place.generation != place.generation
        {
            self.moves.push((place.generation, old.place.generation));
        }
    }

    fn outcome(&mut self, kind: Kind, outcome: &OutcomeRecord<'_>) {
        let Some(entry) = self.entries.get_mut(&outcome.identity) else { return };
        for number in outcome.numbers() {
            let Some(state) = entry.states.as_mut_slice().get_mut(usize::from(number)) else { continue };
            match kind {
                Kind::Settle if !state.settled => {
                    state.settled = true;
                    entry.open -= 1;
                }
                Kind::Defer => (state.attempts, state.next_try_ms) = (outcome.attempts, outcome.next_try_ms),
                _ => {}
            }
        }
    }
}
