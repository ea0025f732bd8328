//! Tests of the keyspace against simple models.

mod costs;
mod db;
mod entry;
mod slices;
mod snapshot;
mod table;

use super::{Entry, ExpiryRule, Keyspace, ValueRef};

/// A small deterministic sequence for tests that need many numbers.
pub(super) struct Numbers(pub u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(super) fn keyspace() -> Keyspace {
    let mut keyspace = Keyspace::new(16, [11, 22]);
    keyspace.set_context(1_000_000, ExpiryRule::Delete);
    keyspace
}

pub(super) fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// The text of a string entry.
pub(super) fn text(entry: &Entry) -> Vec<u8> {
    match entry.value() {
        ValueRef::String(string) => string.to_vec(),
        ValueRef::List(_) | ValueRef::Set(_) | ValueRef::Hash(_) | ValueRef::SortedSet(_) => {
            panic!("a {} where a string was expected", entry.type_name())
        }
    }
}
