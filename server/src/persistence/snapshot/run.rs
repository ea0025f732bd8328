//! One snapshot from its beginning to the end: begin under the lock, order chunks of the walk, write.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Batch, Delivery, SnapshotError, Waiting,
    collector::{Collector, Pending},
    output::{Alive, Done, FeedReply, SaveFile, Spool, Stream},
    walk::Walks,
};
use crate::{
    engine::{
        Core, Engine, clock,
        saving::{Running, SaveResult},
    },
    keyspace::{
        Keyspace,
        snapshot_hook::{SnapshotError as BeginError, SnapshotProgress},
    },
    persistence::rdb::{
        checksum::crc64,
        encode::{self, Encoded},
        pack::Packer,
    },
    replication::{
        identity::History,
        state::{ReplicaState, Role},
    },
};

/// While more than this waits to be written, nothing is compressed.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// The version of Redis that the file names as its writer, for tools that look.
const WRITTEN_AS: &[u8] = b"7.2.0";

/// Takes the snapshot that a batch of callers waits for.
pub(super) fn take(engine: &Arc<Engine>, walks: &Walks, batch: Batch) {
    let mut outputs = Outputs::open(engine, batch.saves);
    let Some(mut begun) = begin(engine, &mut outputs, batch.replicas) else {
        return;
    };
    outputs.write(std::mem::take(&mut begun.header));
    let mut next = Some(walks.order(&begun.pending));
    while let Some(coming) = next.take() {
        let Some(walked) = coming.wait() else {
            outputs.spoil(SnapshotError::Ended);
            break;
        };
        if matches!(walked.progress, SnapshotProgress::Running) {
            if outputs.all_gone() {
                abort(engine, walks);
                break;
            }
            // It is walked while this one is written.
            next = Some(walks.order(&begun.pending));
        }
        outputs.write(begun.packed(walked.encoded));
        let (keys, expected) = (walked.keys, begun.keys);
        match walked.progress {
            SnapshotProgress::Running => {}
            SnapshotProgress::Finished(_) if keys == expected => outputs.write_end(),
            SnapshotProgress::Finished(_) | SnapshotProgress::Idle | SnapshotProgress::Drained => {
                outputs.spoil(SnapshotError::Incomplete { keys, expected });
            }
        }
    }
    outputs.finish(engine, &begun.history);
}

/// Gives a snapshot up that nobody waits for; when this returns the next one can begin.
fn abort(engine: &Engine, walks: &Walks) {
    tracing::warn!("nobody waits for the snapshot any more");
    engine.lock().keyspace.abort_snapshot();
    // The walk brings all entries into one state again; where the I/O threads have ended there is no next one.
    let _ended = walks.order(&Pending::default()).wait();
}

/// What the beginning of a snapshot found.
struct Begun {
    history: History,
    pending: Pending,
    header: Vec<u8>,
    /// `None` where strings are written as they are.
    packer: Option<Packer>,
    /// Keys that the snapshot must have at its end.
    keys: u64,
}

impl Begun {
    /// The bytes of a chunk as they are written: compressed, unless clients change data faster than that can be done, which
    /// would fill memory.
    fn packed(&mut self, encoded: Encoded) -> Vec<u8> {
        let waiting_bytes = self.pending.lock().encoded.bytes.len();
        match &mut self.packer {
            Some(packer) if waiting_bytes <= MAX_WAITING_BYTES => packer.pack(&encoded),
            Some(_) | None => encoded.bytes,
        }
    }
}

/// Begins the walk and gives every waiting replica its place in the stream, all under one lock.
fn begin(engine: &Engine, outputs: &mut Outputs, replicas: Vec<Waiting>) -> Option<Begun> {
    if let Some(error) = outputs.open_spool(engine, &replicas) {
        outputs.refuse(replicas, &error);
        return outputs.nothing_to_do(engine);
    }
    let mut state = engine.lock();
    state.begin_batch();
    // For replicas alone it is not worth it: a local network is faster than the compressor.
    let is_packed = outputs.save.is_some() && state.core.config.persistence.rdb_compression;
    let (collector, pending) = Collector::new(&state.keyspace);
    match state.keyspace.begin_snapshot(Box::new(collector)) {
        Ok(()) => {}
        Err(error @ (BeginError::Running | BeginError::Draining)) => {
            // This thread alone begins them, and an aborted one it has walked to its end (`abort`).
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
        packer: is_packed.then(Packer::default),
        keys,
    })
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

    fn write_end(&mut self) {
        let mut end = Vec::new();
        encode::end_mark(&mut end);
        self.write(end);
        let crc = match self.checksum {
            Checksum::Off => 0,
            Checksum::On(crc) => crc,
        };
        let mut last = Vec::new();
        encode::checksum(crc, &mut last);
        self.write(last);
        self.ended = Ended::Yes;
    }

    /// Gives a chunk to all.
    fn write(&mut self, chunk: Vec<u8>) {
        let chunk = Bytes::from(chunk);
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
