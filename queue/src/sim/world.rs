//! The world of a rehearsal: one queue with all leased IPs, receivers, a clock that jumps from one thing to the next.
//!
//! It does with the queue what a shard does. What must hold is checked as it goes, by books of its own: no leased IP over the
//! cap of its day, mail that overflows where its pool says, and each recipient sent, bounced, expired, refused or queued.

use super::{
    campaign::{Campaign, Grain},
    flow::{DAY, Flow},
    receiver::Standing,
    report::{self, Day, Report, Sums, Trouble},
};
use crate::{
    LaneId, LeaseId, Left, Queue,
    classify::Classifier,
    egress,
    policy::{LeaseIndex, PoolKind},
    retry,
    time::{Mono, Wall},
    warmup::{
        day,
        ladder::{Ladder, Rules},
        ledger::{Ledger, Status},
    },
};
use rustc_hash::FxHashMap;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use thiserror::Error;

/// The first day, 2026-01-01: a plan counts days and knows no seasons.
pub const BEGIN: Wall = Wall(1_767_225_600_000);
/// Answers of the DNS hold for ever.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// A rehearsal that cannot be, or that went as no sending may.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SimError {
    /// The campaign is none.
    #[error("{0}")]
    Campaign(String),
    /// Something happened that never may: a fault of this program.
    #[error("on day {day}, {what}: this must not happen, and is a fault of Mailrail, not of the campaign")]
    Broken {
        /// When.
        day: u32,
        /// What.
        what: String,
    },
}

/// A leased IP.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) lease: LeaseId,
    pub(super) ip: IpAddr,
    pub(super) pool: usize,
    pub(super) managed: bool,
    /// It has a ledger, or ladders.
    pub(super) counted: bool,
    leased_day: u32,
    known: bool,
    warm_day: Option<u32>,
    pub(super) sums: Sums,
    today: u64,
    best_day: u64,
    pub(super) blocks: u32,
}

/// Mail that came together. Its number is the queue's key; it is used again when the last recipient is settled.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) receiver: usize,
    /// Its pool, by position; that of its sender.
    pub(super) pool: u32,
    pub(super) hash: u64,
    /// Share of its addresses that do not exist.
    pub(super) unknown: f64,
    pub(super) open: u64,
    /// By which leased IPs it was tried on which days.
    pub(super) seen: Vec<(u32, day::Day)>,
}

/// Open connections of a lane.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) open: u32,
    /// They are busy until then, in nanoseconds.
    pub(super) busy: u64,
    pub(super) own: usize,
    /// Something will look at it then.
    pub(super) woken: bool,
}

/// See the module.
pub struct World {
    pub(super) campaign: Campaign,
    pub(super) grain: Grain,
    pub(super) queue: Queue<u64>,
    pub(super) classifier: Classifier,
    chance: u64,
    /// Milliseconds since the beginning.
    pub(super) ms: u64,
    flow: Flow,
    pub(super) owns: Vec<Own>,
    pub(super) by_ip: FxHashMap<IpAddr, usize>,
    /// What is known of the leased IPs, and when it was learnt.
    pub(super) left: Vec<Left>,
    pub(super) load: Vec<u64>,
    told: Option<u64>,
    /// By leased IP, then receiver.
    pub(super) standings: Vec<Standing>,
    domains: Vec<(String, Arc<str>)>,
    pub(super) batches: Vec<Batch>,
    free: Vec<u64>,
    pub(super) lines: FxHashMap<LaneId, Line>,
    pub(super) wakes: BinaryHeap<Reverse<(u64, LaneId)>>,
    /// Recipients seen by receivers on a day, once each, by leased IP and receiver (of a managed one).
    pub(super) seen: BTreeMap<(usize, usize), (day::Day, u64)>,
    pub(super) today: Sums,
    pub(super) blocks: u32,
    pub(super) of_pools: Vec<Sums>,
    pub(super) of_receivers: Vec<(Sums, u32)>,
    pub(super) troubles: BTreeMap<(usize, usize, bool), (Trouble, u32)>,
    pub(super) broken: Option<String>,
    days: Vec<Day>,
}

