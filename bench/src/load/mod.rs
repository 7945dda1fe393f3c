//! SMTP load generator: offers messages in a closed or an open loop, and says exactly which recipients got a 250.
//!
//! Far lighter than what it tests: one epoll a thread, one write and one read a message where the server offers
//! PIPELINING, nothing allocated a message but its envelope. It talks to the one address it is given and nothing else.

mod client;
mod header;
mod message;
mod reply;
mod schedule;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::tls::{TlsError, client_config};
use client::Habits;
pub use header::Header;
use message::{Ingredients, Recipe};
pub use message::{RecipientDomain, Sizes};
use schedule::Schedule;
pub use schedule::{Amount, Pace};
use tally::{Live, Tally};
pub use tally::{LoadOutcome, LoadReport, Progress, RecipientCounts};
use worker::Worker;

/// Whether connections use TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Plaintext.
    #[default]
    None,
    /// STARTTLS, required.
    Starttls,
    /// TLS from the first byte (port 465).
    Implicit,
}

/// What became of one transaction.
#[derive(Debug)]
pub struct Record<'a> {
    /// Number of the message in the run.
    pub number: u64,
    /// Its `X-Load-Id`.
    pub id: &'a str,
    /// Recipients that got 250 to the final dot.
    pub accepted: &'a [&'a str],
    /// Recipients refused for good, with the last code.
    pub refused: &'a [(&'a str, u16)],
    /// Recipients of which nobody can tell: the connection was lost behind the final dot.
    pub in_doubt: &'a [&'a str],
    /// Text of the answer to the final dot, without its code.
    pub reply: &'a str,
}

/// Called once for every transaction that ended, from the generator's threads; it must be quick.
pub type Recorder = Arc<dyn Fn(&Record<'_>) + Send + Sync>;

/// A run of the load generator: what is sent, how, and how fast.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub target: SocketAddr,
    /// Connections at once.
    pub connections: usize,
    /// Closed or open loop.
    pub pace: Pace,
    /// How much is sent.
    pub amount: Amount,
    /// Time over which the rate rises (open loop) or the connections open (closed loop).
    pub ramp: Duration,
    /// Same seed, same messages.
    pub seed: u64,
    /// Name of the run, first part of every `X-Load-Id`; different for runs whose mail meets in one sink.
    pub run: String,
    /// Content sizes.
    pub sizes: Sizes,
    /// Envelope senders and From addresses.
    pub senders: Vec<String>,
    /// Recipient domains.
    pub domains: Vec<RecipientDomain>,
    /// Fewest and most recipients of a message.
    pub recipients_per_message: (usize, usize),
    /// Headers on top of the usual ones.
    pub headers: Vec<Header>,
    /// Some lines begin with a dot.
    pub dot_lines: bool,
    /// TLS.
    pub tls: TlsMode,
    /// AUTH PLAIN: user and password.
    pub auth: Option<(String, String)>,
    /// Uses PIPELINING where offered.
    pub pipelining: bool,
    /// Messages on a connection before it is closed and opened anew.
    pub messages_per_connection: Option<u32>,
    /// How often a transaction is tried at most: again after 4xx or a lost connection.
    pub attempts_max: u32,
    /// Pause before it is tried again.
    pub retry_after: Duration,
    /// A reply that takes longer breaks the connection.
    pub reply_timeout: Duration,
    /// How long a server may refuse all connections before the run gives up.
    pub patience: Duration,
    /// Threads; the connections are shared out among them.
    pub threads: usize,
    /// EHLO name, and the host of Message-ID.
    pub hostname: String,
    /// Keeps the ledger of accepted recipients.
    pub ledger: bool,
    /// Called for every transaction that ended.
    pub record: Option<Recorder>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password stays out of logs.
        f.debug_struct("Load").field("target", &self.target).field("run", &self.run).finish_non_exhaustive()
    }
}

