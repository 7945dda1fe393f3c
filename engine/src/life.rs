//! The life of a shard's thread: bind, wait for the word, read the spool, run every task, wind down. *One per shard.*

use crate::{
    adopt, answer, clock, commit,
    config::Config,
    deliver::dispatcher,
    host::{self, StartError},
    housekeeping,
    limits::Limits,
    link::{Command, Report, ShardLink},
    memory::{Ceiling, Memory},
    mesh::{self, Mesh, Request},
    message::kept,
    outbox, quota,
    receive::listener::Listener,
    rehome,
    shard::{Parts, Shard},
    tls::certs::Trust,
    warmup,
};
use futures_lite::FutureExt as _;
use glommio::{LocalExecutorBuilder, Placement};
use mailrail_queue::classify::Classifier;
use mailrail_spool::{LostKind, Recovery, Spool};
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::mpsc;

/// Memory that the executor registers with the kernel; its own reads of files need no more.
const IO_MEMORY: usize = 256 << 10;
/// Operations that may be submitted at once on a ring.
const RING_DEPTH: usize = 512;
/// How long clients and receivers have to end when the spool has failed: no outcome can be kept any more.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the events of the last deliveries are waited for at a stop: what is not out then is told after the next start.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Everything a shard is born with.
pub(crate) struct Birth {
    pub(crate) config: Arc<Config>,
    pub(crate) limits: Limits,
    pub(crate) ceiling: Arc<Ceiling>,
    pub(crate) trust: Trust,
    pub(crate) certificates: Vec<Option<Arc<rustls::ServerConfig>>>,
    /// Of the listeners, with the ports chosen.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) link: ShardLink,
    pub(crate) peers: Vec<mpsc::Sender<Request>>,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Processor to run on, if it is to be pinned.
    pub(crate) core: Option<usize>,
    /// Makes its choices; random.
    pub(crate) seed: u64,
    /// Says twice that all is well: sockets bound, spool read.
    pub(crate) bound: std_mpsc::Sender<Result<(), StartError>>,
    /// The word to open the spool, once privileges are what they should be.
    pub(crate) go: std_mpsc::Receiver<()>,
}

/// Starts the shard's thread.
///
/// # Errors
/// The thread cannot be made.
pub(crate) fn spawn(birth: Birth) -> std::io::Result<JoinHandle<Result<(), String>>> {
    let shard = birth.link.shard;
    let name = format!("shard-{shard}");
    thread::Builder::new().name(name.clone()).spawn(move || {
        let placement = birth.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor =
            LocalExecutorBuilder::new(placement).name(&name).io_memory(IO_MEMORY).ring_depth(RING_DEPTH).make();
        match executor {
            Ok(executor) => executor.run(live(birth)),
            Err(error) => {
                let reason = format!("{error}; io_uring must be allowed (sysctl kernel.io_uring_disabled=0)");
                let _ = birth.bound.send(Err(StartError::Shard { shard, reason: reason.clone() }));
                Err(reason)
            }
        }
    })
}

async fn live(birth: Birth) -> Result<(), String> {
    let bound = birth.bound.clone();
    let fail = |error: StartError| {
        let text = error.to_string();
        let _ = bound.send(Err(error));
        Err(text)
    };
    let mut listeners = Vec::new();
    for (index, address) in birth.addresses.iter().enumerate() {
        match Listener::bind(index, &birth.config, *address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                return fail(StartError::Listen { address: *address, reason: host::listen_advice(&error) });
            }
        }
    }
    let _ = bound.send(Ok(()));
    if birth.go.recv().is_err() {
        // Another shard could not start.
        return Ok(());
    }
    let number = birth.link.shard;
    let classifier = match Classifier::built_in() {
        Ok(classifier) => classifier,
        Err(error) => return fail(StartError::Shard { shard: number, reason: error.to_string() }),
    };
    let (spool, recovery) = match adopt::open(&birth.config, number) {
        Ok(opened) => opened,
        Err(error) => return fail(StartError::Spool(error)),
    };
    tell(number, &recovery);
    let (shard, commands, requests) = make(birth, spool, classifier);
    let _ = bound.send(Ok(()));
    drop(bound);
    serve(&shard, listeners, commands, requests).await
}

