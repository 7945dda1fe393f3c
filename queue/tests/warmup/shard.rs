//! One shard of the world: its queue, its durable notes, and what it is told of leases. It does what the engine's shards do.

use mailrail_queue::{
    LeaseId, Left, Queue, Resolution,
    policy::{Lease, Policy, Warmup},
    retry::RetrySchedule,
    time::{Mono, Wall},
    warmup::ledger::{Ledger, Note},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

pub(crate) const SITES: usize = 3;

/// What is kept of a lease.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) leasing: u64,
    pub(crate) hop: u32,
    obeyed: u64,
    note: Note,
}

struct Own {
    lease: LeaseId,
    leasing: u64,
    hop: u32,
    obeyed: u64,
    /// Version of the snapshot that gave it; none: its ledger is here.
    waits: Option<u64>,
    written: Option<Note>,
}

/// See the module.
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) queue: Queue<u64>,
    pub(crate) policy: Arc<Policy>,
    own: BTreeMap<IpAddr, Own>,
    /// Notes written, the last of each; and what of them is on disk.
    pub(crate) notes: BTreeMap<IpAddr, Kept>,
    durable: BTreeMap<IpAddr, Kept>,
    /// With the hop that they were written in.
    unsynced: Vec<(LeaseId, IpAddr, u32, Note)>,
}

/// The lease of this address, if it is this shard's.
fn lease_of(policy: &Policy, shard: u16, ip: IpAddr) -> Option<&Lease> {
    policy.leases.iter().find(|lease| lease.address == ip && lease.shard == shard)
}

impl Shard {
    pub(crate) fn new(number: u16, seed: u64, durable: BTreeMap<IpAddr, Kept>) -> Self {
        let retry = RetrySchedule { first: Duration::from_secs(300), ..RetrySchedule::default() };
        let (notes, own) = (durable.clone(), BTreeMap::new());
        let queue = Queue::new(retry, 3, seed);
        Self { number, queue, policy: Arc::default(), own, notes, durable, unsynced: Vec::new() }
    }

    /// Comes back from a crash with what was durable.
    pub(crate) fn crashed(self, seed: u64) -> Self {
        Self::new(self.number, seed, self.durable)
    }

    fn warmup(&self, ip: IpAddr) -> Option<&Warmup> {
        lease_of(&self.policy, self.number, ip)?.warmup.as_deref()
    }

