//! Whatever operators do, each recipient is in the queue once, and leaves it once.

use super::{Queue, State, Work};
use crate::{
    domain::Resolution,
    job::{JobId, New, Target},
    lane::{LaneId, LeaseId},
    retry::RetrySchedule,
    time::{Mono, Wall},
    warmup::{day::DayStart, ledger::Ledger, plan::Plan},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A job with its message, recipients, place and lane.
type Known = (JobId, u64, Vec<u16>, State, Option<LaneId>);

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u8>),
    Take(u8),
    Hold(u8, u8),
    Release,
    Retry(u8),
    Pull(u8, u8, bool),
    Strand(u8),
    Leave(u8, bool),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => proptest::collection::vec(0..4_u8, 1..5).prop_map(Step::Add),
        2 => any::<u8>().prop_map(Step::Take),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(job, mask)| Step::Hold(job, mask)),
        1 => Just(Step::Release),
        1 => any::<u8>().prop_map(Step::Retry),
        2 => (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(job, mask, end)| Step::Pull(job, mask, end)),
        1 => any::<u8>().prop_map(Step::Strand),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(lease, went)| Step::Leave(lease, went)),
        2 => (0..2000_u16).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    queue: Queue<u64>,
    leases: Vec<LeaseId>,
    now: Mono,
    /// Recipients that are to be in the queue.
    open: BTreeMap<(u64, u16), ()>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut queue = Queue::new(RetrySchedule::default(), 4, 1);
        let leases = (1..3_u8).map(|n| queue.lease_id([192, 0, 2, n].into())).collect();
        Self { queue, leases, now: Mono(1_000_000_000), open: BTreeMap::new(), next: 0 }
    }

    fn wall(&self) -> Wall {
        Wall(1_700_000_000_000 + self.now.0 / 1_000_000)
    }

    /// Answers questions: two domains a site.
    fn settle(&mut self) -> Vec<LaneId> {
        while let Some(name) = self.queue.ask() {
            let key = if *name < *"c" { "mx1" } else { "mx2" };
            let answer = Resolution::Site { key: key.into(), ttl: DAY };
            self.queue.resolved(self.now, self.wall(), &name, answer);
        }
        let mut lanes = Vec::new();
        for _ in 0..200 {
            match self.queue.poll(self.now, self.wall()) {
                Some(Work::Connect { lane }) => {
                    self.queue.connection_opened(lane);
                    self.queue.connection_ready(lane);
                    self.queue.connection_closed(lane, false);
                    lanes.push(lane);
                }
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        lanes
    }

    fn jobs(&self) -> Vec<Known> {
        let (mut jobs, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            from = self.queue.scan(at, 3, |seen| {
                jobs.push((seen.id(), seen.key(), seen.numbers().to_vec(), seen.state(), seen.lane()));
            });
        }
        jobs
    }

    fn some_of(&self, pick: u8, mask: u8) -> Option<(JobId, u64, Vec<u16>)> {
        let jobs = self.jobs();
        let (job, key, numbers, ..) = jobs.get(usize::from(pick) % jobs.len().max(1))?;
        let picked = numbers.iter().copied().filter(|number| mask >> (number % 8) & 1 == 1).collect();
        Some((*job, *key, picked))
    }

    fn step(&mut self, step: &Step) {
        let (now, wall) = (self.now, self.wall());
        match step {
            Step::Add(domains) => {
                let mut targets: BTreeMap<String, Target> = BTreeMap::new();
                for (number, domain) in domains.iter().enumerate() {
                    let name = ["a", "b", "c", "d"][usize::from(*domain)].to_owned();
                    let empty = Target { recipients: [].into_iter().collect(), attempts: 0, next_try: None };
                    targets.entry(name).or_insert(empty).recipients.push(number as u16);
                    self.open.insert((self.next, number as u16), ());
                }
                let targets: Vec<_> = targets.into_iter().collect();
                let lease = Some(self.leases[(self.next % 2) as usize]);
                let expires = wall.plus(DAY);
                self.queue.add(now, wall, New { key: self.next, lease, accepted: wall, expires, targets: &targets });
                self.next += 1;
            }
            Step::Take(pick) => {
                let lanes: Vec<_> = self.queue.lanes().map(|lane| lane.lane).collect();
                let Some(lane) = lanes.get(usize::from(*pick) % lanes.len().max(1)) else { return };
                let Some(taken) = self.queue.take(*lane, wall) else { return };
                match pick % 3 {
                    0 => self.queue.give_back(taken.job),
                    1 => drop(self.queue.defer(now, wall, taken.job, &taken.recipients)),
                    _ => {
                        self.ended(taken.key, &taken.recipients);
                        self.queue.done(taken.job);
                    }
                }
            }
            Step::Hold(pick, mask) => {
                if let Some((job, _, picked)) = self.some_of(*pick, *mask) {
                    self.queue.hold(now, job, &picked);
                }
            }
            Step::Release => self.queue.release_held(),
            Step::Retry(pick) => {
                if let Some((job, ..)) = self.some_of(*pick, 255) {
                    self.queue.retry_now(now, job);
                }
            }
            Step::Pull(pick, mask, end) => {
                let Some((job, key, picked)) = self.some_of(*pick, *mask) else { return };
                let Some(part) = self.queue.pull(now, job, &picked) else { return };
                assert_eq!(
                    self.queue.job(part).map(|(of, numbers, ..)| (of, numbers.to_vec())),
                    Some((key, picked.clone()))
                );
                if *end {
                    self.ended(key, &picked);
                    self.queue.drop_job(part);
                } else {
                    self.queue.put_back(now, part, Duration::from_secs(1));
                }
            }
            Step::Strand(pick) => {
                self.queue.strand(self.leases[usize::from(pick % 2)]);
                let other = self.leases[usize::from(1 - pick % 2)];
                self.queue.assign(now, wall, |_| Some(other));
            }
            Step::Leave(pick, went) => self.leave(self.leases[usize::from(pick % 2)], *went),
            Step::Pass(seconds) => self.now = now.plus(Duration::from_secs((*seconds).into())),
        }
    }

    /// The mail of a lost lease sets off for another shard, which takes it or not.
    fn leave(&mut self, lease: LeaseId, went: bool) {
        self.queue.strand(lease);
        for key in self.queue.stranded_keys() {
            let jobs = self.queue.take_stranded(key);
            assert!(!jobs.is_empty() && self.queue.take_stranded(key).is_empty());
            self.check();
            for (job, numbers) in jobs {
                assert_eq!(self.queue.pull(self.now, job, &numbers), None, "somebody has it already");
                assert!(!self.queue.hold(self.now, job, &numbers) && !self.queue.retry_now(self.now, job));
                if went {
                    self.ended(key, &numbers);
                    self.queue.drop_job(job);
                } else {
                    self.queue.stay(job);
                }
            }
        }
    }

    fn ended(&mut self, key: u64, numbers: &[u16]) {
        for number in numbers {
            assert_eq!(self.open.remove(&(key, *number)), Some(()), "{key} {number} ends once");
        }
    }

    /// All that is open is in one job, once, and sums agree.
    fn check(&self) {
        let mut seen = BTreeMap::new();
        let mut sums: BTreeMap<LaneId, [u64; 3]> = BTreeMap::new();
        let mut held = 0;
        for (_, key, numbers, state, lane) in self.jobs() {
            for number in &numbers {
                assert_eq!(seen.insert((key, *number), ()), None, "{key} {number} is queued once");
            }
            held += usize::from(state == State::Held);
            let column = match state {
                State::Ready => 0,
                State::Deferred(_) | State::Waiting | State::Held => 1,
                State::InFlight => 2,
                _ => continue,
            };
            if let Some(lane) = lane {
                sums.entry(lane).or_default()[column] += numbers.len() as u64;
            }
        }
        assert_eq!(seen, self.open);
        assert_eq!(self.queue.len(), self.open.len() as u64);
        assert_eq!(self.queue.held_jobs(), held);
        for lane in self.queue.lanes() {
            let of_lane = sums.remove(&lane.lane).unwrap_or_default();
            assert_eq!(of_lane, [lane.ready, lane.deferred, lane.in_flight]);
        }
        assert!(sums.is_empty(), "{sums:?}");
    }
}

proptest! {
    #[test]
    fn each_recipient_is_queued_once_and_leaves_once(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.settle();
            world.check();
        }
        // Let go, with time, all of it can be sent.
        for _ in 0..100 {
            world.queue.release_held();
            world.now = world.now.plus(Duration::from_secs(600));
            for lane in world.settle() {
                while let Some(taken) = world.queue.take(lane, world.wall()) {
                    world.ended(taken.key, &taken.recipients);
                    world.queue.done(taken.job);
                }
            }
            world.queue.assign(world.now, world.wall(), |key| Some(world.leases[(key % 2) as usize]));
            if world.open.is_empty() {
                break;
            }
        }
        world.check();
        prop_assert!(world.open.is_empty(), "{:?}: {:?}", world.open, world.jobs());
    }
}

