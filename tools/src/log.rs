//! The log of a running server: for people on a terminal, JSON lines otherwise, always on standard error.

use crate::cmd::Failure;
use clap::ValueEnum;
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// How much is logged, and how it looks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: off, error, warn, info, debug, or a tracing filter
    #[arg(long, value_name = "FILTER", env = "MAILRAIL_LOG", default_value = "info")]
    log: String,
    /// How it looks
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
}

/// See each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people on a terminal, JSON otherwise
    Auto,
    /// For people
    Human,
    /// A JSON object a line
    Json,
}

/// Starts logging, once a process.
///
/// # Errors
/// The filter is none.
pub(crate) fn start(args: &LogArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| Failure::Usage(format!("--log \"{}\" is no filter: {error}; try info or debug", args.log)))?;
    let terminal = io::stderr().is_terminal();
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let human = args.log_format == LogFormat::Human || (args.log_format == LogFormat::Auto && terminal);
    // A second start in one process has its logger already.
    let _ = if human {
        logger.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).try_init()
    } else {
        logger.json().flatten_event(true).try_init()
    };
    Ok(())
}
