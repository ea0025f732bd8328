//! One element of a listpack: how Redis lays it out, and the view of an element that all
//! collections hand out.
//!
//! Owns: [`Element`] (an integer or a borrowed byte string), the encoding and the checked decoding
//! of listpack entries. Called by: `compact.rs` (whole listpacks) and `list.rs` (nodes of a long
//! list). Layout of an entry:
//!
//! ```text
//! +----------------------+----------------+---------------------------------+
//! | type, value or length| bytes, if text | length of both, 1-5 bytes,      |
//! | 1-9 bytes            |                | readable from its end backwards |
//! +----------------------+----------------+---------------------------------+
//! 0xxxxxxx  integer 0..=127            11110001  16-bit integer   11110000  text, 32-bit length
//! 10xxxxxx  text of at most 63 bytes   11110010  24-bit integer   11111111  end of a listpack
//! 110xxxxx  13-bit integer             11110011  32-bit integer
//! 1110xxxx  text of at most 4095       11110100  64-bit integer
//! ```
//!
//! Invariant: texts that are canonical integers are always written as integers.

use super::number::{NumberText, canonical_i64};

/// An element of a collection, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element<'a> {
    /// Stored as a number; its text is the canonical one.
    Integer(i64),
    /// Stored as text.
    Text(&'a [u8]),
}

impl<'a> Element<'a> {
    /// The bytes that clients see.
    #[inline]
    pub fn text(self) -> ElementText<'a> {
        match self {
            Element::Integer(value) => ElementText::Number(NumberText::integer(value)),
            Element::Text(bytes) => ElementText::Borrowed(bytes),
        }
    }

    /// Whether its text is `other`.
    pub fn is(self, other: &[u8]) -> bool {
        match self {
            Element::Integer(value) => canonical_i64(other) == Some(value),
            Element::Text(bytes) => bytes == other,
        }
    }

    /// An owned copy of its text.
    pub fn to_vec(self) -> Vec<u8> {
        self.text().to_vec()
    }
}

/// The bytes of an [`Element`], borrowed or formatted in place.
#[derive(Clone, Copy, Debug)]
pub enum ElementText<'a> {
    /// Text as stored.
    Borrowed(&'a [u8]),
    /// Text of a number.
    Number(NumberText),
}

impl std::ops::Deref for ElementText<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            ElementText::Borrowed(bytes) => bytes,
            ElementText::Number(text) => text.as_bytes(),
        }
    }
}

/// What a search looks for: the text and, if it is canonical, its number.
#[derive(Clone, Copy, Debug)]
pub struct Needle<'a> {
    text: &'a [u8],
    integer: Option<i64>,
}

impl<'a> Needle<'a> {
    /// Prepares a search for `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            integer: canonical_i64(text),
        }
    }

    /// Whether `element` is it.
    #[inline]
    pub fn matches(&self, element: Element<'_>) -> bool {
        match element {
            Element::Integer(value) => self.integer == Some(value),
            Element::Text(bytes) => bytes == self.text,
        }
    }
}

/// An entry ready to be written: three runs of bytes.
#[derive(Debug)]
pub(super) struct Encoded<'a> {
    head: [u8; 9],
    head_length: u8,
    payload: &'a [u8],
    back: [u8; 5],
    back_length: u8,
}

impl<'a> Encoded<'a> {
    /// Encodes `text`, as an integer where it is a canonical one.
    pub(super) fn new(text: &'a [u8]) -> Self {
        match canonical_i64(text) {
            Some(value) => Self::integer(value),
            None => Self::text(text),
        }
    }

    fn finish(head: [u8; 9], head_length: u8, payload: &'a [u8]) -> Self {
        let (back, back_length) = back_length_bytes(usize::from(head_length) + payload.len());
        Self {
            head,
            head_length,
            payload,
            back,
            back_length,
        }
    }

