//! A host in virtual time: mail comes, shards crash, clocks step, leases move, plans change. It counts what peers see.

use crate::shard::{SITES, Shard};
use mailrail_queue::{
    JobId, LaneId, Left, New, Target, Work,
    egress::{self, Ask, Choice, News},
    policy::{Lease, LeaseIndex, Overflow, Policy, Pool, PoolKind, Warmup},
    time::{Mono, Wall},
    warmup::{
        day::{Day, DayStart},
        plan::Plan,
    },
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

const START: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const LIFE: u64 = 2_000 * DAY;

/// A recipient that is not delivered: in which shard's spool, and of which message.
struct Open {
    shard: usize,
    in_flight: bool,
}

struct Flight {
    shard: usize,
    lane: LaneId,
    job: JobId,
    key: u64,
    recipients: SmallVec<[u16; 2]>,
}

/// What all shards know: the truth, so that a choice can be judged.
struct Truth {
    left: BTreeMap<IpAddr, Left>,
    policy: Arc<Policy>,
}

impl News for Truth {
    fn load(&self, lease: LeaseIndex) -> u64 {
        u64::from(lease.0)
    }

    fn left(&self, lease: LeaseIndex) -> Left {
        let lease = &self.policy.leases[lease.0 as usize];
        match &lease.warmup {
            None => Left::Free,
            Some(_) => self.left.get(&lease.address).copied().unwrap_or(Left::Unknown),
        }
    }
}

/// See the module.
pub(crate) struct World {
    random: u64,
    pub(crate) steps: u32,
    pub(crate) trace: u64,
    /// Milliseconds since the start, and how much the wall clock is off.
    clock: u64,
    off: i64,
    shards: Vec<Shard>,
    policy: Arc<Policy>,
    open: BTreeMap<(u64, u16), Open>,
    pools: BTreeMap<u64, u32>,
    flights: Vec<Flight>,
    next_key: u64,
    /// Recipients that peers of an IP saw on a day, each once a day.
    seen: BTreeMap<(IpAddr, Day), BTreeSet<(u64, u16)>>,
    healthy: bool,
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            steps: 0,
            trace: 0,
            clock: 0,
            off: 0,
            shards: Vec::new(),
            policy: Arc::default(),
            open: BTreeMap::new(),
            pools: BTreeMap::new(),
            flights: Vec::new(),
            next_key: 0,
            seen: BTreeMap::new(),
            healthy: false,
        };
        world.steps = 50 + world.draw(250) as u32;
        let shards = 1 + world.draw(3) as u16;
        world.shards = (0..shards).map(|n| Shard::new(n, seed, BTreeMap::new())).collect();
        world.policy = Arc::new(world.first_policy());
        world.tell_all();
        world
    }

    fn draw(&mut self, n: u64) -> u64 {
        next(&mut self.random) % n
    }

    fn now(&self) -> Mono {
        Mono(1 + self.clock * 1_000_000)
    }

    fn wall(&self) -> Wall {
        Wall((START + self.clock).saturating_add_signed(self.off))
    }

    /// Two dedicated pools of an account, a shared one perhaps.
    fn first_policy(&mut self) -> Policy {
        let overflows = [Overflow::Auto, Overflow::Auto, Overflow::Pool, Overflow::Shared, Overflow::Dedicated];
        let mut pool = |name: &str, kind| Pool {
            name: name.into(),
            kind,
            account: Some("acme".into()),
            overflow: overflows[self.draw(5) as usize],
            overflow_after: Duration::from_secs([0, 0, 600][self.draw(3) as usize]),
            leases: Vec::new(),
        };
        let mut pools = vec![pool("a", PoolKind::Dedicated), pool("b", PoolKind::Dedicated)];
        let mut shared = pool("s", PoolKind::Shared);
        shared.account = None;
        pools.push(shared);
        let mut policy = Policy { version: 1, pools, default_pool: Some(0), ..Policy::default() };
        for n in 0..2 + self.draw(3) {
            self.lease(&mut policy, n as u8, 0);
        }
        if self.draw(2) == 0 {
            self.lease(&mut policy, 100, 2);
        }
        index(&mut policy);
        policy
    }

    fn plan(&mut self) -> Plan {
        match self.draw(4) {
            0 => Plan::standard(),
            1 => Plan::table(&[3, 5, 9, 200]).unwrap(),
            2 => Plan::growth(20, 1300, 500).unwrap(),
            _ => Plan::table(&[1, 1, 40]).unwrap(),
        }
    }

    fn lease(&mut self, policy: &mut Policy, n: u8, pool: u32) {
        let shard = self.draw(self.shards.len() as u64) as u16;
        let pool = if pool == 0 { self.draw(2) as u32 } else { pool };
        let warmup = Warmup {
            leasing: policy.version,
            leased: self.wall(),
            warm: self.draw(6) == 0,
            plan: self.plan(),
            spread: Duration::from_secs([1, 600, 21_600][self.draw(3) as usize]),
            starts: DayStart::default(),
            set: None,
            held: false,
        };
        let warmup = (pool != 2).then(|| Arc::new(warmup));
        let address = [192, 0, 2, n].into();
        policy.leases.push(Lease { address, helo: "out".into(), pool, shard, warmup, draining: false });
    }

    /// Every shard hears of the policy, now or later.
    fn tell_all(&mut self) {
        for n in 0..self.shards.len() {
            if self.healthy || self.draw(3) > 0 {
                self.tell(n);
            }
        }
    }

    fn tell(&mut self, n: usize) {
        let (now, wall, policy) = (self.now(), self.wall(), Arc::clone(&self.policy));
        if self.shards[n].policy.version < policy.version {
            self.shards[n].take(now, wall, &policy);
        }
    }

    pub(crate) fn step(&mut self) {
        match self.draw(24) {
            0..=7 => self.submit(),
            8 => self.crash(),
            9 => self.step_clock(),
            10..=12 => self.change(),
            13 => {
                let shard = self.draw(self.shards.len() as u64) as usize;
                self.tell(shard);
            }
            _ => {
                let wait = [1_000, 60_000, HOUR, 5 * HOUR][self.draw(4) as usize];
                self.clock += 1 + self.draw(wait);
            }
        }
        self.work();
        self.trace = next(&mut self.trace).wrapping_add(self.open.len() as u64 * 31 + self.flights.len() as u64);
    }

    fn step_clock(&mut self) {
        let by = self.draw(3 * DAY) as i64;
        self.off += if self.draw(2) == 0 { by } else { -by };
    }

    /// All shards at once, as they are one process. What was in flight may have been seen, and is tried again.
    fn crash(&mut self) {
        self.flights.clear();
        let shards = std::mem::take(&mut self.shards);
        let seed = self.draw(u64::MAX);
        self.shards = shards.into_iter().map(|shard| shard.crashed(seed)).collect();
        for n in 0..self.shards.len() {
            self.tell(n);
        }
        let keys: Vec<(u64, u16)> = self.open.keys().copied().collect();
        for (key, number) in keys {
            if let Some(open) = self.open.get_mut(&(key, number)) {
                open.in_flight = false;
                let shard = open.shard;
                self.add(shard, key, &[number], None);
            }
        }
    }

    /// An operator does something.
    fn change(&mut self) {
        let mut policy = (*self.policy).clone();
        policy.version += 1;
        let version = policy.version;
        let count = policy.leases.len() as u64;
        match self.draw(8) {
            0 => self.lease(&mut policy, version as u8 % 90 + 5, 0),
            1 if count > 2 => drop(policy.leases.remove(self.draw(count) as usize)),
            choice if count > 0 => {
                let at = self.draw(count) as usize;
                let shard = self.draw(self.shards.len() as u64) as u16;
                let percentage = i64::from([0, 10, 50, 99, 100][self.draw(5) as usize]);
                let plan = self.plan();
                let lease = &mut policy.leases[at];
                match (choice, &lease.warmup) {
                    (2 | 3, _) => lease.shard = shard,
                    (4, _) => lease.draining = !lease.draining,
                    (_, None) => {}
                    (5, Some(warmup)) => {
                        let set = Some((version, percentage.try_into().unwrap()));
                        lease.warmup = Some(Arc::new(Warmup { set, ..(**warmup).clone() }));
                    }
                    (6, Some(warmup)) => {
                        lease.warmup = Some(Arc::new(Warmup { held: !warmup.held, ..(**warmup).clone() }));
                    }
                    (_, Some(warmup)) => lease.warmup = Some(Arc::new(Warmup { plan, ..(**warmup).clone() })),
                }
            }
            _ => {}
        }
        let mut known = BTreeSet::new();
        policy.leases.retain(|lease| known.insert(lease.address));
        index(&mut policy);
        self.policy = Arc::new(policy);
        self.tell_all();
    }

    fn truth(&mut self, policy: &Arc<Policy>) -> Truth {
        let (now, wall) = (self.now(), self.wall());
        let left = self.shards.iter_mut().flat_map(|shard| shard.left(now, wall)).collect();
        Truth { left, policy: Arc::clone(policy) }
    }

    /// Chooses as the engine does, and judges the choice.
    fn choose(&mut self, shard: usize, pool: u32, key: u64) -> Choice {
        let policy = Arc::clone(&self.shards[shard].policy);
        if policy.pools.is_empty() {
            return Choice::Wait(None);
        }
        let truth = self.truth(&policy);
        let ask = Ask { pool, of_host: false, local_shard: shard as u16, slack: 8, hash: key };
        let choice = egress::choose(&policy, ask, &truth);
        let lefts = |kinds: PoolKind| {
            let leases = policy.pools.iter().filter(|pool| pool.kind == kinds).flat_map(|pool| pool.leases.clone());
            leases.map(|lease| (lease, truth.left(lease))).collect::<Vec<_>>()
        };
        let has_done = lefts(PoolKind::Dedicated).iter().any(|(_, left)| *left == Left::Done);
        let unknown = lefts(PoolKind::Dedicated).iter().any(|(_, left)| *left == Left::Unknown);
        let own = &policy.pools[pool as usize];
        match choice {
            Choice::Over(lease) | Choice::Go(lease) => {
                let to = &policy.pools[policy.leases[lease.0 as usize].pool as usize];
                assert!(!policy.leases[lease.0 as usize].draining, "a lease that drains takes nothing new");
                if to.kind == PoolKind::Shared {
                    assert!(own.overflow == Overflow::Shared || !has_done, "it has a warm IP of its own");
                }
            }
            Choice::Wait(_) | Choice::Reject(_) => {
                let open = policy.pools[2].leases.iter().any(|lease| !policy.leases[lease.0 as usize].draining);
                let first = own.overflow == Overflow::Auto && !has_done && !unknown;
                assert!(!first || !open || own.leases.is_empty(), "the shared pool is open to it");
            }
        }
        choice
    }

    fn submit(&mut self) {
        let shard = self.draw(self.shards.len() as u64) as usize;
        for _ in 0..1 + self.draw(8) {
            let (key, pool) = (self.next_key, self.draw(2) as u32);
            self.next_key += 1;
            self.pools.insert(key, pool);
            let recipients = [1, 1, 1, 3, 30][self.draw(5) as usize];
            let chosen = self.choose(shard, pool, key).lease();
            let lease = chosen.map(|lease| self.shards[shard].policy.leases[lease.0 as usize].clone());
            let owner = lease.as_ref().map_or(shard, |lease| usize::from(lease.shard));
            let numbers: Vec<u16> = (0..recipients).collect();
            for number in &numbers {
                self.open.insert((key, *number), Open { shard: owner, in_flight: false });
            }
            self.add(owner, key, &numbers, lease.map(|lease| lease.address));
        }
    }

    fn add(&mut self, shard: usize, key: u64, numbers: &[u16], lease: Option<IpAddr>) {
        let (now, wall) = (self.now(), self.wall());
        let Shard { queue, policy, number, .. } = &mut self.shards[shard];
        let mine = |ip: &IpAddr| policy.leases.iter().any(|lease| lease.address == *ip && lease.shard == *number);
        let lease = lease.filter(mine).map(|ip| queue.lease_id(ip));
        let target = |n: &u16| {
            let target = Target { recipients: std::iter::once(*n).collect(), attempts: 0, next_try: None };
            (format!("d{}", (key as usize + usize::from(*n) / 10) % SITES), target)
        };
        let targets: Vec<_> = numbers.iter().map(target).collect();
        let expires = Wall(START + LIFE);
        queue.add(now, wall, New { key, lease, accepted: wall, expires, targets: &targets });
    }

    /// Everything that there is to do now.
    fn work(&mut self) {
        for _ in 0..3 {
            for n in 0..self.shards.len() {
                self.gather(n);
                let (now, wall) = (self.now(), self.wall());
                // The DNS may take its time: until then nothing is in a lane.
                if self.healthy || self.draw(2) > 0 {
                    self.shards[n].resolve(now, wall);
                }
                self.place_stranded(n);
                self.poll(n);
                self.shards[n].note();
                if self.healthy || self.draw(3) > 0 {
                    self.shards[n].sync(now, wall);
                }
                self.poll(n);
            }
            self.land();
        }
    }

    fn gather(&mut self, n: usize) {
        let (now, wall) = (self.now(), self.wall());
        for (ip, version) in self.shards[n].awaited() {
            let others = self.shards.iter().enumerate().filter(|(m, _)| *m != n);
            let told: Option<Vec<_>> = others.map(|(_, shard)| shard.tell(ip, version)).collect();
            if let Some(told) = told {
                self.shards[n].gathered(now, wall, ip, told.into_iter().flatten().collect());
            }
        }
    }

    fn place_stranded(&mut self, n: usize) {
        let (now, wall) = (self.now(), self.wall());
        let mut here = BTreeMap::new();
        for key in self.shards[n].queue.stranded_keys() {
            let pool = self.pools[&key];
            let Some(lease) = self.choose(n, pool, key).lease() else { continue };
            let lease = self.shards[n].policy.leases[lease.0 as usize].clone();
            if usize::from(lease.shard) == n {
                here.insert(key, self.shards[n].queue.lease_id(lease.address));
                continue;
            }
            self.shards[n].queue.drop_stranded(key);
            let mine: Vec<u16> = self
                .open
                .range((key, 0)..=(key, u16::MAX))
                .filter(|(_, open)| open.shard == n)
                .map(|((_, n), _)| *n)
                .collect();
            let queued: BTreeSet<u16> =
                self.shards[n].queue.jobs().filter(|job| job.0 == key).flat_map(|job| job.1.to_vec()).collect();
            let unresolved: BTreeSet<u16> =
                self.shards[n].queue.unresolved().filter(|job| job.0 == key).flat_map(|job| job.1.to_vec()).collect();
            let gone: Vec<u16> = mine.into_iter().filter(|n| !queued.contains(n) && !unresolved.contains(n)).collect();
            self.hand_over(key, &gone, &lease);
        }
        self.shards[n].queue.assign(now, wall, |key| here.get(&key).copied());
    }

    fn hand_over(&mut self, key: u64, numbers: &[u16], lease: &Lease) {
        let to = usize::from(lease.shard);
        for number in numbers {
            if let Some(open) = self.open.get_mut(&(key, *number)) {
                open.shard = to;
            }
        }
        self.add(to, key, numbers, Some(lease.address));
    }

    fn poll(&mut self, n: usize) {
        loop {
            let (now, wall) = (self.now(), self.wall());
            match self.shards[n].queue.poll(now, wall) {
                Some(Work::Connect { lane }) => self.connect(n, lane),
                Some(Work::Overflow { job }) => self.overflow(n, job),
                Some(other) => panic!("{other:?}"),
                None => return,
            }
        }
    }

    fn overflow(&mut self, n: usize, job: JobId) {
        let (now, wall) = (self.now(), self.wall());
        let (key, ..) = self.shards[n].queue.job(job).unwrap();
        let lane = self.shards[n].queue.jobs_lane(job).and_then(|lane| self.shards[n].queue.lane(lane)).unwrap();
        let pool = self.pools[&key];
        let (Choice::Go(chosen) | Choice::Over(chosen)) = self.choose(n, pool, key) else { return };
        let lease = self.shards[n].policy.leases[chosen.0 as usize].clone();
        if lease.address == lane.lease {
            return;
        }
        let queue = &mut self.shards[n].queue;
        if usize::from(lease.shard) == n {
            let id = queue.lease_id(lease.address);
            queue.reroute(now, wall, job, id);
        } else if let Some((key, numbers)) = queue.take_waiting(job) {
            if next(&mut self.random).is_multiple_of(5) {
                return queue.put_back(now, job, Duration::from_secs(5));
            }
            queue.drop_job(job);
            self.hand_over(key, &numbers, &lease);
        }
    }

    fn connect(&mut self, shard: usize, lane: LaneId) {
        let (now, wall) = (self.now(), self.wall());
        let lease = self.shards[shard].queue.lane(lane).unwrap().lease;
        assert!(self.shards[shard].owns(lease), "{lease} is not the shard's, and has mail there");
        let queue = &mut self.shards[shard].queue;
        queue.connection_opened(lane);
        if !self.healthy && next(&mut self.random).is_multiple_of(6) {
            queue.connect_failed(now, lane);
            return queue.connection_closed(lane, true);
        }
        queue.connection_ready(lane);
        let info = queue.lane(lane).unwrap();
        let lease = queue.lease_id(info.lease);
        while let Some(taken) = queue.take(lane, wall) {
            for number in &taken.recipients {
                let open = self.open.get_mut(&(taken.key, *number)).expect("it was delivered before");
                assert!(!std::mem::replace(&mut open.in_flight, true), "handed out twice");
                assert_eq!(open.shard, shard, "another shard has it");
            }
            if let Some(ledger) = queue.ledger(lease) {
                let seen = self.seen.entry((info.lease, ledger.day())).or_default();
                let before = seen.len();
                seen.extend(taken.recipients.iter().map(|number| (taken.key, *number)));
                let standing = ledger.standing(now, wall);
                let over = standing.cap.is_some_and(|cap| seen.len() > before && seen.len() > cap as usize);
                assert!(!over, "{} had {} of {:?} on {:?}", info.lease, seen.len(), standing.cap, ledger.day());
            }
            let (job, key, recipients) = (taken.job, taken.key, taken.recipients);
            self.flights.push(Flight { shard, lane, job, key, recipients });
        }
        queue.connection_closed(lane, false);
    }

    /// What was in flight comes to something.
    fn land(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            let (now, wall) = (self.now(), self.wall());
            let Flight { shard, lane, job, key, ref recipients } = flight;
            let luck = if self.healthy { 0 } else { self.draw(12) };
            for number in recipients {
                self.open.get_mut(&(key, *number)).expect("it is in flight").in_flight = false;
            }
            let queue = &mut self.shards[shard].queue;
            match luck {
                10 => drop(queue.defer(now, wall, job, recipients)),
                11 => {
                    queue.give_back(job);
                    queue.site_trouble(now, lane);
                }
                _ => {
                    queue.done(job);
                    for number in recipients {
                        self.open.remove(&(key, *number));
                    }
                }
            }
        }
    }

    /// With nothing in the way any more, everything is delivered.
    pub(crate) fn come_to_rest(&mut self) {
        self.healthy = true;
        let mut policy = (*self.policy).clone();
        policy.version += 1;
        for lease in &mut policy.leases {
            lease.draining = false;
            if let Some(warmup) = &lease.warmup {
                lease.warmup = Some(Arc::new(Warmup { held: false, ..(**warmup).clone() }));
            }
        }
        if policy.pools[0].leases.is_empty() || policy.pools[1].leases.is_empty() {
            for pool in &mut policy.pools {
                pool.overflow = Overflow::Auto;
            }
            self.lease(&mut policy, 201, 2);
            for lease in 0..2_u8 {
                self.lease(&mut policy, 202 + lease, 2);
                policy.leases.last_mut().unwrap().pool = u32::from(lease);
            }
            index(&mut policy);
        }
        self.policy = Arc::new(policy);
        self.tell_all();
        // The clock may be days behind: it comes back by itself.
        self.off = self.off.max(0);
        for hour in 0..600 {
            self.work();
            self.work();
            if self.open.is_empty() {
                return;
            }
            self.clock += if hour < 48 { HOUR } else { 5 * HOUR };
        }
        let stuck: Vec<_> = self.open.keys().take(5).copied().collect();
        let left = self.truth(&Arc::clone(&self.policy)).left;
        for shard in &self.shards {
            let queue = &shard.queue;
            let (stranded, unresolved) = (queue.stranded(), queue.unresolved().count());
            eprintln!("shard {}: {} queued, {stranded} stranded, {unresolved} unresolved", shard.number, queue.len());
            for job in queue.jobs().take(3) {
                eprintln!("  {job:?} in {:?}", job.3.and_then(|lane| queue.lane(lane)));
            }
        }
        panic!("{} recipients are stuck, such as {stuck:?}; {left:?}", self.open.len());
    }
}

fn index(policy: &mut Policy) {
    policy.leases.sort_by_key(|lease| lease.address);
    for pool in &mut policy.pools {
        pool.leases.clear();
    }
    for (n, lease) in policy.leases.iter().enumerate() {
        policy.pools[lease.pool as usize].leases.push(LeaseIndex(n as u32));
    }
}
