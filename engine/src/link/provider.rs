//! How leased IPs stand with providers, and what is to be done about one.

use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What is to be done about a provider.
#[derive(Clone, Debug)]
pub struct ProviderChange {
    /// Its name.
    pub provider: Arc<str>,
    /// Only for this leased IP.
    pub ip: Option<IpAddr>,
    /// Send it nothing for so long, and why; none: lift all that holds mail to it.
    pub suspend: Option<(Duration, Arc<str>)>,
}

/// How a leased IP stands with a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderIp {
    /// The provider.
    pub provider: String,
    /// The leased IP.
    pub ip: IpAddr,
    /// The shard that owns it.
    pub shard: u16,
    /// Its pool.
    pub pool: String,
    /// What holds.
    pub state: ProviderState,
    /// Recipients not yet settled.
    pub queued: u64,
    /// Of these, waiting for a later time.
    pub deferred: u64,
    /// Of these, in a transaction now.
    pub in_flight: u64,
    /// Connections open or being opened.
    pub connections: u32,
    /// Connections that it may have now; none: the provider does not limit them.
    pub connection_limit: Option<u32>,
    /// Messages that it may send now, as `10/s`; none: not limited.
    pub rate: Option<String>,
    /// How often the rate has been halved because of replies, and not doubled again yet.
    pub slower: u32,
    /// The same of the connections.
    pub fewer: u32,
    /// Nothing goes before, milliseconds since the epoch.
    pub suspended_until: Option<u64>,
    /// An operator suspended it, not a reply.
    pub by_operator: bool,
    /// The next step of recovery, milliseconds since the epoch.
    pub recovers_at: Option<u64>,
    /// What was last complained of, or why it was suspended.
    pub reason: Option<String>,
    /// When that was, milliseconds since the epoch.
    pub reason_at: Option<u64>,
    /// Recipients delivered since start.
    pub delivered: u64,
    /// Attempts deferred since start (recipients).
    pub deferrals: u64,
    /// Recipients bounced since start.
    pub bounced: u64,
    /// How it stands on its ladder; none: its pool is not a managed one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ladder: Option<LadderStanding>,
}

/// How a leased IP of a managed pool stands on its ladder at a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LadderStanding {
    /// Step, 0 the lowest.
    pub step: u32,
    /// Most recipients of this day; none: it is warm.
    pub cap: Option<u32>,
    /// Recipients charged on this day.
    pub sent: u32,
    /// Attempts deferred on this day (recipients).
    pub deferred: u64,
    /// Recipients bounced on this day.
    pub bounced: u64,
    /// A reply blocked the IP on this day.
    pub blocked: bool,
    /// Recipients that wait for it.
    pub waiting: u64,
    /// When the first of them may go, milliseconds since the epoch.
    pub opens: Option<u64>,
    /// `rise`, `hold`, `fall` or `decay`: how the last day ended that did.
    pub last: Option<String>,
}

/// See [`ProviderIp::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderState {
    /// Nothing but the provider's settings.
    Open,
    /// Less than these: its replies asked for it.
    Slowed,
    /// Nothing goes.
    Suspended,
}
