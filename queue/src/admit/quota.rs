//! The sending limits of an account, exact over all shards: recipients in any 24 hours, and recipients a second.
//!
//! The control thread has one [`Quota`] an account, and lends recipients of it to the shards: a [`Grant`]. Each shard admits
//! messages out of its [`Purse`] without asking anybody, and asks when it is empty. What is lent counts against both limits
//! until the shard tells what it used; what nobody tells of in time (the shard is gone) counts as used.
//!
//! A message is admitted whole or not at all. Nothing lets more through than the limits do, in any 24 hours, through any
//! restart: what may be lent is durable before it is ([`Quota::note`]), and after a restart all of it counts as used.

use super::window::Window;
use crate::{
    bucket::{Bucket, Rate},
    time::{Mono, Wall},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// A purse is given up after this time, so that no shard sits on what another one needs.
const GRANT_LIFE: Duration = Duration::from_secs(1);
/// A shard that has told nothing so long after that is gone.
const GRACE: Duration = Duration::from_secs(10);
/// Seconds of the rate that may come at once.
const BURST_SECONDS: u32 = 5;
/// Most recipients of a message.
const MESSAGE_MAX: u32 = 50;
/// Events at these percentages of the daily quota.
const WARN_AT: [u8; 3] = [80, 95, 100];
/// At most one event of a kind in this time.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// What an account may send. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `Max24HourSend`: recipients in any 24 hours.
    pub max_24_hour_send: Option<u32>,
    /// `MaxSendRate`: recipients a second.
    pub max_send_rate: Option<u32>,
    /// A message with more recipients than are left passes whole if one is left, as an older SES had it.
    pub last_message_passes: bool,
}

impl Limits {
    /// Where every account starts.
    pub const SANDBOX: Self = Self { max_24_hour_send: Some(200), max_send_rate: Some(1), last_message_passes: false };

    /// Shards need not ask.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.max_24_hour_send.is_none() && self.max_send_rate.is_none()
    }
}

/// A loan of recipients to one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its number.
    pub number: u64,
    /// How many.
    pub recipients: u32,
    /// Not to be used from then on.
    pub until: Mono,
}

/// What a shard used of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not told counts as used"]
pub struct Used {
    /// Which grant.
    pub grant: u64,
    /// How many.
    pub recipients: u32,
}

/// Why a message is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Maximum sending rate exceeded. `Retry-After`: when there is a token; none: never.
    Rate(Option<Duration>),
    /// Daily message quota exceeded. `Retry-After`: when enough minutes have left the window; none: never.
    Quota(Option<Duration>),
    /// Write [`Quota::note`], confirm it when it is durable, and ask again.
    Note,
}

/// What is durable of the daily quota; the last one written wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Minutes since 1970 and their recipients.
    minutes: Vec<(u64, u32)>,
    /// Recipients that may be used beyond these.
    ahead: u32,
    /// Which state it is of.
    limit: u64,
}

#[derive(Clone, Copy, Debug)]
struct Loan {
    recipients: u32,
    until: Mono,
}

#[derive(Clone, Copy, Debug, Default)]
struct Warned {
    above: bool,
    at: Option<Wall>,
}

/// See the module. *Control thread, one per account.*
#[derive(Debug)]
pub struct Quota {
    limits: Limits,
    shards: u32,
    window: Window,
    bucket: Bucket,
    loans: BTreeMap<u64, Loan>,
    /// Recipients lent and not told of.
    lent: u32,
    /// Recipients ever lent, and how far that may go before another note.
    ever_lent: u64,
    durable_limit: u64,
    wanted_limit: u64,
    next_grant: u64,
    warned: [Warned; WARN_AT.len()],
}

impl Quota {
    /// An account that has sent nothing, on a host with so many shards.
    #[must_use]
    pub fn new(limits: Limits, shards: u32, now: Mono, wall: Wall) -> Self {
        let (rate, capacity) = rate_of(limits);
        Self {
            limits,
            shards: shards.max(1),
            window: Window::new(wall),
            bucket: Bucket::full(rate, capacity, now),
            loans: BTreeMap::new(),
            lent: 0,
            ever_lent: 0,
            durable_limit: 0,
            wanted_limit: 0,
            next_grant: 0,
            warned: [Warned::default(); WARN_AT.len()],
        }
    }

    /// An account as its last durable note has it: all that may have been sent was, just now.
    #[must_use]
    pub fn restore(limits: Limits, shards: u32, note: &Note, now: Mono, wall: Wall) -> Self {
        let mut quota = Self::new(limits, shards, now, wall);
        quota.window = Window::restore(wall, &note.minutes);
        quota.window.add(wall, note.ahead);
        let (rate, capacity) = rate_of(limits);
        quota.bucket = Bucket::empty(rate, capacity, now);
        // The deepest debt that there can have been.
        quota.bucket.spend(now, MESSAGE_MAX - 1);
        quota
    }

