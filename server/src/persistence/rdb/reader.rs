//! Primitives of the format read from untrusted bytes.
//!
//! Owns the input buffer, the running checksum and the position. Called by the loader and, over a
//! slice, by `RESTORE`-like users. Memory grows only as bytes arrive: an announced length reserves
//! at most [`RESERVE_BYTES`].

use std::io::{self, Read};

use super::{checksum::crc64, error::RdbError, format, lzf};

/// Bytes read from the source at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Most that is reserved on the word of an announced length.
const RESERVE_BYTES: usize = 1024 * 1024;
/// Longest string that is accepted.
const MAX_STRING_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A length, or the special form of a string that stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Plain(u64),
    Special(u8),
}

/// Whether the checksum at the end of a file is compared (`rdbchecksum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// It is.
    Verify,
    /// It is not, and none is calculated.
    Ignore,
}

/// Reads primitives from `source`, keeping position and checksum.
pub struct Reader<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the buffer before this one are in `crc`.
    summed: usize,
    taken: u64,
    checksums: Checksums,
    crc: u64,
    packed: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// A reader at byte 0.
    pub fn new(source: R, checksums: Checksums) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            summed: 0,
            taken: 0,
            checksums,
            crc: 0,
            packed: Vec::new(),
        }
    }

    /// Bytes taken so far.
    pub fn position(&self) -> u64 {
        self.taken
    }

    /// Checksum of all bytes taken so far, where one is wanted.
    pub fn checksum(&mut self) -> Option<u64> {
        self.sum();
        match self.checksums {
            Checksums::Verify => Some(self.crc),
            Checksums::Ignore => None,
        }
    }

    /// Gives back the source and the bytes that were read from it but not taken.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        let rest = self.buffer[self.start..self.end].to_vec();
        (self.source, rest)
    }

    /// A complaint about the bytes before this position.
    pub fn corrupt(&self, what: &'static str) -> RdbError {
        RdbError::Corrupt {
            at: self.taken,
            what,
        }
    }

    fn sum(&mut self) {
        if self.checksums == Checksums::Verify {
            self.crc = crc64(self.crc, &self.buffer[self.summed..self.start]);
        }
        self.summed = self.start;
    }

    fn read_source(&mut self, into: Option<&mut [u8]>) -> Result<usize, RdbError> {
        let at = self.taken;
        let into = into.unwrap_or(&mut self.buffer);
        loop {
            match self.source.read(into) {
                Ok(0) => return Err(RdbError::Truncated { at }),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(RdbError::Read { at, source }),
            }
        }
    }

    fn refill(&mut self) -> Result<(), RdbError> {
        self.sum();
        self.start = 0;
        self.end = 0;
        self.summed = 0;
        self.end = self.read_source(None)?;
        Ok(())
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, RdbError> {
        if self.start == self.end {
            self.refill()?;
        }
        let byte = self.buffer[self.start];
        self.start += 1;
        self.taken += 1;
        Ok(byte)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut out = [0; N];
        if let Some(bytes) = self.buffer[self.start..self.end].first_chunk::<N>() {
            out = *bytes;
            self.start += N;
            self.taken += N as u64;
            return Ok(out);
        }
        for byte in &mut out {
            *byte = self.byte()?;
        }
        Ok(out)
    }

    /// Appends the next `count` bytes to `out`.
    pub fn bytes_into(&mut self, count: usize, out: &mut Vec<u8>) -> Result<(), RdbError> {
        out.reserve(count.min(RESERVE_BYTES));
        let mut left = count;
        loop {
            let step = left.min(self.end - self.start);
            out.extend_from_slice(&self.buffer[self.start..self.start + step]);
            self.start += step;
            self.taken += step as u64;
            left -= step;
            if left == 0 {
                return Ok(());
            }
            if left < BUFFER_BYTES {
                self.refill()?;
                continue;
            }
            self.sum();
            let from = out.len();
            out.resize(from + left.min(RESERVE_BYTES), 0);
            let read = self.read_source(Some(&mut out[from..]));
            out.truncate(from + read.as_ref().map_or(0, |&count| count));
            let count = read?;
            if self.checksums == Checksums::Verify {
                self.crc = crc64(self.crc, &out[from..]);
            }
            self.taken += count as u64;
            left -= count;
            if left == 0 {
                return Ok(());
            }
        }
    }

    fn length_or_special(&mut self) -> Result<Length, RdbError> {
        let first = self.byte()?;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(first)),
            1 => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            2 => match first {
                format::LENGTH_32 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
                format::LENGTH_64 => Length::Plain(u64::from_be_bytes(self.array()?)),
                _ => return Err(self.corrupt("unknown length encoding")),
            },
            _ => Length::Special(first),
        })
    }

    /// A length.
    #[inline]
    pub fn length(&mut self) -> Result<u64, RdbError> {
        match self.length_or_special()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => Err(self.corrupt("a string encoding where a length must be")),
        }
    }

    fn string_length(&self, length: u64) -> Result<usize, RdbError> {
        usize::try_from(length)
            .ok()
            .filter(|_| length <= MAX_STRING_BYTES)
            .ok_or_else(|| self.corrupt("string longer than 2 GiB"))
    }

    /// A string, which replaces what `out` holds.
    pub fn string_into(&mut self, out: &mut Vec<u8>) -> Result<(), RdbError> {
        out.clear();
        match self.length_or_special()? {
            Length::Plain(length) => {
                let length = self.string_length(length)?;
                self.bytes_into(length, out)
            }
            Length::Special(format::STRING_INT8) => {
                let value = i64::from(i8::from_le_bytes(self.array()?));
                decimal_into(value, out);
                Ok(())
            }
            Length::Special(format::STRING_INT16) => {
                let value = i64::from(i16::from_le_bytes(self.array()?));
                decimal_into(value, out);
                Ok(())
            }
            Length::Special(format::STRING_INT32) => {
                let value = i64::from(i32::from_le_bytes(self.array()?));
                decimal_into(value, out);
                Ok(())
            }
            Length::Special(format::STRING_LZF) => self.compressed_into(out),
            Length::Special(_) => Err(self.corrupt("unknown string encoding")),
        }
    }

    fn compressed_into(&mut self, out: &mut Vec<u8>) -> Result<(), RdbError> {
        let packed_length = self.length()?;
        let packed_length = self.string_length(packed_length)?;
        let length = self.length()?;
        let length = self.string_length(length)?;
        let mut packed = std::mem::take(&mut self.packed);
        packed.clear();
        let read = self.bytes_into(packed_length, &mut packed);
        let expanded = read.and_then(|()| {
            lzf::decompress(&packed, length, out)
                .map_err(|_| self.corrupt("invalid LZF compressed string"))
        });
        packed.shrink_to(RESERVE_BYTES);
        self.packed = packed;
        expanded
    }

    /// A string of its own.
    pub fn string(&mut self) -> Result<Vec<u8>, RdbError> {
        let mut out = Vec::new();
        self.string_into(&mut out)?;
        Ok(out)
    }

    /// A binary score.
    pub fn double(&mut self) -> Result<f64, RdbError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A score in decimal, as type 3 has it: a length byte, or 253–255 for nan, +inf, -inf.
    pub fn decimal_double(&mut self) -> Result<f64, RdbError> {
        match self.byte()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            length => {
                let mut text = Vec::new();
                self.bytes_into(usize::from(length), &mut text)?;
                std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| self.corrupt("a score that is no number"))
            }
        }
    }

    /// Skips one string.
    pub fn skip_string(&mut self) -> Result<(), RdbError> {
        let length = match self.length_or_special()? {
            Length::Plain(length) => length,
            Length::Special(format::STRING_INT8) => 1,
            Length::Special(format::STRING_INT16) => 2,
            Length::Special(format::STRING_INT32) => 4,
            Length::Special(format::STRING_LZF) => {
                let packed = self.length()?;
                self.length()?;
                packed
            }
            Length::Special(_) => return Err(self.corrupt("unknown string encoding")),
        };
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.refill()?;
            }
            let step = left.min((self.end - self.start) as u64);
            self.start += step as usize;
            self.taken += step;
            left -= step;
        }
        Ok(())
    }
}

