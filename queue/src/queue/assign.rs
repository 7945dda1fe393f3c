//! Leased IPs: which there are, and what becomes of mail whose leased IP is gone.

use super::{Lease, Queue};
use crate::{
    job::{Job, JobId, Place},
    lane::LeaseId,
    time::{Mono, Wall},
};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::{collections::BTreeSet, net::IpAddr, ops::Bound};

impl<K: Copy + Ord> Queue<K> {
    /// The name of a leased IP.
    pub fn lease_id(&mut self, address: IpAddr) -> LeaseId {
        let next = LeaseId::at(self.leases.len());
        let id = *self.lease_ids.entry(address).or_insert(next);
        if id == next {
            self.leases.push(Lease::new(address));
        }
        id
    }

    /// The address of a leased IP.
    #[must_use]
    pub fn lease_address(&self, lease: LeaseId) -> Option<IpAddr> {
        self.leases.get(lease.index()).map(|lease| lease.address)
    }

    pub(super) fn is_gone(&self, lease: LeaseId) -> bool {
        self.leases.get(self.whole(lease).index()).is_none_or(|lease| lease.gone)
    }

    /// Mail is given to it again.
    pub(super) fn revive(&mut self, lease: LeaseId) {
        if let Some(lease) = self.leases.get_mut(lease.index()) {
            lease.gone = false;
        }
    }

    /// The site of a lane whose lease is gone.
    pub(super) fn site_if_gone(&self, lane: u32) -> Option<u32> {
        let lane = self.lanes.get(lane)?;
        self.is_gone(lane.lease).then_some(lane.site)
    }

    /// Without a leased IP, though nobody has asked for that: [`Self::newly_stranded`] tells.
    pub(super) fn strand_again(&mut self, id: u32, site: u32) {
        self.newly_stranded = true;
        self.unpay(id);
        self.put(id, Place::Stranded { site });
    }

    /// Takes their leased IPs from all jobs whose lease is not one of those that are `here`, as [`Self::strand`] does. That
    /// includes leases without a lane: what is not resolved yet has none.
    pub fn strand_lost(&mut self, here: impl Fn(IpAddr) -> bool) {
        let mut lost = FxHashSet::default();
        for (index, lease) in self.leases.iter_mut().enumerate() {
            if lease.of.is_none() && !lease.gone && !here(lease.address) {
                lease.gone = true;
                lost.insert(LeaseId::at(index));
            }
        }
        if !lost.is_empty() {
            self.strand_all(|lease| lost.contains(&lease));
        }
    }

    /// Takes the leased IP from all its jobs that are not in flight: they wait for [`Self::assign`]. What is in flight, or
    /// not resolved yet, joins them when it is back or resolved.
    pub fn strand(&mut self, lease: LeaseId) {
        if let Some(entry) = self.leases.get_mut(lease.index()) {
            entry.gone = true;
        }
        self.strand_all(|of| of == lease);
    }

    fn strand_all(&mut self, is_lost: impl Fn(LeaseId) -> bool) {
        let stranded = |job: &Job<K>| match job.place {
            Place::Ready { lane } | Place::Deferred { lane } | Place::Waiting { lane } | Place::Held { lane } => {
                let lane = self.lanes.get(lane).filter(|lane| is_lost(self.whole(lane.lease)))?;
                Some(Place::Stranded { site: lane.site })
            }
            Place::Unresolved { lease: Some(lease) } if is_lost(self.whole(lease)) => {
                Some(Place::Unresolved { lease: None })
            }
            _ => None,
        };
        let jobs: Vec<_> = self.jobs.iter().filter_map(|(id, job)| Some((id, stranded(job)?))).collect();
        for (id, place) in jobs {
            self.unpay(id);
            self.put(id, place);
        }
    }

