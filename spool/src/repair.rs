//! Making a damaged spool sound again, all that is intact kept. *Offline tools only.*
//!
//! No file is changed before a copy of it is safe elsewhere, and each is replaced as a whole: a crash leaves the old one or
//! the new one. What is lost stays lost; records in its place say so, and recovery does not stumble over it again.

use crate::{
    Harm, OpenError,
    disk::{file_name, io_error},
    inspect::{Inspection, Rescued, give_to_owner_of, rescue},
    record::{self, Header, Kind},
    segment::{FOOT, HEAD, Head},
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What was done about one segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Its number.
    pub segment: u32,
    /// The copy of it as it was.
    pub aside: PathBuf,
    /// What was done with it.
    pub done: Done,
}

/// See each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Replaced by a sound one with everything in it that is intact.
    Mended,
    /// Taken out: no record in it counts.
    Removed,
    /// Only copied: a server cuts off its end, as never answered, which a damaged end cannot be told from.
    Copied,
}

/// What to write into a segment.
type Patches = Vec<(usize, Vec<u8>)>;

/// Repairs the spool in `directory`; files go to `aside`, which is made if need be, as they were. `on_read` hears of bytes
/// as they are read. Blocks.
///
/// # Errors
/// [`OpenError`]: in use, or the disk said no. What was done until then is sound.
pub fn repair(directory: &Path, aside: &Path, on_read: Box<dyn FnMut(u64)>) -> Result<Vec<Repaired>, OpenError> {
    let inspection = Inspection::open(directory, on_read)?;
    let size = inspection.segment_size();
    let plan = plan(&inspection);
    // Kept to the end: no server may start on what is half done.
    let _lock = inspection.into_lock();
    let mut repaired = Vec::new();
    for (segment, (done, patches)) in plan {
        let path = directory.join(file_name(segment));
        let copy = set_aside(&path, aside, segment, directory, size)?;
        let result = match done {
            Done::Mended => mend(&path, directory, size, &patches),
            Done::Removed => fs::remove_file(&path).and_then(|()| File::open(directory)?.sync_all()),
            Done::Copied => Ok(()),
        };
        result.map_err(|source| io_error(&path, "repair it", source))?;
        repaired.push(Repaired { segment, aside: copy, done });
    }
    Ok(repaired)
}

/// What is to be done with which file.
fn plan(inspection: &Inspection) -> BTreeMap<u32, (Done, Patches)> {
    let size = inspection.segment_size();
    let mut plan = BTreeMap::new();
    for segment in &inspection.recovery().cut {
        plan.insert(*segment, (Done::Copied, Vec::new()));
    }
    for damage in &inspection.recovery().lost {
        let all = HEAD as u64..(size - FOOT) as u64;
        let done = match damage.what {
            Harm::Headless => Done::Removed,
            Harm::Records(None) if damage.bytes == all => Done::Removed,
            Harm::OneHead | Harm::Short { .. } | Harm::Unreadable | Harm::Records(_) => Done::Mended,
            Harm::Message { .. } => continue,
        };
        let (planned, _) = plan.entry(damage.segment).or_insert((done, Vec::new()));
        if *planned != Done::Removed {
            *planned = done;
        }
    }
    for (segment, patch) in fillers(inspection) {
        plan.entry(segment).or_insert((Done::Mended, Vec::new())).1.push(patch);
    }
    plan
}

/// A hole between sound records, or at the end of a segment that should have been sealed.
struct Hole {
    segment: u32,
    stamp: u64,
    bytes: Range<usize>,
    is_tail: bool,
}

/// Records for all holes, each with its segment.
fn fillers(inspection: &Inspection) -> Vec<(u32, (usize, Vec<u8>))> {
    let mut patches = Vec::new();
    let mut holes: Vec<Hole> = Vec::new();
    let mut expected = 1;
    for segment in inspection.spool.segments.used.values() {
        let hole = |bytes, is_tail| Hole { segment: segment.file, stamp: segment.stamp, bytes, is_tail };
        let (mut end, mut offset, mut sealed) = (HEAD, HEAD, false);
        while offset < segment.tail {
            let Some((header, payload)) = segment.record_at(offset) else {
                offset += 8;
                continue;
            };
            if offset > end {
                holes.push(hole(end..offset, false));
            }
            fill(&std::mem::take(&mut holes), expected..header.sequence, &mut patches);
            expected = record::last_sequence(&header, payload) + 1;
            sealed = header.kind == Kind::Seal;
            offset += record::size(header.length);
            end = offset;
        }
        if !sealed {
            holes.push(hole(end..inspection.segment_size() - FOOT, true));
        }
    }
    patches.extend(lost_end(inspection, expected));
    patches
}

