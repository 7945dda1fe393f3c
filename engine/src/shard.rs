//! One core: owns its spool, queue, leased IPs and connections, wires the pieces, decides nothing. *One per shard; never
//! leaves its thread.*
//!
//! All state sits in cells: a shard is one thread, and no borrow lives across an `.await`.

use crate::{
    claims::Claims,
    clock,
    config::Config,
    deliver::sites::{Site, Sites},
    limits::Limits,
    link::{IpStatus, Report, ShardStatus, Snapshot},
    memory::Memory,
    mesh::Mesh,
    message::meta::Meta,
    operate::{heard::Heard, suspend::Rules},
    outbox,
    quota::Purses,
    rehome::Landing,
    returning::Returning,
    sign::{Keyring, cache::Signatures},
    signal::Signal,
    submit::Lists,
    tls::certs::Trust,
    warmup::Ledgers,
};
use mailrail_queue::{
    LaneId, Queue,
    classify::Classifier,
    policy::{DomainRule, Policy, TlsMode},
    shape::table::Provider,
};
use mailrail_spool::{MessageKey, Spool};
use rustc_hash::FxHashMap;
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// How often the first snapshot is looked for at a start.
const LOADED_POLL: Duration = Duration::from_millis(5);

/// See the module.
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) config: Arc<Config>,
    pub(crate) limits: Limits,
    pub(crate) memory: Memory,
    pub(crate) trust: Trust,
    pub(crate) classifier: Classifier,
    pub(crate) spool: RefCell<Spool>,
    pub(crate) queue: RefCell<Queue<MessageKey>>,
    pub(crate) snapshot: RefCell<Rc<Snapshot>>,
    /// Leased IPs of this shard and what they say in EHLO.
    leases: RefCell<FxHashMap<IpAddr, Arc<str>>>,
    pub(crate) certificates: RefCell<Vec<Option<Arc<rustls::ServerConfig>>>>,
    pub(crate) sites: RefCell<Sites>,
    /// Domains that take no mail, and why.
    pub(crate) nowhere: RefCell<FxHashMap<Box<str>, (&'static str, String)>>,
    /// What last went wrong in a lane.
    troubles: RefCell<FxHashMap<LaneId, String>>,
    /// Open connections that wait for mail, by lane; the one that was busy last is woken first, so that those too many
    /// grow old and go.
    resting: RefCell<FxHashMap<LaneId, Vec<Rc<Signal>>>>,
    pub(crate) signatures: RefCell<Signatures>,
    /// Of mail that is not signed.
    no_signature: Rc<[u8]>,
    pub(crate) mesh: Mesh,
    pub(crate) claims: Claims,
    /// Whom not to send to.
    pub(crate) lists: RefCell<Lists>,
    /// What accounts may send without asking.
    pub(crate) purses: Purses,
    pub(crate) ledgers: Ledgers,
    /// What is suspended.
    pub(crate) rules: Rules,
    /// Orders to be carried out.
    pub(crate) heard: Heard,
    /// Mail that other shards took and may not send yet.
    pub(crate) landing: Landing,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) stats: RefCell<ShardStatus>,
    ips: RefCell<FxHashMap<IpAddr, IpStatus>>,
    pub(crate) events: outbox::State,
    sequence: Cell<u64>,
    chance: Cell<u64>,
    /// What the spool held at the start is being put into the queue.
    pub(crate) loading: Cell<bool>,
    /// It is there.
    pub(crate) loaded: Cell<bool>,
    /// No new mail, no new connections; what is in flight ends.
    pub(crate) stopping: Cell<bool>,
    /// Everything has ended; the last sync may go.
    pub(crate) stopped: Cell<bool>,
    /// Raised when `stopping` is set.
    pub(crate) ending: Signal,
    /// Something was appended that is not durable yet.
    pub(crate) dirty: Signal,
    /// Somebody waits for the next sync: do not delay it.
    pub(crate) urgent: Cell<bool>,
    /// Clients that a group may wait for.
    pub(crate) returning: Returning,
    /// A group became durable, or the spool failed.
    pub(crate) committed: Signal,
    /// There may be new durable records for the event log.
    pub(crate) outbox: Signal,
    /// The queue may have something new to do.
    pub(crate) work: Signal,
    /// Somebody waits for a new segment.
    pub(crate) chores: Signal,
    /// Mail without a leased IP may have one now.
    pub(crate) stranded: Signal,
    /// A chore is done: there may be room.
    pub(crate) room: Signal,
    /// Notes of ledgers were given to the spool.
    pub(crate) noted: Signal,
    /// There is something that the other shards should know at once.
    pub(crate) news: Signal,
}

