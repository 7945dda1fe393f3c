//! The fleet: what ops tune while the server runs. A file of it is declarative: what it does not name is removed.

use super::{
    account::{AccountItem, FileAccount, day_starts},
    api::types::{Action, Change, Kind},
    domains::{FileDomain, rule},
    key_file::read_key,
    leases::LeaseItem,
    pools::{self, FilePool, PlanItem, PoolItem},
    providers,
};
use crate::{
    config::{Source, friendly, is_domain},
    sign::{DomainKey, Keyring, SigningKey},
};
use mailrail_queue::shape::entry::Entry;
use mailrail_queue::{
    policy::{DEFAULT_ACCOUNT, DEFAULT_DEDICATED_POOL, Lease, LeaseIndex, Policy, Pool, PoolKind, SHARED_POOL},
    warmup::day::DayStart,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;
use toml::Spanned;

/// Settings of the fleet as a whole.
pub(super) const DAY_STARTS: &str = "day_starts";
pub(super) const STRICT_RDNS: &str = "strict_rdns";

/// The fleet file is wrong; nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct FleetError(pub(crate) String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default_pool: Option<Spanned<String>>,
    day_starts: Option<Spanned<String>>,
    strict_rdns: Option<bool>,
    #[serde(default)]
    account: Vec<FileAccount>,
    #[serde(default)]
    pool: Vec<FilePool>,
    #[serde(default)]
    ip: Vec<FileIp>,
    #[serde(default)]
    dkim: Vec<FileDkim>,
    #[serde(default)]
    domain: Vec<FileDomain>,
    #[serde(default)]
    provider: Vec<Spanned<Entry>>,
    /// The rest of a campaign, for those who rehearse it.
    campaign: Option<Spanned<IgnoredAny>>,
    ips: Option<Spanned<IgnoredAny>>,
    stream: Option<Spanned<IgnoredAny>>,
    receiver: Option<Spanned<IgnoredAny>>,
}

/// For whom a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// This host: it has the addresses and the keys.
    Host,
    /// A rehearsal, which may be of another host: keys are passed by.
    Rehearsal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIp {
    address: Spanned<IpAddr>,
    helo: Spanned<String>,
    pool: Spanned<String>,
    shard: Option<Spanned<u16>>,
    account: Option<Spanned<String>>,
    warm: Option<Spanned<bool>>,
    reason: Option<Spanned<String>>,
    plan: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDkim {
    domain: Spanned<String>,
    selector: Spanned<String>,
    key_file: Option<Spanned<PathBuf>>,
    key_pem: Option<Spanned<String>>,
}

/// One thing of the fleet, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Item {
    Default {
        pool: String,
    },
    /// `day_starts`, `strict_rdns`.
    Setting {
        value: String,
    },
    Account(AccountItem),
    Pool(PoolItem),
    Ip {
        helo: String,
        pool: String,
        shard: u16,
        /// Only in the pool of IPs that are in none.
        #[serde(default)]
        account: Option<String>,
        /// It is warm already, and why its owner says so.
        #[serde(default)]
        warm: bool,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        plan: Option<PlanItem>,
    },
    Lease(LeaseItem),
    AutoWarmup {
        enabled: bool,
    },
    Dkim {
        key_file: Option<PathBuf>,
        key_pem: String,
        fingerprint: String,
    },
    Provider(Box<Entry>),
    Domain {
        /// Unless it says so, its provider decides.
        tls: Option<String>,
        connections: Option<u32>,
        messages_per_connection: Option<u32>,
    },
}

impl Item {
    fn kind(&self) -> Kind {
        match self {
            Self::Default { .. } | Self::Setting { .. } => Kind::Setting,
            Self::Account(_) => Kind::Account,
            Self::Pool(_) => Kind::Pool,
            Self::Lease(_) => Kind::Lease,
            Self::AutoWarmup { .. } => Kind::Warmup,
            Self::Ip { .. } => Kind::Ip,
            Self::Dkim { .. } => Kind::Dkim,
            Self::Domain { .. } => Kind::Domain,
            Self::Provider(_) => Kind::Provider,
        }
    }

