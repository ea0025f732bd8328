//! Entries → snapshot bytes.
//!
//! Owns what this server writes: version 0010 with types up to 18, which Redis from 7.0 on and
//! every Valkey load. Every function appends to a buffer and keeps no state, so that a snapshot can
//! encode one entry at a time under the engine's lock and let others run in between; compression,
//! which takes longer than copying, comes after it (`pack.rs`). Called by `persistence::snapshot`.
//!
//! | value | written as |
//! |---|---|
//! | string | bytes, or an integer of 8, 16, 32 bits |
//! | list | 18: listpacks, and single long elements as plain nodes |
//! | set | 11 intset, else 2 row of strings (20, the listpack, needs version 0011) |
//! | hash | 16 listpack, else 4 row of strings |
//! | sorted set | 17 listpack, else 5 row of strings with binary scores |

use super::{format, format::types};
use crate::keyspace::{
    StringRef, ValueRef,
    types::{
        compact::Listpack,
        entry::Element,
        hash::Hash,
        list::List,
        set::CompactSet,
        set::Set,
        sorted_set::SortedSet,
        walk::{CollectionKind, Head, Piece},
    },
};

/// Strings up to this length are never compressed.
const MAX_UNCOMPRESSED_BYTES: usize = 20;

/// Encoded entries, and which of their strings are worth compressing.
///
/// A string is only copied here, because that happens under the engine's lock; [`super::pack`] compresses it later.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The entries as they are written without compression.
    pub bytes: Vec<u8>,
    /// Strings of more than [`MAX_UNCOMPRESSED_BYTES`], in their order.
    pub(super) long_strings: Vec<LongString>,
}

/// Where a string is in [`Encoded::bytes`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LongString {
    /// Where its length begins.
    pub(super) at: usize,
    /// Where its own bytes begin.
    pub(super) text_at: usize,
    /// Where it ends.
    pub(super) end: usize,
}

impl Encoded {
    /// Nothing yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            long_strings: Vec::new(),
        }
    }

    /// Appends what another one holds.
    pub fn append(&mut self, other: &Self) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let moved = |string: &LongString| LongString {
            at: string.at + offset,
            text_at: string.text_at + offset,
            end: string.end + offset,
        };
        self.long_strings
            .extend(other.long_strings.iter().map(moved));
    }
}

/// Appends the first bytes of a file.
pub fn magic(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("REDIS{:04}", format::WRITTEN_VERSION).as_bytes());
}

/// Appends a fact about the file.
pub fn aux(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.push(format::OP_AUX);
    plain_string(name.as_bytes(), out);
    match small_integer(value) {
        Some(number) => integer(number, out),
        None => plain_string(value, out),
    }
}

/// Appends the beginning of a database with so many keys and keys with a deadline.
pub fn database(db: u32, keys: u64, with_expiry: u64, out: &mut Vec<u8>) {
    out.push(format::OP_SELECT_DB);
    length(u64::from(db), out);
    out.push(format::OP_RESIZE_DB);
    length(keys, out);
    length(with_expiry, out);
}

/// Appends a bare change of database, between entries that come out of order.
pub fn select_db(db: u32, out: &mut Vec<u8>) {
    out.push(format::OP_SELECT_DB);
    length(u64::from(db), out);
}

/// Appends the end of a file whose checksum, over everything before it and the end mark, is kept
/// by the caller: this appends the mark, [`checksum`] what follows.
pub fn end_mark(out: &mut Vec<u8>) {
    out.push(format::OP_EOF);
}

