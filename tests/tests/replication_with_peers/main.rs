//! Replication both ways with real Redis and Valkey.
//!
//! `tests/run.sh` runs this program beside all others, because it copies and compares much data, and tells its tests from
//! theirs by the name of the module.

mod with_peers;
