//! Ways in which mail could come to stand still, go to the wrong place or go twice, one test each.

use mailrail_queue::{
    LaneId, LeaseId, New, NextTry, Queue, Resolution, Taken, Target, Work,
    retry::RetrySchedule,
    time::{Mono, Wall},
};
use smallvec::smallvec;
use std::{collections::BTreeMap, time::Duration};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Wall-clock time at the start of each test.
const EPOCH: u64 = 1_700_000_000_000;

/// A queue, its clock, and what it has said to do.
struct Host {
    queue: Queue<u64>,
    second: u64,
    ended: Vec<Work>,
    connects: Vec<LaneId>,
}

impl Host {
    fn new() -> Self {
        let queue = Queue::new(RetrySchedule::default(), 4, 7);
        Self { queue, second: 0, ended: Vec::new(), connects: Vec::new() }
    }

    fn now(&self) -> Mono {
        Mono(self.second * 1_000_000_000)
    }

    fn wall(&self) -> Wall {
        Wall(EPOCH + self.second * 1000)
    }

    fn lease(&mut self, n: u8) -> LeaseId {
        self.queue.lease_id([192, 0, 2, n].into())
    }

    fn add(&mut self, key: u64, lease: Option<LeaseId>, domains: &[&str]) {
        self.add_until(key, lease, domains, 5 * DAY, None);
    }

    fn add_until(&mut self, key: u64, lease: Option<LeaseId>, domains: &[&str], life: u64, next_try: Option<Wall>) {
        let target = |n: usize| Target { recipients: smallvec![n as u16], attempts: 0, next_try };
        let targets: Vec<_> = domains.iter().enumerate().map(|(n, domain)| ((*domain).to_owned(), target(n))).collect();
        let accepted = self.wall();
        let expires = Wall(accepted.0 + life * 1000);
        self.queue.add(self.now(), accepted, New { key, lease, accepted, expires, targets: &targets });
    }

    fn resolve(&mut self, domain: &str, site: &str, ttl: u64) {
        while self.queue.ask().is_some() {}
        let resolution = Resolution::Site { key: site.into(), ttl: Duration::from_secs(ttl) };
        self.queue.resolved(self.now(), self.wall(), domain, resolution);
    }

