//! What a handler sees while it runs.

use resp::ReplyWriter;

use super::{effects::Effects, host::Host, session::Session};
use crate::keyspace::{Keyspace, types::EncodingLimits};

/// Everything a handler may use. The fields are public and disjoint on purpose: a handler borrows
/// an entry from `keyspace` and writes to `reply` at the same time.
pub struct Context<'a> {
    /// All databases; `keyspace.db(session.db)` is the selected one.
    pub keyspace: &'a mut Keyspace,
    /// The caller: selected database, protocol, user, transaction.
    pub session: &'a mut Session,
    /// Where the one reply goes.
    pub reply: ReplyWriter<'a>,
    /// What the command changed.
    pub effects: &'a mut Effects,
    /// The rest of the server, for commands about the server itself.
    pub host: &'a mut dyn Host,
    /// Thresholds of the compact encodings.
    pub limits: EncodingLimits,
    /// Longest string that a command may make by adding to one.
    pub max_string_bytes: usize,
    /// Who has decided that the command runs.
    pub authority: Authority,
    /// Unix time in milliseconds, constant during a batch of commands.
    pub now_ms: i64,
    /// The same moment in microseconds, for TIME.
    pub now_us: i64,
    /// State of the random sequence that this command may use.
    pub random: &'a mut RandomWords,
}

/// Who has decided that a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// This server.
    Own,
    /// Its master, which has run it already.
    Master,
}

/// A sequence of pseudo-random words, seeded by the engine (a handler draws, it never seeds).
#[derive(Debug)]
pub struct RandomWords(u64);

impl RandomWords {
    /// A sequence that depends on `seed` alone.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word (splitmix64: full period, good distribution, not for secrets).
    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (which must not be 0); the bias is below 2^-32 for any `usize` count
    /// of elements that fits in memory.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_word()) * bound as u128) >> 64) as usize
    }
}
