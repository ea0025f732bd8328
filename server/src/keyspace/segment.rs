//! One segment of the table: a small open-addressing array of entry pointers.
//!
//! Owns the memory of buckets and everything that happens within one segment: finding, making room, rebuilding in
//! another size, splitting in two, joining. Called by [`super::table`] only, which owns the segments.
//!
//! ```text
//!  one allocation:  header (16 B) │ 16 tags per bucket, all buckets │ 16 slots of 8 B per bucket, all buckets
//!  one slot:        pointer to the entry (low 48 bits) │ fraction (high 16 bits)
//! ```
//!
//! * The **fraction** of a key is the 16 bits of its hash that follow the segment's prefix (`depth` bits); its **home**
//!   bucket is `fraction × homes >> 16`, so buckets lie in hash order. An entry is in its home bucket or in the next
//!   one; the last bucket is no home, only a neighbour.
//! * The fraction is kept in the slot, so that growing and splitting move slots without reading entries. A split
//!   consumes one bit of it: only the upper `known` bits are valid, the others are zero, here and in lookups. When
//!   fewer than [`MIN_KNOWN_BITS`] would remain, the split reads the keys and fills all 16 again.
//! * The **tag** is the low byte of the hash (0 stands for an empty slot, such hashes take 1).
//!
//! Invariants, on which every `unsafe` block of this file and of `table.rs` rests:
//! 1. A slot with a tag other than 0 owns a live entry; a slot with tag 0 is null.
//! 2. `Segment` is a plain handle, valid from `allocate` until `free`; only the table's directory keeps handles, and
//!    it replaces them in the same call that frees them. Indexes come from `find`, `room` or a loop over all slots.
//! 3. Entries lie below 2^48, as all user addresses do on the supported targets unless a program asks for more.

#![allow(
    unsafe_code,
    reason = "pointer-tagged slots in one allocation per segment; invariants in the module's doc"
)]

mod probe;
mod rebuild;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use self::probe::{match_tags, prefetch};
use super::entry::Entry;
use super::hash::keys_equal;

/// Slots in a bucket.
pub(super) const BUCKET_SLOTS: usize = 16;
/// Bits of the hash a slot keeps.
pub(super) const FRACTION_BITS: u32 = 16;
/// How many entries ahead of the one being read are prefetched.
pub(super) const PREFETCH_AHEAD: usize = 8;

const POINTER_BITS: u32 = 48;
const HEADER_LEN: usize = size_of::<SegmentHeader>();
const ALIGN: usize = 16;

#[repr(C, align(16))]
struct SegmentHeader {
    entries: u16,
    with_expiry: u16,
    homes: u16,
    depth: u8,
    known_bits: u8,
    /// No entry here expires before this (it may be too low, never too high).
    earliest_expiry: i64,
}

/// A pointer to an entry with the fraction of its hash in the unused high bits; null when empty.
#[derive(Clone, Copy)]
pub(super) struct Slot(*mut u8);

impl Slot {
    const EMPTY: Self = Self(std::ptr::null_mut());

    #[inline]
    fn new(entry: NonNull<u8>, fraction: u16) -> Self {
        debug_assert_eq!(entry.addr().get() >> POINTER_BITS, 0);
        Self(
            entry
                .as_ptr()
                .map_addr(|addr| addr | (usize::from(fraction) << POINTER_BITS)),
        )
    }

    #[inline]
    fn fraction(self) -> u16 {
        (self.0.addr() >> POINTER_BITS) as u16
    }

    /// The entry's pointer.
    ///
    /// # Safety
    /// The slot is not empty.
    #[inline]
    pub(super) unsafe fn entry(self) -> NonNull<u8> {
        // SAFETY: a slot in use holds a pointer that was not null before the fraction was added.
        unsafe { NonNull::new_unchecked(self.0.map_addr(|addr| addr & ((1 << POINTER_BITS) - 1))) }
    }

    /// A slot for another entry of the same key.
    #[inline]
    pub(super) fn with_entry(self, entry: NonNull<u8>) -> Self {
        Self::new(entry, self.fraction())
    }

    fn with_fraction(self, fraction: u16) -> Self {
        let kept = |addr| addr & ((1 << POINTER_BITS) - 1);
        Self(
            self.0
                .map_addr(|addr| kept(addr) | (usize::from(fraction) << POINTER_BITS)),
        )
    }
}

