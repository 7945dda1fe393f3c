//! `/mailrail/v1/queue/suspensions` and `/mailrail/v1/queue/orders`: what operators do to queued mail.

use super::{
    error::ApiError,
    state::State,
    types::{
        account::Done,
        orders::{OrderReport, OrderRequest, Orders, SuspendRequest, Suspensions},
    },
};
use crate::{
    clock,
    control::{socket::Peer, store::StoreError},
    link::orders::{Action, Filter, Order, Suspension},
};
use axum::{
    Json,
    extract::{
        self, ConnectInfo, Path,
        rejection::{JsonRejection, PathRejection},
    },
};
use std::{sync::Arc, time::Duration};

/// An order that is carried out so soon is answered as such.
const SOON: Duration = Duration::from_millis(600);
/// Longest reason.
const REASON_MAX: usize = 200;

type Shared = extract::State<Arc<State>>;
type Numbered = Result<Path<u64>, PathRejection>;

pub(super) async fn suspensions(extract::State(state): Shared) -> Json<Suspensions> {
    Json(Suspensions { suspensions: state.orders.suspensions() })
}

pub(super) async fn suspend(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<SuspendRequest>, JsonRejection>,
) -> Result<Json<Suspension>, ApiError> {
    let Json(SuspendRequest { filter, all, reason }) = request?;
    check(&state, &filter, all, &reason)?;
    let who = peer.who();
    blocking(move || state.orders.suspend(filter, reason, who)).await.map(Json)
}

pub(super) async fn resume(
    extract::State(state): Shared,
    id: Numbered,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Done>, ApiError> {
    let Path(id) = id?;
    let who = peer.who();
    let found = blocking(move || state.orders.resume(id, &who)).await?;
    found.map(|_| Json(Done {})).ok_or_else(|| ApiError::not_found(format!("there is no suspension {id}")))
}

pub(super) async fn list(extract::State(state): Shared) -> Json<Orders> {
    Json(Orders { orders: state.orders.all().iter().rev().map(|given| given.report()).collect() })
}

pub(super) async fn show(extract::State(state): Shared, id: Numbered) -> Result<Json<OrderReport>, ApiError> {
    let Path(id) = id?;
    let given = state.orders.one(id).ok_or_else(|| ApiError::not_found(format!("there is no order {id}")))?;
    Ok(Json(given.report()))
}

pub(super) async fn give(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<OrderRequest>, JsonRejection>,
) -> Result<Json<OrderReport>, ApiError> {
    let Json(OrderRequest { action, filter, all, pool, reason }) = request?;
    check(&state, &filter, all, &reason)?;
    match &pool {
        Some(_) if action != Action::Reroute => return Err(ApiError::bad("pool is for reroute only")),
        None if action == Action::Reroute => return Err(ApiError::bad("reroute needs a pool")),
        Some(pool) => known_pool(&state, pool)?,
        None => {}
    }
    let order = Order { id: 0, action, filter, pool, reason, who: peer.who(), given: clock::wall().0 };
    let runtime = tokio::runtime::Handle::current();
    let given = blocking(move || {
        let _runtime = runtime.enter();
        state.orders.give(order)
    })
    .await?;
    let _ = tokio::time::timeout(SOON, given.end()).await;
    Ok(Json(given.report()))
}

/// Is it clear what is meant, and is there such a thing?
pub(super) fn check(state: &State, filter: &Filter, all: bool, reason: &str) -> Result<(), ApiError> {
    if filter.is_empty() && !all {
        return Err(ApiError::bad("the filter is empty: name what it is about, or say all"));
    }
    if reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        return Err(ApiError::bad(format!("the reason is one line of at most {REASON_MAX} octets")));
    }
    if let Some(pool) = &filter.pool {
        known_pool(state, pool)?;
    }
    if let Some(account) = &filter.account {
        super::account::named(state, Some(account))?;
    }
    Ok(())
}

fn known_pool(state: &State, pool: &str) -> Result<(), ApiError> {
    let known = state.policy().pools.iter().any(|known| *known.name == *pool);
    if known { Ok(()) } else { Err(ApiError::not_found(format!("there is no pool {pool}"))) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| ApiError::internal(error.to_string())),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}
