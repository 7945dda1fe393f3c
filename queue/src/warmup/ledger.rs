//! What a leased IP has sent under its warm-up plan. *One per leased IP, in the shard that owns it.*
//!
//! It never lets an IP exceed the cap of a day: through crashes, clock steps, changes of day, of plan and of owner. A crash
//! may cost the IP a block of allowance; it never gains any.
//!
//! - MAIL FROM needs a [`Charge`], and a charge comes out of a block that was made durable before. [`Ledger::note`] is what to
//!   write; once it is durable, [`Ledger::confirm`] opens the block. [`Ledger::restore`] takes all of it for spent.
//! - A charge is given back only against a [`NeverSeen`].
//! - Its day never goes back. While the wall clock is behind, the day stands still with what is left of its cap.

use super::{
    climb::{Climb, Rung},
    day::{Day, DayStart},
    ladder::{Ladder, Rules},
    plan::{Percentage, Plan},
};
use crate::{
    bucket::{Bucket, Rate},
    time::{Mono, Wall},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};

/// The whole cap of a day is spent in no less than this, by default.
pub const SPREAD: Duration = Duration::from_secs(6 * 3600);
/// So much of the spread may go at once, and [`BURST_LEAST`] recipients in any case.
const BURST: Duration = Duration::from_secs(5 * 60);
const BURST_LEAST: u32 = 10;
/// A block is this part of the cap, and at least one recipient.
const BLOCKS: u32 = 100;
/// Least block of an IP that is done: nothing waits for it, it only counts.
const BLOCK_DONE: u32 = 500;
/// A wall clock that is so much ahead of the monotonic one has leapt.
const LEAP: Duration = Duration::from_secs(3600);

/// SES's `WarmupStatus` of an IP that has a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `IN_PROGRESS`.
    InProgress,
    /// `DONE`: no cap.
    Done,
}

/// What is durable of a ledger; the last one written wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The day that it speaks of.
    pub day: Day,
    /// That day in the plan, from 1; none: done.
    pub plan_day: Option<u16>,
    /// Cap of that day; none: done.
    pub cap: Option<u32>,
    /// Recipients that may have been charged on that day.
    pub reserved: u32,
    /// Percentage that an operator has set, and on which day.
    pub set: (Percentage, Day),
    /// The plan stands still.
    pub held: bool,
    /// Where it stands on its ladder; none: it has a plan.
    pub rung: Option<Rung>,
}

/// Leave to write RCPT TO for some recipients. It is either spent or refunded.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without a charge no MAIL FROM; unused, it is to be refunded"]
pub struct Charge {
    pub(crate) ip: IpAddr,
    pub(crate) day: Day,
    pub(crate) recipients: u32,
}

impl Charge {
    /// Its MAIL FROM is written. What the job remembers, so that it is not charged twice on one day by one IP.
    pub fn spend(self) -> Paid {
        Paid { ip: self.ip, day: self.day }
    }

    /// Recipients that it has cost; none if the job had paid on this day before.
    #[must_use]
    pub fn recipients(&self) -> u32 {
        self.recipients
    }
}

/// A job has paid for its recipients to an IP on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    pub(crate) ip: IpAddr,
    pub(crate) day: Day,
}

/// Proof that a peer has seen nothing of a transaction: its first command was never written.
#[derive(Debug)]
pub struct NeverSeen(());

impl NeverSeen {
    /// Only the line that owns the connection may say so: it has written no byte of the transaction to the socket.
    #[must_use]
    pub fn nothing_written() -> Self {
        Self(())
    }
}

/// Why there is no charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Write [`Ledger::note`], confirm it when it is durable, and ask again.
    Note,
    /// The day's allowance is spread over the day.
    Until(Mono),
    /// The day's cap is reached.
    NextDay(Wall),
    /// More recipients than the day's cap: so many may go together at most.
    TooMany(u32),
}

