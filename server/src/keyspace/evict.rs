//! Removal of keys for want of memory.
//!
//! Owns the choice of victims: like Redis, a few keys are sampled and the best of them, and of those that earlier samples
//! left in a small pool, is removed. Called by the engine with a budget. Every call does bounded work: a fixed number of
//! samples of each database, and a fixed number of segments when keys with an expiry are looked for.

use super::Keyspace;
use super::db::Db;
use super::entry::Entry;
use super::usage::Tracking;

/// Candidates kept from call to call.
const POOL_SIZE: usize = 16;
/// Segments looked at by one call to find keys with an expiry in one database.
const MAX_SEGMENTS: usize = 256;
/// Elements of a collection from which its size is estimated.
const SAMPLED_ELEMENTS: usize = 5;
/// Bytes of the table for each key, on average.
const SLOT_BYTES: usize = 11;

/// Which keys may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// All.
    All,
    /// Those with an expiry.
    Volatile,
}

/// Which of the sampled keys goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// The one that was not used for the longest time.
    LeastRecent,
    /// The one that is used least.
    LeastFrequent,
    /// The one whose time is over first.
    NearestExpiry,
    /// Any.
    Random,
}

/// An eviction policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionRule {
    /// Which keys may go.
    pub candidates: Candidates,
    /// Which goes first.
    pub ranking: Ranking,
    /// Keys of each database that are looked at for one that goes.
    pub samples: usize,
}

/// What one call did.
#[derive(Debug, PartialEq, Eq)]
pub enum Evicted {
    /// This key went, and about so many bytes with it.
    Key {
        /// Its database.
        db: u32,
        /// The key.
        key: Box<[u8]>,
        /// Estimate of the memory that it held.
        bytes: usize,
    },
    /// No key was found within the bounds of one call: call again.
    NotYet,
    /// There is no key that may go.
    Nothing,
}

/// The best candidates seen so far, the best last.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    /// Higher goes earlier.
    rank: u64,
    db: u32,
    key: Box<[u8]>,
}

impl Pool {
    fn offer(&mut self, rank: u64, db: u32, key: &[u8]) {
        let place = self.0.partition_point(|known| known.rank < rank);
        let is_known = self.0.iter().any(|c| c.db == db && *c.key == *key);
        if is_known || (place == 0 && self.0.len() == POOL_SIZE) {
            return;
        }
        let key = key.into();
        self.0.insert(place, Candidate { rank, db, key });
        if self.0.len() > POOL_SIZE {
            self.0.remove(0);
        }
    }
}

impl Keyspace {
    /// Removes the key that should go first, as far as samples tell. `word` is random.
    pub fn evict_one(&mut self, rule: EvictionRule, word: u64) -> Evicted {
        let mut pool = std::mem::take(&mut self.eviction_pool);
        let candidates: usize = (0..self.databases())
            .map(|db| self.db(db).sample(db, rule, word, &mut pool))
            .sum();
        let mut evicted = Evicted::Nothing;
        if candidates > 0 {
            evicted = Evicted::NotYet;
            while let Some(best) = pool.0.pop() {
                if let Some(bytes) = self.db(best.db).evict(&best.key, rule.candidates) {
                    let (db, key) = (best.db, best.key);
                    evicted = Evicted::Key { db, key, bytes };
                    break;
                }
            }
        }
        if rule.ranking == Ranking::Random {
            // What was left over is as good as new samples, but would favour old ones.
            pool.0.clear();
        }
        self.eviction_pool = pool;
        evicted
    }

    /// Forgets candidates: their ranks mean nothing under another policy.
    pub fn forget_candidates(&mut self) {
        self.eviction_pool = Pool::default();
    }
}

impl Db {
    /// Offers samples to the pool; answers how many keys of this database may go.
    fn sample(&mut self, index: u32, rule: EvictionRule, mut word: u64, pool: &mut Pool) -> usize {
        let context = self.context;
        let mut step = || {
            word = word
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_add(u64::from(index) | 1);
            word
        };
        let rank = |entry: &Entry, chance: u64| match (rule.ranking, context.tracking) {
            (Ranking::Random, _) => chance,
            (Ranking::NearestExpiry, _) => {
                u64::MAX - entry.expire_at().unwrap_or(i64::MAX).max(0).unsigned_abs()
            }
            (Ranking::LeastFrequent, Tracking::Frequency(rule)) => {
                u64::from(u8::MAX - rule.decayed(entry.access(), context.now_ms))
            }
            (Ranking::LeastFrequent | Ranking::LeastRecent, _) => {
                u64::from(context.idle_seconds(entry))
            }
        };
        match rule.candidates {
            Candidates::All => {
                for _ in 0..rule.samples.min(self.table.len()) {
                    if let Some(entry) = self.table.random(step()) {
                        let chance = step();
                        pool.offer(rank(entry, chance), index, entry.key());
                    }
                }
                self.table.len()
            }
            Candidates::Volatile if self.table.expires_len() == 0 => 0,
            Candidates::Volatile => {
                let start = step();
                let most = rule.samples.min(self.table.expires_len());
                let next = self.table.sample_expiring(
                    (self.evict_position, start),
                    MAX_SEGMENTS,
                    most,
                    |entry| {
                        let chance = step();
                        pool.offer(rank(entry, chance), index, entry.key());
                    },
                );
                self.evict_position = next;
                self.table.expires_len()
            }
        }
    }

