//! What holds commands back or refuses them: EXEC is judged by its queue, pauses have purposes, replies that come after
//! a wait obey CLIENT REPLY. What Redis does the same way runs against Redis, too.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use redfleet_tests::{
    client::Client,
    servers::{Program, Server},
};

const BOTH: [Program; 2] = [Program::Redfleet, Program::Redis];
const DISCARDED: &str = "(error) EXECABORT Transaction discarded because of: ";

/// Queues a command, lets `between` happen, and gives EXEC's answer.
fn exec_after(
    client: &mut Client,
    queued: &str,
    between: impl FnOnce() -> Result<()>,
) -> Result<String> {
    ensure!(client.text("MULTI")? == "OK");
    ensure!(client.text(queued)? == "QUEUED", "{queued}");
    between()?;
    client.text("EXEC")
}

fn all_ok(client: &mut Client, commands: &[&str]) -> Result<()> {
    for command in commands {
        let answer = client.text(command)?;
        ensure!(
            answer == "OK" || answer.starts_with("OK "),
            "{command}: {answer}"
        );
    }
    Ok(())
}

#[test]
fn exec_is_refused_for_what_it_queued() -> Result<()> {
    let cases: [(&str, &[&str], &[&str], &str); 3] = [
        (
            "SET k v",
            &["REPLICAOF 127.0.0.1 1"],
            &["REPLICAOF NO ONE"],
            "READONLY You can't write against a read only replica.",
        ),
        (
            "SET k v",
            &["CONFIG SET min-replicas-to-write 1"],
            &["CONFIG SET min-replicas-to-write 0"],
            "NOREPLICAS Not enough good replicas to write.",
        ),
        (
            "GET k",
            &[
                "CONFIG SET replica-serve-stale-data no",
                "REPLICAOF 127.0.0.1 1",
            ],
            &["REPLICAOF NO ONE"],
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        ),
    ];
    for program in BOTH {
        let server = Server::start(program, &[])?;
        let (mut client, mut admin) = (server.client()?, server.client()?);
        for (queued, before, after, cause) in cases {
            let answer = exec_after(&mut client, queued, || all_ok(&mut admin, before))?;
            ensure!(
                answer == format!("{DISCARDED}{cause}"),
                "{program:?}: {answer}"
            );
            all_ok(&mut admin, after)?;
            ensure!(
                client.text("EXEC")?.contains("without MULTI"),
                "{program:?}"
            );
        }
        ensure!(admin.text("GET k")? == "(nil)", "{program:?} ran it");
        // What only reads, or runs anywhere, is not held back.
        let answer = exec_after(&mut client, "GET k", || {
            all_ok(
                &mut admin,
                &[
                    "REPLICAOF 127.0.0.1 1",
                    "CONFIG SET replica-serve-stale-data yes",
                ],
            )
        })?;
        ensure!(!answer.contains("error"), "{program:?}: {answer}");
    }
    Ok(())
}

#[test]
fn exec_and_ping_are_refused_while_snapshots_fail() -> Result<()> {
    for program in BOTH {
        let server = Server::start(program, &["--save", "900 1"])?;
        let (mut client, mut admin) = (server.client()?, server.client()?);
        all_ok(&mut admin, &["SET k v"])?;
        let answer = exec_after(&mut client, "SET k w", || {
            let in_the_way = server.folder().join("dump.rdb");
            fs::create_dir(&in_the_way)?;
            fs::write(in_the_way.join("x"), "")?;
            admin.text("BGSAVE")?;
            let failed = |info: &str| info.contains("rdb_last_bgsave_status:err");
            admin.until("INFO persistence", failed)?;
            Ok(())
        })?;
        ensure!(
            answer.starts_with(&format!(
                "{DISCARDED}MISCONF Redis is configured to save RDB"
            )),
            "{program:?}: {answer}"
        );
        for command in ["PING", "SET k w"] {
            let answer = admin.text(command)?;
            ensure!(
                answer.starts_with("(error) MISCONF"),
                "{program:?}, {command}: {answer}"
            );
        }
        ensure!(admin.text("GET k")? == "v", "{program:?}");
        all_ok(
            &mut admin,
            &["CONFIG SET stop-writes-on-bgsave-error no", "SET k w"],
        )?;
        ensure!(admin.text("PING")? == "PONG", "{program:?}");
    }
    Ok(())
}

