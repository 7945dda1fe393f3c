//! The loop of the control thread: what shards report, what signals ask, and the order of a stop.

use super::{
    Options, Reload,
    api::state::State,
    events::{self, Batch, Pace},
    post::Post,
    rdns,
    resolver::Resolver,
    signals::{Asked, Signals},
    socket,
    store::Store,
};
use crate::{
    clock,
    config::Config,
    event::{encode, log::EventLog},
    link::{Command, ControlLink, Report},
};
use sd_notify::NotifyState;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

/// How much longer than its grace a shard may take to stop before it is left behind.
const OVERTIME: Duration = Duration::from_secs(15);
/// How often entries of the host's suppression list come to their end.
const EXPIRE_LISTS: Duration = Duration::from_secs(60);
/// How long the last events may take to reach the log.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Everything that the control thread holds.
pub(super) struct Thread {
    state: Arc<State>,
    reports: mpsc::Receiver<Report>,
    /// Event lines of the control thread's own.
    warnings: mpsc::UnboundedReceiver<Batch>,
    resolver: Arc<Resolver>,
    batches: mpsc::UnboundedSender<Batch>,
    writer: JoinHandle<()>,
    stop: Arc<Notify>,
    closing: watch::Sender<bool>,
    signals: Option<Signals>,
    grace: Duration,
    reload: Arc<Reload>,
    socket: PathBuf,
    /// Shards, by number, that have not said that they stopped.
    running: Vec<bool>,
    /// Since stopping began: when shards must have stopped.
    deadline: Option<Instant>,
    outcome: Result<(), String>,
}

/// Opens store, log, sockets; gives every shard its first snapshot.
pub(super) async fn open(
    config: Arc<Config>,
    link: ControlLink,
    options: Options,
    stop: Arc<Notify>,
) -> Result<Thread, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let store = Store::open(&config.data_dir.join("control.db")).map_err(|error| text(&error))?;
    let events = &config.events;
    let log = EventLog::open(&config.events_dir(), events.max_file_size, events.keep_files).map_err(|e| text(&e))?;
    let signals =
        if options.signals { Some(Signals::new().map_err(|error| format!("signals: {error}"))?) } else { None };
    let running = vec![true; link.commands.len()];
    let post = Arc::new(Post::new(link.commands));
    let resolver = Arc::new(Resolver::new(Arc::clone(&config), Arc::clone(&post))?);
    // Batches that wait are bounded by what each shard may have in flight.
    let (batches, waiting) = mpsc::unbounded_channel();
    let (told, warnings) = mpsc::unbounded_channel();
    let state = State::new(Arc::clone(&config), post, options.listeners, store, Arc::clone(&resolver), told);
    let state = Arc::new(state.map_err(|e| text(&e))?);
    let (closing, closed) = watch::channel(false);
    let writer = tokio::spawn(events::run(log, waiting, Arc::clone(&state), Pace::default()));
    tokio::spawn(expire_lists(Arc::clone(&state)));
    tokio::spawn(rdns::watch(Arc::clone(&state)));
    socket::serve(&config, &state, closed).await?;
    notify(&[NotifyState::Ready]);
    Ok(Thread {
        state,
        reports: link.reports,
        warnings,
        resolver,
        batches,
        writer,
        stop,
        closing,
        signals,
        grace: options.grace,
        reload: Arc::new(options.reload),
        socket: config.control.socket.clone(),
        running,
        deadline: None,
        outcome: Ok(()),
    })
}

