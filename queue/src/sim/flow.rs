//! Mail as it comes: each stream to each receiver, over the hours of its days, in crowds of at most the grain.

use super::campaign::Campaign;
use std::{cmp::Reverse, collections::BinaryHeap};

const HOUR: u64 = 3_600_000;
pub(super) const DAY: u64 = 24 * HOUR;

/// Mail that comes at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival {
    /// Milliseconds since the campaign began.
    pub(super) at: u64,
    pub(super) stream: u32,
    pub(super) receiver: u32,
    pub(super) count: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flow {
    arrivals: BinaryHeap<Reverse<Source>>,
}

/// What comes of one stream for one receiver in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    at: u64,
    stream: u32,
    receiver: u32,
    begins: u64,
    all: u64,
    crowds: u64,
    next: u64,
    /// Where in its part of the hour each comes.
    phase: u64,
}

impl Source {
    fn timed(mut self) -> Self {
        self.at = self.begins + (self.next * HOUR + self.phase) / self.crowds.max(1);
        self
    }
}

impl Flow {
    /// Adds all that comes on a day, from 1.
    pub(super) fn begin_day(&mut self, campaign: &Campaign, day: u32, grain: u32, chance: &mut impl FnMut() -> u64) {
        let begin = u64::from(day - 1) * DAY;
        for (number, stream) in campaign.streams.iter().enumerate() {
            let volume = stream.volume(day);
            let parts: u64 = stream.to.iter().map(|(_, parts)| parts).sum();
            let weights: u64 = stream.hours.iter().map(|weight| u64::from(*weight)).sum();
            let (mut given, mut sum) = (0, 0);
            for (receiver, part) in &stream.to {
                sum += part;
                let own = portion(volume, sum, parts) - given;
                given += own;
                let (mut sent, mut weight) = (0, 0);
                for (hour, of) in stream.hours.iter().enumerate() {
                    weight += u64::from(*of);
                    let all = portion(own, weight, weights) - sent;
                    sent += all;
                    let phase = chance() % HOUR;
                    if all == 0 {
                        continue;
                    }
                    let (stream, receiver) = (number as u32, *receiver as u32);
                    let (begins, crowds) = (begin + hour as u64 * HOUR, all.div_ceil(u64::from(grain)));
                    let source = Source { at: 0, stream, receiver, begins, all, crowds, next: 0, phase };
                    self.arrivals.push(Reverse(source.timed()));
                }
            }
        }
    }

    /// When the next mail comes.
    pub(super) fn next(&self) -> Option<u64> {
        self.arrivals.peek().map(|Reverse(source)| source.at)
    }

    /// The next mail that has come by this time.
    pub(super) fn pop(&mut self, now: u64) -> Option<Arrival> {
        let Reverse(mut source) = self.arrivals.pop()?;
        if source.at > now {
            self.arrivals.push(Reverse(source));
            return None;
        }
        let until = |n: u64| portion(source.all, n, source.crowds);
        let count = (until(source.next + 1) - until(source.next)) as u32;
        let arrival = Arrival { at: source.at, stream: source.stream, receiver: source.receiver, count };
        source.next += 1;
        if source.next < source.crowds {
            self.arrivals.push(Reverse(source.timed()));
        }
        Some(arrival)
    }
}

/// `part` of `whole`, of `all`: rounded so that all parts together are all.
fn portion(all: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(all) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}
