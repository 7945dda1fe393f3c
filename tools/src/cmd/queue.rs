//! `mailrail queue`: mail that waits, by site and leased IP or message by message, with the reason and the next try.

mod act;
mod select;

use super::{Outcome, connect::Connect};
use crate::ui::{
    self,
    table::{Left, Right, Table, bad, dim, figure, text, unless_zero, warn},
    units,
};
use comfy_table::Cell;
use mailrail_engine::{
    control::api::types::QueueReport,
    link::{QueueRow, orders::Action},
};
use select::Selection;
use std::net::IpAddr;

/// Show queued mail with the reason and the next try, and suspend, retry, reroute, bounce or cancel it
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = super::after_help!(
    "  mailrail queue\n  \
       mailrail queue --domain example.org --messages\n  \
       mailrail queue --ip 192.0.2.10 --json | jq '.rows[].reason'\n  \
       mailrail queue suspend --domain example.org --reason 'their disk is full'\n  \
       mailrail queue resume --domain example.org\n  \
       mailrail queue retry --site mx1.example.org\n  \
       mailrail queue bounce --account acme --pool promo --dry-run\n  \
       mailrail queue reroute --ip 192.0.2.10 --to main --yes\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show queued mail: by site and leased IP, or message by message
    List(List),
    /// Hold mail, that which is queued and that which comes later, until it is resumed
    Suspend(act::Act),
    /// Let go what was suspended
    Resume(act::Resume),
    /// Show what is suspended
    Suspensions(act::Shown),
    /// Try deferred mail now
    Retry(act::Act),
    /// Send mail by another pool
    Reroute {
        /// The pool
        #[arg(long, value_name = "POOL")]
        to: String,
        #[command(flatten)]
        act: act::Act,
    },
    /// End mail, and tell its senders
    Bounce(act::Act),
    /// End mail without a word to its senders
    Cancel(act::Act),
    /// Show what was ordered since the server started, and how far it is
    Orders(act::Shown),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    which: Selection,
    /// List single messages instead of sums by site and leased IP
    #[arg(long)]
    messages: bool,
    /// At most so many rows a shard; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    limit: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

impl List {
    fn path(&self) -> String {
        let mut path = format!("/mailrail/v1/queue?limit={}{}", self.limit, self.which.query());
        if self.messages || self.which.is_message() {
            path.push_str("&messages=true");
        }
        path
    }
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    match &args.what {
        None => list(&args.list),
        Some(What::List(args)) => list(args),
        Some(What::Suspend(act)) => act::suspend(act),
        Some(What::Resume(args)) => act::resume(args),
        Some(What::Suspensions(args)) => act::suspensions(args),
        Some(What::Retry(act)) => act::order(act, Action::Retry, None),
        Some(What::Reroute { to, act }) => act::order(act, Action::Reroute, Some(to)),
        Some(What::Bounce(act)) => act::order(act, Action::Bounce, None),
        Some(What::Cancel(act)) => act::order(act, Action::Cancel, None),
        Some(What::Orders(args)) => act::orders(args),
    }
}

fn list(args: &List) -> Outcome {
    let client = args.connect.client()?;
    let report: QueueReport = client.get(&args.path())?;
    if args.json {
        ui::print_json(&report)?;
    } else {
        ui::print(&shown(&report.rows, units::now_ms()))?;
        if report.truncated {
            ui::note("There is more: --limit 0 shows all of it.");
        }
        if !report.silent_shards.is_empty() {
            ui::note(&format!(
                "Shards {:?} gave no answer in time: what they hold is missing here.",
                report.silent_shards
            ));
        }
    }
    Ok(())
}

/// The rows as tables; `now` in milliseconds since the epoch.
fn shown(rows: &[QueueRow], now: u64) -> String {
    if rows.is_empty() {
        return "Nothing is queued.\n".into();
    }
    let table = if rows.iter().any(|row| row.message.is_some()) { messages(rows, now) } else { sites(rows, now) };
    let queued: u64 = rows.iter().map(|row| row.queued).sum();
    let deferred: u64 = rows.iter().map(|row| row.deferred).sum();
    let plural = if queued == 1 { "" } else { "s" };
    format!("{table}\n{} recipient{plural} queued, {} of them deferred\n", units::count(queued), units::count(deferred))
}

fn sites(rows: &[QueueRow], now: u64) -> Table {
    let mut table = Table::new(&[
        Left("SITE"),
        Left("IP"),
        Right("QUEUED"),
        Right("DEFERRED"),
        Right("IN FLIGHT"),
        Right("CONNS"),
        Left("OLDEST"),
        Left("NEXT TRY"),
        Left("REASON"),
    ]);
    for row in rows {
        table.row([
            text(site(row)),
            lease(row.ip),
            figure(row.queued),
            unless_zero(row.deferred, warn),
            figure(row.in_flight),
            figure(row.connections.into()),
            text(units::relative(row.oldest, now)),
            next_try(row.next_try, row.held, row.in_flight, now),
            text(&row.reason),
        ]);
    }
    table
}

fn messages(rows: &[QueueRow], now: u64) -> Table {
    let mut table = Table::new(&[
        Left("MESSAGE"),
        Left("RECIPIENTS"),
        Left("IP"),
        Left("ACCEPTED"),
        Right("TRIES"),
        Left("NEXT TRY"),
        Left("REASON"),
    ]);
    for row in rows {
        table.row([
            text(row.message.as_deref().unwrap_or("-")),
            text(row.recipients.join(" ")),
            lease(row.ip),
            text(units::relative(row.oldest, now)),
            figure(row.attempts.into()),
            next_try(row.next_try, row.held, row.in_flight, now),
            text(&row.reason),
        ]);
    }
    table
}

/// The site, and the domains it serves when they are not just its name.
fn site(row: &QueueRow) -> String {
    match row.domains.as_slice() {
        [] => row.site.clone(),
        [only] if *only == row.site => row.site.clone(),
        domains if domains.len() > 3 => {
            format!("{} ({}, {} more)", row.site, domains[..3].join(", "), domains.len() - 3)
        }
        domains => format!("{} ({})", row.site, domains.join(", ")),
    }
}

/// The leased IP that mail waits for.
pub(super) fn lease(ip: Option<IpAddr>) -> Cell {
    ip.map_or_else(|| bad("none may take it"), text)
}

/// When mail is tried next; times in milliseconds since 1970.
pub(super) fn next_try(next_try: Option<u64>, held: bool, in_flight: u64, now: u64) -> Cell {
    match next_try {
        Some(at) if at > now => text(units::relative(at, now)),
        None if held => dim("held"),
        _ if in_flight > 0 => dim("under way"),
        _ => text("now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn row() -> QueueRow {
        QueueRow {
            shard: 0,
            site: "mx1.example.org".into(),
            ip: Some([127, 0, 10, 1].into()),
            domains: ["a", "b", "c", "d"].map(|name| format!("{name}.example")).into(),
            queued: 1_200,
            deferred: 3,
            connections: 2,
            attempts: 4,
            oldest: 1_000,
            next_try: Some(91_000),
            reason: "451 4.7.1 greylisted".into(),
            ..QueueRow::default()
        }
    }

    fn plain(rows: &[QueueRow]) -> String {
        anstream::adapter::strip_str(&shown(rows, 61_000)).to_string()
    }

    #[test]
    fn a_filter_becomes_an_encoded_query() {
        let line = Line::parse_from(["queue", "--domain", "a&b", "--ip", "::1", "--message", "0100"]);
        assert_eq!(
            line.args.list.path(),
            "/mailrail/v1/queue?limit=1000&domain=a%26b&ip=%3A%3A1&message=0100&messages=true"
        );
    }

    #[test]
    fn sums_show_site_reason_and_next_try() {
        let shown = plain(&[row()]);
        for part in
            ["mx1.example.org (a.example, b.example, c.example, 1 more)", "in 30 s", "1m ago", "451 4.7.1", "1,200"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(shown.ends_with("1,200 recipients queued, 3 of them deferred\n"));
    }

    #[test]
    fn mail_without_a_lease_says_so() {
        let held = plain(&[QueueRow { ip: None, next_try: None, held: true, ..row() }]);
        assert!(held.contains("none may take it") && held.contains(" held "), "{held}");
        assert_eq!(plain(&[]), "Nothing is queued.\n");
    }

    #[test]
    fn single_messages_are_named() {
        let id = "0100019b7ca1d0f8-5a6b7c8d-1e2f-4a3b-9c4d-5e6f708192a3-000000";
        let shown = plain(&[QueueRow { message: Some(id.into()), recipients: vec!["x@a.example".into()], ..row() }]);
        assert!(shown.contains(id) && shown.contains("x@a.example"));
    }
}