/// Appends the checksum; 0 means "not checked".
pub fn checksum(crc: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Appends one key with its deadline and value.
pub fn entry(key: &[u8], value: ValueRef<'_>, expire_at_ms: Option<i64>, out: &mut Encoded) {
    if let Some(deadline) = expire_at_ms {
        out.bytes.push(format::OP_EXPIRE_MS);
        out.bytes.extend_from_slice(&deadline.to_le_bytes());
    }
    let type_at = out.bytes.len();
    out.bytes.push(0);
    string(key, out);
    out.bytes[type_at] = body(value, out);
}

/// Appends the beginning of a big collection with its key: its pieces have to follow.
pub fn collection(head: &Head, out: &mut Encoded) {
    if let Some(deadline) = head.expire_at {
        out.bytes.push(format::OP_EXPIRE_MS);
        out.bytes.extend_from_slice(&deadline.to_le_bytes());
    }
    out.bytes.push(match head.kind {
        CollectionKind::List => types::LIST_QUICKLIST_2,
        CollectionKind::Set => types::SET,
        CollectionKind::Hash => types::HASH,
        CollectionKind::SortedSet => types::ZSET_2,
    });
    string(&head.key, out);
    length(head.len as u64, &mut out.bytes);
}

/// Appends a piece of a big collection.
pub fn piece(piece: &Piece<'_>, out: &mut Encoded) {
    match piece {
        Piece::Elements(pack) => node(pack, out),
        Piece::Member(member) => element(*member, out),
        Piece::Field(field, value) => {
            element(*field, out);
            element(*value, out);
        }
        Piece::Scored(member, score) => {
            element(*member, out);
            out.bytes.extend_from_slice(&score.to_le_bytes());
        }
    }
}

/// Appends a value without its type byte, which is returned.
pub fn body(value: ValueRef<'_>, out: &mut Encoded) -> u8 {
    match value {
        ValueRef::String(StringRef::Int(number)) => {
            text_of_integer(number, &mut out.bytes);
            types::STRING
        }
        ValueRef::String(StringRef::Bytes(bytes)) => {
            string(bytes, out);
            types::STRING
        }
        ValueRef::List(value) => list(value, out),
        ValueRef::Set(value) => set(value, out),
        ValueRef::Hash(value) => hash(value, out),
        ValueRef::SortedSet(value) => sorted_set(value, out),
    }
}

fn list(list: &List, out: &mut Encoded) -> u8 {
    length(list.listpack_count() as u64, &mut out.bytes);
    list.for_each_listpack(|pack| node(pack, out));
    types::LIST_QUICKLIST_2
}

fn node(pack: &Listpack, out: &mut Encoded) {
    length(format::QUICKLIST_PACKED, &mut out.bytes);
    string(pack.as_bytes(), out);
}

fn set(set: &Set, out: &mut Encoded) -> u8 {
    if let Some(CompactSet::Integers(ints)) = set.compact() {
        string(&ints.to_bytes(), out);
        return types::SET_INTSET;
    }
    length(set.len() as u64, &mut out.bytes);
    for member in set.iter() {
        element(member, out);
    }
    types::SET
}

fn listpack(pack: &Listpack, out: &mut Encoded) {
    string(pack.as_bytes(), out);
}

fn hash(hash: &Hash, out: &mut Encoded) -> u8 {
    if let Some(pack) = hash.listpack() {
        listpack(pack, out);
        return types::HASH_LISTPACK;
    }
    length(hash.len() as u64, &mut out.bytes);
    for (field, value) in hash.iter() {
        element(field, out);
        element(value, out);
    }
    types::HASH
}

fn sorted_set(sorted: &SortedSet, out: &mut Encoded) -> u8 {
    if let Some(pack) = sorted.listpack() {
        listpack(pack, out);
        return types::ZSET_LISTPACK;
    }
    length(sorted.len() as u64, &mut out.bytes);
    // From the highest score down, as Redis does: its loader then inserts at the head.
    for (member, score) in sorted.iter_back_from(sorted.len()) {
        element(member, out);
        out.bytes.extend_from_slice(&score.to_le_bytes());
    }
    types::ZSET_2
}

fn element(element: Element<'_>, out: &mut Encoded) {
    match element {
        Element::Integer(number) => text_of_integer(number, &mut out.bytes),
        Element::Text(bytes) => string(bytes, out),
    }
}

/// Appends a length.
pub fn length(length: u64, out: &mut Vec<u8>) {
    match length {
        0..=63 => out.push(length as u8),
        64..=16_383 => out.extend_from_slice(&[0x40 | (length >> 8) as u8, length as u8]),
        16_384..=0xffff_ffff => {
            out.push(format::LENGTH_32);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(format::LENGTH_64);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

fn plain_string(bytes: &[u8], out: &mut Vec<u8>) {
    length(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn string(bytes: &[u8], out: &mut Encoded) {
    let at = out.bytes.len();
    plain_string(bytes, &mut out.bytes);
    if bytes.len() > MAX_UNCOMPRESSED_BYTES {
        let end = out.bytes.len();
        out.long_strings.push(LongString {
            at,
            text_at: end - bytes.len(),
            end,
        });
    }
}

/// The integer that `text` is the canonical form of, if the format has a short form for it.
fn small_integer(text: &[u8]) -> Option<i32> {
    const MAX_TEXT_BYTES: usize = 11;
    let short = text.len() <= MAX_TEXT_BYTES;
    let number = resp::parse_i64(text).filter(|_| short)?;
    i32::try_from(number).ok()
}

fn integer(number: i32, out: &mut Vec<u8>) {
    if let Ok(number) = i8::try_from(number) {
        out.push(format::STRING_INT8);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i16::try_from(number) {
        out.push(format::STRING_INT16);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        out.push(format::STRING_INT32);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn text_of_integer(number: i64, out: &mut Vec<u8>) {
    match i32::try_from(number) {
        Ok(small) => integer(small, out),
        Err(_) => plain_string(&resp::format_i64(number), out),
    }
}
