//! Copies: how the effects of commands reach other servers, and how this one follows a master.
//!
//! Owns: the role, the history (ids and offset), the stream's recent bytes, what is known of each
//! attached replica. The state here is plain data under the engine's lock ([`Replication`]); the
//! sockets are driven by `sender.rs` (one task for each replica) and `replica/` (a thread that follows
//! a master).
//!
//! The story. A master appends the effect of each command to the stream; its length is the offset.
//! A replica connects, says who it is (`REPLCONF`), asks to continue a history (`PSYNC id offset`)
//! and gets either the missing bytes or a snapshot followed by the stream. It acknowledges by
//! `REPLCONF ACK`. A replica forwards its master's stream byte for byte, so that offsets and ids
//! are the same everywhere and any member can continue with any other.
//!
//! Invariants:
//! - the offset never goes back but by a full synchronization from another history;
//! - bytes enter the stream in the order in which the engine's lock was taken;
//! - an old dataset is dropped only when the new one is complete.
//!
//! Read next: `identity.rs`, `backlog.rs`, `state.rs`, `sender.rs`, `replica/mod.rs`.

pub mod backlog;
pub mod handover;
pub mod identity;
pub mod replica;
pub mod sender;
pub mod state;

pub use sender::serve_replica;
pub use state::Replication;
