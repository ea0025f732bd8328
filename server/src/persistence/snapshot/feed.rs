//! A snapshot on its way to one replica: from the snapshot's thread, or a thread that reads a file, to the task of the
//! replica's link.
//!
//! Owns the few chunks between the two and how the feed ended, and decides how long a slow replica may hold others up.
//! Invariants: chunks on their way are bounded; a feed that ends early is never taken for a complete one.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::SnapshotError;
use crate::replication::identity::History;

/// Chunks on their way to one replica.
const CHUNKS: usize = 16;
/// Longest chunk of a value as it is serialized: a value is written in one piece, however big, and a replica that reads
/// nothing must not make the server hold many of those.
const MAX_CHUNK_BYTES: usize = 128 * 1024;
/// Pause before a replica without room is asked again; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(8);
/// How long a replica may hold others up beyond what its bytes take at [`MIN_BYTES_PER_S`].
const GRACE: Duration = Duration::from_secs(10);
/// While others wait a replica must take at least so many bytes a second: less than any network between servers gives.
const MIN_BYTES_PER_S: u32 = 1024 * 1024;

/// Answers a replica that waits for its snapshot.
pub type Reply = oneshot::Sender<Result<SnapshotFeed, SnapshotError>>;

/// A snapshot on its way to a replica.
pub struct SnapshotFeed {
    /// The place in the stream that it belongs to.
    pub history: History,
    /// Its length where it is known beforehand.
    pub length: Option<u64>,
    chunks: mpsc::Receiver<Bytes>,
    outcome: Outcome,
}

/// How the feed ended. Beside the chunks, because a replica that reads nothing leaves no room for a last word.
type Outcome = Arc<OnceLock<Result<(), SnapshotError>>>;

impl SnapshotFeed {
    /// The next bytes, `None` at the end of a complete snapshot.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        // What is left of a snapshot that is given up is of no use.
        self.check()?;
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        match self.outcome.get() {
            Some(Ok(())) => Ok(None),
            Some(Err(error)) => Err(error.clone()),
            None => Err(SnapshotError::Ended),
        }
    }

    /// Whether the snapshot is still to be had, for a link that is busy with a chunk.
    pub fn check(&self) -> Result<(), SnapshotError> {
        match self.outcome.get() {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// Who waits while a replica takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Nobody: `repl-timeout` decides when its link is given up.
    None,
    /// A save, or other replicas.
    Others,
    /// The end of the server, which the replica will not outlive as ours anyway.
    Shutdown,
}

/// Whether a replica still takes its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive {
    /// It does.
    Yes,
    /// Its link has ended, or it was given up.
    No,
}

/// The end of a feed that gives.
pub struct Feeder {
    chunks: mpsc::Sender<Bytes>,
    outcome: Outcome,
    held_up: HeldUp,
}

impl Feeder {
    /// Begins to feed a replica; `None` if it has gone.
    pub fn begin(history: &History, length: Option<u64>, reply: Reply) -> Option<Self> {
        let (feeder, feed) = feed(history, length);
        reply.send(Ok(feed)).ok().map(|()| feeder)
    }

    /// Ends the feed; after an error the replica drops what it has got.
    pub fn end(self, outcome: Result<(), SnapshotError>) {
        // Set here for the first time: `self` is gone afterwards.
        let _first = self.outcome.set(outcome);
    }

    /// Gives a chunk and waits while the replica is slow.
    pub fn send(&self, chunk: Bytes) -> Alive {
        match self.chunks.blocking_send(chunk) {
            Ok(()) => Alive::Yes,
            Err(_) => Alive::No,
        }
    }

