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

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::entry::Entry;
use super::hash::{KeyHasher, keys_equal};

/// Slots in a bucket.
pub(super) const BUCKET_SLOTS: usize = 16;
/// Bits of the hash a slot keeps.
pub(super) const FRACTION_BITS: u32 = 16;
/// A split that would leave fewer valid bits of the fractions than this reads the keys again.
const MIN_KNOWN_BITS: u8 = 10;
/// Buckets (neighbour included) a segment may have: the largest that fit allocation classes of jemalloc, about a sixth
/// apart, so that growing wastes neither slots nor allocator space.
const BUCKET_STEPS: [u16; 27] = [
    2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 21, 24, 28, 35, 42, 49, 56, 71, 85, 99, 113, 142, 170,
    227, 455, 910,
];
/// A segment of this many buckets splits instead of growing; the larger steps are for hashes that cannot be split.
const SPLIT_BUCKETS: u16 = 56;
/// A rebuilt segment is at most this full, in 1/1024.
const REBUILD_LOAD: usize = 800;
/// A segment shrinks below this load, in 1/1024.
const SHRINK_LOAD: usize = 460;
/// Two sibling segments join when together they would fill a segment of [`SPLIT_BUCKETS`] to this, in 1/1024.
const JOIN_LOAD: usize = 500;
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

/// A slot on its way from one segment to another.
#[derive(Clone, Copy)]
struct Moved {
    slot: Slot,
    tag: u8,
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
        Self::allocate(BUCKET_STEPS[0], 0, FRACTION_BITS as u8)
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

/// Rebuilding. Each function returns the new segments; the old handle is freed.
impl Segment {
    /// Whether a segment without room should split rather than grow.
    pub(super) fn splits(self) -> bool {
        self.buckets() >= usize::from(SPLIT_BUCKETS)
    }

    /// Whether so few entries are left that a smaller segment would do.
    pub(super) fn is_sparse(self) -> bool {
        self.buckets() > usize::from(BUCKET_STEPS[0])
            && self.entries() * 1024 < self.slot_count() * SHRINK_LOAD
    }

    /// Whether two siblings are small enough to join.
    pub(super) fn joins(self, sibling: Self) -> bool {
        let capacity = usize::from(SPLIT_BUCKETS) * BUCKET_SLOTS;
        (self.entries() + sibling.entries()) * 1024 < capacity * JOIN_LOAD
    }

    /// The same entries in the next larger number of buckets.
    pub(super) fn grow(self) -> Self {
        let larger = BUCKET_STEPS
            .iter()
            .copied()
            .find(|&step| usize::from(step) > self.buckets());
        let moved = self.moved(Some);
        self.replaced_by(
            larger.unwrap_or(u16::MAX),
            self.depth(),
            self.known_bits(),
            &moved,
        )
    }

    /// The same entries in as few buckets as is reasonable.
    pub(super) fn shrink(self) -> Self {
        let moved = self.moved(Some);
        self.replaced_by(0, self.depth(), self.known_bits(), &moved)
    }

    /// Two segments one bit deeper: lower and upper half.
    pub(super) fn split(self, hasher: &KeyHasher) -> (Self, Self) {
        let depth = self.depth() + 1;
        let known_bits = self.known_bits() - 1;
        let half = |bit: u16| {
            move |item: Moved| {
                let fraction = item.slot.fraction();
                (fraction >> 15 == bit).then(|| Moved {
                    slot: item.slot.with_fraction(fraction << 1),
                    tag: item.tag,
                })
            }
        };
        let (mut lower, mut upper) = (self.moved(half(0)), self.moved(half(1)));
        let known_bits = if known_bits < MIN_KNOWN_BITS {
            refresh(&mut lower, depth, hasher);
            refresh(&mut upper, depth, hasher);
            FRACTION_BITS as u8
        } else {
            known_bits
        };
        let earliest = self.header().earliest_expiry;
        let mut lower = Self::filled(0, depth, known_bits, &lower);
        let mut upper = Self::filled(0, depth, known_bits, &upper);
        lower.recount_expiry(earliest);
        upper.header_mut().with_expiry = self.header().with_expiry - lower.header().with_expiry;
        upper.header_mut().earliest_expiry = earliest;
        self.free();
        (lower, upper)
    }

    /// One segment, one bit shallower, of this one (the lower half) and its sibling.
    pub(super) fn join(self, upper: Self) -> Self {
        let known_bits = (self.known_bits().min(upper.known_bits()) + 1).min(FRACTION_BITS as u8);
        let unknown = FRACTION_BITS - u32::from(known_bits);
        let half = |bit: u16| {
            move |item: Moved| {
                let fraction = (bit << 15) | (item.slot.fraction() >> 1);
                let fraction = (fraction >> unknown) << unknown;
                Some(Moved {
                    slot: item.slot.with_fraction(fraction),
                    tag: item.tag,
                })
            }
        };
        let mut moved = self.moved(half(0));
        moved.extend(upper.moved(half(1)));
        let mut joined = Self::filled(0, self.depth() - 1, known_bits, &moved);
        let header = joined.header_mut();
        header.with_expiry = self.header().with_expiry + upper.header().with_expiry;
        header.earliest_expiry = self
            .header()
            .earliest_expiry
            .min(upper.header().earliest_expiry);
        self.free();
        upper.free();
        joined
    }

    fn replaced_by(self, min_buckets: u16, depth: u8, known_bits: u8, moved: &[Moved]) -> Self {
        let mut next = Self::filled(min_buckets, depth, known_bits, moved);
        next.header_mut().with_expiry = self.header().with_expiry;
        next.header_mut().earliest_expiry = self.header().earliest_expiry;
        self.free();
        next
    }

