//! Looking into a spool that no server has open, without changing a byte of it. *Offline tools only.*
//!
//! What a server would find at its start is found here by the same code, on a disk that takes every write and keeps none.

use crate::{
    Damage, Harm, Limits, MessageView, OpenError, Prepare, Recovery, Region, SettleKind, Spool, Usage,
    append::{ChunkRef, MessageRecord},
    disk::{Disk, SUSPICION, file_name, io_error, locked, number, read_anew},
    index::RecipientState,
    map::Mapped,
    record::{self, Header, Kind, Place, size, u64_at},
    scan,
    segment::{FOOT, HEAD, Head},
    settle::OutcomeRecord,
    view::ReadChunk,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Bytes read at once to see whether the medium gives them.
const PIECE: usize = 256 << 10;
/// Below that, what cannot be read is found out a page at a time.
const PAGE: usize = 4096;

/// A spool as its files are. Holds the lock: no server can start on it meanwhile.
pub struct Inspection {
    pub(crate) spool: Spool<Still>,
    recovery: Recovery,
    /// Ends of recipients that are on record, by message.
    ends: BTreeMap<u64, Vec<(u16, SettleKind)>>,
    /// Where the last copy of each message lies, settled ones included.
    places: BTreeMap<u64, Place>,
}

/// A message of an inspected spool.
pub struct Kept<'a> {
    /// The message; of a settled one the states of the recipients as far as records tell.
    pub view: MessageView<'a>,
    /// Some recipient is not settled.
    pub live: bool,
    /// How recipients came to their ends, by number.
    pub ends: &'a [(u16, SettleKind)],
}

impl Inspection {
    /// Reads all of the spool in `directory`; `on_read` hears of bytes as they are read. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]: no such directory, in use, or not a spool. Damage is no error.
    pub fn open(directory: &Path, on_read: Box<dyn FnMut(u64)>) -> Result<Self, OpenError> {
        let disk = Still::open(directory, on_read)?;
        let limits = Limits { segment_size: disk.size, max_bytes: u64::MAX, ..Limits::default() };
        let (spool, mut recovery) = Spool::open(disk, limits)?;
        recovery.lost.extend(spool.disk.faults.iter().cloned());
        recovery.lost.sort_by_key(|damage| (damage.segment, damage.bytes.start, damage.bytes.end));
        recovery.lost.dedup();
        let mut inspection = Self { spool, recovery, ends: BTreeMap::new(), places: BTreeMap::new() };
        inspection.read_ends();
        Ok(inspection)
    }

