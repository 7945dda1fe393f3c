//! The control thread: everything that may block, away from the data path.
//!
//! One per host: a tokio runtime on a thread of its own, with the resolver, the control store, the event log, the control
//! socket and the metrics. It knows the shards only through [`crate::link`]; mail already accepted flows on without it.

mod account;
pub mod api;
mod check;
mod domains;
mod events;
mod export;
pub(crate) mod fleet;
pub(crate) mod key_file;
mod leases;
mod metrics;
mod orders;
pub(crate) mod pools;
mod post;
mod providers;
mod quota;
mod rdns;
mod rehearsal;
mod resolver;
mod signals;
mod socket;
pub(crate) mod store;
pub(crate) mod suppression;
#[cfg(test)]
mod tests;
mod thread;

pub use check::{FleetFindings, check_fleet};
pub use rehearsal::{check_plan, rehearse_fleet};

use crate::{config::Config, link::ControlLink};
use std::{
    net::SocketAddr,
    sync::{Arc, mpsc as std_mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::Notify;

/// Reads the certificates of all listeners again, in their order.
pub type Reload = Box<dyn Fn() -> Result<Vec<Option<Arc<rustls::ServerConfig>>>, String> + Send + Sync>;

/// How the control thread is to run.
pub struct Options {
    /// React to SIGTERM, SIGINT and SIGHUP.
    pub signals: bool,
    /// Where mail is taken, with the ports really bound.
    pub listeners: Vec<SocketAddr>,
    /// How long deliveries in flight may go on at a stop.
    pub grace: Duration,
    /// What SIGHUP does.
    pub reload: Reload,
}

/// A running control thread.
pub struct Handle {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Handle {
    /// Asks it to stop all shards, and then itself.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Blocks until it has ended; says why, if it was not asked to.
    ///
    /// # Errors
    /// One line: which shard ended, or what failed.
    pub fn wait(&mut self) -> Result<(), String> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err("it panicked".into()),
        }
    }
}

/// Starts it; returns when it serves. Blocks.
///
/// # Errors
/// One line: what could not be opened, and what to do.
pub fn start(config: Arc<Config>, link: ControlLink, options: Options) -> Result<Handle, String> {
    let stop = Arc::new(Notify::new());
    let (ready_tx, ready) = std_mpsc::channel();
    let asked = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready_tx.send(Err(error.to_string()));
                    return Ok(());
                }
            };
            let outcome = runtime.block_on(async {
                match thread::open(config, link, options, asked).await {
                    Ok(thread) => {
                        let _ = ready_tx.send(Ok(()));
                        thread.run().await
                    }
                    Err(error) => {
                        let _ = ready_tx.send(Err(error));
                        Ok(())
                    }
                }
            });
            // A resolver question or a reader of the trace must not hold up the end.
            runtime.shutdown_timeout(Duration::from_millis(200));
            outcome
        })
        .map_err(|error| error.to_string())?;
    ready.recv().map_err(|_| "it ended before it was ready".to_owned())??;
    Ok(Handle { stop, thread: Some(thread) })
}
