//! What the control thread and the shards say to each other: the only thing both of them know.
//!
//! Control changes a shard in one way, a [`Command`] in that shard's bounded channel; a shard answers in one way, a
//! [`Report`] in the channel of the control thread. A full channel makes control work wait and loses neither mail nor
//! an event: events that could not go out are read again from the spool behind a cursor.

pub mod orders;
mod provider;
mod queue;
mod status;

pub use provider::{LadderStanding, ProviderChange, ProviderIp, ProviderState};
pub use queue::{QueueFilter, QueueRow};
pub use status::{Buckets, IpStatus, Overflowed, ShardStatus, WarmupStanding};

use crate::{credentials::Credentials, sign::Keyring};
use mailrail_queue::{
    admit::{
        quota::{Ask, Grant, Refusal, Used},
        suppress::{Change, Key, Set},
    },
    policy::Policy,
    warmup::{day::Day, ladder::Decision},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for one shard.
pub const COMMANDS: usize = 1024;
/// Reports of all shards that may wait for the control thread.
pub const REPORTS: usize = 4096;

/// The policy snapshot as a shard gets it: the decisions, and the keys that carry them out.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Pools, leases, rules of domains.
    pub policy: Arc<Policy>,
    /// DKIM keys by domain.
    pub keys: Arc<Keyring>,
    /// SMTP users.
    pub credentials: Arc<Credentials>,
}

/// Control → one shard.
#[derive(Debug)]
pub enum Command {
    /// Take this snapshot from now on.
    Snapshot(Snapshot),
    /// Answer to [`Report::Resolve`].
    Resolved {
        /// The domain that was asked about.
        domain: Box<str>,
        /// Where its mail goes.
        answer: SiteAnswer,
    },
    /// Events up to this cursor are durable in the log: their spool space may be reused.
    EventsKept {
        /// As given in [`Report::Events`].
        cursor: u64,
    },
    /// Say how things are.
    Status(oneshot::Sender<ShardStatus>),
    /// Say how its leased IPs stand with the providers.
    Providers(oneshot::Sender<Vec<ProviderIp>>),
    /// Suspend a provider, or lift what holds mail to it; say how many leased IPs that was done for.
    ChangeProvider(ProviderChange, oneshot::Sender<usize>),
    /// List queued mail.
    Queue(QueueFilter, oneshot::Sender<Vec<QueueRow>>),
    /// The suppression lists as they are now; nothing before it counts.
    Lists {
        /// Of the digests.
        key: Key,
        /// All entries.
        set: Arc<Set>,
    },
    /// What operators do to queued mail, and ask about it.
    Mail(orders::Ask),
    /// What has changed in the lists since.
    ListsChanged(Arc<[Change]>),
    /// Certificates were read again; one entry per listener, in the order of the configuration.
    Certificates(Vec<Option<Arc<rustls::ServerConfig>>>),
    /// Stop: accept nothing new, give back what is in flight within `grace`, sync, report [`Report::Stopped`].
    Stop {
        /// How long deliveries in flight may go on.
        grace: Duration,
    },
}

/// One shard → control.
#[derive(Debug)]
pub enum Report {
    /// Where does mail for this domain (lower-case A-labels, or an address literal) go?
    Resolve {
        /// The shard that waits.
        shard: u16,
        /// The domain.
        domain: Box<str>,
    },
    /// A message of this account waits for a loan.
    Quota {
        /// The account.
        account: Arc<str>,
        /// What is needed.
        ask: Ask,
        /// To the session that waits.
        answer: oneshot::Sender<Result<Grant, Refusal>>,
    },
    /// What was used of a loan to this account.
    QuotaUsed {
        /// The account.
        account: Arc<str>,
        /// Of which loan, and how much.
        used: Used,
    },
    /// What a day led to on a ladder of a managed pool.
    Ladder {
        /// The leased IP.
        ip: IpAddr,
        /// The provider.
        provider: Arc<str>,
        /// Which day.
        day: Day,
        /// The decision, with the figures it rests on.
        decision: Decision,
    },
    /// Event log lines of durable records, whole lines, each ended by `\n`.
    Events {
        /// The shard they come from.
        shard: u16,
        /// Acknowledge with this once the lines are durable.
        cursor: u64,
        /// The lines.
        lines: Vec<u8>,
    },
    /// The shard has stopped; nothing of it is in flight.
    Stopped {
        /// The shard.
        shard: u16,
        /// Why, when it was not asked to.
        error: Option<String>,
    },
}

/// One mail host of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// MX preference; hosts of the same preference are shuffled.
    pub preference: u16,
    /// Host name, lower case, no trailing dot.
    pub name: Arc<str>,
    /// Its addresses as found; may be empty if the host has none (then it counts as failed).
    pub addresses: Vec<IpAddr>,
    /// Port to connect to.
    pub port: u16,
}

/// Where mail of a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteAnswer {
    /// To these hosts. Domains with the same hosts are one site.
    Hosts {
        /// In order of preference, then name.
        hosts: Arc<[MxHost]>,
        /// Believe it for so long.
        ttl: Duration,
        /// From `[[route]]`, not from the DNS.
        routed: bool,
    },
    /// Nowhere, for good (NXDOMAIN, null MX, no address at all, forbidden address).
    Never {
        /// RFC 3463 code, such as `5.1.2` or `5.1.10`.
        status: &'static str,
        /// One line of text.
        text: String,
        /// Believe it for so long.
        ttl: Duration,
    },
    /// Not known now (SERVFAIL, time-out): ask again later.
    Later {
        /// One line of text.
        text: String,
    },
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardLink {
    /// Which shard this is.
    pub shard: u16,
    /// From control.
    pub commands: mpsc::Receiver<Command>,
    /// To control.
    pub reports: mpsc::Sender<Report>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct ControlLink {
    /// To each shard, by number.
    pub commands: Vec<mpsc::Sender<Command>>,
    /// From all shards.
    pub reports: mpsc::Receiver<Report>,
}

/// Both ends for `shards` shards.
#[must_use]
pub fn link(shards: u16) -> (ControlLink, Vec<ShardLink>) {
    let (report_tx, reports) = mpsc::channel(REPORTS);
    let (mut commands, mut ends) = (Vec::new(), Vec::new());
    for shard in 0..shards {
        let (tx, rx) = mpsc::channel(COMMANDS);
        commands.push(tx);
        ends.push(ShardLink { shard, commands: rx, reports: report_tx.clone() });
    }
    (ControlLink { commands, reports }, ends)
}
