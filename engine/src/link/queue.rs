//! Which queued mail a listing shows, and its rows.

use super::orders;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Selects queued mail; all given members must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueFilter {
    /// Only this message id.
    pub message: Option<String>,
    /// Only this recipient.
    pub recipient: Option<String>,
    /// Only this recipient domain.
    pub domain: Option<String>,
    /// Only this site (name of its first host).
    pub site: Option<String>,
    /// Only sites of this provider.
    pub provider: Option<String>,
    /// Only mail of this account.
    pub account: Option<String>,
    /// Only mail of this pool.
    pub pool: Option<String>,
    /// Only mail that leaves by this leased IP.
    pub ip: Option<IpAddr>,
    /// List single messages instead of sums by site and IP.
    pub messages: bool,
    /// At most so many rows a shard; 0: no limit.
    pub limit: usize,
}

impl QueueFilter {
    /// What it selects.
    #[must_use]
    pub fn selects(&self) -> orders::Filter {
        let Self { message, recipient, domain, site, provider, account, pool, ip, .. } = self.clone();
        orders::Filter { message, recipient, domain, site, provider, account, pool, ip }
    }
}

/// Queued mail of one site through one leased IP (or one message of it).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueRow {
    /// Shard.
    pub shard: u16,
    /// Site: name of its first host, or the domain while that is not resolved.
    pub site: String,
    /// Provider of the site, if it is one of those known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Leased IP; none while no lease may take it.
    pub ip: Option<IpAddr>,
    /// Recipient domains, at most ten.
    pub domains: Vec<String>,
    /// Message id and recipients, when single messages were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Recipients of the message, when single messages were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub recipients: Vec<String>,
    /// Who sends the message, when single messages were asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// Pool of the message, when single messages were asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
    /// Recipients not yet settled.
    pub queued: u64,
    /// Of these, waiting for a later time.
    pub deferred: u64,
    /// Of these, in a transaction now.
    pub in_flight: u64,
    /// Connections open.
    pub connections: u32,
    /// Attempts made by the oldest message.
    pub attempts: u32,
    /// When the oldest was accepted, milliseconds since the epoch.
    pub oldest: u64,
    /// Next try, milliseconds since the epoch; none: now, unless it is held.
    pub next_try: Option<u64>,
    /// It goes when something else changes: a suspension, the leased IPs, a plan.
    #[serde(default)]
    pub held: bool,
    /// What holds it: last reply or error, or "" if nothing does.
    pub reason: String,
}
