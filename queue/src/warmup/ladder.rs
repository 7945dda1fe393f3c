//! The ladder of one (leased IP, provider) of a managed pool: a daily allowance that is earned.
//! Pure: it is told each day's figures and answers with the decision; it must never read a clock.

use serde::{Deserialize, Serialize};

/// Thresholds of a ladder; ratios in per cent. Defaults are those of `warmup.md`, "Managed pools".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Recipients of the lowest step.
    pub start: u64,
    /// Factor from step to step, in per cent (140: 1.4).
    pub factor: u64,
    /// Recipients a day at which the IP is warm; no step is higher.
    pub warm: u64,
    /// Share of the step that must be used to rise.
    pub used: u64,
    /// Deferrals must stay under this to rise.
    pub deferred: u64,
    /// Hard bounces must stay under this to rise.
    pub bounced: u64,
    /// Deferrals over this make it fall.
    pub fall: u64,
    /// Idle days after which it decays by one step; 0: never.
    pub idle: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { start: 50, factor: 140, warm: 50_000, used: 80, deferred: 1, bounced: 2, fall: 5, idle: 7 }
    }
}

impl Rules {
    /// More steps than any ladder of sense has: bounds the work of finding one.
    const STEPS: u32 = 100_000;

    /// # Errors
    /// Why a ladder by these rules could not be climbed, and what to write.
    pub fn check(&self) -> Result<(), String> {
        if self.start == 0 {
            return Err("ladder.start = 0: nothing could be sent, and nothing earned; the least is 1".into());
        }
        if self.warm < self.start {
            return Err(format!("ladder.warm = {} is below ladder.start = {}", self.warm, self.start));
        }
        if self.factor <= 100 {
            return Err("ladder.factor: it has to be over 1, or no step is higher than the one below".into());
        }
        if !(1..=100).contains(&self.used) {
            return Err(format!("ladder.used = {}: 1 to 100, per cent of the step", self.used));
        }
        if [self.deferred, self.bounced, self.fall].iter().any(|ratio| !(1..=100).contains(ratio)) {
            return Err("ladder.deferred, bounced and fall: 1 to 100, per cent of what was sent".into());
        }
        if self.fall < self.deferred {
            return Err(format!("ladder.fall = {} is below ladder.deferred = {}", self.fall, self.deferred));
        }
        Ok(())
    }
}

/// What one day brought, in recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Attempted.
    pub sent: u64,
    /// Deferred by the receiver.
    pub deferred: u64,
    /// Hard bounces.
    pub bounced: u64,
    /// A reply that blocks the IP was seen.
    pub blocked: bool,
}

/// What a day led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// One step up.
    Rise,
    /// The same step.
    Hold,
    /// One step down: deferrals or a block.
    Fall,
    /// One step down: idle.
    Decay,
}

impl Verdict {
    /// As in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rise => "rise",
            Self::Hold => "hold",
            Self::Fall => "fall",
            Self::Decay => "decay",
        }
    }
}

/// A day's decision with the figures it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// Allowance of the day that ended.
    pub before: u64,
    /// Allowance of the next day.
    pub after: u64,
    /// The day's figures.
    pub figures: Figures,
}

/// Where one (IP, provider) stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder {
    /// Step, 0 the lowest.
    pub step: u32,
    /// Days without mail, in a row.
    pub idle: u32,
}

impl Ladder {
    /// Recipients allowed today.
    #[must_use]
    pub fn cap(&self, rules: &Rules) -> u64 {
        let mut cap = rules.start.min(rules.warm);
        for _ in 0..self.step.min(Rules::STEPS) {
            if cap >= rules.warm {
                break;
            }
            // A small step rounds to nothing: each is one recipient at least.
            cap = (cap.saturating_mul(rules.factor) / 100).max(cap + 1).min(rules.warm);
        }
        cap
    }

    /// The highest step that allows no more than this, and the lowest if all allow more.
    #[must_use]
    pub fn at(rules: &Rules, cap: u64) -> Self {
        let mut ladder = Self::default();
        while ladder.cap(rules) < rules.warm {
            let next = Self { step: ladder.step + 1, idle: 0 };
            if next.cap(rules) > cap {
                break;
            }
            ladder = next;
        }
        ladder
    }

    /// Ends a day.
    pub fn close(&mut self, rules: &Rules, figures: Figures) -> Decision {
        let before = self.cap(rules);
        let verdict = self.judge(rules, &figures, before);
        match verdict {
            Verdict::Rise => self.step += 1,
            Verdict::Fall | Verdict::Decay => self.step = self.step.saturating_sub(1),
            Verdict::Hold => {}
        }
        Decision { verdict, before, after: self.cap(rules), figures }
    }

