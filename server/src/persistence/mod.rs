//! Disk: the snapshot format, and snapshots taken while writes go on.
//!
//! Read next: `rdb/mod.rs`.

pub mod rdb;
