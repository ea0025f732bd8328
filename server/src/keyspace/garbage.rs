//! Memory to be freed where nobody waits for it.
//!
//! Owns what was taken out of the keyspace and is expensive to drop: big collections and whole tables. The engine takes it
//! ([`super::Keyspace::take_garbage`]) and drops it on another thread. Until then the queue is bounded: beyond
//! [`MAX_ENTRIES`] the keyspace drops at once.

use std::collections::VecDeque;

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
    /// Taken out of the keyspace, but a snapshot still writes them in slices; the one it is at comes first.
    unwritten: VecDeque<Box<Entry>>,
}

impl Garbage {
    /// Whether there is nothing to drop (what a snapshot still writes is not).
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.tables.is_empty()
    }

    /// Keeps a heavy entry for later and drops a light one.
    #[inline]
    pub(super) fn discard(&mut self, entry: Box<Entry>) {
        if entry.is_started() {
            self.unwritten.push_front(entry);
        } else if entry.has_slices() {
            self.unwritten.push_back(entry);
        } else if entry.heap_elements() > HEAVY_ELEMENTS && self.entries.len() < MAX_ENTRIES {
            self.entries.push(entry);
        }
    }

    /// As [`Garbage::discard`], for several.
    pub(super) fn discard_all(&mut self, entries: impl IntoIterator<Item = Box<Entry>>) {
        entries.into_iter().for_each(|entry| self.discard(entry));
    }

    pub(super) fn discard_table(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(super) fn append_tables(&mut self, tables: impl IntoIterator<Item = Table>) {
        self.tables.extend(tables);
    }

    /// What a snapshot still writes.
    pub(super) fn take_unwritten(&mut self) -> VecDeque<Box<Entry>> {
        std::mem::take(&mut self.unwritten)
    }

    /// Takes over what is to be dropped.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.entries.append(&mut other.entries);
        self.tables.append(&mut other.tables);
    }
}
