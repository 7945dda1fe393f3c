//! What is asked and told about queued mail: suspensions, orders, explanations.

use crate::link::{
    IpStatus,
    orders::{Action, Explanation, Filter, Selected, Suspension},
};
use serde::{Deserialize, Serialize};

/// `POST /mailrail/v1/queue/suspensions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SuspendRequest {
    /// What to hold.
    pub filter: Filter,
    /// The filter is meant to be empty: hold all mail.
    pub all: bool,
    /// Why.
    pub reason: String,
}

/// `GET /mailrail/v1/queue/suspensions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspensions {
    /// In the order in which they were made.
    pub suspensions: Vec<Suspension>,
}

/// `POST /mailrail/v1/queue/orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OrderRequest {
    /// What to do.
    pub action: Action,
    /// To which mail.
    #[serde(default)]
    pub filter: Filter,
    /// The filter is meant to be empty: all mail.
    #[serde(default)]
    pub all: bool,
    /// Pool to reroute to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Why; senders of bounced mail read it.
    #[serde(default)]
    pub reason: String,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderReport {
    /// Names it.
    pub id: u64,
    /// What is done.
    pub action: Action,
    /// To which mail.
    pub filter: Filter,
    /// Pool to reroute to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Why.
    pub reason: String,
    /// Who gave it.
    pub who: String,
    /// When, milliseconds since the epoch.
    pub given: u64,
    /// It is carried out.
    pub finished: bool,
    /// Recipients done so far.
    pub done: u64,
    /// Recipients that no leased IP of the pool may take, and that stay where they were.
    pub kept: u64,
}

/// `GET /mailrail/v1/queue/orders`: those under way, and the last that were carried out since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    /// The newest first.
    pub orders: Vec<OrderReport>,
}

/// `GET /mailrail/v1/queue/selected`, with the members of a filter as query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelectedReport {
    /// How much.
    #[serde(flatten)]
    pub selected: Selected,
    /// Shards that gave no answer in time.
    #[serde(default)]
    pub silent_shards: Vec<u16>,
}

/// What was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A message.
    Message,
    /// A recipient domain.
    Domain,
    /// A leased IP.
    Ip,
}

/// `GET /mailrail/v1/explain/{subject}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainReport {
    /// What was asked about.
    pub subject: String,
    /// Which kind of thing that is.
    pub kind: SubjectKind,
    /// Recipients queued.
    pub queued: u64,
    /// Whole sentences on the subject itself.
    pub notes: Vec<String>,
    /// Its mail, by what holds it.
    pub rows: Vec<Explanation>,
    /// The leased IP, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<IpStatus>,
    /// Shards that gave no answer in time.
    #[serde(default)]
    pub silent_shards: Vec<u16>,
}