/// The record for what is missing at the end of the log, where other segments know that there was something.
fn lost_end(inspection: &Inspection, expected: u64) -> Option<(u32, (usize, Vec<u8>))> {
    let at_end = inspection.recovery().lost.iter().find_map(|damage| match damage.what {
        Harm::Records(Some((first, last))) if first == expected => Some((damage, last)),
        _ => None,
    });
    let (damage, last) = at_end?;
    let segment = inspection.spool.segments.used.values().find(|segment| segment.file == damage.segment)?;
    let start = usize::try_from(damage.bytes.start).ok()?;
    let hole = Hole { segment: damage.segment, stamp: segment.stamp, bytes: start..start, is_tail: true };
    Some((damage.segment, (start, lost(&hole, expected..last + 1, record::size(8)))))
}

/// Puts records into `holes`, which are all there is between two sound ones, for the `missing` sequences.
fn fill(holes: &[Hole], missing: Range<u64>, patches: &mut Vec<(u32, (usize, Vec<u8>))>) {
    if missing.is_empty() {
        return;
    }
    let Range { start: first, end } = missing;
    let last = end - 1;
    // What does not fit stays as it is, and is named again: no record of ours has left so little.
    let mut put = |hole: &Hole, at: usize, bytes: Vec<u8>| {
        if !bytes.is_empty() && at + bytes.len() <= hole.bytes.end {
            patches.push((hole.segment, (at, bytes)));
        }
    };
    match holes {
        [tail] if tail.is_tail && first == last => put(tail, tail.bytes.start, seal(tail, last)),
        [tail] if tail.is_tail => {
            let lost = lost(tail, first..last, record::size(8));
            let behind = tail.bytes.start + lost.len();
            put(tail, tail.bytes.start, lost);
            put(tail, behind, seal(tail, last));
        }
        [hole] => put(hole, hole.bytes.start, lost(hole, first..end, hole.bytes.len())),
        [tail, hole] if first < last => {
            put(tail, tail.bytes.start, seal(tail, first));
            put(hole, hole.bytes.start, lost(hole, first + 1..end, hole.bytes.len()));
        }
        [.., hole] => put(hole, hole.bytes.start, lost(hole, first..end, hole.bytes.len())),
        // A segment that went whole: what is before it and behind it is sound.
        [] => {}
    }
}

fn seal(hole: &Hole, sequence: u64) -> Vec<u8> {
    record_of(hole, Kind::Seal, sequence, vec![0; record::HEADER], sequence)
}

/// A record of `bytes` bytes that stands for these sequences.
fn lost(hole: &Hole, missing: Range<u64>, bytes: usize) -> Vec<u8> {
    if bytes < record::HEADER {
        return Vec::new();
    }
    let mut at = vec![0; bytes];
    let last = missing.end - 1;
    if let Some(place) = at.get_mut(record::HEADER..record::HEADER + 8) {
        place.copy_from_slice(&last.to_le_bytes());
    }
    record_of(hole, Kind::Lost, missing.start, at, last)
}

/// What is missing was durable: recovery would not have kept what is behind it otherwise.
fn record_of(hole: &Hole, kind: Kind, sequence: u64, mut at: Vec<u8>, watermark: u64) -> Vec<u8> {
    let length = at.len() - record::HEADER;
    record::seal(&mut at, Header { kind, sequence, stamp: hole.stamp, watermark, length });
    at
}

/// A durable copy of the file, as far as it can be read, under a name that no other copy has.
fn set_aside(path: &Path, aside: &Path, segment: u32, directory: &Path, size: usize) -> Result<PathBuf, OpenError> {
    let copied = || -> io::Result<PathBuf> {
        fs::create_dir_all(aside)?;
        let bytes = image(path, size)?;
        for n in 0.. {
            let ending = if n == 0 { String::new() } else { format!(".{n}") };
            let copy = aside.join(format!("{}{ending}", file_name(segment)));
            let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            give_to_owner_of(directory, &file);
            file.write_all(&bytes)?;
            file.sync_all()?;
            let folder = File::open(aside)?;
            give_to_owner_of(directory, &folder);
            folder.sync_all()?;
            return Ok(copy);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    };
    copied().map_err(|source| io_error(aside, "copy the damaged segment to", source))
}

/// All bytes of the file that the medium gives, and zeros in place of the others, to its present length.
fn image(path: &Path, size: usize) -> io::Result<Vec<u8>> {
    let Rescued { length, bytes, .. } = rescue(path, size)?;
    match bytes {
        Some(mut bytes) => {
            bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            Ok(bytes)
        }
        None => fs::read(path),
    }
}

/// Replaces the file by one of the right size, with both copies of its head, and with `patches`.
fn mend(path: &Path, directory: &Path, size: usize, patches: &Patches) -> io::Result<()> {
    let mut bytes = image(path, size)?;
    bytes.resize(size, 0);
    if let Some((head, _)) = Head::read_both(&bytes) {
        let head = head.to_bytes();
        for at in [0, size - FOOT] {
            bytes[at..at + head.len()].copy_from_slice(&head);
        }
    }
    for (at, patch) in patches {
        bytes[*at..*at + patch.len()].copy_from_slice(patch);
    }
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    give_to_owner_of(directory, &file);
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}
