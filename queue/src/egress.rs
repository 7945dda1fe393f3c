//! Which leased IP a message leaves by: chosen before it is appended, and asked again for what a warm-up plan does not let go.
//!
//! Pure, and deterministic for a hash: what is known of the leased IPs comes in through [`News`], so that a rehearsal in
//! virtual time makes the very same choices.

use crate::{
    policy::{DEFAULT_DEDICATED_POOL, LeaseIndex, Overflow, Policy, Pool, PoolKind, SHARED_POOL},
    queue::Left,
};
use thiserror::Error;

pub use crate::policy::DEFAULT_ACCOUNT;

/// `X-Mailrail-Pool` names a pool that there is not, or that is another account's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("pool <{0}> does not exist")]
pub struct UnknownPool(pub String);

/// What is known of the leased IPs. It may be a little old: that makes a choice worse, and never exceeds a plan, as only the
/// owner of a leased IP charges its ledger.
pub trait News {
    /// What a leased IP was given of late.
    fn load(&self, lease: LeaseIndex) -> u64;
    /// What its plan still lets go.
    fn left(&self, lease: LeaseIndex) -> Left;
}

/// Mail to choose for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Its pool.
    pub pool: u32,
    /// Made by this host (notifications): it does not go by an IP that warms up.
    pub of_host: bool,
    /// The shard that has it, and how much a leased IP of that shard may be ahead: a hand-over costs.
    pub local_shard: u16,
    /// See `local_shard`.
    pub slack: u64,
    /// Of the message id: decides between equals.
    pub hash: u64,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This leased IP, now. An IP that warms up may not have room for all recipients: the rest is asked about again.
    Go(LeaseIndex),
    /// The same, in another pool, because the plans of the own pool let nothing go.
    Over(LeaseIndex),
    /// Nothing may take it now: it waits for the plan of this leased IP, or, without one, until the pool has one.
    Wait(Option<LeaseIndex>),
    /// The same; its pool wants it refused, if it was not accepted yet.
    Reject(Option<LeaseIndex>),
}

impl Choice {
    /// The leased IP that it leaves by, now or later.
    #[must_use]
    pub fn lease(self) -> Option<LeaseIndex> {
        match self {
            Self::Go(lease) | Self::Over(lease) => Some(lease),
            Self::Wait(lease) | Self::Reject(lease) => lease,
        }
    }
}

/// The pool of a message: the one its header names, if the account may use it; else that of the account's IPs that are in no
/// pool of its own; else the account's default pool; else the host's, if the account may use that; else the shared pool. None
/// if there is no such pool, or one of the two that are always there has no IP yet: the message is kept until there is.
///
/// # Errors
/// [`UnknownPool`].
pub fn pool_of(policy: &Policy, account: &str, header: Option<&str>) -> Result<Option<u32>, UnknownPool> {
    match header {
        None => Ok(pool_unnamed(policy, account)),
        Some(name) => match pool_named(policy, account, name) {
            None if !is_always_there(name) => Err(UnknownPool(name.to_owned())),
            found => Ok(found),
        },
    }
}

/// The pool of a message that was accepted for this one: if that is gone, or another account's by now, the one that it would
/// have if it named none. One that named a pool that is always there, and had no IP in it yet (`leased` is false), waits for that.
#[must_use]
pub fn pool_again(policy: &Policy, account: &str, accepted_for: &str, leased: bool) -> Option<u32> {
    match pool_named(policy, account, accepted_for) {
        None if leased || !is_always_there(accepted_for) => pool_unnamed(policy, account),
        found => found,
    }
}

fn is_always_there(pool: &str) -> bool {
    [DEFAULT_DEDICATED_POOL, SHARED_POOL].contains(&pool)
}

/// Several accounts have a pool of the same name: that of their IPs that are in no pool.
fn pool_named(policy: &Policy, account: &str, name: &str) -> Option<u32> {
    position(policy, |pool| *pool.name == *name && may_use(pool, account))
}

fn pool_unnamed(policy: &Policy, account: &str) -> Option<u32> {
    let in_none =
        |pool: &Pool| *pool.name == *DEFAULT_DEDICATED_POOL && account_of(pool) == account && !pool.leases.is_empty();
    let usable = |at: &u32| policy.pools.get(*at as usize).is_some_and(|pool| may_use(pool, account));
    let own = policy.account(account).and_then(|account| account.pool);
    position(policy, in_none)
        .or(own.filter(usable))
        .or(policy.default_pool.filter(usable))
        .or_else(|| position(policy, |pool| *pool.name == *SHARED_POOL))
}

