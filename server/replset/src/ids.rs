//! The units and names of the replica-set protocol, so that none can be taken for another.
//!
//! Owns only types; everything else in this crate is written in terms of them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

number! {
    /// The number of a mastership; 0 means "before the first". At most 48 bits, because it is
    /// written into replication ids as twelve hexadecimal digits.
    Term
}
number! {
    /// A byte offset in a replication stream (Redis' `master_repl_offset`). Offsets of different
    /// terms are never compared bare: see [`Position`].
    Offset
}
number! {
    /// Version of the set of voters; grows by compare-and-swap in the set's status.
    Generation
}
number! {
    /// Which life of a member: random bits drawn when its state file was created. A member that
    /// lost its state or data has another one afterwards.
    Incarnation
}

name! {
    /// The name of a member, unique in its set (the pod's name under Kubernetes).
    MemberName
}
name! {
    /// Identity of the whole replica set, so that a volume of another set is recognized.
    FleetId
}
name! {
    /// Who runs an election. A member promises a term to one elector only.
    ElectorId
}

/// A release token of 0 is never minted.
pub const RELEASE_NONE: u64 = 0;

impl Term {
    /// The largest term that fits into a replication id.
    pub const MAX: Self = Self(0xffff_ffff_ffff);

    /// The term after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One life of one member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId {
    /// Its name, the same for all its lives.
    pub name: MemberName,
    /// Which life.
    pub incarnation: Incarnation,
}

/// How much data a member holds: the term of the last entry it *holds* (not the term it follows),
/// then the offset. The derived order, term first, is the order of elections.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Term of the last entry held.
    pub term: Term,
    /// Offset after the last complete entry held.
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.term, self.offset)
    }
}

/// A replication id: 40 lowercase hexadecimal digits. Ours carry their term:
///
/// ```text
/// 4edf 00000000002a 9f86d081884c7d659a2feaa0
/// │    │            └ 24 digits, random
/// │    └ 12 digits, the term
/// └ 4 digits, marks an id as ours
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplId(String);

/// A text that is no replication id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a replication id has 40 hexadecimal digits, this has {length} characters: {text:?}")]
pub struct BadReplId {
    length: usize,
    text: String,
}

/// Digits of a replication id.
const REPL_ID_DIGITS: usize = 40;
/// First digits of an id that carries its term.
const REPL_ID_MAGIC: &str = "4edf";
/// End of the digits that carry the term.
const REPL_ID_TERM_END: usize = 16;

impl ReplId {
    /// A new id for a mastership; `random` is 12 random bytes.
    pub fn stamped(term: Term, random: [u8; 12]) -> Self {
        let mut text = format!("{REPL_ID_MAGIC}{:012x}", term.0 & Term::MAX.0);
        for byte in random {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// Reads 40 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, BadReplId> {
        if text.len() == REPL_ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            let length = text.chars().count();
            let text = text.chars().take(REPL_ID_DIGITS).collect();
            Err(BadReplId { length, text })
        }
    }

    /// The term it carries, or `None` for the id of stock Redis or an unmanaged server.
    pub fn term(&self) -> Option<Term> {
        let digits = self.0.strip_prefix(REPL_ID_MAGIC)?;
        let digits = digits.get(..REPL_ID_TERM_END - REPL_ID_MAGIC.len())?;
        u64::from_str_radix(digits, 16).ok().map(Term)
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ReplId {
    type Error = BadReplId;

    fn try_from(text: String) -> Result<Self, BadReplId> {
        Self::parse(&text)
    }
}

impl From<ReplId> for String {
    fn from(id: ReplId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_term_beats_any_offset() {
        let old = Position {
            term: Term(1),
            offset: Offset(1_000_000),
        };
        let new = Position {
            term: Term(2),
            offset: Offset(3),
        };
        assert!(new > old);
    }

    #[test]
    fn a_stamped_id_has_40_digits_and_gives_its_term_back() {
        let id = ReplId::stamped(Term(42), [0xab; 12]);
        assert_eq!(id.as_str(), "4edf00000000002aabababababababababababab");
        assert_eq!(ReplId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.term(), Some(Term(42)));
    }

    #[test]
    fn an_id_of_stock_redis_carries_no_term() {
        let id = ReplId::parse("8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb").unwrap();
        assert_eq!(id.term(), None);
        assert!(ReplId::parse("8371").is_err());
        assert!(ReplId::parse(&"z".repeat(40)).is_err());
        assert!(ReplId::parse(&"é".repeat(20)).is_err());
    }
}
