//! What the control thread and the shards say to each other: the only thing both of them know.
//!
//! Control changes a shard in one way, a [`Command`] in that shard's bounded channel; a shard answers in one way, a
//! [`Report`] in the channel of the control thread. A full channel makes control work wait and loses neither mail nor
//! an event: events that could not go out are read again from the spool behind a cursor.

pub mod orders;

use crate::{credentials::Credentials, sign::Keyring};
use mailrail_queue::{
    admit::{
        quota::{Ask, Grant, Refusal, Used},
        suppress::{Change, Key, Set},
    },
    policy::Policy,
    warmup::{day::Day, ladder::Decision},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for one shard.
pub const COMMANDS: usize = 1024;
/// Reports of all shards that may wait for the control thread.
pub const REPORTS: usize = 4096;

/// The policy snapshot as a shard gets it: the decisions, and the keys that carry them out.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Pools, leases, rules of domains.
    pub policy: Arc<Policy>,
    /// DKIM keys by domain.
    pub keys: Arc<Keyring>,
    /// SMTP users.
    pub credentials: Arc<Credentials>,
}

/// Control → one shard.
#[derive(Debug)]
pub enum Command {
    /// Take this snapshot from now on.
    Snapshot(Snapshot),
    /// Answer to [`Report::Resolve`].
    Resolved {
        /// The domain that was asked about.
        domain: Box<str>,
        /// Where its mail goes.
        answer: SiteAnswer,
    },
    /// Events up to this cursor are durable in the log: their spool space may be reused.
    EventsKept {
        /// As given in [`Report::Events`].
        cursor: u64,
    },
    /// Say how things are.
    Status(oneshot::Sender<ShardStatus>),
    /// Say how its leased IPs stand with the providers.
    Providers(oneshot::Sender<Vec<ProviderIp>>),
    /// Suspend a provider, or lift what holds mail to it; say how many leased IPs that was done for.
    ChangeProvider(ProviderChange, oneshot::Sender<usize>),
    /// List queued mail.
    Queue(QueueFilter, oneshot::Sender<Vec<QueueRow>>),
    /// The suppression lists as they are now; nothing before it counts.
    Lists {
        /// Of the digests.
        key: Key,
        /// All entries.
        set: Arc<Set>,
    },
    /// What operators do to queued mail, and ask about it.
    Mail(orders::Ask),
    /// What has changed in the lists since.
    ListsChanged(Arc<[Change]>),
    /// Certificates were read again; one entry per listener, in the order of the configuration.
    Certificates(Vec<Option<Arc<rustls::ServerConfig>>>),
    /// Stop: accept nothing new, give back what is in flight within `grace`, sync, report [`Report::Stopped`].
    Stop {
        /// How long deliveries in flight may go on.
        grace: Duration,
    },
}

/// One shard → control.
#[derive(Debug)]
pub enum Report {
    /// Where does mail for this domain (lower-case A-labels, or an address literal) go?
    Resolve {
        /// The shard that waits.
        shard: u16,
        /// The domain.
        domain: Box<str>,
    },
    /// A message of this account waits for a loan.
    Quota {
        /// The account.
        account: Arc<str>,
        /// What is needed.
        ask: Ask,
        /// To the session that waits.
        answer: oneshot::Sender<Result<Grant, Refusal>>,
    },
    /// What was used of a loan to this account.
    QuotaUsed {
        /// The account.
        account: Arc<str>,
        /// Of which loan, and how much.
        used: Used,
    },
    /// What a day led to on a ladder of a managed pool.
    Ladder {
        /// The leased IP.
        ip: IpAddr,
        /// The provider.
        provider: Arc<str>,
        /// Which day.
        day: Day,
        /// The decision, with the figures it rests on.
        decision: Decision,
    },
    /// Event log lines of durable records, whole lines, each ended by `\n`.
    Events {
        /// The shard they come from.
        shard: u16,
        /// Acknowledge with this once the lines are durable.
        cursor: u64,
        /// The lines.
        lines: Vec<u8>,
    },
    /// The shard has stopped; nothing of it is in flight.
    Stopped {
        /// The shard.
        shard: u16,
        /// Why, when it was not asked to.
        error: Option<String>,
    },
}

