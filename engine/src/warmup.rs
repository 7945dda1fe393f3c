//! Ledgers of the leased IPs of this shard: found again at a start, got from the shard that had them, kept durable.
//!
//! The ledger of a leased IP goes where the lease goes. Who gets a lease asks every other shard for what it knows of it, and
//! sends nothing before all have answered; who has lost it answers only then, and charges nothing any more. So two never
//! charge at a time. What is known is a note in the spool, which every hop of the lease numbers: the last hop counts.

use crate::{
    clock, commit,
    link::{Report, WarmupStanding},
    mesh,
    shard::Shard,
};
use mailrail_queue::{
    LeaseId, Left,
    policy::{Lease, PoolKind, Warmup},
    time::{Mono, Wall},
    warmup::{
        climb::Rung,
        day::{Day, DayStart},
        ladder::{Ladder, Rules},
        ledger::{Ledger, Note, Status},
        plan::{Percentage, Plan},
    },
};
use mailrail_spool::{Position, Spool};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// Names of the notes begin so.
const PREFIX: &str = "lease/";
/// 1 had no ladder at its end.
const VERSION: u8 = 2;
/// Between two questions to a shard that has not got so far yet.
const NOT_YET: Duration = Duration::from_millis(10);
/// Between two looks for decisions of ladders.
const LOOK: Duration = Duration::from_secs(1);

/// What is durable of a leased IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Which leasing of the address.
    leasing: u64,
    /// How often the lease has come to another shard.
    hop: u32,
    /// The last percentage that was obeyed.
    obeyed: u64,
    note: Note,
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        match *version {
            1 => postcard::from_bytes(&[rest, &[0]].concat()).ok(),
            VERSION => postcard::from_bytes(rest).ok(),
            _ => None,
        }
    }

    fn age(&self) -> (u64, u32) {
        (self.leasing, self.hop)
    }
}

/// What has a ledger: a leased IP, and of a managed pool the provider; else "".
pub(crate) type Counted = (IpAddr, Arc<str>);

/// Answer of a shard that was asked for a lease.
pub(crate) enum Told {
    /// It has not heard yet that the lease is not its own: ask again.
    NotYet,
    /// What it knows; it does not charge any more.
    Knows(Option<Kept>),
    /// It has the lease itself, by a later decision.
    Owns,
}

/// A leased IP of this shard that is counted.
struct Own {
    lease: LeaseId,
    leasing: u64,
    hop: u32,
    obeyed: u64,
    plan: Plan,
    starts: DayStart,
    spread: Duration,
    /// Which gain this is: a task of an older one has no say.
    gain: u64,
    /// Its ledger is in the queue.
    here: bool,
    /// The last note given to the spool.
    written: Option<Note>,
}

/// See the module. *One per shard.*
#[derive(Default)]
pub(crate) struct Ledgers {
    own: RefCell<BTreeMap<Counted, Own>>,
    gains: Cell<u64>,
    /// Notes on their way to the disk, and the gain that they are of.
    written: RefCell<Vec<(Counted, u64, Note, Position)>>,
    /// When decisions of ladders were last looked for.
    looked: Cell<Mono>,
}

