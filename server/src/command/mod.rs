//! What clients can ask: one table describes every command, and everything else is derived from it.
//!
//! Owns: [`CommandSpec`] (name, arity, flags, keys, documentation, handler), the families of
//! handlers, and what a handler may see ([`Context`]) and cause ([`Effects`]).
//! Called by: `engine::execute` alone. A handler never sees a clock, a socket or a random number
//! generator: time and random words come in through the context.
//!
//! Invariants:
//! - a handler writes exactly one reply, or returns one error and writes nothing;
//! - what replicas receive is an effect ([`Effects`]), never a copy made elsewhere: by default the
//!   request itself when the handler reported a change, or what the handler rewrote it to;
//! - flags of the table are the only list of write commands, of commands allowed while loading, …
//!
//! Not done here: admission (authentication, read-only replica, memory …: `engine::admit`),
//! queueing of MULTI (`engine::transaction`), sending replies (`net`).
//!
//! To add a command: one [`CommandSpec`] in a family's `COMMANDS` and one handler below it.
//!
//! Read next: `spec.rs`, `context.rs`, `effects.rs`, then `string.rs` as the model of a family.

pub mod args;
mod big;
pub mod collection;
pub mod context;
pub mod effects;
pub mod error;
pub mod float80;
pub mod host;
pub mod session;
pub mod spec;
pub mod table;

pub mod acl;
pub mod config;
pub mod connection;
pub mod expiry;
pub mod hash;
pub mod introspection;
pub mod keys;
pub mod list;
pub mod object;
pub mod replication;
pub mod saving;
pub mod server;
pub mod set;
pub mod sorted_set;
pub mod string;
pub mod transaction;

pub use context::Context;
pub use effects::Effects;
pub use error::{CommandError, CommandResult};
pub use spec::{CommandSpec, Flags, Group, KeySpec};
