//! The snapshot format.
//!
//! Owns reading and writing of RDB bytes: [`decode`] turns untrusted bytes into entries for a
//! [`decode::Sink`], [`encode`] appends entries to a buffer. Called by the start-up loader, the
//! link to a master, the snapshot, and DUMP/RESTORE-like commands.
//!
//! Invariants: nothing is allocated on the word of an announced length; a value of a type that the
//! keyspace does not have is refused by name and key; what is written any Redis from 7.0 on and
//! every Valkey can load.
//!
//! Not done here: files, sockets, threads, and which entries belong to a snapshot
//! (`persistence::snapshot`).
//!
//! Read next: `format.rs` (the picture), `reader.rs`, `decode.rs`, `encode.rs`, `pack.rs`.

mod build;
pub mod checksum;
pub mod decode;
pub mod encode;
pub mod error;
pub mod format;
pub mod lzf;
pub mod pack;
pub mod reader;

#[cfg(test)]
mod tests;
