//! Group commit: the one task of a shard that makes its spool durable.
//!
//! One fdatasync is in flight at a time; what is appended meanwhile is the next group, so under load there is far less
//! than one sync a message. When syncs follow each other closely, a group also waits a little for clients that were just
//! answered and will be back ([`Returning`](crate::returning::Returning)). Records that nobody waits for (outcomes) ride along, and are synced at the latest
//! [`Limits::settle_delay`](crate::limits::Limits) after they were written: that bounds what a crash can put in doubt.

use crate::{clock, shard::Shard};
use futures_lite::FutureExt;
use glommio::io::BufferedFile;
use mailrail_queue::time::Mono;
use mailrail_spool::{Durable, Position, SyncJob};
use std::{collections::BTreeMap, io, path::PathBuf, rc::Rc};

/// Waits until everything up to `position` is on disk.
///
/// # Errors
/// The spool has failed; nothing after its last good sync is certain.
pub(crate) async fn durable(shard: &Shard, position: Position) -> Result<Durable, String> {
    loop {
        {
            let spool = shard.spool.borrow();
            if let Some(proof) = spool.proof(position) {
                return Ok(proof);
            }
            if let Some(reason) = spool.failure() {
                return Err(reason.to_string());
            }
        }
        shard.urgent.set(true);
        shard.dirty.raise();
        shard.committed.wait().await;
    }
}

/// Runs until the spool fails or the shard is told to stop and nothing is left to sync.
pub(crate) async fn run(shard: Rc<Shard>) {
    let mut files = Files::default();
    let mut began = Mono(0);
    loop {
        if !shard.spool.borrow().wants_sync() {
            if shard.stopped.get() || shard.spool.borrow().failure().is_some() {
                files.close().await;
                return;
            }
            shard.dirty.wait().await;
            continue;
        }
        if !shard.urgent.get() && !shard.stopping.get() {
            // Only outcomes so far: give a message the chance to share this sync.
            let delay = async { glommio::timer::sleep(shard.limits.settle_delay).await };
            urgent(&shard).or(delay).await;
        }
        gather(&shard, &began).await;
        shard.urgent.set(false);
        began = clock::mono();
        let job = shard.spool.borrow_mut().start_sync();
        let Some(job) = job else {
            let failure = shard.spool.borrow().failure().map(ToString::to_string);
            if let Some(reason) = failure {
                shard.note_error(&format!("spool: {reason}; no more mail is accepted, restart when the disk is well"));
                shard.committed.raise();
            }
            continue;
        };
        let result = files.sync(&job).await;
        shard.stats.borrow_mut().syncs += 1;
        if let Err(error) = &result {
            shard.note_error(&format!(
                "spool: fdatasync: {error}; no more mail is accepted, restart when the disk is well"
            ));
        }
        let _ = shard.spool.borrow_mut().finish_sync(job, result);
        shard.returning.next_group();
        shard.committed.raise();
        shard.outbox.raise();
    }
}

/// Waits for clients that will be back at once, if the sync before `began` not long ago: an idle shard waits for nobody.
async fn gather(shard: &Shard, began: &Mono) {
    let window = shard.limits.gather;
    let now = clock::mono();
    if now.since(*began) > 2 * window {
        return;
    }
    let until = now.plus(window);
    let come = async {
        while shard.returning.any() && !shard.stopping.get() && clock::mono() < until {
            shard.dirty.wait().await;
        }
    };
    come.or(async { glommio::timer::sleep(window).await }).await;
}

/// Returns when somebody waits for a sync.
async fn urgent(shard: &Shard) {
    while !shard.urgent.get() && !shard.stopping.get() {
        shard.dirty.wait().await;
    }
}

/// Open descriptors of segments, for io_uring's fdatasync. *One per shard.*
#[derive(Default)]
struct Files(BTreeMap<PathBuf, BufferedFile>);

impl Files {
    /// More than the segments that one group can touch; older ones are closed.
    const MOST: usize = 8;

    async fn close(self) {
        for file in self.0.into_values() {
            let _ = file.close().await;
        }
    }

    async fn sync(&mut self, job: &SyncJob) -> io::Result<()> {
        for path in job.paths() {
            if !self.0.contains_key(path) {
                while self.0.len() >= Self::MOST {
                    let Some((_, file)) = self.0.pop_first() else { break };
                    file.close().await.map_err(io::Error::from)?;
                }
                let file = BufferedFile::open(path).await.map_err(io::Error::from)?;
                self.0.insert(path.to_owned(), file);
            }
            if let Some(file) = self.0.get(path) {
                file.fdatasync().await.map_err(io::Error::from)?;
            }
        }
        Ok(())
    }
}
