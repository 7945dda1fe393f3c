//! `GET /mailrail/v1/queue`: what waits, by site and leased IP, or message by message; `selected`: how much a filter selects.

use super::{
    error::ApiError,
    state::State,
    types::{QueueReport, orders::SelectedReport},
};
use crate::link::{
    Command, QueueFilter, QueueRow,
    orders::{Ask, Filter, Selected},
};
use axum::{
    Json,
    extract::{self, Query, rejection::QueryRejection},
};
use std::{cmp::Reverse, sync::Arc};

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    filter: Result<Query<QueueFilter>, QueryRejection>,
) -> Result<Json<QueueReport>, ApiError> {
    let Query(filter) = filter?;
    Ok(Json(report(&state, &filter).await))
}

pub(super) async fn selected(
    extract::State(state): extract::State<Arc<State>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<SelectedReport>, ApiError> {
    let Query(filter) = filter?;
    super::orders::check(&state, &filter, true, "")?;
    let (answers, silent_shards) = state.ask_all(|reply| Ask::Count(filter.clone(), reply).into()).await;
    let mut selected = Selected::default();
    for (_, found) in answers {
        selected.messages += found.messages;
        selected.recipients += found.recipients;
        selected.in_flight += found.in_flight;
    }
    Ok(Json(SelectedReport { selected, silent_shards }))
}

async fn report(state: &State, filter: &QueueFilter) -> QueueReport {
    let (answers, silent_shards) = state.ask_all(|reply| Command::Queue(filter.clone(), reply)).await;
    let truncated = filter.limit > 0 && answers.iter().any(|(_, rows)| rows.len() >= filter.limit);
    let mut rows: Vec<QueueRow> = answers.into_iter().flat_map(|(_, rows)| rows).collect();
    if filter.messages || filter.message.is_some() {
        rows.sort_by_key(|row| row.oldest);
    } else {
        rows.sort_by_key(|row| (Reverse(row.queued), row.site.clone(), row.ip));
    }
    QueueReport { queued: rows.iter().map(|row| row.queued).sum(), rows, truncated, silent_shards }
}