    fn questions(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.queue.ask()).map(String::from).collect()
    }

    /// Does what there is to do, but opens no more than one connection of each lane.
    fn work(&mut self) {
        self.connects.clear();
        loop {
            match self.queue.poll(self.now(), self.wall()) {
                Some(Work::Connect { lane }) => {
                    self.queue.connection_opened(lane);
                    self.connects.push(lane);
                }
                Some(end) => self.ended.push(end),
                None if self.queue.next_wake().is_some_and(|at| at <= self.now()) => {}
                None => return,
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.second += seconds;
        self.work();
    }

    /// One connection, opened and ready.
    fn connect(&mut self) -> LaneId {
        self.work();
        let lane = *self.connects.first().expect("a connection is wanted");
        self.queue.connection_ready(lane);
        lane
    }

    fn take(&mut self, lane: LaneId) -> Taken<u64> {
        self.queue.take(lane, self.wall()).expect("a job is ready")
    }

    fn site_of(&self, lane: LaneId) -> String {
        self.queue.lane(lane).expect("the lane is there").site.to_string()
    }
}

#[test]
fn a_lane_wakes_after_its_back_off_though_another_connection_failed_meanwhile() {
    let mut host = Host::new();
    let lease = host.lease(1);
    for key in 0..40 {
        host.add(key, Some(lease), &["a.example"]);
    }
    host.resolve("a.example", "mx", 9 * DAY);
    let lane = host.connect();
    assert_eq!(host.connects.len(), 4);
    // Long back-off: each failure in a row doubles it.
    for _ in 0..6 {
        let until = host.queue.site_trouble(host.now(), lane);
        host.second = until.0 / 1_000_000_000 + 1;
    }
    host.queue.site_trouble(host.now(), lane);
    // One connection works on, one that was being opened fails, then all are gone.
    host.queue.connect_failed(host.now(), lane);
    host.queue.connection_closed(lane, true);
    host.pass(61);
    for opening in [true, true, false] {
        host.queue.connection_closed(lane, opening);
    }
    host.work();
    assert!(host.connects.is_empty());
    host.pass(HOUR);
    assert_eq!(host.connects, [lane]);
}

#[test]
fn a_lane_that_learnt_to_keep_to_few_connections_grows_back_to_its_limit() {
    let mut host = Host::new();
    let lease = host.lease(1);
    for key in 0..100 {
        host.add(key, Some(lease), &["a.example"]);
    }
    host.resolve("a.example", "mx", 9 * DAY);
    let lane = host.connect();
    assert_eq!(host.connects.len(), 4);
    for _ in 0..3 {
        host.queue.connect_failed(host.now(), lane);
        host.queue.connection_closed(lane, true);
    }
    let mut opened = 1;
    for _ in 0..5 {
        host.pass(61);
        host.connects.iter().for_each(|lane| host.queue.connection_ready(*lane));
        opened += host.connects.len();
    }
    assert_eq!(opened, 4);
}

#[test]
fn mail_without_a_lease_keeps_its_site_though_its_domain_moves_and_others_come() {
    let mut host = Host::new();
    host.add(1, None, &["a.example"]);
    host.resolve("a.example", "mx.old", 60);
    host.pass(120);
    host.add(2, None, &["a.example"]);
    host.resolve("a.example", "mx.new", 9 * DAY);
    host.add(3, None, &["b.example"]);
    host.resolve("b.example", "mx.other", 9 * DAY);
    let lease = host.lease(1);
    host.queue.assign(host.now(), host.wall(), |_| Some(lease));
    host.work();
    let lanes: BTreeMap<String, LaneId> = host.connects.iter().map(|lane| (host.site_of(*lane), *lane)).collect();
    let mut found = BTreeMap::new();
    for (site, lane) in lanes {
        while let Some(taken) = host.queue.take(lane, host.wall()) {
            found.insert(taken.key, site.clone());
        }
    }
    assert_eq!(found[&2], "mx.new");
    assert_eq!(found[&3], "mx.other");
    assert_ne!(found[&1], "mx.other");
}

#[test]
fn a_deferred_message_follows_its_domain_to_a_new_site() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example"]);
    host.resolve("a.example", "mx.old", 60);
    let old = host.connect();
    let taken = host.take(old);
    assert!(matches!(host.queue.defer(host.now(), host.wall(), taken.job, &taken.recipients), NextTry::At(_)));
    host.queue.connection_closed(old, false);
    host.pass(600);
    assert_eq!(host.questions(), ["a.example"]);
    host.resolve("a.example", "mx.new", 60);
    let new = host.connect();
    assert_eq!(host.site_of(new), "mx.new");
    assert_eq!(host.take(new).attempts, 1);
}

#[test]
fn mail_for_a_dead_site_follows_its_domain_to_a_new_one() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example"]);
    host.add(2, Some(lease), &["b.example"]);
    host.resolve("a.example", "mx.old", 60);
    host.resolve("b.example", "mx.old", 9 * DAY);
    let mut asked = Vec::new();
    for _ in 0..10 {
        host.work();
        for lane in host.connects.clone() {
            host.queue.connect_failed(host.now(), lane);
            host.queue.connection_closed(lane, true);
        }
        host.second += 60;
        host.work();
        for lane in host.connects.clone() {
            host.queue.connection_closed(lane, true);
        }
        asked.extend(host.questions());
    }
    assert!(asked.contains(&"a.example".to_owned()), "the site is in trouble: is it still the right one?");
    host.resolve("a.example", "mx.new", 9 * DAY);
    host.work();
    let new =
        host.connects.iter().copied().find(|lane| host.site_of(*lane) == "mx.new").expect("the new site is tried");
    assert_eq!(host.take(new).key, 1);
    assert!(host.queue.take(new, host.wall()).is_none(), "mail of the other domain stays where it is");
}