    /// Encodes a number.
    pub(super) fn integer(value: i64) -> Self {
        let mut head = [0; 9];
        let le = value.to_le_bytes();
        let mut tagged = |tag: u8, bytes: usize| {
            head[0] = tag;
            head[1..=bytes].copy_from_slice(&le[..bytes]);
            bytes as u8 + 1
        };
        let length = match value {
            0..=127 => tagged(le[0], 0),
            -4096..=4095 => {
                let low13 = (value & 0x1fff) as u16;
                head[0] = 0xc0 | (low13 >> 8) as u8;
                head[1] = (low13 & 0xff) as u8;
                2
            }
            -0x8000..=0x7fff => tagged(0xf1, 2),
            -0x80_0000..=0x7f_ffff => tagged(0xf2, 3),
            -0x8000_0000..=0x7fff_ffff => tagged(0xf3, 4),
            _ => tagged(0xf4, 8),
        };
        Self::finish(head, length, &[])
    }

    /// Encodes bytes that are not a canonical integer.
    fn text(text: &'a [u8]) -> Self {
        let mut head = [0; 9];
        let length = text.len();
        let head_length = if length <= 63 {
            head[0] = 0x80 | length as u8;
            1
        } else if length <= 4095 {
            head[0] = 0xe0 | (length >> 8) as u8;
            head[1] = (length & 0xff) as u8;
            2
        } else {
            head[0] = 0xf0;
            head[1..5].copy_from_slice(&(length as u32).to_le_bytes());
            5
        };
        Self::finish(head, head_length, text)
    }

    /// Number of bytes of the entry.
    pub(super) fn len(&self) -> usize {
        usize::from(self.head_length) + self.payload.len() + usize::from(self.back_length)
    }

