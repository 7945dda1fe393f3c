//! A look-up in a suppression list of 10 million addresses: below a microsecond, digest and all. The addresses asked for are
//! far apart, so that no look-up finds its cache lines warm.

use criterion::{Criterion, criterion_group, criterion_main};
use mailrail_queue::admit::suppress::{Change, Digest, Key, List, Overlay, Reason, Reasons, Set, suppressed};
use std::{hint::black_box, sync::Arc};

const KEY: Key = Key(1, 2);
const MILLION: u32 = 1_000_000;

fn address(n: u32) -> String {
    format!("some.user.{n}@mail{}.example.com", n % 5000)
}

fn ten_million() -> Set {
    let mut set = Set::default();
    for piece in 0..10 {
        let entry = |n| {
            let digest = Digest::of(KEY, List::Account("acme1"), &address(n)).expect("an address");
            Change { digest, reason: Some(Reason::Bounce) }
        };
        set = set.with(&mut (piece * MILLION..(piece + 1) * MILLION).map(entry).collect());
    }
    set
}

fn look_ups(criterion: &mut Criterion) {
    let mut lists = Overlay::default();
    let set = ten_million();
    eprintln!("{} entries, {} bytes", set.len(), set.bytes());
    lists.swap(Arc::new(set));
    // Changes since the set was made.
    for n in 20 * MILLION..20 * MILLION + 10_000 {
        let digest = Digest::of(KEY, List::Account("acme1"), &address(n)).expect("an address");
        lists.change(Change { digest, reason: Some(Reason::Bounce) });
    }
    let mut group = criterion.benchmark_group("look up in 10 million");
    for (name, first) in [("listed", 0), ("not listed", 10 * MILLION)] {
        let asked: Vec<String> =
            (0..MILLION / 4).map(|n| address(first + n.wrapping_mul(7_654_321) % (10 * MILLION))).collect();
        let mut next = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                next = (next + 1) % asked.len();
                black_box(suppressed(&lists, KEY, "acme1", Reasons::default(), None, &asked[next]))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, look_ups);
criterion_main!(benches);
