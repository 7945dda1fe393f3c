//! A token bucket in whole numbers: exact for any rate, however often it is asked.
//!
//! It holds tokens in units so small that a nanosecond's share of any rate is a whole number of them, so nothing is ever
//! rounded away. It may be left in debt by one taking; then nothing passes until the debt is paid.

use crate::time::Mono;
use std::time::Duration;

/// So many tokens in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens; zero: it never fills.
    pub tokens: u32,
    /// In this time; at least a nanosecond.
    pub per: Duration,
}

impl Rate {
    /// Tokens a second.
    #[must_use]
    pub const fn per_second(tokens: u32) -> Self {
        Self { tokens, per: Duration::from_secs(1) }
    }

    /// Units of one token: with this many, each nanosecond brings `tokens` units.
    fn unit(self) -> i128 {
        i128::try_from(self.per.as_nanos()).unwrap_or(i128::MAX).max(1)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    capacity: u32,
    /// In units of the rate; below zero: debt.
    level: i128,
    /// Up to then it is filled.
    at: Mono,
}

impl Bucket {
    /// With all the tokens it can hold.
    #[must_use]
    pub fn full(rate: Rate, capacity: u32, now: Mono) -> Self {
        Self { rate, capacity, level: i128::from(capacity) * rate.unit(), at: now }
    }

    /// With none.
    #[must_use]
    pub fn empty(rate: Rate, capacity: u32, now: Mono) -> Self {
        Self { rate, capacity, level: 0, at: now }
    }

    /// Most tokens it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whole tokens now; negative: debt.
    pub fn tokens(&mut self, now: Mono) -> i64 {
        self.fill(now);
        i64::try_from(self.level.div_euclid(self.rate.unit())).unwrap_or(i64::MIN)
    }

    /// Takes `count` if there are at least `least`, which may leave a debt. `least` equal to `count` never does.
    ///
    /// # Errors
    /// The time at which there are `least`, if nothing is taken before; `Mono(u64::MAX)` if there never are.
    pub fn take(&mut self, now: Mono, count: u32, least: u32) -> Result<(), Mono> {
        let at = self.when(now, least);
        if at > now {
            return Err(at);
        }
        self.level -= i128::from(count) * self.rate.unit();
        Ok(())
    }

    /// Takes `count` whatever there is: it has happened already.
    pub fn spend(&mut self, now: Mono, count: u32) {
        self.fill(now);
        self.level -= i128::from(count) * self.rate.unit();
    }

    /// Tokens that were taken and not used.
    pub fn give_back(&mut self, count: u32) {
        let unit = self.rate.unit();
        self.level = (self.level + i128::from(count) * unit).min(i128::from(self.capacity) * unit);
    }