#[test]
fn a_refused_exec_says_so_in_the_words_of_redis() -> Result<()> {
    let cause = "wrong number of arguments for 'exec' command";
    for program in BOTH {
        let server = Server::start(program, &[])?;
        let mut client = server.client()?;
        ensure!(
            client.text("EXEC x")? == format!("{DISCARDED}{cause}"),
            "{program:?}"
        );
        all_ok(&mut client, &["MULTI"])?;
        ensure!(
            client.text("EXEC x")? == format!("{DISCARDED}{cause}"),
            "{program:?}"
        );
        ensure!(
            client.text("EXEC")? == "(error) ERR EXEC without MULTI",
            "{program:?}"
        );
        all_ok(&mut client, &["CONFIG SET requirepass secret"])?;
        let answer = server.client()?.text("EXEC")?;
        ensure!(
            answer == format!("{DISCARDED}NOAUTH Authentication required."),
            "{program:?}: {answer}"
        );
    }
    Ok(())
}

#[test]
fn a_pause_of_writes_holds_an_exec_with_writes_only() -> Result<()> {
    for program in BOTH {
        let server = Server::start(program, &[])?;
        let (mut reader, mut writer) = (server.client()?, server.client()?);
        let mut admin = server.client()?;
        for (client, queued) in [(&mut reader, "GET k"), (&mut writer, "SET k v")] {
            ensure!(client.text("MULTI")? == "OK" && client.text(queued)? == "QUEUED");
        }
        all_ok(&mut admin, &["CLIENT PAUSE 60000 WRITE"])?;
        reader.run("EXEC")?;
        writer.send_raw(b"EXEC\r\n")?;
        ensure!(
            writer.is_silent_for(Duration::from_millis(100))?,
            "{program:?}"
        );
        // A weaker or shorter pause takes nothing from the present one.
        all_ok(&mut admin, &["CLIENT PAUSE 1 WRITE"])?;
        ensure!(
            writer.is_silent_for(Duration::from_millis(100))?,
            "{program:?}"
        );
        all_ok(&mut admin, &["CLIENT UNPAUSE"])?;
        writer.read_reply()?;
    }
    Ok(())
}

#[test]
fn unpause_ends_no_pause_that_the_server_needs() -> Result<()> {
    for program in BOTH {
        let master = Server::start(program, &["--shutdown-timeout", "60"])?;
        let replica = Server::replica_of(program, &master, &[])?;
        let (mut admin, mut writer) = (master.client()?, master.client()?);
        admin.until("INFO replication", |info| info.contains("state=online"))?;
        // A replica that stands still keeps both waiting.
        replica.signal(nix::sys::signal::Signal::SIGSTOP)?;
        all_ok(
            &mut admin,
            &["SET k v", "FAILOVER TIMEOUT 60000", "CLIENT UNPAUSE"],
        )?;
        writer.send_raw(b"SET k lost\r\n")?;
        ensure!(
            writer.is_silent_for(Duration::from_millis(200))?,
            "{program:?}, FAILOVER"
        );
        all_ok(&mut admin, &["FAILOVER ABORT"])?;
        ensure!(writer.read_raw(5)? == b"+OK\r\n");
        let mut leaver = master.client()?;
        leaver.send_raw(b"SHUTDOWN NOSAVE\r\n")?;
        ensure!(leaver.is_silent_for(Duration::from_millis(100))?);
        all_ok(&mut admin, &["CLIENT UNPAUSE"])?;
        writer.send_raw(b"SET k lost\r\n")?;
        ensure!(
            writer.is_silent_for(Duration::from_millis(200))?,
            "{program:?}, SHUTDOWN"
        );
        all_ok(&mut admin, &["SHUTDOWN ABORT"])?;
        ensure!(writer.read_raw(5)? == b"+OK\r\n");
        replica.signal(nix::sys::signal::Signal::SIGCONT)?;
    }
    Ok(())
}

