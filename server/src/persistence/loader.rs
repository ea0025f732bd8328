//! A snapshot's entries → a dataset of its own.
//!
//! Owns [`DatasetSink`], which collects what the decoder finds in a keyspace aside from the one
//! that serves, so that an error at the last byte costs nothing; and the load at start-up. Called
//! by `server` once and by the link to a master for each full synchronization.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::rdb::{
    decode::{self, Sink, Summary},
    error::RdbError,
    reader::{Checksums, Reader},
};
use crate::{
    keyspace::{
        Entry, Keyspace,
        types::{EncodingLimits, value::Value},
    },
    replication::identity::ReplId,
};

/// What the file says about the replication stream it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Database that the stream has selected where the snapshot was taken.
    pub stream_db: Option<u32>,
    /// The history's id.
    pub id: Option<ReplId>,
    /// How far the history goes.
    pub offset: Option<u64>,
}

/// A dataset that is complete.
pub struct Dataset {
    /// The data.
    pub keyspace: Keyspace,
    /// What the file says about replication.
    pub facts: Facts,
    /// What the decoder counted.
    pub summary: Summary,
    /// Keys left out because their time was over.
    pub expired_left_out: u64,
}

/// What becomes of keys whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiredKeys {
    /// They are loaded: their master, or our own expiry, removes them by a DEL that replicas see.
    Keep,
    /// They are left out.
    LeaveOut,
}

impl Dataset {
    /// Database that the stream goes on in behind the snapshot; refused where it is one that this server does not have.
    pub fn stream_db(&self) -> Result<Option<u32>, RdbError> {
        match self.facts.stream_db {
            Some(db) if db >= self.keyspace.databases() => {
                Err(no_such_database(db, self.keyspace.databases()))
            }
            stream_db => Ok(stream_db),
        }
    }
}

/// The refusal of a database beyond the `have` that there are.
fn no_such_database(db: u32, have: u32) -> RdbError {
    RdbError::Refused(format!(
        "it uses database {db}, but 'databases' allows {have}; raise 'databases'"
    ))
}

/// Collects entries. Made by whoever loads; see [`DatasetSink::finish`].
pub struct DatasetSink {
    keyspace: Keyspace,
    db: u32,
    now_ms: i64,
    expired: ExpiredKeys,
    expired_left_out: u64,
    facts: Facts,
}

impl DatasetSink {
    /// A sink over an empty keyspace whose lookups ignore deadlines.
    pub fn new(empty: Keyspace, now_ms: i64, expired: ExpiredKeys) -> Self {
        let facts = Facts::default();
        Self {
            keyspace: empty,
            db: 0,
            now_ms,
            expired,
            expired_left_out: 0,
            facts,
        }
    }

    /// The dataset, after the decoder has found the end.
    pub fn finish(self, summary: Summary) -> Dataset {
        Dataset {
            keyspace: self.keyspace,
            facts: self.facts,
            summary,
            expired_left_out: self.expired_left_out,
        }
    }
}

impl Sink for DatasetSink {
    fn select_db(&mut self, db: u32) -> Result<(), RdbError> {
        if db >= self.keyspace.databases() {
            return Err(no_such_database(db, self.keyspace.databases()));
        }
        self.db = db;
        Ok(())
    }

    fn resize_hint(&mut self, _keys: u64, _with_expiry: u64) {
        // The tables grow in small steps: nothing is gained by believing an untrusted hint.
    }

    fn entry(
        &mut self,
        key: &[u8],
        value: Value,
        expire_at_ms: Option<i64>,
    ) -> Result<(), RdbError> {
        let over = expire_at_ms.is_some_and(|deadline| deadline <= self.now_ms);
        if over && self.expired == ExpiredKeys::LeaveOut {
            self.expired_left_out += 1;
            return Ok(());
        }
        let entry = Entry::new(key, value, expire_at_ms);
        match self.keyspace.db(self.db).insert_entry(entry) {
            None => Ok(()),
            Some(_) => Err(RdbError::Refused(format!(
                "key '{}' in database {} occurs twice",
                key.escape_ascii(),
                self.db
            ))),
        }
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"repl-stream-db" => {
                self.facts.stream_db = resp::parse_i64(value).and_then(|db| u32::try_from(db).ok());
            }
            b"repl-id" => self.facts.id = ReplId::parse(value),
            b"repl-offset" => {
                self.facts.offset = resp::parse_i64(value).and_then(|n| u64::try_from(n).ok());
            }
            // Everything else tells about the writer, not about the data.
            _ => {}
        }
    }
}

/// Why the file of the last run cannot be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It cannot be opened.
    #[error("cannot open '{path}': {source}; mend the file's rights, or 'dir' and 'dbfilename'")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be loaded.
    #[error("cannot load '{path}': {source}; restore the file, or move it away to start empty")]
    Load {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: RdbError,
    },
}

/// The snapshot of the last run, opened.
pub struct DumpFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl DumpFile {
    /// Opens the snapshot at `path`; `None` where there is no such file.
    pub fn open(path: &Path) -> Result<Option<Self>, LoadError> {
        let failed = |source| LoadError::Open {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            bytes,
        }))
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Loads it. `advance` is told of each piece of the file that was read, in bytes.
    pub fn load(
        self,
        limits: &EncodingLimits,
        checksums: Checksums,
        mut sink: DatasetSink,
        advance: impl FnMut(u64),
    ) -> Result<Dataset, LoadError> {
        let source = Observed {
            source: self.file,
            advance,
        };
        match decode::load(&mut Reader::new(source, checksums), limits, &mut sink) {
            Ok(summary) => Ok(sink.finish(summary)),
            Err(source) => Err(LoadError::Load {
                path: self.path,
                source,
            }),
        }
    }
}

/// A source that tells how much was read from it.
struct Observed<R, F> {
    source: R,
    advance: F,
}

impl<R: Read, F: FnMut(u64)> Read for Observed<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        (self.advance)(count as u64);
        Ok(count)
    }
}
