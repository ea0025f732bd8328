//! `repl-timeout`: whoever is silent for longer is left, by its replica as by its master, and found again by a partial
//! synchronization. A stopped process is as silent as one behind a cut cable: its sockets stay open.
//!
//! The timeout is set while the link is up: it counts at once, not only for the next link.

use std::time::Duration;

use nix::sys::signal::Signal;
use redfleet_tests::servers::{Program, Server, eventually};

use super::links::{ask_for_snapshot, caught_up, counter};

/// Longest wait for what a timeout of two seconds must bring: much less than the default of sixty.
const DEADLINE: Duration = Duration::from_secs(30);
const TWO_SECONDS: &str = "CONFIG SET repl-timeout 2";

/// A pair with a key `before`.
fn pair(master: Program, replica: Program) -> anyhow::Result<(Server, Server)> {
    let master = Server::start(master, &["--repl-ping-replica-period", "1"])?;
    let replica = Server::replica_of(replica, &master, &[])?;
    caught_up(&master, &replica)?;
    assert_eq!(master.client()?.text("SET before 1")?, "OK");
    caught_up(&master, &replica)?;
    Ok((master, replica))
}

/// The two are together again, and nobody paid for it with a full copy.
fn assert_continued(master: &Server, replica: &Server) -> anyhow::Result<()> {
    caught_up(master, replica)?;
    let logs = || format!("master:\n{}\nreplica:\n{}", master.log(), replica.log());
    assert_eq!(replica.client()?.text("GET after")?, "1", "{}", logs());
    assert_eq!(counter(master, "sync_full")?, 1, "{}", logs());
    assert!(counter(master, "sync_partial_ok")? >= 1, "{}", logs());
    Ok(())
}

fn our_replica_leaves_a_stopped(program: Program) -> anyhow::Result<()> {
    let (master, replica) = pair(program, Program::Redfleet)?;
    let mut client = replica.client()?;
    master.signal(Signal::SIGSTOP)?;
    eventually("the silence to be seen", DEADLINE, || {
        let idle = client.info("replication", "master_last_io_seconds_ago")?;
        Ok((idle.parse::<i64>()? >= 2).then_some(()))
    })?;
    assert_eq!(client.info("replication", "master_link_status")?, "up");
    assert_eq!(client.text(TWO_SECONDS)?, "OK");
    eventually("the link to be down", DEADLINE, || {
        let status = client.info("replication", "master_link_status")?;
        let why = client.info("replication", "master_link_error")?;
        Ok((status == "down" && why.contains("repl-timeout")).then_some(()))
    })?;
    assert_eq!(client.text("GET before")?, "1");
    master.signal(Signal::SIGCONT)?;
    assert_eq!(master.client()?.text("SET after 1")?, "OK");
    assert_continued(&master, &replica)
}

#[test]
fn our_replica_leaves_a_stopped_redis_and_comes_back() -> anyhow::Result<()> {
    our_replica_leaves_a_stopped(Program::Redis)
}

#[test]
fn our_replica_leaves_a_stopped_valkey_and_comes_back() -> anyhow::Result<()> {
    our_replica_leaves_a_stopped(Program::Valkey)
}

#[test]
fn our_replica_leaves_a_stopped_master_of_ours_and_comes_back() -> anyhow::Result<()> {
    our_replica_leaves_a_stopped(Program::Redfleet)
}

fn our_master_drops_a_stopped(program: Program) -> anyhow::Result<()> {
    let (master, replica) = pair(Program::Redfleet, program)?;
    let mut client = master.client()?;
    assert_eq!(client.text(TWO_SECONDS)?, "OK");
    replica.signal(Signal::SIGSTOP)?;
    eventually("the replica to be dropped", DEADLINE, || {
        let count = client.info("replication", "connected_slaves")?;
        let is_said = master
            .log()
            .contains("it has not answered for repl-timeout");
        Ok((count == "0" && is_said).then_some(()))
    })?;
    assert_eq!(client.text("SET after 1")?, "OK");
    replica.signal(Signal::SIGCONT)?;
    assert_continued(&master, &replica)
}

#[test]
fn our_master_drops_a_stopped_redis_which_comes_back() -> anyhow::Result<()> {
    our_master_drops_a_stopped(Program::Redis)
}

#[test]
fn our_master_drops_a_stopped_valkey_which_comes_back() -> anyhow::Result<()> {
    our_master_drops_a_stopped(Program::Valkey)
}

#[test]
fn our_master_drops_a_stopped_replica_of_ours_which_comes_back() -> anyhow::Result<()> {
    our_master_drops_a_stopped(Program::Redfleet)
}

/// It has its snapshot and never says that it is loaded, while there is always something new to be sent to it.
#[test]
fn our_master_drops_a_replica_that_is_silent_while_it_loads_under_writes() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--repl-timeout", "2"])?;
    let mut client = master.client()?;
    let _silent = ask_for_snapshot(&master, "eof")?;
    eventually("the replica to be dropped", DEADLINE, || {
        assert_eq!(client.text("SET k v")?, "OK");
        Ok((client.info("replication", "connected_slaves")? == "0").then_some(()))
    })
}
