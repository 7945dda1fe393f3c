//! A fleet file for a rehearsal: what it means, without a host that has its addresses and keys.

use super::{
    fleet::{Fleet, For},
    pools::PlanItem,
};
use crate::config::Source;
use mailrail_queue::{policy::Policy, time::Wall};
use std::path::Path;

/// The policy that a fleet file, or the fleet's part of a campaign, means for a host of one shard that gets it at `now`.
///
/// # Errors
/// Where the file is wrong, and what is wrong there.
pub fn rehearse_fleet(text: &str, path: &Path, now: Wall) -> Result<Policy, String> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let (source, none) = (Source { text, path, directory }, Fleet::default());
    let mut fleet = Fleet::parse_for(For::Rehearsal, source, 1, &none).map_err(|error| error.0)?;
    fleet.follow(&none, 1, now)?;
    Ok(fleet.policy(1, 1))
}

/// Is this a warm-up plan, as files write it?
///
/// # Errors
/// Why it is none, in words.
pub fn check_plan(value: &toml::Value) -> Result<(), String> {
    PlanItem::from_toml(value).map(drop)
}