/// One mail host of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// MX preference; hosts of the same preference are shuffled.
    pub preference: u16,
    /// Host name, lower case, no trailing dot.
    pub name: Arc<str>,
    /// Its addresses as found; may be empty if the host has none (then it counts as failed).
    pub addresses: Vec<IpAddr>,
    /// Port to connect to.
    pub port: u16,
}

/// Where mail of a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteAnswer {
    /// To these hosts. Domains with the same hosts are one site.
    Hosts {
        /// In order of preference, then name.
        hosts: Arc<[MxHost]>,
        /// Believe it for so long.
        ttl: Duration,
        /// From `[[route]]`, not from the DNS.
        routed: bool,
    },
    /// Nowhere, for good (NXDOMAIN, null MX, no address at all, forbidden address).
    Never {
        /// RFC 3463 code, such as `5.1.2` or `5.1.10`.
        status: &'static str,
        /// One line of text.
        text: String,
        /// Believe it for so long.
        ttl: Duration,
    },
    /// Not known now (SERVFAIL, time-out): ask again later.
    Later {
        /// One line of text.
        text: String,
    },
}

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
    /// Next try, milliseconds since the epoch; none: now.
    pub next_try: Option<u64>,
    /// What holds it: last reply or error, or "" if nothing does.
    pub reason: String,
}

/// Histogram with fixed bounds: `counts[i]` holds values up to [`Buckets::BOUNDS_MS`]`[i]`, the last one the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Buckets {
    /// One more than there are bounds.
    pub counts: [u64; 17],
    /// Sum of all values, microseconds.
    pub sum_us: u64,
}

impl Buckets {
    /// Upper bounds, milliseconds.
    pub const BOUNDS_MS: [u64; 16] =
        [1, 2, 5, 10, 20, 50, 100, 250, 500, 1_000, 2_500, 10_000, 60_000, 600_000, 3_600_000, 14_400_000];

    /// Counts one value.
    pub fn record(&mut self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let slot = Self::BOUNDS_MS.partition_point(|bound| bound.saturating_mul(1000) < us);
        self.counts[slot] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

/// Counters of one leased IP since start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpStatus {
    /// The address.
    pub address: IpAddr,
    /// EHLO name.
    pub helo: String,
    /// Pool.
    pub pool: String,
    /// Recipients not yet settled that are to leave by it.
    pub queued: u64,
    /// Connections open.
    pub connections: u32,
    /// Recipients delivered.
    pub delivered: u64,
    /// Attempts deferred (recipients).
    pub deferred: u64,
    /// Recipients bounced.
    pub bounced: u64,
    /// How its warm-up stands; none: it is shared, or its ledger is on its way to this shard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warmup: Option<WarmupStanding>,
}

/// How the warm-up of a leased IP stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmupStanding {
    /// It is through with its plan, and has no cap.
    pub done: bool,
    /// SES's `WarmupPercentage`.
    pub percentage: u8,
    /// Day in the plan, from 1; none: done.
    pub plan_day: Option<u16>,
    /// Most recipients of this day; none: done.
    pub cap: Option<u32>,
    /// Of the next day; none: done by then.
    pub next_cap: Option<u32>,
    /// Recipients charged on this day.
    pub sent: u32,
    /// Recipients that a crash would count as charged.
    pub reserved: u32,
    /// Recipients that may go now; none: no cap.
    pub tokens: Option<i64>,
    /// When it will be done, milliseconds since the epoch; none: it is, or it is held.
    pub done_on: Option<u64>,
    /// The plan stands still.
    pub held: bool,
    /// Recipients that wait for the plan.
    pub waiting: u64,
    /// When the first of them may go, milliseconds since the epoch.
    pub opens: Option<u64>,
}

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