    /// The runs of bytes, in order.
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [
            &self.head[..usize::from(self.head_length)],
            self.payload,
            &self.back[..usize::from(self.back_length)],
        ]
    }

    /// Writes the entry to the start of `target`, which must be long enough.
    pub(super) fn write(&self, target: &mut [u8]) {
        let mut at = 0;
        for part in self.parts() {
            target[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}

/// Number of bytes in which the length `length` is written behind an entry.
pub(super) fn back_length_size(length: usize) -> usize {
    match length {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

fn back_length_bytes(length: usize) -> ([u8; 5], u8) {
    let size = back_length_size(length);
    let mut bytes = [0; 5];
    for (index, byte) in bytes[..size].iter_mut().enumerate() {
        let shift = 7 * (size - 1 - index);
        let mark = if index == 0 { 0 } else { 128 };
        *byte = ((length >> shift) & 127) as u8 | mark;
    }
    (bytes, size as u8)
}

/// Decodes the entry at `at`: the element and where the next entry starts. `None` at the end mark,
/// beyond the end, or where the bytes are no entry.
#[inline]
pub(super) fn decode(bytes: &[u8], at: usize) -> Option<(Element<'_>, usize)> {
    let entry = bytes.get(at..)?;
    let (element, length) = decode_head(entry)?;
    let next = length + back_length_size(length);
    (next <= entry.len()).then_some((element, at + next))
}

/// The element at the start of `entry` and its length without the length behind it.
#[inline]
fn decode_head(entry: &[u8]) -> Option<(Element<'_>, usize)> {
    let first = *entry.first()?;
    let text = |start: usize, length: usize| {
        Some((
            Element::Text(entry.get(start..start + length)?),
            start + length,
        ))
    };
    let second = || entry.get(1).copied().map(usize::from);
    match first {
        0..=0x7f => Some((Element::Integer(i64::from(first)), 1)),
        0x80..=0xbf => text(1, usize::from(first & 0x3f)),
        0xc0..=0xdf => {
            let low13 = (i64::from(first & 0x1f) << 8) | second()? as i64;
            let value = if low13 >= 4096 { low13 - 8192 } else { low13 };
            Some((Element::Integer(value), 2))
        }
        0xe0..=0xef => text(2, (usize::from(first & 0x0f) << 8) | second()?),
        0xf0 => text(
            5,
            u32::from_le_bytes(entry.get(1..5)?.try_into().ok()?) as usize,
        ),
        0xf1 => integer(entry, 2),
        0xf2 => integer(entry, 3),
        0xf3 => integer(entry, 4),
        0xf4 => integer(entry, 8),
        0xf5..=0xff => None,
    }
}

/// A little-endian integer of `width` bytes behind the type byte.
fn integer(entry: &[u8], width: usize) -> Option<(Element<'_>, usize)> {
    let mut wide = [0; 8];
    wide[8 - width..].copy_from_slice(entry.get(1..=width)?);
    let value = i64::from_le_bytes(wide) >> (64 - 8 * width);
    Some((Element::Integer(value), width + 1))
}

/// Where the entry that ends at `end` starts, according to the length behind it. `None` if no
/// entry can lie there.
#[inline]
pub(super) fn previous(bytes: &[u8], end: usize) -> Option<usize> {
    let mut length = 0usize;
    let mut at = end;
    for index in 0..5 {
        at = at.checked_sub(1)?;
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return at.checked_sub(length).filter(|&start| start < at);
        }
    }
    None
}

/// Whether the length behind the entry from `at` to `next` is exactly what we would write.
pub(super) fn back_length_is_valid(bytes: &[u8], at: usize, next: usize) -> bool {
    let Some((_, length)) = bytes.get(at..next).and_then(decode_head) else {
        return false;
    };
    let (expected, size) = back_length_bytes(length);
    bytes.get(at + length..next) == Some(&expected[..usize::from(size)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(text: &[u8]) -> Vec<u8> {
        Encoded::new(text).parts().concat()
    }

    #[test]
    fn entries_have_the_bytes_of_redis() {
        assert_eq!(bytes_of(b"0"), [0x00, 1]);
        assert_eq!(bytes_of(b"127"), [0x7f, 1]);
        assert_eq!(bytes_of(b"128"), [0xc0, 0x80, 2]);
        assert_eq!(bytes_of(b"-1"), [0xdf, 0xff, 2]);
        assert_eq!(bytes_of(b"-4096"), [0xd0, 0x00, 2]);
        assert_eq!(bytes_of(b"4096"), [0xf1, 0x00, 0x10, 3]);
        assert_eq!(bytes_of(b"-32769"), [0xf2, 0xff, 0x7f, 0xff, 4]);
        assert_eq!(bytes_of(b"8388608"), [0xf3, 0x00, 0x00, 0x80, 0x00, 5]);
        assert_eq!(
            bytes_of(b"2147483648"),
            [0xf4, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 9]
        );
        assert_eq!(bytes_of(b""), [0x80, 1]);
        assert_eq!(bytes_of(b"abc"), [0x83, b'a', b'b', b'c', 4]);
        let long = bytes_of(&[b'x'; 64]);
        assert_eq!(
            (&long[..2], &long[66..]),
            ([0xe0, 64].as_slice(), [66].as_slice())
        );
        let longer = bytes_of(&[b'x'; 4096]);
        assert_eq!(longer[..5], [0xf0, 0x00, 0x10, 0, 0]);
        assert_eq!(
            longer[4101..],
            [4101u32.wrapping_shr(7) as u8, (4101 & 127) as u8 | 128]
        );
    }

    #[test]
    fn lengths_behind_entries_change_size_where_redis_does() {
        for (length, size) in [(127, 1), (128, 2), (16382, 2), (16383, 3), (2_097_150, 3)] {
            assert_eq!(back_length_size(length), size);
        }
    }

    proptest! {
        #[test]
        fn any_entry_reads_back_from_both_ends(text in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            any::<i64>().prop_map(|value| value.to_string().into_bytes()),
            (0usize..20_000).prop_map(|length| vec![b'y'; length]),
        ]) {
            let bytes = bytes_of(&text);
            let (element, next) = decode(&bytes, 0).unwrap();
            prop_assert_eq!(element.to_vec(), text);
            prop_assert_eq!(next, bytes.len());
            prop_assert_eq!(previous(&bytes, next), Some(0));
            prop_assert!(back_length_is_valid(&bytes, 0, next));
        }

        #[test]
        fn hostile_bytes_are_refused_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..70,
        ) {
            let _ = decode(&bytes, at);
            let _ = previous(&bytes, at);
        }
    }
}
