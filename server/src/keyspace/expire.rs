//! Removal of keys whose time is over before anybody asks for them.
//!
//! Owns the rounds of active expiry. Called by the engine's periodic work with a budget. Every segment of a table knows a
//! time before which none of its entries expires, so a round reads only segments in which something may be due; lookups
//! remove expired keys by themselves (`db.rs`).

use super::db::Db;
use super::{ExpiryRule, Keyspace};

/// What one round of active expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireRound {
    /// Entries with an expiry that were looked at.
    pub visited: usize,
    /// Entries of those that were removed.
    pub expired: usize,
}

impl Keyspace {
    /// Removes keys whose time is over, in all databases in turn, until about `budget` entries with an expiry were looked
    /// at or as many segments were skipped. Does nothing unless the rule is [`ExpiryRule::Delete`].
    pub fn active_expire(&mut self, budget: usize) -> ExpireRound {
        let mut round = ExpireRound::default();
        if self.context.expiry != ExpiryRule::Delete {
            return round;
        }
        let mut left = budget;
        for index in 0..self.databases() {
            if left == 0 {
                break;
            }
            self.db(index).active_expire(&mut left, &mut round);
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
