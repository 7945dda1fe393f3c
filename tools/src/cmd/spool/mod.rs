//! `mailrail spool`: looks into the mail on disk, repairs and exports it, without a server.

mod check;
mod export;
mod lost;
mod repair;

use super::{Failure, Outcome, config::Which};
use crate::ui::progress::Progress;
use mailrail_spool::{OpenError, inspect::Inspection};
use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Check, repair or export the mail on disk, without a server
///
/// None of it runs while a server has the spool, and no server starts while one of these has it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail spool check\n  \
       mailrail spool check --data-dir /var/lib/mailrail --json | jq .sound\n  \
       mailrail spool repair\n  \
       mailrail spool export /tmp/mail\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
#[allow(missing_docs, reason = "each is documented at its Args, where clap takes the help from")]
enum What {
    Check(check::Args),
    Repair(repair::Args),
    Export(export::Args),
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    // What these write holds mail: for the user who runs them only.
    mailrail_engine::privileges::confine();
    match &args.what {
        What::Check(args) => check::run(args),
        What::Repair(args) => repair::run(args),
        What::Export(args) => export::run(args),
    }
}

/// Which spools.
#[derive(Clone, Debug, clap::Args)]
struct Where {
    /// Data directory of the server [default: that of the configuration]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

impl Where {
    fn data_dir(&self) -> Result<PathBuf, Failure> {
        match &self.data_dir {
            Some(directory) => Ok(directory.clone()),
            None => Ok(self.which.load()?.data_dir),
        }
    }

    /// The spool of each shard.
    fn shards(&self) -> Result<Vec<(u16, PathBuf)>, Failure> {
        let data_dir = self.data_dir()?;
        let wrong = |why: &dyn std::fmt::Display| Failure::Operation(format!("{}: {why}", data_dir.display()));
        let shards = mailrail_engine::spools(&data_dir).map_err(|error| wrong(&error))?;
        if shards.is_empty() {
            return Err(wrong(&"no spool is there; name the data directory of a server with --data-dir"));
        }
        Ok(shards)
    }
}

/// Progress over all segments of all shards.
struct Reading {
    progress: Rc<Progress>,
    done: Rc<Cell<u64>>,
}

impl Reading {
    fn new(shards: &[(u16, PathBuf)], quiet: bool) -> Self {
        let total = shards.iter().map(|(_, path)| bytes_in(path)).sum();
        let progress = if quiet { Progress::hidden() } else { Progress::bar(total, "reading") };
        Self { progress: Rc::new(progress), done: Rc::default() }
    }

    /// To be told of bytes.
    fn hears(&self) -> Box<dyn FnMut(u64)> {
        let (progress, done) = (Rc::clone(&self.progress), Rc::clone(&self.done));
        Box::new(move |bytes| {
            done.set(done.get() + bytes);
            progress.set(done.get(), "bytes".into());
        })
    }

    fn inspect(&self, path: &Path) -> Result<Inspection, Failure> {
        Inspection::open(path, self.hears()).map_err(failure)
    }

    fn end(&self) {
        self.progress.finish("bytes".into());
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

fn failure(error: OpenError) -> Failure {
    Failure::Operation(error.to_string())
}
