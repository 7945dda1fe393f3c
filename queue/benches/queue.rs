//! What a message costs the queue, with few and with very many queued: the same work, whatever their number. What grows in
//! *defer and come back* is the misses of the cache: jobs come back in an order of their own.
//!
//! *schedule and pick*: a message comes, the next one is taken and done. *defer and come back*: about one that was deferred
//! is due, is taken and deferred again. Both move messages through a queue that stays as full as it was.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mailrail_queue::{
    LaneId, LeaseId, New, Queue, Resolution, Target, Work,
    retry::RetrySchedule,
    time::{Mono, Wall},
};
use smallvec::smallvec;
use std::{hint::black_box, time::Duration};

const WALL: u64 = 1_700_000_000_000;
const LIFE: u64 = 1000 * 86_400_000;
const RETRY: Duration = Duration::from_secs(300);

struct Full {
    queue: Queue<u64>,
    lease: LeaseId,
    lanes: Vec<LaneId>,
    targets: Vec<[(String, Target); 1]>,
    key: u64,
    /// Nanoseconds.
    clock: u64,
    /// So much time goes by for each message.
    step: u64,
}

impl Full {
    fn new(queued: u64, sites: usize) -> Self {
        let mut queue = Queue::new(RetrySchedule { first: RETRY, factor: 1, ..RetrySchedule::default() }, 1, 1);
        let lease = queue.lease_id([192, 0, 2, 1].into());
        let target = Target { recipients: smallvec![0], attempts: 0, next_try: None };
        let targets: Vec<_> = (0..sites).map(|n| [(format!("d{n}.example"), target.clone())]).collect();
        let mut full =
            Self { queue, lease, lanes: Vec::new(), targets, key: 0, clock: 0, step: RETRY.as_nanos() as u64 / queued };
        (0..queued).for_each(|_| full.add());
        for n in 0..sites {
            let resolution = Resolution::Site { key: format!("mx{n}").into(), ttl: Duration::from_secs(1 << 30) };
            full.queue.resolved(Mono(0), Wall(WALL), &format!("d{n}.example"), resolution);
        }
        full.settle();
        full
    }

    fn now(&self) -> Mono {
        Mono(self.clock)
    }

    fn wall(&self) -> Wall {
        Wall(WALL + self.clock / 1_000_000)
    }

    fn add(&mut self) {
        self.key += 1;
        let wall = self.wall();
        let targets = &self.targets[self.key as usize % self.targets.len()];
        let expires = Wall(wall.0 + LIFE);
        let new = New { key: self.key, lease: Some(self.lease), accepted: wall, expires, targets };
        self.queue.add(Mono(self.clock), wall, new);
    }

    /// Opens the connections that are wanted, one a lane.
    fn settle(&mut self) {
        let (now, wall) = (self.now(), self.wall());
        while let Some(work) = self.queue.poll(now, wall) {
            let Work::Connect { lane } = work else { continue };
            self.queue.connection_opened(lane);
            self.queue.connection_ready(lane);
            self.lanes.push(lane);
        }
    }

    fn schedule_and_pick(&mut self) {
        self.add();
        let lane = self.lanes[self.key as usize % self.lanes.len()];
        let wall = self.wall();
        self.settle();
        if let Some(taken) = black_box(self.queue.take(lane, wall)) {
            self.queue.done(taken.job);
        }
    }

    fn defer_and_come_back(&mut self) {
        self.clock += self.step;
        self.settle();
        let (now, wall) = (self.now(), self.wall());
        if let Some(taken) = self.queue.take(self.lanes[0], wall) {
            black_box(self.queue.defer(now, wall, taken.job, &taken.recipients));
        }
    }
}

fn queued(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule and pick");
    for queued in [10_000, 100_000, 1_000_000] {
        let mut full = Full::new(queued, 1000);
        group.bench_function(BenchmarkId::from_parameter(queued), |bencher| bencher.iter(|| full.schedule_and_pick()));
    }
    group.finish();
    let mut group = criterion.benchmark_group("defer and come back");
    for queued in [10_000, 100_000, 1_000_000] {
        let mut full = Full::new(queued, 1);
        (0..2 * queued).for_each(|_| full.defer_and_come_back());
        group
            .bench_function(BenchmarkId::from_parameter(queued), |bencher| bencher.iter(|| full.defer_and_come_back()));
    }
    group.finish();
}

criterion_group!(benches, queued);
criterion_main!(benches);
