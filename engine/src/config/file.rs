//! The file as it is written: every setting with its default, once. Anything unknown is an error.

use super::{
    Auth, Cidr, Config, ConfigError, ControlConfig, DeliveryConfig, DnsConfig, EventsConfig, ListenerConfig,
    ListenerTls, Route, SpoolConfig,
    values::{self, bytes, duration},
};
use crate::memory;
use mailrail_queue::{policy::DEFAULT_ACCOUNT, retry::RetrySchedule};
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    hostname: Spanned<String>,
    #[serde(default = "data_dir")]
    data_dir: PathBuf,
    shards: Option<Spanned<u16>>,
    user: Option<String>,
    #[serde(default)]
    listener: Vec<Listener>,
    #[serde(default)]
    control: Control,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    delivery: Delivery,
    #[serde(default)]
    route: Vec<FileRoute>,
    #[serde(default)]
    limits: FileLimits,
    #[serde(default)]
    spool: FileSpool,
    #[serde(default)]
    events: Events,
    #[serde(default)]
    ses: Ses,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listener {
    address: Spanned<SocketAddr>,
    #[serde(default = "loopback")]
    allow: Vec<Cidr>,
    tls: Option<Tls>,
    #[serde(default = "account")]
    account: String,
    auth: Option<Spanned<Auth>>,
    #[serde(default)]
    smtputf8: bool,
    #[serde(default = "max_connections")]
    max_connections: u32,
    #[serde(default = "max_connections_per_ip")]
    max_connections_per_ip: u32,
    #[serde(default = "max_size", deserialize_with = "bytes")]
    max_size: u64,
    #[serde(default = "max_recipients")]
    max_recipients: Spanned<usize>,
    #[serde(default = "idle_timeout", deserialize_with = "duration")]
    idle_timeout: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
    #[serde(default)]
    implicit: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    socket: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    #[serde(default)]
    allow_uids: Vec<u32>,
    #[serde(default)]
    allow_gids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dns {
    #[serde(default)]
    servers: Vec<Server>,
    #[serde(default = "dns_timeout", deserialize_with = "duration")]
    timeout: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: dns_timeout() }
    }
}

