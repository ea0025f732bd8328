//! A Redis-compatible server that replicates both ways with Redis and Valkey.

pub mod config;
pub mod glob;
pub mod keyspace;
pub mod metrics;

/// The version of Redis whose replies and formats this server has; clients decide by it what they may use.
pub const REDIS_VERSION: &str = "7.2.6";
