//! Dedicated IPs and their pools, as SES v2 names and shapes them. `?account=` says whose; without it the default account's.

use super::{
    account::known,
    change::{change, seen},
    error::ApiError,
    state::State,
    types::{
        AutoWarmup, CreatePool, DedicatedIp, DedicatedIpAnswer, DedicatedIps, Done, MovePool, Pool, PoolAnswer, Pools,
        ScalingMode, WarmupPercentage,
    },
};
use crate::{
    control::{
        fleet::{Fleet, Item},
        pools::{self, PoolItem},
        socket::Peer,
    },
    link::ShardStatus,
};
use axum::{
    Json,
    extract::{self, ConnectInfo, Path, Query, rejection::JsonRejection, rejection::QueryRejection},
};
use mailrail_queue::{
    egress::DEFAULT_ACCOUNT,
    policy::{DEFAULT_DEDICATED_POOL, PoolKind, SHARED_POOL},
    warmup::plan::Percentage,
};
use serde::Deserialize;
use std::{net::IpAddr, sync::Arc};

/// Most and usual entries of a page.
const PAGE_MOST: usize = 1000;
const PAGE: usize = 100;
/// Tags of a pool.
const TAGS_MOST: usize = 50;

type Shared = extract::State<Arc<State>>;
type Body<T> = Result<Json<T>, JsonRejection>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    account: Option<String>,
    /// `keep`: IPs in the middle of their plans stay there when automatic warm-up is switched off.
    in_progress: Option<String>,
}

impl Whose {
    fn account(&self) -> &str {
        self.account.as_deref().unwrap_or(DEFAULT_ACCOUNT)
    }

    /// As the fleet has it: what is of no other account is the default one's.
    fn own(&self) -> Option<String> {
        self.account.clone().filter(|account| account != DEFAULT_ACCOUNT)
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(rename = "PoolName")]
    pool: Option<String>,
    #[serde(rename = "PageSize")]
    size: Option<usize>,
    #[serde(rename = "NextToken")]
    next: Option<String>,
    account: Option<String>,
}

/// What is not as it should be is a bad request, whatever its form.
fn body<T>(body: Body<T>) -> Result<T, ApiError> {
    body.map(|Json(body)| body)
        .map_err(|why| ApiError::bad(format!("the request is not as expected: {}", why.body_text())))
}

fn missing(name: &str) -> ApiError {
    ApiError::bad(format!("{name} is missing"))
}

pub(super) async fn create_pool(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    whose: Result<Query<Whose>, QueryRejection>,
    request: Body<CreatePool>,
) -> Result<Json<Done>, ApiError> {
    let (Query(whose), request) = (whose?, body(request)?);
    let name = request.pool_name.ok_or_else(|| missing("PoolName"))?;
    pools::check_name(&name).map_err(ApiError::bad)?;
    if [DEFAULT_DEDICATED_POOL, SHARED_POOL].contains(&name.as_str()) {
        return Err(ApiError::bad(format!("{name} is a reserved name")));
    }
    let tags = request.tags.unwrap_or_default();
    if tags.len() > TAGS_MOST {
        return Err(ApiError::bad(format!("{} tags: a pool has at most {TAGS_MOST}", tags.len())));
    }
    let kind = request.scaling_mode.unwrap_or_default().kind();
    let tags = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    change(&state, peer.who(), move |fleet, _| {
        known(fleet, whose.account())?;
        if fleet.pool(&name).is_some() {
            return Err(ApiError::exists(format!("pool {name} exists already")));
        }
        let account = whose.own();
        fleet.put(&name, Item::Pool(PoolItem { kind, account, tags, ..PoolItem::default() }));
        check_managed(fleet)
    })
    .await?;
    Ok(Json(Done {}))
}

fn check_managed(fleet: &Fleet) -> Result<(), ApiError> {
    let pools = fleet.0.values().filter_map(|item| if let Item::Pool(pool) = item { Some(pool) } else { None });
    pools::check_managed(pools).map_err(ApiError::limit)
}

