//! `mailrail load`: offers mail to an SMTP server, in a closed or an open loop, and reports what became of it.

use super::{Failure, Outcome, stop::Stop};
use crate::ui::{
    self,
    progress::Progress,
    table::{Left, Right, Table, figure, text, unless_zero, warn},
    units,
};
use clap::ValueEnum;
use mailrail_bench::{
    latency::{Latency, Summary},
    load::{Amount, Header, Load, LoadReport, Pace, RecipientDomain, Sizes, TlsMode},
};
use std::{
    fmt::Write,
    fs::File,
    io::BufWriter,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Offer mail to an SMTP server, and report what became of it
///
/// In a closed loop (the default) each connection sends its next message when the one before is answered. With --rate it
/// is an open loop: messages are due at that rate whatever the server does, and latency counts from the moment a message
/// was due, so that a stalling server cannot hide it. Ctrl-C ends it early, with its report.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail load --target 127.0.0.1:2525 --messages 10000 --domain example.test\n  \
       mailrail load --target 127.0.0.1:2525 --rate 2000 --duration 60 --connections 50 --percentiles accept.hgrm\n  \
       mailrail load --target 127.0.0.1:2525 --size log:1KiB..256KiB --recipients 1..4 --domain a.test=3 --domain b.test\n"
))]
pub(crate) struct Args {
    /// The server, host:port
    #[arg(long, value_name = "ADDRESS")]
    target: String,
    /// Messages to send [default: 1000, unless --duration is given]
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    messages: Option<u64>,
    /// Send for so many seconds instead
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    duration: Option<u64>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 10)]
    connections: usize,
    /// Open loop: messages a second
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Seconds over which the rate rises, or the connections open
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    ramp: u64,
    /// Content size: 4KiB, 1KiB..64KiB (uniform), or log:1KiB..256KiB (each order of magnitude alike)
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = sizes)]
    size: Sizes,
    /// Envelope sender and From; may be given several times
    #[arg(long, value_name = "ADDRESS", default_value = "sender@example.com")]
    from: Vec<String>,
    /// Recipient domain, with its share: example.test or example.test=3; may be given several times
    #[arg(long, value_name = "DOMAIN[=WEIGHT]", default_value = "example.test", value_parser = domain)]
    domain: Vec<RecipientDomain>,
    /// Recipients of a message: 1 or 1..5
    #[arg(long, value_name = "N", default_value = "1", value_parser = range)]
    recipients: (usize, usize),
    /// Another header, `Name: value`, or `30%Name: value` for a share of the messages; may be given several times; of those
    /// with one name and shares a message has one at most
    #[arg(long, value_name = "HEADER", value_parser = header)]
    header: Vec<Header>,
    /// TLS
    #[arg(long, value_name = "MODE", default_value = "none")]
    tls: Tls,
    /// AUTH PLAIN, user:password
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials, env = "MAILRAIL_LOAD_AUTH", hide_env_values = true)]
    auth: Option<(String, String)>,
    /// Send each command only after the reply to the one before
    #[arg(long)]
    no_pipelining: bool,
    /// Close a connection after so many messages
    #[arg(long, value_name = "N")]
    messages_per_connection: Option<u32>,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Same seed, same messages
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Name of the run, first part of every X-Load-Id
    #[arg(long, value_name = "NAME", default_value = "load")]
    run: String,
    /// Write the latency as an HDR percentile file: from the final dot to the 250, with --rate from when it was due
    #[arg(long, value_name = "FILE")]
    percentiles: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tls {
    /// Plain text
    None,
    /// STARTTLS, required
    Starttls,
    /// From the first byte
    Implicit,
}

