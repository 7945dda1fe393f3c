//! The queue of one shard: which job goes next, and when there is something to do. *One per shard.*
//!
//! ```text
//! add ─▶ unresolved ─▶ lane: ready ─▶ in flight ─▶ done
//!            │  ▲         │   ▲          │
//!            ▼  └─────────┴─ deferred ◀──┘          a domain whose answer is out of date is asked for again
//!         stranded (no leased IP) ─▶ assigned one, or leaving: another shard takes it
//! ```
//! What an operator suspended is held, and what an operator ends or moves is pulled out in flight (`hold.rs`).
//!
//! Every job is in exactly one of these places; `place.rs` is the only code that moves it. The cost of an operation depends
//! on the sites, leased IPs and domains there are, and never on the number of queued messages, but for what takes a leased
//! IP from its jobs and for listings. The same calls with the same times and seed give the same answers.

mod assign;
mod crowd;
#[cfg(test)]
mod crowd_tests;
mod hold;
#[cfg(test)]
mod hold_tests;
mod lanes;
mod list;
mod managed;
mod meter;
mod place;
mod resolve;
mod scan;
mod shaping;
mod waiting;

pub use crowd::Crowd;
pub use managed::{Height, OTHER};
pub use meter::Left;
pub use scan::{Seen, State};
pub use shaping::ShapeInfo;

use shaping::{Receiver, Shaped};