/// The day has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The day before and the new one.
    pub from: Day,
    /// See `from`.
    pub to: Day,
    /// The wall clock leapt there: worth a line in the log.
    pub leapt: bool,
    /// The plan has ended with it.
    pub done: bool,
}

/// How an IP stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In progress or done.
    pub status: Status,
    /// SES's `WarmupPercentage`.
    pub percentage: Percentage,
    /// The day in the plan, from 1; none: done.
    pub plan_day: Option<u16>,
    /// Cap of this day; none: done.
    pub cap: Option<u32>,
    /// Cap of the next day; none: done by then.
    pub next_cap: Option<u32>,
    /// Recipients charged on this day.
    pub sent: u32,
    /// Recipients that may have been charged, as a crash would leave it.
    pub reserved: u32,
    /// What the smoothing lets go now.
    pub tokens: i64,
    /// The day on which it will be done, if nothing is changed; none: done, or held.
    pub done_on: Option<Day>,
    /// The plan stands still.
    pub held: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    ip: IpAddr,
    plan: Plan,
    /// Takes the place of `plan` with the next day.
    next_plan: Option<Plan>,
    starts: DayStart,
    /// Takes the place of `starts` with the next day.
    next_starts: Option<DayStart>,
    spread: Duration,
    day: Day,
    plan_day: Option<u16>,
    cap: Option<u32>,
    set: (Percentage, Day),
    held: bool,
    /// Takes the place of the plan.
    climb: Option<Box<Climb>>,
    /// Charged on this day.
    spent: u32,
    /// Durable: may be charged on this day.
    reserved: u32,
    /// To be made durable.
    wanted: u32,
    /// The last note is not what a new one would be.
    changed: bool,
    bucket: Bucket,
    /// Both clocks as last seen.
    seen: (Mono, Wall),
}

impl Ledger {
    /// A newly leased IP: this is day 1, however short. With no plan it counts as warm: automatic warm-up is off.
    #[must_use]
    pub fn lease(ip: IpAddr, plan: Plan, warm: bool, starts: DayStart, now: Mono, wall: Wall) -> Self {
        let plan_day = (!warm).then_some(1);
        let (day, set) = (starts.day_of(wall), (Percentage::ZERO, Day(0)));
        let note = Note { day, plan_day, cap: None, reserved: 0, set, held: false, rung: None };
        let mut ledger = Self::at(ip, plan, note, starts, now, wall);
        ledger.recap(now);
        ledger.bucket = Bucket::full(ledger.rate(), ledger.burst(), now);
        ledger.changed = true;
        ledger
    }

    /// A leased IP of a managed pool, and a provider: on the ladder where its note says, or `from` there, or at the bottom.
    #[must_use]
    pub fn climb(
        ip: IpAddr,
        rules: Rules,
        note: Option<Note>,
        from: Ladder,
        starts: DayStart,
        now: Mono,
        wall: Wall,
    ) -> Self {
        let day = starts.day_of(wall);
        let first = Note {
            day,
            plan_day: None,
            cap: None,
            reserved: 0,
            set: (Percentage::ZERO, Day(0)),
            held: false,
            rung: Some(Rung { ladder: from, ..Rung::default() }),
        };
        let known = note.filter(|note| note.rung.is_some());
        let note = known.unwrap_or(first);
        let mut ledger = Self::at(ip, Plan::standard(), note, starts, now, wall);
        ledger.climb = note.rung.map(|rung| Box::new(Climb::new(rules, rung)));
        (ledger.spent, ledger.reserved, ledger.wanted) = (note.reserved, note.reserved, note.reserved);
        ledger.recap(now);
        if known.is_none() {
            ledger.bucket = Bucket::full(ledger.rate(), ledger.burst(), now);
            ledger.changed = true;
        }
        ledger.advance(now, wall);
        ledger
    }

    /// Its ladder, if it has one instead of a plan.
    pub fn ladder(&mut self) -> Option<&mut Climb> {
        self.climb.as_deref_mut()
    }

