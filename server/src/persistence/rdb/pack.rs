//! Compression of what has been encoded (`rdbcompression`).
//!
//! Owns the form of a compressed string in the file. Called by the snapshot's thread, without the engine's lock.

use super::{
    encode::{self, Encoded},
    format, lzf,
};

/// Compresses long strings with LZF, each where that saves at least 4 bytes.
#[derive(Debug, Default)]
pub struct Packer {
    compressor: lzf::Compressor,
    /// The compressor's output, reused.
    packed: Vec<u8>,
}

impl Packer {
    /// The same entries with their long strings compressed.
    pub fn pack(&mut self, encoded: &Encoded) -> Vec<u8> {
        let plain = &encoded.bytes;
        let mut out = Vec::with_capacity(plain.len());
        let mut copied = 0;
        for string in &encoded.long_strings {
            let text = &plain[string.text_at..string.end];
            self.packed.clear();
            if self.compressor.compress(text, &mut self.packed).is_none() {
                continue;
            }
            out.extend_from_slice(&plain[copied..string.at]);
            out.push(format::STRING_LZF);
            encode::length(self.packed.len() as u64, &mut out);
            encode::length(text.len() as u64, &mut out);
            out.extend_from_slice(&self.packed);
            copied = string.end;
        }
        out.extend_from_slice(&plain[copied..]);
        out
    }
}