use crate::{
    domain::Domain,
    job::{DUE_TICK_NS, EXPIRY_TICK_MS, Job, JobId, Place},
    lane::{Lane, LaneId, LeaseId},
    list::{Calendar, EXPIRY, List, ORDER},
    retry::RetrySchedule,
    slab::Slab,
    time::{Mono, Wall},
    timer::{Due, Timers},
    warmup::ledger::Ledger,
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
    /// The warm-up plan of its leased IP does not let it go in time: may another one take it? [`Queue::reroute`], or
    /// [`Queue::take_waiting`] for another shard; otherwise it goes on waiting.
    Overflow {
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
    /// The provider that it is of, by its position.
    receiver: Option<u32>,
}

#[derive(Debug)]
struct Lease {
    address: IpAddr,
    /// What is counted of a leased IP at one provider is counted apart: this is of that one, and of that provider.
    of: Option<(LeaseId, Arc<str>)>,
    /// Counted at each provider apart.
    managed: bool,
    /// Its mail was taken from it: what comes back to it is stranded.
    gone: bool,
    meter: Meter,
    /// Jobs that its plan does not let go now, in order.
    waiting: List<ORDER>,
    /// Recipients of these.
    held: u64,
    /// What has waited for so long may go by another leased IP.
    overflow_after: Duration,
    /// Nothing of it goes until its ledger is here, or a note of it is durable.
    blocked: bool,
    /// There are jobs waiting for which no other leased IP was looked for yet.
    fresh: bool,
    /// When the first of those waiting may go, as far as is known.
    opens: Option<Mono>,
    /// When its timer is due, and the stamp of the one that counts.
    armed: Option<Mono>,
    stamp: u32,
}

/// Whether what leaves by a leased IP is counted.
#[derive(Debug)]
enum Meter {
    /// It is not.
    None,
    /// It will be, but its ledger is not here yet: nothing goes.
    Pending,
    /// It is.
    Ledger(Box<Ledger>),
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
    /// And those that are leaving.
    in_flight: List<ORDER>,
    /// Suspended jobs, how many, and how many of them are still to be let go since that was last asked for.
    held: List<ORDER>,
    held_jobs: usize,
    to_free: usize,
    /// Deferred jobs by tick.
    tries: Calendar<ORDER>,
    /// Jobs that are not in flight, by tick of the wall clock.
    expiries: Calendar<EXPIRY>,
    stranded: BTreeMap<K, List<ORDER>>,
    stranded_count: usize,
    newly_stranded: bool,
    endings: VecDeque<Work>,
    /// Jobs for which another leased IP is to be looked for.
    overflowing: VecDeque<JobId>,
    /// Jobs that wait are being let go: no second time from within.
    releasing: bool,
    lanes: Slab<Lane>,
    lane_ids: FxHashMap<(LeaseId, u32), u32>,
    /// Lanes that may want a connection, or to be forgotten.
    look: VecDeque<u32>,
    /// See [`Self::served`].
    served: Vec<LaneId>,
    leases: Vec<Lease>,
    lease_ids: FxHashMap<IpAddr, LeaseId>,
    /// What is counted of leased IPs at one provider each.
    parts: FxHashMap<LeaseId, Vec<LeaseId>>,
    sites: Slab<Site>,
    site_ids: FxHashMap<Arc<str>, u32>,
    /// Sites that were told a limit before anybody used them.
    new_sites: Vec<u32>,
    domains: Slab<Domain>,
    domain_ids: FxHashMap<Arc<str>, u32>,
    /// Domains that had no mail when they came in here, the oldest first.
    idle_domains: VecDeque<u32>,
    receivers: Vec<Receiver>,
    receiver_ids: FxHashMap<Arc<str>, u32>,
    /// Leased IPs and providers without a ledger.
    wanted: Vec<LeaseId>,
    shapes: Vec<Shaped>,
    shape_ids: FxHashMap<(LeaseId, u32), u32>,
    questions: VecDeque<u32>,
    /// Domains whose waiting jobs were too many to be sent on at once.
    answered: VecDeque<u32>,
    timers: Timers,
    /// The time to look at the expiries again.
    next_look: Mono,
    /// Both clocks as last told.
    clocks: (Mono, Wall),
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
            held: List::default(),
            held_jobs: 0,
            to_free: 0,
            tries: Calendar::default(),
            expiries: Calendar::default(),
            stranded: BTreeMap::new(),
            stranded_count: 0,
            newly_stranded: false,
            endings: VecDeque::new(),
            overflowing: VecDeque::new(),
            releasing: false,
            lanes: Slab::default(),
            lane_ids: FxHashMap::default(),
            look: VecDeque::new(),
            served: Vec::new(),
            leases: Vec::new(),
            lease_ids: FxHashMap::default(),
            parts: FxHashMap::default(),
            sites: Slab::default(),
            site_ids: FxHashMap::default(),
            new_sites: Vec::new(),
            domains: Slab::default(),
            domain_ids: FxHashMap::default(),
            idle_domains: VecDeque::new(),
            receivers: Vec::new(),
            receiver_ids: FxHashMap::default(),
            wanted: Vec::new(),
            shapes: Vec::new(),
            shape_ids: FxHashMap::default(),
            questions: VecDeque::new(),
            answered: VecDeque::new(),
            timers: Timers::default(),
            next_look: Mono(0),
            clocks: (Mono(0), Wall(0)),
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
        while let Some(job) = self.overflowing.pop_front() {
            if self.waits_for_plan(job) {
                return Some(Work::Overflow { job });
            }
        }
        while let Some(number) = self.look.pop_front() {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            lane.listed = false;
            if self.leases.get(lane.lease.index()).is_some_and(|lease| lease.blocked) {
                continue;
            }
            let (id, wants) = (lane.id, lane.wants_connection(now));
            if lane.ready > 0 && lane.connections > lane.opening {
                self.serve(number);
            }
            if wants && self.may_connect(now, number) {
                let lane = id;
                // To the end of the list: a lane with a million jobs waits its turn like one with a single job.
                self.list(number);
                return Some(Work::Connect { lane });
            }
            self.forget_if_idle(now, number);
        }
        None
    }

    /// A lane has mail for its open connections, unless it has to wait for its provider.
    fn serve(&mut self, number: u32) {
        if self.is_closed(number) {
            return self.stall(number);
        }
        if let Some(lane) = self.lanes.get_mut(number).filter(|lane| !lane.told) {
            lane.told = true;
            self.served.push(lane.id);
        }
    }

    /// A lane with open connections in which [`Self::poll`] found mail since this was last asked, and how many jobs are ready
    /// there: for connections that rest. Told again whenever mail becomes ready.
    pub fn served(&mut self) -> Option<(LaneId, u32)> {
        loop {
            let id = self.served.pop()?;
            let Some(lane) = self.lane_named(id) else { continue };
            lane.told = false;
            if lane.ready > 0 {
                return Some((id, u32::try_from(lane.ready).unwrap_or(u32::MAX)));
            }
        }
    }

    /// When [`Self::poll`] may have something new though nothing else happened. A time that has passed means: now.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        if !self.answered.is_empty() || !self.overflowing.is_empty() || self.to_free > 0 {
            return Some(Mono(0));
        }
        let tries = self.tries.next().map(|tick| Mono(tick.saturating_mul(DUE_TICK_NS)));
        let expiries = self.expiries.next().map(|_| self.next_look);
        [self.timers.next(), tries, expiries].into_iter().flatten().min()
    }

    /// Brings everything up to the time.
    fn advance(&mut self, now: Mono, wall: Wall) {
        self.clocks = (now, wall);
        for site in std::mem::take(&mut self.new_sites) {
            self.drop_site_if_unused(site);
        }
        while let Some((due, stamp)) = self.timers.pop(now) {
            match due {
                Due::Lane(number) => self.lane_due(now, number, stamp),
                Due::Domain(domain) => self.domain_due(now, domain, stamp),
                Due::Lease(lease) => self.lease_due(now, lease, stamp),
                Due::Shape(shape) => self.shape_due(now, shape, stamp),
            }
        }
        let mut budget = BATCH;
        while let Some(domain) = self.answered.pop_front() {
            if !self.send_on(now, domain, &mut budget) {
                self.answered.push_front(domain);
                break;
            }
        }
        self.free_held(now, &mut budget);
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
