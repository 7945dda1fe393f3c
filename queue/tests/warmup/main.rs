//! Warm-up, egress and overflow in virtual time: hosts of several shards, made from a seed, with crashes, clock steps, leases
//! that move, plans that change. No IP is ever over its plan, nothing is lost or starved, and overflow goes where it should.
//!
//! Each run is a seed; a failure says which. `MAILRAIL_SEEDS=5000` runs more of them, `MAILRAIL_SEED=7` runs one.

mod shard;
mod world;
mod year;

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// Tests that the seeds are divided over.
const PARTS: u64 = 4;

#[expect(clippy::disallowed_methods, reason = "how many seeds to run is for the caller to say, outside the queue")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..world.steps {
        world.step();
    }
    world.come_to_rest();
    world.trace
}

/// Runs every [`PARTS`]th seed; so the parts run side by side.
fn hosts(part: u64) {
    let seeds: Vec<u64> = match number("MAILRAIL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MAILRAIL_SEEDS").unwrap_or(2000)).collect(),
    };
    for seed in seeds.into_iter().filter(|seed| seed % PARTS == part) {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("\nfailed with MAILRAIL_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn no_ip_is_over_its_plan_and_nothing_is_lost_or_starved_1() {
    hosts(0);
}

#[test]
fn no_ip_is_over_its_plan_and_nothing_is_lost_or_starved_2() {
    hosts(1);
}

#[test]
fn no_ip_is_over_its_plan_and_nothing_is_lost_or_starved_3() {
    hosts(2);
}

#[test]
fn no_ip_is_over_its_plan_and_nothing_is_lost_or_starved_4() {
    hosts(3);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..=3 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

/// The fifth thing that must hold: day 45 allows 50,000, and on day 46 the IP is done.
#[test]
fn a_year_of_the_standard_plan() {
    year::a_year();
}
