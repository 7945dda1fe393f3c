//! `mailrail completions`: a shell's completion script on standard output.

use super::{Cli, Outcome};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail completions bash > /usr/share/bash-completion/completions/mailrail\n  \
       mailrail completions fish > ~/.config/fish/completions/mailrail.fish\n"
))]
pub(crate) struct Args {
    /// The shell to write for
    shell: Shell,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mailrail", &mut script);
    crate::ui::print(&String::from_utf8_lossy(&script))?;
    Ok(())
}
