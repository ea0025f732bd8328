//! Replication both ways with real Redis and Valkey.
//!
//! `with_peers` copies and compares much data: `tests/run.sh` runs it beside all other tests, and tells its tests from
//! theirs by the name of the module.

mod announced;
mod credentials;
mod info_fields;
mod links;
mod timeouts;
mod with_peers;
