//! CONFIG, INFO, COMMAND, the metrics port, and how the program starts: as clients and operators see them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::FileTypeExt,
    process::Command,
    time::Duration,
};

use anyhow::Result;
use redfleet_tests::{
    client::{Client, as_text, encode},
    ports::free_port,
    servers::{Program, Server, eventually},
};
use redis::Value;
use tempfile::TempDir;

fn server(options: &[&str]) -> Result<Server> {
    Server::start(Program::Redfleet, options)
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) | Value::Set(items) => items.iter().flat_map(texts).collect(),
        Value::Map(pairs) => pairs
            .iter()
            .flat_map(|(k, v)| [texts(k), texts(v)].concat())
            .collect(),
        other => vec![as_text(other)],
    }
}

#[test]
fn config_get_and_set_take_many_arguments() -> Result<()> {
    let server = server(&["--maxmemory", "100mb"])?;
    let mut client = server.client()?;
    let got = client.run("CONFIG GET maxmemory min-slaves-* MAXMEMORY")?;
    let expected = [
        "maxmemory",
        "104857600",
        "min-slaves-to-write",
        "0",
        "min-slaves-max-lag",
        "10",
    ];
    assert_eq!(texts(&got), expected);
    assert_eq!(
        client.text("CONFIG SET timeout 7 hash-max-ziplist-entries 3")?,
        "OK"
    );
    let got = client.run("CONFIG GET timeout hash-max-listpack-entries")?;
    assert_eq!(
        texts(&got),
        ["timeout", "7", "hash-max-listpack-entries", "3"]
    );
    for (command, error) in [
        (
            "CONFIG SET timeout 8 nosuch 1",
            "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'",
        ),
        (
            "CONFIG SET timeout",
            "ERR wrong number of arguments for 'config|set' command",
        ),
        (
            "CONFIG SET timeout 8 databases 2",
            "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config",
        ),
        (
            "CONFIG SET timeout x",
            "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer",
        ),
        (
            "CONFIG REWRITE",
            "ERR The server is running without a config file",
        ),
    ] {
        assert_eq!(
            client.text(command)?,
            format!("(error) {error}"),
            "{command}"
        );
    }
    assert_eq!(
        texts(&client.run("CONFIG GET timeout")?),
        ["timeout", "7"],
        "nothing of a refused SET stays"
    );
    Ok(())
}

#[test]
fn a_new_password_is_asked_for_at_once_and_old_connections_stay() -> Result<()> {
    let server = server(&[])?;
    let mut old = server.client()?;
    assert_eq!(old.text("CONFIG SET requirepass pw")?, "OK");
    assert_eq!(old.text("PING")?, "PONG");
    let mut new = server.client()?;
    assert_eq!(new.text("PING")?, "(error) NOAUTH Authentication required.");
    assert_eq!(new.text("AUTH pw")?, "OK");
    assert_eq!(new.text("PING")?, "PONG");
    Ok(())
}

#[test]
fn memory_above_the_limit_refuses_writes_but_not_deletes() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    assert_eq!(client.text("SET k v")?, "OK");
    assert_eq!(client.text("CONFIG SET maxmemory 1")?, "OK");
    let oom = "(error) OOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(client.text("SET k w")?, oom);
    assert_eq!(client.text("GET k")?, "v");
    assert_eq!(client.text("CONFIG SET maxmemory 0")?, "OK");
    assert_eq!(client.text("SET k w")?, "OK");
    Ok(())
}

