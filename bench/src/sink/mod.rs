//! SMTP sink: takes mail as many different receivers would, and keeps exact books of it.
//!
//! One process stands for a world of receivers: it listens on as many addresses as it is given, and behaves by the
//! model of the listener and of each recipient's domain ([`crate::model`]). It never relays and never leaves the
//! addresses it was given. One thread with one epoll does it all, more where asked for; signatures are checked on
//! threads of their own.

mod books;
mod connection;
mod counts;
mod data;
pub mod dkim;
mod maildir;
mod policy;
mod reactor;
mod session;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::latency::Latency;
use crate::ledger::Ledger;
use crate::model::{Listener, ModelError, Models};
use crate::tls::{TlsError, TlsIdentity, server_config};
use books::Books;
pub use counts::{Counts, SinkReport};
use dkim::{DkimError, DkimKeys, Verifier, Workers};
use maildir::Maildir;
use shared::{Shared, lock};

/// What a sink keeps of the mail it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Store {
    /// Counters only.
    None,
    /// Counters and the ledger: which recipient got which message how often, and when.
    #[default]
    Counts,
    /// Those, and every copy, within bounds; what is beyond them is counted as `not_kept`.
    Full {
        /// Copies kept at most.
        messages_max: usize,
        /// Content bytes kept at most.
        bytes_max: usize,
    },
}

impl Store {
    /// Keeps everything up to 100,000 messages and 256 MiB, each reactor thread.
    #[must_use]
    pub fn full() -> Self {
        Self::Full { messages_max: 100_000, bytes_max: 256 << 20 }
    }
}

/// How a sink is set up.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Where to listen; those of `models` come on top. None at all: a free port of 127.0.0.1.
    pub listen: Vec<Listener>,
    /// The receiver models and who has which.
    pub models: Models,
    /// Its name in greetings.
    pub hostname: String,
    /// Certificate and key for STARTTLS; without them it is not offered.
    pub tls: Option<TlsIdentity>,
    /// What is kept.
    pub store: Store,
    /// Writes each message into this Maildir, too.
    pub maildir: Option<PathBuf>,
    /// Checks DKIM signatures with these keys.
    pub dkim: Option<DkimKeys>,
    /// Threads that check signatures.
    pub dkim_threads: usize,
    /// Is told of what one receiver model takes.
    pub observer: Option<Observer>,
    /// Source IPs whose recipients are counted day by day: see [`Sink::named`].
    pub watched: Vec<IpAddr>,
    /// Reactor threads; one is right up to some 40,000 messages a second.
    pub threads: usize,
    /// Seed of what models leave to chance.
    pub seed: u64,
    /// Connections at once, each thread; further ones get 421.
    pub connections_max: usize,
    /// A connection on which nothing happens for so long is closed (RFC 5321 section 4.5.3.2.7).
    pub idle_timeout: Duration,
    /// Content bytes collected of one message, to keep or to verify it.
    pub content_max: u64,
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            models: Models::default(),
            hostname: "sink.test".into(),
            tls: None,
            store: Store::default(),
            maildir: None,
            dkim: None,
            dkim_threads: 1,
            observer: None,
            watched: Vec::new(),
            threads: 1,
            seed: 1,
            connections_max: 100_000,
            idle_timeout: Duration::from_secs(300),
            content_max: 64 << 20,
        }
    }
}

impl SinkConfig {
    /// Adds a listener with the default model; port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen.push(Listener { address: address.into(), model: None });
        self
    }

    /// Adds a listener that is the host of one receiver, and declares its model.
    #[must_use]
    pub fn listen_as(mut self, address: impl Into<SocketAddr>, model: crate::model::Model) -> Self {
        self.listen.push(Listener { address: address.into(), model: Some(model.name.clone()) });
        if !self.models.models.contains(&model) {
            self.models.models.push(model);
        }
        self
    }
}

