//! What can be configured.
//!
//! **Owns** the typed [`Config`] and everything between its text forms and the type: the table of directives,
//! `redis.conf` and command line, CONFIG GET/SET/REWRITE. **Called by** `main` (once, at start) and the CONFIG
//! command. **Invariants**: a `Config` that exists was checked, both field by field and as a whole
//! ([`Config::check`]); an option exists in the table only if it does something, or if its other values are
//! refused with a cure, or if it is said to have no effect and why. **Does not** apply a change to running parts:
//! they read the new value, see [`set`].
//!
//! Reading order: this file, [`directive`], [`kind`], [`compat`], [`parse`], [`set`], [`rewrite`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub mod compat;
pub mod directive;
pub mod kind;
pub mod parse;
pub mod rewrite;
pub mod set;
mod special;
mod values;

pub use parse::{ConfigError, Loaded, Startup};
pub use set::{Demand, Locality, SetError};
pub use values::{
    BindAddress, HostPort, LogLevel, MaxmemoryPolicy, OutputLimit, OutputLimits, Permission,
    SavePoint,
};

/// Everything that can be configured, typed and checked.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// Listening, connections and their limits.
    pub net: NetConfig,
    /// What is logged and where.
    pub log: LogConfig,
    /// Files on disk.
    pub persistence: PersistenceConfig,
    /// Who may connect.
    pub security: SecurityConfig,
    /// Copies.
    pub replication: ReplicationConfig,
    /// How much memory may be used.
    pub memory: MemoryConfig,
    /// Up to which size collections keep their compact form.
    pub encoding: EncodingConfig,
    /// What the operator adds when it runs this server.
    pub fleet: FleetConfig,
    /// Values of directives that are accepted without effect (see [`compat`]), where not the default.
    pub(crate) inert: BTreeMap<&'static str, String>,
}

/// Listening, connections and their limits.
#[derive(Clone, PartialEq, Debug)]
pub struct NetConfig {
    /// Addresses to listen on.
    pub bind: Vec<BindAddress>,
    /// Port for clients and replicas; 0 listens on none.
    pub port: u16,
    /// Refuse clients from other machines while no password is set.
    pub protected_mode: bool,
    /// Connections the kernel may keep waiting to be accepted.
    pub tcp_backlog: u32,
    /// Close clients idle for so long; zero never does.
    pub idle_timeout: Duration,
    /// Interval of TCP keep-alive probes; zero sends none.
    pub tcp_keepalive: Duration,
    /// Most clients at a time.
    pub max_clients: u32,
    /// Threads that serve clients.
    pub io_threads: u32,
    /// Longest argument of a request in bytes.
    pub max_bulk_bytes: u32,
    /// Most unprocessed input of one client in bytes.
    pub max_query_buffer_bytes: u64,
    /// When a client that does not read its replies is dropped, by class.
    pub output_limits: OutputLimits,
    /// Port of the HTTP server with `/metrics`, `/livez` and `/readyz`; 0 is none.
    pub metrics_port: u16,
    /// On shutdown, how long to wait for replicas to catch up.
    pub shutdown_timeout: Duration,
}

/// What is logged and where.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// Least important messages still logged.
    pub level: LogLevel,
    /// File to append to; `None` is standard output.
    pub file: Option<PathBuf>,
}

/// Files on disk.
#[derive(Clone, PartialEq, Debug)]
pub struct PersistenceConfig {
    /// Directory of all files, absolute.
    pub dir: PathBuf,
    /// Name of the snapshot within it.
    pub db_file_name: String,
    /// When to take a snapshot unasked; empty means never, not even on shutdown.
    pub save_points: Vec<SavePoint>,
    /// Compress strings in snapshots.
    pub rdb_compression: bool,
    /// Write and check the checksum of snapshots.
    pub rdb_checksum: bool,
    /// Refuse writes after a snapshot failed.
    pub stop_writes_on_bgsave_error: bool,
}

/// Who may connect.
#[derive(Clone, PartialEq)]
pub struct SecurityConfig {
    /// Password of the user `default`; empty asks for none.
    pub requirepass: String,
    /// Who may use DEBUG.
    pub debug_command: Permission,
    /// Who may change protected directives by CONFIG SET.
    pub protected_configs: Permission,
}

impl std::fmt::Debug for SecurityConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the password: this may end in a log.
        f.debug_struct("SecurityConfig")
            .field("has_password", &!self.requirepass.is_empty())
            .finish()
    }
}

