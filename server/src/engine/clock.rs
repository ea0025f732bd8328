//! The only place of the server that reads a clock. Everything else gets times as values.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

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
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the monotonic clock is read"
)]
pub fn monotonic_ms() -> i64 {
    START.elapsed().as_millis() as i64
}

/// Microseconds of the monotonic clock, for durations of commands.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the monotonic clock is read"
)]
pub fn monotonic_us() -> u64 {
    START.elapsed().as_micros() as u64
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
