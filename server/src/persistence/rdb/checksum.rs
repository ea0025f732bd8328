//! CRC-64 as Redis puts it at the end of a snapshot and of a DUMP payload.
//!
//! Owns the tables and the running value. Called by the RDB reader and writer. The polynomial is
//! Jones' (`0xad93d23594c935a9`), input and output reflected, start value 0, no final xor; the
//! check value for `123456789` is `e9c6d914c4b8d9ca`. The tables are computed at compile time;
//! sixteen of them let the loop take 16 bytes at a time.

/// The Jones polynomial with its bits reversed.
const REFLECTED_POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// How many bytes one round of the main loop takes.
const SLICE_BYTES: usize = 16;

static TABLES: [[u64; 256]; SLICE_BYTES] = tables();

const fn tables() -> [[u64; 256]; SLICE_BYTES] {
    let mut tables = [[0u64; 256]; SLICE_BYTES];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ REFLECTED_POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < SLICE_BYTES {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[slice - 1][byte];
            tables[slice][byte] = tables[0][(previous & 0xff) as usize] ^ (previous >> 8);
            byte += 1;
        }
        slice += 1;
    }
    tables
}

/// Continues `crc` over `bytes`; a fresh checksum starts at 0.
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    let mut crc = crc;
    let (blocks, rest) = bytes.as_chunks::<SLICE_BYTES>();
    for block in blocks {
        let (low, high) = block.split_at(8);
        let low = crc ^ u64::from_le_bytes(low.try_into().unwrap_or_default());
        let high = u64::from_le_bytes(high.try_into().unwrap_or_default());
        crc = 0;
        for i in 0..8 {
            crc ^= TABLES[15 - i][(low >> (8 * i)) as usize & 0xff];
            crc ^= TABLES[7 - i][(high >> (8 * i)) as usize & 0xff];
        }
    }
    for &byte in rest {
        crc = TABLES[0][((crc ^ u64::from(byte)) & 0xff) as usize] ^ (crc >> 8);
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_redis_own() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn any_split_gives_the_same_sum() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 7 + 3) as u8).collect();
        let bytewise = bytes.iter().fold(0, |crc, &byte| crc64(crc, &[byte]));
        for split in 0..bytes.len() {
            let (a, b) = bytes.split_at(split);
            assert_eq!(crc64(crc64(0, a), b), bytewise);
        }
    }
}
