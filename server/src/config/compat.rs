//! Directives of Redis that this server does not need or does not have yet, so that an existing `redis.conf`
//! loads wherever it asks for nothing that is missing.
//!
//! *Fixed* ones accept the value that is true here and refuse others with a cure. *Inert* ones accept any value,
//! keep it for CONFIG GET and REWRITE, and have no effect; the start-up log says so and why.

use super::Config;
use super::directive::{Change, Directive};
use super::kind::Kind;

const TLS: &str = "TLS is not supported yet: remove the directive, or put a TLS proxy in front";
const APPEND_ONLY: &str = "not supported yet: keep 'appendonly no' and use save points (save 60 1)";
const CLUSTER: &str =
    "Redis Cluster is not supported: a set has one master; keep 'cluster-enabled no'";

const NO: &[&str] = &["no"];
const EMPTY: &[&str] = &[""];

/// Name, accepted values, what to do instead.
const FIXED: &[(&str, &[&str], &str)] = &[
    ("appendonly", NO, APPEND_ONLY),
    (
        "daemonize",
        NO,
        "not supported: run it under a service manager, or with '&' in a shell; keep 'daemonize no'",
    ),
    (
        "supervised",
        &["no", "auto"],
        "not supported: keep 'supervised no' (the service type is 'simple')",
    ),
    ("tls-port", &["0"], TLS),
    ("tls-replication", NO, TLS),
    ("tls-cluster", NO, TLS),
    ("tls-cert-file", EMPTY, TLS),
    ("tls-key-file", EMPTY, TLS),
    ("tls-ca-cert-file", EMPTY, TLS),
    ("tls-ca-cert-dir", EMPTY, TLS),
    (
        "aclfile",
        EMPTY,
        "ACL files are not supported yet: use requirepass",
    ),
    ("cluster-enabled", NO, CLUSTER),
    (
        "unixsocket",
        EMPTY,
        "Unix sockets are not supported yet: listen on 127.0.0.1",
    ),
    (
        "bind-source-addr",
        EMPTY,
        "not supported: the system chooses the source address; remove it",
    ),
    (
        "notify-keyspace-events",
        EMPTY,
        "keyspace notifications are not supported yet: remove it",
    ),
    (
        "maxmemory-clients",
        &["0"],
        "not supported yet: limit clients by maxclients and client-output-buffer-limit",
    ),
    (
        "enable-module-command",
        NO,
        "modules are not supported: keep 'enable-module-command no'",
    ),
    (
        "syslog-enabled",
        NO,
        "not supported: log to standard output or to a file (logfile)",
    ),
    (
        "shutdown-on-sigterm",
        &["default"],
        "not supported yet: keep 'default' (saves if there are save points)",
    ),
    (
        "shutdown-on-sigint",
        &["default"],
        "not supported yet: keep 'default' (saves if there are save points)",
    ),
    (
        "oom-score-adj",
        NO,
        "not supported: set it in the service manager or the pod",
    ),
    (
        "activedefrag",
        NO,
        "not supported: the allocator returns memory by itself; keep 'activedefrag no'",
    ),
    (
        "rdb-del-sync-files",
        NO,
        "not supported: keep 'rdb-del-sync-files no'",
    ),
    (
        "replica-ignore-maxmemory",
        &["yes"],
        "not supported yet: a replica keeps what its master keeps; keep 'yes'",
    ),
    (
        "repl-rdb-channel",
        NO,
        "not supported yet: keep 'repl-rdb-channel no'",
    ),
    (
        "dual-channel-replication-enabled",
        NO,
        "not supported yet: keep 'dual-channel-replication-enabled no'",
    ),
    (
        "latency-monitor-threshold",
        &["0"],
        "the latency monitor is not supported yet: keep 0",
    ),
];

const NO_AOF: &str = "append-only files are not supported yet";
const NO_SLOWLOG: &str = "there is no slow log yet";
const NO_TYPE: &str = "the data type is not supported yet";
const NO_SCRIPT: &str = "scripts are not supported yet";
const INCREMENTAL: &str = "tables always grow in steps, and periodic work has time budgets";
const BACKGROUND: &str = "big values are always freed in slices";
const NO_TITLE: &str = "the process title is not changed";
const NO_SYSLOG: &str = "there is no logging to syslog";

