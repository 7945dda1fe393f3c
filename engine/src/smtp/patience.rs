//! How long a peer is waited for: one wait for each thing it owes, which does not begin anew with each octet.
//!
//! A command, a reply, a stretch of content ([`STRETCH`]) has to be whole in its time; who sends an octet a minute is as
//! silent as who sends nothing. *One per connection.* Must not read a clock.

use mailrail_queue::time::Mono;
use std::time::Duration;

/// Octets of content that count as one thing: with the usual 180 s for each, no less than 364 octets a second.
pub(super) const STRETCH: u64 = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Things had when the present wait began.
    had: Option<u64>,
    until: Mono,
}

impl Patience {
    /// What is left, at `now`, of the wait for what comes after `had` things; `most` is the whole of it. `None`: nothing.
    pub(crate) fn left(&mut self, had: u64, now: Mono, most: Duration) -> Option<Duration> {
        if self.had != Some(had) {
            *self = Self { had: Some(had), until: now.plus(most) };
        }
        Some(self.until.since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Mono {
        Mono(1).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn octets_do_not_lengthen_the_wait_and_things_do() {
        let mut patience = Patience::default();
        assert_eq!(patience.left(7, at(0), MOST), Some(MOST));
        assert_eq!(patience.left(7, at(299), MOST), Some(Duration::from_secs(1)));
        assert_eq!(patience.left(8, at(299), MOST), Some(MOST), "one more came");
        assert_eq!(patience.left(8, at(599), MOST), None);
    }

    #[test]
    fn a_connection_that_rested_is_given_its_time() {
        let mut patience = Patience::default();
        assert!(patience.left(0, at(0), MOST).is_some());
        // The reply came; half an hour nothing was asked for.
        assert_eq!(patience.left(1, at(1800), MOST), Some(MOST));
    }
}