#[test]
fn one_domain_without_an_answer_does_not_hold_up_the_others() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["well.example", "broken.example"]);
    while host.queue.ask().is_some() {}
    host.queue.resolved(host.now(), host.wall(), "broken.example", Resolution::Later);
    host.resolve("well.example", "mx", 9 * DAY);
    let lane = host.connect();
    let taken = host.take(lane);
    assert_eq!(taken.recipients[..], [0]);
    host.queue.done(taken.job);
    host.pass(5 * DAY + 60);
    assert_eq!(host.ended.len(), 1);
    let Work::Expired { job } = host.ended[0] else { panic!("{:?}", host.ended) };
    assert_eq!(host.queue.job(job).map(|(key, recipients, ..)| (key, recipients)), Some((1, &[1][..])));
}

#[test]
fn while_the_dns_fails_the_last_answer_serves_but_a_refusal_does_not() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example"]);
    host.resolve("a.example", "mx", 60);
    host.add(2, Some(lease), &["b.example"]);
    while host.queue.ask().is_some() {}
    let never = Resolution::Never { ttl: Duration::from_secs(60) };
    host.queue.resolved(host.now(), host.wall(), "b.example", never);
    host.pass(600);
    assert!(matches!(host.ended[..], [Work::Undeliverable { .. }]));
    host.add(3, Some(lease), &["a.example"]);
    host.add(4, Some(lease), &["b.example"]);
    for domain in host.questions() {
        host.queue.resolved(host.now(), host.wall(), &domain, Resolution::Later);
    }
    let open: Vec<_> = host.queue.unresolved().map(|(key, ..)| key).collect();
    assert_eq!(open, [4]);
}

#[test]
fn an_answer_that_never_comes_is_asked_for_again() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example"]);
    assert_eq!(host.questions(), ["a.example"]);
    let mut again = Vec::new();
    for _ in 0..30 {
        host.pass(60);
        again.extend(host.questions());
    }
    assert!(again.contains(&"a.example".to_owned()));
}

#[test]
fn what_was_in_flight_when_its_lease_went_is_stranded_when_it_comes_back() {
    let mut host = Host::new();
    let lease = host.lease(1);
    for key in 0..3 {
        host.add(key, Some(lease), &["a.example"]);
    }
    host.add(3, Some(lease), &["later.example"]);
    host.resolve("a.example", "mx", 9 * DAY);
    let lane = host.connect();
    let (one, two) = (host.take(lane), host.take(lane));
    host.queue.strand(lease);
    assert_eq!(host.queue.stranded(), 1);
    host.queue.give_back(one.job);
    host.queue.defer(host.now(), host.wall(), two.job, &two.recipients);
    host.queue.connection_closed(lane, false);
    host.resolve("later.example", "mx2", 9 * DAY);
    assert_eq!(host.queue.stranded(), 4);
    assert_eq!(host.queue.lanes().count(), 0);
    host.pass(DAY);
    assert!(host.connects.is_empty());
    let next = host.lease(2);
    host.queue.assign(host.now(), host.wall(), |_| Some(next));
    host.work();
    assert_eq!((host.connects.len(), host.queue.stranded()), (2, 0));
}

#[test]
fn a_lease_that_goes_before_its_mail_is_resolved_keeps_none_of_it() {
    let mut host = Host::new();
    let (gone, here) = (host.lease(1), host.lease(2));
    let of_here = host.queue.lease_address(here).expect("a leased IP");
    host.add(1, Some(gone), &["a.example"]);
    host.add(2, Some(here), &["a.example"]);
    host.queue.strand_lost(|address| address == of_here);
    host.resolve("a.example", "mx", 9 * DAY);
    assert_eq!(host.queue.stranded_keys(), [1]);
    host.work();
    assert_eq!(host.connects.len(), 1, "the other one's goes");
}

