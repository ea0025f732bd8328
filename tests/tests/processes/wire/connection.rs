//! What clients see of the protocol, of connections and of their commands: replies, errors and limits, on the wire.

use std::time::Duration;

use anyhow::{Context, Result};
use redfleet_tests::{
    client::{Client, as_text},
    servers::{Program, Server},
};
use redis::Value;

fn server(options: &[&str]) -> Result<Server> {
    Server::start(Program::Redfleet, options)
}

/// Sends raw bytes and reads as many bytes as `expected` has.
fn exchange(client: &mut Client, request: &str, expected: &str) -> Result<()> {
    client.send_raw(request.as_bytes())?;
    let got = client.read_raw(expected.len())?;
    assert_eq!(String::from_utf8_lossy(&got), expected, "after {request:?}");
    Ok(())
}

#[test]
fn inline_and_pipelined_requests_are_answered_in_order() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    exchange(&mut client, "PING\r\n", "+PONG\r\n")?;
    exchange(
        &mut client,
        "\r\n*0\r\necho 'a b'\nECHO \"\\x41\\n\"\r\n",
        "$3\r\na b\r\n$2\r\nA\n\r\n",
    )?;
    exchange(
        &mut client,
        "*1\r\n$4\r\nPING\r\nset k \"v w\"\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\necho \"x\" \r\n",
        "+PONG\r\n+OK\r\n$3\r\nv w\r\n$1\r\nx\r\n",
    )?;
    // A request that arrives byte by byte.
    for byte in "*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n".bytes() {
        client.send_raw(&[byte])?;
    }
    assert_eq!(client.read_raw(8)?, b"$2\r\nhi\r\n");
    Ok(())
}

#[test]
fn malformed_requests_are_refused_and_the_connection_closes() -> Result<()> {
    let server = server(&[])?;
    for (request, text) in [
        ("*3000000000\r\n", "invalid multibulk length"),
        ("*1\r\n$blabla\r\n", "invalid bulk length"),
        ("*1\r\n$2000000000\r\n", "invalid bulk length"),
        ("*1\r\nfooz\r\n", "expected '$', got 'f'"),
        ("set \"a\r\n", "unbalanced quotes in request"),
    ] {
        let mut client = server.client()?;
        client.send_raw(b"PING\r\n")?;
        client.send_raw(request.as_bytes())?;
        let expected = format!("+PONG\r\n-ERR Protocol error: {text}\r\n");
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()?), expected);
    }
    assert_eq!(
        server.client()?.text("PING")?,
        "PONG",
        "others are not concerned"
    );
    Ok(())
}

#[test]
fn before_a_login_requests_must_be_small() -> Result<()> {
    let server = server(&["--requirepass", "secret"])?;
    for (request, text) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        ("*1\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let mut client = server.client()?;
        client.send_raw(request.as_bytes())?;
        let answer = client.read_to_end()?;
        assert_eq!(
            String::from_utf8_lossy(&answer),
            format!("-ERR Protocol error: {text}\r\n")
        );
    }
    let mut client = server.client()?;
    assert_eq!(
        client.text("GET k")?,
        "(error) NOAUTH Authentication required."
    );
    // A pipeline may log in and go on with what only members may send.
    let big = "v".repeat(20_000);
    let pipeline = format!(
        "AUTH secret\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{big}\r\nSTRLEN k\r\n",
        big.len()
    );
    exchange(&mut client, &pipeline, "+OK\r\n+OK\r\n:20000\r\n")
}

