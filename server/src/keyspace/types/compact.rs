//! The flat encoding that small collections share: Redis's listpack, byte for byte.
//!
//! Owns: [`Listpack`], one exact-size allocation that holds exactly the bytes that Redis would
//! store and dump. Called by: `list.rs`, `hash.rs`, `set.rs`, `sorted_set.rs`, and the RDB code,
//! which copies the bytes as they are.
//!
//! ```text
//! +-----------------+----------------------+---------+-----+------+
//! | all bytes: u32  | elements: u16, 65535 | entries |  …  | 0xFF |
//! | little endian   | = not known          |         |     |      |
//! +-----------------+----------------------+---------+-----+------+
//! ```
//!
//! Invariant: the bytes are a valid listpack ([`Listpack::from_bytes`] checks every entry), so
//! walking from a position that this type handed out, and that no change has made stale, stays on
//! entry borders. A stale position gives wrong elements, never undefined behaviour.
//!
//! Not done here: what elements mean (pairs, order, uniqueness).

use thiserror::Error;

use super::{
    entry::{self, Element, Encoded, Needle},
    thin::{MAX_BYTES, Thin, ThinBytes},
};

/// Bytes in front of the first entry.
const HEADER_BYTES: usize = 6;
/// The byte behind the last entry.
const END_MARK: u8 = 0xff;
/// The count that means "walk to find out".
const COUNT_UNKNOWN: u16 = u16::MAX;
/// Largest listpack that elements are added to; larger ones must become tables first. Redis has
/// the same limit, for the same reason: every change copies the bytes.
pub const MAX_SAFE_BYTES: usize = 1 << 30;

/// Why bytes are not a value.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum CompactError {
    /// The header's length is not the number of bytes, or the end mark is missing.
    #[error("compact encoding: wrong length or missing end mark")]
    Frame,
    /// An entry is malformed.
    #[error("compact encoding: malformed entry at byte {0}")]
    Entry(usize),
    /// The header's count is not the number of entries.
    #[error("compact encoding: the header counts {0} entries, there are {1}")]
    Count(usize, usize),
    /// An element occurs twice where elements must be unique.
    #[error("compact encoding: duplicate element")]
    Duplicate,
    /// Pairs with half a pair at the end.
    #[error("compact encoding: odd number of elements where pairs are expected")]
    OddPairs,
    /// A score is not a number.
    #[error("compact encoding: a score that is not a number")]
    Score,
    /// Integers that are not in order.
    #[error("compact encoding: integers out of order")]
    Order,
    /// A collection without elements, which cannot exist as a key.
    #[error("compact encoding: empty collection")]
    Empty,
    /// More bytes than a collection element may have.
    #[error("compact encoding: larger than the limit of an element")]
    TooLarge,
}

/// Offset of an entry in its listpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(usize);

/// An owned listpack.
#[derive(Clone)]
#[repr(transparent)]
pub struct Listpack(ThinBytes);

