//! `GET /mailrail/v1/explain/{subject}`: why mail of a message, for a domain or by a leased IP goes out or does not.

use super::{
    error::ApiError,
    state::State,
    types::orders::{ExplainReport, SubjectKind},
};
use crate::{
    config::is_domain,
    link::{
        IpStatus,
        orders::{Ask, Explanation, Filter},
    },
    message::id::MessageId,
};
use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
};
use mailrail_queue::policy::{Policy, PoolKind};
use std::{net::IpAddr, sync::Arc};

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    subject: Result<Path<String>, PathRejection>,
) -> Result<Json<ExplainReport>, ApiError> {
    let Path(subject) = subject?;
    let (kind, filter) = read(&subject)?;
    let (answers, silent_shards) = state.ask_all(|reply| Ask::Explain(filter.clone(), reply).into()).await;
    let mut rows: Vec<Explanation> = answers.into_iter().flat_map(|(_, rows)| rows).collect();
    rows.sort_by_key(|row| row.cause);
    let queued = rows.iter().map(|row| row.recipients).sum();
    let mut notes = Vec::new();
    let mut lease = None;
    if let Some(ip) = filter.ip {
        let (shards, _) = state.shards().await;
        lease = shards.into_iter().flat_map(|shard| shard.ips).find(|known| known.address == ip);
        let policy = state.policy();
        notes.extend(of_lease(ip, &policy, lease.as_ref()));
    }
    if queued == 0 {
        notes.push(match kind {
            SubjectKind::Message => {
                format!("It is not queued: it has ended, or was never here; `mailrail trace {subject}` tells.")
            }
            SubjectKind::Domain => format!("No mail for {subject} is queued."),
            SubjectKind::Ip => "No mail waits for it.".into(),
        });
    }
    Ok(Json(ExplainReport { subject, kind, queued, notes, rows, lease, silent_shards }))
}

fn read(subject: &str) -> Result<(SubjectKind, Filter), ApiError> {
    if let Ok(ip) = subject.parse::<IpAddr>() {
        return Ok((SubjectKind::Ip, Filter { ip: Some(ip.to_canonical()), ..Filter::default() }));
    }
    if subject.parse::<MessageId>().is_ok() {
        return Ok((SubjectKind::Message, Filter { message: Some(subject.to_owned()), ..Filter::default() }));
    }
    if is_domain(&subject.to_ascii_lowercase()) || !subject.is_ascii() {
        return Ok((SubjectKind::Domain, Filter { domain: Some(subject.to_owned()), ..Filter::default() }));
    }
    Err(ApiError::bad(format!("\"{subject}\" is no message id, no domain and no IP address")))
}

/// What is to be said of the leased IP itself.
fn of_lease(ip: IpAddr, policy: &Policy, known: Option<&IpStatus>) -> Vec<String> {
    let Some(decided) = policy.leases.iter().find(|lease| lease.address == ip) else {
        return vec![format!("{ip} is not leased.")];
    };
    let managed = policy.pools.get(decided.pool as usize).is_some_and(|pool| pool.kind == PoolKind::Managed);
    let mut notes = Vec::new();
    if decided.draining {
        notes.push("It is draining: it finishes what it has and takes nothing new.".into());
    }
    let Some(known) = known else {
        notes.push(format!("Shard {}, which owns it, gave no answer in time.", decided.shard));
        return notes;
    };
    match (&known.warmup, &decided.warmup) {
        (Some(warmup), _) if warmup.done => notes.push("It is warm: its plan sets no cap.".into()),
        (Some(warmup), _) => {
            let cap = warmup.cap.map_or_else(|| "no cap".into(), |cap| format!("a cap of {cap}"));
            let day = warmup.plan_day.map_or_else(String::new, |day| format!(" on day {day} of its plan"));
            let tokens = warmup.tokens.unwrap_or(0).max(0);
            let held = if warmup.held { " The plan stands still." } else { "" };
            notes.push(format!(
                "It warms up: {} recipients of {cap} are sent{day}, {tokens} more may go now, {} wait.{held}",
                warmup.sent, warmup.waiting
            ));
        }
        (None, Some(_)) if managed => {
            notes.push("Its pool is managed: it has a ladder at each provider; see mailrail provider show.".into());
        }
        (None, Some(_)) => notes.push("Its warm-up ledger is on its way to its shard: nothing goes before.".into()),
        (None, None) => notes.push("It is shared: no plan sets a cap.".into()),
    }
    notes
}