    /// An IP as its last durable note has it: whatever may have been charged was. `plan` is in force from the next day on.
    #[must_use]
    pub fn restore(ip: IpAddr, plan: Plan, note: Note, starts: DayStart, now: Mono, wall: Wall) -> Self {
        let mut ledger = Self::at(ip, plan, note, starts, now, wall);
        (ledger.spent, ledger.reserved, ledger.wanted) = (note.reserved, note.reserved, note.reserved);
        // What it was allowed that day, it still is, though its plan may have been changed since.
        ledger.cap = note.plan_day.and_then(|day| note.cap.or(ledger.plan.cap(day)));
        // The burst of the day may be spent already: begin without one.
        ledger.bucket = Bucket::empty(ledger.rate(), ledger.burst(), now);
        ledger.advance(now, wall);
        ledger
    }

    fn at(ip: IpAddr, plan: Plan, note: Note, starts: DayStart, now: Mono, wall: Wall) -> Self {
        Self {
            ip,
            plan,
            next_plan: None,
            starts,
            next_starts: None,
            spread: SPREAD,
            day: note.day,
            plan_day: note.plan_day,
            cap: None,
            set: note.set,
            held: note.held,
            climb: None,
            spent: 0,
            reserved: 0,
            wanted: 0,
            changed: false,
            bucket: Bucket::empty(Rate { tokens: 0, per: SPREAD }, 0, now),
            seen: (now, wall),
        }
    }

    /// Another time over which a day's cap is spread.
    pub fn set_spread(&mut self, now: Mono, spread: Duration) {
        self.spread = spread.max(Duration::from_secs(1));
        self.smooth(now);
    }

    /// Brings it to the day of `wall`, if that is later. A clock that leapt is believed for the days it leapt; one that went
    /// back is not: its days have been.
    pub fn advance(&mut self, now: Mono, wall: Wall) -> Option<Turn> {
        let passed = now.since(self.seen.0);
        let leapt = wall.since(self.seen.1) > passed.saturating_add(LEAP);
        self.seen = (now, wall);
        let (from, to) = (self.day, self.starts.day_of(wall));
        if to <= from {
            return None;
        }
        let was_done = self.plan_day.is_none();
        self.day = to;
        if let Some(climb) = &mut self.climb {
            climb.close(from, to, u64::from(self.spent));
            // What was decided is not to be decided again after a crash.
            self.changed = true;
        }
        (self.spent, self.reserved, self.wanted) = (0, 0, 0);
        if let Some(plan) = self.next_plan.take() {
            self.plan = plan;
        }
        // By the new time it may be the day before still: then this day is the longer one.
        self.starts = self.next_starts.take().unwrap_or(self.starts);
        if let Some(day) = self.plan_day.filter(|_| !self.held) {
            let days = u16::try_from(to.0 - from.0).unwrap_or(u16::MAX);
            self.plan_day = Some(day.saturating_add(days));
        }
        self.recap(now);
        Some(Turn { from, to, leapt, done: self.plan_day.is_none() && !was_done })
    }

    /// Charges `recipients` before their MAIL FROM is written. `before`: what the job paid to this IP already. A debt of the
    /// smoothing, never of the cap, may be left by a message of more recipients than a burst.
    ///
    /// # Errors
    /// [`Wait`]: what to wait for. Nothing has been charged.
    pub fn charge(&mut self, now: Mono, wall: Wall, recipients: u32, before: Option<Paid>) -> Result<Charge, Wait> {
        self.advance(now, wall);
        let (ip, day) = (self.ip, self.day);
        if before == Some(Paid { ip, day }) {
            return Ok(Charge { ip, day, recipients: 0 });
        }
        let Some(cap) = self.cap else { return self.charge_done(recipients) };
        if recipients > cap {
            return Err(Wait::TooMany(cap));
        }
        let after = self.spent.saturating_add(recipients);
        if after > cap {
            return Err(Wait::NextDay(self.starts.end(day)));
        }
        let least = recipients.min(self.bucket.capacity());
        let at = self.bucket.when(now, least);
        if at > now {
            return Err(Wait::Until(at));
        }
        if after > self.reserved {
            let block = (cap / BLOCKS).max(1);
            self.wanted = self.wanted.max(after).max(self.reserved.saturating_add(block)).min(cap);
            return Err(Wait::Note);
        }
        if self.bucket.take(now, recipients, least).is_err() {
            return Err(Wait::Until(at));
        }
        self.spent = after;
        Ok(Charge { ip, day, recipients })
    }

