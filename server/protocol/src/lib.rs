//! The Redis wire format, RESP2 and RESP3, without I/O.
//!
//! **Owns** the grammar of requests and replies. **Called by** the server's network and command layers, its
//! replication links, the operator and the tests. **Invariants**: nothing here allocates more than a constant
//! factor of the bytes really received; no input makes it panic; a partial input is never scanned twice.
//! **Does not** read sockets, know commands or keep connections.
//!
//! # Requests
//!
//! ```text
//! multibulk:  *<n>\r\n  then n times  $<len>\r\n<len bytes>\r\n
//! inline:     words separated by blanks, ended by \n or \r\n; "quoted \x41\n" and 'quoted' words
//! ```
//!
//! # Replies
//!
//! ```text
//! +simple\r\n   -ERR text\r\n   :1\r\n   $3\r\nabc\r\n   *2\r\n…      RESP2 and RESP3
//! $-1\r\n  *-1\r\n                                                   RESP2 nulls
//! _\r\n   #t\r\n   ,1.5\r\n   (123\r\n   =7\r\ntxt:abc\r\n           RESP3 null, boolean, double, big number, verbatim
//! %1\r\n…   ~1\r\n…   >1\r\n…   |1\r\n…                              RESP3 map, set, push, attribute
//! ```
//!
//! Reading order: [`request`], [`args`], [`writer`], [`reply`], [`decode`], [`number`].

#![forbid(unsafe_code)]

pub mod args;
pub mod decode;
pub mod number;
pub mod reply;
pub mod request;
pub mod writer;

pub use args::{Args, OwnedArgs, Span};
pub use decode::{DecodeError, DecodeLimits, Decoded, ReplyDecoder};
pub use number::{DoubleText, IntText, format_double, format_double_17, format_i64, parse_i64};
pub use reply::{Reply, encode_command};
pub use request::{Limits, Parsed, ProtocolError, RequestParser};
pub use writer::{Flag, Mark, ReplyWriter};

/// The protocol version a connection speaks; RESP2 until `HELLO 3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Version {
    /// The protocol every client understands.
    #[default]
    Resp2,
    /// Maps, sets, doubles, booleans and pushes as types of their own.
    Resp3,
}

impl Version {
    /// The number `HELLO` and `CLIENT LIST` use.
    pub fn number(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}