fn tell(shard: u16, recovery: &Recovery) {
    for damage in &recovery.lost {
        tracing::error!(shard, "spool damage: {damage}");
        let named = damage.lost.iter().filter_map(|lost| match &lost.what {
            LostKind::Message { id, .. } => kept::id_of(id),
            _ => None,
        });
        for message in named {
            tracing::error!(
                shard,
                message,
                "lost by damage, unless it had come to its end (`mailrail spool check` tells)"
            );
        }
    }
    tracing::info!(shard, messages = recovery.messages, torn = recovery.torn, "spool read");
}

fn make(
    birth: Birth,
    spool: Spool,
    classifier: Classifier,
) -> (Rc<Shard>, mpsc::Receiver<Command>, mpsc::Receiver<Request>) {
    let Birth { config, limits, ceiling, trust, certificates, link, peers, requests, seed, .. } = birth;
    let ShardLink { shard: number, commands, reports } = link;
    let (mesh, memory) = (Mesh::new(peers), Memory::new(ceiling, number));
    let parts = Parts { number, config, limits, memory, trust, certificates, classifier, spool, mesh, reports, seed };
    (Rc::new(Shard::new(parts)), commands, requests)
}

/// Runs everything there is on a shard until it is told to stop.
async fn serve(
    shard: &Rc<Shard>,
    listeners: Vec<Rc<Listener>>,
    commands: mpsc::Receiver<Command>,
    requests: mpsc::Receiver<Request>,
) -> Result<(), String> {
    let commit = glommio::spawn_local(commit::run(Rc::clone(shard))).detach();
    glommio::spawn_local(housekeeping::run(Rc::clone(shard))).detach();
    glommio::spawn_local(housekeeping::tidy(Rc::clone(shard))).detach();
    glommio::spawn_local(outbox::run(Rc::clone(shard))).detach();
    glommio::spawn_local(mesh::serve(Rc::clone(shard), requests)).detach();
    glommio::spawn_local(mesh::gossip(Rc::clone(shard))).detach();
    glommio::spawn_local(quota::tell_used(Rc::clone(shard))).detach();
    glommio::spawn_local(dispatcher::run(Rc::clone(shard))).detach();
    glommio::spawn_local(warmup::run(Rc::clone(shard))).detach();
    glommio::spawn_local(rehome::run(Rc::clone(shard))).detach();
    for listener in listeners {
        glommio::spawn_local(listener.run(Rc::clone(shard))).detach();
    }
    let grace = answer::run(Rc::clone(shard), commands).or(spool_failed(shard)).await;
    wind_down(shard, grace).await;
    commit.await;
    let failed = shard.spool.borrow().failure().map(ToString::to_string);
    let _ = shard.reports.send(Report::Stopped { shard: shard.number, error: failed.clone() }).await;
    failed.map_or(Ok(()), Err)
}

/// Returns when the spool has failed: what the kernel holds of it is uncertain, so only a start that reads the medium again
/// can go on, and whoever supervises the process is told by its end. Clients that wait are answered before that.
async fn spool_failed(shard: &Shard) -> Duration {
    while shard.spool.borrow().failure().is_none() {
        shard.committed.wait().await;
    }
    LAST_ANSWERS
}

/// Lets what is in flight end, for at most `grace`; then the last sync.
async fn wind_down(shard: &Rc<Shard>, grace: Duration) {
    shard.stopping.set(true);
    for signal in [&shard.ending, &shard.work, &shard.dirty] {
        signal.raise();
    }
    let deadline = clock::mono().plus(grace);
    while clock::mono() < deadline {
        shard.wake_all_resting();
        let busy = {
            let stats = shard.stats.borrow();
            stats.deliveries > 0 || stats.sessions > 0
        };
        if !busy {
            break;
        }
        glommio::timer::sleep(Duration::from_millis(10)).await;
    }
    // Outcomes of the last deliveries become durable, and their events go out, before the end.
    let until = clock::mono().plus(LAST_EVENTS);
    while clock::mono() < until && shard.spool.borrow().failure().is_none() && !outbox::is_drained(shard) {
        shard.urgent.set(true);
        shard.dirty.raise();
        glommio::timer::sleep(Duration::from_millis(5)).await;
    }
    shard.stopped.set(true);
    for signal in [&shard.dirty, &shard.outbox, &shard.chores, &shard.noted, &shard.stranded] {
        signal.raise();
    }
}
