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
    encoding::{DescriptorEncoder, MetricEncoder, text},
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
    ("memory_bytes", "Memory counted against the ceiling", |s| s.memory_bytes),
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
    ("resolver_waiting", "Domains that wait to be looked up", |r| r.resolver.waiting),
    ("silent_shards", "Shards that gave no answer in time and are missing here", |r| r.silent_shards.len() as u64),
];

const HOST_COUNTERS: &[Declared<StatusReport, u64>] = &[
    ("event_log_bytes", "Bytes written to the event log", |r| r.event_log.bytes),
    ("event_log_syncs", "Syncs of the event log", |r| r.event_log.syncs),
    ("resolver_questions", "Domains that shards asked for", |r| r.resolver.questions),
    ("resolver_coalesced", "Of these, answered together with another", |r| r.resolver.coalesced),
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
            report.shards.iter().flat_map(|s| s.ips.iter().map(|ip| (ip_labels(ip, s.shard), ip))).collect();
        let host = [(Labels::new(), report)];
        numbers(&mut encoder, HOST_GAUGES, MetricType::Gauge, &host)?;
        numbers(&mut encoder, HOST_COUNTERS, MetricType::Counter, &host)?;
        numbers(&mut encoder, SHARD_COUNTERS, MetricType::Counter, &shards)?;
        numbers(&mut encoder, SHARD_GAUGES, MetricType::Gauge, &shards)?;
        numbers(&mut encoder, IP_COUNTERS, MetricType::Counter, &ips)?;
        numbers(&mut encoder, IP_GAUGES, MetricType::Gauge, &ips)?;
        overflow(&mut encoder, report)?;
        times(&mut encoder, &shards)
    }
}

fn overflow(encoder: &mut DescriptorEncoder<'_>, report: &StatusReport) -> fmt::Result {
    let help = "Recipients that went by another pool, because a plan had no allowance for them";
    let mut family = encoder.encode_descriptor("overflow_recipients", help, None, MetricType::Counter)?;
    for shard in &report.shards {
        for over in &shard.overflow {
            let labels: Labels = vec![
                ("account", over.account.clone()),
                ("from_pool", over.from_pool.clone()),
                ("to_pool", over.to_pool.clone()),
                ("reason", over.reason.clone()),
                ("shard", shard.shard.to_string()),
            ];
            number(&mut family.encode_family(&labels)?, MetricType::Counter, over.recipients)?;
        }
    }
    Ok(())
}

/// With the shard: while a leased IP moves, two shards count for it.
fn ip_labels(ip: &IpStatus, shard: u16) -> Labels {
    vec![("ip", ip.address.to_string()), ("pool", ip.pool.clone()), ("shard", shard.to_string())]
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
            // What belongs to the host as a whole has no labels, and no empty braces for them.
            match labels.as_slice() {
                [] => number(&mut family, kind, value(one))?,
                labels => number(&mut family.encode_family(&labels)?, kind, value(one))?,
            }
        }
    }
    Ok(())
}

fn number(metric: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter(&value, None::<&Exemplar<Labels, u64>>),
        _ => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

fn times(encoder: &mut DescriptorEncoder<'_>, shards: &[(Labels, &ShardStatus)]) -> fmt::Result {
    for (name, help, value) in SHARD_TIMES {
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, shard) in shards {
            let buckets = value(shard);
            let bounds = Buckets::BOUNDS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::INFINITY]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, time::Duration};

    fn text() -> String {
        let mut shard = ShardStatus { shard: 1, accepted: 7, spool_full: Some("full".into()), ..Default::default() };
        shard.accept_time.record(Duration::from_millis(3));
        shard.accept_time.record(Duration::from_secs(100_000));
        let ip = |pool: &str| IpStatus {
            address: [192, 0, 2, 1].into(),
            helo: "out.example.net".into(),
            pool: pool.into(),
            queued: 2,
            connections: 1,
            delivered: 3,
            deferred: 0,
            bounced: 0,
            warmup: None,
        };
        shard.ips = vec![ip("a \"quoted\" pool")];
        let other = ShardStatus { shard: 2, ips: vec![ip("main")], ..Default::default() };
        let report = StatusReport { shards: vec![shard, other], silent_shards: vec![3], ..Default::default() };
        let mut out = String::new();
        write(report, &mut out).unwrap();
        out
    }

    #[test]
    fn everything_counted_is_there_with_its_labels() {
        let text = text();
        for line in [
            "mailrail_accepted_recipients_total{shard=\"1\"} 7",
            "mailrail_spool_full{shard=\"1\"} 1",
            "mailrail_spool_full{shard=\"2\"} 0",
            "mailrail_silent_shards 1",
            "mailrail_accept_time_seconds_bucket{le=\"0.002\",shard=\"1\"} 0",
            "mailrail_accept_time_seconds_bucket{le=\"0.005\",shard=\"1\"} 1",
            "mailrail_accept_time_seconds_bucket{le=\"14400.0\",shard=\"1\"} 1",
            "mailrail_accept_time_seconds_bucket{le=\"+Inf\",shard=\"1\"} 2",
            "mailrail_accept_time_seconds_count{shard=\"1\"} 2",
            "mailrail_accept_time_seconds_sum{shard=\"1\"} 100000.003",
            "mailrail_ip_delivered_recipients_total{ip=\"192.0.2.1\",pool=\"a \\\"quoted\\\" pool\",shard=\"1\"} 3",
            "mailrail_ip_queued_recipients{ip=\"192.0.2.1\",pool=\"main\",shard=\"2\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn each_metric_is_explained_and_no_series_comes_twice() {
        let text = text();
        let mut series = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, _) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name), "{name} comes twice");
        }
        let help = |name: &str| text.lines().find(|line| line.starts_with(&format!("# HELP {name} "))).is_some();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, _) = line.split_once(' ').unwrap();
            assert!(name.starts_with("mailrail_") && help(name), "{name}");
        }
    }
}
