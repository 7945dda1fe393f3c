//! The policy snapshot: what the control plane decided, complete and immutable.
//!
//! Control thread builds one, every shard gets the same `Arc` and swaps it in whole; nothing here is ever changed in
//! place, so a decision never sees half of a change.

use std::{net::IpAddr, sync::Arc};

/// Index of a leased IP inside one [`Policy`]; only meaningful together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseIndex(pub u32);

/// A leased IP: an egress address bound to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Source address of the connections.
    pub address: IpAddr,
    /// Name said in EHLO.
    pub helo: Arc<str>,
    /// Pool it belongs to, an index into [`Policy::pools`].
    pub pool: u32,
    /// The one shard that owns it.
    pub shard: u16,
}

/// A named set of leased IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique name.
    pub name: Arc<str>,
    /// Its leases, in order of address.
    pub leases: Vec<LeaseIndex>,
}

/// What TLS a recipient domain is to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never STARTTLS.
    None,
    /// STARTTLS where offered, certificate not verified, plain text if it fails.
    #[default]
    Opportunistic,
    /// STARTTLS with a verified certificate, or the mail is deferred.
    Required,
}

/// Rules of one recipient domain (exact name, or `*.name`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainRule {
    /// TLS to use.
    pub tls: TlsMode,
    /// Connections per (IP, site), when other than the default.
    pub connections: Option<u32>,
    /// Messages a connection, when other than the default.
    pub messages_per_connection: Option<u32>,
}

/// The snapshot.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Rises with every change; a shard drops an older one.
    pub version: u64,
    /// All pools, in order of name.
    pub pools: Vec<Pool>,
    /// All leased IPs of the host, in order of address.
    pub leases: Vec<Lease>,
    /// Pool of mail that names none: index into `pools`.
    pub default_pool: Option<u32>,
    /// Rules by domain name in lower-case A-labels; `*.example.com` matches subdomains.
    pub domains: Vec<(Arc<str>, DomainRule)>,
}

impl Policy {
    /// The rule of a recipient domain (lower case): its own, else that of the longest `*.suffix`, else the default.
    #[must_use]
    pub fn rule_of(&self, domain: &str) -> DomainRule {
        let mut best: Option<(usize, &DomainRule)> = None;
        for (name, rule) in &self.domains {
            if **name == *domain {
                return rule.clone();
            }
            let Some(suffix) = name.strip_prefix("*.") else { continue };
            let fits = domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
            if fits && best.is_none_or(|(length, _)| suffix.len() > length) {
                best = Some((suffix.len(), rule));
            }
        }
        best.map(|(_, rule)| rule.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rule_holds() {
        let rule = |n| DomainRule { connections: Some(n), ..DomainRule::default() };
        let domains = vec![
            (Arc::from("*.example.com"), rule(1)),
            (Arc::from("*.b.example.com"), rule(2)),
            (Arc::from("a.example.com"), rule(3)),
        ];
        let policy = Policy { domains, ..Policy::default() };
        let of = |domain| policy.rule_of(domain).connections;
        assert_eq!((of("a.example.com"), of("x.example.com"), of("x.b.example.com")), (Some(3), Some(1), Some(2)));
        assert_eq!((of("example.com"), of("badexample.com"), of("example.org")), (None, None, None));
    }
}
