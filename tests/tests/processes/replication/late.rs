//! Replicas that are late or slow, and one that was sent what it cannot apply: what comes of it is no loss, no loop and no
//! burden for the master's clients.

use std::time::Duration;

use nix::sys::signal::Signal;
use redfleet_tests::servers::{Program, Server, eventually};

use super::links::{caught_up, counter};

const DEADLINE: Duration = Duration::from_secs(60);

fn pair(master: Program, options: &[&str]) -> anyhow::Result<(Server, Server)> {
    let master = Server::start(master, options)?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    caught_up(&master, &replica)?;
    Ok((master, replica))
}

/// The master gives keys more time before theirs is over; the replica hears of both afterwards.
fn a_time_that_was_extended(program: Program) -> anyhow::Result<()> {
    let (master, replica) = pair(program, &[])?;
    replica.signal(Signal::SIGSTOP)?;
    let mut client = master.client()?;
    for (command, reply) in [
        ("SET set v PX 500", "OK"),
        ("PSETEX psetex 500 1", "OK"),
        ("SET getex v", "OK"),
        ("GETEX getex PX 500", "v"),
        ("SET over v PX 500", "OK"),
        ("PEXPIRE set 3600000", "1"),
        ("PERSIST psetex", "1"),
        ("GETEX getex EX 3600", "v"),
        ("APPEND set w", "2"),
        ("INCR psetex", "2"),
    ] {
        assert_eq!(client.text(command)?, reply, "{command}");
    }
    client.until("EXISTS over", |exists| exists == "0")?;
    replica.signal(Signal::SIGCONT)?;
    caught_up(&master, &replica)?;
    let mut client = replica.client()?;
    for (key, value) in [("set", "vw"), ("psetex", "2"), ("getex", "v")] {
        assert_eq!(client.text(&format!("GET {key}"))?, value, "{key}");
    }
    assert_eq!(client.text("PTTL psetex")?, "-1");
    client.until("DBSIZE", |keys| keys == "3")?;
    Ok(())
}

#[test]
fn a_time_that_a_redis_extended_is_not_over_for_a_late_replica() -> anyhow::Result<()> {
    a_time_that_was_extended(Program::Redis)
}

#[test]
fn a_time_that_our_master_extended_is_not_over_for_a_late_replica() -> anyhow::Result<()> {
    a_time_that_was_extended(Program::Redfleet)
}

/// As in Redis, the limit of a replica's output is never below what the backlog keeps.
#[test]
fn a_replica_that_may_continue_is_not_closed_for_what_it_missed() -> anyhow::Result<()> {
    let limit = ["--client-output-buffer-limit", "replica 1mb 1mb 60"];
    let options = [&limit[..], &["--repl-backlog-size", "64mb"]].concat();
    let (master, replica) = pair(Program::Redfleet, &options)?;
    replica.signal(Signal::SIGSTOP)?;
    let mut client = master.client()?;
    assert_eq!(client.text("CLIENT KILL TYPE replica")?, "1");
    let value = "v".repeat(1 << 20);
    for n in 0..16 {
        client.call(&["SET", &format!("key:{n}"), &value])?;
    }
    replica.signal(Signal::SIGCONT)?;
    caught_up(&master, &replica)?;
    assert_eq!(replica.client()?.text("DBSIZE")?, "16");
    assert_eq!(counter(&master, "sync_full")?, 1, "{}", master.log());
    Ok(())
}