/// Where in a segment a hash belongs.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub(super) home: usize,
    pub(super) fraction: u16,
    pub(super) tag: u8,
}

impl Address {
    #[inline]
    pub(super) fn new(hash: u64, depth: u8, known_bits: u8, homes: u16) -> Self {
        let unknown = FRACTION_BITS - u32::from(known_bits);
        let fraction = (((hash << depth) >> 48) as u16 >> unknown) << unknown;
        Self {
            home: home_of(fraction, homes),
            fraction,
            tag: (hash as u8).max(1),
        }
    }
}

#[inline]
pub(super) fn home_of(fraction: u16, homes: u16) -> usize {
    ((u32::from(fraction) * u32::from(homes)) >> FRACTION_BITS) as usize
}

/// Handle of one segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment(NonNull<SegmentHeader>);

fn layout(buckets: usize) -> Layout {
    Layout::from_size_align(HEADER_LEN + buckets * BUCKET_SLOTS * 9, ALIGN)
        .expect("BUCKET_STEPS ends far below isize::MAX")
}

/// Memory and plain fields.
impl Segment {
    /// An empty segment of the smallest size.
    pub(super) fn smallest() -> Self {
        Self::allocate(rebuild::BUCKET_STEPS[0], 0, FRACTION_BITS as u8)
    }

    fn allocate(buckets: u16, depth: u8, known_bits: u8) -> Self {
        let layout = layout(usize::from(buckets));
        // SAFETY: the layout is not empty. All-zero memory is a valid header, zero tags and null slots.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) });
        let segment = Self(base.unwrap_or_else(|| handle_alloc_error(layout)).cast());
        let header = SegmentHeader {
            entries: 0,
            with_expiry: 0,
            homes: buckets - 1,
            depth,
            known_bits,
            earliest_expiry: i64::MAX,
        };
        // SAFETY: the allocation begins with room for a header and is aligned for it.
        unsafe { segment.0.write(header) };
        segment
    }

    /// Frees the memory, not the entries: the caller has moved or dropped them.
    pub(super) fn free(self) {
        let layout = layout(self.buckets());
        // SAFETY: allocated with this layout; the handle is not used again (invariant 2).
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }

    #[inline]
    fn header(&self) -> &SegmentHeader {
        // SAFETY: a valid handle (invariant 2); the borrow ends before any change in the same function.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut SegmentHeader {
        // SAFETY: as above; the table is borrowed exclusively by every caller that changes something.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    pub(super) fn homes(self) -> u16 {
        self.header().homes
    }

    #[inline]
    pub(super) fn depth(self) -> u8 {
        self.header().depth
    }

    #[inline]
    pub(super) fn known_bits(self) -> u8 {
        self.header().known_bits
    }

    pub(super) fn entries(self) -> usize {
        usize::from(self.header().entries)
    }

    pub(super) fn slot_count(self) -> usize {
        self.buckets() * BUCKET_SLOTS
    }

    /// Bytes of memory the segment takes, entries not counted.
    pub(super) fn heap_size(self) -> usize {
        layout(self.buckets()).size()
    }

    /// Whether an entry here may expire at or before `now_ms`.
    pub(super) fn may_have_expired(self, now_ms: i64) -> bool {
        self.header().with_expiry > 0 && self.header().earliest_expiry <= now_ms
    }

    /// Whether an entry here has an expiry.
    pub(super) fn has_expiring(self) -> bool {
        self.header().with_expiry > 0
    }

    fn buckets(self) -> usize {
        usize::from(self.homes()) + 1
    }

    #[inline]
    fn tags(self) -> *mut u8 {
        // SAFETY: the tags follow the header in the same allocation.
        unsafe { self.0.as_ptr().cast::<u8>().add(HEADER_LEN) }
    }

    #[inline]
    fn slots(self, homes: u16) -> *mut Slot {
        let tags = (usize::from(homes) + 1) * BUCKET_SLOTS;
        // SAFETY: the slots follow the tags of all buckets; a multiple of 16 bytes keeps them aligned.
        unsafe { self.tags().add(tags).cast::<Slot>() }
    }

    #[inline]
    fn tag_at(self, index: usize) -> u8 {
        debug_assert!(index < self.slot_count());
        // SAFETY: one tag per slot.
        unsafe { self.tags().add(index).read() }
    }

