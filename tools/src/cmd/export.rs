//! `mailrail export`: the fleet as a file that `mailrail apply` takes.

use super::{Outcome, connect::Connect};
use crate::ui;
use mailrail_engine::control::api::types::FleetExport;

/// Print the fleet as a file that `mailrail apply` takes
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail export > fleet.toml\n"
))]
pub(crate) struct Args {
    /// Print one JSON document, with the file's text in `toml`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let fleet: FleetExport = args.connect.client()?.get("/mailrail/v1/fleet")?;
    if args.json {
        return Ok(ui::print_json(&fleet)?);
    }
    Ok(ui::print(&fleet.toml)?)
}