/// Recipients for which a pool's plans had no allowance, and that went by another pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overflowed {
    /// Account of the pool.
    pub account: String,
    /// The pool that they are of.
    pub from_pool: String,
    /// The pool that they went by.
    pub to_pool: String,
    /// Why.
    pub reason: String,
    /// How many, since start.
    pub recipients: u64,
}

/// One shard, since start unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Which one.
    pub shard: u16,
    /// Recipients not yet settled, now.
    pub queued: u64,
    /// Messages not yet settled, now.
    pub queued_messages: u64,
    /// Client connections now.
    pub sessions: u32,
    /// Wrong credentials given.
    #[serde(default)]
    pub auth_failures: u64,
    /// Client connections refused with 421.
    pub sessions_refused: u64,
    /// Delivery connections now.
    pub deliveries: u32,
    /// Delivery connections opened.
    pub connects: u64,
    /// Delivery connections that failed to open.
    pub connect_failures: u64,
    /// Messages accepted.
    pub accepted_messages: u64,
    /// Recipients accepted.
    pub accepted: u64,
    /// Messages refused (any 4xx or 5xx after the final dot).
    pub refused: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients bounced.
    pub bounced: u64,
    /// Recipients expired.
    pub expired: u64,
    /// Recipients not sent to because they are on a suppression list.
    #[serde(default)]
    pub suppressed: u64,
    /// Recipients taken out by an operator.
    #[serde(default)]
    pub cancelled: u64,
    /// Attempts deferred (recipients).
    pub deferred: u64,
    /// Attempts in doubt (recipients).
    pub in_doubt: u64,
    /// DSNs made.
    pub dsns: u64,
    /// Messages handed to another shard before the append.
    pub handed_over: u64,
    /// DKIM signatures made.
    pub signatures: u64,
    /// Bytes of content accepted.
    pub bytes_accepted: u64,
    /// fdatasync calls of the spool.
    pub syncs: u64,
    /// Spool segments in use.
    pub spool_segments: u64,
    /// Bytes of these segments.
    pub spool_bytes: u64,
    /// Bytes that live messages hold in them.
    pub spool_live_bytes: u64,
    /// Memory counted against `[limits] memory`, bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Why the spool takes no new mail now, if so.
    pub spool_full: Option<String>,
    /// Final dot to 250.
    pub accept_time: Buckets,
    /// Accepted to the first MAIL FROM.
    pub queue_time: Buckets,
    /// Accepted to delivered.
    pub delivery_time: Buckets,
    /// Its leased IPs.
    pub ips: Vec<IpStatus>,
    /// Version of the policy that it has in force.
    #[serde(default)]
    pub policy_version: u64,
    /// Leased IPs whose ledgers are on their way to it.
    #[serde(default)]
    pub ledgers_awaited: usize,
    /// Recipients that went by another pool.
    #[serde(default)]
    pub overflow: Vec<Overflowed>,
    /// Last errors, newest first, at most ten: time in ms, text.
    pub last_errors: Vec<(u64, String)>,
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardLink {
    /// Which shard this is.
    pub shard: u16,
    /// From control.
    pub commands: mpsc::Receiver<Command>,
    /// To control.
    pub reports: mpsc::Sender<Report>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct ControlLink {
    /// To each shard, by number.
    pub commands: Vec<mpsc::Sender<Command>>,
    /// From all shards.
    pub reports: mpsc::Receiver<Report>,
}

/// Both ends for `shards` shards.
#[must_use]
pub fn link(shards: u16) -> (ControlLink, Vec<ShardLink>) {
    let (report_tx, reports) = mpsc::channel(REPORTS);
    let (mut commands, mut ends) = (Vec::new(), Vec::new());
    for shard in 0..shards {
        let (tx, rx) = mpsc::channel(COMMANDS);
        commands.push(tx);
        ends.push(ShardLink { shard, commands: rx, reports: report_tx.clone() });
    }
    (ControlLink { commands, reports }, ends)
}
