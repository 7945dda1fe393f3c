//! Which hosts take the mail of a site. *One per shard.*
//!
//! A site is the set of MX hosts of a domain: domains with the same hosts share it, and with it connections, limits and
//! back-off. This is a cache of answers of the control thread; it asks nobody.

use crate::link::MxHost;
use rustc_hash::FxHashMap;
use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The hosts of one site, as last resolved.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// In order of preference.
    pub(crate) hosts: Arc<[MxHost]>,
    /// A recipient domain of it, for rules that go by domain.
    pub(crate) domain: Arc<str>,
}

/// One address to try.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Sites {
    known: FxHashMap<Arc<str>, Site>,
    changes: u64,
}

impl Sites {
    /// Learns the hosts of `domain`; the key is equal for equal sets of hosts.
    pub(crate) fn learn(&mut self, domain: &str, hosts: &Arc<[MxHost]>) -> Arc<str> {
        let key = key_of(hosts);
        let site = Site { hosts: Arc::clone(hosts), domain: Arc::from(domain) };
        self.known.insert(Arc::clone(&key), site);
        self.changes += 1;
        key
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Site> {
        self.known.get(key)
    }

    /// Rises with each answer.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Is this still an address of the site?
    pub(crate) fn has(&self, key: &str, address: SocketAddr) -> bool {
        let of = |host: &MxHost| host.port == address.port() && host.addresses.contains(&address.ip());
        self.get(key).is_some_and(|site| site.hosts.iter().any(of))
    }

    /// All sites by their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Site)> {
        self.known.iter()
    }

    /// Forgets the sites that nobody needs any more.
    pub(crate) fn retain(&mut self, needed: impl Fn(&str) -> bool) {
        self.known.retain(|key, _| needed(key));
    }
}

/// Names and ports of the hosts, in order of name: the identity of a site.
fn key_of(hosts: &[MxHost]) -> Arc<str> {
    let mut names: Vec<_> = hosts.iter().map(|host| (&*host.name, host.port)).collect();
    names.sort_unstable();
    names.dedup();
    let mut key = String::new();
    for (name, port) in names {
        if !key.is_empty() {
            key.push(',');
        }
        key.push_str(name);
        if port != 25 {
            key.push_str(&format!(":{port}"));
        }
    }
    Arc::from(key)
}

impl Site {
    /// What `lease` can try, best first, at most `most`: by preference, hosts of the same preference in an order that
    /// depends on `seed` (RFC 5321 section 5.1), addresses of a host likewise.
    pub(crate) fn candidates(&self, lease: IpAddr, seed: u64, most: usize) -> Vec<Candidate> {
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        hosts.sort_by_key(|host| (host.preference, mix(seed, &host.name)));
        let mut candidates = Vec::new();
        for host in hosts {
            let mut addresses: Vec<_> = super::connect::same_family(lease, &host.addresses).collect();
            addresses.sort_by_key(|address| mix(seed, address));
            candidates.extend(addresses.into_iter().map(|address| Candidate {
                name: Arc::clone(&host.name),
                address: SocketAddr::new(address, host.port),
            }));
        }
        candidates.truncate(most);
        candidates
    }
}

fn mix(seed: u64, value: impl Hash) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    (seed, value).hash(&mut hasher);
    // FxHash leaves structure in its bits, which an order would show; SplitMix64's last steps spread it.
    let mixed = hasher.finish();
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(preference: u16, name: &str, addresses: &[&str]) -> MxHost {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        MxHost { preference, name: Arc::from(name), addresses, port: 25 }
    }

    #[test]
    fn domains_with_the_same_hosts_share_a_site() {
        let mut sites = Sites::default();
        let one: Arc<[MxHost]> = Arc::from([host(10, "a", &["192.0.2.1"]), host(20, "b", &["192.0.2.2"])]);
        let two: Arc<[MxHost]> = Arc::from([host(5, "b", &["192.0.2.2"]), host(5, "a", &["192.0.2.1"])]);
        assert_eq!(sites.learn("x.example", &one), sites.learn("y.example", &two));
        assert_eq!(sites.iter().count(), 1);
    }

    #[test]
    fn preference_orders_and_equal_preference_is_shuffled_by_seed() {
        let hosts: Arc<[MxHost]> = Arc::from([
            host(20, "late", &["192.0.2.9"]),
            host(10, "a", &["192.0.2.1"]),
            host(10, "b", &["192.0.2.2"]),
            host(10, "six", &["2001:db8::1"]),
        ]);
        let site = Site { hosts, domain: Arc::from("x") };
        let lease = "127.0.0.1".parse().unwrap();
        let mut first = [0; 2];
        for seed in 0..1000 {
            let found = site.candidates(lease, seed, 10);
            assert_eq!(found.len(), 3, "the lease has no IPv6");
            assert_eq!(&*found[2].name, "late");
            first[usize::from(&*found[0].name == "b")] += 1;
        }
        assert!(first.iter().all(|n| *n > 350), "{first:?}");
    }
}