/// Copies.
#[derive(Clone, PartialEq)]
pub struct ReplicationConfig {
    /// The master to follow.
    pub replica_of: Option<HostPort>,
    /// User to log in to the master as; empty is `default`.
    pub master_user: String,
    /// Password to log in to the master with; empty does not log in.
    pub master_auth: String,
    /// Refuse writes of clients while following a master.
    pub replica_read_only: bool,
    /// Answer reads while the link to the master is down.
    pub replica_serve_stale_data: bool,
    /// Send snapshots to replicas without writing them to disk first.
    pub diskless_sync: bool,
    /// Wait so long for more replicas before a diskless snapshot starts.
    pub diskless_sync_delay: Duration,
    /// Do not wait any longer once so many replicas wait; 0 is no such number.
    pub diskless_sync_max_replicas: u32,
    /// Bytes of the stream kept for replicas that come back.
    pub backlog_bytes: u64,
    /// Drop the backlog so long after the last replica left; zero keeps it.
    pub backlog_ttl: Duration,
    /// Silence on a replication link after which it counts as broken.
    pub timeout: Duration,
    /// Interval of PING in the stream to replicas.
    pub ping_replica_period: Duration,
    /// Sentinel's preference; 0 is never to be promoted.
    pub replica_priority: u32,
    /// Address told to the master; empty is what the master sees.
    pub announce_ip: String,
    /// Port told to the master; 0 is the listening port.
    pub announce_port: u16,
    /// Whether Sentinel is told about this replica.
    pub announced: bool,
    /// Refuse writes with fewer good replicas than this.
    pub min_replicas_to_write: u32,
    /// A replica is good if it acknowledged within this time; zero accepts writes without asking.
    pub min_replicas_max_lag: Duration,
}

impl ReplicationConfig {
    /// Whether writes need good replicas: either directive switches the check off by zero.
    pub fn wants_good_replicas(&self) -> bool {
        self.min_replicas_to_write > 0 && !self.min_replicas_max_lag.is_zero()
    }
}

impl std::fmt::Debug for ReplicationConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationConfig")
            .field("replica_of", &self.replica_of)
            .finish_non_exhaustive()
    }
}

/// How much memory may be used.
#[derive(Clone, PartialEq, Debug)]
pub struct MemoryConfig {
    /// Logical databases.
    pub databases: u32,
    /// Memory in bytes beyond which the policy acts; 0 is no limit.
    pub max_memory_bytes: u64,
    /// What to do at the limit.
    pub policy: MaxmemoryPolicy,
    /// Keys that are looked at for one that is evicted.
    pub samples: u32,
    /// How much slower the counter of uses grows with each step.
    pub lfu_log_factor: u32,
    /// Minutes after which the counter of uses loses one; 0 is never.
    pub lfu_decay_minutes: u32,
}

/// Up to which size collections keep their compact form.
#[derive(Clone, PartialEq, Debug)]
pub struct EncodingConfig {
    /// Fields of a compact hash.
    pub hash_max_listpack_entries: u64,
    /// Bytes of its longest field or value.
    pub hash_max_listpack_value: u64,
    /// Size of one list node: positive is a number of entries, -1 to -5 is 4, 8, 16, 32 or 64 kB.
    pub list_max_listpack_size: i32,
    /// Members of a set of integers.
    pub set_max_intset_entries: u64,
    /// Members of a compact set.
    pub set_max_listpack_entries: u64,
    /// Bytes of its longest member.
    pub set_max_listpack_value: u64,
    /// Members of a compact sorted set.
    pub zset_max_listpack_entries: u64,
    /// Bytes of its longest member.
    pub zset_max_listpack_value: u64,
}

/// What the operator adds when it runs this server.
#[derive(Clone, PartialEq, Debug)]
pub struct FleetConfig {
    /// Born a follower that serves nobody until its role is told over the control port.
    pub managed: bool,
    /// Name of this member within its set.
    pub member_name: String,
    /// Identity of the set: members of other sets are refused.
    pub fleet_id: String,
    /// Port of the control service; 0 is none.
    pub control_port: u16,
    /// Address of the control service; `*` is every address of this machine.
    pub control_bind: String,
    /// File with the credential of the control service.
    pub control_token_file: Option<PathBuf>,
    /// More passwords of users, beside `requirepass` and `masterauth`.
    pub accepted: Vec<AcceptedPassword>,
}

