//! Segments in another size: growing, shrinking, splitting, joining.
//!
//! Called by the table when a segment has no room or few entries left. Moves slots, which carry all that is needed;
//! entries are read only when the fractions must be filled again or expiries counted.

use super::{BUCKET_SLOTS, FRACTION_BITS, PREFETCH_AHEAD, Segment, Slot, home_of, probe::prefetch};
use crate::keyspace::entry::Entry;
use crate::keyspace::hash::KeyHasher;

/// A split that would leave fewer valid bits of the fractions than this reads the keys again.
const MIN_KNOWN_BITS: u8 = 10;
/// Buckets (neighbour included) a segment may have: the largest that fit allocation classes of jemalloc, about a sixth
/// apart, so that growing wastes neither slots nor allocator space.
pub(super) const BUCKET_STEPS: [u16; 27] = [
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
/// A slot on its way from one segment to another.
#[derive(Clone, Copy)]
struct Moved {
    slot: Slot,
    tag: u8,
}

/// Each function returns the new segments; the old handle is freed.
impl Segment {
    /// Whether a segment without room should split rather than grow.
    pub(in crate::keyspace) fn splits(self) -> bool {
        self.buckets() >= usize::from(SPLIT_BUCKETS)
    }

    /// Whether so few entries are left that a smaller segment would do.
    pub(in crate::keyspace) fn is_sparse(self) -> bool {
        self.buckets() > usize::from(BUCKET_STEPS[0])
            && self.entries() * 1024 < self.slot_count() * SHRINK_LOAD
    }

    /// Whether two siblings are small enough to join.
    pub(in crate::keyspace) fn joins(self, sibling: Self) -> bool {
        let capacity = usize::from(SPLIT_BUCKETS) * BUCKET_SLOTS;
        (self.entries() + sibling.entries()) * 1024 < capacity * JOIN_LOAD
    }

    /// The same entries in the next larger number of buckets.
    pub(in crate::keyspace) fn grow(self) -> Self {
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
    pub(in crate::keyspace) fn shrink(self) -> Self {
        let moved = self.moved(Some);
        self.replaced_by(0, self.depth(), self.known_bits(), &moved)
    }

    /// Two segments one bit deeper: lower and upper half.
    pub(in crate::keyspace) fn split(self, hasher: &KeyHasher) -> (Self, Self) {
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
    pub(in crate::keyspace) fn join(self, upper: Self) -> Self {
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
    pub(in crate::keyspace) fn for_each_entry(self, mut f: impl FnMut(&Entry)) {
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
    pub(in crate::keyspace) fn prefetch_slot(self, index: usize) {
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

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;

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
