//! One server in a directory of its own, with its sink: from its start to its end, and what a message costs it meanwhile.

use super::{
    Args, backlog,
    meter::Reading,
    peer::{Peer, Place, Running},
    report::{Extra, Sample},
};
use crate::cmd::{Failure, stop::Stop};
use mailrail_bench::{
    load::{self, Amount, Load, LoadError, LoadOutcome, LoadReport, Pace, RecipientDomain, Sizes},
    sink::{Sink, SinkConfig, Store},
};
use std::{
    fmt::Display,
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// A run that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two looks whether it is over, and whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(5);
const ASK: Duration = Duration::from_millis(500);
/// Messages sent before anything is measured, and the least pause behind them.
const WARM_UP: u64 = 1_000;
const REST: Duration = Duration::from_secs(2);
/// A server rests when it spends no more than this in a [`REST`]; it is waited for so often at most.
const IDLE: Duration = Duration::from_millis(40);
const RESTS: u32 = 60;
/// After the last delivery: what a server still does about it (settling, logging) counts, too.
const AFTERMATH: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Bed<'a> {
    args: &'a Args,
    peer: &'a Peer,
    stop: &'a Stop,
    server: Running,
    listen: SocketAddr,
    sink: Sink,
    /// Sent, and taken by the sink, so far.
    sent: u64,
    /// Octets a message of a full queue takes.
    heap: Option<f64>,
    /// How long it took to be back with a full queue.
    restart: Option<Duration>,
}

impl<'a> Bed<'a> {
    /// Starts a server, fills its queue, and lets it run warm. It ends when it is dropped.
    pub(super) fn make(
        args: &'a Args,
        peer: &'a Peer,
        (directory, key): (&Path, &Path),
        stop: &'a Stop,
    ) -> Result<Self, Failure> {
        let models = backlog::models();
        let sink = SinkConfig { store: Store::None, models, ..SinkConfig::default() }.listen(free_port()?);
        let sink = Sink::start(sink).map_err(|why| failure(peer, &why))?;
        let place = Place { directory, listen: free_port()?, sink: sink.addr(), dkim: args.dkim, key };
        let server = peer.start(&place)?;
        let listen = place.listen;
        let mut bed = Self { args, peer, stop, server, listen, sink, sent: 0, heap: None, restart: None };
        bed.heap = backlog::fill(&bed.server, listen, peer.backlog(), stop).map_err(|why| failure(peer, &why))?;
        if args.restart {
            bed.restart = backlog::restart(&mut bed.server, listen)?;
        }
        bed.warm_up()?;
        Ok(bed)
    }

    /// What starting costs (processes, files made ready, connections) is not what a message costs. Nor is what a full queue
    /// costs once: its mail lies in the files that were ready, and the next mail makes others.
    fn warm_up(&mut self) -> Result<(), Failure> {
        let messages = if self.args.queued.is_empty() { self.args.messages.min(WARM_UP) } else { self.args.messages };
        self.offer(messages, Pace::Closed).map_err(|why| failure(self.peer, &why))?;
        if !self.all_arrive(messages) {
            return Err(self.delivered(messages));
        }
        rest(&self.server.pids);
        Ok(())
    }

    /// Sends the messages of one run; what they cost.
    pub(super) fn measure(&mut self) -> Result<Sample, Failure> {
        let messages = self.args.messages;
        let syncs = |server: &Running| server.syncs.as_ref().and_then(|ask| ask());
        let (before, synced) = (Reading::take(&self.server.pids), syncs(&self.server));
        let began = Instant::now();
        let pace = self.args.rate.map_or(Pace::Closed, Pace::Open);
        let offered = self.offer(messages, pace).map_err(|why| failure(self.peer, &why))?;
        let accepted = offered.recipients.accepted;
        if accepted < messages {
            return Err(failure(self.peer, &format!("accepted {accepted} of {messages}")));
        }
        let arrived = self.all_arrive(messages);
        let took = began.elapsed();
        thread::sleep(AFTERMATH);
        let spent = Reading::take(&self.server.pids).since(before);
        if !arrived {
            return Err(self.delivered(messages));
        }
        let extra = Extra {
            syncs: syncs(&self.server).zip(synced).map(|(after, before)| after - before),
            accept_p99_us: offered.accept.p99_us,
            due_p99_us: self.args.rate.map(|_| offered.transaction.p99_us),
            heap: self.heap,
            restart: self.restart,
        };
        Ok(Sample::new(messages, took, spent, extra))
    }

    /// Ends the server as it is meant to be ended.
    pub(super) fn end(self) -> Result<(), Failure> {
        (self.server.stop)()
    }

    /// Sends so many messages; what became of them.
    fn offer(&self, messages: u64, pace: Pace) -> Result<LoadReport, LoadError> {
        let mut load = Load::new(self.listen);
        load.pace = pace;
        load.connections = self.args.connections;
        load.amount = Amount::Messages(messages);
        load.sizes = Sizes::Fixed(self.args.size);
        load.domains = vec![RecipientDomain::new("receiver.test")];
        load.ledger = false;
        Ok(attend(load.start()?, self.stop).report)
    }

    /// Have so many more come to the sink before it took too long, or somebody asked to stop?
    fn all_arrive(&mut self, messages: u64) -> bool {
        let end = Instant::now() + LONGEST;
        while !self.sink.wait_for_recipients(self.sent + messages, ASK) {
            if self.stop.is_asked() || Instant::now() > end {
                return false;
            }
        }
        self.sent += messages;
        true
    }

    fn delivered(&self, messages: u64) -> Failure {
        failure(self.peer, &format!("delivered {} of {messages}", self.sink.recipients().saturating_sub(self.sent)))
    }
}

fn failure(peer: &Peer, why: &dyn Display) -> Failure {
    Failure::Operation(format!("{}: {why}", peer.name()))
}

/// A port that nobody has now.
fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Returns when the server has done what it still had to do.
fn rest(pids: &[u32]) {
    for _ in 0..RESTS {
        let before = Reading::take(pids);
        thread::sleep(REST);
        if Reading::take(pids).since(before).cpu <= IDLE {
            return;
        }
    }
}

/// Waits for the end of a load, or ends it when somebody asks.
pub(super) fn attend(running: load::Running, stop: &Stop) -> LoadOutcome {
    while !running.is_finished() {
        if stop.is_asked() {
            running.stop();
        }
        thread::sleep(LOOK);
    }
    running.wait()
}
