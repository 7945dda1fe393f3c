//! What the store costs by itself: a 4 KiB message kept, settled, and a hundred thousand of them found again at a start.
//! No syncs: their cost is the disk's, and shared by a group.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrail_spool::{Limits, MessageKey, NewMessage, RealDisk, SettleKind, Spool};
use std::{hint::black_box, path::Path};

const CONTENT: usize = 4096;

fn open(directory: &Path) -> Spool {
    let disk = RealDisk::open(directory).expect("a directory of our own");
    let limits = Limits { segment_size: 16 << 20, reserve: 1 << 20, spares: 4, ..Limits::default() };
    Spool::open(disk, limits).expect("a sound spool").0
}

/// Events are out and synced, dead segments are used again, new ones are made: as a shard does beside the mail.
fn keep_house(spool: &mut Spool, now: &mut u64) {
    if let Some(job) = spool.start_sync() {
        let _ = spool.finish_sync(job, Ok(()));
    }
    while let Some(cursor) = spool.read_outbox(usize::MAX, |_| ()) {
        spool.acknowledge_outbox(cursor);
    }
    *now += 10_000;
    while let Some(chore) = spool.chore(*now) {
        spool.finish_chore(chore.run(), *now);
    }
}

fn append(spool: &mut Spool, id: u64, content: &[u8], now: &mut u64) -> MessageKey {
    loop {
        let id = id.to_le_bytes();
        let parts = [content];
        let new = NewMessage { id: &id, accepted_ms: 1, meta: &[7; 120], recipients: 1, chunks: &[], parts: &parts };
        match spool.append_message(&new) {
            Ok(appended) => return appended.key,
            Err(_) => keep_house(spool, now),
        }
    }
}

fn settle_all(spool: &mut Spool, made: &mut Vec<MessageKey>) {
    for key in made.drain(..) {
        let _ = black_box(spool.settle(key, &[0], SettleKind::Delivered, &[7; 150]));
    }
}

fn append_and_settle(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut spool = open(directory.path());
    let (content, detail, mut now, mut id) = ([0x55; CONTENT], [7; 150], 0, 0);
    let mut group = c.benchmark_group("spool");
    group.throughput(Throughput::Elements(1));
    group.bench_function("append_4k", |b| {
        let mut made = Vec::new();
        b.iter(|| {
            id += 1;
            made.push(append(&mut spool, id, &content, &mut now));
            if made.len() == 1000 {
                settle_all(&mut spool, &mut made);
            }
        });
        settle_all(&mut spool, &mut made);
    });
    group.bench_function("append_short_and_settle", |b| {
        b.iter(|| {
            id += 1;
            let key = append(&mut spool, id, b"short", &mut now);
            black_box(spool.settle(key, &[0], SettleKind::Delivered, &detail))
        });
    });
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut spool = open(directory.path());
    let mut now = 0;
    for id in 0..100_000 {
        append(&mut spool, id, &[0x55; 1024], &mut now);
    }
    keep_house(&mut spool, &mut now);
    drop(spool);
    let mut group = c.benchmark_group("spool");
    group.throughput(Throughput::Elements(100_000)).sample_size(10);
    group.bench_function("recover_100k", |b| b.iter(|| black_box(open(directory.path()).len())));
    group.finish();
}

criterion_group!(benches, append_and_settle, recovery);
criterion_main!(benches);