/// Whoever knows the seed of a hash can prepare keys or members that all collide. Both hashes, of the keyspace and of
/// collections, show in the order of a walk: equal data in two processes must come in two orders.
#[test]
fn hashes_have_another_seed_in_every_process() -> Result<()> {
    let orders = |_: usize| -> Result<[Vec<String>; 5]> {
        let server = server(&[])?;
        let mut client = server.client()?;
        for n in 0..700 {
            client.run(&format!("SADD set m{n}"))?;
            client.run(&format!("HSET hash f{n} v"))?;
            client.run(&format!("ZADD zset 1 m{n}"))?;
            client.run(&format!("SET key:{n} v"))?;
        }
        let mut walk = |command: &str| Ok::<_, anyhow::Error>(texts(&client.run(command)?));
        Ok([
            walk("SMEMBERS set")?,
            walk("HKEYS hash")?,
            walk("KEYS *")?,
            walk("SSCAN set 0 COUNT 100")?,
            walk("ZSCAN zset 0 COUNT 100")?,
        ])
    };
    let (one, other) = (orders(1)?, orders(2)?);
    for (index, (one, other)) in one.iter().zip(&other).enumerate() {
        assert!(one.len() > 50, "walk {index} found {}", one.len());
        assert_ne!(one, other, "walk {index} has the order of another process");
    }
    Ok(())
}

#[test]
fn a_rewritten_configuration_starts_the_same_server_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("redis.conf");
    fs::write(&path, "# kept\nmaxclients 50\nslave-priority 7\n")?;
    let mut server = Server::start_with_file(Program::Redfleet, &path, &[])?;
    let mut client = server.client()?;
    assert_eq!(
        client.text("CONFIG SET maxclients 60 requirepass s3cret")?,
        "OK"
    );
    assert_eq!(client.text("CONFIG REWRITE")?, "OK");
    let text = fs::read_to_string(&path)?;
    for line in [
        "# kept\nmaxclients 60\nreplica-priority 7\n",
        "requirepass s3cret\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    server.kill()?;
    server.restart()?;
    let mut client = server.client()?;
    assert_eq!(client.text("AUTH s3cret")?, "OK");
    assert_eq!(
        texts(&client.run("CONFIG GET maxclients")?),
        ["maxclients", "60"]
    );
    Ok(())
}

#[test]
fn info_has_the_fields_that_monitors_read() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    client.run("SET k v")?;
    client.run("SET e v EX 100")?;
    client.run("GET k")?;
    client.run("GET missing")?;
    client.run("INCR k")?;
    let info = client.text("INFO ALL")?;
    for line in [
        "redis_mode:standalone",
        "role:master",
        "connected_slaves:0",
        "connected_replicas:0",
        "loading:0",
        "aof_enabled:0",
        "keyspace_hits:1",
        "keyspace_misses:1",
        "errorstat_ERR:count=1",
        "cluster_enabled:0",
        "maxmemory_policy:noeviction",
        "rdb_last_bgsave_status:ok",
        "master_failover_state:no-failover",
        "rdb_changes_since_last_save:2",
    ] {
        assert!(info.lines().any(|l| l == line), "{line} in\n{info}");
    }
    assert!(
        info.contains("cmdstat_set:calls=2,usec=") && info.contains("cmdstat_incr:calls=1"),
        "{info}"
    );
    // Sampled ten times a second.
    client.until("INFO keyspace", |text| {
        let rest = text.split_once("db0:keys=2,expires=1,avg_ttl=");
        let ttl = rest.and_then(|(_, ttl)| ttl.trim().parse::<u64>().ok());
        ttl.is_some_and(|ttl| (1..=100_000).contains(&ttl))
    })?;
    assert_eq!(client.text("CONFIG SET hz 50")?, "OK");
    assert_eq!(client.info("server", "configured_hz")?, "50");
    client.until("INFO server", |text| {
        // One in a thousand ends so by chance.
        let line = text
            .lines()
            .find(|line| line.starts_with("server_time_usec:"));
        line.is_some_and(|line| !line.ends_with("000"))
    })?;
    let used: u64 = client.info("memory", "used_memory")?.parse()?;
    assert!(used > 100_000, "{used}");
    assert_eq!(client.text("CONFIG RESETSTAT")?, "OK");
    assert_eq!(client.info("stats", "keyspace_hits")?, "0");
    assert!(!client.text("INFO commandstats")?.contains("cmdstat_set"));
    Ok(())
}

