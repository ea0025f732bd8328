//! Secrets that change while clients stay connected.
//!
//! Owns: the order in which an old and a new credential overlap. Called by `reconcile::plan` once
//! per credential (clients, replication); what a step does to Secrets and members is done by
//! `reconcile::apply`.
//!
//! The story of one rotation, each line a [`credential::Phase`]:
//!
//! ```text
//! Settled      members accept and present the one credential there is
//! Adding       a new one exists; every member is told to accept both, present the old
//! Switching    every member accepts both; each is told to present the new one to its master
//! Overlapping  the new one is published to clients; the old one is still accepted
//! Retiring     every member is told to accept the new one only
//! Settled      every member has said that it does
//! ```
//!
//! Invariants: pure, no clock (time is an argument); a phase ends only when every member has
//! confirmed what the phase wants, so a member that cannot be reached holds the rotation back and
//! never loses a login (but a password of the user's that follows on another begins the next
//! rotation at once); the whole progress is the [`credential::State`] kept in the set's status,
//! so any operator continues anywhere; every effect is safe to repeat.
//!
//! Not done here: certificates, which come with TLS; waiting for sessions that logged in with the
//! old credential. They stay when it is retired, and one forgotten connection must not keep a leaked
//! password valid for ever: the overlap is what clients have.

pub mod credential;
