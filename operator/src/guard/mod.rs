//! The task that keeps one set under a master: in every operator pod, for every set.
//!
//! Owns: the control connections of the set's members, what they said last, the elections and
//! planned switchovers, their record, count and event, the EndpointSlices of its two Services, and
//! the members' knowledge of who votes and where they are. Started and stopped by [`registry`];
//! `reconcile` reads its `View` and orders switchovers.
//!
//! It waits neither for the reconcile queue nor for the operator's Lease: terms taken by
//! compare-and-swap on the set's status make two electors harmless. Only what is no hurry (voters,
//! slices while nothing happens) is left to the acting operator, and a standby waits
//! [`STANDBY_DELAY_MS`] before it acts, so that two pods do not race for every term.
//!
//! Invariants: one thing at a time for each set; every election runs under a term that this very
//! call obtained; an API server that cannot be asked means that nothing changes.
//!
//! Reading order: `view` (what is known), `task` (the loop), `evidence`, `inquiry`, `term` (compare-and-swap), `election`,
//! `record`, `reunion`, `handover`, `slices`, `registry`.

pub mod election;
pub mod evidence;
pub mod handover;
mod inquiry;
mod record;
pub mod registry;
mod reunion;
pub mod slices;
pub mod task;
pub mod term;
#[cfg(test)]
mod testing;
pub mod view;

/// How long a verdict must stand before an operator that is not the acting one acts on it.
pub const STANDBY_DELAY_MS: u64 = 400;

/// How long after a term was handed out an operator that is not the acting one keeps still.
pub const STANDBY_PATIENCE_MS: u64 = 1_000;
