//! `mailrail torture`: the real server killed again and again under load, or run for long; every recipient that got a 250 is
//! accounted for.

mod books;
mod gauge;
mod notices;
mod operator;
mod plan;
mod report;
mod run;
mod waits;

use super::{Failure, Outcome, demo::world::World, stop::Stop};
use crate::{server::Server, ui};
use books::{Books, Events, Promises};
use mailrail_bench::sink::Delivery;
use operator::Operator;
use report::Findings;
use std::{
    collections::HashSet,
    fs::File,
    io::BufReader,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Kill the server under load, again and again, and account for every recipient
///
/// The real server runs on a temporary directory between a load generator and receivers that defer, bounce, dawdle, hang up
/// and take mail without saying so, all on loopback addresses. It is killed (SIGKILL) at random moments, while it starts,
/// too, and started again on the same data, then left to empty its queue. Meanwhile an operator suspends, resumes, reroutes,
/// bounces and cancels mail, moves leases and holds providers, all at random. No recipient that got a 250 may be missing: each
/// is delivered, or bounced with its DSN, or suppressed, or cancelled. Copies are explained by attempts that were in doubt,
/// leased IPs never exceed their warm-up plans, and no change that was answered is forgotten. With --soak it runs for long
/// instead, and says what has grown.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail torture\n  \
       mailrail torture --kills 300 --seed 7 --shards 1\n  \
       mailrail torture --soak 24h --rate 100\n  \
       mailrail torture --json | jq .lost\n"
))]
pub(crate) struct Args {
    /// How often it is killed [default: 25; with --soak: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    kills: Option<u32>,
    /// Run for so long (30m, 24h), kills spread over it, and say which of memory, open files, spool and connections grew
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    soak: Option<Duration>,
    /// Same seed, same messages and same moments of the kills
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Messages offered a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Shards of the server; 0: one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    shards: u16,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    json: bool,
    /// Give up what is not settled so many seconds after the load has ended
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = mailrail_engine::config::parse_duration(text)?;
    if duration < Duration::from_secs(10) {
        Err("10s at least, or there is nothing to compare".into())
    } else {
        Ok(duration)
    }
}

impl Args {
    fn kills(&self) -> u32 {
        self.kills.unwrap_or(if self.soak.is_some() { 0 } else { 25 })
    }
}

/// Keys of the recipients that DSNs have told of; the sink's threads add to it.
type Notices = Arc<Mutex<HashSet<u64>>>;

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    if args.kills() == 0 && args.soak.is_none() {
        return Err(Failure::Usage("torture: nothing to do with --kills 0 and without --soak".into()));
    }
    let interrupted = Stop::new()?;
    let directory = tempfile::Builder::new().prefix("mailrail-torture-").tempdir()?;
    let result = torture(args, directory.path(), &interrupted);
    if !matches!(&result, Ok(findings) if findings.ok) {
        ui::note(&format!("the server's data and the book of promises are kept in {}", directory.keep().display()));
    }
    let findings = result?;
    if args.json {
        ui::print_json(&findings)?;
    } else {
        ui::print(&findings.text())?;
    }
    match findings.ok {
        true => Ok(()),
        false => Err(Failure::Operation(format!("torture failed: {}", findings.wrong.join("; ")))),
    }
}

fn torture(args: &Args, directory: &Path, interrupted: &Stop) -> Result<Findings, Failure> {
    let begun = Instant::now();
    let cold = plan::cold(args);
    let notices = Notices::default();
    let world = World::rough(cold.iter().map(|cold| cold.address.into()).collect(), reader(&notices))?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let config = world.configure(directory, address.port(), args.shards, plan::EVENTS)?;
    let server = Server::start(&config)?;
    let fleet = plan::Fleet::new(args, &world, &cold);
    server.apply(fleet.text(|| None))?;
    let shards = server.status()?.shards.len().max(1) as u16;
    let promises = Arc::new(Mutex::new(Promises::create(&directory.join("promises"))?));
    let load = run::offer(args, &world, address, &promises)?;
    let operator = Operator::start(args, server.socket.clone(), fleet, world.domains(), shards)?;
    let mut events = Events::default();
    let log = directory.join("data/events");
    let mut done = match args.soak {
        Some(_) => run::soak(args, &config, server, &load, interrupted, |_| events.read(&log, false))?,
        None => run::kill(args, &config, server, &load, interrupted)?,
    };
    // A kill without load proves nothing.
    let loaded = !load.is_finished();
    load.stop();
    let offered = load.wait().report;
    if !loaded {
        return Err(Failure::Operation(format!("torture: the load ended before its time: {:?}", offered.errors)));
    }
    let orders = operator.finish(Duration::from_secs(args.patience))?;
    let waits = run::settle(args, &done.server, interrupted)?;
    done.server.stop()?;
    events.read(&log, true)?;
    let mut promises = promises.lock().unwrap_or_else(PoisonError::into_inner);
    promises.finish()?;
    let notices = notices.lock().unwrap_or_else(PoisonError::into_inner);
    let receivers = world.sink.ledger();
    let books =
        Books { receivers: &receivers, events: &events, queued: &waits.keys, notices: &notices, kills: &done.kills };
    let balance = books::balance(BufReader::new(File::open(directory.join("promises"))?), &books)?;
    let warming = plan::compare(&cold, &world.sink.named());
    let dkim = world.sink.stop().dkim.unwrap_or_default();
    Ok(Findings {
        kills: done.kills.len() as u32,
        seed: args.seed,
        rate: args.rate,
        in_doubt: promises.in_doubt,
        warming,
        orders,
        dkim_failed: dkim.messages_failed + dkim.messages_unsigned,
        accept: offered.accept,
        samples: done.samples.len(),
        courses: gauge::courses(&done.samples),
        seconds: begun.elapsed().as_secs_f64(),
        cut_short: done.cut_short,
        balance,
        waits: waits.causes,
        wrong: Vec::new(),
        ok: false,
    }
    .judged())
}

/// Reads what the senders' own receiver gets.
fn reader(notices: &Notices) -> Arc<dyn Fn(&Delivery) + Send + Sync> {
    let notices = Arc::clone(notices);
    Arc::new(move |delivery| {
        notices::keys(&delivery.text(), &mut notices.lock().unwrap_or_else(PoisonError::into_inner));
    })
}
