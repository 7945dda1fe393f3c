//! The queue of one shard: which job goes next, and when there is something to do. *One per shard.*
//!
//! ```text
//! add ─▶ pending (domains unknown) ─▶ lane: ready ─▶ in flight ─▶ done
//!                                        ▲               │
//!                                        └── deferred ◀──┘
//! ```
//! Every operation costs the same with ten queued messages and with ten million, but for a deferral, which is a heap's
//! logarithm. The same calls with the same times and seed give the same answers.

use crate::{
    domain::{Domain, Known, Pending, Resolution},
    job::{Job, JobId, NONE, New, Place, Recipients},
    lane::{Lane, LaneId, LaneInfo, LeaseId},
    retry::{self, RetrySchedule},
    slab::Slab,
    time::{Mono, Wall},
    timer::{Due, Timers},
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

/// How long a lane keeps to a number of connections that a receiver taught it.
const LEARNED: Duration = Duration::from_secs(60);
/// First and longest wait before a failed question is asked again.
const ASK_FIRST: Duration = Duration::from_secs(5);
const ASK_MAX: Duration = Duration::from_secs(10 * 60);
/// How often stuck jobs are looked at for their expiry.
const SWEEP: Duration = Duration::from_secs(20);

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
    /// Where its mail goes is not certain any more: end it here and [`Queue::add`] it again.
    Again {
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
    /// Its name; give it back, finish it or drop it.
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
    /// Domains known to be of it.
    domains: u32,
    connections: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    retry: RetrySchedule,
    site_backoff: RetrySchedule,
    default_connections: u32,
    chance: u64,
    jobs: Slab<Job<K>>,
    lanes: Slab<Lane>,
    lane_ids: FxHashMap<(LeaseId, u32), u32>,
    leases: Vec<IpAddr>,
    lease_ids: FxHashMap<IpAddr, LeaseId>,
    sites: Slab<Site>,
    site_ids: FxHashMap<Arc<str>, u32>,
    domains: Slab<Domain>,
    domain_ids: FxHashMap<Arc<str>, u32>,
    pending: Slab<Pending<K>>,
    stranded: VecDeque<u32>,
    questions: VecDeque<u32>,
    look: VecDeque<u32>,
    endings: VecDeque<Work>,
    timers: Timers,
    next_sweep: Mono,
    recipients: u64,
}

impl<K: Copy + Eq> Queue<K> {
    /// An empty queue. `connections`: at most so many a lane, unless its site says otherwise.
    #[must_use]
    pub fn new(retry: RetrySchedule, connections: u32, seed: u64) -> Self {
        Self {
            retry,
            site_backoff: RetrySchedule::of_sites(),
            default_connections: connections,
            chance: seed,
            jobs: Slab::default(),
            lanes: Slab::default(),
            lane_ids: FxHashMap::default(),
            leases: Vec::new(),
            lease_ids: FxHashMap::default(),
            sites: Slab::default(),
            site_ids: FxHashMap::default(),
            domains: Slab::default(),
            domain_ids: FxHashMap::default(),
            pending: Slab::default(),
            stranded: VecDeque::new(),
            questions: VecDeque::new(),
            look: VecDeque::new(),
            endings: VecDeque::new(),
            timers: Timers::default(),
            next_sweep: Mono(0),
            recipients: 0,
        }
    }

    /// Recipients queued.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.recipients
    }

    /// Sets the waits of a lane that could not be connected or was turned away; [`RetrySchedule::of_sites`] at first.
    pub fn back_off_sites(&mut self, schedule: RetrySchedule) {
        self.site_backoff = schedule;
    }

    /// Nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recipients == 0
    }

    /// The name of a leased IP.
    pub fn lease_id(&mut self, address: IpAddr) -> LeaseId {
        let next = LeaseId(self.leases.len() as u32);
        let id = *self.lease_ids.entry(address).or_insert(next);
        if id == next {
            self.leases.push(address);
        }
        id
    }

    /// The address of a leased IP.
    #[must_use]
    pub fn lease_address(&self, lease: LeaseId) -> Option<IpAddr> {
        self.leases.get(lease.0 as usize).copied()
    }

    /// Puts a message in. Its recipients at one site become one job, once all of its domains are resolved.
    pub fn add(&mut self, now: Mono, wall: Wall, new: New<'_, K>) {
        let mut open = 0;
        let mut targets = Vec::with_capacity(new.targets.len());
        for (name, target) in new.targets {
            self.recipients += target.recipients.len() as u64;
            let domain = self.domain_id(name);
            let entry = self.domains.get_mut(domain);
            let Some(entry) = entry else { continue };
            entry.users += 1;
            if entry.answer(now).is_none() && !targets.iter().any(|(known, _)| *known == domain) {
                open += 1;
            }
            targets.push((domain, target.clone()));
        }
        let pending =
            Pending { key: new.key, lease: new.lease, accepted: new.accepted, expires: new.expires, targets, open };
        if open == 0 {
            return self.make_jobs(now, wall, pending);
        }
        let unknown: SmallVec<[u32; 4]> = {
            let mut unknown: SmallVec<[u32; 4]> = SmallVec::new();
            for (domain, _) in &pending.targets {
                if self.domains.get(*domain).is_some_and(|d| d.answer(now).is_none()) && !unknown.contains(domain) {
                    unknown.push(*domain);
                }
            }
            unknown
        };
        let number = self.pending.insert(pending);
        for domain in unknown {
            self.question(domain);
            if let Some(entry) = self.domains.get_mut(domain) {
                entry.waiting.push(number);
            }
        }
    }

    fn question(&mut self, domain: u32) {
        if let Some(entry) = self.domains.get_mut(domain).filter(|entry| !entry.asked) {
            entry.asked = true;
            self.questions.push_back(domain);
        }
    }

    /// The next domain to resolve; each answer is to be told to [`Self::resolved`].
    pub fn ask(&mut self) -> Option<Box<str>> {
        loop {
            let domain = self.questions.pop_front()?;
            if let Some(entry) = self.domains.get(domain) {
                return Some(Box::from(&*entry.name));
            }
        }
    }

    /// Takes the answer to a question.
    pub fn resolved(&mut self, now: Mono, wall: Wall, name: &str, resolution: Resolution) {
        let Some(&domain) = self.domain_ids.get(name) else { return };
        let (known, ttl) = match resolution {
            Resolution::Site { key, ttl } => (Known::Site(self.site_id(key)), ttl),
            Resolution::Never { ttl } => (Known::Never, ttl),
            Resolution::Later => return self.ask_later(now, domain),
        };
        let Some(entry) = self.domains.get_mut(domain) else { return };
        let before = std::mem::replace(&mut entry.known, known.clone());
        entry.until = now.plus(ttl.max(Duration::from_secs(1)));
        (entry.asked, entry.failures) = (false, 0);
        let waiting = std::mem::take(&mut entry.waiting);
        if let Known::Site(site) = &known
            && let Some(site) = self.sites.get_mut(*site)
        {
            site.domains += 1;
        }
        if let Known::Site(site) = before
            && before != known
        {
            self.dissolve(site);
        }
        self.unlearn(&before);
        for number in waiting {
            let Some(pending) = self.pending.get_mut(number) else { continue };
            pending.open -= 1;
            if pending.open == 0
                && let Some(pending) = self.pending.remove(number)
            {
                self.make_jobs(now, wall, pending);
            }
        }
        self.release_domain(domain, 0);
    }

    /// Asks again where the mail of a domain goes, though an answer is there.
    pub fn ask_again(&mut self, name: &str) {
        if let Some(domain) = self.domain_ids.get(name).copied() {
            self.question(domain);
        }
    }

    /// A domain has moved away from this site: what waits there is put in again, each recipient where it belongs now.
    fn dissolve(&mut self, site: u32) {
        let lanes: Vec<u32> = self.lanes.iter().filter(|(_, lane)| lane.site == site).map(|(n, _)| n).collect();
        for number in lanes {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            let mut next = lane.head;
            (lane.head, lane.tail, lane.ready, lane.min_expires) = (NONE, NONE, 0, Wall(u64::MAX));
            while next != NONE {
                let id = next;
                let Some(job) = self.jobs.get(id) else { break };
                next = job.next;
                self.end(id, |job| Work::Again { job });
            }
        }
    }

    /// Nobody knows now. What waits goes on waiting, up to its expiry.
    fn ask_later(&mut self, now: Mono, domain: u32) {
        let chance = retry::chance(&mut self.chance);
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.failures = (entry.failures + 1).min(16);
        entry.stamp = entry.stamp.wrapping_add(1);
        let wait = ASK_FIRST.saturating_mul(1 << (entry.failures - 1)).min(ASK_MAX);
        self.timers.set(now.plus(jittered(wait, chance)), Due::Domain(domain), entry.stamp);
    }

    /// Recipients of one message at one site, as equally far as they are, become one job.
    fn make_jobs(&mut self, now: Mono, wall: Wall, pending: Pending<K>) {
        let mut groups: SmallVec<[(u32, u32, SmallVec<[u16; 2]>, u16, Option<Wall>); 2]> = SmallVec::new();
        for (domain, target) in &pending.targets {
            let known = self.domains.get(*domain).map(|entry| entry.known.clone());
            let site = match known {
                Some(Known::Site(site)) => site,
                _ => NONE,
            };
            let same = groups.iter_mut().find(|(_, of, _, attempts, next)| {
                site != NONE && *of == site && *attempts == target.attempts && *next == target.next_try
            });
            match same {
                Some((.., recipients, _, _)) => {
                    recipients.extend_from_slice(&target.recipients);
                    self.release_domain(*domain, 1);
                }
                None => groups.push((*domain, site, target.recipients.clone(), target.attempts, target.next_try)),
            }
        }
        for (domain, site, recipients, attempts, next_try) in groups {
            let job = Job {
                key: pending.key,
                recipients: Recipients::new(&recipients),
                accepted: pending.accepted,
                expires: pending.expires,
                domain,
                site,
                lane: NONE,
                next: NONE,
                stamp: 0,
                attempts,
                place: Place::Stranded,
            };
            let id = self.jobs.insert(job);
            match (site, pending.lease) {
                (NONE, _) => self.end(id, |job| Work::Undeliverable { job }),
                (_, None) => self.stranded.push_back(id),
                (_, Some(lease)) => {
                    self.enter(id, lease);
                    self.place(now, wall, id, next_try);
                }
            }
        }
    }

    /// Ready now, or deferred to a later time.
    fn place(&mut self, now: Mono, wall: Wall, id: u32, next_try: Option<Wall>) {
        match next_try.filter(|at| *at > wall) {
            Some(at) => self.put_off(now, wall, id, at),
            None => self.make_ready(id, false),
        }
    }

    fn put_off(&mut self, now: Mono, wall: Wall, id: u32, at: Wall) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.stamp = job.stamp.wrapping_add(1);
        let stamp = job.stamp;
        self.set_place(id, Place::Deferred);
        self.timers.set(now.plus(at.since(wall)), Due::Job(id), stamp);
    }

    /// Joins the lane of its site and this lease.
    fn enter(&mut self, id: u32, lease: LeaseId) {
        let Some(site) = self.jobs.get(id).map(|job| job.site) else { return };
        let limit = self.sites.get(site).and_then(|site| site.connections).unwrap_or(self.default_connections);
        let lane = if let Some(lane) = self.lane_ids.get(&(lease, site)) {
            *lane
        } else {
            let lane = self.lanes.insert(Lane::new(lease, site, limit));
            self.lane_ids.insert((lease, site), lane);
            if let Some(site) = self.sites.get_mut(site) {
                site.lanes += 1;
            }
            lane
        };
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.jobs += 1;
        }
        if let Some(job) = self.jobs.get_mut(id) {
            job.lane = lane;
        }
    }

    /// At the end of its lane's ready jobs, or at the front if it was there already.
    fn make_ready(&mut self, id: u32, front: bool) {
        self.set_place(id, Place::Ready);
        let Some((number, expires)) = self.jobs.get(id).map(|job| (job.lane, job.expires)) else { return };
        let Some(lane) = self.lanes.get_mut(number) else { return };
        lane.ready += 1;
        lane.min_expires = lane.min_expires.min(expires);
        let (head, tail) = (lane.head, lane.tail);
        if lane.head == NONE || front {
            lane.head = id;
        }
        if lane.tail == NONE || !front {
            lane.tail = id;
        }
        if let Some(job) = self.jobs.get_mut(id) {
            job.next = if front { head } else { NONE };
        }
        if !front
            && tail != NONE
            && let Some(last) = self.jobs.get_mut(tail)
        {
            last.next = id;
        }
        self.list(number);
    }

    fn list(&mut self, number: u32) {
        if let Some(lane) = self.lanes.get_mut(number).filter(|lane| !lane.listed) {
            lane.listed = true;
            self.look.push_back(number);
        }
    }

    fn set_place(&mut self, id: u32, place: Place) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let (from, recipients) = (std::mem::replace(&mut job.place, place), job.recipients.as_slice().len() as u64);
        if let Some(lane) = self.lanes.get_mut(job.lane) {
            if let Some(count) = column(from) {
                lane.counts[count] -= recipients;
            }
            if let Some(count) = column(place) {
                lane.counts[count] += recipients;
            }
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self, now: Mono, wall: Wall) -> Option<Work> {
        while let Some((due, stamp)) = self.timers.pop(now) {
            self.due(now, due, stamp);
        }
        if now >= self.next_sweep {
            self.next_sweep = now.plus(SWEEP);
            self.sweep(now, wall);
        }
        if let Some(work) = self.endings.pop_front() {
            return Some(work);
        }
        while let Some(number) = self.look.pop_front() {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            lane.listed = false;
            if lane.wants_connection(now) {
                // To the end of the list: a lane with a million jobs waits its turn like one with a single job.
                self.list(number);
                return Some(Work::Connect { lane: LaneId(number) });
            }
        }
        None
    }

    /// When [`Self::poll`] may have something new though nothing else happened.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        if self.recipients == 0 {
            return self.timers.next();
        }
        Some(self.timers.next().map_or(self.next_sweep, |next| next.min(self.next_sweep)))
    }

    fn due(&mut self, now: Mono, due: Due, stamp: u32) {
        match due {
            Due::Job(id) => {
                let job = self.jobs.get(id).filter(|job| job.place == Place::Deferred && job.stamp == stamp);
                let Some(domain) = job.map(|job| job.domain) else { return };
                if self.domains.get(domain).is_some_and(|domain| domain.answer(now).is_some()) {
                    self.make_ready(id, false);
                } else {
                    // What the DNS said then is not believed any more: its hosts may be others now.
                    self.end(id, |job| Work::Again { job });
                }
            }
            Due::Lane(number) => {
                if let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.stamp == stamp) {
                    lane.learned = lane.learned.map(|n| n + 1).filter(|n| *n < lane.limit);
                    if lane.jobs == 0 && lane.connections == 0 {
                        (lane.failures, lane.learned) = (0, None);
                    }
                    self.list(number);
                    self.drop_lane_if_unused(number);
                }
            }
            Due::Domain(domain) => {
                if let Some(entry) = self.domains.get_mut(domain).filter(|entry| entry.stamp == stamp) {
                    entry.asked = false;
                    if entry.users > 0 {
                        self.question(domain);
                    }
                }
            }
        }
    }

    /// Ends what has expired where nothing else would find it: in lanes that stand still, without a lease, unresolved.
    fn sweep(&mut self, now: Mono, wall: Wall) {
        let stuck: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| lane.ready > 0 && lane.min_expires <= wall).map(|(n, _)| n).collect();
        for lane in stuck {
            self.sweep_lane(lane, wall);
        }
        let is_late = |id: &u32| self.jobs.get(*id).is_none_or(|job| job.expires <= wall);
        let (expired, kept): (VecDeque<u32>, _) = self.stranded.iter().copied().partition(is_late);
        self.stranded = kept;
        for id in expired {
            self.end(id, |job| Work::Expired { job });
        }
        let late: Vec<_> = self.pending.iter().filter(|(_, p)| p.expires <= wall).map(|(n, _)| n).collect();
        for number in late {
            if let Some(pending) = self.pending.remove(number) {
                for (domain, _) in &pending.targets {
                    if let Some(entry) = self.domains.get_mut(*domain) {
                        entry.waiting.retain(|waiting| *waiting != number);
                    }
                }
                self.expire_pending(now, pending);
            }
        }
    }

    fn expire_pending(&mut self, _now: Mono, pending: Pending<K>) {
        for (domain, target) in pending.targets {
            let id = self.jobs.insert(Job {
                key: pending.key,
                recipients: Recipients::new(&target.recipients),
                accepted: pending.accepted,
                expires: pending.expires,
                domain,
                site: NONE,
                lane: NONE,
                next: NONE,
                stamp: 0,
                attempts: target.attempts,
                place: Place::Stranded,
            });
            self.end(id, |job| Work::Expired { job });
        }
    }

    fn sweep_lane(&mut self, number: u32, wall: Wall) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        let mut next = lane.head;
        (lane.head, lane.tail, lane.ready, lane.min_expires) = (NONE, NONE, 0, Wall(u64::MAX));
        while next != NONE {
            let id = next;
            let Some(job) = self.jobs.get(id) else { return };
            next = job.next;
            if job.expires <= wall {
                self.end(id, |job| Work::Expired { job });
            } else {
                self.make_ready(id, false);
            }
        }
    }

    fn end(&mut self, id: u32, work: impl Fn(JobId) -> Work) {
        self.set_place(id, Place::Ending);
        self.endings.push_back(work(JobId(id)));
    }

    /// Is there a job that an open connection of this lane could take?
    #[must_use]
    pub fn has_ready(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.0).is_some_and(|lane| lane.head != NONE)
    }

    /// The next job of a lane, for an open connection of it.
    pub fn take(&mut self, lane: LaneId, wall: Wall) -> Option<Taken<K>> {
        loop {
            let entry = self.lanes.get_mut(lane.0)?;
            let id = entry.head;
            let job = self.jobs.get_mut(id)?;
            entry.head = std::mem::replace(&mut job.next, NONE);
            if entry.head == NONE {
                entry.tail = NONE;
                entry.min_expires = Wall(u64::MAX);
            }
            entry.ready -= 1;
            if job.expires <= wall {
                self.end(id, |job| Work::Expired { job });
                continue;
            }
            let recipients = SmallVec::from_slice(job.recipients.as_slice());
            let taken = Taken { job: JobId(id), key: job.key, recipients, attempts: job.attempts };
            self.set_place(id, Place::InFlight);
            return Some(taken);
        }
    }

    /// A job handed out that was not tried: it is the next one again.
    pub fn give_back(&mut self, job: JobId) {
        if self.jobs.get(job.0).is_some_and(|job| job.place == Place::InFlight) {
            self.make_ready(job.0, true);
        }
    }

    /// Of a job handed out, only `recipients` are still to be delivered; they wait for their next try. What
    /// [`NextTry::Expired`] is said of has left the queue.
    pub fn defer(&mut self, now: Mono, wall: Wall, job: JobId, recipients: &[u16]) -> NextTry {
        let chance = retry::chance(&mut self.chance);
        let schedule = &self.retry;
        let Some(entry) = self.jobs.get_mut(job.0) else { return NextTry::Expired };
        entry.attempts = entry.attempts.saturating_add(1);
        let Some(at) = schedule.next(wall, entry.attempts, entry.expires, chance) else {
            self.done(job);
            return NextTry::Expired;
        };
        let gone = (entry.recipients.as_slice().len() - recipients.len()) as u64;
        let (lane, from) = (entry.lane, entry.place);
        entry.recipients = Recipients::new(recipients);
        self.recipients -= gone;
        if let (Some(lane), Some(count)) = (self.lanes.get_mut(lane), column(from)) {
            lane.counts[count] -= gone;
        }
        self.put_off(now, wall, job.0, at);
        NextTry::At(at)
    }

    /// A job has come to its end.
    pub fn done(&mut self, job: JobId) {
        self.set_place(job.0, Place::Ending);
        let Some(entry) = self.jobs.remove(job.0) else { return };
        self.recipients -= entry.recipients.as_slice().len() as u64;
        self.release_domain(entry.domain, 1);
        self.leave(entry.lane);
    }

    fn leave(&mut self, number: u32) {
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.jobs -= 1;
            self.drop_lane_if_unused(number);
        }
    }

    fn drop_lane_if_unused(&mut self, number: u32) {
        // A lane that is backed off is remembered, or its next message would not know.
        let unused =
            |lane: &Lane| lane.jobs == 0 && lane.connections == 0 && lane.failures == 0 && lane.learned.is_none();
        if !self.lanes.get(number).is_some_and(unused) {
            return;
        }
        if let Some(lane) = self.lanes.remove(number) {
            self.lane_ids.remove(&(lane.lease, lane.site));
            if let Some(site) = self.sites.get_mut(lane.site) {
                site.lanes -= 1;
            }
            self.drop_site_if_unused(lane.site);
        }
    }

    fn drop_site_if_unused(&mut self, number: u32) {
        if self.sites.get(number).is_some_and(|site| site.lanes == 0 && site.domains == 0)
            && let Some(site) = self.sites.remove(number)
        {
            self.site_ids.remove(&site.key);
        }
    }

    /// A connection for this lane is being opened.
    pub fn connection_opened(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(lane.0) {
            lane.connections += 1;
            lane.opening += 1;
        }
    }

    /// It can take jobs now: the host is well.
    pub fn connection_ready(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(lane.0) {
            lane.opening = lane.opening.saturating_sub(1);
            lane.failures = 0;
        }
    }

    /// A connection of this lane is gone, `opening` if it never became ready.
    pub fn connection_closed(&mut self, lane: LaneId, opening: bool) {
        if let Some(entry) = self.lanes.get_mut(lane.0) {
            entry.connections = entry.connections.saturating_sub(1);
            entry.opening = entry.opening.saturating_sub(u32::from(opening));
            if entry.ready > 0 {
                self.list(lane.0);
            }
            self.drop_lane_if_unused(lane.0);
        }
    }

    /// The site could not be reached, or turned a new connection away. With other connections open, it is asked for no
    /// more than these for a while; with none, the lane waits. Returns until when.
    pub fn connect_failed(&mut self, now: Mono, lane: LaneId) -> Mono {
        let others = self.lanes.get(lane.0).map_or(0, |lane| lane.connections - lane.opening.min(lane.connections));
        if others == 0 {
            return self.site_trouble(now, lane);
        }
        let Some(entry) = self.lanes.get_mut(lane.0) else { return now };
        entry.learned = Some(others);
        entry.stamp = entry.stamp.wrapping_add(1);
        let at = now.plus(LEARNED);
        self.timers.set(at, Due::Lane(lane.0), entry.stamp);
        at
    }

    /// The site wants to be left alone: no new connection of this lane before the time returned. Its jobs keep their tries.
    pub fn site_trouble(&mut self, now: Mono, lane: LaneId) -> Mono {
        let chance = retry::chance(&mut self.chance);
        let Some(entry) = self.lanes.get_mut(lane.0) else { return now };
        if entry.backed_off_until > now {
            return entry.backed_off_until;
        }
        entry.failures = (entry.failures + 1).min(16);
        entry.stamp = entry.stamp.wrapping_add(1);
        entry.backed_off_until = now.plus(self.site_backoff.wait(entry.failures as u16, chance));
        self.timers.set(entry.backed_off_until, Due::Lane(lane.0), entry.stamp);
        entry.backed_off_until
    }

    /// Connections a lane of this site may have; none: the default.
    pub fn limit_site(&mut self, key: &Arc<str>, connections: Option<u32>) {
        let number = self.site_id(Arc::clone(key));
        let limit = connections.unwrap_or(self.default_connections).max(1);
        let Some(site) = self.sites.get_mut(number).filter(|site| site.connections != connections) else { return };
        site.connections = connections;
        let lanes: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.site == number).map(|(n, _)| n).collect();
        for lane in lanes {
            if let Some(entry) = self.lanes.get_mut(lane) {
                entry.limit = limit;
            }
            self.list(lane);
        }
    }

    /// Takes the leased IP from all its jobs that are not in flight: they wait for [`Self::assign`].
    pub fn strand(&mut self, lease: LeaseId) {
        let of_lease = |job: &Job<K>| {
            matches!(job.place, Place::Ready | Place::Deferred)
                && self.lanes.get(job.lane).is_some_and(|lane| lane.lease == lease)
        };
        let ids: Vec<_> = self.jobs.iter().filter(|(_, job)| of_lease(job)).map(|(id, _)| id).collect();
        for (_, lane) in
            self.lane_ids.iter().filter(|((of, _), _)| *of == lease).map(|(k, v)| (*k, *v)).collect::<Vec<_>>()
        {
            if let Some(lane) = self.lanes.get_mut(lane) {
                (lane.head, lane.tail, lane.ready) = (NONE, NONE, 0);
            }
        }
        for id in ids {
            self.set_place(id, Place::Stranded);
            if let Some(job) = self.jobs.get_mut(id) {
                job.next = NONE;
                let lane = std::mem::replace(&mut job.lane, NONE);
                self.leave(lane);
            }
            self.stranded.push_back(id);
        }
    }

    /// Gives stranded jobs a leased IP each; those for which `choose` has none go on waiting.
    pub fn assign(&mut self, now: Mono, wall: Wall, mut choose: impl FnMut(K) -> Option<LeaseId>) {
        for _ in 0..self.stranded.len() {
            let Some(id) = self.stranded.pop_front() else { return };
            let Some(key) = self.jobs.get(id).map(|job| job.key) else { continue };
            match choose(key) {
                Some(lease) => {
                    self.enter(id, lease);
                    self.place(now, wall, id, None);
                }
                None => self.stranded.push_back(id),
            }
        }
    }

    /// Messages of these jobs, each once a job.
    #[must_use]
    pub fn stranded_keys(&self) -> Vec<K> {
        self.stranded.iter().filter_map(|id| self.jobs.get(*id)).map(|job| job.key).collect()
    }

    /// The message has gone elsewhere: its stranded jobs end.
    pub fn drop_stranded(&mut self, key: K) {
        let (gone, kept): (VecDeque<u32>, _) =
            self.stranded.iter().copied().partition(|id| self.jobs.get(*id).is_some_and(|job| job.key == key));
        self.stranded = kept;
        for id in gone {
            self.done(JobId(id));
        }
    }

    /// Jobs without a leased IP.
    #[must_use]
    pub fn stranded(&self) -> usize {
        self.stranded.len()
    }

    /// A lane.
    #[must_use]
    pub fn lane(&self, lane: LaneId) -> Option<LaneInfo> {
        let entry = self.lanes.get(lane.0)?;
        Some(LaneInfo {
            lane,
            lease: self.lease_address(entry.lease)?,
            site: Arc::clone(&self.sites.get(entry.site)?.key),
            ready: entry.counts[0],
            deferred: entry.counts[1],
            in_flight: entry.counts[2],
            connections: entry.connections,
            backed_off_until: (entry.backed_off_until > Mono(0)).then_some(entry.backed_off_until),
            min_expires: entry.min_expires,
        })
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneInfo> + '_ {
        self.lanes.iter().filter_map(|(number, _)| self.lane(LaneId(number)))
    }

    /// All jobs: message, recipients, domain of the first, lane, tries.
    pub fn jobs(&self) -> impl Iterator<Item = (K, &[u16], &str, Option<LaneId>, u16)> + '_ {
        self.jobs.iter().map(|(_, job)| {
            let domain = self.domains.get(job.domain).map_or("", |domain| &*domain.name);
            let lane = (job.lane != NONE).then_some(LaneId(job.lane));
            (job.key, job.recipients.as_slice(), domain, lane, job.attempts)
        })
    }

    /// Messages that wait for the DNS: message, recipients, domain.
    pub fn unresolved(&self) -> impl Iterator<Item = (K, &[u16], &str)> + '_ {
        self.pending.iter().flat_map(|(_, pending)| &pending.targets).zip(self.pending_keys()).map(
            |((domain, target), key)| {
                let name = self.domains.get(*domain).map_or("", |domain| &*domain.name);
                (key, &target.recipients[..], name)
            },
        )
    }

    fn pending_keys(&self) -> impl Iterator<Item = K> + '_ {
        self.pending.iter().flat_map(|(_, pending)| std::iter::repeat_n(pending.key, pending.targets.len()))
    }

    /// The message, recipients, domain and tries of a job.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<(K, &[u16], &str, u16)> {
        let entry = self.jobs.get(job.0)?;
        let domain = self.domains.get(entry.domain).map_or("", |domain| &*domain.name);
        Some((entry.key, entry.recipients.as_slice(), domain, entry.attempts))
    }

    /// The lane that a job is in.
    #[must_use]
    pub fn jobs_lane(&self, job: JobId) -> Option<LaneId> {
        self.jobs.get(job.0).map(|job| job.lane).filter(|lane| *lane != NONE).map(LaneId)
    }

    /// Does queued mail need this site?
    #[must_use]
    pub fn knows_site(&self, key: &str) -> bool {
        self.site_ids.contains_key(key)
    }

    /// Does queued mail need this domain?
    #[must_use]
    pub fn knows_domain(&self, name: &str) -> bool {
        self.domain_ids.contains_key(name)
    }

    fn domain_id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.domain_ids.get(name) {
            return *id;
        }
        let domain = Domain::new(name);
        let name = Arc::clone(&domain.name);
        let id = self.domains.insert(domain);
        self.domain_ids.insert(name, id);
        id
    }

    fn site_id(&mut self, key: Arc<str>) -> u32 {
        if let Some(id) = self.site_ids.get(&key) {
            return *id;
        }
        let id = self.sites.insert(Site { key: Arc::clone(&key), lanes: 0, domains: 0, connections: None });
        self.site_ids.insert(key, id);
        id
    }

    /// Domains without mail that are kept for their answers; the oldest go first beyond that.
    const DOMAINS_KEPT: usize = 100_000;

    fn release_domain(&mut self, domain: u32, users: u32) {
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.users -= users;
        if entry.users > 0 || self.domains.len() <= Self::DOMAINS_KEPT {
            return;
        }
        if let Some(entry) = self.domains.remove(domain) {
            self.domain_ids.remove(&entry.name);
            self.unlearn(&entry.known);
        }
    }

    /// A domain is not known to be of this site any more.
    fn unlearn(&mut self, known: &Known) {
        if let Known::Site(number) = *known {
            if let Some(site) = self.sites.get_mut(number) {
                site.domains -= 1;
            }
            self.drop_site_if_unused(number);
        }
    }
}

/// Column of a lane's counts.
fn column(place: Place) -> Option<usize> {
    match place {
        Place::Ready => Some(0),
        Place::Deferred => Some(1),
        Place::InFlight => Some(2),
        Place::Stranded | Place::Ending => None,
    }
}

/// Up to a tenth longer or shorter.
fn jittered(wait: Duration, chance: u64) -> Duration {
    let tenth = wait / 10;
    let width = 2 * u64::try_from(tenth.as_millis()).unwrap_or(0) + 1;
    wait - tenth + Duration::from_millis(chance % width)
}
