//! When message number n is due. Pure: time is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How fast messages are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Closed loop: each connection sends its next message when the one before is answered.
    #[default]
    Closed,
    /// Open loop: this many messages a second, whatever the server does. Latency counts from the moment a message was
    /// due, so a server that stalls cannot hide it (coordinated omission).
    Open(f64),
}

/// How much is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So many messages.
    Messages(u64),
    /// What the pace gives in this time.
    For(Duration),
}

/// The open-loop timetable of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) pace: Pace,
    pub(super) amount: Amount,
    pub(super) ramp: Duration,
}

impl Schedule {
    /// When message `number` is due after the start; zero in a closed loop. Over the ramp the rate grows evenly from
    /// nothing.
    pub(super) fn due(&self, number: u64) -> Duration {
        let Pace::Open(rate) = self.pace else { return Duration::ZERO };
        let (number, ramp) = (number as f64, self.ramp.as_secs_f64());
        let in_ramp = rate * ramp / 2.0;
        let seconds =
            if number < in_ramp { (2.0 * ramp * number / rate).sqrt() } else { ramp + (number - in_ramp) / rate };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Whether message `number` is beyond the run, `elapsed` after its start.
    pub(super) fn is_over(&self, number: u64, elapsed: Duration) -> bool {
        match self.amount {
            Amount::Messages(count) => number >= count,
            Amount::For(time) => elapsed >= time || self.due(number) >= time,
        }
    }

    /// When connection `at` of `count` opens: spread over the ramp.
    pub(super) fn opens(&self, at: usize, count: usize) -> Duration {
        self.ramp.mul_f64(at as f64 / count.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_sends_half_and_the_rate_holds_after() {
        let schedule = Schedule {
            pace: Pace::Open(100.0),
            amount: Amount::For(Duration::from_secs(20)),
            ramp: Duration::from_secs(10),
        };
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(500), Duration::from_secs(10));
        assert_eq!(schedule.due(600), Duration::from_secs(11));
        assert!((0..1000).all(|number| schedule.due(number) <= schedule.due(number + 1)));
        assert!(!schedule.is_over(1499, Duration::from_secs(19)) && schedule.is_over(1500, Duration::ZERO));
    }

    #[test]
    fn a_count_ends_after_that_many() {
        let schedule = Schedule { pace: Pace::Closed, amount: Amount::Messages(3), ramp: Duration::ZERO };
        assert!(!schedule.is_over(2, Duration::MAX) && schedule.is_over(3, Duration::ZERO));
        assert_eq!(schedule.due(2), Duration::ZERO);
    }
}
