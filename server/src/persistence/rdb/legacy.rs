//! The compact encodings of older files, read as plain rows of elements.
//!
//! Owns the parsers of ziplist, zipmap and of the intset's and listpack's bytes as they come in a
//! file. Called by the loader alone. Every parser checks each length against the bytes that are
//! there, so that a lie ends in `None` and never in a panic or an endless loop.
//!
//! ```text
//! ziplist  := u32 bytes, u32 tail, u16 count (65535 = unknown), entry*, ff
//!   entry  := previous length (1 byte, or fe and u32), encoding, data
//!   encoding := 00LLLLLL | 01LLLLLL LLLLLLLL (BE) | 10000000 u32 BE      string
//!             | c0 i16 | d0 i32 | e0 i64 | f0 i24 | fe i8 | f1..fd (value 0..12)
//! zipmap   := count (254 = unknown), (length key length free value padding)*, ff
//!   length := 1 byte up to 253, or fe and u32
//! listpack := u32 bytes, u16 count (65535 = unknown), (encoding data back-length)*, ff
//!   encoding := 0VVVVVVV | 10LLLLLL string | 110VVVVV VVVVVVVV | 1110LLLL LLLLLLLL string
//!             | f0 u32 string | f1 i16 | f2 i24 | f3 i32 | f4 i64
//! intset   := u32 width (2, 4, 8), u32 count, values in ascending order
//! ```
//! All integers are little endian unless marked BE.

/// An element: bytes, or an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element<'a> {
    /// A byte string.
    Bytes(&'a [u8]),
    /// An integer; its string form is decimal.
    Integer(i64),
}

/// A cursor over bytes that may end anywhere.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn int<const N: usize>(&mut self) -> Option<i64> {
        let bytes = self.array::<N>()?;
        let fill = if bytes[N - 1] & 0x80 == 0 { 0 } else { 0xff };
        let mut wide = [fill; 8];
        wide[..N].copy_from_slice(&bytes);
        Some(i64::from_le_bytes(wide))
    }
}

/// Reads a whole ziplist; `None` where it is malformed.
pub fn ziplist(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut cursor = Cursor(bytes);
    let total = u32::from_le_bytes(cursor.array()?) as usize;
    let _tail = cursor.take(4)?;
    let count = u16::from_le_bytes(cursor.array()?);
    if total != bytes.len() {
        return None;
    }
    let mut elements = Vec::new();
    let mut previous = 0;
    loop {
        let before = cursor.0.len();
        let announced = match cursor.byte()? {
            0xff => break,
            0xfe => u32::from_le_bytes(cursor.array()?) as usize,
            short => usize::from(short),
        };
        if announced != previous {
            return None;
        }
        elements.push(ziplist_element(&mut cursor)?);
        previous = before - cursor.0.len();
    }
    let counted = count == u16::MAX || usize::from(count) == elements.len();
    (cursor.0.is_empty() && counted).then_some(elements)
}

fn ziplist_element<'a>(cursor: &mut Cursor<'a>) -> Option<Element<'a>> {
    let encoding = cursor.byte()?;
    let length = match encoding >> 6 {
        0 => usize::from(encoding),
        1 => usize::from(encoding & 0x3f) << 8 | usize::from(cursor.byte()?),
        2 => u32::from_be_bytes(cursor.array()?) as usize,
        _ => {
            let value = match encoding {
                0xc0 => cursor.int::<2>()?,
                0xd0 => cursor.int::<4>()?,
                0xe0 => cursor.int::<8>()?,
                0xf0 => cursor.int::<3>()?,
                0xfe => cursor.int::<1>()?,
                0xf1..=0xfd => i64::from(encoding & 0x0f) - 1,
                _ => return None,
            };
            return Some(Element::Integer(value));
        }
    };
    cursor.take(length).map(Element::Bytes)
}

