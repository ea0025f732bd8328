//! Bytes in, bytes out: listeners, I/O threads, connections.
//!
//! Owns: sockets of clients. Called by `main` through [`io_threads::start`].
//! Invariants: an I/O thread never blocks; a connection that does not read its replies is not read
//! from either; idle connections hold no buffers (each thread lends one scratch set).
//! Not done here: what requests mean (`engine`), links of replicas (`replication`) beyond handing
//! their socket over.
//!
//! Read next: `connection.rs`, `listener.rs`, `io_threads.rs`.

pub mod connection;
mod cross_protocol;
pub mod io_threads;
pub mod listener;
mod scratch;