    /// The slots in use, in bucket order, through `f`.
    fn moved(self, f: impl Fn(Moved) -> Option<Moved>) -> Vec<Moved> {
        let mut moved = Vec::with_capacity(self.entries());
        for index in 0..self.slot_count() {
            let tag = self.tag_at(index);
            if tag != 0 {
                moved.extend(f(Moved {
                    slot: self.slot_at(index),
                    tag,
                }));
            }
        }
        moved
    }

    /// A new segment with these slots, of the smallest step that holds them well and is not below `min_buckets`.
    fn filled(min_buckets: u16, depth: u8, known_bits: u8, moved: &[Moved]) -> Self {
        let fits = |step: &u16| {
            *step >= min_buckets
                && usize::from(*step) * BUCKET_SLOTS * REBUILD_LOAD >= moved.len() * 1024
        };
        BUCKET_STEPS
            .iter()
            .filter(|step| fits(step))
            .find_map(|&step| Self::try_filled(step, depth, known_bits, moved))
            .expect("33 keys whose secretly seeded hashes agree in 42 bits do not occur")
    }

    fn try_filled(buckets: u16, depth: u8, known_bits: u8, moved: &[Moved]) -> Option<Self> {
        let mut segment = Self::allocate(buckets, depth, known_bits);
        for item in moved {
            let home = home_of(item.slot.fraction(), buckets - 1);
            let Some(index) = segment.room(home) else {
                segment.free();
                return None;
            };
            segment.write(index, item.tag, item.slot);
        }
        segment.header_mut().entries = moved.len() as u16;
        Some(segment)
    }

    /// Counts the entries that expire, after a split; reads entries only if the segment it came from had any.
    fn recount_expiry(&mut self, earliest: i64) {
        let mut with_expiry = 0;
        if earliest != i64::MAX {
            self.for_each_entry(|entry| with_expiry += u16::from(entry.expire_at().is_some()));
        }
        self.header_mut().with_expiry = with_expiry;
        self.header_mut().earliest_expiry = earliest;
    }

    /// All entries, to read, with the next ones prefetched.
    pub(super) fn for_each_entry(self, mut f: impl FnMut(&Entry)) {
        for index in 0..self.slot_count() {
            self.prefetch_slot(index + PREFETCH_AHEAD);
            if let Some(entry) = self.entry_at(index) {
                // SAFETY: a slot in use owns a live entry (invariant 1).
                f(unsafe { &*Entry::fat(entry) });
            }
        }
    }

    /// Asks the processor to fetch the entry of a slot, if there is such a slot and such an entry.
    #[inline]
    pub(super) fn prefetch_slot(self, index: usize) {
        if index < self.slot_count()
            && let Some(entry) = self.entry_at(index)
        {
            prefetch(entry.as_ptr());
        }
    }
}

/// Fills the fractions again from the keys.
fn refresh(moved: &mut [Moved], depth: u8, hasher: &KeyHasher) {
    for index in 0..moved.len() {
        if let Some(next) = moved.get(index + PREFETCH_AHEAD) {
            // SAFETY: only slots in use are moved.
            prefetch(unsafe { next.slot.entry() }.as_ptr());
        }
        let item = &mut moved[index];
        // SAFETY: a slot in use owns a live entry (invariant 1).
        let hash = hasher.hash(unsafe { &*Entry::fat(item.slot.entry()) }.key());
        item.slot = item.slot.with_fraction(((hash << depth) >> 48) as u16);
    }
}

/// Hints that the cache line at `at` will be read.
#[inline]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Which of 32 tags equal `tag`: bit i for tag i.
///
/// # Safety
/// 32 bytes at `tags` may be read.
#[inline]
#[cfg(target_arch = "x86_64")]
unsafe fn match_tags(tags: *const u8, tag: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: two unaligned loads of 16 bytes each; SSE2 is part of x86-64.
    unsafe {
        let wanted = _mm_set1_epi8(tag as i8);
        let low = _mm_cmpeq_epi8(_mm_loadu_si128(tags.cast()), wanted);
        let high = _mm_cmpeq_epi8(_mm_loadu_si128(tags.add(16).cast()), wanted);
        (_mm_movemask_epi8(low) as u32) | ((_mm_movemask_epi8(high) as u32) << 16)
    }
}

/// Which of 32 tags equal `tag`: bit i for tag i.
///
/// # Safety
/// 32 bytes at `tags` may be read.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
unsafe fn match_tags(tags: *const u8, tag: u8) -> u32 {
    // SAFETY: by the contract.
    let words = unsafe { tags.cast::<[[u8; 8]; 4]>().read_unaligned() };
    words.iter().rev().fold(0, |bits, word| {
        (bits << 8) | match_word(u64::from_le_bytes(*word), tag)
    })
}

/// Which of the 8 bytes of `word` equal `tag`, without false positives.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn match_word(word: u64, tag: u8) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let differs = word ^ (LOW * u64::from(tag));
    let zero = !(((differs & !HIGH) + !HIGH) | differs) & HIGH;
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_steps_fit_allocation_classes() {
        assert!(BUCKET_STEPS.contains(&SPLIT_BUCKETS));
        for step in BUCKET_STEPS {
            let size = layout(usize::from(step)).size();
            let spacing = (size.next_power_of_two() / 8).max(16);
            let waste = size.next_multiple_of(spacing) - size;
            assert!(
                waste <= size / 6,
                "{step} buckets: {size} bytes waste {waste}"
            );
        }
    }
}
