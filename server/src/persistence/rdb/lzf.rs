//! LZF, the byte compression of long strings in a snapshot.
//!
//! Owns both directions; called by the RDB reader and writer. A compressed block is a row of
//! instructions, each led by a control byte:
//!
//! ```text
//! 000LLLLL <L+1 bytes>                  copy L+1 literal bytes
//! LLLooooo oooooooo                     copy L+2 bytes from (o+1) bytes back, L = 1..6
//! 111ooooo LLLLLLLL oooooooo            the same with L+7+2 bytes
//! ```
//!
//! Input is untrusted: every read and every back reference is checked, and the output never grows
//! past the length that the caller names.

use thiserror::Error;

/// What is wrong with a compressed block.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum LzfError {
    /// An instruction continues past the end of the block.
    #[error("compressed block ends inside an instruction")]
    Truncated,
    /// A back reference points before the first byte.
    #[error("compressed block refers to bytes before its start")]
    BadReference,
    /// The block expands to another length than announced.
    #[error("compressed block does not expand to the announced length")]
    WrongLength,
}

/// Longest literal run of one instruction.
const MAX_LITERAL_BYTES: usize = 32;
/// Longest copy of one instruction.
const MAX_COPY_BYTES: usize = 264;
/// Farthest distance of a copy.
const MAX_DISTANCE_BYTES: usize = 8192;
/// A three-byte instruction yields at most 264 bytes, so no block expands more than this.
const MAX_EXPANSION: usize = 88;
/// Bytes reserved before any output exists.
const INITIAL_RESERVE_BYTES: usize = 64 * 1024;
/// Bits of the compressor's hash.
const HASH_BITS: u32 = 14;
/// Longer inputs are left as they are.
const MAX_INPUT_BYTES: usize = 512 * 1024 * 1024;

/// Appends the expansion of `input`, which must be exactly `expected` bytes, to `out`.
pub fn decompress(input: &[u8], expected: usize, out: &mut Vec<u8>) -> Result<(), LzfError> {
    if expected / MAX_EXPANSION > input.len() {
        return Err(LzfError::WrongLength);
    }
    out.reserve(expected.min(INITIAL_RESERVE_BYTES));
    let start = out.len();
    let end = start + expected;
    let mut input = input.iter();
    while let Some(&control) = input.next() {
        if usize::from(control) < MAX_LITERAL_BYTES {
            let (literal, rest) = input
                .as_slice()
                .split_at_checked(usize::from(control) + 1)
                .ok_or(LzfError::Truncated)?;
            out.extend_from_slice(literal);
            input = rest.iter();
        } else {
            let mut length = usize::from(control >> 5);
            if length == 7 {
                length += usize::from(*input.next().ok_or(LzfError::Truncated)?);
            }
            let low = usize::from(*input.next().ok_or(LzfError::Truncated)?);
            let distance = (usize::from(control & 0x1f) << 8 | low) + 1;
            let from = out
                .len()
                .checked_sub(distance)
                .ok_or(LzfError::BadReference)?;
            if from < start {
                return Err(LzfError::BadReference);
            }
            copy_within(out, from, length + 2);
        }
        if out.len() > end {
            return Err(LzfError::WrongLength);
        }
    }
    if out.len() == end {
        Ok(())
    } else {
        Err(LzfError::WrongLength)
    }
}

/// Appends `length` bytes that begin at `from`; source and result may overlap.
fn copy_within(out: &mut Vec<u8>, from: usize, length: usize) {
    let mut left = length;
    while left > 0 {
        let step = left.min(out.len() - from);
        out.extend_from_within(from..from + step);
        left -= step;
    }
}

/// The compressor with its table of places seen, which many strings share.
#[derive(Debug)]
pub struct Compressor {
    /// For each hash of three bytes, `base` of its call plus the place, plus one.
    seen: Box<[u32]>,
    /// What the current call's places start at; smaller entries are of earlier calls.
    base: u32,
}

impl Default for Compressor {
    fn default() -> Self {
        Self {
            seen: vec![0; 1 << HASH_BITS].into_boxed_slice(),
            base: 0,
        }
    }
}

