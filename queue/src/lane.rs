//! A lane: the mail of one site through one leased IP, with its connections and its back-off.

use crate::{job::NONE, time::Mono, time::Wall};
use std::{net::IpAddr, sync::Arc};

/// Names a lane of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub(crate) u32);

/// Names a leased IP of one queue, whatever snapshot is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(crate) u32);

/// Limits of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Connections at a time.
    pub connections: u32,
}

/// A lane, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneInfo {
    /// Which one.
    pub lane: LaneId,
    /// Leased IP.
    pub lease: IpAddr,
    /// Identity of the site.
    pub site: Arc<str>,
    /// Recipients ready, deferred, in flight.
    pub ready: u64,
    /// See `ready`.
    pub deferred: u64,
    /// See `ready`.
    pub in_flight: u64,
    /// Connections open or being opened.
    pub connections: u32,
    /// No new connection before.
    pub backed_off_until: Option<Mono>,
    /// Earliest known expiry of its ready jobs.
    pub min_expires: Wall,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) lease: LeaseId,
    pub(crate) site: u32,
    /// First and last ready job.
    pub(crate) head: u32,
    pub(crate) tail: u32,
    /// Ready jobs.
    pub(crate) ready: u32,
    /// Jobs of it, wherever they are.
    pub(crate) jobs: u32,
    /// Recipients by place, for listings.
    pub(crate) counts: [u64; 3],
    pub(crate) connections: u32,
    /// Connections that have not yet asked for a job.
    pub(crate) opening: u32,
    pub(crate) limit: u32,
    /// What the receiver taught us to keep to; rises again with time.
    pub(crate) learned: Option<u32>,
    pub(crate) failures: u32,
    pub(crate) backed_off_until: Mono,
    pub(crate) stamp: u32,
    /// It is in the list of lanes to look at.
    pub(crate) listed: bool,
    /// No ready job expires before.
    pub(crate) min_expires: Wall,
}

impl Lane {
    pub(crate) fn new(lease: LeaseId, site: u32, limit: u32) -> Self {
        Self {
            lease,
            site,
            head: NONE,
            tail: NONE,
            ready: 0,
            jobs: 0,
            counts: [0; 3],
            connections: 0,
            opening: 0,
            limit: limit.max(1),
            learned: None,
            failures: 0,
            backed_off_until: Mono(0),
            stamp: 0,
            listed: false,
            min_expires: Wall(u64::MAX),
        }
    }

    /// Ready jobs that one connection should have before another one is opened for them: a connection costs several round
    /// trips, a further message on it one at most.
    const PER_CONNECTION: u32 = 8;

    /// Is one more connection worth it now?
    pub(crate) fn wants_connection(&self, now: Mono) -> bool {
        let limit = self.learned.map_or(self.limit, |learned| learned.min(self.limit)).max(1);
        self.ready > self.opening * Self::PER_CONNECTION
            && (self.connections == 0 || self.ready > self.connections * Self::PER_CONNECTION)
            && self.connections < limit
            && now >= self.backed_off_until
    }
}
