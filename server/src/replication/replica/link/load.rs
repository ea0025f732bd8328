//! A full synchronization: the snapshot is loaded aside, from the socket, and put in place.

use std::io::{self, Read};

use tokio::io::AsyncReadExt;

use super::{ACK_PERIOD, Link, LinkError, Position, Target, Wire};
use crate::{
    engine::{clock, saving::Owed},
    persistence::{
        loader::{Dataset, DatasetSink, ExpiredKeys},
        rdb::{decode, reader::Reader},
    },
    replication::{
        identity::{History, ReplId},
        replica::transfer::{self, Framing, Payload, TransferError},
        state::LinkState,
    },
};

/// Bytes of the snapshot between two updates of what INFO shows.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

impl Link {
    /// Receives a snapshot aside and puts it in the place of the old dataset.
    pub(super) fn load(
        &self,
        target: &mut Target,
        wire: &mut Wire,
        position: Option<Position>,
    ) -> Result<(), LinkError> {
        // From here on, as in Redis: a master that saves to a file first says no more than newlines for long.
        self.note_sync(target, 0)?;
        let framing = loop {
            let line = self.line(target, wire)?;
            if let Some(framing) = transfer::header(&line)? {
                break framing;
            }
        };
        let bytes = match framing {
            Framing::Length(length) => Some(length),
            Framing::Mark(_) => None,
        };
        tracing::info!(bytes, "the master sends a snapshot (full synchronization)");
        self.note_sync(target, bytes.unwrap_or(0))?;
        let dataset = self.receive(target, wire, framing)?;
        let stream_db = dataset.stream_db()?;
        let history = match position {
            Some(Position { id, offset }) => History {
                id,
                offset,
                previous: None,
            },
            // The master has no offsets: a history that nobody can continue.
            None => History::new(ReplId::from_random(rand::random())),
        };
        let id = history.id;
        let keys = dataset.summary.keys;
        self.locked(target, |state| {
            state.keyspace.replace_data(dataset.keyspace);
            state.core.replication.replace_history(history);
            state.core.replication.set_stream_db(stream_db);
            state.core.saving.owed = Owed::Yes;
            state.finish_batch();
        })?;
        target.history = id;
        tracing::info!(keys, "the snapshot is loaded and in place");
        Ok(())
    }

    /// Notes that a full synchronization runs, of so many bytes (0 if that is not told).
    fn note_sync(&self, target: &Target, total_bytes: u64) -> Result<(), LinkError> {
        self.locked(target, |state| {
            if let Some(following) = state.core.replication.following_mut() {
                following.link = LinkState::Sync;
                following.sync_read_bytes = 0;
                following.sync_total_bytes = total_bytes;
                following.last_io_ms = Some(clock::monotonic_ms());
            }
        })
    }

    /// Loads the snapshot's bytes into a dataset of its own.
    fn receive(
        &self,
        target: &Target,
        wire: &mut Wire,
        framing: Framing,
    ) -> Result<Dataset, LinkError> {
        let (mut sink, limits, checksums) = self.locked(target, |state| {
            let empty = state.keyspace.empty_like();
            let sink = DatasetSink::new(empty, clock::unix_ms(), ExpiredKeys::Keep);
            (sink, state.core.encoding_limits, state.core.checksums())
        })?;
        let source = LinkReader {
            link: self,
            target,
            wire,
            read: 0,
            shown: 0,
            last_newline_ms: clock::monotonic_ms(),
        };
        let mut reader = Reader::new(Payload::new(source, framing), checksums);
        let summary = decode::load(&mut reader, &limits, &mut sink)?;
        let (payload, rest) = reader.into_parts();
        let (mut source, left) = payload.into_parts();
        let stream = match framing {
            Framing::Length(_) if left == 0 && rest.is_empty() => Vec::new(),
            Framing::Length(_) => return Err(TransferError::End.into()),
            Framing::Mark(mark) => {
                transfer::take_mark(&mark, rest, &mut source).map_err(|source| {
                    LinkError::Io {
                        doing: "receiving a snapshot",
                        source,
                    }
                })??
            }
        };
        // What came behind the snapshot belongs to the stream, before anything still unread.
        let behind = std::mem::take(&mut source.wire.unread);
        source.wire.unread = [stream, behind].concat();
        Ok(sink.finish(summary))
    }
}

/// The socket as the loader reads it: shows progress and keeps the master from timing us out.
struct LinkReader<'a> {
    link: &'a Link,
    target: &'a Target,
    wire: &'a mut Wire,
    read: u64,
    shown: u64,
    last_newline_ms: i64,
}

impl LinkReader<'_> {
    fn note(&mut self, count: usize) -> Result<(), LinkError> {
        self.read += count as u64;
        let now_ms = clock::monotonic_ms();
        // The first piece counts: from then on a dataset is being loaded.
        if self.shown == 0 || self.read - self.shown >= PROGRESS_BYTES {
            self.shown = self.read;
            self.link.locked(self.target, |state| {
                if let Some(following) = state.core.replication.following_mut() {
                    following.sync_read_bytes = self.read;
                    following.last_io_ms = Some(now_ms);
                }
            })?;
        }
        if now_ms - self.last_newline_ms >= ACK_PERIOD.as_millis() as i64 {
            self.last_newline_ms = now_ms;
            self.link.send(self.target, self.wire, b"\n")?;
        }
        Ok(())
    }
}

impl Read for LinkReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.wire.unread.is_empty() {
            let read = self.wire.stream.read(buffer);
            self.link
                .wait(self.target, "receiving a snapshot", self.wire.timeout, read)
                .map_err(io::Error::other)?
        } else {
            let count = buffer.len().min(self.wire.unread.len());
            buffer[..count].copy_from_slice(&self.wire.unread[..count]);
            self.wire.unread.drain(..count);
            count
        };
        self.note(count).map_err(io::Error::other)?;
        Ok(count)
    }
}
