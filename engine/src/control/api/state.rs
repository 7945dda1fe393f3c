//! What the handlers of the control socket share. *One per host, control thread.*

use super::types::{EventLogStatus, ResolverStatus};
use crate::{
    config::Config,
    control::{
        fleet::Fleet,
        resolver::Resolver,
        store::{Store, StoreError},
    },
    link::{Command, ShardStatus, Snapshot},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// A shard that takes longer is named as silent instead of being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct State {
    pub(crate) config: Arc<Config>,
    pub(crate) commands: Vec<mpsc::Sender<Command>>,
    pub(crate) started: Instant,
    pub(crate) listeners: Vec<SocketAddr>,
    /// One change at a time; also holds what is in force.
    pub(crate) fleet: tokio::sync::Mutex<InForce>,
    resolver: Arc<Resolver>,
    event_log: Mutex<EventLogStatus>,
}

/// The store, and what it says.
pub(crate) struct InForce {
    /// Taken out while a blocking task uses it.
    pub(crate) store: Option<Store>,
    pub(crate) fleet: Fleet,
    pub(crate) version: u64,
}

impl State {
    pub(crate) fn new(
        config: Arc<Config>,
        commands: Vec<mpsc::Sender<Command>>,
        listeners: Vec<SocketAddr>,
        store: Store,
        resolver: Arc<Resolver>,
    ) -> Result<Self, StoreError> {
        let (version, fleet) = store.fleet()?;
        let event_log = Mutex::new(EventLogStatus { directory: config.events_dir(), ..EventLogStatus::default() });
        let fleet = tokio::sync::Mutex::new(InForce { store: Some(store), fleet, version });
        Ok(Self { config, commands, started: Instant::now(), listeners, fleet, resolver, event_log })
    }

    /// Gives what is in force to every shard.
    pub(crate) async fn send_snapshot(&self) {
        let in_force = self.fleet.lock().await;
        let snapshot = self.snapshot(&in_force);
        self.send(snapshot).await;
    }

    /// What is in force, as shards take it.
    pub(crate) fn snapshot(&self, in_force: &InForce) -> Snapshot {
        let policy = in_force.fleet.policy(in_force.version, self.config.shards);
        Snapshot { policy: Arc::new(policy), keys: Arc::new(in_force.fleet.keyring()) }
    }

    /// Gives a snapshot to every shard; called with the lock held, so that they come in order.
    pub(crate) async fn send(&self, snapshot: Snapshot) {
        for shard in &self.commands {
            // A shard that has stopped needs none.
            let _ = shard.send(Command::Snapshot(snapshot.clone())).await;
        }
    }

    /// Asks every shard the same; answers by shard, and the shards that gave none.
    pub(crate) async fn ask_all<T>(
        &self,
        question: impl Fn(oneshot::Sender<T>) -> Command,
    ) -> (Vec<(u16, T)>, Vec<u16>) {
        let mut asked = Vec::with_capacity(self.commands.len());
        for (shard, commands) in (0_u16..).zip(&self.commands) {
            let (reply, answer) = oneshot::channel();
            asked.push((shard, commands.try_send(question(reply)).map(|()| answer).ok()));
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (mut answers, mut silent) = (Vec::new(), Vec::new());
        for (shard, answer) in asked {
            let Some(answer) = answer else {
                silent.push(shard);
                continue;
            };
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answers.push((shard, answer)),
                _ => silent.push(shard),
            }
        }
        (answers, silent)
    }

    /// What the shards say of themselves.
    pub(crate) async fn shards(&self) -> (Vec<ShardStatus>, Vec<u16>) {
        let (answers, silent) = self.ask_all(Command::Status).await;
        (answers.into_iter().map(|(_, status)| status).collect(), silent)
    }

    /// Changes what is known of the event log; returns it.
    pub(crate) fn event_log(&self, change: impl FnOnce(&mut EventLogStatus)) -> EventLogStatus {
        let mut status = self.event_log.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status);
        status.clone()
    }

    pub(crate) fn resolver(&self) -> ResolverStatus {
        self.resolver.status()
    }
}
