//! `mailrail compare`: the same load, the same sink, one mail server after the other, several times in turn.

mod backlog;
mod bed;
mod chart;
mod host;
mod mailrail;
mod meter;
mod peer;
mod postfix;
mod report;

use super::{Failure, Outcome, stop::Stop};
use crate::ui::{self, units};
use bed::Bed;
use host::Host;
use peer::{Dkim, Own, Peer};
use report::{Report, Sample};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
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
    let ground = Ground { base: &base, key: &key };
    let made = if args.queued.is_empty() {
        in_turn(args, &peers, &ground, &stop, &mut report)
    } else {
        side_by_side(args, &peers, &ground, &stop, &mut report)
    };
    if stop.is_asked() {
        return Err(Failure::Operation("interrupted".into()));
    }
    made?;
    if let Some(mut file) = chart {
        file.write_all(chart::draw(&report.chart(args)).map_err(Failure::Operation)?.as_bytes())?;
    }
    if args.json {
        return Ok(ui::print_json(&report.json())?);
    }
    Ok(ui::print(&report.text())?)
}

/// One server at a time, each run with a new one.
fn in_turn(args: &Args, peers: &[Peer], place: &Ground<'_>, stop: &Stop, report: &mut Report) -> Result<(), Failure> {
    for round in 0..args.runs {
        for (number, peer) in peers.iter().enumerate() {
            let directory = place.directory(peer, round)?;
            let mut bed = Bed::make(args, peer, (&directory, place.key), stop)?;
            let sample = bed.measure()?;
            bed.end()?;
            if args.keep.is_none() {
                fs::remove_dir_all(&directory)?;
            }
            add(args, report, round, (number, peer), sample);
        }
    }
    Ok(())
}

/// A queue takes long to fill: all servers are there at once, each with its queue, and their runs alternate.
fn side_by_side(
    args: &Args,
    peers: &[Peer],
    place: &Ground<'_>,
    stop: &Stop,
    report: &mut Report,
) -> Result<(), Failure> {
    let make = |peer| Bed::make(args, peer, (&place.directory(peer, 0)?, place.key), stop);
    let mut beds = peers.iter().map(make).collect::<Result<Vec<_>, _>>()?;
    for round in 0..args.runs {
        for (number, (bed, peer)) in beds.iter_mut().zip(peers).enumerate() {
            add(args, report, round, (number, peer), bed.measure()?);
        }
    }
    beds.into_iter().try_for_each(Bed::end)
}

fn add(args: &Args, report: &mut Report, round: u32, (number, peer): (usize, &Peer), sample: Sample) {
    ui::note(&format!("run {} of {}, {}: {}", round + 1, args.runs, peer.name(), sample.line()));
    report.add(number, sample);
}

/// Where servers have their directories, and the key they sign with.
struct Ground<'a> {
    base: &'a Path,
    key: &'a Path,
}

impl Ground<'_> {
    fn directory(&self, peer: &Peer, round: u32) -> Result<PathBuf, Failure> {
        let directory = self.base.join(format!("{}-{round}", peer.name()));
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }
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
