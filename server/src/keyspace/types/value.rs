//! The closed list of value types.
//!
//! Owns: [`Value`], an owned value of any type, and [`StringValue`]. Called by: the keyspace, which
//! takes values apart into its entries, the RDB code and COPY.

use super::{
    EncodingLimits,
    hash::Hash,
    list::List,
    number::{NumberText, canonical_i64},
    set::Set,
    sorted_set::SortedSet,
};

/// A value of any type.
#[derive(Debug, Clone)]
pub enum Value {
    /// A string.
    String(StringValue),
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A hash.
    Hash(Hash),
    /// A sorted set.
    SortedSet(SortedSet),
}

/// A string, stored as a number where it is the text of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringValue {
    /// The canonical text of an integer.
    Integer(i64),
    /// Any other bytes.
    Bytes(Box<[u8]>),
}

/// Longest string that Redis keeps in one block with its header (`embstr`).
const EMBEDDED_STRING_BYTES: usize = 44;

impl StringValue {
    /// The string with these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        match canonical_i64(bytes) {
            Some(value) => Self::Integer(value),
            None => Self::Bytes(bytes.into()),
        }
    }

    /// The bytes that clients see.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            StringValue::Integer(value) => NumberText::integer(*value).to_vec(),
            StringValue::Bytes(bytes) => bytes.to_vec(),
        }
    }

    /// The name that `OBJECT ENCODING` shows.
    pub fn encoding(&self) -> &'static str {
        match self {
            StringValue::Integer(_) => "int",
            StringValue::Bytes(bytes) if bytes.len() <= EMBEDDED_STRING_BYTES => "embstr",
            StringValue::Bytes(_) => "raw",
        }
    }
}

impl Value {
    /// The name that `TYPE` answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "string",
            Value::List(_) => "list",
            Value::Set(_) => "set",
            Value::Hash(_) => "hash",
            Value::SortedSet(_) => "zset",
        }
    }

    /// The name that `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Value::String(string) => string.encoding(),
            Value::List(list) => list.encoding(),
            Value::Set(set) => set.encoding(),
            Value::Hash(hash) => hash.encoding(),
            Value::SortedSet(sorted) => sorted.encoding(),
        }
    }

    /// Number of separate heap blocks, about: what freeing the value costs.
    pub fn heap_elements(&self) -> usize {
        match self {
            Value::String(_) => 1,
            Value::List(list) => list.heap_elements(),
            Value::Set(set) => set.heap_elements(),
            Value::Hash(hash) => hash.heap_elements(),
            Value::SortedSet(sorted) => sorted.heap_elements(),
        }
    }

    /// Bytes of heap memory, about, from `samples` elements (0: all of them).
    pub fn memory_bytes(&self, samples: usize) -> usize {
        match self {
            Value::String(StringValue::Integer(_)) => 0,
            Value::String(StringValue::Bytes(bytes)) => bytes.len(),
            Value::List(list) => list.memory_bytes(samples),
            Value::Set(set) => set.memory_bytes(samples),
            Value::Hash(hash) => hash.memory_bytes(samples),
            Value::SortedSet(sorted) => sorted.memory_bytes(samples),
        }
    }

    /// Whether it is a collection without elements, which must not stay under its key.
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Value::String(_) => false,
            Value::List(list) => list.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::Hash(hash) => hash.is_empty(),
            Value::SortedSet(sorted) => sorted.is_empty(),
        }
    }

    /// A string value.
    pub fn string(bytes: &[u8]) -> Self {
        Self::String(StringValue::new(bytes))
    }

    /// A list of these elements.
    pub fn list<'a>(elements: impl IntoIterator<Item = &'a [u8]>, limits: &EncodingLimits) -> Self {
        let mut list = List::new();
        for element in elements {
            list.push(super::list::End::Tail, element, limits);
        }
        Self::List(list)
    }
}

/// The sum of `sizes`, of which there are `count`, from the first `samples` of them (0: all).
pub(super) fn extrapolate(
    sizes: impl Iterator<Item = usize>,
    count: usize,
    samples: usize,
) -> usize {
    if samples == 0 || samples >= count {
        return sizes.sum();
    }
    sizes.take(samples).sum::<usize>() / samples * count
}

/// The sum of `size` over `parts`, from `samples` of them that lie evenly (0: all). For parts that can be asked for by
/// their number, of which the first and the last are often smaller than the others.
pub(super) fn extrapolate_parts(
    parts: usize,
    samples: usize,
    size: impl Fn(usize) -> usize,
) -> usize {
    if samples == 0 || samples >= parts {
        return (0..parts).map(size).sum();
    }
    let sampled = (0..samples).map(|sample| (2 * sample + 1) * parts / (2 * samples));
    let sum: usize = sampled.map(size).sum();
    (sum as u128 * parts as u128 / samples as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_the_encodings_of_redis() {
        assert_eq!(StringValue::new(b"12").encoding(), "int");
        assert_eq!(StringValue::new(b"012").encoding(), "embstr");
        assert_eq!(StringValue::new(&[b'x'; 44]).encoding(), "embstr");
        assert_eq!(StringValue::new(&[b'x'; 45]).encoding(), "raw");
        assert_eq!(StringValue::new(b"-5").to_vec(), b"-5");
    }
}
