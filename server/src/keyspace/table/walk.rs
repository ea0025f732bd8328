//! Walking a table in hash order, and taking out what has expired.
//!
//! Called by SCAN, snapshots and active expiry with a position that they keep between slices; see [`super`] for why it
//! stays good whatever happens to the table meanwhile.

use std::ptr::NonNull;

use super::{DirectoryEntry, Table};
use crate::keyspace::entry::Entry;
use crate::keyspace::segment::{Address, BUCKET_SLOTS, FRACTION_BITS, PREFETCH_AHEAD, home_of};

/// Walking in hash order.
impl Table {
    /// Calls `f` for entries in hash order from `position` on, whole buckets until at least `budget` calls were made, or
    /// `budget` buckets were empty. Returns the position to go on from, `None` at the end.
    pub(in crate::keyspace) fn walk(
        &self,
        position: u64,
        budget: usize,
        mut f: impl FnMut(&Entry),
    ) -> Option<u64> {
        // SAFETY: live entries, borrowed with the table.
        self.walk_raw(position, budget, |entry| f(unsafe { &*Entry::fat(entry) }))
    }

    /// As [`Table::walk`], for changes that keep an entry's size, key and expiry.
    pub(in crate::keyspace) fn walk_mut(
        &mut self,
        position: u64,
        budget: usize,
        mut f: impl FnMut(&mut Entry),
    ) -> Option<u64> {
        // SAFETY: live entries, borrowed exclusively with the table, one at a time.
        self.walk_raw(position, budget, |entry| {
            f(unsafe { &mut *Entry::fat(entry) })
        })
    }

    fn walk_raw(
        &self,
        mut position: u64,
        budget: usize,
        mut f: impl FnMut(NonNull<u8>),
    ) -> Option<u64> {
        let (mut calls, mut buckets) = (0, 0);
        while calls < budget && buckets < budget.max(1) {
            let (count, next) = self.walk_bucket(position, &mut f);
            calls += count;
            buckets += usize::from(count == 0);
            position = next?;
        }
        Some(position)
    }

    /// Visits the entries from `position` to the end of its home bucket; their number and the next position.
    fn walk_bucket(&self, position: u64, f: &mut impl FnMut(NonNull<u8>)) -> (usize, Option<u64>) {
        let found = self.lookup(position);
        let segment = found.segment;
        let Address { home, fraction, .. } = found.address(position);
        let start = home * BUCKET_SLOTS;
        let mut count = 0;
        for index in start..start + 2 * BUCKET_SLOTS {
            segment.prefetch_slot(index + PREFETCH_AHEAD);
            let Some(entry) = segment.entry_at(index) else {
                continue;
            };
            let its_fraction = segment.fraction_at(index);
            let is_ahead = home_of(its_fraction, found.homes) == home
                && its_fraction >= fraction
                && (its_fraction > fraction || self.is_at_or_after(entry, position, found));
            if is_ahead {
                count += 1;
                f(entry);
            }
        }
        (count, found.end_of_bucket(position, home))
    }

    /// Whether an entry whose fraction is that of `position` lies at or after it. Only a position that is finer than the
    /// fractions here (a foreign cursor, or one from before segments were joined) needs the whole hash.
    fn is_at_or_after(&self, entry: NonNull<u8>, position: u64, found: DirectoryEntry) -> bool {
        let resolved = u32::from(found.depth) + u32::from(found.known_bits);
        if position << resolved == 0 {
            return true;
        }
        // SAFETY: a live entry, borrowed with the table.
        self.hasher.hash(unsafe { &*Entry::fat(entry) }.key()) >= position
    }
}

impl DirectoryEntry {
    /// The first position after home bucket `home` of the segment that `position` lies in.
    fn end_of_bucket(self, position: u64, home: usize) -> Option<u64> {
        let depth = u32::from(self.depth);
        let prefix = if depth == 0 {
            0
        } else {
            position >> (64 - depth) << (64 - depth)
        };
        if home + 1 == usize::from(self.homes) {
            return self.end_of_segment(position);
        }
        let unit = 1 << (FRACTION_BITS - u32::from(self.known_bits));
        let boundary = ((home as u64 + 1) << FRACTION_BITS).div_ceil(u64::from(self.homes));
        let boundary = boundary.next_multiple_of(unit);
        if boundary >> FRACTION_BITS != 0 {
            return self.end_of_segment(position);
        }
        Some(prefix | boundary << 48 >> depth)
    }
}

