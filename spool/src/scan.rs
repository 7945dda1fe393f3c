//! Reading what segments hold, before any of it is believed: heads, records, and which of them count.
//!
//! A record counts if its checksum holds, it carries the stamp of its segment, and nothing is missing before it that could
//! have been durable later than it. The first hole above the last known watermark is a torn tail: it and all behind it was
//! never answered. A hole below the watermark is damage: it is named, and what is intact behind it is kept.

use crate::{
    Limits,
    damage::{self, Damage, Harm},
    disk::{Disk, Region},
    error::OpenError,
    record::{self, Header, Kind},
    recover::{Recovery, io_error},
    segment::{FOOT, HEAD, Head, Segments},
};
use std::io;

/// A record that was found, before it is known whether it counts.
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) offset: u32,
    /// Last sequence that it accounts for.
    pub(crate) last: u64,
}

impl Found {
    fn end(&self) -> usize {
        self.offset as usize + record::size(self.header.length)
    }
}

/// A segment as it was found.
pub(crate) struct Scanned<R> {
    pub(crate) file: u32,
    pub(crate) head: Head,
    /// Both copies of the head say the same.
    pub(crate) agree: bool,
    pub(crate) region: R,
    pub(crate) records: Vec<Found>,
}

/// Maps and scans every segment file; in order of generation.
pub(crate) fn all<D: Disk>(
    disk: &mut D,
    limits: &Limits,
    segments: &mut Segments<D::Region>,
    recovery: &mut Recovery,
) -> Result<Vec<Scanned<D::Region>>, OpenError> {
    let mut scanned = Vec::new();
    let files = disk.list().map_err(|source| io_error(disk, 0, "list the directory of", source))?;
    for file in &files {
        disk.refresh(*file).map_err(|source| io_error(disk, *file, "read again from the disk", source))?;
    }
    disk.refreshed().map_err(|source| io_error(disk, 0, "note that all was read again in", source))?;
    for file in files {
        segments.next_file = segments.next_file.max(file + 1);
        // A map gives SIGBUS for a block that the medium cannot read; this gives an error.
        let what = "read all of it (`mailrail spool repair` keeps what can be read) in";
        disk.readable(file).map_err(|source| io_error(disk, file, what, source))?;
        let region = map(disk, file, limits)?;
        let Some((head, agree)) = Head::read_both(region.bytes()) else {
            // Left as it is: it may hold mail that somebody can still read by hand.
            let bytes = 0..region.bytes().len() as u64;
            recovery.lost.push(Damage { segment: file, bytes, what: Harm::Headless, lost: Vec::new() });
            continue;
        };
        if head.size != limits.segment_size as u64 {
            let size = head.size;
            let reason = format!("a segment of {size} bytes; set segment_size = {size} or empty the spool first");
            return Err(OpenError::Foreign { path: disk.path(file), reason });
        }
        segments.next_generation = segments.next_generation.max(head.generation + 1);
        let records = records(region.bytes(), head.stamp);
        scanned.push(Scanned { file, head, agree, region, records });
    }
    scanned.sort_unstable_by_key(|segment| segment.head.generation);
    Ok(scanned)
}

fn map<D: Disk>(disk: &mut D, file: u32, limits: &Limits) -> Result<D::Region, OpenError> {
    match disk.map(file, limits.segment_size) {
        Ok(region) => Ok(region),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let reason = format!(
                "{error}; keep segment_size as it was when the spool was made, or, if the file was cut off, run \
                 `mailrail spool repair`"
            );
            Err(OpenError::Foreign { path: disk.path(file), reason })
        }
        Err(source) => Err(io_error(disk, file, "map", source)),
    }
}