    #[inline]
    fn slot_at(self, index: usize) -> Slot {
        debug_assert!(index < self.slot_count());
        // SAFETY: within the slots.
        unsafe { self.slots(self.homes()).add(index).read() }
    }

    fn write(self, index: usize, tag: u8, slot: Slot) {
        debug_assert!(index < self.slot_count());
        // SAFETY: within tags and slots.
        unsafe {
            self.tags().add(index).write(tag);
            self.slots(self.homes()).add(index).write(slot);
        }
    }
}

/// Finding and changing entries.
impl Segment {
    /// The index and the slot of `key`. `homes` is passed because the directory has it at hand, while the header is not in
    /// the cache: nothing on this path reads it.
    #[inline]
    pub(super) fn find(
        self,
        homes: u16,
        address: Address,
        key: &[u8],
    ) -> Option<(usize, NonNull<Slot>)> {
        let first = address.home * BUCKET_SLOTS;
        // SAFETY: a home bucket always has a neighbour behind it: 32 tags.
        let mut matches = unsafe { match_tags(self.tags().add(first), address.tag) };
        while matches != 0 {
            let index = first + matches.trailing_zeros() as usize;
            // SAFETY: the tag is not 0, so the slot owns a live entry (invariant 1).
            unsafe {
                let at = self.slots(homes).add(index);
                let slot = at.read();
                if slot.fraction() == address.fraction {
                    let entry = &*Entry::fat(slot.entry());
                    if keys_equal(entry.key(), key) {
                        return NonNull::new(at).map(|at| (index, at));
                    }
                }
            }
            matches &= matches - 1;
        }
        None
    }

    /// Asks the processor to fetch the tags and slots that `find` will read.
    #[inline]
    pub(super) fn prefetch(self, homes: u16, address: Address) {
        let first = address.home * BUCKET_SLOTS;
        // SAFETY: within the allocation; a prefetch reads nothing.
        unsafe {
            prefetch(self.tags().add(first));
            let slots = self.slots(homes).add(first).cast::<u8>();
            prefetch(slots);
            prefetch(slots.add(64));
        }
    }

    /// Asks the processor to fetch the entry that `find` will most likely compare first.
    #[inline]
    pub(super) fn prefetch_entry(self, homes: u16, address: Address) {
        let first = address.home * BUCKET_SLOTS;
        // SAFETY: as in `find`.
        unsafe {
            let mut matches = match_tags(self.tags().add(first), address.tag);
            while matches != 0 {
                let index = first + matches.trailing_zeros() as usize;
                let slot = self.slots(homes).add(index).read();
                if slot.fraction() == address.fraction {
                    let entry = slot.entry().as_ptr();
                    prefetch(entry);
                    prefetch(entry.wrapping_add(64));
                    return;
                }
                matches &= matches - 1;
            }
        }
    }

    /// The entry in a slot, null if it is empty.
    #[inline]
    pub(super) fn entry_at(self, index: usize) -> Option<NonNull<u8>> {
        if self.tag_at(index) == 0 {
            return None;
        }
        // SAFETY: not empty.
        Some(unsafe { self.slot_at(index).entry() })
    }

    /// The fraction of the slot at `index`, which is in use.
    #[inline]
    pub(super) fn fraction_at(self, index: usize) -> u16 {
        self.slot_at(index).fraction()
    }

    /// Puts an entry into the empty slot `index`, which `room` gave for its address.
    #[inline]
    pub(super) fn put(mut self, index: usize, address: Address, entry: Box<Entry>) {
        debug_assert_eq!(self.tag_at(index), 0);
        self.header_mut().entries += 1;
        if let Some(expire_at) = entry.expire_at() {
            self.count_expiry(expire_at);
        }
        self.write(
            index,
            address.tag,
            Slot::new(Entry::into_thin(entry), address.fraction),
        );
    }

    /// Takes the entry out of the slot `index`, which is in use.
    pub(super) fn take(mut self, index: usize) -> Box<Entry> {
        // SAFETY: the slot owns the entry, and is emptied at once.
        let entry = unsafe { Entry::from_thin(self.slot_at(index).entry()) };
        self.write(index, 0, Slot::EMPTY);
        let header = self.header_mut();
        header.entries -= 1;
        header.with_expiry -= u16::from(entry.expire_at().is_some());
        entry
    }

