//! `mailrail queue suspend|resume|retry|reroute|bounce|cancel`: what operators do to queued mail.

use super::select::Selection;
use crate::{
    client::Client,
    cmd::{Failure, Outcome, connect::Connect},
    ui::{
        self,
        table::{Left, Right, Table, dim, figure, good, text, warn},
        units,
    },
};
use mailrail_engine::{
    control::api::types::{
        account::Done,
        orders::{OrderReport, OrderRequest, Orders, SelectedReport, SuspendRequest, Suspensions},
    },
    link::orders::{Action, Filter, Suspension},
};
use std::{thread, time::Duration};

const SUSPENSIONS: &str = "/mailrail/v1/queue/suspensions";
const ORDERS: &str = "/mailrail/v1/queue/orders";
/// Between two looks at how far an order is.
const LOOK: Duration = Duration::from_millis(200);

/// What is done, to what.
#[derive(Debug, clap::Args)]
pub(crate) struct Act {
    #[command(flatten)]
    pub(crate) which: Selection,
    /// All queued mail
    #[arg(long)]
    all: bool,
    /// Why; it is kept with the audit, and senders of bounced mail read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only say how much mail is concerned
    #[arg(long)]
    dry_run: bool,
    /// Do it; bounce, cancel and reroute cannot be undone, and ask for this
    #[arg(long)]
    yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// `mailrail queue resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The suspension of this number, as `mailrail queue suspensions` shows it
    #[arg(value_name = "ID")]
    id: Option<u64>,
    #[command(flatten)]
    which: Selection,
    /// Every suspension there is
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connect: Connect,
}

