//! Harness of everything that needs more than one process.

pub mod client;
pub mod servers;