    /// One more entry here expires.
    pub(super) fn count_expiry(&mut self, expire_at: i64) {
        let header = self.header_mut();
        header.with_expiry += 1;
        header.earliest_expiry = header.earliest_expiry.min(expire_at);
    }

    /// One entry fewer here expires.
    pub(super) fn uncount_expiry(&mut self) {
        self.header_mut().with_expiry -= 1;
    }

    /// An entry that expires now does so at another time.
    pub(super) fn note_expiry(&mut self, expire_at: i64) {
        let header = self.header_mut();
        header.earliest_expiry = header.earliest_expiry.min(expire_at);
    }

    /// Sets the bound after all entries were looked at.
    pub(super) fn set_earliest_expiry(&mut self, expire_at: i64) {
        self.header_mut().earliest_expiry = expire_at;
    }
}

/// Making room.
impl Segment {
    /// An empty slot for an entry of this home, moving others if need be. `None`: the segment must be rebuilt.
    #[inline]
    pub(super) fn room(self, home: usize) -> Option<usize> {
        // SAFETY: home bucket and neighbour: 32 tags.
        let empty = unsafe { match_tags(self.tags().add(home * BUCKET_SLOTS), 0) };
        if empty != 0 {
            return Some(home * BUCKET_SLOTS + empty.trailing_zeros() as usize);
        }
        self.push_right(home).or_else(|| self.push_left(home))
    }

    /// Frees a slot of the neighbour: a chain of entries that are at home moves one bucket to the right.
    #[cold]
    fn push_right(self, home: usize) -> Option<usize> {
        let mut bucket = home + 1;
        let mut hole = loop {
            if bucket + 1 >= self.buckets() {
                return None;
            }
            self.entry_of_home(bucket, bucket)?;
            if let Some(empty) = self.empty_in(bucket + 1) {
                break empty;
            }
            bucket += 1;
        };
        loop {
            let from = self.entry_of_home(bucket, bucket)?;
            self.shift(from, hole);
            hole = from;
            if bucket == home + 1 {
                return Some(hole);
            }
            bucket -= 1;
        }
    }

    /// Frees a slot of the home bucket: a chain of entries that are one off their home moves back to it.
    #[cold]
    fn push_left(self, home: usize) -> Option<usize> {
        let mut bucket = home;
        let mut hole = loop {
            if bucket == 0 {
                return None;
            }
            self.entry_of_home(bucket, bucket - 1)?;
            if let Some(empty) = self.empty_in(bucket - 1) {
                break empty;
            }
            bucket -= 1;
        };
        loop {
            let from = self.entry_of_home(bucket, bucket - 1)?;
            self.shift(from, hole);
            hole = from;
            if bucket == home {
                return Some(hole);
            }
            bucket += 1;
        }
    }

    fn shift(self, from: usize, to: usize) {
        self.write(to, self.tag_at(from), self.slot_at(from));
        self.write(from, 0, Slot::EMPTY);
    }

    fn empty_in(self, bucket: usize) -> Option<usize> {
        let mut indexes = bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS;
        indexes.find(|&index| self.tag_at(index) == 0)
    }

    /// An entry in (full) `bucket` whose home is `home`.
    fn entry_of_home(self, bucket: usize, home: usize) -> Option<usize> {
        let homes = self.homes();
        let mut indexes = bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS;
        indexes.find(|&index| home_of(self.slot_at(index).fraction(), homes) == home)
    }
}

#[cfg(test)]
mod tests {
    use super::probe::match_word;
    use super::*;

    #[test]
    fn both_tag_matchers_agree_with_a_loop() {
        let tags: Vec<u8> = (0..32u32)
            .map(|i| (i * 7 % 5) as u8 + u8::from(i % 9 == 0) * 250)
            .collect();
        for tag in 0..=255u8 {
            let expected = (0..32)
                .filter(|&i| tags[i] == tag)
                .fold(0u32, |bits, i| bits | 1 << i);
            // SAFETY: there are 32 tags.
            assert_eq!(
                unsafe { match_tags(tags.as_ptr(), tag) },
                expected,
                "tag {tag}"
            );
            let words = (0..4).fold(0, |bits, i| {
                let word: [u8; 8] = tags[i * 8..i * 8 + 8].try_into().expect("8 bytes");
                bits | match_word(u64::from_le_bytes(word), tag) << (8 * i)
            });
            assert_eq!(words, expected, "tag {tag}");
        }
    }
}
