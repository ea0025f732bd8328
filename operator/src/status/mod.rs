//! What users read: conditions, member table, events.
//!
//! Owns: how a condition keeps its transition time, and the form of events. Called by
//! `reconcile::report` and, for events, `guard`. Pure.

pub mod conditions;
pub mod events;
pub mod findings;
