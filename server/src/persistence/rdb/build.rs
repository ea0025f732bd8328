//! The bytes of one value → a value of the keyspace.
//!
//! Owns one function for each type byte. Called by the loader. Compact encodings that the keyspace
//! shares with Redis (listpack, intset) are checked and taken over as they are; the older ones
//! (ziplist, zipmap, rows of strings) are read element by element into today's types.

use std::io::Read;

use super::{
    error::RdbError,
    format::{self, types},
    reader::Reader,
};
use crate::keyspace::types::{
    EncodingLimits,
    compact::{CompactError, Listpack},
    convert,
    hash::{Hash, Written},
    intset::IntSet,
    list::{End, List},
    set::Set,
    sorted_set::SortedSet,
    value::Value,
};

/// What came of a value's bytes.
pub enum Built {
    /// A value.
    Value(Value),
    /// A collection without elements: the key is left out, as Redis does.
    Empty,
    /// A type that the keyspace does not have.
    Unsupported,
}

/// Reads the value of type `type_byte` that comes next. `vendor` tells which writer's numbering of
/// the newest types applies.
pub fn value<R: Read>(
    reader: &mut Reader<R>,
    type_byte: u8,
    vendor: super::decode::Format,
    limits: &EncodingLimits,
) -> Result<Built, RdbError> {
    let mut builder = Builder {
        reader,
        limits,
        scratch: Vec::new(),
    };
    match type_byte {
        types::STRING => builder.string(),
        types::LIST => builder.list_of_strings(),
        types::LIST_ZIPLIST => builder.list_of_ziplists(1),
        types::LIST_QUICKLIST => {
            let nodes = builder.reader.length()?;
            builder.list_of_ziplists(nodes)
        }
        types::LIST_QUICKLIST_2 => builder.list_of_listpacks(),
        types::SET => builder.set_of_strings(),
        types::SET_INTSET => builder.set_of_integers(),
        types::SET_LISTPACK => builder.set_listpack(),
        types::HASH => builder.hash_of_strings(),
        types::HASH_ZIPMAP => builder.hash_zipmap(),
        types::HASH_ZIPLIST => builder.hash_ziplist(),
        types::HASH_LISTPACK => builder.hash_listpack(),
        types::HASH_EXPIRY => builder.hash_with_deadlines(Deadlines::Relative),
        types::HASH_2 if matches!(vendor, super::decode::Format::Valkey(_)) => {
            builder.hash_with_deadlines(Deadlines::Absolute)
        }
        types::HASH_LISTPACK_EXPIRY => builder.hash_listpack_with_deadlines(),
        types::ZSET => builder.sorted_set_of_strings(Scores::Decimal),
        types::ZSET_2 => builder.sorted_set_of_strings(Scores::Binary),
        types::ZSET_ZIPLIST => builder.sorted_set_ziplist(),
        types::ZSET_LISTPACK => builder.sorted_set_listpack(),
        _ => Ok(Built::Unsupported),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scores {
    Decimal,
    Binary,
}

/// How a file tells the deadline of a hash's field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadlines {
    /// Redis 7.4: the smallest deadline first, then before each field a distance from it, 0 = none.
    Relative,
    /// Valkey 9: after each value its deadline, -1 = none.
    Absolute,
}

struct Builder<'a, R> {
    reader: &'a mut Reader<R>,
    limits: &'a EncodingLimits,
    scratch: Vec<u8>,
}

