//! Where mail of a domain goes: routes, MX, A and AAAA, asked of the DNS. *Control thread.*
//!
//! Whatever the DNS says is bounded, checked and never trusted to point mail at this host's own network. Questions of all
//! shards for one domain are one question.

use crate::{
    config::{Config, Route},
    link::{Command, MxHost, SiteAnswer},
};
use futures_util::future::join_all;
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};

/// Hosts of a site; more serve no purpose (RFC 5321 section 5.1 asks for all, real sets have a dozen).
const HOSTS: usize = 32;
/// Addresses of a host.
const ADDRESSES: usize = 16;
/// Domains being looked up at a time.
const RUNNING: usize = 256;
/// Answers are believed at least and at most so long.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// "There is no such domain" is believed at most so long: a mistake of its owner should not cost more mail than it must.
const TTL_NEVER: Duration = Duration::from_secs(300);

/// See the module.
pub(super) struct Resolver {
    config: Arc<Config>,
    dns: TokioResolver,
    commands: Vec<mpsc::Sender<Command>>,
    /// Domains being asked for, and the shards that wait.
    running: Mutex<HashMap<Box<str>, Vec<u16>>>,
    permits: Semaphore,
    questions: AtomicU64,
    coalesced: AtomicU64,
    never: AtomicU64,
    later: AtomicU64,
}

/// What one DNS question came to.
enum Found<T> {
    Some(T, Duration),
    /// The name is there, such records are not.
    Nothing,
    /// The name is not there.
    NoName,
    Later(String),
}

