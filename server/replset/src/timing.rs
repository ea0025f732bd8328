//! The durations of the protocol, in milliseconds of a monotonic clock.
//!
//! Owns the defaults and their arithmetic. Assumption, stated: the monotonic clocks of two healthy
//! machines differ in rate by less than [`RATE_ERROR_PERCENT`] over one lease.

/// How often a master sends heartbeats.
pub const HEARTBEAT_MS: u64 = 100;
/// A member that has not heard its master for this long says that it misses it.
pub const SUSPICION_MS: u64 = 800;
/// How long a majority's acknowledgement lets a master serve.
pub const LEASE_MS: u64 = 1_200;
/// How much longer a voter counts the lease it granted, for clocks of different rate.
pub const RATE_ERROR_PERCENT: u64 = 5;
/// With fewer voters than this there is no lease: a majority would be all of them.
pub const LEASE_MIN_VOTERS: usize = 3;
/// How long writes may be paused by a planned switchover before the master resumes them.
pub const HANDOVER_BUDGET_MS: u64 = 500;
/// How often a master sends heartbeats while a planned switchover waits for the target.
pub const HANDOVER_HEARTBEAT_MS: u64 = 5;

/// The durations in force. All members of a set must use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// See [`HEARTBEAT_MS`].
    pub heartbeat_ms: u64,
    /// See [`SUSPICION_MS`].
    pub suspicion_ms: u64,
    /// See [`LEASE_MS`].
    pub lease_ms: u64,
    /// See [`RATE_ERROR_PERCENT`].
    pub rate_error_percent: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: HEARTBEAT_MS,
            suspicion_ms: SUSPICION_MS,
            lease_ms: LEASE_MS,
            rate_error_percent: RATE_ERROR_PERCENT,
        }
    }
}

impl Timing {
    /// How long a voter counts a lease it granted, on its own clock, rounded up.
    pub fn grant_ms(&self) -> u64 {
        self.lease_ms + (self.lease_ms * self.rate_error_percent).div_ceil(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_outlasts_the_lease_by_the_rate_error() {
        assert_eq!(Timing::default().grant_ms(), 1_260);
    }
}