#[test]
fn commands_describe_themselves() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    let count: usize = client.text("COMMAND COUNT")?.parse()?;
    let Value::Array(all) = client.run("COMMAND")? else {
        panic!("COMMAND answers an array")
    };
    assert_eq!(all.len(), count);
    let info = texts(&client.run("COMMAND INFO get")?);
    assert_eq!(info[..2], ["get", "2"]);
    assert!(
        info.contains(&"readonly".to_owned()) && info.contains(&"@read".to_owned()),
        "{info:?}"
    );
    let docs = texts(&client.run("COMMAND DOCS config|get")?);
    assert!(docs.contains(&"summary".to_owned()), "{docs:?}");
    assert_eq!(
        texts(&client.run("COMMAND GETKEYS MSET a 1 b 2")?),
        ["a", "b"]
    );
    for (command, error) in [
        (
            "COMMAND GETKEYS PING",
            "ERR The command has no key arguments",
        ),
        ("COMMAND GETKEYS NOSUCH", "ERR Invalid command specified"),
        (
            "COMMAND GETKEYS GET",
            "ERR Invalid number of arguments specified for command",
        ),
    ] {
        assert_eq!(client.text(command)?, format!("(error) {error}"));
    }
    let listed = texts(&client.run("COMMAND LIST")?);
    assert!(listed.contains(&"config|get".to_owned()), "{listed:?}");
    let listed = texts(&client.run("COMMAND LIST FILTERBY PATTERN config*")?);
    assert!(listed.contains(&"config|get".to_owned()), "{listed:?}");
    let help = texts(&client.run("CONFIG HELP")?);
    assert!(help.contains(&"REWRITE".to_owned()), "{help:?}");
    Ok(())
}

fn http(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_metrics_port_answers_probes_and_scrapes() -> Result<()> {
    let port = free_port()?;
    let server = server(&["--metrics-port", &port.to_string()])?;
    let mut client = server.client()?;
    client.run("SET k v")?;
    assert!(http(port, "/livez")?.starts_with("HTTP/1.1 200"));
    assert!(http(port, "/readyz")?.starts_with("HTTP/1.1 200"));
    let metrics = http(port, "/metrics")?;
    for line in [
        "redis_up 1.0",
        "redis_db_keys{db=\"db0\"} 1.0",
        "redis_commands_total{cmd=\"set\"} 1.0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    // A replica without its master is alive, but not ready.
    assert_eq!(
        client.text(&format!("REPLICAOF 127.0.0.1 {}", free_port()?))?,
        "OK"
    );
    assert!(http(port, "/livez")?.starts_with("HTTP/1.1 200"));
    let ready = http(port, "/readyz")?;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("link to the master"),
        "{ready}"
    );
    assert!(client.text("CONFIG GET replicaof").is_ok());
    Ok(())
}

#[test]
fn time_is_told_in_microseconds() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    for _ in 0..100 {
        let time = texts(&client.run("TIME")?);
        let microseconds: u32 = time[1].parse()?;
        assert!(microseconds < 1_000_000, "{time:?}");
        if !microseconds.is_multiple_of(1000) {
            return Ok(());
        }
    }
    anyhow::bail!("only whole milliseconds")
}

/// Nothing is missed, but whoever set it must learn that nothing was gained.
#[test]
fn a_setting_without_effect_is_logged() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    assert_eq!(client.text("CONFIG SET hz 100")?, "OK");
    let log = server.log();
    assert_eq!(log.matches("hz has no effect").count(), 1, "{log}");
    Ok(())
}

#[test]
fn a_trim_that_cuts_nothing_is_told_to_watchers() -> Result<()> {
    let server = server(&[])?;
    let (mut watcher, mut other) = (server.client()?, server.client()?);
    other.run("RPUSH k a b")?;
    let changes = other.info("persistence", "rdb_changes_since_last_save")?;
    assert_eq!(watcher.text("WATCH k")?, "OK");
    assert_eq!(other.text("LTRIM k 0 -1")?, "OK");
    assert_eq!(watcher.text("MULTI")?, "OK");
    assert_eq!(watcher.text("PING")?, "QUEUED");
    assert_eq!(watcher.run("EXEC")?, Value::Nil);
    assert_eq!(
        other.info("persistence", "rdb_changes_since_last_save")?,
        changes
    );
    Ok(())
}