impl World {
    /// Ready for the first day.
    ///
    /// # Errors
    /// The campaign is none.
    pub fn new(campaign: Campaign) -> Result<Self, SimError> {
        campaign.check().map_err(SimError::Campaign)?;
        let classifier = Classifier::built_in().map_err(|error| SimError::Campaign(error.to_string()))?;
        let (receivers, pools) = (campaign.receivers.len(), campaign.policy.pools.len());
        let domain = |n: usize| (format!("r{n}.test"), Arc::from(format!("mx.r{n}.test")));
        let mut world = Self {
            grain: campaign.grain(),
            queue: Queue::new(campaign.retry.clone(), campaign.connections, campaign.seed),
            classifier,
            chance: campaign.seed ^ 0x5eed,
            ms: 0,
            flow: Flow::default(),
            owns: Vec::new(),
            by_ip: FxHashMap::default(),
            left: Vec::new(),
            load: vec![0; campaign.policy.leases.len()],
            told: None,
            standings: Vec::new(),
            domains: (0..receivers).map(domain).collect(),
            batches: Vec::new(),
            free: Vec::new(),
            lines: FxHashMap::default(),
            wakes: BinaryHeap::new(),
            seen: BTreeMap::new(),
            today: Sums::default(),
            blocks: 0,
            of_pools: vec![Sums::default(); pools],
            of_receivers: vec![(Sums::default(), 0); receivers],
            troubles: BTreeMap::new(),
            broken: None,
            days: Vec::new(),
            campaign,
        };
        world.lease_all();
        Ok(world)
    }

    pub(super) fn draw(&mut self) -> u64 {
        retry::chance(&mut self.chance)
    }

    pub(super) fn now(&self) -> Mono {
        Mono(1 + self.ms * 1_000_000)
    }

    pub(super) fn wall(&self) -> Wall {
        Wall(BEGIN.0 + self.ms)
    }

    pub(super) fn standing(&self, own: usize, receiver: usize) -> usize {
        own * self.campaign.receivers.len() + receiver
    }

    fn lease_all(&mut self) {
        let now = self.now();
        self.queue.set_providers(now, &self.campaign.policy.providers);
        for (receiver, (_, site)) in self.campaign.receivers.iter().zip(&self.domains) {
            self.queue.provider_of_site(now, site, receiver.provider.as_ref());
        }
        for index in 0..self.campaign.policy.leases.len() {
            let lease = &mut self.campaign.policy.leases[index];
            lease.draining = true;
            let (ip, pool) = (lease.address, lease.pool as usize);
            let (counted, warm) = (lease.warmup.is_some(), lease.warmup.as_ref().is_none_or(|warmup| warmup.warm));
            let managed = self.campaign.policy.pools.get(pool).is_some_and(|pool| pool.kind == PoolKind::Managed);
            self.owns.push(Own {
                lease: self.queue.lease_id(ip),
                ip,
                pool,
                managed,
                counted,
                leased_day: self.campaign.leased.get(index).copied().unwrap_or(1),
                known: warm,
                warm_day: None,
                sums: Sums::default(),
                today: 0,
                best_day: 0,
                blocks: 0,
            });
            self.by_ip.insert(ip, index);
            self.left.push(Left::Warming(0));
            for number in 0..self.campaign.receivers.len() {
                let chance = self.draw();
                self.standings.push(Standing::new(&self.campaign.receivers[number], warm, chance));
            }
        }
    }

    /// Leased IPs whose day has come.
    fn lease_due(&mut self, day: u32) {
        let due: Vec<usize> = (0..self.owns.len()).filter(|index| self.owns[*index].leased_day == day).collect();
        if due.is_empty() {
            return;
        }
        let (now, wall) = (self.now(), self.wall());
        for index in due {
            let Some(lease) = self.campaign.policy.leases.get_mut(index) else { continue };
            lease.draining = false;
            let Some(warmup) = lease.warmup.clone() else { continue };
            let own = &self.owns[index];
            let after = self.campaign.policy.pools.get(own.pool).map_or(Duration::ZERO, |pool| pool.overflow_after);
            if own.managed {
                self.queue.manage(own.lease, true, after);
                continue;
            }
            self.queue.expect_ledger(own.lease, after);
            let mut ledger = Ledger::lease(own.ip, warmup.plan.clone(), warmup.warm, warmup.starts, now, wall);
            ledger.set_spread(now, warmup.spread);
            self.queue.set_ledger(now, wall, own.lease, ledger);
        }
        self.told = None;
        self.queue.ask_again();
        self.place_stranded();
    }

