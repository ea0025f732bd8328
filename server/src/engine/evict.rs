//! `maxmemory`: removes keys by the configured policy before a command that needs memory runs, and in the background.
//!
//! Each command removes a bounded number of keys; what is still too much then is removed by later commands and by the
//! periodic work, and the command runs, as in Redis. Only a master evicts, and not
//! while writes are paused; replicas follow its DELs.

use super::State;
use crate::{
    command::{Flags, session::Session, table::CommandEntry},
    config::{MaxmemoryPolicy, MemoryConfig},
    keyspace::{
        ExpiryRule, Keyspace,
        evict::{Candidates, Evicted, EvictionRule, Ranking},
        usage::{FrequencyRule, Tracking},
    },
    replication::{backlog::Backlog, state::Role},
};
use resp::Args;

/// Keys that one command, or one slice of the periodic work, removes at most.
pub(super) const MAX_EVICTIONS: usize = 64;
/// Searches without a find that one command makes at most.
const MAX_SEARCHES: usize = 16;
/// Bytes of memory that an argument costs besides its own, about.
const ARGUMENT_OVERHEAD_BYTES: u64 = 64;

/// Whether there is memory for what wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There is, or there will be soon: eviction goes on.
    Enough,
    /// There is still too little; there are more keys to evict.
    Soon,
    /// There is not, and there is nothing to evict.
    None,
}

/// The rule of a policy; `None` for the one that evicts nothing.
pub fn eviction_rule(config: &MemoryConfig) -> Option<EvictionRule> {
    let (candidates, ranking) = match config.policy {
        MaxmemoryPolicy::NoEviction => return None,
        MaxmemoryPolicy::AllKeysLru => (Candidates::All, Ranking::LeastRecent),
        MaxmemoryPolicy::AllKeysLfu => (Candidates::All, Ranking::LeastFrequent),
        MaxmemoryPolicy::AllKeysRandom => (Candidates::All, Ranking::Random),
        MaxmemoryPolicy::VolatileLru => (Candidates::Volatile, Ranking::LeastRecent),
        MaxmemoryPolicy::VolatileLfu => (Candidates::Volatile, Ranking::LeastFrequent),
        MaxmemoryPolicy::VolatileRandom => (Candidates::Volatile, Ranking::Random),
        MaxmemoryPolicy::VolatileTtl => (Candidates::Volatile, Ranking::NearestExpiry),
    };
    Some(EvictionRule {
        candidates,
        ranking,
        samples: config.samples as usize,
    })
}

/// Puts limit and policy in force.
pub fn apply(config: &MemoryConfig, keyspace: &mut Keyspace) {
    keyspace.memory_mut().set_limit(config.max_memory_bytes);
    let tracking = match eviction_rule(config) {
        Some(rule) if rule.ranking == Ranking::LeastFrequent => {
            Tracking::Frequency(FrequencyRule {
                log_factor: config.lfu_log_factor,
                decay_minutes: config.lfu_decay_minutes,
            })
        }
        Some(_) | None => Tracking::Clock,
    };
    keyspace.set_tracking(tracking);
    keyspace.forget_candidates();
}

impl State {
    /// Whether a request with these flags finds memory, where it may grow it. Evicts where that helps.
    pub(super) fn room_for(
        &mut self,
        session: &Session,
        entry: &CommandEntry,
        flags: Flags,
        args: Args<'_>,
    ) -> Room {
        if self.keyspace.memory().limit() == 0 {
            return Room::Enough;
        }
        // A queue of commands grows memory, too, whatever they are.
        const ENDS_OF_QUEUES: [&str; 4] = ["exec", "discard", "quit", "reset"];
        let name = entry.spec.name;
        let is_queued = session.transaction.is_some() && !ENDS_OF_QUEUES.contains(&name);
        let queued = session.transaction.as_ref().filter(|_| name == "exec");
        if !is_queued && !flags.contains(Flags::DENYOOM) {
            return Room::Enough;
        }
        let bytes = match queued {
            None => args
                .iter()
                .map(|word| word.len() as u64 + ARGUMENT_OVERHEAD_BYTES)
                .sum(),
            Some(transaction) => transaction.bytes as u64,
        };
        let now_ms = self.now_ms;
        self.keyspace.memory_mut().note_growth(bytes, now_ms);
        self.make_room()
    }

    /// Evicts until memory is under its limit, within the bounds of one command.
    pub(super) fn make_room(&mut self) -> Room {
        let replication = &self.core.replication;
        // A replica has what its master has, which evicts for both.
        if *replication.role() != Role::Master {
            return Room::Enough;
        }
        let backlog = replication.backlog();
        let memory = self.keyspace.memory_mut();
        memory.set_uncounted(backlog.map_or(0, Backlog::excess));
        if !self.keyspace.is_over_memory_limit() {
            return Room::Enough;
        }
        let Some(rule) = eviction_rule(&self.core.config.memory) else {
            return Room::None;
        };
        if self.core.expiry_rule() != ExpiryRule::Delete {
            // A handover or a pause: nothing may enter the stream, and writes are held back anyway.
            return Room::Soon;
        }
        let (mut removed, mut searches) = (0, 0);
        while self.keyspace.is_over_memory_limit() {
            if removed == MAX_EVICTIONS || searches == MAX_SEARCHES {
                return Room::Soon;
            }
            let word = self.random.next_word();
            match self.keyspace.evict_one(rule, word) {
                Evicted::Key { db, key, bytes } => {
                    removed += 1;
                    self.core.stats.evicted_keys += 1;
                    self.keyspace.memory_mut().note_freed(bytes as u64);
                    let command = [b"DEL".as_slice(), &key];
                    self.core.replication.append_command(db, command);
                }
                Evicted::NotYet => searches += 1,
                Evicted::Nothing => return Room::None,
            }
        }
        Room::Enough
    }
}
