//! The table of one database: extendible hashing in small segments.
//!
//! Owns the directory (one pointer per prefix of the hash), the segments behind it, and with them all entries. Called by
//! [`super::db`], [`super::expire`], [`super::scan`] and [`super::snapshot_hook`]. Knows neither time nor snapshots.
//!
//! The top `depth` bits of a hash choose a segment, the bits below choose a bucket in it ([`super::segment`]). A full
//! segment grows by about a sixth, at 56 buckets it splits in two; a segment that empties shrinks and joins its sibling.
//! So the load stays between 70 and 90 % at any size, 80 % on average, no step touches more than one segment (about 800 entries, whose memory is
//! mostly not even read), and the directory, 16 bytes per segment, doubles or halves by a plain copy.
//!
//! Everything lies in **hash order** up to buckets, so a position in the hash space is a cursor that no growth
//! invalidates: [`Table::walk`] from one bucket boundary to the next meets every entry whose hash lies between, once.
//!
//! Invariants: every directory entry whose index begins with a segment's prefix holds that segment's handle and its
//! current fields; handles elsewhere live no longer than the borrow of the table they were found under.
//!
//! Read next: `table/walk.rs`, `segment.rs`.

#![allow(
    unsafe_code,
    reason = "dereferences the entries that segments own; invariants in segment.rs"
)]

mod walk;

use std::ptr::NonNull;

use super::entry::{Entry, Epoch};
use super::hash::KeyHasher;
use super::segment::{Address, PREFETCH_AHEAD, Segment, Slot};

/// Longest prefix: from here segments grow without limit. With the 16 bits of the fraction a position has 48 bits.
const MAX_DEPTH: u8 = 32;
/// Tries of [`Table::random`] before it takes the next entry it finds.
const RANDOM_TRIES: usize = 64;

#[derive(Clone, Copy)]
struct DirectoryEntry {
    segment: Segment,
    homes: u16,
    depth: u8,
    known_bits: u8,
}

impl DirectoryEntry {
    fn of(segment: Segment) -> Self {
        Self {
            segment,
            homes: segment.homes(),
            depth: segment.depth(),
            known_bits: segment.known_bits(),
        }
    }

    #[inline]
    fn address(self, hash: u64) -> Address {
        Address::new(hash, self.depth, self.known_bits, self.homes)
    }
}

/// A hash table of entries.
pub(super) struct Table {
    directory: Vec<DirectoryEntry>,
    /// The directory has `2^depth` entries.
    depth: u8,
    /// Segments whose own depth is that of the directory; when none is left it halves.
    deepest: usize,
    segments: usize,
    len: usize,
    with_expiry: usize,
    hasher: KeyHasher,
    /// The epoch of entries that the snapshot in progress, if any, need not see any more.
    epoch: Epoch,
}

// SAFETY: the table owns all that its pointers lead to, and entries are Send and Sync (checked in entry.rs); nothing is
// changed through a shared reference.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// Size and queries.
impl Table {
    pub(super) fn new(hasher: KeyHasher) -> Self {
        Self {
            directory: vec![DirectoryEntry::of(Segment::smallest())],
            depth: 0,
            deepest: 1,
            segments: 1,
            len: 0,
            with_expiry: 0,
            hasher,
            epoch: Epoch::default(),
        }
    }

    pub(super) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn expires_len(&self) -> usize {
        self.with_expiry
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// Bytes of memory of directory and segments, without the entries.
    pub(super) fn overhead(&self) -> usize {
        let mut total = self.directory.capacity() * size_of::<DirectoryEntry>();
        self.each_segment(|segment| total += segment.heap_size());
        total
    }

    /// Slots of all segments.
    pub(super) fn capacity(&self) -> usize {
        let mut total = 0;
        self.each_segment(|segment| total += segment.slot_count());
        total
    }

    fn each_segment(&self, mut f: impl FnMut(Segment)) {
        let mut index = 0;
        while index < self.directory.len() {
            let found = self.directory[index];
            f(found.segment);
            index += self.span(found.depth);
        }
    }

    /// Directory entries that a segment of this depth has.
    fn span(&self, segment_depth: u8) -> usize {
        1 << (self.depth - segment_depth)
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        // In two steps, because a shift by 64 (depth 0) is not defined.
        ((hash >> 1) >> (63 - self.depth)) as usize
    }

    #[inline]
    fn lookup(&self, hash: u64) -> DirectoryEntry {
        self.directory[self.index(hash)]
    }
}

/// Single entries.
impl Table {
    /// The entry of `key`, whose hash is `hash`.
    #[inline]
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let found = self.lookup(hash);
        let (_, slot) = found.segment.find(found.homes, found.address(hash), key)?;
        // SAFETY: a slot in use owns a live entry, borrowed with the table.
        Some(unsafe { &*Entry::fat(slot.read().entry()) })
    }

