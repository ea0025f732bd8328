//! The control connections: one long-lived task for each member.
//!
//! Owns: finding out what a member says ([`link`]) and telling it things ([`remote`]). Called by
//! `guard`, which keeps what arrives, and by `reconcile::apply`, which pushes credentials and
//! configuration.
//!
//! Invariants: every call has a deadline; nothing here retries a call by itself (a failover must
//! know that it failed); connecting again is paced and never stops; the evidence of a broken line
//! ([`crate::failover::health::Line`]) is what the kernel said, not a guess.
//!
//! Not done here: conclusions. They are `failover`'s.

pub mod link;
pub mod remote;