#[test]
fn a_message_with_a_job_in_flight_is_not_offered_to_another_shard() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example", "b.example"]);
    host.add(2, Some(lease), &["b.example", "c.example"]);
    host.resolve("a.example", "mx.a", 9 * DAY);
    host.resolve("b.example", "mx.b", 9 * DAY);
    host.resolve("c.example", "mx.c", 9 * DAY);
    host.work();
    let lane = host.connects.iter().copied().find(|lane| host.site_of(*lane) == "mx.a").expect("a lane of mx.a");
    let taken = host.take(lane);
    host.queue.strand(lease);
    // Moved whole with what is in flight, its recipient at a.example would get it twice.
    assert_eq!(host.queue.stranded_keys(), [2]);
    host.queue.assign(host.now(), host.wall(), |_| None);
    assert!(!host.queue.newly_stranded());
    host.queue.done(taken.job);
    assert!(host.queue.newly_stranded());
    assert_eq!(host.queue.stranded_keys(), [1, 2], "each message once");
}

#[test]
fn a_change_of_leases_does_not_bring_deferred_mail_forward() {
    let mut host = Host::new();
    let (lease, other) = (host.lease(1), host.lease(2));
    host.add(1, Some(lease), &["a.example"]);
    host.resolve("a.example", "mx", 9 * DAY);
    let lane = host.connect();
    let taken = host.take(lane);
    host.queue.defer(host.now(), host.wall(), taken.job, &taken.recipients);
    host.queue.connection_closed(lane, false);
    host.queue.strand(lease);
    host.queue.assign(host.now(), host.wall(), |_| Some(other));
    host.pass(240);
    assert!(host.connects.is_empty(), "the receiver asked for five minutes");
    host.pass(100);
    assert_eq!(host.connects.len(), 1);
}

#[test]
fn the_name_of_a_job_that_has_ended_names_nothing_else() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example"]);
    host.resolve("a.example", "mx", 9 * DAY);
    let lane = host.connect();
    let first = host.take(lane);
    host.queue.done(first.job);
    host.add(2, Some(lease), &["a.example"]);
    host.queue.done(first.job);
    host.queue.give_back(first.job);
    assert_eq!(host.queue.defer(host.now(), host.wall(), first.job, &[0]), NextTry::Expired);
    assert_eq!(host.queue.len(), 1);
    assert_eq!(host.take(lane).key, 2);
}

#[test]
fn a_lane_that_failed_to_the_end_is_forgotten() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add_until(1, Some(lease), &["a.example"], HOUR, None);
    host.resolve("a.example", "mx", 9 * DAY);
    while host.ended.is_empty() {
        host.work();
        for lane in host.connects.clone() {
            host.queue.connect_failed(host.now(), lane);
            host.queue.connection_closed(lane, true);
        }
        host.second += 30;
        assert!(host.second < HOUR + 61, "expiry within a minute");
    }
    let Work::Expired { job } = host.ended[0] else { panic!("{:?}", host.ended) };
    let lane = host.queue.jobs_lane(job);
    assert!(lane.is_some(), "which lane held it is told with its end");
    host.queue.done(job);
    host.pass(DAY);
    assert_eq!(host.queue.lanes().count(), 0);
    assert_eq!((host.queue.len(), host.queue.next_wake()), (0, None));
}

#[test]
fn a_site_that_nobody_came_to_is_forgotten() {
    let mut host = Host::new();
    host.queue.limit_site(&"mx.unknown".into(), None);
    host.queue.limit_site(&"mx.limited".into(), Some(2));
    host.work();
    assert!(!host.queue.knows_site("mx.unknown") && !host.queue.knows_site("mx.limited"));
}

#[test]
fn a_try_set_for_after_the_expiry_does_not_keep_a_message() {
    let mut host = Host::new();
    let lease = host.lease(1);
    let late = Wall(EPOCH + 10 * DAY * 1000);
    host.add_until(1, Some(lease), &["a.example"], HOUR, Some(late));
    host.resolve("a.example", "mx", 9 * DAY);
    host.pass(HOUR + 59);
    assert!(matches!(host.ended[..], [Work::Expired { .. }]));
}

#[test]
fn a_step_of_the_wall_clock_expires_what_is_deferred() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example"]);
    host.resolve("a.example", "mx", 9 * DAY);
    let lane = host.connect();
    let taken = host.take(lane);
    host.queue.defer(host.now(), host.wall(), taken.job, &taken.recipients);
    let stepped = Wall(EPOCH + 6 * DAY * 1000);
    assert!(matches!(host.queue.poll(Mono(21_000_000_000), stepped), Some(Work::Expired { .. })));
}

