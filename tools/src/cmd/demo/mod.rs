//! `mailrail demo`: the main job on embedded defaults, from zero to an accounted-for last recipient.

mod books;
mod report;
pub(in crate::cmd) mod world;

use super::{Failure, Outcome, stop::Stop};
use crate::{
    server::Server,
    ui::{self, progress::Progress, units},
};
use books::{Accepted, Ended};
use mailrail_bench::{
    cpu,
    load::{Amount, Load, LoadOutcome, Sizes},
};
use mailrail_engine::control::api::types::StatusReport;
use report::Findings;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use world::{SENDERS, World};

/// Run the main job on embedded defaults, and account for every recipient
///
/// In a temporary directory it starts the real server, an embedded DNS and receivers that behave differently, submits mail
/// through the SMTP port, verifies each DKIM signature, and compares what was accepted with what was delivered, bounced or
/// is still queued. Everything happens on loopback addresses.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail demo\n  \
       mailrail demo --messages 100000 --json | jq .lost\n  \
       mailrail demo --messages 1000 --stay\n"
))]
pub(crate) struct Args {
    /// Messages to submit
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    messages: u64,
    /// Connections to submit them over
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    json: bool,
    /// Keep everything running afterwards, and say what can be tried
    #[arg(long)]
    stay: bool,
    /// Give up what is not settled so many seconds after the last submission
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let interrupted = Stop::new()?;
    let directory = tempfile::Builder::new().prefix("mailrail-demo-").tempdir()?;
    let world = World::start()?;
    let config = world.configure(directory.path(), 0, 0, "")?;
    let mut server = Server::start(&config)?;
    server.apply(world.fleet())?;
    let listener = server.listener()?;
    let begun = Instant::now();
    let (accepted, load) = submit(args, &world, listener, &interrupted)?;
    let status = settle(args, &server, &world, &interrupted)?;
    let elapsed = begun.elapsed();
    let queued = queued(&server)?;
    let cpu = cpu::process(server.pid());
    if args.stay {
        ui::note(&report::next_commands(&server.socket, listener));
        wait_for(&interrupted);
    }
    server.stop()?;
    let ended = Ended::read(&directory.path().join("data/events"))?;
    let books = books::reconcile(&accepted, &world.sink.ledger(), &ended, &queued);
    let findings = Findings {
        receivers: world.names(),
        messages: accepted.messages(),
        dsns: status.totals.dsns,
        syncs: status.totals.syncs,
        load: load.report,
        sink: world.sink.stop(),
        books,
        ended,
        elapsed,
        cpu,
    };
    if args.json {
        ui::print_json(&findings.json())?;
    } else {
        ui::print(&findings.text())?;
    }
    match findings.is_good() {
        true => Ok(()),
        false => Err(Failure::Operation("the demo failed: see above".into())),
    }
}

/// Sends the load; returns what was accepted.
fn submit(
    args: &Args,
    world: &World,
    target: std::net::SocketAddr,
    interrupted: &Stop,
) -> Result<(Accepted, LoadOutcome), Failure> {
    let accepted = Arc::new(Mutex::new(Accepted::default()));
    let mut load = Load::new(target);
    load.connections = args.connections as usize;
    load.amount = Amount::Messages(args.messages);
    load.sizes = Sizes::LogUniform { min: 1024, max: 256 << 10 };
    load.senders = SENDERS.iter().map(|sender| (*sender).to_owned()).collect();
    load.domains = world.recipients();
    load.recipients_per_message = (1, 4);
    load.run = "demo".into();
    let book = Arc::clone(&accepted);
    load.record = Some(Arc::new(move |record| {
        if !record.accepted.is_empty() {
            book.lock().unwrap_or_else(PoisonError::into_inner).add(record.id, record.reply, record.accepted);
        }
    }));
    let progress = if args.json { Progress::hidden() } else { Progress::bar(args.messages, "submitting") };
    let running = load.start().map_err(|why| Failure::Operation(format!("demo: {why}")))?;
    while !running.is_finished() {
        if interrupted.is_asked() {
            running.stop();
        }
        let now = running.progress();
        let rate = units::rate(now.accepted, now.elapsed);
        progress.set(now.accepted, format!("{rate}, {} recipients", units::count(now.recipients_accepted)));
        thread::sleep(LOOK);
    }
    let outcome = running.wait();
    let rate = units::rate(outcome.report.accepted, outcome.report.elapsed);
    progress.finish(format!("{rate}, {} recipients", units::count(outcome.report.recipients.accepted)));
    let accepted = std::mem::take(&mut *accepted.lock().unwrap_or_else(PoisonError::into_inner));
    if accepted.messages() == 0 {
        return Err(Failure::Operation(format!("demo: nothing was accepted: {:?}", outcome.report.errors)));
    }
    Ok((accepted, outcome))
}

/// Waits until nothing is queued, or patience ends.
fn settle(args: &Args, server: &Server, world: &World, interrupted: &Stop) -> Result<StatusReport, Failure> {
    let first = server.status()?;
    let total = first.totals.accepted;
    let progress = if args.json { Progress::hidden() } else { Progress::bar(total, "settling") };
    let end = Instant::now() + Duration::from_secs(args.patience);
    loop {
        let status = server.status()?;
        let settled = status.totals.accepted.saturating_sub(status.queued);
        progress.set(settled, format!("{} delivered", units::count(world.sink.recipients())));
        if status.queued == 0 || Instant::now() > end || interrupted.is_asked() {
            progress.finish(format!("{} delivered", units::count(world.sink.recipients())));
            return Ok(status);
        }
        thread::sleep(LOOK);
    }
}

/// Message id and recipient of all that the server says is waiting.
fn queued(server: &Server) -> Result<HashSet<(String, String)>, Failure> {
    let report = server.queue()?;
    let rows = report.rows.into_iter().filter_map(|row| Some((row.message?, row.recipients)));
    let each = |(id, recipients): (String, Vec<String>)| {
        recipients.into_iter().map(move |recipient| (id.clone(), recipient.to_lowercase()))
    };
    Ok(rows.flat_map(each).collect())
}

fn wait_for(interrupted: &Stop) {
    while !interrupted.is_asked() {
        thread::sleep(LOOK);
    }
}