/// Reads a whole zipmap as keys and values in turn; `None` where it is malformed.
pub fn zipmap(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut cursor = Cursor(bytes);
    let count = cursor.byte()?;
    let mut elements = Vec::new();
    while let Some(key_length) = zipmap_length(&mut cursor)? {
        elements.push(cursor.take(key_length)?);
        let value_length = zipmap_length(&mut cursor)??;
        let free = cursor.byte()?;
        elements.push(cursor.take(value_length)?);
        cursor.take(usize::from(free))?;
    }
    let counted = count >= 254 || usize::from(count) * 2 == elements.len();
    (cursor.0.is_empty() && counted).then_some(elements)
}

/// A length, or `Some(None)` at the end of the map.
fn zipmap_length(cursor: &mut Cursor<'_>) -> Option<Option<usize>> {
    Some(match cursor.byte()? {
        0xff => None,
        0xfe => Some(u32::from_le_bytes(cursor.array()?) as usize),
        short => Some(usize::from(short)),
    })
}

/// Reads a whole intset; `None` where it is malformed or out of order.
pub fn intset(bytes: &[u8]) -> Option<Vec<i64>> {
    let mut cursor = Cursor(bytes);
    let width = u32::from_le_bytes(cursor.array()?);
    let count = u32::from_le_bytes(cursor.array()?) as usize;
    if !matches!(width, 2 | 4 | 8) || count.checked_mul(width as usize)? != cursor.0.len() {
        return None;
    }
    let mut values: Vec<i64> = Vec::with_capacity(count);
    for _ in 0..count {
        let value = match width {
            2 => cursor.int::<2>()?,
            4 => cursor.int::<4>()?,
            _ => cursor.int::<8>()?,
        };
        if values.last().is_some_and(|&last| last >= value) {
            return None;
        }
        values.push(value);
    }
    Some(values)
}

/// Reads a whole listpack; `None` where it is malformed.
pub fn listpack(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut cursor = Cursor(bytes);
    let total = u32::from_le_bytes(cursor.array()?) as usize;
    let count = u16::from_le_bytes(cursor.array()?);
    if total != bytes.len() {
        return None;
    }
    let mut elements = Vec::new();
    loop {
        if cursor.0.first() == Some(&0xff) {
            cursor.take(1)?;
            break;
        }
        let before = cursor.0.len();
        elements.push(listpack_element(&mut cursor)?);
        let size = before - cursor.0.len();
        if cursor.take(back_length_bytes(size))? != &back_length(size)[..back_length_bytes(size)] {
            return None;
        }
    }
    let counted = count == u16::MAX || usize::from(count) == elements.len();
    (cursor.0.is_empty() && counted).then_some(elements)
}

fn listpack_element<'a>(cursor: &mut Cursor<'a>) -> Option<Element<'a>> {
    let encoding = cursor.byte()?;
    let length = match encoding {
        0x00..=0x7f => return Some(Element::Integer(i64::from(encoding))),
        0x80..=0xbf => usize::from(encoding & 0x3f),
        0xc0..=0xdf => {
            let raw = i64::from(encoding & 0x1f) << 8 | i64::from(cursor.byte()?);
            return Some(Element::Integer(if raw >= 1 << 12 {
                raw - (1 << 13)
            } else {
                raw
            }));
        }
        0xe0..=0xef => usize::from(encoding & 0x0f) << 8 | usize::from(cursor.byte()?),
        0xf0 => u32::from_le_bytes(cursor.array()?) as usize,
        0xf1 => return cursor.int::<2>().map(Element::Integer),
        0xf2 => return cursor.int::<3>().map(Element::Integer),
        0xf3 => return cursor.int::<4>().map(Element::Integer),
        0xf4 => return cursor.int::<8>().map(Element::Integer),
        0xf5..=0xff => return None,
    };
    cursor.take(length).map(Element::Bytes)
}

