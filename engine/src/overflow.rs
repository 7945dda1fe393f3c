//! Mail that the warm-up plan of its leased IP does not let go: another leased IP, here or on another shard, or it waits.

use crate::{
    clock,
    event::detail::{Attempt, Outcome},
    mesh,
    message::{id::MessageId, meta::Meta},
    operate, rehome,
    shard::Shard,
    smtp::reply::{Enhanced, Reply},
};
use mailrail_queue::{
    JobId,
    classify::DelayType,
    egress::{self, Beside, Choice},
    policy::{Lease, LeaseIndex, Policy},
};
use std::rc::Rc;

/// Decides where a job goes that waits.
pub(crate) fn decide(shard: &Rc<Shard>, job: JobId) {
    let snapshot = shard.policy();
    let ladder = shard.queue.borrow_mut().ladder_of(job);
    if let Some((step, provider)) = ladder {
        return match beside(shard, &snapshot.policy, job, step, &provider) {
            Some(lease) => go_by(shard, job, lease),
            None => wait(shard, job),
        };
    }
    let Some((choice, own)) = choose(shard, &snapshot.policy, job) else { return };
    let (Choice::Go(lease) | Choice::Over(lease)) = choice else { return wait(shard, job) };
    let Some(lease) = snapshot.policy.leases.get(lease.0 as usize) else { return };
    if lease.address == own {
        return wait(shard, job);
    }
    go_by(shard, job, lease);
}

/// Gives a job that waits to another leased IP, here or on another shard.
fn go_by(shard: &Rc<Shard>, job: JobId, lease: &Lease) {
    if lease.shard == shard.number {
        let mut queue = shard.queue.borrow_mut();
        let id = queue.lease_id(lease.address);
        queue.reroute(clock::mono(), clock::wall(), job, id);
        return;
    }
    let Some((key, recipients)) = shard.queue.borrow_mut().take_waiting(job) else { return };
    operate::heard::set_off(shard, [job]);
    let (shard, address, owner) = (Rc::clone(shard), lease.address, lease.shard);
    glommio::spawn_local(async move {
        if rehome::hand_over(&shard, key, Some(&recipients), (address, None), owner).await {
            shard.queue.borrow_mut().drop_job(job);
        } else {
            shard.queue.borrow_mut().put_back(clock::mono(), job, rehome::NOT_TAKEN);
        }
        shard.work.raise();
    })
    .detach();
}

/// Another leased IP for what a ladder does not let go: one of the same pool with room at the provider, or, as long as the
/// ladder is low, of the shared pool.
fn beside<'a>(shard: &Shard, policy: &'a Policy, job: JobId, step: u32, provider: &str) -> Option<&'a Lease> {
    let (recipients, hash, own) = {
        let queue = shard.queue.borrow();
        let (key, recipients, ..) = queue.job(job)?;
        let (recipients, own) = (recipients.len(), queue.lane(queue.jobs_lane(job)?)?.lease);
        let spool = shard.spool.borrow();
        let view = spool.message(key)?;
        let hash = MessageId::from_bytes(view.id).map_or(0, |id| id.hash());
        (recipients, hash, own)
    };
    let own = policy.leases.iter().position(|lease| lease.address == own)?;
    let of = policy.leases.get(own)?.pool;
    let (now, wall) = (clock::mono(), clock::wall());
    let mut queue = shard.queue.borrow_mut();
    let room = |index: LeaseIndex| {
        let lease = policy.leases.get(index.0 as usize).filter(|lease| lease.shard == shard.number)?;
        let id = queue.lease_id(lease.address);
        Some(queue.room(now, wall, id, provider))
    };
    let beside = egress::beside(policy, LeaseIndex(own as u32), step, recipients as u64, room);
    drop(queue);
    let chosen = match beside {
        Beside::Lease(other) => Some(other),
        Beside::Shared => mesh::choose_shared(shard, policy, of, recipients, hash),
        Beside::Nowhere => None,
    };
    policy.leases.get(chosen?.0 as usize)
}

/// What is chosen for a job, and the leased IP that it waits for.
fn choose(shard: &Shard, policy: &Policy, job: JobId) -> Option<(Choice, std::net::IpAddr)> {
    let (key, recipients, own) = {
        let queue = shard.queue.borrow();
        let (key, recipients, ..) = queue.job(job)?;
        (key, recipients.len(), queue.lane(queue.jobs_lane(job)?)?.lease)
    };
    let spool = shard.spool.borrow();
    let view = spool.message(key)?;
    let meta = Meta::decode(view.meta)?;
    let pool = egress::pool_again(policy, meta.account, meta.pool, meta.lease.is_some())?;
    let hash = MessageId::from_bytes(view.id).map_or(0, |id| id.hash());
    Some((mesh::choose(shard, policy, pool, meta.flags.dsn, recipients, hash), own))
}

/// Nothing may take it. Its sender is told once that it waits, though nobody has refused it.
fn wait(shard: &Rc<Shard>, job: JobId) {
    let (now, wall) = (clock::mono(), clock::wall());
    let mut queue = shard.queue.borrow_mut();
    if !queue.tells(job) {
        return;
    }
    let Some((key, recipients, ..)) = queue.job(job) else { return };
    let recipients = recipients.to_vec();
    let Some(lane) = queue.jobs_lane(job).and_then(|lane| queue.lane(lane)) else { return };
    drop(queue);
    let text = format!("waiting for the warm-up allowance of {}", lane.lease);
    shard.remember_trouble(lane.lane, &text);
    let attempt = Attempt {
        time: wall,
        lease: Some(lane.lease),
        reply: Reply::local(451, Enhanced(4, 7, 0), text),
        outcome: Outcome::Deferred(DelayType::SendingDeferral),
        next_try: lane.opens.map_or(wall, |at| wall.plus(at.since(now))),
        tell_delay: true,
        ..Attempt::default()
    };
    let mut detail = Vec::with_capacity(256);
    attempt.encode(&mut detail);
    shard.spool.borrow_mut().attempt(key, &recipients, &detail);
    shard.dirty.raise();
}