#[test]
fn auth_and_hello_answer_as_redis_does() -> Result<()> {
    let server = server(&["--requirepass", "secret"])?;
    let mut client = server.client()?;
    let wrong = "(error) WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(client.text("AUTH wrong")?, wrong);
    assert_eq!(client.text("AUTH nobody secret")?, wrong);
    assert!(
        client
            .text("HELLO 3")?
            .starts_with("(error) NOAUTH HELLO must be called")
    );
    assert_eq!(
        client.text("HELLO 4")?,
        "(error) NOPROTO unsupported protocol version"
    );
    assert_eq!(client.text("HELLO 3 AUTH default wrong")?, wrong);
    let Value::Map(hello) = client.run("HELLO 3 AUTH default secret SETNAME me")? else {
        panic!("HELLO 3 answers a map");
    };
    let field = |name: &str| {
        hello
            .iter()
            .find(|(key, _)| as_text(key) == name)
            .map(|(_, v)| as_text(v))
    };
    assert_eq!(field("server").as_deref(), Some("redis"));
    assert_eq!(field("proto").as_deref(), Some("3"));
    assert_eq!(field("role").as_deref(), Some("master"));
    assert_eq!(client.text("CLIENT GETNAME")?, "me");
    assert_eq!(client.text("RESET")?, "RESET");
    assert_eq!(
        client.text("PING")?,
        "(error) NOAUTH Authentication required."
    );
    let open = Server::start(Program::Redfleet, &[])?;
    let text = open.client()?.text("AUTH x")?;
    assert!(
        text.starts_with("(error) ERR AUTH <password> called without any password"),
        "{text}"
    );
    Ok(())
}

#[test]
fn select_echo_reset_and_quit() -> Result<()> {
    let server = server(&["--databases", "4"])?;
    let mut client = server.client()?;
    for (command, expected) in [
        ("SELECT 3", "OK"),
        ("SET k v", "OK"),
        ("SELECT 0", "OK"),
        ("GET k", "(nil)"),
        ("SELECT 4", "(error) ERR DB index is out of range"),
        ("SELECT -1", "(error) ERR DB index is out of range"),
        (
            "SELECT x",
            "(error) ERR value is not an integer or out of range",
        ),
        ("PING hello", "hello"),
        (
            "PING a b",
            "(error) ERR wrong number of arguments for 'ping' command",
        ),
        ("ECHO x", "x"),
        ("SELECT 3", "OK"),
        ("MULTI", "OK"),
        ("RESET", "RESET"),
        ("GET k", "(nil)"),
        ("DBSIZE", "0"),
        (
            "NOSUCH a b",
            "(error) ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' ",
        ),
        (
            "CLIENT NOSUCH",
            "(error) ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.",
        ),
        (
            "CLIENT",
            "(error) ERR wrong number of arguments for 'client' command",
        ),
    ] {
        assert_eq!(client.text(command)?, expected, "{command}");
    }
    client.send_raw(b"QUIT\r\nPING\r\n")?;
    assert_eq!(client.read_to_end()?, b"+OK\r\n");
    Ok(())
}

#[test]
fn clients_are_listed_named_and_killed() -> Result<()> {
    let server = server(&[])?;
    let (mut one, mut two) = (server.client()?, server.client()?);
    assert_eq!(one.text("CLIENT SETNAME first")?, "OK");
    assert_eq!(
        one.call(&["CLIENT", "SETNAME", "a b"])
            .map(|v| as_text(&v))?,
        "(error) ERR Client names cannot contain spaces, newlines or special characters."
    );
    assert_eq!(one.text("CLIENT SETINFO LIB-NAME tests")?, "OK");
    let id: u64 = two.text("CLIENT ID")?.parse()?;
    let info = one.text("CLIENT INFO")?;
    for part in [
        "name=first",
        "lib-name=tests",
        "db=0",
        "resp=2",
        "user=default",
    ] {
        assert!(info.contains(part), "{part} in {info}");
    }
    let list = one.text("CLIENT LIST")?;
    assert!(
        list.contains(&format!("id={id} ")) && list.lines().count() >= 2,
        "{list}"
    );
    assert_eq!(
        one.text(&format!("CLIENT LIST ID {id}"))?.lines().count(),
        1
    );
    assert_eq!(one.text("CLIENT LIST TYPE replica")?, "");
    assert_eq!(one.text(&format!("CLIENT KILL ID {id}"))?, "1");
    assert!(
        two.text("PING").is_err(),
        "a killed client's connection is closed"
    );
    assert_eq!(
        one.text("CLIENT KILL 1.2.3.4:5")?,
        "(error) ERR No such client"
    );
    assert_eq!(
        one.text(&format!("CLIENT KILL ID {id}"))?,
        "0",
        "killed already"
    );
    // The harness's own look at the server may still be on its way out.
    one.until("INFO clients", |info| info.contains("connected_clients:1"))?;
    assert_eq!(one.text("CLIENT KILL TYPE normal SKIPME yes")?, "0");
    assert_eq!(
        one.text("CLIENT KILL TYPE nonsense")?,
        "(error) ERR Unknown client type 'nonsense'"
    );
    // With SKIPME no the caller gets its reply and is closed then.
    one.send_raw(b"CLIENT KILL TYPE normal SKIPME no\r\n")?;
    assert_eq!(one.read_to_end()?, b":1\r\n");
    Ok(())
}

