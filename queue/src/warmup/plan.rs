//! The warm-up plan: the most recipients of each day. A table of whole numbers; the standard one is normative.
//!
//! Host-wide and immutable: one plan serves any number of leased IPs.

use std::sync::Arc;
use thiserror::Error;

/// The standard plan: 45 days to 50,000 recipients a day. The table is the specification; it was made of
/// `50 * 1000^((d-1)/44)`, cut to two significant digits.
const STANDARD: [u32; 45] = [
    50, 58, 68, 80, 93, 100, 120, 150, 170, // 1 to 9
    200, 240, 280, 320, 380, 450, 520, 610, 720, // 10 to 18
    840, 980, 1_100, 1_300, 1_500, 1_800, 2_100, 2_500, 2_900, // 19 to 27
    3_400, 4_000, 4_700, 5_500, 6_400, 7_500, 8_800, 10_000, 12_000, // 28 to 36
    14_000, 16_000, 19_000, 22_000, 26_000, 31_000, 36_000, 42_000, 50_000, // 37 to 45
];

/// Most days of a plan.
pub const DAYS_MAX: usize = 365;

/// A list of caps, one for each day from 1. After its last day an IP is done: it has no cap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan(Arc<[u32]>);

/// A plan that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// No day.
    #[error("a warm-up plan needs at least one day")]
    Empty,
    /// Too many days.
    #[error("a warm-up plan has at most {DAYS_MAX} days, this one has {days}")]
    TooLong {
        /// How many.
        days: usize,
    },
    /// A day on which nothing may be sent.
    #[error("day {day} of the warm-up plan has a cap of 0: nothing could be sent on it; the least is 1")]
    Zero {
        /// Which day, from 1.
        day: usize,
    },
    /// A cap below the one before.
    #[error(
        "the warm-up plan falls on day {day}, from {from} to {to}: each day must allow at least what the day before did"
    )]
    Falls {
        /// Which day, from 1.
        day: usize,
        /// Cap of the day before.
        from: u32,
        /// Its cap.
        to: u32,
    },
    /// Growth that does not get there.
    #[error(
        "growing from {start} by {factor_permille}/1000 a day does not reach {target} in {DAYS_MAX} days: raise the factor or the start"
    )]
    TooSlow {
        /// First cap.
        start: u32,
        /// Factor a day, in thousandths.
        factor_permille: u32,
        /// Last cap.
        target: u32,
    },
}

impl Plan {
    /// The plan that every newly leased dedicated IP enters.
    #[must_use]
    pub fn standard() -> Self {
        Self(Arc::new(STANDARD))
    }

    /// A plan of the user's own: caps of day 1, day 2, and so on.
    ///
    /// # Errors
    /// [`PlanError`] if it has no day or too many, a day without mail, or falls.
    pub fn table(caps: &[u32]) -> Result<Self, PlanError> {
        match caps.len() {
            0 => return Err(PlanError::Empty),
            1..=DAYS_MAX => {}
            days => return Err(PlanError::TooLong { days }),
        }
        if let Some(index) = caps.iter().position(|cap| *cap == 0) {
            return Err(PlanError::Zero { day: index + 1 });
        }
        if let Some(index) = caps.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(PlanError::Falls { day: index + 2, from: caps[index], to: caps[index + 1] });
        }
        Ok(Self(caps.into()))
    }

    /// A plan that grows from `start` by a factor a day, given in thousandths, up to `target` on its last day.
    ///
    /// # Errors
    /// [`PlanError`] if it starts at 0, falls, or takes too many days.
    pub fn growth(start: u32, factor_permille: u32, target: u32) -> Result<Self, PlanError> {
        /// Parts of a recipient that are carried from day to day, so that slow growth from few adds up.
        const PARTS: u128 = 1 << 32;
        if start > target {
            return Err(PlanError::Falls { day: 2, from: start, to: target });
        }
        let mut caps = Vec::new();
        let mut exact = u128::from(start) * PARTS;
        while exact / PARTS < u128::from(target) {
            if caps.len() == DAYS_MAX {
                return Err(PlanError::TooSlow { start, factor_permille, target });
            }
            caps.push((exact / PARTS) as u32);
            exact = exact * u128::from(factor_permille) / 1000;
        }
        caps.push(target);
        if caps.len() > DAYS_MAX {
            return Err(PlanError::TooSlow { start, factor_permille, target });
        }
        Self::table(&caps)
    }

    /// How many days it has, 1 to [`DAYS_MAX`].
    #[must_use]
    pub fn days(&self) -> u16 {
        self.0.len() as u16
    }

    /// The cap of a day, from 1; none after the last: done.
    #[must_use]
    pub fn cap(&self, day: u16) -> Option<u32> {
        self.0.get(usize::from(day).checked_sub(1)?).copied()
    }

    /// All caps, from day 1.
    #[must_use]
    pub fn caps(&self) -> &[u32] {
        &self.0
    }

    /// SES's `WarmupPercentage` on a day of this plan: what lies behind; 100 after the last day.
    #[must_use]
    pub fn percentage(&self, day: u16) -> Percentage {
        let behind = u32::from(day.saturating_sub(1)).min(u32::from(self.days()));
        Percentage((100 * behind / u32::from(self.days())) as u8)
    }

    /// The day that a percentage set by an operator makes of today; none: done.
    #[must_use]
    pub fn day_of(&self, percentage: Percentage) -> Option<u16> {
        let days = self.days();
        match percentage.0 {
            0 => Some(1),
            100.. => None,
            p => Some(days.min(1 + (u32::from(days) * u32::from(p)).div_ceil(100) as u16)),
        }
    }
}

