//! `mailrail check`: validates a configuration and says what the server would do with it, without starting it.

use super::{Failure, Outcome, config::Which};
use crate::ui::{
    self,
    colour::{DIM, GOOD, WARN, paint},
};
use mailrail_engine::{
    config::{Config, Finding, explain},
    control::check_fleet,
    host,
};
use serde::Serialize;
use std::{fmt::Write, path::PathBuf, sync::Arc};

/// Validate a configuration and explain it, without starting anything
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail check --config mailrail.toml\n  \
       mailrail check --fleet fleet.toml               # that too, and reverse DNS\n  \
       mailrail check --reference > mailrail.toml      # every setting, explained\n"
))]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// A fleet file to validate too, with the reverse DNS of its IPs
    #[arg(long, value_name = "FILE", conflicts_with = "reference")]
    fleet: Option<PathBuf>,
    /// Print a complete, commented configuration instead
    #[arg(long, conflicts_with = "json")]
    reference: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    config: String,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    if args.reference {
        return Ok(ui::print(Config::reference())?);
    }
    let config = args.which.load()?;
    host::check_files(&config).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut report = Report { config: config.path.display().to_string(), notes: Vec::new(), warnings: Vec::new() };
    for finding in explain(&config) {
        match finding {
            Finding::Note(text) => report.notes.push(text),
            Finding::Warning(text) => report.warnings.push(text),
        }
    }
    if let Some(file) = &args.fleet {
        let found = check_fleet(Arc::new(config), file).map_err(Failure::Usage)?;
        let [pools, ips, keys, domains] = found.counts;
        let counts = format!("{pools} pools, {ips} leased IPs, {keys} DKIM keys, {domains} domain rules");
        report.notes.push(format!("{}: {counts}", file.display()));
        report.warnings.extend(found.warnings);
    }
    if args.json {
        return Ok(ui::print_json(&report)?);
    }
    let mut out = format!("{} {}\n", report.config, paint(GOOD, "is valid"));
    for note in &report.notes {
        let _ = writeln!(out, "  {} {note}", paint(DIM, "-"));
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "  {} {warning}", paint(WARN, "warning:"));
    }
    Ok(ui::print(&out)?)
}
