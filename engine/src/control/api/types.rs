//! Everything that travels over the control socket, both ends: the server writes it, the operator's client reads it.
//!
//! JSON with camelCase names. A member is never renamed and never changes its meaning; new ones may be added, so readers
//! ignore what they do not know. Times are milliseconds since the epoch unless the name says otherwise.

pub mod account;
pub mod audit;
pub mod orders;
pub mod provider;
pub mod suppression;

pub use super::dedicated_types::*;
use crate::link::{QueueRow, ShardStatus};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// Header of every reply: version of the server.
pub const VERSION_HEADER: &str = "x-mailrail-version";
/// Header of every error: its kind, as SES names it.
pub const ERROR_HEADER: &str = "x-amzn-errortype";

/// `GET /mailrail/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusReport {
    /// Version of the server.
    pub version: String,
    /// `hostname` of the configuration.
    pub hostname: String,
    /// Process id of the server.
    pub pid: u32,
    /// Where it takes mail, in the order of the configuration, with the ports really bound.
    pub listeners: Vec<SocketAddr>,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// When this was taken.
    pub time: u64,
    /// Recipients not yet settled.
    pub queued: u64,
    /// Messages not yet settled.
    pub queued_messages: u64,
    /// Sums over all shards, since start.
    pub totals: Totals,
    /// What the shards say, in order.
    pub shards: Vec<ShardStatus>,
    /// Shards that gave no answer in time; their numbers are missing from the sums.
    pub silent_shards: Vec<u16>,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The event log.
    pub event_log: EventLogStatus,
    /// The resolver.
    pub resolver: ResolverStatus,
    /// Delivery limits as configured.
    pub max_age_s: u64,
}

/// Sums over all shards, since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Client connections now.
    pub sessions: u64,
    /// Delivery connections now.
    pub deliveries: u64,
    /// Messages accepted.
    pub accepted_messages: u64,
    /// Recipients accepted.
    pub accepted: u64,
    /// Messages refused.
    pub refused: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients bounced.
    pub bounced: u64,
    /// Recipients expired.
    pub expired: u64,
    /// Attempts deferred (recipients).
    pub deferred: u64,
    /// Attempts in doubt (recipients).
    pub in_doubt: u64,
    /// DSNs made.
    pub dsns: u64,
    /// DKIM signatures made.
    pub signatures: u64,
    /// fdatasync calls of the spools.
    pub syncs: u64,
    /// Bytes of all spool segments.
    pub spool_bytes: u64,
    /// Bytes that live messages hold in them.
    pub spool_live_bytes: u64,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// Version; rises with every change of the fleet.
    pub version: u64,
    /// Pools.
    pub pools: usize,
    /// Leased IPs.
    pub ips: usize,
    /// DKIM keys.
    pub dkim_keys: usize,
    /// Rules of recipient domains.
    pub domains: usize,
}

/// The event log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventLogStatus {
    /// Directory it is in.
    pub directory: PathBuf,
    /// Bytes written since start.
    pub bytes: u64,
    /// Batches made durable since start.
    pub syncs: u64,
    /// Batches that wait to be made durable.
    pub waiting: u64,
    /// Why nothing can be written now, if so; it is tried again, and no event is lost meanwhile.
    pub error: Option<String>,
}

/// The resolver, since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResolverStatus {
    /// Questions of shards.
    pub questions: u64,
    /// Of these, answered together with one that was already running.
    pub coalesced: u64,
    /// Answers "nowhere, for good".
    pub never: u64,
    /// Answers "not known now".
    pub later: u64,
    /// Domains being looked up now.
    pub running: u64,
    /// Domains that wait for their turn now.
    pub waiting: u64,
}

/// `GET /mailrail/v1/queue`, with the members of [`crate::link::QueueFilter`] as query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueReport {
    /// Sums by site and leased IP, or single messages; most recipients first, or oldest first.
    pub rows: Vec<QueueRow>,
    /// Recipients in these rows.
    pub queued: u64,
    /// True when a limit left rows out.
    pub truncated: bool,
    /// Shards that gave no answer in time.
    pub silent_shards: Vec<u16>,
}

/// Body of `PUT /mailrail/v1/fleet`; `?dry_run=true` only says what would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FleetRequest {
    /// The whole fleet file, TOML. What is not in it is removed.
    pub toml: String,
    /// Name of the file in error messages.
    pub file: Option<String>,
    /// Absolute path that a relative `key_file` starts from; without it only absolute ones are taken.
    pub directory: Option<PathBuf>,
}

/// `GET /mailrail/v1/fleet`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetExport {
    /// A fleet file that changes nothing when it is applied. Holds a private key only where that was given inline.
    pub toml: String,
    /// Version of the policy it describes.
    pub version: u64,
    /// What to publish for its DKIM keys.
    pub dns_records: Vec<DnsRecord>,
}

/// A TXT record to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsRecord {
    /// Its name, `selector._domainkey.domain`.
    pub name: String,
    /// Its text; longer than 255 octets it is to be split into several strings.
    pub value: String,
}

/// What an apply did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplyReport {
    /// In order: pools, leased IPs, DKIM keys, domains, defaults; empty when the fleet already is so.
    pub changes: Vec<Change>,
    /// True when nothing was done.
    pub dry_run: bool,
    /// Version of the policy after it.
    pub version: u64,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What is done to it.
    pub action: Action,
    /// What it is.
    pub kind: Kind,
    /// Its name: pool, address, `selector._domainkey.domain`, domain, or setting.
    pub name: String,
    /// Settings before, `key = value, …`; of a change only those that differ.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    /// Settings after, the same way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
}

/// What is done to a thing of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Add,
    /// It has other settings.
    Change,
    /// It is no longer in the file.
    Remove,
}

/// A kind of thing in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `[[account]]`.
    Account,
    /// `[[pool]]`.
    Pool,
    /// `[[ip]]`.
    Ip,
    /// `[[dkim]]`.
    Dkim,
    /// `[[domain]]`.
    Domain,
    /// `[[provider]]`.
    Provider,
    /// A lease: when it began, its warm-up, whether it drains.
    Lease,
    /// Automatic warm-up of an account.
    Warmup,
    /// A setting of the fleet as a whole.
    Setting,
    /// Addresses of a suppression list.
    Suppression,
}

impl Action {
    /// As in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
        }
    }
}

impl Kind {
    /// As in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Pool => "pool",
            Self::Ip => "ip",
            Self::Dkim => "dkim",
            Self::Domain => "domain",
            Self::Provider => "provider",
            Self::Lease => "lease",
            Self::Warmup => "warmup",
            Self::Setting => "setting",
            Self::Suppression => "suppression",
        }
    }
}

/// `GET /mailrail/v1/trace/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TraceReport {
    /// The message.
    pub message_id: String,
    /// Its events as in the event log, in order; empty when the log has none (any more).
    pub events: Vec<serde_json::Value>,
}

/// `GET /mailrail/v1/health`: HTTP status 200, or 503 when something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthReport {
    /// True when there are no problems.
    pub healthy: bool,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// `GET /mailrail/v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigReport {
    /// The file it was read from.
    pub path: Option<PathBuf>,
    /// What it means, defaults resolved, as `mailrail check` prints it.
    pub explanation: String,
    /// What looks doubtful, a line each.
    pub warnings: Vec<String>,
}

/// Body of every error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub message: String,
}
