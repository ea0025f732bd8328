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

/// Keys whose time left is looked at in each turn of a database.
const TTL_SAMPLES: usize = 20;
/// Segments looked at to find them.
const MAX_TTL_SEGMENTS: usize = 16;
/// Part of the average that one turn's samples make up: Redis's smoothing.
const TTL_SMOOTHING: i64 = 50;

/// How long the keys of a database with an expiry have left on average, from samples of each turn.
#[derive(Debug, Default)]
pub(super) struct TtlAverage {
    average_ms: i64,
    position: u64,
}

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
                self.db(index).sample_ttls();
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
    /// How long keys with an expiry have left on average, in milliseconds; 0 where that is not known.
    pub fn average_ttl_ms(&self) -> i64 {
        self.ttl.average_ms
    }

    fn sample_ttls(&mut self) {
        if self.table.expires_len() == 0 {
            self.ttl = TtlAverage::default();
            return;
        }
        let now_ms = self.context.now_ms;
        let (mut sum, mut count) = (0i64, 0);
        let start = (self.ttl.position, now_ms.unsigned_abs());
        self.ttl.position =
            self.table
                .sample_expiring(start, MAX_TTL_SEGMENTS, TTL_SAMPLES, |entry| {
                    let left_ms = entry.expire_at().map_or(0, |at_ms| at_ms - now_ms);
                    if left_ms > 0 {
                        sum = sum.saturating_add(left_ms);
                        count += 1;
                    }
                });
        if count > 0 {
            let sampled = sum / count;
            let before = self.ttl.average_ms;
            self.ttl.average_ms = match before {
                0 => sampled,
                _ => before / TTL_SMOOTHING * (TTL_SMOOTHING - 1) + sampled / TTL_SMOOTHING,
            };
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{SetExpiry, StringInput};

    #[test]
    fn the_average_of_times_left_is_sampled_and_smoothed() {
        let mut keyspace = Keyspace::new(2, [1, 2]);
        keyspace.set_context(1000, ExpiryRule::Delete);
        for n in 0..1000i64 {
            let key = format!("k{n}");
            let expiry = match n % 2 {
                0 => SetExpiry::At(1000 + 100_000),
                _ => SetExpiry::Clear,
            };
            let value = StringInput::Bytes(b"v");
            keyspace.db(0).set_string(key.as_bytes(), value, expiry);
        }
        let average = |keyspace: &mut Keyspace, db| keyspace.db(db).average_ttl_ms();
        assert_eq!(average(&mut keyspace, 0), 0);
        keyspace.active_expire(400);
        assert_eq!(average(&mut keyspace, 0), 100_000);
        keyspace.set_context(51_000, ExpiryRule::Delete);
        keyspace.active_expire(400);
        assert_eq!(average(&mut keyspace, 0), 99_000, "a fiftieth of the way");
        keyspace.swap(0, 1);
        assert_eq!(average(&mut keyspace, 0), 0);
        assert_eq!(average(&mut keyspace, 1), 99_000);
        keyspace.set_context(200_000, ExpiryRule::Delete);
        for _ in 0..10 {
            keyspace.active_expire(400);
        }
        assert_eq!(average(&mut keyspace, 1), 0, "no key has an expiry");
    }
}