    /// Mail that has no leased IP gets one if its pool has one now.
    fn place_stranded(&mut self) {
        let (now, wall) = (self.now(), self.wall());
        let mut places = BTreeMap::new();
        for key in self.queue.stranded_keys() {
            let count = self.batches.get(key as usize).map_or(1, |batch| batch.open);
            if let Some(index) = self.choose(key, count).lease() {
                places.insert(key, self.owns[index.0 as usize].lease);
            }
        }
        self.queue.assign(now, wall, |key| places.get(&key).copied());
    }

    /// Runs one more day.
    ///
    /// # Errors
    /// What happened that must not.
    pub fn day(&mut self) -> Result<&Day, SimError> {
        let day = self.days.len() as u32 + 1;
        let begin = u64::from(day - 1) * DAY;
        self.ms = begin;
        let mut chance = self.chance;
        self.flow.begin_day(&self.campaign, day, self.grain.crowd, &mut || retry::chance(&mut chance));
        self.chance = chance;
        self.lease_due(day);
        let last = begin + DAY - 1;
        loop {
            self.arrive();
            self.pump();
            if self.ms >= last || self.broken.is_some() {
                break;
            }
            self.ms = self.next_event().max(self.ms + self.grain.tick_ms).min(last);
        }
        self.end_day(day);
        if let Some(what) = self.broken.take() {
            return Err(SimError::Broken { day, what });
        }
        self.days.last().ok_or_else(|| SimError::Campaign("no day".into()))
    }

