//! What the control thread and the shards say to each other: the only thing both of them know.
//!
//! Control changes a shard in one way, a [`Command`] in that shard's bounded channel; a shard answers in one way, a
//! [`Report`] in the channel of the control thread. A full channel makes control work wait and loses neither mail nor
//! an event: events that could not go out are read again from the spool behind a cursor.

use crate::sign::Keyring;
use mailrail_queue::policy::Policy;
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
    /// List queued mail.
    Queue(QueueFilter, oneshot::Sender<Vec<QueueRow>>),
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
    /// Only this recipient domain.
    pub domain: Option<String>,
    /// Only this site (name of its first host).
    pub site: Option<String>,
    /// Only mail that leaves by this leased IP.
    pub ip: Option<IpAddr>,
    /// List single messages instead of sums by site and IP.
    pub messages: bool,
    /// At most so many rows a shard; 0: no limit.
    pub limit: usize,
}

/// Queued mail of one site through one leased IP (or one message of it).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueRow {
    /// Shard.
    pub shard: u16,
    /// Site: name of its first host, or the domain while that is not resolved.
    pub site: String,
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
