//! `GET /mailrail/v1/health`: 200 when all is well, 503 and the problems when it is not.

use super::{state::State, types::HealthReport};
use axum::{Json, extract, http::StatusCode};
use std::sync::Arc;

pub(super) async fn get(extract::State(state): extract::State<Arc<State>>) -> (StatusCode, Json<HealthReport>) {
    let (shards, silent) = state.shards().await;
    let mut problems: Vec<String> = silent.iter().map(|shard| format!("shard {shard} does not answer")).collect();
    for shard in &shards {
        if let Some(why) = &shard.spool_full {
            problems.push(format!("shard {} takes no new mail: {why}", shard.shard));
        }
    }
    if let Some(why) = state.event_log(|_| ()).error {
        problems.push(format!("the event log cannot be written: {why}"));
    }
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(HealthReport { healthy: problems.is_empty(), problems }))
}
