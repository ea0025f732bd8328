//! The table of directives: one entry for each name that `redis.conf`, the command line and CONFIG know.
//!
//! To add one: give it a field in [`Config`] and a line in one of the lists below. Everything else (loading,
//! CONFIG GET/SET/REWRITE, `--help`) follows from the table.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use super::kind::Kind;
use super::special::{check_control_bind, check_file_name, check_password, check_word};
use super::values::Named;
use super::{Config, compat, special};

/// When a directive may be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// At start only.
    AtStart,
    /// By CONFIG SET too.
    Live,
    /// By CONFIG SET if `enable-protected-configs` permits.
    Protected,
}

/// One directive.
#[derive(Clone, Copy)]
pub struct Directive {
    /// Its name.
    pub name: &'static str,
    /// Its older or other name, equally good.
    pub alias: Option<&'static str>,
    /// When it may be changed.
    pub change: Change,
    /// One line for `--help`.
    pub doc: &'static str,
    pub(super) kind: Kind,
}

impl Directive {
    const fn new(name: &'static str, change: Change, doc: &'static str, kind: Kind) -> Self {
        Self {
            name,
            alias: None,
            change,
            doc,
            kind,
        }
    }

    const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    /// The value as CONFIG GET shows it.
    pub fn get(&self, config: &Config) -> String {
        self.kind.get(self.name, config)
    }

    /// Whether it is there only so that an existing `redis.conf` loads (see [`compat`]).
    pub fn is_compatibility(&self) -> bool {
        matches!(self.kind, Kind::Fixed { .. } | Kind::Inert { .. })
    }

    /// Whether its value must not be shown in messages.
    pub fn is_secret(&self) -> bool {
        matches!(self.name, "requirepass" | "masterauth" | "accept-password")
    }
}

/// The directive of this name or alias, in any case of letters.
pub fn find(name: &str) -> Option<&'static Directive> {
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    TABLE.iter().find(|d| is(d.name) || d.alias.is_some_and(is))
}

/// Every directive.
pub fn all() -> &'static [Directive] {
    &TABLE
}

static TABLE: LazyLock<Vec<Directive>> = LazyLock::new(|| {
    let mut table = Vec::new();
    table.extend_from_slice(NET);
    table.extend_from_slice(PERSISTENCE);
    table.extend_from_slice(SECURITY);
    table.extend_from_slice(REPLICATION);
    table.extend_from_slice(REPLICATION_STREAMS);
    table.extend_from_slice(MEMORY);
    table.extend_from_slice(ENCODING);
    table.extend_from_slice(FLEET);
    table.extend(compat::fixed());
    table.extend(compat::inert());
    table
});

use Change::{AtStart, Live, Protected};

macro_rules! yes_no {
    ($($field:ident).+) => {
        Kind::YesNo { get: |c| c.$($field).+, set: |c, v| c.$($field).+ = v }
    };
}

macro_rules! number {
    ($($field:ident).+, $min:expr, $max:expr) => {
        Kind::Number {
            // The bounds keep the value within both types.
            get: |c| c.$($field).+ as i64,
            set: |c, v| c.$($field).+ = v as _,
            min: $min,
            max: $max,
        }
    };
}

macro_rules! seconds {
    ($($field:ident).+, $min:expr, $max:expr) => {
        Kind::Number {
            get: |c| c.$($field).+.as_secs() as i64,
            set: |c, v| c.$($field).+ = Duration::from_secs(v.unsigned_abs()),
            min: $min,
            max: $max,
        }
    };
}

macro_rules! bytes {
    ($($field:ident).+, $min:expr, $max:expr) => {
        Kind::Bytes {
            get: |c| u64::from(c.$($field).+),
            // The bounds keep the value within the type of the field.
            set: |c, v| c.$($field).+ = v as _,
            min: $min,
            max: $max,
        }
    };
}

macro_rules! choice {
    ($($field:ident).+, $type:ty) => {
        Kind::Choice {
            names: || <$type>::NAMES.iter().map(|(name, _)| *name).collect(),
            get: |c| c.$($field).+.name(),
            set: |c, word| <$type>::from_name(word).map(|v| c.$($field).+ = v).is_some(),
        }
    };
}

