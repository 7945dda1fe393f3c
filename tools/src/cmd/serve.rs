//! `mailrail serve`: runs the server until it is told to stop.

use super::{Failure, Outcome, config::Which};
use crate::log::{self, LogArgs};
use mailrail_engine::host::{Host, Options};
use std::time::Duration;

/// Run the server
///
/// Takes mail on its listeners, delivers it from its leased IPs, and obeys the control socket. SIGTERM stops it: nothing
/// new is taken, what is in flight ends, everything is synced; a second one stops it at once. SIGHUP reads the
/// certificates again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail serve --config /etc/mailrail/mailrail.toml\n  \
       mailrail check && mailrail serve\n"
))]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// How many seconds deliveries in flight may go on after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    grace: u64,
    /// Do not forbid the process what a mail server never does (a seccomp filter): to debug or profile it
    #[arg(long)]
    no_sandbox: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    log::start(&args.log)?;
    let config = args.which.load()?;
    tracing::info!(config = %config.path.display(), version = env!("CARGO_PKG_VERSION"), "starting");
    let options = Options { signals: true, grace: Duration::from_secs(args.grace), sandbox: !args.no_sandbox };
    let host = Host::start(config, options).map_err(|error| match error.is_configuration() {
        true => Failure::Usage(error.to_string()),
        false => Failure::Operation(error.to_string()),
    })?;
    for address in host.listeners() {
        tracing::info!(%address, "takes mail");
    }
    tracing::info!(socket = %host.control_socket().display(), "serving");
    host.wait().map_err(|error| Failure::Operation(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}
