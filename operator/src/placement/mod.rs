//! Where members are and where they should be.
//!
//! Owns: which nodes take members at all, the rules by which members spread over failure domains,
//! what counts as a violation, and which member to move to cure one. Called by `reconcile::plan`; the status of
//! `PlacementSatisfied` comes from [`spread::assess`].
//!
//! Invariants: pure, no client and no clock; a member whose node or label is unknown is never
//! counted as misplaced; nodes and domains that the set's pods cannot use are never counted;
//! nothing is moved unless the move cures a violation, a free domain can take the member, the
//! scheduler has not passed that domain over before, and the member's volume can follow it.
//!
//! Not done here: choosing nodes. The scheduler does, by the topology constraints that
//! `resources` writes into the pod; this module judges the result.
//!
//! Reading order: `eligible` (nodes), `spread` (violations), `score` (which member to move).

pub mod eligible;
pub mod score;
pub mod spread;
