//! Hashes: fields with values, one listpack of pairs while small, then a table.
//!
//! Owns: [`Hash`]. Called by: the hash commands and the RDB code. `OBJECT ENCODING` is `listpack`
//! or `hashtable`. A field of the table is one allocation:
//!
//! ```text
//! | length of the field: 1 byte, or 255 and u32 | field | value |
//! ```
//!
//! Invariants: fields are unique; once a table, a hash stays one (as in Redis).

use super::{
    EncodingLimits,
    compact::{CompactError, Listpack, Position},
    entry::Element,
    hashing::hash_bytes,
    step_table::{StepTable, Tagged, tag_of},
    thin::{OneOf, PREFIX_BYTES, TaggedBytes, ThinBytes, View},
    walk::{HashPlace, Hashed, Left, Piece, Slicing, Walk, Walking},
};

/// The length byte that says that four bytes of length follow.
const LONG_FIELD: u8 = 255;

/// A field of a table with its value.
#[derive(Debug)]
struct FieldEntry(TaggedBytes);

impl Tagged for FieldEntry {
    #[inline]
    fn tag(&self) -> u16 {
        self.0.tag()
    }
}

impl FieldEntry {
    fn new(hash: u64, field: &[u8], value: &[u8]) -> Self {
        let mut long = [LONG_FIELD; 5];
        let head = match u8::try_from(field.len()) {
            Ok(length) if length != LONG_FIELD => {
                long[0] = length;
                &long[..1]
            }
            Ok(_) | Err(_) => {
                long[1..].copy_from_slice(&(field.len() as u32).to_le_bytes());
                &long[..]
            }
        };
        Self(TaggedBytes::new(
            ThinBytes::concat(&[head, field, value]),
            tag_of(hash),
        ))
    }

    /// Where in the body the field starts and where its value does.
    #[inline]
    fn bounds(&self) -> (usize, usize) {
        match *self.0.body() {
            [LONG_FIELD, a, b, c, d, ..] => (5, 5 + u32::from_le_bytes([a, b, c, d]) as usize),
            [length, ..] => (1, 1 + usize::from(length)),
            [] => (0, 0),
        }
    }

    #[inline]
    fn field(&self) -> &[u8] {
        let (start, end) = self.bounds();
        &self.0.body()[start..end]
    }

    #[inline]
    fn value(&self) -> &[u8] {
        &self.0.body()[self.bounds().1..]
    }

    fn set_value(&mut self, value: &[u8]) {
        let start = self.bounds().1;
        let old = self.0.body().len() - start;
        self.0
            .update(|bytes| bytes.splice(PREFIX_BYTES + start, old, &[value]));
    }

    fn pair(&self) -> (Element<'_>, Element<'_>) {
        (Element::Text(self.field()), Element::Text(self.value()))
    }
}

impl Hashed for FieldEntry {
    type State = Box<[u8]>;

    fn text(&self) -> &[u8] {
        self.field()
    }

    fn piece(&self) -> Piece<'_> {
        let (field, value) = self.pair();
        Piece::Field(field, value)
    }

    fn kept_piece<'a>(field: &'a [u8], value: &'a Box<[u8]>) -> Piece<'a> {
        Piece::Field(Element::Text(field), Element::Text(value))
    }
}

/// What a write to a collection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The element is new.
    New,
    /// The element was there.
    Replaced,
}

/// A map from fields to values.
#[derive(Debug)]
pub struct Hash(OneOf<Listpack, Table>);

/// The fields of a big hash.
#[derive(Debug, Default)]
struct Table {
    fields: StepTable<FieldEntry>,
    walk: Walking<HashPlace, Box<[u8]>>,
}

impl Table {
    fn set(&mut self, field: &[u8], value: &[u8]) -> Written {
        let hash = hash_bytes(field);
        let found = self.fields.find_mut(hash, |entry| entry.field() == field);
        if let Some(walk) = &mut self.walk {
            walk.keep_hashed(hash, field, || Some(found.as_ref()?.value().into()));
        }
        if let Some(entry) = found {
            entry.set_value(value);
            return Written::Replaced;
        }
        let entry = FieldEntry::new(hash, field, value);
        self.fields.insert_new(hash, entry, FieldEntry::hash);
        Written::New
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let hash = hash_bytes(field);
        let removed = self.fields.remove(hash, |entry| entry.field() == field);
        if let (Some(walk), Some(entry)) = (&mut self.walk, &removed) {
            walk.keep_hashed(hash, field, || Some(entry.value().into()));
        }
        removed.is_some()
    }

    fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        let walk = self.walk.as_mut();
        walk.map_or(Left::Nothing, |walk| {
            walk.give_slice(&self.fields, budget, give)
        })
    }
}

const _: () = assert!(size_of::<Hash>() == 8);

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// A hash without fields.
    pub fn new() -> Self {
        Self(OneOf::small(Listpack::new()))
    }

    /// A hash from a listpack of pairs that came from outside.
    pub fn from_listpack(pack: Listpack, limits: &EncodingLimits) -> Result<Self, CompactError> {
        let elements = pack.iter().count();
        if elements == 0 {
            return Err(CompactError::Empty);
        }
        if elements % 2 == 1 {
            return Err(CompactError::OddPairs);
        }
        let largest = pack
            .iter()
            .map(|element| element.text().len())
            .max()
            .unwrap_or(0);
        if elements / 2 <= limits.hash_max_listpack_entries
            && largest <= limits.hash_max_listpack_value
        {
            super::convert::check_unique(pack.pairs().map(|(field, _)| field))?;
            return Ok(Self(OneOf::small(pack)));
        }
        let mut hash = Self(OneOf::big(Box::default()));
        for (field, value) in pack.pairs() {
            if hash.set(&field.text(), &value.text(), limits) == Written::Replaced {
                return Err(CompactError::Duplicate);
            }
        }
        Ok(hash)
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match self.0.view() {
            View::Small(pack) => pack.len() / 2,
            View::Big(table) => table.fields.len(),
        }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        match self.0.view() {
            View::Small(pack) => pack.is_empty(),
            View::Big(table) => table.fields.is_empty(),
        }
    }

    /// The name that `OBJECT ENCODING` shows.
    pub fn encoding(&self) -> &'static str {
        match self.0.view() {
            View::Small(_) => "listpack",
            View::Big(_) => "hashtable",
        }
    }

    /// The listpack of pairs, while it is one.
    pub fn listpack(&self) -> Option<&Listpack> {
        match self.0.view() {
            View::Small(pack) => Some(pack),
            View::Big(_) => None,
        }
    }

    /// Number of separate heap blocks, about: what freeing the hash costs.
    pub fn heap_elements(&self) -> usize {
        match self.0.view() {
            View::Small(_) => 1,
            View::Big(table) => table.fields.len(),
        }
    }

    /// Bytes of heap memory, extrapolated from `samples` fields (0: from all of them).
    pub fn memory_bytes(&self, samples: usize) -> usize {
        match self.0.view() {
            View::Small(pack) => pack.byte_len(),
            View::Big(table) => {
                let table = &table.fields;
                let sizes = table.iter().map(|entry| entry.0.total());
                table.table_bytes() + super::value::extrapolate(sizes, table.len(), samples)
            }
        }
    }

    /// Changes to a table if `fields` more fields, none of whose texts is longer than `largest`
    /// bytes, would exceed a limit. Commands call it once with all they are about to write.
    pub fn prepare_for(&mut self, fields: usize, largest: usize, limits: &EncodingLimits) {
        if let View::Small(pack) = self.0.view()
            && (fields > limits.hash_max_listpack_entries
                || largest > limits.hash_max_listpack_value
                || !pack.has_room_for(fields.saturating_mul(largest)))
        {
            self.become_table();
        }
    }

    fn become_table(&mut self) {
        let View::Small(pack) = self.0.view() else {
            return;
        };
        let mut table = Box::<Table>::default();
        for (field, value) in pack.pairs() {
            table.set(&field.text(), &value.text());
        }
        self.0 = OneOf::big(table);
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match self.0.view() {
            View::Small(pack) => pack.get(pack.next(find(pack, field)?)?),
            View::Big(table) => table
                .fields
                .find(hash_bytes(field), |entry| entry.field() == field)
                .map(|entry| Element::Text(entry.value())),
        }
    }

    /// Whether there is such a field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &EncodingLimits) -> Written {
        self.prepare_for(1, field.len().max(value.len()), limits);
        match self.0.view_mut() {
            View::Small(pack) => {
                if let Some(at) = find(pack, field).and_then(|at| pack.next(at)) {
                    pack.replace(at, value);
                    return Written::Replaced;
                }
                pack.push_pair(field, value);
                if pack.len() / 2 > limits.hash_max_listpack_entries {
                    self.become_table();
                }
                Written::New
            }
            View::Big(table) => table.set(field, value),
        }
    }

    /// Removes a field; answers whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self.0.view_mut() {
            View::Small(pack) => match find(pack, field) {
                Some(at) => pack.remove(at, 2) > 0,
                None => false,
            },
            View::Big(table) => table.remove(field),
        }
    }

    /// Fields with values, in no order that clients may rely on.
    pub fn iter(&self) -> impl Iterator<Item = (Element<'_>, Element<'_>)> {
        let (pack, table) = match self.0.view() {
            View::Small(pack) => (Some(pack.pairs()), None),
            View::Big(table) => (None, Some(table.fields.iter().map(FieldEntry::pair))),
        };
        pack.into_iter()
            .flatten()
            .chain(table.into_iter().flatten())
    }

    /// A field drawn with equal chances; `below(n)` draws a number under `n`.
    pub fn random(
        &self,
        below: &mut dyn FnMut(usize) -> usize,
    ) -> Option<(Element<'_>, Element<'_>)> {
        match self.0.view() {
            View::Small(pack) => {
                let count = self.len();
                if count == 0 {
                    return None;
                }
                let at = pack.seek(i64::try_from(2 * below(count)).ok()?)?;
                Some((pack.get(at)?, pack.get(pack.next(at)?)?))
            }
            View::Big(table) => table.fields.random(below).map(FieldEntry::pair),
        }
    }

    /// One step of a scan from `cursor`, which is 0 at its beginning and, as an answer, at its end.
    pub fn scan(&self, cursor: u64, visit: &mut dyn FnMut(Element<'_>, Element<'_>)) -> u64 {
        match self.0.view() {
            View::Small(pack) => {
                pack.pairs().for_each(|(field, value)| visit(field, value));
                0
            }
            View::Big(table) => table.fields.scan(cursor, &mut |entry| {
                let (field, value) = entry.pair();
                visit(field, value);
            }),
        }
    }
}

