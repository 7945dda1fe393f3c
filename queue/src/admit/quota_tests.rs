use super::*;
use crate::retry::chance;

const SECOND: u64 = 1000;
const DAY: u64 = 86_400 * SECOND;
const START: u64 = 20_000 * DAY;

fn at(milliseconds: u64) -> (Mono, Wall) {
    (Mono(milliseconds * 1_000_000), Wall(START + milliseconds))
}

fn limits(quota: u32, rate: u32) -> Limits {
    Limits { max_24_hour_send: Some(quota), max_send_rate: Some(rate), last_message_passes: false }
}

fn quota(limits: Limits) -> Quota {
    Quota::new(limits, 2, Mono(0), Wall(START))
}

/// Grants, with notes made durable at once.
fn grant(quota: &mut Quota, time: u64, recipients: u32, wish: u32) -> Result<Grant, Refusal> {
    let (now, wall) = at(time);
    match quota.grant(now, wall, recipients, wish) {
        Err(Refusal::Note) => {
            quota.confirm(&quota.note().expect("something to write"));
            quota.grant(now, wall, recipients, wish)
        }
        other => other,
    }
}

/// A whole message, granted and used.
fn send(quota: &mut Quota, time: u64, recipients: u32) -> Result<(), Refusal> {
    let grant = grant(quota, time, recipients, 0)?;
    let (now, wall) = at(time);
    quota.used(now, wall, Used { grant: grant.number, recipients });
    Ok(())
}

#[test]
fn five_recipients_pass_at_one_a_second_and_then_nothing_for_five_seconds() {
    let mut quota = quota(limits(10_000, 1));
    assert_eq!(send(&mut quota, 0, 5), Ok(()));
    assert_eq!(send(&mut quota, 0, 5), Err(Refusal::Rate(Some(Duration::from_secs(1)))));
    assert_eq!(send(&mut quota, 1000, 50), Ok(()), "with one token a message of fifty passes");
    assert_eq!(send(&mut quota, 2000, 1), Err(Refusal::Rate(Some(Duration::from_secs(49)))));
    assert_eq!(send(&mut quota, 51_000, 1), Ok(()));
}

#[test]
fn a_message_that_does_not_fit_the_quota_is_refused_whole_and_nothing_is_counted() {
    let mut quota = quota(limits(10, 1000));
    send(&mut quota, 0, 8).unwrap();
    let wait = Duration::from_secs(86_400 + 60);
    assert_eq!(send(&mut quota, 0, 3), Err(Refusal::Quota(Some(wait))));
    assert_eq!(send(&mut quota, 0, 11), Err(Refusal::Quota(None)), "never");
    assert_eq!(quota.sent(Wall(START)), 8);
    send(&mut quota, 30 * SECOND, 2).unwrap();
    assert_eq!(send(&mut quota, DAY + 59 * SECOND, 1), Err(Refusal::Quota(Some(Duration::from_secs(1)))));
    send(&mut quota, DAY + 60 * SECOND, 10).unwrap();
}

#[test]
fn the_older_rule_lets_the_last_message_through_whole() {
    let mut quota = quota(Limits { last_message_passes: true, ..limits(10, 1000) });
    send(&mut quota, 0, 9).unwrap();
    send(&mut quota, 0, 50).unwrap();
    assert!(matches!(send(&mut quota, 0, 1), Err(Refusal::Quota(Some(_)))));
}

#[test]
fn what_is_lent_counts_until_it_is_told_and_a_shard_that_is_gone_has_used_it() {
    let mut quota = quota(limits(100, 1000));
    let lent = grant(&mut quota, 0, 80, 80).unwrap();
    assert!(matches!(send(&mut quota, 0, 30), Err(Refusal::Quota(_))));
    let (now, wall) = at(500);
    quota.used(now, wall, Used { grant: lent.number, recipients: 10 });
    quota.used(now, wall, Used { grant: lent.number, recipients: 70 });
    assert_eq!(quota.sent(wall), 10, "told once");
    grant(&mut quota, 500, 50, 50).unwrap();
    assert!(matches!(send(&mut quota, 12_000, 50), Err(Refusal::Quota(_))));
    assert_eq!(quota.sent(at(12_000).1), 60, "nobody told: used");
}