/// After a new snapshot, before any mail is placed by it: ledgers go, are awaited, and are changed.
pub(crate) fn after_change(shard: &Rc<Shard>) {
    let snapshot = shard.policy();
    let mine: FxHashMap<IpAddr, &Lease> = snapshot
        .policy
        .leases
        .iter()
        .filter(|lease| lease.shard == shard.number && lease.warmup.is_some())
        .map(|lease| (lease.address, lease))
        .collect();
    let is_managed = |lease: &Lease| {
        snapshot.policy.pools.get(lease.pool as usize).is_some_and(|pool| pool.kind == PoolKind::Managed)
    };
    for (ip, lease) in &mine {
        let mut queue = shard.queue.borrow_mut();
        let id = queue.lease_id(*ip);
        if queue.is_managed(id) != is_managed(lease) {
            // Its mail is placed again, and counted as it is from now on.
            queue.strand(id);
            queue.manage(id, is_managed(lease), Duration::ZERO);
        }
    }
    let still = |(_, provider): &Counted, own: &Own, lease: &Lease| {
        lease.warmup.as_ref().is_some_and(|w| w.leasing == own.leasing) && is_managed(lease) != provider.is_empty()
    };
    let lost: Vec<Counted> = {
        let own = shard.ledgers.own.borrow();
        let gone = |(of, own): &(&Counted, &Own)| !mine.get(&of.0).is_some_and(|lease| still(of, own, lease));
        own.iter().filter(gone).map(|(of, _)| of.clone()).collect()
    };
    lost.iter().for_each(|of| lose(shard, of));
    let ladder = |name: &str| snapshot.policy.providers.get(name).map_or_else(Rules::default, |of| of.ladder);
    shard.queue.borrow_mut().set_rules(ladder);
    for (ip, lease) in mine {
        let Some(warmup) = &lease.warmup else { continue };
        let pool = snapshot.policy.pools.get(lease.pool as usize);
        let after = pool.map_or(Duration::ZERO, |pool| pool.overflow_after);
        let id = shard.queue.borrow_mut().lease_id(ip);
        let plain = (ip, Arc::from(""));
        if is_managed(lease) {
            // Ledgers are begun as there is mail for the providers.
            shard.queue.borrow_mut().manage(id, true, after);
            let here = |(of, own): (&Counted, &Own)| (of.0 == ip && own.here).then(|| of.clone());
            let here: Vec<Counted> = shard.ledgers.own.borrow().iter().filter_map(here).collect();
            here.iter().for_each(|of| obey(shard, of, warmup));
            continue;
        }
        shard.queue.borrow_mut().expect_ledger(id, after);
        let known = shard.ledgers.own.borrow().get(&plain).map(|own| own.here);
        match known {
            Some(true) => obey(shard, &plain, warmup),
            // What comes of it will obey the snapshot then in force.
            Some(false) => {}
            None => gain(shard, plain, id, warmup),
        }
    }
    shard.queue.borrow_mut().ask_again();
}

/// Begins the ledgers that mail of managed pools waits for.
pub(crate) fn begin_wanted(shard: &Rc<Shard>) {
    let wanted = shard.queue.borrow_mut().wanted_ledgers();
    if wanted.is_empty() {
        return;
    }
    let snapshot = shard.policy();
    for (id, ip, provider) in wanted {
        let mine = |lease: &&Lease| lease.address == ip && lease.shard == shard.number;
        let lease = snapshot.policy.leases.iter().find(mine);
        match lease.and_then(|lease| lease.warmup.as_ref()) {
            Some(warmup) => gain(shard, (ip, provider), id, warmup),
            // The lease has gone, and its mail with it.
            None => drop(shard.queue.borrow_mut().take_ledger(clock::mono(), clock::wall(), id)),
        }
    }
}

/// Tells of the decisions at the ends of days, each once.
pub(crate) fn tell_decisions(shard: &Shard) {
    let now = clock::mono();
    if now.since(shard.ledgers.looked.get()) < LOOK {
        return;
    }
    shard.ledgers.looked.set(now);
    for (ip, provider, day, decision) in shard.queue.borrow_mut().decisions(now, clock::wall()) {
        tracing::info!(shard = shard.number, %ip, %provider, ?decision, "ladder");
        // A control thread that is behind by thousands of reports misses a line of the log; the ladder itself is durable.
        let _ = shard.reports.try_send(Report::Ladder { ip, provider, day, decision });
    }
}

/// The lease is not this shard's any more: its ledger ends, and what it came to is kept for who asks.
fn lose(shard: &Shard, of: &Counted) {
    let Some(own) = shard.ledgers.own.borrow_mut().remove(of) else { return };
    let ledger = shard.queue.borrow_mut().take_ledger(clock::mono(), clock::wall(), own.lease);
    if let Some(ledger) = ledger {
        let Own { leasing, hop, obeyed, .. } = own;
        let kept = Kept { leasing, hop, obeyed, note: ledger.close() };
        if let Err(full) = shard.spool.borrow_mut().note(&name(of), &kept.encode()) {
            shard.note_error(&format!("the ledger of {} could not be kept: {full}", of.0));
        }
        shard.dirty.raise();
    }
}

