//! `mailrail spool repair`: makes a damaged spool sound, with all that is intact; damaged files are kept aside.

use super::{Reading, Where, failure};
use crate::{
    cmd::Outcome,
    ui::{
        self,
        colour::{DIM, GOOD, paint},
    },
};
use mailrail_spool::repair::{Done, repair};
use serde::Serialize;
use std::{fmt::Write, path::PathBuf};

/// Make a damaged spool sound, keeping all that is intact
///
/// Before a file is changed, a copy of it as it was is written to `spool/damaged/` in the data directory. Run `mailrail
/// spool check` first: it names what is lost.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where copies of damaged files go [default: spool/damaged in the data directory]
    #[arg(long, value_name = "DIR")]
    aside: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    shard: u16,
    segment: u32,
    done: &'static str,
    aside: String,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Outcome {
    let shards = args.place.shards()?;
    let aside = match &args.aside {
        Some(aside) => aside.clone(),
        None => args.place.data_dir()?.join("spool").join("damaged"),
    };
    let reading = Reading::new(&shards, args.json);
    let mut lines = Vec::new();
    for (shard, path) in &shards {
        let here = path.file_name().map_or_else(|| aside.clone(), |name| aside.join(name));
        for one in repair(path, &here, reading.hears()).map_err(failure)? {
            let done = match one.done {
                Done::Mended => "replaced by a sound one with all that was intact",
                Done::Removed => "taken out: nothing in it counts (an export writes what it holds, while it is there)",
                Done::Copied => "only copied: its torn end is cut off at the next start, as after any crash",
            };
            lines.push(Line { shard: *shard, segment: one.segment, done, aside: one.aside.display().to_string() });
        }
    }
    reading.end();
    if args.json {
        return Ok(ui::print_json(&lines)?);
    }
    let mut out = String::new();
    for Line { shard, segment, done, aside } in &lines {
        let _ = writeln!(out, "shard {shard}, segment {segment:08}: {done}; {}", paint(DIM, format!("was {aside}")));
    }
    if lines.is_empty() {
        let _ = writeln!(out, "{}", paint(GOOD, "Sound: nothing to repair."));
    }
    Ok(ui::print(&out)?)
}