    /// Is this leased IP one of this shard's?
    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        lease_of(&self.policy, self.number, ip).is_some()
    }

    /// Takes a snapshot, in the order in which the engine does.
    pub(crate) fn take(&mut self, now: Mono, wall: Wall, policy: &Arc<Policy>) {
        self.policy = Arc::clone(policy);
        self.queue.strand_lost(|ip| lease_of(policy, self.number, ip).is_some());
        let gone = |(ip, own): (&IpAddr, &Own)| {
            self.warmup(*ip).is_none_or(|warmup| warmup.leasing != own.leasing).then_some(*ip)
        };
        let gone: Vec<IpAddr> = self.own.iter().filter_map(gone).collect();
        for ip in gone {
            let Some(own) = self.own.remove(&ip) else { continue };
            if let Some(ledger) = self.queue.take_ledger(now, wall, own.lease) {
                let Own { leasing, hop, obeyed, .. } = own;
                self.notes.insert(ip, Kept { leasing, hop, obeyed, note: ledger.close() });
            }
        }
        let leases = policy.leases.iter().filter(|lease| lease.shard == self.number);
        for lease in leases {
            let Some(warmup) = &lease.warmup else { continue };
            let after = policy.pools[lease.pool as usize].overflow_after;
            let id = self.queue.lease_id(lease.address);
            self.queue.expect_ledger(id, after);
            let waits = Some(policy.version);
            let leasing = warmup.leasing;
            let new = || Own { lease: id, leasing, hop: 0, obeyed: 0, waits, written: None };
            self.own.entry(lease.address).or_insert_with(new);
        }
        self.obey_all(now, wall);
        self.queue.ask_again();
    }

    /// What this shard tells one that got a lease by the snapshot `version`; none: not yet.
    pub(crate) fn tell(&self, ip: IpAddr, version: u64) -> Option<Option<Kept>> {
        let may = self.policy.version >= version;
        assert!(!may || !self.own.contains_key(&ip) || self.policy.version > version, "two have one lease");
        (may && !self.own.contains_key(&ip)).then(|| self.notes.get(&ip).cloned())
    }

    /// Leases whose ledgers are awaited.
    pub(crate) fn awaited(&self) -> Vec<(IpAddr, u64)> {
        self.own.iter().filter_map(|(ip, own)| Some((*ip, own.waits?))).collect()
    }

    /// All shards have told what they know.
    pub(crate) fn gathered(&mut self, now: Mono, wall: Wall, ip: IpAddr, told: Vec<Kept>) {
        let best = self.notes.get(&ip).cloned().into_iter().chain(told).max_by_key(|kept| (kept.leasing, kept.hop));
        let Some(warmup) = self.warmup(ip).cloned() else { return };
        let Some(own) = self.own.get_mut(&ip) else { return };
        own.waits = None;
        own.hop = best.as_ref().map_or(0, |kept| kept.hop + 1);
        let (plan, starts) = (warmup.plan, warmup.starts);
        let mut ledger = match best {
            Some(kept) if kept.leasing == warmup.leasing => {
                own.obeyed = kept.obeyed;
                Ledger::restore(ip, plan, kept.note, starts, now, wall)
            }
            Some(Kept { note, .. }) if note.day >= starts.day_of(warmup.leased) => {
                let note = Note { plan_day: (!warmup.warm).then_some(1), cap: None, held: false, ..note };
                Ledger::restore(ip, plan, note, starts, now, wall)
            }
            _ => {
                let mut ledger = Ledger::lease(ip, plan, warmup.warm, starts, now, warmup.leased);
                ledger.advance(now, wall);
                ledger
            }
        };
        ledger.set_spread(now, warmup.spread);
        let lease = own.lease;
        self.queue.set_ledger(now, wall, lease, ledger);
        self.obey_all(now, wall);
    }

    fn obey_all(&mut self, now: Mono, wall: Wall) {
        let all: Vec<IpAddr> = self.own.keys().copied().collect();
        for ip in all {
            let Some(warmup) = self.warmup(ip).cloned() else { continue };
            let Some(own) = self.own.get_mut(&ip) else { continue };
            let Some(ledger) = self.queue.ledger(own.lease) else { continue };
            ledger.set_plan(warmup.plan.clone());
            match (ledger.is_held(), warmup.held) {
                (false, true) => ledger.hold(now, wall),
                (true, false) => ledger.release(now, wall),
                _ => {}
            }
            if let Some((number, percentage)) = warmup.set.filter(|(number, _)| *number > own.obeyed) {
                own.obeyed = number;
                ledger.set_percentage(now, wall, percentage);
            }
            self.queue.plan_changed(now, wall, own.lease);
        }
    }

    /// Writes the notes that ledgers want.
    pub(crate) fn note(&mut self) {
        for (lease, ip, note) in self.queue.notes().collect::<Vec<_>>() {
            let Some(own) = self.own.get_mut(&ip).filter(|own| own.written != Some(note)) else { continue };
            own.written = Some(note);
            let Own { leasing, hop, obeyed, .. } = *own;
            self.notes.insert(ip, Kept { leasing, hop, obeyed, note });
            self.unsynced.push((lease, ip, hop, note));
        }
    }

    /// All that was written becomes durable.
    pub(crate) fn sync(&mut self, now: Mono, wall: Wall) {
        self.durable = self.notes.clone();
        for (lease, ip, hop, note) in std::mem::take(&mut self.unsynced) {
            // One of an earlier time that the lease was here opens nothing.
            if self.own.get(&ip).is_some_and(|own| own.waits.is_none() && own.hop == hop) {
                self.queue.confirm(now, wall, lease, &note);
            }
        }
    }

    /// What the plans of this shard's leases let go.
    pub(crate) fn left(&mut self, now: Mono, wall: Wall) -> Vec<(IpAddr, Left)> {
        let own: Vec<_> = self.own.iter().map(|(ip, own)| (*ip, own.lease)).collect();
        own.into_iter().map(|(ip, lease)| (ip, self.queue.left(now, wall, lease))).collect()
    }

    pub(crate) fn resolve(&mut self, now: Mono, wall: Wall) {
        while let Some(domain) = self.queue.ask() {
            let key = domain.trim_start_matches('d').parse::<usize>().unwrap() % SITES;
            let site = Resolution::Site { key: format!("mx{key}").into(), ttl: Duration::from_secs(3600 * 24 * 3650) };
            self.queue.resolved(now, wall, &domain, site);
        }
    }
}
