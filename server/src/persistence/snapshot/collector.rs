//! The snapshot's sink: entries, given under the engine's lock, become bytes.
//!
//! Owns the buffer between the walk and the outputs. Filled by the keyspace (the walk, and writes
//! that meet an entry the walk has not passed); emptied by the snapshot's thread after each step.
//!
//! A big collection comes in pieces, over many steps. Entries that come in between wait until it is
//! complete, because the file holds one key after the other.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    keyspace::{
        Db, Entry, Keyspace,
        snapshot_hook::SnapshotSink,
        types::walk::{Head, Piece},
    },
    persistence::rdb::encode::{self, Compression},
};

/// What was encoded and not yet taken.
pub type Pending = Arc<Mutex<Encoded>>;

/// Bytes with a count that tells whether all is there.
#[derive(Debug, Default)]
pub struct Encoded {
    /// To be written next.
    pub bytes: Vec<u8>,
    /// Keys whose values are complete, those in bytes that have been taken included.
    pub keys: u64,
}

/// See the module's text.
pub struct Collector {
    pending: Pending,
    compression: Compression,
    /// Database that the file has selected, what waits included.
    db: Option<u32>,
    /// For each database its keys and keys with a deadline, until its header is written.
    sizes: Vec<Option<(u64, u64)>>,
    /// Entries that wait for the end of a collection; `None` where none is being written.
    waiting: Option<Vec<u8>>,
}

impl Collector {
    /// A collector for `keyspace` as it is now, and where its bytes appear.
    pub fn new(keyspace: &Keyspace, compression: Compression) -> (Self, Pending) {
        let size = |(_, db): (u32, &Db)| Some((db.len() as u64, db.expires_len() as u64));
        let pending = Pending::default();
        let sizes = keyspace.iter().map(size).collect();
        let collector = Self {
            pending: pending.clone(),
            compression,
            db: None,
            sizes,
            waiting: None,
        };
        (collector, pending)
    }
}

/// Appends the header of a database if the file has selected another.
fn select(
    selected: &mut Option<u32>,
    db: u32,
    sizes: &mut [Option<(u64, u64)>],
    out: &mut Vec<u8>,
) {
    if *selected == Some(db) {
        return;
    }
    *selected = Some(db);
    match sizes.get_mut(db as usize).and_then(Option::take) {
        Some((keys, with_expiry)) => encode::database(db, keys, with_expiry, out),
        None => encode::select_db(db, out),
    }
}

impl SnapshotSink for Collector {
    fn entry(&mut self, db: u32, entry: &Entry) {
        let mut pending = self.pending.lock();
        pending.keys += 1;
        let out = self.waiting.as_mut().unwrap_or(&mut pending.bytes);
        select(&mut self.db, db, &mut self.sizes, out);
        let value = entry.value();
        encode::entry(
            entry.key(),
            value,
            entry.expire_at(),
            &mut self.compression,
            out,
        );
    }

    fn begin(&mut self, head: &Head) {
        let mut pending = self.pending.lock();
        let out = &mut pending.bytes;
        select(&mut self.db, head.db, &mut self.sizes, out);
        encode::collection(head, &mut self.compression, out);
        self.waiting = Some(Vec::new());
    }

    fn piece(&mut self, piece: Piece<'_>) {
        let mut pending = self.pending.lock();
        encode::piece(&piece, &mut self.compression, &mut pending.bytes);
    }

    fn end(&mut self) {
        let mut pending = self.pending.lock();
        pending.keys += 1;
        if let Some(waiting) = self.waiting.take() {
            pending.bytes.extend_from_slice(&waiting);
        }
    }
}
