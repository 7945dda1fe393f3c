use super::*;
use crate::policy::{Account, Lease};
use std::sync::Arc;

/// Loads and allowances by position.
struct Known<'a>(&'a [u64], &'a [Left]);

impl News for Known<'_> {
    fn load(&self, lease: LeaseIndex) -> u64 {
        self.0.get(lease.0 as usize).copied().unwrap_or(0)
    }

    fn left(&self, lease: LeaseIndex) -> Left {
        self.1.get(lease.0 as usize).copied().unwrap_or(Left::Free)
    }
}

fn pool(name: &str, kind: PoolKind, account: Option<&str>, overflow: Overflow) -> Pool {
    Pool { name: name.into(), kind, account: account.map(Arc::from), overflow, ..Pool::default() }
}

/// Leases by pool and shard, in order.
fn policy(mut pools: Vec<Pool>, leases: &[(u32, u16)]) -> Policy {
    let lease = |(n, (pool, shard)): (usize, &(u32, u16))| Lease {
        address: format!("127.0.0.{}", n + 1).parse().unwrap(),
        helo: "a".into(),
        pool: *pool,
        shard: *shard,
        warmup: None,
        draining: false,
    };
    for (n, (pool, _)) in leases.iter().enumerate() {
        pools[*pool as usize].leases.push(LeaseIndex(n as u32));
    }
    let leases = leases.iter().enumerate().map(lease).collect();
    Policy { version: 1, pools, leases, default_pool: Some(0), ..Policy::default() }
}

fn shared(shards: &[u16]) -> Policy {
    let leases: Vec<_> = shards.iter().map(|shard| (0, *shard)).collect();
    let pools = ["main", "empty"].map(|name| pool(name, PoolKind::Shared, None, Overflow::Auto));
    policy(pools.into(), &leases)
}

fn ask(pool: u32, hash: u64) -> Ask {
    Ask { pool, of_host: false, local_shard: 0, slack: 8, hash }
}

/// 0: the account's pool under test; 1: another of the account; 2: another account's; 3: shared. An IP each, two in the first.
fn accounts(overflow: Overflow) -> Policy {
    let pools = vec![
        pool("a", PoolKind::Dedicated, Some("acme"), overflow),
        pool("b", PoolKind::Dedicated, Some("acme"), Overflow::Auto),
        pool("c", PoolKind::Dedicated, Some("other"), Overflow::Auto),
        pool("s", PoolKind::Shared, None, Overflow::Auto),
    ];
    policy(pools, &[(0, 0), (0, 0), (1, 0), (2, 0), (3, 0)])
}

const NONE: Left = Left::Warming(0);

fn chosen(overflow: Overflow, left: [Left; 5]) -> Choice {
    choose(&accounts(overflow), ask(0, 0), &Known(&[0; 5], &left))
}

#[test]
fn equal_leases_share_evenly_and_the_least_loaded_goes_first() {
    let policy = shared(&[0, 0, 0]);
    let mut counts = [0; 3];
    for hash in 0..300 {
        counts[choose(&policy, ask(0, hash), &Known(&[], &[])).lease().unwrap().0 as usize] += 1;
    }
    assert_eq!(counts, [100; 3]);
    assert_eq!(choose(&policy, ask(0, 1), &Known(&[5, 3, 4], &[])), Choice::Go(LeaseIndex(1)));
}

#[test]
fn a_lease_elsewhere_is_chosen_only_when_the_local_ones_are_clearly_ahead() {
    let policy = shared(&[0, 1]);
    assert_eq!(choose(&policy, ask(0, 3), &Known(&[7, 0], &[])), Choice::Go(LeaseIndex(0)));
    assert_eq!(choose(&policy, ask(0, 3), &Known(&[9, 0], &[])), Choice::Go(LeaseIndex(1)));
}

#[test]
fn pools_are_found_by_name_and_an_empty_one_has_no_lease() {
    let policy = shared(&[0]);
    assert_eq!(pool_of(&policy, "default", None), Ok(Some(0)));
    assert_eq!(pool_of(&policy, "default", Some("empty")), Ok(Some(1)));
    assert_eq!(pool_of(&policy, "default", Some("x")), Err(UnknownPool("x".into())));
    assert_eq!(choose(&policy, ask(1, 3), &Known(&[], &[])), Choice::Wait(None));
}

#[test]
fn a_pool_of_another_account_is_none_and_ips_in_no_pool_of_its_own_go_first() {
    let mut policy = accounts(Overflow::Auto);
    assert_eq!(pool_of(&policy, "acme", Some("b")), Ok(Some(1)));
    assert_eq!(pool_of(&policy, "acme", Some("s")), Ok(Some(3)));
    for (account, name) in [("acme", "c"), ("default", "a")] {
        assert_eq!(pool_of(&policy, account, Some(name)), Err(UnknownPool(name.into())));
    }
    assert_eq!(pool_of(&policy, "other", None), Ok(None), "the default pool is not its own");
    policy.pools[2].name = DEFAULT_DEDICATED_POOL.into();
    assert_eq!(pool_of(&policy, "other", None), Ok(Some(2)));
    assert_eq!(pool_of(&policy, "acme", None), Ok(Some(0)), "the default pool");
    assert_eq!(pool_of(&policy, "third", Some(SHARED_POOL)), Ok(None), "there, but without an IP: it waits");
    policy.pools[3].name = SHARED_POOL.into();
    assert_eq!(pool_of(&policy, "third", None), Ok(Some(3)));
}

