//! A lane: the mail of one site through one leased IP, with its connections and its back-off.

use crate::{
    list::{List, ORDER},
    time::{Mono, Wall},
};
use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

/// Names a lane of one queue, and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// Names a leased IP of one queue, whatever snapshot is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroU32);

impl LeaseId {
    /// The lease at this position of the queue's list.
    pub(crate) fn at(index: usize) -> Self {
        Self(u32::try_from(index).map_or(NonZeroU32::MAX, |index| NonZeroU32::MIN.saturating_add(index)))
    }

    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

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
    /// The provider that the site is of.
    pub provider: Option<Arc<str>>,
    /// The provider whose ladder counts its mail; none: its leased IP is in no managed pool.
    pub ladder: Option<Arc<str>>,
    /// Its provider is sent nothing by this leased IP before.
    pub suspended_until: Option<Mono>,
    /// No new connection before.
    pub backed_off_until: Option<Mono>,
    /// Expiry of the first of its ready jobs.
    pub min_expires: Wall,
    /// When the warm-up plan of its leased IP lets go the first of the mail that waits for it, if some does.
    pub opens: Option<Mono>,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) lease: LeaseId,
    pub(crate) site: u32,
    /// Ready jobs, the next one first.
    pub(crate) list: List<ORDER>,
    /// How many messages they are.
    pub(crate) ready: u64,
    /// Jobs of it, wherever they are.
    pub(crate) jobs: u32,
    /// Recipients by place, for listings.
    pub(crate) counts: [u64; 3],
    pub(crate) connections: u32,
    /// Connections that are not ready yet.
    pub(crate) opening: u32,
    pub(crate) limit: u32,
    /// What the receiver taught us to keep to, and until when; it rises again with time.
    pub(crate) learned: Option<(u32, Mono)>,
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) backed_off_until: Mono,
    /// Of the one timer that counts.
    pub(crate) stamp: u32,
    /// It is in the list of lanes to look at.
    pub(crate) listed: bool,
    /// It is in the list of lanes whose open connections have mail.
    pub(crate) told: bool,
    /// What it shares with the other lanes of its leased IP to sites of one provider.
    pub(crate) shape: Option<u32>,
    /// It stands in line for a connection of its shape, or for a message.
    pub(crate) in_crowd: bool,
    /// See `in_crowd`.
    pub(crate) is_stalled: bool,
}

impl Lane {
    pub(crate) fn new(lease: LeaseId, site: u32, limit: u32) -> Self {
        Self {
            id: LaneId { slot: 0, serial: 0 },
            lease,
            site,
            list: List::default(),
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
            told: false,
            shape: None,
            in_crowd: false,
            is_stalled: false,
        }
    }

    /// Ready jobs that one connection should have before another one is opened for them: a connection costs several round
    /// trips, a further message on it one at most.
    const PER_CONNECTION: u64 = 8;

    /// Is one more connection worth it now?
    pub(crate) fn wants_connection(&self, now: Mono) -> bool {
        let taught = self.learned.map_or(self.limit, |(most, _)| most);
        // After a failure one connection goes ahead and finds out.
        let careful = self.failures > 0 && self.opening > 0;
        let served = u64::from(self.connections) * Self::PER_CONNECTION;
        self.ready > served
            && self.connections < taught.min(self.limit).max(1)
            && now >= self.backed_off_until
            && !careful
    }

    /// Neither mail nor connections.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs == 0 && self.connections == 0
    }

    /// Is there nothing that its next message would have to know?
    pub(crate) fn is_forgettable(&self, now: Mono) -> bool {
        self.is_idle() && self.backed_off_until <= now && self.learned.is_none_or(|(_, until)| until <= now)
    }
}