/// The lease is new to this shard: whoever had it is asked for its ledger.
fn gain(shard: &Rc<Shard>, of: Counted, lease: LeaseId, warmup: &Warmup) {
    let gain = shard.ledgers.gains.get() + 1;
    shard.ledgers.gains.set(gain);
    let Warmup { leasing, starts, spread, .. } = *warmup;
    let plan = warmup.plan.clone();
    let own = Own { lease, leasing, hop: 0, obeyed: 0, plan, starts, spread, gain, here: false, written: None };
    shard.ledgers.own.borrow_mut().insert(of.clone(), own);
    let (shard, version) = (Rc::clone(shard), shard.policy().policy.version);
    glommio::spawn_local(async move {
        let Some(mut kept) = gather(&shard, &of, version).await else { return };
        if kept.is_none() && !of.1.is_empty() {
            // Its pool may have become a managed one: it stands where its plan was.
            let before = gather(&shard, &(of.0, Arc::from("")), version).await;
            kept = before.flatten();
        }
        take_on(&shard, &of, gain, kept);
    })
    .detach();
}

/// What all shards know of a leased IP, the last of it; none if it is another's by now, or the shard stops.
async fn gather(shard: &Rc<Shard>, of: &Counted, version: u64) -> Option<Option<Kept>> {
    let mut best = known(&shard.spool.borrow(), of);
    for peer in (0..shard.mesh.peers.len() as u16).filter(|peer| *peer != shard.number) {
        loop {
            if shard.stopping.get() {
                return None;
            }
            match mesh::ask_ledger(shard, peer, of.clone(), version).await {
                Some(Told::Knows(told)) => {
                    best = best.into_iter().chain(told).max_by_key(Kept::age);
                    break;
                }
                Some(Told::Owns) => return None,
                Some(Told::NotYet) | None => glommio::timer::sleep(NOT_YET).await,
            }
        }
    }
    Some(best)
}

/// Answers a shard that was given a lease by the snapshot `version`.
pub(crate) fn tell(shard: &Shard, of: &Counted, version: u64) -> Told {
    if shard.policy().policy.version < version {
        return Told::NotYet;
    }
    if shard.ledgers.own.borrow().contains_key(of) {
        return Told::Owns;
    }
    Told::Knows(known(&shard.spool.borrow(), of))
}

/// Begins, or goes on with, the ledger of a lease.
fn take_on(shard: &Rc<Shard>, of: &Counted, gain: u64, kept: Option<Kept>) {
    let (ip, provider) = of;
    let snapshot = shard.policy();
    let found = snapshot.policy.leases.iter().find(|lease| lease.address == *ip).and_then(|lease| lease.warmup.clone());
    let Some(warmup) = found else { return };
    let lease = {
        let mut all = shard.ledgers.own.borrow_mut();
        let Some(own) = all.get_mut(of).filter(|own| own.gain == gain) else { return };
        own.here = true;
        own.hop = kept.as_ref().map_or(0, |kept| kept.hop + 1);
        own.obeyed = kept.as_ref().filter(|kept| kept.leasing == own.leasing).map_or(0, |kept| kept.obeyed);
        own.lease
    };
    let (now, wall) = (clock::mono(), clock::wall());
    let mut ledger = if provider.is_empty() {
        ledger(*ip, &warmup, kept, now, wall)
    } else {
        let rules = snapshot.policy.providers.get(provider).map_or_else(Rules::default, |of| of.ladder);
        climbing(*ip, rules, &warmup, kept, now, wall)
    };
    ledger.set_spread(now, warmup.spread);
    shard.queue.borrow_mut().set_ledger(now, wall, lease, ledger);
    obey(shard, of, &warmup);
    shard.news.raise();
}