// SAFETY: it is transparent.
#[allow(unsafe_code, reason = "a promise about the line above")]
unsafe impl Thin for Listpack {}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// An empty one.
    pub fn new() -> Self {
        Self(ThinBytes::concat(&[&[0, 0, END_MARK]]))
    }

    /// Checks bytes from outside entry by entry and copies them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CompactError> {
        let (Some(length), Some(count)) = (bytes.first_chunk::<4>(), bytes.get(4..HEADER_BYTES))
        else {
            return Err(CompactError::Frame);
        };
        if u32::from_le_bytes(*length) as usize != bytes.len()
            || bytes.len() <= HEADER_BYTES
            || bytes.last() != Some(&END_MARK)
        {
            return Err(CompactError::Frame);
        }
        let count = u16::from_le_bytes([count[0], count[1]]);
        let found = count_entries(&bytes[..bytes.len() - 1])?;
        if count != COUNT_UNKNOWN && usize::from(count) != found {
            return Err(CompactError::Count(usize::from(count), found));
        }
        Ok(Self(ThinBytes::concat(&[&bytes[4..]])))
    }

    /// Wraps entries that are known to be valid.
    pub(super) fn from_entries(entries: &[u8], count: usize) -> Self {
        let count = u16::try_from(count).unwrap_or(COUNT_UNKNOWN).to_le_bytes();
        Self(ThinBytes::concat(&[&count, entries, &[END_MARK]]))
    }

    /// The bytes, as Redis stores them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The bytes of the entries alone.
    pub(super) fn entries(&self) -> &[u8] {
        let bytes = self.as_bytes();
        &bytes[HEADER_BYTES..bytes.len() - 1]
    }

    /// Number of bytes.
    pub fn byte_len(&self) -> usize {
        self.0.total()
    }

    /// Number of elements; walks all of them from 65535 on.
    pub fn len(&self) -> usize {
        match self.stored_count() {
            COUNT_UNKNOWN => self.iter().count(),
            count => usize::from(count),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.byte_len() == HEADER_BYTES + 1
    }

    fn stored_count(&self) -> u16 {
        let body = self.0.body();
        u16::from_le_bytes([body[0], body[1]])
    }

    fn add_to_count(&mut self, added: usize, removed: usize) {
        let count = self.stored_count();
        if count != COUNT_UNKNOWN {
            let new = usize::from(count) + added - removed;
            let new = u16::try_from(new).unwrap_or(COUNT_UNKNOWN);
            self.0.body_mut()[..2].copy_from_slice(&new.to_le_bytes());
        }
    }

    /// Whether `bytes` more may be added to this encoding at all.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.byte_len().saturating_add(bytes) <= MAX_SAFE_BYTES.min(MAX_BYTES)
    }

    fn end(&self) -> usize {
        self.byte_len() - 1
    }

    fn checked(&self, at: usize) -> Option<Position> {
        (at < self.end()).then_some(Position(at))
    }

    /// The first entry.
    pub fn first(&self) -> Option<Position> {
        self.checked(HEADER_BYTES)
    }

    /// The last entry.
    pub fn last(&self) -> Option<Position> {
        self.before(self.end())
    }

    /// The entry behind `position`.
    pub fn next(&self, position: Position) -> Option<Position> {
        let (_, next) = entry::decode(self.as_bytes(), position.0)?;
        self.checked(next)
    }

    /// The entry in front of `position`.
    pub fn previous(&self, position: Position) -> Option<Position> {
        self.before(position.0)
    }

    fn before(&self, at: usize) -> Option<Position> {
        let start = entry::previous(self.as_bytes(), at)?;
        (at > HEADER_BYTES && start >= HEADER_BYTES).then_some(Position(start))
    }

    /// The element at `position`.
    pub fn get(&self, position: Position) -> Option<Element<'_>> {
        entry::decode(self.as_bytes(), position.0).map(|(element, _)| element)
    }

    /// The entry with this index; negative ones count from the end.
    pub fn seek(&self, index: i64) -> Option<Position> {
        let count = self.stored_count();
        let backward = if index < 0 {
            Some(index.unsigned_abs() as usize - 1)
        } else if count != COUNT_UNKNOWN && index >= i64::from(count) / 2 {
            Some(
                (i64::from(count) - 1)
                    .checked_sub(index)
                    .and_then(|n| usize::try_from(n).ok())?,
            )
        } else {
            None
        };
        if let Some(steps) = backward {
            let mut position = self.last()?;
            for _ in 0..steps {
                position = self.previous(position)?;
            }
            return Some(position);
        }
        let mut position = self.first()?;
        for _ in 0..index {
            position = self.next(position)?;
        }
        Some(position)
    }

    /// Adds an element at the end.
    pub fn push_back(&mut self, text: &[u8]) {
        self.insert_at(self.end(), text);
    }

    /// Adds an element at the front.
    pub fn push_front(&mut self, text: &[u8]) {
        self.insert_at(HEADER_BYTES, text);
    }

    /// Adds two elements at the end, with one reallocation.
    pub fn push_pair(&mut self, first: &[u8], second: &[u8]) {
        self.insert_pair_at(self.end(), first, second);
    }

    /// Adds an element in front of `position`.
    pub fn insert_before(&mut self, position: Position, text: &[u8]) {
        self.insert_at(position.0, text);
    }

    /// Adds two elements in front of `position`.
    pub fn insert_pair_before(&mut self, position: Position, first: &[u8], second: &[u8]) {
        self.insert_pair_at(position.0, first, second);
    }

    /// Adds an element behind `position`.
    pub fn insert_after(&mut self, position: Position, text: &[u8]) {
        let at = self.next(position).map_or(self.end(), |next| next.0);
        self.insert_at(at, text);
    }

    fn insert_at(&mut self, at: usize, text: &[u8]) {
        self.0.splice(at, 0, &Encoded::new(text).parts());
        self.add_to_count(1, 0);
    }

    fn insert_pair_at(&mut self, at: usize, first: &[u8], second: &[u8]) {
        let (first, second) = (Encoded::new(first), Encoded::new(second));
        let ([a, b, c], [d, e, f]) = (first.parts(), second.parts());
        self.0.splice(at, 0, &[a, b, c, d, e, f]);
        self.add_to_count(2, 0);
    }

    /// Replaces the element at `position`, which stays the position of the new one.
    pub fn replace(&mut self, position: Position, text: &[u8]) {
        let next = self.next(position).map_or(self.end(), |next| next.0);
        self.0
            .splice(position.0, next - position.0, &Encoded::new(text).parts());
    }

    /// Removes up to `count` elements from `position` on and answers how many there were.
    /// `position` is then that of the element behind them, unless there is none.
    pub fn remove(&mut self, position: Position, count: usize) -> usize {
        let mut end = position.0;
        let mut removed = 0;
        while removed < count
            && let Some((_, next)) = entry::decode(self.as_bytes(), end)
        {
            end = next;
            removed += 1;
        }
        if removed > 0 {
            self.0.splice(position.0, end - position.0, &[]);
            self.add_to_count(0, removed);
        }
        removed
    }

    /// The position itself, if there is an entry at it (after a removal).
    pub fn settle(&self, position: Position) -> Option<Position> {
        self.checked(position.0)
    }

    /// The first element from `start` on whose text is `text`, looking at every `stride`-th.
    pub fn find(&self, start: Position, text: &[u8], stride: usize) -> Option<Position> {
        let needle = Needle::new(text);
        let bytes = self.as_bytes();
        let mut at = start.0;
        let mut skip = 0;
        while let Some((element, next)) = entry::decode(bytes, at) {
            if skip == 0 {
                if needle.matches(element) {
                    return Some(Position(at));
                }
                skip = stride;
            }
            skip -= 1;
            at = next;
        }
        None
    }

    /// All elements, from either end.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            bytes: self.as_bytes(),
            front: HEADER_BYTES,
            back: self.end(),
        }
    }

    /// Elements from `position` to the end.
    pub fn iter_from(&self, position: Position) -> Iter<'_> {
        Iter {
            bytes: self.as_bytes(),
            front: position.0,
            back: self.end(),
        }
    }

    /// Consecutive elements two by two.
    pub fn pairs(&self) -> Pairs<'_> {
        Pairs(self.iter())
    }
}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Number of entries in the bytes of a listpack without its end mark, all of which are checked.
fn count_entries(bytes: &[u8]) -> Result<usize, CompactError> {
    let mut at = HEADER_BYTES;
    let mut count = 0;
    while at < bytes.len() {
        let (_, next) = entry::decode(bytes, at).ok_or(CompactError::Entry(at))?;
        if !entry::back_length_is_valid(bytes, at, next) {
            return Err(CompactError::Entry(at));
        }
        at = next;
        count += 1;
    }
    Ok(count)
}

