//! What the handlers of the control socket share. *One per host, control thread.*

use super::types::{EventLogStatus, ResolverStatus};
use crate::{
    clock,
    config::Config,
    control::{
        events::Batch,
        fleet::Fleet,
        orders::Orders,
        post::Post,
        quota::Quotas,
        rdns::Rdns,
        resolver::Resolver,
        store::{Store, StoreError},
        suppression::Lists,
    },
    link::{Command, ShardStatus, Snapshot},
};
use mailrail_queue::{
    admit::{quota::Limits, suppress::Key},
    policy::Policy,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// A shard that takes longer is named as silent instead of being waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Readers of the event log at a time.
const TRACERS: usize = 4;

/// See the module.
pub(crate) struct State {
    pub(crate) config: Arc<Config>,
    pub(crate) post: Arc<Post>,
    pub(crate) started: Instant,
    pub(crate) listeners: Vec<SocketAddr>,
    /// Held by who changes the fleet, from reading the old one to telling the shards: one change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Used in blocking tasks, under [`State::changing`].
    pub(crate) store: Arc<Mutex<Store>>,
    in_force: Mutex<Arc<InForce>>,
    policy: Mutex<Arc<Policy>>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) rdns: Rdns,
    event_log: Mutex<EventLogStatus>,
    pub(crate) quotas: Quotas,
    /// Used in blocking tasks.
    pub(crate) lists: Arc<Lists>,
    /// What operators ordered of queued mail.
    pub(crate) orders: Orders,
    /// Readers of the event log at a time: each reads files of hundreds of megabytes.
    pub(crate) tracers: Semaphore,
}

/// The fleet that the shards work with.
pub(crate) struct InForce {
    pub(crate) fleet: Fleet,
    pub(crate) version: u64,
}

impl InForce {
    /// As shards take it. Reads every key: not for a task that others wait for.
    pub(crate) fn snapshot(&self, config: &Config) -> Snapshot {
        let policy = self.fleet.policy(self.version, config.shards);
        let credentials = Arc::new(self.fleet.credentials(&config.regions));
        Snapshot { policy: Arc::new(policy), keys: Arc::new(self.fleet.keyring()), credentials }
    }
}

impl State {
    /// With what the store says, which every shard is told.
    pub(crate) fn new(
        config: Arc<Config>,
        post: Arc<Post>,
        listeners: Vec<SocketAddr>,
        store: Store,
        resolver: Arc<Resolver>,
        events: mpsc::UnboundedSender<Batch>,
    ) -> Result<Self, StoreError> {
        let (version, fleet) = store.fleet()?;
        let notes = store.notes()?;
        let lists =
            Lists::open(&config.data_dir.join("suppression.db"), random_key(), Arc::clone(&post), clock::wall())?;
        let in_force = InForce { fleet, version };
        let snapshot = in_force.snapshot(&config);
        let store = Arc::new(Mutex::new(store));
        // Suspensions before the leased IPs: nothing that is suspended goes out in between.
        let orders = Orders::open(&store, &post)?;
        post.tell_all(|| Command::Snapshot(snapshot.clone()));
        orders.begin_again();
        let quotas = Quotas::new(config.shards, &snapshot.policy, notes, events);
        let event_log = Mutex::new(EventLogStatus { directory: config.events_dir(), ..EventLogStatus::default() });
        Ok(Self {
            config,
            post,
            started: Instant::now(),
            listeners,
            changing: tokio::sync::Mutex::new(()),
            store,
            in_force: Mutex::new(Arc::new(in_force)),
            policy: Mutex::new(snapshot.policy),
            resolver,
            rdns: Rdns::default(),
            event_log,
            quotas,
            lists: Arc::new(lists),
            orders,
            tracers: Semaphore::new(TRACERS),
        })
    }

    /// What is in force.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The policy that shards have.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an account may send; none if it was not declared.
    pub(crate) fn limits(&self, account: &str) -> Option<Limits> {
        self.in_force().fleet.account(account).map(|account| account.limits)
    }

    /// Puts another fleet in force; `snapshot` is how shards take it. Called under [`State::changing`].
    pub(crate) fn enforce(&self, fleet: Arc<InForce>, snapshot: &Snapshot) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = fleet;
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot.policy);
        self.quotas.set_limits(&snapshot.policy);
        self.rdns.look_again();
        self.post.tell_all(|| Command::Snapshot(snapshot.clone()));
    }

    /// Asks every shard the same; answers by shard, and the shards that gave none.
    pub(crate) async fn ask_all<T>(
        &self,
        question: impl Fn(oneshot::Sender<T>) -> Command,
    ) -> (Vec<(u16, T)>, Vec<u16>) {
        let mut asked = Vec::new();
        for shard in self.post.shards() {
            let (reply, answer) = oneshot::channel();
            asked.push((shard, self.post.ask(shard, question(reply)).then_some(answer)));
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

/// For the digests of addresses: nobody can make two of them meet who does not know it.
fn random_key() -> Key {
    let mut bytes = [0_u8; 16];
    if let Err(error) = aws_lc_rs::rand::fill(&mut bytes) {
        tracing::error!("no random numbers: {error}");
    }
    let [low, high] = [0, 8].map(|at| bytes[at..].iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte)));
    Key(low, high)
}
