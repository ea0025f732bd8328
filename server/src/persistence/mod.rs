//! Disk: the snapshot format, and snapshots taken while writes go on.
//!
//! Owns: reading and writing of RDB bytes (`rdb/`), loading a dataset aside (`loader.rs`), and the
//! thread that takes snapshots in slices and hands them to a file and to replicas (`snapshot.rs`).
//!
//! Read next: `rdb/mod.rs`, `loader.rs`, `snapshot.rs`.

pub mod loader;
pub mod rdb;
pub mod snapshot;