/// A listing.
#[derive(Debug, clap::Args)]
pub(crate) struct Shown {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Holds mail, that which is queued and that which comes later.
pub(crate) fn suspend(act: &Act) -> Outcome {
    let client = act.connect.client()?;
    if !concerned(&client, act)? {
        return Ok(());
    }
    let request = SuspendRequest { filter: act.which.filter(), all: act.all, reason: act.reason.clone() };
    let made: Suspension = client.post(SUSPENSIONS, &request)?;
    if act.json {
        return Ok(ui::print_json(&made)?);
    }
    let text = format!(
        "Suspension {} holds {}, also what comes later; `mailrail queue resume {}` lets it go.\n",
        made.id, made.filter, made.id
    );
    Ok(ui::print(&text)?)
}

/// Lets go what was suspended with the very same filter, or by this number.
pub(crate) fn resume(args: &Resume) -> Outcome {
    let client = args.connect.client()?;
    let filter = args.which.filter();
    if args.id.is_none() && filter.is_empty() && !args.all {
        return Err(Failure::Usage("name a suspension by its number or its filter, or say --all".into()));
    }
    let known: Suspensions = client.get(SUSPENSIONS)?;
    let is_meant = |rule: &Suspension| match args.id {
        Some(id) => rule.id == id,
        None => args.all || rule.filter == filter,
    };
    let (meant, others): (Vec<_>, Vec<_>) = known.suspensions.into_iter().partition(is_meant);
    if meant.is_empty() {
        let others: Vec<_> = others.iter().map(|rule| format!("{} ({})", rule.id, rule.filter)).collect();
        let what = args.id.map_or_else(|| filter.to_string(), |id| format!("number {id}"));
        let rest =
            if others.is_empty() { "none is in force".into() } else { format!("in force: {}", others.join(", ")) };
        return Err(Failure::Operation(format!("there is no suspension of {what}; {rest}")));
    }
    for rule in meant {
        let _: Done = client.delete(&format!("{SUSPENSIONS}/{}", rule.id))?;
        ui::print(&format!("Resumed {} (suspension {}).\n", rule.filter, rule.id))?;
    }
    Ok(())
}

/// Gives an order, and waits until it is carried out.
pub(crate) fn order(act: &Act, action: Action, pool: Option<&str>) -> Outcome {
    let client = act.connect.client()?;
    if !concerned(&client, act)? {
        return Ok(());
    }
    if action != Action::Retry && !act.yes {
        return Err(Failure::Usage(format!("{} cannot be undone; say --yes to do it", action.as_str())));
    }
    let request = OrderRequest {
        action,
        filter: act.which.filter(),
        all: act.all,
        pool: pool.map(str::to_owned),
        reason: act.reason.clone(),
    };
    let mut report: OrderReport = client.post(ORDERS, &request)?;
    while !report.finished && !act.no_wait {
        thread::sleep(LOOK);
        report = client.get(&format!("{ORDERS}/{}", report.id))?;
    }
    if act.json {
        return Ok(ui::print_json(&report)?);
    }
    Ok(ui::print(&told(&report))?)
}

/// Says how much mail is concerned; false if that was all that was asked.
fn concerned(client: &Client, act: &Act) -> Result<bool, Failure> {
    if act.which.filter().is_empty() && !act.all {
        return Err(Failure::Usage("name the mail it is about, as with --domain, or say --all".into()));
    }
    let query = act.which.query();
    let query = query.strip_prefix('&').map_or_else(String::new, |query| format!("?{query}"));
    let report: SelectedReport = client.get(&format!("/mailrail/v1/queue/selected{query}"))?;
    if act.json {
        if act.dry_run {
            ui::print_json(&report)?;
        }
        return Ok(!act.dry_run);
    }
    let found = report.selected;
    let in_flight = match found.in_flight {
        0 => String::new(),
        some => format!(", {} of them in a transaction now", units::count(some)),
    };
    let text = format!(
        "{} recipients in {} messages are concerned{in_flight}.\n",
        units::count(found.recipients),
        units::count(found.messages)
    );
    ui::print(&text)?;
    if !report.silent_shards.is_empty() {
        ui::note(&format!("Shards {:?} gave no answer in time: theirs are not counted.", report.silent_shards));
    }
    Ok(!act.dry_run)
}

fn told(report: &OrderReport) -> String {
    let done = units::count(report.done);
    let what = match (report.action, &report.pool) {
        (Action::Retry, _) => "are tried now".to_owned(),
        (Action::Reroute, pool) => format!("go by pool {}", pool.as_deref().unwrap_or("-")),
        (Action::Bounce, _) => "are bounced".to_owned(),
        (Action::Cancel, _) => "are cancelled".to_owned(),
    };
    let so_far = if report.finished { "" } else { " so far; the server goes on with it" };
    let kept = match report.kept {
        0 => String::new(),
        some => format!("{} stay where they were: no leased IP of the pool may take them.\n", units::count(some)),
    };
    format!("{done} recipients {what}{so_far} (order {}).\n{kept}", report.id)
}

/// The suspensions in force.
pub(crate) fn suspensions(args: &Shown) -> Outcome {
    let known: Suspensions = args.connect.client()?.get(SUSPENSIONS)?;
    if args.json {
        return Ok(ui::print_json(&known)?);
    }
    if known.suspensions.is_empty() {
        return Ok(ui::print("Nothing is suspended.\n")?);
    }
    let mut table = Table::new(&[Right("ID"), Left("HOLDS"), Left("SINCE"), Left("BY"), Left("REASON")]);
    let now = units::now_ms();
    for rule in &known.suspensions {
        let since = units::relative(rule.made, now);
        table.row([text(rule.id), warn(&rule.filter), text(since), text(&rule.who), text(&rule.reason)]);
    }
    Ok(ui::print(&table.to_string())?)
}

/// The orders under way, and the last ones.
pub(crate) fn orders(args: &Shown) -> Outcome {
    let known: Orders = args.connect.client()?.get(ORDERS)?;
    if args.json {
        return Ok(ui::print_json(&known)?);
    }
    if known.orders.is_empty() {
        return Ok(ui::print("No order was given since the server started.\n")?);
    }
    let columns = [
        Right("ID"),
        Left("ORDER"),
        Left("MAIL"),
        Left("STATE"),
        Right("DONE"),
        Right("KEPT"),
        Left("GIVEN"),
        Left("BY"),
    ];
    let mut table = Table::new(&columns);
    let now = units::now_ms();
    for order in &known.orders {
        table.row([
            text(order.id),
            text(order.action.as_str()),
            text(filter(&order.filter)),
            if order.finished { good("done") } else { warn("under way") },
            figure(order.done),
            if order.kept > 0 { warn(units::count(order.kept)) } else { dim("-") },
            text(units::relative(order.given, now)),
            text(&order.who),
        ]);
    }
    Ok(ui::print(&table.to_string())?)
}

fn filter(filter: &Filter) -> String {
    filter.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_what_became_of_the_mail() {
        let report = OrderReport {
            id: 7,
            action: Action::Reroute,
            filter: Filter::default(),
            pool: Some("main".into()),
            reason: String::new(),
            who: "root".into(),
            given: 1,
            finished: true,
            done: 1200,
            kept: 3,
        };
        let text = told(&report);
        assert!(text.contains("1,200 recipients go by pool main (order 7)") && text.contains("3 stay"), "{text}");
        assert!(told(&OrderReport { finished: false, ..report }).contains("so far"));
    }
}