#[test]
fn the_pool_of_an_account_goes_before_that_of_the_host_and_behind_its_ips_in_no_pool() {
    let mut policy = accounts(Overflow::Auto);
    policy.accounts = vec![Account { name: "acme".into(), pool: Some(1), ..Account::built_in() }];
    assert_eq!(pool_of(&policy, "acme", None), Ok(Some(1)));
    assert_eq!(pool_of(&policy, "acme", Some("a")), Ok(Some(0)), "the header wins");
    // A lease of each account in the pools that have the same name.
    for at in [0, 2] {
        policy.pools[at].name = DEFAULT_DEDICATED_POOL.into();
    }
    assert_eq!(pool_of(&policy, "acme", None), Ok(Some(0)));
    for (account, pool) in [("acme", 0), ("other", 2)] {
        assert_eq!(pool_again(&policy, account, DEFAULT_DEDICATED_POOL, false), Some(pool), "its own of that name");
    }
    assert_eq!(pool_again(&policy, "acme", "c", false), Some(0), "what it was accepted for is gone");
    for (leased, found) in [(false, None), (true, Some(0))] {
        let shared = pool_again(&policy, "acme", SHARED_POOL, leased);
        assert_eq!(shared, found, "it waits for the first IP of a pool that is always there, not for one that it lost");
    }
}

#[test]
fn a_plan_is_used_before_warm_ips_and_the_one_with_most_left_first() {
    let free = Left::Free;
    assert_eq!(
        chosen(Overflow::Auto, [Left::Warming(3), Left::Warming(9), NONE, free, free]),
        Choice::Go(LeaseIndex(1))
    );
    assert_eq!(chosen(Overflow::Auto, [Left::Warming(1), Left::Done, NONE, free, free]), Choice::Go(LeaseIndex(0)));
    assert_eq!(chosen(Overflow::Auto, [NONE, Left::Done, NONE, free, free]), Choice::Go(LeaseIndex(1)));
    assert_eq!(chosen(Overflow::Auto, [Left::Unknown, Left::Done, NONE, free, free]), Choice::Go(LeaseIndex(0)));
}

#[test]
fn first_ips_overflow_to_the_shared_pool_and_others_to_warm_ones_only() {
    let auto = |left| chosen(Overflow::Auto, left);
    assert_eq!(
        auto([NONE, NONE, NONE, Left::Done, Left::Free]),
        Choice::Over(LeaseIndex(4)),
        "another's warm IP is none"
    );
    assert_eq!(auto([NONE, NONE, Left::Warming(5), NONE, Left::Free]), Choice::Over(LeaseIndex(4)));
    assert_eq!(auto([NONE, NONE, Left::Done, NONE, Left::Free]), Choice::Over(LeaseIndex(2)));
    assert!(matches!(auto([NONE, NONE, Left::Unknown, NONE, Left::Free]), Choice::Wait(Some(_))), "it may be warm");
    let mut drains = accounts(Overflow::Auto);
    drains.leases[2].draining = true;
    let left = [NONE, NONE, Left::Done, NONE, Left::Free];
    assert!(matches!(choose(&drains, ask(0, 0), &Known(&[], &left)), Choice::Wait(Some(_))), "it has a warm IP");
}

#[test]
fn a_pool_says_where_its_overflow_goes() {
    let left = [NONE, NONE, Left::Done, NONE, Left::Free];
    let cold = [NONE, NONE, NONE, NONE, Left::Free];
    assert_eq!(chosen(Overflow::Shared, left), Choice::Over(LeaseIndex(4)));
    assert_eq!(chosen(Overflow::Dedicated, left), Choice::Over(LeaseIndex(2)));
    assert!(matches!(chosen(Overflow::Dedicated, cold), Choice::Wait(Some(LeaseIndex(0 | 1)))));
    assert!(matches!(chosen(Overflow::Pool, left), Choice::Wait(Some(LeaseIndex(0 | 1)))));
    assert!(matches!(chosen(Overflow::Defer, left), Choice::Wait(Some(LeaseIndex(0 | 1)))));
    assert!(matches!(chosen(Overflow::Reject, left), Choice::Reject(Some(LeaseIndex(0 | 1)))));
}

#[test]
fn mail_of_the_host_never_goes_by_an_ip_that_warms_up() {
    let policy = accounts(Overflow::Auto);
    let ask = Ask { of_host: true, ..ask(0, 0) };
    let full = Left::Warming(1000);
    assert_eq!(choose(&policy, ask, &Known(&[], &[full, full, full, full, Left::Free])), Choice::Over(LeaseIndex(4)));
    assert_eq!(
        choose(&policy, ask, &Known(&[], &[full, Left::Done, full, full, Left::Free])),
        Choice::Go(LeaseIndex(1))
    );
    let alone = accounts(Overflow::Defer);
    assert_eq!(choose(&alone, ask, &Known(&[], &[full; 5])), Choice::Wait(None));
}
