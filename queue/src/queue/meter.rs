//! Leased IPs whose mail is counted: their ledgers, and what is charged to them.
//!
//! A job is charged to the ledger before it is ready, so that a lane never has more ready than may go, and connections are
//! made for nothing else. What the plan does not let go waits with the leased IP (`waiting.rs`). A charge is given back if the job leaves without any receiver having seen it. A leased IP
//! without a plan passes by all of this.

use super::{Lease, Meter, Queue, shaping::Shaped};
use crate::{
    job::{AGAIN, ASKED, Job, PUT_OFF, Place, SEEN},
    lane::{LaneId, LeaseId},
    list::List,
    time::{Mono, Wall},
    warmup::{
        day::Day,
        ledger::{Charge, Ledger, NeverSeen, Note, Paid, Wait},
    },
};
use std::{net::IpAddr, time::Duration};

/// A lane in trouble has one message that finds out; the others are asked again after this time.
const CAREFUL: Duration = Duration::from_secs(5);

/// What a leased IP may still take, for the choice between several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is not counted.
    Free,
    /// It is counted and has no cap.
    Done,
    /// It warms up: so many more recipients may go now.
    Warming(u32),
    /// Its ledger is not here yet.
    Unknown,
}

/// What becomes of a ready job that is to be handed out.
pub(super) enum Pass {
    /// It is paid for.
    Go,
    /// It waits for its plan again.
    Waits,
    /// Nothing of the leased IP goes until its note is durable.
    Blocked,
}

impl Lease {
    pub(super) fn new(address: IpAddr) -> Self {
        Self {
            address,
            of: None,
            managed: false,
            gone: false,
            meter: Meter::None,
            waiting: List::default(),
            held: 0,
            overflow_after: Duration::ZERO,
            blocked: false,
            fresh: false,
            opens: None,
            armed: None,
            stamp: 0,
        }
    }

    pub(super) fn ledger(&mut self) -> Option<&mut Ledger> {
        match &mut self.meter {
            Meter::Ledger(ledger) => Some(ledger),
            Meter::None | Meter::Pending => None,
        }
    }
}

impl<K: Copy + Ord> Queue<K> {
    /// From now on nothing leaves by this leased IP that is not charged; nothing at all until [`Self::set_ledger`].
    /// `overflow_after`: how long its mail waits for its plan before another leased IP is asked for.
    pub fn expect_ledger(&mut self, lease: LeaseId, overflow_after: Duration) {
        let Some(entry) = self.leases.get_mut(lease.index()) else { return };
        entry.overflow_after = overflow_after;
        if matches!(entry.meter, Meter::None) {
            (entry.meter, entry.blocked) = (Meter::Pending, true);
        }
    }

    /// The ledger of a leased IP is here.
    pub fn set_ledger(&mut self, now: Mono, wall: Wall, lease: LeaseId, ledger: Ledger) {
        self.clocks = (now, wall);
        let Some(entry) = self.leases.get_mut(lease.index()) else { return };
        (entry.meter, entry.blocked) = (Meter::Ledger(Box::new(ledger)), false);
        self.release(now, lease);
        self.list_lanes(lease);
    }

    /// What leaves by this leased IP is not counted any more, or not here: returns its ledger. Take its mail from it before
    /// with [`Self::strand`], unless it is to go without being counted.
    pub fn take_ledger(&mut self, now: Mono, wall: Wall, lease: LeaseId) -> Option<Ledger> {
        self.clocks = (now, wall);
        let entry = self.leases.get_mut(lease.index())?;
        entry.blocked = false;
        let meter = std::mem::replace(&mut entry.meter, Meter::None);
        self.release(now, lease);
        self.list_lanes(lease);
        match meter {
            Meter::Ledger(ledger) => Some(*ledger),
            Meter::None | Meter::Pending => None,
        }
    }

    /// The ledger of a leased IP, to change it; call [`Self::plan_changed`] afterwards.
    pub fn ledger(&mut self, lease: LeaseId) -> Option<&mut Ledger> {
        self.leases.get_mut(lease.index())?.ledger()
    }

    /// The plan of a leased IP may let go more, or less, than before.
    pub fn plan_changed(&mut self, now: Mono, wall: Wall, lease: LeaseId) {
        self.clocks = (now, wall);
        self.recall(lease);
        self.release(now, lease);
    }

