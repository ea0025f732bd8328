//! Losing the master in every way we can make it happen, under a writer that remembers what was acknowledged.
//!
//! Each test prints the outage that clients of the Service felt. What must hold in all of them: writes resume, there is
//! exactly one master, and what was acknowledged and held by a replica before the fault is there. Each fault happens twice
//! to the same set: with the operators at work, and with both of them killed at the same moment.

mod network;
mod operators;
mod processes;
mod scene;
