//! The replay of a corpus on stable Rust and on each change: what fuzzing has found stays found.

use std::{fs, path::Path};

/// Changed copies of the corpus that are run besides it. What coverage guides is `ci/fuzz`.
const CHANGED: u64 = 300;

pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 5, "{} holds a corpus", folder.display());
    inputs.sort();
    inputs.iter().for_each(|input| run(input));
    let rounds = std::env::var("MAILRAIL_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(CHANGED);
    for seed in 0..rounds {
        let changed = change(&inputs, seed);
        let survived = std::panic::catch_unwind(|| run(&changed)).is_ok();
        assert!(survived, "{target}, seed {seed}: {:?}", String::from_utf8_lossy(&changed));
    }
}

/// One input with a few octets changed, and parts of another put in.
fn change(inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % n.max(1)
    };
    let mut input = inputs[below(inputs.len())].clone();
    for _ in 0..=below(6) {
        let at = below(input.len());
        match below(4) {
            0 if at < input.len() => input[at] = b"\r\n\0. \t:;<>\"\\\xff+-=[a5"[below(19)],
            1 if at < input.len() => drop(input.drain(at..(at + 1 + below(8)).min(input.len()))),
            2 => input.insert(at, below(256) as u8),
            _ => {
                let other = &inputs[below(inputs.len())];
                let from = below(other.len());
                let part = &other[from..(from + below(60)).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
        }
    }
    input
}
