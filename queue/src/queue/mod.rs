//! The queue of one shard: which job goes next, and when there is something to do. *One per shard.*
//!
//! ```text
//! add ─▶ unresolved ─▶ lane: ready ─▶ in flight ─▶ done
//!            │  ▲         │   ▲          │
//!            ▼  └─────────┴─ deferred ◀──┘          a domain whose answer is out of date is asked for again
//!         stranded (no leased IP) ─▶ assign
//! ```
//! Every job is in exactly one of these places; `place.rs` is the only code that moves it. The cost of an operation depends
//! on the sites, leased IPs and domains there are, and never on the number of queued messages, but for what takes a leased
//! IP from its jobs and for listings. The same calls with the same times and seed give the same answers.

mod assign;
mod lanes;
mod list;
mod place;
mod resolve;

use crate::{
    domain::Domain,
    job::{DUE_TICK_NS, EXPIRY_TICK_MS, Job, JobId, Place},
    lane::{Lane, LaneId, LeaseId},
    list::{Calendar, EXPIRY, List, ORDER},
    retry::RetrySchedule,
    slab::Slab,
    time::{Mono, Wall},
    timer::{Due, Timers},
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// Jobs moved by one [`Queue::poll`] because of their time: no caller waits long for those of others.
const BATCH: usize = 1024;
/// How often expiries are looked at though nothing else happens: the wall clock may step.
const LOOK: Duration = Duration::from_secs(20);

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Open one more connection for this lane; call [`Queue::connection_opened`] at once.
    Connect {
        /// The lane.
        lane: LaneId,
    },
    /// Mail for its domain can go nowhere: end it.
    Undeliverable {
        /// The job.
        job: JobId,
    },
    /// It was not delivered in time: end it.
    Expired {
        /// The job.
        job: JobId,
    },
}

/// A job handed out.
#[derive(Clone, Debug)]
pub struct Taken<K> {
    /// Its name; give it back, finish it or defer it.
    pub job: JobId,
    /// The message.
    pub key: K,
    /// Numbers of its recipients.
    pub recipients: SmallVec<[u16; 2]>,
    /// Tries so far.
    pub attempts: u16,
}

/// What a deferral comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    /// It will be tried again then.
    At(Wall),
    /// That would be too late: it has come to its end.
    Expired,
}

#[derive(Debug)]
struct Site {
    key: Arc<str>,
    lanes: u32,
    /// Stranded jobs for it.
    stranded: u32,
    /// Domains known to be of it.
    domains: BTreeSet<u32>,
    connections: Option<u32>,
}

#[derive(Debug)]
struct Lease {
    address: IpAddr,
    /// Its mail was taken from it: what comes back to it is stranded.
    gone: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    retry: RetrySchedule,
    site_backoff: RetrySchedule,
    default_connections: u32,
    chance: u64,
    serial: u32,
    jobs: Slab<Job<K>>,
    /// Recipients of all jobs.
    recipients: u64,
    in_flight: List<ORDER>,
    /// Deferred jobs by tick.
    tries: Calendar<ORDER>,
    /// Jobs that are not in flight, by tick of the wall clock.
    expiries: Calendar<EXPIRY>,
    stranded: BTreeMap<K, List<ORDER>>,
    stranded_count: usize,
    newly_stranded: bool,
    endings: VecDeque<Work>,
    lanes: Slab<Lane>,
    lane_ids: FxHashMap<(LeaseId, u32), u32>,
    /// Lanes that may want a connection, or to be forgotten.
    look: VecDeque<u32>,
    leases: Vec<Lease>,
    lease_ids: FxHashMap<IpAddr, LeaseId>,
    sites: Slab<Site>,
    site_ids: FxHashMap<Arc<str>, u32>,
    /// Sites that were told a limit before anybody used them.
    new_sites: Vec<u32>,
    domains: Slab<Domain>,
    domain_ids: FxHashMap<Arc<str>, u32>,
    /// Domains that had no mail when they came in here, the oldest first.
    idle_domains: VecDeque<u32>,
    questions: VecDeque<u32>,
    /// Domains whose waiting jobs were too many to be sent on at once.
    answered: VecDeque<u32>,
    timers: Timers,
    /// The time to look at the expiries again.
    next_look: Mono,
}

