//! Chores: making segments, and retiring those that hold nothing any more. They block, so another thread runs them.

use crate::{
    Spool,
    disk::{Disk, Prepare},
    segment::{Head, Segment, Spare},
};
use std::io;

/// Empty segments that are kept ready at least: the one that compaction keeps for itself, and one for everything else.
const SPARES: usize = 2;

/// Work for a thread that may block.
pub struct Chore {
    file: u32,
    aim: Aim,
    job: Prepare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// A file becomes an empty segment of this generation; `retired` was in it before.
    Spare { generation: u64, stamp: u64, retired: Option<u64> },
    /// A file goes.
    Gone { retired: u64 },
}

/// A chore that was done, well or not.
pub struct ChoreDone {
    file: u32,
    aim: Aim,
    result: io::Result<()>,
}

impl Chore {
    /// Does it; blocks.
    #[must_use]
    pub fn run(self) -> ChoreDone {
        ChoreDone { file: self.file, aim: self.aim, result: (self.job)() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    retry_at_ms: u64,
    problem: Option<String>,
    working: bool,
}

impl State {
    pub(crate) fn why_full(&self) -> Option<String> {
        self.problem.clone()
    }
}

impl<D: Disk> Spool<D> {
    /// The next chore, if there is one and none is being done. `now_ms` is any clock that goes forward.
    pub fn chore(&mut self, now_ms: u64) -> Option<Chore> {
        if self.chores.working || now_ms < self.chores.retry_at_ms || self.commit.failed.is_some() {
            return None;
        }
        let chore = self.recycle().or_else(|| self.make_spare(now_ms))?;
        self.chores.working = true;
        Some(chore)
    }

    /// Takes the result of a chore.
    pub fn finish_chore(&mut self, done: ChoreDone, now_ms: u64) {
        self.chores.working = false;
        let mut result = done.result;
        match done.aim {
            Aim::Spare { generation, stamp, retired } => {
                self.segments.in_work = self.segments.in_work.saturating_sub(usize::from(retired.is_none()));
                let region = match (&result, retired) {
                    (Ok(()), Some(old)) => self.segments.used.remove(&old).map(Segment::into_region),
                    (Ok(()), None) => match self.disk.map(done.file, self.limits.segment_size) {
                        Ok(region) => Some(region),
                        Err(error) => {
                            result = Err(error);
                            None
                        }
                    },
                    _ => None,
                };
                match region {
                    Some(region) => self.segments.add_spare(Spare { generation, stamp, file: done.file, region }),
                    None => self.not_done(done.file, retired),
                }
            }
            Aim::Gone { retired } if result.is_ok() => {
                self.segments.used.remove(&retired);
            }
            Aim::Gone { retired } => self.not_done(done.file, Some(retired)),
        }
        match result {
            Ok(()) => self.chores.problem = None,
            Err(error) => {
                self.chores.problem = Some(format!("{}: {error}", self.disk.path(done.file).display()));
                self.chores.retry_at_ms = now_ms.saturating_add(self.limits.chore_retry_ms);
            }
        }
    }

    /// A file on which a chore failed is there as before, or not at all.
    fn not_done(&mut self, file: u32, retired: Option<u64>) {
        match retired.and_then(|generation| self.segments.used.get_mut(&generation)) {
            Some(segment) => segment.retiring = false,
            None => self.segments.blank.push(file),
        }
    }

    fn recycle(&mut self) -> Option<Chore> {
        let generation = self.segments.dead(self.outbox.acknowledged, self.commit.durable)?;
        let enough = self.segments.spares.len() > 2 * self.limits.spares;
        let segment = self.segments.used.get_mut(&generation)?;
        let file = segment.file;
        if enough {
            // Recovery takes a gap between segments for a loss unless a watermark tells it better.
            if segment.last > self.commit.recorded() {
                return None;
            }
            segment.retiring = true;
            return Some(Chore { file, aim: Aim::Gone { retired: generation }, job: self.disk.remove(file) });
        }
        segment.retiring = true;
        Some(self.spare(file, Some(generation)))
    }

    fn make_spare(&mut self, now_ms: u64) -> Option<Chore> {
        if self.segments.spares.len() >= self.limits.spares.max(SPARES) {
            return None;
        }
        let size = self.limits.segment_size as u64;
        let file = if let Some(file) = self.segments.blank.pop() {
            file
        } else {
            if (self.segments.files() as u64 + 1) * size > self.limits.max_bytes {
                self.chores.problem = Some(format!("max_bytes of {} is reached", self.limits.max_bytes));
                self.chores.retry_at_ms = now_ms.saturating_add(self.limits.chore_retry_ms);
                return None;
            }
            let file = self.segments.next_file;
            self.segments.next_file += 1;
            file
        };
        self.segments.in_work += 1;
        Some(self.spare(file, None))
    }

    fn spare(&mut self, file: u32, retired: Option<u64>) -> Chore {
        let generation = self.segments.next_generation;
        self.segments.next_generation += 1;
        let (stamp, size) = (self.disk.nonce(), self.limits.segment_size);
        let head = Head { size: size as u64, generation, stamp, watermark: self.commit.durable };
        let job = self.disk.prepare(file, size, head.to_bytes());
        Chore { file, aim: Aim::Spare { generation, stamp, retired }, job }
    }
}