    /// The entry of `key`, to change.
    #[inline]
    pub(super) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<Occupied<'_>> {
        let found = self.lookup(hash);
        let (index, slot) = found.segment.find(found.homes, found.address(hash), key)?;
        Some(Occupied {
            table: self,
            segment: found.segment,
            hash,
            index,
            slot,
        })
    }

    /// Adds an entry whose key, of this hash, is not in the table. The entry gets the table's epoch.
    pub(super) fn insert_new(&mut self, hash: u64, mut entry: Box<Entry>) {
        debug_assert_eq!(hash, self.hasher.hash(entry.key()));
        debug_assert!(self.get(hash, entry.key()).is_none(), "the key must be new");
        entry.set_epoch(self.epoch);
        self.len += 1;
        self.with_expiry += usize::from(entry.expire_at().is_some());
        loop {
            let found = self.lookup(hash);
            let address = found.address(hash);
            if let Some(index) = found.segment.room(address.home) {
                found.segment.put(index, address, entry);
                return;
            }
            self.make_room(hash);
        }
    }

    /// Starts fetching what a lookup of this hash reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        let found = self.lookup(hash);
        found.segment.prefetch(found.homes, found.address(hash));
    }

    /// Starts fetching the entry that a lookup of this hash will probably find; after [`Table::prefetch`].
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u64) {
        let found = self.lookup(hash);
        found
            .segment
            .prefetch_entry(found.homes, found.address(hash));
    }

    /// An entry, all about equally likely for a random `word`.
    pub(super) fn random(&self, mut word: u64) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        for _ in 0..RANDOM_TRIES {
            let segment = self.lookup(word).segment;
            word = word.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (word >> 29);
            let index = (u128::from(word) * segment.slot_count() as u128) >> 64;
            if let Some(entry) = segment.entry_at(index as usize) {
                // SAFETY: a live entry, borrowed with the table.
                return Some(unsafe { &*Entry::fat(entry) });
            }
        }
        self.first_from(self.index(word))
            .or_else(|| self.first_from(0))
    }

    /// The first entry of the segments from a directory index on.
    fn first_from(&self, directory_index: usize) -> Option<&Entry> {
        self.directory[directory_index..].iter().find_map(|found| {
            let entry =
                (0..found.segment.slot_count()).find_map(|at| found.segment.entry_at(at))?;
            // SAFETY: a live entry, borrowed with the table.
            Some(unsafe { &*Entry::fat(entry) })
        })
    }
}

/// Growing and shrinking.
impl Table {
    #[cold]
    fn make_room(&mut self, hash: u64) {
        let found = self.lookup(hash);
        if !found.segment.splits() || found.depth == MAX_DEPTH {
            let grown = found.segment.grow();
            self.set_segment(hash, grown);
            return;
        }
        if found.depth == self.depth {
            self.double_directory();
        }
        let start = self.index(hash) & !(self.span(found.depth) - 1);
        let (lower, upper) = found.segment.split(&self.hasher);
        let half = self.span(lower.depth());
        self.directory[start..start + half].fill(DirectoryEntry::of(lower));
        self.directory[start + half..start + 2 * half].fill(DirectoryEntry::of(upper));
        self.segments += 1;
        if lower.depth() == self.depth {
            self.deepest += 2;
        }
    }

    fn double_directory(&mut self) {
        let mut doubled = Vec::with_capacity(self.directory.len() * 2);
        doubled.extend(self.directory.iter().flat_map(|&entry| [entry, entry]));
        self.directory = doubled;
        self.depth += 1;
        self.deepest = 0;
    }

    /// Replaces the segment of `hash`, its depth unchanged.
    fn set_segment(&mut self, hash: u64, segment: Segment) {
        let span = self.span(segment.depth());
        let start = self.index(hash) & !(span - 1);
        self.directory[start..start + span].fill(DirectoryEntry::of(segment));
    }

    /// After a removal: shrinks the segment of `hash`, or joins it with its sibling, if few entries are left.
    #[cold]
    fn shrink(&mut self, hash: u64) {
        let found = self.lookup(hash);
        if let Some(sibling) = self.sibling(hash, found)
            && found.segment.joins(sibling)
        {
            return self.join(hash, found.segment, sibling);
        }
        let shrunk = found.segment.shrink();
        self.set_segment(hash, shrunk);
    }

    /// The segment that shares all of this one's prefix but the last bit, if it has not been split further.
    fn sibling(&self, hash: u64, found: DirectoryEntry) -> Option<Segment> {
        if found.depth == 0 {
            return None;
        }
        let sibling = self.lookup(hash ^ (1 << (64 - found.depth)));
        (sibling.depth == found.depth).then_some(sibling.segment)
    }