    fn next_event(&self) -> u64 {
        let wake = self.queue.next_wake().map(|at| at.0.div_ceil(1_000_000));
        let line = self.wakes.peek().map(|Reverse((at, _))| at.div_ceil(1_000_000));
        [self.flow.next(), wake, line].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    fn arrive(&mut self) {
        while let Some(arrival) = self.flow.pop(self.ms) {
            let (receiver, count) = (arrival.receiver as usize, u64::from(arrival.count));
            let stream = &self.campaign.streams[arrival.stream as usize];
            let Ok(Some(pool)) = egress::pool_of(&self.campaign.policy, &stream.account, stream.pool.as_deref()) else {
                self.broken = Some(format!("stream {} lost its pool", stream.name));
                return;
            };
            self.today.wanted += count;
            self.of_pools[pool as usize].wanted += count;
            self.of_receivers[receiver].0.wanted += count;
            let unknown = stream.unknown;
            let hash = self.draw();
            let batch = Batch { receiver, pool, hash, unknown, open: count, seen: Vec::new() };
            let key = self.free.pop().unwrap_or(self.batches.len() as u64);
            match self.batches.get_mut(key as usize) {
                Some(free) => *free = batch,
                None => self.batches.push(batch),
            }
            let choice = self.choose(key, count);
            if let egress::Choice::Reject(_) = choice {
                self.today.rejected += count;
                self.of_pools[pool as usize].rejected += count;
                self.of_receivers[receiver].0.rejected += count;
                self.settle(key, count);
                continue;
            }
            self.add(key, arrival.count, choice.lease());
        }
    }

    fn add(&mut self, key: u64, count: u32, to: Option<LeaseIndex>) {
        let (now, wall) = (self.now(), self.wall());
        let lease = to.and_then(|index| self.owns.get(index.0 as usize)).map(|own| own.lease);
        let expires = wall.plus(self.campaign.max_age);
        let Some(batch) = self.batches.get(key as usize) else { return };
        let domain = &self.domains[batch.receiver].0;
        if self.grain.crowd == 1 {
            let target = crate::Target { recipients: smallvec::smallvec![0], attempts: 0, next_try: None };
            let targets = [(domain.clone(), target)];
            self.queue.add(now, wall, crate::New { key, lease, accepted: wall, expires, targets: &targets });
        } else {
            self.queue.add_crowd(now, wall, crate::Crowd { key, lease, expires, domain, recipients: count });
        }
    }

    /// Recipients of a batch have come to their end.
    pub(super) fn settle(&mut self, key: u64, count: u64) {
        let Some(batch) = self.batches.get_mut(key as usize) else { return };
        if batch.open < count {
            self.broken = Some(format!("{count} recipients ended of a message that had {} left", batch.open));
            return;
        }
        batch.open -= count;
        if batch.open == 0 {
            self.free.push(key);
        }
    }

    /// Brings what is known of the leased IPs up to this time.
    pub(super) fn refresh(&mut self) {
        if self.told.replace(self.ms) == Some(self.ms) {
            return;
        }
        let (now, wall) = (self.now(), self.wall());
        for (index, own) in self.owns.iter().enumerate() {
            self.load[index] -= self.load[index].div_ceil(8);
            let draining = self.campaign.policy.leases.get(index).is_some_and(|lease| lease.draining);
            self.left[index] = match own.counted {
                _ if draining => Left::Warming(0),
                // Of a managed one only the provider says whether there is room.
                true if !own.managed => self.queue.left(now, wall, own.lease),
                _ => Left::Free,
            };
            if let Left::Warming(left) = &mut self.left[index]
                && let Some(ledger) = self.queue.ledger(own.lease)
                && *left < ledger.piece(now, wall).min(self.grain.crowd / 4)
            {
                // A crumb is not worth a decision: it is more in a moment.
                *left = 0;
            }
        }
    }

    /// Answers the queue's questions, until it has none.
    fn pump(&mut self) {
        let (now, wall) = (self.now(), self.wall());
        while let Some(Reverse((_, lane))) = self.wakes.peek().copied().filter(|Reverse((at, _))| *at <= now.0) {
            self.wakes.pop();
            if let Some(line) = self.lines.get_mut(&lane) {
                line.woken = false;
                self.serve(lane);
            }
        }
        loop {
            let mut quiet = self.answer_questions();
            while let Some(work) = self.queue.poll(now, wall) {
                quiet = false;
                self.work(work);
            }
            while let Some((lane, _)) = self.queue.served() {
                quiet = false;
                self.serve(lane);
            }
            let notes: VecDeque<_> = self.queue.notes().collect();
            for (lease, _, note) in &notes {
                self.queue.confirm(now, wall, *lease, note);
            }
            if (quiet && notes.is_empty()) || self.broken.is_some() {
                return;
            }
        }
    }

    fn answer_questions(&mut self) -> bool {
        let (now, wall) = (self.now(), self.wall());
        let mut quiet = true;
        while let Some(name) = self.queue.ask() {
            quiet = false;
            let Some((_, site)) = self.domains.iter().find(|(domain, _)| **domain == *name) else { continue };
            let answer = crate::Resolution::Site { key: Arc::clone(site), ttl: FOREVER };
            self.queue.resolved(now, wall, &name, answer);
        }
        for (lease, ip, provider) in self.queue.wanted_ledgers() {
            quiet = false;
            let index = self.by_ip.get(&ip).copied().unwrap_or(0);
            let Some(warmup) = self.campaign.policy.leases.get(index).and_then(|of| of.warmup.clone()) else {
                continue;
            };
            let rules = self.campaign.policy.providers.get(&provider).map_or_else(Rules::default, |of| of.ladder);
            let top = u64::MAX;
            let from = if warmup.warm { Ladder::at(&rules, top) } else { Ladder::default() };
            let mut ledger = Ledger::climb(ip, rules, None, from, warmup.starts, now, wall);
            ledger.set_spread(now, warmup.spread);
            self.queue.set_ledger(now, wall, lease, ledger);
        }
        quiet
    }

    fn end_day(&mut self, day: u32) {
        let (now, wall) = (self.now(), self.wall());
        let (waiting, heights) = (self.waiting(), self.queue.heights(now, wall));
        let (mut warm, mut warming) = (0, 0);
        for own in self.owns.iter_mut().filter(|own| own.counted && own.leased_day <= day) {
            warming += 1;
            let is_warm = if own.managed {
                let mut mine = heights.iter().filter(|height| height.ip == own.ip).peekable();
                mine.peek().is_some() && mine.all(|height| height.cap.is_none())
            } else {
                let standing = self.queue.ledger(own.lease).map(|ledger| ledger.standing(now, wall).status);
                standing == Some(Status::Done)
            };
            warm += u32::from(is_warm);
            own.warm_day = if is_warm { own.warm_day.or(Some(day)) } else { None };
        }
        for own in &mut self.owns {
            own.best_day = own.best_day.max(own.sums.sent - own.today);
            own.today = own.sums.sent;
        }
        for index in 0..self.standings.len() {
            let chance = self.draw();
            let model = &self.campaign.receivers[index % self.campaign.receivers.len()];
            self.standings[index].end_day(model, chance);
        }
        let own_ips = self.owns.iter().any(|own| own.counted);
        let trusts: Vec<f64> = self.trusts(|own| own.counted || !own_ips).collect();
        let sums = std::mem::take(&mut self.today);
        self.days.push(Day {
            day,
            sums,
            queued: self.queue.len(),
            waiting,
            reputation_mean: mean(&trusts),
            reputation_worst: mean(&[trusts.iter().copied().fold(100.0, f64::min)]),
            ips_warm: warm,
            ips_warming: warming,
            blocks: std::mem::take(&mut self.blocks),
        });
        self.check_books(day);
    }

    /// Each recipient is sent, bounced, expired, refused or queued.
    fn check_books(&mut self, day: u32) {
        let mut all = Sums::default();
        self.days.iter().for_each(|day| all.add(&day.sums));
        let open: u64 = self.batches.iter().map(|batch| batch.open).sum();
        let queued = self.queue.len();
        let ended = all.sent + all.bounced + all.expired + all.rejected;
        if self.broken.is_none() && (all.wanted != ended + queued || open != queued) {
            self.broken = Some(format!(
                "{} recipients were wanted by day {day}, {ended} have ended, {queued} are queued and {open} open",
                all.wanted
            ));
        }
    }

    fn waiting(&self) -> u64 {
        let whole = self.owns.iter().map(|own| self.queue.held(own.lease)).sum::<u64>();
        whole + self.queue.held_by_ladders()
    }

    fn trusts<'a>(&'a self, of: impl Fn(&Own) -> bool + 'a) -> impl Iterator<Item = f64> + 'a {
        let width = self.campaign.receivers.len();
        let mine = self.standings.iter().enumerate().filter(move |(n, _)| of(&self.owns[n / width]));
        mine.map(|(_, standing)| standing).filter(|standing| standing.met).map(|standing| standing.trust)
    }

    /// What it came to so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut total = Sums::default();
        self.days.iter().for_each(|day| total.add(&day.sums));
        let width = self.campaign.receivers.len();
        let pools = &self.campaign.policy.pools;
        let ip = |(index, own): (usize, &Own)| report::Ip {
            ip: own.ip,
            pool: pools.get(own.pool).map_or_else(String::new, |pool| pool.name.to_string()),
            leased_day: own.leased_day,
            warm_day: own.warm_day.filter(|_| !own.known),
            warm_from_start: own.known,
            sent: own.sums.sent,
            best_day: own.best_day,
            deferred: own.sums.deferred,
            blocks: own.blocks,
            reputation: mean(&self.met(index * width..(index + 1) * width)),
        };
        let receiver = |(number, (sums, blocks)): (usize, &(Sums, u32))| {
            let trusts = self.standings.iter().skip(number).step_by(width).filter(|of| of.met).map(|of| of.trust);
            report::Receiver {
                receiver: self.campaign.receivers[number].name.to_string(),
                sums: *sums,
                blocks: *blocks,
                reputation: mean(&trusts.collect::<Vec<_>>()),
            }
        };
        Report {
            seed: self.campaign.seed,
            grain: self.grain,
            total,
            queued: self.queue.len(),
            days: self.days.clone(),
            ips: self.owns.iter().enumerate().map(ip).collect(),
            pools: (0..pools.len()).map(|number| self.pool_report(number)).collect(),
            receivers: self.of_receivers.iter().enumerate().map(receiver).collect(),
            troubles: self.troubles.values().map(|(trouble, _)| trouble.clone()).collect(),
        }
    }