/// Name, default, why it has no effect.
const INERT: &[(&str, &str, &str)] = &[
    (
        "acl-pubsub-default",
        "resetchannels",
        "there are no users but the default one yet",
    ),
    ("acllog-max-len", "128", "there is no ACL log yet"),
    ("active-expire-effort", "1", INCREMENTAL),
    ("activerehashing", "yes", INCREMENTAL),
    ("always-show-logo", "no", "there is no logo"),
    ("aof-load-truncated", "yes", NO_AOF),
    ("aof-rewrite-incremental-fsync", "yes", NO_AOF),
    ("aof-timestamp-enabled", "no", NO_AOF),
    ("aof-use-rdb-preamble", "yes", NO_AOF),
    ("appenddirname", "appendonlydir", NO_AOF),
    ("appendfilename", "appendonly.aof", NO_AOF),
    ("appendfsync", "everysec", NO_AOF),
    ("auto-aof-rewrite-min-size", "67108864", NO_AOF),
    ("auto-aof-rewrite-percentage", "100", NO_AOF),
    ("busy-reply-threshold", "5000", NO_SCRIPT),
    ("crash-log-enabled", "yes", "there is no crash report"),
    ("crash-memcheck-enabled", "yes", "there is no crash report"),
    ("disable-thp", "yes", "huge pages do no harm without fork"),
    ("dynamic-hz", "yes", INCREMENTAL),
    ("hll-sparse-max-bytes", "3000", NO_TYPE),
    ("hz", "10", INCREMENTAL),
    ("io-threads-do-reads", "no", "I/O threads always read"),
    (
        "jemalloc-bg-thread",
        "yes",
        "the allocator is set up at build time",
    ),
    (
        "latency-tracking",
        "yes",
        "latency percentiles are not tracked yet",
    ),
    (
        "latency-tracking-info-percentiles",
        "50 99 99.9",
        "latency percentiles are not tracked yet",
    ),
    ("lazyfree-lazy-eviction", "no", BACKGROUND),
    ("lazyfree-lazy-expire", "no", BACKGROUND),
    ("lazyfree-lazy-server-del", "no", BACKGROUND),
    ("lazyfree-lazy-user-del", "no", BACKGROUND),
    ("lazyfree-lazy-user-flush", "no", BACKGROUND),
    (
        "list-compress-depth",
        "0",
        "list nodes are not compressed in memory",
    ),
    ("locale-collate", "", "strings are compared by bytes"),
    ("lua-time-limit", "5000", NO_SCRIPT),
    (
        "maxmemory-eviction-tenacity",
        "10",
        "each command evicts a bounded number of keys, periodic work the rest",
    ),
    ("no-appendfsync-on-rewrite", "no", NO_AOF),
    (
        "oom-score-adj-values",
        "0 200 800",
        "oom-score-adj is not supported",
    ),
    (
        "pidfile",
        "",
        "no pid file is written; the service manager knows the process",
    ),
    (
        "proc-title-template",
        "{title} {listen-addr} {server-mode}",
        NO_TITLE,
    ),
    (
        "propagation-error-behavior",
        "ignore",
        "a replica that cannot apply a command always stops and syncs anew",
    ),
    (
        "rdb-save-incremental-fsync",
        "yes",
        "snapshots are always written in slices",
    ),
    (
        "repl-disable-tcp-nodelay",
        "no",
        "the stream is sent in batches, each at once",
    ),
    (
        "repl-diskless-load",
        "disabled",
        "a snapshot is always loaded as it arrives, beside the data that it replaces",
    ),
    ("replica-lazy-flush", "no", BACKGROUND),
    ("sanitize-dump-payload", "no", "payloads are always checked"),
    ("set-proc-title", "yes", NO_TITLE),
    ("slowlog-log-slower-than", "10000", NO_SLOWLOG),
    ("slowlog-max-len", "128", NO_SLOWLOG),
    ("stream-node-max-bytes", "4096", NO_TYPE),
    ("stream-node-max-entries", "100", NO_TYPE),
    ("syslog-facility", "local0", NO_SYSLOG),
    ("syslog-ident", "redis", NO_SYSLOG),
    (
        "tracking-table-max-keys",
        "1000000",
        "client tracking is not supported yet",
    ),
    ("unixsocketperm", "0", "there is no Unix socket"),
];

pub(super) fn fixed() -> impl Iterator<Item = Directive> {
    FIXED.iter().map(|&(name, accepted, cure)| Directive {
        name,
        alias: None,
        change: Change::Live,
        doc: cure,
        kind: Kind::Fixed { accepted, cure },
    })
}

pub(super) fn inert() -> impl Iterator<Item = Directive> {
    INERT.iter().map(|&(name, default, why)| Directive {
        name,
        alias: (name == "replica-lazy-flush").then_some("slave-lazy-flush"),
        change: Change::Live,
        doc: why,
        kind: Kind::Inert { default },
    })
}

/// One sentence for each directive that was given and has no effect, for the start-up log.
pub fn notes(config: &Config) -> Vec<String> {
    let given = INERT
        .iter()
        .filter(|(name, _, _)| config.inert.contains_key(name));
    given
        .map(|(name, _, why)| format!("{name} has no effect: {why}"))
        .collect()
}