/// Appends `value` in decimal.
pub fn decimal_into(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut left = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader<&[u8]> {
        Reader::new(bytes, Checksums::Verify)
    }

    #[test]
    fn every_length_form_is_read() {
        assert_eq!(reader(&[0x3f]).length().unwrap(), 63);
        assert_eq!(reader(&[0x40, 0xff]).length().unwrap(), 255);
        assert_eq!(reader(&[0x80, 0, 1, 0, 0]).length().unwrap(), 65536);
        assert_eq!(
            reader(&[0x81, 0, 0, 0, 1, 0, 0, 0, 0]).length().unwrap(),
            1 << 32
        );
        assert!(reader(&[0x82]).length().is_err());
        assert!(reader(&[0xc0]).length().is_err());
    }

    #[test]
    fn integers_become_decimal_strings() {
        assert_eq!(reader(&[0xc0, 0x80]).string().unwrap(), b"-128");
        assert_eq!(reader(&[0xc1, 0x39, 0x30]).string().unwrap(), b"12345");
        assert_eq!(
            reader(&[0xc2, 0, 0, 0, 0x80]).string().unwrap(),
            b"-2147483648"
        );
    }

    #[test]
    fn a_huge_announced_length_costs_no_memory() {
        let mut out = Vec::new();
        let error = reader(&[0x80, 0x7f, 0xff, 0xff, 0xff, b'x']).string_into(&mut out);
        assert!(
            matches!(error, Err(RdbError::Truncated { .. })),
            "{error:?}"
        );
        assert!(out.capacity() <= 4 * RESERVE_BYTES);
        assert!(reader(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0]).string().is_err());
    }

    #[test]
    fn long_strings_bypass_the_buffer_and_are_summed() {
        let payload: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut bytes = vec![0x05, b'h', b'e', b'l', b'l', b'o', 0x80];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(&payload);
        bytes.extend(b"\x02ok");
        let mut reader = reader(&bytes);
        assert_eq!(reader.string().unwrap(), b"hello");
        assert_eq!(reader.string().unwrap(), payload);
        assert_eq!(reader.string().unwrap(), b"ok");
        assert_eq!(reader.checksum(), Some(crc64(0, &bytes)));
        assert_eq!(reader.position(), bytes.len() as u64);
    }
}
