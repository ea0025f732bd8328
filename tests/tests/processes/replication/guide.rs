//! The examples and exercises of a popular guide to Redis replication, with this server in every
//! place: what people type first must work as they have read it.

use std::{os::unix::fs::MetadataExt, process::Command, time::Duration};

use anyhow::ensure;

use redfleet_tests::servers::{Program, Server, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

fn replicated(replica: &Server, key: &str, value: &str) -> anyhow::Result<()> {
    let mut client = replica.client()?;
    eventually("the value on the replica", DEADLINE, || {
        Ok((client.text(&format!("GET {key}"))? == value).then_some(()))
    })
}

/// The guide's first example, on its own ports and by `redis-cli`, in a network of its own where the ports are free.
/// `$1` is the server, `$2` a folder.
const SESSION: &str = r#"
set -eu
ip link set lo up
cd "$2"; mkdir master replica
master= replica=
trap 'kill $master $replica 2>/dev/null || true; wait' EXIT
until_says() { # PORT WORDS COMMAND...
  port=$1 words=$2; shift 2
  for _ in $(seq 600); do
    case "$(redis-cli -p "$port" "$@" 2>&1)" in *"$words"*) return 0;; esac
    sleep 0.05
  done
  echo "port $port never said $words after $*" >&2; cat master/log replica/log >&2; exit 1
}
( cd master; exec "$1" --port 6379 >log 2>&1 ) & master=$!
until_says 6379 PONG PING
( cd replica; exec "$1" --port 6380 --replicaof 127.0.0.1 6379 >log 2>&1 ) & replica=$!
until_says 6380 master_link_status:up INFO replication
redis-cli --no-raw -p 6379 SET mykey "Hello Replication"
redis-cli -p 6379 WAIT 1 10000 >/dev/null
redis-cli --no-raw -p 6380 GET mykey
redis-cli --no-raw -p 6380 SET anotherkey "test"
redis-cli -p 6379 INFO replication | tr -d '\r' | grep -E '^(role|connected_replicas|slave0):' | sed 's/offset=[0-9]*,lag=[0-9]*/offset=N,lag=N/'
redis-cli -p 6380 INFO replication | tr -d '\r' | grep -E '^(role|master_(host|port|link_status|sync_in_progress)):'
redis-cli -p 6380 REPLICAOF NO ONE
redis-cli -p 6380 REPLICAOF 127.0.0.1 6379
until_says 6380 master_link_status:up INFO replication
"#;

#[test]
fn the_guides_session_on_its_own_ports_shows_what_the_guide_shows() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["--net", "sh", "-c", SESSION, "sh"])
        .arg(Program::Redfleet.path()?)
        .arg(folder.path())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}{errors}");
    let expected = "OK\n\
        \"Hello Replication\"\n\
        (error) READONLY You can't write against a read only replica.\n\
        role:master\n\
        connected_replicas:1\n\
        slave0:ip=127.0.0.1,port=6380,state=online,offset=N,lag=N\n\
        role:slave\n\
        master_host:127.0.0.1\n\
        master_port:6379\n\
        master_link_status:up\n\
        master_sync_in_progress:0\n\
        OK\n\
        OK\n";
    // `INFO` lists `connected_replicas` where it likes; the guide shows it second.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[3..6].sort();
        lines
    };
    ensure!(text.lines().count() == 13, "{text}{errors}");
    assert_eq!(sorted(&text), sorted(expected), "{text}{errors}");
    Ok(())
}

/// "Basic Master-Replica Setup": `--replicaof` on the command line, SET here, GET there, READONLY.
#[test]
fn a_replica_given_on_the_command_line_has_the_masters_data_and_refuses_writes()
-> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let port = master.port.to_string();
    // Two words, as the guide has them; `replica_of` elsewhere gives one.
    let replica = Server::start(Program::Redfleet, &["--replicaof", "127.0.0.1", &port])?;
    let mut client = master.client()?;
    let said = client.call(&["SET", "mykey", "Hello Replication"])?;
    assert_eq!(redfleet_tests::client::as_text(&said), "OK");
    replicated(&replica, "mykey", "Hello Replication")?;
    let refused = replica.client()?.text("SET anotherkey test")?;
    assert_eq!(
        refused,
        "(error) READONLY You can't write against a read only replica."
    );
    Ok(())
}

/// "Method 1: Configuration File": a `replicaof` line.
#[test]
fn a_replicaof_line_in_a_file_works() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    master.client()?.text("SET k v")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("redis.conf");
    std::fs::write(
        &file,
        format!("# a replica\nreplicaof 127.0.0.1 {}\n", master.port),
    )?;
    let replica = Server::start_with_file(Program::Redfleet, &file, &[])?;
    replicated(&replica, "k", "v")
}

