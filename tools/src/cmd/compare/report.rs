//! What a comparison has to say: medians with their extremes, and ratios to the first server.

use super::{
    Args,
    chart::{Axis, Chart},
    host::Host,
    meter::Reading,
    peer::{Dkim, Peer},
};
use crate::ui::{
    table::{Left, Right, Table, good, text},
    units,
};
use serde::Serialize;
use std::{fmt::Write, time::Duration};

/// One run of one server.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct Sample {
    messages_per_second: f64,
    cpu_us_per_message: f64,
    /// As the server counts them.
    syncs_per_message: Option<f64>,
    /// As the disks count them, whoever asked.
    flushes_per_message: f64,
    written_bytes_per_message: f64,
    peak_bytes: f64,
    accept_p99_us: f64,
    /// In an open loop.
    due_p99_us: Option<f64>,
    heap_bytes_per_queued: Option<f64>,
    restart_s: Option<f64>,
}

/// What is known of a run besides what its processes spent.
pub(super) struct Extra {
    /// As the server counts them.
    pub(super) syncs: Option<u64>,
    /// From the final dot to the 250.
    pub(super) accept_p99_us: u64,
    /// From when it was due, in an open loop.
    pub(super) due_p99_us: Option<u64>,
    /// Bytes a queued message.
    pub(super) heap: Option<f64>,
    pub(super) restart: Option<Duration>,
}

impl Sample {
    pub(super) fn new(messages: u64, took: Duration, spent: Reading, extra: Extra) -> Self {
        let each = |count: u64| count as f64 / messages.max(1) as f64;
        Self {
            messages_per_second: messages as f64 / took.as_secs_f64().max(1e-9),
            cpu_us_per_message: spent.cpu.as_secs_f64() * 1e6 / messages.max(1) as f64,
            syncs_per_message: extra.syncs.map(each),
            flushes_per_message: each(spent.flushes),
            written_bytes_per_message: each(spent.written),
            peak_bytes: spent.peak as f64,
            accept_p99_us: extra.accept_p99_us as f64,
            due_p99_us: extra.due_p99_us.map(|us| us as f64),
            heap_bytes_per_queued: extra.heap,
            restart_s: extra.restart.map(|took| took.as_secs_f64()),
        }
    }

    /// For the running comment.
    pub(super) fn line(&self) -> String {
        format!("{:.0} messages/s, {:.0} µs of CPU a message", self.messages_per_second, self.cpu_us_per_message)
    }
}

/// Median and extremes.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

#[derive(Debug, Serialize)]
struct Server {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    durability: String,
    samples: Vec<Sample>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    host: Host,
    messages: u64,
    size: usize,
    connections: usize,
    /// Messages a second, in an open loop.
    rate: Option<f64>,
    dkim: String,
    servers: Vec<Server>,
}

