//! `mailrail export`: the fleet as a file that `mailrail apply` takes.

use super::{Outcome, connect::Connect};
use crate::ui;
use mailrail_engine::control::api::types::{DnsRecord, FleetExport};

/// Print the fleet as a file that `mailrail apply` takes
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail export > fleet.toml\n  \
       mailrail export --dns\n"
))]
pub(crate) struct Args {
    /// Print the DNS records that its DKIM keys need instead, as lines of a zone file
    #[arg(long, conflicts_with = "json")]
    dns: bool,
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
    if args.dns {
        return Ok(ui::print(&zone_lines(&fleet.dns_records))?);
    }
    Ok(ui::print(&fleet.toml)?)
}

/// One line a record; a TXT string holds 255 octets at most (RFC 1035 section 3.3), so a long key is several.
fn zone_lines(records: &[DnsRecord]) -> String {
    let line = |record: &DnsRecord| {
        let strings: Vec<_> = record.value.as_bytes().chunks(255).map(String::from_utf8_lossy).collect();
        format!("{}. IN TXT \"{}\"\n", record.name, strings.join("\" \""))
    };
    records.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_key_is_several_strings() {
        let record = DnsRecord { name: "s._domainkey.example.com".into(), value: "x".repeat(400) };
        let line = zone_lines(&[record]);
        assert!(line.starts_with("s._domainkey.example.com. IN TXT \"xxx"), "{line}");
        assert_eq!(line.matches('"').count(), 4);
        assert!(line.split('"').all(|string| string.len() <= 255));
    }
}
