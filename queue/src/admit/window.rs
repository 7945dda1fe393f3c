//! Recipients of the last 24 hours, by minute.

use crate::time::Wall;

const MINUTE_MS: u64 = 60_000;
/// A minute counts until 24 hours after its end: these, and the one that is not over.
const MINUTES: usize = 1441;

/// *One per account, control thread.* Never forgets a recipient before 24 hours have passed; a clock that goes back makes it
/// remember for longer.
#[derive(Clone, Debug)]
pub(super) struct Window {
    counts: Box<[u32]>,
    /// The latest minute seen, counted from 1970.
    head: u64,
    total: u64,
}

impl Window {
    pub(super) fn new(wall: Wall) -> Self {
        Self { counts: vec![0; MINUTES].into(), head: wall.0 / MINUTE_MS, total: 0 }
    }

    /// Recipients that count now.
    pub(super) fn total(&mut self, wall: Wall) -> u64 {
        self.advance(wall);
        self.total
    }

    /// Counts recipients, now.
    pub(super) fn add(&mut self, wall: Wall, recipients: u32) {
        self.advance(wall);
        self.count(self.head, recipients);
    }

    fn count(&mut self, minute: u64, recipients: u32) {
        let slot = &mut self.counts[minute as usize % MINUTES];
        let before = *slot;
        *slot = before.saturating_add(recipients);
        self.total += u64::from(*slot - before);
    }

    fn advance(&mut self, wall: Wall) {
        let minute = wall.0 / MINUTE_MS;
        for passed in 1..=minute.saturating_sub(self.head).min(MINUTES as u64) {
            let slot = &mut self.counts[(self.head + passed) as usize % MINUTES];
            self.total -= u64::from(std::mem::take(slot));
        }
        self.head = self.head.max(minute);
    }

    /// When at most `most` recipients of now will count; `wall` if that is so already.
    pub(super) fn when_at_most(&mut self, wall: Wall, most: u64) -> Wall {
        self.advance(wall);
        let mut left = self.total;
        if left <= most {
            return wall;
        }
        for (minute, count) in self.minutes() {
            left -= u64::from(count);
            if left <= most {
                return Wall((minute + MINUTES as u64) * MINUTE_MS);
            }
        }
        wall
    }

    /// Minutes in which there was something, the oldest first.
    pub(super) fn minutes(&self) -> impl Iterator<Item = (u64, u32)> {
        let minutes = (0..MINUTES as u64).rev().filter_map(|ago| self.head.checked_sub(ago));
        minutes.map(|minute| (minute, self.counts[minute as usize % MINUTES])).filter(|(_, count)| *count > 0)
    }

    /// From what [`Self::minutes`] told. What is older than 24 hours is left out; what is later than now counts as of now.
    pub(super) fn restore(wall: Wall, minutes: &[(u64, u32)]) -> Self {
        let mut window = Self::new(wall);
        for (minute, count) in minutes {
            if window.head.saturating_sub(*minute) < MINUTES as u64 {
                window.count((*minute).min(window.head), *count);
            }
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 1440 * MINUTE_MS;

    #[test]
    fn a_minute_counts_until_24_hours_after_its_end() {
        let start = 20_000 * DAY;
        let mut window = Window::new(Wall(start));
        window.add(Wall(start + 5), 7);
        window.add(Wall(start + MINUTE_MS), 1);
        assert_eq!(window.total(Wall(start + DAY + MINUTE_MS - 1)), 8);
        assert_eq!(window.when_at_most(Wall(start + DAY), 1), Wall(start + DAY + MINUTE_MS));
        assert_eq!(window.when_at_most(Wall(start + DAY), 8), Wall(start + DAY));
        assert_eq!(window.total(Wall(start + DAY + MINUTE_MS)), 1);
        assert_eq!(window.total(Wall(start + 9 * DAY)), 0);
    }

    proptest! {
        #[test]
        fn it_counts_what_a_list_of_all_of_them_does(
            steps in prop::collection::vec((0_u64..3 * 3_600_000, 0_u32..50), 1..300),
        ) {
            let start = 20_000 * DAY;
            let (mut now, mut all) = (start, Vec::new());
            let mut window = Window::new(Wall(now));
            for (wait, count) in steps {
                now += wait;
                window.add(Wall(now), count);
                all.push((now / MINUTE_MS, u64::from(count)));
                let of_a_day = |at: u64| all.iter().filter(|(m, _)| at < (m + 1441) * MINUTE_MS).map(|(_, n)| n).sum::<u64>();
                prop_assert_eq!(window.total(Wall(now)), of_a_day(now));
                let half = window.total(Wall(now)) / 2;
                let when = window.when_at_most(Wall(now), half).0;
                prop_assert!(of_a_day(when) <= half && (when == now || of_a_day(when - 1) > half));
                let minutes: Vec<_> = window.minutes().collect();
                prop_assert_eq!(Window::restore(Wall(now), &minutes).total(Wall(now)), window.total(Wall(now)));
            }
        }
    }
}
