//! `mailrail.toml`: the host. What ops tune while it runs is the fleet (`control::fleet`), not this.
//!
//! Each setting is declared once, in `file.rs`; an error is one line that names file, line and key.

mod explain;
mod file;
mod values;

pub use explain::{Finding, explain};
pub(crate) use file::Source;
pub use file::friendly;
#[cfg(any(test, fuzzing))]
pub(crate) use file::parse;
pub(crate) use values::is_domain;
pub use values::{Cidr, parse_duration};

use mailrail_queue::retry::RetrySchedule;
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;

/// The configuration cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}: {message}", path = path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// None of the usual files is there.
    #[error("no configuration: looked for {0}; write one or name it with --config")]
    NotFound(String),
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Name of this host: greeting, Received, DSNs.
    pub hostname: String,
    /// Spool, control store and event log.
    pub data_dir: PathBuf,
    /// Shards, one a core.
    pub shards: u16,
    /// User to become after binding.
    pub user: Option<String>,
    /// Where clients submit mail.
    pub listeners: Vec<ListenerConfig>,
    /// Control socket and metrics.
    pub control: ControlConfig,
    /// Name resolution.
    pub dns: DnsConfig,
    /// How mail goes out.
    pub delivery: DeliveryConfig,
    /// Smart hosts.
    pub routes: Vec<Route>,
    /// Octets of memory that load may come to.
    pub memory: u64,
    /// The store.
    pub spool: SpoolConfig,
    /// The event log.
    pub events: EventsConfig,
    /// Regions that SMTP passwords may be made for, the first of them in answers.
    pub regions: Vec<String>,
}

/// `[[listener]]`
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Address and port; port 0: any free one.
    pub address: SocketAddr,
    /// Who may submit.
    pub allow: Vec<Cidr>,
    /// Certificate, if TLS is offered.
    pub tls: Option<ListenerTls>,
    /// Account of clients that give no credentials.
    pub account: Arc<str>,
    /// Whether clients may, or must, give credentials.
    pub auth: Auth,
    /// Offer SMTPUTF8.
    pub smtputf8: bool,
    /// Connections at a time, over all shards.
    pub max_connections: u32,
    /// Connections at a time of one client address, for each shard.
    pub max_connections_per_ip: u32,
    /// Largest message, octets.
    pub max_size: u64,
    /// Recipients a transaction.
    pub max_recipients: usize,
    /// How long an idle client is waited for.
    pub idle_timeout: Duration,
}

/// `auth` of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// AUTH is not known.
    #[default]
    Off,
    /// A client that may submit anyway may use it; one from anywhere else must.
    Optional,
    /// Nobody submits without.
    Required,
}

/// `tls = { … }` of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// TLS from the start (port 465) instead of STARTTLS.
    pub implicit: bool,
}

/// `[control]`
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Unix socket.
    pub socket: PathBuf,
    /// Address of the Prometheus text, if it is to be served over TCP.
    pub metrics: Option<SocketAddr>,
    /// Who may use the socket besides root and the server's own user: users by number.
    pub allow_uids: Vec<u32>,
    /// And users whose primary group this is.
    pub allow_gids: Vec<u32>,
}

/// `[dns]`
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Servers to ask; none: the system's.
    pub servers: Vec<SocketAddr>,
    /// Time for one question to one server.
    pub timeout: Duration,
}

/// `[delivery]`
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// Port of mail hosts.
    pub port: u16,
    /// Age at which a message is given up.
    pub max_age: Duration,
    /// Waits between tries.
    pub retry: RetrySchedule,
    /// Waits of a site that cannot be reached or sends us away.
    pub site_backoff: RetrySchedule,
    /// Connections per leased IP and site.
    pub connections: u32,
    /// Messages a connection.
    pub messages_per_connection: u32,
    /// Time for a TCP connection.
    pub connect_timeout: Duration,
    /// Deliver to loopback and private addresses.
    pub allow_private: bool,
    /// Root certificates for `tls = "required"`, PEM; none: the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Exact domain, `*.domain`, or `*`.
    pub domain: String,
    /// Host names or addresses with ports, tried in order.
    pub hosts: Vec<(String, u16)>,
}

/// `[spool]`
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Bytes of a segment file.
    pub segment_size: usize,
    /// All shards' segment files together, bytes.
    pub max_bytes: u64,
}

/// `[events]`
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// Bytes at which a new file is begun.
    pub max_file_size: u64,
    /// Files kept besides the current one.
    pub keep_files: usize,
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`ConfigError`], the first one found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |error: std::io::Error| ConfigError::Read { path: path.into(), reason: error.to_string() };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        file::parse(&text, path, &std::path::absolute(directory).map_err(read)?)
    }

    /// The first of the usual files that is there.
    ///
    /// # Errors
    /// [`ConfigError::NotFound`] names them all.
    pub fn search() -> Result<PathBuf, ConfigError> {
        let places = usual_places();
        let names = places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        places.into_iter().find(|path| path.is_file()).ok_or(ConfigError::NotFound(names))
    }

    /// Directory of the event log.
    #[must_use]
    pub fn events_dir(&self) -> PathBuf {
        self.data_dir.join("events")
    }

    /// A complete, commented example.
    #[must_use]
    pub fn reference() -> &'static str {
        include_str!("../../../packaging/mailrail.toml")
    }
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("mailrail.toml")];
    if let Some(home) = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from) {
        places.push(home.join("mailrail/mailrail.toml"));
    } else if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
        places.push(home.join(".config/mailrail/mailrail.toml"));
    }
    places.push(PathBuf::from("/etc/mailrail/mailrail.toml"));
    places
}

impl ListenerConfig {
    /// May this client submit?
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(client))
    }
}

#[cfg(test)]
mod tests;
