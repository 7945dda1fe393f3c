//! `/mailrail/v1/providers`: large receivers, what holds between them and the leased IPs, and how to change that for a time.

use super::{
    audit,
    error::ApiError,
    state::State,
    types::provider::{Lift, ProviderDone, ProviderRow, Providers, Suspend},
    types::{Action, Change, Kind},
};
use crate::{
    config::parse_duration,
    control::socket::Peer,
    link::{Command, ProviderChange, ProviderIp},
};
use axum::{
    Json,
    extract::{self, ConnectInfo, Path, rejection::JsonRejection},
};
use mailrail_queue::{
    OTHER,
    shape::{entry::rate_text, table::Provider},
};
use std::{net::IpAddr, sync::Arc, time::Duration};

type Shared = extract::State<Arc<State>>;

/// Longest suspension.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

pub(super) async fn list(extract::State(state): Shared) -> Json<Providers> {
    Json(report(&state).await)
}

async fn report(state: &State) -> Providers {
    let (answers, silent_shards) = state.ask_all(Command::Providers).await;
    let mut ips: Vec<ProviderIp> = answers.into_iter().flat_map(|(_, ips)| ips).collect();
    ips.sort_unstable_by_key(|ip| ip.ip);
    let (policy, in_force) = (state.policy(), state.in_force());
    let own: Vec<&str> = in_force.fleet.of("provider").map(|(name, _)| name).collect();
    let row = |provider: &Arc<Provider>| {
        let of: Vec<ProviderIp> = ips.iter().filter(|ip| ip.provider == *provider.name).cloned().collect();
        ProviderRow {
            own: own.contains(&&*provider.name),
            queued: of.iter().map(|ip| ip.queued).sum(),
            open: of.iter().map(|ip| ip.connections).sum(),
            ips: of,
            ..settings(provider)
        }
    };
    let mut providers: Vec<ProviderRow> = policy.providers.iter().map(row).collect();
    let others: Vec<ProviderIp> = ips.iter().filter(|ip| ip.provider == OTHER).cloned().collect();
    if !others.is_empty() {
        // Ladders of managed pools for all that is no provider's.
        let queued = others.iter().map(|ip| ip.queued).sum();
        providers.push(ProviderRow { name: OTHER.into(), queued, ips: others, ..ProviderRow::default() });
    }
    Providers { providers, silent_shards }
}

fn settings(provider: &Provider) -> ProviderRow {
    let tls =
        provider.tls.and_then(|tls| serde_json::to_value(tls).ok()).and_then(|tls| Some(tls.as_str()?.to_owned()));
    ProviderRow {
        name: provider.name.to_string(),
        mx: provider.mx.iter().map(ToString::to_string).collect(),
        connections: provider.connections,
        messages_per_connection: provider.messages,
        recipients_per_message: provider.recipients,
        rate: provider.rate.map(rate_text),
        burst: provider.rate.map(|rate| provider.burst_of(rate)),
        tls,
        recover_ms: u64::try_from(provider.recover.as_millis()).unwrap_or(u64::MAX),
        replies: provider.answers.len(),
        ..ProviderRow::default()
    }
}

pub(super) async fn show(
    extract::State(state): Shared,
    Path(name): Path<String>,
) -> Result<Json<ProviderRow>, ApiError> {
    let all = report(&state).await.providers;
    all.into_iter().find(|row| row.name == name).map(Json).ok_or_else(|| unknown(&name))
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no provider {name}; `mailrail provider list` has them"))
}

pub(super) async fn suspend(
    extract::State(state): Shared,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<Suspend>, JsonRejection>,
) -> Result<Json<ProviderDone>, ApiError> {
    let Json(Suspend { ip, time, reason }) = request?;
    let period = parse_duration(&time).map_err(|why| ApiError::bad(format!("for: {why}")))?;
    if period.is_zero() || period > LONGEST {
        return Err(ApiError::bad("for: more than nothing, a week at most"));
    }
    let who = peer.who();
    let why = reason.map_or_else(|| format!("suspended by {who}"), |reason| format!("suspended by {who}: {reason}"));
    change(&state, &name, ip, Some((period, why.into())), &who).await
}

pub(super) async fn lift(
    extract::State(state): Shared,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<Lift>, JsonRejection>,
) -> Result<Json<ProviderDone>, ApiError> {
    let Json(Lift { ip }) = request?;
    change(&state, &name, ip, None, &peer.who()).await
}

async fn change(
    state: &Arc<State>,
    name: &str,
    ip: Option<IpAddr>,
    suspend: Option<(Duration, Arc<str>)>,
    who: &str,
) -> Result<Json<ProviderDone>, ApiError> {
    let policy = state.policy();
    let provider = policy.providers.get(name).ok_or_else(|| unknown(name))?;
    let ip = ip.map(|ip| ip.to_canonical());
    if let Some(ip) = ip.filter(|ip| policy.leases.iter().all(|lease| lease.address != *ip)) {
        return Err(ApiError::not_found(format!("{ip} is not leased")));
    }
    let whom = ip.map_or_else(|| "all leased IPs".to_owned(), |ip| ip.to_string());
    let after = match &suspend {
        Some((period, why)) => format!("suspended for {} s, {whom}; {why}", period.as_secs()),
        None => format!("lifted, {whom}"),
    };
    let (name, after) = (provider.name.to_string(), Some(after));
    let row = Change { action: Action::Change, kind: Kind::Provider, name, before: None, after };
    let change = ProviderChange { provider: Arc::clone(&provider.name), ip, suspend };
    audit::audited(state, who, row, tell(state, change)).await
}

async fn tell(state: &State, change: ProviderChange) -> Result<Json<ProviderDone>, ApiError> {
    let (answers, silent) = state.ask_all(|reply| Command::ChangeProvider(change.clone(), reply)).await;
    let ips = answers.into_iter().map(|(_, count)| count).sum();
    if silent.is_empty() {
        return Ok(Json(ProviderDone { ips }));
    }
    Err(ApiError::internal(format!("done for {ips} leased IPs; shards {silent:?} gave no answer in time")))
}