    /// Gives the stranded jobs of each message a leased IP; those for which `choose` has none go on waiting. A deferred job
    /// keeps its time.
    pub fn assign(&mut self, now: Mono, wall: Wall, mut choose: impl FnMut(K) -> Option<LeaseId>) {
        self.begin_placing();
        let keys: Vec<K> = self.stranded.keys().copied().collect();
        for key in keys {
            if let Some(lease) = choose(key) {
                self.place_stranded(now, wall, key, lease);
            }
        }
    }

    /// A walk over all that is stranded begins: [`Self::newly_stranded`] speaks of what comes from now on.
    pub fn begin_placing(&mut self) {
        self.newly_stranded = false;
    }

    /// Gives the stranded jobs of a message a leased IP. A deferred job keeps its time.
    pub fn place_stranded(&mut self, now: Mono, wall: Wall, key: K, lease: LeaseId) {
        self.clocks = (now, wall);
        self.revive(lease);
        while let Some(id) = self.stranded.get(&key).and_then(crate::list::List::first) {
            let Some(Job { place: Place::Stranded { site }, due, .. }) = self.jobs.get(id) else { break };
            let (site, due) = (*site, *due);
            let lane = self.lane_of(lease, site);
            if due > now {
                self.put(id, Place::Deferred { lane });
            } else {
                self.make_ready(now, id, lane);
            }
        }
    }

    /// Messages that have stranded jobs and none in flight, each once, in order: what may move to another shard.
    #[must_use]
    pub fn stranded_keys(&self) -> Vec<K> {
        self.stranded_behind(None, usize::MAX).0
    }

    /// The same of the first `most` messages behind one; and the last of these, if there are more to come.
    #[must_use]
    pub fn stranded_behind(&self, behind: Option<K>, most: usize) -> (Vec<K>, Option<K>) {
        let busy: BTreeSet<K> = self.in_flight.iter(&self.jobs).map(|(_, job)| job.key).collect();
        let start = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut keys, mut last, mut seen) = (Vec::new(), None, 0);
        for key in self.stranded.range((start, Bound::Unbounded)).map(|(key, _)| *key) {
            if seen == most {
                return (keys, last);
            }
            (last, seen) = (Some(key), seen + 1);
            if !busy.contains(&key) {
                keys.push(key);
            }
        }
        (keys, None)
    }

    /// Hands out the stranded jobs of a message for another shard to take them, each with its recipients: then
    /// [`Self::drop_job`], or else [`Self::stay`]. Until then none of them is ended, pulled out or expires: it would be
    /// delivered there, too. Other jobs of the message may have a leased IP, and are being sent.
    pub fn take_stranded(&mut self, key: K) -> Vec<(JobId, SmallVec<[u16; 2]>)> {
        let mut taken = Vec::new();
        while let Some(slot) = self.stranded.get(&key).and_then(crate::list::List::first) {
            let Some(job) = self.jobs.get(slot) else { break };
            let Place::Stranded { site } = job.place else { break };
            taken.push((JobId { slot, serial: job.serial }, SmallVec::from_slice(job.recipients.as_slice())));
            self.put(slot, Place::Leaving { site });
        }
        taken
    }

    /// No other shard took it: it is stranded as before.
    pub fn stay(&mut self, job: JobId) {
        if let Some(&Place::Leaving { site }) = self.named(job).map(|job| &job.place) {
            self.put(job.slot, Place::Stranded { site });
        }
    }

    /// The message has gone elsewhere: its stranded jobs end.
    pub fn drop_stranded(&mut self, key: K) {
        while let Some(slot) = self.stranded.get(&key).and_then(crate::list::List::first) {
            let Some(serial) = self.jobs.get(slot).map(|job| job.serial) else { return };
            self.done(JobId { slot, serial });
        }
    }

    /// Jobs without a leased IP.
    #[must_use]
    pub fn stranded(&self) -> usize {
        self.stranded_count
    }

    /// Is there more to [`Self::assign`] or to move than at the last time, because of an answer of the DNS or of a job that
    /// came back from a lost lease?
    #[must_use]
    pub fn newly_stranded(&self) -> bool {
        self.newly_stranded
    }
}