/// A figure: its name, how it is read, how it is shown.
type Figure = (&'static str, fn(&Sample) -> Option<f64>, fn(f64) -> String);

const FIGURES: &[Figure] = &[
    ("messages a second", |s| Some(s.messages_per_second), |v| units::count(v.round() as u64)),
    ("CPU a message", |s| Some(s.cpu_us_per_message), |v| units::duration(Duration::from_secs_f64(v / 1e6))),
    ("syncs a message", |s| s.syncs_per_message, |v| format!("{v:.3}")),
    ("disk flushes a message", |s| Some(s.flushes_per_message), |v| format!("{v:.3}")),
    ("written a message", |s| Some(s.written_bytes_per_message), |v| units::bytes(v.round() as u64)),
    ("peak memory", |s| Some(s.peak_bytes), |v| units::bytes(v.round() as u64)),
    ("final dot to 250, p99", |s| Some(s.accept_p99_us), |v| units::duration(Duration::from_secs_f64(v / 1e6))),
    ("due to 250, p99", |s| s.due_p99_us, |v| units::duration(Duration::from_secs_f64(v / 1e6))),
    ("heap a queued message", |s| s.heap_bytes_per_queued, |v| units::bytes(v.round() as u64)),
    ("start to greeting, all queued", |s| s.restart_s, |v| units::duration(Duration::from_secs_f64(v))),
];

impl Report {
    pub(super) fn new(args: &Args, host: Host, peers: &[Peer]) -> Self {
        let server = |peer: &Peer| Server {
            name: peer.name().to_owned(),
            version: peer.version(),
            durability: peer.durability().to_owned(),
            samples: Vec::new(),
        };
        let dkim = match args.dkim {
            Dkim::None => "none",
            Dkim::Rsa => "RSA-2048",
            Dkim::Ed25519 => "Ed25519",
        };
        let Args { messages, size, connections, rate, .. } = *args;
        Self { host, messages, size, connections, rate, dkim: dkim.into(), servers: peers.iter().map(server).collect() }
    }

    pub(super) fn add(&mut self, server: usize, sample: Sample) {
        self.servers[server].samples.push(sample);
    }

    /// Everything, with medians.
    pub(super) fn json(&self) -> serde_json::Value {
        let medians: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let figure = |(name, read, _): &Figure| {
                    let spread = Spread::of(server.samples.iter().filter_map(read).collect());
                    ((*name).to_owned(), serde_json::json!(spread))
                };
                let figures: serde_json::Map<_, _> = FIGURES.iter().map(figure).collect();
                serde_json::json!({ "name": server.name, "figures": figures })
            })
            .collect();
        serde_json::json!({ "comparison": self, "medians": medians })
    }

    /// To be drawn.
    pub(super) fn chart(&self, args: &Args) -> Chart {
        let axis = if !args.cores.is_empty() {
            Axis::Numbers("shards", args.cores.iter().map(|n| u64::from(*n)).collect())
        } else if !args.queued.is_empty() {
            Axis::Numbers("messages queued", args.queued.clone())
        } else {
            Axis::Names(self.servers.iter().map(|server| server.name.clone()).collect())
        };
        let spreads = |read: fn(&Sample) -> f64| {
            let of = |server: &Server| Spread::of(server.samples.iter().map(read).collect());
            self.servers.iter().filter_map(of).map(|spread| (spread.median, spread.min, spread.max)).collect()
        };
        let title = format!("messages of {}, DKIM {}, every 250 durable", units::bytes(self.size as u64), self.dkim);
        Chart {
            title,
            host: self.host.to_string(),
            axis,
            rate: spreads(|s| s.messages_per_second),
            cost: spreads(|s| s.cpu_us_per_message),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let runs = self.servers.first().map_or(0, |server| server.samples.len());
        let pace = self.rate.map_or_else(String::new, |rate| format!(" at {}/s", units::count(rate as u64)));
        let mut out = format!(
            "{} messages of {}{pace} over {} connections, DKIM {}, {runs} run{} each in turn\n{}; load {} at the start\n\n",
            units::count(self.messages),
            units::bytes(self.size as u64),
            self.connections,
            self.dkim,
            if runs == 1 { "" } else { "s" },
            self.host,
            self.host.load()
        );
        let mut table = Table::new(&[
            Left("SERVER"),
            Left("FIGURE"),
            Right("MEDIAN"),
            Right("LEAST"),
            Right("MOST"),
            Right("TIMES"),
        ]);
        for (name, read, show) in FIGURES {
            let mut first = None;
            for server in &self.servers {
                let Some(spread) = Spread::of(server.samples.iter().filter_map(read).collect()) else { continue };
                let times = first.map_or_else(|| text(""), |first: f64| good(format!("{:.2}", spread.median / first)));
                first = first.or(Some(spread.median).filter(|median| *median > 0.0));
                let Spread { median, min, max } = spread;
                table.row([
                    text(&server.name),
                    text(name),
                    text(show(median)),
                    text(show(min)),
                    text(show(max)),
                    times,
                ]);
            }
        }
        let _ = writeln!(out, "{table}");
        for server in &self.servers {
            let version = server.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
            let _ = writeln!(out, "{}{version}: {}", server.name, server.durability);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_extremes() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert!(Spread::of(Vec::new()).is_none());
    }
}
