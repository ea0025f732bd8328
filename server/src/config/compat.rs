//! Directives of Redis that this server does not need or does not have yet, so that an existing `redis.conf`
//! loads wherever it asks for nothing that is missing.
//!
//! *Fixed* ones accept the value that is true here and refuse others with a cure. *Inert* ones accept what
//! Redis accepts, keep it for CONFIG GET and REWRITE, and have no effect; the log says so and why.

use super::Config;
use super::directive::{Change, Directive};
use super::kind::{Kind, Problem, Shape, WRONG_ARGUMENTS};

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

const YES_NO: Shape = Shape::YesNo;
const ANY: Shape = Shape::Text(|_| Ok(()));
const INT: Shape = Shape::Number {
    min: 0,
    max: i32::MAX as i64,
};
const LENGTH: Shape = Shape::Number {
    min: 0,
    max: i64::MAX,
};

/// A name without a folder, of what `kind` says.
fn check_name(word: &str, directive: &str, kind: &str) -> Result<(), Problem> {
    match word {
        "" => Err(format!("{directive} can't be empty").into()),
        path if path.contains(['/', '\\']) => {
            Err(format!("{directive} can't be a path, just a {kind}").into())
        }
        _ => Ok(()),
    }
}

/// Text with the names of variables in braces; `{{` is a brace.
fn check_title_template(word: &str) -> Result<(), Problem> {
    const VARIABLES: [&str; 7] = [
        "title",
        "listen-addr",
        "server-mode",
        "port",
        "tls-port",
        "unixsocket",
        "config-file",
    ];
    let wrong = || Problem::Borrowed("template format is invalid or contains unknown variables");
    // Redis refuses a template that shows nothing, too; these variables are empty where it looks.
    const EMPTY: [&str; 3] = ["title", "server-mode", "unixsocket"];
    let (mut rest, mut shows) = (word, false);
    while let Some((text, behind)) = rest.split_once('{') {
        shows |= !text.trim().is_empty();
        rest = match behind.strip_prefix('{') {
            Some(behind) => {
                shows = true;
                behind
            }
            None => {
                let (name, behind) = behind.split_once('}').ok_or_else(wrong)?;
                let name = name.to_ascii_lowercase();
                shows |= !EMPTY.contains(&name.as_str());
                let known = VARIABLES.contains(&name.as_str());
                known.then_some(behind).ok_or_else(wrong)?
            }
        };
    }
    if shows || !rest.trim().is_empty() {
        Ok(())
    } else {
        Err(wrong())
    }
}

fn percentiles(words: &[&str]) -> Result<String, Problem> {
    let mut shown = Vec::new();
    for word in words {
        let percentile = word
            .parse::<f64>()
            .map_err(|_| "Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&percentile) {
            return Err(
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"
                    .into(),
            );
        }
        shown.push(percentile.to_string());
    }
    Ok(shown.join(" "))
}

fn oom_scores(words: &[&str]) -> Result<String, Problem> {
    const SCORES: usize = 3;
    if words.len() != SCORES {
        return Err(WRONG_ARGUMENTS.into());
    }
    let is_score = |word: &&str| {
        resp::parse_i64(word.as_bytes()).is_some_and(|score| (-2000..=2000).contains(&score))
    };
    if !words.iter().all(is_score) {
        return Err(
            "Invalid oom-score-adj-values, elements must be between -2000 and 2000.".into(),
        );
    }
    Ok(words.join(" "))
}

