//! One snapshot from its beginning to the end: begin under the lock, walk in steps, write.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Batch, Delivery, SnapshotError, Waiting,
    collector::{Collector, Pending},
    output::{Alive, Done, FeedReply, SaveFile, Spool, Stream},
};
use crate::{
    engine::{
        Core, Engine, State, clock,
        saving::{Running, SaveResult},
    },
    keyspace::{
        Keyspace,
        snapshot_hook::{SnapshotError as BeginError, SnapshotProgress},
    },
    persistence::rdb::{
        checksum::crc64,
        encode::{self, Compression},
    },
    replication::{
        identity::History,
        state::{ReplicaState, Role},
    },
};

/// Time for which the lock is held by one step of the walk, about.
const STEP_US: u64 = 100;
/// Entries of the first step; then the number follows the time they took.
const FIRST_STEP_ENTRIES: usize = 128;
/// Entries of a step, at most.
const MAX_STEP_ENTRIES: usize = 8192;
/// Bytes of the buffer of a step that are kept for the next: room is not made under the lock.
const KEPT_STEP_BYTES: usize = 1024 * 1024;
/// Bytes collected before they are given to the outputs.
const CHUNK_BYTES: usize = 256 * 1024;
/// The version of Redis that the file names as its writer, for tools that look.
const WRITTEN_AS: &[u8] = b"7.2.0";

/// Takes the snapshot that a batch of callers waits for.
pub(super) fn take(engine: &Arc<Engine>, batch: Batch) {
    let mut outputs = Outputs::open(engine, batch.saves);
    let Some(begun) = begin(engine, &mut outputs, batch.replicas) else {
        return;
    };
    outputs.write(&begun.header);
    let mut encoded = Vec::new();
    let mut entries = FIRST_STEP_ENTRIES;
    loop {
        if outputs.all_gone() {
            tracing::warn!("nobody waits for the snapshot any more");
            engine.lock().keyspace.abort_snapshot();
            break;
        }
        let (progress, spent_us) = step(engine, entries);
        entries = next_step(entries, spent_us);
        encoded.clear();
        encoded.shrink_to(KEPT_STEP_BYTES);
        let keys = begun.take(&mut encoded);
        outputs.write(&encoded);
        match progress {
            SnapshotProgress::Running => {}
            SnapshotProgress::Finished(_) if keys == begun.keys => {
                outputs.write_end();
                break;
            }
            SnapshotProgress::Finished(_) | SnapshotProgress::Idle | SnapshotProgress::Drained => {
                outputs.spoil(SnapshotError::Incomplete {
                    keys,
                    expected: begun.keys,
                });
                break;
            }
        }
    }
    outputs.finish(engine, &begun.history);
}

/// The number of entries for a step that should take [`STEP_US`].
fn next_step(entries: usize, spent_us: u64) -> usize {
    let fitting = entries as u64 * STEP_US / spent_us.max(1);
    // Half-way to the estimate: one slow step must not make the next ones tiny.
    (entries.midpoint(fitting as usize)).clamp(8, MAX_STEP_ENTRIES)
}

/// Walks a step under the lock; answers how long it was held.
fn step(engine: &Engine, entries: usize) -> (SnapshotProgress, u64) {
    let mut state = engine.lock();
    let from = clock::monotonic_us();
    let progress = state.keyspace.snapshot_step(entries);
    let spent_us = clock::monotonic_us() - from;
    // Whoever waits for the lock gets it now, not when the scheduler thinks so.
    parking_lot::MutexGuard::unlock_fair(state);
    (progress, spent_us)
}

/// What the beginning of a snapshot found.
struct Begun {
    history: History,
    pending: Pending,
    header: Vec<u8>,
    /// Keys that the snapshot must have at its end.
    keys: u64,
}

impl Begun {
    /// Exchanges what has been encoded for an empty buffer; answers how many keys are complete.
    fn take(&self, empty: &mut Vec<u8>) -> u64 {
        let mut pending = self.pending.lock();
        std::mem::swap(&mut pending.bytes, empty);
        pending.keys
    }
}

