//! How far the load of the dataset at the start has come.
//!
//! Written by `server`, which loads; read by commands, INFO and the probes. None of them needs the engine's lock for it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::metrics::facts::LoadFacts;

/// The load at the start. A replica that loads its master's snapshot serves its old data meanwhile, and is not meant.
#[derive(Debug, Default)]
pub struct Loading {
    is_running: AtomicBool,
    since_s: AtomicI64,
    loaded_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl Loading {
    /// A file of `total_bytes` will be loaded, from the Unix second `since_s` on.
    pub fn begin(&self, since_s: i64, total_bytes: u64) {
        self.since_s.store(since_s, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.is_running.store(true, Ordering::Release);
    }

    /// So many more bytes have been read.
    pub fn advance(&self, bytes: u64) {
        self.loaded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The dataset is in place. Called under the lock under which it was put there, so that nobody sees the one
    /// without the other.
    pub fn end(&self) {
        self.is_running.store(false, Ordering::Release);
    }

    /// Whether a dataset is being loaded.
    pub fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// What INFO shows of it, `None` where nothing is being loaded.
    pub fn facts(&self, now_s: i64) -> Option<LoadFacts> {
        let since_s = self.since_s.load(Ordering::Relaxed);
        self.is_running().then(|| LoadFacts {
            since_s,
            elapsed_s: u64::try_from(now_s - since_s).unwrap_or(0),
            loaded_bytes: self.loaded_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_counted_until_the_end() {
        let loading = Loading::default();
        assert_eq!(loading.facts(100), None);
        loading.begin(100, 5000);
        loading.advance(1000);
        loading.advance(500);
        let facts = LoadFacts {
            since_s: 100,
            elapsed_s: 3,
            loaded_bytes: 1500,
            total_bytes: 5000,
        };
        assert_eq!(loading.facts(103), Some(facts));
        loading.end();
        assert_eq!(loading.facts(104), None);
    }
}
