//! Encodings of older Redis versions, as their dumps hold them, to ours.
//!
//! Owns: ziplists (hashes, sorted sets and list nodes before 7.0) and zipmaps (hashes before 2.6).
//! Called by: the RDB decoder. Nothing in the bytes is trusted: lengths are checked before they
//! are used, nothing is allocated beyond the size of the input, and every error is a value.
//!
//! ```text
//! ziplist: | bytes: u32 | offset of the last entry: u32 | entries: u16 | entries … | 0xFF |
//! entry:   | length of the previous entry: 1 byte, or 254 and u32 | type and length | bytes |
//! zipmap:  | pairs: u8 | length, key, length, free: u8, value, free bytes … | 0xFF |
//! length:  1 byte below 254, or 254 and u32
//! ```

use std::collections::HashSet;

use super::{
    compact::{CompactError, Listpack},
    entry::{Element, ElementText, Encoded},
    number::NumberText,
};

/// Bytes in front of the first entry of a ziplist.
const ZIPLIST_HEADER_BYTES: usize = 10;
/// The byte behind the last entry of a ziplist or zipmap.
const END_MARK: u8 = 0xff;
/// The length byte that says that four bytes of length follow.
const LONG_LENGTH: u8 = 254;

/// Whether no text occurs twice.
pub fn check_unique<'a>(elements: impl Iterator<Item = Element<'a>>) -> Result<(), CompactError> {
    let mut seen: HashSet<Unique<'a>> = HashSet::new();
    for element in elements {
        if !seen.insert(Unique(element.text())) {
            return Err(CompactError::Duplicate);
        }
    }
    Ok(())
}

/// An element's text as a key of a hash set.
struct Unique<'a>(ElementText<'a>);

impl PartialEq for Unique<'_> {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for Unique<'_> {}

impl std::hash::Hash for Unique<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// The elements of a ziplist as a listpack.
pub fn listpack_from_ziplist(bytes: &[u8]) -> Result<Listpack, CompactError> {
    let header = bytes
        .first_chunk::<ZIPLIST_HEADER_BYTES>()
        .ok_or(CompactError::Frame)?;
    let [size @ .., _, _, _, _, count_low, count_high] = header;
    if u32::from_le_bytes(*size) as usize != bytes.len()
        || bytes.len() <= ZIPLIST_HEADER_BYTES
        || bytes.last() != Some(&END_MARK)
    {
        return Err(CompactError::Frame);
    }
    let entries = &bytes[..bytes.len() - 1];
    let mut built = Builder::default();
    let mut at = ZIPLIST_HEADER_BYTES;
    let mut previous = 0;
    while at < entries.len() {
        let (text, length) =
            ziplist_entry(&entries[at..], previous).ok_or(CompactError::Entry(at))?;
        built.push(&text);
        at += length;
        previous = length;
    }
    let count = u16::from_le_bytes([*count_low, *count_high]);
    if count != u16::MAX && usize::from(count) != built.count {
        return Err(CompactError::Count(usize::from(count), built.count));
    }
    Ok(built.finish())
}

/// Entries of a listpack that grows at its end.
#[derive(Default)]
struct Builder {
    entries: Vec<u8>,
    count: usize,
}

impl Builder {
    fn push(&mut self, text: &[u8]) {
        for part in Encoded::new(text).parts() {
            self.entries.extend_from_slice(part);
        }
        self.count += 1;
    }

    fn finish(self) -> Listpack {
        Listpack::from_entries(&self.entries, self.count)
    }
}

/// The first ziplist entry of `bytes` and its length, when the entry in front of it has `previous`
/// bytes.
fn ziplist_entry(bytes: &[u8], previous: usize) -> Option<(ElementText<'_>, usize)> {
    let (stated, start) = short_length(bytes)?;
    if stated != previous {
        return None;
    }
    let body = bytes.get(start..)?;
    let first = *body.first()?;
    let text = |head: usize, length: usize| {
        let end = head.checked_add(length)?;
        Some((ElementText::Borrowed(body.get(head..end)?), start + end))
    };
    match first >> 6 {
        0 => text(1, usize::from(first & 0x3f)),
        1 => text(
            2,
            (usize::from(first & 0x3f) << 8) | usize::from(*body.get(1)?),
        ),
        2 => text(
            5,
            u32::from_be_bytes(body.get(1..5)?.try_into().ok()?) as usize,
        ),
        _ => {
            let (value, length) = ziplist_integer(first, body)?;
            Some((
                ElementText::Number(NumberText::integer(value)),
                start + length,
            ))
        }
    }
}

fn ziplist_integer(first: u8, body: &[u8]) -> Option<(i64, usize)> {
    let width = match first {
        0xc0 => 2,
        0xd0 => 4,
        0xe0 => 8,
        0xf0 => 3,
        0xfe => 1,
        0xf1..=0xfd => return Some((i64::from(first & 0x0f) - 1, 1)),
        _ => return None,
    };
    let mut wide = [0; 8];
    wide[8 - width..].copy_from_slice(body.get(1..=width)?);
    Some((i64::from_le_bytes(wide) >> (64 - 8 * width), width + 1))
}

