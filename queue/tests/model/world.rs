//! A world around a queue: mail comes, names resolve or not, hosts answer or not, leases come and go. It keeps a model of
//! every recipient and checks each thing that the queue says against it.

use mailrail_queue::{
    JobId, LaneId, LeaseId, New, NextTry, Queue, Resolution, Target, Work,
    retry::RetrySchedule,
    time::{Mono, Wall},
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const START: u64 = 1_700_000_000_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 1440 * MINUTE;
const DOMAINS: usize = 9;
const SITES: usize = 4;
const LEASES: usize = 3;

/// Where the model says that a recipient is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Queued,
    InFlight,
    Ended,
}

#[derive(Debug)]
struct Recipient {
    domain: usize,
    state: State,
    attempts: u16,
    not_before: Wall,
    expires: Wall,
}

struct Domain {
    /// What the DNS says: a site, nothing (never), and whether it answers at all.
    site: Option<usize>,
    answers: bool,
    ttl: u64,
    /// Sites that the queue has been told.
    told: BTreeSet<usize>,
    told_never: bool,
}

struct Connection {
    lane: LaneId,
    ready: bool,
    jobs: Vec<(JobId, u64, SmallVec<[u16; 2]>)>,
}

struct Site {
    limit: u32,
    up: bool,
}

/// See the module.
pub(crate) struct World {
    random: u64,
    pub(crate) steps: u32,
    /// Digest of all that the queue has said.
    pub(crate) trace: u64,
    queue: Queue<u64>,
    retry: RetrySchedule,
    default_limit: u32,
    /// Milliseconds since the start.
    clock: u64,
    recipients: BTreeMap<(u64, u16), Recipient>,
    /// Recipients that have not ended.
    open: u64,
    /// The lease of each message; none: stranded.
    lease_of: BTreeMap<u64, Option<LeaseId>>,
    leases: Vec<LeaseId>,
    gone: BTreeSet<LeaseId>,
    domains: Vec<Domain>,
    sites: Vec<Site>,
    questions: Vec<String>,
    connections: Vec<Connection>,
    next_key: u64,
    most_life: u64,
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

