//! Mail that the warm-up plan of its leased IP does not let go now: one list a leased IP, in the order in which it came.
//!
//! The first goes when the ledger takes it; nothing overtakes it. For each that does not go at once the engine is asked, once,
//! whether another leased IP may take it. Nothing here writes to a ledger but by `charge`.

use super::Queue;
use crate::{
    job::{ASKED, JobId, Place, SEEN, TOLD},
    lane::LeaseId,
    time::{Mono, Wall},
    timer::Due,
    warmup::{day::Day, ledger::Wait},
};
use smallvec::SmallVec;
use std::time::Duration;

/// The wall clock may step: what waits for a day is looked at again after this time.
const STEP: Duration = Duration::from_secs(20);
/// A note is wanted for a day: what waits for it is looked at again after this time.
const TURN: Duration = Duration::from_secs(1);
/// No leased IP is looked at more often for those that wait.
const PAUSE: Duration = Duration::from_millis(20);

impl<K: Copy + Ord> Queue<K> {
    /// What was let go under the plan as it was before, and no receiver has seen, waits again in front of the others.
    pub(super) fn recall(&mut self, lease: LeaseId) {
        if !self.ledger(lease).is_some_and(|ledger| ledger.is_warming()) {
            return;
        }
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.lease == lease);
        let unseen = lanes.flat_map(|(number, lane)| {
            let ready = lane.list.iter(&self.jobs).filter(|(_, job)| job.flags & SEEN == 0);
            ready.map(move |(id, job)| (job.expires, id, number))
        });
        let mut unseen: Vec<_> = unseen.collect();
        unseen.sort_unstable();
        for (_, id, lane) in unseen.into_iter().rev() {
            self.unpay(id);
            self.put(id, Place::Waiting { lane });
            if let Some(lease) = self.leases.get_mut(lease.index()) {
                lease.waiting.remove(&mut self.jobs, id);
                lease.waiting.push_front(&mut self.jobs, id);
                lease.fresh = true;
            }
        }
    }

    /// Recipients that wait for the plan of a leased IP.
    #[must_use]
    pub fn held(&self, lease: LeaseId) -> u64 {
        self.leases.get(lease.index()).map_or(0, |lease| lease.held)
    }

    /// What may take mail has changed: everything that waits for a plan is asked about again.
    pub fn ask_again(&mut self) {
        for index in 0..self.leases.len() {
            let Some(lease) = self.leases.get(index).filter(|lease| lease.opens.is_some()) else { continue };
            let ids: Vec<u32> = lease.waiting.iter(&self.jobs).map(|(id, _)| id).collect();
            for id in ids {
                self.ask_for(id);
            }
        }
    }

    /// Is this the first time that somebody wants to tell that the job waits?
    pub fn tells(&mut self, job: JobId) -> bool {
        if self.named(job).is_none() {
            return false;
        }
        self.jobs.get_mut(job.slot).is_some_and(|job| {
            let first = job.flags & TOLD == 0;
            job.flags |= TOLD;
            first
        })
    }

    /// When the plan of a leased IP lets go the first of the mail that waits for it; none: nothing waits for it.
    #[must_use]
    pub fn opens(&self, lease: LeaseId) -> Option<Mono> {
        self.leases.get(lease.index()).and_then(|lease| lease.opens)
    }

    /// Gives a job that waits for its plan another leased IP of this shard.
    pub fn reroute(&mut self, now: Mono, wall: Wall, job: JobId, lease: LeaseId) {
        self.clocks = (now, wall);
        let Some(&Place::Waiting { lane }) = self.named(job).map(|job| &job.place) else { return };
        let Some(site) = self.lanes.get(lane).map(|lane| lane.site) else { return };
        self.revive(lease);
        let to = self.lane_of(lease, site);
        self.keep_lane(to);
        self.put(job.slot, Place::Loose);
        if let Some(entry) = self.jobs.get_mut(job.slot) {
            (entry.paid, entry.flags) = (Day(0), entry.flags & TOLD);
        }
        self.make_ready(now, job.slot, to);
        self.leave(to);
    }

    /// Hands out a job that waits for its plan, for another shard to take it: then [`Self::drop_job`], or else
    /// [`Self::put_back`].
    pub fn take_waiting(&mut self, job: JobId) -> Option<(K, SmallVec<[u16; 2]>)> {
        let entry = self.named(job)?;
        let Place::Waiting { lane } = entry.place else { return None };
        let taken = (entry.key, SmallVec::from_slice(entry.recipients.as_slice()));
        self.put(job.slot, Place::InFlight { lane });
        Some(taken)
    }

    /// No shard took it: it waits a while, and is asked about again. Counts as no try.
    pub fn put_back(&mut self, now: Mono, job: JobId, wait: Duration) {
        let Some(&Place::InFlight { lane }) = self.named(job).map(|job| &job.place) else { return };
        if let Some(site) = self.site_if_gone(lane) {
            return self.strand_again(job.slot, site);
        }
        self.defer_until(job.slot, lane, now.plus(wait));
    }

    /// Lets go what the plan of a leased IP lets go, the first first; another IP is looked for for the rest.
    pub(super) fn release(&mut self, now: Mono, lease: LeaseId) {
        if std::mem::replace(&mut self.releasing, true) {
            return;
        }
        let wait = self.release_all(now, lease);
        self.releasing = false;
        self.wait_for(now, lease, wait);
    }

    /// Returns what the first of those waits for that are left.
    fn release_all(&mut self, now: Mono, lease: LeaseId) -> Option<Wait> {
        while let Some(id) = self.leases.get(lease.index()).and_then(|lease| lease.waiting.first()) {
            let lane = self.jobs.get(id).and_then(|job| job.place.lane())?;
            if let Some(until) = self.put_off_until(now, lane) {
                self.defer_until(id, lane, until);
            } else if !self.is_current(now, id, lane) {
                self.reconsider(now, id);
            } else {
                self.thin(now, lease, id, lane);
                match self.charge(now, lease, id) {
                    Ok(()) => self.let_go(id, lane),
                    Err(wait) if self.divide(now, lease, id, wait) => {}
                    Err(wait) => return Some(wait),
                }
            }
        }
        None
    }

    fn let_go(&mut self, id: u32, lane: u32) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.flags &= !ASKED;
        }
        self.ready(id, lane);
    }

    /// The first of those that wait does not fit as a whole. Splits off what fits, if the rest cannot follow on this day or
    /// may go by another leased IP; otherwise it waits as a whole, as many small transactions serve nobody.
    fn divide(&mut self, now: Mono, lease: LeaseId, id: u32, wait: Wait) -> bool {
        let wall = self.clocks.1;
        let after = self.leases.get(lease.index()).map_or(Duration::ZERO, |lease| lease.overflow_after);
        let Some(fits) = self.ledger(lease).map(|ledger| ledger.allowance(now, wall)) else { return false };
        let asked = self.jobs.get(id).is_some_and(|job| job.flags & ASKED != 0);
        let most = match wait {
            Wait::Note => 0,
            Wait::Until(at) if asked || at.since(now) <= after => 0,
            Wait::Until(_) | Wait::NextDay(_) => fits,
            Wait::TooMany(most) => most,
        };
        let Some(lane) = self.jobs.get(id).and_then(|job| job.place.lane()) else { return false };
        let Some(rest) = self.cut(id, lane, most as usize) else { return false };
        self.follow_first(lease, id, rest, lane);
        if !asked {
            self.ask_for(rest);
        }
        true
    }

    /// Puts what was cut off the first of those that wait right behind it: nothing overtakes it.
    pub(super) fn follow_first(&mut self, lease: LeaseId, first: u32, rest: u32, lane: u32) {
        self.put(rest, Place::Waiting { lane });
        if let Some(lease) = self.leases.get_mut(lease.index()) {
            for next in [rest, first] {
                lease.waiting.remove(&mut self.jobs, next);
                lease.waiting.push_front(&mut self.jobs, next);
            }
        }
        self.absorb_next(lease, rest);
    }

    /// Leaves the first `most` recipients in a job that waits; returns a job in no list of the others, if both are some.
    pub(super) fn cut(&mut self, id: u32, lane: u32, most: usize) -> Option<u32> {
        let job = self.jobs.get(id)?;
        let ((first, own), (second, other)) = job.recipients.divide(job.domain, most)?;
        let (key, expires, attempts, due, flags) = (job.key, job.expires, job.attempts, job.due, job.flags);
        self.share_domains((&first, own), (&second, other));
        if let Some(job) = self.jobs.get_mut(id) {
            (job.recipients, job.domain) = (first, own);
        }
        if let Some(entry) = self.lanes.get_mut(lane) {
            entry.counts[1] -= second.len();
            if let Some(lease) = self.leases.get_mut(entry.lease.index()) {
                lease.held -= second.len();
            }
        }
        let new = self.insert(key, expires, second, other);
        if let Some(job) = self.jobs.get_mut(new) {
            (job.attempts, job.due, job.flags) = (attempts, due, flags);
        }
        Some(new)
    }

    /// Sees to it that those that wait go on: by time, or by another leased IP.
    fn wait_for(&mut self, now: Mono, lease: LeaseId, wait: Option<Wait>) {
        let wall = self.clocks.1;
        let opens = match wait {
            None => None,
            Some(Wait::Note) => {
                // Confirmed, or given its ledger, it is looked at again; unless the day turns before, and no note is wanted.
                self.arm_lease(now, lease, now.plus(TURN));
                None
            }
            Some(Wait::Until(at)) => Some(at),
            Some(Wait::NextDay(day)) => Some(now.plus(day.since(wall))),
            Some(Wait::TooMany(_)) => Some(now.plus(STEP)),
        };
        let Some(entry) = self.leases.get_mut(lease.index()) else { return };
        entry.opens = opens;
        let Some(opens) = opens else { return };
        self.arm_lease(now, lease, opens);
        let Some(entry) = self.leases.get_mut(lease.index()) else { return };
        if std::mem::take(&mut entry.fresh) {
            if entry.overflow_after.is_zero() {
                self.ask_for_late(now, lease);
            } else {
                let at = now.plus(entry.overflow_after);
                self.arm_lease(now, lease, at);
            }
        }
    }

    /// Has a leased IP looked at, at this time or before.
    fn arm_lease(&mut self, now: Mono, lease: LeaseId, at: Mono) {
        let Some(entry) = self.leases.get_mut(lease.index()) else { return };
        let at = at.clamp(now.plus(PAUSE), now.plus(STEP));
        if entry.armed.is_none_or(|armed| armed > at) {
            (entry.armed, entry.stamp) = (Some(at), entry.stamp.wrapping_add(1));
            self.timers.set(at, Due::Lease(lease.index() as u32), entry.stamp);
        }
    }

    /// The timer of a leased IP.
    pub(super) fn lease_due(&mut self, now: Mono, number: u32, stamp: u32) {
        let lease = LeaseId::at(number as usize);
        let Some(entry) = self.leases.get_mut(lease.index()).filter(|entry| entry.stamp == stamp) else { return };
        entry.armed = None;
        self.release(now, lease);
        self.ask_for_late(now, lease);
    }

    /// Has another leased IP looked for, for those that have waited too long for theirs.
    fn ask_for_late(&mut self, now: Mono, lease: LeaseId) {
        let Some(entry) = self.leases.get(lease.index()).filter(|entry| entry.opens.is_some()) else { return };
        let after = entry.overflow_after;
        // They come in at the end: once one is found that was asked about, those before it were too.
        let unasked = entry.waiting.iter_back(&self.jobs).take_while(|(_, job)| job.flags & ASKED == 0);
        let mut late: Vec<(u32, Mono)> = unasked.map(|(id, job)| (id, job.due.plus(after))).collect();
        late.reverse();
        let early = late.iter().find(|(_, at)| *at > now).map(|(_, at)| *at);
        for (id, _) in late.into_iter().filter(|(_, at)| *at <= now) {
            self.ask_for(id);
        }
        if let Some(at) = early {
            self.arm_lease(now, lease, at);
        }
    }

    fn ask_for(&mut self, id: u32) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.flags |= ASKED;
        self.overflowing.push_back(JobId { slot: id, serial: job.serial });
    }

    pub(super) fn link_waiting(&mut self, id: u32, lane: u32) {
        let Some(recipients) = self.jobs.get(id).map(|job| job.recipients.len()) else { return };
        let lease = self.lanes.get(lane).and_then(|lane| self.leases.get_mut(lane.lease.index()));
        if let Some(lease) = lease {
            lease.waiting.push_back(&mut self.jobs, id);
            lease.held += recipients;
        }
    }

    pub(super) fn unlink_waiting(&mut self, id: u32, lane: u32) {
        let Some(recipients) = self.jobs.get(id).map(|job| job.recipients.len()) else { return };
        let lease = self.lanes.get(lane).and_then(|lane| self.leases.get_mut(lane.lease.index()));
        if let Some(lease) = lease {
            lease.waiting.remove(&mut self.jobs, id);
            lease.held -= recipients;
        }
    }
}