/// How many bytes tell the size of an entry of `size` bytes at its end. The limits are Redis' own,
/// each one below what its bits could hold.
const fn back_length_bytes(size: usize) -> usize {
    match size {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// The size of an entry as it stands at its end: seven bits a byte, highest first, all but the
/// first marked.
fn back_length(size: usize) -> [u8; 5] {
    let count = back_length_bytes(size);
    let mut out = [0; 5];
    for (i, byte) in out[..count].iter_mut().enumerate() {
        let seven = (size >> (7 * (count - 1 - i))) as u8 & 0x7f;
        *byte = if i == 0 { seven } else { seven | 0x80 };
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ziplist_of_every_encoding_is_read() {
        let mut entries: Vec<Vec<u8>> = vec![
            b"\x03abc".to_vec(),
            [&[0x40, 0x50][..], &[b'x'; 0x50]].concat(),
            [&[0x80, 0, 0, 0x41, 0][..], &[b'y'; 0x4100]].concat(),
            vec![0xc0, 0x39, 0x30],
            vec![0xd0, 0, 0, 0, 0x80],
            vec![0xe0, 1, 0, 0, 0, 0, 0, 0, 0x80],
            vec![0xf0, 0, 0, 0x80],
            vec![0xfe, 0xff],
            vec![0xf1],
            vec![0xfd],
        ];
        let mut body = Vec::new();
        let mut previous = 0usize;
        for entry in &mut entries {
            let before = body.len();
            if previous < 254 {
                body.push(previous as u8);
            } else {
                body.push(0xfe);
                body.extend((previous as u32).to_le_bytes());
            }
            body.append(entry);
            previous = body.len() - before;
        }
        let mut bytes = ((body.len() + 11) as u32).to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(10u16.to_le_bytes());
        bytes.append(&mut body);
        bytes.push(0xff);
        let read = ziplist(&bytes).unwrap();
        assert_eq!(read[0], Element::Bytes(b"abc"));
        assert_eq!(read[1], Element::Bytes(&[b'x'; 0x50]));
        assert_eq!(read[2], Element::Bytes(&[b'y'; 0x4100]));
        let numbers: Vec<_> = read[3..].to_vec();
        let expected = [12345, -2_147_483_648, i64::MIN + 1, -8_388_608, -1, 0, 12];
        assert_eq!(numbers, expected.map(Element::Integer));
        for end in 0..bytes.len() {
            assert_eq!(ziplist(&bytes[..end]), None);
        }
    }

    #[test]
    fn a_zipmap_is_read() {
        let bytes = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world..\xff";
        assert_eq!(
            zipmap(bytes).unwrap(),
            [&b"foo"[..], b"bar", b"hello", b"world"]
        );
        for end in 0..bytes.len() {
            assert_eq!(zipmap(&bytes[..end]), None);
        }
    }

    #[test]
    fn a_listpack_of_every_encoding_is_read() {
        let mut bytes = vec![0; 4];
        bytes.extend(8u16.to_le_bytes());
        let entries: [&[u8]; 8] = [
            &[0x7f],
            &[0x83, b'a', b'b', b'c'],
            &[0xdf, 0xff],
            &[0xe0, 0x02, b'h', b'i'],
            &[0xf1, 0x00, 0x80],
            &[0xf2, 0xff, 0xff, 0x7f],
            &[0xf3, 0, 0, 0, 0x80],
            &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80],
        ];
        for entry in entries {
            bytes.extend(entry);
            bytes.push(entry.len() as u8);
        }
        bytes.push(0xff);
        let total = bytes.len() as u32;
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        let integer = Element::Integer;
        let expected = vec![
            integer(127),
            Element::Bytes(b"abc"),
            integer(-1),
            Element::Bytes(b"hi"),
            integer(-32768),
            integer(8_388_607),
            integer(-2_147_483_648),
            integer(i64::MIN),
        ];
        assert_eq!(listpack(&bytes).unwrap(), expected);
        assert_eq!(back_length(300)[..2], [0x02, 0xac]);
    }

    #[test]
    fn an_intset_must_be_sorted_and_complete() {
        let bytes = [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0];
        assert_eq!(intset(&bytes).unwrap(), [-1, 5]);
        assert_eq!(intset(&bytes[..11]), None);
        assert_eq!(intset(&[2, 0, 0, 0, 2, 0, 0, 0, 5, 0, 5, 0]), None);
        assert_eq!(intset(&[3, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = zipmap(&bytes);
            let _ = intset(&bytes);
            if bytes.len() >= 10 {
                let total = bytes.len() as u32;
                bytes[..4].copy_from_slice(&total.to_le_bytes());
            }
            let _ = ziplist(&bytes);
            let _ = listpack(&bytes);
        }
    }
}
