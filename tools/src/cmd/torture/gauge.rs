//! What a long run measures of the server's process every few seconds, and whether it has grown.
//!
//! Mail that an operator holds for a while makes the queue long, and all that goes with it; what has leaked is there when that
//! mail has gone, too. So of these the lowest tenth counts, and of the rest the median.

use crate::server::Server;
use mailrail_engine::control::api::types::StatusReport;
use serde::Serialize;
use std::{fs, io};

/// One look at a server. Bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample([u64; GAUGES.len()]);

/// What is measured, its unit, which of its values counts, and how much it may grow: in percent of that, and besides.
struct Gauge {
    name: &'static str,
    unit: Unit,
    level: Level,
    percent: u64,
    slack: u64,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Things,
}

/// Which of the values of a quarter is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Median,
    LowestTenth,
}

const MIB: u64 = 1 << 20;
/// What a peak of connections or of queued mail leaves in the allocator, however long ago it was: it is used again by the next
/// one. A leak of four bytes a message is more than that in a day of 100 messages a second, one of 200 in half an hour.
const LEFT_BY_PEAKS: u64 = 16 * MIB;

const GAUGES: [Gauge; 9] = [
    Gauge { name: "resident memory", unit: Unit::Bytes, level: Level::LowestTenth, percent: 10, slack: LEFT_BY_PEAKS },
    Gauge {
        name: "heap (resident, not of files)",
        unit: Unit::Bytes,
        level: Level::Median,
        percent: 10,
        slack: LEFT_BY_PEAKS,
    },
    Gauge { name: "open files", unit: Unit::Things, level: Level::Median, percent: 10, slack: 16 },
    Gauge { name: "spool segments", unit: Unit::Things, level: Level::LowestTenth, percent: 25, slack: 2 },
    Gauge {
        name: "live bytes in the spool",
        unit: Unit::Bytes,
        level: Level::LowestTenth,
        percent: 50,
        slack: 8 * MIB,
    },
    Gauge { name: "client connections", unit: Unit::Things, level: Level::Median, percent: 10, slack: 2 },
    Gauge { name: "delivery connections", unit: Unit::Things, level: Level::LowestTenth, percent: 50, slack: 16 },
    Gauge { name: "recipients queued", unit: Unit::Things, level: Level::LowestTenth, percent: 50, slack: 500 },
    Gauge { name: "event batches waiting", unit: Unit::Things, level: Level::Median, percent: 0, slack: 8 },
];

impl Sample {
    /// Looks at a server; none while a shard is silent.
    pub(super) fn take(server: &Server) -> Option<Self> {
        let status = server.status().ok().filter(|status| status.silent_shards.is_empty())?;
        let (resident, anonymous) = memory(server.pid()).ok()?;
        let files = fs::read_dir(format!("/proc/{}/fd", server.pid())).ok()?.count() as u64;
        Some(Self::of(&status, resident, anonymous, files))
    }

    fn of(status: &StatusReport, resident: u64, anonymous: u64, files: u64) -> Self {
        let segments = status.shards.iter().map(|shard| shard.spool_segments).sum();
        let totals = &status.totals;
        let (live, clients, deliveries) = (totals.spool_live_bytes, totals.sessions, totals.deliveries);
        let waiting = status.event_log.waiting;
        Self([resident, anonymous, files, segments, live, clients, deliveries, status.queued, waiting])
    }
}

/// Resident memory of a process, and how much of it is no file, in bytes.
fn memory(pid: u32) -> io::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok((of("VmRSS:"), of("RssAnon:")))
}

/// How a gauge went over a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Course {
    pub(super) name: &'static str,
    #[serde(skip)]
    pub(super) unit: Unit,
    /// Median, or lowest tenth, of the second quarter of the samples; the first one warms up.
    pub(super) second_quarter: u64,
    /// The same of the last.
    pub(super) last_quarter: u64,
    pub(super) max: u64,
    /// What that of the last may be.
    pub(super) allowed: u64,
    pub(super) flat: bool,
}

/// The course of each gauge; none if there are too few samples to tell.
pub(super) fn courses(samples: &[Sample]) -> Vec<Course> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        return Vec::new();
    }
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let course = |(at, gauge): (usize, &Gauge)| {
        let (second_quarter, last_quarter) = (level(second, at, gauge.level), level(last, at, gauge.level));
        let allowed = second_quarter + second_quarter * gauge.percent / 100 + gauge.slack;
        let max = samples.iter().map(|sample| sample.0[at]).max().unwrap_or(0);
        let flat = last_quarter <= allowed;
        Course { name: gauge.name, unit: gauge.unit, second_quarter, last_quarter, max, allowed, flat }
    };
    GAUGES.iter().enumerate().map(course).collect()
}

fn level(samples: &[Sample], at: usize, level: Level) -> u64 {
    let mut values: Vec<_> = samples.iter().map(|sample| sample.0[at]).collect();
    values.sort_unstable();
    let place = match level {
        Level::Median => values.len() / 2,
        Level::LowestTenth => values.len() / 10,
    };
    values.get(place).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |n| Sample([resident(n), 50 * MIB, 100, 4, MIB, 20, 40, 300, 0]);
        (0..100).map(sample).collect()
    }

    #[test]
    fn what_levels_off_is_flat_and_what_goes_on_rising_is_not() {
        // A start that warms up, and one peak.
        let level = courses(&samples(|n| if n == 60 { 900 * MIB } else { 100 * MIB + n.min(20) * MIB }));
        assert!(level.iter().all(|course| course.flat), "{level:?}");
        assert_eq!(level[0].max, 900 * MIB);
        // A queue that is long for half of the time, and each time empty again.
        let held = |n| Sample([100 * MIB, 50 * MIB, 100, 4, MIB, 20, 40, if n % 8 < 4 { 40_000 } else { n }, 0]);
        let backlog = courses(&(0..100).map(held).collect::<Vec<_>>());
        assert!(backlog.iter().all(|course| course.flat), "{backlog:?}");
        let rising = courses(&samples(|n| 100 * MIB + n * MIB));
        assert!(!rising[0].flat && rising[1..].iter().all(|course| course.flat), "{rising:?}");
        assert_eq!(courses(&samples(|_| 1)[..3]), []);
    }
}
