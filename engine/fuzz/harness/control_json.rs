//! Any JSON as what the control socket takes and gives: refused, or read as what its own form reads as.

use crate::control::api::types::{
    ApplyReport, ErrorBody, FleetExport, FleetRequest, HealthReport, QueueReport, StatusReport, TraceReport,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// The first octet chooses the type.
pub fn run(data: &[u8]) {
    let Some((&kind, json)) = data.split_first() else { return };
    match kind % 8 {
        0 => request(json),
        1 => again::<StatusReport>(json),
        2 => again::<QueueReport>(json),
        3 => again::<FleetExport>(json),
        4 => again::<ApplyReport>(json),
        5 => again::<TraceReport>(json),
        6 => again::<HealthReport>(json),
        _ => again::<ErrorBody>(json),
    }
}

/// The one body a client sends: its fleet goes on to the reader of fleets.
fn request(json: &[u8]) {
    again::<FleetRequest>(json);
    if let Ok(request) = serde_json::from_slice::<FleetRequest>(json) {
        super::fleet::run(request.toml.as_bytes());
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(read));
}
