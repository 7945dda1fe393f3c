//! Crowds: jobs that stand for many messages of one recipient each, for rehearsals of more mail than can be looked at singly.
//!
//! All that counts recipients or messages counts each of a crowd: ledgers, rates, lanes. What a plan does not let go as a
//! whole is divided, into pieces that single messages would go in as well; and what follows itself is put together again.

use super::{NextTry, Queue, place::Kept};
use crate::{
    job::{Job, JobId, Place, Recipients},
    lane::LeaseId,
    time::{Mono, Wall},
};

/// Many messages to queue that differ in nothing.
#[derive(Clone, Copy, Debug)]
pub struct Crowd<'a, K> {
    /// The caller's name for them.
    pub key: K,
    /// Egress IP; none: they wait until [`Queue::assign`] gives them one.
    pub lease: Option<LeaseId>,
    /// When they are given up.
    pub expires: Wall,
    /// Of the recipients (lower-case A-labels).
    pub domain: &'a str,
    /// How many; 1 at least.
    pub recipients: u32,
}

impl<K: Copy + Ord> Queue<K> {
    /// As [`Self::add`], for many messages at a time.
    pub fn add_crowd(&mut self, now: Mono, wall: Wall, new: Crowd<'_, K>) {
        if new.recipients == 0 {
            return;
        }
        self.clocks = (now, wall);
        if let Some(lease) = new.lease {
            self.revive(lease);
        }
        self.recipients += u64::from(new.recipients);
        let domain = self.domain_id(new.domain);
        if let Some(entry) = self.domains.get_mut(domain) {
            entry.users += 1;
        }
        let id = self.insert(new.key, new.expires, Recipients::Crowd(new.recipients), domain);
        self.route(now, id, new.lease);
    }

    /// Recipients of a job.
    #[must_use]
    pub fn recipients_of(&self, job: JobId) -> u64 {
        self.named(job).map_or(0, |job| job.recipients.len())
    }

    /// Makes `count` recipients of a crowd that was handed out a job of their own, handed out as well. None: it is no crowd,
    /// or one of the two would be nobody.
    pub fn split_off(&mut self, job: JobId, count: u32) -> Option<JobId> {
        let entry = self.named(job)?;
        let (Place::InFlight { lane }, Recipients::Crowd(_)) = (entry.place, &entry.recipients) else { return None };
        let ((taken, own), (rest, _)) = entry.recipients.divide(entry.domain, count as usize)?;
        let (key, expires, attempts, due) = (entry.key, entry.expires, entry.attempts, entry.due);
        let (paid, flags) = (entry.paid, entry.flags);
        self.share_domains((&taken, own), (&rest, own));
        if let Some(entry) = self.lanes.get_mut(lane) {
            entry.counts[2] -= taken.len();
        }
        if let Some(entry) = self.jobs.get_mut(job.slot) {
            entry.recipients = rest;
        }
        let slot = self.insert(key, expires, taken, own);
        self.put(slot, Place::InFlight { lane });
        let part = self.jobs.get_mut(slot)?;
        (part.attempts, part.due, part.paid, part.flags) = (attempts, due, paid, flags);
        Some(JobId { slot, serial: part.serial })
    }

    /// As [`Self::defer`]: of a crowd handed out, only `count` are still to be delivered.
    pub fn defer_crowd(&mut self, now: Mono, wall: Wall, job: JobId, count: u32) -> NextTry {
        self.defer_these(now, wall, job, Kept::Crowd(count))
    }

    /// Two jobs are to be made of one: a domain of both has one user more.
    pub(super) fn share_domains(&mut self, first: (&Recipients, u32), second: (&Recipients, u32)) {
        for domain in second.0.domains(second.1) {
            if let Some(entry) = self.domains.get_mut(domain).filter(|_| first.0.names(first.1, domain)) {
                entry.users += 1;
            }
        }
    }

    /// A crowd is the first of those that wait: only as many of it stay the first as best go together.
    pub(super) fn thin(&mut self, now: Mono, lease: LeaseId, id: u32, lane: u32) {
        let Some(Recipients::Crowd(2..)) = self.jobs.get(id).map(|job| &job.recipients) else { return };
        let wall = self.clocks.1;
        let Some(most) = self.ledger(lease).map(|ledger| ledger.piece(now, wall)) else { return };
        if let Some(rest) = self.cut(id, lane, most as usize) {
            self.follow_first(lease, id, rest, lane);
        }
    }

    /// The second of those that wait takes in the third, if that is of the same crowd.
    pub(super) fn absorb_next(&mut self, lease: LeaseId, second: u32) {
        let Some(Recipients::Crowd(_)) = self.jobs.get(second).map(|job| &job.recipients) else { return };
        let Some(next) = self.follower(lease, second) else { return };
        self.put(next, Place::Loose);
        self.merge(second, next);
    }

    /// The third of those that wait, if it is of the same crowd as the second.
    fn follower(&self, lease: LeaseId, second: u32) -> Option<u32> {
        let mut waiting = self.leases.get(lease.index())?.waiting.iter(&self.jobs).skip(1);
        let ((id, one), (next, other)) = (waiting.next()?, waiting.next()?);
        let of = |job: &Job<K>| (job.key, job.place, job.attempts, job.expires, job.paid, job.flags, job.domain);
        let same = matches!(other.recipients, Recipients::Crowd(_)) && of(one) == of(other);
        (id == second && same).then_some(next)
    }

    /// Takes a crowd that is in no list into another one that is as far. Always true.
    pub(super) fn merge(&mut self, into: u32, from: u32) -> bool {
        let Some(gone) = self.jobs.remove(from) else { return true };
        let more = gone.recipients.len();
        let Some(job) = self.jobs.get_mut(into) else { return true };
        let all = u32::try_from(job.recipients.len() + more).unwrap_or(u32::MAX);
        job.recipients = Recipients::Crowd(all);
        let place = job.place;
        if let (Some(lane), Some(column)) = (place.lane().and_then(|lane| self.lanes.get_mut(lane)), place.column()) {
            lane.counts[column] += more;
            match place {
                Place::Ready { .. } => lane.ready += more,
                Place::Waiting { .. } => {
                    if let Some(lease) = self.leases.get_mut(lane.lease.index()) {
                        lease.held += more;
                    }
                }
                _ => {}
            }
        }
        self.release_domain(gone.domain);
        true
    }
}