    /// Gives a piece of the snapshot in chunks and waits while the replica is slow, but gives it up when it holds others
    /// up for too long. `pressure` tells who waits.
    pub fn send_unless_held_up(&mut self, piece: &Bytes, pressure: impl Fn() -> Pressure) -> Alive {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(MAX_CHUNK_BYTES));
            if self.send_chunk(&chunk, &pressure) == Alive::No {
                return Alive::No;
            }
        }
        Alive::Yes
    }

    fn send_chunk(&mut self, chunk: &Bytes, pressure: impl Fn() -> Pressure) -> Alive {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.chunks.try_send(chunk.clone()) {
                Ok(()) => {
                    self.held_up.took(chunk.len());
                    return Alive::Yes;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return Alive::No,
                Err(mpsc::error::TrySendError::Full(_)) => {}
            }
            if self.held_up.is_too_long(pressure()) {
                let _first = self.outcome.set(Err(SnapshotError::TooSlow));
                return Alive::No;
            }
            thread::sleep(pause);
            self.held_up.waited(pause, pressure());
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

fn feed(history: &History, length: Option<u64>) -> (Feeder, SnapshotFeed) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let outcome = Outcome::default();
    let feed = SnapshotFeed {
        history: history.clone(),
        length,
        chunks,
        outcome: outcome.clone(),
    };
    let feeder = Feeder {
        chunks: sender,
        outcome,
        held_up: HeldUp::default(),
    };
    (feeder, feed)
}

/// For how long a replica has held others up, less what its bytes take at the least speed: one that stands still is
/// given up soon, one that is only slow is not.
#[derive(Default)]
struct HeldUp(Duration);

impl HeldUp {
    fn waited(&mut self, time: Duration, pressure: Pressure) {
        match pressure {
            Pressure::None => {}
            Pressure::Others | Pressure::Shutdown => self.0 += time,
        }
    }

    fn took(&mut self, bytes: usize) {
        let due = Duration::from_secs_f64(bytes as f64 / f64::from(MIN_BYTES_PER_S));
        self.0 = self.0.saturating_sub(due);
    }

    fn is_too_long(&self, pressure: Pressure) -> bool {
        match pressure {
            Pressure::None => false,
            Pressure::Others => self.0 > GRACE,
            Pressure::Shutdown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::identity::ReplId;

    fn full_feed() -> (Feeder, SnapshotFeed) {
        let (feeder, feed) = feed(&History::new(ReplId::NONE), None);
        for _ in 0..CHUNKS {
            assert_eq!(feeder.send(Bytes::from_static(b"chunk")), Alive::Yes);
        }
        (feeder, feed)
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn a_replica_that_reads_nothing_is_given_up_when_the_server_ends() {
        let (mut feeder, mut feed) = full_feed();
        let chunk = Bytes::from_static(b"one more");
        let alive = feeder.send_unless_held_up(&chunk, || Pressure::Shutdown);
        assert_eq!(alive, Alive::No);
        assert!(matches!(block_on(feed.next()), Err(SnapshotError::TooSlow)));
    }

    #[test]
    fn a_big_value_is_not_held_for_a_replica_that_reads_nothing() {
        let (mut feeder, _feed) = feed(&History::new(ReplId::NONE), None);
        let value = Bytes::from(vec![0; (CHUNKS + 1) * MAX_CHUNK_BYTES]);
        let alive = feeder.send_unless_held_up(&value, || Pressure::Shutdown);
        assert_eq!(alive, Alive::No);
    }

    #[test]
    fn only_a_feed_that_ended_well_has_an_end() {
        let (feeder, mut feed) = full_feed();
        feeder.end(Ok(()));
        for _ in 0..CHUNKS {
            assert!(block_on(feed.next()).unwrap().is_some());
        }
        assert!(block_on(feed.next()).unwrap().is_none());
        let (feeder, mut feed) = full_feed();
        drop(feeder);
        let all = (0..CHUNKS).all(|_| block_on(feed.next()).unwrap().is_some());
        assert!(all && block_on(feed.next()).is_err());
    }

    #[test]
    fn a_slow_replica_may_be_slow_but_not_stand_still() {
        let second = Duration::from_secs(1);
        let held_up_for = |seconds: u32, bytes_per_s: u32, pressure| {
            let mut held_up = HeldUp::default();
            for _ in 0..seconds {
                held_up.waited(second, pressure);
                held_up.took(bytes_per_s as usize);
            }
            held_up
        };
        let slow = held_up_for(3600, MIN_BYTES_PER_S, Pressure::Others);
        assert!(!slow.is_too_long(Pressure::Others));
        let trickle = held_up_for(12, MIN_BYTES_PER_S / 20, Pressure::Others);
        assert!(trickle.is_too_long(Pressure::Others));
        let alone = held_up_for(3600, 1, Pressure::None);
        assert!(!alone.is_too_long(Pressure::Others), "nobody waited");
    }
}