#[test]
fn a_pause_holds_writes_back_until_it_ends() -> Result<()> {
    let server = server(&[])?;
    let (mut admin, mut client) = (server.client()?, server.client()?);
    assert_eq!(admin.text("CLIENT PAUSE 60000 WRITE")?, "OK");
    assert_eq!(client.text("GET k")?, "(nil)", "reads go on");
    client.send_raw(b"SET k v\r\n")?;
    assert!(
        client.is_silent_for(Duration::from_millis(100))?,
        "the write waits"
    );
    assert_eq!(admin.text("CLIENT UNPAUSE")?, "OK");
    assert_eq!(client.read_raw(5)?, b"+OK\r\n");
    assert_eq!(
        admin.text("CLIENT PAUSE -1")?,
        "(error) ERR timeout is negative"
    );
    Ok(())
}

#[test]
fn replies_can_be_switched_off() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    client.send_raw(b"CLIENT REPLY OFF\r\nSET k v\r\nGET k\r\nCLIENT REPLY ON\r\nGET k\r\n")?;
    assert_eq!(client.read_raw(12)?, b"+OK\r\n$1\r\nv\r\n");
    client.send_raw(b"CLIENT REPLY SKIP\r\nSET k w\r\nGET k\r\n")?;
    assert_eq!(client.read_raw(7)?, b"$1\r\nw\r\n");
    Ok(())
}

#[test]
fn a_waiting_client_can_be_unblocked() -> Result<()> {
    let server = server(&[])?;
    let (mut admin, mut client) = (server.client()?, server.client()?);
    let id = client.text("CLIENT ID")?;
    for (how, answer) in [
        ("TIMEOUT", ":0\r\n"),
        (
            "ERROR",
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
        ),
    ] {
        client.send_raw(b"WAIT 1 0\r\n")?;
        admin.until("INFO clients", |info| info.contains("blocked_clients:1"))?;
        assert_eq!(admin.text(&format!("CLIENT UNBLOCK {id} {how}"))?, "1");
        assert_eq!(client.read_raw(answer.len())?, answer.as_bytes());
    }
    assert_eq!(admin.text(&format!("CLIENT UNBLOCK {id}"))?, "0");
    Ok(())
}

#[test]
fn too_many_clients_are_told_so() -> Result<()> {
    let server = server(&[])?;
    let mut first = server.client()?;
    let _others = [server.client()?, server.client()?];
    first.until("INFO clients", |info| info.contains("connected_clients:3"))?;
    assert_eq!(first.text("CONFIG SET maxclients 3")?, "OK");
    let answer = server.client()?.read_to_end()?;
    assert_eq!(answer, b"-ERR max number of clients reached\r\n");
    assert_eq!(first.text("CONFIG SET maxclients 10")?, "OK");
    first.until("PING", |_| {
        server
            .client()
            .and_then(|mut c| c.text("PING"))
            .is_ok_and(|t| t == "PONG")
    })?;
    Ok(())
}

