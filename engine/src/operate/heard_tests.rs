//! An order finds mail that is on its way from one shard to another.

use super::{heard::set_off, take};
use crate::{
    clock,
    link::orders::{Action, Ask, Errand, Filter, Order},
    rehome,
    shard::Shard,
    tests::two_shards::{names, open, stranded, with_one_message},
};
use mailrail_queue::JobId;
use mailrail_spool::MessageKey;
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::sync::oneshot;

fn cancel() -> Arc<Order> {
    let (filter, reason, who, pool) = (Filter::default(), String::new(), String::new(), None);
    Arc::new(Order { id: 1, action: Action::Cancel, filter, pool, reason, who, given: clock::wall().0 })
}

/// Has a shard look through its queue.
fn look(shard: &Rc<Shard>, order: &Arc<Order>) -> oneshot::Receiver<bool> {
    let (finished, end) = oneshot::channel();
    take(shard, Ask::Order(Errand { order: Arc::clone(order), progress: Arc::default(), finished }));
    end
}

/// The message of a shard, in its queue without a leased IP, and on its way to the other shard.
fn leaving(shard: &Shard) -> (MessageKey, JobId) {
    let key = stranded(shard);
    let jobs = shard.queue.borrow_mut().take_stranded(key);
    let [(job, _)] = jobs.as_slice() else { panic!("{jobs:?}") };
    set_off(shard, [*job]);
    (key, *job)
}

async fn arrives(shards: &[Rc<Shard>; 2], (key, job): (MessageKey, JobId)) {
    assert!(rehome::hand_over(&shards[0], key, None, ([127, 0, 10, 1].into(), None), 1).await);
    shards[0].queue.borrow_mut().drop_job(job);
}

fn run(test: impl AsyncFnOnce([Rc<Shard>; 2]) + 'static) {
    with_one_message(async |shards| {
        shards.iter().for_each(|shard| shard.loaded.set(true));
        test(shards).await;
    });
}

fn queued(shards: &[Rc<Shard>; 2]) -> [u64; 2] {
    shards.each_ref().map(|shard| shard.queue.borrow().len())
}

#[test]
fn a_shard_is_not_done_before_what_it_gave_away_is_in_the_queue_of_the_other() {
    run(async |shards| {
        let (order, on_its_way) = (cancel(), leaving(&shards[0]));
        assert_eq!(look(&shards[1], &order).await, Ok(true), "nothing has come yet");
        let mut here = look(&shards[0], &order);
        glommio::timer::sleep(Duration::from_millis(20)).await;
        assert!(here.try_recv().is_err(), "not while it is on its way");
        arrives(&shards, on_its_way).await;
        assert_eq!(here.await, Ok(true), "it had set off before the order was heard");
        assert_eq!(queued(&shards), [0, 1], "and has arrived");
        // All have heard now, so that the next look counts.
        assert_eq!([look(&shards[0], &order).await, look(&shards[1], &order).await], [Ok(true), Ok(true)]);
        assert_eq!(queued(&shards), [0, 0]);
        assert_eq!(shards.each_ref().map(|shard| open(&shard.spool.borrow())), [names(&[]), names(&[])]);
    });
}

#[test]
fn a_shard_says_that_mail_of_an_order_has_set_off_since_it_heard_of_it() {
    run(async |shards| {
        let order = cancel();
        assert_eq!(look(&shards[0], &order).await, Ok(true), "nothing was queued");
        let on_its_way = leaving(&shards[0]);
        arrives(&shards, on_its_way).await;
        assert_eq!(look(&shards[0], &order).await, Ok(false));
        assert_eq!(look(&shards[0], &order).await, Ok(true), "said once");
        take(&shards[0], Ask::Done(order.id));
        assert_eq!(queued(&shards), [0, 1]);
    });
}
