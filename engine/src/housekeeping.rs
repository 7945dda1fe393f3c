//! What a shard does beside the mail: makes and retires segments, compacts. *One task per shard.*

use crate::{clock, shard::Shard};
use futures_lite::FutureExt;
use std::{rc::Rc, time::Duration};

/// Between looks, while nothing asks for one.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks at what nobody needs any more.
const TIDY: Duration = Duration::from_secs(60);
/// Bytes that compaction moves before others have their turn: well under a millisecond of copying.
const COMPACT_STEP: usize = 1 << 20;

/// Runs until the shard stops.
pub(crate) async fn run(shard: Rc<Shard>) {
    while !shard.stopped.get() {
        let mut more = true;
        while more {
            more = chore(&shard).await;
            if shard.spool.borrow_mut().compact(COMPACT_STEP) {
                shard.dirty.raise();
                more = true;
                glommio::executor().yield_now().await;
            }
        }
        shard.room.raise();
        let period = async { glommio::timer::sleep(PERIOD).await };
        shard.chores.wait().or(period).await;
    }
}

/// Forgets, now and then, what no queued mail needs.
pub(crate) async fn tidy(shard: Rc<Shard>) {
    while !shard.stopped.get() {
        glommio::timer::sleep(TIDY).await;
        shard.tidy();
    }
}

/// Does one chore on a thread that may block; false if there was none or it failed.
async fn chore(shard: &Rc<Shard>) -> bool {
    let now_ms = || clock::mono().0 / 1_000_000;
    let Some(chore) = shard.spool.borrow_mut().chore(now_ms()) else { return false };
    let done = glommio::executor().spawn_blocking(move || chore.run()).await;
    let before = shard.spool.borrow().cannot_grow();
    shard.spool.borrow_mut().finish_chore(done, now_ms());
    shard.room.raise();
    let after = shard.spool.borrow().cannot_grow();
    match (&before, &after) {
        (None, Some(reason)) => {
            shard.note_error(&format!("spool cannot grow, new mail is put off with 452 when it is full: {reason}"))
        }
        (Some(_), None) => tracing::info!(shard = shard.number, "spool has room again"),
        _ => {}
    }
    after.is_none()
}
