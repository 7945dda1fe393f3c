//! Where jobs are, and how they go from one place to another: taken, given back, deferred, ended.

use super::{NextTry, Queue, Taken, Work, meter::Pass};
use crate::{
    job::{AGAIN, Job, JobId, PUT_OFF, Place, Recipients, SEEN},
    lane::{Lane, LaneId},
    list::{Link, NONE},
    retry,
    time::{Mono, Wall},
    warmup::{day::Day, ledger::NeverSeen},
};
use smallvec::SmallVec;

/// Recipients that may come together in one transaction: what every server must take (RFC 5321 section 4.5.3.1.8).
const TOGETHER: u64 = 100;

/// Of the recipients of a job, those that stay.
#[derive(Clone, Copy)]
pub(super) enum Kept<'a> {
    Numbers(&'a [u16]),
    Crowd(u32),
}

impl<K: Copy + Ord> Queue<K> {
    /// A new job, in no list. Its domains must have been counted for it.
    pub(super) fn insert(&mut self, key: K, expires: Wall, recipients: Recipients, domain: u32) -> u32 {
        let serial = self.next_serial();
        let (due, links, place, attempts) = (Mono(0), [Link::NONE; 2], Place::Loose, 0);
        let (paid, flags) = (Day(0), 0);
        self.jobs.insert(Job { key, recipients, expires, due, links, place, domain, serial, attempts, paid, flags })
    }

    /// Moves a job: out of the lists of the place it is in, into those of the other. The only code that does.
    pub(super) fn put(&mut self, id: u32, to: Place) {
        let Some(from) = self.jobs.get(id).map(|job| job.place) else { return };
        // In first, out last: what both need must not be dropped between the two.
        if let Some(lane) = to.lane().and_then(|lane| self.lanes.get_mut(lane)) {
            lane.jobs += 1;
        }
        if let Some(site) = to.site().and_then(|site| self.sites.get_mut(site)) {
            site.stranded += 1;
        }
        self.unlink(id, from, to.may_expire());
        self.link(id, to, from.may_expire());
        if let Some(site) = from.site()
            && let Some(entry) = self.sites.get_mut(site)
        {
            entry.stranded -= 1;
            self.drop_site_if_unused(site);
        }
        if let Some(lane) = from.lane() {
            self.leave(lane);
        }
    }