    /// Other limits, at once.
    pub fn set_limits(&mut self, now: Mono, limits: Limits) {
        let (rate, capacity) = rate_of(limits);
        self.bucket.change(now, rate, capacity);
        self.limits = limits;
    }

    /// Lends a shard enough for a message of `recipients`, and if there is plenty up to `wish` for those after it.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is counted.
    pub fn grant(&mut self, now: Mono, wall: Wall, recipients: u32, wish: u32) -> Result<Grant, Refusal> {
        self.collect(now, wall);
        let tokens = self.tokens(now, wall)?;
        let left = self.left(wall, recipients)?;
        // A part of what is there, so that the other shards find something too.
        let plenty = tokens.min(left) / (2 * u64::from(self.shards));
        let recipients = recipients.max(wish.min(u32::try_from(plenty).unwrap_or(u32::MAX)));
        self.reserve(recipients)?;
        let (number, until) = (self.next_grant, now.plus(GRANT_LIFE));
        self.next_grant += 1;
        self.ever_lent += u64::from(recipients);
        self.lent = self.lent.saturating_add(recipients);
        self.loans.insert(number, Loan { recipients, until: until.plus(GRACE) });
        Ok(Grant { number, recipients, until })
    }

    /// Admits a message that counts against the rate only: one to the simulator.
    ///
    /// # Errors
    /// [`Refusal::Rate`].
    pub fn admit_rate_only(&mut self, now: Mono, wall: Wall, recipients: u32) -> Result<(), Refusal> {
        self.collect(now, wall);
        self.tokens(now, wall)?;
        if self.limits.max_send_rate.is_some() {
            self.bucket.spend(now, recipients);
        }
        Ok(())
    }

    /// Tokens that are not lent. At least one.
    fn tokens(&mut self, now: Mono, _wall: Wall) -> Result<u64, Refusal> {
        if self.limits.max_send_rate.is_none() {
            return Ok(u64::MAX);
        }
        // What is lent is not taken from the bucket before it is used: it keeps new tokens out, as if it were still there.
        let free = self.bucket.tokens(now).saturating_sub(i64::from(self.lent));
        match u64::try_from(free) {
            Ok(free @ 1..) => Ok(free),
            _ => {
                let at = self.bucket.when(now, self.lent.saturating_add(1));
                Err(Refusal::Rate(self.retry_of_rate(now, at)))
            }
        }
    }

    /// What is lent may come back unused: nobody is told to wait for longer than that takes.
    fn retry_of_rate(&self, now: Mono, at: Mono) -> Option<Duration> {
        if self.limits.max_send_rate == Some(0) {
            return None;
        }
        let returned = self.loans.values().map(|loan| loan.until).max();
        Some(returned.map_or(at, |returned| at.min(returned.max(now.plus(GRANT_LIFE)))).since(now))
    }

    /// Recipients left of the daily quota: as many as are asked for, or one, as the limits have it.
    fn left(&mut self, wall: Wall, recipients: u32) -> Result<u64, Refusal> {
        let Some(most) = self.limits.max_24_hour_send.map(u64::from) else { return Ok(u64::MAX) };
        let lent = u64::from(self.lent);
        let left = most.saturating_sub(self.window.total(wall) + lent);
        let needed = if self.limits.last_message_passes { 1 } else { u64::from(recipients) };
        if left >= needed.max(1) {
            return Ok(left);
        }
        let retry = most.checked_sub(needed).filter(|_| most > 0).map(|rest| {
            let at = self.window.when_at_most(wall, rest.saturating_sub(lent));
            at.since(wall).max(GRANT_LIFE)
        });
        Err(Refusal::Quota(retry))
    }

    /// Nothing is lent that is not durable as lent.
    fn reserve(&mut self, recipients: u32) -> Result<(), Refusal> {
        let Some(most) = self.limits.max_24_hour_send else { return Ok(()) };
        let needed = self.ever_lent + u64::from(recipients);
        if needed <= self.durable_limit {
            return Ok(());
        }
        // About what an even day has in a minute: that much a restart may cost the account.
        self.wanted_limit = self.wanted_limit.max(needed + u64::from(most / 1440));
        Err(Refusal::Note)
    }

    /// A shard tells what it used of a grant. Told again, or too late, it changes nothing.
    pub fn used(&mut self, now: Mono, wall: Wall, used: Used) {
        if let Some(loan) = self.loans.remove(&used.grant) {
            self.settle(now, wall, loan, used.recipients.min(loan.recipients));
        }
    }