fn position(policy: &Policy, wanted: impl Fn(&Pool) -> bool) -> Option<u32> {
    policy.pools.iter().position(wanted).map(|found| found as u32)
}

/// May this account send by this pool?
#[must_use]
pub fn may_use(pool: &Pool, account: &str) -> bool {
    pool.kind == PoolKind::Shared || account_of(pool) == account
}

/// The account that a pool belongs to.
#[must_use]
pub fn account_of(pool: &Pool) -> &str {
    pool.account.as_deref().unwrap_or(DEFAULT_ACCOUNT)
}

/// The leased IP for a message: in its pool one that warms up and may send now, the one with most left first, so that the plan
/// is used; then a warm one, the least loaded first; else where the pool says that its overflow goes.
pub fn choose(policy: &Policy, ask: Ask, news: &impl News) -> Choice {
    let Some(pool) = policy.pools.get(ask.pool as usize) else { return Choice::Wait(None) };
    let chooser = Chooser { policy, ask, news };
    if !ask.of_host
        && let Some(lease) = chooser.most_left(pool)
    {
        return Choice::Go(lease);
    }
    if let Some(lease) = chooser.least_loaded(pool) {
        return Choice::Go(lease);
    }
    if let Some(lease) = chooser.overflow(pool) {
        return Choice::Over(lease);
    }
    match pool.overflow {
        _ if ask.of_host => Choice::Wait(None),
        Overflow::Reject if pool.kind != PoolKind::Shared => Choice::Reject(chooser.to_wait_for(pool)),
        _ => Choice::Wait(chooser.to_wait_for(pool)),
    }
}

/// Below this step of its ladder, what a leased IP of a managed pool may not take goes by the shared pool; above, it waits.
const EARLY: u32 = 10;

/// Where mail goes that a ladder does not let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// To this leased IP of the same pool, which has room for it at the provider.
    Lease(LeaseIndex),
    /// To the shared pool, if one of its leased IPs takes it: [`choose_shared`].
    Shared,
    /// Nowhere: it waits.
    Nowhere,
}

/// The same for mail of `recipients` that waits for the ladder of `own`, which is on `step`: another leased IP of the pool with
/// room for it, or, as long as the ladder is low, the shared pool. `room`: what a leased IP may take to the provider now;
/// none if that is not for this shard to know.
pub fn beside(
    policy: &Policy,
    own: LeaseIndex,
    step: u32,
    recipients: u64,
    mut room: impl FnMut(LeaseIndex) -> Option<u64>,
) -> Beside {
    let lease = |index: LeaseIndex| policy.leases.get(index.0 as usize);
    let Some(pool) = lease(own).and_then(|lease| policy.pools.get(lease.pool as usize)) else { return Beside::Nowhere };
    let others = pool.leases.iter().copied().filter(|other| *other != own);
    let open = others.filter(|other| lease(*other).is_some_and(|lease| !lease.draining));
    let best = open.filter_map(|other| Some((room(other)?, other))).max_by_key(|(room, _)| *room);
    if let Some((_, other)) = best.filter(|(room, _)| *room >= recipients.max(1)) {
        return Beside::Lease(other);
    }
    match pool.overflow {
        Overflow::Auto if step < EARLY => Beside::Shared,
        Overflow::Shared => Beside::Shared,
        _ => Beside::Nowhere,
    }
}

/// The leased IP of the shared pool, or of another shared one if that has none free, for mail that overflows from [`Ask::pool`].
pub fn choose_shared(policy: &Policy, ask: Ask, news: &impl News) -> Option<LeaseIndex> {
    Chooser { policy, ask, news }.shared()
}

struct Chooser<'a, N> {
    policy: &'a Policy,
    ask: Ask,
    news: &'a N,
}

