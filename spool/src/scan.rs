//! Reading what segments hold, before any of it is believed: heads, records, and which of them count.
//!
//! A record counts if its checksum holds, it carries the stamp of its segment, and nothing is missing before it that could
//! have been durable later than it. The first hole above the last known watermark is a torn tail: it and all behind it was
//! never answered. A hole below the watermark is damage: it is named, and what is intact behind it is kept.

use crate::{
    Limits,
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
        let region = map(disk, file, limits)?;
        let Some((head, agree)) = Head::read_both(region.bytes()) else {
            // Left as it is: it may hold mail that somebody can still read by hand.
            let path = disk.path(file);
            recovery.lost.push(format!("{}: both copies of its head are unreadable; set aside", path.display()));
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
            let reason = format!("{error}; keep segment_size as it was when the spool was made");
            Err(OpenError::Foreign { path: disk.path(file), reason })
        }
        Err(source) => Err(io_error(disk, file, "map", source)),
    }
}

/// All sound records with this stamp, in order of place.
fn records(bytes: &[u8], stamp: u64) -> Vec<Found> {
    let mut found = Vec::new();
    let (mut offset, end) = (HEAD, bytes.len() - FOOT);
    while offset + record::HEADER <= end {
        match record::parse(&bytes[offset..end], stamp) {
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
pub(crate) fn has_holes(records: &[Found]) -> bool {
    let mut expected = HEAD;
    records.iter().any(|found| {
        let hole = found.offset as usize != expected;
        expected = found.offset as usize + record::size(found.header.length);
        hole
    })
}

/// Could a record with this stamp begin anywhere in here?
pub(crate) fn has_candidates(bytes: &[u8], stamp: u64) -> bool {
    (0..bytes.len() / 8).any(|word| record::plausible(&bytes[word * 8..], stamp))
}

/// How many records of each segment count. Names damage.
pub(crate) fn choose<R>(scanned: &[Scanned<R>], recovery: &mut Recovery) -> Vec<usize> {
    let watermark = watermark(scanned);
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
            if sequence != previous + 1 && (number > 0 || !sealed) {
                let missing = format!("records {} to {} are unreadable", previous + 1, sequence - 1);
                recovery.lost.push(format!("segment {:08}: {missing}, at byte {end}", segment.file));
            }
            if number == 0 && found.offset as usize != HEAD {
                let place = format!("bytes {HEAD} to {} are unreadable", found.offset);
                recovery.lost.push(format!("segment {:08}: {place}", segment.file));
            }
            last = Some((sequence, found.header.kind == Kind::Seal));
            end = found.offset + record::size(found.header.length) as u32;
            kept[position] = number + 1;
        }
    }
    kept
}

/// Everything up to here was durable, as some record or head says.
fn watermark<R>(scanned: &[Scanned<R>]) -> u64 {
    let heads = scanned.iter().map(|segment| segment.head.watermark);
    let records = scanned.iter().flat_map(|segment| &segment.records).map(|found| found.header.watermark);
    heads.chain(records).max().unwrap_or(0)
}
