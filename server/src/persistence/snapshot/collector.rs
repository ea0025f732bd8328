//! The snapshot's sink: entries, given under the engine's lock, become bytes.
//!
//! Owns the buffer between the walk and the outputs. Filled by the keyspace (the walk, and writes
//! that meet an entry the walk has not passed); emptied by the walk whenever a chunk is full.
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
    persistence::rdb::encode::{self, Encoded},
};

/// What was encoded and not yet taken.
pub type Pending = Arc<Mutex<Collected>>;

/// Encoded entries with a count that tells whether all is there.
#[derive(Debug, Default)]
pub struct Collected {
    /// To be written next.
    pub encoded: Encoded,
    /// Keys whose values are complete, those in bytes that have been taken included.
    pub keys: u64,
}

/// See the module's text.
pub struct Collector {
    pending: Pending,
    /// Database that the file has selected, what waits included.
    db: Option<u32>,
    /// For each database its keys and keys with a deadline, until its header is written.
    sizes: Vec<Option<(u64, u64)>>,
    /// Entries that wait for the end of a collection; `None` where none is being written.
    waiting: Option<Encoded>,
}

impl Collector {
    /// A collector for `keyspace` as it is now, and where its bytes appear.
    pub fn new(keyspace: &Keyspace) -> (Self, Pending) {
        let size = |(_, db): (u32, &Db)| Some((db.len() as u64, db.expires_len() as u64));
        let pending = Pending::default();
        let sizes = keyspace.iter().map(size).collect();
        let collector = Self {
            pending: pending.clone(),
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
        let out = self.waiting.as_mut().unwrap_or(&mut pending.encoded);
        select(&mut self.db, db, &mut self.sizes, &mut out.bytes);
        encode::entry(entry.key(), entry.value(), entry.expire_at(), out);
    }

    fn begin(&mut self, head: &Head) {
        let out = &mut self.pending.lock().encoded;
        select(&mut self.db, head.db, &mut self.sizes, &mut out.bytes);
        encode::collection(head, out);
        self.waiting = Some(Encoded::default());
    }

    fn piece(&mut self, piece: Piece<'_>) {
        encode::piece(&piece, &mut self.pending.lock().encoded);
    }

    fn end(&mut self) {
        let mut pending = self.pending.lock();
        pending.keys += 1;
        if let Some(waiting) = self.waiting.take() {
            pending.encoded.append(&waiting);
        }
    }
}