impl<'a, N: News> Chooser<'a, N> {
    /// Leases of a pool that take new mail; with each its place in the order that this message gives to equals.
    fn open(&self, pool: &'a Pool) -> impl Iterator<Item = (u64, LeaseIndex)> {
        let count = pool.leases.len().max(1) as u64;
        let tie = move |position: usize| (position as u64 + count - self.ask.hash % count) % count;
        let takes = |lease: &LeaseIndex| self.policy.leases.get(lease.0 as usize).is_some_and(|lease| !lease.draining);
        pool.leases.iter().enumerate().filter(move |(_, lease)| takes(lease)).map(move |(n, lease)| (tie(n), *lease))
    }

    fn most_left(&self, pool: &'a Pool) -> Option<LeaseIndex> {
        let warming = self.open(pool).filter_map(|(tie, lease)| match self.news.left(lease) {
            Left::Warming(left) if left > 0 => Some((std::cmp::Reverse(left), tie, lease)),
            // Its owner knows better, and asks again if it has none.
            Left::Unknown => Some((std::cmp::Reverse(0), tie, lease)),
            _ => None,
        });
        warming.min().map(|(.., lease)| lease)
    }

    /// Of those without a cap.
    fn least_loaded(&self, pool: &'a Pool) -> Option<LeaseIndex> {
        self.least(self.open(pool).filter(|(_, lease)| matches!(self.news.left(*lease), Left::Free | Left::Done)))
    }

    fn least(&self, leases: impl Iterator<Item = (u64, LeaseIndex)>) -> Option<LeaseIndex> {
        let weight = |(tie, index): (u64, LeaseIndex)| {
            let lease = self.policy.leases.get(index.0 as usize)?;
            let load = self.news.load(index);
            // What is known of other shards is a little old: under load the local lease would always seem to be ahead.
            let away = if lease.shard == self.ask.local_shard { 0 } else { self.ask.slack + load / 4 };
            Some((load.saturating_add(away), tie, index))
        };
        leases.filter_map(weight).min().map(|(.., index)| index)
    }

    /// Where mail of a pool goes that has no IP for it now.
    fn overflow(&self, pool: &'a Pool) -> Option<LeaseIndex> {
        // A pool without any IP waits for one: that is no matter of a plan.
        if pool.kind == PoolKind::Shared || pool.leases.is_empty() {
            return None;
        }
        match pool.overflow {
            Overflow::Auto => match self.has_done(pool) {
                Some(true) => self.of_account(pool),
                Some(false) => self.shared(),
                // It may have one on a shard that has not told yet: what waits is asked about again in a moment.
                None => None,
            },
            Overflow::Dedicated => self.of_account(pool),
            Overflow::Shared => self.shared(),
            Overflow::Pool | Overflow::Defer | Overflow::Reject => None,
        }
    }

    /// The pools of an account's own IPs.
    fn dedicated(&self, of: &'a Pool) -> impl Iterator<Item = &'a Pool> {
        let account = account_of(of);
        self.policy.pools.iter().filter(move |pool| pool.kind == PoolKind::Dedicated && account_of(pool) == account)
    }

    /// Has the account an IP that is done? None if nobody knows yet.
    fn has_done(&self, pool: &'a Pool) -> Option<bool> {
        let mut known = true;
        for lease in self.dedicated(pool).flat_map(|pool| pool.leases.iter()) {
            match self.news.left(*lease) {
                Left::Done => return Some(true),
                Left::Unknown => known = false,
                Left::Free | Left::Warming(_) => {}
            }
        }
        known.then_some(false)
    }

    /// The least loaded of all the account's IPs that are done.
    fn of_account(&self, pool: &'a Pool) -> Option<LeaseIndex> {
        let all = self.dedicated(pool).flat_map(|pool| self.open(pool));
        self.least(all.filter(|(_, lease)| self.news.left(*lease) == Left::Done))
    }

    fn shared(&self) -> Option<LeaseIndex> {
        let mut best: Option<LeaseIndex> = None;
        let named = |pool: &&Pool| *pool.name == *SHARED_POOL;
        let pools = self.policy.pools.iter().filter(|pool| pool.kind == PoolKind::Shared);
        for pool in pools.clone().filter(named).chain(pools) {
            best = best.or_else(|| self.least_loaded(pool));
        }
        best
    }

    /// The leased IP whose plan a message waits for: the least loaded of those there are.
    fn to_wait_for(&self, pool: &'a Pool) -> Option<LeaseIndex> {
        self.least(self.open(pool))
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
