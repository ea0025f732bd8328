//! The link to a master: what is said, how the snapshot arrives, how the stream is applied.
//!
//! Owns three machines without I/O: `handshake.rs` (every line until data flow), `transfer.rs`
//! (framing of the snapshot), `streaming.rs` (the buffer of the stream, which knows what is applied
//! and what may be forwarded). `link.rs` drives them on a thread of its own.
//!
//! Invariants: bytes are forwarded exactly as the master sent them, and only up to the end of an
//! applied command; a refusal of any kind keeps the data and the history we have.

pub mod handshake;
pub mod link;
pub mod streaming;
pub mod transfer;
