//! The only `unsafe` of the store: mapping a segment file into memory.

#![allow(unsafe_code)]

use crate::disk::Region;
use memmap2::{MmapMut, MmapOptions};
use std::{fs::File, io};

/// A segment file in memory. All of it has blocks on disk before it is mapped.
pub struct Mapped(MmapMut);

impl Mapped {
    /// Maps the first `size` bytes of `file`, which must be at least that long and fully allocated.
    pub(crate) fn new(file: &File, size: usize) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length < size as u64 {
            let text = format!("{length} bytes long, expected {size}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        // SAFETY: a map is unsound when the file changes under it. The directory lock keeps other processes of ours
        // out, this process maps each segment once and never truncates a mapped one, and the length was checked above.
        // Every block is written when the segment is made, so that touching a page needs no allocation (no SIGBUS).
        let map = unsafe { MmapOptions::new().len(size).map_mut(file)? };
        Ok(Self(map))
    }
}

impl Region for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
