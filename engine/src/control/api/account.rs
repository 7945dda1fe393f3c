//! Accounts: SES's GetAccount, PutAccountSendingAttributes, PutAccountSuppressionAttributes, and under `/mailrail/v1/accounts`
//! what an operator sees and grants.

use super::{
    change,
    error::ApiError,
    state::State,
    types::account::{
        AccountReport, AccountsReport, Done, GetAccountResponse, LimitsRequest, OfAccount,
        PutAccountSendingAttributesRequest, PutAccountSuppressionAttributesRequest, SendQuota, SuppressionAttributes,
    },
};
use crate::control::{
    account::{AccountItem, limit_from, limit_of, reasons_from, words_of},
    fleet::Fleet,
    socket::Peer,
};
use axum::{
    Json,
    extract::{
        self, ConnectInfo, Path, Query,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
};
use mailrail_queue::{
    admit::quota::Limits,
    policy::{Account, DEFAULT_ACCOUNT},
};
use std::sync::Arc;

type Of = Result<Query<OfAccount>, QueryRejection>;
pub(super) type Named = Result<Path<String>, PathRejection>;

/// Is there an account of this name, declared or built in?
///
/// # Errors
/// There is none.
pub(super) fn known(fleet: &Fleet, name: &str) -> Result<(), ApiError> {
    let known = name == DEFAULT_ACCOUNT || fleet.account(name).is_some();
    if known { Ok(()) } else { Err(ApiError::not_found(format!("There is no account <{name}>."))) }
}

/// The account that a request is about.
///
/// # Errors
/// There is none of this name.
pub(super) fn named(state: &State, name: Option<&str>) -> Result<Account, ApiError> {
    let name = name.unwrap_or(DEFAULT_ACCOUNT);
    let policy = state.policy();
    policy.account(name).cloned().ok_or_else(|| ApiError::not_found(format!("There is no account <{name}>.")))
}

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    of: Of,
) -> Result<Json<GetAccountResponse>, ApiError> {
    let account = named(&state, of?.0.account.as_deref())?;
    let number = |limit: Option<u32>| limit.map_or(-1.0, f64::from);
    Ok(Json(GetAccountResponse {
        dedicated_ip_auto_warmup_enabled: state.in_force().fleet.auto_warmup(&account.name),
        enforcement_status: "HEALTHY".into(),
        production_access_enabled: !account.sandbox,
        send_quota: SendQuota {
            max_24_hour_send: number(account.limits.max_24_hour_send),
            max_send_rate: number(account.limits.max_send_rate),
            sent_last_24_hours: state.quotas.sent(&account.name) as f64,
        },
        sending_enabled: account.sending_enabled,
        suppression_attributes: SuppressionAttributes { suppressed_reasons: words(&account) },
    }))
}

pub(super) async fn put_sending(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    of: Of,
    request: Result<Json<PutAccountSendingAttributesRequest>, JsonRejection>,
) -> Result<Json<Done>, ApiError> {
    let account = named(&state, of?.0.account.as_deref())?;
    let sending_enabled = request?.0.sending_enabled;
    edit_account(&state, peer, &account.name, move |account| {
        account.sending_enabled = sending_enabled;
        Ok(())
    })
    .await
}

pub(super) async fn put_suppression(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    of: Of,
    request: Result<Json<PutAccountSuppressionAttributesRequest>, JsonRejection>,
) -> Result<Json<Done>, ApiError> {
    let account = named(&state, of?.0.account.as_deref())?;
    let words = request?.0.suppressed_reasons;
    let reasons = reasons_from(words.iter().map(String::as_str)).map_err(ApiError::bad)?;
    edit_account(&state, peer, &account.name, move |account| {
        account.reasons = reasons;
        account.lists_bounces = true;
        Ok(())
    })
    .await
}

pub(super) async fn list(extract::State(state): extract::State<Arc<State>>) -> Json<AccountsReport> {
    let policy = state.policy();
    Json(AccountsReport { accounts: policy.accounts.iter().map(|account| report(&state, account)).collect() })
}

pub(super) async fn show(
    extract::State(state): extract::State<Arc<State>>,
    name: Named,
) -> Result<Json<AccountReport>, ApiError> {
    Ok(Json(report(&state, &named(&state, Some(&name?.0))?)))
}

pub(super) async fn put_limits(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    name: Named,
    request: Result<Json<LimitsRequest>, JsonRejection>,
) -> Result<Json<Done>, ApiError> {
    let account = named(&state, Some(&name?.0))?;
    let Json(LimitsRequest { max_24_hour_send, max_send_rate, sandbox }) = request?;
    let limit = |value: Option<i64>| value.map(limit_from).transpose().map_err(ApiError::bad);
    let (most, rate) = (limit(max_24_hour_send)?, limit(max_send_rate)?);
    edit_account(&state, peer, &account.name, move |account| {
        let before = account.limits;
        account.limits = Limits {
            max_24_hour_send: most.unwrap_or(before.max_24_hour_send),
            max_send_rate: rate.unwrap_or(before.max_send_rate),
            ..before
        };
        // The first increase of either leaves the sandbox; no decrease leads back.
        let more = |now: Option<u32>, before: Option<u32>| now.unwrap_or(u32::MAX) > before.unwrap_or(u32::MAX);
        let now = account.limits;
        let increased =
            more(now.max_24_hour_send, before.max_24_hour_send) || more(now.max_send_rate, before.max_send_rate);
        account.sandbox = sandbox.unwrap_or(account.sandbox && !increased);
        Ok(())
    })
    .await
}

/// Changes what was decided of an account; the built-in one becomes one that was declared.
async fn edit_account(
    state: &Arc<State>,
    peer: Peer,
    name: &str,
    edit: impl FnOnce(&mut AccountItem) -> Result<(), ApiError> + Send + 'static,
) -> Result<Json<Done>, ApiError> {
    let name = name.to_owned();
    let edit = move |fleet: &mut Fleet, _| {
        let mut account = fleet.account(&name).cloned().unwrap_or_else(AccountItem::built_in);
        edit(&mut account)?;
        fleet.set_account(&name, account);
        Ok(())
    };
    change::change(state, peer.who(), edit).await?;
    Ok(Json(Done {}))
}

fn words(account: &Account) -> Vec<String> {
    words_of(account.reasons).into_iter().map(str::to_owned).collect()
}

fn report(state: &State, account: &Account) -> AccountReport {
    let in_force = state.in_force();
    let declared = in_force.fleet.account(&account.name);
    AccountReport {
        name: account.name.to_string(),
        pool: declared.and_then(|declared| declared.pool.clone()),
        auto_warmup: in_force.fleet.auto_warmup(&account.name),
        max_24_hour_send: limit_of(account.limits.max_24_hour_send),
        max_send_rate: limit_of(account.limits.max_send_rate),
        sent_last_24_hours: state.quotas.sent(&account.name),
        sandbox: account.sandbox,
        sending_enabled: account.sending_enabled,
        suppressed_reasons: words(account),
        keys: declared.map(|declared| declared.keys.keys().cloned().collect()).unwrap_or_default(),
        verified: account.verified.iter().map(|known| known.to_string()).collect(),
    }
}