/// A length of one byte, or of five that begin with 254, and the number of its bytes.
fn short_length(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.first()? {
        LONG_LENGTH => Some((
            u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?) as usize,
            5,
        )),
        END_MARK => None,
        length => Some((usize::from(length), 1)),
    }
}

/// The pairs of a zipmap as a listpack of fields and values in turns.
pub fn listpack_from_zipmap(bytes: &[u8]) -> Result<Listpack, CompactError> {
    let (Some((&count, _)), Some((&END_MARK, body))) = (bytes.split_first(), bytes.split_last())
    else {
        return Err(CompactError::Frame);
    };
    if bytes.len() < 2 {
        return Err(CompactError::Frame);
    }
    let mut built = Builder::default();
    let mut at = 1;
    while at < body.len() {
        let (key, value, length) = zipmap_pair(&body[at..]).ok_or(CompactError::Entry(at))?;
        built.push(key);
        built.push(value);
        at += length;
    }
    let pairs = built.count / 2;
    if count < LONG_LENGTH && usize::from(count) != pairs {
        return Err(CompactError::Count(usize::from(count), pairs));
    }
    Ok(built.finish())
}

/// The first pair of a zipmap's entries and its length in bytes.
fn zipmap_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let (key_length, key_at) = short_length(bytes)?;
    let key_end = key_at.checked_add(key_length)?;
    let key = bytes.get(key_at..key_end)?;
    let rest = bytes.get(key_end..)?;
    let (value_length, head) = short_length(rest)?;
    let free = usize::from(*rest.get(head)?);
    let value_at = head + 1;
    let value_end = value_at.checked_add(value_length)?;
    let value = rest.get(value_at..value_end)?;
    let end = value_end.checked_add(free)?;
    rest.get(..end)?;
    Some((key, value, key_end + end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(pack: &Listpack) -> Vec<Vec<u8>> {
        pack.iter().map(Element::to_vec).collect()
    }

    #[test]
    fn a_ziplist_of_every_kind_of_entry_is_read() {
        let long = [b'L'; 70];
        let entries: Vec<Vec<u8>> = vec![
            vec![0x02, b'h', b'i'],
            vec![0xf1],
            vec![0xfd],
            vec![0xfe, 0x80],
            vec![0xc0, 0x00, 0x80],
            vec![0xf0, 0xff, 0xff, 0x7f],
            vec![0xd0, 0, 0, 0, 0x80],
            vec![0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            [&[0x40, 70], long.as_slice()].concat(),
            [&[0x80, 0, 0, 0, 1], b"z".as_slice()].concat(),
        ];
        let mut body = Vec::new();
        let mut previous = 0u8;
        for entry in &entries {
            body.push(previous);
            body.extend_from_slice(entry);
            previous = entry.len() as u8 + 1;
        }
        let pack = listpack_from_ziplist(&framed(&body, entries.len() as u16)).unwrap();
        let expected: Vec<Vec<u8>> = vec![
            b"hi".into(),
            b"0".into(),
            b"12".into(),
            b"-128".into(),
            b"-32768".into(),
            b"8388607".into(),
            b"-2147483648".into(),
            b"9223372036854775807".into(),
            long.into(),
            b"z".into(),
        ];
        assert_eq!(texts(&pack), expected);
    }

    fn framed(body: &[u8], count: u16) -> Vec<u8> {
        let size = (ZIPLIST_HEADER_BYTES + body.len() + 1) as u32;
        let mut bytes = size.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.push(END_MARK);
        bytes
    }

    #[test]
    fn a_zipmap_is_read() {
        let bytes = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world..\xff";
        let pack = listpack_from_zipmap(bytes).unwrap();
        assert_eq!(
            texts(&pack),
            [
                b"foo".to_vec(),
                b"bar".into(),
                b"hello".into(),
                b"world".into()
            ]
        );
        assert!(listpack_from_zipmap(b"\x02\x03foo\x03\x00bar\xff").is_err());
        assert!(listpack_from_zipmap(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn hostile_ziplists_are_refused_without_panic(
            body in proptest::collection::vec(any::<u8>(), 0..60), raw: bool,
        ) {
            let bytes = if raw { body } else { framed(&body, u16::MAX) };
            if let Ok(pack) = listpack_from_ziplist(&bytes) {
                prop_assert!(Listpack::from_bytes(pack.as_bytes()).is_ok());
            }
        }

        #[test]
        fn hostile_zipmaps_are_refused_without_panic(
            mut bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..60),
            end: bool,
        ) {
            if end { bytes.push(END_MARK); }
            if let Ok(pack) = listpack_from_zipmap(&bytes) {
                prop_assert_eq!(pack.len() % 2, 0);
            }
        }
    }
}
