//! `GET` and `PUT /mailrail/v1/fleet`: the fleet as a file, taken whole or not at all.

use super::{
    error::ApiError,
    state::{InForce, State},
    types::{ApplyReport, Change, DnsRecord, FleetExport, FleetRequest},
};
use crate::{
    clock,
    control::{fleet::Fleet, rdns, socket::Peer, store::StoreError},
    link::Snapshot,
};
use axum::{
    Json,
    extract::{self, ConnectInfo, Query, rejection::JsonRejection, rejection::QueryRejection},
};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn get(extract::State(state): extract::State<Arc<State>>) -> Json<FleetExport> {
    let in_force = state.in_force();
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
    // A task of its own: it goes on to its end when the client hangs up, so that no change is left half done.
    match tokio::spawn(apply(state, request, dry_run, peer.who())).await {
        Ok(report) => report.map(Json),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

async fn apply(state: Arc<State>, request: FleetRequest, dry_run: bool, who: String) -> Result<ApplyReport, ApiError> {
    // Held to the end: two changes at a time would each start from what the other undoes.
    let _one = state.changing.lock().await;
    let before = state.in_force();
    let mut wanted = parse(request, state.config.shards, Arc::clone(&before)).await?;
    wanted.follow(&before.fleet, before.version + 1, clock::wall()).map_err(ApiError::bad)?;
    rdns::check(&state, &before.fleet, &wanted).await?;
    let changes = before.fleet.changes(&wanted);
    if changes.is_empty() || dry_run {
        return Ok(ApplyReport { changes, dry_run, version: before.version });
    }
    let (changes, version) = enforce(&state, wanted, changes, who).await?;
    Ok(ApplyReport { changes, dry_run, version })
}

/// Puts another fleet in force, if it is another; returns the version then in force. Called under [`State::changing`].
pub(super) async fn put_in_force(state: &State, before: &InForce, wanted: Fleet, who: String) -> Result<u64, ApiError> {
    let changes = before.fleet.changes(&wanted);
    if changes.is_empty() {
        return Ok(before.version);
    }
    rdns::check(state, &before.fleet, &wanted).await?;
    enforce(state, wanted, changes, who).await.map(|(_, version)| version)
}

async fn enforce(
    state: &State,
    wanted: Fleet,
    changes: Vec<Change>,
    who: String,
) -> Result<(Vec<Change>, u64), ApiError> {
    let (changes, fleet, snapshot) = replace(state, wanted, changes, who.clone()).await?;
    state.enforce(Arc::clone(&fleet), &snapshot);
    for change in &changes {
        let (action, kind) = (change.action.as_str(), change.kind.as_str());
        let Change { name, before, after, .. } = change;
        tracing::info!(who, action, kind, name, before, after, "fleet");
    }
    Ok((changes, fleet.version))
}

/// Reads the file where blocking is allowed: it names key files, and IPs that are tried.
async fn parse(request: FleetRequest, shards: u16, old: Arc<InForce>) -> Result<Fleet, ApiError> {
    let parsed = tokio::task::spawn_blocking(move || {
        let file = PathBuf::from(request.file.as_deref().unwrap_or("fleet.toml"));
        let directory = request.directory.filter(|directory| directory.is_absolute());
        let directory = directory.as_deref().unwrap_or(Path::new("/"));
        Fleet::parse(&request.toml, &file, directory, shards, &old.fleet)
    });
    match parsed.await {
        Ok(Ok(fleet)) => Ok(fleet),
        Ok(Err(wrong)) => Err(ApiError::bad(wrong.to_string())),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

/// Makes the change durable, and what shards take of it, where blocking is allowed.
async fn replace(
    state: &State,
    fleet: Fleet,
    changes: Vec<Change>,
    who: String,
) -> Result<(Vec<Change>, Arc<InForce>, Snapshot), ApiError> {
    let (store, config, now) = (Arc::clone(&state.store), Arc::clone(&state.config), clock::wall().0);
    let task = tokio::task::spawn_blocking(move || {
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let version = store.replace(&fleet, &changes, &who, now)?;
        let fleet = Arc::new(InForce { fleet, version });
        let snapshot = fleet.snapshot(&config);
        Ok::<_, StoreError>((changes, fleet, snapshot))
    });
    match task.await {
        Ok(Ok(replaced)) => Ok(replaced),
        Ok(Err(error)) => {
            tracing::error!("a change could not be kept, the fleet stays as it was: {error}");
            Err(ApiError::internal(format!("nothing was changed: {error}")))
        }
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{post::Post, resolver::Resolver, store::Store, tests::config},
        link,
    };

    #[tokio::test]
    async fn a_client_that_hangs_up_in_the_middle_leaves_store_and_shards_alike() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), "[dns]\nservers = [\"127.0.0.1\"]\n");
        let (control, mut shards) = link::link(1);
        let post = Arc::new(Post::new(control.commands));
        let resolver = Arc::new(Resolver::new(Arc::clone(&config), Arc::clone(&post)).unwrap());
        let store = Store::open(&directory.path().join("control.db")).unwrap();
        let (told, _warnings) = tokio::sync::mpsc::unbounded_channel();
        let state = Arc::new(State::new(config, post, Vec::new(), store, resolver, told).unwrap());
        for n in 0..20 {
            let toml = format!("[[pool]]\nname = \"p{n}\"\n");
            let request = FleetRequest { toml, ..FleetRequest::default() };
            let how = Ok(Query(How { dry_run: false }));
            let put = put(extract::State(Arc::clone(&state)), ConnectInfo(Peer::default()), how, Ok(Json(request)));
            // What hyper does when the client has gone: the handler is dropped, here while the store is written.
            let writing = async {
                while state.store.try_lock().is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = put => {}
                () = writing => {}
            }
            let _done = state.changing.lock().await;
            let stored = state.store.lock().unwrap().fleet().unwrap();
            let in_force = state.in_force();
            assert_eq!((in_force.version, &in_force.fleet), (stored.0, &stored.1));
        }
        let version = state.in_force().version;
        assert!(matches!(shards[0].commands.recv().await, Some(crate::link::Command::Lists { .. })));
        for expected in 0..=version {
            match shards[0].commands.recv().await {
                Some(crate::link::Command::Snapshot(told)) => assert_eq!(told.policy.version, expected),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(version, 20);
    }
}