/// How often the live line is drawn.
const LOOK: Duration = Duration::from_millis(100);
/// A server that does not take a connection in this time is taken for none.
const REACH: Duration = Duration::from_secs(10);

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let load = load(args)?;
    let percentiles = args.percentiles.as_deref().map(Percentiles::create).transpose()?;
    // Once it runs, a server that goes away for a while is waited for; one that was never there need not be.
    if let Err(why) = TcpStream::connect_timeout(&load.target, REACH) {
        return Err(Failure::Unreachable(format!("{}: {why}", load.target)));
    }
    let stop = Stop::new()?;
    let bar = match (load.amount, args.json) {
        (_, true) => Progress::hidden(),
        (Amount::Messages(count), _) => Progress::bar(count, "messages"),
        (Amount::For(time), _) => Progress::bar(time.as_millis() as u64, "ms"),
    };
    let timed = matches!(load.amount, Amount::For(_));
    let running = load.start().map_err(|why| Failure::Usage(why.to_string()))?;
    let began = Instant::now();
    while !running.is_finished() {
        let now = running.progress();
        let done = if timed { began.elapsed().as_millis() as u64 } else { now.accepted };
        bar.set(done, live(&now));
        if stop.is_asked() {
            running.stop();
        }
        thread::sleep(LOOK);
    }
    let last = live(&running.progress());
    let outcome = running.wait();
    bar.finish(last);
    if let Some(file) = percentiles {
        file.write(if args.rate.is_some() { &outcome.transaction } else { &outcome.accept })?;
    }
    if args.json {
        ui::print_json(&outcome.report)?;
    } else {
        ui::print(&shown(&outcome.report, args.rate.is_some()))?;
    }
    match outcome.report.recipients.accepted {
        0 => Err(Failure::Operation(format!("nothing was accepted: {}", reasons(&outcome.report)))),
        _ => Ok(()),
    }
}

fn load(args: &Args) -> Result<Load, Failure> {
    let mut load = Load::new(address(&args.target)?);
    load.amount = match (args.messages, args.duration) {
        (Some(count), _) => Amount::Messages(count),
        (None, Some(seconds)) => Amount::For(Duration::from_secs(seconds)),
        (None, None) => Amount::Messages(1000),
    };
    load.connections = args.connections;
    load.pace = args.rate.map_or(Pace::Closed, Pace::Open);
    load.ramp = Duration::from_secs(args.ramp);
    load.sizes = args.size;
    load.senders.clone_from(&args.from);
    load.domains.clone_from(&args.domain);
    load.recipients_per_message = args.recipients;
    load.headers.clone_from(&args.header);
    load.tls = match args.tls {
        Tls::None => TlsMode::None,
        Tls::Starttls => TlsMode::Starttls,
        Tls::Implicit => TlsMode::Implicit,
    };
    load.auth.clone_from(&args.auth);
    load.pipelining = !args.no_pipelining;
    load.messages_per_connection = args.messages_per_connection;
    load.threads = args.threads;
    load.seed = args.seed;
    load.run.clone_from(&args.run);
    load.ledger = false;
    Ok(load)
}

fn address(target: &str) -> Result<SocketAddr, Failure> {
    let found = target.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Failure::Usage(format!("--target {target}: the name has no address"))),
        Err(why) => Err(Failure::Usage(format!("--target {target}: {why}; write it as 127.0.0.1:2525"))),
    }
}

fn live(now: &mailrail_bench::load::Progress) -> String {
    let mut line = format!("{} accepted, {}", units::count(now.accepted), units::rate(now.accepted, now.elapsed));
    for (count, what) in [(now.recipients_refused, "refused"), (now.retries, "tried again"), (now.errors, "errors")] {
        if count > 0 {
            let _ = write!(line, ", {} {what}", units::count(count));
        }
    }
    line
}

/// The file for the percentiles, made before the run: one that cannot be written is found out at once.
struct Percentiles<'a>(&'a Path, File);

impl<'a> Percentiles<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?;
        Ok(Self(path, file))
    }

    fn write(self, latency: &Latency) -> Outcome {
        let failed = |why| Failure::Operation(format!("writing {}: {why}", self.0.display()));
        latency.write_percentiles(&mut BufWriter::new(self.1)).map_err(failed)
    }
}

