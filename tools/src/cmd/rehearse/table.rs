//! A rehearsal on the terminal: what it was, its days, its pools, receivers and leased IPs, and what to do about it.

use crate::ui::{
    colour::{DIM, HEAD, paint},
    table::{Left, Right, Table, bad, dim, figure, text, unless_zero, warn},
    units,
};
use mailrail_queue::sim::{
    campaign::Campaign,
    report::{Day, Ip, Report},
};
use std::fmt::Write;

/// All but the advice.
pub(super) fn whole(name: &str, campaign: &Campaign, report: &Report, each_ip: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", paint(HEAD, name));
    let _ = writeln!(
        out,
        "{} messages in {} days, {} leased IPs in {} pools, seed {}",
        units::count(report.total.wanted),
        report.days.len(),
        report.ips.len(),
        report.pools.len(),
        report.seed
    );
    let _ = writeln!(out, "{}\n", paint(DIM, granularity(campaign, report)));
    let _ = writeln!(out, "{}", days(report));
    let _ = writeln!(out, "{}", pools(report));
    let _ = writeln!(out, "{}", receivers(report));
    let _ = writeln!(out, "{}", ips(report, each_ip));
    out
}

fn granularity(campaign: &Campaign, report: &Report) -> String {
    let seconds = report.grain.tick_ms / 1000;
    match report.grain.crowd {
        1 => format!("granularity: message by message, times to {seconds} s"),
        crowd => format!(
            "granularity: up to {} recipients of one stream at one receiver are decided about together, times to {seconds} s; each counts as a recipient{}",
            units::count(u64::from(crowd)),
            if campaign.crowd.is_some() { "" } else { " (--granularity changes it)" }
        ),
    }
}

fn days(report: &Report) -> Table {
    let rejects = report.total.rejected > 0;
    let mut columns = vec![
        Right("DAY"),
        Right("WANTED"),
        Right("SENT"),
        Right("OVERFLOWED"),
        Right("DEFERRED"),
        Right("BOUNCED"),
        Right("EXPIRED"),
        Right("QUEUED"),
        Right("REPUTATION"),
        Right("WORST"),
        Right("WARM IPS"),
        Right("BLOCKS"),
    ];
    if rejects {
        columns.insert(7, Right("REFUSED"));
    }
    let mut table = Table::new(&columns);
    for day in &report.days {
        let mut cells = vec![
            text(day.day),
            figure(day.sums.wanted),
            figure(day.sums.sent),
            figure(day.sums.overflowed),
            figure(day.sums.deferred),
            figure(day.sums.bounced),
            unless_zero(day.sums.expired, bad),
            figure(day.queued),
            trust(day.reputation_mean),
            trust(day.reputation_worst),
            warm(day),
            unless_zero(u64::from(day.blocks), bad),
        ];
        if rejects {
            cells.insert(7, unless_zero(day.sums.rejected, warn));
        }
        table.row(cells);
    }
    table
}

fn trust(value: f64) -> comfy_table::Cell {
    let shown = format!("{value:.0}");
    if value < 10.0 { warn(shown) } else { text(shown) }
}

fn warm(day: &Day) -> comfy_table::Cell {
    let shown = format!("{}/{}", day.ips_warm, day.ips_warming);
    if day.ips_warm == 0 { dim(shown) } else { text(shown) }
}

fn pools(report: &Report) -> Table {
    let mut table = Table::new(&[
        Left("POOL"),
        Right("IPS"),
        Right("WANTED"),
        Right("SENT BY ITS IPS"),
        Right("OVERFLOWED"),
        Right("DEFERRED"),
        Right("BOUNCED"),
        Right("EXPIRED"),
        Right("REPUTATION"),
        Right("WARM IPS"),
        Right("BLOCKS"),
    ]);
    for pool in &report.pools {
        table.row([
            text(&pool.pool),
            figure(u64::from(pool.ips)),
            figure(pool.sums.wanted),
            figure(pool.sums.sent),
            figure(pool.sums.overflowed),
            figure(pool.sums.deferred),
            figure(pool.sums.bounced),
            unless_zero(pool.sums.expired, bad),
            trust(pool.reputation),
            text(format!("{}/{}", pool.ips_warm, pool.ips)),
            unless_zero(u64::from(pool.blocks), bad),
        ]);
    }
    table
}

fn receivers(report: &Report) -> Table {
    let mut table = Table::new(&[
        Left("RECEIVER"),
        Right("WANTED"),
        Right("SENT"),
        Right("DEFERRED"),
        Right("BOUNCED"),
        Right("EXPIRED"),
        Right("REPUTATION"),
        Right("BLOCKS"),
    ]);
    for receiver in report.receivers.iter().filter(|receiver| receiver.sums.wanted > 0) {
        table.row([
            text(&receiver.receiver),
            figure(receiver.sums.wanted),
            figure(receiver.sums.sent),
            figure(receiver.sums.deferred),
            figure(receiver.sums.bounced),
            unless_zero(receiver.sums.expired, bad),
            trust(receiver.reputation),
            unless_zero(u64::from(receiver.blocks), bad),
        ]);
    }
    table
}

fn ips(report: &Report, each: bool) -> Table {
    let mut table = Table::new(&[
        Left("IP"),
        Left("POOL"),
        Left("WARM"),
        Right("SENT"),
        Right("MOST A DAY"),
        Right("DEFERRED"),
        Right("REPUTATION"),
        Right("BLOCKS"),
    ]);
    let same = |one: &Ip, other: &Ip| {
        let of = |ip: &Ip| (ip.pool.clone(), ip.warm_day, ip.warm_from_start, ip.leased_day, ip.blocks > 0);
        !each && of(one) == of(other)
    };
    for group in report.ips.chunk_by(same) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let sum = |of: fn(&Ip) -> u64| group.iter().map(of).sum::<u64>();
        let name = match group.len() {
            1 => first.ip.to_string(),
            many => format!("{} to {} ({many})", first.ip, last.ip),
        };
        table.row([
            text(name),
            text(&first.pool),
            match first.warm_day {
                Some(day) => text(format!("day {day}")),
                None if first.warm_from_start => dim("always"),
                None => dim("not yet"),
            },
            figure(sum(|ip| ip.sent)),
            figure(group.iter().map(|ip| ip.best_day).max().unwrap_or(0)),
            figure(sum(|ip| ip.deferred)),
            trust(group.iter().map(|ip| ip.reputation).sum::<f64>() / group.len() as f64),
            unless_zero(sum(|ip| u64::from(ip.blocks)), bad),
        ]);
    }
    table
}

/// The advice.
pub(super) fn summary(advice: &[String]) -> String {
    let mut out = format!("{}\n", paint(HEAD, "What it comes to"));
    for line in advice {
        let _ = writeln!(out, "  {} {line}", paint(DIM, "-"));
    }
    out
}
