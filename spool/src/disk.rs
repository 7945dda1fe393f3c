//! The seam between the store and the medium. [`RealDisk`] is a directory of files; tests stand in another that loses
//! what was not synced.

use crate::{error::OpenError, map::Mapped, segment::FOOT};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Bytes of a segment, as the processor sees them.
pub trait Region {
    /// To read, also what was just written.
    fn bytes(&self) -> &[u8];

    /// Writes `bytes` at `offset`; durable only after a sync of the segment. May block as a write to a file may.
    ///
    /// # Errors
    /// As the medium says; then nothing is certain of the bytes there.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Nothing more will be written until the segment is used again.
    fn sealed(&mut self) {}
}

/// Work that may block, for any thread.
pub type Prepare = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Where segments live. Segments are named by a number.
pub trait Disk {
    /// A mapped segment.
    type Region: Region;

    /// Numbers of all segments there are. Blocking; only at start.
    ///
    /// # Errors
    /// As the medium says.
    fn list(&self) -> io::Result<Vec<u32>>;

    /// Called for each segment before it is mapped at start: makes sure that what will be read is what the medium holds,
    /// also after a sync that failed. Blocking.
    ///
    /// # Errors
    /// As the medium says.
    fn refresh(&self, segment: u32) -> io::Result<()>;

    /// All segments were refreshed. Blocking.
    ///
    /// # Errors
    /// As the medium says.
    fn refreshed(&self) -> io::Result<()>;

    /// A sync has failed: what is cached may not be on the medium, though the kernel takes it for written. Noted for the
    /// next start, as well as a failing medium allows.
    fn suspect(&self);

    /// A number that nobody can foresee.
    fn nonce(&mut self) -> u64;

    /// Reads all of the segment, before it is mapped at start. Blocking.
    ///
    /// # Errors
    /// The medium does not give some of it.
    fn readable(&self, _segment: u32) -> io::Result<()> {
        Ok(())
    }

    /// Maps an existing, fully allocated segment.
    ///
    /// # Errors
    /// As the medium says; too short a file is `UnexpectedEof`.
    fn map(&mut self, segment: u32, size: usize) -> io::Result<Self::Region>;

    /// Work that makes the segment if it is not there (allocated and written in full) and durably gives it `head` as
    /// its first bytes, and again as the first of its last sector.
    fn prepare(&self, segment: u32, size: usize, head: Vec<u8>) -> Prepare;

    /// Makes durable what was written to the segment. Blocking; only at start.
    ///
    /// # Errors
    /// As the medium says.
    fn sync(&self, segment: u32, mapped: &Self::Region) -> io::Result<()>;

    /// Work that durably removes the segment.
    fn remove(&self, segment: u32) -> Prepare;

    /// The file to `fdatasync`, where there is one.
    fn path(&self, segment: u32) -> PathBuf;
}

/// Name of the file that is there while the page cache may not be what the medium holds.
pub(crate) const SUSPICION: &str = "sync-failed";

fn suspect(directory: &Path) {
    // On a medium that takes not even this, the mount has to go, and with it the cache.
    let _ = File::create(directory.join(SUSPICION)).and_then(|file| file.sync_all());
}

