//! `mailrail man`: a manual page for the program and one for each subcommand, from the same source as `--help`.

use super::{Cli, Failure, Outcome};
use clap::CommandFactory;
use std::path::PathBuf;

/// Write manual pages into a directory, one for each subcommand
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail man /usr/local/share/man/man1\n"
))]
pub(crate) struct Args {
    /// Where to write them; made if missing
    directory: PathBuf,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let failed = |why| Failure::Operation(format!("writing manual pages to {}: {why}", args.directory.display()));
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.directory).map_err(failed)?;
    let pages = std::fs::read_dir(&args.directory).map_err(failed)?.count();
    crate::ui::note(&format!("{pages} pages in {}", args.directory.display()));
    Ok(())
}
