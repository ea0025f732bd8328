use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{HostPort, SavePoint};

fn args(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

fn run(line: &[&str], input: &str) -> Result<Loaded, String> {
    match from_args_and_input(&args(line), &mut input.as_bytes()) {
        Ok(Startup::Run(loaded)) => Ok(*loaded),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn config(line: &[&str]) -> Config {
    run(line, "").unwrap().config
}

fn master(host: &str, port: u16) -> Option<HostPort> {
    Some(HostPort {
        host: host.to_owned(),
        port,
    })
}

#[test]
fn options_are_accepted_in_one_word_or_several() {
    for words in [&["127.0.0.1 6379"][..], &["127.0.0.1", "6379"]] {
        let line = [&["--port", "6380", "--replicaof"], words].concat();
        let config = config(&line);
        assert_eq!(config.net.port, 6380);
        assert_eq!(config.replication.replica_of, master("127.0.0.1", 6379));
    }
    assert_eq!(
        config(&["--slaveof", "no", "one"]).replication.replica_of,
        None
    );
    assert!(config(&["--save", ""]).persistence.save_points.is_empty());
    let points = config(&["--save", "3600", "1", "300", "100"])
        .persistence
        .save_points;
    assert_eq!(points, SavePoint::DEFAULT[..2]);
    let points = config(&["--save", "3600 1", "--save", "300", "100"])
        .persistence
        .save_points;
    assert_eq!(points, SavePoint::DEFAULT[..2]);
}

#[test]
fn the_options_of_the_benchmarks_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let line = "--port 7001 --bind 127.0.0.1 --appendonly no --daemonize no --repl-diskless-sync-delay 0 \
                --repl-backlog-size 512mb --repl-ping-replica-period 3600 --repl-timeout 600 --maxmemory 0 \
                --repl-diskless-load swapdb --maxclients 10200";
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend([
        "--save",
        "",
        "--client-output-buffer-limit",
        "replica 0 0 0",
        "--dir",
    ]);
    words.push(path.to_str().unwrap());
    let config = config(&words);
    assert_eq!(config.persistence.dir, path);
    assert_eq!(config.replication.backlog_bytes, 512 << 20);
    assert_eq!(
        config.replication.ping_replica_period,
        Duration::from_secs(3600)
    );
    assert_eq!(config.net.output_limits.replica.hard_bytes, 0);
    assert_eq!(config.net.output_limits.pubsub.hard_bytes, 32 << 20);
    assert_eq!(
        config.matching(&["repl-diskless-load"])[0].1,
        "swapdb",
        "it is kept although it has no effect"
    );
}

#[test]
fn a_replica_may_wait_for_as_much_as_the_backlog_keeps() {
    let hard_mib = |words: &[&str]| config(words).output_limits().replica.hard_bytes >> 20;
    assert_eq!(hard_mib(&[]), 256);
    assert_eq!(hard_mib(&["--repl-backlog-size", "1gb"]), 1024);
    let unlimited = ["--client-output-buffer-limit", "replica 0 0 0"];
    assert_eq!(hard_mib(&unlimited), 0);
}

#[test]
fn a_file_comes_first_and_options_go_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.conf");
    std::fs::create_dir(dir.path().join("more")).unwrap();
    std::fs::write(dir.path().join("more/b.conf"), "timeout 2\n").unwrap();
    std::fs::write(
        dir.path().join("more/a.conf"),
        "timeout 1\r\nmaxclients 77\r\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("more/ignored.txt"), "bogus\n").unwrap();
    let text = format!(
        "# comment\n\n  port 7000\nINCLUDE {}/more/*.conf\nrequirepass \"a b\\x21\"\nmasterauth 'c d'\nsave 900 1\nsave 60 5\n",
        dir.path().display()
    );
    std::fs::write(&path, text).unwrap();
    let loaded = run(&[path.to_str().unwrap(), "--port", "7001"], "").unwrap();
    assert_eq!(
        loaded.file.as_deref(),
        Some(path.canonicalize().unwrap().as_path())
    );
    let config = loaded.config;
    assert_eq!(config.net.port, 7001);
    assert_eq!(config.net.idle_timeout, Duration::from_secs(2));
    assert_eq!(config.net.max_clients, 77);
    assert_eq!(config.security.requirepass, "a b!");
    assert_eq!(config.replication.master_auth, "c d");
    assert_eq!(config.persistence.save_points.len(), 2);
}

#[test]
fn standard_input_is_read_for_a_dash() {
    assert_eq!(run(&["-"], "port 7003\n").unwrap().config.net.port, 7003);
    let loaded = run(&["--port", "7004", "-"], "port 7003\ntimeout 9").unwrap();
    assert_eq!(loaded.config.net.port, 7004);
    assert_eq!(loaded.config.net.idle_timeout, Duration::from_secs(9));
}

#[test]
fn an_error_names_the_place_and_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.conf");
    std::fs::write(&path, "port 7000\n\nmaxmemroy 1gb\n").unwrap();
    let error = run(&[path.to_str().unwrap()], "").unwrap_err();
    for part in [
        "redis.conf, line 3",
        ">>> maxmemroy 1gb",
        "did you mean 'maxmemory'?",
    ] {
        assert!(error.contains(part), "{error}");
    }
    for (line, part) in [
        (&["--appendonly", "yes"][..], "keep 'appendonly no'"),
        (&["--daemonize", "yes"], "service manager"),
        (&["--tls-port", "6380"], "TLS is not supported yet"),
        (&["--tls-new-thing", "1"], "TLS is not supported yet"),
        (
            &["--port", "70000"],
            "argument must be between 0 and 65535 inclusive",
        ),
        (&["--port"], "wrong number of arguments"),
        (&["--port", "1", "2"], "wrong number of arguments"),
        (&["--dir", "/no/such"], "No such file or directory"),
        (&["--replicaof", "host"], "wrong number of arguments"),
        (&["--replicaof", "host", "x"], "Invalid master port"),
        (&["/no/such/redis.conf"], "Check the path"),
        (&["--"], "an option begins with --"),
        (&["--managed", "yes"], "control-port"),
    ] {
        let error = run(line, "").unwrap_err();
        assert!(error.contains(part), "{line:?}: {error}");
    }
    assert!(
        run(&["-"], "port \"1\n")
            .unwrap_err()
            .contains("standard input, line 1")
    );
}

#[test]
fn an_error_never_shows_a_password() {
    for line in [
        "requirepass secret more",
        "masterauth \"secret",
        "primaryauth secret more",
    ] {
        let error = run(&["-"], line).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn files_that_include_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.conf");
    std::fs::write(&path, format!("include {}\n", path.display())).unwrap();
    assert!(
        run(&[path.to_str().unwrap()], "")
            .unwrap_err()
            .contains("remove the circle")
    );
}

#[test]
fn the_file_that_debian_installs_loads_when_it_need_not_daemonize() {
    let text = "bind 127.0.0.1 -::1\nprotected-mode yes\nport 6379\ntcp-backlog 511\ntimeout 0\ntcp-keepalive 300\n\
pidfile /run/redis/redis-server.pid\nloglevel notice\nlogfile /var/log/redis/redis-server.log\ndatabases 16\n\
always-show-logo no\nset-proc-title yes\nproc-title-template \"{title} {listen-addr} {server-mode}\"\n\
stop-writes-on-bgsave-error yes\nrdbcompression yes\nrdbchecksum yes\ndbfilename dump.rdb\nrdb-del-sync-files no\n\
replica-serve-stale-data yes\nreplica-read-only yes\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 5\n\
repl-diskless-sync-max-replicas 0\nrepl-diskless-load disabled\nrepl-disable-tcp-nodelay no\nreplica-priority 100\n\
acllog-max-len 128\nlazyfree-lazy-eviction no\nlazyfree-lazy-expire no\nlazyfree-lazy-server-del no\n\
replica-lazy-flush no\nlazyfree-lazy-user-del no\nlazyfree-lazy-user-flush no\noom-score-adj no\n\
oom-score-adj-values 0 200 800\ndisable-thp yes\nappendonly no\nappendfilename \"appendonly.aof\"\n\
appenddirname \"appendonlydir\"\nappendfsync everysec\nno-appendfsync-on-rewrite no\n\
auto-aof-rewrite-percentage 100\nauto-aof-rewrite-min-size 64mb\naof-load-truncated yes\n\
aof-use-rdb-preamble yes\naof-timestamp-enabled no\nslowlog-log-slower-than 10000\nslowlog-max-len 128\n\
latency-monitor-threshold 0\nnotify-keyspace-events \"\"\nhash-max-listpack-entries 512\n\
hash-max-listpack-value 64\nlist-max-listpack-size -2\nlist-compress-depth 0\nset-max-intset-entries 512\n\
zset-max-listpack-entries 128\nzset-max-listpack-value 64\nhll-sparse-max-bytes 3000\n\
stream-node-max-bytes 4096\nstream-node-max-entries 100\nactiverehashing yes\n\
client-output-buffer-limit normal 0 0 0\nclient-output-buffer-limit replica 256mb 64mb 60\n\
client-output-buffer-limit pubsub 32mb 8mb 60\nhz 10\ndynamic-hz yes\naof-rewrite-incremental-fsync yes\n\
rdb-save-incremental-fsync yes\njemalloc-bg-thread yes\n";
    let loaded = run(&["-"], text).unwrap();
    assert_eq!(
        loaded.config.net.output_limits,
        crate::config::OutputLimits::default()
    );
    assert!(
        loaded
            .notes
            .iter()
            .any(|note| note.starts_with("pidfile has no effect")),
        "{:?}",
        loaded.notes
    );
}

#[test]
fn help_lists_what_can_be_set() {
    assert!(matches!(from_args(&args(&["--help"])), Ok(Startup::Help)));
    assert!(matches!(from_args(&args(&["-v"])), Ok(Startup::Version)));
    let help = help();
    assert!(help.contains("--replicaof, --slaveof []"), "{help}");
    assert!(!help.contains("appendonly"));
}

proptest! {
    #[test]
    fn garbage_never_panics(text in proptest::collection::vec(any::<u8>(), 0..200), name in "[a-z-]{0,12}", words in "[ -~]{0,40}") {
        let _ = from_args_and_input(&args(&["-"]), &mut text.as_slice());
        let known = directive::all()[text.len() % directive::all().len()].name;
        for name in [name.as_str(), known] {
            let line = format!("{name} {words}\n");
            let _ = from_args_and_input(&args(&["-"]), &mut line.as_bytes());
        }
    }
}

#[test]
fn a_managed_server_takes_more_passwords_and_another_is_told_what_to_do() {
    let managed = "--managed yes --member-name m-0 --control-port 7001 --control-token-file t";
    let mut words: Vec<&str> = managed.split(' ').collect();
    let more = [
        "--accept-password",
        "default",
        "o'ld",
        "--accept-password",
        "replication",
        "new",
    ];
    words.extend(more);
    let accepted = config(&words).fleet.accepted;
    let pairs: Vec<(&str, &str)> = accepted
        .iter()
        .map(|a| (a.user.as_str(), a.password.as_str()))
        .collect();
    assert_eq!(pairs, [("default", "o'ld"), ("replication", "new")]);
    let error = run(&more, "").unwrap_err().to_string();
    assert!(
        error.contains("accept-password needs managed yes"),
        "{error}"
    );
    let error = run(&["--accept-password", "default"], "")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("wrong number of arguments") && !error.contains("default"),
        "{error}"
    );
}
