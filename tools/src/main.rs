//! `mailrail`: the server, the operator's client and the load-test tools in one binary.
//!
//! A thin composition root: it reads the command line, calls the libraries and shows what they say. No decision about
//! mail is made here.
#![forbid(unsafe_code)]

mod client;
mod cmd;
mod event;
mod log;
mod server;
mod ui;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    cli.colour.apply();
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui::note(&format!("{} {failure}", ui::colour::paint(ui::colour::BAD, "mailrail:")));
            failure.exit_code()
        }
    }
}
