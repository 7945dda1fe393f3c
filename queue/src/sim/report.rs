//! What a rehearsal came to: by day, by leased IP, by pool, by receiver.

use super::campaign::Grain;
use serde::Serialize;
use std::net::IpAddr;

/// Recipients by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Submitted.
    pub wanted: u64,
    /// Taken by the receiver.
    pub sent: u64,
    /// Sent on to another pool, as the plans of their own let nothing go.
    pub overflowed: u64,
    /// Put off by the receiver; each time counts.
    pub deferred: u64,
    /// Refused for good by the receiver.
    pub bounced: u64,
    /// Given up for their age.
    pub expired: u64,
    /// Refused at submission, as their pool wants it.
    pub rejected: u64,
}

/// One day.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Day {
    /// From 1.
    pub day: u32,
    /// What became of recipients on this day.
    #[serde(flatten)]
    pub sums: Sums,
    /// In the queue at its end.
    pub queued: u64,
    /// Of these, those that wait for a plan.
    pub waiting: u64,
    /// Mean trust that receivers have in the leased IPs that they have met, 0 to 100; those of shared pools count if there
    /// are no others.
    pub reputation_mean: f64,
    /// The least of them.
    pub reputation_worst: f64,
    /// Leased IPs that are warm at its end, and all that have a plan or ladders.
    pub ips_warm: u32,
    /// See `ips_warm`.
    pub ips_warming: u32,
    /// Leased IPs that were blocked by a receiver on this day, once for each receiver.
    pub blocks: u32,
}

/// One leased IP.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ip {
    /// Address.
    pub ip: IpAddr,
    /// Its pool.
    pub pool: String,
    /// The day on which it is leased.
    pub leased_day: u32,
    /// The first day on which it has no cap, at any provider; none: not in this time, or it never had one.
    pub warm_day: Option<u32>,
    /// It has no plan, or was warm when it was leased.
    pub warm_from_start: bool,
    /// Recipients taken from it.
    pub sent: u64,
    /// Most on one day.
    pub best_day: u64,
    /// Put off.
    pub deferred: u64,
    /// Blocks by receivers.
    pub blocks: u32,
    /// Mean trust at the end.
    pub reputation: f64,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pool {
    /// Name.
    pub pool: String,
    /// Whose, if it is somebody's.
    pub account: Option<String>,
    /// Leased IPs.
    pub ips: u32,
    /// Of these, warm at the end.
    pub ips_warm: u32,
    /// Of the mail for this pool: wanted, overflowed and rejected. Of what its leased IPs sent: the rest.
    #[serde(flatten)]
    pub sums: Sums,
    /// Blocks of its leased IPs.
    pub blocks: u32,
    /// Mean trust in them at the end.
    pub reputation: f64,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Receiver {
    /// Name.
    pub receiver: String,
    /// What became of the recipients there.
    #[serde(flatten)]
    pub sums: Sums,
    /// Blocks of leased IPs.
    pub blocks: u32,
    /// Mean trust at the end.
    pub reputation: f64,
}

/// The first time that a receiver had enough of a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trouble {
    /// Who.
    pub receiver: String,
    /// Of which pool.
    pub pool: String,
    /// It was a block.
    pub blocked: bool,
    /// When.
    pub day: u32,
    /// Which leased IP.
    pub ip: IpAddr,
    /// What it would take of it on that day.
    pub takes: u64,
    /// The plan's cap of that day; none: no plan limits it.
    pub cap: Option<u32>,
    /// Its words.
    pub reply: String,
    /// Days on which that happened, to any leased IP of the pool.
    pub days: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Of what was left to chance.
    pub seed: u64,
    /// How finely it was looked at.
    pub grain: Grain,
    /// Of all days.
    pub total: Sums,
    /// In the queue at the end.
    pub queued: u64,
    /// By day.
    pub days: Vec<Day>,
    /// By leased IP.
    pub ips: Vec<Ip>,
    /// By pool.
    pub pools: Vec<Pool>,
    /// By receiver.
    pub receivers: Vec<Receiver>,
    /// What went wrong, first times only.
    pub troubles: Vec<Trouble>,
}

impl Sums {
    /// Adds the other one.
    pub(super) fn add(&mut self, other: &Self) {
        self.wanted += other.wanted;
        self.sent += other.sent;
        self.overflowed += other.overflowed;
        self.deferred += other.deferred;
        self.bounced += other.bounced;
        self.expired += other.expired;
        self.rejected += other.rejected;
    }
}
