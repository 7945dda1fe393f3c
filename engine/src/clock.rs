//! The only place of the engine that reads a clock.
//!
//! Everything below the edge gets time as an argument (`mailrail_queue::time`), so that it can be simulated.

use mailrail_queue::time::{Mono, Wall};
use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Monotonic time since the first call in this process.
#[must_use]
pub fn mono() -> Mono {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    // One more than the truth, so that zero can mean "never".
    Mono(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
}

/// Wall-clock time; zero if the host's clock is before 1970.
#[must_use]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The kernel's monotonic clock in microseconds, as systemd counts it.
#[must_use]
pub fn mono_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1_000_000 + nanos / 1000
}
