//! `mailrail sink`: takes mail as many different receivers would, and counts it.

use super::{Failure, Outcome, stop::Stop};
use crate::ui::{
    self,
    progress::Progress,
    table::{Left, Right, Table, figure, text, unless_zero, warn},
    units,
};
use clap::ValueEnum;
use mailrail_bench::{
    model::Models,
    sink::{Counts, Sink, SinkConfig, SinkReport, Store, dkim::DkimKeys},
    tls::TlsIdentity,
};
use mailrail_engine::sign::SigningKey;
use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// Take mail as many different receivers would, and count it
///
/// Receiver models by recipient domain (delays, greylisting, connection and rate limits, refusals of the big providers,
/// reputation by volume, TLS, misbehaviour) come from a file. It relays nothing. Ctrl-C ends it with a report.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail sink --listen 127.0.0.1:2526\n  \
       mailrail sink --listen 127.0.0.1:2526 --model gmail --for 60 --json\n  \
       mailrail sink --models receivers.toml --store none\n  \
       mailrail sink --listen 127.0.0.1:2526 --maildir taken\n  \
       mailrail sink --listen 127.0.0.1:2526 --dkim-key s1._domainkey.example.com=s1.pem\n"
))]
pub(crate) struct Args {
    /// Where to listen; may be given several times
    #[arg(long, value_name = "ADDRESS", required_unless_present = "models")]
    listen: Vec<SocketAddr>,
    /// Receiver models, and which domain or listener has which; bench/receivers.toml has all there is to say
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
    /// Model of all domains without one: accept, gmail, outlook, yahoo, or one of the file
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What is kept of the mail
    #[arg(long, value_name = "WHAT", default_value = "counts")]
    store: Keep,
    /// Write each message into this Maildir, its envelope in front
    #[arg(long, value_name = "DIR")]
    maildir: Option<PathBuf>,
    /// Check DKIM signatures against the keys in this DNS server
    #[arg(long, value_name = "ADDRESS")]
    dkim_dns: Option<SocketAddr>,
    /// Check DKIM signatures against this private key, PEM; may be given several times
    #[arg(long, value_name = "SELECTOR._domainkey.DOMAIN=FILE", value_parser = key, conflicts_with = "dkim_dns")]
    dkim_key: Vec<(String, PathBuf)>,
    /// Certificate chain for STARTTLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Seed of what models leave to chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    time: Option<u64>,
    /// End after so many recipients
    #[arg(long, value_name = "N")]
    recipients: Option<u64>,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Keep {
    /// Counters only
    None,
    /// Counters, and how often each recipient got each message
    Counts,
}

/// How often the live line is drawn.
const LOOK: Duration = Duration::from_millis(200);

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let stop = Stop::new()?;
    let sink = Sink::start(config(args)?).map_err(|why| Failure::Usage(why.to_string()))?;
    let listening: Vec<_> = sink.addresses().iter().map(ToString::to_string).collect();
    ui::note(&format!("listening on {}", listening.join(", ")));
    let progress =
        if args.json { Progress::hidden() } else { Progress::bar(args.recipients.unwrap_or(0), "recipients") };
    let began = Instant::now();
    let over = |taken: u64| {
        args.recipients.is_some_and(|most| taken >= most)
            || args.time.is_some_and(|seconds| began.elapsed() >= Duration::from_secs(seconds))
    };
    loop {
        let taken = sink.recipients();
        progress.set(taken, units::rate(taken, began.elapsed()));
        if over(taken) || stop.is_asked() {
            break;
        }
        thread::sleep(LOOK);
    }
    let report = sink.stop();
    progress.finish(String::new());
    if args.json {
        return Ok(ui::print_json(&report)?);
    }
    Ok(ui::print(&shown(&report))?)
}

fn config(args: &Args) -> Result<SinkConfig, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))
    };
    let mut models = match &args.models {
        Some(path) => {
            Models::from_toml(&read(path)?).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?
        }
        None => Models::default(),
    };
    if args.model.is_some() {
        models.default.clone_from(&args.model);
    }
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(TlsIdentity { cert_pem: read(cert)?, key_pem: read(key)? }),
        _ => None,
    };
    let store = match args.store {
        Keep::None => Store::None,
        Keep::Counts => Store::Counts,
    };
    let mut config = SinkConfig {
        models,
        tls,
        store,
        maildir: args.maildir.clone(),
        dkim: dkim(args)?,
        threads: args.threads,
        seed: args.seed,
        ..SinkConfig::default()
    };
    for address in &args.listen {
        config = config.listen(*address);
    }
    Ok(config)
}

/// Where the public keys come from, if signatures are to be checked.
fn dkim(args: &Args) -> Result<Option<DkimKeys>, Failure> {
    if args.dkim_key.is_empty() {
        return Ok(args.dkim_dns.map(DkimKeys::Dns));
    }
    let record = |(name, path): &(String, PathBuf)| {
        let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("{}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|why| wrong(&why))?;
        let key = SigningKey::from_pem(&pem).map_err(|why| wrong(&why))?;
        Ok((name.clone(), key.dns_record()))
    };
    Ok(Some(DkimKeys::Table(args.dkim_key.iter().map(record).collect::<Result<_, Failure>>()?)))
}

/// `s1._domainkey.example.com=s1.pem`.
fn key(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if name.contains("._domainkey.") && !path.is_empty() => Ok((name.into(), path.into())),
        _ => Err(format!("\"{text}\": write it as s1._domainkey.example.com=s1.pem")),
    }
}

fn shown(report: &SinkReport) -> String {
    let columns = |name| {
        [
            Left(name),
            Right("MESSAGES"),
            Right("RECIPIENTS"),
            Right("CONNECTIONS"),
            Right("TRANSACTIONS"),
            Right("4XX"),
            Right("5XX"),
            Right("IN DOUBT"),
            Right("TLS"),
        ]
    };
    let mut models = Table::new(&columns("MODEL"));
    for (name, counts) in &report.models {
        models.row(std::iter::once(text(name)).chain(cells(counts)));
    }
    let mut sources = Table::new(&columns("SOURCE IP"));
    for (address, counts) in &report.sources {
        sources.row(std::iter::once(text(address)).chain(cells(counts)));
    }
    if report.not_kept > 0 {
        ui::note(&format!("{} messages could not be written", units::count(report.not_kept)));
    }
    let mut out = format!("{models}\n{sources}\n{} delivered\n", units::bytes(report.total.bytes));
    if report.end_to_end.count > 0 {
        let shown = |us| units::duration(Duration::from_micros(us));
        let times = &report.end_to_end;
        out += &format!(
            "submission to delivery: p50 {}, p99 {}, max {}\n",
            shown(times.p50_us),
            shown(times.p99_us),
            shown(times.max_us)
        );
    }
    if let Some(dkim) = &report.dkim {
        let (passed, failed, none) = (dkim.messages_passed, dkim.messages_failed, dkim.messages_unsigned);
        out += &format!("DKIM: {passed} messages verified, {failed} failed, {none} unsigned\n");
    }
    out
}

fn cells(counts: &Counts) -> [comfy_table::Cell; 8] {
    [
        figure(counts.messages),
        figure(counts.recipients),
        figure(counts.connections),
        figure(counts.transactions),
        figure(counts.refused_4xx),
        figure(counts.refused_5xx),
        unless_zero(counts.in_doubt, warn),
        figure(counts.tls12 + counts.tls13),
    ]
}