fn ledger(ip: IpAddr, warmup: &Warmup, kept: Option<Kept>, now: Mono, wall: Wall) -> Ledger {
    let (plan, starts) = (warmup.plan.clone(), warmup.starts);
    match kept {
        Some(kept) if kept.leasing == warmup.leasing => Ledger::restore(ip, plan, kept.note, starts, now, wall),
        // Released and leased again on one day: what it sent on that day, it has sent.
        Some(Kept { note, .. }) if note.day >= starts.day_of(warmup.leased) => {
            let plan_day = (!warmup.warm).then_some(1);
            let set = (Percentage::ZERO, Day(0));
            let note =
                Note { day: note.day, plan_day, cap: None, reserved: note.reserved, set, held: false, rung: None };
            Ledger::restore(ip, plan, note, starts, now, wall)
        }
        _ => {
            let mut ledger = Ledger::lease(ip, plan, warmup.warm, starts, now, warmup.leased);
            ledger.advance(now, wall);
            ledger
        }
    }
}

/// The ledger of a leased IP of a managed pool at a provider. `kept` may be what was known of the IP before its pool was one.
fn climbing(ip: IpAddr, rules: Rules, warmup: &Warmup, kept: Option<Kept>, now: Mono, wall: Wall) -> Ledger {
    let starts = warmup.starts;
    let top = Ladder::at(&rules, rules.warm);
    let first = if warmup.warm { top } else { Ladder::default() };
    let climb = |note, from| Ledger::climb(ip, rules, note, from, starts, now, wall);
    match kept {
        Some(Kept { leasing, note, .. }) if leasing == warmup.leasing && note.rung.is_some() => {
            climb(Some(note), first)
        }
        Some(Kept { leasing, note, .. }) if leasing == warmup.leasing => {
            climb(None, note.cap.map_or(top, |cap| Ladder::at(&rules, cap.into())))
        }
        // Released and leased again on one day: what it sent on that day, it has sent.
        Some(Kept { note, .. }) if note.rung.is_some() && note.day >= starts.day_of(warmup.leased) => {
            let rung = Rung { ladder: first, ..Rung::default() };
            climb(Some(Note { rung: Some(rung), ..note }), first)
        }
        _ => climb(None, first),
    }
}

/// Does to a ledger what the snapshot wants of it, each thing once.
fn obey(shard: &Rc<Shard>, of: &Counted, warmup: &Warmup) {
    let (now, wall) = (clock::mono(), clock::wall());
    let mut all = shard.ledgers.own.borrow_mut();
    let Some(own) = all.get_mut(of) else { return };
    let mut queue = shard.queue.borrow_mut();
    let Some(ledger) = queue.ledger(own.lease) else { return };
    let planned = of.1.is_empty();
    if planned && own.plan != warmup.plan {
        own.plan = warmup.plan.clone();
        ledger.set_plan(warmup.plan.clone());
    }
    if own.starts != warmup.starts {
        own.starts = warmup.starts;
        ledger.set_starts(warmup.starts);
    }
    if own.spread != warmup.spread {
        own.spread = warmup.spread;
        ledger.set_spread(now, warmup.spread);
    }
    match (ledger.is_held(), warmup.held) {
        (false, true) if planned => ledger.hold(now, wall),
        (true, false) if planned => ledger.release(now, wall),
        _ => {}
    }
    if let Some((number, percentage)) = warmup.set.filter(|(number, _)| planned && *number > own.obeyed) {
        own.obeyed = number;
        ledger.set_percentage(now, wall, percentage);
    }
    queue.plan_changed(now, wall, own.lease);
    drop(queue);
    shard.news.raise();
    shard.work.raise();
}

/// Gives the notes that ledgers want durable to the spool; [`run`] confirms them.
pub(crate) fn note(shard: &Shard) {
    let mut all = shard.ledgers.own.borrow_mut();
    if all.is_empty() {
        return;
    }
    let queue = shard.queue.borrow();
    let mut spool = shard.spool.borrow_mut();
    let mut some = false;
    for (lease, ip, note) in queue.notes() {
        let of = (ip, queue.provider_of_lease(lease).cloned().unwrap_or_default());
        let Some(own) = all.get_mut(&of).filter(|own| own.written.as_ref() != Some(&note)) else { continue };
        let kept = Kept { leasing: own.leasing, hop: own.hop, obeyed: own.obeyed, note };
        // Without room nothing of this IP goes, and nothing else would go on for long either.
        if let Ok(position) = spool.note(&name(&of), &kept.encode()) {
            own.written = Some(note);
            shard.ledgers.written.borrow_mut().push((of, own.gain, note, position));
            some = true;
        }
    }
    if some {
        shard.noted.raise();
    }
}