impl Compressor {
    /// Appends the compressed form of `input` to `out`; `None` and nothing appended where it
    /// would not be at least 4 bytes shorter.
    pub fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        let limit = input
            .len()
            .checked_sub(4)
            .filter(|_| input.len() <= MAX_INPUT_BYTES)?;
        if self.base > u32::MAX - MAX_INPUT_BYTES as u32 - 1 {
            self.seen.fill(0);
            self.base = 0;
        }
        let mut literal_from = 0;
        let mut at = 0;
        while at + 2 < input.len() {
            let Some(from) = self.earlier(input, at) else {
                at += 1;
                continue;
            };
            put_literals(&input[literal_from..at], out);
            let longest = MAX_COPY_BYTES.min(input.len() - at);
            let length = (3..longest)
                .find(|&i| input[from + i] != input[at + i])
                .unwrap_or(longest);
            put_copy(at - from, length, out);
            at += length;
            literal_from = at;
            if out.len() - start > limit {
                break;
            }
        }
        self.base += input.len() as u32 + 1;
        put_literals(&input[literal_from..], out);
        let packed = out.len() - start;
        if packed > limit {
            out.truncate(start);
            return None;
        }
        Some(packed)
    }

    /// An earlier place, near enough to refer to, of the three bytes at `at`.
    fn earlier(&mut self, input: &[u8], at: usize) -> Option<usize> {
        let three = &input[at..at + 3];
        let slot = &mut self.seen[hash(three)];
        let entry = std::mem::replace(slot, self.base + at as u32 + 1);
        let from = entry.checked_sub(self.base + 1)? as usize;
        (at - from <= MAX_DISTANCE_BYTES && &input[from..from + 3] == three).then_some(from)
    }
}

fn hash(three: &[u8]) -> usize {
    let word = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
    (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

fn put_literals(mut literals: &[u8], out: &mut Vec<u8>) {
    while !literals.is_empty() {
        let (run, rest) = literals.split_at(literals.len().min(MAX_LITERAL_BYTES));
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
        literals = rest;
    }
}

fn put_copy(distance: usize, length: usize, out: &mut Vec<u8>) {
    let offset = distance - 1;
    let code = length - 2;
    if code < 7 {
        out.push((code << 5 | offset >> 8) as u8);
    } else {
        out.push((7 << 5 | offset >> 8) as u8);
        out.push((code - 7) as u8);
    }
    out.push(offset as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(input: &[u8], expected: usize) -> Result<Vec<u8>, LzfError> {
        let mut out = b"before".to_vec();
        decompress(input, expected, &mut out).map(|()| out.split_off(6))
    }

    #[test]
    fn a_run_of_equal_bytes_becomes_one_overlapping_copy() {
        let mut packed = Vec::new();
        let length = Compressor::default()
            .compress(&[b'a'; 200], &mut packed)
            .unwrap();
        assert!(length < 10);
        assert_eq!(expand(&packed, 200).unwrap(), [b'a'; 200]);
    }

    #[test]
    fn references_before_the_start_are_refused() {
        assert_eq!(expand(&[0x20, 0x00], 3), Err(LzfError::BadReference));
        assert_eq!(
            expand(&[0x00, b'x', 0x20, 0x01], 4),
            Err(LzfError::BadReference)
        );
    }

    #[test]
    fn an_impossible_length_is_refused_before_allocating() {
        assert_eq!(
            expand(&[0x00, b'x'], usize::MAX / 2),
            Err(LzfError::WrongLength)
        );
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(
            words in prop::collection::vec(prop::sample::select(vec!["abc", "redis", "x", "0000000", "\u{00e9}"]), 0..400),
            noise in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut input = words.concat().into_bytes();
            input.extend(noise);
            let mut compressor = Compressor::default();
            for _ in 0..2 {
                let mut packed = Vec::new();
                if let Some(length) = compressor.compress(&input, &mut packed) {
                    prop_assert!(length == packed.len() && length + 4 <= input.len());
                    prop_assert_eq!(&expand(&packed, input.len()).unwrap(), &input);
                } else {
                    prop_assert!(packed.is_empty());
                }
            }
        }

        #[test]
        fn rubbish_is_refused_or_has_the_announced_length(
            input in prop::collection::vec(any::<u8>(), 0..200), expected in 0usize..5000,
        ) {
            if let Ok(out) = expand(&input, expected) {
                prop_assert_eq!(out.len(), expected);
            }
        }
    }
}