    fn settle(&mut self, now: Mono, wall: Wall, loan: Loan, used: u32) {
        self.lent -= loan.recipients;
        self.window.add(wall, used);
        if self.limits.max_send_rate.is_some() {
            self.bucket.spend(now, used);
        }
    }

    /// Counts as used what shards that are gone have not told of.
    fn collect(&mut self, now: Mono, wall: Wall) {
        while let Some((&number, &loan)) = self.loans.first_key_value()
            && loan.until <= now
        {
            self.loans.remove(&number);
            self.settle(now, wall, loan, loan.recipients);
        }
    }

    /// What is to be written, if anything is.
    #[must_use]
    pub fn note(&self) -> Option<Note> {
        if self.wanted_limit <= self.durable_limit {
            return None;
        }
        let fresh = self.wanted_limit - self.ever_lent;
        let ahead = u32::try_from(fresh).unwrap_or(u32::MAX).saturating_add(self.lent);
        Some(Note { minutes: self.window.minutes().collect(), ahead, limit: self.wanted_limit })
    }

    /// This note is durable.
    pub fn confirm(&mut self, note: &Note) {
        self.durable_limit = self.durable_limit.max(note.limit);
    }

    /// `SentLast24Hours`: what was used.
    pub fn sent(&mut self, wall: Wall) -> u64 {
        self.window.total(wall)
    }

    /// A percentage of the daily quota that has just been crossed: an event, once per crossing and hour.
    pub fn warning(&mut self, wall: Wall) -> Option<u8> {
        let most = u64::from(self.limits.max_24_hour_send?).max(1);
        let percent = self.window.total(wall) * 100 / most;
        let mut told = None;
        for (threshold, warned) in WARN_AT.into_iter().zip(&mut self.warned) {
            let above = percent >= u64::from(threshold);
            let was_above = std::mem::replace(&mut warned.above, above);
            if above && !was_above && warned.at.is_none_or(|at| wall.since(at) >= WARN_EVERY) {
                (warned.at, told) = (Some(wall), Some(threshold));
            }
        }
        told
    }
}

fn rate_of(limits: Limits) -> (Rate, u32) {
    let rate = limits.max_send_rate.unwrap_or(0);
    (Rate::per_second(rate), rate.saturating_mul(BURST_SECONDS).max(1))
}

/// What a shard asks the control thread for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Recipients of the message that waits.
    pub recipients: u32,
    /// Recipients that would be of use after it.
    pub wish: u32,
    /// What was used of the grant before: tell it first.
    pub before: Option<Used>,
}

/// What a shard may admit without asking. *One per account and shard.*
#[derive(Debug, Default)]
pub struct Purse {
    grant: Option<Grant>,
    used: u32,
    /// Recipients taken since the last grant came: about what the next one is good for.
    recent: u32,
}

impl Purse {
    /// Admits a message, whole.
    ///
    /// # Errors
    /// What to ask the control thread for; nothing is counted.
    pub fn take(&mut self, now: Mono, recipients: u32) -> Result<(), Ask> {
        let left = self.grant.filter(|grant| now < grant.until).map_or(0, |grant| grant.recipients - self.used);
        if recipients <= left {
            self.used += recipients;
            self.recent = self.recent.saturating_add(recipients);
            return Ok(());
        }
        let wish = std::mem::take(&mut self.recent).saturating_mul(2).max(recipients);
        Err(Ask { recipients, wish, before: self.close() })
    }

    /// The grant that the last message was taken from.
    #[must_use]
    pub fn grant(&self) -> Option<u64> {
        self.grant.map(|grant| grant.number)
    }

    /// A message that was taken from this grant is refused after all: it does not count. If the grant has been told of
    /// already, it does.
    pub fn give_back(&mut self, grant: u64, recipients: u32) {
        if self.grant() == Some(grant) {
            self.used = self.used.saturating_sub(recipients);
        }
    }

    /// Puts a grant in, after [`Self::take`] asked for it. Tells what was used of one that was still there.
    pub fn fill(&mut self, grant: Grant) -> Option<Used> {
        let before = self.close();
        self.grant = Some(grant);
        before
    }

    /// What was used of a grant whose time is over, or that is not needed any more: to be told to the control thread.
    pub fn expire(&mut self, now: Mono) -> Option<Used> {
        self.grant.filter(|grant| now >= grant.until)?;
        self.close()
    }

    fn close(&mut self) -> Option<Used> {
        let grant = self.grant.take()?;
        Some(Used { grant: grant.number, recipients: std::mem::take(&mut self.used) })
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
