//! Latency histograms: constant memory, three significant digits, 1 µs to one hour.
//!
//! A measuring thread owns its histogram; they are merged at the end. Recording must never fail or allocate: what is
//! out of range is counted at the bound.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// A latency distribution.
#[derive(Debug, Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty distribution.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the bounds are constants that hdrhistogram takes")]
    pub fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("constant bounds") }
    }

    /// Notes one latency.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, the only thing that could make this fail.
        let _ = self.histogram.add(&other.histogram);
    }

    /// How many latencies were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that `percent` of all stay at or below.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_percentile(percent))
    }

    /// The figures a report prints.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let at = |percent| self.histogram.value_at_percentile(percent);
        Summary {
            count: self.histogram.len(),
            min_us: if self.histogram.is_empty() { 0 } else { self.histogram.min() },
            mean_us: self.histogram.mean(),
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: self.histogram.max(),
        }
    }

    /// Writes the distribution as an HDR percentile file, values in milliseconds, as the HdrHistogram plotters read it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_percentiles(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
        let mut total = 0;
        for step in self.histogram.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / 1000.0, step.quantile_iterated_to());
            if quantile < 1.0 {
                writeln!(out, "{value:12.3} {quantile:14.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))?;
            } else {
                writeln!(out, "{value:12.3} {quantile:14.12} {total:10} {:>14}", "inf")?;
            }
        }
        let (mean, deviation) = (self.histogram.mean() / 1000.0, self.histogram.stdev() / 1000.0);
        writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
        writeln!(out, "#[Max     = {:12.3}, Total count    = {total:12}]", self.histogram.max() as f64 / 1000.0)?;
        writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", self.histogram.buckets(), 2048)
    }
}

/// The usual figures of a distribution, in microseconds; all zero where nothing was noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Shortest.
    pub min_us: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: u64,
    /// 90 % stay at or below.
    pub p90_us: u64,
    /// 99 % stay at or below.
    pub p99_us: u64,
    /// 99.9 % stay at or below.
    pub p999_us: u64,
    /// Longest.
    pub max_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_file() {
        let mut latency = Latency::new();
        for ms in 1..=1000 {
            latency.record(Duration::from_millis(ms));
        }
        let mut other = Latency::new();
        other.record(Duration::from_secs(100_000));
        latency.merge(&other);
        let summary = latency.summary();
        assert_eq!(summary.count, 1001);
        assert!(summary.p50_us.abs_diff(501_000) < 1_000, "{summary:?}");
        assert!(summary.max_us >= LONGEST_US, "{summary:?}");
        let mut file = Vec::new();
        latency.write_percentiles(&mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(text.contains("1.000000000000       1001"), "{text}");
        assert!(text.lines().count() > 20);
    }

    #[test]
    fn empty_is_all_zero() {
        assert_eq!(Latency::new().summary(), Summary::default());
    }
}
