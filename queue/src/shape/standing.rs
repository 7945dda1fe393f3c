//! What holds between one leased IP and one provider now: the rate, the connections, a suspension, and the way back.
//! *One per (leased IP, provider), in the shard that owns the leased IP.*
//!
//! Each complaint of the provider is a step down: half the rate, half the connections, or a time of silence. Complaints that
//! come together are one, as they answer what was sent before the step. Each time of quiet is a step back up. It must never
//! let more go than the rate, and no suspension lasts for ever.

use super::{
    reply::{Answer, Then},
    table::Provider,
};
use crate::{
    bucket::{Bucket, Rate},
    time::{Mono, Wall},
};
use std::{sync::Arc, time::Duration};

/// Complaints within this time of a step are about what went before it.
const TOGETHER: Duration = Duration::from_secs(30);
/// Most steps down: a thousandth.
const LOWEST: u32 = 10;
/// Longest suspension that replies bring about.
const SILENCE: Duration = Duration::from_secs(86_400);
/// Where there is no rate, the first step down is from what went in this time.
const MEASURED: Duration = Duration::from_secs(60);
/// And from this much a minute at least: below it, half would mean next to nothing.
const MEASURED_LEAST: u32 = 12;

/// How things stand, for those who ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Steps down of the rate.
    pub slower: u32,
    /// Steps down of the connections.
    pub fewer: u32,
    /// The rate in force.
    pub rate: Option<Rate>,
    /// Connections in force.
    pub connections: Option<u32>,
    /// Nothing goes before.
    pub suspended: Option<Mono>,
    /// It was an operator who suspended it.
    pub by_operator: bool,
    /// The next step back up.
    pub recovers: Option<Mono>,
    /// What was last complained of, and when.
    pub reason: Option<(Wall, Arc<str>)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Shape {
    provider: Arc<Provider>,
    /// Taken out of without a rate as well: then it is none.
    bucket: Option<Bucket>,
    /// Rate without steps down: the provider's, or what was measured at the first one.
    base: Option<Rate>,
    slower: u32,
    fewer: u32,
    suspended: Option<(Mono, bool)>,
    /// Suspensions in a row.
    silences: u32,
    /// When the last step down was.
    stepped: Option<Mono>,
    /// When the next step up is.
    recovers: Option<Mono>,
    reason: Option<(Wall, Arc<str>)>,
    /// Messages of the span that is being measured, of the one before, and when it began.
    spans: (u32, u32, Mono),
}

impl Shape {
    /// Nothing is known against it.
    #[must_use]
    pub fn new(provider: Arc<Provider>, now: Mono) -> Self {
        let base = provider.rate;
        let bucket = base.map(|rate| Bucket::full(rate, provider.burst_of(rate), now));
        Self {
            provider,
            bucket,
            base,
            slower: 0,
            fewer: 0,
            suspended: None,
            silences: 0,
            stepped: None,
            recovers: None,
            reason: None,
            spans: (0, 0, now),
        }
    }

    /// The provider's settings.
    #[must_use]
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Other settings, from now on. Steps down stay.
    pub fn change(&mut self, now: Mono, provider: Arc<Provider>) {
        self.advance(now);
        if provider.rate.is_some() || self.slower == 0 {
            self.base = provider.rate;
        }
        self.provider = provider;
        self.apply(now);
    }

    /// Brings it to this time: suspensions end, steps are taken back.
    pub fn advance(&mut self, now: Mono) {
        if let Some((until, _)) = self.suspended.filter(|(until, _)| *until <= now) {
            self.suspended = None;
            // A receiver that wanted silence is approached with care.
            (self.slower, self.fewer) = (self.slower.max(2), self.fewer.max(2));
            self.base = self.base.or(Some(Rate { tokens: MEASURED_LEAST * 4, per: MEASURED }));
            self.recovers = Some(until.plus(self.provider.recover));
            self.apply(until);
        }
        while let Some(at) = self.recovers.filter(|at| *at <= now && self.suspended.is_none()) {
            self.slower = self.slower.saturating_sub(1);
            self.fewer = self.fewer.saturating_sub(1);
            let well = self.slower == 0 && self.fewer == 0;
            if well {
                (self.silences, self.base) = (0, self.provider.rate);
            }
            self.recovers = (!well).then(|| at.plus(self.provider.recover));
            self.apply(at);
        }
    }

    /// When the next message may go: `now` if it may.
    pub fn opens(&mut self, now: Mono) -> Mono {
        self.advance(now);
        match (self.suspended, &mut self.bucket) {
            (Some((until, _)), _) => until,
            (None, Some(bucket)) => bucket.when(now, 1),
            (None, None) => now,
        }
    }