impl<K: Copy + Ord> Queue<K> {
    /// An empty queue. `connections`: at most so many a lane, unless its site says otherwise.
    #[must_use]
    pub fn new(retry: RetrySchedule, connections: u32, seed: u64) -> Self {
        Self {
            retry,
            site_backoff: RetrySchedule::of_sites(),
            default_connections: connections,
            chance: seed,
            serial: 0,
            jobs: Slab::default(),
            recipients: 0,
            in_flight: List::default(),
            tries: Calendar::default(),
            expiries: Calendar::default(),
            stranded: BTreeMap::new(),
            stranded_count: 0,
            newly_stranded: false,
            endings: VecDeque::new(),
            lanes: Slab::default(),
            lane_ids: FxHashMap::default(),
            look: VecDeque::new(),
            leases: Vec::new(),
            lease_ids: FxHashMap::default(),
            sites: Slab::default(),
            site_ids: FxHashMap::default(),
            new_sites: Vec::new(),
            domains: Slab::default(),
            domain_ids: FxHashMap::default(),
            idle_domains: VecDeque::new(),
            questions: VecDeque::new(),
            answered: VecDeque::new(),
            timers: Timers::default(),
            next_look: Mono(0),
        }
    }

    /// Recipients queued.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.recipients
    }

    /// Nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recipients == 0
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self, now: Mono, wall: Wall) -> Option<Work> {
        self.advance(now, wall);
        while let Some(work) = self.endings.pop_front() {
            let (Work::Undeliverable { job } | Work::Expired { job }) = work else { continue };
            if matches!(self.named(job).map(|job| job.place), Some(Place::Ending { .. })) {
                return Some(work);
            }
        }
        while let Some(number) = self.look.pop_front() {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            lane.listed = false;
            if lane.wants_connection(now) {
                let lane = lane.id;
                // To the end of the list: a lane with a million jobs waits its turn like one with a single job.
                self.list(number);
                return Some(Work::Connect { lane });
            }
            self.forget_if_idle(now, number);
        }
        None
    }

    /// When [`Self::poll`] may have something new though nothing else happened. A time that has passed means: now.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        if !self.answered.is_empty() {
            return Some(Mono(0));
        }
        let tries = self.tries.next().map(|tick| Mono(tick.saturating_mul(DUE_TICK_NS)));
        let expiries = self.expiries.next().map(|_| self.next_look);
        [self.timers.next(), tries, expiries].into_iter().flatten().min()
    }

    /// Brings everything up to the time.
    fn advance(&mut self, now: Mono, wall: Wall) {
        for site in std::mem::take(&mut self.new_sites) {
            self.drop_site_if_unused(site);
        }
        while let Some((due, stamp)) = self.timers.pop(now) {
            match due {
                Due::Lane(number) => self.lane_due(now, number, stamp),
                Due::Domain(domain) => self.domain_due(now, domain, stamp),
            }
        }
        let mut budget = BATCH;
        while let Some(domain) = self.answered.pop_front() {
            if !self.send_on(now, domain, &mut budget) {
                self.answered.push_front(domain);
                break;
            }
        }
        while budget > 0
            && let Some(id) = self.tries.due(now.0 / DUE_TICK_NS)
        {
            budget -= 1;
            self.due(now, id);
        }
        while budget > 0
            && let Some(id) = self.expiries.due(wall.0 / EXPIRY_TICK_MS)
        {
            budget -= 1;
            self.end(id, |job| Work::Expired { job });
        }
        self.next_look = match self.expiries.next() {
            Some(tick) => {
                let at = Wall(tick.saturating_mul(EXPIRY_TICK_MS));
                now.plus(at.since(wall).min(LOOK))
            }
            None => now.plus(LOOK),
        };
    }

    /// The job of this name, if there still is one.
    fn named(&self, name: JobId) -> Option<&Job<K>> {
        self.jobs.get(name.slot).filter(|job| job.serial == name.serial)
    }

    /// The lane of this name, if there still is one.
    fn lane_named(&mut self, name: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(name.slot).filter(|lane| lane.id == name)
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

/// Up to a tenth longer or shorter.
fn jittered(wait: Duration, chance: u64) -> Duration {
    let tenth = wait / 10;
    let width = 2 * u64::try_from(tenth.as_millis()).unwrap_or(0) + 1;
    wait - tenth + Duration::from_millis(chance % width)
}
