//! The hash table of big collections: linear hashing, which grows and shrinks one bucket at a time.
//!
//! Owns: [`StepTable`]. Called by: `hash.rs`, `set.rs`, `sorted_set.rs`. Elements are of pointer
//! size and carry 16 bits of their hash ([`Tagged`]), so that a lookup touches an element's bytes
//! only where those bits agree.
//!
//! With `n` buckets and `2^level <= n < 2^(level+1)`, an element lies in bucket
//! `hash mod 2^(level+1)`, or `hash mod 2^level` where the former does not exist yet. Adding bucket
//! `n` therefore takes elements from the single bucket `n - 2^level`: that is the whole cost of a
//! growth step, and it happens once every few insertions. There is no directory to double.
//!
//! SCAN: in the order of the bit-reversed hash every bucket covers one aligned range, and a step
//! splits or joins ranges without reordering them. A cursor is a place in that order, so elements
//! that stay in the table during the whole scan are reported at least once, whatever the table
//! does meanwhile. It is handed out bit-reversed, which makes it a small number.
//!
//! Invariants: `len` is the sum of the bucket lengths; every element is in its hash's bucket.

/// Bits of the hash that an element keeps.
pub trait Tagged {
    /// What [`tag_of`] answered for its hash.
    fn tag(&self) -> u16;
}

/// The bits of a hash that elements keep: the top ones, which do not choose the bucket.
#[inline]
pub fn tag_of(hash: u64) -> u16 {
    (hash >> 48) as u16
}

/// Mean number of elements of a bucket at which a bucket is added.
const GROW_ELEMENTS: usize = 16;
/// Mean number of elements of a bucket below which a bucket is given up.
const SHRINK_ELEMENTS: usize = 4;
/// Elements by which a full bucket grows: few, because this is where memory would be lost.
const BUCKET_STEP_ELEMENTS: usize = 4;
/// Buckets that are allocated together.
const CHUNK_BUCKETS: usize = 1024;
/// Bucket length from which elements are drawn at random; longer buckets practically never occur.
const DRAW_ELEMENTS: usize = 64;
/// Draws before the fallback to the next element found.
const MAX_DRAWS: usize = 2000;

type Bucket<E> = Vec<E>;

/// A hash table that grows in steps.
#[derive(Debug)]
pub struct StepTable<E> {
    chunks: Vec<Vec<Bucket<E>>>,
    buckets: usize,
    len: usize,
}