#[test]
fn the_simulator_counts_against_the_rate_only() {
    let mut quota = quota(limits(10, 2));
    let (now, wall) = at(0);
    assert_eq!(quota.admit_rate_only(now, wall, 12), Ok(()));
    assert_eq!(quota.sent(wall), 0);
    assert!(matches!(quota.admit_rate_only(now, wall, 1), Err(Refusal::Rate(Some(_)))));
    assert!(matches!(send(&mut quota, 0, 1), Err(Refusal::Rate(_))));
}

#[test]
fn without_limits_everything_passes_and_nothing_is_written() {
    let mut quota = quota(Limits::default());
    assert!(Limits::default().is_unlimited() && !Limits::SANDBOX.is_unlimited());
    let (now, wall) = at(0);
    let lent = quota.grant(now, wall, 50, 1_000_000).unwrap();
    assert_eq!((lent.recipients, quota.note()), (1_000_000, None));
}

#[test]
fn a_crossing_is_told_once_and_at_most_once_an_hour() {
    let mut quota = quota(limits(100, 1000));
    send(&mut quota, 0, 79).unwrap();
    assert_eq!(quota.warning(Wall(START)), None);
    send(&mut quota, 0, 1).unwrap();
    assert_eq!((quota.warning(Wall(START)), quota.warning(Wall(START))), (Some(80), None));
    send(&mut quota, SECOND, 20).unwrap();
    assert_eq!(quota.warning(Wall(START)), Some(100), "the highest one");
    let later = Wall(START + DAY + 120 * SECOND);
    assert_eq!(quota.warning(later), None);
    send(&mut quota, DAY + 120 * SECOND, 85).unwrap();
    assert_eq!(quota.warning(later), Some(80));
}

#[test]
fn a_purse_admits_whole_messages_and_asks_for_what_it_used_of_late() {
    let mut purse = Purse::default();
    assert_eq!(purse.take(Mono(0), 3), Err(Ask { recipients: 3, wish: 3, before: None }));
    assert_eq!(purse.fill(Grant { number: 7, recipients: 10, until: Mono(5) }), None);
    assert_eq!((purse.take(Mono(0), 3), purse.take(Mono(1), 5)), (Ok(()), Ok(())));
    let before = Some(Used { grant: 7, recipients: 8 });
    assert_eq!(purse.take(Mono(1), 3), Err(Ask { recipients: 3, wish: 16, before }));
    assert_eq!(purse.fill(Grant { number: 8, recipients: 3, until: Mono(5) }), None);
    assert_eq!(purse.expire(Mono(4)), None);
    assert!(purse.take(Mono(5), 1).is_err(), "its time is over");
    assert_eq!(purse.expire(Mono(5)), None);
}

