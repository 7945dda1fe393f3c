//! When to try again: exponential back-off with jitter, up to the message's age limit.

use crate::time::Wall;
use std::time::Duration;

/// How the waits grow.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySchedule {
    /// Wait after the first failed try.
    pub first: Duration,
    /// Each further wait is so many times the one before.
    pub factor: u32,
    /// Longest wait.
    pub max: Duration,
    /// Each wait is up to so many percent shorter or longer, so that what failed together does not come back together.
    pub jitter_percent: u32,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        let (first, max) = (Duration::from_secs(5 * 60), Duration::from_secs(4 * 3600));
        Self { first, factor: 2, max, jitter_percent: 10 }
    }
}

impl RetrySchedule {
    /// Waits of a whole site that cannot be reached or wants to be left alone: shorter, as all of its mail waits.
    #[must_use]
    pub fn of_sites() -> Self {
        Self { first: Duration::from_secs(15), factor: 2, max: Duration::from_secs(30 * 60), jitter_percent: 10 }
    }

    /// Wait after the `attempts`th failed try (from 1); `chance` is any number.
    #[must_use]
    pub fn wait(&self, attempts: u16, chance: u64) -> Duration {
        let doublings = u32::from(attempts.saturating_sub(1)).min(31);
        let growth = self.factor.max(1).saturating_pow(doublings);
        let base = self.first.saturating_mul(growth).min(self.max);
        let spread = base / 100 * self.jitter_percent.min(100);
        let width = 2 * u64::try_from(spread.as_millis()).unwrap_or(0) + 1;
        base.saturating_sub(spread) + Duration::from_millis(chance % width)
    }

    /// When to try again, or none if that is too late for a message that expires at `expires`.
    #[must_use]
    pub fn next(&self, now: Wall, attempts: u16, expires: Wall, chance: u64) -> Option<Wall> {
        let at = now.plus(self.wait(attempts, chance));
        (at < expires).then_some(at)
    }
}

/// A well spread number from a seed and a counter (SplitMix64).
#[must_use]
pub(crate) fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_stay_within_the_jitter() {
        let schedule = RetrySchedule::default();
        for (attempts, minutes) in [(1, 5), (2, 10), (3, 20), (4, 40), (7, 240), (60_000, 240)] {
            let base = Duration::from_secs(minutes * 60);
            for chance in [0, 1, 77_777, u64::MAX] {
                let wait = schedule.wait(attempts, chance);
                assert!(wait >= base * 9 / 10 && wait <= base * 11 / 10, "{attempts}: {wait:?}");
            }
        }
    }

    #[test]
    fn a_try_that_would_come_too_late_is_not_made() {
        let schedule = RetrySchedule { jitter_percent: 0, ..RetrySchedule::default() };
        assert_eq!(schedule.next(Wall(0), 1, Wall(300_001), 0), Some(Wall(300_000)));
        assert_eq!(schedule.next(Wall(0), 1, Wall(300_000), 0), None);
    }
}
