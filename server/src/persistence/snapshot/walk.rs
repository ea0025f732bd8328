//! The walk over the keyspace, in steps between which an I/O thread serves its connections.
//!
//! Owns the pace of the walk. The snapshot's thread orders a chunk at a time ([`Walks`]) and compresses, sums and writes
//! it while the next one is walked; the [`Walker`] runs beside the connections of the first I/O thread.
//!
//! Why not on the snapshot's thread: it would compete with the I/O threads, for the lock with a wake-up at every
//! hand-over, and for processors: one that the scheduler stops while it holds the lock stops everybody. (Measured with two
//! cores at 4,000 GETs a second: half of them waited 160 ms.) Here a request waits for one step of the walk at most,
//! whatever the number of processors, and a busy thread walks a step each time it has looked at all its sockets.
//!
//! Invariant: a step ends when its time is over, when a chunk is full, or when somebody else wants the lock.

use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::{mpsc, oneshot};

use super::collector::Pending;
use crate::{
    engine::{Engine, clock},
    keyspace::snapshot_hook::SnapshotProgress,
    persistence::rdb::encode::Encoded,
};

/// Time for which a step holds the lock, about.
const STEP_US: u64 = 50;
/// Small entries between two looks at the clock and at who wants the lock.
const ENTRIES_PER_LOOK: usize = 32;
/// Bytes after which a chunk goes to the snapshot's thread.
const CHUNK_BYTES: usize = 128 * 1024;
/// Room for the entries that make a chunk full, and for what clients change meanwhile: it is not made under the lock.
const CHUNK_ROOM_BYTES: usize = CHUNK_BYTES + 32 * 1024;

/// The part of the snapshot's thread: orders chunks.
pub struct Walks(mpsc::Sender<Order>);

/// The part of the I/O thread: walks.
pub struct Walker {
    engine: Arc<Engine>,
    orders: mpsc::Receiver<Order>,
}

struct Order {
    pending: Pending,
    /// Empty, with room for a chunk.
    room: Encoded,
    reply: oneshot::Sender<Walked>,
}

/// A chunk.
pub struct Walked {
    /// What was encoded.
    pub encoded: Encoded,
    /// Keys that are complete so far.
    pub keys: u64,
    /// Whether there is more.
    pub progress: SnapshotProgress,
}

/// A chunk that is on its way.
pub struct Coming(oneshot::Receiver<Walked>);

impl Coming {
    /// Waits for it; `None` where the I/O threads have ended.
    pub fn wait(self) -> Option<Walked> {
        self.0.blocking_recv().ok()
    }
}

/// Both parts.
pub fn channel(engine: Arc<Engine>) -> (Walks, Walker) {
    let (sender, orders) = mpsc::channel(1);
    (Walks(sender), Walker { engine, orders })
}

impl Walks {
    /// Orders the next chunk of the snapshot whose entries appear in `pending`.
    pub fn order(&self, pending: &Pending) -> Coming {
        let (reply, coming) = oneshot::channel();
        let order = Order {
            pending: pending.clone(),
            room: Encoded::with_capacity(CHUNK_ROOM_BYTES),
            reply,
        };
        // Where nobody walks any more the reply's other end is dropped with the order, which the waiting sees.
        let _ended = self.0.blocking_send(order);
        Coming(coming)
    }
}

impl Walker {
    /// Walks what is ordered, for ever.
    pub async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            let progress = loop {
                let progress = step(&self.engine, &order.pending);
                let is_running = matches!(progress, SnapshotProgress::Running);
                if !is_running || is_full(&order.pending) {
                    break progress;
                }
                tokio::task::yield_now().await;
            };
            let (encoded, keys) = {
                let mut pending = order.pending.lock();
                let full = std::mem::replace(&mut pending.encoded, order.room);
                (full, pending.keys)
            };
            let walked = Walked {
                encoded,
                keys,
                progress,
            };
            // The snapshot's thread waits for every chunk that it orders.
            let _ended = order.reply.send(walked);
        }
    }
}

fn is_full(pending: &Pending) -> bool {
    pending.lock().encoded.bytes.len() >= CHUNK_BYTES
}

/// Walks a step under the lock.
fn step(engine: &Engine, pending: &Pending) -> SnapshotProgress {
    let mut state = engine.lock();
    let from = clock::ticks();
    loop {
        let progress = state.keyspace.snapshot_step(ENTRIES_PER_LOOK);
        let goes_on = matches!(progress, SnapshotProgress::Running)
            && clock::ticks_to_us(clock::ticks() - from) < STEP_US
            && !engine.is_lock_wanted()
            && !is_full(pending);
        if !goes_on {
            // Whoever waits for the lock gets it now, not when the scheduler thinks so.
            MutexGuard::unlock_fair(state);
            return progress;
        }
    }
}
