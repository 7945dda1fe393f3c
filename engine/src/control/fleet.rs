//! The fleet: what ops tune while the server runs. A file of it is declarative: what it does not name is removed.

use super::api::types::{Action, Change, Kind};
use crate::{
    config::{Source, friendly, is_domain},
    sign::{DomainKey, Keyring, SigningKey},
};
use mailrail_queue::policy::{DomainRule, Lease, LeaseIndex, Policy, Pool, TlsMode};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
};
use thiserror::Error;
use toml::Spanned;

/// Octets read of a key file; an RSA key of 16,384 bits has 13,000.
const KEY_MAX: u64 = 64 << 10;

/// The fleet file is wrong; nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct FleetError(pub(crate) String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default_pool: Option<Spanned<String>>,
    #[serde(default)]
    pool: Vec<FilePool>,
    #[serde(default)]
    ip: Vec<FileIp>,
    #[serde(default)]
    dkim: Vec<FileDkim>,
    #[serde(default)]
    domain: Vec<FileDomain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePool {
    name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIp {
    address: Spanned<IpAddr>,
    helo: Spanned<String>,
    pool: Spanned<String>,
    shard: Option<Spanned<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDkim {
    domain: Spanned<String>,
    selector: Spanned<String>,
    key_file: Option<Spanned<PathBuf>>,
    key_pem: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDomain {
    name: Spanned<String>,
    #[serde(default)]
    tls: FileTls,
    connections: Option<u32>,
    messages_per_connection: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileTls {
    None,
    #[default]
    Opportunistic,
    Required,
}

/// One thing of the fleet, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Item {
    Default { pool: String },
    Pool,
    Ip { helo: String, pool: String, shard: u16 },
    Dkim { key_file: Option<PathBuf>, key_pem: String, fingerprint: String },
    Domain { tls: String, connections: Option<u32>, messages_per_connection: Option<u32> },
}

impl Item {
    fn kind(&self) -> Kind {
        match self {
            Self::Default { .. } => Kind::Setting,
            Self::Pool => Kind::Pool,
            Self::Ip { .. } => Kind::Ip,
            Self::Dkim { .. } => Kind::Dkim,
            Self::Domain { .. } => Kind::Domain,
        }
    }

    /// In words; never a secret.
    fn words(&self) -> String {
        match self {
            Self::Default { pool } => pool.clone(),
            Self::Pool => "a pool".into(),
            Self::Ip { helo, pool, shard } => format!("helo {helo}, pool {pool}, shard {shard}"),
            Self::Dkim { key_file, fingerprint, .. } => {
                let file = key_file.as_ref().map(|path| format!(" from {}", path.display())).unwrap_or_default();
                format!("key {fingerprint}{file}")
            }
            Self::Domain { tls, connections, messages_per_connection } => {
                let mut words = format!("tls {tls}");
                if let Some(n) = connections {
                    words += &format!(", {n} connections");
                }
                if let Some(n) = messages_per_connection {
                    words += &format!(", {n} messages a connection");
                }
                words
            }
        }
    }
}

/// The whole fleet: items by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fleet(pub(crate) BTreeMap<(String, String), Item>);

impl Fleet {
    fn put(&mut self, name: &str, item: Item) -> bool {
        self.0.insert((item.kind().as_str().into(), name.into()), item).is_none()
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
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
        let source = Source { text, path: file, directory };
        let fail = |at: usize, message: String| FleetError(source.wrong(at, message).to_string());
        let parsed: File = toml::from_str(text)
            .map_err(|error| fail(error.span().map_or(0, |span| span.start), friendly(error.message())))?;
        let mut fleet = Self::default();
        for pool in &parsed.pool {
            let (name, at) = (pool.name.get_ref(), pool.name.span().start);
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
                return Err(fail(at, format!("[[pool]] name \"{name}\": 1 to 64 of letters, digits, - and _")));
            }
            if !fleet.put(name, Item::Pool) {
                return Err(fail(at, format!("[[pool]] \"{name}\" is listed twice")));
            }
        }
        for ip in &parsed.ip {
            fleet.take_ip(ip, shards, &fail)?;
        }
        fleet.spread(&parsed.ip, shards, old);
        for dkim in &parsed.dkim {
            fleet.take_dkim(dkim, &source, &fail)?;
        }
        for domain in &parsed.domain {
            fleet.take_domain(domain, &fail)?;
        }
        let default = parsed.default_pool.as_ref();
        if let Some(name) = default.filter(|name| fleet.of("pool").all(|(known, _)| known != name.get_ref())) {
            return Err(fail(name.span().start, format!("default_pool \"{}\" is no [[pool]]", name.get_ref())));
        }
        let default = default.map(Spanned::get_ref).or_else(|| parsed.pool.first().map(|pool| pool.name.get_ref()));
        if let Some(pool) = default.cloned() {
            fleet.put("default_pool", Item::Default { pool });
        }
        Ok(fleet)
    }

    fn take_ip(
        &mut self,
        ip: &FileIp,
        shards: u16,
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        let (address, at) = (ip.address.get_ref().to_canonical(), ip.address.span().start);
        if self.of("pool").all(|(name, _)| name != ip.pool.get_ref()) {
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
        if let Err(error) = std::net::UdpSocket::bind((address, 0)) {
            return Err(fail(at, format!("[[ip]] {address}: this host does not have the address ({error})")));
        }
        let shard = ip.shard.as_ref().map_or(u16::MAX, |shard| *shard.get_ref());
        let item = Item::Ip { helo: ip.helo.get_ref().to_ascii_lowercase(), pool: ip.pool.get_ref().clone(), shard };
        if !self.put(&address.to_string(), item) {
            return Err(fail(at, format!("[[ip]] {address} is listed twice")));
        }
        Ok(())
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

    fn take_domain(
        &mut self,
        domain: &FileDomain,
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        let name = domain.name.get_ref().to_ascii_lowercase();
        let at = domain.name.span().start;
        if !is_domain(name.strip_prefix("*.").unwrap_or(&name)) {
            return Err(fail(at, format!("[[domain]] name \"{name}\" is none of: example.com, *.example.com")));
        }
        if domain.connections == Some(0) || domain.messages_per_connection == Some(0) {
            return Err(fail(at, format!("[[domain]] {name}: limits must be 1 at least")));
        }
        let tls = match domain.tls {
            FileTls::None => "none",
            FileTls::Opportunistic => "opportunistic",
            FileTls::Required => "required",
        };
        let item = Item::Domain {
            tls: tls.into(),
            connections: domain.connections,
            messages_per_connection: domain.messages_per_connection,
        };
        if !self.put(&name, item) {
            return Err(fail(at, format!("[[domain]] {name} is listed twice")));
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

    /// DNS records of the keys.
    pub(crate) fn dns_records(&self) -> Vec<(String, String)> {
        self.of("dkim")
            .filter_map(|(name, item)| {
                let Item::Dkim { key_pem, .. } = item else { return None };
                let (domain, selector) = name.split_once('/')?;
                let key = SigningKey::from_pem(key_pem.as_bytes()).ok()?;
                Some((format!("{selector}._domainkey.{domain}"), key.dns_record()))
            })
            .collect()
    }

    /// A file that changes nothing.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::from("# The fleet, as exported. `mailrail apply` of this file changes nothing.\n");
        let text = |value: &str| toml::Value::String(value.into()).to_string();
        if let Some((_, Item::Default { pool })) = self.of("setting").next() {
            out += &format!("\ndefault_pool = {}\n", text(pool));
        }
        for (name, _) in self.of("pool") {
            out += &format!("\n[[pool]]\nname = {}\n", text(name));
        }
        for (name, item) in self.of("ip") {
            if let Item::Ip { helo, pool, shard } = item {
                out += &format!(
                    "\n[[ip]]\naddress = {}\nhelo = {}\npool = {}\nshard = {shard}\n",
                    text(name),
                    text(helo),
                    text(pool)
                );
            }
        }
        for (name, item) in self.of("dkim") {
            if let (Item::Dkim { key_file, key_pem, .. }, Some((domain, selector))) = (item, name.split_once('/')) {
                out += &format!("\n[[dkim]]\ndomain = {}\nselector = {}\n", text(domain), text(selector));
                match key_file {
                    Some(path) => out += &format!("key_file = {}\n", text(&path.display().to_string())),
                    None => out += &format!("key_pem = '''\n{}'''\n", key_pem.trim_start_matches('\n')),
                }
            }
        }
        for (name, item) in self.of("domain") {
            if let Item::Domain { tls, connections, messages_per_connection } = item {
                out += &format!("\n[[domain]]\nname = {}\ntls = {}\n", text(name), text(tls));
                for (key, limit) in [("connections", connections), ("messages_per_connection", messages_per_connection)]
                {
                    if let Some(limit) = limit {
                        out += &format!("{key} = {limit}\n");
                    }
                }
            }
        }
        out
    }

    /// The policy that this fleet means.
    pub(crate) fn policy(&self, version: u64, shards: u16) -> Policy {
        let names: Vec<&str> = self.of("pool").map(|(name, _)| name).collect();
        let mut pools: Vec<Pool> = names.iter().map(|name| Pool { name: (*name).into(), leases: Vec::new() }).collect();
        let mut ips: Vec<(IpAddr, &Item)> =
            self.of("ip").filter_map(|(name, item)| Some((name.parse().ok()?, item))).collect();
        ips.sort_unstable_by_key(|(address, _)| *address);
        let mut leases = Vec::new();
        for (address, item) in ips {
            let Item::Ip { helo, pool, shard } = item else { continue };
            let Some(position) = names.iter().position(|name| name == pool) else { continue };
            pools[position].leases.push(LeaseIndex(leases.len() as u32));
            // A host started with fewer shards than before keeps all of its IPs.
            let shard = shard % shards.max(1);
            leases.push(Lease { address, helo: helo.as_str().into(), pool: position as u32, shard });
        }
        let default_pool = self.of("setting").find_map(|(_, item)| match item {
            Item::Default { pool } => names.iter().position(|name| name == pool).map(|position| position as u32),
            _ => None,
        });
        let domains = self.of("domain").filter_map(|(name, item)| Some((name.into(), rule(item)?))).collect();
        Policy { version, pools, leases, default_pool, domains }
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

/// A key file, of which nothing is expected but to be small: a pipe would hold up the change, a device feed it for ever.
fn read_key(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut pem = String::new();
    std::fs::File::open(path)?.take(KEY_MAX).read_to_string(&mut pem)?;
    Ok(pem)
}

fn rule(item: &Item) -> Option<DomainRule> {
    let Item::Domain { tls, connections, messages_per_connection } = item else { return None };
    let tls = match tls.as_str() {
        "none" => TlsMode::None,
        "required" => TlsMode::Required,
        _ => TlsMode::Opportunistic,
    };
    Some(DomainRule { tls, connections: *connections, messages_per_connection: *messages_per_connection })
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
