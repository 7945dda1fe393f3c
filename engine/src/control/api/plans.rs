//! Warm-up plans of the user's own and what goes with them: `PUT` of an account's, a pool's and an IP's. The narrowest holds,
//! and a change takes effect with the next day.

use super::{
    account::{self, Named},
    change::change,
    error::ApiError,
    leases::known,
    state::State,
    types::{AccountWarmup, Done, IpPlan, PutPool},
};
use crate::control::{
    account::{AccountItem, INHERIT, day_starts},
    fleet::Item,
    pools::{self, PlanItem},
    socket::Peer,
};
use axum::{
    Json,
    extract::{self, ConnectInfo, Path, rejection::JsonRejection},
};
use mailrail_queue::policy::PoolKind;
use serde_json::Value;
use std::sync::Arc;

type Shared = extract::State<Arc<State>>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// A plan of the user's own; none: that of the wider thing is to hold.
fn plan(value: &Value) -> Result<Option<PlanItem>, ApiError> {
    if value == INHERIT {
        return Ok(None);
    }
    PlanItem::from_json(value).map(Some).map_err(|why| ApiError::bad(format!("plan: {why}")))
}

pub(super) async fn put_account(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    name: Named,
    request: Body<AccountWarmup>,
) -> Result<Json<Done>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    if request == AccountWarmup::default() {
        return Err(ApiError::bad("give plan or dayStarts"));
    }
    let wanted = request.plan.as_ref().map(plan).transpose()?;
    let starts = request.day_starts.map(|text| (text != INHERIT).then_some(text));
    if let Some(Some(text)) = &starts {
        day_starts(text).map_err(ApiError::bad)?;
    }
    change(&state, peer.who(), move |fleet, _| {
        account::known(fleet, &name)?;
        let mut account = fleet.account(&name).cloned().unwrap_or_else(AccountItem::built_in);
        if let Some(plan) = wanted {
            account.plan = plan;
        }
        if let Some(starts) = starts {
            account.day_starts = starts;
        }
        fleet.set_account(&name, account);
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

pub(super) async fn put_pool(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    name: Named,
    request: Body<PutPool>,
) -> Result<Json<Done>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    if request == PutPool::default() {
        return Err(ApiError::bad("give plan, spread, overflow or overflowAfter"));
    }
    let wanted = request.plan.as_ref().map(plan).transpose()?;
    let millis = |key: &str, text: &Option<String>, least: u64| {
        let read = |text: &String| pools::millis(text, least).map_err(|why| ApiError::bad(format!("{key}: {why}")));
        text.as_ref().map(read).transpose()
    };
    let spread = millis("spread", &request.spread, 1000)?;
    let overflow_after = millis("overflowAfter", &request.overflow_after, 0)?;
    change(&state, peer.who(), move |fleet, _| {
        let Some(Item::Pool(pool)) = fleet.0.get_mut(&("pool".into(), name.clone())) else {
            return Err(ApiError::not_found(format!("there is no pool {name}")));
        };
        if pool.kind == PoolKind::Shared {
            return Err(ApiError::bad(format!("pool {name} is shared: its IPs have no plan, and nothing overflows")));
        }
        if let Some(plan) = wanted {
            pool.plan = plan;
        }
        pool.spread_ms = spread.or(pool.spread_ms);
        pool.overflow = request.overflow.unwrap_or(pool.overflow);
        pool.overflow_after_ms = overflow_after.unwrap_or(pool.overflow_after_ms);
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

/// The plan of one IP: another one, or one that stands still at today's cap, or goes on.
pub(super) async fn put_ip(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    ip: Named,
    request: Body<IpPlan>,
) -> Result<Json<Done>, ApiError> {
    let (Path(ip), Json(request)) = (ip?, request?);
    if request == IpPlan::default() {
        return Err(ApiError::bad("give held or plan"));
    }
    let wanted = request.plan.as_ref().map(plan).transpose()?;
    change(&state, peer.who(), move |fleet, _| {
        let address = known(fleet, &ip)?;
        if fleet.kind_of_ip(&address) != PoolKind::Dedicated {
            return Err(ApiError::bad(format!("{address} is in no standard pool, and has no plan of its own")));
        }
        if let (Some(held), Some(lease)) = (request.held, fleet.lease_mut(&address)) {
            lease.held = held;
        }
        if let (Some(wanted), Some(Item::Ip { plan, .. })) = (wanted, fleet.0.get_mut(&("ip".to_owned(), address))) {
            *plan = wanted;
        }
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}