    fn pool_report(&self, number: usize) -> report::Pool {
        let pool = &self.campaign.policy.pools[number];
        let mine = || self.owns.iter().filter(|own| own.pool == number);
        let mut sums = self.of_pools[number];
        for own in mine() {
            let Sums { sent, deferred, bounced, .. } = own.sums;
            (sums.sent, sums.deferred, sums.bounced) =
                (sums.sent + sent, sums.deferred + deferred, sums.bounced + bounced);
        }
        report::Pool {
            pool: pool.name.to_string(),
            account: pool.account.as_ref().map(|account| account.to_string()),
            ips: mine().count() as u32,
            ips_warm: mine().filter(|own| own.warm_day.is_some() || own.known).count() as u32,
            sums,
            blocks: mine().map(|own| own.blocks).sum(),
            reputation: mean(&self.trusts(|own| own.pool == number).collect::<Vec<_>>()),
        }
    }

    fn met(&self, range: std::ops::Range<usize>) -> Vec<f64> {
        let standings = self.standings.get(range).unwrap_or_default();
        standings.iter().filter(|standing| standing.met).map(|standing| standing.trust).collect()
    }

    /// All days.
    #[must_use]
    pub fn days(&self) -> &[Day] {
        &self.days
    }
}

/// To a tenth, so that it reads the same wherever it is written.
fn mean(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    (mean * 10.0).round() / 10.0
}