    /// Removes a candidate, if it is still there and may go; answers about how many bytes it held.
    fn evict(&mut self, key: &[u8], candidates: Candidates) -> Option<usize> {
        let entry = self.get_mut(key)?;
        if candidates == Candidates::Volatile && entry.expire_at().is_none() {
            return None;
        }
        let entry = entry.take();
        let bytes = entry.memory_bytes(SAMPLED_ELEMENTS) + SLOT_BYTES;
        self.discard(entry);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{ExpiryRule, SetExpiry, StringInput};

    fn rule(candidates: Candidates, ranking: Ranking) -> EvictionRule {
        EvictionRule {
            candidates,
            ranking,
            samples: 5,
        }
    }

    /// Keys `k0…`, used one second after the other; every tenth has an expiry, later keys earlier.
    fn filled(keys: i64) -> Keyspace {
        let mut keyspace = Keyspace::new(2, [1, 2]);
        for n in 0..keys {
            keyspace.set_context(n * 1000, ExpiryRule::Delete);
            let expiry = match n % 10 {
                0 => SetExpiry::At(1_000_000_000 - n),
                _ => SetExpiry::Clear,
            };
            let key = format!("k{n}");
            keyspace.db((n % 2) as u32).set_string(
                key.as_bytes(),
                StringInput::Bytes(b"v"),
                expiry,
            );
        }
        keyspace.set_context(keys * 1000, ExpiryRule::Delete);
        keyspace
    }

    fn evict(keyspace: &mut Keyspace, rule: EvictionRule, count: usize) -> Vec<i64> {
        let mut word = 7u64;
        let mut gone = Vec::new();
        for _ in 0..100_000 {
            if gone.len() == count {
                break;
            }
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            match keyspace.evict_one(rule, word) {
                Evicted::Key { key, bytes, .. } => {
                    assert!(bytes > 20, "{bytes}");
                    gone.push(String::from_utf8_lossy(&key[1..]).parse().unwrap());
                }
                Evicted::NotYet => {}
                Evicted::Nothing => break,
            }
        }
        gone
    }

    #[test]
    fn the_least_recently_used_keys_go_first() {
        let mut keyspace = filled(4000);
        let gone = evict(
            &mut keyspace,
            rule(Candidates::All, Ranking::LeastRecent),
            1000,
        );
        assert_eq!(gone.len(), 1000);
        let old = gone.iter().filter(|n| **n < 2000).count();
        assert!(old > 950, "{old} of 1000 were from the older half");
    }

    #[test]
    fn only_keys_with_an_expiry_go_and_all_of_them_are_found() {
        for ranking in [
            Ranking::LeastRecent,
            Ranking::NearestExpiry,
            Ranking::Random,
        ] {
            let mut keyspace = filled(4000);
            let gone = evict(&mut keyspace, rule(Candidates::Volatile, ranking), 4000);
            assert_eq!(gone.len(), 400, "{ranking:?}");
            assert!(gone.iter().all(|n| n % 10 == 0));
            assert_eq!(keyspace.len(), 3600);
        }
    }

    #[test]
    fn the_nearest_expiry_goes_first() {
        let mut keyspace = filled(4000);
        let gone = evict(
            &mut keyspace,
            rule(Candidates::Volatile, Ranking::NearestExpiry),
            100,
        );
        let late = gone.iter().filter(|n| **n > 2000).count();
        assert!(
            late > 95,
            "{late} of 100 were from the half that expires first"
        );
    }

    #[test]
    fn every_key_can_go_by_chance_and_then_nothing_is_left() {
        let mut keyspace = filled(500);
        let gone = evict(&mut keyspace, rule(Candidates::All, Ranking::Random), 600);
        assert_eq!(gone.len(), 500);
        assert_eq!(
            keyspace.evict_one(rule(Candidates::All, Ranking::Random), 1),
            Evicted::Nothing
        );
    }

    #[test]
    fn the_least_used_keys_go_first() {
        let mut keyspace = Keyspace::new(1, [1, 2]);
        let frequency = crate::keyspace::usage::FrequencyRule {
            log_factor: 1,
            decay_minutes: 0,
        };
        keyspace.set_tracking(Tracking::Frequency(frequency));
        keyspace.set_context(1000, ExpiryRule::Delete);
        for n in 0..1000 {
            let key = format!("k{n}");
            keyspace
                .db(0)
                .set_string(key.as_bytes(), StringInput::Bytes(b"v"), SetExpiry::Clear);
            for _ in 0..if n % 2 == 0 { 50 } else { 0 } {
                keyspace.db(0).get(key.as_bytes());
            }
        }
        let gone = evict(
            &mut keyspace,
            rule(Candidates::All, Ranking::LeastFrequent),
            300,
        );
        let unused = gone.iter().filter(|n| *n % 2 == 1).count();
        assert!(unused > 290, "{unused} of 300 had not been used");
    }
}
