//! A world around a queue: mail comes, names resolve or not, hosts answer or not, leases come and go. It keeps a model of
//! every recipient and checks each thing that the queue says against it.

use mailrail_queue::{
    JobId, LaneId, LeaseId, New, Queue, Resolution, Target, Work,
    retry::RetrySchedule,
    time::{Mono, Wall},
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const START: u64 = 1_700_000_000_000;
pub(super) const MINUTE: u64 = 60_000;
pub(super) const DAY: u64 = 1440 * MINUTE;
const DOMAINS: usize = 9;
const SITES: usize = 4;
const LEASES: usize = 3;

/// Where the model says that a recipient is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Queued,
    InFlight,
    Ended,
}

#[derive(Debug)]
pub(super) struct Recipient {
    pub(super) domain: usize,
    pub(super) state: State,
    pub(super) attempts: u16,
    pub(super) not_before: Wall,
    pub(super) expires: Wall,
}

pub(super) struct Domain {
    /// What the DNS says: a site, nothing (never), and whether it answers at all.
    pub(super) site: Option<usize>,
    pub(super) answers: bool,
    pub(super) ttl: u64,
    /// Sites that the queue has been told.
    pub(super) told: BTreeSet<usize>,
    pub(super) told_never: bool,
}

pub(super) struct Connection {
    pub(super) lane: LaneId,
    pub(super) ready: bool,
    pub(super) jobs: Vec<(JobId, u64, SmallVec<[u16; 2]>)>,
}

pub(super) struct Site {
    pub(super) limit: u32,
    pub(super) up: bool,
}

/// See the module.
pub(crate) struct World {
    pub(super) random: u64,
    pub(crate) steps: u32,
    /// Digest of all that the queue has said.
    pub(crate) trace: u64,
    pub(super) queue: Queue<u64>,
    pub(super) retry: RetrySchedule,
    pub(super) default_limit: u32,
    /// Milliseconds since the start.
    pub(super) clock: u64,
    pub(super) recipients: BTreeMap<(u64, u16), Recipient>,
    /// Recipients that have not ended.
    pub(super) open: u64,
    /// The lease of each message; none: stranded.
    pub(super) lease_of: BTreeMap<u64, Option<LeaseId>>,
    pub(super) leases: Vec<LeaseId>,
    pub(super) gone: BTreeSet<LeaseId>,
    pub(super) domains: Vec<Domain>,
    pub(super) sites: Vec<Site>,
    pub(super) questions: Vec<String>,
    pub(super) connections: Vec<Connection>,
    pub(super) next_key: u64,
    pub(super) most_life: u64,
}