    /// What a server would find, and what is damaged.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let files = self.spool.disk.files.len() as u64;
        Usage { segments: files, bytes: files * self.spool.disk.size as u64, full: None, ..self.spool.usage() }
    }

    /// Bytes of one segment.
    #[must_use]
    pub fn segment_size(&self) -> usize {
        self.spool.disk.size
    }

    /// Messages on record, settled ones that are still there included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// No message is on record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How recipients of a message, also of a lost one, came to their ends.
    #[must_use]
    pub fn ends(&self, identity: u64) -> &[(u16, SettleKind)] {
        self.ends.get(&identity).map_or(&[], Vec::as_slice)
    }

    /// The caller's name for the message with this identity, if it stands anywhere in the spool, sound.
    #[must_use]
    pub fn name(&self, identity: u64) -> Option<&[u8]> {
        let (_, payload) = self.spool.segments.read(*self.places.get(&identity)?)?;
        MessageRecord::parse(payload).map(|message| message.id)
    }

    /// All messages, in order of acceptance; settled ones as long as their segment is not used again.
    pub fn for_each(&self, mut f: impl FnMut(Kept<'_>)) {
        let live: BTreeMap<_, _> = self.spool.index.iter().map(|(key, entry)| (entry.identity, key)).collect();
        for (identity, place) in &self.places {
            let ends = self.ends(*identity);
            if let Some(view) = live.get(identity).and_then(|key| self.spool.message(*key)) {
                f(Kept { view, live: true, ends });
                continue;
            }
            let Some((_, payload)) = self.spool.segments.read(*place) else { continue };
            let Some(message) = MessageRecord::parse(payload) else { continue };
            let states = states(&message, ends);
            f(Kept { view: MessageView::of(&message, &states, &self.spool.segments), live: false, ends });
        }
    }

    fn read_ends(&mut self) {
        let (mut ends, mut places) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        self.for_each_record(|place, header, payload| match header.kind {
            Kind::Message => {
                let Some(message) = MessageRecord::parse(payload) else { return };
                let identity = if message.moved { message.identity } else { header.sequence };
                places.insert(identity, place);
            }
            Kind::Settle => {
                let Some(outcome) = OutcomeRecord::parse(payload) else { return };
                let Some(how) = SettleKind::from_u8(outcome.how) else { return };
                ends.entry(outcome.identity).or_default().extend(outcome.numbers().map(|number| (number, how)));
            }
            _ => {}
        });
        (self.ends, self.places) = (ends, places);
    }

    /// Every record that counts, in order.
    pub(crate) fn for_each_record(&self, mut f: impl FnMut(Place, Header, &[u8])) {
        for (generation, segment) in &self.spool.segments.used {
            let mut offset = HEAD;
            while offset < segment.tail {
                match segment.record_at(offset) {
                    Some((header, payload)) => {
                        f(Place { generation: *generation, offset: offset as u32 }, header, payload);
                        offset += size(header.length);
                    }
                    None => offset += 8,
                }
            }
        }
    }

    /// Messages in files without a head, in order of place: whether they were still to be delivered cannot be told, because a
    /// free segment holds old ones. Those that stand elsewhere in the spool too are passed over; pieces that were chunks are
    /// missing, as only the head says whose they are.
    ///
    /// # Errors
    /// As the medium says.
    pub fn for_each_unsure(&self, mut f: impl FnMut(Kept<'_>)) -> io::Result<()> {
        let headless = self.recovery.lost.iter().filter(|damage| damage.what == Harm::Headless);
        for damage in headless {
            let path = self.spool.disk.path(damage.segment);
            let bytes = match rescue(&path, self.segment_size())?.bytes {
                Some(bytes) => bytes,
                None => fs::read(path)?,
            };
            // Mail cannot forge this one: what stands at the front is always a record of ours.
            let Some(stamp) = bytes.get(HEAD + 16..HEAD + 24).map(|stamp| u64_at(stamp, 0)) else { continue };
            for found in scan::records(&bytes, stamp) {
                let Some((header, payload)) = record::parse(&bytes[found.offset as usize..], stamp) else { continue };
                let Some(message) = MessageRecord::parse(payload).filter(|_| header.kind == Kind::Message) else {
                    continue;
                };
                let identity = if message.moved { message.identity } else { header.sequence };
                if self.places.contains_key(&identity) {
                    continue;
                }
                let ends = self.ends(identity);
                let states = states(&message, ends);
                let live = states.iter().any(|state| !state.settled);
                f(Kept { view: MessageView::of(&message, &states, &NoChunks), live, ends });
            }
        }
        Ok(())
    }

    /// Gives up the inspection, not the lock.
    pub(crate) fn into_lock(self) -> Option<File> {
        self.spool.disk.lock
    }
}

/// States as a copy carried them on, with what is on record since.
fn states(message: &MessageRecord<'_>, ends: &[(u16, SettleKind)]) -> Vec<RecipientState> {
    let mut states = vec![RecipientState::default(); usize::from(message.recipients)];
    states.iter_mut().zip(message.recipient_states()).for_each(|(state, was)| *state = was);
    for (recipient, _) in ends {
        if let Some(state) = states.get_mut(usize::from(*recipient)) {
            state.settled = true;
        }
    }
    states
}

/// For a message whose chunks are out of reach.
struct NoChunks;

impl ReadChunk for NoChunks {
    fn chunk(&self, _chunk: ChunkRef) -> &[u8] {
        &[]
    }
}

/// A directory that is only read.
pub(crate) struct Still {
    directory: PathBuf,
    /// None where nothing can be written anyway.
    lock: Option<File>,
    pub(crate) size: usize,
    files: BTreeSet<u32>,
    faults: Vec<Damage>,
    on_read: Box<dyn FnMut(u64)>,
}

/// A segment of it: mapped, or a copy where the file is not what it should be.
pub(crate) enum StillRegion {
    Mapped(Mapped),
    Copy(Vec<u8>),
}

impl Region for StillRegion {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped.bytes(),
            Self::Copy(bytes) => bytes,
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        if let Self::Mapped(mapped) = self {
            *self = Self::Copy(mapped.bytes().to_vec());
        }
        if let Self::Copy(copy) = self {
            copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl Still {
    fn open(directory: &Path, on_read: Box<dyn FnMut(u64)>) -> Result<Self, OpenError> {
        let entries = fs::read_dir(directory).map_err(|source| io_error(directory, "list", source))?;
        let files: BTreeSet<u32> = entries.filter_map(|entry| number(&entry.ok()?.path())).collect();
        let lock = open_lock(directory).map_err(|source| io_error(directory, "open the lock file", source))?;
        let lock = lock.map(|lock| locked(lock, directory)).transpose()?;
        let size = segment_size(directory, &files).map_err(|source| io_error(directory, "read", source))?;
        Ok(Self { directory: directory.to_path_buf(), lock, size, files, faults: Vec::new(), on_read })
    }
}

/// The lock file; made if it is missing, for the owner of the spool. None on a medium that cannot be written.
fn open_lock(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join("lock");
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(Some),
    }
    match File::create(&path) {
        Ok(file) => {
            give_to_owner_of(directory, &file);
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(error) => Err(error),
    }
}

/// What root makes in a spool must not be closed to the server, which is not root.
pub(crate) fn give_to_owner_of(directory: &Path, made: &File) {
    use rustix::fs::{Gid, Uid, fchown, stat};
    if let Ok(owner) = stat(directory) {
        // Fails for everybody but root, whose files are the server's own then.
        let _ = fchown(made, Some(Uid::from_raw(owner.st_uid)), Some(Gid::from_raw(owner.st_gid)));
    }
}

/// What the heads say, else how long the files are.
fn segment_size(directory: &Path, files: &BTreeSet<u32>) -> io::Result<usize> {
    let mut longest = 0;
    for file in files {
        let file = File::open(directory.join(file_name(*file)))?;
        let length = file.metadata()?.len();
        longest = longest.max(length);
        for at in [0, length.saturating_sub(FOOT as u64)] {
            let mut head = [0; FOOT];
            let head = file.read_exact_at(&mut head, at).ok().and_then(|()| Head::read(&head));
            // Places in a segment have 32 bits.
            let size = head.and_then(|head| u32::try_from(head.size).ok()).map(|size| size as usize);
            if let Some(size) = size.filter(|size| *size > HEAD + FOOT && size.is_multiple_of(HEAD)) {
                return Ok(size);
            }
        }
    }
    let longest = longest.min(u64::from(u32::MAX / 2)) as usize;
    Ok(longest.max(Limits::tiny().segment_size).next_multiple_of(HEAD))
}

impl Disk for Still {
    type Region = StillRegion;

    fn list(&self) -> io::Result<Vec<u32>> {
        Ok(self.files.iter().copied().collect())
    }

    fn refresh(&self, segment: u32) -> io::Result<()> {
        let suspected = self.directory.join(SUSPICION).exists();
        if suspected { read_anew(&self.path(segment)) } else { Ok(()) }
    }

    fn refreshed(&self) -> io::Result<()> {
        Ok(())
    }

    fn suspect(&self) {}

    fn nonce(&mut self) -> u64 {
        0
    }

    fn map(&mut self, segment: u32, size: usize) -> io::Result<StillRegion> {
        if !self.files.contains(&segment) {
            // Made at a start; here only thought of.
            return Ok(StillRegion::Copy(vec![0; size]));
        }
        let path = self.path(segment);
        let mut fault = |bytes, what| self.faults.push(Damage { segment, bytes, what, lost: Vec::new() });
        let rescued = rescue(&path, size)?;
        (self.on_read)(size as u64);
        rescued.unreadable.iter().for_each(|bytes| fault(bytes.clone(), Harm::Unreadable));
        if rescued.length < size as u64 {
            fault(rescued.length..size as u64, Harm::Short { should_be: size as u64 });
        }
        let region = match rescued.bytes {
            Some(bytes) => StillRegion::Copy(bytes),
            None => StillRegion::Mapped(Mapped::new(path, size)?),
        };
        match Head::copies(region.bytes()) {
            (None, Some(_)) => fault(0..FOOT as u64, Harm::OneHead),
            (Some(_), None) if rescued.length >= size as u64 => {
                fault((size - FOOT) as u64..size as u64, Harm::OneHead);
            }
            _ => {}
        }
        Ok(region)
    }

    fn prepare(&self, _segment: u32, _size: usize, _head: Vec<u8>) -> Prepare {
        Box::new(|| Ok(()))
    }

    fn sync(&self, _segment: u32, _mapped: &StillRegion) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _segment: u32) -> Prepare {
        Box::new(|| Ok(()))
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.directory.join(file_name(segment))
    }
}

/// What a medium gives of a file.
pub(crate) struct Rescued {
    /// The file's length now.
    pub(crate) length: u64,
    /// What it gives an error for; zeros in `bytes`.
    pub(crate) unreadable: Vec<std::ops::Range<u64>>,
    /// All of it, `size` bytes long; none if the file itself is as good.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Reads all of a file of `size` bytes, and goes on where the medium gives an error.
pub(crate) fn rescue(path: &Path, size: usize) -> io::Result<Rescued> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let end = size.min(usize::try_from(length).unwrap_or(usize::MAX));
    let unreadable = unreadable(end, |at, buffer| file.read_exact_at(buffer, at));
    if unreadable.is_empty() && end == size {
        return Ok(Rescued { length, unreadable, bytes: None });
    }
    let mut bytes = vec![0; size];
    let mut start = 0;
    for bad in unreadable.iter().cloned().chain(std::iter::once(end as u64..end as u64)) {
        let (good, next) = (start..bad.start as usize, bad.end as usize);
        file.read_exact_at(&mut bytes[good.clone()], good.start as u64)?;
        start = next;
    }
    Ok(Rescued { length, unreadable, bytes: Some(bytes) })
}

/// Which parts of the first `end` bytes `read` fails for, to the page.
fn unreadable(end: usize, mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> Vec<std::ops::Range<u64>> {
    let mut bad: Vec<std::ops::Range<u64>> = Vec::new();
    let mut buffer = vec![0; PIECE];
    for piece in (0..end).step_by(PIECE) {
        let piece_end = (piece + PIECE).min(end);
        if read(piece as u64, &mut buffer[..piece_end - piece]).is_ok() {
            continue;
        }
        for page in (piece..piece_end).step_by(PAGE) {
            let page_end = (page + PAGE).min(piece_end);
            if read(page as u64, &mut buffer[..page_end - page]).is_ok() {
                continue;
            }
            match bad.last_mut() {
                Some(last) if last.end == page as u64 => last.end = page_end as u64,
                _ => bad.push(page as u64..page_end as u64),
            }
        }
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_medium_refuses_is_found_to_the_page() {
        let broken = [5_000_u64, 5_100, 8_192, 900_000];
        let found = unreadable(1_000_000, |at, buffer| {
            let bad = broken.iter().any(|place| (at..at + buffer.len() as u64).contains(place));
            if bad { Err(io::Error::other("bad block")) } else { Ok(()) }
        });
        assert_eq!(found, [4096..12_288, 897_024..901_120]);
    }
}