/// Opens the blocks of ledgers as their notes become durable. *One task per shard.*
pub(crate) async fn run(shard: Rc<Shard>) {
    while !shard.stopped.get() {
        let batch = std::mem::take(&mut *shard.ledgers.written.borrow_mut());
        let Some((.., last)) = batch.last() else {
            shard.noted.wait().await;
            continue;
        };
        // A spool that has failed: nothing is sent any more.
        if commit::durable(&shard, *last).await.is_err() {
            return;
        }
        for (of, gain, note, _) in batch {
            // One of an earlier time that the lease was here opens nothing: it may have been charged elsewhere since.
            let lease = shard.ledgers.own.borrow().get(&of).filter(|own| own.gain == gain).map(|own| own.lease);
            if let Some(lease) = lease {
                shard.queue.borrow_mut().confirm(clock::mono(), clock::wall(), lease, &note);
            }
        }
        shard.work.raise();
    }
}

/// Carries what a spool knows of leased IPs into another one: its shard is gone.
pub(crate) fn carry(new: &mut Spool, old: &Spool) {
    let notes: Vec<_> = old.notes(PREFIX.as_bytes()).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    for (name, value) in notes {
        let Some(kept) = Kept::decode(&value) else { continue };
        let newer = new.noted(&name).and_then(Kept::decode).is_none_or(|mine| mine.age() < kept.age());
        if newer && let Err(full) = new.note(&name, &value) {
            tracing::error!("the ledger of {} could not be taken over: {full}", String::from_utf8_lossy(&name));
        }
    }
}

/// Leases whose ledgers are on their way.
pub(crate) fn awaited(shard: &Shard) -> usize {
    shard.ledgers.own.borrow().values().filter(|own| !own.here).count()
}

/// What the plans of this shard's leased IPs let go.
pub(crate) fn left(shard: &Shard) -> Vec<(IpAddr, Left)> {
    let own = shard.ledgers.own.borrow();
    let mut queue = shard.queue.borrow_mut();
    let plain = own.iter().filter(|(of, _)| of.1.is_empty());
    plain.map(|(of, own)| (of.0, queue.left(clock::mono(), clock::wall(), own.lease))).collect()
}

/// How the warm-up of a leased IP of this shard stands.
pub(crate) fn standing(shard: &Shard, ip: IpAddr) -> Option<WarmupStanding> {
    let lease = shard.ledgers.own.borrow().get(&(ip, Arc::from(""))).map(|own| own.lease)?;
    let (now, wall) = (clock::mono(), clock::wall());
    let mut queue = shard.queue.borrow_mut();
    let (waiting, opens) = (queue.held(lease), queue.opens(lease));
    let standing = queue.ledger(lease)?.standing(now, wall);
    Some(WarmupStanding {
        done: standing.status == Status::Done,
        percentage: standing.percentage.get(),
        plan_day: standing.plan_day,
        cap: standing.cap,
        next_cap: standing.next_cap,
        sent: standing.sent,
        reserved: standing.reserved,
        tokens: standing.cap.map(|_| standing.tokens),
        done_on: standing.done_on.map(|day| DayStart::default().begin(day).0),
        held: standing.held,
        waiting,
        opens: opens.map(|at| wall.plus(at.since(now)).0),
    })
}

fn known(spool: &Spool, of: &Counted) -> Option<Kept> {
    spool.noted(&name(of)).and_then(Kept::decode)
}

fn name((ip, provider): &Counted) -> Vec<u8> {
    let slash = if provider.is_empty() { "" } else { "/" };
    format!("{PREFIX}{ip}{slash}{provider}").into_bytes()
}
