//! What a shard counts, and how its leased IPs warm up.

use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};

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
