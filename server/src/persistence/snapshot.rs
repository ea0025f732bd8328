//! Snapshots without fork: an I/O thread walks the keyspace in steps under the engine's lock, and a thread of its own
//! writes what comes of it to a file, to replicas, or to both at once.
//!
//! Owns the queue of who wants a snapshot, the pacing of the walk, and the state of saving. Called
//! by commands (BGSAVE, SAVE, SHUTDOWN), by save points (`engine::cron`) and by the links of
//! replicas. The keyspace's hook guarantees that the bytes are the data of one moment
//! (`keyspace::snapshot_hook`): a write to a key that the walk has not passed encodes it first.
//!
//! Invariants:
//! - one snapshot at a time; everybody who waits when it begins is served by it;
//! - the lock is held for a fraction of a millisecond at a time; compressing and writing happen without it;
//! - the old file is replaced only by a complete, synced one;
//! - memory: bytes encoded but not written are those of two chunks, and those of keys that clients
//!   change while an output is slow;
//! - a replica that takes its snapshot slowly holds nobody else up for long (`snapshot/feed.rs`).
//!
//! Read next: `snapshot/run.rs`, `snapshot/walk.rs`, `snapshot/collector.rs`, `snapshot/output.rs`, `snapshot/feed.rs`.

mod collector;
mod feed;
mod output;
mod run;
mod walk;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::oneshot;

use self::output::Done;
pub use self::{
    feed::SnapshotFeed,
    output::{remove_leftovers, remove_unfinished},
    walk::Walker,
};
use crate::{
    engine::{
        Core, Engine, clock,
        saving::{Owed, Running, SaveResult},
    },
    scheduling,
};

/// Time after which a failed save is tried again by the save points.
const RETRY_SAVE_S: i64 = 5;

/// Why there is no snapshot.
#[derive(Debug, Error, Clone)]
pub enum SnapshotError {
    /// The disk refused.
    #[error("writing '{path}': {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The walk over the keyspace did not give what was there: a bug, and no reason to replace a good file.
    #[error("the snapshot has {keys} keys where the data had {expected}")]
    Incomplete {
        /// Keys written.
        keys: u64,
        /// Keys when it began.
        expected: u64,
    },
    /// The thread that takes snapshots has ended.
    #[error("the server is ending")]
    Ended,
    /// A replica took its snapshot so slowly that others, who need the thread, would have waited too long.
    #[error("it takes its snapshot too slowly, and others wait")]
    TooSlow,
}

impl SnapshotError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            path,
            source: Arc::new(source),
        }
    }
}

/// How a replica takes its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As it is made (`$EOF:`).
    Streamed,
    /// With its length first (`$<length>`), from a file.
    File,
}

/// A replica that waits for a snapshot.
struct Waiting {
    /// Id of its connection.
    id: u64,
    delivery: Delivery,
    since_ms: i64,
    reply: feed::Reply,
}

/// Who wants a snapshot. In `engine::Shared`.
#[derive(Default)]
pub struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    /// Saves wanted, each with whoever waits for it.
    saves: VecDeque<Option<Done>>,
    replicas: Vec<Waiting>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    fn add(&self, add: impl FnOnce(&mut Jobs)) {
        add(&mut self.jobs.lock());
        self.changed.notify_one();
    }

    fn is_empty(&self) -> bool {
        let jobs = self.jobs.lock();
        jobs.saves.is_empty() && jobs.replicas.is_empty()
    }
}

/// Starts the thread that takes snapshots. The walker has to run on an I/O thread.
pub fn start(engine: Arc<Engine>) -> io::Result<Walker> {
    let (walks, walker) = walk::channel(engine.clone());
    let work = move || {
        scheduling::give_way();
        loop {
            let batch = next_batch(&engine);
            run::take(&engine, &walks, batch);
        }
    };
    thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(work)?;
    Ok(walker)
}

