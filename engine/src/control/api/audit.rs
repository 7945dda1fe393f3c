//! `GET /mailrail/v1/audit`: who changed what; and how a change that is no matter of the fleet comes into it.

use super::{
    error::ApiError,
    state::State,
    types::{Change, audit::AuditPage},
};
use crate::{
    clock,
    control::store::{Store, StoreError},
};
use axum::{
    Json,
    extract::{self, Query, rejection::QueryRejection},
};
use serde::Deserialize;
use std::sync::{Arc, PoisonError};

/// Rows of a page, at most and unless told.
const PAGE_MOST: usize = 1000;
const PAGE: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    before: Option<u64>,
    kind: Option<String>,
    name: Option<String>,
}

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<AuditPage>, ApiError> {
    let Query(Asked { limit, before, kind, name }) = asked?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE_MOST).contains(&limit) {
        return Err(ApiError::bad(format!("limit is 1 to {PAGE_MOST}, not {limit}")));
    }
    let read = move |store: &mut Store| store.audit(before, kind.as_deref(), name.as_deref(), limit + 1);
    let mut entries = with_store(&state, read).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| last.id);
    Ok(Json(AuditPage { entries, next }))
}

/// Writes down what is about to be changed outside the fleet, then changes it: nothing is done that is not in the audit, and
/// what then fails is told there too.
///
/// # Errors
/// It could not be written down, and nothing was done; or what `work` says.
pub(super) async fn audited<T>(
    state: &Arc<State>,
    who: &str,
    change: Change,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    note(state, who, change.clone()).await?;
    let done = work.await;
    if let Err(error) = &done {
        note(state, who, Change { after: Some(format!("not done: {}", error.message())), ..change }).await?;
    }
    done
}

async fn note(state: &Arc<State>, who: &str, change: Change) -> Result<(), ApiError> {
    let (action, kind) = (change.action.as_str(), change.kind.as_str());
    let Change { name, before, after, .. } = &change;
    tracing::info!(who, action, kind, name, before, after, "control");
    let (who, now) = (who.to_owned(), clock::wall().0);
    with_store(state, move |store| store.note_changes(&[change], &who, now)).await
}

/// Uses the store where blocking is allowed.
async fn with_store<T: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = Arc::clone(&state.store);
    let task = tokio::task::spawn_blocking(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner)));
    match task.await {
        Ok(done) => done.map_err(|error| ApiError::internal(error.to_string())),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}
