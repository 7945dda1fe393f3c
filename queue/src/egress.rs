//! Which leased IP a message leaves by, chosen before it is appended.

use crate::policy::{LeaseIndex, Policy};
use thiserror::Error;

/// `X-Mailrail-Pool` names a pool that there is not.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("pool <{0}> does not exist")]
pub struct UnknownPool(pub String);

/// The pool of a message: the one its header names, else the default one. None if there is no pool at all: the message is
/// kept until there is.
///
/// # Errors
/// [`UnknownPool`].
pub fn pool_of(policy: &Policy, header: Option<&str>) -> Result<Option<u32>, UnknownPool> {
    let Some(name) = header else { return Ok(policy.default_pool) };
    match policy.pools.iter().position(|pool| &*pool.name == name) {
        Some(position) => Ok(Some(position as u32)),
        None => Err(UnknownPool(name.to_owned())),
    }
}

/// The least loaded lease of a pool. A lease of the receiving shard is given `slack` and a quarter in its favour, because a
/// hand-over to another shard costs; ties go by `hash`. None if the pool has no lease.
pub fn choose(
    policy: &Policy,
    pool: u32,
    load: impl Fn(LeaseIndex) -> u64,
    local_shard: u16,
    slack: u64,
    hash: u64,
) -> Option<LeaseIndex> {
    let leases = &policy.pools.get(pool as usize)?.leases;
    let weight = |(position, index): (usize, &LeaseIndex)| {
        let lease = policy.leases.get(index.0 as usize)?;
        let load = load(*index);
        // What is known of other shards is a little old: under load the local lease would always seem to be ahead.
        let away = if lease.shard == local_shard { 0 } else { slack + load / 4 };
        // A different order for each message, so that equal leases share evenly.
        let tie = (position as u64 + leases.len() as u64 - hash % leases.len() as u64) % leases.len() as u64;
        Some((load.saturating_add(away), tie, *index))
    };
    leases.iter().enumerate().filter_map(weight).min().map(|(_, _, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Lease, Pool};

    fn policy(shards: &[u16]) -> Policy {
        let lease = |(n, shard): (usize, &u16)| Lease {
            address: format!("127.0.0.{}", n + 1).parse().unwrap(),
            helo: "a".into(),
            pool: 0,
            shard: *shard,
        };
        let leases: Vec<_> = shards.iter().enumerate().map(lease).collect();
        let all = (0..leases.len() as u32).map(LeaseIndex).collect();
        let pools = vec![Pool { name: "main".into(), leases: all }, Pool { name: "empty".into(), leases: vec![] }];
        Policy { version: 1, pools, leases, default_pool: Some(0), domains: vec![] }
    }

    #[test]
    fn equal_leases_share_evenly_and_the_least_loaded_goes_first() {
        let policy = policy(&[0, 0, 0]);
        let mut counts = [0; 3];
        for hash in 0..300 {
            counts[choose(&policy, 0, |_| 0, 0, 8, hash).unwrap().0 as usize] += 1;
        }
        assert_eq!(counts, [100; 3]);
        let load = |index: LeaseIndex| [5, 3, 4][index.0 as usize];
        assert_eq!(choose(&policy, 0, load, 0, 8, 1), Some(LeaseIndex(1)));
    }

    #[test]
    fn a_lease_elsewhere_is_chosen_only_when_the_local_ones_are_clearly_ahead() {
        let policy = policy(&[0, 1]);
        assert_eq!(choose(&policy, 0, |index| [7, 0][index.0 as usize], 0, 8, 3), Some(LeaseIndex(0)));
        assert_eq!(choose(&policy, 0, |index| [9, 0][index.0 as usize], 0, 8, 3), Some(LeaseIndex(1)));
    }

    #[test]
    fn pools_are_found_by_name_and_an_empty_one_has_no_lease() {
        let policy = policy(&[0]);
        assert_eq!(pool_of(&policy, None), Ok(Some(0)));
        assert_eq!(pool_of(&policy, Some("empty")), Ok(Some(1)));
        assert_eq!(pool_of(&policy, Some("x")), Err(UnknownPool("x".into())));
        assert_eq!(choose(&policy, 1, |_| 0, 0, 8, 3), None);
    }
}
