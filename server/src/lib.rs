//! Redfleet's server: a Redis-compatible server that replicates both ways with Redis and Valkey.
//!
//! ```text
//!   sockets ──► net ──► engine ──► command ──► keyspace
//!                         ▲  │
//!   replication ──────────┤  └──► replication stream ──► replicas
//!   persistence ──────────┤
//!   managed (operator) ───┘
//! ```
//!
//! Arrows point one way and a test checks them. Everything that changes data goes through one door,
//! `engine::State::execute`, with an `Origin` that says who is calling.
//!
//! Read: [`keyspace`], [`command`], [`engine`], [`net`], [`replication`], [`persistence`],
//! [`managed`], [`config`], [`metrics`], [`scheduling`], [`descriptors`], [`server`].

/// The version of Redis whose replies and formats this server has; clients decide by it what they may use.
pub const REDIS_VERSION: &str = "7.2.6";

pub mod command;
pub mod config;
pub mod descriptors;
pub mod engine;
pub mod glob;
pub mod input;
pub mod keyspace;
pub mod logging;
pub mod managed;
pub mod metrics;
pub mod net;
pub mod persistence;
pub mod replication;
pub mod scheduling;
pub mod server;
