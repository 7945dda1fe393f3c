//! A ladder in a ledger: what the days brought, and what was decided at their ends. *One per leased IP of a managed pool and
//! provider.* The ledger counts what is sent and holds to the cap; this says what the cap is.

use super::{
    day::Day,
    ladder::{Decision, Figures, Ladder, Rules},
};
use serde::{Deserialize, Serialize};

/// Decisions kept for those who tell of them.
const KEPT: usize = 32;
/// Days without a word that are closed one by one: whoever was idle for longer is at the bottom.
const IDLE_MOST: u32 = 1000;

/// What is durable of it, as part of the ledger's note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Where it stands.
    pub ladder: Ladder,
    /// What this day brought so far; `sent` is the ledger's.
    pub figures: Figures,
    /// How the last day ended that had an end.
    pub last: Option<(Day, Decision)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Climb {
    rules: Rules,
    rung: Rung,
    decisions: Vec<(Day, Decision)>,
}

impl Climb {
    /// From where it stands.
    #[must_use]
    pub fn new(rules: Rules, rung: Rung) -> Self {
        Self { rules, rung, decisions: Vec::new() }
    }

    /// Most recipients of this day; none: it is warm.
    #[must_use]
    pub fn cap(&self) -> Option<u32> {
        let cap = self.rung.ladder.cap(&self.rules);
        (cap < self.rules.warm).then(|| u32::try_from(cap).unwrap_or(u32::MAX))
    }

    /// What is durable of it.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Other thresholds, from now on; the cap follows with the next day.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What a provider said of recipients of this day.
    pub fn told(&mut self, deferred: u64, bounced: u64) {
        self.rung.figures.deferred += deferred;
        self.rung.figures.bounced += bounced;
    }

    /// It said that the IP is blocked.
    pub fn blocked(&mut self) {
        self.rung.figures.blocked = true;
    }

    /// Ends the days from `from` on before `to`; `sent` recipients went on the first of them.
    pub fn close(&mut self, from: Day, to: Day, sent: u64) {
        let mut figures = Figures { sent, ..std::mem::take(&mut self.rung.figures) };
        let days = to.0.saturating_sub(from.0).min(IDLE_MOST);
        for day in (0..days).map(|n| Day(from.0.saturating_add(n))) {
            let decision = self.rung.ladder.close(&self.rules, std::mem::take(&mut figures));
            self.rung.last = Some((day, decision));
            if self.decisions.len() < KEPT {
                self.decisions.push((day, decision));
            }
        }
    }

    /// Decisions since this was last asked.
    pub fn decisions(&mut self) -> Vec<(Day, Decision)> {
        std::mem::take(&mut self.decisions)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        day::DayStart,
        ladder::Verdict,
        ledger::{Ledger, Wait},
    };
    use super::*;
    use crate::time::{Mono, Wall};
    use proptest::prelude::*;
    use std::time::Duration;

    const DAY_MS: u64 = 86_400_000;

    fn at(day: u64, hour: u64) -> (Mono, Wall) {
        let ms = day * DAY_MS + hour * 3_600_000;
        (Mono(ms * 1_000_000), Wall(20_000 * DAY_MS + ms))
    }

    fn fresh() -> Ledger {
        let (now, wall) = at(0, 0);
        let ip = [192, 0, 2, 1].into();
        let mut ledger = Ledger::climb(ip, Rules::default(), None, Ladder::default(), DayStart::default(), now, wall);
        ledger.set_spread(now, Duration::from_secs(3600));
        ledger
    }

    /// Charges as many as there are, up to `most`.
    fn spend(ledger: &mut Ledger, (now, wall): (Mono, Wall), most: u32) -> u32 {
        let mut spent = 0;
        while spent < most {
            match ledger.charge(now, wall, 1, None) {
                Ok(charge) => {
                    let _ = charge.spend();
                    spent += 1;
                }
                Err(Wait::Note) => {
                    let note = ledger.note().unwrap();
                    ledger.confirm(&note);
                }
                Err(_) => break,
            }
        }
        spent
    }