/// Called with each message, content included, that a receiver model takes; from the sink's threads, so it must be quick.
#[derive(Clone)]
pub struct Observer {
    /// Name of the model.
    pub model: String,
    /// What is called.
    pub tell: Arc<dyn Fn(&Delivery) + Send + Sync>,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Why a sink cannot start.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The models contradict themselves.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Signatures cannot be checked.
    #[error(transparent)]
    Dkim(#[from] DkimError),
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The Maildir cannot be made.
    #[error("Maildir {}: {source}", path.display())]
    Maildir {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No thread or epoll to be had.
    #[error("cannot start a thread of the sink: {0}")]
    Thread(#[from] io::Error),
}

/// A message kept by [`Store::Full`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The model the transaction followed.
    pub model: String,
    /// Where it came from.
    pub source: IpAddr,
    /// The EHLO name of the client.
    pub helo: String,
    /// TLS version, where there was TLS.
    pub tls: Option<String>,
    /// It came by BDAT.
    pub chunked: bool,
    /// Envelope sender, without angle brackets.
    pub sender: String,
    /// Envelope recipients accepted.
    pub recipients: Vec<String>,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// The content, dots unstuffed.
    #[serde(skip)]
    pub content: Vec<u8>,
}

impl Delivery {
    /// The content as text, bytes that are no UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// A running sink. Dropping it stops it.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    wakers: Vec<Arc<mio::Waker>>,
    threads: Vec<JoinHandle<()>>,
}

impl Sink {
    /// Binds the listeners and starts the threads.
    ///
    /// # Errors
    /// [`SinkError`], as its variants say; nothing runs then.
    pub fn start(config: SinkConfig) -> Result<Self, SinkError> {
        let mut listen = config.listen;
        listen.extend(config.models.listeners.iter().cloned());
        if listen.is_empty() {
            listen.push(Listener { address: SocketAddr::from(([127, 0, 0, 1], 0)), model: None });
        }
        let table = config.models.table()?;
        let threads = config.threads.max(1);
        let mut listeners = Vec::with_capacity(listen.len());
        for wanted in &listen {
            let place = format!("listener {}", wanted.address);
            let model = wanted.model.as_deref().map_or(Ok(table.default), |name| table.by_name(&place, name))?;
            let listener = TcpListener::bind(wanted.address)
                .map_err(|source| SinkError::Listen { address: wanted.address, source })?;
            listeners.push((listener, model));
        }
        let addresses = listeners.iter().map(|(listener, _)| listener.local_addr()).collect::<Result<_, _>>()?;
        let books = (0..threads).map(|_| Mutex::new(Books::new(config.store))).collect();
        let mut shared = Shared::new(config.hostname, table, books);
        shared.tls = config.tls.as_ref().map(server_config).transpose()?;
        if let Some(directory) = &config.maildir {
            let opened = Maildir::open(directory);
            shared.maildir = Some(opened.map_err(|source| SinkError::Maildir { path: directory.clone(), source })?);
        }
        let stored =
            matches!(config.store, Store::Full { .. }) || shared.maildir.is_some() || config.observer.is_some();
        shared.keeps_content = config.dkim.is_some() || stored;
        shared.observer = config.observer;
        shared.watched = config.watched;
        shared.content_max = config.content_max;
        shared.connections_max = config.connections_max;
        shared.idle_timeout = config.idle_timeout;
        if let Some(keys) = &config.dkim {
            shared.workers = Some(Workers::start(&Verifier::new(keys)?, config.dkim_threads)?);
        }
        let mut sink = Self { shared: Arc::new(shared), addresses, wakers: Vec::new(), threads: Vec::new() };
        for number in 0..threads {
            let cloned = listeners
                .iter()
                .map(|(listener, model)| Ok((listener.try_clone()?, *model)))
                .collect::<io::Result<_>>()?;
            let seed = config.seed.wrapping_add(number as u64);
            let reactor = reactor::Reactor::new(number, cloned, Arc::clone(&sink.shared), seed)?;
            sink.wakers.push(reactor.waker());
            let name = format!("bench-sink-{number}");
            sink.threads.push(std::thread::Builder::new().name(name).spawn(move || reactor.run())?);
        }
        Ok(sink)
    }

    /// Where it listens: the addresses of the configuration in their order, then those of the models file.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The first address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// What it has seen so far.
    #[must_use]
    pub fn snapshot(&self) -> SinkReport {
        let mut report = SinkReport::default();
        let mut end_to_end = Latency::new();
        for books in &self.shared.books {
            let books = lock(books);
            report.add(&self.shared.table, &books.cells);
            report.copies += books.ledger.len() as u64;
            report.not_kept += books.not_kept;
            end_to_end.merge(&books.end_to_end);
        }
        report.end_to_end = end_to_end.summary();
        report.dkim = self.shared.workers.as_ref().map(Workers::counts);
        report
    }

    /// From the time the load generator stamped to delivery, as a distribution.
    #[must_use]
    pub fn end_to_end(&self) -> Latency {
        let mut all = Latency::new();
        self.shared.books.iter().for_each(|books| all.merge(&lock(books).end_to_end));
        all
    }

    /// The ledger of all threads, as it stands.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let mut all = Ledger::new();
        self.shared.books.iter().for_each(|books| all.merge(&lock(books).ledger));
        all
    }

    /// The copies kept so far, in the order they came (within a thread).
    #[must_use]
    pub fn deliveries(&self) -> Vec<Arc<Delivery>> {
        self.shared.books.iter().flat_map(|books| lock(books).deliveries.clone()).collect()
    }

    /// Different pairs of sender and recipient that each watched source IP has named in RCPT, welcome or not, by day (UTC)
    /// since 1970.
    #[must_use]
    pub fn named(&self) -> BTreeMap<(IpAddr, u64), u64> {
        let mut all: HashMap<(IpAddr, u64), HashSet<u64>> = HashMap::new();
        for books in &self.shared.books {
            lock(books).named.iter().for_each(|(place, named)| all.entry(*place).or_default().extend(named));
        }
        all.into_iter().map(|(place, named)| (place, named.len() as u64)).collect()
    }

    /// Waits until so many copies (recipients) have been delivered in all; false where that takes longer than
    /// `timeout`.
    #[must_use]
    pub fn wait_for_recipients(&self, recipients: u64, timeout: Duration) -> bool {
        self.wait_until(timeout, || self.recipients() >= recipients)
    }

    /// Waits until `reached` says so, asked after every batch of events; false where that takes longer than `timeout`.
    #[must_use]
    pub fn wait_until(&self, timeout: Duration, reached: impl Fn() -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut guard = lock(&self.shared.progress_lock);
        while !reached() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = match self.shared.progress.wait_timeout(guard, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }

    /// Copies (recipients) delivered so far.
    #[must_use]
    pub fn recipients(&self) -> u64 {
        self.shared.books.iter().map(|books| lock(books).recipients()).sum()
    }

    /// Stops taking mail, checks what signatures are left to check, and reports.
    pub fn stop(mut self) -> SinkReport {
        self.shut_down();
        self.snapshot()
    }

    fn shut_down(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for (waker, thread) in self.wakers.drain(..).zip(self.threads.drain(..)) {
            // A thread that cannot be woken is left to the process rather than waited for.
            if waker.wake().is_ok() {
                let _ = thread.join();
            }
        }
        if let Some(workers) = &self.shared.workers {
            workers.finish();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shut_down();
    }
}
