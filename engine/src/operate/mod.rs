//! What operators do to queued mail, and ask about it. *One per shard.*
//!
//! Everything here walks the queue in steps of about a millisecond at most and lets deliveries on in between, however much is
//! queued. Nothing here ends mail but [`order`], and that as a delivery would: the spool is told before the queue forgets.

mod explain;
pub(crate) mod heard;
#[cfg(test)]
mod heard_tests;
mod listing;
mod order;
mod select;
pub(crate) mod suspend;

use crate::{
    clock,
    link::orders::{Ask, Filter, Selected},
    shard::Shard,
};
pub(crate) use listing::rows;
use mailrail_queue::{Queue, Seen, State};
use mailrail_spool::{MessageKey, Spool};
use rustc_hash::FxHashSet;
use select::Selector;
use std::{rc::Rc, time::Duration};

/// Longest work between two looks at the other tasks.
const SLICE: Duration = Duration::from_millis(1);
/// Jobs looked at between two looks at the clock.
const STEP: u32 = 128;

/// Takes what the control thread asks.
pub(crate) fn take(shard: &Rc<Shard>, ask: Ask) {
    let shard = Rc::clone(shard);
    match ask {
        Ask::Suspensions(rules) => suspend::replace(&shard, &rules),
        Ask::Count(filter, reply) => {
            glommio::spawn_local(async move {
                let _ = reply.send(count(&shard, &filter).await);
            })
            .detach();
        }
        Ask::Order(errand) => {
            glommio::spawn_local(async move { order::carry_out(&shard, errand).await }).detach();
        }
        Ask::Done(id) => shard.heard.done(id),
        Ask::Explain(filter, reply) => {
            glommio::spawn_local(async move {
                let _ = reply.send(explain::explain(&shard, &filter).await);
            })
            .detach();
        }
    }
}

/// A walk over all jobs.
struct Walk(Option<u32>);

impl Walk {
    fn new() -> Self {
        Self(Some(0))
    }

    /// Shows `see` jobs for a [`SLICE`]. False: those were the last; else let others work, and go on.
    fn slice(&mut self, shard: &Shard, mut see: impl FnMut(&Queue<MessageKey>, &Spool, &Seen<'_, MessageKey>)) -> bool {
        let (queue, spool) = (shard.queue.borrow(), shard.spool.borrow());
        let began = clock::mono();
        while let Some(at) = self.0 {
            self.0 = queue.scan(at, STEP, |seen| see(&queue, &spool, seen));
            if clock::mono().since(began) >= SLICE {
                break;
            }
        }
        self.0.is_some()
    }
}

/// How much a filter selects.
async fn count(shard: &Rc<Shard>, filter: &Filter) -> Selected {
    let selector = Selector::new(filter);
    let (mut selected, mut messages) = (Selected::default(), FxHashSet::default());
    let mut walk = Walk::new();
    while walk.slice(shard, |_, spool, seen| {
        let picked = selector.pick(shard, spool, seen).len() as u64;
        if picked > 0 {
            messages.insert(seen.key());
            selected.recipients += picked;
            selected.in_flight += if seen.state() == State::InFlight { picked } else { 0 };
        }
    }) {
        glommio::executor().yield_now().await;
    }
    selected.messages = messages.len() as u64;
    selected
}