/// How a site is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) tls: TlsMode,
    /// Messages a connection.
    pub(crate) messages: u32,
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) number: u16,
    pub(crate) config: Arc<Config>,
    pub(crate) limits: Limits,
    pub(crate) memory: Memory,
    pub(crate) trust: Trust,
    pub(crate) certificates: Vec<Option<Arc<rustls::ServerConfig>>>,
    pub(crate) classifier: Classifier,
    pub(crate) spool: Spool,
    pub(crate) mesh: Mesh,
    pub(crate) reports: mpsc::Sender<Report>,
    /// Makes its choices; any number.
    pub(crate) seed: u64,
}

impl Shard {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { number, config, limits, memory, trust, certificates, classifier, spool, mesh, reports, seed } =
            parts;
        let mut queue = Queue::new(config.delivery.retry.clone(), config.delivery.connections, seed);
        queue.back_off_sites(config.delivery.site_backoff.clone());
        let signatures = Signatures::new(limits.signature_bytes);
        let nothing = Snapshot {
            policy: Arc::new(Policy::default()),
            keys: Arc::new(Keyring::default()),
            credentials: Arc::default(),
        };
        Self {
            number,
            config,
            limits,
            memory,
            trust,
            classifier,
            spool: RefCell::new(spool),
            queue: RefCell::new(queue),
            snapshot: RefCell::new(Rc::new(nothing)),
            leases: RefCell::default(),
            certificates: RefCell::new(certificates),
            sites: RefCell::default(),
            nowhere: RefCell::default(),
            troubles: RefCell::default(),
            resting: RefCell::default(),
            signatures: RefCell::new(signatures),
            no_signature: Rc::from([]),
            mesh,
            claims: Claims::default(),
            lists: RefCell::default(),
            purses: Purses::default(),
            ledgers: Ledgers::default(),
            rules: Rules::default(),
            heard: Heard::default(),
            landing: Landing::default(),
            reports,
            stats: RefCell::default(),
            ips: RefCell::default(),
            events: outbox::State::default(),
            sequence: Cell::new(0),
            chance: Cell::new(seed),
            loading: Cell::new(false),
            loaded: Cell::new(false),
            stopping: Cell::new(false),
            stopped: Cell::new(false),
            ending: Signal::default(),
            dirty: Signal::default(),
            urgent: Cell::new(false),
            returning: Returning::default(),
            committed: Signal::default(),
            outbox: Signal::default(),
            work: Signal::default(),
            chores: Signal::default(),
            stranded: Signal::default(),
            room: Signal::default(),
            noted: Signal::default(),
            news: Signal::default(),
        }
    }

    /// Returns once what the spool held at the start is in the queue. Nothing new may be taken before: the queue would get it
    /// twice, from here and from the reading of the spool.
    pub(crate) async fn is_loaded(&self) {
        while !self.loaded.get() && !self.stopping.get() {
            glommio::timer::sleep(LOADED_POLL).await;
        }
    }

    /// This shard's part of a limit that holds for all shards together, rounded up.
    pub(crate) fn share(&self, limit: u32) -> u32 {
        limit.div_ceil(u32::from(self.config.shards.max(1)))
    }

    /// The snapshot in force.
    pub(crate) fn policy(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Puts a snapshot in force.
    pub(crate) fn set_policy(&self, snapshot: Snapshot) {
        let mine = snapshot.policy.leases.iter().filter(|lease| lease.shard == self.number);
        *self.leases.borrow_mut() = mine.map(|lease| (lease.address, Arc::clone(&lease.helo))).collect();
        *self.snapshot.borrow_mut() = Rc::new(snapshot);
        self.queue.borrow_mut().set_providers(clock::mono(), &self.policy().policy.providers);
        let domains: Vec<_> =
            self.sites.borrow().iter().map(|(key, site)| (Arc::clone(key), Arc::clone(&site.domain))).collect();
        for (key, domain) in domains {
            self.limit_site(&key, &domain);
        }
    }

    /// Tells the queue how many connections a site may have, and which provider's it is.
    pub(crate) fn limit_site(&self, key: &Arc<str>, domain: &str) {
        let connections = self.rule_of(domain).connections;
        let provider = self.sites.borrow().get(key).and_then(|site| self.provider_of(site));
        let mut queue = self.queue.borrow_mut();
        queue.limit_site(key, connections);
        queue.provider_of_site(clock::mono(), key, provider.as_ref().map(|provider| &provider.name));
    }

    /// The provider of a site: that of the host that is tried first.
    pub(crate) fn provider_of(&self, site: &Site) -> Option<Arc<Provider>> {
        let host = site.hosts.iter().min_by_key(|host| host.preference)?;
        self.snapshot.borrow().policy.provider_of(&host.name).cloned()
    }

    /// What holds for connections to a site: the rule of the domain, then what its provider says.
    pub(crate) fn terms_of(&self, site: &Site) -> Terms {
        let (rule, provider) = (self.rule_of(&site.domain), self.provider_of(site));
        let of = |provider: &Provider| (provider.tls, provider.messages);
        let (tls, messages) = provider.as_deref().map(of).unwrap_or_default();
        Terms {
            tls: rule.tls.or(tls).unwrap_or_default(),
            messages: rule.messages_per_connection.or(messages).unwrap_or(self.config.delivery.messages_per_connection),
        }
    }

    /// The rule of a recipient domain.
    pub(crate) fn rule_of(&self, domain: &str) -> DomainRule {
        self.snapshot.borrow().policy.rule_of(domain)
    }

    /// Name of the provider of the site with this identity, if it is one of those known.
    pub(crate) fn provider_name(&self, key: &str) -> Option<Arc<str>> {
        let sites = self.sites.borrow();
        self.provider_of(sites.get(key)?).map(|provider| Arc::clone(&provider.name))
    }

    /// Is this leased IP one of this shard's?
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.leases.borrow().contains_key(&address)
    }

    /// Has this leased IP a plan that is not known to be done?
    pub(crate) fn warms_up(&self, address: IpAddr) -> bool {
        let snapshot = self.policy();
        let planned = snapshot.policy.leases.iter().any(|lease| lease.address == address && lease.warmup.is_some());
        let mut queue = self.queue.borrow_mut();
        let lease = queue.lease_id(address);
        planned && queue.left(clock::mono(), clock::wall(), lease) != mailrail_queue::Left::Done
    }

    /// What a leased IP of this shard says in EHLO.
    pub(crate) fn helo_of(&self, address: IpAddr) -> Option<Arc<str>> {
        self.leases.borrow().get(&address).cloned()
    }

    /// May a delivery begin? Not when its outcome could not be recorded.
    pub(crate) fn may_deliver(&self) -> bool {
        let spool = self.spool.borrow();
        !self.stopping.get() && spool.failure().is_none() && spool.room_for_outcomes()
    }

    /// The next message's number on this shard: part of its id.
    pub(crate) fn next_sequence(&self) -> u64 {
        let next = self.sequence.get() + 1;
        self.sequence.set(next);
        next
    }

    /// A number that nobody can guess from the ones before (SplitMix64 over a random seed): ids, shuffles; no secret.
    pub(crate) fn chance(&self) -> u64 {
        let state = self.chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.chance.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Keeps an error for `status`, and logs it.
    pub(crate) fn note_error(&self, text: &str) {
        tracing::warn!(shard = self.number, "{text}");
        let mut stats = self.stats.borrow_mut();
        let text: String = text.chars().take(300).collect();
        // What is said over and over stands there once, with its last time.
        stats.last_errors.retain(|(_, known)| *known != text);
        stats.last_errors.insert(0, (clock::wall().0, text));
        stats.last_errors.truncate(10);
    }

    /// The DKIM signatures of a message, ready to go in front of its content; empty if no key is for it. Made at the first
    /// try, kept only while there will be another one.
    pub(crate) fn signatures_of(&self, key: MessageKey) -> Rc<[u8]> {
        if self.snapshot.borrow().keys.is_empty() {
            return Rc::clone(&self.no_signature);
        }
        if let Some(kept) = self.signatures.borrow().get(key) {
            return kept;
        }
        let spool = self.spool.borrow();
        let nothing = || Rc::clone(&self.no_signature);
        let Some(view) = spool.message(key) else { return nothing() };
        let Some(meta) = Meta::decode(view.meta) else { return nothing() };
        let snapshot = self.policy();
        let mut fields = Vec::with_capacity(1024);
        match snapshot.keys.sign(meta.from_domain, clock::wall(), view.pieces(), &mut fields) {
            Ok(made) => self.stats.borrow_mut().signatures += made as u64,
            Err(error) => self.note_error(&format!("DKIM key of {}: {error}; sent unsigned", meta.from_domain)),
        }
        let fields: Rc<[u8]> = Rc::from(fields);
        if view.recipients.len() > 1 && !fields.is_empty() {
            self.signatures.borrow_mut().keep(key, Rc::clone(&fields));
        }
        fields
    }

    /// Counts of a leased IP since start.
    pub(crate) fn ip_counts(&self, address: IpAddr) -> IpStatus {
        self.ips.borrow().get(&address).cloned().unwrap_or_else(|| no_counts(address))
    }

    /// Changes the counts of a leased IP.
    pub(crate) fn count_ip(&self, address: IpAddr, change: impl FnOnce(&mut IpStatus)) {
        change(self.ips.borrow_mut().entry(address).or_insert_with(|| no_counts(address)));
    }

    /// Remembers what holds up a lane, for those who ask.
    pub(crate) fn remember_trouble(&self, lane: LaneId, text: &str) {
        self.troubles.borrow_mut().insert(lane, text.chars().take(300).collect());
    }

    /// What last went wrong in a lane.
    pub(crate) fn trouble_of(&self, lane: LaneId) -> Option<String> {
        self.troubles.borrow().get(&lane).cloned()
    }

    /// A connection of this lane waits for mail: `wake` is raised when there is some, or the shard stops.
    pub(crate) fn rest(&self, lane: LaneId, wake: &Rc<Signal>) {
        let mut resting = self.resting.borrow_mut();
        let lane = resting.entry(lane).or_default();
        if !lane.iter().any(|known| Rc::ptr_eq(known, wake)) {
            lane.push(Rc::clone(wake));
        }
    }

    /// It does not any more.
    pub(crate) fn rested(&self, lane: LaneId, wake: &Rc<Signal>) {
        let mut resting = self.resting.borrow_mut();
        let Some(others) = resting.get_mut(&lane) else { return };
        others.retain(|known| !Rc::ptr_eq(known, wake));
        if others.is_empty() {
            resting.remove(&lane);
        }
    }

    /// Wakes resting connections for mail that has become ready: as many as there is mail for.
    pub(crate) fn wake_resting(&self) {
        let mut queue = self.queue.borrow_mut();
        let mut resting = self.resting.borrow_mut();
        while let Some((lane, ready)) = queue.served() {
            let Some(lane) = resting.get_mut(&lane) else { continue };
            let others = lane.len().saturating_sub(ready as usize);
            lane.drain(others..).for_each(|wake| wake.raise());
        }
    }

    /// Has resting connections leave, that others wait for.
    pub(crate) fn clear_crowds(&self) {
        let queue = self.queue.borrow();
        if queue.has_crowds() {
            let resting = self.resting.borrow();
            let crowded = resting.iter().filter(|(lane, _)| queue.is_crowded(**lane));
            crowded.flat_map(|(_, lines)| lines).for_each(|wake| wake.raise());
        }
    }

    /// Wakes every resting connection: the shard stops.
    pub(crate) fn wake_all_resting(&self) {
        self.resting.borrow().values().flatten().for_each(|wake| wake.raise());
    }

    /// Forgets what no queued mail needs.
    pub(crate) fn tidy(&self) {
        let queue = self.queue.borrow();
        self.sites.borrow_mut().retain(|key| queue.knows_site(key));
        self.nowhere.borrow_mut().retain(|domain, _| queue.knows_domain(domain));
        self.troubles.borrow_mut().retain(|lane, _| queue.lane(*lane).is_some());
    }
}

fn no_counts(address: IpAddr) -> IpStatus {
    let (helo, pool) = (String::new(), String::new());
    let warmup = None;
    IpStatus { address, helo, pool, queued: 0, connections: 0, delivered: 0, deferred: 0, bounced: 0, warmup }
}
