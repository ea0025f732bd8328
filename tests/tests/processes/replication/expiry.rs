//! Keys whose time is over while the role changes: a master and its replicas do the same with them.

use anyhow::{Result, ensure};
use redfleet_tests::{
    client::{Client, as_text},
    servers::{Program, Server},
};

use super::links::caught_up;

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
