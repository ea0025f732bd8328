//! The only place of the server that reads a clock. Everything else gets times as values.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

static START: LazyLock<Duration> = LazyLock::new(since_boot);

/// Time since the machine started, that in which it was suspended included: a lease that was over meanwhile is over.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Unix time in milliseconds. Only expiry, logs and reports may depend on it.
pub fn unix_ms() -> i64 {
    unix_us() / 1000
}

/// Unix time in microseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the wall clock is read"
)]
pub fn unix_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64)
}

/// Milliseconds of the monotonic clock since the process first asked. Leases and timeouts use it.
pub fn monotonic_ms() -> i64 {
    since_boot().saturating_sub(*START).as_millis() as i64
}

/// Microseconds of the monotonic clock, for durations of commands.
pub fn monotonic_us() -> u64 {
    since_boot().saturating_sub(*START).as_micros() as u64
}

static TICKS: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// A counter of the processor, for durations of single commands: a few nanoseconds to read.
pub fn ticks() -> u64 {
    TICKS.raw()
}

/// Microseconds in a number of [`ticks`].
pub fn ticks_to_us(ticks: u64) -> u64 {
    (TICKS.delta_as_nanos(0, ticks)) / 1000
}