    /// Messages that may go at once now.
    pub fn tokens(&mut self, now: Mono) -> u32 {
        self.advance(now);
        match (self.suspended, &mut self.bucket) {
            (Some(_), _) => 0,
            (None, Some(bucket)) => u32::try_from(bucket.tokens(now).max(0)).unwrap_or(u32::MAX),
            (None, None) => u32::MAX,
        }
    }

    /// So many messages go, one after the other. More than a burst leave a debt, which the next ones wait for.
    ///
    /// # Errors
    /// None may before this time.
    pub fn take(&mut self, now: Mono, messages: u32) -> Result<(), Mono> {
        let opens = self.opens(now);
        if opens > now {
            return Err(opens);
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now, messages, 1)?;
        }
        self.measure(now);
        self.spans.0 = self.spans.0.saturating_add(messages);
        Ok(())
    }

    /// Messages that were taken did not go.
    pub fn give_back(&mut self, messages: u32) {
        if let Some(bucket) = &mut self.bucket {
            bucket.give_back(messages);
        }
        self.spans.0 = self.spans.0.saturating_sub(messages);
    }

    fn measure(&mut self, now: Mono) {
        let passed = now.since(self.spans.2);
        if passed >= MEASURED {
            let before = if passed < MEASURED * 2 { self.spans.0 } else { 0 };
            self.spans = (0, before, now);
        }
    }

    /// Connections that it may have now; none: no limit of the provider.
    #[must_use]
    pub fn connections(&self) -> Option<u32> {
        let silent = self.suspended.is_some();
        let base = self.provider.connections.or((self.fewer > 0).then_some(8));
        base.map(|most| if silent { 0 } else { (most >> self.fewer.min(31)).max(1) })
    }

    /// Until when nothing goes, as of the last time it was told.
    #[must_use]
    pub fn suspended(&self) -> Option<Mono> {
        self.suspended.map(|(until, _)| until)
    }

    /// When something changes by time alone.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.suspended().or(self.recovers)
    }

    /// A reply that is answered so. What it did: nothing, if it was said of what went before the last step.
    pub fn complain(&mut self, now: Mono, wall: Wall, answer: &Answer, reply: &str) -> Then {
        self.advance(now);
        let together = self.stepped.is_some_and(|at| now.since(at) < TOGETHER);
        if answer.then == Then::Nothing || self.suspended.is_some() || (together && answer.then != Then::Suspend) {
            return Then::Nothing;
        }
        match answer.then {
            Then::Nothing => {}
            Then::Slower => {
                let measured = self.spans.0.max(self.spans.1).max(MEASURED_LEAST);
                self.base = self.base.or(Some(Rate { tokens: measured, per: MEASURED }));
                self.slower = (self.slower + 1).min(LOWEST);
            }
            Then::Fewer => self.fewer = (self.fewer + 1).min(LOWEST),
            Then::Suspend => {
                let time = answer.time.saturating_mul(1 << self.silences.min(16)).min(SILENCE.max(answer.time));
                self.silences += 1;
                self.suspended = Some((now.plus(time), false));
            }
        }
        self.stepped = Some(now);
        self.recovers = Some(now.plus(self.provider.recover));
        self.reason = Some((wall, reply.chars().take(300).collect::<String>().into()));
        self.apply(now);
        answer.then
    }

    /// An operator wants it left alone.
    pub fn suspend(&mut self, now: Mono, wall: Wall, until: Mono, why: &str) {
        self.advance(now);
        self.suspended = Some((until.max(now), true));
        self.reason = Some((wall, why.chars().take(300).collect::<String>().into()));
    }

    /// All is forgiven.
    pub fn lift(&mut self, now: Mono) {
        self.advance(now);
        (self.slower, self.fewer, self.silences) = (0, 0, 0);
        (self.suspended, self.stepped, self.recovers) = (None, None, None);
        self.base = self.provider.rate;
        self.apply(now);
    }

    fn apply(&mut self, now: Mono) {
        let Some(rate) = self.rate() else {
            self.bucket = None;
            return;
        };
        let burst = (self.provider.burst_of(self.base.unwrap_or(rate)) >> self.slower.min(31)).max(1);
        match &mut self.bucket {
            Some(bucket) => bucket.change(now, rate, burst),
            None => self.bucket = Some(Bucket::empty(rate, burst, now)),
        }
    }

    fn rate(&self) -> Option<Rate> {
        let base = self.base?;
        Some(Rate { tokens: base.tokens, per: base.per.saturating_mul(1 << self.slower.min(31)) })
    }

    /// How things stand.
    pub fn standing(&mut self, now: Mono) -> Standing {
        self.advance(now);
        Standing {
            slower: self.slower,
            fewer: self.fewer,
            rate: self.rate(),
            connections: self.connections(),
            suspended: self.suspended(),
            by_operator: self.suspended.is_some_and(|(_, operator)| operator),
            recovers: self.recovers.filter(|_| self.suspended.is_none()),
            reason: self.reason.clone(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
