//! Receivers: what they take, what they say to more, and how trust comes and goes.

use super::*;

fn model() -> Model {
    let reply = |text: &str| Reply::parse(text).unwrap();
    Model {
        name: "r".into(),
        provider: None,
        volume: vec![(0.0, 100.0), (50.0, 1_100.0), (100.0, 100_000.0)],
        first_day: 200.0,
        growth: 2.0,
        start: 10.0,
        known: 80.0,
        rise: 2.0,
        ramp: 10.0,
        bounces: 5.0,
        bounces_over: 0.05,
        idle: 1.0,
        lenient: 0.0,
        block_at: 1.5,
        block: 1.0,
        block_for: Duration::from_secs(3600),
        defers: 0.0,
        slow: vec![reply("421 4.7.0 slow down")],
        blocked: vec![reply("550 5.7.1 blocked")],
        busy: reply("451 4.3.2 later"),
    }
}

fn chances() -> impl FnMut() -> u64 {
    let mut state = 7;
    move || crate::retry::chance(&mut state)
}

fn day(standing: &mut Standing, model: &Model, count: u32, unknown: f64) -> Answer {
    let answer = standing.answer(model, Wall(0), (count, 1), unknown, &mut chances());
    standing.end_day(model, u64::MAX / 2);
    answer
}

#[test]
fn replies_are_read_and_written() {
    for line in ["421 4.7.28 words and words", "554 no code", "450 4.2 is none"] {
        assert_eq!(Reply::parse(line).unwrap().to_string(), line);
    }
    assert_eq!(Reply::parse("421 4.7.28 x").unwrap().enhanced, Some((4, 7, 28)));
    for line in ["", "421", "250 2.0.0 ok", "abc words", "600 words"] {
        assert!(Reply::parse(line).is_err(), "{line}");
    }
}

#[test]
fn more_trust_is_more_mail_and_a_day_is_no_more_than_twice_the_usual_one() {
    let model = model();
    assert_eq!([0.0, 25.0, 50.0, 100.0].map(|trust| model.takes(trust)), [100.0, 600.0, 1_100.0, 100_000.0]);
    assert_eq!(model.limit(50.0, 0.0), 200.0, "an IP that it does not know");
    assert_eq!(model.limit(50.0, 400.0), 800.0);
    assert_eq!(model.limit(50.0, 4_000.0), 1_100.0);
}

#[test]
fn what_is_too_much_is_refused_once_a_connection_and_the_rest_is_not_tried() {
    let model = model();
    let mut standing = Standing::new(&model, false, u64::MAX / 2);
    let answer = standing.answer(&model, Wall(0), (1000, 3), 0.0, &mut chances());
    assert!((190..=210).contains(&answer.taken), "{answer:?}");
    assert_eq!((answer.refused, answer.untried), (3, 1000 - 3 - answer.taken));
    assert_eq!(answer.reply, (0, false));
    assert_eq!(standing.answer(&model, Wall(0), (1, 3), 0.0, &mut chances()).refused, 1);
}

#[test]
fn who_insists_is_blocked_for_a_time_and_for_as_long_nothing_is_taken() {
    let model = model();
    let mut standing = Standing::new(&model, false, u64::MAX / 2);
    let answer = standing.answer(&model, Wall(0), (1000, 500), 0.0, &mut chances());
    assert_eq!(answer.reply, (0, true), "{answer:?}");
    assert!(standing.newly_blocked() && !standing.newly_blocked());
    standing.end_day(&model, 0);
    let during = standing.answer(&model, Wall(3_599_000), (5, 1), 0.0, &mut chances());
    assert_eq!((during.taken, during.refused, during.reply), (0, 1, (0, true)));
    assert!(standing.answer(&model, Wall(3_600_000), (5, 1), 0.0, &mut chances()).taken > 0);
}

#[test]
fn trust_is_won_by_good_days_and_lost_by_too_much_by_bad_lists_and_by_silence() {
    let model = model();
    let mut standing = Standing::new(&model, false, 0);
    day(&mut standing, &model, 100, 0.0);
    assert_eq!(standing.trust, 12.0);
    day(&mut standing, &model, 100, 0.2);
    assert_eq!(standing.trust, 7.0);
    for _ in 0..5 {
        day(&mut standing, &model, 100, 0.0);
    }
    assert_eq!(standing.trust, 17.0);
    day(&mut standing, &model, 0, 0.0);
    assert_eq!(standing.trust, 16.0);
    for _ in 0..30 {
        day(&mut standing, &model, 0, 0.0);
    }
    assert_eq!(standing.trust, 10.0, "silence makes nobody less than a stranger");
    standing.answer(&model, Wall(0), (1000, 60), 0.0, &mut chances());
    standing.end_day(&model, 0);
    assert!(standing.trust < 2.0, "{}", standing.trust);
}

#[test]
fn of_a_crowd_the_expected_share_bounces_and_of_single_messages_as_many_in_the_mean() {
    let mut model = model();
    model.first_day = 1e9;
    model.volume = vec![(0.0, 1e9)];
    let mut chance = chances();
    let mut standing = Standing::new(&model, false, 0);
    assert_eq!(standing.answer(&model, Wall(0), (10_000, 1), 0.03, &mut chance).bounced, 300);
    let single: u32 = (0..10_000).map(|_| standing.answer(&model, Wall(0), (1, 1), 0.03, &mut chance).bounced).sum();
    assert!((250..350).contains(&single), "{single}");
}
