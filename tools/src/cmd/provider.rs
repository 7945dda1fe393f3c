//! `mailrail provider`: large receivers, and what is sent to them.

use super::{Outcome, connect::Connect};
use crate::{
    client::{Client, encoded},
    ui::{
        self,
        table::{Left, Right, Table, bad, dim, figure, good, text, unless_zero, warn},
        units,
    },
};
use comfy_table::Cell;
use mailrail_engine::{
    control::api::types::provider::{Lift, ProviderDone, ProviderRow, Providers, Suspend},
    link::{ProviderIp, ProviderState},
};
use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

/// Large receivers: what they are sent, what they complain of, and holding mail to them
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail provider list\n  \
       mailrail provider show gmail\n  \
       mailrail provider suspend yahoo --for 2h --ip 192.0.2.10\n  \
       mailrail provider lift yahoo\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    command: What,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the providers that there is, or was, mail for
    List {
        /// Those without mail as well
        #[arg(long)]
        all: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show one provider: its limits, and how each leased IP stands with it
    Show {
        /// The provider
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Forget what a provider complained of: full rate, no suspension, and its hosts are tried again
    Lift {
        /// The provider
        name: String,
        /// Only for this leased IP
        #[arg(long, value_name = "IP")]
        ip: Option<IpAddr>,
    },
    /// Send nothing to a provider for a time; its mail waits
    Suspend {
        /// The provider
        name: String,
        /// How long, as 30m or 6h; a week at most
        #[arg(long = "for", value_name = "TIME")]
        time: String,
        /// Only by this leased IP
        #[arg(long, value_name = "IP")]
        ip: Option<IpAddr>,
        /// Why, for those who look
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let client = args.connect.client()?;
    match &args.command {
        What::List { all, json } => {
            let providers: Providers = client.get("/mailrail/v1/providers")?;
            if *json {
                return Ok(ui::print_json(&providers)?);
            }
            Ok(ui::print(&listed(&providers.providers, *all, units::now_ms()))?)
        }
        What::Show { name, json } => {
            let row: ProviderRow = client.get(&path(name, ""))?;
            if *json {
                return Ok(ui::print_json(&row)?);
            }
            Ok(ui::print(&shown(&row, units::now_ms()))?)
        }
        What::Lift { name, ip } => {
            let done: ProviderDone = client.post(&path(name, "/lift"), &Lift { ip: *ip })?;
            Ok(ui::print(&told(&done, name, "nothing holds mail to", "any more"))?)
        }
        What::Suspend { name, time, ip, reason } => suspend(&client, name, time, *ip, reason.clone()),
    }
}

fn path(name: &str, more: &str) -> String {
    format!("/mailrail/v1/providers/{}{more}", encoded(name))
}

fn suspend(client: &Client, name: &str, time: &str, ip: Option<IpAddr>, reason: Option<String>) -> Outcome {
    let request = Suspend { ip, time: time.into(), reason };
    let done: ProviderDone = client.post(&path(name, "/suspend"), &request)?;
    Ok(ui::print(&told(&done, name, "nothing goes to", &format!("for {time}")))?)
}

fn told(done: &ProviderDone, name: &str, what: &str, then: &str) -> String {
    match done.ips {
        0 => format!("No leased IP has met {name} yet: there is nothing to do.\n"),
        1 => format!("By 1 leased IP, {what} {name} {then}.\n"),
        n => format!("By {n} leased IPs, {what} {name} {then}.\n"),
    }
}

fn listed(rows: &[ProviderRow], all: bool, now: u64) -> String {
    let mut table = Table::new(&[
        Left("PROVIDER"),
        Left("STATE"),
        Right("IPS"),
        Right("QUEUED"),
        Right("CONNS"),
        Right("DELIVERED"),
        Right("DEFERRED"),
        Right("BOUNCED"),
        Left("LAST COMPLAINT"),
    ]);
    let shown: Vec<&ProviderRow> = rows.iter().filter(|row| all || !row.ips.is_empty()).collect();
    if shown.is_empty() {
        return "No mail has gone to a known provider yet; --all shows them all.\n".into();
    }
    for row in shown {
        let sum = |of: fn(&ProviderIp) -> u64| row.ips.iter().map(of).sum::<u64>();
        let last = row.ips.iter().filter_map(|ip| Some((ip.reason_at?, ip.reason.as_deref()?))).max();
        table.row([
            text(&row.name),
            state(&row.ips),
            figure(row.ips.len() as u64),
            figure(row.queued),
            figure(row.open.into()),
            figure(sum(|ip| ip.delivered)),
            unless_zero(sum(|ip| ip.deferrals), warn),
            unless_zero(sum(|ip| ip.bounced), warn),
            last.map_or_else(|| dim("-"), |(at, why)| text(format!("{}: {}", units::relative(at, now), short(why)))),
        ]);
    }
    table.to_string()
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Leased IPs for which a provider is not as open as its settings say; shown as the state of the provider.
pub(super) struct Trouble {
    pub(super) suspended: usize,
    pub(super) slowed: usize,
}

impl Trouble {
    pub(super) fn of(ips: &[ProviderIp]) -> Self {
        let count = |state: ProviderState| ips.iter().filter(|ip| ip.state == state).count();
        Self { suspended: count(ProviderState::Suspended), slowed: count(ProviderState::Slowed) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.suspended, self.slowed) {
            (0, 0) => f.write_str("open"),
            (0, n) => write!(f, "slowed ({n})"),
            (n, _) => write!(f, "suspended ({n})"),
        }
    }
}

fn state(ips: &[ProviderIp]) -> Cell {
    let trouble = Trouble::of(ips);
    match trouble {
        _ if ips.is_empty() => dim("-"),
        Trouble { suspended: 0, slowed: 0 } => good(trouble),
        Trouble { suspended: 0, .. } => warn(trouble),
        _ => bad(trouble),
    }
}

fn shown(row: &ProviderRow, now: u64) -> String {
    let mut out = format!("{}: mail hosts of {}\n", row.name, row.mx.join(", "));
    let or = |limit: Option<u32>| limit.map_or_else(|| "not limited".into(), |limit| limit.to_string());
    let own = if row.own { "changed by the fleet file" } else { "as it ships" };
    let _ = writeln!(out, "  of one leased IP ({own}):");
    let _ = writeln!(out, "  connections              {}", or(row.connections));
    let messages = row.messages_per_connection.map_or_else(|| "the default".into(), |limit| limit.to_string());
    let _ = writeln!(out, "  messages a connection    {messages}");
    let _ = writeln!(out, "  recipients a message     {}", or(row.recipients_per_message));
    let burst = row.burst.map_or_else(String::new, |burst| format!(", {burst} at once"));
    let _ = writeln!(out, "  messages                 {}{burst}", row.rate.as_deref().unwrap_or("not limited"));
    let _ = writeln!(out, "  tls                      {}", row.tls.as_deref().unwrap_or("opportunistic"));
    let recover = units::duration(std::time::Duration::from_millis(row.recover_ms));
    let _ = writeln!(out, "  a step of recovery each  {recover}\n");
    if row.ips.is_empty() {
        out += "No leased IP has met it yet.\n";
        return out;
    }
    let mut table = Table::new(&[
        Left("IP"),
        Left("POOL"),
        Left("STATE"),
        Right("QUEUED"),
        Right("CONNS"),
        Right("RATE"),
        Left("NEXT"),
    ]);
    for ip in &row.ips {
        let connections = ip.connection_limit.map_or_else(String::new, |limit| format!("/{limit}"));
        table.row([
            text(ip.ip),
            text(&ip.pool),
            state(std::slice::from_ref(ip)),
            figure(ip.queued),
            text(format!("{}{connections}", ip.connections)),
            ip.rate.as_ref().map_or_else(|| dim("-"), text),
            next(ip, now),
        ]);
    }
    out += &table.to_string();
    out += &ladders(row, now);
    for ip in &row.ips {
        if let (Some(reason), Some(at)) = (&ip.reason, ip.reason_at) {
            let _ = writeln!(out, "{} ({}): {reason}", ip.ip, units::relative(at, now));
        }
    }
    out
}

/// Leased IPs of managed pools.
fn ladders(row: &ProviderRow, now: u64) -> String {
    let columns = [
        Left("LADDER"),
        Right("STEP"),
        Right("TODAY"),
        Right("SENT"),
        Right("DEFERRED"),
        Right("BOUNCED"),
        Right("WAITING"),
        Left("OPENS"),
        Left("LAST DAY"),
    ];
    let mut table = Table::new(&columns);
    let climbing: Vec<_> = row.ips.iter().filter_map(|ip| Some((ip.ip, ip.ladder.as_ref()?))).collect();
    if climbing.is_empty() {
        return String::new();
    }
    for (ip, ladder) in climbing {
        table.row([
            text(ip),
            figure(ladder.step.into()),
            ladder.cap.map_or_else(|| good("warm"), |cap| figure(cap.into())),
            figure(ladder.sent.into()),
            unless_zero(ladder.deferred, warn),
            unless_zero(ladder.bounced, warn),
            unless_zero(ladder.waiting, warn),
            ladder.opens.map_or_else(|| dim("-"), |at| text(units::relative(at, now))),
            ladder.last.as_ref().map_or_else(|| dim("-"), text),
        ]);
    }
    format!("\n{table}")
}

/// What happens next, and when.
fn next(ip: &ProviderIp, now: u64) -> Cell {
    match (ip.suspended_until, ip.recovers_at) {
        (Some(at), _) => warn(format!("goes on {}", units::relative(at, now))),
        (None, Some(at)) => text(format!("a step up {}", units::relative(at, now))),
        (None, None) => dim("-"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use mailrail_engine::link::LadderStanding;

    pub(in super::super) fn ip(state: ProviderState) -> ProviderIp {
        ProviderIp {
            provider: "gmail".into(),
            ip: [192, 0, 2, 1].into(),
            shard: 0,
            pool: "main".into(),
            state,
            queued: 12,
            deferred: 2,
            in_flight: 1,
            connections: 3,
            connection_limit: Some(5),
            rate: Some("10/s".into()),
            slower: 1,
            fewer: 2,
            suspended_until: (state == ProviderState::Suspended).then_some(60_000),
            by_operator: false,
            recovers_at: None,
            reason: Some("421 slow down".into()),
            reason_at: Some(1),
            delivered: 100,
            deferrals: 7,
            bounced: 0,
            ladder: Some(LadderStanding { step: 3, cap: Some(137), sent: 99, ..LadderStanding::default() }),
        }
    }

    #[test]
    fn a_provider_shows_what_holds_mail_to_it() {
        let row = ProviderRow {
            name: "gmail".into(),
            mx: vec!["google.com".into()],
            connections: Some(20),
            ips: vec![ip(ProviderState::Suspended)],
            ..ProviderRow::default()
        };
        let strip = |text: String| anstream::adapter::strip_str(&text).to_string();
        let list = strip(listed(std::slice::from_ref(&row), false, 30_000));
        for part in ["gmail", "suspended (1)", "421 slow down", "100", "7"] {
            assert!(list.contains(part), "{part} in {list}");
        }
        let one = strip(shown(&row, 30_000));
        for part in ["google.com", "20", "192.0.2.1", "3/5", "10/s", "goes on", "421 slow down", "137", "99"] {
            assert!(one.contains(part), "{part} in {one}");
        }
        let unmet = ProviderRow { name: "qq".into(), ..ProviderRow::default() };
        assert!(!strip(listed(&[row.clone(), unmet.clone()], false, 0)).contains("qq"));
        assert!(strip(listed(&[row, unmet], true, 0)).contains("qq"));
    }
}
