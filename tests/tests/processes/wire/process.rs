//! The process and the system around it: descriptors, signals, the log file.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use redfleet_tests::{
    client::Client,
    ports::free_port,
    servers::{Program, Server, eventually},
};

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";
/// Longest time for a line of the log.
const DEADLINE: Duration = Duration::from_secs(10);

fn max_clients(client: &mut Client) -> Result<u32> {
    let reply = client.text("CONFIG GET maxclients")?;
    let digits: String = reply.chars().filter(char::is_ascii_digit).collect();
    digits.parse().with_context(|| reply)
}

/// Connects until the server has as many clients as it takes.
fn fill(server: &Server, first: &mut Client) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    loop {
        let connected: u32 = first.info("clients", "connected_clients")?.parse()?;
        if connected >= max_clients(first)? {
            return Ok(clients);
        }
        let mut client = server.client()?;
        assert_eq!(client.text("PING")?, "PONG", "after {}", clients.len());
        clients.push(client);
    }
}

#[test]
fn what_is_no_client_goes_on_when_clients_are_as_many_as_they_may_be() -> Result<()> {
    let probes = free_port()?;
    let options = ["--maxclients", "400", "--metrics-port", &probes.to_string()];
    // More clients than the soft limit has descriptors for.
    let server = Server::start_within("200:4096", Program::Redfleet, &options)?;
    let mut first = server.client()?;
    let clients = fill(&server, &mut first)?;
    assert!(clients.len() > 390, "{}", clients.len());
    assert_eq!(server.client()?.read_to_end()?, TOO_MANY);
    first.run("SET k v")?;
    assert_eq!(first.text("BGSAVE")?, "Background saving started");
    first.until("INFO persistence", |text| text.contains("rdb_saves:1"))?;
    assert_eq!(first.text("SAVE")?, "OK");
    let mut probe = TcpStream::connect(("127.0.0.1", probes))?;
    probe.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    probe.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// As in Redis, which keeps fewer descriptors for itself.
#[test]
fn maxclients_is_lowered_to_what_the_hard_limit_allows() -> Result<()> {
    for (program, possible) in [(Program::Redis, 268), (Program::Redfleet, 164)] {
        let options = ["--io-threads", "2"];
        let server = Server::start_within("300:300", program, &options)?;
        let mut client = server.client()?;
        assert_eq!(max_clients(&mut client)?, possible);
        assert_eq!(
            client.text("CONFIG SET maxclients 5000")?,
            format!(
                "(error) ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not \
                 able to handle the specified number of clients, try with {possible}"
            )
        );
        assert_eq!(max_clients(&mut client)?, possible);
        assert_eq!(client.text("CONFIG SET maxclients 100")?, "OK");
        if program == Program::Redfleet {
            assert!(
                server.log().contains("maxclients is lowered"),
                "{}",
                server.log()
            );
            let _all = fill(&server, &mut client)?;
            assert_eq!(server.client()?.read_to_end()?, TOO_MANY);
        }
    }
    let output = Command::new("prlimit")
        .arg("--nofile=64:64")
        .arg(Program::Redfleet.path()?)
        .args(["--port", "0"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("raise it to"), "{text}");
    Ok(())
}

#[test]
fn the_end_of_a_terminal_does_not_end_the_server() -> Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        let mut server = Server::start(program, &[])?;
        let mut client = server.client()?;
        for signal in [Signal::SIGHUP, Signal::SIGPIPE] {
            server.signal(signal)?;
            // A fatal signal would have ended it before this is answered.
            assert_eq!(client.text("PING")?, "PONG", "{program:?} {signal}");
            assert!(server.is_running()?);
        }
    }
    Ok(())
}

#[test]
fn a_log_that_is_renamed_goes_on_in_a_new_file() -> Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        // Relative to the folder of all files.
        let server = Server::start(program, &["--logfile", "own.log"])?;
        let log = server.folder().join("own.log");
        let mut client = server.client()?;
        let ready = |line: &&str| {
            line.to_ascii_lowercase()
                .contains("ready to accept connections")
        };
        // Clients are served before the line is written.
        eventually("that it is ready, in its log", DEADLINE, || {
            let text = fs::read_to_string(&log).with_context(|| format!("{program:?}"))?;
            Ok(text.lines().any(|line| ready(&line)).then_some(()))
        })?;
        fs::rename(&log, server.folder().join("own.log.1"))?;
        assert_eq!(client.text("REPLICAOF 127.0.0.1 1")?, "OK");
        eventually("a line in the new file", DEADLINE, || {
            Ok(fs::read_to_string(&log)
                .is_ok_and(|text| !text.is_empty())
                .then_some(()))
        })?;
    }
    Ok(())
}
