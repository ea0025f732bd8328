//! One operator pod acts, the others stand by.
//!
//! Owns: the `Lease` object of the operator and the question "may I write now?". Called by
//! `controller`, which reconciles only while [`Gate::may_act`] says yes, and by `reconcile::apply`,
//! which asks again before every step.
//!
//! Invariants: a Lease is only written with the resource version that was read (compare-and-swap),
//! so two pods never both believe they took it; a holder stops acting on its own after
//! [`lease::RENEW_DEADLINE`] without a confirmed renewal, which is shorter than the time after
//! which another may take it; wall clocks of other machines are never compared, only our own
//! monotonic time since we last saw the record change.
//!
//! Not done here: failover. It runs in every operator pod, because terms taken by compare-and-swap
//! make two electors harmless, and a failover must not wait for a Lease to expire.
//!
//! Reading order: `gate`, `lease` (pure decisions), `elector` (the loop with the client).

pub mod elector;
pub mod gate;
pub mod lease;
