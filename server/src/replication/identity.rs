//! Replication ids and what a history is: an id, how far it goes, and the one it came from.

use std::fmt;

/// Length of a replication id: hex digits.
pub const REPLID_BYTES: usize = 40;

/// A replication id: 40 hex digits that name one history of changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplId([u8; REPLID_BYTES]);

impl ReplId {
    /// What `master_replid2` shows where there is no older history.
    pub const NONE: ReplId = ReplId([b'0'; REPLID_BYTES]);

    /// An id from random bits.
    pub fn from_random(bits: [u8; REPLID_BYTES / 2]) -> Self {
        let mut digits = [0; REPLID_BYTES];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bits) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        Self(digits)
    }

    /// An id from its text; `None` unless it is 40 hex digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; REPLID_BYTES] = text.try_into().ok()?;
        digits
            .iter()
            .all(u8::is_ascii_hexdigit)
            .then_some(Self(digits))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which history this server's data belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The present id (`master_replid`).
    pub id: ReplId,
    /// Bytes of the stream so far (`master_repl_offset`).
    pub offset: u64,
    /// The history this one came from, and the offset up to which they agree (exclusive as Redis
    /// counts: `second_repl_offset` is this plus one).
    pub previous: Option<(ReplId, u64)>,
}

impl History {
    /// A history that begins with `id`.
    pub fn new(id: ReplId) -> Self {
        Self {
            id,
            offset: 0,
            previous: None,
        }
    }

    /// Whether a stream of history `id` read up to `position` bytes can go on with this one.
    pub fn continues(&self, id: &ReplId, position: u64) -> Continuation {
        let same = *id == self.id;
        let older = self
            .previous
            .is_some_and(|(previous, end)| previous == *id && position <= end);
        if same || older {
            Continuation::Possible
        } else {
            Continuation::OtherHistory
        }
    }

    /// Begins a new id at the present offset, as a promotion does; the old one is remembered.
    pub fn shift(&mut self, id: ReplId) {
        self.previous = Some((self.id, self.offset));
        self.id = id;
    }
}

/// Whether a reader of a history can go on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// It can, if the backlog still has the bytes.
    Possible,
    /// It read something that is not ours.
    OtherHistory,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promoted_history_serves_readers_of_the_old_one_up_to_the_switch() {
        let (old, new) = (ReplId::from_random([1; 20]), ReplId::from_random([2; 20]));
        let mut history = History::new(old);
        history.offset = 100;
        history.shift(new);
        history.offset = 150;
        assert_eq!(history.continues(&old, 100), Continuation::Possible);
        assert_eq!(history.continues(&old, 101), Continuation::OtherHistory);
        assert_eq!(history.continues(&new, 150), Continuation::Possible);
        assert_eq!(
            history.continues(&ReplId::NONE, 0),
            Continuation::OtherHistory
        );
    }

    #[test]
    fn ids_are_40_hex_digits() {
        let id = ReplId::from_random([0xa5; 20]);
        assert_eq!(ReplId::parse(id.as_str().as_bytes()), Some(id));
        assert_eq!(ReplId::parse(b"?"), None);
        assert_eq!(ReplId::parse(&[b'g'; 40]), None);
    }
}
