//! The seeded hash of keys.
//!
//! Owns one function from bytes to 64 bits. [`super::table::Table`] reads its directory index and bucket from the top
//! bits and its one-byte tag from the lowest eight, so all bits must be equally good.
//!
//! The state is two secret words that the program draws once at start: without them nobody can prepare keys that
//! collide. This is a fast mixing hash (multiply to 128 bits and fold), not a cryptographic one.

/// Hashes keys under a secret seed. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    seeds: [u64; 4],
}

/// An odd constant without structure (digits of the golden ratio), so that a seed of zero still mixes.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl KeyHasher {
    /// Makes the hasher from 128 bits that must come from the system's source of randomness (tests pass any number).
    pub fn new(seed: [u64; 2]) -> Self {
        let mut state = seed[0];
        let mut next = |extra: u64| {
            state = state.wrapping_add(GOLDEN);
            fold(state ^ extra, GOLDEN ^ seed[1].rotate_left(29)) | 1
        };
        let (a, b, c, d) = (next(seed[1]), next(!seed[1]), next(seed[0]), next(!seed[0]));
        Self {
            seeds: [a, b, c, d],
        }
    }

    /// The hash of `bytes`.
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let [s0, s1, s2, s3] = self.seeds;
        let length = bytes.len() as u64;
        let mixed = match bytes.len() {
            17.. => self.hash_long(bytes),
            8..=16 => fold(word(bytes, 0) ^ s0, word(bytes, bytes.len() - 8) ^ s1),
            4..=7 => fold(half(bytes, 0) ^ s0, half(bytes, bytes.len() - 4) ^ s1),
            0 => s0,
            1..=3 => {
                let (first, middle) = (bytes[0], bytes[bytes.len() / 2]);
                let packed = u64::from(first) << 16 | u64::from(middle) << 8;
                fold((packed | u64::from(bytes[bytes.len() - 1])) ^ s0, s1)
            }
        };
        fold(mixed ^ s2, length ^ s3)
    }

    /// 17 bytes and more: 16 bytes a round, the last round over the last 16 bytes whatever their overlap.
    #[inline]
    fn hash_long(&self, bytes: &[u8]) -> u64 {
        let [s0, s1, s2, s3] = self.seeds;
        let mut state = s2 ^ s3.rotate_left(32);
        let mut at = 0;
        while at + 16 < bytes.len() {
            state = fold(word(bytes, at) ^ s0, word(bytes, at + 8) ^ s1 ^ state);
            at += 16;
        }
        let tail = bytes.len() - 16;
        fold(
            word(bytes, tail) ^ s0 ^ state.rotate_left(17),
            word(bytes, tail + 8) ^ s1 ^ state,
        )
    }
}

/// The 128-bit product of two words, its halves xored.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut buffer = [0; 8];
    buffer.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(buffer)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> u64 {
    let mut buffer = [0; 4];
    buffer.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(buffer))
}

/// Whether two keys are equal. Eight bytes at a time without a call: the C library of a static program compares
/// byte by byte.
#[inline]
pub(super) fn keys_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        0 => true,
        1..=7 => a.iter().zip(b).all(|(x, y)| x == y),
        8..=16 => {
            let tail = a.len() - 8;
            ((word(a, 0) ^ word(b, 0)) | (word(a, tail) ^ word(b, tail))) == 0
        }
        17.. => {
            let tail = a.len() - 8;
            let mut at = 0;
            while at < tail {
                if word(a, at) != word(b, at) {
                    return false;
                }
                at += 8;
            }
            word(a, tail) == word(b, tail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_keys_spread_over_top_bits_and_tags() {
        let hasher = KeyHasher::new([1, 2]);
        let (mut top, mut low) = ([0u32; 256], [0u32; 256]);
        for number in 0..256_000u32 {
            let hash = hasher.hash(format!("key:{number:012}").as_bytes());
            top[(hash >> 56) as usize] += 1;
            low[(hash & 255) as usize] += 1;
        }
        for count in top.iter().chain(&low) {
            assert!((800..1200).contains(count), "{count} of about 1000");
        }
    }

    #[test]
    fn every_length_and_every_byte_matters() {
        let hasher = KeyHasher::new([7, 9]);
        let mut seen = std::collections::HashSet::new();
        for length in 0..80 {
            let mut key = vec![0u8; length];
            assert!(seen.insert(hasher.hash(&key)), "zeros of length {length}");
            for at in 0..length {
                key[at] = 1;
                assert!(seen.insert(hasher.hash(&key)), "length {length}, byte {at}");
                assert!(
                    !keys_equal(&key, &vec![0u8; length]),
                    "length {length}, byte {at}"
                );
                key[at] = 0;
            }
            assert!(keys_equal(&key, &vec![0u8; length]));
        }
    }

    #[test]
    fn another_seed_gives_other_hashes() {
        assert_ne!(
            KeyHasher::new([1, 2]).hash(b"key"),
            KeyHasher::new([1, 3]).hash(b"key")
        );
    }
}