#[test]
fn debug_needs_permission() -> Result<()> {
    let closed = server(&[])?;
    assert!(
        closed
            .client()?
            .text("DEBUG SLEEP 0")?
            .starts_with("(error) ERR DEBUG command not allowed.")
    );
    let open = server(&["--enable-debug-command", "local"])?;
    assert_eq!(open.client()?.text("DEBUG SLEEP 0.01")?, "OK");
    Ok(())
}

#[test]
fn the_program_explains_itself_and_its_errors() -> Result<()> {
    let program = Program::Redfleet.path()?;
    let run = |args: &[&str]| -> Result<(bool, String)> {
        let output = Command::new(&program).args(args).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(text)?))
    };
    let (good, help) = run(&["--help"])?;
    assert!(good && help.contains("--replicaof, --slaveof"), "{help}");
    let (good, version) = run(&["--version"])?;
    assert!(
        good && version.starts_with("redfleet-server v="),
        "{version}"
    );
    for (args, part) in [
        (&["--appendonly", "yes"][..], "keep 'appendonly no'"),
        (&["--prot", "1"], "did you mean 'port'?"),
        (
            &["/no/such/redis.conf"],
            "Cannot read the configuration file /no/such/redis.conf",
        ),
    ] {
        let (good, text) = run(args)?;
        assert!(!good && text.contains(part), "{args:?}: {text}");
    }
    Ok(())
}

/// A snapshot is given up when its only reader has gone; the next one, for a file and for a replica, is complete.
#[test]
fn a_snapshot_that_nobody_reads_any_more_does_not_hinder_the_next() -> Result<()> {
    const VALUES: usize = 800;
    let options = ["--repl-diskless-sync-delay", "0"];
    let server = server(&options)?;
    let mut client = server.client()?;
    let value = "v".repeat(100_000);
    for n in 0..VALUES {
        client.call(&["SET", &format!("key:{n}"), &value])?;
    }
    let mut reader = server.client()?;
    reader.send_raw(&encode(&["REPLCONF", "capa", "eof", "capa", "psync2"]))?;
    reader.send_raw(&encode(&["PSYNC", "?", "-1"]))?;
    assert_eq!(reader.read_raw(5)?, b"+OK\r\n");
    assert_eq!(reader.read_past_newlines(11)?, b"+FULLRESYNC");
    drop(reader);
    client.until("INFO replication", |info| {
        info.contains("connected_slaves:0")
    })?;
    assert_eq!(client.text("SET key:0 changed")?, "OK");
    assert_eq!(client.text("SAVE")?, "OK");
    let replica = Server::replica_of(Program::Redfleet, &server, &[])?;
    let mut reader = replica.client()?;
    reader.until("INFO replication", |info| {
        info.contains("master_link_status:up")
    })?;
    assert_eq!(reader.text("DBSIZE")?, VALUES.to_string());
    let loaded = Server::start(
        Program::Redfleet,
        &["--dir", &server.folder().to_string_lossy()],
    )?;
    let mut loaded = loaded.client()?;
    assert_eq!(loaded.text("DBSIZE")?, VALUES.to_string());
    assert_eq!(loaded.text("GET key:0")?, "changed");
    Ok(())
}

/// A server whose dataset is a pipe: it has as much of it as the test has written.
struct SlowStart {
    server: Server,
    folder: TempDir,
    pipe: fs::File,
    metrics: u16,
}