/// Begins a save in the background (BGSAVE). The caller has checked that none is running.
pub fn begin_save(core: &mut Core) {
    core.saving.running = Running::Since(clock::unix_ms() / 1000);
    core.saving.owed = Owed::No;
    core.shared.snapshots.add(|jobs| jobs.saves.push_back(None));
}

/// Saves and waits until the file is on disk (SAVE, SHUTDOWN).
pub async fn save(engine: &Engine) -> Result<(), SnapshotError> {
    let (done, result) = oneshot::channel();
    engine.lock().core.saving.running = Running::Since(clock::unix_ms() / 1000);
    engine
        .shared
        .snapshots
        .add(|jobs| jobs.saves.push_back(Some(done)));
    result.await.unwrap_or(Err(SnapshotError::Ended))
}

/// Begins a save if a save point is reached (`save <seconds> <changes>`), or one is owed. Called by the cron.
pub fn check_save_points(core: &mut Core, now_s: i64) {
    let saving = &core.saving;
    let failed_lately =
        saving.last_result == SaveResult::Failed && now_s - saving.last_attempt_s <= RETRY_SAVE_S;
    if saving.running != Running::No || failed_lately {
        return;
    }
    let age_s = u64::try_from(now_s - saving.last_save_s).unwrap_or(0);
    let dirty = core.stats.dirty;
    let points = &core.config.persistence.save_points;
    if saving.owed == Owed::Yes && !points.is_empty() {
        tracing::info!("a save is due whatever was changed: saving");
        return begin_save(core);
    }
    let due = points
        .iter()
        .find(|point| dirty >= point.changes && age_s > point.seconds);
    if let Some(point) = due {
        tracing::info!(
            changes = dirty,
            seconds = point.seconds,
            "a save point is reached: saving"
        );
        begin_save(core);
    }
}

/// A snapshot for the attached replica whose connection is `id`. When it begins, under the same
/// lock, the replica's place in the stream is set: no byte is missed or sent twice.
pub async fn for_replica(
    engine: &Engine,
    delivery: Delivery,
    id: u64,
) -> Result<SnapshotFeed, SnapshotError> {
    let (reply, feed) = oneshot::channel();
    let since_ms = clock::monotonic_ms();
    let waiting = Waiting {
        id,
        delivery,
        since_ms,
        reply,
    };
    engine
        .shared
        .snapshots
        .add(|jobs| jobs.replicas.push(waiting));
    feed.await.unwrap_or(Err(SnapshotError::Ended))
}

/// What one snapshot is for.
struct Batch {
    saves: Vec<Option<Done>>,
    replicas: Vec<Waiting>,
}

/// Waits until somebody wants a snapshot, and a little longer for further replicas.
fn next_batch(engine: &Engine) -> Batch {
    let queue = &engine.shared.snapshots;
    let mut jobs = queue.jobs.lock();
    loop {
        if jobs.saves.is_empty() && jobs.replicas.is_empty() {
            queue.changed.wait(&mut jobs);
            continue;
        }
        // The engine's lock is never taken inside the queue's: BGSAVE takes them the other way.
        let (delay, enough) = MutexGuard::unlocked(&mut jobs, || {
            let state = engine.lock();
            let config = &state.core.config.replication;
            (
                config.diskless_sync_delay,
                config.diskless_sync_max_replicas as usize,
            )
        });
        let now_ms = clock::monotonic_ms();
        let due_ms = |waiting: &Waiting| match waiting.delivery {
            Delivery::File => waiting.since_ms,
            Delivery::Streamed => waiting.since_ms + delay.as_millis() as i64,
        };
        let first_due_ms = jobs.replicas.iter().map(due_ms).min().unwrap_or(now_ms);
        let many = enough > 0 && jobs.replicas.len() >= enough;
        if !jobs.saves.is_empty() || many || first_due_ms <= now_ms {
            let saves = jobs.saves.drain(..).collect();
            return Batch {
                saves,
                replicas: std::mem::take(&mut jobs.replicas),
            };
        }
        let wait = Duration::from_millis((first_due_ms - now_ms) as u64);
        queue.changed.wait_for(&mut jobs, wait);
    }
}
