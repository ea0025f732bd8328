//! Keys whose time is over while the role changes, or while writes are paused: a master and its replicas do the same with them.

use std::time::Duration;

use anyhow::{Result, ensure};
use redfleet_tests::{
    client::{Client, as_text},
    servers::{Program, Server, eventually},
};

use super::links::{caught_up, counter, offset};

const DEADLINE: Duration = Duration::from_secs(60);
/// Allows [`expire_passively`].
const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// From now on keys expire when somebody looks at them only.
fn expire_passively(client: &mut Client) -> Result<()> {
    ensure!(client.text("DEBUG SET-ACTIVE-EXPIRE 0")? == "OK");
    Ok(())
}

/// Sends all commands at once; answers the replies.
fn pipeline(client: &mut Client, commands: &[&str]) -> Result<Vec<String>> {
    client.send_raw(format!("{}\r\n", commands.join("\r\n")).as_bytes())?;
    let replies = commands.iter().map(|_| client.read_reply());
    replies.map(|reply| Ok(as_text(&reply?))).collect()
}

#[test]
fn a_replica_that_is_promoted_removes_expired_keys_from_the_next_command_on() -> Result<()> {
    let mut master = Server::start(Program::Redfleet, &DEBUG)?;
    let heir = Server::replica_of(Program::Redfleet, &master, &DEBUG)?;
    let sibling = Server::replica_of(Program::Redfleet, &heir, &[])?;
    let mut client = master.client()?;
    expire_passively(&mut client)?;
    for command in ["SET n 5 PX 300", "RPUSH l a", "PEXPIRE l 300"] {
        client.run(command)?;
    }
    caught_up(&master, &heir)?;
    caught_up(&heir, &sibling)?;
    let mut client = heir.client()?;
    expire_passively(&mut client)?;
    client.until("EXISTS n l", |count| count == "0")?;
    master.kill()?;
    let commands = ["REPLICAOF NO ONE", "INCR n", "RPUSH l z"];
    ensure!(pipeline(&mut client, &commands)? == ["OK", "1", "1"]);
    caught_up(&heir, &sibling)?;
    let mut client = sibling.client()?;
    for (command, reply) in [("GET n", "1"), ("LLEN l", "1"), ("PTTL n", "-1")] {
        let got = client.text(command)?;
        ensure!(got == reply, "{command}: {got}");
    }
    Ok(())
}

#[test]
fn a_master_that_becomes_a_replica_removes_nothing_from_the_next_command_on() -> Result<()> {
    let master = Server::start(Program::Redfleet, &DEBUG)?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    let mut client = master.client()?;
    expire_passively(&mut client)?;
    client.run("SET k v PX 300")?;
    caught_up(&master, &replica)?;
    // Looking at it there removes it nowhere.
    replica.client()?.until("EXISTS k", |count| count == "0")?;
    let commands = ["REPLICAOF 127.0.0.1 1", "GET k", "DBSIZE"];
    ensure!(pipeline(&mut client, &commands)? == ["OK", "(nil)", "1"]);
    Ok(())
}

/// Whoever pauses writes waits for a stream that stands still, to make another server the master. (A PING may come, as in
/// Redis.)
#[test]
fn nothing_is_removed_while_writes_are_paused() -> Result<()> {
    let options = [
        "--repl-ping-replica-period",
        "3600",
        "--maxmemory-policy",
        "allkeys-random",
    ];
    let options = [&options[..], &DEBUG].concat();
    let master = Server::start(Program::Redfleet, &options)?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    let mut client = master.client()?;
    expire_passively(&mut client)?;
    for n in 0..20 {
        client.run(&format!("SET volatile:{n} v PX 1"))?;
        client.run(&format!("SET lasting:{n} v"))?;
    }
    caught_up(&master, &replica)?;
    let before = offset(&mut client)?;
    for command in [
        "CLIENT PAUSE 3600000 WRITE",
        "DEBUG SET-ACTIVE-EXPIRE 1",
        "CONFIG SET maxmemory 1",
    ] {
        ensure!(client.text(command)? == "OK", "{command}");
    }
    let uptime = |client: &mut Client| -> Result<u64> {
        Ok(client.info("server", "uptime_in_seconds")?.trim().parse()?)
    };
    let begun = uptime(&mut client)?;
    // The periodic work runs ten times a second.
    eventually("two seconds of it", DEADLINE, || {
        Ok((uptime(&mut client)? >= begun + 2).then_some(()))
    })?;
    for (command, reply) in [
        ("GET volatile:1", "(nil)"),
        ("GET lasting:1", "v"),
        ("DBSIZE", "40"),
    ] {
        let got = client.text(command)?;
        ensure!(got == reply, "{command}: {got}");
    }
    // A client that waits for acknowledgements asks for none either.
    client.run("WAIT 1 10")?;
    ensure!(
        offset(&mut client)? == before,
        "{before:?}, then {:?}",
        offset(&mut client)?
    );
    client.run("CLIENT UNPAUSE")?;
    client.until("DBSIZE", |keys| keys == "0")?;
    Ok(())
}

/// The end of the stream is what the snapshot at the end says: replicas continue with the master that comes back.
#[test]
fn nothing_is_removed_while_a_master_saves_at_its_end() -> Result<()> {
    const KEYS: u64 = 300_000;
    /// Their times are over one after the other: some are at every moment of the save.
    const SPREAD_MS: u64 = 30_000;
    // Room for what is removed between the restart and the replica's return.
    let options = ["--save", "3600 1", "--repl-backlog-size", "64mb"];
    let mut master = Server::start(Program::Redfleet, &options)?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    // A master that leaves does not wait for one that is still loading.
    caught_up(&master, &replica)?;
    let mut client = master.client()?;
    let batch = KEYS / 30;
    for start in (0..KEYS).step_by(batch as usize) {
        let line = |n: u64| {
            let left_ms = SPREAD_MS * n / KEYS + 1;
            format!("SET key:{n} value PX {left_ms}\r\n")
        };
        let lines: String = (start..start + batch).map(line).collect();
        client.send_raw(lines.as_bytes())?;
        client.read_raw(batch as usize * "+OK\r\n".len())?;
    }
    ensure!(master.terminate()?, "{}", master.log());
    master.restart()?;
    caught_up(&master, &replica)?;
    let logs = || format!("master:\n{}\nreplica:\n{}", master.log(), replica.log());
    ensure!(counter(&master, "sync_full")? == 0, "{}", logs());
    ensure!(counter(&master, "sync_partial_ok")? == 1, "{}", logs());
    Ok(())
}
