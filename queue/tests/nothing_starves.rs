//! A site with a million messages takes nothing from the others.

use mailrail_queue::{
    LaneId, New, Queue, Resolution, Target, Work,
    retry::RetrySchedule,
    time::{Mono, Wall},
};
use smallvec::smallvec;
use std::{collections::BTreeMap, time::Duration};

const WALL: Wall = Wall(1_700_000_000_000);
const EXPIRES: Wall = Wall(1_800_000_000_000);

fn queue_with(jobs: &[(&str, u64)]) -> Queue<u64> {
    let mut queue = Queue::new(RetrySchedule::default(), 20, 1);
    let lease = Some(queue.lease_id([192, 0, 2, 1].into()));
    let mut key = 0;
    for (domain, count) in jobs {
        let target = Target { recipients: smallvec![0], attempts: 0, next_try: None };
        let targets = [((*domain).to_owned(), target)];
        for _ in 0..*count {
            key += 1;
            queue.add(Mono(0), WALL, New { key, lease, accepted: WALL, expires: EXPIRES, targets: &targets });
        }
        let ttl = Duration::from_secs(86_400);
        queue.resolved(Mono(0), WALL, domain, Resolution::Site { key: (*domain).into(), ttl });
    }
    queue
}

#[test]
fn each_lane_with_mail_is_offered_a_connection_before_any_is_offered_a_second() {
    let mut queue = queue_with(&[("huge.example", 1_000_000), ("a.example", 1), ("b.example", 9), ("c.example", 100)]);
    let mut first: Vec<LaneId> = Vec::new();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(work) = queue.poll(Mono(0), WALL) {
        let Work::Connect { lane } = work else { panic!("{work:?}") };
        queue.connection_opened(lane);
        *counts.entry(queue.lane(lane).unwrap().site.to_string()).or_default() += 1;
        if first.len() < 4 {
            assert!(!first.contains(&lane));
            first.push(lane);
        }
    }
    let expected = [("huge.example", 20), ("a.example", 1), ("b.example", 2), ("c.example", 13)];
    assert_eq!(counts, expected.map(|(site, count)| (site.to_owned(), count)).into());
}

#[test]
fn with_room_for_one_connection_in_all_every_lane_has_its_turn() {
    let mut queue = queue_with(&[("huge.example", 1_000_000), ("a.example", 3), ("b.example", 3)]);
    let mut turns = Vec::new();
    for _ in 0..9 {
        let Some(Work::Connect { lane }) = queue.poll(Mono(0), WALL) else { panic!("there is mail") };
        queue.connection_opened(lane);
        queue.connection_ready(lane);
        turns.push(queue.lane(lane).unwrap().site.to_string());
        let taken = queue.take(lane, WALL).unwrap();
        queue.done(taken.job);
        queue.connection_closed(lane, false);
    }
    for site in ["a.example", "b.example", "huge.example"] {
        assert_eq!(turns.iter().filter(|turn| *turn == site).count(), 3, "{turns:?}");
    }
}

#[test]
fn mail_of_one_lane_goes_in_order_of_acceptance() {
    let mut queue = queue_with(&[("a.example", 1000)]);
    let Some(Work::Connect { lane }) = queue.poll(Mono(0), WALL) else { panic!("there is mail") };
    queue.connection_opened(lane);
    let order: Vec<u64> = std::iter::from_fn(|| queue.take(lane, WALL)).map(|taken| taken.key).collect();
    assert!(order.into_iter().eq(1..=1000));
}