macro_rules! text {
    ($($field:ident).+, $check:expr) => {
        Kind::Text {
            get: |c| c.$($field).+.clone(),
            set: |c, word| {
                $check(word)?;
                c.$($field).+ = word.to_owned();
                Ok(())
            },
        }
    };
}

macro_rules! path {
    ($($field:ident).+) => {
        Kind::Text {
            get: |c| c.$($field).+.as_deref().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
            set: |c, word| {
                c.$($field).+ = (!word.is_empty()).then(|| PathBuf::from(word));
                Ok(())
            },
        }
    };
}

const MAX_INT: i64 = i32::MAX as i64;
const MIB: u64 = 1024 * 1024;
/// Least that a backlog keeps.
const MIN_BACKLOG_BYTES: u64 = 16 * 1024;

const NET: &[Directive] = &[
    Directive::new(
        "bind",
        AtStart,
        "addresses to listen on; `*` is all IPv4, `::*` all IPv6, a `-` in front makes one optional",
        special::bind(),
    ),
    Directive::new(
        "port",
        AtStart,
        "port to listen on; 0 is none",
        number!(net.port, 0, 65535),
    ),
    Directive::new(
        "protected-mode",
        Live,
        "refuse clients from other machines while there is no password",
        yes_no!(net.protected_mode),
    ),
    Directive::new(
        "tcp-backlog",
        AtStart,
        "connections the kernel keeps waiting to be accepted",
        number!(net.tcp_backlog, 1, MAX_INT),
    ),
    Directive::new(
        "timeout",
        Live,
        "close clients idle for so many seconds; 0 never does",
        seconds!(net.idle_timeout, 0, MAX_INT),
    ),
    Directive::new(
        "tcp-keepalive",
        Live,
        "seconds between TCP keep-alive probes; 0 sends none",
        seconds!(net.tcp_keepalive, 0, MAX_INT),
    ),
    Directive::new(
        "maxclients",
        Live,
        "most clients at a time",
        number!(net.max_clients, 1, MAX_INT),
    ),
    Directive::new(
        "io-threads",
        AtStart,
        "threads that serve clients; the default is one for each CPU",
        number!(net.io_threads, 1, 128),
    ),
    Directive::new(
        "proto-max-bulk-len",
        Live,
        "longest argument of a request",
        bytes!(net.max_bulk_bytes, MIB, 2048 * MIB),
    ),
    Directive::new(
        "client-query-buffer-limit",
        Live,
        "most unprocessed input of one client",
        bytes!(net.max_query_buffer_bytes, MIB, i64::MAX as u64),
    ),
    Directive::new(
        "client-output-buffer-limit",
        Live,
        "class, hard limit, soft limit, soft seconds; class is normal, replica or pubsub",
        special::output_limits(),
    ),
    Directive::new(
        "shutdown-timeout",
        Live,
        "seconds to wait for replicas to catch up on shutdown",
        seconds!(net.shutdown_timeout, 0, MAX_INT),
    ),
    Directive::new(
        "metrics-port",
        AtStart,
        "port of the HTTP server with /metrics, /livez and /readyz; 0 is none",
        number!(net.metrics_port, 0, 65535),
    ),
    Directive::new(
        "loglevel",
        Live,
        "least important messages still logged",
        choice!(log.level, super::LogLevel),
    ),
    Directive::new(
        "logfile",
        AtStart,
        "file to append the log to; \"\" is standard output",
        path!(log.file),
    ),
];

const PERSISTENCE: &[Directive] = &[
    Directive::new("dir", Protected, "directory of all files", special::dir()),
    Directive::new(
        "dbfilename",
        Protected,
        "name of the snapshot file",
        text!(persistence.db_file_name, check_file_name),
    ),
    Directive::new(
        "save",
        Live,
        "seconds and changes after which a snapshot is taken, any number of pairs; \"\" is never",
        special::save(),
    ),
    Directive::new(
        "rdbcompression",
        Live,
        "compress strings in snapshots",
        yes_no!(persistence.rdb_compression),
    ),
    Directive::new(
        "rdbchecksum",
        AtStart,
        "write and check the checksum of snapshots",
        yes_no!(persistence.rdb_checksum),
    ),
    Directive::new(
        "stop-writes-on-bgsave-error",
        Live,
        "refuse writes after a snapshot failed",
        yes_no!(persistence.stop_writes_on_bgsave_error),
    ),
];