/// "Method 2: Redis CLI Command": REPLICAOF and SLAVEOF at run time, and back.
#[test]
fn replicaof_and_slaveof_change_the_role_at_run_time() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let other = Server::start(Program::Redfleet, &[])?;
    master.client()?.text("SET k v")?;
    for command in ["REPLICAOF", "SLAVEOF"] {
        let mut client = other.client()?;
        assert_eq!(
            client.text(&format!("{command} 127.0.0.1 {}", master.port))?,
            "OK"
        );
        replicated(&other, "k", "v")?;
        assert_eq!(
            client.text(&format!("{command} 127.0.0.1 {}", master.port))?,
            "OK Already connected to specified master"
        );
        assert_eq!(client.text(&format!("{command} NO ONE"))?, "OK");
        assert_eq!(client.text("SET own 1")?, "OK");
    }
    Ok(())
}

/// "Verifying Replication Status": the fields that the guide shows, on both ends.
#[test]
fn info_replication_shows_what_the_guide_shows() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    let mut m = master.client()?;
    let line = eventually("the replica to be online", DEADLINE, || {
        let line = m.info("replication", "slave0")?;
        Ok(line.contains("state=online").then_some(line))
    })?;
    let start = format!("ip=127.0.0.1,port={},state=online,offset=", replica.port);
    assert!(line.starts_with(&start) && line.contains(",lag="), "{line}");
    assert_eq!(m.info("replication", "role")?, "master");
    assert_eq!(m.info("replication", "connected_replicas")?, "1");
    assert_eq!(m.info("replication", "connected_slaves")?, "1");
    let mut r = replica.client()?;
    let expected = [
        ("role", "slave".to_owned()),
        ("master_host", "127.0.0.1".to_owned()),
        ("master_port", master.port.to_string()),
        ("master_link_status", "up".to_owned()),
        ("master_sync_in_progress", "0".to_owned()),
    ];
    for (field, value) in expected {
        assert_eq!(r.info("replication", field)?, value, "{field}");
    }
    let silent: i64 = r
        .info("replication", "master_last_io_seconds_ago")?
        .parse()?;
    assert!((0..=11).contains(&silent), "{silent}");
    Ok(())
}

/// "Advanced Replication Features" and "Security Considerations": the guide's directives in both servers' files, each
/// in force and with the effect that the guide gives.
#[test]
fn the_guides_directives_in_files_work() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> anyhow::Result<std::path::PathBuf> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let common = "repl-timeout 60\nrepl-backlog-size 1mb\n";
    let path = file("master.conf", &format!("requirepass secret\n{common}"))?;
    let master = Server::start_with_file(Program::Redfleet, &path, &[])?;
    let text = format!(
        "replicaof 127.0.0.1 {}\nmasterauth secret\nreplica-read-only yes\n{common}",
        master.port
    );
    let path = file("replica.conf", &text)?;
    let replica = Server::start_with_file(Program::Redfleet, &path, &[])?;
    let mut m = master.client()?;
    assert_eq!(
        m.text("SET k v")?,
        "(error) NOAUTH Authentication required."
    );
    assert_eq!(m.text("AUTH secret")?, "OK");
    assert_eq!(m.text("SET k v")?, "OK");
    replicated(&replica, "k", "v")?;
    let mut r = replica.client()?;
    for client in [&mut m, &mut r] {
        let timeout = client.run("CONFIG GET repl-timeout")?;
        assert!(format!("{timeout:?}").contains("60"), "{timeout:?}");
    }
    assert_eq!(m.info("replication", "repl_backlog_size")?, "1048576");
    let refused = "(error) READONLY You can't write against a read only replica.";
    assert_eq!(r.text("SET own 1")?, refused);
    // "This can be changed, but it's generally not recommended".
    assert_eq!(r.text("CONFIG SET replica-read-only no")?, "OK");
    assert_eq!(r.text("SET own 1")?, "OK");
    assert_eq!(m.text("GET own")?, "(nil)", "it stays on the replica");
    assert_eq!(r.text("CONFIG SET replica-read-only yes")?, "OK");
    assert_eq!(r.text("SET own 2")?, refused);
    Ok(())
}