/// Drops pages that were thought written, so that they are read from the medium itself.
pub(crate) fn read_anew(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_data()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// A directory of segment files, locked against a second process.
pub struct RealDisk {
    directory: PathBuf,
    nonces: u64,
    _lock: File,
}

impl RealDisk {
    /// Opens or makes the directory, and locks it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another process has it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(directory).map_err(|source| io_error(directory, "make the directory", source))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"));
        let lock = lock.map_err(|source| io_error(directory, "open the lock file", source))?;
        Ok(Self { directory: directory.to_path_buf(), nonces: 0, _lock: locked(lock, directory)? })
    }

    /// There while what the kernel has cached may not be what the medium holds.
    fn suspicion(&self) -> PathBuf {
        self.directory.join(SUSPICION)
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Disk for RealDisk {
    type Region = Mapped;

    fn list(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            // A half-made segment was never used: its maker died.
            if path.extension().is_some_and(|e| e == "new") {
                fs::remove_file(&path)?;
            }
            found.extend(number(&path));
        }
        Ok(found)
    }

    fn refresh(&self, segment: u32) -> io::Result<()> {
        if !self.suspicion().exists() {
            return Ok(());
        }
        read_anew(&self.path(segment))
    }

    fn refreshed(&self) -> io::Result<()> {
        match fs::remove_file(self.suspicion()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn suspect(&self) {
        suspect(&self.directory);
    }

    fn nonce(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // Fails only in a kernel without random numbers; the counter then keeps stamps apart at least.
        self.nonces += 1;
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_le_bytes(bytes),
            _ => self.nonces ^ u64::from(std::process::id()) << 32,
        }
    }

    fn readable(&self, segment: u32) -> io::Result<()> {
        let mut file = File::open(self.path(segment))?;
        let mut piece = vec![0; 256 << 10];
        while file.read(&mut piece)? > 0 {}
        Ok(())
    }

    fn map(&mut self, segment: u32, size: usize) -> io::Result<Mapped> {
        Mapped::new(self.path(segment), size)
    }

    fn prepare(&self, segment: u32, size: usize, head: Vec<u8>) -> Prepare {
        let (path, directory) = (self.path(segment), self.directory.clone());
        Box::new(move || match OpenOptions::new().write(true).open(&path) {
            Ok(file) => {
                let done = write_head(&file, size, &head).and_then(|()| file.sync_data());
                if done.is_err() {
                    // The cache may show a head that the medium does not have: a start must not take it for a free segment,
                    // whose records would then be synced without it.
                    suspect(&directory);
                }
                done
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path, &directory, size, &head),
            Err(error) => Err(error),
        })
    }

    fn sync(&self, segment: u32, _mapped: &Mapped) -> io::Result<()> {
        File::open(self.path(segment))?.sync_data()
    }

    fn remove(&self, segment: u32) -> Prepare {
        let (path, directory) = (self.path(segment), self.directory.clone());
        Box::new(move || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            File::open(&directory)?.sync_all()
        })
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.directory.join(file_name(segment))
    }
}

/// The lock file of `directory`, locked until it is dropped.
///
/// # Errors
/// [`OpenError::Locked`] if another process has it.
pub(crate) fn locked(lock: File, directory: &Path) -> Result<File, OpenError> {
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_path_buf())),
        Err(fs::TryLockError::Error(source)) => Err(io_error(directory, "lock it", source)),
    }
}

pub(crate) fn io_error(path: &Path, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_path_buf(), what, source }
}

/// Name of a segment file.
pub(crate) fn file_name(segment: u32) -> String {
    format!("{segment:08}.seg")
}

/// Number of the segment that a file of this path is, if it is one.
pub(crate) fn number(path: &Path) -> Option<u32> {
    let stem = path.extension().filter(|ending| *ending == "seg").and_then(|_| path.file_stem());
    stem?.to_str()?.parse().ok()
}

/// Both copies. They are sectors of their own: a power cut leaves each old or new.
fn write_head(file: &File, size: usize, head: &[u8]) -> io::Result<()> {
    file.write_all_at(head, 0)?;
    file.write_all_at(head, (size - FOOT) as u64)
}

/// Writes every block once (an extent that was never written costs a journal commit at its first sync), under another
/// name until it is whole.
fn make(path: &Path, directory: &Path, size: usize, head: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file = File::create(&temporary)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size as u64)?;
        // A page at a time: a larger write makes larger folios in the page cache, and each sync would then write the whole
        // folio around a few dirty pages (240 KiB a message instead of 7, Linux 6.18, ext4).
        let zeros = vec![0_u8; 4 << 10];
        let mut left = size;
        while left > 0 {
            let piece = left.min(zeros.len());
            file.write_all(&zeros[..piece])?;
            left -= piece;
        }
        write_head(&file, size, head)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // Give the space back; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}
