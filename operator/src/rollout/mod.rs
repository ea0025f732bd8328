//! Replacing pods whose specification changed.
//!
//! Owns: why a pod must be replaced and which pod is next. Called by `reconcile::plan`; the
//! StatefulSet is `OnDelete`, so nothing is replaced unless this module says so.
//!
//! Invariants: pure; replicas first, then a switchover, then the old master; never a second voter
//! down because of us; a member whose state is unknown stops the rollout, it is never replaced and
//! its neighbours are not either; reasons come from an ordered list, so the same change always
//! reports the same first reason.
//!
//! Not done here: the switchover itself (`failover`), deleting the pod (`reconcile::apply`).
//!
//! Reading order: `reason`, `order`.

pub mod order;
pub mod reason;