/// Shards that admit out of their purses, a control thread that may restart, and a list of all that was admitted.
struct World {
    random: u64,
    limits: Limits,
    quota: Quota,
    purses: Vec<Purse>,
    durable: Option<Note>,
    clock: u64,
    admitted: Vec<(u64, u32)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = seed;
        let limits = limits(50 + (chance(&mut random) % 20_000) as u32, 1 + (chance(&mut random) % 40) as u32);
        let purses = (0..3).map(|_| Purse::default()).collect();
        Self { random, limits, quota: quota(limits), purses, durable: None, clock: 0, admitted: Vec::new() }
    }

    fn draw(&mut self, n: u64) -> u64 {
        chance(&mut self.random) % n
    }

    fn step(&mut self) {
        self.clock += match self.draw(300) {
            0 => self.draw(6 * 3_600_000),
            1..10 => self.draw(60_000),
            _ => self.draw(400),
        };
        let (now, wall) = at(self.clock);
        let shard = self.draw(3) as usize;
        match self.draw(200) {
            // The shard is gone with what it was lent.
            0 => self.purses[shard] = Purse::default(),
            1 if self.durable.is_some() => self.restart(),
            2..20 => {
                if let Some(used) = self.purses[shard].expire(now) {
                    self.quota.used(now, wall, used);
                }
            }
            _ => self.admit(shard),
        }
    }

    /// All of the host restarts: purses too.
    fn restart(&mut self) {
        let (now, wall) = at(self.clock);
        self.purses.fill_with(Purse::default);
        if let Some(note) = &self.durable {
            self.quota = Quota::restore(self.limits, 3, note, now, wall);
        }
    }

    fn admit(&mut self, shard: usize) {
        let (now, wall) = at(self.clock);
        let recipients = 1 + self.draw(50) as u32;
        let Err(ask) = self.purses[shard].take(now, recipients) else {
            return self.admitted.push((self.clock, recipients));
        };
        if let Some(used) = ask.before {
            self.quota.used(now, wall, used);
        }
        match self.quota.grant(now, wall, ask.recipients, ask.wish) {
            Ok(grant) => {
                assert_eq!(self.purses[shard].fill(grant), None);
                self.purses[shard].take(now, recipients).unwrap();
                self.admitted.push((self.clock, recipients));
            }
            Err(Refusal::Note) => {
                let note = self.quota.note().unwrap();
                self.durable = Some(note.clone());
                if self.draw(20) > 0 {
                    self.quota.confirm(&note);
                }
            }
            Err(Refusal::Rate(retry) | Refusal::Quota(retry)) => assert!(retry.is_some_and(|retry| !retry.is_zero())),
        }
    }

    fn check(&self, seed: u64) {
        let (quota, rate) = (self.limits.max_24_hour_send.unwrap(), u64::from(self.limits.max_send_rate.unwrap()));
        let (mut first, mut of_a_day) = (0, 0);
        for (index, (time, count)) in self.admitted.iter().enumerate() {
            of_a_day += count;
            while self.admitted[first].0 + DAY <= *time {
                of_a_day -= self.admitted[first].1;
                first += 1;
            }
            assert!(of_a_day <= quota, "seed {seed}: {of_a_day} of {quota} in 24 hours");
            // Every stretch that ends here and begins with one of the last messages.
            let mut sum = 0;
            for (from, count) in self.admitted[..=index].iter().rev().take(100) {
                sum += u64::from(*count);
                assert!(
                    sum * 1000 <= rate * (time - from + 5000) + 49_000,
                    "seed {seed}: {sum} in {} ms at {rate} a second",
                    time - from
                );
            }
        }
        assert!(self.admitted.len() > 10);
    }
}

#[test]
fn both_limits_hold_exactly_over_all_shards_and_through_restarts() {
    for seed in 1..=60 {
        let mut world = World::new(seed);
        for _ in 0..5000 {
            world.step();
        }
        world.check(seed);
    }
}

#[test]
fn an_account_can_use_all_of_its_quota() {
    let mut quota = quota(limits(1000, 100_000));
    let mut purses = [Purse::default(), Purse::default()];
    let (mut sent, mut clock) = (0, 0);
    while clock < 60 * SECOND {
        clock += 7;
        let (now, wall) = at(clock);
        for purse in &mut purses {
            if let Some(used) = purse.expire(now) {
                quota.used(now, wall, used);
            }
            if let Err(ask) = purse.take(now, 1) {
                if let Some(used) = ask.before {
                    quota.used(now, wall, used);
                }
                let Ok(grant) = grant(&mut quota, clock, ask.recipients, ask.wish) else { continue };
                assert_eq!(purse.fill(grant), None);
                purse.take(now, 1).unwrap();
            }
            sent += 1;
        }
    }
    assert_eq!(sent, 1000);
}
