//! Sets of integers: a sorted array of 16, 32 or 64-bit numbers in Redis's byte layout.
//!
//! Owns: [`IntSet`]. Called by: `set.rs`, and the RDB code for the bytes.
//!
//! ```text
//! in memory:  | all bytes: u32 | width: u32 | numbers, ascending, little endian |
//! in a dump:  | width: u32     | count: u32 | numbers, ascending, little endian |
//! ```
//!
//! Invariants: numbers are strictly ascending; the width (2, 4 or 8 bytes) never shrinks.

use super::{
    compact::CompactError,
    thin::{PREFIX_BYTES, ThinBytes},
};

/// Bytes in front of the numbers, in memory and in a dump.
const HEADER_BYTES: usize = 8;

/// An owned set of integers.
#[derive(Clone)]
pub struct IntSet(ThinBytes);

impl Default for IntSet {
    fn default() -> Self {
        Self::new()
    }
}

/// The least width that holds `value`.
fn width_for(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

/// The number in `bytes`, which has 2, 4 or 8 of them.
#[inline]
fn read(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        _ => {
            let mut wide = [0; 8];
            let length = bytes.len().min(8);
            wide[..length].copy_from_slice(&bytes[..length]);
            i64::from_le_bytes(wide)
        }
    }
}

impl IntSet {
    /// An empty one.
    pub fn new() -> Self {
        Self(ThinBytes::concat(&[&2u32.to_le_bytes()]))
    }

    /// Checks the bytes of a dump and copies them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CompactError> {
        let (Some(width), Some(count)) = (
            bytes.first_chunk::<4>(),
            bytes.get(4..).and_then(|rest| rest.first_chunk::<4>()),
        ) else {
            return Err(CompactError::Frame);
        };
        let numbers = &bytes[HEADER_BYTES..];
        let size = u32::from_le_bytes(*width) as usize;
        let expected = (u32::from_le_bytes(*count) as usize).checked_mul(size);
        if !matches!(size, 2 | 4 | 8) || expected != Some(numbers.len()) {
            return Err(CompactError::Frame);
        }
        let ascending = numbers
            .chunks_exact(size)
            .zip(numbers.chunks_exact(size).skip(1))
            .all(|(one, next)| read(one) < read(next));
        if !ascending {
            return Err(CompactError::Order);
        }
        Ok(Self(ThinBytes::concat(&[width, numbers])))
    }

    /// The bytes of a dump.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.total());
        bytes.extend_from_slice(&(self.width() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.numbers());
        bytes
    }

    fn width(&self) -> usize {
        usize::from(self.0.body()[0])
    }

    fn numbers(&self) -> &[u8] {
        &self.0.as_bytes()[HEADER_BYTES..]
    }

    /// Bytes of the allocation.
    pub fn byte_len(&self) -> usize {
        self.0.total()
    }

    /// Number of integers.
    pub fn len(&self) -> usize {
        self.numbers().len() / self.width()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers().is_empty()
    }

    /// The integer with this index, in ascending order.
    pub fn get(&self, index: usize) -> Option<i64> {
        let width = self.width();
        let start = index.checked_mul(width)?;
        self.numbers().get(start..start + width).map(read)
    }

    /// The index of `value`, or where it belongs.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        match self.len().checked_sub(1).and_then(|last| self.get(last)) {
            Some(last) if value > last => return Err(high),
            Some(_) => {}
            None => return Err(0),
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).map(|found| found.cmp(&value)) {
                Some(std::cmp::Ordering::Less) => low = middle + 1,
                Some(std::cmp::Ordering::Equal) => return Ok(middle),
                Some(std::cmp::Ordering::Greater) | None => high = middle,
            }
        }
        Err(low)
    }

    /// Whether it holds `value`.
    pub fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// Adds `value`; answers whether it is new.
    pub fn insert(&mut self, value: i64) -> bool {
        if width_for(value) > self.width() {
            self.widen(width_for(value));
        }
        let Err(index) = self.search(value) else {
            return false;
        };
        let width = self.width();
        let at = HEADER_BYTES + index * width;
        self.0.splice(at, 0, &[&value.to_le_bytes()[..width]]);
        true
    }

    fn widen(&mut self, width: usize) {
        let mut bytes = Vec::with_capacity(4 + self.len() * width);
        bytes.extend_from_slice(&(width as u32).to_le_bytes());
        for value in self.iter() {
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        self.0 = ThinBytes::concat(&[&bytes]);
    }

    /// Removes `value`; answers whether it was there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(index) = self.search(value) else {
            return false;
        };
        let width = self.width();
        self.0.splice(HEADER_BYTES + index * width, width, &[]);
        true
    }

    /// All integers in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + Clone + '_ {
        self.numbers().chunks_exact(self.width()).map(read)
    }
}

impl std::fmt::Debug for IntSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

const _: () = assert!(PREFIX_BYTES + 4 == HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn any_history_equals_a_sorted_set(steps in proptest::collection::vec(
            (any::<bool>(), prop_oneof![-40i64..40, any::<i16>().prop_map(i64::from),
                any::<i32>().prop_map(i64::from), any::<i64>()]), 0..200)) {
            let mut set = IntSet::new();
            let mut model = BTreeSet::new();
            for (add, value) in steps {
                if add {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert_eq!(set.contains(value), model.contains(&value));
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            let again = IntSet::from_bytes(&set.to_bytes()).unwrap();
            prop_assert_eq!(again.to_bytes(), set.to_bytes());
        }

        #[test]
        fn hostile_bytes_are_refused_or_sorted(
            width in prop_oneof![Just(2u32), Just(4), Just(8), any::<u32>()],
            count in prop_oneof![0u32..8, any::<u32>()],
            numbers in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [&width.to_le_bytes(), &count.to_le_bytes(), numbers.as_slice()].concat();
            if let Ok(set) = IntSet::from_bytes(&bytes) {
                prop_assert!(set.iter().is_sorted());
                prop_assert_eq!(set.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn bytes_are_those_of_redis() {
        let mut set = IntSet::new();
        set.insert(5);
        set.insert(-1);
        assert_eq!(set.to_bytes(), [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0]);
        set.insert(70_000);
        assert_eq!(
            set.to_bytes()[..12],
            [4, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
        );
    }
}