impl Resolver {
    /// # Errors
    /// The system's resolver configuration cannot be read.
    pub(super) fn new(config: Arc<Config>, commands: Vec<mpsc::Sender<Command>>) -> Result<Self, String> {
        let mut builder = if config.dns.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| {
                format!("the system's name servers cannot be read ({error}); name some with [dns] servers =")
            })?
        } else {
            let servers = config.dns.servers.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                server
            });
            let servers = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = config.dns.timeout;
        options.attempts = 2;
        options.use_hosts_file = ResolveHosts::Never;
        options.negative_max_ttl = Some(TTL_NEVER);
        options.positive_max_ttl = Some(TTL.1);
        options.edns0 = true;
        let dns = builder.build().map_err(|error| format!("resolver: {error}"))?;
        Ok(Self {
            config,
            dns,
            commands,
            running: Mutex::default(),
            permits: Semaphore::new(RUNNING),
            questions: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            never: AtomicU64::new(0),
            later: AtomicU64::new(0),
        })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<u16>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the answer to a shard's question, and sends it.
    pub(super) fn ask(self: &Arc<Self>, shard: u16, domain: Box<str>) {
        self.questions.fetch_add(1, Relaxed);
        let mut running = self.running();
        if let Some(waiting) = running.get_mut(&domain) {
            self.coalesced.fetch_add(1, Relaxed);
            waiting.push(shard);
            return;
        }
        running.insert(domain.clone(), vec![shard]);
        drop(running);
        let resolver = Arc::clone(self);
        tokio::spawn(async move {
            let answer = match resolver.permits.acquire().await {
                Ok(_permit) => resolver.resolve(&domain).await,
                Err(_) => return,
            };
            match &answer {
                SiteAnswer::Never { .. } => resolver.never.fetch_add(1, Relaxed),
                SiteAnswer::Later { .. } => resolver.later.fetch_add(1, Relaxed),
                SiteAnswer::Hosts { .. } => 0,
            };
            let waiting = resolver.running().remove(&domain).unwrap_or_default();
            for shard in waiting {
                let Some(commands) = resolver.commands.get(usize::from(shard)) else { continue };
                let _ = commands.send(Command::Resolved { domain: domain.clone(), answer: answer.clone() }).await;
            }
        });
    }

    /// What was asked and answered since start.
    pub(super) fn status(&self) -> super::api::types::ResolverStatus {
        let running = self.running().len() as u64;
        let working = (RUNNING - self.permits.available_permits()) as u64;
        super::api::types::ResolverStatus {
            questions: self.questions.load(Relaxed),
            coalesced: self.coalesced.load(Relaxed),
            never: self.never.load(Relaxed),
            later: self.later.load(Relaxed),
            running: working,
            waiting: running.saturating_sub(working),
        }
    }

    /// Where mail of `domain` goes.
    pub(super) async fn resolve(&self, domain: &str) -> SiteAnswer {
        if let Some(route) = route_of(&self.config.routes, domain) {
            return self.routed(route).await;
        }
        if domain.starts_with('[') {
            return self.literal(domain);
        }
        let Ok(name) = idna::domain_to_ascii(domain) else {
            return never("5.1.2", format!("{domain} is no domain name"), TTL.1);
        };
        match self.mx(&name).await {
            Found::Some(exchanges, ttl) => self.exchanges(&name, exchanges, ttl).await,
            Found::Nothing => self.implicit(&name).await,
            Found::NoName => never("5.1.2", format!("the domain {domain} does not exist"), TTL_NEVER),
            Found::Later(text) => SiteAnswer::Later { text: format!("MX of {domain}: {text}") },
        }
    }

    /// The hosts that MX records name (RFC 5321 section 5.1).
    async fn exchanges(&self, domain: &str, mut exchanges: Vec<(u16, String)>, ttl: Duration) -> SiteAnswer {
        if let [(_, only)] = exchanges.as_slice()
            && only.is_empty()
        {
            return never("5.1.10", format!("the domain {domain} takes no mail (null MX)"), ttl);
        }
        exchanges.retain(|(_, name)| is_host_name(name));
        exchanges.sort();
        exchanges.dedup_by(|a, b| a.1 == b.1);
        exchanges.truncate(HOSTS);
        if exchanges.is_empty() {
            return never("5.4.4", format!("the MX records of {domain} name no host"), ttl.min(TTL_NEVER));
        }
        self.hosts(domain, exchanges, ttl).await
    }

    /// Without MX records the domain is its own host.
    async fn implicit(&self, domain: &str) -> SiteAnswer {
        match self.hosts(domain, vec![(0, domain.to_owned())], TTL.1).await {
            SiteAnswer::Never { ttl, .. } if !self.has_address(domain).await => {
                never("5.1.2", format!("the domain {domain} has neither MX nor address records"), ttl)
            }
            answer => answer,
        }
    }

    async fn has_address(&self, domain: &str) -> bool {
        matches!(self.addresses(domain).await, Found::Some(..))
    }

    /// Looks up the addresses of all hosts.
    async fn hosts(&self, domain: &str, names: Vec<(u16, String)>, ttl: Duration) -> SiteAnswer {
        let mut lookups = Vec::with_capacity(names.len());
        for (preference, name) in names {
            lookups.push(async move { (preference, self.addresses(&name).await, name) });
        }
        let (mut hosts, mut ttl, mut later, mut refused) = (Vec::new(), ttl, None, false);
        for (preference, found, name) in join_all(lookups).await {
            let mut addresses = match found {
                Found::Some(addresses, its) => {
                    ttl = ttl.min(its);
                    addresses
                }
                Found::Later(text) => {
                    later = Some(format!("addresses of {name}: {text}"));
                    Vec::new()
                }
                Found::Nothing | Found::NoName => Vec::new(),
            };
            let known = addresses.len();
            addresses.retain(|address| self.may_deliver_to(*address));
            refused |= addresses.len() < known;
            addresses.truncate(ADDRESSES);
            let port = self.config.delivery.port;
            hosts.push(MxHost { preference, name: Arc::from(name), addresses, port });
        }
        if hosts.iter().any(|host| !host.addresses.is_empty()) {
            return SiteAnswer::Hosts { hosts: Arc::from(hosts), ttl: ttl.clamp(TTL.0, TTL.1), routed: false };
        }
        match (later, refused) {
            (Some(text), _) => SiteAnswer::Later { text },
            (None, true) => never(
                "5.4.4",
                format!("the mail hosts of {domain} have only private or local addresses, which mail is not sent to"),
                ttl,
            ),
            (None, false) => never("5.4.4", format!("the mail hosts of {domain} have no addresses"), ttl),
        }
    }

    /// A smart host instead of the DNS: what its owner wrote is not second-guessed.
    async fn routed(&self, route: &Route) -> SiteAnswer {
        let (mut hosts, mut ttl, mut trouble) = (Vec::new(), TTL.1, String::new());
        for (order, (name, port)) in route.hosts.iter().enumerate().take(HOSTS) {
            let addresses = match name.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => match self.addresses(name).await {
                    Found::Some(addresses, its) => {
                        ttl = ttl.min(its);
                        addresses
                    }
                    Found::Later(text) => {
                        trouble = text;
                        Vec::new()
                    }
                    Found::Nothing | Found::NoName => {
                        trouble = format!("{name} has no address");
                        Vec::new()
                    }
                },
            };
            let preference = u16::try_from(order).unwrap_or(u16::MAX);
            hosts.push(MxHost { preference, name: Arc::from(name.as_str()), addresses, port: *port });
        }
        if hosts.iter().all(|host| host.addresses.is_empty()) {
            // A smart host that cannot be found is a mistake of ours, no reason to bounce.
            return SiteAnswer::Later { text: format!("[[route]] {}: {trouble}", route.domain) };
        }
        SiteAnswer::Hosts { hosts: Arc::from(hosts), ttl: ttl.clamp(TTL.0, TTL.1), routed: true }
    }

    /// An address instead of a domain (RFC 5321 section 4.1.3).
    fn literal(&self, domain: &str) -> SiteAnswer {
        let inner = domain.trim_start_matches('[').trim_end_matches(']');
        let address = match inner.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().map(IpAddr::from).ok(),
            _ => inner.parse::<Ipv4Addr>().map(IpAddr::from).ok(),
        };
        match address {
            Some(address) if self.may_deliver_to(address) => {
                let port = self.config.delivery.port;
                let host = MxHost { preference: 0, name: Arc::from(domain), addresses: vec![address], port };
                SiteAnswer::Hosts { hosts: Arc::from([host]), ttl: TTL.1, routed: false }
            }
            Some(address) => never("5.4.4", format!("{address} is a private or local address"), TTL.1),
            None => never("5.1.3", format!("{domain} is no address literal"), TTL.1),
        }
    }

    /// Not to loopback, private networks or this host itself: whoever controls a zone would reach what only this host can.
    fn may_deliver_to(&self, address: IpAddr) -> bool {
        self.config.delivery.allow_private || !(is_private(address) || UdpSocket::bind((address, 0)).is_ok())
    }

    async fn mx(&self, domain: &str) -> Found<Vec<(u16, String)>> {
        self.lookup(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => {
                let name = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                Some((mx.preference, name))
            }
            _ => None,
        })
        .await
    }

    async fn addresses(&self, host: &str) -> Found<Vec<IpAddr>> {
        let v4 = self.lookup(host, RecordType::A, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        });
        let v6 = self.lookup(host, RecordType::AAAA, |data| match data {
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        });
        match tokio::join!(v4, v6) {
            (Found::Some(mut four, ttl), Found::Some(six, other)) => {
                four.extend(six);
                Found::Some(four, ttl.min(other))
            }
            (Found::Some(found, ttl), _) | (_, Found::Some(found, ttl)) => Found::Some(found, ttl),
            (Found::Later(text), _) | (_, Found::Later(text)) => Found::Later(text),
            (Found::NoName, _) => Found::NoName,
            (Found::Nothing, _) => Found::Nothing,
        }
    }

    async fn lookup<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Found<Vec<T>> {
        // Absolute, so that no search list of the host has a say.
        let absolute = format!("{}.", name.trim_end_matches('.'));
        match self.dns.lookup(absolute, kind).await {
            Ok(lookup) => {
                let found: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
                let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
                if found.is_empty() { Found::Nothing } else { Found::Some(found, ttl) }
            }
            Err(error) => failed(&error),
        }
    }
}

fn failed<T>(error: &NetError) -> Found<T> {
    use hickory_resolver::{net::DnsError, proto::op::ResponseCode};
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Found::NoName,
            ResponseCode::NoError => Found::Nothing,
            code => Found::Later(format!("the name servers say {code}")),
        },
        error => Found::Later(error.to_string()),
    }
}

fn never(status: &'static str, text: String, ttl: Duration) -> SiteAnswer {
    SiteAnswer::Never { status, text, ttl: ttl.clamp(TTL.0, TTL_NEVER) }
}

/// The route of a domain: exact, else the longest `*.suffix`, else `*`.
fn route_of<'a>(routes: &'a [Route], domain: &str) -> Option<&'a Route> {
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
    crate::config::is_domain(name) && name.parse::<IpAddr>().is_err()
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || a >= 240
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}
