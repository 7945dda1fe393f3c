//! The only `unsafe` of the store: mapping a segment file into memory, to be read.
//!
//! It is written by `pwrite`, not through the map: a page that is written through a map faults at the first touch after each
//! sync, and each sync has to take its write permission away again on every processor that runs a thread of ours.

#![allow(unsafe_code)]

use crate::disk::Region;
use memmap2::{Mmap, MmapOptions};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

/// A segment file in memory. All of it has blocks on disk before it is mapped.
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
    /// Open while it is written.
    file: Option<File>,
}

impl Mapped {
    /// Maps the first `size` bytes of the file, which must be at least that long and fully allocated.
    pub(crate) fn new(path: PathBuf, size: usize) -> io::Result<Self> {
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        if length < size as u64 {
            let text = format!("{length} bytes long, expected {size}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        // SAFETY: a map is unsound when the file changes while a slice of it is held. The directory lock keeps other
        // processes of ours out, this process maps each segment once and never truncates it (no SIGBUS), and it writes to
        // the file only in `write`, which takes `&mut self`: no slice that `bytes` gave out is alive then.
        let map = unsafe { MmapOptions::new().len(size).map(&file)? };
        Ok(Self { path, map, file: None })
    }
}

impl Region for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(OpenOptions::new().write(true).open(&self.path)?),
        };
        file.write_all_at(bytes, offset as u64)
    }

    fn sealed(&mut self) {
        self.file = None;
    }
}