/// "Replication Lag": a replica that stands still shows in `lag` and `offset`, and no more when it goes on.
#[test]
fn info_shows_a_replica_that_lags() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--repl-ping-replica-period", "1"])?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    let mut m = master.client()?;
    let lag = |line: &str| {
        line.rsplit("lag=")
            .next()
            .and_then(|lag| lag.parse::<u64>().ok())
    };
    eventually("the replica to be online", DEADLINE, || {
        let line = m.info("replication", "slave0")?;
        Ok((line.contains("state=online") && lag(&line) <= Some(1)).then_some(()))
    })?;
    replica.signal(nix::sys::signal::Signal::SIGSTOP)?;
    m.text("SET k v")?;
    eventually("the lag to show", DEADLINE, || {
        Ok((lag(&m.info("replication", "slave0")?) >= Some(3)).then_some(()))
    })?;
    replica.signal(nix::sys::signal::Signal::SIGCONT)?;
    eventually("the lag to go", DEADLINE, || {
        Ok((lag(&m.info("replication", "slave0")?) <= Some(1)).then_some(()))
    })?;
    replicated(&replica, "k", "v")
}

/// Exercises 1 and 2: a master with two replicas; a script writes to the master and reads from both.
#[test]
fn two_replicas_have_everything_that_a_script_writes() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let replicas = [
        Server::replica_of(Program::Redfleet, &master, &[])?,
        Server::replica_of(Program::Redfleet, &master, &[])?,
    ];
    let mut client = master.client()?;
    for i in 0..100 {
        client.text(&format!("SET key:{i} value:{i}"))?;
    }
    client.until("WAIT 2 1000", |reached| reached == "2")?;
    for replica in &replicas {
        let mut reader = replica.client()?;
        for i in 0..100 {
            assert_eq!(reader.text(&format!("GET key:{i}"))?, format!("value:{i}"));
        }
    }
    Ok(())
}

/// Exercise 3: the master is stopped and comes back; replicas go on serving reads meanwhile and
/// return by a partial synchronization.
#[test]
fn replicas_outlive_their_master_and_continue_when_it_is_back() -> anyhow::Result<()> {
    let mut master = Server::start(Program::Redfleet, &["--save", "3600 1"])?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    master.client()?.text("SET k v")?;
    replicated(&replica, "k", "v")?;
    let mut reader = replica.client()?;
    assert!(master.terminate()?, "{}", master.log());
    eventually("the lost link to show", DEADLINE, || {
        Ok((reader.info("replication", "master_link_status")? == "down").then_some(()))
    })?;
    assert_eq!(reader.text("GET k")?, "v");
    let down: i64 = reader
        .info("replication", "master_link_down_since_seconds")?
        .parse()?;
    assert!(down >= 0);
    master.restart()?;
    master.client()?.text("SET after 1")?;
    replicated(&replica, "after", "1")?;
    let mut m = master.client()?;
    assert_eq!(m.info("stats", "sync_partial_ok")?, "1", "{}", master.log());
    assert_eq!(m.info("stats", "sync_full")?, "0", "{}", master.log());
    Ok(())
}

/// Exercise 4: a replica with other persistence than its master.
#[test]
fn a_replica_may_save_where_its_master_does_not() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--save", ""])?;
    let replica = Server::replica_of(Program::Redfleet, &master, &["--save", "3600 1"])?;
    master.client()?.text("SET k v")?;
    replicated(&replica, "k", "v")?;
    // It may be saving already what it copied.
    eventually("a save", DEADLINE, || {
        Ok((replica.client()?.text("SAVE")? == "OK").then_some(()))
    })?;
    assert!(replica.folder().join("dump.rdb").exists());
    assert!(!master.folder().join("dump.rdb").exists());
    Ok(())
}

/// As Redis keeps the file that it received, and as it counts what its master changes.
#[test]
fn a_replica_saves_what_it_copied_and_counts_changes() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--save", ""])?;
    master.client()?.text("SET copied 1")?;
    let mut replica = Server::replica_of(Program::Redfleet, &master, &["--save", "3600 1"])?;
    replicated(&replica, "copied", "1")?;
    eventually("the first save", DEADLINE, || {
        let saves = replica.client()?.info("persistence", "rdb_saves")?;
        Ok((saves == "1").then_some(()))
    })?;
    let changes = |replica: &Server| {
        let mut client = replica.client()?;
        client.info("persistence", "rdb_changes_since_last_save")
    };
    assert_eq!(changes(&replica)?, "0");
    master.client()?.text("MSET a 1 b 2")?;
    replicated(&replica, "b", "2")?;
    assert_eq!(changes(&replica)?, "2");
    replica.kill()?;
    replica.restart()?;
    replicated(&replica, "b", "2")?;
    let partial = master.client()?.info("stats", "sync_partial_ok")?;
    assert_eq!(partial, "1", "{}", master.log());
    Ok(())
}
