//! The way of events from the spool to the event log. *One task per shard.*
//!
//! What became of a message is told only once the record of it is durable, and the record stays until the control thread
//! says that the lines are. A slow or dead log therefore loses nothing and holds up no mail: it holds spool space.

use crate::{event::encode, link::Report, shard::Shard};
use mailrail_spool::Cursor;
use std::{cell::Cell, rc::Rc, time::Duration};

/// Spool bytes turned into lines at once.
const BATCH: usize = 128 << 10;
/// Batches on the way to the control thread.
const IN_FLIGHT: u32 = 4;

/// How far events are out. *One per shard.*
#[derive(Debug, Default)]
pub(crate) struct State {
    in_flight: Cell<u32>,
    read: Cell<u64>,
    kept: Cell<u64>,
}

/// Runs until the shard has stopped.
pub(crate) async fn run(shard: Rc<Shard>) {
    let mut lines = Vec::new();
    while !shard.stopped.get() {
        if shard.events.in_flight.get() >= IN_FLIGHT || !send(&shard, &mut lines).await {
            shard.outbox.wait().await;
        }
    }
}

/// Sends one batch; false if there was nothing to send.
async fn send(shard: &Rc<Shard>, lines: &mut Vec<u8>) -> bool {
    lines.clear();
    let cursor = shard.spool.borrow_mut().read_outbox(BATCH, |record| encode::record(&record, lines));
    let Some(cursor) = cursor else { return false };
    shard.events.in_flight.set(shard.events.in_flight.get() + 1);
    shard.events.read.set(cursor.0);
    let report = Report::Events { shard: shard.number, cursor: cursor.0, lines: lines.clone() };
    if shard.reports.send(report).await.is_err() {
        // No control thread any more: the records stay, and are told after the next start.
        glommio::timer::sleep(Duration::from_secs(1)).await;
    }
    true
}

/// The control thread has made the lines up to `cursor` durable.
pub(crate) fn kept(shard: &Shard, cursor: Cursor) {
    shard.events.in_flight.set(shard.events.in_flight.get().saturating_sub(1));
    shard.events.kept.set(shard.events.kept.get().max(cursor.0));
    // The note of it rides along with the next sync: told again after a crash is told nevertheless.
    shard.spool.borrow_mut().acknowledge_outbox(cursor);
    shard.outbox.raise();
}

/// Is every durable event out?
pub(crate) fn is_drained(shard: &Shard) -> bool {
    !shard.spool.borrow().wants_sync() && shard.events.in_flight.get() == 0
}
