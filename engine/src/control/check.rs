//! A fleet file looked at without a server: what `mailrail check --fleet` says.

use super::{fleet::Fleet, post::Post, rdns, resolver::Resolver};
use crate::config::Config;
use std::{path::Path, sync::Arc};

/// What was found in a fleet file that is in order.
pub struct FleetFindings {
    /// How many pools, leased IPs, DKIM keys and domain rules it has.
    pub counts: [usize; 4],
    /// A line each.
    pub warnings: Vec<String>,
}

/// Reads a fleet file as this host would, and looks up the reverse DNS of its IPs. Blocks.
///
/// # Errors
/// Where the file is wrong; or, with `strict_rdns`, which IPs would be refused.
pub fn check_fleet(config: Arc<Config>, path: &Path) -> Result<FleetFindings, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let whole = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let directory = whole.parent().unwrap_or(Path::new("/"));
    let fleet = Fleet::parse(&text, path, directory, config.shards, &Fleet::default()).map_err(|error| error.0)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let warnings = runtime.block_on(async {
        let resolver = Resolver::new(config, Arc::new(Post::new(Vec::new())))?;
        Ok::<_, String>(rdns::findings(&fleet, &resolver).await)
    })?;
    if fleet.strict_rdns() && !warnings.is_empty() {
        return Err(format!("{}: strict_rdns = true, and {}", path.display(), warnings.join("; ")));
    }
    Ok(FleetFindings { counts: fleet.counts(), warnings })
}
