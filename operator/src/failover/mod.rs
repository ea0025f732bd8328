//! Who is master, and when that changes.
//!
//! Owns: the verdict over a master from everything that is known about it, and what to do about
//! it. Called by the set's `guard` task, up to twenty times a second and on every change. Pure:
//! instants are milliseconds of the operator's monotonic clock and come in as values.
//!
//! The story:
//!
//! 1. Members push their state on the control connection; `guard` keeps the last one of each, when
//!    it came, and how the connection is. That is the [`health::Evidence`].
//! 2. [`health::judge`] turns it into a [`health::Verdict`]: the master serves; it released its
//!    term; it is gone beyond doubt; a majority misses it; nobody can say.
//! 3. [`decide::decide`] turns the verdict into a decision: nothing, wait (and for whom), elect (and
//!    how). The election's own rules are `replset`'s.
//! 4. While a master serves, [`reunion`] finds members that an unfinished election left behind.
//!
//! Invariants: an operator that alone lost sight of a master deposes nobody (R14): every verdict
//! but `Serving` needs the members' own word, or the master's, or the kubelet's; what is unknown
//! never leads to an election; a planned change begins only when the target is in sync.
//!
//! Not done here: sending anything, terms (`guard`), votes and positions (`replset`).
//!
//! Reading order: `health`, `decide`, `reunion`, `switchover`, `heritage`.

pub mod decide;
pub mod health;
pub mod heritage;
pub mod reunion;
pub mod switchover;
