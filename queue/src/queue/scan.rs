//! A walk over all jobs, a few at a time, for listings and for what operators do to them.
//!
//! Between two steps jobs come, go and are divided. A job that is there all the time is seen; a new one may be.

use super::Queue;
use crate::{
    job::{Job, JobId, Place},
    lane::LaneId,
    time::{Mono, Wall},
};
use std::net::IpAddr;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its domain is being asked about.
    Unresolved,
    /// It may go.
    Ready,
    /// It has its next try then.
    Deferred(Mono),
    /// The warm-up plan of its leased IP does not let it go now.
    Waiting,
    /// An operator suspended it.
    Held,
    /// Handed out.
    InFlight,
    /// It has no leased IP.
    Stranded,
    /// It is about to be told as undeliverable or expired.
    Ending,
}

/// A job, seen in passing.
#[derive(Debug)]
pub struct Seen<'a, K> {
    queue: &'a Queue<K>,
    slot: u32,
    job: &'a Job<K>,
}

impl<'a, K: Copy + Ord> Seen<'a, K> {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> JobId {
        JobId { slot: self.slot, serial: self.job.serial }
    }

    /// The message.
    #[must_use]
    pub fn key(&self) -> K {
        self.job.key
    }

    /// Numbers of its recipients.
    #[must_use]
    pub fn numbers(&self) -> &'a [u16] {
        self.job.recipients.as_slice()
    }

    /// Numbers of its recipients, each with its domain.
    pub fn recipients(&self) -> impl Iterator<Item = (u16, &'a str)> + 'a {
        let (queue, job) = (self.queue, self.job);
        job.recipients
            .iter(job.domain)
            .map(|(number, domain)| (number, queue.domains.get(domain).map_or("", |d| &*d.name)))
    }

    /// The domain of its first recipient.
    #[must_use]
    pub fn domain(&self) -> &'a str {
        self.queue.domains.get(self.job.domain).map_or("", |domain| &*domain.name)
    }

    /// Its lane, if it has one.
    #[must_use]
    pub fn lane(&self) -> Option<LaneId> {
        self.entry().map(|lane| lane.id)
    }

    /// Identity of its site; none: not known, or it is of no use without a leased IP.
    #[must_use]
    pub fn site(&self) -> Option<&'a str> {
        let site = self.job.place.site().or_else(|| Some(self.entry()?.site))?;
        self.queue.sites.get(site).map(|site| &*site.key)
    }

    /// Its leased IP.
    #[must_use]
    pub fn lease(&self) -> Option<IpAddr> {
        let lease = match self.job.place {
            Place::Unresolved { lease } => lease?,
            _ => self.entry()?.lease,
        };
        self.queue.lease_address(lease)
    }

    /// Tries so far.
    #[must_use]
    pub fn attempts(&self) -> u16 {
        self.job.attempts
    }

    /// When it is given up.
    #[must_use]
    pub fn expires(&self) -> Wall {
        self.job.expires
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        match self.job.place {
            Place::Unresolved { .. } | Place::Loose => State::Unresolved,
            Place::Ready { .. } => State::Ready,
            Place::Deferred { .. } => State::Deferred(self.job.due),
            Place::Waiting { .. } => State::Waiting,
            Place::Held { .. } => State::Held,
            Place::InFlight { .. } | Place::Leaving { .. } => State::InFlight,
            Place::Stranded { .. } => State::Stranded,
            Place::Ending { .. } => State::Ending,
        }
    }

    fn entry(&self) -> Option<&'a crate::lane::Lane> {
        self.queue.lanes.get(self.job.place.lane()?)
    }
}

impl<K: Copy + Ord> Queue<K> {
    /// Shows `see` the jobs from position `from` (0: the first), over at most `most` positions. Returns where to go on;
    /// none: that was the last.
    pub fn scan(&self, from: u32, most: u32, mut see: impl FnMut(&Seen<'_, K>)) -> Option<u32> {
        let end = self.jobs.end();
        let to = from.saturating_add(most).min(end);
        for slot in from..to {
            if let Some(job) = self.jobs.get(slot) {
                see(&Seen { queue: self, slot, job });
            }
        }
        (to < end).then_some(to)
    }

    /// One job.
    #[must_use]
    pub fn look_at(&self, job: JobId) -> Option<Seen<'_, K>> {
        self.named(job).map(|entry| Seen { queue: self, slot: job.slot, job: entry })
    }

    /// The job that [`Self::take`] of this lane would look at next.
    #[must_use]
    pub fn next_of(&self, lane: LaneId) -> Option<JobId> {
        let slot = self.lanes.get(lane.slot).filter(|entry| entry.id == lane)?.list.first()?;
        self.jobs.get(slot).map(|job| JobId { slot, serial: job.serial })
    }

    /// All sites by identity, each with the connections that a lane of it may have.
    pub fn sites(&self) -> impl Iterator<Item = (&str, u32)> + '_ {
        self.sites.iter().map(|(_, site)| (&*site.key, site.connections.unwrap_or(self.default_connections).max(1)))
    }

    /// Connections that a lane may have now, by its site and by what the receiver taught.
    #[must_use]
    pub fn connections_allowed(&self, lane: LaneId) -> Option<u32> {
        let entry = self.lanes.get(lane.slot).filter(|entry| entry.id == lane)?;
        Some(entry.learned.map_or(entry.limit, |(most, _)| most.min(entry.limit)).max(1))
    }
}
