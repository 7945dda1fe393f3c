//! `mailrail compare`: the same load, the same sink, one mail server after the other, several times in turn.

mod mailrail;
mod meter;
mod peer;
mod postfix;
mod report;

use super::{Failure, Outcome, stop::Stop};
use crate::ui;
use mailrail_bench::{
    load::{Amount, Load, LoadError, LoadReport, RecipientDomain, Sizes},
    sink::{Sink, SinkConfig, Store},
};
use meter::Reading;
use peer::{Dkim, Peer, Place};
use report::{Report, Sample};
use std::{
    fs,
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
       mailrail compare --peer mailrail --peer other.toml --messages 20000 --json\n"
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
    /// Bytes of content
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    size: usize,
    /// Signature
    #[arg(long, value_name = "KIND", default_value = "none")]
    dkim: Dkim,
    /// Shards of this server [default: one per core]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Keep the servers' directories here instead of in a temporary one
    #[arg(long, value_name = "DIR")]
    keep: Option<std::path::PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A run that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(600);
/// Messages sent before anything is measured, and the pause behind them.
const WARM_UP: u64 = 1_000;
const REST: Duration = Duration::from_secs(2);
/// After the last delivery: what a server still does about it (settling, logging) counts, too.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let peers = args.peer.iter().map(|name| Peer::named(name, args.shards)).collect::<Result<Vec<_>, _>>()?;
    let stop = Stop::new()?;
    let temporary = tempfile::Builder::new().prefix("mailrail-compare-").tempdir()?;
    let base = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let key = base.join("s1.pem");
    fs::create_dir_all(&base)?;
    // Other users' processes have to get to what is theirs below it.
    fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    write_key(args.dkim, &key)?;
    let mut report = Report::new(args.messages, args.size, args.connections, args.dkim, &peers);
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
    if args.json {
        return Ok(ui::print_json(&report.json())?);
    }
    Ok(ui::print(&report.text())?)
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
    let sink = SinkConfig { store: Store::None, ..SinkConfig::default() }.listen(free_port()?);
    let sink = Sink::start(sink).map_err(|why| operation(&why))?;
    let place = Place { directory, listen: free_port()?, sink: sink.addr(), dkim: args.dkim, key };
    let server = peer.start(&place)?;
    // What starting costs (processes, files made ready, connections) is not what a message costs.
    let warm_up = args.messages.min(WARM_UP);
    offer(args, place.listen, warm_up).map_err(|why| operation(&why))?;
    if !sink.wait_for_recipients(warm_up, LONGEST) {
        let _ = (server.stop)();
        return Err(operation(&format!("delivered {} of {warm_up}", sink.recipients())));
    }
    thread::sleep(REST);
    let (before, syncs) = (Reading::take(&server.pids), server.syncs.as_ref().and_then(|ask| ask()));
    let began = Instant::now();
    let accepted = offer(args, place.listen, args.messages).map_err(|why| operation(&why))?;
    if accepted.recipients.accepted < args.messages {
        let _ = (server.stop)();
        return Err(operation(&format!("accepted {} of {}", accepted.recipients.accepted, args.messages)));
    }
    let arrived = sink.wait_for_recipients(warm_up + args.messages, LONGEST);
    let took = began.elapsed();
    thread::sleep(AFTERMATH);
    let spent = Reading::take(&server.pids).since(before);
    let counted = server.syncs.as_ref().and_then(|ask| ask()).zip(syncs).map(|(after, before)| after - before);
    let stopped = (server.stop)();
    if !arrived {
        return Err(operation(&format!("delivered {} of {}", sink.recipients() - warm_up, args.messages)));
    }
    stopped?;
    Ok(Sample::new(args.messages, took, spent, counted, accepted.accept.p99_us))
}

/// Sends so many messages; what became of them.
fn offer(args: &Args, target: SocketAddr, messages: u64) -> Result<LoadReport, LoadError> {
    let mut load = Load::new(target);
    load.connections = args.connections;
    load.amount = Amount::Messages(messages);
    load.sizes = Sizes::Fixed(args.size);
    load.domains = vec![RecipientDomain::new("receiver.test")];
    load.ledger = false;
    Ok(load.run()?.report)
}
