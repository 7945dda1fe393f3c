//! Orders of operators: tried now, sent by another pool, bounced or cancelled.
//!
//! What is in flight, or on its way to another shard, is left to end first and looked at again, and so is what the spool has
//! no room for; an order is carried out once nothing is left that it concerns, here and on the other shards (`heard.rs`). A
//! restart before that begins it again: what is done is not there any more.

use super::{
    SLICE, Walk,
    heard::{Open, set_off},
    select::Numbers,
};
use crate::{
    clock,
    deliver::outcome::{self, Operator},
    link::orders::{Action, Errand, Order, Progress},
    mesh,
    message::{id::MessageId, meta::Meta},
    rehome,
    shard::Shard,
};
use mailrail_queue::{JobId, State};
use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

/// Before what was in flight is looked at again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a job waits whose end could not be recorded.
const NO_ROOM: Duration = Duration::from_secs(5);

/// Carries an order out, and tells.
pub(super) async fn carry_out(shard: &Rc<Shard>, errand: Errand) {
    let Errand { order, progress, finished } = errand;
    let open = shard.heard.of(&order);
    shard.is_loaded().await;
    while walk(shard, &open, &progress).await > 0 {
        if shard.stopping.get() {
            return;
        }
        glommio::timer::sleep(AGAIN).await;
    }
    rehome::landed(shard).await;
    if !shard.stopping.get() {
        let _ = finished.send(open.all_stayed());
    }
}

/// One walk over the queue; returns how many jobs have to be looked at again.
async fn walk(shard: &Rc<Shard>, open: &Open, progress: &Progress) -> usize {
    let Open { order, filter, .. } = open;
    let (mut walk, mut more, mut left, mut kept) = (Walk::new(), true, 0, 0);
    while more && !shard.stopping.get() {
        let mut found = Vec::new();
        more = walk.slice(shard, |_, spool, seen| {
            let idle = order.action == Action::Retry && !matches!(seen.state(), State::Ready | State::Deferred(_));
            if idle {
                return;
            }
            let picked = filter.pick(shard, spool, seen);
            match seen.state() {
                _ if picked.is_empty() => {}
                State::InFlight | State::Ending => left += 1,
                _ => found.push((seen.id(), picked)),
            }
        });
        left += match order.action {
            Action::Reroute => reroute(shard, order, found, (progress, &mut kept)).await,
            _ => each(shard, order, found, progress).await,
        };
        glommio::executor().yield_now().await;
    }
    open.kept(kept, progress);
    left
}

/// Does it to each; returns how many could not be done now.
async fn each(shard: &Rc<Shard>, order: &Order, found: Vec<(JobId, Numbers)>, progress: &Progress) -> usize {
    let (mut began, mut left) = (clock::mono(), 0);
    for (job, picked) in found {
        if clock::mono().since(began) >= SLICE {
            glommio::executor().yield_now().await;
            began = clock::mono();
        }
        let count = picked.len();
        let done = match order.action {
            Action::Retry => retry(shard, job),
            // What could not be recorded would be undone by a crash, and its event would never come.
            _ if !shard.may_deliver() => Done::NotNow,
            Action::Bounce => end(shard, job, &picked, Operator::Bounces(&order.reason)),
            Action::Cancel => end(shard, job, &picked, Operator::Cancels(&order.reason)),
            Action::Reroute => Done::Gone,
        };
        match done {
            Done::Yes => progress.add(count),
            Done::NotNow => left += 1,
            Done::Gone => {}
        }
    }
    shard.work.raise();
    left
}

enum Done {
    Yes,
    NotNow,
    /// It has ended, or is not where it was.
    Gone,
}

/// The site is not left alone any more, and the job is due.
fn retry(shard: &Shard, job: JobId) -> Done {
    let mut queue = shard.queue.borrow_mut();
    let now = clock::mono();
    let Some(lane) = queue.jobs_lane(job) else { return Done::Gone };
    let backed_off = queue.lane(lane).and_then(|lane| lane.backed_off_until).is_some_and(|until| until > now);
    if backed_off {
        queue.end_backoff(now, lane);
    }
    if queue.retry_now(now, job) || backed_off { Done::Yes } else { Done::Gone }
}

fn end(shard: &Rc<Shard>, job: JobId, picked: &[u16], how: Operator<'_>) -> Done {
    let Some(part) = shard.queue.borrow_mut().pull(clock::mono(), job, picked) else { return Done::NotNow };
    if outcome::by_operator(shard, part, how) {
        return Done::Yes;
    }
    shard.queue.borrow_mut().put_back(clock::mono(), part, NO_ROOM);
    Done::NotNow
}

/// Sends jobs by another pool, so many at a time: each waits until it is durable there. Counts recipients done, and those
/// that nothing may take; returns how many jobs could not be moved now.
async fn reroute(
    shard: &Rc<Shard>,
    order: &Arc<Order>,
    found: Vec<(JobId, Numbers)>,
    (progress, kept): (&Progress, &mut usize),
) -> usize {
    let mut left = 0;
    let mut found = found.into_iter();
    loop {
        let batch: Vec<_> = found.by_ref().take(rehome::AT_ONCE).collect();
        if batch.is_empty() {
            return left;
        }
        let moves: Vec<_> = batch
            .into_iter()
            .map(|(job, picked)| {
                let (shard, order) = (Rc::clone(shard), Arc::clone(order));
                let count = picked.len();
                (count, glommio::spawn_local(async move { move_one(&shard, &order, job, &picked).await }))
            })
            .collect();
        for (count, moved) in moves {
            match moved.await {
                Some(true) => progress.add(count),
                Some(false) => left += 1,
                None => *kept += count,
            }
        }
        shard.work.raise();
    }
}

/// Sends recipients of a job by the pool of the order. False: not now; none: no leased IP of the pool may take it.
async fn move_one(shard: &Rc<Shard>, order: &Order, job: JobId, picked: &[u16]) -> Option<bool> {
    let pool = order.pool.as_deref()?;
    let (address, owner) = destination(shard, pool, job, picked.len())?;
    let part = shard.queue.borrow_mut().pull(clock::mono(), job, picked);
    let Some(part) = part else { return Some(false) };
    let Some(key) = shard.queue.borrow().job(part).map(|(key, ..)| key) else { return Some(true) };
    set_off(shard, [part]);
    let moved = rehome::hand_over(shard, key, Some(picked), (address, Some(pool)), owner).await;
    let mut queue = shard.queue.borrow_mut();
    if moved {
        queue.drop_job(part);
    } else {
        queue.put_back(clock::mono(), part, rehome::NOT_TAKEN);
    }
    Some(moved)
}

fn destination(shard: &Shard, pool: &str, job: JobId, recipients: usize) -> Option<(IpAddr, u16)> {
    let snapshot = shard.policy();
    let policy = &snapshot.policy;
    let pool = policy.pools.iter().position(|known| *known.name == *pool)? as u32;
    let key = shard.queue.borrow().job(job).map(|(key, ..)| key)?;
    let spool = shard.spool.borrow();
    let view = spool.message(key)?;
    let of_host = Meta::decode(view.meta)?.flags.dsn;
    let hash = MessageId::from_bytes(view.id).map_or(0, |id| id.hash());
    let chosen = mesh::choose(shard, policy, pool, of_host, recipients, hash).lease()?;
    let lease = policy.leases.get(chosen.0 as usize)?;
    Some((lease.address, mesh::owner(shard, lease)))
}
