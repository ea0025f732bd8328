//! What counts as used memory.
//!
//! Owns the figures of the allocator (jemalloc) and the limit `maxmemory`. Refreshed by the engine, at most every
//! [`REFRESH_EVERY_MS`], read by INFO, by admission and by eviction. Asking jemalloc is not free (it sums over its arenas),
//! so nothing on the hot path does.

use tikv_jemalloc_ctl::{epoch, stats};

/// Shortest time between two questions to the allocator.
pub const REFRESH_EVERY_MS: i64 = 100;

/// The allocator's figures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Asked for and not freed: `used_memory`.
    pub allocated: u64,
    /// In pages that hold at least one allocation.
    pub active: u64,
    /// In physical memory, as far as the allocator knows.
    pub resident: u64,
    /// Mapped from the system.
    pub mapped: u64,
    /// Highest `allocated` seen at a refresh.
    pub peak: u64,
}

/// The last figures, and the limit.
#[derive(Debug, Default)]
pub struct MemoryGauge {
    stats: MemoryStats,
    refreshed_ms: Option<i64>,
    limit_bytes: u64,
    /// Part of what is allocated that the limit does not count.
    uncounted_bytes: u64,
    /// Estimate of what was allocated since the last refresh.
    grown_bytes: u64,
}

impl MemoryGauge {
    /// The figures of the last refresh.
    pub fn stats(&self) -> MemoryStats {
        self.stats
    }

    /// Sets `maxmemory`; 0 is no limit.
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit_bytes = bytes;
    }

    /// `maxmemory`; 0 is no limit.
    pub fn limit(&self) -> u64 {
        self.limit_bytes
    }

    /// Says how much of what is allocated the limit does not count: the stream that slow replicas still need. Eviction would
    /// make that longer.
    pub fn set_uncounted(&mut self, bytes: u64) {
        self.uncounted_bytes = bytes;
    }

    /// Whether there is a limit and the last refresh was above it.
    #[inline]
    pub fn is_over_limit(&self) -> bool {
        let counted = self.stats.allocated.saturating_sub(self.uncounted_bytes);
        self.limit_bytes != 0 && counted > self.limit_bytes
    }

    /// Notes that a command is about to allocate about `bytes`, and asks the allocator when enough has been noted that the
    /// limit could have been passed by more than a thousandth.
    pub fn note_growth(&mut self, bytes: u64, now_ms: i64) {
        const LEAST_STEP_BYTES: u64 = 16 * 1024;
        const MOST_STEP_BYTES: u64 = 1024 * 1024;
        if self.limit_bytes == 0 {
            return;
        }
        self.grown_bytes = self.grown_bytes.saturating_add(bytes);
        let step = (self.limit_bytes / 1024).clamp(LEAST_STEP_BYTES, MOST_STEP_BYTES);
        if self.grown_bytes >= step {
            self.refreshed_ms = None;
            self.refresh(now_ms);
        }
    }

    /// Notes that about `bytes` were given up; the next refresh knows exactly.
    pub fn note_freed(&mut self, bytes: u64) {
        self.stats.allocated = self.stats.allocated.saturating_sub(bytes);
    }

    /// Asks the allocator, unless that was done less than [`REFRESH_EVERY_MS`] before.
    pub fn refresh(&mut self, now_ms: i64) -> MemoryStats {
        let is_fresh = self
            .refreshed_ms
            .is_some_and(|at| (0..REFRESH_EVERY_MS).contains(&(now_ms - at)));
        if !is_fresh {
            self.refreshed_ms = Some(now_ms);
            self.grown_bytes = 0;
            let peak = self.stats.peak;
            self.stats = read_allocator();
            self.stats.peak = peak.max(self.stats.allocated);
        }
        self.stats
    }
}

/// All figures, zero where the allocator does not answer (it always does when it is jemalloc).
fn read_allocator() -> MemoryStats {
    // The figures are those of the last epoch: begin a new one.
    if epoch::advance().is_err() {
        return MemoryStats::default();
    }
    let bytes = |figure: Result<usize, tikv_jemalloc_ctl::Error>| figure.unwrap_or(0) as u64;
    MemoryStats {
        allocated: bytes(stats::allocated::read()),
        active: bytes(stats::active::read()),
        resident: bytes(stats::resident::read()),
        mapped: bytes(stats::mapped::read()),
        peak: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_asked_at_most_every_hundred_milliseconds() {
        let mut gauge = MemoryGauge::default();
        gauge.refresh(1000);
        assert_eq!(gauge.refreshed_ms, Some(1000));
        gauge.refresh(1099);
        assert_eq!(gauge.refreshed_ms, Some(1000));
        gauge.refresh(1100);
        assert_eq!(gauge.refreshed_ms, Some(1100));
        gauge.refresh(500);
        assert_eq!(
            gauge.refreshed_ms,
            Some(500),
            "a clock set back does not stop it"
        );
    }

    #[test]
    fn without_a_limit_nothing_is_over_it() {
        let mut gauge = MemoryGauge {
            stats: MemoryStats {
                allocated: 10,
                ..MemoryStats::default()
            },
            ..MemoryGauge::default()
        };
        assert!(!gauge.is_over_limit());
        gauge.set_limit(10);
        assert!(!gauge.is_over_limit());
        gauge.set_limit(9);
        assert!(gauge.is_over_limit());
        gauge.set_uncounted(1);
        assert!(!gauge.is_over_limit());
    }
}