impl SlowStart {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("dump.rdb");
        let made = Command::new("mkfifo").arg(&path).status()?;
        anyhow::ensure!(made.success(), "mkfifo: {made}");
        let metrics = free_port()?;
        let dir = folder.path().to_string_lossy();
        let options = ["--dir", &dir, "--metrics-port", &metrics.to_string()];
        let options = [&options[..], &["--save", "1 1"]].concat();
        let server = Server::spawn(Program::Redfleet, &options)?;
        // Waits until the server has opened the other end.
        let pipe = fs::OpenOptions::new().write(true).open(path)?;
        Ok(Self {
            server,
            folder,
            pipe,
            metrics,
        })
    }

    fn client(&self) -> Result<Client> {
        eventually("a connection", Duration::from_secs(10), || {
            Ok(self.server.client().ok())
        })
    }

    fn probe(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

const LOADING: &str = "(error) LOADING Redis is loading the dataset in memory";

#[test]
fn a_server_answers_while_it_loads_its_dataset() -> Result<()> {
    let dump = {
        let writer = server(&[])?;
        let mut client = writer.client()?;
        for n in 0..2000 {
            client.call(&["SET", &format!("key:{n}"), &"x".repeat(100)])?;
        }
        assert_eq!(client.text("CONFIG SET rdbcompression no")?, "OK");
        assert_eq!(client.text("SAVE")?, "OK");
        fs::read(writer.folder().join("dump.rdb"))?
    };
    let mut start = SlowStart::new()?;
    let (first, rest) = dump.split_at(dump.len() - 1000);
    start.pipe.write_all(first)?;
    let mut client = start.client()?;
    for command in [
        "GET key:0",
        "DBSIZE",
        "SET k v",
        "PING",
        "BGSAVE",
        "PSYNC ? -1",
    ] {
        assert_eq!(client.text(command)?, LOADING, "{command}");
    }
    for command in ["WATCH key:0", "CONFIG SET timeout 0", "MULTI", "DISCARD"] {
        assert_eq!(client.text(command)?, "OK", "{command}");
    }
    assert_eq!(client.text("MULTI")?, "OK");
    assert_eq!(client.text("GET key:0")?, LOADING);
    assert!(client.text("EXEC")?.contains("EXECABORT"));
    let info = client.text("INFO persistence")?;
    for field in [
        "loading:1\r\n",
        "loading_start_time:",
        "loading_loaded_bytes:",
        "loading_eta_seconds:",
    ] {
        assert!(info.contains(field), "{field}: {info}");
    }
    assert!(start.probe("/livez")?.starts_with("HTTP/1.1 200"));
    let ready = start.probe("/readyz")?;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("loading the dataset"),
        "{ready}"
    );
    assert_eq!(client.text("WATCH key:0")?, "OK");
    assert_eq!(client.text("MULTI")?, "OK");
    start.pipe.write_all(rest)?;
    drop(std::mem::replace(&mut start.pipe, tempfile::tempfile()?));
    start.client()?.until("PING", |reply| reply == "PONG")?;
    assert_eq!(client.text("GET key:0")?, "QUEUED");
    assert_eq!(
        client.run("EXEC")?,
        Value::Nil,
        "the key has come meanwhile"
    );
    assert_eq!(client.text("DBSIZE")?, "2000");
    assert_eq!(client.info("persistence", "loading")?, "0");
    assert!(start.probe("/readyz")?.starts_with("HTTP/1.1 200"));
    Ok(())
}

/// Whoever saved then would replace the data by nothing.
#[test]
fn a_server_that_is_ended_while_it_loads_leaves_its_file_alone() -> Result<()> {
    for order in ["SIGTERM", "SHUTDOWN SAVE"] {
        let mut start = SlowStart::new()?;
        start.pipe.write_all(b"REDIS0010")?;
        let mut client = start.client()?;
        assert_eq!(client.text("GET k")?, LOADING);
        // Longer than the save point's second.
        std::thread::sleep(Duration::from_millis(1500));
        match order {
            "SIGTERM" => assert!(start.server.terminate()?),
            shutdown => {
                client.send_raw(format!("{shutdown}\r\n").as_bytes())?;
                assert!(start.server.wait_for_end()?);
            }
        }
        let kind = fs::metadata(start.folder.path().join("dump.rdb"))?.file_type();
        assert!(kind.is_fifo(), "{order}: {kind:?}");
    }
    Ok(())
}