/// One more password of a user.
#[derive(Clone, PartialEq)]
pub struct AcceptedPassword {
    /// Name of the user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for AcceptedPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the password: this may end in a log.
        f.debug_struct("AcceptedPassword")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

const MIB: u64 = 1024 * 1024;

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            managed: false,
            member_name: String::new(),
            fleet_id: String::new(),
            control_port: 0,
            control_bind: "*".to_owned(),
            control_token_file: None,
            accepted: Vec::new(),
        }
    }
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            bind: vec![BindAddress::new("*"), BindAddress::new("-::*")],
            port: 6379,
            protected_mode: true,
            tcp_backlog: 511,
            idle_timeout: Duration::ZERO,
            tcp_keepalive: Duration::from_secs(300),
            max_clients: 10_000,
            io_threads: std::thread::available_parallelism()
                .map_or(1, |n| n.get() as u32)
                .min(128),
            max_bulk_bytes: 512 * MIB as u32,
            max_query_buffer_bytes: 1024 * MIB,
            output_limits: OutputLimits::default(),
            metrics_port: 0,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Notice,
            file: None,
        }
    }
}

impl Default for PersistenceConfig {
    fn default() -> Self {
        Self {
            dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            db_file_name: "dump.rdb".to_owned(),
            save_points: SavePoint::DEFAULT.to_vec(),
            rdb_compression: true,
            rdb_checksum: true,
            stop_writes_on_bgsave_error: true,
        }
    }
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            requirepass: String::new(),
            debug_command: Permission::No,
            protected_configs: Permission::No,
        }
    }
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            replica_of: None,
            master_user: String::new(),
            master_auth: String::new(),
            replica_read_only: true,
            replica_serve_stale_data: true,
            diskless_sync: true,
            diskless_sync_delay: Duration::from_secs(5),
            diskless_sync_max_replicas: 0,
            backlog_bytes: MIB,
            backlog_ttl: Duration::from_secs(3600),
            timeout: Duration::from_secs(60),
            ping_replica_period: Duration::from_secs(10),
            replica_priority: 100,
            announce_ip: String::new(),
            announce_port: 0,
            announced: true,
            min_replicas_to_write: 0,
            min_replicas_max_lag: Duration::from_secs(10),
        }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            databases: 16,
            max_memory_bytes: 0,
            policy: MaxmemoryPolicy::NoEviction,
            samples: 5,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
        }
    }
}

impl Default for EncodingConfig {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            list_max_listpack_size: -2,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
        }
    }
}

impl Config {
    /// The limits of `client-output-buffer-limit` as they hold. A replica may wait for as much as the backlog keeps, as in
    /// Redis: else it would be closed as soon as it has been told to go on from there.
    pub fn output_limits(&self) -> OutputLimits {
        let mut limits = self.net.output_limits;
        if limits.replica.hard_bytes > 0 {
            limits.replica.hard_bytes = limits
                .replica
                .hard_bytes
                .max(self.replication.backlog_bytes);
        }
        limits
    }

    /// `hz`, which has no effect, within the bounds that Redis puts it to.
    pub fn hz(&self) -> u32 {
        const DEFAULT: u32 = 10;
        let given = self.inert.get("hz").and_then(|value| value.parse().ok());
        given.unwrap_or(DEFAULT).clamp(1, 500)
    }

    /// Puts `hz` within those bounds, as CONFIG SET does; a file may say more.
    fn cap_hz(&mut self) {
        let hz = self.hz();
        if let Some(given) = self.inert.get_mut("hz") {
            *given = hz.to_string();
        }
    }

    /// Checks what no single directive can: combinations. The message names the cure.
    pub fn check(&self) -> Result<(), String> {
        let fleet = &self.fleet;
        if !fleet.managed {
            if fleet.accepted.is_empty() {
                return Ok(());
            }
            return Err(
                "accept-password needs managed yes: use requirepass, and ACL SETUSER default >password for more \
                 passwords"
                    .to_owned(),
            );
        }
        if fleet.control_port == 0
            || fleet.control_token_file.is_none()
            || fleet.member_name.is_empty()
        {
            return Err(
                "managed yes needs control-port, control-token-file and member-name: the operator \
                        gives all of them; without it, use managed no"
                    .to_owned(),
            );
        }
        if self.replication.replica_of.is_some() {
            return Err("managed yes and replicaof exclude each other: a managed server is told its master \
                        over the control port; remove one of them"
                .to_owned());
        }
        Ok(())
    }

    /// Path of the snapshot file.
    pub fn rdb_path(&self) -> PathBuf {
        self.persistence.dir.join(&self.persistence.db_file_name)
    }
}

#[cfg(test)]
mod tests;