    /// Without a cap it only counts, so that what was sent counts if warm-up begins again today. The next block is wanted
    /// well before this one is used up: nobody has to wait.
    fn charge_done(&mut self, recipients: u32) -> Result<Charge, Wait> {
        let after = self.spent.saturating_add(recipients);
        let block = BLOCK_DONE.max(after / 8);
        if after.saturating_add(block / 2) > self.wanted {
            self.wanted = after.saturating_add(block);
        }
        if after > self.reserved {
            return Err(Wait::Note);
        }
        self.spent = after;
        Ok(Charge { ip: self.ip, day: self.day, recipients })
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The day it is at, as of the last call that was told the time.
    #[must_use]
    pub fn day(&self) -> Day {
        self.day
    }

    /// Has it a cap, as of the last call that was told the time?
    #[must_use]
    pub fn is_warming(&self) -> bool {
        self.cap.is_some()
    }

    /// Does its plan stand still?
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Recipients that could be charged now, together.
    pub fn allowance(&mut self, now: Mono, wall: Wall) -> u32 {
        self.advance(now, wall);
        let Some(cap) = self.cap else { return u32::MAX };
        let tokens = u32::try_from(self.bucket.tokens(now).max(0)).unwrap_or(u32::MAX);
        cap.saturating_sub(self.spent).min(tokens)
    }

    /// Recipients of a crowd that best go together: half of a burst, so that nothing spills over while they wait for their
    /// allowance, and no more than the day has left; 0: its cap is reached.
    pub fn piece(&mut self, now: Mono, wall: Wall) -> u32 {
        self.advance(now, wall);
        let half = self.bucket.capacity().div_ceil(2);
        self.cap.map_or(u32::MAX, |cap| cap.saturating_sub(self.spent).min(half))
    }

    /// Gives back what no peer has seen. What was charged on another day is over.
    pub fn refund(&mut self, charge: Charge, _proof: NeverSeen) {
        if (charge.ip, charge.day) != (self.ip, self.day) {
            return;
        }
        self.spent = self.spent.saturating_sub(charge.recipients);
        if self.cap.is_some() {
            self.bucket.give_back(charge.recipients);
        }
    }

    /// What is to be written, if anything is. It goes on being told until it is confirmed.
    #[must_use]
    pub fn note(&self) -> Option<Note> {
        (self.changed || self.wanted > self.reserved).then_some(Note {
            day: self.day,
            plan_day: self.plan_day,
            cap: self.cap,
            reserved: self.wanted.max(self.reserved),
            set: self.set,
            held: self.held,
            rung: self.climb.as_ref().map(|climb| climb.rung()),
        })
    }

    /// This note is durable. One of another day opens nothing.
    pub fn confirm(&mut self, note: &Note) {
        if note.day == self.day {
            self.reserved = self.reserved.max(note.reserved);
        }
        let state = (self.plan_day, self.cap, self.set, self.held);
        if note.day == self.day && (note.plan_day, note.cap, note.set, note.held) == state {
            self.changed = false;
        }
    }

    /// The last note, for the shard that gets the lease: exactly what was charged. This ledger is over; charges that are not
    /// refunded by now never are.
    #[must_use]
    pub fn close(self) -> Note {
        let rung = self.climb.as_ref().map(|climb| climb.rung());
        let Self { day, plan_day, cap, spent, set, held, .. } = self;
        Note { day, plan_day, cap, reserved: spent, set, held, rung }
    }

    /// Sets the percentage: 0 is day 1 again, 100 is done. Takes effect at once; what was sent today still counts.
    pub fn set_percentage(&mut self, now: Mono, wall: Wall, percentage: Percentage) {
        self.advance(now, wall);
        (self.set, self.plan_day) = ((percentage, self.day), self.plan.day_of(percentage));
        self.recap(now);
        self.changed = true;
    }

    /// Stops the plan at today's cap. The days held do not count.
    pub fn hold(&mut self, now: Mono, wall: Wall) {
        self.advance(now, wall);
        (self.held, self.changed) = (true, true);
    }

    /// The plan goes on with the next day.
    pub fn release(&mut self, now: Mono, wall: Wall) {
        self.advance(now, wall);
        (self.held, self.changed) = (false, true);
    }

    /// Days begin at another time, from the next day on: none is cut short.
    pub fn set_starts(&mut self, starts: DayStart) {
        self.next_starts = Some(starts);
    }

    /// Another plan, from the next day on.
    pub fn set_plan(&mut self, plan: Plan) {
        self.next_plan = Some(plan);
    }

    /// How it stands.
    pub fn standing(&mut self, now: Mono, wall: Wall) -> Standing {
        self.advance(now, wall);
        let plan = self.next_plan.as_ref().unwrap_or(&self.plan);
        let tomorrow = |day: u16| if self.held { day } else { day.saturating_add(1) };
        let left = |day: u16| u32::from((plan.days() + 1).saturating_sub(day)).max(1);
        Standing {
            status: if self.plan_day.is_some() { Status::InProgress } else { Status::Done },
            percentage: self.plan_day.map_or(Percentage::DONE, |day| self.percentage(day)),
            plan_day: self.plan_day,
            cap: self.cap,
            next_cap: self.plan_day.and_then(|day| plan.cap(tomorrow(day))),
            sent: self.spent,
            reserved: self.reserved.max(self.spent),
            tokens: if self.cap.is_some() { self.bucket.tokens(now) } else { i64::MAX },
            done_on: self.plan_day.filter(|_| !self.held).map(|day| Day(self.day.0.saturating_add(left(day)))),
            held: self.held,
        }
    }

    /// What was set is read on its day, and never less after it. Days are whole: a plan may be a little further than that.
    fn percentage(&self, plan_day: u16) -> Percentage {
        let (set, on) = self.set;
        if on == self.day { set } else { self.plan.percentage(plan_day).max(set) }
    }

    /// The cap of the day that the plan is at, and the smoothing that goes with it.
    fn recap(&mut self, now: Mono) {
        if let Some(climb) = &self.climb {
            self.cap = climb.cap();
            return self.smooth(now);
        }
        self.cap = self.plan_day.and_then(|day| self.plan.cap(day));
        if self.cap.is_none() {
            self.plan_day = None;
        }
        self.smooth(now);
    }

    fn smooth(&mut self, now: Mono) {
        let (rate, burst) = (self.rate(), self.burst());
        self.bucket.change(now, rate, burst);
    }

    /// What may go at once.
    fn burst(&self) -> u32 {
        let cap = u64::from(self.cap.unwrap_or(0));
        // A short spread would be all burst, and its bucket take long to fill again.
        let burst = BURST.min(self.spread / 2);
        let part = u64::try_from(u128::from(cap) * burst.as_millis() / self.spread.as_millis().max(1)).unwrap_or(0);
        u32::try_from(part).unwrap_or(u32::MAX).max(BURST_LEAST).min(self.cap.unwrap_or(0))
    }

    /// With a full burst at its beginning, the whole cap takes the whole spread. A small cap may be all burst: a day that
    /// begins without one, after a restart, has to have it nevertheless.
    fn rate(&self) -> Rate {
        let cap = self.cap.unwrap_or(0);
        let rest = cap.saturating_sub(self.burst()).max(cap / 5).max(1);
        Rate { tokens: rest, per: self.spread }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
