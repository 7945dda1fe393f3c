//! Group commit: what was appended together becomes durable together, by one sync at a time.

use crate::{Spool, disk::Disk, error::Failed};
use smallvec::SmallVec;
use std::{
    io,
    path::{Path, PathBuf},
};

/// A point in the log of one spool: everything appended up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

/// Proof that a position is on disk. Only [`Spool::proof`] makes one: a 250 needs it.
#[derive(Debug)]
pub struct Durable(());

/// The sync to do now: `fdatasync` every file of [`SyncJob::paths`], then call [`Spool::finish_sync`].
#[derive(Debug)]
#[must_use = "a sync that is never finished blocks all that follow"]
pub struct SyncJob {
    pub(crate) files: SmallVec<[(u32, PathBuf); 2]>,
    upto: u64,
}

impl SyncJob {
    /// The files to sync, in any order; all of them must succeed.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(_, path)| path.as_path())
    }

    /// Numbers of the segments, for disks that are not files.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        self.files.iter().map(|(number, _)| *number)
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Sequence up to which all records are on disk.
    pub(crate) durable: u64,
    /// What was durable at the last two syncs before.
    before: [u64; 2],
    in_flight: bool,
    pub(crate) failed: Option<Failed>,
}

impl State {
    pub(crate) fn recovered(durable: u64) -> Self {
        Self { durable, before: [0; 2], in_flight: false, failed: None }
    }

    /// A watermark that some durable record carries: recovery will know that all before it was durable.
    pub(crate) fn recorded(&self) -> u64 {
        self.before[1]
    }
}

impl<D: Disk> Spool<D> {
    /// End of what was appended.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.segments.next_sequence - 1)
    }

    /// Something waits for a sync, and none is in flight.
    #[must_use]
    pub fn wants_sync(&self) -> bool {
        !self.segments.dirty.is_empty() && !self.commit.in_flight && self.commit.failed.is_none()
    }

    /// Proof that everything up to `position` is on disk, if it is.
    #[must_use]
    pub fn proof(&self, position: Position) -> Option<Durable> {
        (position.0 <= self.commit.durable).then_some(Durable(()))
    }

    /// Why the spool has failed for good, if so.
    #[must_use]
    pub fn failure(&self) -> Option<&Failed> {
        self.commit.failed.as_ref()
    }

    /// Writes what was appended so far, and gives the sync of it; none if that is nothing, one is in flight, or the spool has
    /// failed, which the writing may find out.
    pub fn start_sync(&mut self) -> Option<SyncJob> {
        if !self.wants_sync() {
            return None;
        }
        self.segments.write_out();
        if let Some(error) = self.segments.broken() {
            self.commit.failed = Some(Failed { reason: format!("write: {error}") });
            self.disk.suspect();
            return None;
        }
        let dirty = std::mem::take(&mut self.segments.dirty);
        let files = dirty
            .iter()
            .filter_map(|generation| self.segments.used.get(generation))
            .map(|segment| (segment.file, self.disk.path(segment.file)))
            .collect();
        self.commit.in_flight = true;
        Some(SyncJob { files, upto: self.segments.next_sequence - 1 })
    }

    /// Takes the result of a sync.
    ///
    /// # Errors
    /// [`Failed`] if it failed: nothing that was not durable before may be believed, and nothing is tried again, because
    /// the kernel may have thrown the pages away.
    pub fn finish_sync(&mut self, job: SyncJob, result: io::Result<()>) -> Result<(), Failed> {
        self.commit.in_flight = false;
        if let Err(error) = result {
            let file = job.paths().next().map(|path| path.display().to_string()).unwrap_or_default();
            self.disk.suspect();
            let failed = Failed { reason: format!("fdatasync of {file}: {error}") };
            return Err(self.commit.failed.insert(failed).clone());
        }
        self.commit.before = [self.commit.durable, self.commit.before[0]];
        self.commit.durable = self.commit.durable.max(job.upto);
        Ok(())
    }
}
