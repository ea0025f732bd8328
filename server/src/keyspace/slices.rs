//! Big collections in a snapshot: slice by slice, so that none is written under one hold of the lock.
//!
//! Owns the decision what is big, and the list of collections that a snapshot has begun. Called by `snapshot_hook.rs`
//! (the walk, and changes of what it has not passed) and by `db.rs` (an entry that moves to another key). How a collection
//! keeps what it was while it changes is in `types/walk.rs`.
//!
//! A collection is begun when the walk meets it or when it is about to change, whichever is first; that alone takes no
//! time. The walk then goes on with what has begun before it looks at further keys. The snapshot's stream holds one
//! collection at a time in one piece: the one whose head it has got is `Started::Yes`, and stands first in its list.

use std::collections::VecDeque;

use super::entry::{CollectionMut, Entry, ValueRef};
use super::snapshot_hook::SnapshotSink;
use super::table::Table;
use super::types::walk::{CollectionKind, Head, Left, Piece, Slicing, Started};

/// Elements from which a collection is written in slices, whatever they weigh (few in tests, to have many slices).
const BIG_ELEMENTS: usize = if cfg!(test) { 24 } else { 256 };
/// Bytes from which it is.
const BIG_BYTES: usize = 64 * 1024;
/// Nodes from which a list is: a node has 8 kB, or one large element.
const BIG_LIST_NODES: usize = 8;
/// Elements from which the bytes are estimated.
const SAMPLES: usize = 5;
/// Elements of a slice, at most; also a budget's error.
const SLICE_ELEMENTS: usize = if cfg!(test) { 5 } else { 64 };
/// Cost of an element in a step's budget: one, and one for each of these many bytes.
const BYTES_PER_COST: usize = 1024;

/// Keys of one database whose collections have begun. Some may have gone meanwhile.
#[derive(Debug, Default)]
pub(super) struct Begun(VecDeque<Box<[u8]>>);

impl Begun {
    /// Notes the key under which a collection with slices to come lies from now on.
    pub(super) fn note(&mut self, entry: &Entry) {
        let key = entry.key().into();
        match entry.slicing().map(|slicing| slicing.started) {
            Some(Started::Yes) => self.0.push_front(key),
            Some(Started::No) => self.0.push_back(key),
            None => {}
        }
    }

    /// Whether none is noted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of the collections in `table` that has slices to come.
    pub(super) fn first<'t>(&mut self, table: &'t mut Table) -> Option<&'t mut Entry> {
        while let Some(key) = self.0.front() {
            let hash = table.hash(key);
            let has_slices = table.get(hash, key).is_some_and(Entry::has_slices);
            if has_slices {
                return table.get_mut(hash, key).map(|found| found.into_entry_mut());
            }
            self.0.pop_front();
        }
        None
    }
}

/// What the walk still has to give of a big collection.
impl Entry {
    /// Whether a snapshot writes this value in slices.
    pub(super) fn is_big(&self) -> bool {
        let heavy = |elements: usize, bytes: &dyn Fn() -> usize| {
            elements >= BIG_ELEMENTS || (elements > 1 && bytes() >= BIG_BYTES)
        };
        match self.value() {
            ValueRef::String(_) => false,
            ValueRef::List(list) => list.listpack_count() >= BIG_LIST_NODES,
            ValueRef::Set(set) => heavy(set.heap_elements(), &|| set.memory_bytes(SAMPLES)),
            ValueRef::Hash(hash) => heavy(hash.heap_elements(), &|| hash.memory_bytes(SAMPLES)),
            ValueRef::SortedSet(sorted) => {
                heavy(sorted.heap_elements(), &|| sorted.memory_bytes(SAMPLES))
            }
        }
    }

    /// Begins to write the collection as it is now, for a database of this number.
    pub(super) fn begin_slices(&mut self, db: u32) {
        let (kind, len) = match self.value() {
            ValueRef::String(_) => return,
            ValueRef::List(list) => (CollectionKind::List, list.listpack_count()),
            ValueRef::Set(set) => (CollectionKind::Set, set.len()),
            ValueRef::Hash(hash) => (CollectionKind::Hash, hash.len()),
            ValueRef::SortedSet(sorted) => (CollectionKind::SortedSet, sorted.len()),
        };
        let head = Head {
            db,
            key: self.key().into(),
            expire_at: self.expire_at(),
            kind,
            len,
        };
        let slicing = Slicing {
            head,
            started: Started::No,
        };
        match self.collection_mut() {
            None => {}
            Some(CollectionMut::List(list)) => list.begin_walk(slicing),
            Some(CollectionMut::Set(set)) => set.begin_walk(slicing),
            Some(CollectionMut::Hash(hash)) => hash.begin_walk(slicing),
            Some(CollectionMut::SortedSet(sorted)) => sorted.begin_walk(slicing),
        }
    }

    /// How far its slices have come, if there are any to come.
    pub(super) fn slicing(&self) -> Option<&Slicing> {
        match self.value() {
            ValueRef::String(_) => None,
            ValueRef::List(list) => list.slicing(),
            ValueRef::Set(set) => set.slicing(),
            ValueRef::Hash(hash) => hash.slicing(),
            ValueRef::SortedSet(sorted) => sorted.slicing(),
        }
    }

    /// Whether slices are to come.
    #[inline]
    pub(super) fn has_slices(&self) -> bool {
        self.slicing().is_some()
    }

    /// Whether its head is in the stream and its end is not.
    pub(super) fn is_started(&self) -> bool {
        self.slicing()
            .is_some_and(|slicing| slicing.started == Started::Yes)
    }

    /// Gives a slice of about `budget` to the sink: the head with the first, the end with the last.
    pub(super) fn give_slice(&mut self, sink: &mut dyn SnapshotSink, budget: &mut usize) -> Left {
        let Some(slicing) = self.slicing() else {
            return Left::Nothing;
        };
        if slicing.started == Started::No {
            sink.begin(&slicing.head);
        }
        let mut extra = 0;
        let mut give = |piece: Piece<'_>| {
            extra += piece.bytes() / BYTES_PER_COST;
            sink.piece(piece);
        };
        // That elements are big is found when they have been given: few at a time keep the error small.
        let elements = match self.value() {
            ValueRef::List(_) => 1,
            ValueRef::String(_) | ValueRef::Set(_) | ValueRef::Hash(_) | ValueRef::SortedSet(_) => {
                (*budget).min(SLICE_ELEMENTS)
            }
        };
        let left = match self.collection_mut() {
            None => Left::Nothing,
            Some(CollectionMut::List(list)) => list.walk_slice(elements, &mut give),
            Some(CollectionMut::Set(set)) => set.walk_slice(elements, &mut give),
            Some(CollectionMut::Hash(hash)) => hash.walk_slice(elements, &mut give),
            Some(CollectionMut::SortedSet(sorted)) => sorted.walk_slice(elements, &mut give),
        };
        *budget = budget.saturating_sub(elements + extra);
        if left == Left::Nothing {
            self.end_slices();
            sink.end();
        }
        left
    }

    /// Forgets what was still to come.
    pub(super) fn end_slices(&mut self) {
        match self.collection_mut() {
            None => {}
            Some(CollectionMut::List(list)) => list.end_walk(),
            Some(CollectionMut::Set(set)) => set.end_walk(),
            Some(CollectionMut::Hash(hash)) => hash.end_walk(),
            Some(CollectionMut::SortedSet(sorted)) => sorted.end_walk(),
        }
    }
}
