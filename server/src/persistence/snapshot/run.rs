//! One snapshot from its beginning to the end: begin under the lock, order chunks of the walk, write.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Batch, Delivery, SnapshotError, Waiting,
    collector::{Collector, Pending},
    feed::{self, Alive, Feeder, Pressure},
    output::{Done, SaveFile, Spool},
    walk::Walks,
};
use crate::{
    engine::{
        Core, Engine, clock,
        saving::{Owed, Running, SaveResult},
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
    let replicas = outputs.open_spool(batch.replicas);
    if outputs.all_gone() && replicas.is_empty() {
        outputs.report();
        return;
    }
    let Some(mut begun) = begin(&mut outputs, replicas) else {
        outputs.spoil(SnapshotError::Ended);
        outputs.report();
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
    outputs.finish(&begun.history);
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
fn begin(outputs: &mut Outputs<'_>, replicas: Vec<Waiting>) -> Option<Begun> {
    let mut state = outputs.engine.lock();
    state.begin_batch();
    // For replicas alone it is not worth it: a local network is faster than the compressor.
    let is_packed = outputs.is_saving() && state.core.config.persistence.rdb_compression;
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
    let keys = state.keyspace.len() as u64;
    outputs.dirty_at_begin = state.core.stats.dirty;
    for waiting in replicas {
        place(&mut state.core, outputs, &history, waiting);
    }
    // After the places: for them a master selects its database anew.
    let header = header(&state.keyspace, &state.core);
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
fn place(core: &mut Core, outputs: &mut Outputs<'_>, history: &History, waiting: Waiting) {
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
            .extend(Feeder::begin(history, None, waiting.reply)),
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
    // Not a place from which nobody could go on.
    if replication.backlog().is_some() && replication.can_continue() {
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
struct Outputs<'a> {
    engine: &'a Engine,
    save: Save,
    saves: Vec<Option<Done>>,
    dirty_at_begin: u64,
    started_s: i64,
    checksum: Checksum,
    spool: Option<Spool>,
    spooled: Vec<feed::Reply>,
    streams: Vec<Feeder>,
    ended: Ended,
}

/// How the save stands. Only [`Save::OnDisk`] is a good one.
enum Save {
    NotWanted,
    Writing(SaveFile),
    Failed(SnapshotError),
    OnDisk,
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

impl<'a> Outputs<'a> {
    /// Opens the file of the next start if a save is wanted.
    fn open(engine: &'a Engine, saves: Vec<Option<Done>>) -> Self {
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
        let save = if saves.is_empty() {
            Save::NotWanted
        } else {
            SaveFile::create(path).map_or_else(Save::Failed, Save::Writing)
        };
        Self {
            engine,
            save,
            saves,
            dirty_at_begin: 0,
            started_s,
            checksum,
            spool: None,
            spooled: Vec::new(),
            streams: Vec::new(),
            ended: Ended::No,
        }
    }

    /// Opens the file for replicas that must know the length. Where it cannot be opened they are refused; answers
    /// those that are left, for whom the snapshot goes on like for a save.
    fn open_spool(&mut self, replicas: Vec<Waiting>) -> Vec<Waiting> {
        let by_file = |waiting: &Waiting| waiting.delivery == Delivery::File;
        if !replicas.iter().any(by_file) {
            return replicas;
        }
        let folder = self.engine.lock().core.config.persistence.dir.clone();
        let error = match Spool::create(&folder) {
            Ok(spool) => {
                self.spool = Some(spool);
                return replicas;
            }
            Err(error) => error,
        };
        let (refused, rest): (Vec<_>, Vec<_>) = replicas.into_iter().partition(by_file);
        for waiting in refused {
            // A replica that has gone needs no reason.
            let _gone = waiting.reply.send(Err(error.clone()));
        }
        rest
    }

    fn is_saving(&self) -> bool {
        matches!(self.save, Save::Writing(_))
    }

    fn fail_save(&mut self, error: SnapshotError) {
        if let Save::Writing(file) = std::mem::replace(&mut self.save, Save::Failed(error)) {
            file.discard();
        }
    }

    /// Ends a snapshot that cannot be completed: nobody gets it.
    fn spoil(&mut self, error: SnapshotError) {
        tracing::error!(%error, "the snapshot is given up");
        for reply in self.spooled.drain(..) {
            let _gone = reply.send(Err(error.clone()));
        }
        self.spool = None;
        for stream in self.streams.drain(..) {
            stream.end(Err(error.clone()));
        }
        if self.is_saving() {
            self.fail_save(error);
        }
    }

    fn all_gone(&self) -> bool {
        !self.is_saving() && self.spool.is_none() && self.streams.is_empty()
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
        if let Save::Writing(file) = &mut self.save
            && let Err(error) = file.write(&chunk)
        {
            self.fail_save(error);
        }
        if let Some(spool) = &mut self.spool
            && let Err(error) = spool.write(&chunk)
        {
            self.spool = None;
            for reply in self.spooled.drain(..) {
                let _gone = reply.send(Err(error.clone()));
            }
        }
        let is_for_one = !self.is_saving() && self.spool.is_none() && self.streams.len() == 1;
        let shared = &self.engine.shared;
        let pressure = || {
            if shared.shutdown_request.lock().is_some() {
                Pressure::Shutdown
            } else if is_for_one && shared.snapshots.is_empty() {
                Pressure::None
            } else {
                Pressure::Others
            }
        };
        self.streams
            .retain_mut(|stream| stream.send_unless_held_up(&chunk, pressure) == Alive::Yes);
    }

    fn finish(mut self, history: &History) {
        match std::mem::replace(&mut self.save, Save::NotWanted) {
            Save::Writing(file) => {
                self.save = match self.ended {
                    Ended::Yes => file.finish().map_or_else(Save::Failed, |()| Save::OnDisk),
                    Ended::No => {
                        file.discard();
                        Save::Failed(SnapshotError::Ended)
                    }
                }
            }
            other @ (Save::NotWanted | Save::Failed(_) | Save::OnDisk) => self.save = other,
        }
        if let Some(spool) = self.spool.take() {
            spool.serve(history, std::mem::take(&mut self.spooled));
        }
        for stream in self.streams.drain(..) {
            stream.end(Ok(()));
        }
        self.report();
    }

    /// Notes how the save went and answers whoever waits for it.
    fn report(&mut self) {
        if self.saves.is_empty() {
            return;
        }
        let result = match &self.save {
            Save::OnDisk => Ok(()),
            Save::Failed(error) => Err(error.clone()),
            Save::NotWanted | Save::Writing(_) => Err(SnapshotError::Ended),
        };
        let now_s = clock::unix_ms() / 1000;
        {
            let mut state = self.engine.lock();
            let core = &mut state.core;
            let saving = &mut core.saving;
            saving.running = Running::No;
            saving.last_attempt_s = now_s;
            saving.last_duration_s = now_s - self.started_s;
            match &result {
                Ok(()) => {
                    saving.last_result = SaveResult::Ok;
                    saving.last_save_s = now_s;
                    saving.saves += 1;
                    core.stats.dirty = core.stats.dirty.saturating_sub(self.dirty_at_begin);
                    tracing::info!(seconds = saving.last_duration_s, "the snapshot is on disk");
                }
                Err(error) => {
                    saving.last_result = SaveResult::Failed;
                    saving.owed = Owed::Yes;
                    tracing::error!(%error, "the snapshot could not be saved");
                }
            }
        }
        for done in self.saves.drain(..).flatten() {
            // Whoever waited may have gone; the file is there all the same.
            let _gone = done.send(result.clone());
        }
    }
}
