//! Memory to be freed where nobody waits for it.
//!
//! Owns what was taken out of the keyspace and is expensive to drop: big collections and whole tables. The engine takes it
//! ([`super::Keyspace::take_garbage`]) and drops it on another thread. Until then the queue is bounded: beyond
//! [`MAX_ENTRIES`] the keyspace drops at once.

use super::entry::Entry;
use super::table::Table;

/// Most entries kept for later; then dropping is done in place.
const MAX_ENTRIES: usize = 4096;
/// Values of more heap blocks than this are dropped elsewhere.
const HEAVY_ELEMENTS: usize = 64;

/// Things to drop. Dropping it may take seconds: do that on a thread of its own.
#[derive(Default)]
pub struct Garbage {
    entries: Vec<Box<Entry>>,
    tables: Vec<Table>,
}

impl Garbage {
    /// Whether there is nothing to drop.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.tables.is_empty()
    }

    /// Keeps a heavy entry for later and drops a light one.
    #[inline]
    pub(super) fn discard(&mut self, entry: Box<Entry>) {
        if entry.heap_elements() > HEAVY_ELEMENTS && self.entries.len() < MAX_ENTRIES {
            self.entries.push(entry);
        }
    }

    pub(super) fn discard_table(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(super) fn append_tables(&mut self, tables: impl IntoIterator<Item = Table>) {
        self.tables.extend(tables);
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        self.entries.append(&mut other.entries);
        self.tables.append(&mut other.tables);
    }
}
