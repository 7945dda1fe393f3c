//! A rehearsal in plain words: what came of it, who would not have it, and what to do.

use crate::ui::units::count;
use mailrail_queue::{
    policy::PoolKind,
    sim::{
        campaign::Campaign,
        fit,
        report::{Report, Trouble},
    },
};
use std::collections::BTreeSet;

/// Lines, the most general first.
pub(super) fn of(campaign: &Campaign, report: &Report) -> Vec<String> {
    let mut lines = vec![outcome(report)];
    lines.extend(overflow(report));
    lines.extend(report.troubles.iter().filter(|trouble| trouble.blocked).map(trouble));
    let only_slowed = |slow: &&Trouble| {
        let of = |other: &&Trouble| other.blocked && (&other.pool, &other.receiver) == (&slow.pool, &slow.receiver);
        !slow.blocked && slow.days > 1 && !report.troubles.iter().any(|other| of(&other))
    };
    lines.extend(report.troubles.iter().filter(only_slowed).map(trouble));
    lines.extend(plans(campaign, report));
    lines.extend(expired(report));
    lines.extend(lists(campaign, report));
    lines.extend(warm(report));
    if !report.troubles.iter().any(|trouble| trouble.blocked) {
        lines.push("no receiver blocked an IP".into());
    }
    lines
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn outcome(report: &Report) -> String {
    let (all, total) = (report.total.wanted, &report.total);
    let mut line = format!("of {} messages {} were delivered", count(all), percent(total.sent, all));
    let rest = [
        (total.bounced, "bounced"),
        (total.expired, "were given up for their age"),
        (total.rejected, "were refused at submission"),
        (report.queued, "are still queued"),
    ];
    for (number, what) in rest.into_iter().filter(|(number, _)| *number > 0) {
        line += &format!(", {} ({}) {what}", count(number), percent(number, all));
    }
    line
}

fn overflow(report: &Report) -> Option<String> {
    let (first, last) = (report.days.first()?, report.days.last()?);
    let all = report.total.overflowed;
    (all > 0).then(|| {
        format!(
            "{} recipients went by IPs of another pool ({} of the first day's, {} of the last day's)",
            count(all),
            percent(first.sums.overflowed, first.sums.wanted),
            percent(last.sums.overflowed, last.sums.wanted)
        )
    })
}

fn trouble(trouble: &Trouble) -> String {
    let Trouble { receiver, pool, day, ip, takes, cap, reply, days, blocked } = trouble;
    let what = if *blocked { "blocks" } else { "slows down" };
    let plan = cap.map(|cap| format!(", and its plan let {} go to all receivers", count(u64::from(cap))));
    let short: String = reply.chars().take(110).collect();
    let dots = if short.len() < reply.len() { "…" } else { "" };
    format!(
        "{receiver} {what} IPs of pool {pool} from day {day} on (first {ip}), on {days} {}: it took {} of it on that day{}: \"{short}{dots}\"",
        if *days == 1 { "day" } else { "days" },
        count(*takes),
        plan.unwrap_or_default()
    )
}

/// Which plan would fit the pools that were blocked, or slowed down for long.
fn plans(campaign: &Campaign, report: &Report) -> Vec<String> {
    let pressed = report.troubles.iter().filter(|trouble| trouble.blocked || trouble.days > 7);
    let pools: BTreeSet<&str> = pressed.map(|trouble| trouble.pool.as_str()).collect();
    let advice = |name: &str| {
        let place = campaign.policy.pools.iter().position(|pool| *pool.name == *name)?;
        let pool = &campaign.policy.pools[place];
        match (pool.kind, fit::fit(campaign, place)) {
            (PoolKind::Dedicated, Some(fit)) => Some(format!(
                "for pool {name} a plan that these receivers take: plan = {{ start = {}, factor = {}.{:02}, target = {} }}, {} days",
                fit.start,
                fit.factor_permille / 1000,
                fit.factor_permille % 1000 / 10,
                fit.target,
                fit.days
            )),
            (PoolKind::Dedicated, None) => {
                Some(format!("no plan makes the IPs of pool {name} carry its volume: lease more IPs"))
            }
            (PoolKind::Managed, _) => Some(format!(
                "pool {name} is managed: its ladders step down by themselves; more IPs carry more mail meanwhile"
            )),
            (PoolKind::Shared, _) => {
                Some(format!("the shared pool {name} carries more than its IPs can: lease more IPs"))
            }
        }
    };
    pools.into_iter().filter_map(advice).collect()
}

fn expired(report: &Report) -> Vec<String> {
    let of_pools = report.pools.iter().filter(|pool| pool.sums.expired * 1000 >= pool.sums.wanted.max(1));
    let line = |pool: &mailrail_queue::sim::report::Pool| {
        let share = percent(pool.sums.expired, pool.sums.wanted);
        let pressed = report.troubles.iter().any(|trouble| trouble.pool == pool.pool);
        let how = if pressed {
            "receivers put them off until then: a plan that is less steep, or more IPs"
        } else {
            "let it overflow (overflow = \"auto\", and a shared pool), lease more IPs, or let its volume rise slower"
        };
        format!(
            "{} recipients ({share}) for pool {} were given up for their age: {how}",
            count(pool.sums.expired),
            pool.pool
        )
    };
    of_pools.map(line).collect()
}

fn lists(campaign: &Campaign, report: &Report) -> Vec<String> {
    let most = |receiver: &str| {
        let model = campaign.receivers.iter().position(|model| *model.name == *receiver)?;
        let over = campaign.receivers[model].bounces_over;
        let bad = campaign
            .streams
            .iter()
            .find(|stream| stream.unknown > over && stream.to.iter().any(|(to, parts)| *to == model && *parts > 0))?;
        Some(format!(
            "stream {}: {:.1} % of its addresses do not exist, and {receiver} trusts an IP less from {:.1} % on: clean the list",
            bad.name,
            bad.unknown * 100.0,
            over * 100.0
        ))
    };
    report.receivers.iter().filter(|of| of.sums.wanted > 0).filter_map(|of| most(&of.receiver)).collect()
}

fn warm(report: &Report) -> Option<String> {
    let last = report.days.last().filter(|day| day.ips_warming > 0)?;
    let days: BTreeSet<u32> = report.ips.iter().filter_map(|ip| ip.warm_day).collect();
    let new = report.ips.iter().filter(|ip| ip.warm_day.is_some()).count();
    match (days.first(), days.last()) {
        (Some(first), Some(end)) if first == end => Some(format!("{new} IPs are warm from day {first} on")),
        (Some(first), Some(end)) => Some(format!("{new} IPs get warm, from day {first} to day {end}")),
        _ if last.ips_warm < last.ips_warming => {
            Some(format!("no new IP is warm by day {}: its plan, or its ladders, take longer", last.day))
        }
        _ => None,
    }
}
