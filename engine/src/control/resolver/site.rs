//! Where mail of a domain goes: routes, address literals, MX records, addresses (RFC 5321 section 5.1, RFC 7505).
//! *Control thread.*
//!
//! Whatever the DNS says is bounded, checked, and never trusted to point mail at this host's own network.

use super::{
    address::{is_own, is_private, literal},
    dns::{Dns, Found},
};
use crate::{
    config::{Config, Route, is_domain},
    link::{MxHost, SiteAnswer},
};
use futures_util::future::join_all;
use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

/// Hosts of a site; more serve no purpose (RFC 5321 section 5.1 asks for all, real sets have a dozen).
pub(super) const HOSTS: usize = 32;
/// Addresses of a host.
pub(super) const ADDRESSES: usize = 16;
/// Answers are believed at least and at most so long.
pub(super) const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// "There is no such domain" is believed at most so long: a mistake of its owner should not cost more mail than it must.
pub(super) const TTL_NEVER: Duration = Duration::from_secs(300);

/// A host that may take a domain's mail, and what the DNS says of its addresses.
type Candidate = (u16, String, Found<Vec<IpAddr>>);

/// See the module. *One per host.*
pub(super) struct Sites {
    config: Arc<Config>,
    pub(super) dns: Dns,
    /// [`is_own`], but in tests.
    pub(super) is_own: fn(IpAddr) -> bool,
}

impl Sites {
    /// # Errors
    /// The system's resolver configuration cannot be read.
    pub(super) fn new(config: Arc<Config>) -> Result<Self, String> {
        Ok(Self { dns: Dns::new(&config.dns)?, config, is_own })
    }

    /// Where mail of `domain` goes.
    pub(super) async fn resolve(&self, domain: &str) -> SiteAnswer {
        if let Some(route) = route_of(&self.config.routes, domain) {
            return self.routed(route).await;
        }
        if domain.starts_with('[') {
            return self.to_literal(domain);
        }
        let Ok(name) = idna::domain_to_ascii(domain) else {
            return never("5.1.2", format!("{domain} is no domain name"), TTL.1);
        };
        match self.dns.mx(&name).await {
            Found::Some(exchanges, ttl) => self.exchanges(&name, exchanges, ttl).await,
            Found::Nothing => self.implicit(&name).await,
            Found::NoName => never("5.1.2", format!("the domain {domain} does not exist"), TTL_NEVER),
            Found::Later(text) => SiteAnswer::Later { text: format!("MX of {domain}: {text}") },
        }
    }

    /// The hosts that MX records name.
    async fn exchanges(&self, domain: &str, mut exchanges: Vec<(u16, String)>, ttl: Duration) -> SiteAnswer {
        if let [(_, only)] = exchanges.as_slice()
            && only.is_empty()
        {
            return never("5.1.10", format!("the domain {domain} takes no mail (null MX)"), ttl);
        }
        exchanges.retain(|(_, name)| is_host_name(name));
        exchanges.sort();
        // The same name at two preferences is one host, at the better one.
        let mut seen = HashSet::new();
        exchanges.retain(|(_, name)| seen.insert(name.clone()));
        exchanges.truncate(HOSTS);
        if exchanges.is_empty() {
            return never("5.4.4", format!("the MX records of {domain} name no host"), ttl);
        }
        let look_up = exchanges.into_iter().map(|(preference, name)| async move {
            let found = self.dns.addresses(&name).await;
            (preference, name, found)
        });
        self.site(domain, join_all(look_up).await, ttl)
    }

    /// Without MX records the domain is its own host.
    async fn implicit(&self, domain: &str) -> SiteAnswer {
        match self.dns.addresses(domain).await {
            Found::Nothing | Found::NoName => {
                never("5.1.2", format!("the domain {domain} has neither MX nor address records"), TTL_NEVER)
            }
            found => self.site(domain, vec![(0, domain.to_owned(), found)], TTL.1),
        }
    }

