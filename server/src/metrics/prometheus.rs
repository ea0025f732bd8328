//! The text of `/metrics`: names that dashboards and alerts made for redis_exporter understand.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{
    facts::{CommandFacts, DbFacts, Facts, LinkFacts, ReplicaFacts},
    process,
};
use crate::REDIS_VERSION;

/// Prefix of every name.
const PREFIX: &str = "redis_";

/// Renders the figures in the OpenMetrics text format.
pub fn render(facts: Facts) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(FactsCollector(facts)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct FactsCollector(Facts);

impl Collector for FactsCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder };
        let facts = &self.0;
        out.server(facts)?;
        for (name, help, figure) in GAUGES {
            out.gauge(name, help, figure(facts))?;
        }
        for (name, help, figure) in COUNTERS {
            out.counter(name, help, figure(facts))?;
        }
        out.replicas(facts)?;
        if let Some(link) = &facts.replication.link {
            out.link(link, facts.replication.offset)?;
        }
        out.families(facts)
    }
}

/// Name, help, figure.
type Figure = (&'static str, &'static str, fn(&Facts) -> f64);

/// Figures without labels that can fall. Four counters are here because their names have no `_total`.
const GAUGES: &[Figure] = &[
    ("up", "The server answers.", |_| 1.0),
    ("uptime_in_seconds", "Seconds since the start.", |f| {
        f.server.uptime_s as f64
    }),
    ("start_time_seconds", "Unix time of the start.", |f| {
        (f.server.now_us / 1_000_000) as f64 - f.server.uptime_s as f64
    }),
    ("process_id", "Process id.", |f| f64::from(f.process.pid)),
    ("connected_clients", "Client connections.", |f| {
        f.clients.connected as f64
    }),
    ("config_maxclients", "Limit on connections.", |f| {
        f.clients.max as f64
    }),
    ("blocked_clients", "Clients in a blocking command.", |f| {
        f.clients.blocked as f64
    }),
    (
        "config_maxmemory",
        "Limit on memory in bytes, 0 is none.",
        |f| f.memory.limit as f64,
    ),
    (
        "instantaneous_ops_per_sec",
        "Commands per second of late.",
        |f| f.stats.rates.commands.round(),
    ),
    (
        "replica_resyncs_full",
        "Full synchronizations granted.",
        |f| f.stats.sync_full as f64,
    ),
    (
        "replica_partial_resync_accepted",
        "Partial synchronizations granted.",
        |f| f.stats.sync_partial_ok as f64,
    ),
    (
        "replica_partial_resync_denied",
        "Partial synchronizations refused.",
        |f| f.stats.sync_partial_err as f64,
    ),
    ("total_error_replies", "Error replies.", |f| {
        f.stats.error_replies as f64
    }),
    ("memory_used_bytes", "Memory asked of the allocator.", |f| {
        f.memory.allocated as f64
    }),
    ("memory_used_rss_bytes", "Physical memory.", |f| {
        f.process.rss_bytes as f64
    }),
    (
        "memory_used_peak_bytes",
        "Highest memory asked of the allocator.",
        |f| f.memory.peak as f64,
    ),
    (
        "memory_used_startup_bytes",
        "Memory after the start.",
        |f| f.memory.startup as f64,
    ),
    ("memory_max_bytes", "Limit on memory, 0 is none.", |f| {
        f.memory.limit as f64
    }),
    ("allocator_active_bytes", "Memory in used pages.", |f| {
        f.memory.active as f64
    }),
    (
        "allocator_resident_bytes",
        "Memory the allocator holds.",
        |f| f.memory.resident as f64,
    ),
    (
        "mem_replication_backlog_bytes",
        "Memory of the backlog.",
        |f| f.memory.backlog as f64,
    ),
    ("mem_clients_normal", "Buffers of clients.", |f| {
        f.memory.clients as f64
    }),
    ("total_system_memory_bytes", "Memory of the machine.", |f| {
        f.process.machine_bytes as f64
    }),
    (
        "mem_fragmentation_ratio",
        "Physical memory to memory asked for.",
        |f| f.process.rss_bytes as f64 / f.memory.allocated.max(1) as f64,
    ),
    ("loading_dump_file", "A dataset is being loaded.", |f| {
        yes(f.persistence.loading.is_some())
    }),
    (
        "rdb_changes_since_last_save",
        "Changes not in a snapshot.",
        |f| f.persistence.changes as f64,
    ),
    (
        "rdb_bgsave_in_progress",
        "A snapshot is being written.",
        |f| yes(f.persistence.running_s.is_some()),
    ),
    (
        "rdb_last_save_timestamp_seconds",
        "Unix time of the last snapshot.",
        |f| f.persistence.last_save_s as f64,
    ),
    (
        "rdb_last_bgsave_status",
        "The last snapshot was good.",
        |f| yes(f.persistence.last_ok),
    ),
    (
        "rdb_last_bgsave_duration_sec",
        "Seconds the last snapshot took.",
        |f| f.persistence.last_duration_s as f64,
    ),
    (
        "rdb_current_bgsave_duration_sec",
        "Seconds of the running one.",
        |f| f.persistence.running_s.unwrap_or(-1) as f64,
    ),
    ("aof_enabled", "There is an append-only file.", |_| 0.0),
    ("connected_slaves", "Attached replicas.", |f| {
        f.replication.replicas.len() as f64
    }),
    (
        "master_repl_offset",
        "Length of the stream in bytes.",
        |f| f.replication.offset as f64,
    ),
    ("second_repl_offset", "End of the previous history.", |f| {
        f.replication.previous_offset as f64
    }),
    ("repl_backlog_is_active", "There is a backlog.", |f| {
        yes(f.replication.backlog.is_some())
    }),
    ("replication_backlog_bytes", "Its size.", |f| {
        f.replication.backlog_size as f64
    }),
    ("repl_backlog_first_byte_offset", "Its first byte.", |f| {
        f.replication.backlog.map_or(0, |b| b.0) as f64
    }),
    ("repl_backlog_history_bytes", "Bytes it holds.", |f| {
        f.replication.backlog.map_or(0, |b| b.1) as f64
    }),
];

