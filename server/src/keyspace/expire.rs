//! Removal of keys whose time is over before anybody asks for them.
//!
//! Owns the rounds of active expiry. Called by the engine's periodic work with a budget. Every segment of a table knows a
//! time before which none of its entries expires, so a round reads only segments in which something may be due; lookups
//! remove expired keys by themselves (`db.rs`).

use super::db::Db;
use super::{ExpiryRule, Keyspace};

/// Percent of the keys looked at that were expired, above which a database's turn goes on: what Redis takes as stale
/// keys that may stay for a while.
const ACCEPTABLE_STALE_PERCENT: usize = 10;
/// Rounds of one database in a row, however much of it is expired, before it is the next one's turn.
pub(super) const MAX_TURN_ROUNDS: usize = 64;

/// What one round of active expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireRound {
    /// Entries with an expiry that were looked at.
    pub visited: usize,
    /// Entries of those that were removed.
    pub expired: usize,
    /// Databases whose turn ended: few of their keys were expired, or they had many rounds in a row.
    pub turns: u32,
}

/// The database whose turn it is, so that none waits for another that never comes to its end.
#[derive(Debug, Default)]
pub(super) struct ExpireTurn {
    db: u32,
    rounds: usize,
}

impl Keyspace {
    /// Removes keys whose time is over, in the databases in turn and where the last round ended, until about `budget`
    /// entries with an expiry were looked at or as many segments were skipped, or every database had its turn. Does
    /// nothing unless the rule is [`ExpiryRule::Delete`].
    pub fn active_expire(&mut self, budget: usize) -> ExpireRound {
        let databases = self.databases();
        let mut round = ExpireRound::default();
        if self.context.expiry != ExpiryRule::Delete {
            round.turns = databases;
            return round;
        }
        let mut left = budget;
        while left > 0 && round.turns < databases {
            let before = round;
            let index = self.expire_turn.db;
            self.db(index).active_expire(&mut left, &mut round);
            self.expire_turn.rounds += 1;
            let visited = round.visited - before.visited;
            let expired = round.expired - before.expired;
            let is_clean = expired * 100 <= visited * ACCEPTABLE_STALE_PERCENT;
            if is_clean || self.expire_turn.rounds == MAX_TURN_ROUNDS {
                self.expire_turn = ExpireTurn {
                    db: (index + 1) % databases,
                    rounds: 0,
                };
                round.turns += 1;
            }
        }
        round
    }
}

impl Db {
    /// One database's part: from where the last round ended to the end of the budget or of the table.
    fn active_expire(&mut self, budget: &mut usize, round: &mut ExpireRound) {
        while *budget > 0 && self.table.expires_len() > 0 {
            let mut due = Vec::new();
            let position = self.expire_position;
            let step = self
                .table
                .take_expired(position, self.context.now_ms, *budget, &mut due);
            round.visited += step.visited;
            round.expired += due.len();
            *budget = budget.saturating_sub(step.visited + step.skipped_segments);
            for mut entry in due {
                self.books.hook.before_drop(&self.table, &mut entry);
                self.books.expired(entry, self.context.expiry);
            }
            self.expire_position = step.next.unwrap_or(0);
            if step.next.is_none() {
                return;
            }
        }
    }
}