    /// In words; never a secret.
    fn words(&self) -> String {
        match self {
            Self::Default { pool: value } | Self::Setting { value } => value.clone(),
            Self::Account(account) => account.words(),
            Self::Pool(pool) => pool.words(),
            Self::Ip { helo, pool, shard, warm, reason, plan, .. } => {
                let mut words = format!("helo {helo}, pool {pool}, shard {shard}");
                if *warm {
                    words += &format!(", warm: {}", reason.as_deref().unwrap_or("no reason"));
                }
                if let Some(plan) = plan {
                    words += &format!(", plan {}", plan.to_toml());
                }
                words
            }
            Self::Lease(lease) => lease.words(),
            Self::AutoWarmup { enabled } => if *enabled { "on" } else { "off" }.into(),
            Self::Dkim { key_file, fingerprint, .. } => {
                let file = key_file.as_ref().map(|path| format!(" from {}", path.display())).unwrap_or_default();
                format!("key {fingerprint}{file}")
            }
            Self::Domain { tls, connections, messages_per_connection } => {
                let mut words =
                    tls.as_ref().map_or_else(|| "tls as its provider".to_owned(), |tls| format!("tls {tls}"));
                if let Some(n) = connections {
                    words += &format!(", {n} connections");
                }
                if let Some(n) = messages_per_connection {
                    words += &format!(", {n} messages a connection");
                }
                words
            }
            Self::Provider(entry) => providers::words(entry),
        }
    }
}

impl File {
    /// A host has no use for a campaign, and a rehearsal none for keys.
    fn only_for(&mut self, whom: For) -> Result<(), (usize, String)> {
        if whom == For::Rehearsal {
            self.dkim.clear();
            self.account.iter_mut().for_each(FileAccount::forget_keys);
            return Ok(());
        }
        let given = [&self.campaign, &self.ips, &self.stream, &self.receiver];
        let names = ["campaign", "ips", "stream", "receiver"];
        match given.into_iter().zip(names).find_map(|(part, name)| Some((part.as_ref()?.span().start, name))) {
            Some((at, name)) => Err((at, format!("unknown key \"{name}\"; it is for mailrail rehearse"))),
            None => Ok(()),
        }
    }
}

/// The whole fleet: items by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fleet(pub(crate) BTreeMap<(String, String), Item>);

impl Fleet {
    pub(super) fn put(&mut self, name: &str, item: Item) -> bool {
        self.0.insert((item.kind().as_str().into(), name.into()), item).is_none()
    }

