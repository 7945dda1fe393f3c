//! What is rehearsed: who sends how much to whom on which day, by which leased IPs, and how finely it is looked at.

use super::receiver::Model;
use crate::{egress, policy::Policy, retry::RetrySchedule};
use std::{sync::Arc, time::Duration};

/// Most messages that are looked at one by one.
pub const SINGLY: u64 = 300_000;
/// About so many crowds are made of more.
const CROWDS: u64 = 1_000_000;
/// Largest crowd: no decision is about more.
const CROWD_MOST: u64 = 20_000;
/// Most days.
pub const DAYS_MAX: u32 = 365;
/// Most recipients of a day: the queue and its figures stay far from their limits.
pub const VOLUME_MAX: u64 = 200_000_000;

/// Recipients of each day.
#[derive(Clone, Debug, PartialEq)]
pub enum Volume {
    /// The same on each.
    Constant(u64),
    /// One number a day; the last holds on.
    Table(Vec<u64>),
    /// From `start` by `factor` a day up to `target`.
    Growth {
        /// First day.
        start: u64,
        /// A day, 1 at least.
        factor: f64,
        /// Most.
        target: u64,
    },
}

impl Volume {
    /// Of the `day`th day of the stream, from 1.
    #[must_use]
    pub fn of(&self, day: u32) -> u64 {
        let nth = day.saturating_sub(1);
        match self {
            Self::Constant(all) => *all,
            Self::Table(days) => days.get(nth as usize).or(days.last()).copied().unwrap_or(0),
            Self::Growth { start, factor, target } => {
                let mut volume = *start as f64;
                for _ in 0..nth {
                    volume = (volume * factor).min(*target as f64);
                }
                (volume as u64).min(*target)
            }
        }
    }
}

/// Mail of one kind.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Unique.
    pub name: Arc<str>,
    /// Who sends.
    pub account: Arc<str>,
    /// The pool that it names, as `X-Mailrail-Pool` would.
    pub pool: Option<Arc<str>>,
    /// Receivers by position, and what part of the volume each gets.
    pub to: Vec<(usize, u64)>,
    /// How much.
    pub volume: Volume,
    /// The day's shape: a weight for each hour.
    pub hours: [u32; 24],
    /// Share of addresses that do not exist.
    pub unknown: f64,
    /// Days on which it is sent, from 1.
    pub days: (u32, u32),
}

impl Stream {
    /// Recipients of a day of the campaign, from 1.
    #[must_use]
    pub fn volume(&self, day: u32) -> u64 {
        let (first, last) = self.days;
        if (first..=last).contains(&day) { self.volume.of(day + 1 - first) } else { 0 }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Pools, leased IPs, accounts, providers.
    pub policy: Policy,
    /// The day on which each leased IP is leased, from 1, in the order of the policy.
    pub leased: Vec<u32>,
    /// What is sent.
    pub streams: Vec<Stream>,
    /// Who receives.
    pub receivers: Vec<Model>,
    /// How long.
    pub days: u32,
    /// What is not delivered in this time is given up.
    pub max_age: Duration,
    /// Waits between tries, where a provider has none of its own.
    pub retry: RetrySchedule,
    /// Connections a lane.
    pub connections: u32,
    /// Time that one message takes on one connection.
    pub message: Duration,
    /// Recipients of a crowd; none: chosen by the volume.
    pub crowd: Option<u32>,
    /// Of all that is left to chance.
    pub seed: u64,
}

/// How finely a campaign is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Grain {
    /// Recipients of one stream to one receiver that are decided about together, at most; 1: message by message.
    pub crowd: u32,
    /// The queue is looked at no more often than this, in milliseconds.
    pub tick_ms: u64,
}

impl Campaign {
    /// Recipients of a day, from 1.
    #[must_use]
    pub fn volume(&self, day: u32) -> u64 {
        self.streams.iter().map(|stream| stream.volume(day)).sum()
    }

    /// Recipients of all days.
    #[must_use]
    pub fn total(&self) -> u64 {
        (1..=self.days).map(|day| self.volume(day)).sum()
    }

    /// Message by message if they are few.
    #[must_use]
    pub fn grain(&self) -> Grain {
        let total = self.total();
        let crowd = if total <= SINGLY { 1 } else { total.div_ceil(CROWDS).clamp(2, CROWD_MOST) as u32 };
        let crowd = self.crowd.unwrap_or(crowd).max(1);
        Grain { crowd, tick_ms: if crowd == 1 { 1_000 } else { 5_000 } }
    }

    /// # Errors
    /// Why it cannot be run, in words.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=DAYS_MAX).contains(&self.days) {
            return Err(format!("days = {}: 1 to {DAYS_MAX}", self.days));
        }
        if self.leased.len() != self.policy.leases.len() || self.policy.leases.is_empty() {
            return Err("there is no leased IP: nothing could be sent".into());
        }
        if self.streams.is_empty() || self.receivers.is_empty() {
            return Err("there is no stream, or no receiver: nothing would be sent".into());
        }
        if let Some(day) = (1..=self.days).find(|day| self.volume(*day) > VOLUME_MAX) {
            return Err(format!("{} recipients on day {day}: at most {VOLUME_MAX}", self.volume(day)));
        }
        for stream in &self.streams {
            let name = &stream.name;
            let bad = |why: String| Err(format!("stream \"{name}\": {why}"));
            match egress::pool_of(&self.policy, &stream.account, stream.pool.as_deref()) {
                Ok(Some(_)) => {}
                Ok(None) => return bad("there is no pool for it that has an IP".into()),
                Err(unknown) => return bad(format!("{unknown}, or is another account's")),
            }
            if stream.to.iter().all(|(_, parts)| *parts == 0) {
                return bad("goes to nobody".into());
            }
            if stream.to.iter().any(|(to, _)| *to >= self.receivers.len()) {
                return bad("goes to a receiver that there is not".into());
            }
            if stream.hours.iter().all(|weight| *weight == 0) {
                return bad("has no hour in which it is sent".into());
            }
            if stream.days.0 == 0 || stream.days.0 > stream.days.1 {
                return bad("is sent on no day".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_constant_listed_or_grow() {
        let days = |volume: Volume| [1, 2, 3, 4].map(|day| volume.of(day));
        assert_eq!(days(Volume::Constant(7)), [7; 4]);
        assert_eq!(days(Volume::Table(vec![1, 5])), [1, 5, 5, 5]);
        assert_eq!(days(Volume::Growth { start: 10, factor: 1.5, target: 20 }), [10, 15, 20, 20]);
        assert_eq!(days(Volume::Table(vec![])), [0; 4]);
    }
}