    fn judge(&mut self, rules: &Rules, f: &Figures, cap: u64) -> Verdict {
        self.idle = if f.sent == 0 { self.idle.saturating_add(1) } else { 0 };
        let over = |part: u64, limit: u64| part.saturating_mul(100) > f.sent.saturating_mul(limit);
        let under = |part: u64, limit: u64| part.saturating_mul(100) < f.sent.saturating_mul(limit);
        if f.blocked || over(f.deferred, rules.fall) {
            Verdict::Fall
        } else if f.sent == 0 {
            let due = rules.idle > 0 && self.idle.is_multiple_of(rules.idle);
            if due { Verdict::Decay } else { Verdict::Hold }
        } else if cap < rules.warm
            && f.sent.saturating_mul(100) >= cap.saturating_mul(rules.used)
            && under(f.deferred, rules.deferred)
            && under(f.bounced, rules.bounced)
        {
            Verdict::Rise
        } else {
            Verdict::Hold
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day(sent: u64, deferred: u64) -> Figures {
        Figures { sent, deferred, ..Figures::default() }
    }

    #[test]
    fn rises_when_used_falls_when_deferred_decays_when_idle() {
        let (rules, mut ladder) = (Rules::default(), Ladder::default());
        assert_eq!(ladder.close(&rules, day(40, 0)).after, 70);
        assert_eq!(ladder.close(&rules, day(55, 0)).verdict, Verdict::Hold);
        assert_eq!(ladder.close(&rules, day(70, 4)).after, 50);
        ladder.step = 3;
        let verdicts: Vec<_> = (0..7).map(|_| ladder.close(&rules, day(0, 0)).verdict).collect();
        assert_eq!((verdicts[5], verdicts[6], ladder.step), (Verdict::Hold, Verdict::Decay, 2));
    }

    #[test]
    fn the_thresholds_are_exact() {
        let rules = Rules { start: 1000, ..Rules::default() };
        let verdict = |figures| Ladder::default().close(&rules, figures).verdict;
        let bounced = |bounced| Figures { sent: 1000, bounced, ..Figures::default() };
        for (figures, expected) in [
            (day(799, 0), Verdict::Hold),
            (day(800, 0), Verdict::Rise),
            (day(1000, 9), Verdict::Rise),
            (day(1000, 10), Verdict::Hold),
            (day(1000, 50), Verdict::Hold),
            (day(1000, 51), Verdict::Fall),
            (bounced(19), Verdict::Rise),
            (bounced(20), Verdict::Hold),
            (Figures { blocked: true, ..day(1000, 0) }, Verdict::Fall),
            (Figures { blocked: true, ..day(0, 0) }, Verdict::Fall),
        ] {
            assert_eq!(verdict(figures), expected, "{figures:?}");
        }
    }

    #[test]
    fn a_well_used_ladder_is_warm_in_three_weeks() {
        let (rules, mut ladder, mut days) = (Rules::default(), Ladder::default(), 1);
        while ladder.cap(&rules) < rules.warm {
            let cap = ladder.cap(&rules);
            assert_eq!(ladder.close(&rules, day(cap, 0)).verdict, Verdict::Rise);
            days += 1;
        }
        assert_eq!((days, ladder.close(&rules, day(rules.warm, 0)).verdict), (22, Verdict::Hold));
    }

    #[test]
    fn an_operator_s_cap_is_a_step_no_higher() {
        let rules = Rules::default();
        for cap in [0, 49, 50, 51, 69, 70, 1000, 49_999, 50_000, 70_000] {
            let ladder = Ladder::at(&rules, cap);
            assert!(ladder.cap(&rules) <= cap.max(50));
            let next = Ladder { step: ladder.step + 1, ..ladder }.cap(&rules);
            assert!(next > cap || ladder.cap(&rules) == rules.warm);
        }
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        (1_u64..500, 101_u64..400, 0_u64..100_000, 1_u64..=100, 1_u64..20, 1_u64..20, 0_u64..30, 0_u32..10).prop_map(
            |(start, factor, more, used, deferred, bounced, over, idle)| Rules {
                start,
                factor,
                warm: start + more,
                used,
                deferred,
                bounced,
                fall: deferred + over,
                idle,
            },
        )
    }

    proptest! {
        /// From day to day a step at most; never above warm, never below the start; up only when it was earned.
        #[test]
        fn a_day_is_a_step(rules in any_rules(), days in prop::collection::vec((0_u64..120, 0_u64..12, 0_u64..12, 0_u8..40), 1..120)) {
            prop_assert_eq!(rules.check(), Ok(()));
            let mut ladder = Ladder::default();
            for (used, deferred, bounced, blocked) in days {
                let cap = ladder.cap(&rules);
                prop_assert!(cap >= rules.start && cap <= rules.warm);
                let sent = cap * used.min(100) / 100;
                let figures = Figures { sent, deferred: sent * deferred / 100, bounced: sent * bounced / 100, blocked: blocked == 0 };
                let step = ladder.step;
                let decision = ladder.close(&rules, figures);
                prop_assert_eq!((decision.before, decision.after, decision.figures), (cap, ladder.cap(&rules), figures));
                match decision.verdict {
                    Verdict::Rise => {
                        prop_assert!(decision.after > cap && ladder.step == step + 1);
                        prop_assert!(sent * 100 >= cap * rules.used && !figures.blocked);
                        prop_assert!(figures.deferred * 100 < sent * rules.deferred && figures.bounced * 100 < sent * rules.bounced);
                    }
                    Verdict::Hold => prop_assert_eq!(decision.after, cap),
                    Verdict::Fall | Verdict::Decay => prop_assert!(decision.after < cap || step == 0),
                }
            }
        }

        /// The more a day was complained of, the lower it ends.
        #[test]
        fn complaints_never_help(rules in any_rules(), step in 0_u32..30, sent in 0_u64..100_000, deferred in 0_u64..1000, more in 0_u64..1000) {
            let ladder = Ladder { step, idle: 0 };
            let after = |deferred| { let mut ladder = ladder; ladder.close(&rules, day(sent, deferred)).after };
            prop_assert!(after(deferred + more) <= after(deferred));
        }
    }
}