impl<E: Tagged> Default for StepTable<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Tagged> StepTable<E> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            chunks: vec![vec![Vec::new()]],
            buckets: 1,
            len: 0,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the table itself occupies, the elements' own memory not included.
    pub fn table_bytes(&self) -> usize {
        let slack = BUCKET_STEP_ELEMENTS / 2 * self.buckets;
        self.buckets * size_of::<Bucket<E>>() + (self.len + slack) * size_of::<E>()
    }

    fn level(&self) -> u32 {
        self.buckets.ilog2()
    }

    /// The bucket of a hash.
    #[inline]
    fn address(&self, hash: u64) -> usize {
        let half = 1u64 << self.level();
        let wide = (hash & (2 * half - 1)) as usize;
        if wide < self.buckets {
            wide
        } else {
            wide - half as usize
        }
    }

    #[inline]
    fn bucket(&self, address: usize) -> &Bucket<E> {
        &self.chunks[address / CHUNK_BUCKETS][address % CHUNK_BUCKETS]
    }

    #[inline]
    fn bucket_mut(&mut self, address: usize) -> &mut Bucket<E> {
        &mut self.chunks[address / CHUNK_BUCKETS][address % CHUNK_BUCKETS]
    }

    /// The element with this hash for which `is` holds.
    #[inline]
    pub fn find(&self, hash: u64, mut is: impl FnMut(&E) -> bool) -> Option<&E> {
        let tag = tag_of(hash);
        self.bucket(self.address(hash))
            .iter()
            .find(|element| element.tag() == tag && is(element))
    }

    /// As [`StepTable::find`], to change the element (not its hash).
    #[inline]
    pub fn find_mut(&mut self, hash: u64, mut is: impl FnMut(&E) -> bool) -> Option<&mut E> {
        let tag = tag_of(hash);
        let address = self.address(hash);
        let bucket = self.bucket_mut(address);
        bucket
            .iter_mut()
            .find(|element| element.tag() == tag && is(element))
    }

    /// Adds an element that is not in the table. `hash_of` answers the hash of any element.
    pub fn insert_new(&mut self, hash: u64, element: E, hash_of: impl Fn(&E) -> u64) {
        let address = self.address(hash);
        push_tight(self.bucket_mut(address), element);
        self.len += 1;
        if self.len > self.buckets * GROW_ELEMENTS {
            self.split_one(hash_of);
        }
    }

    /// Removes the element with this hash for which `is` holds.
    pub fn remove(&mut self, hash: u64, mut is: impl FnMut(&E) -> bool) -> Option<E> {
        let tag = tag_of(hash);
        let address = self.address(hash);
        let bucket = self.bucket_mut(address);
        let index = bucket
            .iter()
            .position(|element| element.tag() == tag && is(element))?;
        let element = bucket.swap_remove(index);
        if bucket.capacity() - bucket.len() >= 2 * BUCKET_STEP_ELEMENTS {
            bucket.shrink_to(bucket.len());
        }
        self.len -= 1;
        if self.buckets > 1 && self.len < self.buckets * SHRINK_ELEMENTS {
            self.join_one();
        }
        Some(element)
    }

    /// Adds one bucket and moves its elements there.
    fn split_one(&mut self, hash_of: impl Fn(&E) -> u64) {
        let new = self.buckets;
        let half = 1usize << self.level();
        let mask = 2 * half as u64 - 1;
        let old = self.bucket_mut(new - half);
        let mut moved = Vec::new();
        let mut kept = Vec::new();
        let count = old
            .iter()
            .filter(|element| hash_of(element) & mask == new as u64)
            .count();
        moved.reserve_exact(count);
        kept.reserve_exact(old.len() - count);
        for element in old.drain(..) {
            if hash_of(&element) & mask == new as u64 {
                moved.push(element);
            } else {
                kept.push(element);
            }
        }
        *old = kept;
        if new.is_multiple_of(CHUNK_BUCKETS) {
            self.chunks.push(Vec::new());
        }
        self.chunks[new / CHUNK_BUCKETS].push(moved);
        self.buckets += 1;
    }

    /// Gives up the last bucket.
    fn join_one(&mut self) {
        let last = self.buckets - 1;
        let chunk = &mut self.chunks[last / CHUNK_BUCKETS];
        let Some(elements) = chunk.pop() else { return };
        if chunk.is_empty() {
            self.chunks.pop();
        } else if chunk.capacity() > 4 * chunk.len() {
            chunk.shrink_to(2 * chunk.len());
        }
        self.buckets = last;
        let target = last - (1usize << last.ilog2());
        let bucket = self.bucket_mut(target);
        bucket.reserve_exact(elements.len());
        bucket.extend(elements);
    }

    /// All elements, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.chunks.iter().flatten().flatten()
    }

    /// Takes all elements out, in no order.
    pub fn into_elements(self) -> impl Iterator<Item = E> {
        self.chunks.into_iter().flatten().flatten()
    }

    /// An element drawn with equal chances; `below(n)` draws a number under `n`.
    pub fn random(&self, below: &mut dyn FnMut(usize) -> usize) -> Option<&E> {
        if self.len == 0 {
            return None;
        }
        for _ in 0..MAX_DRAWS {
            let bucket = self.bucket(below(self.buckets));
            if let Some(element) = bucket.get(below(DRAW_ELEMENTS)) {
                return Some(element);
            }
        }
        let start = below(self.buckets);
        (0..self.buckets)
            .map(|offset| self.bucket((start + offset) % self.buckets))
            .find_map(|bucket| bucket.first())
    }

    /// Reports the elements of one bucket, beginning with cursor 0, and answers the next cursor;
    /// 0 when all have been reported.
    pub fn scan(&self, cursor: u64, visit: &mut dyn FnMut(&E)) -> u64 {
        let address = self.address(cursor);
        self.bucket(address).iter().for_each(visit);
        let (_, end) = self.range(cursor.reverse_bits());
        end.map_or(0, u64::reverse_bits)
    }

    /// The places (bit-reversed hashes) that the bucket of `place` covers: the first, and the
    /// first behind them, `None` where there is none.
    fn range(&self, place: u64) -> (u64, Option<u64>) {
        let address = self.address(place.reverse_bits());
        let half = 1usize << self.level();
        let is_split = address >= half || address < self.buckets - half;
        let depth = self.level() + u32::from(is_split);
        if depth == 0 {
            return (0, None);
        }
        let start = place >> (64 - depth) << (64 - depth);
        (start, start.checked_add(1 << (64 - depth)))
    }

    /// Visits the elements of one bucket whose place, the bit-reversed hash, is not before
    /// `place`; answers where to go on, `None` at the end. A walk from 0 meets every element that
    /// stays exactly once, whatever the table does between two calls.
    pub fn walk(
        &self,
        place: u64,
        hash_of: impl Fn(&E) -> u64,
        visit: &mut dyn FnMut(&E),
    ) -> Option<u64> {
        let (start, end) = self.range(place);
        let bucket = self.bucket(self.address(place.reverse_bits()));
        for element in bucket {
            // Only after buckets were joined does a place lie within one.
            if start == place || hash_of(element).reverse_bits() >= place {
                visit(element);
            }
        }
        end
    }
}