    fn draw(&mut self, n: usize) -> usize {
        (next(&mut self.random) % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.draw(100) < percent
    }

    fn now(&self) -> Mono {
        Mono(self.clock * 1_000_000)
    }

    fn wall(&self) -> Wall {
        Wall(START + self.clock)
    }

    fn note(&mut self, what: u64) {
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

    fn mail_comes(&mut self) {
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

    fn time_passes(&mut self) {
        let milliseconds = [1, 1000, 30_000, 10 * MINUTE as usize, 5 * 60 * MINUTE as usize][self.draw(5)];
        match self.queue.next_wake() {
            Some(at) if self.chance(50) => self.clock = self.clock.max(at.0.div_ceil(1_000_000)),
            _ => self.clock += 1 + self.draw(milliseconds) as u64,
        }
    }

    fn names_resolve(&mut self) {
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

    fn answer(&mut self, name: &str) {
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

    fn the_dns_changes(&mut self) {
        let (n, site) = (self.draw(DOMAINS), self.draw(SITES));
        let (answers, never, ttl) = (self.chance(70), self.chance(15), [1, 300, 86_400][self.draw(3)]);
        let domain = &mut self.domains[n];
        (domain.answers, domain.ttl) = (answers, ttl);
        domain.site = (!never).then_some(site);
    }

    fn a_site_changes(&mut self) {
        let site = self.draw(SITES);
        self.sites[site].up = self.chance(60);
        let limit = if self.chance(50) { self.default_limit } else { 1 + self.draw(6) as u32 };
        let key = site_key(site).into();
        self.queue.limit_site(&key, (limit != self.default_limit).then_some(limit));
        if self.queue.knows_site(&key) {
            self.sites[site].limit = limit;
        }
    }

    fn a_lease_goes(&mut self) {
        let lease = self.some_lease();
        self.queue.strand(lease);
        self.gone.insert(lease);
        for of in self.lease_of.values_mut().filter(|of| **of == Some(lease)) {
            *of = None;
        }
    }

    fn leases_are_assigned(&mut self) {
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

    fn some_lease(&mut self) -> LeaseId {
        let n = self.draw(LEASES);
        self.leases[n]
    }

    fn is_wholly_stranded(&self, key: u64) -> bool {
        let stranded = self.queue.jobs().filter(|(of, _, _, lane, _)| *of == key && lane.is_none());
        let count: usize = stranded.map(|(_, recipients, ..)| recipients.len()).sum();
        let open = self.recipients.range((key, 0)..=(key, u16::MAX)).filter(|(_, r)| r.state != State::Ended).count();
        count == open && !self.queue.lanes().any(|lane| lane.in_flight > 0)
    }

    fn end_all(&mut self, key: u64) {
        for (_, recipient) in self.recipients.range_mut((key, 0)..=(key, u16::MAX)) {
            if recipient.state == State::Queued {
                recipient.state = State::Ended;
                self.open -= 1;
            }
        }
    }

    fn something_on_a_connection(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let n = self.draw(self.connections.len());
        let lane = self.connections[n].lane;
        let up = self.queue.lane(lane).is_some_and(|lane| {
            let site: usize = lane.site.trim_start_matches("mx").parse().unwrap();
            self.sites[site].up
        });
        if !self.connections[n].ready {
            if up {
                self.connections[n].ready = true;
                self.queue.connection_ready(lane);
            } else {
                self.queue.connect_failed(self.now(), lane);
                self.queue.connection_closed(lane, true);
                self.connections.swap_remove(n);
            }
            return;
        }
        match self.draw(10) {
            0..4 => self.take(n, 1 + n % 4),
            4..8 => self.an_outcome(n),
            8 if self.chance(30) => drop(self.queue.site_trouble(self.now(), lane)),
            8 => self.take(n, 3),
            _ => self.close(n),
        }
    }

    fn take(&mut self, n: usize, most: usize) {
        let lane = self.connections[n].lane;
        for _ in 0..most {
            let Some(taken) = self.queue.take(lane, self.wall()) else { return };
            let info = self.queue.lane(lane).expect("a lane with a connection");
            let site: usize = info.site.trim_start_matches("mx").parse().unwrap();
            let wall = self.wall();
            for number in &taken.recipients {
                let recipient = self.recipients.get_mut(&(taken.key, *number)).expect("a recipient of this message");
                assert_eq!(recipient.state, State::Queued, "handed out twice: {}/{number}", taken.key);
                assert!(recipient.not_before.0 <= wall.0, "too early: {}/{number}", taken.key);
                assert!(recipient.expires > wall, "handed out after its expiry");
                assert_eq!(recipient.attempts, taken.attempts);
                assert!(self.domains[recipient.domain].told.contains(&site), "a site that its domain never had");
                recipient.state = State::InFlight;
            }
            let lease = self.lease_of[&taken.key].expect("a stranded message is not handed out");
            assert_eq!(self.queue.lease_address(lease), Some(info.lease));
            self.trace = (self.trace.rotate_left(7) ^ taken.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.connections[n].jobs.push((taken.job, taken.key, taken.recipients));
        }
    }

    /// The first job on a connection ends, is deferred in part, or comes back.
    fn an_outcome(&mut self, n: usize) {
        if self.connections[n].jobs.is_empty() {
            return;
        }
        let (job, key, recipients) = self.connections[n].jobs.remove(0);
        match self.draw(10) {
            0..5 => {
                self.queue.done(job);
                self.set(key, &recipients, State::Ended);
            }
            5..7 => {
                self.comes_back(n, key);
                self.queue.give_back(job);
                self.set(key, &recipients, State::Queued);
            }
            _ => {
                self.comes_back(n, key);
                let most = 1 + self.draw(recipients.len());
                self.defer(job, key, &recipients, most);
            }
        }
    }

    fn defer(&mut self, job: JobId, key: u64, recipients: &[u16], waiting: usize) {
        let (waiting, ended) = recipients.split_at(waiting);
        let (now, wall) = (self.now(), self.wall());
        let next = self.queue.defer(now, wall, job, waiting);
        self.set(key, ended, State::Ended);
        let first = &self.recipients[&(key, waiting[0])];
        let (attempts, expires) = (first.attempts + 1, first.expires);
        let base =
            self.retry.wait(attempts, 0).as_millis() as f64 / (1.0 - f64::from(self.retry.jitter_percent) / 100.0);
        let spread = base * f64::from(self.retry.jitter_percent) / 100.0 + 1000.0;
        match next {
            NextTry::At(at) => {
                self.note(at.0);
                let wait = (at.0 - wall.0) as f64;
                assert!((wait - base).abs() <= spread, "waits {wait} where {base} ± {spread} is right");
                assert!(at < expires);
                self.set(key, waiting, State::Queued);
                for number in waiting {
                    let recipient = self.recipients.get_mut(&(key, *number)).unwrap();
                    (recipient.attempts, recipient.not_before) = (attempts, at);
                }
            }
            NextTry::Expired => {
                assert!(wall.0 as f64 + base + spread >= expires.0 as f64, "there was time for one more try");
                self.set(key, waiting, State::Ended);
            }
        }
    }

    fn set(&mut self, key: u64, recipients: &[u16], state: State) {
        for number in recipients {
            let recipient = self.recipients.get_mut(&(key, *number)).unwrap();
            assert_ne!(recipient.state, State::Ended);
            recipient.state = state;
            self.open -= u64::from(state == State::Ended);
        }
    }

    /// A job in flight outlives the loss of its lease, and keeps it if it is there again.
    fn comes_back(&mut self, n: usize, key: u64) {
        let address = self.queue.lane(self.connections[n].lane).expect("a lane with a connection").lease;
        let lease = self.queue.lease_id(address);
        if self.lease_of[&key].is_none() && !self.gone.contains(&lease) {
            self.lease_of.insert(key, Some(lease));
        }
    }

    fn close(&mut self, n: usize) {
        for (job, key, recipients) in std::mem::take(&mut self.connections[n].jobs) {
            self.comes_back(n, key);
            self.queue.give_back(job);
            self.set(key, &recipients, State::Queued);
        }
        let connection = self.connections.swap_remove(n);
        self.queue.connection_closed(connection.lane, !connection.ready);
    }

    /// Does all that there is to do now.
    fn work(&mut self) {
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
                None => return,
            }
        }
    }

    fn connect(&mut self, lane: LaneId) {
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

    fn end(&mut self, job: JobId, check: impl Fn(&Recipient, &Domain)) {
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
    fn check(&mut self) {
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

    /// All is well from now on, and time goes by only as the queue itself asks for: everything must come to an end before
    /// it expires, but for what is so near its expiry that no try is left.
    pub(crate) fn come_to_rest(&mut self) {
        for domain in &mut self.domains {
            (domain.answers, domain.ttl) = (true, 86_400);
            domain.site.get_or_insert(0);
        }
        for site in &mut self.sites {
            site.up = true;
        }
        for n in (0..self.connections.len()).rev() {
            self.close(n);
        }
        let begun = self.clock;
        let mut rounds = 0;
        while self.open > 0 {
            rounds += 1;
            assert!(rounds < 100_000, "{} recipients come to no end", self.open);
            while let Some(name) = self.queue.ask() {
                self.answer(&name);
            }
            self.assign_all();
            self.work();
            let idle = self.connections.is_empty();
            while !self.connections.is_empty() {
                self.serve_last();
            }
            if idle && self.open > 0 {
                let wake = self.queue.next_wake().expect("mail is waiting for nothing");
                self.clock = self.clock.max(wake.0.div_ceil(1_000_000));
            }
        }
        // No back-off of the DNS or of a lane, and no retry, takes longer than this.
        let longest = 30 * MINUTE * 11 / 10 + self.retry.max.as_millis() as u64 * 13 / 10 + 1_000_000 + 15 * MINUTE;
        assert!(self.clock - begun <= longest, "mail waited {} s", (self.clock - begun) / 1000);
        self.nothing_is_left();
    }

    fn assign_all(&mut self) {
        let first = self.leases[0];
        for key in self.queue.stranded_keys() {
            let lease = *self.lease_of.get_mut(&key).expect("a message").get_or_insert(first);
            self.gone.remove(&lease);
        }
        self.queue.assign(self.now(), self.wall(), |key| self.lease_of[&key]);
    }

    fn serve_last(&mut self) {
        let n = self.connections.len() - 1;
        if !self.connections[n].ready {
            self.connections[n].ready = true;
            self.queue.connection_ready(self.connections[n].lane);
        }
        self.take(n, usize::MAX);
        for (job, key, recipients) in std::mem::take(&mut self.connections[n].jobs) {
            self.queue.done(job);
            self.set(key, &recipients, State::Ended);
        }
        self.close(n);
    }

    fn nothing_is_left(&mut self) {
        self.clock += DAY;
        self.work();
        self.clock += DAY;
        self.work();
        assert_eq!(self.queue.lanes().count(), 0, "lanes without mail are forgotten");
        assert_eq!((self.queue.stranded(), self.queue.jobs().count(), self.queue.unresolved().count()), (0, 0, 0));
    }
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