#[test]
fn recipients_of_a_message_at_one_site_go_together() {
    let mut host = Host::new();
    let lease = host.lease(1);
    host.add(1, Some(lease), &["a.example", "b.example", "c.example"]);
    host.resolve("a.example", "mx", 9 * DAY);
    host.resolve("b.example", "mx", 9 * DAY);
    host.resolve("c.example", "mx", 60);
    let lane = host.connect();
    let taken = host.take(lane);
    assert_eq!(taken.recipients[..], [0, 1, 2]);
    // Together again after a deferral of two of them; then one domain moves, and only its recipient goes along.
    host.queue.defer(host.now(), host.wall(), taken.job, &[2, 1]);
    assert_eq!(host.queue.len(), 2);
    host.queue.connection_closed(lane, false);
    host.pass(600);
    let mut lanes = host.connects.clone();
    host.resolve("c.example", "mx.new", 9 * DAY);
    host.work();
    lanes.append(&mut host.connects);
    let mut found = BTreeMap::new();
    for lane in lanes {
        found.insert(host.site_of(lane), host.take(lane).recipients.to_vec());
    }
    let expected = [("mx".to_owned(), vec![1]), ("mx.new".to_owned(), vec![2])];
    assert_eq!(found, expected.into());
}

#[test]
fn a_lane_in_trouble_is_tried_with_one_connection_first() {
    let mut host = Host::new();
    let lease = host.lease(1);
    for key in 0..100 {
        host.add(key, Some(lease), &["a.example"]);
    }
    host.resolve("a.example", "mx", 9 * DAY);
    host.work();
    for lane in host.connects.clone() {
        host.queue.connect_failed(host.now(), lane);
        host.queue.connection_closed(lane, true);
    }
    host.pass(60);
    assert_eq!(host.connects.len(), 1);
    let lane = host.connects[0];
    host.queue.connection_ready(lane);
    host.work();
    assert_eq!(host.connects.len(), 1, "one after the other");
    let taken = host.take(lane);
    host.queue.done(taken.job);
    host.work();
    assert_eq!(host.connects.len(), 2, "it is well again");
}

#[test]
fn a_site_that_takes_nothing_is_left_alone_for_longer_each_time() {
    let mut host = Host::new();
    let lease = host.lease(1);
    for key in 0..100 {
        host.add(key, Some(lease), &["a.example"]);
    }
    host.resolve("a.example", "mx", 9 * DAY);
    let mut waits = Vec::new();
    for _ in 0..5 {
        let lane = host.connect();
        let taken = host.take(lane);
        let until = host.queue.site_trouble(host.now(), lane);
        waits.push(until.since(host.now()).as_secs());
        host.queue.defer(host.now(), host.wall(), taken.job, &taken.recipients);
        for (n, lane) in host.connects.clone().into_iter().enumerate() {
            host.queue.connection_closed(lane, n > 0);
        }
        host.pass(waits[waits.len() - 1] + 1);
        for lane in host.connects.clone() {
            host.queue.connection_closed(lane, true);
        }
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{waits:?}");
}

#[test]
fn answers_are_kept_for_the_domains_that_had_mail_last() {
    let mut host = Host::new();
    let lease = host.lease(1);
    // Twice the same domain in one message: its jobs become one.
    host.add(0, Some(lease), &["first.example", "first.example"]);
    host.resolve("first.example", "mx", 9 * DAY);
    for n in 1..=100_001 {
        host.add(n, Some(lease), &[&format!("d{n}.example")]);
        host.resolve(&format!("d{n}.example"), "mx", 9 * DAY);
    }
    let lane = host.connect();
    while let Some(taken) = host.queue.take(lane, host.wall()) {
        host.queue.done(taken.job);
    }
    assert!(host.queue.is_empty());
    let known = |name: &str| host.queue.knows_domain(name);
    assert_eq!((known("first.example"), known("d1.example"), known("d2.example")), (false, false, true));
    assert!(known("d100001.example") && host.queue.knows_site("mx"));
}