/// A whole number from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Percentage(u8);

/// A percentage that is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("WarmupPercentage must be a whole number from 0 to 100, not {0}")]
pub struct BadPercentage(i64);

impl Percentage {
    /// Back to day 1.
    pub const ZERO: Self = Self(0);
    /// Done.
    pub const DONE: Self = Self(100);

    /// 0 to 100.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Percentage {
    type Error = BadPercentage;

    fn try_from(number: i64) -> Result<Self, BadPercentage> {
        match u8::try_from(number) {
            Ok(percentage @ 0..=100) => Ok(Self(percentage)),
            _ => Err(BadPercentage(number)),
        }
    }
}

impl From<Percentage> for i64 {
    fn from(percentage: Percentage) -> Self {
        Self::from(percentage.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_standard_plan_is_the_table() {
        let plan = Plan::standard();
        assert_eq!((plan.days(), plan.cap(0), plan.cap(46)), (45, None, None));
        for (day, cap) in [
            (1, 50),
            (6, 100),
            (9, 170),
            (10, 200),
            (18, 720),
            (19, 840),
            (27, 2900),
            (28, 3400),
            (36, 12_000),
            (45, 50_000),
        ] {
            assert_eq!(plan.cap(day), Some(cap), "day {day}");
        }
        assert_eq!(plan.caps().iter().sum::<u32>(), 337_929);
        assert_eq!(Plan::table(&STANDARD), Ok(plan));
    }

    #[test]
    fn the_standard_plan_was_made_by_its_formula() {
        for (index, cap) in STANDARD.iter().enumerate() {
            let exact = 50.0 * 1000_f64.powf(index as f64 / 44.0) + 1e-9;
            let unit = 10_f64.powf(exact.log10().floor() - 1.0);
            assert_eq!((exact / unit).floor() * unit, f64::from(*cap), "day {}", index + 1);
        }
    }

    #[test]
    fn plans_that_are_none_are_refused_with_the_day() {
        assert_eq!(Plan::table(&[]), Err(PlanError::Empty));
        assert_eq!(Plan::table(&[1; 366]), Err(PlanError::TooLong { days: 366 }));
        assert_eq!(Plan::table(&[0, 5]), Err(PlanError::Zero { day: 1 }));
        assert_eq!(Plan::table(&[5, 7, 6]), Err(PlanError::Falls { day: 3, from: 7, to: 6 }));
        assert_eq!(
            Plan::growth(0, 2000, 10).unwrap_err(),
            PlanError::TooSlow { start: 0, factor_permille: 2000, target: 10 }
        );
        assert!(matches!(Plan::growth(10, 1000, 20), Err(PlanError::TooSlow { .. })));
        assert!(matches!(Plan::growth(10, 900, 20), Err(PlanError::TooSlow { .. })));
        assert!(matches!(Plan::growth(20, 2000, 10), Err(PlanError::Falls { .. })));
        assert_eq!(Plan::growth(0, 2000, 0), Err(PlanError::Zero { day: 1 }));
    }

    #[test]
    fn growth_is_a_table_that_ends_at_its_target() {
        assert_eq!(Plan::growth(50, 2000, 1000).unwrap().caps(), [50, 100, 200, 400, 800, 1000]);
        assert_eq!(Plan::growth(7, 1000, 7).unwrap().caps(), [7]);
        // 1.3 from 1: parts of a recipient add up, or it would stay at 1.
        assert_eq!(Plan::growth(1, 1300, 5).unwrap().caps(), [1, 1, 1, 2, 2, 3, 4, 5]);
        assert!(Plan::growth(u32::MAX, 1000, u32::MAX).is_ok());
    }

    #[test]
    fn percentages_of_the_standard_plan_are_those_of_the_specification() {
        let plan = Plan::standard();
        let of = |p: i64| plan.day_of(Percentage::try_from(p).unwrap());
        assert_eq!((of(0), of(1), of(50), of(99), of(100)), (Some(1), Some(2), Some(24), Some(45), None));
        let day = |d| plan.percentage(d).get();
        assert_eq!((day(1), day(2), day(23), day(45), day(46), day(400)), (0, 2, 48, 97, 100, 100));
        for bad in [-1, 101, i64::MAX, i64::MIN] {
            assert_eq!(Percentage::try_from(bad), Err(BadPercentage(bad)));
        }
    }

    proptest! {
        #[test]
        fn a_percentage_set_is_reached_by_its_day_and_not_passed_by_more_than_one(days in 1_usize..=365, p in 1_i64..100) {
            let plan = Plan::table(&vec![5; days]).unwrap();
            let percentage = Percentage::try_from(p).unwrap();
            let day = plan.day_of(percentage).unwrap();
            prop_assert!((1..=plan.days()).contains(&day));
            // The last day shows less than what was set, as it is not over.
            prop_assert!(plan.percentage(day) >= percentage || day == plan.days());
            prop_assert!(plan.percentage(day - 1) < percentage || day == 1);
        }

        #[test]
        fn growth_never_falls(start in 1_u32..1000, factor in 1050_u32..4000, more in 0_u32..1_000_000) {
            match Plan::growth(start, factor, start + more) {
                Ok(plan) => {
                    prop_assert!(plan.caps().is_sorted());
                    prop_assert_eq!((plan.caps()[0], plan.cap(plan.days())), (start, Some(start + more)));
                }
                Err(error) => {
                    let too_slow = matches!(error, PlanError::TooSlow { .. });
                    prop_assert!(too_slow);
                }
            }
        }
    }
}
