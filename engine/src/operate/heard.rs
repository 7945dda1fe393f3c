//! Orders that this shard has heard of and that are not carried out everywhere yet. *One per shard.*
//!
//! A message on its way to another shard may come there after that one has looked through its queue. So all shards look
//! again, until none says that mail of the order has set off since it last said so; the first time does not count, for mail
//! may have set off before all had heard of it. And none says that it is done before what set off has arrived
//! ([`crate::rehome::Landing`]).

use super::select::Selector;
use crate::{
    link::orders::{Order, Progress},
    shard::Shard,
};
use mailrail_queue::{JobId, time::Wall};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

/// See the module.
#[derive(Default)]
pub(crate) struct Heard(RefCell<Vec<Rc<Open>>>);

/// One order, to be carried out.
pub(super) struct Open {
    pub(super) order: Arc<Order>,
    pub(super) filter: Selector,
    /// Mail of it has set off for another shard since that was last asked.
    set_off: Cell<bool>,
    /// Recipients that nothing may take, by the last walk.
    kept: Cell<usize>,
}

impl Open {
    /// Did no mail of it set off for another shard since this was last asked?
    pub(super) fn all_stayed(&self) -> bool {
        !self.set_off.replace(false)
    }

    /// A walk is over: so many recipients stay as they were, and not as many as the walk before has said besides.
    pub(super) fn kept(&self, recipients: usize, progress: &Progress) {
        progress.keep(recipients, self.kept.replace(recipients));
    }
}

impl Heard {
    /// An order, known or not.
    pub(super) fn of(&self, order: &Arc<Order>) -> Rc<Open> {
        let mut heard = self.0.borrow_mut();
        if let Some(known) = heard.iter().find(|known| known.order.id == order.id) {
            return Rc::clone(known);
        }
        let filter = Selector::new(&order.filter).until(Wall(order.given), order.pool.as_deref());
        let open = Open { order: Arc::clone(order), filter, set_off: Cell::default(), kept: Cell::default() };
        heard.push(Rc::new(open));
        Rc::clone(&heard[heard.len() - 1])
    }

    /// An order is carried out everywhere.
    pub(super) fn done(&self, id: u64) {
        self.0.borrow_mut().retain(|open| open.order.id != id);
    }
}

/// These jobs, handed out, set off for another shard, or for another leased IP of this one by its spool.
pub(crate) fn set_off(shard: &Shard, jobs: impl IntoIterator<Item = JobId>) {
    let heard = shard.heard.0.borrow();
    if heard.is_empty() {
        return;
    }
    let (queue, spool) = (shard.queue.borrow(), shard.spool.borrow());
    for seen in jobs.into_iter().filter_map(|job| queue.look_at(job)) {
        for open in heard.iter().filter(|open| !open.set_off.get()) {
            open.set_off.set(!open.filter.pick(shard, &spool, &seen).is_empty());
        }
    }
}