/// Name, default, what a value looks like, why it has no effect.
const INERT: &[(&str, &str, Shape, &str)] = &[
    (
        "acl-pubsub-default",
        "resetchannels",
        Shape::OneOf(&["allchannels", "resetchannels"]),
        "there are no users but the default one yet",
    ),
    ("acllog-max-len", "128", LENGTH, "there is no ACL log yet"),
    (
        "active-expire-effort",
        "1",
        Shape::Number { min: 1, max: 10 },
        INCREMENTAL,
    ),
    ("activerehashing", "yes", YES_NO, INCREMENTAL),
    ("always-show-logo", "no", YES_NO, "there is no logo"),
    ("aof-load-truncated", "yes", YES_NO, NO_AOF),
    ("aof-rewrite-incremental-fsync", "yes", YES_NO, NO_AOF),
    ("aof-timestamp-enabled", "no", YES_NO, NO_AOF),
    ("aof-use-rdb-preamble", "yes", YES_NO, NO_AOF),
    (
        "appenddirname",
        "appendonlydir",
        Shape::Text(|word| check_name(word, "appenddirname", "dirname")),
        NO_AOF,
    ),
    (
        "appendfilename",
        "appendonly.aof",
        Shape::Text(|word| check_name(word, "appendfilename", "filename")),
        NO_AOF,
    ),
    (
        "appendfsync",
        "everysec",
        Shape::OneOf(&["everysec", "always", "no"]),
        NO_AOF,
    ),
    (
        "auto-aof-rewrite-min-size",
        "67108864",
        Shape::Bytes,
        NO_AOF,
    ),
    ("auto-aof-rewrite-percentage", "100", INT, NO_AOF),
    ("busy-reply-threshold", "5000", LENGTH, NO_SCRIPT),
    (
        "crash-log-enabled",
        "yes",
        YES_NO,
        "there is no crash report",
    ),
    (
        "crash-memcheck-enabled",
        "yes",
        YES_NO,
        "there is no crash report",
    ),
    (
        "disable-thp",
        "yes",
        YES_NO,
        "huge pages do no harm without fork",
    ),
    ("dynamic-hz", "yes", YES_NO, INCREMENTAL),
    ("hll-sparse-max-bytes", "3000", Shape::Bytes, NO_TYPE),
    ("hz", "10", INT, INCREMENTAL),
    (
        "io-threads-do-reads",
        "no",
        YES_NO,
        "I/O threads always read",
    ),
    (
        "jemalloc-bg-thread",
        "yes",
        YES_NO,
        "the allocator is set up at build time",
    ),
    (
        "latency-tracking",
        "yes",
        YES_NO,
        "latency percentiles are not tracked yet",
    ),
    (
        "latency-tracking-info-percentiles",
        "50 99 99.9",
        Shape::List(percentiles),
        "latency percentiles are not tracked yet",
    ),
    ("lazyfree-lazy-eviction", "no", YES_NO, BACKGROUND),
    ("lazyfree-lazy-expire", "no", YES_NO, BACKGROUND),
    ("lazyfree-lazy-server-del", "no", YES_NO, BACKGROUND),
    ("lazyfree-lazy-user-del", "no", YES_NO, BACKGROUND),
    ("lazyfree-lazy-user-flush", "no", YES_NO, BACKGROUND),
    (
        "list-compress-depth",
        "0",
        INT,
        "list nodes are not compressed in memory",
    ),
    ("locale-collate", "", ANY, "strings are compared by bytes"),
    ("lua-time-limit", "5000", LENGTH, NO_SCRIPT),
    (
        "maxmemory-eviction-tenacity",
        "10",
        Shape::Number { min: 0, max: 100 },
        "each command evicts a bounded number of keys, periodic work the rest",
    ),
    ("no-appendfsync-on-rewrite", "no", YES_NO, NO_AOF),
    (
        "oom-score-adj-values",
        "0 200 800",
        Shape::List(oom_scores),
        "oom-score-adj is not supported",
    ),
    (
        "pidfile",
        "",
        ANY,
        "no pid file is written; the service manager knows the process",
    ),
    (
        "proc-title-template",
        "{title} {listen-addr} {server-mode}",
        Shape::Text(check_title_template),
        NO_TITLE,
    ),
    (
        "propagation-error-behavior",
        "ignore",
        Shape::OneOf(&["ignore", "panic", "panic-on-replicas"]),
        "a replica that cannot apply a command always stops and syncs anew",
    ),
    (
        "rdb-save-incremental-fsync",
        "yes",
        YES_NO,
        "snapshots are always written in slices",
    ),
    (
        "repl-disable-tcp-nodelay",
        "no",
        YES_NO,
        "the stream is sent in batches, each at once",
    ),
    (
        "repl-diskless-load",
        "disabled",
        Shape::OneOf(&["disabled", "on-empty-db", "swapdb"]),
        "a snapshot is always loaded as it arrives, beside the data that it replaces",
    ),
    ("replica-lazy-flush", "no", YES_NO, BACKGROUND),
    (
        "sanitize-dump-payload",
        "no",
        Shape::OneOf(&["no", "yes", "clients"]),
        "payloads are always checked",
    ),
    ("set-proc-title", "yes", YES_NO, NO_TITLE),
    (
        "slowlog-log-slower-than",
        "10000",
        Shape::Number {
            min: -1,
            max: i64::MAX,
        },
        NO_SLOWLOG,
    ),
    ("slowlog-max-len", "128", LENGTH, NO_SLOWLOG),
    ("stream-node-max-bytes", "4096", Shape::Bytes, NO_TYPE),
    ("stream-node-max-entries", "100", LENGTH, NO_TYPE),
    (
        "syslog-facility",
        "local0",
        Shape::OneOf(&[
            "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        ]),
        NO_SYSLOG,
    ),
    ("syslog-ident", "redis", ANY, NO_SYSLOG),
    (
        "tracking-table-max-keys",
        "1000000",
        LENGTH,
        "client tracking is not supported yet",
    ),
    (
        "unixsocketperm",
        "0",
        Shape::Permissions,
        "there is no Unix socket",
    ),
];

/// Those that Redis reads at the start only: CONFIG SET of them is an error, also with the value that is there.
const AT_START: [&str; 17] = [
    "aclfile",
    "always-show-logo",
    "appenddirname",
    "appendfilename",
    "cluster-enabled",
    "daemonize",
    "disable-thp",
    "enable-module-command",
    "io-threads-do-reads",
    "pidfile",
    "set-proc-title",
    "supervised",
    "syslog-enabled",
    "syslog-facility",
    "syslog-ident",
    "unixsocket",
    "unixsocketperm",
];

fn change_of(name: &str) -> Change {
    if AT_START.contains(&name) {
        Change::AtStart
    } else {
        Change::Live
    }
}

pub(super) fn fixed() -> impl Iterator<Item = Directive> {
    FIXED.iter().map(|&(name, accepted, cure)| Directive {
        name,
        alias: (name == "replica-ignore-maxmemory").then_some("slave-ignore-maxmemory"),
        change: change_of(name),
        doc: cure,
        kind: Kind::Fixed { accepted, cure },
    })
}

pub(super) fn inert() -> impl Iterator<Item = Directive> {
    INERT.iter().map(|&(name, default, shape, why)| Directive {
        name,
        alias: (name == "replica-lazy-flush").then_some("slave-lazy-flush"),
        change: change_of(name),
        doc: why,
        kind: Kind::Inert { default, shape },
    })
}

/// One sentence for each directive that was given and has no effect, for the start-up log.
pub fn notes(config: &Config) -> Vec<String> {
    config.inert.keys().filter_map(|name| note(name)).collect()
}

/// Why the directive has no effect, in one sentence for the log, if it has none.
pub fn note(name: &str) -> Option<String> {
    let (name, _, _, why) = INERT.iter().find(|(known, ..)| *known == name)?;
    Some(format!("{name} has no effect: {why}"))
}
