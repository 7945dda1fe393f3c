//! `GET /mailrail/v1/trace/{id}`: one message's story, from the event log.

use super::{error::ApiError, state::State, types::TraceReport};
use crate::{event::trace, message::id::MessageId};
use axum::{
    Json,
    extract::{self, Path},
};
use std::sync::Arc;

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    Path(id): Path<String>,
) -> Result<Json<TraceReport>, ApiError> {
    let wanted: MessageId =
        id.parse().map_err(|error: crate::message::id::NotAnId| ApiError::bad(error.to_string()))?;
    let directory = state.config.events_dir();
    let read = tokio::task::spawn_blocking(move || trace::events_of(&directory, wanted)).await;
    match read {
        Ok(Ok(events)) => Ok(Json(TraceReport { message_id: wanted.to_string(), events })),
        Ok(Err(error)) => Err(ApiError::internal(format!("the event log cannot be read: {error}"))),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}
