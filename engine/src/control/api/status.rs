//! `GET /mailrail/v1/status`

use super::{
    state::State,
    types::{PolicyStatus, StatusReport, Totals},
};
use crate::{clock, control::fleet::Fleet, link::ShardStatus};
use axum::{Json, extract};
use std::sync::Arc;

pub(super) async fn get(extract::State(state): extract::State<Arc<State>>) -> Json<StatusReport> {
    Json(report(&state).await)
}

/// Everything there is to say.
pub(crate) async fn report(state: &State) -> StatusReport {
    let (shards, silent_shards) = state.shards().await;
    let in_force = state.in_force();
    StatusReport {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: state.config.hostname.clone(),
        pid: std::process::id(),
        listeners: state.listeners.clone(),
        uptime_s: state.started.elapsed().as_secs(),
        time: clock::wall().0,
        queued: shards.iter().map(|shard| shard.queued).sum(),
        queued_messages: shards.iter().map(|shard| shard.queued_messages).sum(),
        totals: totals(&shards),
        shards,
        silent_shards,
        policy: policy(&in_force.fleet, in_force.version),
        event_log: state.event_log(|_| ()),
        resolver: state.resolver(),
        max_age_s: state.config.delivery.max_age.as_secs(),
    }
}

fn policy(fleet: &Fleet, version: u64) -> PolicyStatus {
    let [pools, ips, dkim_keys, domains] = fleet.counts();
    PolicyStatus { version, pools, ips, dkim_keys, domains }
}

fn totals(shards: &[ShardStatus]) -> Totals {
    let mut all = Totals::default();
    for shard in shards {
        all.sessions += u64::from(shard.sessions);
        all.deliveries += u64::from(shard.deliveries);
        all.accepted_messages += shard.accepted_messages;
        all.accepted += shard.accepted;
        all.refused += shard.refused;
        all.delivered += shard.delivered;
        all.bounced += shard.bounced;
        all.expired += shard.expired;
        all.deferred += shard.deferred;
        all.in_doubt += shard.in_doubt;
        all.dsns += shard.dsns;
        all.signatures += shard.signatures;
        all.syncs += shard.syncs;
        all.spool_bytes += shard.spool_bytes;
        all.spool_live_bytes += shard.spool_live_bytes;
    }
    all
}
