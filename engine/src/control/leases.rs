//! What is decided of a lease while it lasts: when it began, how its warm-up was changed, whether it drains. Kept beside the
//! fleet file's own items, so that a file applied again changes nothing of it.

use super::{
    fleet::{Fleet, Item},
    pools::PoolItem,
};
use mailrail_queue::{
    egress::DEFAULT_ACCOUNT,
    policy::{DEFAULT_DEDICATED_POOL, PoolKind, Warmup},
    time::Wall,
    warmup::plan::Plan,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A lease, as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LeaseItem {
    /// Version of the fleet that leased it: a later leasing has a higher one.
    pub(crate) leasing: u64,
    /// When, milliseconds since the epoch.
    pub(crate) leased_ms: u64,
    /// It has a ledger.
    pub(crate) dedicated: bool,
    /// It was warm when it was leased.
    pub(crate) warm: bool,
    /// The percentage set last, and the version of the fleet that did.
    pub(crate) set: Option<(u64, u8)>,
    pub(crate) held: bool,
    pub(crate) draining: bool,
}

impl LeaseItem {
    /// In words.
    pub(super) fn words(&self) -> String {
        let mut words = format!("leasing {}", self.leasing);
        if self.warm {
            words += ", warm";
        }
        if let Some((_, percentage)) = self.set {
            words += &format!(", set to {percentage} %");
        }
        if self.held {
            words += ", held";
        }
        if self.draining {
            words += ", draining";
        }
        words
    }
}

impl Fleet {
    /// Completes a fleet that is to take the place of `old`, as `version`: leases go on, and begin; what only the control socket
    /// changes stays. The same fleet again changes nothing.
    ///
    /// # Errors
    /// Why it may not follow the old one.
    pub(crate) fn follow(&mut self, old: &Self, version: u64, now: Wall) -> Result<(), String> {
        for (key, item) in &old.0 {
            match item {
                // An account that is gone takes its setting along.
                Item::AutoWarmup { .. } if key.1 == DEFAULT_ACCOUNT || self.account(&key.1).is_some() => {
                    self.0.entry(key.clone()).or_insert_with(|| item.clone());
                }
                Item::Pool(before) => {
                    if let Some(Item::Pool(pool)) = self.0.get_mut(key) {
                        if before.kind == PoolKind::Managed && pool.kind == PoolKind::Dedicated {
                            return Err(format!("pool \"{}\" is managed, and cannot be made dedicated again", key.1));
                        }
                        if pool.tags.is_empty() {
                            pool.tags.clone_from(&before.tags);
                        }
                    }
                }
                _ => {}
            }
        }
        let addresses: Vec<String> = self.of("ip").map(|(address, _)| address.to_owned()).collect();
        for address in addresses {
            let (had, has) = (old.account_of_ip(&address), self.account_of_ip(&address));
            if had != has && old.is_dedicated(&address) && self.is_dedicated(&address) {
                return Err(format!(
                    "{address} is leased to account {had}: release it first, then lease it for {has}; mail of {had} may wait for it"
                ));
            }
            let lease = self.lease_after(old, &address, version, now);
            // Of a shared IP there is nothing to say but that it drains.
            if lease.dedicated || lease.draining {
                self.0.insert(("lease".into(), address), Item::Lease(lease));
            } else {
                self.0.remove(&("lease".into(), address));
            }
        }
        let stale = |fleet: &Self, name: &str| !fleet.0.contains_key(&("ip".to_owned(), name.to_owned()));
        let gone: Vec<_> = self.of("lease").filter(|(name, _)| stale(self, name)).map(|(n, _)| n.to_owned()).collect();
        for name in gone {
            self.0.remove(&("lease".into(), name));
        }
        Ok(())
    }

    fn lease_after(&self, old: &Self, address: &str, version: u64, now: Wall) -> LeaseItem {
        let key = ("lease".to_owned(), address.to_owned());
        let before = match self.0.get(&key).or_else(|| old.0.get(&key)) {
            Some(Item::Lease(lease)) if old.ip(address).is_some() => Some(lease),
            _ => None,
        };
        let dedicated = self.is_dedicated(address);
        let warm = |fleet: &Self| matches!(fleet.ip(address), Some(Item::Ip { warm: true, .. }));
        match before {
            Some(lease) if lease.dedicated == dedicated => {
                let mut lease = lease.clone();
                if warm(self) && !warm(old) && dedicated {
                    // The owner says only now that it is warm: it is done.
                    lease.set = Some((version, 100));
                }
                lease
            }
            _ => {
                let warm = warm(self) || !self.auto_warmup(self.account_of_ip(address));
                LeaseItem { leasing: version, leased_ms: now.0, dedicated, warm, ..LeaseItem::default() }
            }
        }
    }

    pub(crate) fn ip(&self, address: &str) -> Option<&Item> {
        self.0.get(&("ip".to_owned(), address.to_owned()))
    }

    pub(crate) fn lease(&self, address: &str) -> Option<&LeaseItem> {
        match self.0.get(&("lease".to_owned(), address.to_owned())) {
            Some(Item::Lease(lease)) => Some(lease),
            _ => None,
        }
    }

    /// The lease of an IP, to change it; none: there is no such IP.
    pub(crate) fn lease_mut(&mut self, address: &str) -> Option<&mut LeaseItem> {
        self.ip(address)?;
        let entry = self.0.entry(("lease".to_owned(), address.to_owned()));
        match entry.or_insert_with(|| Item::Lease(LeaseItem::default())) {
            Item::Lease(lease) => Some(lease),
            _ => None,
        }
    }

    pub(crate) fn pool(&self, name: &str) -> Option<&PoolItem> {
        match self.0.get(&("pool".to_owned(), name.to_owned())) {
            Some(Item::Pool(pool)) => Some(pool),
            _ => None,
        }
    }

    /// Is automatic warm-up on for this account? It is unless it was switched off.
    pub(crate) fn auto_warmup(&self, account: &str) -> bool {
        let item = self.0.get(&("warmup".to_owned(), account.to_owned()));
        !matches!(item, Some(Item::AutoWarmup { enabled: false }))
    }

    /// Kind of the pool that an IP is in.
    pub(crate) fn kind_of_ip(&self, address: &str) -> PoolKind {
        match self.ip(address) {
            Some(Item::Ip { pool, .. }) if pool == DEFAULT_DEDICATED_POOL => PoolKind::Dedicated,
            Some(Item::Ip { pool, .. }) => self.pool(pool).map_or(PoolKind::Shared, |pool| pool.kind),
            _ => PoolKind::Shared,
        }
    }

    fn is_dedicated(&self, address: &str) -> bool {
        self.kind_of_ip(address) != PoolKind::Shared
    }

    /// The account that an IP belongs to; a shared one belongs to none, and counts as the default one's.
    pub(crate) fn account_of_ip(&self, address: &str) -> &str {
        match self.ip(address) {
            Some(Item::Ip { pool, account, .. }) if pool == DEFAULT_DEDICATED_POOL => account.as_deref(),
            Some(Item::Ip { pool, .. }) => self.pool(pool).and_then(|pool| pool.account.as_deref()),
            _ => None,
        }
        .unwrap_or(DEFAULT_ACCOUNT)
    }

    /// How an IP warms up; none: it is shared.
    pub(super) fn warmup_of(&self, address: &str) -> Option<Arc<Warmup>> {
        let lease = self.lease(address).filter(|lease| lease.dedicated)?;
        let Some(Item::Ip { pool, plan, .. }) = self.ip(address) else { return None };
        let default = PoolItem::default();
        let pool = self.pool(pool).unwrap_or(&default);
        let account = self.account(self.account_of_ip(address));
        let own = plan.as_ref().or(pool.plan.as_ref()).or_else(|| account?.plan.as_ref());
        let starts = account.and_then(|account| account.day_starts.as_ref()?.parse().ok());
        // They were checked when they were taken in.
        let plan = own.and_then(|plan| plan.plan().ok()).unwrap_or_else(Plan::standard);
        Some(Arc::new(Warmup {
            leasing: lease.leasing,
            leased: Wall(lease.leased_ms),
            warm: lease.warm,
            plan,
            spread: pool.spread(),
            starts: starts.unwrap_or_else(|| self.day_starts()),
            set: lease.set.and_then(|(number, p)| Some((number, i64::from(p).try_into().ok()?))),
            held: lease.held,
        }))
    }
}
