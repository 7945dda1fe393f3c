//! `mailrail spool check`: what the spool holds, and every place of it that is damaged.

use super::{Reading, Where, lost::Place};
use crate::{
    cmd::{Failure, Outcome},
    ui::{
        self,
        colour::{BAD, GOOD, HEAD, WARN, paint},
        table::{Left, Right, Table, figure, text},
        units,
    },
};
use mailrail_engine::message::kept::KeptEnvelope;
use mailrail_spool::inspect::Inspection;
use serde::Serialize;
use std::{collections::HashMap, fmt::Write, path::Path};

/// Say what the spool holds and name every damaged place; changes nothing
///
/// Ends with 1 if anything is damaged.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Domains to list, those with most recipients first
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    sound: bool,
    shards: Vec<Shard>,
    /// Queued recipients by domain, most first.
    domains: Vec<Domain>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shard {
    shard: u16,
    path: String,
    segments: u64,
    bytes: u64,
    /// Queued: messages, their bytes in the spool, recipients.
    messages: u64,
    live_bytes: u64,
    recipients: u64,
    /// Settled messages that can still be read.
    settled: u64,
    /// Records behind a torn end: never answered, cut off at the next start.
    torn: u64,
    damage: Vec<Place>,
}

#[derive(Serialize)]
struct Domain {
    domain: String,
    recipients: u64,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Outcome {
    let shards = args.place.shards()?;
    let reading = Reading::new(&shards, args.json);
    let mut report = Report { sound: true, shards: Vec::new(), domains: Vec::new() };
    let mut domains = HashMap::new();
    for (number, path) in &shards {
        let inspection = reading.inspect(path)?;
        report.shards.push(shard(*number, path, &inspection, &mut domains));
    }
    reading.end();
    report.sound = report.shards.iter().all(|shard| shard.damage.is_empty());
    report.domains = domains.into_iter().map(|(domain, recipients)| Domain { domain, recipients }).collect();
    report.domains.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.domain.cmp(&b.domain)));
    report.domains.truncate(args.top);
    if args.json {
        ui::print_json(&report)?;
    } else {
        ui::print(&shown(&report))?;
    }
    let places: usize = report.shards.iter().map(|shard| shard.damage.len()).sum();
    if report.sound {
        return Ok(());
    }
    Err(Failure::Operation(format!(
        "damaged places: {places}; `mailrail spool repair` keeps all that is intact, and the damaged files aside"
    )))
}

fn shard(number: u16, path: &Path, inspection: &Inspection, domains: &mut HashMap<String, u64>) -> Shard {
    let usage = inspection.usage();
    let mut settled = 0;
    inspection.for_each(|kept| {
        if !kept.live {
            settled += 1;
            return;
        }
        let Some(envelope) = KeptEnvelope::decode(kept.view.meta) else { return };
        for (address, state) in envelope.recipients.iter().zip(kept.view.recipients) {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase();
            *domains.entry(domain).or_default() += u64::from(!state.settled);
        }
    });
    domains.retain(|_, recipients| *recipients > 0);
    Shard {
        shard: number,
        path: path.display().to_string(),
        segments: usage.segments,
        bytes: usage.bytes,
        messages: usage.messages,
        live_bytes: usage.live_bytes,
        recipients: usage.recipients,
        settled,
        torn: inspection.recovery().torn,
        damage: inspection.recovery().lost.iter().map(|damage| Place::of(damage, inspection)).collect(),
    }
}

fn shown(report: &Report) -> String {
    let mut out = String::new();
    for shard in &report.shards {
        let _ = writeln!(out, "{} {}", paint(HEAD, format!("shard {}", shard.shard)), shard.path);
        let _ = writeln!(
            out,
            "  queued {} messages, {} recipients, {}; {} segments, {} on disk",
            units::count(shard.messages),
            units::count(shard.recipients),
            units::bytes(shard.live_bytes),
            shard.segments,
            units::bytes(shard.bytes)
        );
        if shard.torn > 0 {
            let text = "records behind a torn end, never answered: cut off at the next start, as after any crash";
            let _ = writeln!(out, "  {} {text}", paint(WARN, units::count(shard.torn)));
        }
        for place in &shard.damage {
            let mut lines = String::new();
            place.write(&mut lines);
            let _ = write!(out, "{}", paint(BAD, lines.trim_end()));
            out.push('\n');
        }
    }
    if !report.domains.is_empty() {
        let mut table = Table::new(&[Left("DOMAIN"), Right("RECIPIENTS")]);
        for Domain { domain, recipients } in &report.domains {
            table.row([text(domain), figure(*recipients)]);
        }
        let _ = write!(out, "\n{table}");
    }
    let lost: usize = report.shards.iter().flat_map(|shard| &shard.damage).map(Place::messages).sum();
    match (report.sound, lost) {
        (true, _) => out.push_str(&format!("\n{}\n", paint(GOOD, "Sound."))),
        (false, 0) => out.push_str("\nDamaged; no lost message is known by name.\n"),
        (false, lost) => out.push_str(&format!("\nDamaged; {lost} lost messages are named above.\n")),
    }
    out
}
