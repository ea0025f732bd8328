//! What users read: conditions, member table, events.
//!
//! Owns: how a condition keeps its transition time, and the words of events. Called by
//! `reconcile::report`. Pure.

pub mod conditions;
pub mod findings;