/// Slices for a snapshot; see `walk.rs`. Only big hashes are walked: of a small one nothing comes.
impl Hash {
    /// Begins a walk over the fields as they are now.
    pub fn begin_walk(&mut self, slicing: Slicing) {
        if let View::Big(table) = self.0.view_mut() {
            table.walk = Some(Box::new(Walk::begin(slicing, 0)));
        }
    }

    /// The walk under way.
    pub fn slicing(&self) -> Option<&Slicing> {
        match self.0.view() {
            View::Small(_) => None,
            View::Big(table) => Some(&table.walk.as_ref()?.slicing),
        }
    }

    /// Gives about `budget` fields as they were when the walk began.
    pub fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        match self.0.view_mut() {
            View::Small(_) => Left::Nothing,
            View::Big(table) => table.walk_slice(budget, give),
        }
    }

    /// Ends the walk.
    pub fn end_walk(&mut self) {
        if let View::Big(table) = self.0.view_mut() {
            table.walk = None;
        }
    }
}

impl Clone for Hash {
    fn clone(&self) -> Self {
        match self.0.view() {
            View::Small(pack) => Self(OneOf::small(pack.clone())),
            View::Big(table) => {
                let mut copy = Box::<Table>::default();
                for entry in table.fields.iter() {
                    let hash = entry.hash();
                    let entry = FieldEntry::new(hash, entry.field(), entry.value());
                    copy.fields.insert_new(hash, entry, FieldEntry::hash);
                }
                Self(OneOf::big(copy))
            }
        }
    }
}

