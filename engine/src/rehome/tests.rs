//! Where stranded mail goes is decided once, for the decision counts.

use super::walk;
use crate::{
    clock,
    link::Snapshot,
    mesh::{self, Request},
    tests::two_shards::{stranded, with_one_message},
};
use mailrail_queue::{
    Left,
    policy::{Lease, LeaseIndex, Policy, Pool, PoolKind, SHARED_POOL, Warmup},
    warmup::{day::DayStart, plan::Plan},
};
use std::{net::IpAddr, sync::Arc, time::Duration};

fn ip(n: u8) -> IpAddr {
    [127, 0, 10, n].into()
}

/// All leased IPs are the second shard's: one that warms up, and a shared one.
fn snapshot() -> Snapshot {
    let warmup = Warmup {
        leasing: 1,
        leased: clock::wall(),
        warm: false,
        plan: Plan::table(&[10]).unwrap(),
        spread: Duration::ZERO,
        starts: DayStart::default(),
        set: None,
        held: false,
    };
    let lease =
        |n, pool, warmup| Lease { address: ip(n), helo: "mta.test".into(), pool, shard: 1, warmup, draining: false };
    let pool =
        |name: &str, kind, lease| Pool { name: name.into(), leases: vec![LeaseIndex(lease)], kind, ..Pool::default() };
    let policy = Policy {
        version: 1,
        pools: vec![pool("cold", PoolKind::Dedicated, 0), pool(SHARED_POOL, PoolKind::Shared, 1)],
        leases: vec![lease(1, 0, Some(Arc::new(warmup))), lease(2, 1, None)],
        default_pool: Some(0),
        ..Policy::default()
    };
    Snapshot { policy: Arc::new(policy), keys: Arc::default(), credentials: Arc::default() }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        glommio::timer::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[test]
fn what_is_on_its_way_is_not_decided_again() {
    with_one_message(async |shards| {
        let [here, there] = &shards;
        // The other one takes nothing before it is loaded.
        here.loaded.set(true);
        shards.iter().for_each(|shard| shard.set_policy(snapshot()));
        let left = vec![(ip(1), Left::Warming(0))];
        mesh::ask(there, 0, Request::Assigned { by: 1, counts: Vec::new(), left }).await.unwrap();
        // Answered after that was heard.
        let _ = mesh::ask_ledger(there, 0, (ip(1), "".into()), 1).await;
        stranded(here);
        let overflowed = || here.mesh.overflowed().iter().map(|of| of.recipients).sum::<u64>();
        walk(here).await;
        assert_eq!((overflowed(), here.queue.borrow().stranded()), (1, 0), "by the shared pool");
        walk(here).await;
        assert_eq!(overflowed(), 1);
        there.loaded.set(true);
        eventually("it is in the queue of its new owner", || there.queue.borrow().len() == 1).await;
        assert_eq!((here.queue.borrow().len(), overflowed()), (0, 1));
    });
}
