//! The engine's figures for INFO and the metrics port, gathered under its lock.

use std::{sync::Arc, time::Duration};

use super::{
    Core, Engine, Lease, clock, cron,
    saving::{Running, SaveResult},
};
use crate::{
    command::{host::ClientType, session::Switch, table},
    config::Config,
    keyspace::Keyspace,
    metrics::{
        self, Facts, Health,
        facts::{
            ClientFacts, CommandFacts, DbFacts, LinkFacts, MemoryFacts, PersistenceFacts,
            ReplicaFacts, ReplicationFacts, ServerFacts, StatFacts,
        },
        process,
        rates::{RateMeter, Totals},
    },
    persistence::rdb::reader::Checksums,
    replication::{
        backlog::Backlog,
        identity::ReplId,
        state::{Following, LinkState, Role},
    },
};

/// Liveness: whoever holds the lock does bounded work, so a server is stuck if it cannot be had for so long.
const MAX_LOCK_WAIT: Duration = Duration::from_secs(5);

/// What is known about this process as such, and what is measured periodically.
#[derive(Debug)]
pub struct About {
    /// Random identity of the process, 40 hexadecimal digits.
    pub run_id: String,
    /// Monotonic milliseconds of the start.
    pub started_ms: i64,
    /// Bytes allocated before there were data.
    pub startup_bytes: u64,
    /// Commands and bytes per second.
    pub rates: RateMeter,
    /// Whether expired keys are removed before somebody asks for them (DEBUG SET-ACTIVE-EXPIRE).
    pub active_expire: Switch,
}

impl About {
    /// A process that starts now. `random` becomes its identity.
    pub fn new(random: [u8; 20], startup_bytes: u64) -> Self {
        Self {
            run_id: ReplId::from_random(random).as_str().to_owned(),
            started_ms: clock::monotonic_ms(),
            startup_bytes,
            rates: RateMeter::default(),
            active_expire: Switch::On,
        }
    }
}

impl Core {
    /// Whether the checksums of snapshots are compared.
    pub fn checksums(&self) -> Checksums {
        match self.config.persistence.rdb_checksum {
            true => Checksums::Verify,
            false => Checksums::Ignore,
        }
    }

    /// Takes a sample of the counters whose rates are shown. Called ten times a second.
    pub fn sample_rates(&mut self) {
        self.about.rates.sample(Totals {
            at_ms: clock::monotonic_ms(),
            commands: self.stats.commands_processed,
            input_bytes: self.stats.net_input_bytes,
            output_bytes: self.stats.net_output_bytes,
        });
    }

    /// All figures of this moment.
    pub fn facts(&self, keyspace: &Keyspace, now_ms: i64) -> Facts {
        let monotonic_ms = clock::monotonic_ms();
        Facts {
            server: ServerFacts {
                port: self.config.net.port,
                run_id: self.about.run_id.clone(),
                config_file: self
                    .config_file
                    .as_ref()
                    .map_or_else(String::new, |p| p.display().to_string()),
                io_threads: self.config.net.io_threads,
                now_us: clock::unix_us(),
                hz: cron::ROUNDS_PER_SECOND,
                configured_hz: self.config.hz(),
                uptime_s: seconds(monotonic_ms - self.about.started_ms) as u64,
            },
            clients: self.client_facts(),
            memory: self.memory_facts(keyspace),
            persistence: self.persistence_facts(now_ms),
            stats: self.stat_facts(keyspace),
            replication: self.replication_facts(monotonic_ms),
            process: process::read(),
            commands: self.command_facts(),
            errors: self
                .stats
                .errors
                .iter()
                .map(|(code, count)| (code.clone(), *count))
                .collect(),
            keyspace: db_facts(keyspace),
        }
    }

    fn client_facts(&self) -> ClientFacts {
        let clients = &self.shared.clients;
        let replicas = clients.count(ClientType::Replica);
        ClientFacts {
            connected: clients.len().saturating_sub(replicas) as u64,
            max: u64::from(self.config.net.max_clients),
            blocked: self.waiters.len() as u64,
        }
    }

    fn memory_facts(&self, keyspace: &Keyspace) -> MemoryFacts {
        let memory = keyspace.memory().stats();
        let policy = self.config.matching(&["maxmemory-policy"]).pop();
        let backlog = self.replication.backlog();
        MemoryFacts {
            allocated: memory.allocated,
            active: memory.active,
            resident: memory.resident,
            peak: memory.peak,
            startup: self.about.startup_bytes,
            tables: keyspace
                .iter()
                .map(|(_, db)| db.table_overhead() as u64)
                .sum(),
            limit: keyspace.memory().limit(),
            policy: policy.map(|(_, value)| value).unwrap_or_default(),
            backlog: backlog.map_or(0, Backlog::len),
            uncounted: backlog.map_or(0, Backlog::excess),
            clients: self.shared.clients.buffer_bytes(),
        }
    }

    fn persistence_facts(&self, now_ms: i64) -> PersistenceFacts {
        let saving = &self.saving;
        PersistenceFacts {
            loading: self.shared.loading.facts(now_ms / 1000),
            loads_aside: self.replication.loads_aside(),
            changes: self.stats.dirty,
            running_s: match saving.running {
                Running::No => None,
                Running::Since(since_s) => Some((now_ms / 1000 - since_s).max(0)),
            },
            last_save_s: saving.last_save_s,
            last_ok: saving.last_result == SaveResult::Ok,
            last_duration_s: saving.last_duration_s,
            saves: saving.saves,
        }
    }