fn site_key(site: usize) -> String {
    format!("mx{site}")
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |n: u64| next(&mut random) % n;
        let retry = RetrySchedule {
            first: Duration::from_secs(30 + draw(600)),
            factor: 1 + draw(3) as u32,
            max: Duration::from_secs(600 + draw(14_400)),
            jitter_percent: draw(30) as u32,
        };
        let default_limit = 1 + draw(5) as u32;
        let domain = |n: usize| Domain {
            site: Some(n % SITES),
            answers: true,
            ttl: 1,
            told: BTreeSet::new(),
            told_never: false,
        };
        let mut queue = Queue::new(retry.clone(), default_limit, seed);
        let leases = (0..LEASES).map(|n| queue.lease_id([192, 0, 2, n as u8].into())).collect();
        let steps = 100 + draw(500) as u32;
        let most_life = [30 * MINUTE, DAY, 5 * DAY][draw(3) as usize];
        Self {
            random,
            steps,
            trace: 0,
            queue,
            retry,
            default_limit,
            clock: 0,
            recipients: BTreeMap::new(),
            open: 0,
            lease_of: BTreeMap::new(),
            leases,
            gone: BTreeSet::new(),
            domains: (0..DOMAINS).map(domain).collect(),
            sites: (0..SITES).map(|_| Site { limit: default_limit, up: true }).collect(),
            questions: Vec::new(),
            connections: Vec::new(),
            next_key: 0,
            most_life,
        }
    }

    pub(super) fn draw(&mut self, n: usize) -> usize {
        (next(&mut self.random) % n as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.draw(100) < percent
    }

    pub(super) fn now(&self) -> Mono {
        Mono(self.clock * 1_000_000)
    }

    pub(super) fn wall(&self) -> Wall {
        Wall(START + self.clock)
    }

    pub(super) fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(7) ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// One thing happens, then the queue is asked what there is to do.
    pub(crate) fn step(&mut self) {
        match self.draw(20) {
            0..4 => self.mail_comes(),
            4..7 => self.time_passes(),
            7..9 => self.names_resolve(),
            9..16 => self.something_on_a_connection(),
            16 => self.the_dns_changes(),
            17 => self.a_site_changes(),
            18 => self.a_lease_goes(),
            _ => self.leases_are_assigned(),
        }
        self.work();
        self.check();
    }

    pub(super) fn mail_comes(&mut self) {
        for _ in 0..1 + self.draw(20) {
            let key = self.next_key;
            self.next_key += 1;
            let live: Vec<_> = self.leases.iter().copied().filter(|lease| !self.gone.contains(lease)).collect();
            let lease = if live.is_empty() || self.chance(10) { None } else { Some(live[self.draw(live.len())]) };
            let (accepted, wall) = (self.wall(), self.wall());
            let expires = Wall(wall.0 + 1 + next(&mut self.random) % self.most_life);
            let mut targets = Vec::new();
            let mut number = 0;
            for _ in 0..=self.draw(3) {
                let domain = self.draw(DOMAINS);
                let attempts = if self.chance(20) { self.draw(4) as u16 } else { 0 };
                let next_try = self.chance(10).then(|| Wall(wall.0 + self.draw(1_000_000) as u64));
                let mut recipients = SmallVec::new();
                for _ in 0..=self.draw(3) {
                    recipients.push(number);
                    let state = State::Queued;
                    let not_before = next_try.unwrap_or(wall);
                    self.recipients.insert((key, number), Recipient { domain, state, attempts, not_before, expires });
                    self.open += 1;
                    number += 1;
                }
                targets.push((format!("d{domain}.example"), Target { recipients, attempts, next_try }));
            }
            self.lease_of.insert(key, lease);
            self.queue.add(self.now(), wall, New { key, lease, accepted, expires, targets: &targets });
        }
    }

    pub(super) fn time_passes(&mut self) {
        let milliseconds = [1, 1000, 30_000, 10 * MINUTE as usize, 5 * 60 * MINUTE as usize][self.draw(5)];
        match self.queue.next_wake() {
            Some(at) if self.chance(50) => self.clock = self.clock.max(at.0.div_ceil(1_000_000)),
            _ => self.clock += 1 + self.draw(milliseconds) as u64,
        }
    }

    pub(super) fn names_resolve(&mut self) {
        while let Some(name) = self.queue.ask() {
            self.questions.push(name.into());
        }
        let questions = std::mem::take(&mut self.questions);
        for name in questions {
            // Some answers are lost, some are late.
            match self.draw(10) {
                0 => {}
                1 => self.questions.push(name),
                _ => self.answer(&name),
            }
        }
    }

    pub(super) fn answer(&mut self, name: &str) {
        let number: usize = name.trim_start_matches('d').split('.').next().unwrap().parse().unwrap();
        let (now, wall) = (self.now(), self.wall());
        let domain = &mut self.domains[number];
        let ttl = Duration::from_secs(domain.ttl);
        let resolution = match (domain.answers, domain.site) {
            (false, _) => Resolution::Later,
            (true, None) => {
                domain.told_never = true;
                Resolution::Never { ttl }
            }
            (true, Some(site)) => {
                domain.told.insert(site);
                let key = site_key(site).into();
                let limit = self.sites[site].limit;
                self.queue.limit_site(&key, (limit != self.default_limit).then_some(limit));
                Resolution::Site { key, ttl }
            }
        };
        self.queue.resolved(now, wall, name, resolution);
    }

    pub(super) fn the_dns_changes(&mut self) {
        let (n, site) = (self.draw(DOMAINS), self.draw(SITES));
        let (answers, never, ttl) = (self.chance(70), self.chance(15), [1, 300, 86_400][self.draw(3)]);
        let domain = &mut self.domains[n];
        (domain.answers, domain.ttl) = (answers, ttl);
        domain.site = (!never).then_some(site);
    }

    pub(super) fn a_site_changes(&mut self) {
        let site = self.draw(SITES);
        self.sites[site].up = self.chance(60);
        let limit = if self.chance(50) { self.default_limit } else { 1 + self.draw(6) as u32 };
        let key = site_key(site).into();
        self.queue.limit_site(&key, (limit != self.default_limit).then_some(limit));
        if self.queue.knows_site(&key) {
            self.sites[site].limit = limit;
        }
    }

    pub(super) fn a_lease_goes(&mut self) {
        let lease = self.some_lease();
        self.queue.strand(lease);
        self.gone.insert(lease);
        for of in self.lease_of.values_mut().filter(|of| **of == Some(lease)) {
            *of = None;
        }
    }

    pub(super) fn leases_are_assigned(&mut self) {
        // Those in flight stay with their lease.
        let keys = self.queue.stranded_keys();
        let busy: BTreeSet<u64> = self.connections.iter().flat_map(|c| c.jobs.iter().map(|job| job.1)).collect();
        assert!(keys.iter().all(|key| !busy.contains(key)), "a message with a job in flight may not move");
        assert!(keys.is_sorted_by(|a, b| a < b), "each once");
        let mut chosen: BTreeMap<u64, LeaseId> = BTreeMap::new();
        for key in keys {
            match self.draw(10) {
                // Moved to another shard: what is stranded of it ends here.
                0 if self.is_wholly_stranded(key) => {
                    self.queue.drop_stranded(key);
                    self.end_all(key);
                }
                0..8 => {
                    // Parts of a message come one after the other: it keeps the lease that it has.
                    let kept = self.lease_of[&key];
                    let lease = kept.unwrap_or_else(|| self.some_lease());
                    chosen.insert(key, lease);
                }
                _ => {}
            }
        }
        for (key, lease) in &chosen {
            self.gone.remove(lease);
            self.lease_of.insert(*key, Some(*lease));
        }
        self.queue.assign(self.now(), self.wall(), |key| chosen.get(&key).copied());
    }

    pub(super) fn some_lease(&mut self) -> LeaseId {
        let n = self.draw(LEASES);
        self.leases[n]
    }

    pub(super) fn is_wholly_stranded(&self, key: u64) -> bool {
        let stranded = self.queue.jobs().filter(|(of, _, _, lane, ..)| *of == key && lane.is_none());
        let count: usize = stranded.map(|(_, recipients, ..)| recipients.len()).sum();
        let open = self.recipients.range((key, 0)..=(key, u16::MAX)).filter(|(_, r)| r.state != State::Ended).count();
        count == open && !self.queue.lanes().any(|lane| lane.in_flight > 0)
    }

    pub(super) fn end_all(&mut self, key: u64) {
        for (_, recipient) in self.recipients.range_mut((key, 0)..=(key, u16::MAX)) {
            if recipient.state == State::Queued {
                recipient.state = State::Ended;
                self.open -= 1;
            }
        }
    }

    /// Does all that there is to do now.
    pub(super) fn work(&mut self) {
        loop {
            match self.queue.poll(self.now(), self.wall()) {
                Some(Work::Connect { lane }) => self.connect(lane),
                Some(Work::Expired { job }) => {
                    let wall = self.wall();
                    self.end(job, |recipient, _| assert!(recipient.expires <= wall, "expired before its time"));
                }
                Some(Work::Undeliverable { job }) => {
                    self.end(job, |_, domain| assert!(domain.told_never, "nobody said that it takes no mail"));
                }
                None if self.queue.next_wake().is_some_and(|at| at <= self.now()) => {}
                Some(Work::Overflow { .. }) => panic!("nothing is counted here"),
                None => return,
            }
        }
    }

    pub(super) fn connect(&mut self, lane: LaneId) {
        let info = self.queue.lane(lane).expect("the lane to connect");
        let site: usize = info.site.trim_start_matches("mx").parse().unwrap();
        let open = self.connections.iter().filter(|connection| connection.lane == lane).count();
        assert_eq!(info.connections as usize, open);
        assert!((open as u32) < self.sites[site].limit, "more than {} connections", self.sites[site].limit);
        assert!(info.backed_off_until.is_none_or(|until| until <= self.now()), "the site is to be left alone");
        assert!(info.ready > 0);
        self.queue.connection_opened(lane);
        self.connections.push(Connection { lane, ready: false, jobs: Vec::new() });
        self.note(site as u64);
    }

    pub(super) fn end(&mut self, job: JobId, check: impl Fn(&Recipient, &Domain)) {
        let (key, recipients, ..) = self.queue.job(job).expect("the job that ends");
        let recipients = recipients.to_vec();
        self.note(key);
        for number in &recipients {
            let recipient = &self.recipients[&(key, *number)];
            assert_eq!(recipient.state, State::Queued);
            check(recipient, &self.domains[recipient.domain]);
        }
        self.set(key, &recipients, State::Ended);
        self.queue.done(job);
    }

    /// The queue holds what the model says, no more and no less.
    pub(super) fn check(&mut self) {
        assert_eq!(self.queue.len(), self.open);
        assert_eq!(self.queue.is_empty(), self.open == 0);
        if !self.chance(10) {
            return;
        }
        let wall = self.wall();
        let jobs = self.queue.jobs().map(|(key, recipients, ..)| (key, recipients));
        let held = jobs.chain(self.queue.unresolved().map(|(key, recipients, _)| (key, recipients)));
        let mut found = BTreeSet::new();
        for (key, recipients) in held {
            for number in recipients {
                assert!(found.insert((key, *number)), "twice in the queue: {key}/{number}");
            }
        }
        let open = self.recipients.iter().filter(|(_, recipient)| recipient.state != State::Ended);
        assert!(open.clone().map(|(name, _)| *name).eq(found), "the queue has lost or invented a recipient");
        for (name, recipient) in open.filter(|(_, recipient)| recipient.state == State::Queued) {
            assert!(wall.0 <= recipient.expires.0 + MINUTE, "{name:?} should have been given up");
        }
        let in_flight: u64 = self.queue.lanes().map(|lane| lane.in_flight).sum();
        let held: usize = self.connections.iter().flat_map(|c| &c.jobs).map(|(.., recipients)| recipients.len()).sum();
        assert_eq!(in_flight as usize, held);
        self.recipients.retain(|_, recipient| recipient.state != State::Ended);
    }
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
