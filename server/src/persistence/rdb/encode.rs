//! Entries → snapshot bytes.
//!
//! Owns what this server writes: version 0010 with types up to 18, which Redis from 7.0 on and
//! every Valkey load. Every function appends to a buffer and keeps no state, so that a snapshot can
//! encode one entry at a time under the engine's lock and let others run in between. Called by
//! `persistence::snapshot` and by DUMP-like commands.
//!
//! | value | written as |
//! |---|---|
//! | string | bytes, or an integer of 8, 16, 32 bits |
//! | list | 18: listpacks, and single long elements as plain nodes |
//! | set | 11 intset, else 2 row of strings (20, the listpack, needs version 0011) |
//! | hash | 16 listpack, else 4 row of strings |
//! | sorted set | 17 listpack, else 5 row of strings with binary scores |

use super::{format, format::types, lzf};
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

/// Whether long strings are compressed (`rdbcompression`), with the table that it takes.
#[derive(Debug)]
pub enum Compression {
    /// They are written as they are.
    Off,
    /// LZF where it saves at least 4 bytes.
    Lzf {
        /// The compressor.
        compressor: Box<lzf::Compressor>,
        /// Its output, reused.
        packed: Vec<u8>,
    },
}

impl Compression {
    /// LZF.
    pub fn lzf() -> Self {
        Self::Lzf {
            compressor: Box::default(),
            packed: Vec::new(),
        }
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
pub fn entry(
    key: &[u8],
    value: ValueRef<'_>,
    expire_at_ms: Option<i64>,
    compression: &mut Compression,
    out: &mut Vec<u8>,
) {
    if let Some(deadline) = expire_at_ms {
        out.push(format::OP_EXPIRE_MS);
        out.extend_from_slice(&deadline.to_le_bytes());
    }
    let type_at = out.len();
    out.push(0);
    string(key, compression, out);
    out[type_at] = body(value, compression, out);
}

/// Appends the beginning of a big collection with its key: its pieces have to follow.
pub fn collection(head: &Head, compression: &mut Compression, out: &mut Vec<u8>) {
    if let Some(deadline) = head.expire_at {
        out.push(format::OP_EXPIRE_MS);
        out.extend_from_slice(&deadline.to_le_bytes());
    }
    out.push(match head.kind {
        CollectionKind::List => types::LIST_QUICKLIST_2,
        CollectionKind::Set => types::SET,
        CollectionKind::Hash => types::HASH,
        CollectionKind::SortedSet => types::ZSET_2,
    });
    string(&head.key, compression, out);
    length(head.len as u64, out);
}

/// Appends a piece of a big collection.
pub fn piece(piece: &Piece<'_>, compression: &mut Compression, out: &mut Vec<u8>) {
    match piece {
        Piece::Elements(pack) => node(pack, compression, out),
        Piece::Member(member) => element(*member, compression, out),
        Piece::Field(field, value) => {
            element(*field, compression, out);
            element(*value, compression, out);
        }
        Piece::Scored(member, score) => {
            element(*member, compression, out);
            out.extend_from_slice(&score.to_le_bytes());
        }
    }
}

/// Appends a value without its type byte, which is returned.
pub fn body(value: ValueRef<'_>, compression: &mut Compression, out: &mut Vec<u8>) -> u8 {
    match value {
        ValueRef::String(StringRef::Int(number)) => {
            text_of_integer(number, out);
            types::STRING
        }
        ValueRef::String(StringRef::Bytes(bytes)) => {
            string(bytes, compression, out);
            types::STRING
        }
        ValueRef::List(value) => list(value, compression, out),
        ValueRef::Set(value) => set(value, compression, out),
        ValueRef::Hash(value) => hash(value, compression, out),
        ValueRef::SortedSet(value) => sorted_set(value, compression, out),
    }
}

fn list(list: &List, compression: &mut Compression, out: &mut Vec<u8>) -> u8 {
    length(list.listpack_count() as u64, out);
    list.for_each_listpack(|pack| node(pack, compression, out));
    types::LIST_QUICKLIST_2
}

fn node(pack: &Listpack, compression: &mut Compression, out: &mut Vec<u8>) {
    length(format::QUICKLIST_PACKED, out);
    string(pack.as_bytes(), compression, out);
}

fn set(set: &Set, compression: &mut Compression, out: &mut Vec<u8>) -> u8 {
    if let Some(CompactSet::Integers(ints)) = set.compact() {
        string(&ints.to_bytes(), compression, out);
        return types::SET_INTSET;
    }
    length(set.len() as u64, out);
    for member in set.iter() {
        element(member, compression, out);
    }
    types::SET
}

fn listpack(pack: &Listpack, compression: &mut Compression, out: &mut Vec<u8>) {
    string(pack.as_bytes(), compression, out);
}

fn hash(hash: &Hash, compression: &mut Compression, out: &mut Vec<u8>) -> u8 {
    if let Some(pack) = hash.listpack() {
        listpack(pack, compression, out);
        return types::HASH_LISTPACK;
    }
    length(hash.len() as u64, out);
    for (field, value) in hash.iter() {
        element(field, compression, out);
        element(value, compression, out);
    }
    types::HASH
}

fn sorted_set(sorted: &SortedSet, compression: &mut Compression, out: &mut Vec<u8>) -> u8 {
    if let Some(pack) = sorted.listpack() {
        listpack(pack, compression, out);
        return types::ZSET_LISTPACK;
    }
    length(sorted.len() as u64, out);
    // From the highest score down, as Redis does: its loader then inserts at the head.
    for (member, score) in sorted.iter_back_from(sorted.len()) {
        element(member, compression, out);
        out.extend_from_slice(&score.to_le_bytes());
    }
    types::ZSET_2
}

fn element(element: Element<'_>, compression: &mut Compression, out: &mut Vec<u8>) {
    match element {
        Element::Integer(number) => text_of_integer(number, out),
        Element::Text(bytes) => string(bytes, compression, out),
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

fn string(bytes: &[u8], compression: &mut Compression, out: &mut Vec<u8>) {
    if bytes.len() <= MAX_UNCOMPRESSED_BYTES {
        return plain_string(bytes, out);
    }
    match compression {
        Compression::Off => plain_string(bytes, out),
        Compression::Lzf { compressor, packed } => {
            packed.clear();
            if compressor.compress(bytes, packed).is_none() {
                return plain_string(bytes, out);
            }
            out.push(format::STRING_LZF);
            length(packed.len() as u64, out);
            length(bytes.len() as u64, out);
            out.extend_from_slice(packed);
        }
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