    #[test]
    fn a_day_that_was_used_earns_the_next_step_and_says_so() {
        let mut ledger = fresh();
        let whole = (1..24).map(|hour| spend(&mut ledger, at(0, hour), 1000)).sum::<u32>();
        assert_eq!(whole, 50, "the cap, and no more");
        ledger.advance(at(1, 1).0, at(1, 1).1);
        let decisions = ledger.ladder().unwrap().decisions();
        let [(Day(20_000), decision)] = decisions[..] else { panic!("{decisions:?}") };
        assert_eq!((decision.verdict, decision.before, decision.after), (Verdict::Rise, 50, 70));
        assert_eq!(decision.figures.sent, 50);
        ledger.ladder().unwrap().told(9, 0);
        assert_eq!((1..24).map(|hour| spend(&mut ledger, at(1, hour), 1000)).sum::<u32>(), 70);
        // Two days at once: the first had too many deferrals, the second nothing.
        ledger.advance(at(3, 0).0, at(3, 0).1);
        let verdicts: Vec<_> = ledger.ladder().unwrap().decisions().iter().map(|(_, d)| d.verdict).collect();
        assert_eq!(verdicts, [Verdict::Fall, Verdict::Hold]);
        assert!(ledger.ladder().unwrap().decisions().is_empty(), "each is told once");
    }

    #[test]
    fn a_restart_keeps_the_step_the_figures_and_what_was_sent() {
        let mut ledger = fresh();
        spend(&mut ledger, at(0, 5), 7);
        ledger.ladder().unwrap().told(3, 1);
        spend(&mut ledger, at(0, 7), 1);
        let note = ledger.close();
        assert_eq!((note.reserved, note.rung.unwrap().figures.deferred), (8, 3));
        let (now, wall) = at(0, 8);
        let ip = [192, 0, 2, 1].into();
        let mut again =
            Ledger::climb(ip, Rules::default(), Some(note), Ladder::default(), DayStart::default(), now, wall);
        again.set_spread(now, Duration::from_secs(3600));
        let rest = (9..24).map(|hour| spend(&mut again, at(0, hour), 1000)).sum::<u32>();
        assert_eq!(rest, 42);
    }

    #[test]
    fn warm_has_no_cap_and_falls_back_to_one() {
        let rules = Rules { warm: 100, ..Rules::default() };
        let top = Ladder::at(&rules, 100);
        let (now, wall) = at(0, 0);
        let mut ledger = Ledger::climb([192, 0, 2, 1].into(), rules, None, top, DayStart::default(), now, wall);
        assert!(!ledger.is_warming());
        assert_eq!(spend(&mut ledger, at(0, 1), 5000), 5000);
        ledger.ladder().unwrap().blocked();
        ledger.advance(at(1, 0).0, at(1, 0).1);
        assert!(ledger.is_warming());
        assert_eq!(ledger.standing(at(1, 0).0, at(1, 0).1).cap, Some(98));
    }

    proptest! {
        /// On no day more than its cap, whatever is told and however often it ends and begins again.
        #[test]
        fn never_over_the_cap_of_a_day(days in prop::collection::vec((0_u32..400, 0_u64..30, 0_u64..30, any::<bool>()), 1..60)) {
            let rules = Rules { warm: 5000, ..Rules::default() };
            let (now, wall) = at(0, 0);
            let ip = [192, 0, 2, 1].into();
            let mut ledger = Ledger::climb(ip, rules, None, Ladder::default(), DayStart::default(), now, wall);
            ledger.set_spread(now, Duration::from_secs(3600));
            for (day, (wanted, deferred, bounced, again)) in days.into_iter().enumerate() {
                let mut sent = 0;
                for hour in [1, 3, 5, 7] {
                    let (now, wall) = at(day as u64, hour);
                    sent += spend(&mut ledger, (now, wall), wanted);
                    if again && hour == 3 {
                        let note = ledger.close();
                        ledger = Ledger::climb(ip, rules, Some(note), Ladder::default(), DayStart::default(), now, wall);
                        ledger.set_spread(now, Duration::from_secs(3600));
                    }
                }
                ledger.ladder().unwrap().told(deferred, bounced);
                let (now, wall) = at(day as u64, 8);
                if let Some(cap) = ledger.standing(now, wall).cap {
                    prop_assert!(sent <= cap, "{sent} on a day of {cap}");
                }
            }
        }
    }
}
