//! `mailrail explain`: why mail is going out now, or is not.

use super::{Outcome, connect::Connect};
use crate::{
    client::encoded,
    ui::{
        self,
        colour::{DIM, GOOD, HEAD, WARN, paint},
        units,
    },
};
use mailrail_engine::{
    control::api::types::orders::{ExplainReport, SubjectKind},
    link::orders::{Cause, Explanation},
};
use std::fmt::Write;

/// Say why mail of a message, for a domain or by a leased IP goes out now or does not
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail explain 0100019b7ca1d0f8-5a6b7c8d-1e2f-4a3b-9c4d-5e6f708192a3-000000\n  \
       mailrail explain example.org\n  \
       mailrail explain 192.0.2.10 --json | jq '.rows[] | {cause, text, nextTry}'\n"
))]
pub(crate) struct Args {
    /// A message id, a recipient domain or a leased IP
    #[arg(value_name = "MESSAGE-ID | DOMAIN | IP")]
    subject: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let path = format!("/mailrail/v1/explain/{}", encoded(&args.subject));
    let report: ExplainReport = args.connect.client()?.get(&path)?;
    if args.json {
        return Ok(ui::print_json(&report)?);
    }
    ui::print(&shown(&report, units::now_ms()))?;
    if !report.silent_shards.is_empty() {
        ui::note(&format!("Shards {:?} gave no answer in time: theirs is missing here.", report.silent_shards));
    }
    Ok(())
}

/// All of it; `now` in milliseconds since the epoch.
fn shown(report: &ExplainReport, now: u64) -> String {
    let what = match report.kind {
        SubjectKind::Message => "message",
        SubjectKind::Domain => "domain",
        SubjectKind::Ip => "leased IP",
    };
    let mut out = format!("{} {}\n", paint(HEAD, what), paint(HEAD, &report.subject));
    for note in &report.notes {
        let _ = writeln!(out, "{note}");
    }
    for row in &report.rows {
        let _ = write!(out, "\n{}", one(row, now));
    }
    out
}

fn one(row: &Explanation, now: u64) -> String {
    let goes = matches!(row.cause, Cause::InFlight | Cause::Ready | Cause::ConnectionLimit | Cause::Ending);
    let plural = if row.recipients == 1 { "" } else { "s" };
    let count = format!("{} recipient{plural}", units::count(row.recipients));
    let mut out = format!("{}: {}\n", paint(if goes { GOOD } else { WARN }, count), row.text);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {} {value}", paint(DIM, format!("{name:<9}")));
    };
    let names = if row.addresses.is_empty() { &row.domains } else { &row.addresses };
    let more = row.recipients.saturating_sub(names.len() as u64);
    let more =
        if row.addresses.is_empty() || more == 0 { String::new() } else { format!(" and {} more", units::count(more)) };
    line("to", format!("{}{more}", names.join(", ")));
    if let Some(site) = &row.site {
        let of = row.provider.as_ref().map_or_else(String::new, |provider| format!(", of {provider}"));
        line("site", format!("{site}{of}"));
    }
    line("from", row.ip.map_or_else(|| "no leased IP yet".into(), |ip| format!("{ip}, shard {}", row.shard)));
    let next = match (row.next_try, row.cause) {
        (Some(at), _) if at > now => units::relative(at, now),
        (Some(_), _) => "now".into(),
        (None, Cause::Suspended) => "not before it is resumed".into(),
        (None, Cause::NoLease) => "when a leased IP may take it".into(),
        (None, Cause::Dns) => "when the DNS answers".into(),
        (None, Cause::Spool) => "when the spool can".into(),
        (None, Cause::InFlight) => "under way".into(),
        (None, _) => "now".into(),
    };
    line("next try", next);
    if row.attempts > 0 {
        line("tries", row.attempts.to_string());
    }
    line("given up", units::relative(row.expires, now));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Explanation {
        Explanation {
            shard: 1,
            cause: Cause::Deferred,
            text: "mx1.example.org: 451 4.7.1 greylisted".into(),
            recipients: 3,
            addresses: vec!["a@example.org".into()],
            domains: vec!["example.org".into()],
            site: Some("mx1.example.org".into()),
            provider: Some("big".into()),
            ip: Some([192, 0, 2, 10].into()),
            attempts: 2,
            next_try: Some(91_000),
            expires: 3_661_000,
        }
    }

    fn plain(row: &Explanation) -> String {
        anstream::adapter::strip_str(&one(row, 61_000)).to_string()
    }

    #[test]
    fn it_says_what_holds_mail_and_until_when() {
        let shown = plain(&row());
        for part in
            ["3 recipients: mx1.example.org: 451 4.7.1", "a@example.org and 2 more", "192.0.2.10, shard 1", "in 30 s"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn without_a_time_it_says_what_it_waits_for() {
        let suspended = Explanation { cause: Cause::Suspended, next_try: None, ip: None, ..row() };
        let shown = plain(&suspended);
        assert!(shown.contains("not before it is resumed") && shown.contains("no leased IP yet"), "{shown}");
    }
}
