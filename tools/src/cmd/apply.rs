//! `mailrail apply`: makes the fleet what a file says, and shows what that changes.

use super::{Failure, Outcome, connect::Connect};
use crate::ui::{
    self,
    colour::{BAD, DIM, GOOD, WARN, paint},
};
use mailrail_engine::control::api::types::{Action, ApplyReport, Change, FleetRequest};
use std::{fmt::Write, path::PathBuf};

/// Make pools, leased IPs, DKIM keys and domain rules what a file says
///
/// All or nothing, live at once, durable, without a restart. What the file does not name is removed. A second run changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail apply --dry-run fleet.toml\n  \
       mailrail apply fleet.toml\n  \
       mailrail export | sed 's/out1/mail1/' > new.toml && mailrail apply new.toml\n"
))]
pub(crate) struct Args {
    /// The fleet file; key files in it are relative to it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let unreadable = |why| Failure::Usage(format!("reading the fleet file {}: {why}", args.file.display()));
    let text = std::fs::read_to_string(&args.file).map_err(unreadable)?;
    // The server may run elsewhere in the tree: it gets the place as a full path.
    let file = std::path::absolute(&args.file).map_err(unreadable)?;
    let request = FleetRequest {
        toml: text,
        file: Some(args.file.display().to_string()),
        directory: file.parent().map(PathBuf::from),
    };
    let client = args.connect.client()?;
    let path = if args.dry_run { "/mailrail/v1/fleet?dry_run=true" } else { "/mailrail/v1/fleet" };
    let report: ApplyReport = client.put(path, &request)?;
    if args.json {
        return Ok(ui::print_json(&report)?);
    }
    Ok(ui::print(&shown(&report))?)
}

/// The changes as a diff: added, removed, and before and after.
fn shown(report: &ApplyReport) -> String {
    let mut out = String::new();
    let line = |out: &mut String, style, mark, change: &Change, value: Option<&String>| {
        let value = value.map(String::as_str).unwrap_or_default();
        let _ = writeln!(
            out,
            "{} {}",
            paint(style, format!("{mark} {:<7} {}", change.kind.as_str(), change.name)),
            paint(DIM, value)
        );
    };
    for change in &report.changes {
        match change.action {
            Action::Add => line(&mut out, GOOD, '+', change, change.after.as_ref()),
            Action::Remove => line(&mut out, BAD, '-', change, change.before.as_ref()),
            Action::Change => {
                line(&mut out, WARN, '-', change, change.before.as_ref());
                line(&mut out, WARN, '+', change, change.after.as_ref());
            }
        }
    }
    let count = |action| report.changes.iter().filter(|change| change.action == action).count();
    let (added, changed, removed) = (count(Action::Add), count(Action::Change), count(Action::Remove));
    let sums = format!("{added} added, {changed} changed, {removed} removed");
    match (report.changes.is_empty(), report.dry_run) {
        (true, _) => out.push_str("Nothing to change.\n"),
        (false, true) => {
            let _ = writeln!(out, "\nWould be: {sums}. Nothing was changed.");
        }
        (false, false) => {
            let _ = writeln!(out, "\n{sums}.");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailrail_engine::control::api::types::Kind;

    fn change(action: Action, before: Option<&str>, after: Option<&str>) -> Change {
        Change {
            action,
            kind: Kind::Ip,
            name: "127.0.10.1".into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        }
    }

    #[test]
    fn a_change_shows_before_and_after() {
        let report = ApplyReport {
            dry_run: true,
            version: 7,
            changes: vec![
                change(Action::Change, Some("helo=a"), Some("helo=b")),
                change(Action::Add, None, Some("helo=c")),
            ],
        };
        let shown = anstream::adapter::strip_str(&shown(&report)).to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(
            lines[..3],
            ["- ip      127.0.10.1 helo=a", "+ ip      127.0.10.1 helo=b", "+ ip      127.0.10.1 helo=c"]
        );
        assert!(shown.ends_with("Would be: 1 added, 1 changed, 0 removed. Nothing was changed.\n"), "{shown}");
    }

    #[test]
    fn no_change_says_so() {
        assert_eq!(shown(&ApplyReport::default()), "Nothing to change.\n");
    }
}