/// Whoever hangs up while the server makes them wait is forgotten, as by Redis; what they send meanwhile is kept.
#[test]
fn a_client_that_leaves_while_it_waits_is_forgotten() -> Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        let server = Server::start(program, &[])?;
        let mut watcher = server.client()?;
        let mut waiting = server.client()?;
        waiting.send_raw(b"WAIT 1 0\r\n")?;
        watcher.until("INFO clients", |text| text.contains("blocked_clients:1"))?;
        waiting.send_raw(b"SET k v\r\n")?;
        drop(waiting);
        watcher.until("INFO clients", |text| text.contains("blocked_clients:0"))?;
        watcher.until("CLIENT LIST", |list| list.lines().count() == 1)?;

        assert_eq!(watcher.text("CLIENT PAUSE 100000 WRITE")?, "OK");
        let mut paused = server.client()?;
        paused.send_raw(b"SET k v\r\n")?;
        watcher.until("CLIENT LIST", |list| list.lines().count() == 2)?;
        drop(paused);
        watcher.until("CLIENT LIST", |list| list.lines().count() == 1)?;
    }
    Ok(())
}

#[test]
fn what_a_client_sends_while_it_waits_is_answered_afterwards() -> Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        let server = Server::start(program, &[])?;
        let mut watcher = server.client()?;
        let mut waiting = server.client()?;
        waiting.send_raw(b"PING\r\nWAIT 1 0\r\nECHO a\r\nECH")?;
        assert_eq!(waiting.read_raw(7)?, b"+PONG\r\n");
        watcher.until("INFO clients", |text| text.contains("blocked_clients:1"))?;
        waiting.send_raw(b"O b\r\n")?;
        assert!(waiting.is_silent_for(Duration::from_millis(100))?);
        let list = watcher.text("CLIENT LIST")?;
        let line = list.lines().find(|line| line.contains("cmd=wait"));
        let id = line.and_then(|line| line.strip_prefix("id=")?.split(' ').next());
        let id = id.unwrap_or_default();
        assert_eq!(
            watcher.text(&format!("CLIENT UNBLOCK {id}"))?,
            "1",
            "{list}"
        );
        assert_eq!(waiting.read_raw(18)?, b":0\r\n$1\r\na\r\n$1\r\nb\r\n");
        // It can be closed from outside as before.
        assert_eq!(watcher.text(&format!("CLIENT KILL ID {id}"))?, "1");
        assert!(waiting.read_to_end()?.is_empty());
    }
    Ok(())
}

/// A client that asks to become a replica and is gone before it has read its earlier replies: with some number of them the
/// sockets are full when it asks.
#[test]
fn a_replica_that_never_came_to_be_is_forgotten() -> Result<()> {
    let server = server(&[])?;
    let mut watcher = server.client()?;
    let value = "v".repeat(256 << 10);
    watcher.call(&["SET", "large", &value])?;
    for earlier in 1..=40 {
        let mut replica = server.client()?;
        let gets = b"GET large\r\n".repeat(earlier);
        replica.send_raw(&[&gets[..], b"PSYNC ? -1\r\n"].concat())?;
        // What has come and was not read makes the end a reset.
        replica.read_raw(1)?;
        drop(replica);
    }
    watcher.until("CLIENT LIST", |list| list.lines().count() == 1)?;
    Ok(())
}

#[test]
fn every_keep_alive_that_is_accepted_lets_clients_in() -> Result<()> {
    let server = server(&[])?;
    let mut client = server.client()?;
    for seconds in ["0", "1", "2", "300", "40000", "2147483647"] {
        let set = format!("CONFIG SET tcp-keepalive {seconds}");
        assert_eq!(client.text(&set)?, "OK");
        let answer = server.client()?.text("PING");
        assert_eq!(answer.with_context(|| set)?, "PONG");
    }
    Ok(())
}

#[test]
fn strings_grow_to_proto_max_bulk_len_as_in_redis() -> Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        let server = Server::start(program, &["--proto-max-bulk-len", "1mb"])?;
        let mut client = server.client()?;
        assert_eq!(client.text("SETRANGE k 1048575 v")?, "1048576");
        for command in ["APPEND k v", "SETRANGE k 1048576 v"] {
            let reply = client.text(command)?;
            assert!(reply.contains("exceeds maximum allowed size"), "{reply}");
        }
        assert_eq!(client.text("CONFIG SET proto-max-bulk-len 2mb")?, "OK");
        assert_eq!(client.text("APPEND k v")?, "1048577");
    }
    Ok(())
}