const SECURITY: &[Directive] = &[
    Directive::new(
        "requirepass",
        Live,
        "password of the user default; \"\" asks for none",
        text!(security.requirepass, check_password),
    ),
    Directive::new(
        "enable-debug-command",
        AtStart,
        "who may use DEBUG",
        choice!(security.debug_command, super::Permission),
    ),
    Directive::new(
        "enable-protected-configs",
        AtStart,
        "who may change dir and dbfilename by CONFIG SET",
        choice!(security.protected_configs, super::Permission),
    ),
];

const REPLICATION: &[Directive] = &[
    Directive::new(
        "replicaof",
        AtStart,
        "host and port of the master to follow",
        special::replica_of(),
    )
    .alias("slaveof"),
    Directive::new(
        "masterauth",
        Live,
        "password to log in to the master with",
        text!(replication.master_auth, check_password),
    )
    .alias("primaryauth"),
    Directive::new(
        "masteruser",
        Live,
        "user to log in to the master as",
        text!(replication.master_user, check_word),
    )
    .alias("primaryuser"),
    Directive::new(
        "replica-read-only",
        Live,
        "refuse writes of clients while following a master",
        yes_no!(replication.replica_read_only),
    )
    .alias("slave-read-only"),
    Directive::new(
        "replica-serve-stale-data",
        Live,
        "answer reads while the link to the master is down",
        yes_no!(replication.replica_serve_stale_data),
    )
    .alias("slave-serve-stale-data"),
    Directive::new(
        "replica-priority",
        Live,
        "Sentinel's preference; 0 is never to be promoted",
        number!(replication.replica_priority, 0, MAX_INT),
    )
    .alias("slave-priority"),
    Directive::new(
        "replica-announce-ip",
        Live,
        "address told to the master",
        text!(replication.announce_ip, check_word),
    )
    .alias("slave-announce-ip"),
    Directive::new(
        "replica-announce-port",
        Live,
        "port told to the master; 0 is the listening port",
        number!(replication.announce_port, 0, 65535),
    )
    .alias("slave-announce-port"),
    Directive::new(
        "replica-announced",
        Live,
        "whether Sentinel is told about this replica",
        yes_no!(replication.announced),
    ),
    Directive::new(
        "min-replicas-to-write",
        Live,
        "refuse writes with fewer good replicas",
        number!(replication.min_replicas_to_write, 0, MAX_INT),
    )
    .alias("min-slaves-to-write"),
    Directive::new(
        "min-replicas-max-lag",
        Live,
        "seconds since its last acknowledgement up to which a replica is good",
        seconds!(replication.min_replicas_max_lag, 0, MAX_INT),
    )
    .alias("min-slaves-max-lag"),
];

const REPLICATION_STREAMS: &[Directive] = &[
    Directive::new(
        "repl-diskless-sync",
        Live,
        "send snapshots to replicas without writing them to disk first",
        yes_no!(replication.diskless_sync),
    ),
    Directive::new(
        "repl-diskless-sync-delay",
        Live,
        "seconds to wait for more replicas before a diskless snapshot",
        seconds!(replication.diskless_sync_delay, 0, MAX_INT),
    ),
    Directive::new(
        "repl-diskless-sync-max-replicas",
        Live,
        "do not wait longer once so many replicas wait; 0 always waits",
        number!(replication.diskless_sync_max_replicas, 0, MAX_INT),
    ),
    Directive::new(
        "repl-backlog-size",
        Live,
        "bytes of the stream kept for replicas that come back",
        Kind::Bytes {
            get: |c| c.replication.backlog_bytes,
            // What is given may be less, as in Redis.
            set: |c, v| c.replication.backlog_bytes = v.max(MIN_BACKLOG_BYTES),
            min: 1,
            max: i64::MAX as u64,
        },
    ),
    Directive::new(
        "repl-backlog-ttl",
        Live,
        "seconds after the last replica left when the backlog is dropped; 0 keeps it",
        seconds!(replication.backlog_ttl, 0, i64::MAX),
    ),
    Directive::new(
        "repl-timeout",
        Live,
        "seconds of silence after which a replication link is broken",
        seconds!(replication.timeout, 1, MAX_INT),
    ),
    Directive::new(
        "repl-ping-replica-period",
        Live,
        "seconds between PINGs in the stream to replicas",
        seconds!(replication.ping_replica_period, 1, MAX_INT),
    )
    .alias("repl-ping-slave-period"),
];

