//! The queue against a naive model: a map of every recipient and where it should be, in a world made from a seed.
//!
//! Each run is a seed; a failure says which. `MAILRAIL_SEEDS=5000` runs more of them, `MAILRAIL_SEED=7` runs one.

mod connections;
mod rest;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

#[expect(clippy::disallowed_methods, reason = "how many seeds to run is for the caller to say, outside the queue")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Vec<u64> {
    match number("MAILRAIL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MAILRAIL_SEEDS").unwrap_or(200)).collect(),
    }
}

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..world.steps {
        world.step();
    }
    world.come_to_rest();
    world.trace
}

fn for_each_seed(test: impl Fn(u64)) {
    for seed in seeds() {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("\nfailed with MAILRAIL_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_or_late_and_no_limit_is_exceeded() {
    for_each_seed(|seed| {
        run(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let seeds = seeds();
    for seed in seeds.iter().step_by(seeds.len().div_ceil(10)) {
        assert_eq!(run(*seed), run(*seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}
