//! Rehearsals of campaigns made from a seed, small and large: what must hold is checked by the rehearsal itself, on every day.
//!
//! Each run is a seed; a failure says which. `MAILRAIL_SEEDS=5000` runs more of them, `MAILRAIL_SEED=7` runs one.

mod making;

use mailrail_queue::sim::{
    campaign::{Campaign, Volume},
    report::Report,
    world::World,
};
use making::{Making, large};

#[expect(clippy::disallowed_methods, reason = "how many seeds to run is for the caller to say, outside the queue")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(campaign: Campaign) -> Report {
    let days = campaign.days;
    let mut world = World::new(campaign).unwrap();
    for _ in 0..days {
        world.day().unwrap();
    }
    world.report()
}

#[test]
fn whatever_is_rehearsed_no_ip_is_over_its_plan_and_every_recipient_is_accounted_for() {
    let seeds: Vec<u64> = match number("MAILRAIL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MAILRAIL_SEEDS").unwrap_or(150)).collect(),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(Making::new(seed).campaign()));
        if let Err(cause) = outcome {
            eprintln!("\nfailed with MAILRAIL_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_one_another() {
    for seed in 1..=5 {
        let campaign = || Making::new(seed).campaign();
        assert_eq!(run(campaign()), run(campaign()), "seed {seed}");
    }
    let busy = |seed| Campaign { seed, ..large(3, 200_000, 10) };
    assert_ne!(run(busy(1)), run(Campaign { seed: 2, ..busy(1) }));
}

#[test]
fn a_crowd_comes_to_what_single_messages_come_to() {
    let sent = |crowd| {
        let report = run(Campaign { crowd: Some(crowd), ..large(12, 20_000, 4) });
        (report.days.iter().map(|day| day.sums.sent as f64).collect::<Vec<_>>(), report.grain.crowd)
    };
    let ((single, one), (crowds, fifty)) = (sent(1), sent(50));
    assert_eq!((one, fifty), (1, 50));
    for (day, (single, crowd)) in single.iter().zip(&crowds).enumerate() {
        let apart = (single - crowd).abs() / single;
        assert!(apart < 0.05, "day {}: {single} one by one, {crowd} in crowds", day + 1);
    }
}

/// What must run in under a minute: 100 leased IPs, 20 million messages a day, 45 days. Here a tenth of the days.
#[test]
fn twenty_million_messages_a_day_are_rehearsed() {
    let report = run(large(4, 20_000_000, 100));
    assert!(report.grain.crowd > 1);
    assert!(report.days.iter().all(|day| day.sums.wanted == 20_000_000), "{:?}", report.days);
}

#[test]
#[ignore = "by hand: how long the whole takes"]
fn the_whole_of_it() {
    for day in run(large(45, 20_000_000, 100)).days {
        eprintln!("{day:?}");
    }
}

#[test]
fn a_volume_of_nothing_is_nothing() {
    let mut campaign = large(3, 1000, 2);
    campaign.streams[0].volume = Volume::Constant(0);
    let report = run(campaign);
    assert_eq!((report.total.wanted, report.queued), (0, 0));
}
