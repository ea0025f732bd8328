//! The snapshot's sink: entries, given under the engine's lock, become bytes.
//!
//! Owns the buffer between the walk and the outputs. Filled by the keyspace (the walk, and writes
//! that meet an entry the walk has not passed); emptied by the snapshot's thread after each step.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    keyspace::{Entry, Keyspace, snapshot_hook::SnapshotSink},
    persistence::rdb::encode::{self, Compression},
};

/// Bytes that were encoded and not yet taken.
pub type Pending = Arc<Mutex<Vec<u8>>>;

/// See the module's text.
pub struct Collector {
    pending: Pending,
    compression: Compression,
    /// Database that the file has selected.
    db: Option<u32>,
    /// For each database its keys and keys with a deadline, until its header is written.
    sizes: Vec<Option<(u64, u64)>>,
}

impl Collector {
    /// A collector for `keyspace` as it is now, and where its bytes appear.
    pub fn new(keyspace: &Keyspace, compression: Compression) -> (Self, Pending) {
        let size =
            |(_, db): (u32, &crate::keyspace::Db)| Some((db.len() as u64, db.expires_len() as u64));
        let pending = Pending::default();
        let sizes = keyspace.iter().map(size).collect();
        (
            Self {
                pending: pending.clone(),
                compression,
                db: None,
                sizes,
            },
            pending,
        )
    }
}

impl SnapshotSink for Collector {
    fn entry(&mut self, db: u32, entry: &Entry) {
        let mut out = self.pending.lock();
        if self.db != Some(db) {
            self.db = Some(db);
            match self.sizes.get_mut(db as usize).and_then(Option::take) {
                Some((keys, with_expiry)) => encode::database(db, keys, with_expiry, &mut out),
                None => encode::select_db(db, &mut out),
            }
        }
        let value = entry.value();
        encode::entry(
            entry.key(),
            value,
            entry.expire_at(),
            &mut self.compression,
            &mut out,
        );
    }
}
