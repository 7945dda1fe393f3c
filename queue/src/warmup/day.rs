//! Days of a warm-up plan: 24 hours of the wall clock each, from midnight UTC or from another time of day.

use crate::time::Wall;
use std::str::FromStr;
use thiserror::Error;

const MINUTE: u64 = 60_000;
const DAY: u64 = 1440 * MINUTE;

/// A day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Day(pub u32);

/// When days begin, in minutes after midnight UTC (0 to 1439). Written `HH:MM±hh:mm`: a time of day and its offset from UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayStart(u16);

/// `day_starts` is not a time of day with an offset.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("day_starts = \"{0}\": write a time of day and its offset from UTC, as in \"06:00+02:00\"")]
pub struct BadDayStart(String);

impl FromStr for DayStart {
    type Err = BadDayStart;

    fn from_str(text: &str) -> Result<Self, BadDayStart> {
        let bad = || BadDayStart(text.to_owned());
        let minutes = |part: &str, hours_most: i32| {
            let (hours, minutes) = part.split_once(':')?;
            let number = |digits: &str| {
                let two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
                two.then(|| digits.parse::<i32>().ok()).flatten()
            };
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            (hours <= hours_most && minutes < 60).then_some(hours * 60 + minutes)
        };
        let (time, offset) = text.split_at_checked(5).ok_or_else(bad)?;
        let time = minutes(time, 23).ok_or_else(bad)?;
        let offset = match offset.split_at_checked(1) {
            Some(("+", rest)) => minutes(rest, 14),
            Some(("-", rest)) => minutes(rest, 14).map(|minutes| -minutes),
            _ => None,
        };
        let start = (time - offset.ok_or_else(bad)?).rem_euclid(1440);
        u16::try_from(start).map(Self).map_err(|_| bad())
    }
}

impl DayStart {
    fn shift(self) -> u64 {
        u64::from(self.0) * MINUTE
    }

    /// The day that a time is in.
    #[must_use]
    pub fn day_of(self, wall: Wall) -> Day {
        Day(u32::try_from(wall.0.saturating_sub(self.shift()) / DAY).unwrap_or(u32::MAX))
    }

    /// When a day begins.
    #[must_use]
    pub fn begin(self, day: Day) -> Wall {
        Wall(u64::from(day.0) * DAY + self.shift())
    }

    /// When the next day begins.
    #[must_use]
    pub fn end(self, day: Day) -> Wall {
        Wall(self.begin(day).0 + DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_where_they_are_said_to() {
        for (text, minutes) in [
            ("00:00+00:00", 0),
            ("06:00+02:00", 240),
            ("00:00+05:30", 1110),
            ("20:15-08:00", 255),
            ("23:59-00:00", 1439),
        ] {
            assert_eq!(text.parse(), Ok(DayStart(minutes)), "{text}");
        }
        for text in
            ["", "00:00", "24:00+00:00", "00:60+00:00", "0:00+00:00", "00:00+15:00", "00:00 00:00", "é0:00+00:00"]
        {
            assert!(text.parse::<DayStart>().is_err(), "{text}");
        }
        let start = DayStart(240);
        let (before, after) = (Wall(20_000 * DAY + 4 * 60 * MINUTE - 1), Wall(20_000 * DAY + 4 * 60 * MINUTE));
        assert_eq!((start.day_of(before), start.day_of(after)), (Day(19_999), Day(20_000)));
        assert_eq!((start.begin(Day(20_000)), start.end(Day(19_999))), (after, after));
    }
}