impl Thread {
    /// Runs until every shard has stopped and its events are kept.
    pub(super) async fn run(mut self) -> Result<(), String> {
        while self.running.contains(&true) {
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(report) => self.take(report),
                    None => {
                        self.fail(format!("{} ended without a word", self.left()));
                        break;
                    }
                },
                Some(batch) = self.warnings.recv() => drop(self.batches.send(batch)),
                () = self.stop.notified() => self.begin_stop(),
                asked = Signals::next(&mut self.signals) => match asked {
                    Asked::Stop if self.deadline.is_some() => {
                        tracing::warn!("asked to stop a second time: ending at once");
                        std::process::exit(1);
                    }
                    Asked::Stop => self.begin_stop(),
                    Asked::Reload => self.reload(),
                },
                () = until(self.deadline) => {
                    self.fail(format!("{} did not stop in time", self.left()));
                    break;
                }
            }
        }
        self.end().await
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Resolve { shard, domain } => self.resolver.ask(shard, domain),
            Report::Events { shard, cursor, lines } => {
                // The writer ends before only if it failed for good: then the lines stay in the spool.
                let _ = self.batches.send(Batch { shard, cursor, lines });
            }
            Report::Ladder { ip, provider, day, decision } => {
                let lines = encode::of_ladder(clock::wall(), ip, &provider, day, &decision);
                // Of no shard: nobody waits for its acknowledgement.
                let _ = self.batches.send(Batch { shard: u16::MAX, cursor: 0, lines });
            }
            Report::Quota { account, ask, answer } => self.state.quotas.ask(&self.state, account, ask, answer),
            Report::QuotaUsed { account, used } => self.state.quotas.used(&account, used),
            Report::Stopped { shard, error } => {
                if let Some(running) = self.running.get_mut(usize::from(shard)) {
                    *running = false;
                }
                if let Some(error) = error {
                    tracing::error!(shard, "stopped: {error}");
                    self.fail(format!("shard {shard}: {error}"));
                }
                // A host is all of its shards: it serves whole, or is started again.
                self.begin_stop();
            }
        }
    }

    /// The first failure is the one that is told.
    fn fail(&mut self, why: String) {
        if self.outcome.is_ok() {
            self.outcome = Err(why);
        }
    }

    /// Shards that have not stopped, in words.
    fn left(&self) -> String {
        let left = (0..).zip(&self.running).filter(|(_, running)| **running).map(|(shard, _): (u16, _)| shard);
        format!("shard {}", left.map(|shard| shard.to_string()).collect::<Vec<_>>().join(", "))
    }

    /// Tells all shards to stop, once.
    fn begin_stop(&mut self) {
        if self.deadline.is_some() {
            return;
        }
        tracing::info!("stopping: nothing new is taken, what is in flight may end within {:?}", self.grace);
        notify(&[NotifyState::Stopping]);
        self.state.post.tell_all(|| Command::Stop { grace: self.grace });
        self.deadline = Some(Instant::now() + self.grace + OVERTIME);
    }

    fn reload(&self) {
        let usec = i128::from(clock::mono_usec());
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(usec)]);
        let (reload, state) = (Arc::clone(&self.reload), Arc::clone(&self.state));
        tokio::spawn(async move {
            match tokio::task::spawn_blocking(move || reload()).await {
                Ok(Ok(certificates)) => {
                    state.post.tell_all(|| Command::Certificates(certificates.clone()));
                    tracing::info!("certificates read again");
                }
                Ok(Err(error)) => tracing::error!("certificates stay as they were: {error}"),
                Err(error) => tracing::error!("certificates stay as they were: {error}"),
            }
            notify(&[NotifyState::Ready]);
        });
    }

    /// The last events are written, then the socket goes.
    async fn end(mut self) -> Result<(), String> {
        // What a shard reported before it stopped has been taken; this is for shards that were left behind.
        while let Ok(report) = self.reports.try_recv() {
            if let Report::Events { shard, cursor, lines } = report {
                let _ = self.batches.send(Batch { shard, cursor, lines });
            }
        }
        let Self { batches, writer, closing, socket, outcome, .. } = self;
        drop(batches);
        if tokio::time::timeout(LAST_WRITE, writer).await.is_err() {
            tracing::warn!("the event log cannot be written: the last events stay in the spools until the next start");
        }
        let _ = closing.send(true);
        let _ = std::fs::remove_file(&socket);
        outcome
    }
}

/// Takes off the host's suppression list what has been there for its time, as long as the runtime lives.
async fn expire_lists(state: Arc<State>) {
    loop {
        tokio::time::sleep(EXPIRE_LISTS).await;
        let lists = Arc::clone(&state.lists);
        match tokio::task::spawn_blocking(move || lists.expire(clock::wall())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("{error}; addresses stay on the host's suppression list"),
            Err(_) => return,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Tells systemd, if it wants to know.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("sd_notify: {error}");
    }
}
