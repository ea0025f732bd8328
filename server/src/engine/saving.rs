//! What is known of snapshots on disk, for INFO, LASTSAVE and the refusal of writes after a failed
//! save. Kept under the engine's lock, changed by `persistence`.

use super::Core;

/// State of saving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saving {
    /// A snapshot is being written.
    pub running: Running,
    /// Unix seconds of the last good save, or of the start.
    pub last_save_s: i64,
    /// How the last background save ended.
    pub last_result: SaveResult,
    /// Whether a save is due whatever was changed since the last one.
    pub owed: Owed,
    /// Unix seconds of the last attempt.
    pub last_attempt_s: i64,
    /// Seconds the last one took, -1 before the first.
    pub last_duration_s: i64,
    /// Snapshots written since the start.
    pub saves: u64,
}

/// Whether a snapshot is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// None.
    No,
    /// Since this Unix second.
    Since(i64),
}

/// Whether the file on disk is of another dataset than the one in memory, so that counting changes does not tell when to
/// save. It counts only if there are save points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// The save points decide.
    No,
    /// As soon as no save runs: the last one failed, or a full synchronization brought the dataset (Redis keeps the file
    /// that it received), or a mastership began with data that were never saved: a member that ends before its first save
    /// would come back without knowing that it ever had data.
    Yes,
}

/// How a save ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveResult {
    /// The file is on disk.
    Ok,
    /// It is not.
    Failed,
}

impl Saving {
    /// The state at the start of the server.
    pub fn new(now_s: i64) -> Self {
        Self {
            running: Running::No,
            last_save_s: now_s,
            last_result: SaveResult::Ok,
            owed: Owed::No,
            last_attempt_s: 0,
            last_duration_s: -1,
            saves: 0,
        }
    }
}

impl Core {
    /// Whether writes are refused because saving fails (`stop-writes-on-bgsave-error`).
    pub fn saving_failed(&self) -> bool {
        let persistence = &self.config.persistence;
        self.saving.last_result == SaveResult::Failed
            && persistence.stop_writes_on_bgsave_error
            && !persistence.save_points.is_empty()
    }
}
