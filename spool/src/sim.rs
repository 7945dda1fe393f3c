//! A disk in memory that does its worst: the medium that crash tests run on. *Tests and fuzzing only.*
//!
//! It keeps apart what the medium holds and what the processor sees. A power cut loses, tears and reorders whatever was
//! not synced, sector by sector; a failed sync writes some of it and lets the rest be taken for written, as Linux does; a
//! full disk refuses new segments; the power may go in the middle of a job. All of it follows from a seed.

use crate::{
    Disk, OpenError, Prepare, Region, Spool, SyncJob, record,
    segment::{FOOT, HEAD},
};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The unit that a medium writes whole, or not at all.
const SECTOR: usize = 512;

/// Writes fail by so much more rarely than syncs do.
const WRITES_TO_A_SYNC: usize = 4;

/// A sequence of numbers that follows from its seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Default)]
struct SimFile {
    /// What the medium holds.
    durable: Vec<u8>,
    /// What the page cache holds while the file is not mapped. The first page and the foot are written by jobs only.
    cache: Vec<u8>,
    /// Sectors that a failed sync has left for written though they are not, with what they held then.
    forgotten: BTreeMap<usize, Vec<u8>>,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<u32, SimFile>,
    dice: Dice,
    nonce: u64,
    /// Files there may be; more is "no space left".
    most_files: usize,
    /// Each sync fails once in so many times; 0: never.
    sync_fails_once_in: usize,
    /// Writes by jobs until the power goes, if it will.
    fuse: Option<usize>,
    dark: bool,
}

/// The disk. Clones are the same disk: one for the spool, one for the test.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

/// A segment of it, mapped.
#[derive(Debug)]
pub struct SimRegion {
    disk: SimDisk,
    file: u32,
    bytes: Vec<u8>,
}

impl Region for SimRegion {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let failing = state.sync_fails_once_in > 0 && {
            let once_in = WRITES_TO_A_SYNC * state.sync_fails_once_in;
            state.dice.once_in(once_in)
        };
        let done = if failing { state.dice.below(bytes.len().max(1)) } else { bytes.len() };
        self.bytes[offset..offset + done].copy_from_slice(&bytes[..done]);
        if failing { Err(io::Error::other("a write failed, as it was told to")) } else { Ok(()) }
    }
}

impl Drop for SimRegion {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(file) = self.disk.state().files.get_mut(&self.file) {
            let body = body(bytes.len());
            file.cache[body.clone()].copy_from_slice(&bytes[body]);
        }
    }
}

/// The part of a segment that is written through the map.
fn body(size: usize) -> std::ops::Range<usize> {
    HEAD..size - FOOT
}

fn sectors(size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let end = size - FOOT;
    (HEAD..end).step_by(SECTOR).map(move |at| at..(at + SECTOR).min(end))
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            dice: Dice::new(seed),
            nonce: 0,
            most_files: usize::MAX,
            sync_fails_once_in: 0,
            fuse: None,
            dark: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is room for so many segments.
    pub fn set_space(&self, files: usize) {
        self.state().most_files = files;
    }

    /// From now on a sync fails once in so many times, and a write more rarely; 0: never.
    pub fn set_sync_failures(&self, once_in: usize) {
        self.state().sync_fails_once_in = once_in;
    }

    /// The power goes after so many more writes.
    pub fn set_fuse(&self, writes: Option<usize>) {
        self.state().fuse = writes;
    }

    /// The power has gone: every job fails until [`SimDisk::power_cut`].
    #[must_use]
    pub fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// What a power cut leaves, once the spool was dropped: of each unsynced sector the old or the new bytes.
    pub fn power_cut(&self) {
        let mut state = self.state();
        let State { files, dice, .. } = &mut *state;
        let keep_in = [1, 2, 2, 3, 10, usize::MAX][dice.below(6)];
        let block = if dice.once_in(2) { 1 } else { 8 };
        for file in files.values_mut() {
            let mut kept = false;
            for (number, range) in sectors(file.durable.len()).enumerate() {
                if number % block == 0 {
                    kept = dice.once_in(keep_in);
                }
                if kept && file.is_dirty(range.start, &file.cache[range.clone()]) {
                    file.durable[range.clone()].copy_from_slice(&file.cache[range]);
                }
            }
            file.cache.copy_from_slice(&file.durable);
            file.forgotten.clear();
        }
        state.dark = false;
        state.fuse = None;
    }

    /// The bytes of a segment on the medium, to be looked at or damaged while no spool is open.
    ///
    /// # Panics
    /// There is no such segment.
    pub fn tamper<T>(&self, segment: u32, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.state();
        let file = state.files.get_mut(&segment).expect("a segment that exists");
        let result = f(&mut file.durable);
        file.cache = file.durable.clone();
        result
    }

    /// Puts a file there, as a test or a fuzzer made it.
    pub fn put(&self, segment: u32, bytes: Vec<u8>) {
        let file = SimFile { cache: bytes.clone(), durable: bytes, forgotten: BTreeMap::new() };
        self.state().files.insert(segment, file);
    }

    /// Numbers of the segments.
    #[must_use]
    pub fn segments(&self) -> Vec<u32> {
        self.state().files.keys().copied().collect()
    }
}

