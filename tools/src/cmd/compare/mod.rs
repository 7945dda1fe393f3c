//! `mailrail compare`: the same load, the same sink, one mail server after the other, several times in turn.

mod backlog;
mod chart;
mod host;
mod mailrail;
mod meter;
mod peer;
mod postfix;
mod report;

use super::{Failure, Outcome, stop::Stop};
use crate::ui::{self, units};
use host::Host;
use mailrail_bench::{
    load::{Amount, Load, LoadError, LoadReport, Pace, RecipientDomain, Sizes},
    sink::{Sink, SinkConfig, Store},
};
use meter::Reading;
use peer::{Dkim, Own, Peer, Place, Running};
use report::{Extra, Report, Sample};
use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Compare this server with others: the same load and sink, in turn and several times
///
/// Each run starts a server in a directory of its own, sends it messages over SMTP, has it relay them to a sink, and
/// measures what its own processes spent from acceptance to the last delivery. The report has medians, extremes and ratios
/// of one session; CPU time is the honest figure on a shared machine. Postfix needs root; any other server needs an
/// adapter file that says how to start and stop it (see the README of bench/).
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail compare\n  \
       mailrail compare --peer mailrail --peer postfix --dkim rsa --runs 5\n  \
       mailrail compare --peer mailrail --peer other.toml --messages 20000 --json\n  \
       mailrail compare --cores 1,2,4 --chart cores.svg\n  \
       mailrail compare --queued 0,10000,1000000 --shards 1 --chart queued.svg\n  \
       mailrail compare --queued 1000000 --restart --shards 1 --runs 1\n"
))]
pub(crate) struct Args {
    /// A server: mailrail, postfix, or an adapter file; the first is what the others are compared with
    #[arg(long, value_name = "PEER", default_values = ["mailrail", "postfix"])]
    peer: Vec<String>,
    /// Messages of a run
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    messages: u64,
    /// Runs of each server
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Connections of the load
    #[arg(long, value_name = "N", default_value_t = 20)]
    connections: usize,
    /// Open loop: messages a second [default: each connection sends when it was answered]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Bytes of content
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    size: usize,
    /// Signature
    #[arg(long, value_name = "KIND", default_value = "none")]
    dkim: Dkim,
    /// Shards of this server [default: one per core]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Delivery connections of each leased IP of this server [default: its own default]
    #[arg(long, value_name = "N")]
    lines: Option<u32>,
    /// Compare this server with itself on so many shards each
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with_all = ["peer", "queued", "shards"])]
    cores: Vec<u16>,
    /// Compare this server with itself, so many deferred messages in its queue
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "peer")]
    queued: Vec<u64>,
    /// With --queued: stop each server when its queue is full, start it again, and time that
    #[arg(long, requires = "queued")]
    restart: bool,
    /// Draw throughput and CPU a message as SVG: over the cores, the messages queued, or the servers
    #[arg(long, value_name = "FILE")]
    chart: Option<std::path::PathBuf>,
    /// Keep the servers' directories here instead of in a temporary one
    #[arg(long, value_name = "DIR")]
    keep: Option<std::path::PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A run that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(600);
/// Messages sent before anything is measured, and the least pause behind them.
const WARM_UP: u64 = 1_000;
const REST: Duration = Duration::from_secs(2);
/// A server rests when it spends no more than this in a [`REST`]; it is waited for so often at most.
const IDLE: Duration = Duration::from_millis(40);
const RESTS: u32 = 60;
/// After the last delivery: what a server still does about it (settling, logging) counts, too.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let peers = peers(args)?;
    let stop = Stop::new()?;
    let temporary = tempfile::Builder::new().prefix("mailrail-compare-").tempdir()?;
    let base = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let key = base.join("s1.pem");
    fs::create_dir_all(&base)?;
    // Other users' processes have to get to what is theirs below it.
    fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    write_key(args.dkim, &key)?;
    // One that cannot be written is found out before the runs.
    let chart = args.chart.as_ref().map(|path| chart_file(path)).transpose()?;
    let mut report = Report::new(args, Host::of(&base), &peers);
    for round in 0..args.runs {
        for (number, peer) in peers.iter().enumerate() {
            if stop.is_asked() {
                return Err(Failure::Operation("interrupted".into()));
            }
            let directory = base.join(format!("{}-{round}", peer.name()));
            fs::create_dir_all(&directory)?;
            let sample = one_run(args, peer, &directory, &key)?;
            if args.keep.is_none() {
                fs::remove_dir_all(&directory)?;
            }
            ui::note(&format!("run {} of {}, {}: {}", round + 1, args.runs, peer.name(), sample.line()));
            report.add(number, sample);
        }
    }
    if let Some(mut file) = chart {
        file.write_all(chart::draw(&report.chart(args)).map_err(Failure::Operation)?.as_bytes())?;
    }
    if args.json {
        return Ok(ui::print_json(&report.json())?);
    }
    Ok(ui::print(&report.text())?)
}

