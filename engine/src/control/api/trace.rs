//! `GET /mailrail/v1/trace/{id}`: one message's story, from the event log.

use super::{error::ApiError, state::State, types::TraceReport};
use crate::{event::trace, message::id::MessageId};
use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
};
use std::sync::Arc;

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<TraceReport>, ApiError> {
    let Path(id) = id?;
    let wanted: MessageId =
        id.parse().map_err(|error: crate::message::id::NotAnId| ApiError::bad(error.to_string()))?;
    let _turn = state.tracers.acquire().await.map_err(|error| ApiError::internal(error.to_string()))?;
    let directory = state.config.events_dir();
    let read = tokio::task::spawn_blocking(move || trace::events_of(&directory, wanted)).await;
    match read {
        Ok(Ok(events)) => Ok(Json(TraceReport { message_id: wanted.to_string(), events })),
        Ok(Err(error)) => Err(ApiError::internal(format!("the event log cannot be read: {error}"))),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}
