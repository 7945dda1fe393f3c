//! Any JSON as what the control socket takes and gives: refused, or read as what its own form reads as.

use crate::{
    control::api::types::{
        AccountWarmup, ApplyReport, AutoWarmup, CreatePool, ErrorBody, FleetExport, FleetRequest, HealthReport, IpPlan,
        LeaseRequest, Leases, MovePool, PutPool, PutScaling, QueueReport, StatusReport, TraceReport, WarmupPercentage,
        account::{LimitsRequest, PutAccountSendingAttributesRequest},
        orders::{ExplainReport, OrderReport, OrderRequest, SuspendRequest},
        provider::{Lift, Providers, Suspend},
        suppression::{ImportRequest, ListSuppressedDestinationsResponse, PutSuppressedDestinationRequest},
    },
    link::orders::Filter,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Kinds of bodies: the first octet chooses one.
const KINDS: [fn(&[u8]); 28] = [
    fleet,
    again::<StatusReport>,
    again::<QueueReport>,
    again::<FleetExport>,
    again::<ApplyReport>,
    again::<TraceReport>,
    again::<HealthReport>,
    again::<ErrorBody>,
    order,
    suspend,
    again::<OrderReport>,
    again::<ExplainReport>,
    again::<Suspend>,
    again::<Lift>,
    again::<Providers>,
    import,
    again::<PutSuppressedDestinationRequest>,
    again::<ListSuppressedDestinationsResponse>,
    again::<PutAccountSendingAttributesRequest>,
    again::<LimitsRequest>,
    again::<CreatePool>,
    again::<PutScaling>,
    again::<MovePool>,
    again::<WarmupPercentage>,
    again::<AutoWarmup>,
    again::<LeaseRequest>,
    |json| {
        again::<IpPlan>(json);
        again::<AccountWarmup>(json);
    },
    |json| {
        again::<PutPool>(json);
        again::<Leases>(json);
    },
];

pub fn run(data: &[u8]) {
    let Some((&kind, json)) = data.split_first() else { return };
    KINDS[usize::from(kind) % KINDS.len()](json);
}

/// The fleet goes on to the reader of fleets.
fn fleet(json: &[u8]) {
    again::<FleetRequest>(json);
    if let Ok(request) = serde_json::from_slice::<FleetRequest>(json) {
        super::fleet::run(request.toml.as_bytes());
    }
}

fn order(json: &[u8]) {
    again::<OrderRequest>(json);
    if let Ok(request) = serde_json::from_slice::<OrderRequest>(json) {
        shown(&request.filter);
    }
}

fn suspend(json: &[u8]) {
    again::<SuspendRequest>(json);
    if let Ok(request) = serde_json::from_slice::<SuspendRequest>(json) {
        shown(&request.filter);
    }
}

/// The lines of an import go on to their reader.
fn import(json: &[u8]) {
    again::<ImportRequest>(json);
    if let Ok(request) = serde_json::from_slice::<ImportRequest>(json) {
        super::suppression::run(request.lines.as_bytes());
    }
}

/// In the audit trail and in lists nothing is called "all mail" that is not.
fn shown(filter: &Filter) {
    assert_eq!(filter.to_string() == "all mail", filter.is_empty());
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(read));
}