fn chart_file(path: &Path) -> Result<fs::File, Failure> {
    fs::File::create(path).map_err(|why| Failure::Usage(format!("--chart {}: {why}", path.display())))
}

fn peers(args: &Args) -> Result<Vec<Peer>, Failure> {
    let lines = args.lines;
    let own = |name: String, shards, queued| Peer::Mailrail(Own { name, shards, lines, queued });
    if !args.cores.is_empty() {
        let of = |n: &u16| own(format!("{n} shard{}", if *n == 1 { "" } else { "s" }), Some(*n), 0);
        return Ok(args.cores.iter().map(of).collect());
    }
    if !args.queued.is_empty() {
        let of = |n: &u64| own(format!("{} queued", units::count(*n)), args.shards, *n);
        return Ok(args.queued.iter().map(of).collect());
    }
    args.peer.iter().map(|name| Peer::named(name, args.shards, lines)).collect()
}

fn write_key(dkim: Dkim, path: &Path) -> Result<(), Failure> {
    let made = match dkim {
        Dkim::None => return Ok(()),
        Dkim::Rsa => rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        Dkim::Ed25519 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519),
    };
    let key = made.map_err(|why| Failure::Operation(format!("making a key: {why}")))?;
    Ok(fs::write(path, key.serialize_pem())?)
}

/// A port that nobody has now.
fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn one_run(args: &Args, peer: &Peer, directory: &Path, key: &Path) -> Result<Sample, Failure> {
    let operation = |why: &dyn std::fmt::Display| Failure::Operation(format!("{}: {why}", peer.name()));
    let models = backlog::models();
    let sink = SinkConfig { store: Store::None, models, ..SinkConfig::default() }.listen(free_port()?);
    let sink = Sink::start(sink).map_err(|why| operation(&why))?;
    let place = Place { directory, listen: free_port()?, sink: sink.addr(), dkim: args.dkim, key };
    let mut server = peer.start(&place)?;
    let measured = measure(args, peer, &mut server, place.listen, &sink);
    let stopped = (server.stop)();
    let sample = measured?;
    stopped?;
    Ok(sample)
}

/// From a server just started to what a message costs it.
fn measure(args: &Args, peer: &Peer, server: &mut Running, listen: SocketAddr, sink: &Sink) -> Result<Sample, Failure> {
    let operation = |why: &dyn std::fmt::Display| Failure::Operation(format!("{}: {why}", peer.name()));
    let heap = backlog::fill(server, listen, peer.backlog()).map_err(|why| operation(&why))?;
    let restart = if args.restart { backlog::restart(server, listen)? } else { None };
    // What starting costs (processes, files made ready, connections) is not what a message costs.
    // Nor is what a full queue costs once: its mail lies in the files that were ready, and the next mail makes others.
    let warm_up = if args.queued.is_empty() { args.messages.min(WARM_UP) } else { args.messages };
    offer(args, listen, warm_up, Pace::Closed).map_err(|why| operation(&why))?;
    if !sink.wait_for_recipients(warm_up, LONGEST) {
        return Err(operation(&format!("delivered {} of {warm_up}", sink.recipients())));
    }
    rest(&server.pids);
    let (before, syncs) = (Reading::take(&server.pids), server.syncs.as_ref().and_then(|ask| ask()));
    let began = Instant::now();
    let pace = args.rate.map_or(Pace::Closed, Pace::Open);
    let offered = offer(args, listen, args.messages, pace).map_err(|why| operation(&why))?;
    if offered.recipients.accepted < args.messages {
        return Err(operation(&format!("accepted {} of {}", offered.recipients.accepted, args.messages)));
    }
    let arrived = sink.wait_for_recipients(warm_up + args.messages, LONGEST);
    let took = began.elapsed();
    thread::sleep(AFTERMATH);
    let spent = Reading::take(&server.pids).since(before);
    if !arrived {
        return Err(operation(&format!("delivered {} of {}", sink.recipients() - warm_up, args.messages)));
    }
    let syncs = server.syncs.as_ref().and_then(|ask| ask()).zip(syncs).map(|(after, before)| after - before);
    let due_p99_us = args.rate.map(|_| offered.transaction.p99_us);
    let extra = Extra { syncs, accept_p99_us: offered.accept.p99_us, due_p99_us, heap, restart };
    Ok(Sample::new(args.messages, took, spent, extra))
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

/// Sends so many messages; what became of them.
fn offer(args: &Args, target: SocketAddr, messages: u64, pace: Pace) -> Result<LoadReport, LoadError> {
    let mut load = Load::new(target);
    load.pace = pace;
    load.connections = args.connections;
    load.amount = Amount::Messages(messages);
    load.sizes = Sizes::Fixed(args.size);
    load.domains = vec![RecipientDomain::new("receiver.test")];
    load.ledger = false;
    Ok(load.run()?.report)
}
