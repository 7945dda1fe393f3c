//! `GET` and `PUT /mailrail/v1/fleet`: the fleet as a file, taken whole or not at all.

use super::{
    error::ApiError,
    state::{InForce, State},
    types::{ApplyReport, DnsRecord, FleetExport, FleetRequest},
};
use crate::{
    clock,
    control::{fleet::Fleet, socket::Peer},
};
use axum::{
    Json,
    extract::{self, ConnectInfo, Query, rejection::JsonRejection, rejection::QueryRejection},
};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn get(extract::State(state): extract::State<Arc<State>>) -> Json<FleetExport> {
    let in_force = state.fleet.lock().await;
    let records = in_force.fleet.dns_records().into_iter();
    let dns_records = records.map(|(name, value)| DnsRecord { name, value }).collect();
    Json(FleetExport { toml: in_force.fleet.to_toml(), version: in_force.version, dns_records })
}

pub(super) async fn put(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    how: Result<Query<How>, QueryRejection>,
    request: Result<Json<FleetRequest>, JsonRejection>,
) -> Result<Json<ApplyReport>, ApiError> {
    let (Query(How { dry_run }), Json(request)) = (how?, request?);
    // Held to the end: two changes at a time would each start from what the other undoes.
    let mut in_force = state.fleet.lock().await;
    let wanted = parse(request, state.config.shards, in_force.fleet.clone()).await?;
    let changes = in_force.fleet.changes(&wanted);
    if changes.is_empty() || dry_run {
        return Ok(Json(ApplyReport { changes, dry_run, version: in_force.version }));
    }
    let changes = replace(&mut in_force, wanted, changes, peer.who()).await?;
    state.send(state.snapshot(&in_force)).await;
    for change in &changes {
        let (action, kind) = (change.action.as_str(), change.kind.as_str());
        tracing::info!(
            who = peer.who(),
            action,
            kind,
            name = change.name,
            before = change.before,
            after = change.after,
            "fleet"
        );
    }
    Ok(Json(ApplyReport { changes, dry_run, version: in_force.version }))
}

/// Reads the file where blocking is allowed: it names key files, and IPs that are tried.
async fn parse(request: FleetRequest, shards: u16, old: Fleet) -> Result<Fleet, ApiError> {
    let parsed = tokio::task::spawn_blocking(move || {
        let file = PathBuf::from(request.file.as_deref().unwrap_or("fleet.toml"));
        let directory = request.directory.filter(|directory| directory.is_absolute());
        let directory = directory.as_deref().unwrap_or(Path::new("/"));
        Fleet::parse(&request.toml, &file, directory, shards, &old)
    });
    match parsed.await {
        Ok(Ok(fleet)) => Ok(fleet),
        Ok(Err(wrong)) => Err(ApiError::bad(wrong.to_string())),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

type Changes = Vec<super::types::Change>;

/// Makes the change durable; in force is what the store says.
async fn replace(in_force: &mut InForce, wanted: Fleet, changes: Changes, who: String) -> Result<Changes, ApiError> {
    let Some(mut store) = in_force.store.take() else {
        return Err(ApiError::internal("the control store is lost to an earlier fault; restart the server"));
    };
    let now = clock::wall().0;
    let task = tokio::task::spawn_blocking(move || {
        let version = store.replace(&wanted, &changes, &who, now);
        (store, wanted, changes, version)
    });
    let (store, wanted, changes, version) = task.await.map_err(|error| ApiError::internal(error.to_string()))?;
    in_force.store = Some(store);
    in_force.version = version.map_err(|error| ApiError::internal(format!("nothing was changed: {error}")))?;
    in_force.fleet = wanted;
    Ok(changes)
}
