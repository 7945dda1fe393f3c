//! `/mailrail/v1/leases`: leasing, draining and releasing IPs, and holding their plans, for which SES has no operation.

use super::{
    account,
    change::{change, seen},
    error::ApiError,
    state::State,
    types::{Done, LeaseRequest, LeaseRow, LeaseState, Leases},
};
use crate::{
    config::is_domain,
    control::{
        fleet::{Fleet, Item},
        pools::PlanItem,
        socket::Peer,
    },
    link::IpStatus,
};
use axum::{
    Json,
    extract::{self, ConnectInfo, Path, rejection::JsonRejection},
};
use mailrail_queue::policy::{DEFAULT_ACCOUNT, DEFAULT_DEDICATED_POOL, PoolKind, SHARED_POOL};
use std::{net::IpAddr, sync::Arc};

type Shared = extract::State<Arc<State>>;

pub(super) async fn list(extract::State(state): Shared) -> Json<Leases> {
    let (in_force, shards) = seen(&state).await;
    let fleet = &in_force.fleet;
    let mut leases: Vec<LeaseRow> = fleet
        .of("ip")
        .filter_map(|(address, item)| {
            let ip: IpAddr = address.parse().ok()?;
            let known = shards.iter().flat_map(|shard| &shard.ips).find(|known| known.address == ip);
            row(&state, fleet, ip, item, known)
        })
        .collect();
    leases.sort_unstable_by_key(|lease| lease.address);
    Json(Leases { leases })
}

fn row(state: &State, fleet: &Fleet, ip: IpAddr, item: &Item, known: Option<&IpStatus>) -> Option<LeaseRow> {
    let Item::Ip { helo, pool, shard, .. } = item else { return None };
    let (address, rdns) = (ip.to_string(), state.rdns.wrong(ip, helo));
    let kind = fleet.kind_of_ip(&address);
    let lease = fleet.lease(&address);
    let warmup = known.and_then(|known| known.warmup.clone());
    let state = match (lease.is_some_and(|lease| lease.draining), kind, &warmup) {
        (true, ..) => LeaseState::Draining,
        (_, PoolKind::Shared, _) => LeaseState::Shared,
        (.., None) => LeaseState::Leased,
        (.., Some(warmup)) if warmup.done => LeaseState::Warm,
        _ => LeaseState::Warming,
    };
    Some(LeaseRow {
        address: ip,
        helo: helo.clone(),
        pool: pool.clone(),
        account: (kind != PoolKind::Shared).then(|| fleet.account_of_ip(&address).to_owned()),
        shard: *shard,
        state,
        leased: lease.filter(|lease| lease.leased_ms > 0).map(|lease| lease.leased_ms),
        queued: known.map_or(0, |known| known.queued),
        rdns,
        warmup,
    })
}

pub(super) async fn lease(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<LeaseRequest>, JsonRejection>,
) -> Result<Json<Done>, ApiError> {
    let Json(request) = request?;
    let address = request.address.to_canonical();
    if !is_domain(&request.helo) {
        return Err(ApiError::bad(format!("helo \"{}\" is not a host name", request.helo)));
    }
    if request.warm && request.reason.as_deref().unwrap_or("").is_empty() {
        return Err(ApiError::bad("warm needs a reason: it goes around the plan"));
    }
    let plan = request.plan.as_ref().map(PlanItem::from_json).transpose().map_err(ApiError::bad)?;
    if let Err(error) = std::net::UdpSocket::bind((address, 0)) {
        return Err(ApiError::bad(format!("this host does not have the address {address} ({error})")));
    }
    let shards = state.config.shards;
    if let Some(shard) = request.shard.filter(|shard| *shard >= shards) {
        return Err(ApiError::bad(format!("shard {shard} is none; there are 0 to {}", shards - 1)));
    }
    change(&state, peer.who(), move |fleet, _| {
        if fleet.ip(&address.to_string()).is_some() {
            return Err(ApiError::exists(format!("{address} is leased already")));
        }
        let reserved = [DEFAULT_DEDICATED_POOL, SHARED_POOL].contains(&request.pool.as_str());
        if !reserved && fleet.pool(&request.pool).is_none() {
            return Err(ApiError::not_found(format!("there is no pool {}", request.pool)));
        }
        if request.account.is_some() && request.pool != DEFAULT_DEDICATED_POOL {
            let text = "the account is that of the pool; give one only for";
            return Err(ApiError::bad(format!("{text} {DEFAULT_DEDICATED_POOL}")));
        }
        if let Some(account) = &request.account {
            account::known(fleet, account)?;
        }
        let shared =
            request.pool == SHARED_POOL || fleet.pool(&request.pool).is_some_and(|p| p.kind == PoolKind::Shared);
        if shared && (request.warm || plan.is_some()) {
            return Err(ApiError::bad(format!(
                "pool {} is shared: its IPs have no plan, and need not be warm",
                request.pool
            )));
        }
        let shard = request.shard.unwrap_or_else(|| least(fleet, shards));
        let item = Item::Ip {
            helo: request.helo.to_ascii_lowercase(),
            pool: request.pool,
            shard,
            account: request.account.filter(|account| account != DEFAULT_ACCOUNT),
            warm: request.warm,
            reason: request.reason,
            plan,
        };
        fleet.put(&address.to_string(), item);
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

/// The shard with the fewest leases.
fn least(fleet: &Fleet, shards: u16) -> u16 {
    let count = |wanted: u16| {
        fleet.of("ip").filter(|(_, item)| matches!(item, Item::Ip { shard, .. } if *shard == wanted)).count()
    };
    (0..shards).min_by_key(|shard| count(*shard)).unwrap_or(0)
}

pub(super) fn known(fleet: &Fleet, ip: &str) -> Result<String, ApiError> {
    let address: IpAddr = ip.parse().map_err(|_| ApiError::bad(format!("{ip} is no IP address")))?;
    let address = address.to_canonical().to_string();
    fleet.ip(&address).map(|_| address.clone()).ok_or_else(|| ApiError::not_found(format!("{address} is not leased")))
}

pub(super) async fn drain(
    extract::State(state): Shared,
    Path(ip): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Done>, ApiError> {
    change(&state, peer.who(), move |fleet, _| {
        let address = known(fleet, &ip)?;
        if let Some(lease) = fleet.lease_mut(&address) {
            lease.draining = true;
        }
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

/// Ends a lease for good. Mail that still waits for it gets another IP.
pub(super) async fn release(
    extract::State(state): Shared,
    Path(ip): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Done>, ApiError> {
    change(&state, peer.who(), move |fleet, _| {
        let address = known(fleet, &ip)?;
        fleet.0.remove(&("ip".into(), address));
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}