/// All sound records with this stamp, in order of place.
pub(crate) fn records(bytes: &[u8], stamp: u64) -> Vec<Found> {
    let mut found = Vec::new();
    let (mut offset, end) = (HEAD, bytes.len() - FOOT);
    while offset + record::HEADER <= end {
        match record::parse(&bytes[offset..end], stamp) {
            Some((header, payload)) => {
                let last = record::last_sequence(&header, payload);
                found.push(Found { header, offset: offset as u32, last });
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
pub(crate) fn has_holes(records: &[Found]) -> bool {
    let mut expected = HEAD;
    records.iter().any(|found| {
        let hole = found.offset as usize != expected;
        expected = found.end();
        hole
    })
}

/// Could a record with this stamp begin anywhere in here?
pub(crate) fn has_candidates(bytes: &[u8], stamp: u64) -> bool {
    (0..bytes.len() / 8).any(|word| record::plausible(&bytes[word * 8..], stamp))
}

/// How many records of each segment count. Names damage.
pub(crate) fn choose<R: Region>(scanned: &[Scanned<R>], recovery: &mut Recovery) -> Vec<usize> {
    let watermark = watermark(scanned);
    let mut kept = vec![0; scanned.len()];
    let mut last: Option<Last> = None;
    for (position, segment) in scanned.iter().enumerate() {
        let mut end = HEAD;
        for (number, found) in segment.records.iter().enumerate() {
            let sequence = found.header.sequence;
            let previous = last.as_ref().map_or(0, |last| last.sequence);
            if last.is_some() && sequence <= previous {
                return kept;
            }
            // What went with a retired segment is below the watermark; anything else missing up there is a torn tail.
            if sequence != previous + 1 && sequence - 1 > watermark {
                return kept;
            }
            if sequence != previous + 1 {
                let missing = (last.is_some() || number > 0).then_some((previous + 1, sequence - 1));
                let from = last.as_ref().map_or(0, |last| last.position);
                // Records were taken from the spares in order: one without a record is older than those that have some.
                let whole = (from..position).filter(|n| scanned[*n].records.is_empty());
                recovery.lost.extend(whole.map(|n| hole(&scanned[n], HEAD, None, None)));
                if let Some(last) = last.as_ref().filter(|last| number == 0 && !last.sealed) {
                    recovery.lost.push(hole(&scanned[last.position], last.end, None, missing));
                }
                if found.offset as usize != end {
                    recovery.lost.push(hole(segment, end, Some(found.offset as usize), missing));
                }
            }
            end = found.end();
            last = Some(Last { sequence: found.last, sealed: found.header.kind == Kind::Seal, position, end });
            kept[position] = number + 1;
        }
    }
    recovery.lost.extend(lost_end(scanned, last.as_ref(), watermark));
    kept
}

/// Records at the end that were durable, as another segment says, and are gone. Behind a seal nothing can be told: a segment
/// that a crash had left sealed may have been retired as the last of all.
fn lost_end<R: Region>(scanned: &[Scanned<R>], last: Option<&Last>, watermark: u64) -> Option<Damage> {
    let last = last.filter(|last| !last.sealed && last.sequence < watermark)?;
    Some(hole(&scanned[last.position], last.end, None, Some((last.sequence + 1, watermark))))
}

/// The last record that counts so far.
struct Last {
    sequence: u64,
    sealed: bool,
    position: usize,
    end: usize,
}

/// Names what is lost from `start` up to `end`, or up to the foot.
fn hole<R: Region>(segment: &Scanned<R>, start: usize, end: Option<usize>, missing: Option<(u64, u64)>) -> Damage {
    let bytes = segment.region.bytes();
    let end = end.unwrap_or(bytes.len() - FOOT);
    let lost = damage::salvage(&bytes[start..end], start, segment.head.stamp);
    Damage { segment: segment.file, bytes: start as u64..end as u64, what: Harm::Records(missing), lost }
}

/// Everything up to here was durable, as some record or head says.
fn watermark<R>(scanned: &[Scanned<R>]) -> u64 {
    let heads = scanned.iter().map(|segment| segment.head.watermark);
    let records = scanned.iter().flat_map(|segment| &segment.records).map(|found| found.header.watermark);
    heads.chain(records).max().unwrap_or(0)
}
