//! `mailrail rehearse`: a sending plan against models of receivers, in virtual time, by the very code that sends.

mod advice;
mod chart;
mod file;
mod models;
mod table;

use super::{Failure, Outcome};
use crate::ui::{self, progress::Progress, units};
use mailrail_queue::sim::{
    campaign::Campaign,
    report::Report,
    world::{SimError, World},
};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Campaigns that ship: name, what it shows, file.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "first-time",
        "an account's first four IPs, with overflow to the shared pool",
        include_str!("../../../../packaging/rehearse/first-time.toml"),
    ),
    (
        "moving",
        "20 million messages a day move to 100 new IPs in 45 days",
        include_str!("../../../../packaging/rehearse/moving.toml"),
    ),
    (
        "too-fast",
        "a plan that is too steep is blocked, beside three that are not",
        include_str!("../../../../packaging/rehearse/too-fast.toml"),
    ),
];

/// Progress is shown for what takes longer.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Rehearse a sending plan against models of receivers, in virtual time
///
/// The campaign says what is sent to whom on which day, and by which pools and IPs, in the words of a fleet file. It runs
/// through the same queue, egress choice, warm-up ledgers, ladders and shaping as the server; only clock and receivers are
/// models. Up to 300,000 messages are looked at one by one; of more, crowds of recipients of one stream at one receiver are
/// decided about together, and the output says how many at most. Same campaign, same seed: same result.
///
/// What receivers do is assumed (packaging/receivers.toml): no receiver publishes how it judges an IP. A plan that fails here
/// is too steep; one that passes is no promise.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail rehearse --list-examples\n  \
       mailrail rehearse --example first-time\n  \
       mailrail rehearse --example too-fast --show > campaign.toml\n  \
       mailrail rehearse campaign.toml --chart campaign.svg\n  \
       mailrail rehearse campaign.toml --seed 7 --json | jq '.days[] | [.day, .sent]'\n"
))]
pub(crate) struct Args {
    /// The campaign
    #[arg(value_name = "CAMPAIGN.toml", required_unless_present_any = ["example", "list_examples"])]
    campaign: Option<PathBuf>,
    /// A campaign that ships, instead
    #[arg(long, value_name = "NAME", conflicts_with = "campaign")]
    example: Option<String>,
    /// Name the campaigns that ship
    #[arg(long, conflicts_with_all = ["campaign", "example"])]
    list_examples: bool,
    /// Print the example's file, and run nothing
    #[arg(long, requires = "example", conflicts_with = "json")]
    show: bool,
    /// Of what is left to chance [default: the campaign's, or 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// So many days instead of the campaign's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=365))]
    days: Option<u32>,
    /// Decide about so many recipients together at most; 1: message by message [default: the campaign's, or by the volume]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    granularity: Option<u32>,
    /// Draw it as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// A line for each leased IP, not for each group of equals
    #[arg(long)]
    ips: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    campaign: &'a str,
    #[serde(flatten)]
    report: &'a Report,
    advice: &'a [String],
}

#[derive(Serialize)]
struct Example {
    name: &'static str,
    about: &'static str,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    if args.list_examples {
        return list(args);
    }
    let (name, text) = source(args)?;
    if args.show {
        return Ok(ui::print(&text)?);
    }
    let campaign = read(args, &text, Path::new(&name))?;
    let report = rehearse(&campaign, args.json)?;
    let advice = advice::of(&campaign, &report);
    if let Some(file) = &args.chart {
        let svg = chart::draw(&name, &report).map_err(Failure::Operation)?;
        fs::write(file, svg).map_err(|error| Failure::Operation(format!("{}: {error}", file.display())))?;
    }
    if args.json {
        return Ok(ui::print_json(&Document { campaign: &name, report: &report, advice: &advice })?);
    }
    let mut out = table::whole(&name, &campaign, &report, args.ips);
    out += &table::summary(&advice);
    if let Some(file) = &args.chart {
        out += &format!("\nThe chart is in {}.\n", file.display());
    }
    Ok(ui::print(&out)?)
}

fn list(args: &Args) -> Outcome {
    if args.json {
        let all: Vec<_> = EXAMPLES.iter().map(|(name, about, _)| Example { name, about }).collect();
        return Ok(ui::print_json(&all)?);
    }
    let line = |(name, about, _): &(&str, &str, &str)| format!("{name:12}  {about}\n");
    Ok(ui::print(&EXAMPLES.iter().map(line).collect::<String>())?)
}

/// What the campaign is called, and its text.
fn source(args: &Args) -> Result<(String, String), Failure> {
    if let Some(wanted) = &args.example {
        let known = EXAMPLES.iter().find(|(name, ..)| name == wanted);
        let names = || EXAMPLES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
        let (name, _, text) =
            known.ok_or_else(|| Failure::Usage(format!("there is no example \"{wanted}\"; there are {}", names())))?;
        return Ok(((*name).to_owned(), (*text).to_owned()));
    }
    let path = args.campaign.as_deref().unwrap_or(Path::new(""));
    let text = fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok((path.display().to_string(), text))
}

fn read(args: &Args, text: &str, path: &Path) -> Result<Campaign, Failure> {
    let mut campaign = file::parse(text, path).map_err(Failure::Usage)?;
    if let Some(days) = args.days {
        let whole = campaign.days;
        campaign.days = days;
        campaign.streams.iter_mut().filter(|stream| stream.days.1 == whole).for_each(|stream| {
            stream.days.1 = days.max(stream.days.0);
        });
    }
    campaign.seed = args.seed.unwrap_or(campaign.seed);
    campaign.crowd = args.granularity.or(campaign.crowd);
    Ok(campaign)
}

fn rehearse(campaign: &Campaign, quiet: bool) -> Result<Report, Failure> {
    let failed = |error: SimError| match error {
        SimError::Campaign(why) => Failure::Usage(why),
        broken @ SimError::Broken { .. } => Failure::Operation(broken.to_string()),
    };
    let mut world = World::new(campaign.clone()).map_err(failed)?;
    let (begun, mut bar) = (Instant::now(), None);
    for day in 1..=campaign.days {
        world.day().map_err(failed)?;
        if bar.is_none() && !quiet && begun.elapsed() >= SHOWN_AFTER {
            bar = Some(Progress::bar(u64::from(campaign.days), "days"));
        }
        if let Some(bar) = &bar {
            let sent: u64 = world.days().iter().map(|day| day.sums.sent).sum();
            bar.set(u64::from(day), format!("{} sent", units::count(sent)));
        }
    }
    if let Some(bar) = bar {
        bar.finish(format!("in {}", units::duration(begun.elapsed())));
    }
    Ok(world.report())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