/// Begins the walk and gives every waiting replica its place in the stream, all under one lock.
fn begin(engine: &Engine, outputs: &mut Outputs, replicas: Vec<Waiting>) -> Option<Begun> {
    if let Some(error) = outputs.open_spool(engine, &replicas) {
        outputs.refuse(replicas, &error);
        return outputs.nothing_to_do(engine);
    }
    let mut state = drained(engine);
    state.begin_batch();
    let compression = match (&outputs.save, state.core.config.persistence.rdb_compression) {
        (Some(_), true) => Compression::lzf(),
        // A local network is faster than the compressor.
        (Some(_), false) | (None, _) => Compression::Off,
    };
    let (collector, pending) = Collector::new(&state.keyspace, compression);
    match state.keyspace.begin_snapshot(Box::new(collector)) {
        Ok(()) => {}
        Err(error @ (BeginError::Running | BeginError::Draining)) => {
            // `drained` returns only when no snapshot is left, and this thread alone begins them.
            tracing::error!(%error, "a snapshot could not begin");
            return None;
        }
    }
    let history = state.core.replication.history().clone();
    let header = header(&state.keyspace, &state.core);
    let keys = state.keyspace.len() as u64;
    outputs.dirty_at_begin = state.core.stats.dirty;
    for waiting in replicas {
        place(&mut state.core, outputs, &history, waiting);
    }
    drop(state);
    Some(Begun {
        history,
        pending,
        header,
        keys,
    })
}

/// The state when no snapshot is left over from an abort.
fn drained(engine: &Engine) -> parking_lot::MutexGuard<'_, State> {
    loop {
        let mut state = engine.lock();
        if !state.keyspace.has_snapshot() {
            return state;
        }
        state.keyspace.snapshot_step(MAX_STEP_ENTRIES);
        parking_lot::MutexGuard::unlock_fair(state);
    }
}

/// Gives a waiting replica its place: it gets everything after the snapshot's offset.
fn place(core: &mut Core, outputs: &mut Outputs, history: &History, waiting: Waiting) {
    let is_master = *core.replication.role() == Role::Master;
    let Some(replica) = core.replication.replica_mut(waiting.id) else {
        return;
    };
    replica.position = history.offset;
    replica.state = ReplicaState::SendBulk;
    if is_master {
        core.replication.restart_selection();
    }
    match waiting.delivery {
        Delivery::File => outputs.spooled.push(waiting.reply),
        Delivery::Streamed => outputs
            .streams
            .extend(Stream::begin(history, waiting.reply)),
    }
}

/// The file's first bytes: what it is, and which place of which history it holds.
fn header(keyspace: &Keyspace, core: &Core) -> Vec<u8> {
    let mut out = Vec::new();
    encode::magic(&mut out);
    encode::aux("redis-ver", WRITTEN_AS, &mut out);
    encode::aux("redis-bits", b"64", &mut out);
    encode::aux(
        "ctime",
        &resp::format_i64(clock::unix_ms() / 1000),
        &mut out,
    );
    let used = i64::try_from(keyspace.memory().stats().allocated).unwrap_or(i64::MAX);
    encode::aux("used-mem", &resp::format_i64(used), &mut out);
    let replication = &core.replication;
    if replication.backlog().is_some() {
        let history = replication.history();
        let db = i64::from(replication.stream_db().unwrap_or(0));
        let offset = i64::try_from(history.offset).unwrap_or(i64::MAX);
        encode::aux("repl-stream-db", &resp::format_i64(db), &mut out);
        encode::aux("repl-id", history.id.as_str().as_bytes(), &mut out);
        encode::aux("repl-offset", &resp::format_i64(offset), &mut out);
    }
    encode::aux("aof-base", b"0", &mut out);
    out
}

/// Everybody who gets the bytes.
struct Outputs {
    save: Option<SaveFile>,
    saves: Vec<Option<Done>>,
    /// How the save stands; an error keeps its reason for whoever waits.
    save_result: Result<(), SnapshotError>,
    dirty_at_begin: u64,
    started_s: i64,
    checksum: Checksum,
    spool: Option<Spool>,
    spooled: Vec<FeedReply>,
    streams: Vec<Stream>,
    chunk: Vec<u8>,
    ended: Ended,
}

/// The running checksum, where one is written.
enum Checksum {
    Off,
    On(u64),
}

#[derive(PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

impl Outputs {
    /// Opens the file of the next start if a save is wanted.
    fn open(engine: &Engine, saves: Vec<Option<Done>>) -> Self {
        let started_s = clock::unix_ms() / 1000;
        let (path, checksum) = {
            let mut state = engine.lock();
            if !saves.is_empty() {
                state.core.saving.running = Running::Since(started_s);
            }
            let config = &state.core.config;
            let on = config.persistence.rdb_checksum;
            (
                config.rdb_path(),
                if on { Checksum::On(0) } else { Checksum::Off },
            )
        };
        let opened = if saves.is_empty() {
            None
        } else {
            Some(SaveFile::create(path))
        };
        let (save, save_result) = match opened.transpose() {
            Ok(save) => (save, Ok(())),
            Err(error) => (None, Err(error)),
        };
        Self {
            save,
            saves,
            save_result,
            dirty_at_begin: 0,
            started_s,
            checksum,
            spool: None,
            spooled: Vec::new(),
            streams: Vec::new(),
            chunk: Vec::with_capacity(2 * CHUNK_BYTES),
            ended: Ended::No,
        }
    }

