//! What is in the queue, for listings and questions.

use super::{Queue, shaping::Shaped};
use crate::{
    job::{Job, JobId, Place},
    lane::{LaneId, LaneInfo},
    time::{Mono, Wall},
};
use std::sync::Arc;

impl<K: Copy + Ord> Queue<K> {
    /// A lane.
    #[must_use]
    pub fn lane(&self, lane: LaneId) -> Option<LaneInfo> {
        let entry = self.lanes.get(lane.slot).filter(|entry| entry.id == lane)?;
        let first = entry.list.first().and_then(|id| self.jobs.get(id));
        Some(LaneInfo {
            lane,
            lease: self.lease_address(entry.lease)?,
            site: Arc::clone(&self.sites.get(entry.site)?.key),
            ready: entry.counts[0],
            deferred: entry.counts[1],
            in_flight: entry.counts[2],
            connections: entry.connections,
            provider: self.shaped(lane.slot).map(|shaped| Arc::clone(&shaped.provider().name)),
            ladder: self.provider_of_lease(entry.lease).map(Arc::clone),
            suspended_until: self.shaped(lane.slot).and_then(Shaped::suspended),
            backed_off_until: (entry.backed_off_until > Mono(0)).then_some(entry.backed_off_until),
            min_expires: first.map_or(Wall(u64::MAX), |job| job.expires),
            opens: self.leases.get(entry.lease.index()).filter(|lease| lease.held > 0).and_then(|lease| lease.opens),
        })
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneInfo> + '_ {
        self.lanes.iter().filter_map(|(_, lane)| self.lane(lane.id))
    }

    /// All jobs whose site is known: message, recipients, domain of the first, lane, tries, and whether it waits for a plan.
    pub fn jobs(&self) -> impl Iterator<Item = (K, &[u16], &str, Option<LaneId>, u16, bool)> + '_ {
        let resolved = self.jobs.iter().filter(|(_, job)| !matches!(job.place, Place::Unresolved { .. }));
        resolved.map(|(_, job)| {
            let waits = matches!(job.place, Place::Waiting { .. });
            (job.key, job.recipients.as_slice(), self.domain_of(job), self.lane_id_of(job), job.attempts, waits)
        })
    }

    /// Recipients that wait for the DNS: message, recipients, domain.
    pub fn unresolved(&self) -> impl Iterator<Item = (K, &[u16], &str)> + '_ {
        let unresolved = self.jobs.iter().filter(|(_, job)| matches!(job.place, Place::Unresolved { .. }));
        unresolved.map(|(_, job)| (job.key, job.recipients.as_slice(), self.domain_of(job)))
    }

    /// Does this job wait for the warm-up plan of its leased IP?
    #[must_use]
    pub fn waits_for_plan(&self, job: JobId) -> bool {
        matches!(self.named(job).map(|job| job.place), Some(Place::Waiting { .. }))
    }

    /// The message, recipients, domain and tries of a job.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<(K, &[u16], &str, u16)> {
        let entry = self.named(job)?;
        Some((entry.key, entry.recipients.as_slice(), self.domain_of(entry), entry.attempts))
    }

    /// The lane that a job is in, or was in when it came to its end.
    #[must_use]
    pub fn jobs_lane(&self, job: JobId) -> Option<LaneId> {
        self.lane_id_of(self.named(job)?)
    }

    fn lane_id_of(&self, job: &Job<K>) -> Option<LaneId> {
        job.place.lane().and_then(|lane| self.lanes.get(lane)).map(|lane| lane.id)
    }

    fn domain_of(&self, job: &Job<K>) -> &str {
        self.domains.get(job.domain).map_or("", |domain| &*domain.name)
    }

    /// Does queued mail need this site?
    #[must_use]
    pub fn knows_site(&self, key: &str) -> bool {
        self.site_ids.contains_key(key)
    }

    /// Does queued mail need this domain?
    #[must_use]
    pub fn knows_domain(&self, name: &str) -> bool {
        self.domain_ids.contains_key(name)
    }
}
