//! `mailrail top`: a live view of shards, leased IPs, providers, sites, throughput and errors.
//!
//! One thread asks the server, this one draws: a server that is slow to answer holds up no key. The terminal is given back
//! however this ends: by a key, a signal, an error or a panic.

mod draw;
mod view;

use super::{Failure, Outcome, connect::Connect, stop::Stop};
use crate::client::{Client, ClientError};
use mailrail_engine::control::api::types::{QueueReport, StatusReport, provider::Providers};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{io::IsTerminal, sync::mpsc, thread, time::Duration};
use view::{Sample, View};

/// How long a key is waited for before the screen is looked at again.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Queue rows asked of a shard.
const ROWS: usize = 500;

/// Watch leased IPs with their warm-up, providers, sites, shards and throughput live
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail top\n  \
       mailrail top --interval 5\n\n\
     Keys:\n  \
       tab next table   arrows scroll   s sort by the next column   r reverse   / filter\n  \
       space pause   ? help   q quit\n"
))]
pub(crate) struct Args {
    /// Ask the server every so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let client = args.connect.client()?;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("this is for a terminal; `mailrail status --json` is for programs".into()));
    }
    // The first answer before the screen is taken: that there is no server is better read in lines.
    let mut view = View::new(sample(&client)?);
    let samples = ask(client, Duration::from_secs(args.interval));
    let stop = Stop::new()?;
    let mut terminal = ratatui::init();
    let shown = show(&mut terminal, &mut view, &samples, &stop);
    ratatui::restore();
    Ok(shown?)
}

fn show(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    samples: &mpsc::Receiver<Result<Sample, ClientError>>,
    stop: &Stop,
) -> std::io::Result<()> {
    while !view.quits() && !stop.is_asked() {
        for answer in samples.try_iter() {
            view.take(answer.map_err(|error| error.to_string()));
        }
        terminal.draw(|frame| draw::draw(frame, view))?;
        if key_waits()?
            && event::poll(Duration::ZERO)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            view.key(key);
        }
    }
    Ok(())
}

fn sample(client: &Client) -> Result<Sample, ClientError> {
    let status: StatusReport = client.get("/mailrail/v1/status")?;
    let queue: QueueReport = client.get(&format!("/mailrail/v1/queue?limit={ROWS}"))?;
    let providers: Providers = client.get("/mailrail/v1/providers")?;
    Ok(Sample { status, queue, providers })
}

/// Asks again and again, in a thread that ends with the process.
fn ask(client: Client, interval: Duration) -> mpsc::Receiver<Result<Sample, ClientError>> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        loop {
            thread::sleep(interval);
            if tell.send(sample(&client)).is_err() {
                return;
            }
        }
    });
    told
}

/// Waits a while for a key. A terminal that is gone is an error here; the library would wait for it without end.
fn key_waits() -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut ready, Some(&TICK)) {
        Err(Errno::INTR) => return Ok(false),
        other => other?,
    };
    let events = ready[0].revents();
    if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the terminal is gone"));
    }
    Ok(events.contains(PollFlags::IN))
}