    pub(super) fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
        self.0.iter().filter(move |((of, _), _)| of == kind).map(|((_, name), item)| (name.as_str(), item))
    }

    /// How many pools, leased IPs, DKIM keys and domain rules there are.
    pub(crate) fn counts(&self) -> [usize; 4] {
        [Kind::Pool, Kind::Ip, Kind::Dkim, Kind::Domain].map(|kind| self.of(kind.as_str()).count())
    }

    /// Reads a fleet file, whole. `old` keeps the shard of an IP that names none.
    pub(crate) fn parse(
        text: &str,
        file: &Path,
        directory: &Path,
        shards: u16,
        old: &Self,
    ) -> Result<Self, FleetError> {
        Self::parse_for(For::Host, Source { text, path: file, directory }, shards, old)
    }

    /// The same for others.
    pub(super) fn parse_for(whom: For, source: Source<'_>, shards: u16, old: &Self) -> Result<Self, FleetError> {
        let fail = |at: usize, message: String| FleetError(source.wrong(at, message).to_string());
        let mut parsed: File = toml::from_str(source.text)
            .map_err(|error| fail(error.span().map_or(0, |span| span.start), friendly(error.message())))?;
        parsed.only_for(whom).map_err(|(at, text)| fail(at, text))?;
        let mut fleet = Self::default();
        for pool in &parsed.pool {
            let (name, at) = (pool.name.get_ref(), pool.name.span().start);
            let item = pool.item().map_err(|(at, message)| fail(at, message))?;
            if !fleet.put(name, Item::Pool(item)) {
                return Err(fail(at, format!("[[pool]] \"{name}\" is listed twice")));
            }
            let all = fleet.0.values().filter_map(|item| if let Item::Pool(pool) = item { Some(pool) } else { None });
            pools::check_managed(all).map_err(|why| fail(at, why))?;
        }
        for ip in &parsed.ip {
            fleet.take_ip(ip, whom, shards, &fail)?;
        }
        fleet.spread(&parsed.ip, shards, old);
        for dkim in &parsed.dkim {
            fleet.take_dkim(dkim, &source, &fail)?;
        }
        for domain in &parsed.domain {
            fleet.take_domain(domain, &fail)?;
        }
        fleet.take_providers(&parsed.provider, &fail)?;
        fleet.take_accounts(&parsed.account, &source, old, &fail)?;
        fleet.check_owners(&parsed).map_err(|(at, text)| fail(at, text))?;
        let default = parsed.default_pool.as_ref();
        if let Some(name) = default.filter(|name| fleet.of("pool").all(|(known, _)| known != name.get_ref())) {
            return Err(fail(name.span().start, format!("default_pool \"{}\" is no [[pool]]", name.get_ref())));
        }
        fleet.take_settings(&parsed).map_err(|(at, text)| fail(at, text))?;
        // Without a word the first pool that anybody may use.
        let open = |name: &&String| fleet.pool(name).is_some_and(|pool| pool.account.is_none());
        let first = || parsed.pool.iter().map(|pool| pool.name.get_ref()).find(open);
        let default = default.map(Spanned::get_ref).or_else(first);
        if let Some(pool) = default.cloned() {
            fleet.put("default_pool", Item::Default { pool });
        }
        Ok(fleet)
    }

    fn take_ip(
        &mut self,
        ip: &FileIp,
        whom: For,
        shards: u16,
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        let (address, at) = (ip.address.get_ref().to_canonical(), ip.address.span().start);
        let reserved = [DEFAULT_DEDICATED_POOL, SHARED_POOL].contains(&ip.pool.get_ref().as_str());
        if !reserved && self.pool(ip.pool.get_ref()).is_none() {
            return Err(fail(
                ip.pool.span().start,
                format!("[[ip]] {address}: pool \"{}\" is no [[pool]]", ip.pool.get_ref()),
            ));
        }
        if !is_domain(ip.helo.get_ref()) {
            return Err(fail(
                ip.helo.span().start,
                format!("[[ip]] {address}: helo \"{}\" is not a host name", ip.helo.get_ref()),
            ));
        }
        if let Some(shard) = ip.shard.as_ref().filter(|shard| *shard.get_ref() >= shards) {
            let message = format!("[[ip]] {address}: shard {} is none; there are 0 to {}", shard.get_ref(), shards - 1);
            return Err(fail(shard.span().start, message));
        }
        if whom == For::Host
            && let Err(error) = std::net::UdpSocket::bind((address, 0))
        {
            return Err(fail(at, format!("[[ip]] {address}: this host does not have the address ({error})")));
        }
        self.check_warmth(ip, address).map_err(|(at, message)| fail(at, format!("[[ip]] {address}: {message}")))?;
        let item = Item::Ip {
            helo: ip.helo.get_ref().to_ascii_lowercase(),
            pool: ip.pool.get_ref().clone(),
            shard: ip.shard.as_ref().map_or(u16::MAX, |shard| *shard.get_ref()),
            account: ip.account.as_ref().map(|of| of.get_ref().clone()).filter(|of| of != DEFAULT_ACCOUNT),
            warm: ip.warm.as_ref().is_some_and(|warm| *warm.get_ref()),
            reason: ip.reason.as_ref().map(|reason| reason.get_ref().clone()),
            plan: pools::plan_of(&format!("[[ip]] {address}"), ip.plan.as_ref()).map_err(|(at, m)| fail(at, m))?,
        };
        if !self.put(&address.to_string(), item) {
            return Err(fail(at, format!("[[ip]] {address} is listed twice")));
        }
        Ok(())
    }

    fn take_settings(&mut self, file: &File) -> Result<(), (usize, String)> {
        if let Some(text) = &file.day_starts {
            day_starts(text.get_ref()).map_err(|why| (text.span().start, why))?;
            self.put(DAY_STARTS, Item::Setting { value: text.get_ref().clone() });
        }
        if let Some(strict) = file.strict_rdns {
            self.put(STRICT_RDNS, Item::Setting { value: strict.to_string() });
        }
        Ok(())
    }

    /// A setting of the fleet as a whole.
    fn setting(&self, name: &str) -> Option<&str> {
        match self.0.get(&(Kind::Setting.as_str().to_owned(), name.to_owned())) {
            Some(Item::Setting { value }) => Some(value),
            _ => None,
        }
    }

    /// When days begin for accounts that do not say.
    pub(super) fn day_starts(&self) -> DayStart {
        self.setting(DAY_STARTS).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Is an IP refused whose reverse DNS does not fit?
    pub(crate) fn strict_rdns(&self) -> bool {
        self.setting(STRICT_RDNS) == Some("true")
    }

    /// Pools and IPs belong to accounts that there are.
    fn check_owners(&self, file: &File) -> Result<(), (usize, String)> {
        let known = |name: &str| name == DEFAULT_ACCOUNT || self.account(name).is_some();
        for pool in &file.pool {
            if let Some(account) = pool.account.as_ref().filter(|account| !known(account.get_ref())) {
                let (pool, name) = (pool.name.get_ref(), account.get_ref());
                return Err((
                    account.span().start,
                    format!("[[pool]] \"{pool}\": account \"{name}\" is no [[account]]"),
                ));
            }
        }
        for ip in &file.ip {
            if let Some(account) = ip.account.as_ref().filter(|account| !known(account.get_ref())) {
                let (ip, name) = (ip.address.get_ref(), account.get_ref());
                return Err((account.span().start, format!("[[ip]] {ip}: account \"{name}\" is no [[account]]")));
            }
        }
        Ok(())
    }

    /// What an IP says of its account and its warm-up must fit its pool.
    fn check_warmth(&self, ip: &FileIp, _address: IpAddr) -> Result<(), (usize, String)> {
        let pool = ip.pool.get_ref().as_str();
        if let Some(account) = &ip.account {
            let at = account.span().start;
            if pool != DEFAULT_DEDICATED_POOL {
                let message = format!("account is for IPs in {DEFAULT_DEDICATED_POOL} only; others have their pool's");
                return Err((at, message));
            }
            pools::check_name(account.get_ref()).map_err(|why| (at, format!("account: {why}")))?;
        }
        let shared = match self.pool(pool) {
            Some(pool) => pool.kind == PoolKind::Shared,
            None => pool == SHARED_POOL,
        };
        let warm = ip.warm.as_ref().filter(|warm| *warm.get_ref());
        let planned = ip.plan.as_ref().map(|plan| ("plan", plan.span().start));
        let given = warm.map(|warm| ("warm", warm.span().start)).or(planned).filter(|_| shared);
        if let Some((key, at)) = given {
            return Err((at, format!("{key} is not for an IP of a shared pool, which has no plan")));
        }
        match (warm, &ip.reason) {
            (Some(warm), None) => {
                Err((warm.span().start, "warm = true needs a reason = \"...\": it goes around the plan".into()))
            }
            (None, Some(reason)) => Err((reason.span().start, "a reason is for warm = true only".into())),
            _ => Ok(()),
        }
    }

    /// Gives each IP without a shard the one it has, or the one with the fewest.
    fn spread(&mut self, order: &[FileIp], shards: u16, old: &Self) {
        let mut load = vec![0_u32; usize::from(shards)];
        let count = |item: &Item, load: &mut Vec<u32>| {
            if let Item::Ip { shard, .. } = item
                && let Some(n) = load.get_mut(usize::from(*shard))
            {
                *n += 1;
            }
        };
        self.0.values().for_each(|item| count(item, &mut load));
        let mut fresh = Vec::new();
        for ip in order.iter().filter(|ip| ip.shard.is_none()) {
            let key = ("ip".to_owned(), ip.address.get_ref().to_canonical().to_string());
            match old.0.get(&key) {
                Some(Item::Ip { shard: had, .. }) if *had < shards => {
                    if let Some(Item::Ip { shard, .. }) = self.0.get_mut(&key) {
                        *shard = *had;
                        load[usize::from(*had)] += 1;
                    }
                }
                _ => fresh.push(key),
            }
        }
        for key in fresh {
            let Some((least, _)) = load.iter().enumerate().min_by_key(|(_, n)| **n) else { return };
            load[least] += 1;
            if let Some(Item::Ip { shard, .. }) = self.0.get_mut(&key) {
                *shard = least as u16;
            }
        }
    }

    fn take_dkim(
        &mut self,
        dkim: &FileDkim,
        source: &Source<'_>,
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        let (domain, selector) = (dkim.domain.get_ref().to_ascii_lowercase(), dkim.selector.get_ref());
        let at = dkim.domain.span().start;
        let name = format!("{domain}/{selector}");
        if !is_domain(&domain) || !is_domain(selector) {
            return Err(fail(at, format!("[[dkim]] {name}: domain and selector must be host names")));
        }
        let (pem, key_file, at) = match (&dkim.key_file, &dkim.key_pem) {
            (Some(file), None) => {
                let path = source.absolute(file.get_ref());
                let pem = read_key(&path).map_err(|error| {
                    fail(file.span().start, format!("[[dkim]] {name}: key_file {}: {error}", path.display()))
                })?;
                (pem, Some(path), file.span().start)
            }
            (None, Some(pem)) => (pem.get_ref().clone(), None, pem.span().start),
            _ => return Err(fail(at, format!("[[dkim]] {name}: give key_file or key_pem, one of them"))),
        };
        let key = SigningKey::from_pem(pem.as_bytes()).map_err(|error| {
            let file = key_file.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            fail(at, format!("[[dkim]] {name}: {file}{error}"))
        })?;
        let item = Item::Dkim { key_file, key_pem: pem, fingerprint: key.fingerprint() };
        if !self.put(&name, item) {
            return Err(fail(dkim.domain.span().start, format!("[[dkim]] {name} is listed twice")));
        }
        Ok(())
    }

    /// What has to be done to `self` to make it `to`.
    pub(crate) fn changes(&self, to: &Self) -> Vec<Change> {
        let mut keys: Vec<_> = self.0.keys().chain(to.0.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter()
            .filter_map(|key| {
                let (before, after) = (self.0.get(key), to.0.get(key));
                let action = match (before, after) {
                    (None, _) => Action::Add,
                    (_, None) => Action::Remove,
                    (Some(before), Some(after)) if before == after => return None,
                    _ => Action::Change,
                };
                Some(Change {
                    action,
                    kind: before.or(after).map_or(Kind::Setting, Item::kind),
                    name: key.1.clone(),
                    before: before.map(Item::words),
                    after: after.map(Item::words),
                })
            })
            .collect()
    }

    /// The pools without their leases, in order of name, with those that are there by themselves.
    fn pools(&self) -> Vec<Pool> {
        let named = self.of("pool").filter_map(|(name, item)| {
            let Item::Pool(pool) = item else { return None };
            Some(Pool {
                name: name.into(),
                leases: Vec::new(),
                kind: pool.kind,
                account: pool.account.as_deref().map(Into::into),
                overflow: pool.overflow,
                overflow_after: Duration::from_millis(pool.overflow_after_ms),
            })
        });
        let mut pools: Vec<Pool> = named.collect();
        for (_, item) in self.of("ip") {
            let Item::Ip { pool, account, .. } = item else { continue };
            let kind = match pool.as_str() {
                DEFAULT_DEDICATED_POOL => PoolKind::Dedicated,
                SHARED_POOL => PoolKind::Shared,
                _ => continue,
            };
            if !pools.iter().any(|of| *of.name == **pool && of.account.as_deref() == account.as_deref()) {
                let account = account.as_deref().map(Into::into);
                pools.push(Pool { name: pool.as_str().into(), kind, account, ..Pool::default() });
            }
        }
        pools.sort_by(|a, b| (&a.name, &a.account).cmp(&(&b.name, &b.account)));
        pools
    }

    /// The policy that this fleet means.
    pub(crate) fn policy(&self, version: u64, shards: u16) -> Policy {
        let mut pools = self.pools();
        let mut ips: Vec<(IpAddr, &str, &Item)> =
            self.of("ip").filter_map(|(name, item)| Some((name.parse().ok()?, name, item))).collect();
        ips.sort_unstable_by_key(|(address, ..)| *address);
        let mut leases = Vec::new();
        for (address, name, item) in ips {
            let Item::Ip { helo, pool, shard, account, .. } = item else { continue };
            // Of the pools of IPs that are in none, each account has its own.
            let fits = |of: &Pool| {
                *of.name == **pool && (pool != DEFAULT_DEDICATED_POOL || of.account.as_deref() == account.as_deref())
            };
            let Some(position) = pools.iter().position(fits) else { continue };
            pools[position].leases.push(LeaseIndex(leases.len() as u32));
            // A host started with fewer shards than before keeps all of its IPs.
            let shard = shard % shards.max(1);
            let draining = self.lease(name).is_some_and(|lease| lease.draining);
            let (helo, warmup) = (helo.as_str().into(), self.warmup_of(name));
            leases.push(Lease { address, helo, pool: position as u32, shard, warmup, draining });
        }
        let default_pool = self.of("setting").find_map(|(_, item)| match item {
            Item::Default { pool } => pools.iter().position(|of| *of.name == **pool).map(|position| position as u32),
            _ => None,
        });
        let domains = self.of("domain").filter_map(|(name, item)| Some((name.into(), rule(item)?))).collect();
        let accounts = self.policy_accounts(&pools);
        let providers = self.providers();
        Policy { version, pools, leases, default_pool, accounts, domains, providers }
    }

    /// The keys that sign.
    pub(crate) fn keyring(&self) -> Keyring {
        let keys = self.of("dkim").filter_map(|(name, item)| {
            let (Item::Dkim { key_pem, .. }, (domain, selector)) = (item, name.split_once('/')?) else { return None };
            match SigningKey::from_pem(key_pem.as_bytes()) {
                Ok(key) => Some(DomainKey { domain: domain.into(), selector: selector.into(), key }),
                Err(error) => {
                    tracing::error!("DKIM key {name} cannot be used: {error}");
                    None
                }
            }
        });
        Keyring::new(keys.collect())
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
