//! The command line: every subcommand, the options they share, and how they end.

pub(crate) mod account;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod ip;
pub(crate) mod load;
pub(crate) mod man;
mod plan;
pub(crate) mod pool;
pub(crate) mod provider;
pub(crate) mod queue;
pub(crate) mod rehearse;
pub(crate) mod serve;
pub(crate) mod sink;
pub(crate) mod spool;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod suppression;
pub(crate) mod top;
pub(crate) mod torture;
pub(crate) mod trace;

use crate::client::ClientError;
use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

/// What every subcommand's long help ends with: its examples, then the exit codes.
macro_rules! after_help {
    ($examples:expr) => {
        concat!(
            "Examples:\n",
            $examples,
            "\nExit codes:\n  0  it worked\n  1  it was tried and failed\n  2  wrong usage or configuration\n  \
             3  no server could be reached\n"
        )
    };
}
pub(crate) use after_help;

/// Outbound mail server for hosts with leased IP addresses
#[derive(Debug, Parser)]
#[command(name = "mailrail", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// When to use colours; NO_COLOR is honoured
    #[arg(long = "color", value_name = "WHEN", default_value = "auto", global = true)]
    pub(crate) colour: Colour,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    /// Makes it hold for everything this process prints.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is documented at its Args, where clap takes the help from")]
pub(crate) enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Check(check::Args),
    Status(status::Args),
    Top(top::Args),
    Queue(Box<queue::Args>),
    Explain(explain::Args),
    Ip(ip::Args),
    Pool(pool::Args),
    Provider(provider::Args),
    Trace(trace::Args),
    Apply(apply::Args),
    Export(export::Args),
    Account(account::Args),
    Suppression(suppression::Args),
    Audit(audit::Args),
    Spool(spool::Args),
    Load(load::Args),
    Sink(sink::Args),
    Rehearse(rehearse::Args),
    Compare(compare::Args),
    Torture(torture::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    /// Runs the subcommand to its end.
    pub(crate) fn run(&self) -> Outcome {
        match self {
            Self::Demo(args) => demo::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Check(args) => check::run(args),
            Self::Status(args) => status::run(args),
            Self::Top(args) => top::run(args),
            Self::Queue(args) => queue::run(args),
            Self::Explain(args) => explain::run(args),
            Self::Ip(args) => ip::run(args),
            Self::Pool(args) => pool::run(args),
            Self::Provider(args) => provider::run(args),
            Self::Trace(args) => trace::run(args),
            Self::Apply(args) => apply::run(args),
            Self::Export(args) => export::run(args),
            Self::Account(args) => account::run(args),
            Self::Audit(args) => audit::run(args),
            Self::Suppression(args) => suppression::run(args),
            Self::Spool(args) => spool::run(args),
            Self::Load(args) => load::run(args),
            Self::Sink(args) => sink::run(args),
            Self::Rehearse(args) => rehearse::run(args),
            Self::Compare(args) => compare::run(args),
            Self::Torture(args) => torture::run(args),
            Self::Completions(args) => completions::run(args),
            Self::Man(args) => man::run(args),
        }
    }
}

/// How a subcommand ends.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a subcommand did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was tried and failed.
    #[error("{0}")]
    Operation(String),
    /// The command line, or a file it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nobody is there.
    #[error("no server at {0}")]
    Unreachable(String),
    /// The server could not be asked, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Output could not be written.
    #[error("writing the output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// As documented in every `--help`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Operation(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Client(error) if error.unreachable() => 3,
            Self::Client(_) => 1,
        })
    }
}
