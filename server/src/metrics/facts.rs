//! The figures of one moment, gathered under the engine's lock and rendered outside of it.

/// Everything that can be seen of a server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The process and how it was started.
    pub server: ServerFacts,
    /// Connections.
    pub clients: ClientFacts,
    /// Memory.
    pub memory: MemoryFacts,
    /// Snapshots.
    pub persistence: PersistenceFacts,
    /// Counters since the start or the last CONFIG RESETSTAT.
    pub stats: StatFacts,
    /// Role, history and replicas.
    pub replication: ReplicationFacts,
    /// What the system says about the process.
    pub process: super::process::ProcessFacts,
    /// Commands that were called or refused at least once, in the order of the table.
    pub commands: Vec<CommandFacts>,
    /// Error replies by their code word.
    pub errors: Vec<(String, u64)>,
    /// Databases that hold keys.
    pub keyspace: Vec<DbFacts>,
}

/// The process and how it was started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerFacts {
    /// Port for clients, 0 if there is none.
    pub port: u16,
    /// Random identity of this process, 40 hexadecimal digits.
    pub run_id: String,
    /// The configuration file, if there is one.
    pub config_file: String,
    /// Threads that serve clients.
    pub io_threads: u32,
    /// Unix time in microseconds.
    pub now_us: i64,
    /// Rounds of periodic work in a second.
    pub hz: u32,
    /// `hz` of the configuration.
    pub configured_hz: u32,
    /// Seconds since the start.
    pub uptime_s: u64,
}

/// Connections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientFacts {
    /// Ordinary clients and subscribers.
    pub connected: u64,
    /// The limit on all connections.
    pub max: u64,
    /// Clients that wait in a blocking command.
    pub blocked: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryFacts {
    /// Asked of the allocator and not given back.
    pub allocated: u64,
    /// In pages with at least one allocation.
    pub active: u64,
    /// Pages the allocator holds.
    pub resident: u64,
    /// Highest `allocated` seen.
    pub peak: u64,
    /// `allocated` when the server had started, before any data.
    pub startup: u64,
    /// Tables of the databases.
    pub tables: u64,
    /// `maxmemory`.
    pub limit: u64,
    /// `maxmemory-policy`.
    pub policy: String,
    /// The replication backlog.
    pub backlog: u64,
    /// What of it the limit does not count.
    pub uncounted: u64,
    /// Buffers of ordinary clients.
    pub clients: u64,
}

/// Snapshots.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PersistenceFacts {
    /// The load of the dataset at the start, while it goes on.
    pub loading: Option<LoadFacts>,
    /// Whether a replica receives a full copy beside the data that it serves.
    pub loads_aside: bool,
    /// Changes since the last good snapshot.
    pub changes: u64,
    /// Seconds the running snapshot has taken so far.
    pub running_s: Option<i64>,
    /// Unix seconds of the last good snapshot.
    pub last_save_s: i64,
    /// Whether the last snapshot was good.
    pub last_ok: bool,
    /// Seconds the last one took, -1 before the first.
    pub last_duration_s: i64,
    /// Snapshots since the start.
    pub saves: u64,
}

/// A dataset that is being loaded from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadFacts {
    /// Unix seconds of the beginning.
    pub since_s: i64,
    /// Seconds since then.
    pub elapsed_s: u64,
    /// Bytes read of the file.
    pub loaded_bytes: u64,
    /// Bytes of the file.
    pub total_bytes: u64,
}

/// Counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatFacts {
    /// Connections accepted.
    pub connections_received: u64,
    /// Connections refused.
    pub connections_rejected: u64,
    /// Commands run.
    pub commands_processed: u64,
    /// Commands, input and output bytes per second of late.
    pub rates: super::rates::Rates,
    /// Bytes from clients.
    pub net_input_bytes: u64,
    /// Bytes to clients.
    pub net_output_bytes: u64,
    /// Error replies.
    pub error_replies: u64,
    /// Full synchronizations granted.
    pub sync_full: u64,
    /// Partial synchronizations granted.
    pub sync_partial_ok: u64,
    /// Partial synchronizations refused.
    pub sync_partial_err: u64,
    /// Keys removed because their time was over.
    pub expired_keys: u64,
    /// Keys removed for want of memory.
    pub evicted_keys: u64,
    /// Lookups that found a key.
    pub keyspace_hits: u64,
    /// Lookups that did not.
    pub keyspace_misses: u64,
}

/// Role, history and replicas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicationFacts {
    /// The link to a master; `None` on a master.
    pub link: Option<LinkFacts>,
    /// Attached replicas.
    pub replicas: Vec<ReplicaFacts>,
    /// Good replicas, where `min-replicas-to-write` asks for some.
    pub good_replicas: Option<u64>,
    /// The step of a planned change of master, while one is going on.
    pub handover: Option<&'static str>,
    /// Present history.
    pub id: String,
    /// The history before it, 40 zeros if none.
    pub previous_id: String,
    /// Length of the stream in bytes.
    pub offset: u64,
    /// Up to where the previous history is ours, -1 if none.
    pub previous_offset: i64,
    /// The backlog, if there is one: first byte kept and number of bytes.
    pub backlog: Option<(u64, u64)>,
    /// `repl-backlog-size`.
    pub backlog_size: u64,
}

/// The link to a master.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkFacts {
    /// The master.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the stream is being followed.
    pub up: bool,
    /// Seconds since the last byte, while the link is up.
    pub last_io_s: Option<i64>,
    /// Seconds since the last byte, while a full synchronization runs.
    pub sync_last_io_s: Option<i64>,
    /// A full synchronization is running: bytes expected (0 if not told) and read.
    pub sync: Option<(u64, u64)>,
    /// Bytes of the stream received.
    pub read_offset: u64,
    /// Seconds since the link went down.
    pub down_since_s: Option<i64>,
    /// Why there is no link, where an attempt has failed.
    pub last_error: Option<String>,
    /// `replica-priority`.
    pub priority: u32,
    /// `replica-read-only`.
    pub read_only: bool,
    /// `replica-announced`.
    pub announced: bool,
}

/// An attached replica.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicaFacts {
    /// Its address.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// `wait_bgsave`, `send_bulk` or `online`.
    pub state: &'static str,
    /// Bytes acknowledged.
    pub offset: u64,
    /// Seconds since its last acknowledgement.
    pub lag_s: i64,
}

/// One command's counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommandFacts {
    /// Its name; `container|name` for a subcommand.
    pub name: String,
    /// Times run.
    pub calls: u64,
    /// Microseconds of all runs.
    pub usec: u64,
    /// Refused before they ran.
    pub rejected: u64,
    /// Ran and answered an error.
    pub failed: u64,
}

/// One database.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DbFacts {
    /// Its number.
    pub index: u32,
    /// Keys.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// How long those have left on average, in milliseconds; 0 where nothing is known.
    pub avg_ttl_ms: i64,
}
