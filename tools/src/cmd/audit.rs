//! `mailrail audit`: who changed what.

use super::{Outcome, connect::Connect};
use crate::{
    client::encoded,
    ui::{
        self,
        table::{Left, Table, dim, text},
    },
};
use mailrail_engine::control::api::types::audit::AuditPage;

/// Show who changed what over the control socket, the newest first
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail audit\n  \
       mailrail audit --kind lease --name 192.0.2.10\n"
))]
pub(crate) struct Args {
    /// At most so many changes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only of this kind: account, pool, ip, lease, warmup, dkim, domain, setting, suppression
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only of the thing of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut path = format!("/mailrail/v1/audit?limit={}", args.limit);
    for (key, value) in [("kind", &args.kind), ("name", &args.name)] {
        if let Some(value) = value {
            path += &format!("&{key}={}", encoded(value));
        }
    }
    let page: AuditPage = args.connect.client()?.get(&path)?;
    if args.json {
        return Ok(ui::print_json(&page)?);
    }
    if page.entries.is_empty() {
        return Ok(ui::print("Nothing was changed.\n")?);
    }
    let columns = ["TIME", "WHO", "DONE", "WHAT", "BEFORE", "AFTER"].map(Left);
    let mut table = Table::new(&columns);
    for row in &page.entries {
        let time = jiff::Timestamp::from_millisecond(row.time as i64).unwrap_or_default();
        let words = |words: &Option<String>| words.as_ref().map_or_else(|| dim("-"), text);
        table.row([
            text(format!("{time:.0}")),
            text(&row.who),
            text(&row.action),
            text(format!("{} {}", row.kind, row.name)),
            words(&row.before),
            words(&row.after),
        ]);
    }
    Ok(ui::print(&table.to_string())?)
}
