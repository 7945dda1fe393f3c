//! What a comparison has to say: medians with their extremes, and ratios to the first server.

use super::{
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
}

impl Sample {
    pub(super) fn new(messages: u64, took: Duration, spent: Reading, syncs: Option<u64>, accept_p99_us: u64) -> Self {
        let each = |count: u64| count as f64 / messages.max(1) as f64;
        Self {
            messages_per_second: messages as f64 / took.as_secs_f64().max(1e-9),
            cpu_us_per_message: spent.cpu.as_secs_f64() * 1e6 / messages.max(1) as f64,
            syncs_per_message: syncs.map(each),
            flushes_per_message: each(spent.flushes),
            written_bytes_per_message: each(spent.written),
            peak_bytes: spent.peak as f64,
            accept_p99_us: accept_p99_us as f64,
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
    durability: String,
    samples: Vec<Sample>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    messages: u64,
    size: usize,
    connections: usize,
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
];

impl Report {
    pub(super) fn new(messages: u64, size: usize, connections: usize, dkim: Dkim, peers: &[Peer]) -> Self {
        let server = |peer: &Peer| Server {
            name: peer.name().to_owned(),
            durability: peer.durability().to_owned(),
            samples: Vec::new(),
        };
        let dkim = match dkim {
            Dkim::None => "none",
            Dkim::Rsa => "RSA-2048",
            Dkim::Ed25519 => "Ed25519",
        };
        Self { messages, size, connections, dkim: dkim.into(), servers: peers.iter().map(server).collect() }
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

    /// For people.
    pub(super) fn text(&self) -> String {
        let runs = self.servers.first().map_or(0, |server| server.samples.len());
        let mut out = format!(
            "{} messages of {} over {} connections, DKIM {}, {runs} runs each in turn: median (least to most)\n\n",
            units::count(self.messages),
            units::bytes(self.size as u64),
            self.connections,
            self.dkim
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
            let _ = writeln!(out, "{}: {}", server.name, server.durability);
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
