//! What a queued message costs: at most 120 bytes of heap, wherever it waits, with no doubling that stands by.
//!
//! One test, in a process of its own: the allocator counts for all of it.
use mailrail_queue::{
    LeaseId, New, NextTry, Queue, Resolution, Target, Work,
    retry::RetrySchedule,
    time::{Mono, Wall},
};
use smallvec::smallvec;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::{alloc::System, time::Duration};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn heap() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

const MESSAGES: u64 = 300_000;
const WALL: u64 = 1_700_000_000_000;
const LIFE: u64 = 5 * 86_400_000;

struct Filled {
    queue: Queue<u64>,
    before: usize,
}

impl Filled {
    fn new(lease: bool, resolve: bool) -> Self {
        let before = heap();
        let mut queue = Queue::new(RetrySchedule::default(), 20, 1);
        let id: LeaseId = queue.lease_id([192, 0, 2, 1].into());
        for key in 0..MESSAGES {
            // A thousand a second, a hundred domains.
            let wall = Wall(WALL + key);
            let target = Target { recipients: smallvec![0], attempts: 0, next_try: None };
            let targets = [(format!("d{}.example", key % 100), target)];
            let new = New {
                key,
                lease: lease.then_some(id),
                accepted: wall,
                expires: Wall(wall.0 + LIFE),
                targets: &targets,
            };
            queue.add(Mono(key * 1_000_000), wall, new);
        }
        for domain in (0..100).filter(|_| resolve) {
            let resolution = Resolution::Site { key: "mx".into(), ttl: Duration::from_secs(86_400) };
            queue.resolved(Mono(0), Wall(WALL), &format!("d{domain}.example"), resolution);
        }
        while let Some(work) = queue.poll(Mono(0), Wall(WALL)) {
            let Work::Connect { lane } = work else { panic!("{work:?}") };
            queue.connection_opened(lane);
        }
        while queue.next_wake() == Some(Mono(0)) {
            assert!(queue.poll(Mono(0), Wall(WALL)).is_none_or(|work| matches!(work, Work::Connect { .. })));
        }
        Self { queue, before }
    }

    fn per_message(&self) -> usize {
        (heap() - self.before).div_ceil(MESSAGES as usize)
    }
}

#[test]
fn a_queued_message_costs_at_most_120_bytes() {
    let unresolved = Filled::new(true, false);
    assert_eq!(unresolved.queue.unresolved().count() as u64, MESSAGES);
    let figure = unresolved.per_message();
    assert!(figure <= 120, "unresolved: {figure}");
    drop(unresolved);

    let stranded = Filled::new(false, true);
    assert_eq!(stranded.queue.stranded() as u64, MESSAGES);
    let figure = stranded.per_message();
    assert!(figure <= 120, "stranded: {figure}");
    drop(stranded);

    let mut filled = Filled::new(true, true);
    let lane = filled.queue.lanes().next().expect("one site, one lease").lane;
    let ready = filled.per_message();
    assert!(ready <= 120, "ready: {ready}");
    while let Some(taken) = filled.queue.take(lane, Wall(WALL)) {
        let next = filled.queue.defer(Mono(0), Wall(WALL), taken.job, &taken.recipients);
        assert!(matches!(next, NextTry::At(_)));
    }
    let deferred = filled.per_message();
    assert!(deferred <= 120, "deferred: {deferred}");
    println!("ready {ready}, deferred {deferred}, stranded {figure} bytes");
}