    fn join(&mut self, hash: u64, segment: Segment, sibling: Segment) {
        let depth = segment.depth();
        let is_upper = hash >> (64 - depth) & 1 == 1;
        let (lower, upper) = if is_upper {
            (sibling, segment)
        } else {
            (segment, sibling)
        };
        let joined = lower.join(upper);
        self.set_segment(hash, joined);
        self.segments -= 1;
        if depth == self.depth {
            self.deepest -= 2;
            if self.deepest == 0 {
                self.halve_directory();
            }
        }
    }

    fn halve_directory(&mut self) {
        self.directory = self.directory.iter().copied().step_by(2).collect();
        self.depth -= 1;
        let depth = self.depth;
        self.deepest = self
            .directory
            .iter()
            .filter(|entry| entry.depth == depth)
            .count();
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let drop_segment = |segment: Segment| {
            for index in 0..segment.slot_count() {
                segment.prefetch_slot(index + PREFETCH_AHEAD);
                if segment.entry_at(index).is_some() {
                    drop(segment.take(index));
                }
            }
            segment.free();
        };
        self.each_segment(drop_segment);
    }
}

/// An entry in the table, borrowed with the table.
pub(super) struct Occupied<'a> {
    table: &'a mut Table,
    segment: Segment,
    hash: u64,
    index: usize,
    slot: NonNull<Slot>,
}

impl<'a> Occupied<'a> {
    #[inline]
    fn pointer(&self) -> *mut Entry {
        // SAFETY: the slot lives as long as the table is borrowed, and stays in use.
        unsafe { Entry::fat(self.slot.read().entry()) }
    }

    #[inline]
    pub(super) fn entry(&self) -> &Entry {
        // SAFETY: a live entry, borrowed with the table.
        unsafe { &*self.pointer() }
    }

    /// To change what keeps size, key and expiry.
    #[inline]
    pub(super) fn entry_mut(&mut self) -> &mut Entry {
        // SAFETY: a live entry, borrowed exclusively with the table.
        unsafe { &mut *self.pointer() }
    }

    /// The entry for as long as the table is borrowed.
    #[inline]
    pub(super) fn into_entry(self) -> &'a Entry {
        // SAFETY: a live entry; the table's borrow is given up for the entry's.
        unsafe { &*self.pointer() }
    }

    /// As [`Occupied::into_entry`], to change what keeps size, key and expiry.
    pub(super) fn into_entry_mut(self) -> &'a mut Entry {
        // SAFETY: a live entry; the table's exclusive borrow is given up for the entry's.
        unsafe { &mut *self.pointer() }
    }

    /// The same entry for a shorter time.
    #[inline]
    pub(super) fn reborrow(&mut self) -> Occupied<'_> {
        let Self {
            segment,
            hash,
            index,
            slot,
            ..
        } = *self;
        Occupied {
            table: self.table,
            segment,
            hash,
            index,
            slot,
        }
    }

    /// The epoch of the entry's table.
    #[inline]
    pub(super) fn table_epoch(&self) -> Epoch {
        self.table.epoch
    }

    /// Lets `f` exchange the entry for another of the same key (often the same one, moved). A panic in `f` ends the
    /// program, because the slot has lent its entry.
    #[inline]
    pub(super) fn replace_with<R>(&mut self, f: impl FnOnce(Box<Entry>) -> (Box<Entry>, R)) -> R {
        let bomb = AbortOnUnwind;
        // SAFETY: the slot owns a live entry; until a new one is written below, nobody reads the slot.
        let (old_slot, old) = unsafe {
            let slot = self.slot.read();
            (slot, Entry::from_thin(slot.entry()))
        };
        let had_expiry = old.expire_at().is_some();
        let (new, result) = f(old);
        self.count_expiry(had_expiry, new.expire_at());
        // SAFETY: as above; the slot owns the new entry from here on.
        unsafe { self.slot.write(old_slot.with_entry(Entry::into_thin(new))) };
        std::mem::forget(bomb);
        result
    }

    #[inline]
    fn count_expiry(&mut self, had_expiry: bool, expire_at: Option<i64>) {
        match (had_expiry, expire_at) {
            (false, None) => {}
            (true, Some(at)) => self.segment.note_expiry(at),
            (false, Some(at)) => {
                self.segment.count_expiry(at);
                self.table.with_expiry += 1;
            }
            (true, None) => {
                self.segment.uncount_expiry();
                self.table.with_expiry -= 1;
            }
        }
    }

    /// Takes the entry out of the table.
    pub(super) fn remove(self) -> Box<Entry> {
        let entry = self.segment.take(self.index);
        self.table.len -= 1;
        self.table.with_expiry -= usize::from(entry.expire_at().is_some());
        if self.segment.is_sparse() {
            self.table.shrink(self.hash);
        }
        entry
    }
}

/// Ends the program when dropped, so that a panic cannot leave a slot pointing to a freed entry.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}
