//! The loop of the control thread: what shards report, what signals ask, and the order of a stop.

use super::{
    Options, Reload,
    api::state::State,
    events::{self, Batch},
    resolver::Resolver,
    signals::{Asked, Signals},
    socket,
    store::Store,
};
use crate::{
    clock,
    config::Config,
    event::log::EventLog,
    link::{Command, ControlLink, Report},
};
use sd_notify::NotifyState;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

/// How much longer than its grace a shard may take to stop before it is left behind.
const OVERTIME: Duration = Duration::from_secs(15);

/// Everything that the control thread holds.
pub(super) struct Thread {
    state: Arc<State>,
    reports: mpsc::Receiver<Report>,
    resolver: Arc<Resolver>,
    batches: mpsc::UnboundedSender<Batch>,
    writer: JoinHandle<()>,
    stop: Arc<Notify>,
    closing: watch::Sender<bool>,
    signals: Option<Signals>,
    grace: Duration,
    reload: Arc<Reload>,
    socket: PathBuf,
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
    let resolver = Arc::new(Resolver::new(Arc::clone(&config), link.commands.clone())?);
    let state = Arc::new(
        State::new(Arc::clone(&config), link.commands, options.listeners, store, Arc::clone(&resolver))
            .map_err(|e| text(&e))?,
    );
    state.send_snapshot().await;
    let (closing, closed) = watch::channel(false);
    // Batches that wait are bounded by what each shard may have in flight.
    let (batches, waiting) = mpsc::unbounded_channel();
    let writer = tokio::spawn(events::run(log, waiting, Arc::clone(&state)));
    socket::serve(&config, &state, closed).await?;
    notify(&[NotifyState::Ready]);
    Ok(Thread {
        state,
        reports: link.reports,
        resolver,
        batches,
        writer,
        stop,
        closing,
        signals,
        grace: options.grace,
        reload: Arc::new(options.reload),
        socket: config.control.socket.clone(),
    })
}

impl Thread {
    /// Runs until every shard has stopped and its events are kept.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let mut outcome = Ok(());
        let mut left = self.state.commands.len();
        let mut stopping = false;
        let mut deadline = None;
        while left > 0 {
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(Report::Resolve { shard, domain }) => self.resolver.ask(shard, domain),
                    Some(Report::Events { shard, cursor, lines }) => {
                        let _ = self.batches.send(Batch { shard, cursor, lines });
                    }
                    Some(Report::Stopped { shard, error }) => {
                        left -= 1;
                        if let Some(error) = error {
                            tracing::error!(shard, "stopped: {error}");
                            outcome = outcome.and(Err(format!("shard {shard}: {error}")));
                        }
                        if !stopping {
                            stopping = true;
                            deadline = Some(self.begin_stop());
                        }
                    }
                    None => break,
                },
                () = self.stop.notified(), if !stopping => {
                    stopping = true;
                    deadline = Some(self.begin_stop());
                }
                asked = Signals::next(&mut self.signals) => match asked {
                    Asked::Stop if stopping => {
                        tracing::warn!("asked to stop a second time: ending at once");
                        std::process::exit(1);
                    }
                    Asked::Stop => {
                        stopping = true;
                        deadline = Some(self.begin_stop());
                    }
                    Asked::Reload => self.reload(),
                },
                () = until(deadline) => {
                    outcome = outcome.and(Err(format!("{left} shard(s) did not stop in time")));
                    break;
                }
            }
        }
        self.end().await;
        outcome
    }

    /// Tells all shards to stop; returns when they must have done so.
    fn begin_stop(&self) -> tokio::time::Instant {
        tracing::info!("stopping: nothing new is taken, what is in flight may end within {:?}", self.grace);
        notify(&[NotifyState::Stopping]);
        for shard in self.state.commands.clone() {
            let grace = self.grace;
            tokio::spawn(async move {
                let _ = shard.send(Command::Stop { grace }).await;
            });
        }
        tokio::time::Instant::now() + self.grace + OVERTIME
    }

    fn reload(&self) {
        let usec = i128::from(clock::mono_usec());
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(usec)]);
        let (reload, commands) = (Arc::clone(&self.reload), self.state.commands.clone());
        tokio::spawn(async move {
            match tokio::task::spawn_blocking(move || reload()).await {
                Ok(Ok(certificates)) => {
                    for shard in commands {
                        let _ = shard.send(Command::Certificates(certificates.clone())).await;
                    }
                    tracing::info!("certificates read again");
                }
                Ok(Err(error)) => tracing::error!("certificates stay as they were: {error}"),
                Err(error) => tracing::error!("certificates stay as they were: {error}"),
            }
            notify(&[NotifyState::Ready]);
        });
    }

    /// The last events are written, then the socket goes.
    async fn end(self) {
        let Self { batches, writer, closing, socket, mut reports, .. } = self;
        // What shards had sent before they said that they stopped has been taken; this is for the rest of the channel.
        while let Ok(report) = reports.try_recv() {
            if let Report::Events { shard, cursor, lines } = report {
                let _ = batches.send(Batch { shard, cursor, lines });
            }
        }
        drop(batches);
        let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
        let _ = closing.send(true);
        let _ = std::fs::remove_file(&socket);
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
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
