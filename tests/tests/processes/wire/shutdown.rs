//! SHUTDOWN and its options: what ends the server, what calls the end off, and that data which cannot be saved are kept.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use redfleet_tests::{
    client::{Client, as_text},
    servers::{Program, Server, eventually},
};

const DEADLINE: Duration = Duration::from_secs(30);
const CALLED_OFF: &str = "(error) ERR Errors trying to SHUTDOWN. Check logs.";

/// Sends SHUTDOWN without waiting for its reply, which comes only if it is called off.
fn ask(client: &mut Client, options: &str) -> Result<()> {
    client.send_raw(format!("SHUTDOWN {options}\r\n").as_bytes())
}

fn is_refused(server: &Server) -> bool {
    server
        .client()
        .and_then(|mut client| client.text("PING"))
        .is_err()
}

#[test]
fn a_shutdown_saves_if_it_is_told_to() -> Result<()> {
    for (options, saved) in [
        ("SAVE", true),
        ("NOSAVE", false),
        ("", false),
        ("SAVE NOW", true),
    ] {
        let server = Server::start(Program::Redfleet, &[])?;
        let mut client = server.client()?;
        client.run("SET k v")?;
        ask(&mut client, options)?;
        ensure!(client.read_to_end()?.is_empty(), "{options}: an answer");
        eventually(
            "the end",
            DEADLINE,
            || Ok(is_refused(&server).then_some(())),
        )?;
        ensure!(
            server.folder().join("dump.rdb").exists() == saved,
            "{options}"
        );
    }
    Ok(())
}

#[test]
fn a_shutdown_that_waits_for_a_replica_can_be_called_off() -> Result<()> {
    let master = Server::start(Program::Redfleet, &["--shutdown-timeout", "600"])?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    let (mut asker, mut other) = (master.client()?, master.client()?);
    other.until("WAIT 1 1000", |n| n == "1")?;
    replica.signal(Signal::SIGSTOP)?;
    other.run("SET k v")?;
    ask(&mut asker, "")?;
    ensure!(
        asker.is_silent_for(Duration::from_millis(300))?,
        "it waits for the replica"
    );
    other.until("SHUTDOWN ABORT", |reply| reply == "OK")?;
    ensure!(as_text(&asker.read_reply()?) == CALLED_OFF);
    ensure!(asker.text("SET k w")? == "OK", "writes go on");
    ensure!(other.text("SHUTDOWN ABORT")? == "(error) ERR No shutdown in progress.");
    // NOW does not wait.
    ask(&mut asker, "NOW")?;
    ensure!(asker.read_to_end()?.is_empty());
    eventually(
        "the end",
        DEADLINE,
        || Ok(is_refused(&master).then_some(())),
    )
}

#[test]
fn a_server_that_cannot_save_stays_unless_it_is_forced() -> Result<()> {
    let server = Server::start(Program::Redfleet, &[])?;
    // Even root cannot replace a folder by a file.
    fs::create_dir(server.folder().join("dump.rdb"))?;
    fs::write(server.folder().join("dump.rdb/file"), "")?;
    let mut client = server.client()?;
    client.run("SET k v")?;
    ask(&mut client, "SAVE")?;
    ensure!(as_text(&client.read_reply()?) == CALLED_OFF);
    ensure!(client.text("GET k")? == "v" && client.text("SET k w")? == "OK");
    ask(&mut client, "SAVE FORCE")?;
    ensure!(client.read_to_end()?.is_empty());
    eventually(
        "the end",
        DEADLINE,
        || Ok(is_refused(&server).then_some(())),
    )
}

#[test]
fn a_shutdown_leaves_no_half_of_a_snapshot() -> Result<()> {
    let mut server = Server::start(Program::Redfleet, &[])?;
    let mut client = server.client()?;
    // As a save that is on its way has it.
    let half = server.folder().join(format!("temp-{}.rdb", server.pid()));
    fs::write(&half, "REDIS")?;
    ask(&mut client, "NOSAVE")?;
    ensure!(server.wait_for_end()?, "{}", server.log());
    ensure!(!half.exists(), "it stays");
    Ok(())
}