    /// What these hosts, best first, come to. A host whose addresses are not known stays, and counts as failed.
    pub(super) fn site(&self, domain: &str, candidates: Vec<Candidate>, mut ttl: Duration) -> SiteAnswer {
        let (mut hosts, mut later, mut private, mut own) = (Vec::<MxHost>::new(), None, false, None);
        for (preference, name, found) in candidates {
            let mut addresses = match found {
                Found::Some(addresses, its) => {
                    ttl = ttl.min(its);
                    addresses
                }
                Found::Later(text) => {
                    later = later.or(Some(format!("addresses of {name}: {text}")));
                    Vec::new()
                }
                Found::Nothing | Found::NoName => Vec::new(),
            };
            if !self.config.delivery.allow_private {
                let known = addresses.len();
                addresses.retain(|address| !is_private(*address));
                private |= addresses.len() < known;
                addresses.truncate(ADDRESSES);
                if addresses.iter().any(|address| (self.is_own)(*address)) {
                    // This host is in the set: mail to hosts that are no better would come back (RFC 5321 section 5.1).
                    own = Some(preference);
                    break;
                }
            }
            addresses.truncate(ADDRESSES);
            hosts.push(MxHost { preference, name: Arc::from(name), addresses, port: self.config.delivery.port });
        }
        if let Some(own) = own {
            hosts.retain(|host| host.preference < own);
        }
        if hosts.iter().any(|host| !host.addresses.is_empty()) {
            return SiteAnswer::Hosts { hosts: Arc::from(hosts), ttl: ttl.clamp(TTL.0, TTL.1), routed: false };
        }
        match later {
            Some(text) => SiteAnswer::Later { text },
            None if own.is_some() => {
                never("5.4.4", format!("mail for {domain} would come back: this host is its best mail host"), ttl)
            }
            None if private => never(
                "5.4.4",
                format!("the mail hosts of {domain} have only private or local addresses, which mail is not sent to"),
                ttl,
            ),
            None => never("5.4.4", format!("the mail hosts of {domain} have no addresses"), ttl),
        }
    }

    /// A smart host instead of the DNS: what its owner wrote is not second-guessed.
    async fn routed(&self, route: &Route) -> SiteAnswer {
        let look_up = route.hosts.iter().take(HOSTS).map(|(name, port)| async move {
            match name.parse::<IpAddr>() {
                Ok(address) => (name, *port, Found::Some(vec![address], TTL.1)),
                Err(_) => (name, *port, self.dns.addresses(name).await),
            }
        });
        let (mut hosts, mut ttl, mut trouble) = (Vec::new(), TTL.1, String::new());
        for (order, (name, port, found)) in (0..).zip(join_all(look_up).await) {
            let mut addresses = Vec::new();
            match found {
                Found::Some(known, its) => {
                    ttl = ttl.min(its);
                    addresses = known;
                    addresses.truncate(ADDRESSES);
                }
                Found::Later(text) => trouble = format!("addresses of {name}: {text}"),
                Found::Nothing | Found::NoName => trouble = format!("{name} has no address"),
            }
            hosts.push(MxHost { preference: order, name: Arc::from(name.as_str()), addresses, port });
        }
        if hosts.iter().all(|host| host.addresses.is_empty()) {
            // A smart host that cannot be found is a mistake of ours, no reason to bounce.
            return SiteAnswer::Later { text: format!("[[route]] {}: {trouble}", route.domain) };
        }
        SiteAnswer::Hosts { hosts: Arc::from(hosts), ttl: ttl.clamp(TTL.0, TTL.1), routed: true }
    }

    /// An address instead of a domain.
    fn to_literal(&self, domain: &str) -> SiteAnswer {
        match literal(domain) {
            Some(address) => self.site(domain, vec![(0, domain.to_owned(), Found::Some(vec![address], TTL.1))], TTL.1),
            None => never("5.1.3", format!("{domain} is no address literal"), TTL.1),
        }
    }
}

fn never(status: &'static str, text: String, ttl: Duration) -> SiteAnswer {
    SiteAnswer::Never { status, text, ttl: ttl.clamp(TTL.0, TTL_NEVER) }
}

/// The route of a domain: exact, else the longest `*.suffix`, else `*`.
pub(super) fn route_of<'a>(routes: &'a [Route], domain: &str) -> Option<&'a Route> {
    let rank = |route: &&Route| {
        if route.domain == domain {
            return Some(usize::MAX);
        }
        if route.domain == "*" {
            return Some(0);
        }
        let suffix = route.domain.strip_prefix("*.")?;
        domain.strip_suffix(suffix).filter(|rest| rest.len() > 1 && rest.ends_with('.')).map(|_| suffix.len())
    };
    routes.iter().filter(|route| rank(route).is_some()).max_by_key(|route| rank(route))
}

/// A name, and no address: an MX record must not name one.
fn is_host_name(name: &str) -> bool {
    is_domain(name) && name.parse::<IpAddr>().is_err()
}