    fn unlink(&mut self, id: u32, from: Place, may_expire: bool) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let (key, domain, expiry, due) = (job.key, job.domain, job.expiry_tick(), job.due_tick());
        let (recipients, messages) = (job.recipients.len(), u64::from(job.recipients.messages()));
        if from.may_expire() && !may_expire {
            self.expiries.remove(&mut self.jobs, expiry, id);
        }
        match from {
            Place::Loose | Place::Ending { .. } => {}
            Place::Unresolved { .. } => {
                if let Some(domain) = self.domains.get_mut(domain) {
                    domain.waiting.remove(&mut self.jobs, id);
                }
            }
            Place::Ready { lane } => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.list.remove(&mut self.jobs, id);
                    lane.ready -= messages;
                }
            }
            Place::Deferred { .. } => self.tries.remove(&mut self.jobs, due, id),
            Place::Waiting { lane } => self.unlink_waiting(id, lane),
            Place::Held { .. } => {
                self.held.remove(&mut self.jobs, id);
                self.held_jobs -= 1;
            }
            Place::InFlight { .. } | Place::Leaving { .. } => {
                self.in_flight.remove(&mut self.jobs, id);
                // What else there is of the message may move now.
                self.newly_stranded |= self.stranded.contains_key(&key);
            }
            Place::Stranded { .. } => {
                self.stranded_count -= 1;
                if let Some(list) = self.stranded.get_mut(&key) {
                    list.remove(&mut self.jobs, id);
                    if list.is_empty() {
                        self.stranded.remove(&key);
                    }
                }
            }
        }
        if let (Some(lane), Some(column)) = (from.lane().and_then(|lane| self.lanes.get_mut(lane)), from.column()) {
            lane.counts[column] -= recipients;
        }
    }

    fn link(&mut self, id: u32, to: Place, in_calendar: bool) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.place = to;
        let (key, domain, expiry, due) = (job.key, job.domain, job.expiry_tick(), job.due_tick());
        let (recipients, messages) = (job.recipients.len(), u64::from(job.recipients.messages()));
        if to.may_expire() && !in_calendar {
            self.expiries.insert(&mut self.jobs, expiry, id);
        }
        match to {
            Place::Loose | Place::Ending { .. } => {}
            Place::Unresolved { .. } => {
                if let Some(domain) = self.domains.get_mut(domain) {
                    domain.waiting.push_back(&mut self.jobs, id);
                }
            }
            Place::Ready { lane } => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.list.push_back(&mut self.jobs, id);
                    lane.ready += messages;
                }
            }
            Place::Deferred { .. } => self.tries.insert(&mut self.jobs, due, id),
            Place::Waiting { lane } => self.link_waiting(id, lane),
            Place::Held { .. } => {
                self.held.push_back(&mut self.jobs, id);
                self.held_jobs += 1;
            }
            Place::InFlight { .. } | Place::Leaving { .. } => self.in_flight.push_back(&mut self.jobs, id),
            Place::Stranded { .. } => {
                self.stranded_count += 1;
                self.stranded.entry(key).or_default().push_back(&mut self.jobs, id);
            }
        }
        if let (Some(lane), Some(column)) = (to.lane().and_then(|lane| self.lanes.get_mut(lane)), to.column()) {
            lane.counts[column] += recipients;
        }
    }

    /// Into a lane: ready at once, unless the plan of its leased IP has to let it go.
    pub(super) fn make_ready(&mut self, now: Mono, id: u32, lane: u32) {
        if !self.is_metered(lane) || !self.meter(now, id, lane) {
            self.ready(id, lane);
        }
    }

    /// To the end of the ready jobs of a lane; together with the last of them if that is for the same message.
    pub(super) fn ready(&mut self, id: u32, lane: u32) {
        if !self.join_last(id, lane) {
            self.put(id, Place::Ready { lane });
        }
        self.list(lane);
    }

    fn join_last(&mut self, id: u32, lane: u32) -> bool {
        let last = self.lanes.get(lane).and_then(|lane| lane.list.last());
        let (Some(last), Some(job)) = (last, self.jobs.get(id)) else { return false };
        let Some(other) = self.jobs.get(last) else { return false };
        let same = (other.key, other.attempts, other.expires, other.paid, other.flags)
            == (job.key, job.attempts, job.expires, job.paid, job.flags);
        if let (true, Recipients::Crowd(_), Recipients::Crowd(_)) = (same, &other.recipients, &job.recipients) {
            self.put(id, Place::Loose);
            return self.merge(last, id);
        }
        let most = self.most_recipients(lane).map_or(TOGETHER, |most| TOGETHER.min(most as u64));
        if !same || other.recipients.len() + job.recipients.len() > most {
            return false;
        }
        let mut pairs: SmallVec<[(u16, u32); 8]> = other.recipients.iter(other.domain).collect();
        pairs.extend(job.recipients.iter(job.domain));
        let shared = other.recipients.domains(other.domain);
        let twice: SmallVec<[u32; 4]> =
            job.recipients.domains(job.domain).into_iter().filter(|domain| shared.contains(domain)).collect();
        let more = job.recipients.len();
        self.put(id, Place::Loose);
        self.jobs.remove(id);
        if let (Some(other), Some((recipients, domain))) = (self.jobs.get_mut(last), Recipients::of(&pairs)) {
            (other.recipients, other.domain) = (recipients, domain);
        }
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.counts[0] += more;
        }
        for domain in twice {
            self.release_domain(domain);
        }
        true
    }

    /// Its time has come.
    pub(super) fn due(&mut self, now: Mono, id: u32) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.flags &= !PUT_OFF;
        }
        match self.jobs.get(id).and_then(|job| job.place.lane()) {
            Some(lane) if self.is_current(now, id, lane) => self.make_ready(now, id, lane),
            _ => self.reconsider(now, id),
        }
    }

    /// Has the engine end it.
    pub(super) fn end(&mut self, id: u32, work: impl Fn(JobId) -> Work) {
        self.unpay(id);
        let Some(job) = self.jobs.get(id) else { return };
        let (name, lane) = (JobId { slot: id, serial: job.serial }, job.place.lane().unwrap_or(NONE));
        self.put(id, Place::Ending { lane });
        self.endings.push_back(work(name));
    }

    /// Is there a job that an open connection of this lane could take?
    #[must_use]
    pub fn has_ready(&self, lane: LaneId) -> bool {
        let open = |entry: &Lane| self.leases.get(entry.lease.index()).is_none_or(|lease| !lease.blocked);
        let ready = |entry: &Lane| entry.id == lane && !entry.list.is_empty() && open(entry);
        self.lanes.get(lane.slot).is_some_and(ready) && !self.is_closed(lane.slot)
    }

    /// The next job of a lane, for an open connection of it; none if its provider is sent nothing now.
    pub fn take(&mut self, lane: LaneId, wall: Wall) -> Option<Taken<K>> {
        loop {
            let id = self.lane_named(lane)?.list.first()?;
            let job = self.jobs.get(id)?;
            if job.expires <= wall {
                self.end(id, |job| Work::Expired { job });
                continue;
            }
            if self.is_closed(lane.slot) {
                self.stall(lane.slot);
                return None;
            }
            if let Some(most) = self.most_recipients(lane.slot) {
                self.trim(id, lane.slot, most);
            }
            if self.is_metered(lane.slot) {
                match self.pass(id, lane.slot, wall) {
                    Pass::Go => {}
                    Pass::Waits => continue,
                    Pass::Blocked => return None,
                }
            }
            let messages = self.jobs.get(id)?.recipients.messages();
            if !self.may_take(lane.slot, messages) {
                return None;
            }
            let job = self.jobs.get(id)?;
            let recipients = SmallVec::from_slice(job.recipients.as_slice());
            let name = JobId { slot: id, serial: job.serial };
            let taken = Taken { job: name, key: job.key, recipients, attempts: job.attempts };
            self.put(id, Place::InFlight { lane: lane.slot });
            return Some(taken);
        }
    }

    /// As [`Self::give_back`]; nothing of it was written either, so that what was paid for it is not lost.
    pub fn give_back_unseen(&mut self, job: JobId, _proof: NeverSeen) {
        if self.named(job).is_some()
            && let Some(entry) = self.jobs.get_mut(job.slot)
        {
            if entry.flags & AGAIN == 0 {
                entry.flags &= !SEEN;
            }
            let messages = entry.recipients.messages();
            if let Place::InFlight { lane } = entry.place {
                self.take_back(lane, messages);
            }
        }
        self.give_back(job);
    }

    /// A job handed out that was not tried: it is the next one again.
    pub fn give_back(&mut self, job: JobId) {
        let Some(&Place::InFlight { lane: number }) = self.named(job).map(|job| &job.place) else { return };
        if let Some(site) = self.site_if_gone(number) {
            return self.strand_again(job.slot, site);
        }
        if self.is_metered(number) && self.jobs.get(job.slot).is_some_and(|entry| entry.paid == Day(0)) {
            // Its leased IP is counted only since it was handed out.
            let now = self.clocks.0;
            return self.make_ready(now, job.slot, number);
        }
        self.put(job.slot, Place::Ready { lane: number });
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.list.remove(&mut self.jobs, job.slot);
            lane.list.push_front(&mut self.jobs, job.slot);
        }
        self.list(number);
    }

    /// Of a job handed out, only `recipients` are still to be delivered; they wait for their next try. What
    /// [`NextTry::Expired`] is said of has left the queue.
    pub fn defer(&mut self, now: Mono, wall: Wall, job: JobId, recipients: &[u16]) -> NextTry {
        self.defer_these(now, wall, job, Kept::Numbers(recipients))
    }

    pub(super) fn defer_these(&mut self, now: Mono, wall: Wall, job: JobId, recipients: Kept<'_>) -> NextTry {
        let chance = retry::chance(&mut self.chance);
        let Some(entry) = self.named(job) else { return NextTry::Expired };
        let (place, attempts) = (entry.place, entry.attempts.saturating_add(1));
        let own = place.lane().and_then(|lane| self.shaped(lane)).and_then(|shaped| shaped.provider().retry.as_ref());
        let Some(at) = own.unwrap_or(&self.retry).next(wall, attempts, entry.expires, chance) else {
            self.put(job.slot, Place::Loose);
            self.done(job);
            return NextTry::Expired;
        };
        let gone = place.lane().and_then(|lane| self.site_if_gone(lane));
        // Loose keeps no lane: hold on to it until the job is in its new place.
        if let Some(lane) = place.lane().and_then(|lane| self.lanes.get_mut(lane)) {
            lane.jobs += 1;
        }
        self.put(job.slot, Place::Loose);
        if self.keep_only(job.slot, recipients)
            && let Some(entry) = self.jobs.get_mut(job.slot)
        {
            (entry.attempts, entry.due) = (attempts, now.plus(at.since(wall)));
            match (place.lane(), gone) {
                (_, Some(site)) => self.strand_again(job.slot, site),
                (Some(lane), None) => self.put(job.slot, Place::Deferred { lane }),
                (None, None) => self.put(job.slot, place),
            }
        }
        if let Some(lane) = place.lane() {
            self.leave(lane);
        }
        NextTry::At(at)
    }

    /// Lets go of all recipients of a job, in no list, but these. False if none is left, and so no job.
    fn keep_only(&mut self, id: u32, kept: Kept<'_>) -> bool {
        let Some(job) = self.jobs.get_mut(id) else { return false };
        let left = match kept {
            Kept::Numbers(kept) => {
                let of_them = job.recipients.iter(job.domain).filter(|(number, _)| kept.contains(number));
                Recipients::of(&of_them.collect::<SmallVec<[(u16, u32); 8]>>())
            }
            Kept::Crowd(count) => (count > 0).then_some((Recipients::Crowd(count), job.domain)),
        };
        let (before, domains) = (job.recipients.len(), job.recipients.domains(job.domain));
        let (after, still) = left.as_ref().map_or((0, SmallVec::new()), |(left, own)| (left.len(), left.domains(*own)));
        match left {
            Some((recipients, domain)) => (job.recipients, job.domain) = (recipients, domain),
            None => drop(self.jobs.remove(id)),
        }
        self.recipients -= before - after;
        for domain in domains {
            if !still.contains(&domain) {
                self.release_domain(domain);
            }
        }
        after > 0
    }

    /// A job has come to its end.
    pub fn done(&mut self, job: JobId) {
        let Some(place) = self.named(job).map(|job| job.place) else { return };
        if let Place::InFlight { lane: number } = place
            && let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.failures > 0)
        {
            lane.failures = 0;
            self.list(number);
        }
        self.drop_job(job);
    }

    /// A job is not this queue's any more. Unlike [`Self::done`], this says nothing of the host it was for.
    pub fn drop_job(&mut self, job: JobId) {
        if self.named(job).is_none() {
            return;
        }
        self.unpay(job.slot);
        self.put(job.slot, Place::Loose);
        let Some(entry) = self.jobs.remove(job.slot) else { return };
        self.recipients -= entry.recipients.len();
        for domain in entry.recipients.domains(entry.domain) {
            self.release_domain(domain);
        }
    }
}
