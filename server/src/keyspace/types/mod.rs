//! The values themselves: pure data structures, each with a model-based test.
//!
//! Owns: [`value::Value`] and the types behind it. Called by: `keyspace` (which stores values in its entries),
//! the command families, and the RDB code (which reads and writes the compact encodings as they
//! are). Nothing here knows a clock, a client or a random number.
//!
//! Invariants:
//! - a collection that is stored under a key is never empty;
//! - small collections use Redis's compact encodings, byte for byte, and change to tables at
//!   Redis's thresholds ([`EncodingLimits`]), so that `OBJECT ENCODING` answers what Redis does;
//! - each collection is 16 bytes or less, so that a key's entry can hold it in place.
//!
//! Read next: `entry.rs` and `compact.rs` (the compact encoding), `step_table.rs` (the table of big
//! collections), then the type you need.

pub mod compact;
pub mod convert;
pub mod entry;
pub mod hash;
pub mod hashing;
pub mod intset;
pub mod list;
mod list_node;
mod list_walk;
pub mod number;
mod score_index;
pub mod set;
pub mod sorted_set;
pub mod step_table;
pub mod thin;
pub mod value;
pub mod walk;

/// Thresholds of the compact encodings, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingLimits {
    /// `hash-max-listpack-entries`: fields.
    pub hash_max_listpack_entries: usize,
    /// `hash-max-listpack-value`: bytes of a field or value.
    pub hash_max_listpack_value: usize,
    /// `list-max-listpack-size`: elements of a node, or -1 to -5 for 4, 8, 16, 32, 64 kB.
    pub list_max_listpack_size: i64,
    /// `set-max-intset-entries`: members.
    pub set_max_intset_entries: usize,
    /// `set-max-listpack-entries`: members.
    pub set_max_listpack_entries: usize,
    /// `set-max-listpack-value`: bytes of a member.
    pub set_max_listpack_value: usize,
    /// `zset-max-listpack-entries`: members.
    pub zset_max_listpack_entries: usize,
    /// `zset-max-listpack-value`: bytes of a member.
    pub zset_max_listpack_value: usize,
}

impl Default for EncodingLimits {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            list_max_listpack_size: -2,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
        }
    }
}