struct Server(SocketAddr);

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        address.map(Self).map_err(|_| {
            serde::de::Error::custom(format!(
                "\"{text}\" is not a name server; write it as 192.0.2.53 or 192.0.2.53:5353"
            ))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Delivery {
    port: u16,
    #[serde(deserialize_with = "duration")]
    max_age: Duration,
    retry: Retry,
    site_backoff: Waits,
    connections: u32,
    messages_per_connection: u32,
    #[serde(deserialize_with = "duration")]
    connect_timeout: Duration,
    allow_private: bool,
    ca_file: Option<PathBuf>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            port: 25,
            // The longest that SES allows (MaxDeliverySeconds).
            max_age: Duration::from_secs(14 * 3600),
            retry: Retry::default(),
            site_backoff: Waits::default(),
            connections: 10,
            messages_per_connection: 1000,
            connect_timeout: Duration::from_secs(30),
            allow_private: false,
            ca_file: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Retry {
    #[serde(deserialize_with = "duration")]
    first: Duration,
    factor: u32,
    #[serde(deserialize_with = "duration")]
    max: Duration,
    jitter_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        let RetrySchedule { first, factor, max, jitter_percent } = RetrySchedule::default();
        Self { first, factor, max, jitter_percent }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Waits {
    #[serde(deserialize_with = "duration")]
    first: Duration,
    factor: u32,
    #[serde(deserialize_with = "duration")]
    max: Duration,
    jitter_percent: u32,
}

impl Default for Waits {
    fn default() -> Self {
        let RetrySchedule { first, factor, max, jitter_percent } = RetrySchedule::of_sites();
        Self { first, factor, max, jitter_percent }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoute {
    domain: Spanned<String>,
    hosts: Spanned<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileSpool {
    #[serde(deserialize_with = "bytes")]
    segment_size: u64,
    #[serde(deserialize_with = "bytes")]
    max_bytes: u64,
}

impl Default for FileSpool {
    fn default() -> Self {
        Self { segment_size: 64 << 20, max_bytes: 64 << 30 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLimits {
    #[serde(deserialize_with = "bytes")]
    memory: u64,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self { memory: 2 << 30 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Events {
    #[serde(deserialize_with = "bytes")]
    max_file_size: u64,
    keep_files: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { max_file_size: 256 << 20, keep_files: 20 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ses {
    regions: Vec<String>,
}

impl Default for Ses {
    fn default() -> Self {
        Self { regions: vec!["local".into()] }
    }
}

fn account() -> String {
    DEFAULT_ACCOUNT.into()
}

fn data_dir() -> PathBuf {
    PathBuf::from("data")
}

fn loopback() -> Vec<Cidr> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok()).collect()
}

fn max_connections() -> u32 {
    10_000
}

fn max_connections_per_ip() -> u32 {
    1_000
}

fn max_size() -> u64 {
    41_943_040
}

fn max_recipients() -> Spanned<usize> {
    Spanned::new(0..0, 50)
}

fn idle_timeout() -> Duration {
    Duration::from_secs(60)
}

fn dns_timeout() -> Duration {
    Duration::from_secs(5)
}

/// Finds places in the text for errors.
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) directory: &'a Path,
}

impl Source<'_> {
    pub(crate) fn wrong(&self, at: usize, message: impl Into<String>) -> ConfigError {
        let line = self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
        ConfigError::Wrong { path: self.path.into(), line, message: message.into() }
    }

    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    fn readable(&self, path: &Spanned<PathBuf>, what: &str) -> Result<PathBuf, ConfigError> {
        let absolute = self.absolute(path.get_ref());
        match std::fs::File::open(&absolute) {
            Ok(_) => Ok(absolute),
            Err(error) => Err(self.wrong(path.span().start, format!("{what} {}: {error}", absolute.display()))),
        }
    }
}

/// Reads and checks.
pub(crate) fn parse(text: &str, path: &Path, directory: &Path) -> Result<Config, ConfigError> {
    let source = Source { text, path, directory };
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        source.wrong(at, friendly(error.message()))
    })?;
    if !values::is_domain(file.hostname.get_ref()) {
        let message =
            format!("hostname \"{}\" is not a host name; write it as mta.example.net", file.hostname.get_ref());
        return Err(source.wrong(file.hostname.span().start, message));
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
    let shards = match &file.shards {
        Some(shards) if !(1..=256).contains(shards.get_ref()) => {
            return Err(source.wrong(shards.span().start, "shards must be 1 to 256; leave it out for one a core"));
        }
        Some(shards) => *shards.get_ref(),
        None => cores.min(256),
    };
    let data_dir = source.absolute(&file.data_dir);
    let delivery = delivery(file.delivery, &source)?;
    Ok(Config {
        path: path.into(),
        hostname: file.hostname.into_inner().to_ascii_lowercase(),
        shards,
        user: file.user,
        listeners: listeners(file.listener, &source)?,
        control: ControlConfig {
            socket: file.control.socket.map_or_else(|| data_dir.join("control.sock"), |path| source.absolute(&path)),
            metrics: file.control.metrics,
            allow_uids: file.control.allow_uids,
            allow_gids: file.control.allow_gids,
        },
        dns: DnsConfig {
            servers: file.dns.servers.into_iter().map(|server| server.0).collect(),
            timeout: file.dns.timeout,
        },
        routes: routes(file.route, delivery.port, &source)?,
        delivery,
        memory: memory(&file.limits, shards, &source)?,
        spool: spool(&file.spool, &source)?,
        events: EventsConfig { max_file_size: file.events.max_file_size.max(4096), keep_files: file.events.keep_files },
        regions: regions(file.ses, &source)?,
        data_dir,
    })
}

/// serde's words for an unknown key, with the nearest known one.
#[must_use]
pub fn friendly(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.replace('\n', " ") };
    let Some((unknown, rest)) = rest.split_once('`') else { return message.to_owned() };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let near = known.iter().map(|name| (distance(unknown, name), *name)).min().filter(|(d, _)| *d <= 2);
    match near {
        Some((_, name)) => format!("unknown key \"{unknown}\"; did you mean \"{name}\"?"),
        None => format!("unknown key \"{unknown}\"; known here: {}", known.join(", ")),
    }
}

/// Letters to change, add or take out to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn listeners(from: Vec<Listener>, source: &Source<'_>) -> Result<Vec<ListenerConfig>, ConfigError> {
    let mut seen = Vec::new();
    let mut listeners = Vec::new();
    for listener in from {
        let address = *listener.address.get_ref();
        let at = listener.address.span().start;
        if address.port() != 0 && seen.contains(&address) {
            return Err(source.wrong(at, format!("[[listener]] address {address} is listed twice")));
        }
        seen.push(address);
        if !(1..=1000).contains(listener.max_recipients.get_ref()) {
            return Err(source.wrong(listener.max_recipients.span().start, "max_recipients must be 1 to 1000"));
        }
        let auth = listener.auth.as_ref().map_or(Auth::Off, |auth| *auth.get_ref());
        if auth != Auth::Off && listener.tls.is_none() && !address.ip().is_loopback() {
            let message =
                format!("[[listener]] {address}: auth needs tls = {{ … }}: passwords travel in the clear without");
            return Err(source.wrong(listener.auth.map_or(at, |auth| auth.span().start), message));
        }
        let tls = listener
            .tls
            .map(|tls| {
                Ok(ListenerTls {
                    cert: source.readable(&tls.cert, "certificate")?,
                    key: source.readable(&tls.key, "private key")?,
                    implicit: tls.implicit,
                })
            })
            .transpose()?;
        listeners.push(ListenerConfig {
            address,
            allow: listener.allow,
            tls,
            account: listener.account.as_str().into(),
            auth,
            smtputf8: listener.smtputf8,
            max_connections: listener.max_connections.max(1),
            max_connections_per_ip: listener.max_connections_per_ip.max(1),
            max_size: listener.max_size,
            max_recipients: listener.max_recipients.into_inner(),
            idle_timeout: listener.idle_timeout,
        });
    }
    Ok(listeners)
}

fn regions(from: Ses, source: &Source<'_>) -> Result<Vec<String>, ConfigError> {
    let good = |region: &String| region.len() <= 64 && values::is_domain(region);
    if from.regions.is_empty() || !from.regions.iter().all(good) {
        let place = source.text.find("[ses").unwrap_or(0);
        return Err(source.wrong(place, "[ses] regions: at least one name such as \"local\" or \"us-east-1\""));
    }
    Ok(from.regions)
}

fn delivery(from: Delivery, source: &Source<'_>) -> Result<DeliveryConfig, ConfigError> {
    let retry = RetrySchedule {
        first: from.retry.first,
        factor: from.retry.factor,
        max: from.retry.max.max(from.retry.first),
        jitter_percent: from.retry.jitter_percent.min(90),
    };
    let site_backoff = RetrySchedule {
        first: from.site_backoff.first.max(Duration::from_millis(10)),
        factor: from.site_backoff.factor,
        max: from.site_backoff.max.max(from.site_backoff.first),
        jitter_percent: from.site_backoff.jitter_percent.min(90),
    };
    let place = source.text.find("[delivery").unwrap_or(0);
    if retry.first.is_zero() || from.max_age.is_zero() {
        return Err(source.wrong(place, "[delivery] max_age and retry.first must be longer than nothing"));
    }
    Ok(DeliveryConfig {
        port: from.port,
        max_age: from.max_age,
        retry,
        site_backoff,
        connections: from.connections.max(1),
        messages_per_connection: from.messages_per_connection.max(1),
        connect_timeout: from.connect_timeout.max(Duration::from_millis(100)),
        allow_private: from.allow_private,
        ca_file: from.ca_file.map(|path| source.absolute(&path)),
    })
}

fn routes(from: Vec<FileRoute>, port: u16, source: &Source<'_>) -> Result<Vec<Route>, ConfigError> {
    let mut routes: Vec<Route> = Vec::new();
    for route in from {
        let domain = route.domain.get_ref().to_ascii_lowercase();
        let at = route.domain.span().start;
        if domain != "*" && !values::is_domain(domain.strip_prefix("*.").unwrap_or(&domain)) {
            let message = format!("[[route]] domain \"{domain}\" is none of: example.com, *.example.com, *");
            return Err(source.wrong(at, message));
        }
        if routes.iter().any(|known| known.domain == domain) {
            return Err(source.wrong(at, format!("[[route]] domain \"{domain}\" is listed twice")));
        }
        if route.hosts.get_ref().is_empty() {
            return Err(source.wrong(route.hosts.span().start, "[[route]] hosts is empty; name at least one host"));
        }
        let hosts = route.hosts.get_ref().iter().map(|host| values::parse_host(host, port)).collect::<Result<_, _>>();
        routes.push(Route { domain, hosts: hosts.map_err(|message| source.wrong(route.hosts.span().start, message))? });
    }
    Ok(routes)
}

fn memory(from: &FileLimits, shards: u16, source: &Source<'_>) -> Result<u64, ConfigError> {
    let least = memory::least(shards);
    if from.memory < least {
        let place = source.text.find("[limits").unwrap_or(0);
        let message = format!("[limits] memory must be {}MiB at least with {shards} shard(s)", least >> 20);
        return Err(source.wrong(place, message));
    }
    Ok(from.memory)
}

fn spool(from: &FileSpool, source: &Source<'_>) -> Result<SpoolConfig, ConfigError> {
    let place = source.text.find("[spool").unwrap_or(0);
    let size = usize::try_from(from.segment_size).unwrap_or(usize::MAX);
    if !size.is_multiple_of(4096) || !((1 << 20)..=(1 << 30)).contains(&size) {
        return Err(source.wrong(place, "[spool] segment_size must be a multiple of 4 KiB, from 1MiB to 1GiB"));
    }
    if from.max_bytes < 4 * from.segment_size {
        return Err(source.wrong(place, "[spool] max_bytes must have room for four segments at least"));
    }
    Ok(SpoolConfig { segment_size: size, max_bytes: from.max_bytes })
}