impl SimFile {
    /// Would a sync write these bytes, found at `at`?
    fn is_dirty(&self, at: usize, bytes: &[u8]) -> bool {
        bytes != &self.durable[at..at + bytes.len()] && self.forgotten.get(&at).is_none_or(|was| was != bytes)
    }

    /// The kernel writes `bytes`, what is mapped or cached, to the medium; a failing one does half of it and forgets the rest.
    fn write_back(&mut self, bytes: &[u8], failing: Option<&mut Dice>) {
        let mut failing = failing;
        for range in sectors(bytes.len()) {
            let sector = &bytes[range.clone()];
            if !self.is_dirty(range.start, sector) {
                continue;
            }
            if failing.as_mut().is_some_and(|dice| dice.once_in(2)) {
                self.forgotten.insert(range.start, sector.to_vec());
            } else {
                self.forgotten.remove(&range.start);
                self.durable[range].copy_from_slice(sector);
            }
        }
    }
}

impl State {
    /// One write reaches the medium, unless the power goes.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            _ if self.dark => return Err(io::Error::other("the power is off")),
            Some(0) => {
                self.dark = true;
                return Err(io::Error::other("the power went"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn sync(&mut self, segment: u32, mapped: Option<&[u8]>) -> io::Result<()> {
        self.step()?;
        let fails = self.sync_fails_once_in > 0 && self.dice.once_in(self.sync_fails_once_in);
        let State { files, dice, .. } = self;
        let file = files.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let cached;
        let bytes = if let Some(mapped) = mapped {
            mapped
        } else {
            cached = file.cache.clone();
            &cached
        };
        file.write_back(bytes, fails.then_some(dice));
        if fails { Err(io::Error::other("a sync failed, as it was told to")) } else { Ok(()) }
    }

    fn prepare(&mut self, segment: u32, size: usize, head: &[u8]) -> io::Result<()> {
        self.step()?;
        if !self.files.contains_key(&segment) {
            if self.files.len() >= self.most_files {
                // A full disk, or a quota: the same has to come of both.
                let quota = self.dice.once_in(2);
                return Err(if quota { io::ErrorKind::QuotaExceeded } else { io::ErrorKind::StorageFull }.into());
            }
            // Made under another name: it is there whole or not at all.
            let mut bytes = vec![0; size];
            bytes[..head.len()].copy_from_slice(head);
            bytes[size - FOOT..][..head.len()].copy_from_slice(head);
            self.files.insert(segment, SimFile { cache: bytes.clone(), durable: bytes, forgotten: BTreeMap::new() });
            return self.step();
        }
        let foot_first = self.dice.once_in(2);
        for foot in [foot_first, !foot_first] {
            let at = if foot { size - FOOT } else { 0 };
            if let Some(file) = self.files.get_mut(&segment) {
                file.durable[at..at + head.len()].copy_from_slice(head);
                file.cache[at..at + head.len()].copy_from_slice(head);
            }
            self.step()?;
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    type Region = SimRegion;

    fn list(&self) -> io::Result<Vec<u32>> {
        Ok(self.segments())
    }

    fn refresh(&self, segment: u32) -> io::Result<()> {
        let mut state = self.state();
        state.sync(segment, None)?;
        if let Some(file) = state.files.get_mut(&segment) {
            file.cache = file.durable.clone();
            file.forgotten.clear();
        }
        Ok(())
    }

    fn refreshed(&self) -> io::Result<()> {
        Ok(())
    }

    fn suspect(&self) {}

    fn map(&mut self, segment: u32, size: usize) -> io::Result<SimRegion> {
        let bytes = self.state().files.get(&segment).ok_or(io::ErrorKind::NotFound)?.cache.clone();
        if bytes.len() < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(SimRegion { disk: self.clone(), file: segment, bytes })
    }

    fn nonce(&mut self) -> u64 {
        let mut state = self.state();
        state.nonce += 1;
        Dice::new(state.nonce).roll()
    }

    fn prepare(&self, segment: u32, size: usize, head: Vec<u8>) -> Prepare {
        let disk = self.clone();
        Box::new(move || disk.state().prepare(segment, size, &head))
    }

    fn sync(&self, segment: u32, mapped: &SimRegion) -> io::Result<()> {
        self.state().sync(segment, Some(mapped.bytes()))
    }

    fn remove(&self, segment: u32) -> Prepare {
        let disk = self.clone();
        Box::new(move || {
            let mut state = disk.state();
            state.step()?;
            state.files.remove(&segment);
            state.step()
        })
    }

    fn path(&self, segment: u32) -> PathBuf {
        PathBuf::from(format!("sim/{segment:08}.seg"))
    }
}

impl Spool<SimDisk> {
    /// Opens a spool on `disk`.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_sim(disk: &SimDisk, limits: crate::Limits) -> Result<(Self, crate::Recovery), OpenError> {
        Self::open(disk.clone(), limits)
    }

    /// Does a sync: what is mapped reaches the medium.
    ///
    /// # Errors
    /// As the disk was told to fail.
    pub fn sim_sync(&mut self, job: &SyncJob) -> io::Result<()> {
        let files: Vec<u32> = job.segments().collect();
        for file in files {
            let Some(segment) = self.segments.used.values().find(|segment| segment.file == file) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            self.disk.state().sync(file, Some(segment.region().bytes()))?;
        }
        Ok(())
    }

    /// What each segment holds, for a test that has failed.
    #[must_use]
    pub fn sim_describe(&self) -> String {
        let line = |(generation, s): (&u64, &crate::segment::Segment<SimRegion>)| {
            format!(
                "  generation {generation}: tail {}, sealed {}, {} live in {} bytes, {} notes, {} members, ends {:?}, told {}, barriers {} {}, retiring {}\n",
                s.tail,
                s.sealed,
                s.live,
                s.live_bytes,
                s.notes,
                s.members.len(),
                s.ends,
                s.last_told,
                s.told_barrier,
                s.durable_barrier,
                s.retiring
            )
        };
        let segments: String = self.segments.used.iter().map(line).collect();
        format!(
            "{segments}  {} spares, {} files, room {}, out {}, durable {}, {:?}",
            self.segments.spares.len(),
            self.segments.files(),
            self.segments.room(),
            self.outbox.acknowledged,
            self.commit.durable,
            self.usage()
        )
    }

    /// What was gathered is written, and the kernel brings some of it to the medium, unasked.
    pub fn sim_write_back(&mut self) {
        self.segments.write_out();
        for segment in self.segments.used.values() {
            let bytes = segment.region().bytes();
            let mut state = self.disk.state();
            let State { files, dice, dark, .. } = &mut *state;
            let Some(file) = files.get_mut(&segment.file).filter(|_| !*dark) else { continue };
            for range in sectors(bytes.len()) {
                if dice.once_in(3) && file.is_dirty(range.start, &bytes[range.clone()]) {
                    file.forgotten.remove(&range.start);
                    file.durable[range.clone()].copy_from_slice(&bytes[range]);
                }
            }
        }
    }
}

/// Makes the checksum of each record good again, so that damage gets past it: for fuzzing.
pub fn mend_checksums(bytes: &mut [u8]) {
    let mut at = HEAD;
    while at + record::HEADER <= bytes.len() - FOOT {
        let length = record::u32_at(bytes, at + 4) as usize;
        let end = at.saturating_add(record::size(length.min(bytes.len())));
        if length == 0 && bytes[at] == 0 || end > bytes.len() - FOOT {
            return;
        }
        record::mend(&mut bytes[at..end], length);
        at = end;
    }
}