/// Why a run cannot start.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A setting that makes no sense.
    #[error("load: {0}")]
    Setting(&'static str),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No thread or epoll to be had.
    #[error("cannot start a thread of the load generator: {0}")]
    Thread(#[from] io::Error),
}

impl Load {
    /// 1,000 messages of 4 KiB over 10 connections in a closed loop, one recipient each at `example.com`.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            connections: 10,
            pace: Pace::Closed,
            amount: Amount::Messages(1000),
            ramp: Duration::ZERO,
            seed: 1,
            run: "load".into(),
            sizes: Sizes::Fixed(4096),
            senders: vec!["sender@example.com".into()],
            domains: vec![RecipientDomain::new("example.com")],
            recipients_per_message: (1, 1),
            headers: Vec::new(),
            dot_lines: true,
            tls: TlsMode::None,
            auth: None,
            pipelining: true,
            messages_per_connection: None,
            attempts_max: 5,
            retry_after: Duration::from_millis(100),
            reply_timeout: Duration::from_secs(300),
            patience: Duration::from_secs(10),
            threads: 1,
            hostname: "load.test".into(),
            ledger: true,
            record: None,
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`LoadError`] where the run cannot start; what goes wrong later is in the report.
    pub fn run(self) -> Result<LoadOutcome, LoadError> {
        Ok(self.start()?.wait())
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// [`LoadError`], as its variants say; nothing runs then.
    pub fn start(self) -> Result<Running, LoadError> {
        self.check()?;
        let tls = if self.tls == TlsMode::None { None } else { Some(client_config()?) };
        let recipe = Recipe::new(Ingredients {
            run: self.run.clone(),
            seed: self.seed,
            hostname: self.hostname.clone(),
            sizes: self.sizes,
            senders: self.senders,
            domains: self.domains,
            per_message: self.recipients_per_message,
            headers: self.headers,
            dot_lines: self.dot_lines,
        });
        let shared = Arc::new(Shared {
            target: self.target,
            recipe,
            habits: Habits {
                hostname: self.hostname,
                starttls: self.tls == TlsMode::Starttls,
                auth: self.auth,
                pipelining: self.pipelining,
                messages_max: self.messages_per_connection.unwrap_or(u32::MAX).max(1),
            },
            schedule: Schedule { pace: self.pace, amount: self.amount, ramp: self.ramp },
            tls,
            implicit_tls: self.tls == TlsMode::Implicit,
            attempts_max: self.attempts_max.max(1),
            retry_after: self.retry_after,
            reply_timeout: self.reply_timeout,
            patience: self.patience,
            connections: self.connections,
            keeps_ledger: self.ledger,
            record: self.record,
            began: Instant::now(),
            next: AtomicU64::new(0),
            live: Live::default(),
            stop: AtomicBool::new(false),
        });
        let threads = self.threads.clamp(1, self.connections);
        let mut running = Running { shared: Arc::clone(&shared), threads: Vec::with_capacity(threads) };
        for thread in 0..threads {
            let slots = (thread..self.connections).step_by(threads).collect();
            let worker = Worker::new(Arc::clone(&shared), slots)?;
            let name = format!("bench-load-{thread}");
            running.threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        Ok(running)
    }

    fn check(&self) -> Result<(), LoadError> {
        let wrong = [
            (self.connections == 0, "no connections; give it at least 1"),
            (self.senders.is_empty(), "no senders; give it at least one address"),
            (self.domains.is_empty(), "no recipient domains; give it at least one"),
            (self.recipients_per_message.1 > usize::from(u16::MAX), "more than 65,535 recipients in a message"),
            (!self.domains.iter().any(|domain| domain.weight > 0.0), "no recipient domain has a weight above 0"),
            (
                matches!(self.pace, Pace::Open(rate) if !(rate > 0.0 && rate.is_finite())),
                "the rate of an open loop must be above 0",
            ),
            (
                self.run.is_empty() || self.run.bytes().any(|byte| !byte.is_ascii_graphic()),
                "the run's name must be plain ASCII without blanks",
            ),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(LoadError::Setting(why)),
            None => Ok(()),
        }
    }
}

/// What the threads of a run share.
struct Shared {
    target: SocketAddr,
    recipe: Recipe,
    habits: Habits,
    schedule: Schedule,
    tls: Option<Arc<rustls::ClientConfig>>,
    implicit_tls: bool,
    attempts_max: u32,
    retry_after: Duration,
    reply_timeout: Duration,
    patience: Duration,
    connections: usize,
    keeps_ledger: bool,
    record: Option<Recorder>,
    began: Instant,
    /// Number of the next message nobody has begun.
    next: AtomicU64,
    live: Live,
    stop: AtomicBool,
}

/// A run under way. Dropping it lets it go on unattended until its end.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Running {
    /// Where it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.live.progress(self.shared.began.elapsed())
    }

    /// True once all threads are done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Begins no further message; what is under way is finished, what waits for another try is given up.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end.
    #[must_use]
    pub fn wait(self) -> LoadOutcome {
        let mut tally = Tally::default();
        for thread in self.threads {
            match thread.join() {
                Ok(one) => tally.merge(one),
                Err(_) => {
                    *tally.report.errors.entry("a thread of the load generator panicked".into()).or_default() += 1
                }
            }
        }
        let end = tally.last_answer.unwrap_or_else(Instant::now);
        let elapsed = end.saturating_duration_since(self.shared.began);
        tally.outcome(&self.shared.recipe.of.run, elapsed)
    }
}