/// Adds to a bucket with little spare room.
#[inline]
fn push_tight<E>(bucket: &mut Bucket<E>, element: E) {
    if bucket.len() == bucket.capacity() {
        bucket.reserve_exact(BUCKET_STEP_ELEMENTS);
    }
    bucket.push(element);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::types::hashing::hash_bytes;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    struct Key(u64);

    impl Tagged for Key {
        fn tag(&self) -> u16 {
            tag_of(hash(self.0))
        }
    }

    fn hash(key: u64) -> u64 {
        hash_bytes(&key.to_le_bytes())
    }

    fn insert(table: &mut StepTable<Key>, key: u64) -> bool {
        let new = table.find(hash(key), |found| found.0 == key).is_none();
        if new {
            table.insert_new(hash(key), Key(key), |key| hash(key.0));
        }
        new
    }

    fn remove(table: &mut StepTable<Key>, key: u64) -> bool {
        table.remove(hash(key), |found| found.0 == key).is_some()
    }

    proptest! {
        #[test]
        fn any_history_equals_a_set(steps in proptest::collection::vec(
            (0u8..3, 0u64..400), 0..3000)) {
            let mut table = StepTable::new();
            let mut model = BTreeSet::new();
            for (kind, key) in steps {
                if kind > 0 {
                    prop_assert_eq!(insert(&mut table, key), model.insert(key));
                } else {
                    prop_assert_eq!(remove(&mut table, key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let all: BTreeSet<u64> = table.iter().map(|key| key.0).collect();
            prop_assert_eq!(all, model);
        }

        #[test]
        fn a_scan_reports_all_that_stays_while_others_come_and_go(
            seed: u64, stays in 1u64..600, churn in 0u64..3000, shrink: bool,
        ) {
            let mut table = StepTable::new();
            (0..stays).for_each(|key| { insert(&mut table, key); });
            if shrink {
                (stays..stays + churn).for_each(|key| { insert(&mut table, key); });
            }
            let mut seen = BTreeSet::new();
            let mut cursor = 0;
            let mut next = seed % 64;
            loop {
                cursor = table.scan(cursor, &mut |key| { seen.insert(key.0); });
                if cursor == 0 { break; }
                for _ in 0..next % 40 {
                    let key = stays + next % churn.max(1);
                    if shrink { remove(&mut table, key); } else { insert(&mut table, key); }
                    next += 1;
                }
                next += 1;
            }
            prop_assert!((0..stays).all(|key| seen.contains(&key)));
        }
    }

    proptest! {
        #[test]
        fn a_walk_meets_what_stays_exactly_once(
            stays in 1u64..600, churn in 1u64..3000, shrink: bool, seed: u64,
        ) {
            let mut table = StepTable::new();
            (0..stays).for_each(|key| { insert(&mut table, key); });
            if shrink {
                (stays..stays + churn).for_each(|key| { insert(&mut table, key); });
            }
            let (mut met, mut place, mut next) = (BTreeMap::new(), Some(0), seed % 64);
            while let Some(at) = place {
                let mut visit = |key: &Key| *met.entry(key.0).or_insert(0) += 1;
                place = table.walk(at, |key| hash(key.0), &mut visit);
                for _ in 0..next % 40 {
                    let key = stays + next % churn;
                    if shrink { remove(&mut table, key); } else { insert(&mut table, key); }
                    next += 1;
                }
                next += 1;
            }
            prop_assert!((0..stays).all(|key| met.get(&key) == Some(&1)));
            prop_assert!(met.values().all(|&times| times == 1));
        }
    }

    #[test]
    fn a_quiet_scan_reports_each_element_once() {
        for count in [0, 1, 16, 17, 100, 1000, 5000] {
            let mut table = StepTable::new();
            (0..count).for_each(|key| assert!(insert(&mut table, key)));
            let mut seen = BTreeMap::new();
            let mut cursor = 0;
            loop {
                cursor = table.scan(cursor, &mut |key| *seen.entry(key.0).or_insert(0) += 1);
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen.len() as u64, count);
            assert!(seen.values().all(|&times| times == 1));
        }
    }

    #[test]
    fn draws_are_even() {
        let mut table = StepTable::new();
        (0..100).for_each(|key| assert!(insert(&mut table, key)));
        let mut state = 1u64;
        let mut below = |bound: usize| {
            state = hash(state);
            (state % bound as u64) as usize
        };
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            counts[table.random(&mut below).unwrap().0 as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (850..1150).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn an_emptied_table_gives_its_buckets_back() {
        let mut table = StepTable::new();
        (0..100_000).for_each(|key| assert!(insert(&mut table, key)));
        (0..99_999).for_each(|key| assert!(remove(&mut table, key)));
        assert_eq!((table.buckets, table.chunks.len(), table.len()), (1, 1, 1));
    }
}