    /// Opens the file for replicas that must know the length; answers why it cannot be.
    fn open_spool(&mut self, engine: &Engine, replicas: &[Waiting]) -> Option<SnapshotError> {
        if !replicas
            .iter()
            .any(|waiting| waiting.delivery == Delivery::File)
        {
            return None;
        }
        let folder = engine.lock().core.config.persistence.dir.clone();
        match Spool::create(&folder) {
            Ok(spool) => {
                self.spool = Some(spool);
                None
            }
            Err(error) => Some(error),
        }
    }

    fn refuse(&self, replicas: Vec<Waiting>, error: &SnapshotError) {
        for waiting in replicas {
            // A replica that has gone needs no reason.
            let _gone = waiting.reply.send(Err(error.clone()));
        }
    }

    /// Ends a snapshot that did not begin.
    fn nothing_to_do<T>(&mut self, engine: &Engine) -> Option<T> {
        if let Some(save) = self.save.take() {
            save.discard();
        }
        self.report(engine);
        None
    }

    /// Ends a snapshot that cannot be completed: nobody gets it.
    fn spoil(&mut self, error: SnapshotError) {
        tracing::error!(%error, "the snapshot is given up");
        for reply in self.spooled.drain(..) {
            let _gone = reply.send(Err(error.clone()));
        }
        self.spool = None;
        for stream in self.streams.drain(..) {
            stream.fail(error.clone());
        }
        self.save_result = Err(error);
    }

    fn all_gone(&self) -> bool {
        self.save.is_none() && self.spool.is_none() && self.streams.is_empty()
    }

    /// Collects bytes and gives them on in large chunks.
    fn write(&mut self, bytes: &[u8]) {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    fn write_end(&mut self) {
        encode::end_mark(&mut self.chunk);
        self.flush();
        let crc = match self.checksum {
            Checksum::Off => 0,
            Checksum::On(crc) => crc,
        };
        encode::checksum(crc, &mut self.chunk);
        self.flush();
        self.ended = Ended::Yes;
    }

    fn flush(&mut self) {
        let room = Vec::with_capacity(2 * CHUNK_BYTES);
        let chunk = Bytes::from(std::mem::replace(&mut self.chunk, room));
        if let Checksum::On(crc) = &mut self.checksum {
            *crc = crc64(*crc, &chunk);
        }
        if let Some(save) = &mut self.save
            && let Err(error) = save.write(&chunk)
        {
            self.save_result = Err(error);
            if let Some(save) = self.save.take() {
                save.discard();
            }
        }
        if let Some(spool) = &mut self.spool
            && let Err(error) = spool.write(&chunk)
        {
            self.spool = None;
            for reply in self.spooled.drain(..) {
                let _gone = reply.send(Err(error.clone()));
            }
        }
        self.streams
            .retain(|stream| stream.send(&chunk) == Alive::Yes);
    }

    fn finish(mut self, engine: &Engine, history: &History) {
        match (self.save.take(), &self.ended) {
            (Some(save), Ended::Yes) => {
                if let Err(error) = save.finish() {
                    self.save_result = Err(error);
                }
            }
            (Some(save), Ended::No) => save.discard(),
            (None, _) => {}
        }
        if let Some(spool) = self.spool.take() {
            spool.serve(history, std::mem::take(&mut self.spooled));
        }
        self.report(engine);
    }

    /// Notes how the save went and answers whoever waits for it.
    fn report(&mut self, engine: &Engine) {
        if self.saves.is_empty() {
            return;
        }
        let now_s = clock::unix_ms() / 1000;
        {
            let mut state = engine.lock();
            let core = &mut state.core;
            let saving = &mut core.saving;
            saving.running = Running::No;
            saving.last_attempt_s = now_s;
            saving.last_duration_s = now_s - self.started_s;
            match &self.save_result {
                Ok(()) => {
                    saving.last_result = SaveResult::Ok;
                    saving.last_save_s = now_s;
                    saving.saves += 1;
                    core.stats.dirty = core.stats.dirty.saturating_sub(self.dirty_at_begin);
                    tracing::info!(seconds = saving.last_duration_s, "the snapshot is on disk");
                }
                Err(error) => {
                    saving.last_result = SaveResult::Failed;
                    tracing::error!(%error, "the snapshot could not be saved");
                }
            }
        }
        for done in self.saves.drain(..).flatten() {
            // Whoever waited may have gone; the file is there all the same.
            let _gone = done.send(self.save_result.clone());
        }
    }
}