/// The pools of an account's own, in order of name.
fn own_pools<'a>(fleet: &'a Fleet, account: &'a str) -> impl Iterator<Item = (&'a str, &'a PoolItem)> {
    fleet.of("pool").filter_map(move |(name, item)| match item {
        Item::Pool(pool) => {
            let own = pool.kind != PoolKind::Shared && pool.account.as_deref().unwrap_or(DEFAULT_ACCOUNT) == account;
            own.then_some((name, pool))
        }
        _ => None,
    })
}

fn own_pool<'a>(fleet: &'a Fleet, account: &'a str, name: &str) -> Result<&'a PoolItem, ApiError> {
    let found = own_pools(fleet, account).find(|(known, _)| *known == name);
    found.map(|(_, pool)| pool).ok_or_else(|| no_pool(name))
}

fn no_pool(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no pool {name}"))
}

pub(super) async fn list_pools(
    extract::State(state): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Pools>, ApiError> {
    let Query(page) = page?;
    let in_force = state.in_force();
    let account = page.account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
    known(&in_force.fleet, account)?;
    let mut names: Vec<String> = own_pools(&in_force.fleet, account).map(|(name, _)| name.to_owned()).collect();
    names.push(DEFAULT_DEDICATED_POOL.into());
    names.sort();
    let (names, next_token) = cut(names, &page)?;
    Ok(Json(Pools { dedicated_ip_pools: names, next_token }))
}

/// A page of a list, and the token of the next one.
fn cut<T>(all: Vec<T>, page: &Page) -> Result<(Vec<T>, Option<String>), ApiError> {
    let size = page.size.unwrap_or(PAGE);
    if !(1..=PAGE_MOST).contains(&size) {
        return Err(ApiError::bad(format!("PageSize is 1 to {PAGE_MOST}, not {size}")));
    }
    let bad = |token: &str| ApiError::bad(format!("NextToken \"{token}\" is none of this list"));
    let from = match page.next.as_deref() {
        None => 0,
        Some(token) => {
            let number = token.strip_prefix("from-").and_then(|number| number.parse::<usize>().ok());
            number.filter(|from| *from <= all.len()).ok_or_else(|| bad(token))?
        }
    };
    let next = (from + size < all.len()).then(|| format!("from-{}", from + size));
    Ok((all.into_iter().skip(from).take(size).collect(), next))
}

pub(super) async fn get_pool(
    extract::State(state): Shared,
    Path(name): Path<String>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<PoolAnswer>, ApiError> {
    let Query(whose) = whose?;
    let in_force = state.in_force();
    let mode = if name == DEFAULT_DEDICATED_POOL {
        ScalingMode::Standard
    } else {
        ScalingMode::of(own_pool(&in_force.fleet, whose.account(), &name)?.kind)
    };
    Ok(Json(PoolAnswer { dedicated_ip_pool: Pool { pool_name: name, scaling_mode: mode } }))
}

pub(super) async fn delete_pool(
    extract::State(state): Shared,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Done>, ApiError> {
    let Query(whose) = whose?;
    if [DEFAULT_DEDICATED_POOL, SHARED_POOL].contains(&name.as_str()) {
        return Err(ApiError::bad(format!("{name} cannot be deleted")));
    }
    let queued =
        state.shards().await.0.iter().flat_map(|shard| shard.ips.clone()).any(|ip| ip.pool == name && ip.queued > 0);
    if queued {
        return Err(ApiError::bad(format!("mail of pool {name} is queued: move its IPs, or wait until it is sent")));
    }
    change(&state, peer.who(), move |fleet, _| {
        let account = own_pool(fleet, whose.account(), &name)?.account.clone();
        if matches!(fleet.0.get(&("setting".into(), "default_pool".into())), Some(Item::Default { pool }) if *pool == name)
        {
            return Err(ApiError::bad(format!("{name} is the default pool")));
        }
        if let Some((owner, _)) = fleet.accounts().find(|(_, of)| of.pool.as_deref() == Some(&*name)) {
            return Err(ApiError::bad(format!("{name} is the default pool of account {owner}")));
        }
        for item in fleet.0.values_mut() {
            if let Item::Ip { pool, account: own, .. } = item
                && *pool == name
            {
                DEFAULT_DEDICATED_POOL.clone_into(pool);
                own.clone_from(&account);
            }
        }
        fleet.0.remove(&("pool".into(), name));
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

pub(super) async fn put_scaling(
    extract::State(state): Shared,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    whose: Result<Query<Whose>, QueryRejection>,
    request: Body<super::types::PutScaling>,
) -> Result<Json<Done>, ApiError> {
    let (Query(whose), request) = (whose?, body(request)?);
    let mode = request.scaling_mode.ok_or_else(|| missing("ScalingMode"))?;
    change(&state, peer.who(), move |fleet, _| {
        own_pool(fleet, whose.account(), &name)?;
        // From managed to standard is refused by what follows.
        if let Some(Item::Pool(pool)) = fleet.0.get_mut(&("pool".into(), name)) {
            pool.kind = mode.kind();
        }
        check_managed(fleet)
    })
    .await?;
    Ok(Json(Done {}))
}

/// How one IP stands, in SES's words.
fn describe(fleet: &Fleet, shards: &[ShardStatus], ip: IpAddr) -> Option<DedicatedIp> {
    let address = ip.to_string();
    let Some(Item::Ip { pool, .. }) = fleet.ip(&address) else { return None };
    let managed = fleet.kind_of_ip(&address) == PoolKind::Managed;
    let standing = shards.iter().flat_map(|shard| &shard.ips).find(|known| known.address == ip);
    let warmup = standing.and_then(|known| known.warmup.as_ref());
    let (status, percentage) = match warmup {
        _ if managed => ("NOT_APPLICABLE", -1),
        // Its shard has not answered: what was decided of it is known.
        None => ("IN_PROGRESS", fleet.lease(&address).and_then(|lease| lease.set).map_or(0, |(_, p)| i32::from(p))),
        Some(warmup) if warmup.done => ("DONE", 100),
        Some(warmup) => ("IN_PROGRESS", i32::from(warmup.percentage)),
    };
    let (ip, warmup_status, pool_name) = (address, status.into(), pool.clone());
    Some(DedicatedIp { ip, warmup_status, warmup_percentage: percentage, pool_name })
}

/// The IPs of an account, in order of address.
fn own_ips(fleet: &Fleet, account: &str, pool: Option<&str>) -> Vec<IpAddr> {
    let own = fleet.of("ip").filter(|(address, item)| {
        let in_pool = pool.is_none_or(|wanted| matches!(item, Item::Ip { pool, .. } if pool == wanted));
        fleet.kind_of_ip(address) != PoolKind::Shared && fleet.account_of_ip(address) == account && in_pool
    });
    let mut own: Vec<IpAddr> = own.filter_map(|(address, _)| address.parse().ok()).collect();
    own.sort_unstable();
    own
}

pub(super) async fn list_ips(
    extract::State(state): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<DedicatedIps>, ApiError> {
    let Query(page) = page?;
    let (in_force, shards) = seen(&state).await;
    let account = page.account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
    known(&in_force.fleet, account)?;
    if let Some(name) = page.pool.as_deref().filter(|name| *name != DEFAULT_DEDICATED_POOL) {
        own_pool(&in_force.fleet, account, name)?;
    }
    let (ips, next_token) = cut(own_ips(&in_force.fleet, account, page.pool.as_deref()), &page)?;
    let dedicated_ips = ips.into_iter().filter_map(|ip| describe(&in_force.fleet, &shards, ip)).collect();
    Ok(Json(DedicatedIps { dedicated_ips, next_token }))
}

/// # Errors
/// It is no address, or none of this account.
fn own_ip(fleet: &Fleet, account: &str, ip: &str) -> Result<IpAddr, ApiError> {
    let address: IpAddr = ip.parse().map_err(|_| ApiError::bad(format!("{ip} is no IP address")))?;
    let address = address.to_canonical();
    let name = address.to_string();
    let own = fleet.ip(&name).is_some() && fleet.account_of_ip(&name) == account;
    own.then_some(address).ok_or_else(|| ApiError::not_found(format!("there is no dedicated IP {ip}")))
}

pub(super) async fn get_ip(
    extract::State(state): Shared,
    Path(ip): Path<String>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<DedicatedIpAnswer>, ApiError> {
    let Query(whose) = whose?;
    let (in_force, shards) = seen(&state).await;
    let ip = own_ip(&in_force.fleet, whose.account(), &ip)?;
    let none = || ApiError::not_found(format!("there is no dedicated IP {ip}"));
    let described = describe(&in_force.fleet, &shards, ip).ok_or_else(none)?;
    Ok(Json(DedicatedIpAnswer { dedicated_ip: described }))
}

pub(super) async fn put_ip_in_pool(
    extract::State(state): Shared,
    Path(ip): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    whose: Result<Query<Whose>, QueryRejection>,
    request: Body<MovePool>,
) -> Result<Json<Done>, ApiError> {
    let (Query(whose), request) = (whose?, body(request)?);
    let to = request.destination_pool_name.ok_or_else(|| missing("DestinationPoolName"))?;
    change(&state, peer.who(), move |fleet, _| {
        let address = own_ip(fleet, whose.account(), &ip)?.to_string();
        let kind = fleet.kind_of_ip(&address);
        if kind == PoolKind::Shared {
            return Err(ApiError::not_found(format!("{address} is no dedicated IP")));
        }
        let account = whose.own().filter(|_| to == DEFAULT_DEDICATED_POOL);
        let kind_there = match to.as_str() {
            DEFAULT_DEDICATED_POOL => PoolKind::Dedicated,
            name => own_pool(fleet, whose.account(), name)?.kind,
        };
        if kind == PoolKind::Managed || kind_there == PoolKind::Managed {
            return Err(ApiError::bad("IPs are not moved into or out of a managed pool"));
        }
        if let Some(Item::Ip { pool, account: own, .. }) = fleet.0.get_mut(&("ip".into(), address)) {
            (*pool, *own) = (to, account);
        }
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

pub(super) async fn put_warmup(
    extract::State(state): Shared,
    Path(ip): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    whose: Result<Query<Whose>, QueryRejection>,
    request: Body<WarmupPercentage>,
) -> Result<Json<Done>, ApiError> {
    let (Query(whose), request) = (whose?, body(request)?);
    let wanted = request.warmup_percentage.ok_or_else(|| missing("WarmupPercentage"))?;
    let whole = || ApiError::bad(format!("WarmupPercentage must be a whole number from 0 to 100, not {wanted}"));
    let percentage = wanted.as_i64().ok_or_else(whole)?;
    let percentage = Percentage::try_from(percentage).map_err(|error| ApiError::bad(error.to_string()))?;
    change(&state, peer.who(), move |fleet, version| {
        let address = own_ip(fleet, whose.account(), &ip)?.to_string();
        match fleet.kind_of_ip(&address) {
            PoolKind::Dedicated => {}
            other => {
                let kind = pools::kind_name(other);
                return Err(ApiError::bad(format!("{address} is in a {kind} pool: its warm-up is not set by hand")));
            }
        }
        if let Some(lease) = fleet.lease_mut(&address) {
            lease.set = Some((version, percentage.get()));
        }
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}

pub(super) async fn put_auto_warmup(
    extract::State(state): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    whose: Result<Query<Whose>, QueryRejection>,
    request: Body<AutoWarmup>,
) -> Result<Json<Done>, ApiError> {
    let (Query(whose), request) = (whose?, body(request)?);
    let enabled = request.auto_warmup_enabled.ok_or_else(|| missing("AutoWarmupEnabled"))?;
    let keep = match whose.in_progress.as_deref() {
        None => false,
        Some("keep") => true,
        Some(other) => return Err(ApiError::bad(format!("in_progress={other} is none of: keep"))),
    };
    let account = whose.account().to_owned();
    change(&state, peer.who(), move |fleet, version| {
        known(fleet, &account)?;
        // Said again, it has no effect: IPs leased since are left alone.
        if fleet.auto_warmup(&account) == enabled {
            return Ok(());
        }
        fleet.put(&account, Item::AutoWarmup { enabled });
        if !enabled && !keep {
            for ip in own_ips(fleet, &account, None) {
                let address = ip.to_string();
                if fleet.kind_of_ip(&address) == PoolKind::Dedicated
                    && let Some(lease) = fleet.lease_mut(&address)
                {
                    lease.set = Some((version, 100));
                }
            }
        }
        Ok(())
    })
    .await?;
    Ok(Json(Done {}))
}
