//! What travels for dedicated IPs, pools and leases: SES's members for SES's operations, camelCase for our own.

use crate::link::WarmupStanding;
use mailrail_queue::policy::{Overflow, PoolKind};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Answer to a change: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// SES's `ScalingMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ScalingMode {
    /// The owner decides which IPs a pool has.
    #[default]
    Standard,
    /// The host does.
    Managed,
}

impl ScalingMode {
    /// The kind of pool that it means.
    #[must_use]
    pub fn kind(self) -> PoolKind {
        match self {
            Self::Standard => PoolKind::Dedicated,
            Self::Managed => PoolKind::Managed,
        }
    }

    /// Of a pool that is an account's own.
    #[must_use]
    pub fn of(kind: PoolKind) -> Self {
        if kind == PoolKind::Managed { Self::Managed } else { Self::Standard }
    }
}

/// A tag of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// `POST /v2/email/dedicated-ip-pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreatePool {
    /// Required.
    pub pool_name: Option<String>,
    /// Standard when absent.
    pub scaling_mode: Option<ScalingMode>,
    /// At most 50.
    pub tags: Option<Vec<Tag>>,
}

/// `GET /v2/email/dedicated-ip-pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pools {
    /// Names, in order.
    pub dedicated_ip_pools: Vec<String>,
    /// There is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    /// Its name.
    pub pool_name: String,
    /// Who decides which IPs it has.
    pub scaling_mode: ScalingMode,
}

/// `GET /v2/email/dedicated-ip-pools/{PoolName}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PoolAnswer {
    /// The pool.
    pub dedicated_ip_pool: Pool,
}

/// `PUT /v2/email/dedicated-ip-pools/{PoolName}/scaling`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutScaling {
    /// Required.
    pub scaling_mode: Option<ScalingMode>,
}

/// A dedicated IP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DedicatedIp {
    /// Its address.
    pub ip: String,
    /// `IN_PROGRESS`, `DONE` or `NOT_APPLICABLE`.
    pub warmup_status: String,
    /// 0 to 100; -1 in a managed pool.
    pub warmup_percentage: i32,
    /// The pool it is in.
    pub pool_name: String,
}

/// `GET /v2/email/dedicated-ips`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DedicatedIps {
    /// In order of address.
    pub dedicated_ips: Vec<DedicatedIp>,
    /// There is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// `GET /v2/email/dedicated-ips/{IP}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DedicatedIpAnswer {
    /// The IP.
    pub dedicated_ip: DedicatedIp,
}

/// `PUT /v2/email/dedicated-ips/{IP}/pool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MovePool {
    /// Required.
    pub destination_pool_name: Option<String>,
}

/// `PUT /v2/email/dedicated-ips/{IP}/warmup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WarmupPercentage {
    /// Required; a whole number from 0 to 100.
    pub warmup_percentage: Option<serde_json::Number>,
}

/// `PUT /v2/email/account/dedicated-ips/warmup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutoWarmup {
    /// Required.
    pub auto_warmup_enabled: Option<bool>,
}

/// `POST /mailrail/v1/leases`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseRequest {
    /// An address of this host that is not leased.
    pub address: IpAddr,
    /// EHLO name.
    pub helo: String,
    /// A pool that there is.
    pub pool: String,
    /// Only for the pool of IPs that are in no pool of an account's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// The one with the fewest when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<u16>,
    /// It is warm already.
    #[serde(default)]
    pub warm: bool,
    /// Why it is said to be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Caps by day, or `{"start", "factor", "target"}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<serde_json::Value>,
}

/// `PUT /mailrail/v1/leases/{IP}/plan`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IpPlan {
    /// The plan stands still at today's cap, or goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// Caps by day, `{"start", "factor", "target"}`, or `"inherit"`: that of its pool or account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<serde_json::Value>,
}

/// `PUT /mailrail/v1/pools/{name}`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PutPool {
    /// Of its IPs that have none of their own; `"inherit"`: that of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<serde_json::Value>,
    /// A day's cap is spent in no less than this: `6h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// Where mail goes that its plans do not let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// Mail that the smoothing lets go within this time waits for it: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow_after: Option<String>,
}

/// `PUT /mailrail/v1/accounts/{name}/warmup`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccountWarmup {
    /// Of its IPs that have none of their own or of their pool; `"inherit"`: the standard one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<serde_json::Value>,
    /// When its days begin, `HH:MM±hh:mm`; `"inherit"`: as the host's do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day_starts: Option<String>,
}

/// How far a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Its shard has not got it yet.
    Leased,
    /// It is in the middle of its plan.
    Warming,
    /// It is through with it.
    Warm,
    /// It takes nothing new.
    Draining,
    /// It is of a shared pool, and has no plan.
    Shared,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRow {
    /// Its address.
    pub address: IpAddr,
    /// EHLO name.
    pub helo: String,
    /// The pool it is in.
    pub pool: String,
    /// Whose it is; none: shared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// The shard that owns it.
    pub shard: u16,
    /// How far it is.
    pub state: LeaseState,
    /// When it was leased, milliseconds since the epoch; none: it is shared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leased: Option<u64>,
    /// Recipients that are to leave by it.
    pub queued: u64,
    /// What is wrong with its reverse DNS.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rdns: Option<String>,
    /// How its warm-up stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warmup: Option<WarmupStanding>,
}

/// `GET /mailrail/v1/leases`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leases {
    /// In order of address.
    pub leases: Vec<LeaseRow>,
}