/// Elements of a listpack or of a run of entries.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
}

impl<'a> Iter<'a> {
    /// Over a run of valid entries.
    pub(super) fn over(entries: &'a [u8]) -> Self {
        Self {
            bytes: entries,
            front: 0,
            back: entries.len(),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.front >= self.back {
            return None;
        }
        let (element, next) = entry::decode(self.bytes, self.front)?;
        self.front = next;
        Some(element)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let start = entry::previous(self.bytes, self.back)?;
        self.back = start;
        entry::decode(self.bytes, start).map(|(element, _)| element)
    }
}

/// Elements two by two.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(Iter<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Element<'a>, Element<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

impl DoubleEndedIterator for Pairs<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let second = self.0.next_back()?;
        Some((self.0.next_back()?, second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            any::<i64>().prop_map(|value| value.to_string().into_bytes()),
            (0i64..200).prop_map(|value| value.to_string().into_bytes()),
            (4000usize..5000).prop_map(|length| vec![b'z'; length]),
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Front(Vec<u8>),
        Back(Vec<u8>),
        Before(usize, Vec<u8>),
        After(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            element().prop_map(Step::Front),
            element().prop_map(Step::Back),
            (0usize..40, element()).prop_map(|(at, text)| Step::Before(at, text)),
            (0usize..40, element()).prop_map(|(at, text)| Step::After(at, text)),
            (0usize..40, element()).prop_map(|(at, text)| Step::Replace(at, text)),
            (0usize..40, 0usize..4).prop_map(|(at, count)| Step::Remove(at, count)),
        ]
    }

    fn apply(pack: &mut Listpack, model: &mut Vec<Vec<u8>>, step: Step) {
        match step {
            Step::Front(text) => {
                pack.push_front(&text);
                model.insert(0, text);
            }
            Step::Back(text) => {
                pack.push_back(&text);
                model.push(text);
            }
            Step::Before(at, text) => {
                let Some(position) = pack.seek(at as i64) else {
                    return;
                };
                pack.insert_before(position, &text);
                model.insert(at, text);
            }
            Step::After(at, text) => {
                let Some(position) = pack.seek(at as i64) else {
                    return;
                };
                pack.insert_after(position, &text);
                model.insert(at + 1, text);
            }
            Step::Replace(at, text) => {
                let Some(position) = pack.seek(at as i64) else {
                    return;
                };
                pack.replace(position, &text);
                model[at] = text;
            }
            Step::Remove(at, count) => {
                let Some(position) = pack.seek(at as i64) else {
                    return;
                };
                let end = model.len().min(at + count);
                assert_eq!(pack.remove(position, count), end - at);
                model.drain(at..end);
            }
        }
    }

    proptest! {
        #[test]
        fn any_history_equals_a_vector(steps in proptest::collection::vec(step(), 0..60)) {
            let mut pack = Listpack::new();
            let mut model = Vec::new();
            for step in steps {
                apply(&mut pack, &mut model, step);
                prop_assert_eq!(pack.len(), model.len());
            }
            let forward: Vec<_> = pack.iter().map(Element::to_vec).collect();
            prop_assert_eq!(&forward, &model);
            let mut backward: Vec<_> = pack.iter().rev().map(Element::to_vec).collect();
            backward.reverse();
            prop_assert_eq!(&backward, &model);
            for (index, text) in model.iter().enumerate() {
                let from_end = index as i64 - model.len() as i64;
                prop_assert_eq!(pack.seek(index as i64), pack.seek(from_end));
                let first = model.iter().position(|other| other == text).map(|n| n as i64);
                let found = pack.find(pack.first().unwrap(), text, 1);
                prop_assert_eq!(found, pack.seek(first.unwrap()));
            }
            let again = Listpack::from_bytes(pack.as_bytes()).unwrap();
            prop_assert_eq!(again.as_bytes(), pack.as_bytes());
        }

        #[test]
        fn hostile_bytes_are_refused_or_walk_cleanly(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60),
            frame: bool,
        ) {
            if frame && bytes.len() > HEADER_BYTES {
                let length = (bytes.len() as u32).to_le_bytes();
                bytes[..4].copy_from_slice(&length);
                bytes[4..6].copy_from_slice(&[255, 255]);
                *bytes.last_mut().unwrap() = END_MARK;
            }
            if let Ok(pack) = Listpack::from_bytes(&bytes) {
                prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(
            texts in proptest::collection::vec(element(), 1..10), at: usize, to: u8,
        ) {
            let mut pack = Listpack::new();
            texts.iter().for_each(|text| pack.push_back(text));
            let mut bytes = pack.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(pack) = Listpack::from_bytes(&bytes) {
                prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
            }
        }
    }

    #[test]
    fn bytes_are_those_of_redis() {
        let mut pack = Listpack::new();
        pack.push_back(b"a");
        pack.push_back(b"5");
        assert_eq!(
            pack.as_bytes(),
            [12, 0, 0, 0, 2, 0, 0x81, b'a', 2, 5, 1, 0xff]
        );
    }

    #[test]
    fn the_count_beyond_65534_is_walked() {
        let mut pack = Listpack::from_entries(&[1u8; 2 * 65534], 65534);
        assert_eq!((pack.stored_count(), pack.len()), (65534, 65534));
        pack.push_back(b"1");
        assert_eq!((pack.stored_count(), pack.len()), (COUNT_UNKNOWN, 65535));
        pack.remove(Position(HEADER_BYTES), 2);
        assert_eq!(pack.len(), 65533);
    }
}
