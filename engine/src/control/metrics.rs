//! Prometheus text of everything that the shards count. Each metric is declared once, in the tables below.

use super::api::{state::State, status, types::StatusReport};
use crate::link::{Buckets, IpStatus, ShardStatus};
use axum::{
    extract,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};
use std::{fmt, sync::Arc};

/// Name, help, value.
type Declared<T, V> = (&'static str, &'static str, fn(&T) -> V);

const SHARD_COUNTERS: &[Declared<ShardStatus, u64>] = &[
    ("sessions_refused", "Client connections refused with 421", |s| s.sessions_refused),
    ("connects", "Delivery connections begun", |s| s.connects),
    ("connect_failures", "Delivery connections that could not be opened", |s| s.connect_failures),
    ("accepted_messages", "Messages accepted", |s| s.accepted_messages),
    ("accepted_recipients", "Recipients accepted", |s| s.accepted),
    ("accepted_bytes", "Bytes of content accepted", |s| s.bytes_accepted),
    ("refused_messages", "Messages refused after their content", |s| s.refused),
    ("delivered_recipients", "Recipients delivered", |s| s.delivered),
    ("bounced_recipients", "Recipients refused for good", |s| s.bounced),
    ("expired_recipients", "Recipients given up for their age", |s| s.expired),
    ("deferred_recipients", "Tries that are to be repeated, recipients", |s| s.deferred),
    ("in_doubt_recipients", "Tries that ended without an answer to the whole message, recipients", |s| s.in_doubt),
    ("dsns", "Delivery status notifications made", |s| s.dsns),
    ("handed_over_messages", "Messages handed to another shard before the append", |s| s.handed_over),
    ("signatures", "DKIM signatures made", |s| s.signatures),
    ("syncs", "fdatasync calls of the spool", |s| s.syncs),
];

const SHARD_GAUGES: &[Declared<ShardStatus, u64>] = &[
    ("queued_recipients", "Recipients not yet settled", |s| s.queued),
    ("queued_messages", "Messages not yet settled", |s| s.queued_messages),
    ("sessions", "Client connections", |s| u64::from(s.sessions)),
    ("deliveries", "Delivery connections", |s| u64::from(s.deliveries)),
    ("spool_segments", "Segment files of the spool", |s| s.spool_segments),
    ("spool_bytes", "Bytes of these files", |s| s.spool_bytes),
    ("spool_live_bytes", "Bytes that live messages hold in them", |s| s.spool_live_bytes),
    ("spool_full", "1 while the spool takes no new mail", |s| u64::from(s.spool_full.is_some())),
];

const SHARD_TIMES: &[Declared<ShardStatus, Buckets>] = &[
    ("accept_time", "Final dot to 250", |s| s.accept_time.clone()),
    ("queue_time", "Acceptance to the first try", |s| s.queue_time.clone()),
    ("delivery_time", "Acceptance to delivery", |s| s.delivery_time.clone()),
];

const IP_COUNTERS: &[Declared<IpStatus, u64>] = &[
    ("ip_delivered_recipients", "Recipients delivered from this leased IP", |ip| ip.delivered),
    ("ip_deferred_recipients", "Tries from this leased IP that are to be repeated, recipients", |ip| ip.deferred),
    ("ip_bounced_recipients", "Recipients refused for good to this leased IP", |ip| ip.bounced),
];

const IP_GAUGES: &[Declared<IpStatus, u64>] = &[
    ("ip_queued_recipients", "Recipients that are to leave by this leased IP", |ip| ip.queued),
    ("ip_connections", "Delivery connections of this leased IP", |ip| u64::from(ip.connections)),
];

const HOST_GAUGES: &[Declared<StatusReport, u64>] = &[
    ("uptime_seconds", "Time since start", |r| r.uptime_s),
    ("policy_version", "Version of the fleet in force", |r| r.policy.version),
    ("event_log_waiting_batches", "Batches of events that wait to be durable", |r| r.event_log.waiting),
    ("event_log_failing", "1 while the event log cannot be written", |r| u64::from(r.event_log.error.is_some())),
    ("resolver_running", "Domains being looked up", |r| r.resolver.running),
];