    /// Notes of ledgers that are to be made durable; each goes on being told until [`Self::confirm`].
    pub fn notes(&self) -> impl Iterator<Item = (LeaseId, IpAddr, Note)> + '_ {
        self.leases.iter().enumerate().filter_map(|(index, lease)| match &lease.meter {
            Meter::Ledger(ledger) => Some((LeaseId::at(index), lease.address, ledger.note()?)),
            Meter::None | Meter::Pending => None,
        })
    }

    /// This note is durable.
    pub fn confirm(&mut self, now: Mono, wall: Wall, lease: LeaseId, note: &Note) {
        self.clocks = (now, wall);
        let Some(entry) = self.leases.get_mut(lease.index()) else { return };
        let Meter::Ledger(ledger) = &mut entry.meter else { return };
        ledger.confirm(note);
        let was_blocked = std::mem::replace(&mut entry.blocked, false);
        self.release(now, lease);
        if was_blocked {
            self.list_lanes(lease);
        }
    }

    /// What a leased IP may still take, less what waits for it already.
    pub fn left(&mut self, now: Mono, wall: Wall, lease: LeaseId) -> Left {
        let Some(entry) = self.leases.get_mut(lease.index()) else { return Left::Free };
        let held = u32::try_from(entry.held).unwrap_or(u32::MAX);
        match &mut entry.meter {
            Meter::None => Left::Free,
            Meter::Pending => Left::Unknown,
            Meter::Ledger(ledger) => {
                let allowance = ledger.allowance(now, wall);
                if ledger.is_warming() { Left::Warming(allowance.saturating_sub(held)) } else { Left::Done }
            }
        }
    }

    /// Is what leaves by this lane counted, or paced? Then [`Self::take`] may have left work for [`Self::poll`].
    #[must_use]
    pub fn counts(&self, lane: LaneId) -> bool {
        let here = self.lanes.get(lane.slot).is_some_and(|entry| entry.id == lane);
        here && (self.is_metered(lane.slot) || self.is_closed(lane.slot))
    }

    /// Is what leaves by the leased IP of this lane counted?
    pub(super) fn is_metered(&self, lane: u32) -> bool {
        let lease = self.lanes.get(lane).and_then(|lane| self.leases.get(lane.lease.index()));
        lease.is_some_and(|lease| !matches!(lease.meter, Meter::None))
    }

    /// A job comes into a lane that is counted. False: it may be ready at once.
    pub(super) fn meter(&mut self, now: Mono, id: u32, lane: u32) -> bool {
        let wall = self.clocks.1;
        let Some(lease) = self.lanes.get(lane).map(|lane| lane.lease) else { return false };
        let Some(paid) = self.jobs.get(id).map(|job| job.paid) else { return false };
        if let Some(ledger) = self.ledger(lease) {
            ledger.advance(now, wall);
            if !ledger.is_warming() || ledger.day() == paid {
                return false;
            }
        }
        if let Some(until) = self.put_off_until(now, lane) {
            self.defer_until(id, lane, until);
            return true;
        }
        self.keep_lane(lane);
        self.put(id, Place::Loose);
        if let Some(job) = self.jobs.get_mut(id) {
            (job.due, job.flags) = (now, job.flags & !ASKED);
        }
        self.put(id, Place::Waiting { lane });
        self.leave(lane);
        if let Some(lease) = self.leases.get_mut(lease.index()) {
            lease.fresh = true;
        }
        self.release(now, lease);
        true
    }

    /// Charges a job to the ledger of its leased IP, if there is one that limits it.
    pub(super) fn charge(&mut self, now: Mono, lease: LeaseId, id: u32) -> Result<(), Wait> {
        let wall = self.clocks.1;
        let Some(entry) = self.leases.get_mut(lease.index()) else { return Ok(()) };
        let Some(job) = self.jobs.get_mut(id) else { return Ok(()) };
        let ledger = match &mut entry.meter {
            Meter::None => return Ok(()),
            Meter::Pending => return Err(Wait::Note),
            Meter::Ledger(ledger) => ledger,
        };
        ledger.advance(now, wall);
        if !ledger.is_warming() {
            // Counted when it is handed out: nothing is held up by it.
            return Ok(());
        }
        let recipients = u32::try_from(job.recipients.len()).unwrap_or(u32::MAX);
        let before = (job.paid > Day(0)).then_some(Paid { ip: entry.address, day: job.paid });
        if before.is_none_or(|paid| paid.day != ledger.day()) {
            job.flags &= !(SEEN | AGAIN);
        }
        job.paid = ledger.charge(now, wall, recipients, before)?.spend().day;
        Ok(())
    }

    /// A ready job is to be handed out: is it paid for on the day that it is now?
    pub(super) fn pass(&mut self, id: u32, lane: u32, wall: Wall) -> Pass {
        let now = self.clocks.0;
        self.clocks.1 = wall;
        let lease = self.lanes.get(lane).and_then(|lane| self.leases.get_mut(lane.lease.index()));
        let (Some(entry), Some(job)) = (lease, self.jobs.get_mut(id)) else { return Pass::Go };
        let ledger = match &mut entry.meter {
            Meter::None => return Pass::Go,
            Meter::Pending => return Pass::Blocked,
            Meter::Ledger(ledger) => ledger,
        };
        ledger.advance(now, wall);
        if job.paid == ledger.day() {
            job.flags |= if job.flags & SEEN == 0 { SEEN } else { AGAIN };
            return Pass::Go;
        }
        job.paid = Day(0);
        if ledger.is_warming() {
            // The day has changed since it was paid for, or the plan has begun again.
            return if self.meter(now, id, lane) { Pass::Waits } else { Pass::Blocked };
        }
        let recipients = u32::try_from(job.recipients.len()).unwrap_or(u32::MAX);
        match ledger.charge(now, wall, recipients, None) {
            Ok(charge) => {
                (job.paid, job.flags) = (charge.spend().day, job.flags & !AGAIN | SEEN);
                Pass::Go
            }
            Err(_) => {
                entry.blocked = true;
                Pass::Blocked
            }
        }
    }

    /// Gives back what was paid for a job that no receiver has seen.
    pub(super) fn unpay(&mut self, id: u32) {
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.paid > Day(0)) else { return };
        let (day, seen) = (std::mem::take(&mut job.paid), job.flags & SEEN != 0);
        let recipients = u32::try_from(job.recipients.len()).unwrap_or(u32::MAX);
        let lane = job.place.lane().and_then(|lane| self.lanes.get(lane));
        let Some(lease) = lane.and_then(|lane| self.leases.get_mut(lane.lease.index())) else { return };
        let ip = lease.address;
        if let Some(ledger) = lease.ledger().filter(|ledger| !seen && ledger.is_warming()) {
            // It was in no connection's hands, or was given back with a proof.
            ledger.refund(Charge { ip, day, recipients }, NeverSeen::nothing_written());
        }
    }

    /// A site is left alone: what was charged for it and has not been sent is worth more elsewhere.
    pub(super) fn put_off(&mut self, now: Mono, lane: u32, until: Mono) {
        let Some(lease) = self.lanes.get(lane).map(|lane| lane.lease) else { return };
        if !self.ledger(lease).is_some_and(|ledger| ledger.is_warming()) {
            return;
        }
        let Some(entry) = self.lanes.get(lane) else { return };
        let unseen = |job: &Job<K>| job.flags & SEEN == 0;
        let ids: Vec<u32> = entry.list.iter(&self.jobs).filter(|(_, job)| unseen(job)).map(|(id, _)| id).collect();
        for id in ids {
            self.unpay(id);
            self.defer_until(id, lane, until);
        }
        self.release(now, lease);
    }

    /// Until when a lane is given nothing, if it is not to be: it is backed off, or one message is finding out.
    pub(super) fn put_off_until(&self, now: Mono, lane: u32) -> Option<Mono> {
        if let Some(until) = self.shaped(lane).and_then(Shaped::suspended).filter(|until| *until > now) {
            return Some(until);
        }
        let entry = self.lanes.get(lane).filter(|lane| lane.failures > 0)?;
        if entry.backed_off_until > now {
            return Some(entry.backed_off_until);
        }
        (entry.ready > 0 || entry.counts[2] > 0).then(|| now.plus(CAREFUL))
    }

    pub(super) fn defer_until(&mut self, id: u32, lane: u32, until: Mono) {
        self.keep_lane(lane);
        // In no list while its time changes: its place in the calendar goes by it.
        self.put(id, Place::Loose);
        if let Some(job) = self.jobs.get_mut(id) {
            (job.due, job.flags) = (until, job.flags | PUT_OFF);
        }
        self.put(id, Place::Deferred { lane });
        self.leave(lane);
    }

    /// Holds on to a lane while a job of it is in no list; [`Self::leave`] lets go.
    pub(super) fn keep_lane(&mut self, lane: u32) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.jobs += 1;
        }
    }

    /// Has all lanes of a leased IP looked at.
    fn list_lanes(&mut self, lease: LeaseId) {
        let ready: Vec<u32> =
            self.lanes.iter().filter(|(_, lane)| lane.lease == lease && lane.ready > 0).map(|(n, _)| n).collect();
        for lane in ready {
            self.list(lane);
        }
    }
}