/// What [`Table::take_expired`] did.
pub(in crate::keyspace) struct ExpireStep {
    /// Entries with an expiry that were looked at.
    pub(in crate::keyspace) visited: usize,
    /// Segments in which nothing could be due.
    pub(in crate::keyspace) skipped_segments: usize,
    /// Where to go on; `None` at the end.
    pub(in crate::keyspace) next: Option<u64>,
}

/// Expired entries.
impl Table {
    /// Moves the entries that expire at or before `now_ms` into `due`, segment by segment from `position` on, until about
    /// `budget` entries were looked at or segments skipped.
    pub(in crate::keyspace) fn take_expired(
        &mut self,
        mut position: u64,
        now_ms: i64,
        budget: usize,
        due: &mut Vec<Box<Entry>>,
    ) -> ExpireStep {
        let (mut visited, mut skipped_segments) = (0, 0);
        let mut next = Some(position);
        while let Some(at) = next
            && visited + skipped_segments < budget
        {
            position = at;
            let found = self.lookup(position);
            if found.segment.may_have_expired(now_ms) {
                visited += self.take_expired_in(position, now_ms, due);
            } else {
                skipped_segments += 1;
            }
            next = found.end_of_segment(position);
        }
        ExpireStep {
            visited,
            skipped_segments,
            next,
        }
    }

    /// One segment; how many entries with an expiry it had.
    fn take_expired_in(&mut self, position: u64, now_ms: i64, due: &mut Vec<Box<Entry>>) -> usize {
        let mut segment = self.lookup(position).segment;
        let (mut visited, mut earliest, before) = (0, i64::MAX, due.len());
        for index in 0..segment.slot_count() {
            segment.prefetch_slot(index + PREFETCH_AHEAD);
            let Some(entry) = segment.entry_at(index) else {
                continue;
            };
            // SAFETY: a live entry, borrowed with the table.
            let Some(at) = (unsafe { &*Entry::fat(entry) }).expire_at() else {
                continue;
            };
            visited += 1;
            if at <= now_ms {
                due.push(segment.take(index));
            } else {
                earliest = earliest.min(at);
            }
        }
        segment.set_earliest_expiry(earliest);
        let taken = due.len() - before;
        self.len -= taken;
        self.with_expiry -= taken;
        if segment.is_sparse() {
            self.shrink(position);
        }
        visited
    }
}

/// Samples.
impl Table {
    /// Calls `f` for up to `most` entries with an expiry of one segment, the first from `start.0` on that has any, among
    /// its slots from a random one on (`start.1`). Looks at `max_segments` segments at most. Answers where to go on.
    pub(in crate::keyspace) fn sample_expiring(
        &self,
        start: (u64, u64),
        max_segments: usize,
        most: usize,
        mut f: impl FnMut(&Entry),
    ) -> u64 {
        let mut position = start.0;
        for _ in 0..max_segments {
            let found = self.lookup(position);
            let next = found.end_of_segment(position).unwrap_or(0);
            let segment = found.segment;
            if segment.has_expiring() {
                let slots = segment.slot_count();
                let offset = (start.1 % slots as u64) as usize;
                let entries =
                    (0..slots).filter_map(|index| segment.entry_at((index + offset) % slots));
                // SAFETY: live entries, borrowed with the table.
                let entries = entries.map(|entry| unsafe { &*Entry::fat(entry) });
                entries
                    .filter(|entry| entry.expire_at().is_some())
                    .take(most)
                    .for_each(&mut f);
                return next;
            }
            position = next;
        }
        position
    }
}

impl DirectoryEntry {
    fn end_of_segment(self, position: u64) -> Option<u64> {
        if self.depth == 0 {
            return None;
        }
        let shift = 64 - u32::from(self.depth);
        (position >> shift << shift).checked_add(1 << shift)
    }
}
