//! Opening a spool: what the segments say, and nothing else, is the truth.
//!
//! `scan.rs` finds the records and says which count; here they become the spool again.

use crate::{
    Limits, Spool,
    append::{ChunkRef, MessageRecord, member},
    census::Censuses,
    chore, commit, compact,
    damage::{Damage, Harm},
    disk::{Disk, Region},
    error::OpenError,
    index::{Entry, Index, States},
    note::{self, Notes},
    outbox,
    record::{self, Kind, Place},
    scan::{self, Found, Scanned},
    segment::{FOOT, Head, Segment, Segments, Spare},
    settle::OutcomeRecord,
    view::ReadChunk as _,
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
    /// What cannot be read any more, and where. Empty on a sound disk.
    pub lost: Vec<Damage>,
    /// Segments of which a torn tail was cut off.
    pub cut: Vec<u32>,
}

/// A file that holds no record that counts.
struct Unused<R> {
    file: u32,
    head: Head,
    region: R,
    /// It must be made ready anew before it is used: something in it could be taken for a record of ours.
    stale: bool,
}

impl<D: Disk> Spool<D> {
    /// Opens the spool, reads all of it, and makes the first segment if there is none. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]: the disk, or a file that is not a segment of this size.
    pub fn open(mut disk: D, limits: Limits) -> Result<(Self, Recovery), OpenError> {
        let mut recovery = Recovery::default();
        let mut segments = Segments::new(limits.segment_size);
        let scanned = scan::all(&mut disk, &limits, &mut segments, &mut recovery)?;
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
        let kept = scan::choose(&scanned, &mut recovery);
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
        let newest = kept.iter().rposition(|n| *n > 0);
        let mut unused = Vec::new();
        for (position, (mut segment, kept)) in scanned.into_iter().zip(kept).enumerate() {
            recovery.torn += (segment.records.len() - kept) as u64;
            recovery.records += *kept as u64;
            let torn = segment.records.len() > *kept;
            segment.records.truncate(*kept);
            let Scanned { file, head, agree, region, records } = segment;
            if torn {
                recovery.cut.push(file);
            }
            let Some(end) = records.last() else {
                unused.push(Unused { file, head, region, stale: torn || !agree });
                continue;
            };
            last = last.max(end.last);
            let sealed = end.header.kind == Kind::Seal;
            let tail = end.offset as usize + record::size(end.header.length);
            let mut used = Segment::new(file, head.stamp, region, tail);
            used.last = end.last;
            used.damaged = scan::has_holes(&records);
            if sealed || newest != Some(position) {
                used.sealed = true;
            } else {
                self.segments.resume(head.generation);
                let behind = tail..self.limits.segment_size - FOOT;
                // What lies behind the tail must never be taken for a record of ours again.
                let rest = scan::has_candidates(&used.region().bytes()[behind.clone()], head.stamp);
                if rest && !torn {
                    recovery.cut.push(file);
                }
                if torn || rest {
                    let zeros = vec![0; behind.len()];
                    let cut = used.region_mut().write(tail, &zeros).and_then(|()| self.disk.sync(file, used.region()));
                    cut.map_err(|source| io_error(&self.disk, file, "cut the torn tail", source))?;
                }
            }
            self.segments.used.insert(head.generation, used);
            replay.extend(records.into_iter().map(|found| (head.generation, found)));
        }
        self.segments.next_sequence = last + 1;
        self.commit = commit::State::recovered(last);
        self.replay(replay, recovery);
        for Unused { file, head, region, stale } in unused {
            let Head { generation, stamp, .. } = head;
            if stale || self.segments.used.last_key_value().is_some_and(|(newest, _)| generation < *newest) {
                drop(region);
                self.prepare_now(file)?;
            } else {
                self.segments.add_spare(Spare { generation, stamp, file, region });
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

    fn replay(&mut self, records: Vec<(u64, Found)>, recovery: &mut Recovery) {
        let mut building = Building { censuses: self.censuses(&records), ..Building::default() };
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
                    let of = outcome.message.generation;
                    let counted = building.censuses.after(of, header.sequence).is_some();
                    if !counted {
                        building.outcome(header.kind, &outcome);
                    }
                    self.segments.told(generation, header.sequence);
                    self.segments.tell_of(of, header.sequence);
                    if !counted {
                        self.segments.outlive(generation, of);
                    }
                }
                Kind::Note => {
                    if let Some((name, value)) = note::parse(payload) {
                        let (name, value) = (name.to_vec(), value.to_vec());
                        self.put(&name, &value, generation, header.sequence);
                    }
                }
                Kind::Chunk | Kind::Seal | Kind::Lost | Kind::Census => {}
            }
        }
        for (subject, census) in building.censuses.iter() {
            self.segments.outlive(census.by, subject);
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
                if chunks.iter().any(|chunk| self.segments.chunk(*chunk).len() != chunk.len()) {
                    recovery.lost.push(self.maimed(place, bytes, message.id));
                }
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

    fn censuses(&self, records: &[(u64, Found)]) -> Censuses {
        let mut censuses = Censuses::default();
        for (generation, found) in records.iter().filter(|(_, found)| found.header.kind == Kind::Census) {
            let place = Place { generation: *generation, offset: found.offset };
            if let Some((header, payload)) = self.segments.read(place) {
                censuses.take(*generation, header.sequence, payload);
            }
        }
        censuses
    }

    /// Names a message that is not whole any more.
    fn maimed(&self, place: Place, bytes: usize, id: &[u8]) -> Damage {
        let segment = self.segments.used.get(&place.generation).map_or(0, |segment| segment.file);
        let start = u64::from(place.offset);
        let what = Harm::Message { id: id.to_vec() };
        Damage { segment, bytes: start..start + bytes as u64, what, lost: Vec::new() }
    }

    /// Gives a file a new generation and stamp before anything else is written, so that nothing in it can come back.
    fn prepare_now(&mut self, file: u32) -> Result<(), OpenError> {
        let size = self.limits.segment_size;
        let generation = self.segments.next_generation;
        self.segments.next_generation += 1;
        let stamp = self.disk.nonce();
        let head = Head { size: size as u64, generation, stamp, watermark: self.commit.durable };
        self.blocking(file, "make a segment", |disk| disk.prepare(file, size, head.to_bytes()))?;
        let region = self.disk.map(file, size).map_err(|source| io_error(&self.disk, file, "map", source))?;
        self.segments.add_spare(Spare { generation, stamp, file, region });
        Ok(())
    }

    fn blocking(&self, file: u32, what: &'static str, job: impl FnOnce(&D) -> crate::Prepare) -> Result<(), OpenError> {
        job(&self.disk)().map_err(|source| io_error(&self.disk, file, what, source))
    }
}

pub(crate) fn io_error<D: Disk>(disk: &D, file: u32, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: disk.path(file), what, source }
}

/// Messages while the log is replayed.
#[derive(Default)]
struct Building {
    entries: FxHashMap<u64, Entry>,
    /// Copies and what they replaced: newer generation, older generation.
    moves: Vec<(u64, u64)>,
    censuses: Censuses,
}

impl Building {
    fn message(&mut self, place: Place, sequence: u64, payload: &[u8]) {
        let Some(message) = MessageRecord::parse(payload) else { return };
        let identity = if message.moved { message.identity } else { sequence };
        let mut states = States::new(message.recipients);
        for (state, was) in states.as_mut_slice().iter_mut().zip(message.recipient_states()) {
            *state = was;
        }
        if let Some(census) = self.censuses.after(place.generation, sequence) {
            let Some(counted) = census.states(identity) else {
                // It had ended, or was moved on; what it was a copy of counts for nothing either way.
                let replaced = self.entries.remove(&identity).map(|old| old.place.generation);
                self.moves.extend(replaced.filter(|old| *old != place.generation).map(|old| (place.generation, old)));
                return;
            };
            // Both speak of the same message unless a checksum has missed something.
            if counted.as_slice().len() == states.as_slice().len() {
                states = counted;
            }
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
