//! What the control thread asks of a shard, answered between two messages. *One task per shard.*

use crate::{
    claims,
    deliver::{dispatcher, outcome},
    flow,
    link::{Command, ShardStatus, Snapshot},
    memory, operate, outbox, providers, rehome,
    shard::Shard,
    warmup,
};
use mailrail_spool::Cursor;
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tokio::sync::mpsc;

/// Runs until it is told to stop; returns the grace for deliveries in flight.
pub(crate) async fn run(shard: Rc<Shard>, mut commands: mpsc::Receiver<Command>) -> Duration {
    // Without a control thread there is nobody to stop for: the process is ending.
    while let Some(command) = commands.recv().await {
        match command {
            Command::Snapshot(snapshot) => take_snapshot(&shard, snapshot),
            Command::Resolved { domain, answer } => dispatcher::resolved(&shard, &domain, answer),
            Command::EventsKept { cursor } => outbox::kept(&shard, Cursor(cursor)),
            Command::Status(reply) => {
                let _ = reply.send(status(&shard));
            }
            Command::Providers(reply) => {
                let _ = reply.send(providers::standings(&shard));
            }
            Command::ChangeProvider(change, reply) => {
                let _ = reply.send(providers::change(&shard, &change));
            }
            Command::Queue(filter, reply) => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    let _ = reply.send(operate::rows(&shard, &filter).await);
                })
                .detach();
            }
            Command::Mail(ask) => operate::take(&shard, ask),
            Command::Lists { key, set } => shard.lists.borrow_mut().replace(key, set),
            Command::ListsChanged(changes) => shard.lists.borrow_mut().change(&changes),
            Command::Certificates(certificates) => *shard.certificates.borrow_mut() = certificates,
            Command::Stop { grace } => {
                // Answers are still needed while deliveries end: events wait to be acknowledged.
                let rest = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    while let Some(command) = commands.recv().await {
                        if let Command::EventsKept { cursor } = command {
                            outbox::kept(&rest, Cursor(cursor));
                        }
                    }
                })
                .detach();
                return grace;
            }
        }
    }
    Duration::ZERO
}

fn take_snapshot(shard: &Rc<Shard>, snapshot: Snapshot) {
    if snapshot.policy.version < shard.policy().policy.version {
        return;
    }
    shard.set_policy(snapshot);
    // In this order: what a plan limits must be known as such before any mail comes to it.
    rehome::strand_lost(shard);
    warmup::after_change(shard);
    operate::suspend::follow(shard);
    shard.signatures.borrow_mut().clear();
    if !shard.loading.replace(true) {
        let shard = Rc::clone(shard);
        glommio::spawn_local(async move {
            if claims::settle(&shard).await {
                load(&shard);
            }
        })
        .detach();
    }
    rehome::place_stranded(shard);
    shard.work.raise();
}

/// Queues what the spool held at the start. Only now, with the leased IPs known, does each message find its own again.
fn load(shard: &Rc<Shard>) {
    let mut keys = Vec::with_capacity(shard.spool.borrow().len());
    shard.spool.borrow().for_each_message(|key, _| keys.push(key));
    for key in keys {
        // What the medium has lost a piece of must not be sent as if it were all.
        let whole = shard.spool.borrow().message(key).is_none_or(|view| view.is_whole());
        if whole {
            flow::schedule(shard, key);
        } else {
            outcome::maimed(shard, key);
        }
    }
    shard.loaded.set(true);
    rehome::place_stranded(shard);
    shard.work.raise();
}

fn status(shard: &Shard) -> ShardStatus {
    let mut status = shard.stats.borrow().clone();
    let usage = shard.spool.borrow().usage();
    status.shard = shard.number;
    status.policy_version = shard.policy().policy.version;
    status.ledgers_awaited = warmup::awaited(shard);
    status.overflow = shard.mesh.overflowed();
    status.queued = usage.recipients;
    status.queued_messages = usage.messages;
    status.spool_segments = usage.segments;
    status.spool_bytes = usage.bytes;
    status.spool_live_bytes = usage.live_bytes;
    status.memory_bytes = memory::held(shard);
    status.spool_full = usage.failed.or(usage.full);
    let mut by_ip = BTreeMap::new();
    for lane in shard.queue.borrow().lanes() {
        let (queued, connections): &mut (u64, u32) = by_ip.entry(lane.lease).or_default();
        *queued += lane.ready + lane.deferred + lane.in_flight;
        *connections += lane.connections;
    }
    let snapshot = shard.policy();
    let mine = snapshot.policy.leases.iter().filter(|lease| lease.shard == shard.number);
    status.ips = mine
        .map(|lease| {
            let mut ip = shard.ip_counts(lease.address);
            ip.helo = lease.helo.to_string();
            ip.pool = snapshot.policy.pools.get(lease.pool as usize).map_or_else(String::new, |p| p.name.to_string());
            (ip.queued, ip.connections) = by_ip.get(&lease.address).copied().unwrap_or_default();
            ip.warmup = warmup::standing(shard, lease.address);
            ip
        })
        .collect();
    status
}