    fn stat_facts(&self, keyspace: &Keyspace) -> StatFacts {
        let (stats, lookups) = (&self.stats, keyspace.stats());
        StatFacts {
            connections_received: stats.connections_received,
            connections_rejected: stats.connections_rejected,
            commands_processed: stats.commands_processed,
            rates: self.about.rates.rates(),
            net_input_bytes: stats.net_input_bytes,
            net_output_bytes: stats.net_output_bytes,
            error_replies: stats.error_replies,
            sync_full: stats.sync_full,
            sync_partial_ok: stats.sync_partial_ok,
            sync_partial_err: stats.sync_partial_err,
            expired_keys: lookups.expired,
            evicted_keys: stats.evicted_keys,
            keyspace_hits: lookups.hits,
            keyspace_misses: lookups.misses,
        }
    }

    fn replication_facts(&self, monotonic_ms: i64) -> ReplicationFacts {
        let replication = &self.replication;
        let history = replication.history();
        let (previous_id, previous_offset) = match &history.previous {
            None => (ReplId::NONE, -1),
            Some((id, end)) => (*id, *end as i64 + 1),
        };
        let replicas = replication.replicas().iter().map(|replica| ReplicaFacts {
            ip: replica.ip.clone(),
            port: replica.port,
            state: replica.state.name(),
            offset: replica.acked,
            lag_s: seconds(monotonic_ms - replica.acked_ms),
        });
        let wants_good = self.config.replication.wants_good_replicas();
        ReplicationFacts {
            link: match replication.role() {
                Role::Master => None,
                Role::Replica(following) => Some(link_facts(following, &self.config, monotonic_ms)),
            },
            replicas: replicas.collect(),
            good_replicas: wants_good
                .then(|| replication.good_replicas(&self.config, monotonic_ms) as u64),
            handover: replication.handover().step_name(),
            id: history.id.to_string(),
            previous_id: previous_id.to_string(),
            offset: history.offset,
            previous_offset,
            // Redis counts the bytes of the stream from 1.
            backlog: replication
                .backlog()
                .map(|backlog| (backlog.start() + 1, backlog.len())),
            backlog_size: self.config.replication.backlog_bytes,
        }
    }

    fn command_facts(&self) -> Vec<CommandFacts> {
        let counted = table::table()
            .all()
            .map(|entry| (entry, self.stats.commands[entry.id]));
        let used = counted.filter(|(_, stats)| stats.calls + stats.rejected + stats.failed > 0);
        used.map(|(entry, stats)| CommandFacts {
            name: entry.full_name.clone(),
            calls: stats.calls,
            usec: clock::ticks_to_us(stats.ticks),
            rejected: stats.rejected,
            failed: stats.failed,
        })
        .collect()
    }
}

fn link_facts(following: &Following, config: &Config, monotonic_ms: i64) -> LinkFacts {
    let since = |at_ms: i64| seconds(monotonic_ms - at_ms);
    let up = following.link == LinkState::Connected;
    let syncing = following.link == LinkState::Sync;
    LinkFacts {
        host: following.host.clone(),
        port: following.port,
        up,
        last_io_s: following.last_io_ms.filter(|_| up).map(since),
        sync_last_io_s: following.last_io_ms.filter(|_| syncing).map(since),
        sync: syncing.then_some((following.sync_total_bytes, following.sync_read_bytes)),
        read_offset: following.read_offset,
        down_since_s: following.down_since_ms.filter(|_| !up).map(since),
        last_error: following.last_error.clone(),
        priority: config.replication.replica_priority,
        read_only: config.replication.replica_read_only,
        announced: config.replication.announced,
    }
}

fn db_facts(keyspace: &Keyspace) -> Vec<DbFacts> {
    let used = keyspace.iter().filter(|(_, db)| !db.is_empty());
    used.map(|(index, db)| DbFacts {
        index,
        keys: db.len() as u64,
        expires: db.expires_len() as u64,
        avg_ttl_ms: db.average_ttl_ms(),
    })
    .collect()
}

fn seconds(ms: i64) -> i64 {
    ms.max(0) / 1000
}

/// What the metrics port asks.
pub struct EngineSource(pub Arc<Engine>);

impl metrics::Source for EngineSource {
    fn facts(&self) -> Facts {
        let state = self.0.lock();
        state.core.facts(&state.keyspace, clock::unix_ms())
    }

    fn alive(&self) -> Health {
        match self.0.try_lock_for(MAX_LOCK_WAIT) {
            Some(_) => Health::Good,
            None => Health::Bad("the engine does not respond".to_owned()),
        }
    }

    fn ready(&self) -> Health {
        let Some(state) = self.0.try_lock_for(MAX_LOCK_WAIT) else {
            return Health::Bad("the engine does not respond".to_owned());
        };
        let shared = &state.core.shared;
        if shared.loading.is_running() {
            return Health::Bad("loading the dataset".to_owned());
        }
        if shared.serve_until_ms.has_lapsed(clock::monotonic_ms) == Lease::Lapsed {
            return Health::Bad(
                "a majority of the set has not acknowledged this server in time".to_owned(),
            );
        }
        match state.core.replication.role() {
            Role::Master => Health::Good,
            Role::Replica(following) if following.link == LinkState::Connected => Health::Good,
            Role::Replica(following) => Health::Bad(format!(
                "the link to the master {}:{} is not up ({})",
                following.host,
                following.port,
                following.link.name()
            )),
        }
    }
}