/// Figures without labels that only grow; the format adds `_total` to their names.
const COUNTERS: &[Figure] = &[
    ("cpu_sys_seconds", "Processor time in the kernel.", |f| {
        f.process.cpu_sys_s
    }),
    ("cpu_user_seconds", "Processor time in user mode.", |f| {
        f.process.cpu_user_s
    }),
    ("connections_received", "Connections accepted.", |f| {
        f.stats.connections_received as f64
    }),
    ("rejected_connections", "Connections refused.", |f| {
        f.stats.connections_rejected as f64
    }),
    ("commands_processed", "Commands run.", |f| {
        f.stats.commands_processed as f64
    }),
    ("net_input_bytes", "Bytes from clients.", |f| {
        f.stats.net_input_bytes as f64
    }),
    ("net_output_bytes", "Bytes to clients.", |f| {
        f.stats.net_output_bytes as f64
    }),
    (
        "expired_keys",
        "Keys removed because their time was over.",
        |f| f.stats.expired_keys as f64,
    ),
    ("evicted_keys", "Keys removed for want of memory.", |f| {
        f.stats.evicted_keys as f64
    }),
    ("keyspace_hits", "Lookups that found a key.", |f| {
        f.stats.keyspace_hits as f64
    }),
    ("keyspace_misses", "Lookups that found none.", |f| {
        f.stats.keyspace_misses as f64
    }),
    ("rdb_saves", "Snapshots written.", |f| {
        f.persistence.saves as f64
    }),
];

