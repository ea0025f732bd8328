//! SCAN: cursors that keep their promise.
//!
//! Owns the form of a cursor. Called by the commands SCAN, KEYS and by whatever walks a whole database in slices.
//!
//! A cursor is a position in the space of hashes, of which it keeps the upper 48 bits; the table is walked in hash order.
//! However the table grows, shrinks or is rebuilt between two calls, an entry's hash stays: every key that is there during
//! the whole scan is given exactly once.

use super::db::Db;
use super::entry::Entry;

/// Bits of a position that a cursor leaves out: below what any segment resolves.
const DROPPED_BITS: u32 = 16;

impl Db {
    /// Calls `f` for live entries from `cursor` on (0 begins), whole buckets of about a dozen until at least `budget`
    /// entries were seen. Returns the cursor to go on from, 0 at the end. Any number may be given as a cursor.
    pub fn scan(&self, cursor: u64, budget: usize, mut f: impl FnMut(&Entry)) -> u64 {
        let position = cursor << DROPPED_BITS;
        let next = self.table.walk(position, budget.max(1), |entry| {
            if !self.context.is_expired(entry) {
                f(entry);
            }
        });
        next.map_or(0, |position| position >> DROPPED_BITS)
    }
}