fn shown(report: &LoadReport, is_open: bool) -> String {
    let mut table = Table::new(&[Left("RECIPIENTS"), Right("COUNT")]);
    let counts = &report.recipients;
    table.row([text("offered"), figure(counts.offered)]);
    table.row([text("accepted"), figure(counts.accepted)]);
    table.row([text("refused"), unless_zero(counts.refused, warn)]);
    table.row([text("in doubt"), unless_zero(counts.in_doubt, warn)]);
    table.row([text("abandoned"), unless_zero(counts.abandoned, warn)]);
    let mut times =
        Table::new(&[Left("LATENCY"), Right("P50"), Right("P90"), Right("P99"), Right("P99.9"), Right("MAX")]);
    // In an open loop a message that waits for a connection has begun to wait when it was due.
    let transaction = if is_open { "due to 250" } else { "MAIL to 250" };
    for (name, summary) in
        [("final dot to 250", &report.accept), (transaction, &report.transaction), ("connect", &report.connect)]
    {
        let Summary { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *summary;
        let figures =
            [p50_us, p90_us, p99_us, p999_us, max_us].map(|us| text(units::duration(Duration::from_micros(us))));
        times.row(std::iter::once(text(name)).chain(figures));
    }
    let cpu = report.cpu.and_then(|cpu| cpu.checked_div(u32::try_from(report.accepted).ok()?));
    let mut out = format!(
        "{table}\n{times}\n{} messages accepted in {}: {}, {}/s; {} of CPU each in the generator\n",
        units::count(report.accepted),
        units::duration(report.elapsed),
        units::rate(report.accepted, report.elapsed),
        units::bytes((report.bytes as f64 / report.elapsed.as_secs_f64().max(1e-9)) as u64),
        cpu.map_or("unknown".into(), units::duration),
    );
    if !report.errors.is_empty() || !report.refused_by_code.is_empty() {
        let _ = writeln!(out, "{}", reasons(report));
    }
    out
}

fn reasons(report: &LoadReport) -> String {
    let codes = report.refused_by_code.iter().map(|(code, count)| format!("{code}: {count} recipients"));
    let errors = report.errors.iter().map(|(reason, count)| format!("{reason}: {count}"));
    codes.chain(errors).collect::<Vec<_>>().join("; ")
}

fn size(text: &str) -> Result<usize, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        _ => return Err(format!("\"{text}\" is no size; write it as 4096, 4KiB or 1MiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("\"{text}\" is no size; write it as 4096, 4KiB or 1MiB"))?;
    number.checked_mul(unit).filter(|size| *size <= 1 << 30).ok_or_else(|| format!("\"{text}\" is too large"))
}

fn sizes(text: &str) -> Result<Sizes, String> {
    let (log, rest) = text.strip_prefix("log:").map_or((false, text), |rest| (true, rest));
    let Some((min, max)) = rest.split_once("..") else { return Ok(Sizes::Fixed(size(rest)?)) };
    let (min, max) = (size(min)?, size(max)?);
    if min > max || min == 0 {
        return Err(format!("\"{text}\" must rise, from 1 at least"));
    }
    Ok(if log { Sizes::LogUniform { min, max } } else { Sizes::Uniform { min, max } })
}

fn domain(text: &str) -> Result<RecipientDomain, String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().map_err(|_| format!("\"{text}\": the weight must be a number"))?;
    Ok(RecipientDomain { weight, ..RecipientDomain::new(name) })
}

fn range(text: &str) -> Result<(usize, usize), String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    match (min.parse(), max.parse()) {
        (Ok(min), Ok(max)) if 1 <= min && min <= max => Ok((min, max)),
        _ => Err(format!("\"{text}\": write it as 1 or 1..5")),
    }
}

fn header(text: &str) -> Result<Header, String> {
    let wrong = || format!("\"{text}\": write it as Name: value, or 30%Name: value");
    let (share, rest) = match text.split_once('%').and_then(|(share, rest)| Some((share.parse::<f64>().ok()?, rest))) {
        Some((share, rest)) if (0.0..=100.0).contains(&share) => (Some(share), rest),
        Some(_) => return Err(wrong()),
        None => (None, text),
    };
    let good = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    match rest.split_once(':') {
        Some((name, value)) if good(name) && !value.contains(['\r', '\n']) => {
            Ok(Header { name: name.into(), value: value.trim().into(), share })
        }
        _ => Err(wrong()),
    }
}

fn credentials(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once(':').ok_or("write it as user:password")?;
    Ok((pair.0.into(), pair.1.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ranges_are_read_and_mistakes_are_named() {
        assert_eq!(sizes("4KiB"), Ok(Sizes::Fixed(4096)));
        assert_eq!(sizes("1K..2MiB"), Ok(Sizes::Uniform { min: 1024, max: 2 << 20 }));
        assert_eq!(sizes("log:1..10"), Ok(Sizes::LogUniform { min: 1, max: 10 }));
        assert_eq!(range("2..5"), Ok((2, 5)));
        assert_eq!(domain("a.test=3").map(|domain| domain.weight), Ok(3.0));
        for wrong in ["", "x", "4XB", "9..1", "0..4", "99999999999999999999"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            header("12.5%X-Pool: a%b").map(|header| (header.share, header.value)),
            Ok((Some(12.5), "a%b".into()))
        );
        assert_eq!(header("X-A: 5%").map(|header| header.share), Ok(None));
        assert!(header("101%X: y").is_err() && header("-1%X: y").is_err());
        assert!(range("0").is_err() && header("no colon").is_err() && domain("a=b").is_err());
    }
}