fn yes(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// A figure with its labels.
type Labelled<const N: usize> = [(&'static str, String); N];

struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let name = format!("{PREFIX}{name}");
        gauge.encode(
            self.encoder
                .encode_descriptor(&name, help, None, gauge.metric_type())?,
        )
    }

    /// `name` without the `_total` that the format adds.
    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let name = format!("{PREFIX}{name}");
        counter.encode(
            self.encoder
                .encode_descriptor(&name, help, None, counter.metric_type())?,
        )
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labelled<N>, f64)>,
    ) -> fmt::Result
    where
        Labelled<N>: EncodeLabelSet,
    {
        let name = format!("{PREFIX}{name}");
        let kind = ConstGauge::new(0f64).metric_type();
        let mut family = self.encoder.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counted<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labelled<N>, f64)>,
    ) -> fmt::Result
    where
        Labelled<N>: EncodeLabelSet,
    {
        let name = format!("{PREFIX}{name}");
        let kind = ConstCounter::new(0f64).metric_type();
        let mut family = self.encoder.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn server(&mut self, facts: &Facts) -> fmt::Result {
        let role = if facts.replication.link.is_some() {
            "slave"
        } else {
            "master"
        };
        let labels = [
            ("redis_version", REDIS_VERSION.to_owned()),
            ("redfleet_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("redis_mode", "standalone".to_owned()),
            ("role", role.to_owned()),
            ("os", process::system()),
            ("maxmemory_policy", facts.memory.policy.clone()),
            ("process_id", facts.process.pid.to_string()),
            ("run_id", facts.server.run_id.clone()),
            ("tcp_port", facts.server.port.to_string()),
        ];
        self.gauges("instance_info", "What this instance is.", [(labels, 1.0)])
    }

    fn replicas(&mut self, facts: &Facts) -> fmt::Result {
        let labels = |replica: &ReplicaFacts| {
            [
                ("slave_ip", replica.ip.clone()),
                ("slave_port", replica.port.to_string()),
                ("slave_state", replica.state.to_owned()),
            ]
        };
        let replicas = facts.replication.replicas.iter();
        let lags = replicas
            .clone()
            .map(|replica| (labels(replica), replica.lag_s as f64));
        self.gauges(
            "connected_slave_lag_seconds",
            "Seconds since a replica acknowledged.",
            lags,
        )?;
        let offsets = replicas.map(|replica| (labels(replica), replica.offset as f64));
        self.gauges(
            "connected_slave_offset_bytes",
            "Bytes a replica acknowledged.",
            offsets,
        )
    }

    fn link(&mut self, link: &LinkFacts, offset: u64) -> fmt::Result {
        let master = [
            ("master_host", link.host.clone()),
            ("master_port", link.port.to_string()),
        ];
        let last_io_s = link.last_io_s.unwrap_or(-1) as f64;
        for (name, help, value) in [
            (
                "master_link_up",
                "The master is being followed.",
                yes(link.up),
            ),
            (
                "master_last_io_seconds_ago",
                "Seconds since its last byte.",
                last_io_s,
            ),
            (
                "master_sync_in_progress",
                "A full synchronization runs.",
                yes(link.sync.is_some()),
            ),
            (
                "slave_repl_offset",
                "Bytes of its stream applied.",
                offset as f64,
            ),
            (
                "slave_priority",
                "replica-priority.",
                f64::from(link.priority),
            ),
        ] {
            self.gauges(name, help, [(master.clone(), value)])?;
        }
        Ok(())
    }

    fn families(&mut self, facts: &Facts) -> fmt::Result {
        let by_command = |figure: fn(&CommandFacts) -> f64| {
            let labelled = facts.commands.iter();
            labelled.map(move |command| ([("cmd", command.name.clone())], figure(command)))
        };
        self.counted(
            "commands",
            "Calls of a command.",
            by_command(|c| c.calls as f64),
        )?;
        self.counted(
            "commands_duration_seconds",
            "Time spent in a command.",
            by_command(|c| c.usec as f64 / 1e6),
        )?;
        self.counted(
            "commands_failed_calls",
            "Calls that failed.",
            by_command(|c| c.failed as f64),
        )?;
        self.counted(
            "commands_rejected_calls",
            "Calls that were refused.",
            by_command(|c| c.rejected as f64),
        )?;
        let errors = facts
            .errors
            .iter()
            .map(|(code, count)| ([("err", code.clone())], *count as f64));
        self.counted("errors", "Error replies by their code.", errors)?;
        let by_db = |figure: fn(&DbFacts) -> u64| {
            let labelled = facts.keyspace.iter();
            labelled.map(move |db| ([("db", format!("db{}", db.index))], figure(db) as f64))
        };
        self.gauges("db_keys", "Keys of a database.", by_db(|db| db.keys))?;
        self.gauges(
            "db_keys_expiring",
            "Keys with an expiry.",
            by_db(|db| db.expires),
        )?;
        let ttls = facts.keyspace.iter().map(|db| {
            let label = [("db", format!("db{}", db.index))];
            (label, db.avg_ttl_ms as f64 / 1000.0)
        });
        self.gauges(
            "db_avg_ttl_seconds",
            "What those have left on average.",
            ttls,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::ReplicationFacts;
    use super::*;

    /// Every name, sorted. Dashboards and alerts are made for them: a name that changes here breaks somebody's.
    const NAMES: &str = "
        redis_allocator_active_bytes
        redis_allocator_resident_bytes
        redis_aof_enabled
        redis_blocked_clients
        redis_commands_duration_seconds_total
        redis_commands_failed_calls_total
        redis_commands_processed_total
        redis_commands_rejected_calls_total
        redis_commands_total
        redis_config_maxclients
        redis_config_maxmemory
        redis_connected_clients
        redis_connected_slave_lag_seconds
        redis_connected_slave_offset_bytes
        redis_connected_slaves
        redis_connections_received_total
        redis_cpu_sys_seconds_total
        redis_cpu_user_seconds_total
        redis_db_avg_ttl_seconds
        redis_db_keys
        redis_db_keys_expiring
        redis_errors_total
        redis_evicted_keys_total
        redis_expired_keys_total
        redis_instance_info
        redis_instantaneous_ops_per_sec
        redis_keyspace_hits_total
        redis_keyspace_misses_total
        redis_loading_dump_file
        redis_master_last_io_seconds_ago
        redis_master_link_up
        redis_master_repl_offset
        redis_master_sync_in_progress
        redis_mem_clients_normal
        redis_mem_fragmentation_ratio
        redis_mem_replication_backlog_bytes
        redis_memory_max_bytes
        redis_memory_used_bytes
        redis_memory_used_peak_bytes
        redis_memory_used_rss_bytes
        redis_memory_used_startup_bytes
        redis_net_input_bytes_total
        redis_net_output_bytes_total
        redis_process_id
        redis_rdb_bgsave_in_progress
        redis_rdb_changes_since_last_save
        redis_rdb_current_bgsave_duration_sec
        redis_rdb_last_bgsave_duration_sec
        redis_rdb_last_bgsave_status
        redis_rdb_last_save_timestamp_seconds
        redis_rdb_saves_total
        redis_rejected_connections_total
        redis_repl_backlog_first_byte_offset
        redis_repl_backlog_history_bytes
        redis_repl_backlog_is_active
        redis_replica_partial_resync_accepted
        redis_replica_partial_resync_denied
        redis_replica_resyncs_full
        redis_replication_backlog_bytes
        redis_second_repl_offset
        redis_slave_priority
        redis_slave_repl_offset
        redis_start_time_seconds
        redis_total_error_replies
        redis_total_system_memory_bytes
        redis_up
        redis_uptime_in_seconds";

    #[test]
    fn no_name_changes_unnoticed() {
        let replication = ReplicationFacts {
            link: Some(LinkFacts::default()),
            ..Default::default()
        };
        let text = render(Facts {
            replication,
            ..Facts::default()
        })
        .unwrap();
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                _ => name.to_owned(),
            })
            .collect();
        names.sort();
        let known: Vec<&str> = NAMES.split_whitespace().collect();
        assert_eq!(names, known);
    }

    #[test]
    fn the_names_are_those_of_the_exporter() {
        let facts = Facts {
            commands: vec![CommandFacts {
                name: "get".into(),
                calls: 3,
                usec: 1_500_000,
                ..Default::default()
            }],
            errors: vec![("ERR".into(), 2)],
            keyspace: vec![DbFacts {
                index: 0,
                keys: 7,
                expires: 1,
                avg_ttl_ms: 1500,
            }],
            replication: ReplicationFacts {
                replicas: vec![ReplicaFacts {
                    ip: "10.0.0.2".into(),
                    port: 6379,
                    state: "online",
                    offset: 5,
                    lag_s: 1,
                }],
                link: Some(LinkFacts {
                    host: "m\"1".into(),
                    port: 6379,
                    up: true,
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Facts::default()
        };
        let text = render(facts).unwrap();
        for line in [
            "redis_up 1.0",
            "redis_commands_total{cmd=\"get\"} 3.0",
            "redis_commands_duration_seconds_total{cmd=\"get\"} 1.5",
            "redis_errors_total{err=\"ERR\"} 2.0",
            "redis_db_keys{db=\"db0\"} 7.0",
            "redis_connected_slave_offset_bytes{slave_ip=\"10.0.0.2\",slave_port=\"6379\",slave_state=\"online\"} 5.0",
            "redis_master_link_up{master_host=\"m\\\"1\",master_port=\"6379\"} 1.0",
            "redis_commands_processed_total 0.0",
            "redis_memory_used_bytes 0.0",
            "redis_total_error_replies 0.0",
            "redis_mem_clients_normal 0.0",
            "redis_db_avg_ttl_seconds{db=\"db0\"} 1.5",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let info = text
            .lines()
            .find(|line| line.starts_with("redis_instance_info{"));
        let info = info.unwrap();
        for label in ["os=\"Linux ", "maxmemory_policy=\"", "process_id=\""] {
            assert!(info.contains(label), "{label} is not in {info}");
        }
    }
}