/// Eviction would make the stream that waits longer, and so begin again.
#[test]
fn what_waits_for_a_slow_replica_evicts_nothing() -> anyhow::Result<()> {
    let memory = ["--maxmemory", "48mb", "--maxmemory-policy", "allkeys-lru"];
    let stream = ["--repl-backlog-size", "1mb"];
    let unlimited = ["--client-output-buffer-limit", "replica 0 0 0"];
    let (master, replica) = pair(
        Program::Redfleet,
        &[&memory[..], &stream, &unlimited].concat(),
    )?;
    replica.signal(Signal::SIGSTOP)?;
    let mut client = master.client()?;
    let value = "v".repeat(1 << 20);
    for n in 0..100 {
        assert_eq!(client.text(&format!("SET key:{n} v"))?, "OK");
        let reply = client.call(&["SET", "large", &value])?;
        assert_eq!(redfleet_tests::client::as_text(&reply), "OK");
    }
    let used: u64 = client.info("memory", "used_memory")?.trim().parse()?;
    let uncounted = client.info("memory", "mem_not_counted_for_evict")?;
    let uncounted: u64 = uncounted.trim().parse()?;
    assert!(used > 64 << 20, "{used} bytes: too little waits to tell");
    assert!(used - uncounted < 48 << 20, "{used} - {uncounted}");
    assert_eq!(counter(&master, "evicted_keys")?, 0);
    assert_eq!(client.text("DBSIZE")?, "101");
    replica.signal(Signal::SIGCONT)?;
    caught_up(&master, &replica)
}

/// The history in which a command could not be applied has ended; what came after is as good as any.
#[test]
fn a_server_that_once_distrusted_its_stream_hands_over() -> anyhow::Result<()> {
    let redis = Server::start(Program::Redis, &[])?;
    let ours = Server::replica_of(Program::Redfleet, &redis, &[])?;
    caught_up(&redis, &ours)?;
    redis.client()?.text("XADD stream * field value")?;
    let mut client = ours.client()?;
    client.until("INFO replication", |text| {
        text.contains("cannot be applied")
    })?;
    assert_eq!(client.text("REPLICAOF NO ONE")?, "OK");
    let replica = Server::replica_of(Program::Redfleet, &ours, &[])?;
    caught_up(&ours, &replica)?;
    assert_eq!(client.text("SET after 1")?, "OK");
    assert_eq!(client.text("FAILOVER")?, "OK");
    client.until("ROLE", |role| role.contains("connected"))?;
    let mut promoted = replica.client()?;
    promoted.until("ROLE", |role| role.contains("master"))?;
    assert_eq!(promoted.text("GET after")?, "1");
    assert_eq!(counter(&replica, "sync_full")?, 0, "{}", replica.log());
    Ok(())
}

/// The longest time there is does not end at once.
#[test]
fn a_failover_waits_as_long_as_it_was_told() -> anyhow::Result<()> {
    let (master, replica) = pair(Program::Redfleet, &[])?;
    replica.signal(Signal::SIGSTOP)?;
    let mut client = master.client()?;
    assert_eq!(client.text("SET k v")?, "OK");
    assert_eq!(client.text("FAILOVER TIMEOUT 9223372036854775807")?, "OK");
    // The periodic work, which ends a failover whose time is over, runs ten times a second.
    let uptime = |client: &mut redfleet_tests::client::Client| -> anyhow::Result<u64> {
        Ok(client.info("server", "uptime_in_seconds")?.trim().parse()?)
    };
    let begun = uptime(&mut client)?;
    eventually("two seconds of it", DEADLINE, || {
        Ok((uptime(&mut client)? >= begun + 2).then_some(()))
    })?;
    let state = client.info("replication", "master_failover_state")?;
    assert_eq!(state.trim(), "waiting-for-sync");
    replica.signal(Signal::SIGCONT)?;
    client.until("ROLE", |role| role.contains("connected"))?;
    Ok(())
}

/// CLIENT LIST has `b` for who waits for the server, which a replica does not.
#[test]
fn a_replica_is_not_listed_as_blocked() -> anyhow::Result<()> {
    let (master, _replica) = pair(Program::Redfleet, &[])?;
    let listed = master.client()?.text("CLIENT LIST TYPE replica")?;
    assert!(listed.contains(" flags=S "), "{listed}");
    Ok(())
}
