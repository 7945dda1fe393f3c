//! Event encoding: a message id in words; the two lines (Send, Delivery) of a message with one recipient, from its records in the spool.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrail_engine::{event::sample::Sample, message::id::MessageId};
use std::{hint::black_box, io::Write as _};

fn encoding(c: &mut Criterion) {
    let sample = Sample::new();
    let mut out = Vec::with_capacity(4096);
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    group.bench_function("send_and_delivery", |b| {
        b.iter(|| {
            out.clear();
            sample.encode(&mut out);
            black_box(out.len())
        });
    });
    let id = MessageId::new(1_700_000_000_000, 1, 12345, 0x0123_4567_89ab_cdef);
    group.bench_function("id", |b| b.iter(|| black_box(black_box(&id).to_text())));
    group.bench_function("id_by_format", |b| {
        b.iter(|| {
            out.clear();
            // What it replaced.
            let (high, low) = (black_box(12345_u64), black_box(0x0123_4567_89ab_cdef_u64));
            let _ = write!(
                out,
                "{high:016x}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}-000000",
                high >> 32,
                high,
                high,
                low >> 48,
                low
            );
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, encoding);
criterion_main!(benches);