#[test]
fn what_is_suspended_expires_like_the_rest() {
    let mut world = World::new();
    world.step(&Step::Add(vec![0]));
    let lanes = world.settle();
    let job = world.queue.next_of(lanes[0]).unwrap();
    assert!(world.queue.hold(world.now, job, &[0]));
    assert_eq!((world.queue.take(lanes[0], world.wall()).is_none(), world.queue.held_jobs()), (true, 1));
    world.now = world.now.plus(DAY + Duration::from_secs(10));
    assert_eq!(world.queue.poll(world.now, world.wall()), Some(Work::Expired { job }));
}

/// Ended here meanwhile, it would be delivered there, too.
#[test]
fn what_leaves_for_another_shard_is_not_ended_here_unless_it_stays() {
    let mut world = World::new();
    world.step(&Step::Add(vec![0, 2]));
    world.settle();
    world.queue.strand(world.leases[0]);
    let jobs = world.queue.take_stranded(0);
    assert_eq!(jobs.iter().flat_map(|(_, numbers)| numbers.to_vec()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((world.queue.stranded(), world.queue.stranded_keys()), (0, vec![]));
    for (job, numbers) in &jobs {
        assert_eq!(world.queue.look_at(*job).map(|seen| seen.state()), Some(State::InFlight));
        assert_eq!(world.queue.pull(world.now, *job, numbers), None);
    }
    world.now = world.now.plus(DAY + Duration::from_secs(10));
    assert_eq!(world.queue.poll(world.now, world.wall()), None, "it does not expire");
    let (gone, stays) = (jobs[0].0, jobs[1].0);
    world.queue.drop_job(gone);
    world.queue.stay(stays);
    assert_eq!(world.queue.poll(world.now, world.wall()), Some(Work::Expired { job: stays }));
}

/// Behind one that was asked about, all were: those behind it must not lose their turn to what an order left of another one.
#[test]
fn what_waits_for_a_plan_is_asked_about_though_an_order_took_a_part_of_what_came_before() {
    let mut world = World::new();
    let lease = world.leases[0];
    world.queue.expect_ledger(lease, Duration::from_secs(10));
    let plan = Plan::table(&[5]).unwrap();
    let ledger = Ledger::lease([192, 0, 2, 1].into(), plan, false, DayStart::default(), world.now, world.wall());
    world.queue.set_ledger(world.now, world.wall(), lease, ledger);
    let asked = |world: &mut World, seconds| {
        world.now = world.now.plus(Duration::from_secs(seconds));
        let notes: Vec<_> = world.queue.notes().collect();
        notes.iter().for_each(|(lease, _, note)| world.queue.confirm(world.now, world.wall(), *lease, note));
        let mut keys = Vec::new();
        for _ in 0..100 {
            match world.queue.poll(world.now, world.wall()) {
                Some(Work::Overflow { job }) => keys.extend(world.queue.job(job).map(|(key, ..)| key)),
                Some(Work::Connect { lane }) => {
                    world.queue.connection_opened(lane);
                    world.queue.connection_ready(lane);
                    world.queue.connection_closed(lane, false);
                }
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        keys
    };
    // Every second one is the other leased IP's. The first takes all that the plan has.
    for (domains, seconds) in [(vec![0; 5], 1), (vec![1], 1), (vec![0, 0, 0], 1), (vec![1], 3), (vec![0], 1)] {
        world.step(&Step::Add(domains));
        while let Some(name) = world.queue.ask() {
            let site = Resolution::Site { key: "mx".into(), ttl: DAY };
            world.queue.resolved(world.now, world.wall(), &name, site);
        }
        assert_eq!(asked(&mut world, seconds), []);
    }
    assert_eq!(asked(&mut world, 6), [2], "it has waited for ten seconds");
    let (job, ..) = world.jobs().into_iter().find(|(_, key, ..)| *key == 2).unwrap();
    let part = world.queue.pull(world.now, job, &[1]).unwrap();
    world.queue.drop_job(part);
    assert!(asked(&mut world, 4).contains(&4), "so has this one, by now");
}
