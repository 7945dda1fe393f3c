//! What is asked and told of providers on a shard. The deciding is the queue's.

use crate::{
    clock,
    link::{LadderStanding, ProviderChange, ProviderIp, ProviderState},
    shard::Shard,
};
use mailrail_queue::{
    Height, OTHER, ShapeInfo,
    shape::{entry::rate_text, standing::Standing},
    time::Mono,
};

/// How the leased IPs of this shard stand with the providers that they have met.
pub(crate) fn standings(shard: &Shard) -> Vec<ProviderIp> {
    let snapshot = shard.policy();
    let shapes = shard.queue.borrow_mut().shapes(clock::mono());
    let heights = shard.queue.borrow_mut().heights(clock::mono(), clock::wall());
    let mine = shapes.into_iter().filter(|info| shard.owns(info.lease));
    let pool = |info: &ShapeInfo| {
        let lease = snapshot.policy.leases.iter().find(|lease| lease.address == info.lease);
        lease.and_then(|lease| snapshot.policy.pools.get(lease.pool as usize)).map(|pool| pool.name.to_string())
    };
    let with_ladder = |info: ShapeInfo| {
        let height = heights.iter().find(|height| height.ip == info.lease && height.provider == info.provider);
        let ladder = height.map(ladder);
        ProviderIp { ladder, ..row(shard.number, pool(&info).unwrap_or_default(), info) }
    };
    let mut rows: Vec<ProviderIp> = mine.map(with_ladder).collect();
    // Sites of no provider have no shape, and may have a ladder.
    for height in heights.iter().filter(|height| &*height.provider == OTHER && shard.owns(height.ip)) {
        let info = ShapeInfo {
            provider: OTHER.into(),
            lease: height.ip,
            standing: Standing::default(),
            queued: [0, height.waiting, 0],
            connections: 0,
            outcomes: [0; 3],
        };
        rows.push(ProviderIp {
            ladder: Some(ladder(height)),
            ..row(shard.number, pool(&info).unwrap_or_default(), info)
        });
    }
    rows
}

fn row(shard: u16, pool: String, info: ShapeInfo) -> ProviderIp {
    let standing = info.standing;
    let (now, wall) = (clock::mono(), clock::wall());
    let time = |at: Mono| wall.plus(at.since(now)).0;
    let state = match (standing.suspended, standing.slower + standing.fewer) {
        (Some(_), _) => ProviderState::Suspended,
        (None, 0) => ProviderState::Open,
        (None, _) => ProviderState::Slowed,
    };
    let [ready, deferred, in_flight] = info.queued;
    let [delivered, deferrals, bounced] = info.outcomes;
    ProviderIp {
        provider: info.provider.to_string(),
        ip: info.lease,
        shard,
        pool,
        state,
        queued: ready + deferred + in_flight,
        deferred,
        in_flight,
        connections: info.connections,
        connection_limit: standing.connections,
        rate: standing.rate.map(rate_text),
        slower: standing.slower,
        fewer: standing.fewer,
        suspended_until: standing.suspended.map(time),
        by_operator: standing.by_operator,
        recovers_at: standing.recovers.map(time),
        reason: standing.reason.as_ref().map(|(_, text)| text.to_string()),
        reason_at: standing.reason.map(|(at, _)| at.0),
        delivered,
        deferrals,
        bounced,
        ladder: None,
    }
}

fn ladder(height: &Height) -> LadderStanding {
    let figures = height.rung.figures;
    LadderStanding {
        step: height.rung.ladder.step,
        cap: height.cap,
        sent: height.sent,
        deferred: figures.deferred,
        bounced: figures.bounced,
        blocked: figures.blocked,
        waiting: height.waiting,
        opens: height.opens.map(|at| clock::wall().plus(at.since(clock::mono())).0),
        last: height.rung.last.map(|(_, decision)| decision.verdict.as_str().to_owned()),
    }
}

/// Suspends or lifts; of how many leased IPs of this shard.
pub(crate) fn change(shard: &Shard, change: &ProviderChange) -> usize {
    let (now, wall) = (clock::mono(), clock::wall());
    let mut queue = shard.queue.borrow_mut();
    let snapshot = shard.policy();
    let mine = snapshot.policy.leases.iter().filter(|lease| lease.shard == shard.number);
    let wanted = mine.filter(|lease| change.ip.is_none_or(|ip| lease.address == ip));
    let mut count = 0;
    for lease in wanted {
        let id = queue.lease_id(lease.address);
        count += usize::from(match &change.suspend {
            Some((time, why)) => queue.suspend(now, wall, &change.provider, id, now.plus(*time), why),
            None => queue.lift(now, wall, &change.provider, id),
        });
    }
    drop(queue);
    shard.work.raise();
    count
}