    /// When there are `least` tokens if nothing is taken before: `now` if there are.
    pub fn when(&mut self, now: Mono, least: u32) -> Mono {
        self.fill(now);
        let missing = i128::from(least) * self.rate.unit() - self.level;
        if missing <= 0 {
            return now;
        }
        if self.rate.tokens == 0 || least > self.capacity {
            return Mono(u64::MAX);
        }
        let tokens = i128::from(self.rate.tokens);
        let wait = (missing + tokens - 1) / tokens;
        // It fills from `at` on, which a caller with an older time may be behind of.
        Mono(self.at.0.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// Another rate and capacity from now on. Tokens and debts stay, up to the new capacity.
    pub fn change(&mut self, now: Mono, rate: Rate, capacity: u32) {
        self.fill(now);
        let (old, new) = (self.rate.unit(), rate.unit());
        let tokens = self.level.div_euclid(old);
        let part = self.level.rem_euclid(old).saturating_mul(new) / old;
        (self.rate, self.capacity) = (rate, capacity);
        self.level = (tokens * new + part).min(i128::from(capacity) * new);
    }

    fn fill(&mut self, now: Mono) {
        let passed = i128::from(now.0.saturating_sub(self.at.0));
        self.at = self.at.max(now);
        let most = i128::from(self.capacity) * self.rate.unit();
        self.level = (self.level + passed * i128::from(self.rate.tokens)).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * SECOND)
    }

    #[test]
    fn a_message_of_five_at_one_a_second_passes_and_is_followed_by_five_seconds_of_refusals() {
        let mut bucket = Bucket::empty(Rate::per_second(1), 5, at(0));
        assert_eq!(bucket.take(at(0), 5, 1), Err(at(1)));
        assert_eq!(bucket.take(at(1), 5, 1), Ok(()));
        assert_eq!(bucket.tokens(at(1)), -4);
        assert_eq!(bucket.take(at(5), 1, 1), Err(at(6)));
        assert_eq!(bucket.take(at(6), 1, 1), Ok(()));
    }

    #[test]
    fn what_can_never_pass_says_so() {
        let mut bucket = Bucket::full(Rate::per_second(1), 5, at(0));
        assert_eq!(bucket.take(at(0), 6, 6), Err(Mono(u64::MAX)));
        assert_eq!(bucket.take(at(0), 5, 5), Ok(()));
        bucket.change(at(0), Rate::per_second(0), 5);
        assert_eq!(bucket.take(at(9), 1, 1), Err(Mono(u64::MAX)));
    }

    #[test]
    fn a_change_keeps_the_tokens_and_the_debt() {
        let mut bucket = Bucket::full(Rate::per_second(10), 50, at(0));
        bucket.change(at(0), Rate { tokens: 7, per: Duration::from_secs(3600) }, 20);
        assert_eq!(bucket.tokens(at(0)), 20);
        assert_eq!(bucket.take(at(0), 30, 1), Ok(()));
        bucket.change(at(0), Rate::per_second(10), 50);
        assert_eq!(bucket.tokens(at(0)), -10);
        assert_eq!(bucket.tokens(at(2)), 10);
    }

    #[test]
    fn a_clock_that_is_behind_brings_nothing_and_takes_nothing() {
        let mut bucket = Bucket::empty(Rate::per_second(1), 5, at(10));
        assert_eq!(bucket.tokens(at(3)), 0);
        assert_eq!(bucket.tokens(at(11)), 1);
        assert_eq!(bucket.tokens(at(4)), 1);
    }

    proptest! {
        /// Over any stretch of time no more passes than what it can hold, and what came in.
        #[test]
        fn never_more_than_the_rate_and_the_capacity(
            tokens in 1_u32..1000, per in 1_u64..10_000_000_000, capacity in 1_u32..500,
            steps in prop::collection::vec((0_u64..3_000_000_000, 1_u32..60), 1..200),
        ) {
            let rate = Rate { tokens, per: Duration::from_nanos(per) };
            let mut bucket = Bucket::full(rate, capacity, Mono(0));
            let (mut now, mut taken) = (0_u64, 0_u128);
            for (wait, count) in steps {
                now += wait;
                if bucket.take(Mono(now), count, count).is_ok() {
                    taken += u128::from(count);
                }
                prop_assert!(taken * u128::from(per) <= u128::from(capacity) * u128::from(per) + u128::from(now) * u128::from(tokens));
            }
        }

        /// Asking often changes nothing, and the time that is told is exact.
        #[test]
        fn the_time_told_is_the_first_at_which_it_passes(
            tokens in 1_u32..1000, per in 1_u64..10_000_000_000, capacity in 1_u32..500, count in 1_u32..500,
            looks in prop::collection::vec(0_u64..1_000_000, 0..50),
        ) {
            let count = count.min(capacity);
            let rate = Rate { tokens, per: Duration::from_nanos(per) };
            let mut bucket = Bucket::empty(rate, capacity, Mono(0));
            let told = bucket.when(Mono(0), count);
            let mut now = 0;
            for wait in looks {
                now += wait;
                if now < told.0 {
                    prop_assert_eq!(bucket.when(Mono(now), count), told);
                }
            }
            let before = Mono(told.0 - 1);
            prop_assert!(now >= before.0 || bucket.take(before, count, count).is_err());
            prop_assert_eq!(bucket.take(Mono(told.0.max(now)), count, count), Ok(()));
        }

        /// SES's bound: with one token a message of up to 50 passes.
        #[test]
        fn the_worst_case_of_the_sending_rate_holds(
            rate in 1_u32..100, steps in prop::collection::vec((0_u64..5_000_000_000, 1_u32..=50), 1..300),
        ) {
            let mut bucket = Bucket::full(Rate::per_second(rate), rate * 5, Mono(0));
            let (mut now, mut taken) = (0_u64, 0_u64);
            for (wait, count) in steps {
                now += wait;
                if bucket.take(Mono(now), count, 1).is_ok() {
                    taken += u64::from(count);
                }
                prop_assert!(taken <= u64::from(rate) * now / SECOND + u64::from(rate) * 5 + 49);
            }
        }
    }
}
