//! What operators do to queued mail: suspend, let go, try now, and pull out to end or move it.
//!
//! Each costs what it does to one job. Suspended jobs are found when they would be taken, and let go again a batch at a time.

use super::Queue;
use crate::{
    job::{ASKED, Job, JobId, Place, Recipients},
    lane::LaneId,
    list::NONE,
    time::Mono,
};

impl<K: Copy + Ord> Queue<K> {
    /// Takes these recipients of a job aside, until [`Self::release_held`]. What was paid for them is given back. What waits
    /// to be resolved or for a leased IP, or is in flight, is left alone: false.
    pub fn hold(&mut self, now: Mono, job: JobId, picked: &[u16]) -> bool {
        let Some(lane) = self.named(job).and_then(|job| job.place.lane()) else { return false };
        let Some(part) = self.pull(now, job, picked) else { return false };
        self.put(part.slot, Place::Held { lane });
        if self.is_metered(lane)
            && let Some(lease) = self.lanes.get(lane).map(|lane| lane.lease)
        {
            // What it gave back may let another one go.
            self.release(now, lease);
        }
        true
    }

    /// Has all that is suspended looked at again: by and by each becomes ready, and is taken or suspended again.
    pub fn release_held(&mut self) {
        self.to_free = self.held_jobs;
    }

    /// Jobs that are suspended and have been found.
    #[must_use]
    pub fn held_jobs(&self) -> usize {
        self.held_jobs
    }

    /// Lets go of suspended jobs, the first first, within the budget.
    pub(super) fn free_held(&mut self, now: Mono, budget: &mut usize) {
        while self.to_free > 0 && *budget > 0 {
            let Some(id) = self.held.first() else {
                self.to_free = 0;
                return;
            };
            self.to_free -= 1;
            *budget -= 1;
            let Some(lane) = self.jobs.get(id).and_then(|job| job.place.lane()) else { return };
            if let Some(site) = self.site_if_gone(lane) {
                self.strand_again(id, site);
            } else if self.is_current(now, id, lane) {
                self.make_ready(now, id, lane);
            } else {
                if let Some(job) = self.jobs.get_mut(id) {
                    job.due = Mono(0);
                }
                self.reconsider(now, id);
            }
        }
    }

    /// A deferred job is due now, whatever the schedule says. False if it was not deferred.
    pub fn retry_now(&mut self, now: Mono, job: JobId) -> bool {
        let Some(&Place::Deferred { lane }) = self.named(job).map(|job| &job.place) else { return false };
        // Its place in the calendar goes by its time: out of it before that changes.
        self.keep_lane(lane);
        self.put(job.slot, Place::Loose);
        if let Some(entry) = self.jobs.get_mut(job.slot) {
            entry.due = Mono(0);
        }
        if let Some(site) = self.site_if_gone(lane) {
            self.strand_again(job.slot, site);
        } else if self.is_current(now, job.slot, lane) {
            self.make_ready(now, job.slot, lane);
        } else {
            let lease = self.lanes.get(lane).map(|lane| lane.lease);
            self.send_parts(now, job.slot, lease);
        }
        self.leave(lane);
        true
    }

    /// A lane is not backed off any more. One connection goes ahead and finds out whether that was right.
    pub fn end_backoff(&mut self, now: Mono, lane: LaneId) {
        let Some(entry) = self.lane_named(lane) else { return };
        entry.backed_off_until = entry.backed_off_until.min(now);
        entry.failures = entry.failures.min(1);
        self.list(lane.slot);
    }

    /// Hands out these recipients of a job, wherever it is, as a job of their own: [`Self::drop_job`] it, or
    /// [`Self::put_back`]. None: they are in flight, about to end, or not of it.
    pub fn pull(&mut self, now: Mono, job: JobId, picked: &[u16]) -> Option<JobId> {
        let entry = self.named(job)?;
        let place = entry.place;
        // What its time may not end, nobody else may.
        if !place.may_expire() {
            return None;
        }
        let pairs = entry.recipients.iter(entry.domain);
        let (out, rest): (Vec<_>, Vec<_>) = pairs.partition(|(number, _)| picked.contains(number));
        let lane = place.lane().unwrap_or(NONE);
        let (taken, own) = Recipients::of(&out)?;
        let Some(rest) = Recipients::of(&rest) else {
            self.unpay(job.slot);
            self.put(job.slot, Place::InFlight { lane });
            return Some(job);
        };
        let part = self.divide_off(job.slot, taken, own, rest, place, now);
        self.put(part.slot, Place::InFlight { lane });
        self.leave(lane);
        Some(part)
    }

    /// Makes a job, in no list, of recipients of another one, which keeps the rest and its place. Holds on to the lane.
    fn divide_off(
        &mut self,
        slot: u32,
        taken: Recipients,
        own: u32,
        (rest, rest_own): (Recipients, u32),
        place: Place,
        now: Mono,
    ) -> JobId {
        let kept = rest.domains(rest_own);
        for domain in taken.domains(own).into_iter().filter(|domain| kept.contains(domain)) {
            if let Some(entry) = self.domains.get_mut(domain) {
                entry.users += 1;
            }
        }
        self.keep_lane(place.lane().unwrap_or(NONE));
        self.unpay(slot);
        // Where recipients are counted, they must not change in place; elsewhere nothing goes by them.
        let counted = place.column().is_some();
        if counted {
            self.put(slot, Place::Loose);
        }
        let mut copied = None;
        if let Some(job) = self.jobs.get_mut(slot) {
            (job.recipients, job.domain) = (rest, rest_own);
            // At the end of those that wait for a plan, where none was asked about.
            job.flags &= !ASKED;
            copied = Some((job.key, job.expires, job.attempts, job.due, job.flags));
        }
        match place {
            Place::Ready { lane } => self.make_ready(now, slot, lane),
            place if counted => self.put(slot, place),
            _ => {}
        }
        let Some((key, expires, attempts, due, flags)) = copied else { return JobId { slot, serial: 0 } };
        let slot = self.insert(key, expires, taken, own);
        let Some(Job { attempts: of, due: at, flags: marks, serial, .. }) = self.jobs.get_mut(slot) else {
            return JobId { slot, serial: 0 };
        };
        (*of, *at, *marks) = (attempts, due, flags);
        JobId { slot, serial: *serial }
    }
}
