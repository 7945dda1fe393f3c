//! `mailrail status`: shards, leased IPs, rates, queue and spool of a running server.

use super::{Outcome, connect::Connect};
use crate::ui::{
    self,
    colour::{BAD, DIM, GOOD, HEAD, WARN, paint},
    table::{Left, Right, Table, bad, figure, text, unless_zero, warn},
    units,
};
use mailrail_engine::{
    control::api::types::StatusReport,
    link::{Buckets, IpStatus, ShardStatus},
};
use std::{fmt::Write, thread, time::Duration};

/// Show shards, leased IPs, rates, queue and spool use
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail status\n  \
       mailrail status --watch 2\n  \
       mailrail status --json | jq .queued        # recipients not yet settled\n"
))]
pub(crate) struct Args {
    /// Print one JSON document
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Show it again every so many seconds, with rates in between, until interrupted
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

/// Where the answer comes from.
const PATH: &str = "/mailrail/v1/status";

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let client = args.connect.client()?;
    let mut report: StatusReport = client.get(PATH)?;
    if args.json {
        return Ok(ui::print_json(&report)?);
    }
    ui::print(&shown(&report, &Rates::since_start(&report), units::now_ms()))?;
    let Some(seconds) = args.watch else { return Ok(()) };
    loop {
        thread::sleep(Duration::from_secs(seconds));
        let next: StatusReport = client.get(PATH)?;
        let rates = Rates::between(&report, &next, Duration::from_secs(seconds));
        ui::print(&format!("\u{1b}[2J\u{1b}[H{}", shown(&next, &rates, units::now_ms())))?;
        report = next;
    }
}

/// Recipients accepted, delivered, bounced and deferred within a span.
struct Rates {
    over: Duration,
    accepted: u64,
    delivered: u64,
    bounced: u64,
    deferred: u64,
    what: &'static str,
}

impl Rates {
    fn since_start(report: &StatusReport) -> Self {
        let over = Duration::from_secs(report.uptime_s);
        Self { what: "since start", ..Self::difference(&[], &report.shards, over) }
    }

    fn between(before: &StatusReport, after: &StatusReport, over: Duration) -> Self {
        Self::difference(&before.shards, &after.shards, over)
    }

    fn difference(before: &[ShardStatus], after: &[ShardStatus], over: Duration) -> Self {
        // A restarted server counts from zero again.
        let grown = |of: fn(&ShardStatus) -> u64| sum(after, of).saturating_sub(sum(before, of));
        Self {
            over,
            accepted: grown(|s| s.accepted),
            delivered: grown(|s| s.delivered),
            bounced: grown(|s| s.bounced + s.expired),
            deferred: grown(|s| s.deferred),
            what: "now",
        }
    }
}

fn sum(shards: &[ShardStatus], of: fn(&ShardStatus) -> u64) -> u64 {
    shards.iter().map(of).sum()
}

/// The whole page; `now` in milliseconds since the epoch.
fn shown(report: &StatusReport, rates: &Rates, now: u64) -> String {
    let mut out = format!(
        "{} {}, pid {}, up {}\n",
        paint(HEAD, &report.hostname),
        paint(DIM, format!("mailrail {}", report.version)),
        report.pid,
        units::duration(Duration::from_secs(report.uptime_s)),
    );
    let rate = |events| units::rate(events, rates.over);
    let _ = writeln!(
        out,
        "{} recipients queued in {} messages\n{}: accepted {}, delivered {}, bounced {}, deferred {}\n",
        paint(HEAD, units::count(report.queued)),
        units::count(report.queued_messages),
        rates.what,
        rate(rates.accepted),
        paint(GOOD, rate(rates.delivered)),
        rate(rates.bounced),
        rate(rates.deferred),
    );
    let _ = write!(out, "{}\n{}\n{}", shards(&report.shards), times(&report.shards), leases(&report.shards));
    for shard in &report.shards {
        if let Some(why) = &shard.spool_full {
            let _ = writeln!(out, "\n{} shard {} takes no new mail: {why}", paint(BAD, "!"), shard.shard);
        }
    }
    if !report.silent_shards.is_empty() {
        let shards = &report.silent_shards;
        let _ = writeln!(out, "\n{} shards {shards:?} gave no answer in time: the sums lack them", paint(BAD, "!"));
    }
    if let Some(why) = &report.event_log.error {
        let _ =
            writeln!(out, "\n{} the event log cannot be written: {why}; no event is lost meanwhile", paint(BAD, "!"));
    }
    let mut errors: Vec<_> = report.shards.iter().flat_map(|shard| &shard.last_errors).collect();
    errors.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    if !errors.is_empty() {
        let _ = writeln!(out, "\n{}", paint(HEAD, "Last errors"));
    }
    for (at, error) in errors.into_iter().take(10) {
        let _ = writeln!(out, "  {}  {}", paint(DIM, units::relative(*at, now)), paint(WARN, error));
    }
    out
}

