//! Figures as people read them. Every function takes plain units and says which.

use jiff::Timestamp;
use std::time::Duration;

/// `1234567` as `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in binary units, three significant digits: `1.50 MiB`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let (mut scaled, mut unit) = (value as f64 / 1024.0, 0);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        (scaled, unit) = (scaled / 1024.0, unit + 1);
    }
    format!("{} {}", three_digits(scaled), UNITS[unit])
}

/// A span of time, two units at most: `4m 10s`, `2h 5m`, `850 ms`, `120 µs`.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    match seconds {
        0 if micros == 0 => "0 s".into(),
        0 if micros < 1_000 => format!("{micros} µs"),
        0 => format!("{} ms", three_digits(micros as f64 / 1e3)),
        1..60 => format!("{} s", three_digits(micros as f64 / 1e6)),
        60..3_600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A rate per second: `4,210/s`, `0.25/s`.
pub(crate) fn rate(events: u64, over: Duration) -> String {
    let per_second = if over.is_zero() { 0.0 } else { events as f64 / over.as_secs_f64() };
    if per_second >= 100.0 { format!("{}/s", count(per_second.round() as u64)) } else { format!("{per_second:.2}/s") }
}

/// How long ago (or ahead) `ms` is, seen from `now`, both milliseconds since the epoch.
pub(crate) fn relative(ms: u64, now: u64) -> String {
    match ms.cmp(&now) {
        std::cmp::Ordering::Equal => "now".into(),
        std::cmp::Ordering::Less => format!("{} ago", coarse(now - ms)),
        std::cmp::Ordering::Greater => format!("in {}", coarse(ms - now)),
    }
}

/// Milliseconds since the epoch, now.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Whole seconds are enough for what lies minutes away.
fn coarse(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { duration(Duration::from_secs(ms.div_ceil(1_000))) }
}

fn pair(high: u64, high_unit: &str, low: u64, low_unit: &str) -> String {
    if low == 0 { format!("{high}{high_unit}") } else { format!("{high}{high_unit} {low}{low_unit}") }
}

fn three_digits(value: f64) -> String {
    // The bounds lie where the shorter form would round up to one digit more.
    match value {
        v if v.fract() == 0.0 => format!("{v:.0}"),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (value, shown) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(value), shown);
        }
    }

    #[test]
    fn bytes_are_scaled() {
        for (value, shown) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1 KiB"), (1_572_864, "1.50 MiB"), (u64::MAX, "16 EiB")]
        {
            assert_eq!(bytes(value), shown);
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (micros, shown) in [
            (0, "0 s"),
            (120, "120 µs"),
            (850_000, "850 ms"),
            (1_500_000, "1.50 s"),
            (59_990_000, "60.0 s"),
            (250_000_000, "4m 10s"),
            (7_500_000_000, "2h 5m"),
            (50_400_000_000, "14h"),
            (90_000_000_000, "1d 1h"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), shown);
        }
    }

    #[test]
    fn rates_of_nothing_are_zero() {
        assert_eq!(rate(5, Duration::ZERO), "0.00/s");
        assert_eq!(rate(4_210, Duration::from_secs(1)), "4,210/s");
        assert_eq!(rate(1, Duration::from_secs(4)), "0.25/s");
    }

    #[test]
    fn times_are_seen_from_now() {
        assert_eq!(relative(10_000, 10_000), "now");
        assert_eq!(relative(10_000, 70_000), "1m ago");
        assert_eq!(relative(11_500, 10_000), "in 2 s");
    }
}
