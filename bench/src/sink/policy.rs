//! What receivers remember of their clients: connections, greylists, rates, reputations. One per sink, shared by its
//! threads behind a lock that only models with a memory take.
//!
//! Time is an argument; memory is bounded.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::model::{Greylist, RateLimit, Reputation};

/// Greylist entries kept; beyond, all are forgotten and every first try is a first try again.
const GREYLIST_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Window {
    since: Instant,
    recipients: u32,
}

#[derive(Debug)]
struct History {
    day_began: Instant,
    today: u32,
    best_day: u32,
}

#[derive(Debug, Default)]
pub(super) struct Policy {
    connections: HashMap<(usize, IpAddr), u64>,
    first_tries: HashMap<u64, Instant>,
    windows: HashMap<(usize, IpAddr), Window>,
    histories: HashMap<(usize, IpAddr), History>,
    faults: HashMap<(usize, usize), u32>,
}

impl Policy {
    /// Counts a connection; says how many are open now.
    pub(super) fn connect(&mut self, model: usize, ip: IpAddr) -> u64 {
        let open = self.connections.entry((model, ip)).or_default();
        *open += 1;
        *open
    }

    pub(super) fn disconnect(&mut self, model: usize, ip: IpAddr) {
        if let Some(open) = self.connections.get_mut(&(model, ip)) {
            *open = open.saturating_sub(1);
        }
    }

    /// Whether a recipient is past greylisting; notes the first try.
    pub(super) fn is_known(&mut self, now: Instant, rule: Greylist, ip: IpAddr, sender: &[u8], rcpt: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        (ip, sender, rcpt.to_ascii_lowercase()).hash(&mut hasher);
        if self.first_tries.len() >= GREYLIST_MAX {
            self.first_tries.clear();
        }
        let first = *self.first_tries.entry(hasher.finish()).or_insert(now);
        first != now && now.duration_since(first) >= Duration::from_millis(rule.retry_after_ms)
    }

    /// Whether one more recipient fits into the window of a source IP; counts it where it does.
    pub(super) fn fits_rate(&mut self, now: Instant, rule: &RateLimit, model: usize, ip: IpAddr) -> bool {
        let window = self.windows.entry((model, ip)).or_insert(Window { since: now, recipients: 0 });
        if now.duration_since(window.since) >= Duration::from_millis(rule.window_ms) {
            *window = Window { since: now, recipients: 0 };
        }
        let fits = window.recipients < rule.recipients;
        window.recipients += u32::from(fits);
        fits
    }

    /// Whether one more recipient is within what the history of a source IP allows; counts it where it is.
    pub(super) fn fits_history(&mut self, now: Instant, rule: &Reputation, model: usize, ip: IpAddr) -> bool {
        let fresh = History { day_began: now, today: 0, best_day: 0 };
        let history = self.histories.entry((model, ip)).or_insert(fresh);
        let day = Duration::from_millis(rule.day_ms.max(1));
        if now.duration_since(history.day_began) >= day {
            history.best_day = history.best_day.max(history.today);
            history.today = 0;
            // Days go on while nobody sends.
            let days = now.duration_since(history.day_began).as_millis() / day.as_millis();
            history.day_began += day * u32::try_from(days).unwrap_or(u32::MAX);
        }
        let grown = (f64::from(history.best_day) * rule.growth) as u32;
        let fits = history.today < grown.max(rule.first_day);
        history.today += u32::from(fits);
        fits
    }

    /// Whether a fault that shows only so many times shows once more; counts it.
    pub(super) fn shows_fault(&mut self, model: usize, fault: usize, times: u32) -> bool {
        let shown = self.faults.entry((model, fault)).or_default();
        let shows = *shown < times;
        *shown += u32::from(shows);
        shows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn greylist_lets_the_second_try_in_after_its_time() {
        let (mut policy, now) = (Policy::default(), Instant::now());
        let rule = Greylist { retry_after_ms: 1000 };
        let later = |ms| now + Duration::from_millis(ms);
        assert!(!policy.is_known(now, rule, IP, b"a", b"b@x"));
        assert!(!policy.is_known(later(999), rule, IP, b"a", b"b@x"));
        assert!(policy.is_known(later(1000), rule, IP, b"a", b"B@x"));
        assert!(!policy.is_known(later(1000), rule, IP, b"a", b"c@x"));
    }

    #[test]
    fn rate_window_refills() {
        let (mut policy, now) = (Policy::default(), Instant::now());
        let rule = RateLimit { recipients: 2, window_ms: 100, reply: "450".into() };
        let fits: Vec<_> = [0, 1, 2, 99, 100, 101, 102]
            .map(|ms| policy.fits_rate(now + Duration::from_millis(ms), &rule, 0, IP))
            .into();
        assert_eq!(fits, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn history_allows_growth_over_the_best_day() {
        let (mut policy, now) = (Policy::default(), Instant::now());
        let rule = Reputation { day_ms: 1000, first_day: 10, growth: 2.0, reply: "450".into() };
        let mut day = |number: u64| {
            let at = now + Duration::from_millis(1000 * number + 1);
            (0..1000).filter(|_| policy.fits_history(at, &rule, 0, IP)).count()
        };
        assert_eq!([day(0), day(1), day(2), day(9)], [10, 20, 40, 80]);
    }
}
