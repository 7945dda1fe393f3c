//! A queue full of deferred mail: what a server is measured with in front of it, what each message of it takes of the memory,
//! and how soon the server is back with it.

use super::{bed::attend, meter, peer::Running};
use crate::{
    cmd::{Failure as Failed, stop::Stop},
    ui::{progress::Progress, units},
};
use mailrail_bench::{
    load::{Amount, Load, RecipientDomain, Sizes},
    model::{Failure, Model, Models, Stage},
};
use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Domains that defer everything.
const DOMAINS: u32 = 100;
/// Octets of one such message: it is not sent again, so that only its place in the queue counts.
const SIZE: usize = 512;
/// Connections that bring them.
const CONNECTIONS: usize = 50;
/// How long the queue may take to be as it should, without any progress.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks for a server that starts.
const SOON: Duration = Duration::from_millis(2);

fn domain(number: u32) -> String {
    format!("d{number}.later.test")
}

/// The sink: domains that defer, and everybody else.
pub(super) fn models() -> Models {
    let failure = Failure { at: Stage::Rcpt, ratio: 1.0, reply: "451 4.2.1 Come back tomorrow".into() };
    let later = Model { failures: vec![failure], ..Model::named("later") };
    (0..DOMAINS).fold(Models::default(), |models, number| models.domain(&domain(number), later.clone()))
}

/// Fills the queue; returns when all of it was deferred, with what a message of it takes of the heap.
pub(super) fn fill(server: &Running, target: SocketAddr, messages: u64, stop: &Stop) -> Result<Option<f64>, String> {
    let Some(queue) = server.queue.as_ref().filter(|_| messages > 0) else { return Ok(None) };
    let deferred = &queue.deferred;
    let before = meter::heap(&server.pids);
    let mut load = Load::new(target);
    load.connections = CONNECTIONS;
    load.amount = Amount::Messages(messages);
    load.sizes = Sizes::Fixed(SIZE);
    load.domains = (0..DOMAINS).map(|number| RecipientDomain::new(&domain(number))).collect();
    load.ledger = false;
    let progress = Progress::bar(messages, "queued");
    let running = load.start().map_err(|why| why.to_string())?;
    let (mut seen, mut moved) = (0, Instant::now());
    while seen < messages {
        let now = deferred().unwrap_or(seen);
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE || stop.is_asked() {
            running.stop();
            return Err(format!("{seen} of {messages} messages could be queued"));
        }
        progress.set(seen, String::new());
        thread::sleep(LOOK);
    }
    let accepted = attend(running, stop).report.recipients.accepted;
    progress.finish(format!("{} queued", units::count(accepted)));
    Ok(Some(meter::heap(&server.pids).saturating_sub(before) as f64 / messages as f64))
}

/// Stops the server and starts it again; the time from there to its greeting, with which it serves again. Fails if it has not
/// queued what it had.
pub(super) fn restart(server: &mut Running, target: SocketAddr) -> Result<Option<Duration>, Failed> {
    let Some(queue) = &server.queue else { return Ok(None) };
    let before = (queue.queued)();
    let (pids, began) = (queue.again)()?;
    server.pids = pids;
    while !greets(target) {
        if began.elapsed() > PATIENCE {
            return Err(Failed::Operation("the server does not come back".into()));
        }
        thread::sleep(SOON);
    }
    let took = began.elapsed();
    let after = (queue.queued)();
    if after != before {
        let shown = |count: Option<u64>| count.map_or("an unknown number".into(), units::count);
        let text = format!("{} recipients were queued before the restart, {} after it", shown(before), shown(after));
        return Err(Failed::Operation(text));
    }
    Ok(Some(took))
}

/// It says 220. A shard takes connections as soon as what it has is queued.
fn greets(target: SocketAddr) -> bool {
    let mut said = [0; 3];
    let greeting = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut said)
    };
    TcpStream::connect(target).and_then(greeting).is_ok() && said == *b"220"
}