impl<R: Read> Builder<'_, R> {
    fn string(&mut self) -> Result<Built, RdbError> {
        self.reader.string_into(&mut self.scratch)?;
        Ok(Built::Value(Value::string(&self.scratch)))
    }

    fn refused(&self, error: CompactError) -> RdbError {
        self.reader.corrupt(match error {
            CompactError::Duplicate => "an element twice where elements are unique",
            CompactError::OddPairs => "an odd number of elements where pairs must be",
            CompactError::Score => "a score that is no number",
            CompactError::Order => "integers out of order",
            CompactError::TooLarge => "an element that is too large",
            CompactError::Frame
            | CompactError::Entry(_)
            | CompactError::Count(_, _)
            | CompactError::Empty => "a malformed compact encoding",
        })
    }

    /// A collection made by one of the types' own constructors.
    fn made<T>(
        &self,
        result: Result<T, CompactError>,
        wrap: impl FnOnce(T) -> Value,
    ) -> Result<Built, RdbError> {
        match result {
            Ok(value) => Ok(Built::Value(wrap(value))),
            Err(CompactError::Empty) => Ok(Built::Empty),
            Err(error) => Err(self.refused(error)),
        }
    }

    fn unique(&self, written: Written) -> Result<(), RdbError> {
        match written {
            Written::New => Ok(()),
            Written::Replaced => Err(self.refused(CompactError::Duplicate)),
        }
    }

    fn ziplist(&mut self) -> Result<Listpack, RdbError> {
        self.reader.string_into(&mut self.scratch)?;
        convert::listpack_from_ziplist(&self.scratch).map_err(|error| self.refused(error))
    }

    fn listpack(&mut self) -> Result<Listpack, RdbError> {
        self.reader.string_into(&mut self.scratch)?;
        Listpack::from_bytes(&self.scratch).map_err(|error| self.refused(error))
    }

    // Lists

    fn list_of_strings(&mut self) -> Result<Built, RdbError> {
        let count = self.reader.length()?;
        let mut list = List::new();
        for _ in 0..count {
            self.reader.string_into(&mut self.scratch)?;
            list.push(End::Tail, &self.scratch, self.limits);
        }
        Ok(list_or_empty(list))
    }

    fn list_of_ziplists(&mut self, nodes: u64) -> Result<Built, RdbError> {
        let mut packs = Vec::new();
        for _ in 0..nodes {
            let pack = self.ziplist()?;
            if !pack.is_empty() {
                packs.push(pack);
            }
        }
        self.made(List::from_listpacks(packs, self.limits), Value::List)
    }

    fn list_of_listpacks(&mut self) -> Result<Built, RdbError> {
        let nodes = self.reader.length()?;
        let mut packs = Vec::new();
        for _ in 0..nodes {
            let pack = match self.reader.length()? {
                format::QUICKLIST_PACKED => self.listpack()?,
                format::QUICKLIST_PLAIN => {
                    self.reader.string_into(&mut self.scratch)?;
                    let mut pack = Listpack::new();
                    pack.push_back(&self.scratch);
                    pack
                }
                _ => return Err(self.reader.corrupt("unknown container of a list's node")),
            };
            if !pack.is_empty() {
                packs.push(pack);
            }
        }
        self.made(List::from_listpacks(packs, self.limits), Value::List)
    }

    // Sets

    fn set_of_strings(&mut self) -> Result<Built, RdbError> {
        let count = self.reader.length()?;
        if count == 0 {
            return Ok(Built::Empty);
        }
        self.reader.string_into(&mut self.scratch)?;
        // The count is a hint by an untrusted source: it chooses an encoding, nothing is reserved.
        let hint = usize::try_from(count).unwrap_or(usize::MAX);
        let mut set = Set::for_members(&self.scratch, hint, self.limits);
        set.insert(&self.scratch, self.limits);
        for _ in 1..count {
            self.reader.string_into(&mut self.scratch)?;
            let written = set.insert(&self.scratch, self.limits);
            self.unique(written)?;
        }
        Ok(Built::Value(Value::Set(set)))
    }

    fn set_of_integers(&mut self) -> Result<Built, RdbError> {
        self.reader.string_into(&mut self.scratch)?;
        let ints = IntSet::from_bytes(&self.scratch).map_err(|error| self.refused(error))?;
        self.made(Set::from_intset(ints, self.limits), Value::Set)
    }

    fn set_listpack(&mut self) -> Result<Built, RdbError> {
        let pack = self.listpack()?;
        self.made(Set::from_listpack(pack, self.limits), Value::Set)
    }

    // Hashes

    fn hash_of_strings(&mut self) -> Result<Built, RdbError> {
        let count = self.reader.length()?;
        let mut hash = Hash::new();
        let mut field = Vec::new();
        for _ in 0..count {
            self.reader.string_into(&mut field)?;
            self.reader.string_into(&mut self.scratch)?;
            let written = hash.set(&field, &self.scratch, self.limits);
            self.unique(written)?;
        }
        Ok(hash_or_empty(hash))
    }

    fn hash_zipmap(&mut self) -> Result<Built, RdbError> {
        self.reader.string_into(&mut self.scratch)?;
        let pack = convert::listpack_from_zipmap(&self.scratch);
        let pack = pack.map_err(|error| self.refused(error))?;
        self.made(Hash::from_listpack(pack, self.limits), Value::Hash)
    }

    fn hash_ziplist(&mut self) -> Result<Built, RdbError> {
        let pack = self.ziplist()?;
        self.made(Hash::from_listpack(pack, self.limits), Value::Hash)
    }

    fn hash_listpack(&mut self) -> Result<Built, RdbError> {
        let pack = self.listpack()?;
        self.made(Hash::from_listpack(pack, self.limits), Value::Hash)
    }

    /// A hash in a form that can tell deadlines of fields; loaded if no field has one.
    fn hash_with_deadlines(&mut self, deadlines: Deadlines) -> Result<Built, RdbError> {
        if deadlines == Deadlines::Relative {
            self.reader.array::<8>()?;
        }
        let count = self.reader.length()?;
        let mut hash = Hash::new();
        let mut field = Vec::new();
        for _ in 0..count {
            let before = match deadlines {
                Deadlines::Relative => self.reader.length()? != 0,
                Deadlines::Absolute => false,
            };
            self.reader.string_into(&mut field)?;
            self.reader.string_into(&mut self.scratch)?;
            let after = match deadlines {
                Deadlines::Relative => false,
                Deadlines::Absolute => i64::from_le_bytes(self.reader.array()?) != -1,
            };
            if before || after {
                return Ok(Built::Unsupported);
            }
            let written = hash.set(&field, &self.scratch, self.limits);
            self.unique(written)?;
        }
        Ok(hash_or_empty(hash))
    }

    /// A listpack of field, value, deadline (0 = none); loaded if no field has one.
    fn hash_listpack_with_deadlines(&mut self) -> Result<Built, RdbError> {
        self.reader.array::<8>()?;
        let pack = self.listpack()?;
        let mut hash = Hash::new();
        let mut elements = pack.iter();
        while let Some(field) = elements.next() {
            let (Some(value), Some(deadline)) = (elements.next(), elements.next()) else {
                return Err(self.refused(CompactError::OddPairs));
            };
            if !deadline.is(b"0") {
                return Ok(Built::Unsupported);
            }
            let written = hash.set(&field.text(), &value.text(), self.limits);
            self.unique(written)?;
        }
        Ok(hash_or_empty(hash))
    }

    // Sorted sets

    fn sorted_set_of_strings(&mut self, scores: Scores) -> Result<Built, RdbError> {
        let count = self.reader.length()?;
        let mut sorted = SortedSet::new();
        for _ in 0..count {
            self.reader.string_into(&mut self.scratch)?;
            let score = match scores {
                Scores::Decimal => self.reader.decimal_double()?,
                Scores::Binary => self.reader.double()?,
            };
            if score.is_nan() {
                return Err(self.refused(CompactError::Score));
            }
            if sorted.set(&self.scratch, score, self.limits).is_some() {
                return Err(self.refused(CompactError::Duplicate));
            }
        }
        if sorted.is_empty() {
            return Ok(Built::Empty);
        }
        Ok(Built::Value(Value::SortedSet(sorted)))
    }

    fn sorted_set_ziplist(&mut self) -> Result<Built, RdbError> {
        let pack = self.ziplist()?;
        self.made(
            SortedSet::from_listpack(pack, self.limits),
            Value::SortedSet,
        )
    }

    fn sorted_set_listpack(&mut self) -> Result<Built, RdbError> {
        let pack = self.listpack()?;
        self.made(
            SortedSet::from_listpack(pack, self.limits),
            Value::SortedSet,
        )
    }
}

fn list_or_empty(list: List) -> Built {
    if list.is_empty() {
        Built::Empty
    } else {
        Built::Value(Value::List(list))
    }
}

fn hash_or_empty(hash: Hash) -> Built {
    if hash.is_empty() {
        Built::Empty
    } else {
        Built::Value(Value::Hash(hash))
    }
}