/// Name of a server's configuration file.
const FILE: &str = "redis.conf";

/// A server with a configuration file, which lies in the folder.
fn with_file(program: Program) -> Result<(tempfile::TempDir, Server)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(FILE);
    fs::write(&file, "maxclients 50\n")?;
    let server = Server::start_with_file(program, &file, &[])?;
    Ok((folder, server))
}

#[test]
fn replies_after_a_wait_can_be_switched_off() -> Result<()> {
    for program in BOTH {
        let (_folder, server) = with_file(program)?;
        let mut client = server.client()?;
        for command in ["WAIT 1 20", "SAVE", "CONFIG REWRITE"] {
            client.send_raw(
                format!("CLIENT REPLY OFF\r\n{command}\r\nCLIENT REPLY ON\r\n").as_bytes(),
            )?;
            ensure!(client.read_raw(5)? == b"+OK\r\n", "{program:?}, {command}");
            client.send_raw(
                format!("CLIENT REPLY SKIP\r\n{command}\r\nECHO a\r\nECHO b\r\n").as_bytes(),
            )?;
            let got = client.read_raw(14)?;
            ensure!(got == b"$1\r\na\r\n$1\r\nb\r\n", "{program:?}, {command}");
        }
    }
    Ok(())
}

#[test]
fn a_client_that_waits_for_replicas_is_not_idle() -> Result<()> {
    for program in BOTH {
        let server = Server::start(program, &["--timeout", "1"])?;
        let mut client = server.client()?;
        let began = Instant::now();
        ensure!(client.text("WAIT 1 2500")? == "0", "{program:?}");
        ensure!(began.elapsed() >= Duration::from_millis(2500));
    }
    Ok(())
}

/// Its bytes count, as in Redis, not only what they make.
#[test]
fn a_client_that_sends_a_long_request_slowly_is_not_idle() -> Result<()> {
    for program in BOTH {
        let server = Server::start(program, &["--timeout", "2"])?;
        let mut client = server.client()?;
        let request = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$10\r\n0123456789\r\n";
        let (slowly, last) = request.split_at(request.len() - 2);
        for piece in slowly.chunks(4) {
            client.send_raw(piece)?;
            let open = client.is_silent_for(Duration::from_millis(400))?;
            ensure!(open, "{program:?}: closed");
        }
        client.send_raw(last)?;
        ensure!(client.read_raw(5)? == b"+OK\r\n", "{program:?}");
    }
    Ok(())
}

#[test]
fn a_transaction_with_config_rewrite_answers_when_the_file_is_written() -> Result<()> {
    for program in BOTH {
        let (folder, server) = with_file(program)?;
        let mut client = server.client()?;
        // The order of Sentinel when it promotes.
        client.send_raw(
            b"MULTI\r\nCONFIG SET maxclients 60\r\nREPLICAOF NO ONE\r\nCONFIG REWRITE\r\nCLIENT KILL TYPE pubsub\r\n\
              ECHO a\r\nEXEC\r\nECHO after\r\n",
        )?;
        let expected = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n\
                        *5\r\n+OK\r\n+OK\r\n+OK\r\n:0\r\n$1\r\na\r\n$5\r\nafter\r\n";
        let got = client.read_raw(expected.len())?;
        ensure!(
            got == expected.as_bytes(),
            "{program:?}: {}",
            String::from_utf8_lossy(&got)
        );
        let file = folder.path().join(FILE);
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains("maxclients 60"), "{program:?}: {text}");
        // Where it cannot be written the rest of the transaction has run all the same.
        fs::remove_file(&file)?;
        fs::create_dir(&file)?;
        client.send_raw(b"MULTI\r\nCONFIG REWRITE\r\nSET k v\r\nEXEC\r\n")?;
        client.read_raw(5 + 2 * 9 + 4)?;
        let answer = client.read_reply();
        ensure!(
            format!("{answer:?}").contains("Rewriting config file"),
            "{program:?}: {answer:?}"
        );
        ensure!(client.read_raw(5)? == b"+OK\r\n", "{program:?}");
        ensure!(client.text("GET k")? == "v");
    }
    Ok(())
}