const HOST_COUNTERS: &[Declared<StatusReport, u64>] = &[
    ("event_log_bytes", "Bytes written to the event log", |r| r.event_log.bytes),
    ("event_log_syncs", "Syncs of the event log", |r| r.event_log.syncs),
    ("resolver_questions", "Domains that shards asked for", |r| r.resolver.questions),
    ("resolver_never", "Of these, such as take no mail", |r| r.resolver.never),
    ("resolver_later", "Of these, such as could not be resolved", |r| r.resolver.later),
];

/// `GET /metrics`
pub(super) async fn get(extract::State(state): extract::State<Arc<State>>) -> Response {
    let report = status::report(&state).await;
    let mut out = String::with_capacity(32 << 10);
    match write(report, &mut out) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], out)
            .into_response(),
        Err(_) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn write(report: StatusReport, out: &mut String) -> fmt::Result {
    let mut registry = Registry::with_prefix("mailrail");
    registry.register_collector(Box::new(Report(report)));
    text::encode(out, &registry)
}

#[derive(Debug)]
struct Report(StatusReport);

type Labels = Vec<(&'static str, String)>;

impl Collector for Report {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(report) = self;
        let shards: Vec<(Labels, &ShardStatus)> =
            report.shards.iter().map(|shard| (vec![("shard", shard.shard.to_string())], shard)).collect();
        let ips: Vec<(Labels, &IpStatus)> =
            report.shards.iter().flat_map(|shard| shard.ips.iter().map(|ip| (ip_labels(ip), ip))).collect();
        let host = [(Labels::new(), report)];
        numbers(&mut encoder, HOST_GAUGES, MetricType::Gauge, &host)?;
        numbers(&mut encoder, HOST_COUNTERS, MetricType::Counter, &host)?;
        numbers(&mut encoder, SHARD_COUNTERS, MetricType::Counter, &shards)?;
        numbers(&mut encoder, SHARD_GAUGES, MetricType::Gauge, &shards)?;
        numbers(&mut encoder, IP_COUNTERS, MetricType::Counter, &ips)?;
        numbers(&mut encoder, IP_GAUGES, MetricType::Gauge, &ips)?;
        times(&mut encoder, &shards)
    }
}

fn ip_labels(ip: &IpStatus) -> Labels {
    vec![("ip", ip.address.to_string()), ("pool", ip.pool.clone())]
}

fn numbers<T>(
    encoder: &mut DescriptorEncoder<'_>,
    declared: &[Declared<T, u64>],
    kind: MetricType,
    of: &[(Labels, &T)],
) -> fmt::Result {
    for (name, help, value) in declared {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, one) in of {
            let mut metric = family.encode_family(labels)?;
            match kind {
                MetricType::Counter => metric.encode_counter(&value(one), None::<&Exemplar<Labels, u64>>)?,
                _ => metric.encode_gauge(&i64::try_from(value(one)).unwrap_or(i64::MAX))?,
            }
        }
    }
    Ok(())
}

fn times(encoder: &mut DescriptorEncoder<'_>, shards: &[(Labels, &ShardStatus)]) -> fmt::Result {
    for (name, help, value) in SHARD_TIMES {
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, shard) in shards {
            let buckets = value(shard);
            let bounds = Buckets::BOUNDS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::MAX]);
            let pairs: Vec<(f64, u64)> = bounds.zip(buckets.counts).collect();
            let count = buckets.counts.iter().sum();
            family.encode_family(labels)?.encode_histogram::<Labels>(
                buckets.sum_us as f64 / 1e6,
                count,
                &pairs,
                None,
            )?;
        }
    }
    Ok(())
}
