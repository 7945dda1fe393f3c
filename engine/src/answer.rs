//! What the control thread asks of a shard, answered between two messages. *One task per shard.*

use crate::{
    clock,
    deliver::dispatcher,
    flow,
    link::{Command, QueueFilter, QueueRow, ShardStatus, Snapshot},
    message::{id::MessageId, meta::Meta},
    outbox, rehome,
    shard::Shard,
};
use mailrail_queue::LaneInfo;
use mailrail_spool::{Cursor, MessageKey};
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tokio::sync::mpsc;

/// Rows made between two looks at the other tasks.
const BATCH: usize = 2_000;

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
            Command::Queue(filter, reply) => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    let _ = reply.send(rows(&shard, &filter).await);
                })
                .detach();
            }
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
    shard.signatures.borrow_mut().clear();
    if !shard.loaded.replace(true) {
        load(shard);
    }
    rehome::after_change(shard);
    shard.work.raise();
}

/// Queues what the spool held at the start. Only now, with the leased IPs known, does each message find its own again.
fn load(shard: &Rc<Shard>) {
    let mut keys = Vec::with_capacity(shard.spool.borrow().len());
    shard.spool.borrow().for_each_message(|key, _| keys.push(key));
    for key in keys {
        flow::schedule(shard, key);
    }
}

fn status(shard: &Shard) -> ShardStatus {
    let mut status = shard.stats.borrow().clone();
    let usage = shard.spool.borrow().usage();
    status.shard = shard.number;
    status.queued = usage.recipients;
    status.queued_messages = usage.messages;
    status.spool_segments = usage.segments;
    status.spool_bytes = usage.bytes;
    status.spool_live_bytes = usage.live_bytes;
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
            ip
        })
        .collect();
    status
}

/// Sums by lane, or single messages; yields now and then, so that a long list holds nobody up.
async fn rows(shard: &Rc<Shard>, filter: &QueueFilter) -> Vec<QueueRow> {
    let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
    let single = filter.messages || filter.message.is_some();
    let keys: Vec<_> = {
        let queue = shard.queue.borrow();
        let jobs = queue.jobs().map(|(key, recipients, domain, lane, attempts)| Found {
            key,
            recipients: recipients.to_vec(),
            domain: domain.to_owned(),
            lane: lane.and_then(|l| queue.lane(l)),
            attempts,
        });
        let waiting = queue.unresolved().map(|(key, recipients, domain)| Found {
            key,
            recipients: recipients.to_vec(),
            domain: domain.to_owned(),
            lane: None,
            attempts: 0,
        });
        jobs.chain(waiting).filter(|found| found.fits(filter)).collect()
    };
    let mut rows = Vec::new();
    let mut sums: BTreeMap<(String, Option<std::net::IpAddr>), QueueRow> = BTreeMap::new();
    for (number, found) in keys.into_iter().enumerate() {
        if number % BATCH == BATCH - 1 {
            glommio::executor().yield_now().await;
        }
        let Some(row) = row_of(shard, &found, filter, single) else { continue };
        if single {
            rows.push(row);
            if rows.len() >= limit {
                break;
            }
            continue;
        }
        match sums.get_mut(&(row.site.clone(), row.ip)) {
            Some(sum) => add(sum, row),
            None => {
                sums.insert((row.site.clone(), row.ip), row);
            }
        }
    }
    if single {
        return rows;
    }
    sums.into_values().take(limit).collect()
}

struct Found {
    key: MessageKey,
    recipients: Vec<u16>,
    domain: String,
    lane: Option<LaneInfo>,
    attempts: u16,
}

impl Found {
    fn fits(&self, filter: &QueueFilter) -> bool {
        let domain = filter.domain.as_ref().is_none_or(|domain| domain.eq_ignore_ascii_case(&self.domain));
        let ip = filter.ip.is_none_or(|ip| self.lane.as_ref().is_some_and(|lane| lane.lease == ip));
        let site = filter.site.as_ref().is_none_or(|site| {
            self.lane.as_ref().map_or(self.domain == *site, |lane| lane.site.split(',').any(|host| host == site))
        });
        domain && ip && site
    }
}

fn row_of(shard: &Shard, found: &Found, filter: &QueueFilter, single: bool) -> Option<QueueRow> {
    let spool = shard.spool.borrow();
    let view = spool.message(found.key)?;
    let id = MessageId::display(view.id);
    if filter.message.as_ref().is_some_and(|wanted| *wanted != id) {
        return None;
    }
    let states = found.recipients.iter().filter_map(|number| view.recipients.get(usize::from(*number)));
    let wall = clock::wall();
    let next_try = states.map(|state| state.next_try_ms).filter(|at| *at > wall.0).min();
    let lane = found.lane.as_ref();
    let backed_off = lane.and_then(|lane| lane.backed_off_until).filter(|until| *until > clock::mono());
    let held = backed_off.map(|until| wall.plus(until.since(clock::mono())).0);
    let count = found.recipients.len() as u64;
    let recipients = if single {
        let meta = Meta::decode(view.meta)?;
        let numbers = found.recipients.iter().filter_map(|n| meta.recipients.get(usize::from(*n)));
        numbers.map(|recipient| recipient.address.to_owned()).collect()
    } else {
        Vec::new()
    };
    Some(QueueRow {
        shard: shard.number,
        site: lane.map_or_else(|| found.domain.clone(), |lane| lane.site.split(',').next().unwrap_or("").to_owned()),
        ip: lane.map(|lane| lane.lease),
        domains: vec![found.domain.clone()],
        message: single.then_some(id),
        recipients,
        queued: count,
        deferred: if next_try.is_some() { count } else { 0 },
        in_flight: 0,
        connections: lane.map_or(0, |lane| lane.connections),
        attempts: u32::from(found.attempts),
        oldest: view.accepted_ms,
        next_try: next_try.or(held),
        reason: reason(shard, found, next_try.is_some() || held.is_some()),
    })
}

/// What holds it, in words.
fn reason(shard: &Shard, found: &Found, held: bool) -> String {
    match &found.lane {
        Some(lane) if held => shard.trouble_of(lane.lane).unwrap_or_else(|| "deferred by the receiver".into()),
        Some(_) => String::new(),
        None if shard.queue.borrow().knows_domain(&found.domain) && shard.policy().policy.leases.is_empty() => {
            "no leased IP: apply a fleet file".into()
        }
        None => "waiting for the DNS, or for a leased IP of its pool".into(),
    }
}

fn add(sum: &mut QueueRow, row: QueueRow) {
    sum.queued += row.queued;
    sum.deferred += row.deferred;
    sum.attempts = sum.attempts.max(row.attempts);
    sum.oldest = sum.oldest.min(row.oldest);
    sum.next_try = match (sum.next_try, row.next_try) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => None,
    };
    if sum.reason.is_empty() {
        sum.reason = row.reason;
    }
    for domain in row.domains {
        if sum.domains.len() < 10 && !sum.domains.contains(&domain) {
            sum.domains.push(domain);
        }
    }
}
