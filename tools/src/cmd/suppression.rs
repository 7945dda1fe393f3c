//! `mailrail suppression`: addresses that get no mail, one by one and by the million.

use super::{Failure, Outcome, connect::Connect};
use crate::{
    client::{Client, encoded},
    ui::{self, progress::Progress, units},
};
use mailrail_engine::control::api::types::{
    account::Done,
    suppression::{ExportPage, ImportReport, ImportRequest, ListSuppressedDestinationsResponse},
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// Octets of a file that travel at once.
const PIECE: usize = 1 << 20;
/// Wrong lines that are shown.
const SHOWN: usize = 20;

/// Show and change suppression lists; import and export them as CSV
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail suppression add someone@example.net --reason COMPLAINT --account acme\n  \
       mailrail suppression import list.csv --all-or-nothing\n  \
       mailrail suppression export > list.csv\n  \
       mailrail suppression list --host\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// The list of this account
    #[arg(long, value_name = "NAME", default_value = "default", global = true)]
    account: String,
    /// The host's own list, for accounts that keep none of bounces
    #[arg(long, conflicts_with = "account", global = true)]
    host: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Put an address on the list
    Add {
        /// The address
        address: String,
        /// BOUNCE, COMPLAINT or MANUAL
        #[arg(long, default_value = "MANUAL")]
        reason: String,
    },
    /// Take an address off the list
    Remove {
        /// The address
        address: String,
    },
    /// Show the entry of an address
    Get {
        /// The address
        address: String,
    },
    /// Show the newest entries
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Read `address,REASON` or JSON lines from a file
    Import(Import),
    /// Write the whole list as CSV
    Export,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// The file
    file: PathBuf,
    /// Take the addresses off the list instead
    #[arg(long)]
    remove: bool,
    /// Import nothing if a line is wrong
    #[arg(long)]
    all_or_nothing: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let client = args.connect.client()?;
    let query = if args.host { "list=host".to_owned() } else { format!("account={}", encoded(&args.account)) };
    match &args.what {
        What::Add { address, reason } => add(&client, &query, address, reason),
        What::Remove { address } => {
            let _: Done = client.delete(&format!("/v2/email/suppression/addresses/{}?{query}", encoded(address)))?;
            Ok(ui::print(&format!("{address} is off the list\n"))?)
        }
        What::Get { address } => {
            let page: ExportPage =
                client.get(&format!("/mailrail/v1/suppression/addresses/{}?{query}", encoded(address)))?;
            Ok(ui::print(&page.csv)?)
        }
        What::List { limit, json } => list(&client, &query, *limit, *json),
        What::Import(how) => import(&client, &query, how),
        What::Export => export(&client, &query),
    }
}

fn add(client: &Client, query: &str, address: &str, reason: &str) -> Outcome {
    let line = serde_json::json!({ "emailAddress": address, "reason": reason.to_ascii_uppercase() }).to_string();
    let request = ImportRequest { lines: line, first_line: 1, ..ImportRequest::default() };
    let report: ImportReport = client.put(&format!("/mailrail/v1/suppression/import?{query}"), &request)?;
    match report.errors.first() {
        Some(wrong) => Err(Failure::Operation(wrong.message.clone())),
        None => Ok(ui::print(&format!("{address} is on the list\n"))?),
    }
}

fn list(client: &Client, query: &str, limit: u16, json: bool) -> Outcome {
    let path = format!("/v2/email/suppression/addresses?{query}&PageSize={limit}");
    let found: ListSuppressedDestinationsResponse = client.get(&path)?;
    if json {
        return Ok(ui::print_json(&found)?);
    }
    let mut text = String::new();
    for entry in &found.suppressed_destination_summaries {
        let time = jiff::Timestamp::from_millisecond((entry.last_update_time * 1000.0) as i64).unwrap_or_default();
        text += &format!("{time:.0}  {:<9}  {}\n", entry.reason, entry.email_address);
    }
    if found.next_token.is_some() {
        text += "... and more: mailrail suppression export writes all of them\n";
    }
    Ok(ui::print(&text)?)
}

fn import(client: &Client, query: &str, how: &Import) -> Outcome {
    let mut report = ImportReport::default();
    for dry_run in [true, false] {
        if dry_run && !how.all_or_nothing {
            continue;
        }
        report = send(client, query, how, dry_run)?;
        if dry_run && report.wrong > 0 {
            tell(&report);
            return Err(Failure::Operation(format!("{} lines are wrong: nothing was imported", report.wrong)));
        }
    }
    if how.json {
        return Ok(ui::print_json(&report)?);
    }
    tell(&report);
    let done = if how.remove { "taken off the list" } else { "imported" };
    Ok(ui::print(&format!("{} {done}, {} lines left out\n", units::count(report.entries), units::count(report.wrong)))?)
}

/// The file in pieces, each answered before the next is read.
fn send(client: &Client, query: &str, how: &Import, dry_run: bool) -> Result<ImportReport, Failure> {
    let (mut file, size) = open(&how.file)?;
    let progress =
        if how.json { Progress::hidden() } else { Progress::bar(size, if dry_run { "checking" } else { "importing" }) };
    let mut all = ImportReport::default();
    let (mut next_line, mut done) = (1, 0);
    loop {
        let mut bytes = Vec::with_capacity(PIECE + 512);
        let mut lines = 0;
        while bytes.len() < PIECE && file.read_until(b'\n', &mut bytes)? > 0 {
            lines += 1;
        }
        if lines == 0 {
            break;
        }
        done += bytes.len() as u64;
        let request = ImportRequest {
            // What is no UTF-8 is wrong in its line only.
            lines: String::from_utf8_lossy(&bytes).into_owned(),
            first_line: next_line,
            remove: how.remove,
            dry_run,
        };
        let report: ImportReport = client.put(&format!("/mailrail/v1/suppression/import?{query}"), &request)?;
        next_line += lines;
        all.entries += report.entries;
        all.wrong += report.wrong;
        let room = 100_usize.saturating_sub(all.errors.len());
        all.errors.extend(report.errors.into_iter().take(room));
        progress.set(done, format!("{} addresses, {} wrong lines", units::count(all.entries), units::count(all.wrong)));
    }
    progress.finish(format!("{} addresses", units::count(all.entries)));
    Ok(all)
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, file) = opened.map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?;
    Ok((BufReader::new(file), size))
}

fn tell(report: &ImportReport) {
    for wrong in report.errors.iter().take(SHOWN) {
        ui::note(&format!("line {}: {}", wrong.line, wrong.message));
    }
    let more = report.wrong.saturating_sub(SHOWN.min(report.errors.len()) as u64);
    if more > 0 {
        ui::note(&format!("... and {more} more"));
    }
}

fn export(client: &Client, query: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    let mut after = String::new();
    loop {
        let page: ExportPage = client.get(&format!("/mailrail/v1/suppression?{query}&after={}", encoded(&after)))?;
        match out.write_all(page.csv.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        let Some(next) = page.next else { return Ok(out.flush()?) };
        after = next;
    }
}
