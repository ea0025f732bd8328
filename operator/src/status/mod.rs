//! What users read: conditions, member table, events.
//!
//! Owns: how a condition keeps its transition time, the form of events, and how long texts may be. Called by
//! `reconcile::report` and, for events, `guard`. Pure.

pub mod conditions;
pub mod events;
pub mod findings;
pub mod length;