const MEMORY: &[Directive] = &[
    Directive::new(
        "databases",
        AtStart,
        "logical databases",
        number!(memory.databases, 1, MAX_INT),
    ),
    Directive::new(
        "maxmemory",
        Live,
        "memory beyond which maxmemory-policy acts; 0 is no limit",
        bytes!(memory.max_memory_bytes, 0, u64::MAX),
    ),
    Directive::new(
        "maxmemory-policy",
        Live,
        "what to do with a write when memory is at its limit",
        choice!(memory.policy, super::MaxmemoryPolicy),
    ),
    Directive::new(
        "maxmemory-samples",
        Live,
        "keys of each database that are looked at for one that is evicted; 64 at most, to bound the work of a command",
        number!(memory.samples, 1, 64),
    ),
    Directive::new(
        "lfu-log-factor",
        Live,
        "how much slower the counter of uses grows with each step",
        number!(memory.lfu_log_factor, 0, MAX_INT),
    ),
    Directive::new(
        "lfu-decay-time",
        Live,
        "minutes after which the counter of uses loses one; 0 is never",
        number!(memory.lfu_decay_minutes, 0, MAX_INT),
    ),
];

const ENCODING: &[Directive] = &[
    Directive::new(
        "hash-max-listpack-entries",
        Live,
        "fields of a compact hash",
        number!(encoding.hash_max_listpack_entries, 0, i64::MAX),
    )
    .alias("hash-max-ziplist-entries"),
    Directive::new(
        "hash-max-listpack-value",
        Live,
        "bytes of its longest field or value",
        bytes!(encoding.hash_max_listpack_value, 0, i64::MAX as u64),
    )
    .alias("hash-max-ziplist-value"),
    Directive::new(
        "list-max-listpack-size",
        Live,
        "size of a list node: entries, or -1 to -5 for 4 to 64 kB",
        number!(encoding.list_max_listpack_size, -(MAX_INT + 1), MAX_INT),
    )
    .alias("list-max-ziplist-size"),
    Directive::new(
        "set-max-intset-entries",
        Live,
        "members of a set of integers",
        number!(encoding.set_max_intset_entries, 0, i64::MAX),
    ),
    Directive::new(
        "set-max-listpack-entries",
        Live,
        "members of a compact set",
        number!(encoding.set_max_listpack_entries, 0, i64::MAX),
    ),
    Directive::new(
        "set-max-listpack-value",
        Live,
        "bytes of its longest member",
        number!(encoding.set_max_listpack_value, 0, i64::MAX),
    ),
    Directive::new(
        "zset-max-listpack-entries",
        Live,
        "members of a compact sorted set",
        number!(encoding.zset_max_listpack_entries, 0, i64::MAX),
    )
    .alias("zset-max-ziplist-entries"),
    Directive::new(
        "zset-max-listpack-value",
        Live,
        "bytes of its longest member",
        bytes!(encoding.zset_max_listpack_value, 0, i64::MAX as u64),
    )
    .alias("zset-max-ziplist-value"),
];

pub(super) const FLEET: &[Directive] = &[
    Directive::new(
        "managed",
        AtStart,
        "born a follower that serves nobody until told its role over the control port",
        yes_no!(fleet.managed),
    ),
    Directive::new(
        "member-name",
        AtStart,
        "name of this member within its set",
        text!(fleet.member_name, check_word),
    ),
    Directive::new(
        "fleet-id",
        AtStart,
        "identity of the set; data of another set are kept and not served until the operator takes them over",
        text!(fleet.fleet_id, check_word),
    ),
    Directive::new(
        "control-port",
        AtStart,
        "port of the control service; 0 is none",
        number!(fleet.control_port, 0, 65535),
    ),
    Directive::new(
        "control-bind",
        AtStart,
        "address of the control service; * is every address of this machine",
        text!(fleet.control_bind, check_control_bind),
    ),
    Directive::new(
        "control-token-file",
        AtStart,
        "file with the credential of the control service",
        path!(fleet.control_token_file),
    ),
    Directive::new(
        "accept-password",
        AtStart,
        "user and one more password of it until the operator tells which count, any number of lines",
        special::accept_password(),
    ),
];