fn shards(shards: &[ShardStatus]) -> Table {
    let mut table = Table::new(&[
        Left("SHARD"),
        Right("QUEUED"),
        Right("ACCEPTED"),
        Right("DELIVERED"),
        Right("BOUNCED"),
        Right("DEFERRED"),
        Right("IN DOUBT"),
        Right("CLIENTS"),
        Right("CONNS OUT"),
        Right("SYNCS"),
        Right("SPOOL"),
        Right("LIVE"),
    ]);
    for shard in shards {
        table.row([
            text(shard.shard),
            figure(shard.queued),
            figure(shard.accepted),
            figure(shard.delivered),
            unless_zero(shard.bounced + shard.expired, warn),
            figure(shard.deferred),
            unless_zero(shard.in_doubt, warn),
            figure(shard.sessions.into()),
            figure(shard.deliveries.into()),
            figure(shard.syncs),
            text(units::bytes(shard.spool_bytes)),
            text(units::bytes(shard.spool_live_bytes)),
        ]);
    }
    table
}

/// Picks one of a shard's histograms.
type TimeOf = fn(&ShardStatus) -> &Buckets;

/// Times taken, of all shards together, as upper bounds of histogram buckets.
fn times(shards: &[ShardStatus]) -> Table {
    let mut table =
        Table::new(&[Left("TIME"), Right("COUNT"), Right("MEAN"), Right("P50 ≤"), Right("P95 ≤"), Right("P99 ≤")]);
    let rows: [(&str, TimeOf); 3] = [
        ("final dot to 250", |s| &s.accept_time),
        ("accepted to first try", |s| &s.queue_time),
        ("accepted to delivered", |s| &s.delivery_time),
    ];
    for (name, of) in rows {
        let mut all = Buckets::default();
        for shard in shards {
            let one = of(shard);
            all.sum_us = all.sum_us.saturating_add(one.sum_us);
            for (total, count) in all.counts.iter_mut().zip(one.counts) {
                *total += count;
            }
        }
        let count: u64 = all.counts.iter().sum();
        let mean = all.sum_us.checked_div(count).map_or("-".into(), |us| units::duration(Duration::from_micros(us)));
        let bound = |percent| text(quantile(&all, percent));
        table.row([text(name), figure(count), text(mean), bound(50), bound(95), bound(99)]);
    }
    table
}

/// Upper bound of the bucket that holds this percentile.
fn quantile(buckets: &Buckets, percent: u64) -> String {
    let count: u64 = buckets.counts.iter().sum();
    if count == 0 {
        return "-".into();
    }
    let wanted = (count * percent).div_ceil(100);
    let mut seen = 0;
    for (slot, counted) in buckets.counts.iter().enumerate() {
        seen += counted;
        if seen >= wanted {
            return Buckets::BOUNDS_MS
                .get(slot)
                .map_or_else(|| "over 4h".into(), |ms| units::duration(Duration::from_millis(*ms)));
        }
    }
    "-".into()
}

fn leases(shards: &[ShardStatus]) -> Table {
    let mut table = Table::new(&[
        Left("LEASED IP"),
        Left("EHLO NAME"),
        Left("POOL"),
        Right("SHARD"),
        Right("QUEUED"),
        Right("CONNS"),
        Right("DELIVERED"),
        Right("DEFERRED"),
        Right("BOUNCED"),
    ]);
    let mut ips: Vec<(u16, &IpStatus)> =
        shards.iter().flat_map(|shard| shard.ips.iter().map(|ip| (shard.shard, ip))).collect();
    ips.sort_by_key(|(_, ip)| ip.address);
    for (shard, ip) in &ips {
        table.row([
            text(ip.address),
            text(&ip.helo),
            text(&ip.pool),
            text(shard),
            figure(ip.queued),
            figure(ip.connections.into()),
            figure(ip.delivered),
            figure(ip.deferred),
            unless_zero(ip.bounced, warn),
        ]);
    }
    if ips.is_empty() {
        table.row([bad("none: `mailrail apply` gives the server some")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let mut buckets = Buckets::default();
        assert_eq!(quantile(&buckets, 99), "-");
        for ms in [1, 1, 1, 40] {
            buckets.record(Duration::from_millis(ms));
        }
        assert_eq!(quantile(&buckets, 50), "1 ms");
        assert_eq!(quantile(&buckets, 99), "50 ms");
        buckets.record(Duration::from_secs(100_000));
        assert_eq!(quantile(&buckets, 99), "over 4h");
    }

    #[test]
    fn times_of_all_shards_are_added() {
        let mut one = ShardStatus::default();
        one.accept_time.record(Duration::from_millis(3));
        let shown = anstream::adapter::strip_str(&times(&[one.clone(), one]).to_string()).to_string();
        let line: Vec<_> = shown.lines().nth(1).unwrap_or_default().split_whitespace().skip(4).collect();
        assert_eq!(line, ["2", "3", "ms", "5", "ms", "5", "ms", "5", "ms"]);
    }

    #[test]
    fn a_restarted_server_has_no_negative_rate() {
        let shard = |delivered| ShardStatus { delivered, ..ShardStatus::default() };
        assert_eq!(Rates::difference(&[shard(100)], &[shard(5)], Duration::from_secs(1)).delivered, 0);
        assert_eq!(Rates::difference(&[shard(100)], &[shard(150)], Duration::from_secs(1)).delivered, 50);
    }

    #[test]
    fn a_host_without_leases_is_told_what_to_do() {
        assert!(leases(&[ShardStatus::default()]).to_string().contains("mailrail apply"));
    }
}