fn find(pack: &Listpack, field: &[u8]) -> Option<Position> {
    pack.find(pack.first()?, field, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => (0u8..40).prop_map(|number| number.to_string().into_bytes()),
            1 => (250usize..260).prop_map(|length| vec![b'f'; length]),
            1 => (60usize..70).prop_map(|length| vec![b'g'; length]),
        ]
    }

    fn contents(hash: &Hash) -> BTreeMap<Vec<u8>, Vec<u8>> {
        hash.iter()
            .map(|(field, value)| (field.to_vec(), value.to_vec()))
            .collect()
    }

    proptest! {
        #[test]
        fn any_history_equals_a_map(
            steps in proptest::collection::vec((0u8..4, text(), text()), 0..200),
            entries in prop_oneof![Just(4usize), Just(512)],
        ) {
            let limits = EncodingLimits {
                hash_max_listpack_entries: entries, ..EncodingLimits::default()
            };
            let mut hash = Hash::new();
            let mut model = BTreeMap::new();
            for (kind, field, value) in steps {
                if kind > 0 {
                    let new = model.insert(field.clone(), value.clone()).is_none();
                    let written = hash.set(&field, &value, &limits);
                    prop_assert_eq!(written == Written::New, new);
                } else {
                    prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                }
                prop_assert_eq!(hash.len(), model.len());
                let value = hash.get(&field).map(Element::to_vec);
                prop_assert_eq!(value.as_ref(), model.get(&field));
            }
            prop_assert_eq!(&contents(&hash), &model);
            prop_assert_eq!(&contents(&hash.clone()), &model);
            let mut scanned = BTreeMap::new();
            let mut cursor = 0;
            loop {
                cursor = hash.scan(cursor, &mut |field, value| {
                    scanned.insert(field.to_vec(), value.to_vec());
                });
                if cursor == 0 { break; }
            }
            prop_assert_eq!(&scanned, &model);
            if let (Some(pack), false) = (hash.listpack(), hash.is_empty()) {
                let again = Hash::from_listpack(pack.clone(), &limits).unwrap();
                prop_assert_eq!(contents(&again), model);
            }
        }
    }

    #[test]
    fn the_encoding_changes_beyond_either_limit() {
        let limits = EncodingLimits {
            hash_max_listpack_entries: 2,
            ..EncodingLimits::default()
        };
        let mut hash = Hash::new();
        hash.set(b"a", &[b'x'; 64], &limits);
        hash.set(b"b", b"", &limits);
        assert_eq!(hash.encoding(), "listpack");
        let mut long = hash.clone();
        hash.set(b"c", b"1", &limits);
        assert_eq!((hash.encoding(), hash.len()), ("hashtable", 3));
        long.set(b"a", &[b'x'; 65], &limits);
        assert_eq!((long.encoding(), long.len()), ("hashtable", 2));
        assert_eq!(long.get(b"a"), Some(Element::Text(&[b'x'; 65])));
    }

    #[test]
    fn hostile_pairs_are_refused() {
        let limits = EncodingLimits::default();
        let pack_of = |texts: &[&[u8]]| {
            let mut pack = Listpack::new();
            texts.iter().for_each(|text| pack.push_back(text));
            pack
        };
        let cases: [(&[&[u8]], CompactError); 4] = [
            (&[], CompactError::Empty),
            (&[b"a"], CompactError::OddPairs),
            (&[b"a", b"1", b"a", b"2"], CompactError::Duplicate),
            (
                &[b"1", b"x", b"1", b"y", b"z", &[0; 100]],
                CompactError::Duplicate,
            ),
        ];
        for (texts, error) in cases {
            assert_eq!(
                Hash::from_listpack(pack_of(texts), &limits).err(),
                Some(error)
            );
        }
    }

    #[test]
    fn values_are_replaced_in_place_of_any_length() {
        let limits = EncodingLimits {
            hash_max_listpack_entries: 0,
            ..EncodingLimits::default()
        };
        let mut hash = Hash::new();
        for length in [0usize, 10, 10, 5000, 3, 0] {
            let value = vec![b'v'; length];
            hash.set(b"field", &value, &limits);
            assert_eq!(hash.get(b"field"), Some(Element::Text(&value)));
        }
    }
}
