//! Providers over the control socket.

use crate::link::ProviderIp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `GET /mailrail/v1/providers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Providers {
    /// In order of name.
    pub providers: Vec<ProviderRow>,
    /// Shards that gave no answer in time.
    pub silent_shards: Vec<u16>,
}

/// One provider: its settings, and how the leased IPs stand with it that have met it. Limits are those of one leased IP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderRow {
    /// Unique.
    pub name: String,
    /// Suffixes of its mail hosts.
    pub mx: Vec<String>,
    /// The fleet file has a `[[provider]]` of this name.
    pub own: bool,
    /// Connections; none: no limit but that of each site.
    pub connections: Option<u32>,
    /// Messages a connection; none: the default of the configuration.
    pub messages_per_connection: Option<u32>,
    /// Recipients a message.
    pub recipients_per_message: Option<u32>,
    /// Messages in a time, as `10/s`.
    pub rate: Option<String>,
    /// Messages at once after a pause.
    pub burst: Option<u32>,
    /// `none`, `opportunistic` or `required`.
    pub tls: Option<String>,
    /// Milliseconds without a complaint for each step of recovery.
    pub recover_ms: u64,
    /// Reply patterns that are looked for.
    pub replies: usize,
    /// Recipients not yet settled.
    pub queued: u64,
    /// Connections open.
    pub open: u32,
    /// Of these leased IPs, in order of address.
    pub ips: Vec<ProviderIp>,
}

/// Body of `POST /mailrail/v1/providers/{name}/suspend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suspend {
    /// Only mail by this leased IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// For so long, as `30m` or `6h`; a week at most.
    #[serde(rename = "for")]
    pub time: String,
    /// Why, for those who look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /mailrail/v1/providers/{name}/lift`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Lift {
    /// Only for this leased IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// What came of either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderDone {
    /// Leased IPs for which it was done.
    pub ips: usize,
}
