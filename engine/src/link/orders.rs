//! What operators ask of queued mail: which of it, and what is to become of it.

use super::Command;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::oneshot;

/// Selects queued mail, recipient by recipient; all given members must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Filter {
    /// Message id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Address of a recipient, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Recipient domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Site: the name of one of its hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Provider of the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Who sends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Pool of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Leased IP by which it is to leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

impl Filter {
    /// Does it select everything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn members(&self) -> impl Iterator<Item = (&'static str, String)> {
        let ip = self.ip.map(|ip| ip.to_string());
        let members = [
            ("message", &self.message),
            ("recipient", &self.recipient),
            ("domain", &self.domain),
            ("site", &self.site),
            ("provider", &self.provider),
            ("account", &self.account),
            ("pool", &self.pool),
            ("IP", &ip),
        ];
        members.map(|(name, value)| value.clone().map(|value| (name, value))).into_iter().flatten()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("all mail");
        }
        for (number, (name, value)) in self.members().enumerate() {
            write!(f, "{}{name} {value}", if number > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Mail that is held, queued now or coming later, until the rule goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Names it.
    pub id: u64,
    /// What it holds.
    pub filter: Filter,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who made it.
    pub who: String,
    /// When, milliseconds since the epoch.
    pub made: u64,
}

/// What is to be done to queued mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Try it now.
    Retry,
    /// Send it by another pool.
    Reroute,
    /// End it, and tell the sender.
    Bounce,
    /// End it without a word to the sender.
    Cancel,
}

impl Action {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reroute => "reroute",
            Self::Bounce => "bounce",
            Self::Cancel => "cancel",
        }
    }
}

/// One such order. It is durable before any shard hears of it, and told again after a restart until it is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Names it.
    pub id: u64,
    /// What to do.
    pub action: Action,
    /// To which mail.
    pub filter: Filter,
    /// Pool to send it by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
    /// Why, in the operator's words; senders of bounced mail read it.
    #[serde(default)]
    pub reason: String,
    /// Who gave it.
    pub who: String,
    /// When, milliseconds since the epoch: mail accepted later is no concern of it.
    pub given: u64,
}

/// How far an order is; written by the shards.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    kept: AtomicU64,
}

impl Progress {
    /// So many more recipients are done.
    pub fn add(&self, recipients: usize) {
        self.done.fetch_add(recipients as u64, Ordering::Relaxed);
    }

    /// A shard has looked: so many stay as they were, because nothing may take them, instead of as many as it last said.
    pub fn keep(&self, recipients: usize, instead_of: usize) {
        self.kept.fetch_add(recipients as u64, Ordering::Relaxed);
        self.kept.fetch_sub(instead_of as u64, Ordering::Relaxed);
    }

    /// Recipients done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Recipients that stay as they were.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }
}

/// An order on its way to a shard.
#[derive(Debug)]
pub struct Errand {
    /// The order.
    pub order: Arc<Order>,
    /// To be kept up to date.
    pub progress: Arc<Progress>,
    /// Told once it is carried out here: true if no mail of it has set off for another shard since this was last told of the
    /// order. Dropped before, the shard has stopped.
    pub finished: oneshot::Sender<bool>,
}

/// Mail that a filter selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selected {
    /// Messages.
    pub messages: u64,
    /// Their recipients that it selects.
    pub recipients: u64,
    /// Of these, in a transaction now: what becomes of them is not known.
    pub in_flight: u64,
}

/// What holds queued mail, or that nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It is in a transaction.
    InFlight,
    /// It goes as soon as a connection takes it.
    Ready,
    /// All connections that its site may have are in use.
    ConnectionLimit,
    /// Its site is left alone for a while.
    SiteBackOff,
    /// Its provider is sent nothing by its leased IP for a while.
    ProviderBackOff,
    /// Its provider is sent no more a second by its leased IP.
    ProviderRate,
    /// The receiver deferred it.
    Deferred,
    /// The warm-up plan of its leased IP has no allowance left.
    WarmUp,
    /// The ledger of its leased IP is on its way to the shard, or is being made durable.
    Ledger,
    /// An operator suspended it, or its account is paused.
    Suspended,
    /// It has no leased IP.
    NoLease,
    /// Where its domain sends mail is not known.
    Dns,
    /// The spool could not record what becomes of it.
    Spool,
    /// It is being ended.
    Ending,
}

/// Queued mail with one cause, in answer to `explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Shard.
    pub shard: u16,
    /// What holds it.
    pub cause: Cause,
    /// The same in plain words.
    pub text: String,
    /// Recipients.
    pub recipients: u64,
    /// Some of them, at most ten.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub addresses: Vec<String>,
    /// Recipient domains, at most ten.
    pub domains: Vec<String>,
    /// Name of the first host of the site, once known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// Provider of the site, if it is one of those known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Leased IP, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ip: Option<IpAddr>,
    /// Tries so far, at most.
    pub attempts: u32,
    /// When the first of it will be tried next, milliseconds since the epoch; none: now, or nobody knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_try: Option<u64>,
    /// When the first of it is given up, milliseconds since the epoch.
    pub expires: u64,
}

/// What control asks and tells about queued mail.
#[derive(Debug)]
pub enum Ask {
    /// The suspensions in force; nothing before it counts.
    Suspensions(Arc<[Suspension]>),
    /// How much is selected?
    Count(Filter, oneshot::Sender<Selected>),
    /// Carry this out, perhaps once more.
    Order(Errand),
    /// The order of this id is carried out on all shards.
    Done(u64),
    /// Why is it not going out?
    Explain(Filter, oneshot::Sender<Vec<Explanation>>),
}

impl From<Ask> for Command {
    fn from(ask: Ask) -> Self {
        Self::Mail(ask)
    }
}
