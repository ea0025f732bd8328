//! What hostile clients can do to a server of ours: get an error and lose their connection. Others are served
//! meanwhile, and memory stays within a bound that depends on the number of connections alone.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context;
use redfleet_tests::{
    client::{Client, encode},
    ports::free_port,
    servers::{Program, Server, eventually},
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Connections of one attack.
const CONNECTIONS: usize = 200;
/// What one connection that has not logged in may cost: ten arguments of 16 kB and their headers, doubled by the
/// growth of its buffer, and its replies.
const MAX_BYTES_BEFORE_LOGIN: u64 = 512 * 1024;
/// What one connection may cost that has announced much and sent little.
const MAX_BYTES_ANNOUNCED: u64 = 256 * 1024;
/// What the allocator and the threads may add.
const SLACK_BYTES: u64 = 48 * 1024 * 1024;

fn alive(server: &mut Server, password: &str) -> anyhow::Result<()> {
    assert!(server.is_running()?, "{}", server.log());
    let mut client = server.client()?;
    if !password.is_empty() {
        assert_eq!(client.text(&format!("AUTH {password}"))?, "OK");
    }
    assert_eq!(client.text("GET kept")?, "value");
    Ok(())
}

fn growth(server: &Server, before: u64) -> anyhow::Result<u64> {
    Ok(server.peak_memory_bytes()?.saturating_sub(before))
}

/// Each request, sent whole, ends in an error that begins so, and in the end of the connection.
const MALFORMED: [(&[u8], &str); 16] = [
    (
        b"*-2147483649\r\n*x\r\n",
        "-ERR Protocol error: invalid multibulk length",
    ),
    (
        b"*9223372036854775808\r\n",
        "-ERR Protocol error: invalid multibulk length",
    ),
    (
        b"*2147483648\r\n",
        "-ERR Protocol error: invalid multibulk length",
    ),
    (b"*1 \r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*+1\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length"),
    (
        b"*1\r\n$536870913\r\n",
        "-ERR Protocol error: invalid bulk length",
    ),
    (
        b"*1\r\n$9223372036854775807\r\n",
        "-ERR Protocol error: invalid bulk length",
    ),
    (
        b"*1\r\n$18446744073709551616\r\n",
        "-ERR Protocol error: invalid bulk length",
    ),
    (b"*1\r\n$\r\n", "-ERR Protocol error: invalid bulk length"),
    (
        b"*1\r\n:5\r\n",
        "-ERR Protocol error: expected '$', got ':'",
    ),
    (
        b"*1\r\n\0\0\0\r\n",
        "-ERR Protocol error: expected '$', got '\0'",
    ),
    (
        b"*2\r\n$4\r\nPING\r\n*1\r\n",
        "-ERR Protocol error: expected '$', got '*'",
    ),
    (
        b"set 'k\r\n",
        "-ERR Protocol error: unbalanced quotes in request",
    ),
    (
        b"set \"k\"x\r\n",
        "-ERR Protocol error: unbalanced quotes in request",
    ),
    (
        b"set \"\\x\r\n",
        "-ERR Protocol error: unbalanced quotes in request",
    ),
];

#[test]
fn malformed_requests_end_their_connection_and_nothing_else() -> anyhow::Result<()> {
    let mut server = Server::start(Program::Redfleet, &[])?;
    let mut other = server.client()?;
    assert_eq!(other.text("SET kept value")?, "OK");
    server.forget_peak_memory()?;
    let before = server.peak_memory_bytes()?;
    for round in 0..50 {
        for (request, error) in MALFORMED {
            let what = request.escape_ascii();
            let mut client = server.client()?;
            client.send_raw(request)?;
            let answer = client.read_to_end().with_context(|| format!("{what}"))?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(error), "{what}, round {round}: {answer}");
        }
        assert_eq!(other.text("GET kept")?, "value");
    }
    let grown = growth(&server, before)?;
    assert!(grown <= SLACK_BYTES, "{grown} bytes more");
    alive(&mut server, "")
}

/// A web page can make a browser send this: it must not run a command. Whatever reveals HTTP comes before the body.
#[test]
fn a_browser_cannot_be_made_to_run_commands() -> anyhow::Result<()> {
    let mut server = Server::start(Program::Redfleet, &[])?;
    server.client()?.text("SET kept value")?;
    for request in [
        "POST / HTTP/1.1\r\nContent-Length: 13\r\n\r\nSET pwned 1\r\n",
        "PUT / HTTP/1.1\r\nHost: 127.0.0.1:6379\r\nContent-Length: 13\r\n\r\nSET pwned 1\r\n",
        "PING\r\npost /\r\nSET pwned 1\r\n",
        "*1\r\n$4\r\nPOST\r\nSET pwned 1\r\n",
        "MULTI\r\nhost: x\r\nEXEC\r\nSET pwned 1\r\n",
    ] {
        let mut attacker = server.client()?;
        attacker.send_raw(request.as_bytes())?;
        // The close may be seen as a reset, because bytes were left unread.
        let _end = attacker.read_to_end();
        let pwned = server.client()?.text("EXISTS pwned")?;
        assert_eq!(pwned, "0", "{request:?}");
    }
    let warnings = server.log().matches("cross-protocol scripting").count();
    assert_eq!(warnings, 1, "one a minute: {}", server.log());
    alive(&mut server, "")
}

/// Random bytes, zeros, other protocols: an answer or none, never more than that.
#[test]
fn other_protocols_and_noise_are_survived() -> anyhow::Result<()> {
    let metrics = free_port()?;
    let mut server = Server::start(Program::Redfleet, &["--metrics-port", &metrics.to_string()])?;
    server.client()?.text("SET kept value")?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    };
    let mut inputs = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
        vec![0; 100_000],
        vec![b'\n'; 100_000],
        b"*0\r\n".repeat(20_000),
        b"*".repeat(100_000),
        b"*1\r\n$".repeat(50_000),
    ];
    inputs.extend((0..200).map(|i| noise(1 + i * 37)));
    for input in inputs {
        for port in [server.port, metrics] {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            // The server may close before it has read everything.
            let _sent = stream.write_all(&input);
            drop(stream);
        }
    }
    let mut probe = TcpStream::connect(("127.0.0.1", metrics))?;
    probe.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    probe.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    alive(&mut server, "")
}

#[test]
fn lengths_that_are_only_announced_take_no_memory() -> anyhow::Result<()> {
    let mut server = Server::start(Program::Redfleet, &[])?;
    server.client()?.text("SET kept value")?;
    server.forget_peak_memory()?;
    let before = server.peak_memory_bytes()?;
    let requests: [&[u8]; 3] = [
        b"*2147483647\r\n$536870912\r\nabc",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc",
        b"*2147483647\r\n$1\r\na\r\n",
    ];
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let mut client = server.client()?;
        client.send_raw(requests[number % requests.len()])?;
        open.push(client);
    }
    alive(&mut server, "")?;
    let grown = growth(&server, before)?;
    let bound = CONNECTIONS as u64 * MAX_BYTES_ANNOUNCED + SLACK_BYTES;
    assert!(grown <= bound, "{grown} bytes more");
    Ok(())
}

/// How a server says that it takes no more.
const REFUSALS: [ErrorKind; 4] = [
    ErrorKind::WouldBlock,
    ErrorKind::TimedOut,
    ErrorKind::ConnectionReset,
    ErrorKind::BrokenPipe,
];

fn send_as_much_as_possible(port: u16, piece: &[u8], most: usize) -> anyhow::Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    let block = piece.repeat(16 * 1024 / piece.len() + 1);
    let mut sent = 0;
    while sent < most {
        match stream.write(&block) {
            Ok(count) => sent += count,
            // It takes no more as long as its answers are not read, or has closed: both are good.
            Err(error) if REFUSALS.contains(&error.kind()) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stream)
}

#[test]
fn nobody_makes_the_server_hold_much_before_login() -> anyhow::Result<()> {
    let mut server = Server::start(Program::Redfleet, &["--requirepass", "secret"])?;
    let mut client = server.client()?;
    assert_eq!(client.text("AUTH secret")?, "OK");
    assert_eq!(client.text("SET kept value")?, "OK");
    server.forget_peak_memory()?;
    let before = server.peak_memory_bytes()?;
    let mut open = Vec::new();
    // Nine and a half of the ten arguments that are allowed.
    let mut request = b"*10\r\n".to_vec();
    for _ in 0..9 {
        request.extend_from_slice(b"$16384\r\n");
        request.extend_from_slice(&[b'x'; 16384]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"$16384\r\n");
    request.extend_from_slice(&[b'x'; 16000]);
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(server.port)?;
        client.send_raw(&request)?;
        open.push(client);
    }
    alive(&mut server, "secret")?;
    // A header, an inline request and answers nobody reads, without end.
    let mut streams = Vec::new();
    for piece in [&b"*1111"[..], b"$1111", b"x", b"GET k\r\n"] {
        for _ in 0..5 {
            streams.push(send_as_much_as_possible(
                server.port,
                piece,
                32 * 1024 * 1024,
            )?);
        }
    }
    streams.push(send_as_much_as_possible(
        server.port,
        &encode(&["PING"]),
        64 * 1024 * 1024,
    )?);
    alive(&mut server, "secret")?;
    let grown = growth(&server, before)?;
    let connections = (open.len() + streams.len()) as u64;
    let bound = connections * MAX_BYTES_BEFORE_LOGIN + SLACK_BYTES;
    assert!(
        grown <= bound,
        "{grown} bytes more with {connections} connections"
    );
    Ok(())
}

/// A client that asks and never reads its answers is not asked for more, and costs what one batch of answers costs.
#[test]
fn answers_that_nobody_reads_do_not_pile_up() -> anyhow::Result<()> {
    let mut server = Server::start(Program::Redfleet, &[])?;
    let mut client = server.client()?;
    client.text("SET kept value")?;
    client.call(&["SET", "big", &"x".repeat(100_000)])?;
    server.forget_peak_memory()?;
    let before = server.peak_memory_bytes()?;
    let mut streams = Vec::new();
    for _ in 0..10 {
        // 64 MB of requests ask for 700 GB of answers.
        streams.push(send_as_much_as_possible(
            server.port,
            b"GET big\r\n",
            64 * 1024 * 1024,
        )?);
    }
    alive(&mut server, "")?;
    let grown = growth(&server, before)?;
    assert!(
        grown <= 10 * 4 * 1024 * 1024 + SLACK_BYTES,
        "{grown} bytes more"
    );
    Ok(())
}

/// One that calls itself a replica, takes no data and says nonsense: it is closed at the limit for replicas, and the
/// stream that it did not take is given back.
#[test]
fn a_hostile_replica_is_closed_and_costs_no_memory() -> anyhow::Result<()> {
    let mut server = Server::start(
        Program::Redfleet,
        &["--client-output-buffer-limit", "replica 8mb 8mb 10"],
    )?;
    let mut client = server.client()?;
    client.text("SET kept value")?;
    for nonsense in [
        "PSYNC x -9223372036854775808",
        "PSYNC 0123456789abcdef0123456789abcdef01234567 9223372036854775807",
        "PSYNC ? 1",
    ] {
        let mut replica = server.client()?;
        replica.send_raw(encode(&nonsense.split(' ').collect::<Vec<_>>()).as_slice())?;
        let answer = replica.read_past_newlines(11)?;
        assert_eq!(answer, b"+FULLRESYNC", "{nonsense}");
        replica.send_raw(&encode(&["REPLCONF", "ACK", "-1"]))?;
        replica.send_raw(&encode(&["REPLCONF", "ACK", "99999999999999999999"]))?;
        replica.send_raw(b"*1\r\nx\r\n")?;
    }
    let mut replica = server.client()?;
    replica.send_raw(&encode(&["PSYNC", "?", "-1"]))?;
    assert_eq!(replica.read_past_newlines(11)?, b"+FULLRESYNC");
    server.forget_peak_memory()?;
    let before = server.peak_memory_bytes()?;
    let value = "x".repeat(100_000);
    for _ in 0..1000 {
        client.call(&["SET", "big", &value])?;
    }
    client.until("INFO replication", |info| {
        info.contains("connected_slaves:0")
    })?;
    let grown = growth(&server, before)?;
    assert!(
        grown <= 24 * 1024 * 1024 + SLACK_BYTES,
        "{grown} bytes more"
    );
    drop(replica);
    alive(&mut server, "")
}

/// One that says that it lives and takes nothing: without a hard limit it is closed when the soft one was exceeded for long
/// enough, and what waits for it is told meanwhile.
#[test]
fn a_replica_that_takes_nothing_is_closed_at_the_soft_limit() -> anyhow::Result<()> {
    let limits = ["--client-output-buffer-limit", "replica 0 16mb 2"];
    let server = Server::start(
        Program::Redfleet,
        &[&limits[..], &["--repl-backlog-size", "1mb"]].concat(),
    )?;
    let mut client = server.client()?;
    let mut replica = server.client()?;
    replica.send_raw(&encode(&["PSYNC", "?", "-1"]))?;
    assert_eq!(replica.read_past_newlines(11)?, b"+FULLRESYNC");
    client.until("INFO replication", |info| info.contains("state=online"))?;
    let value = "x".repeat(1 << 20);
    for _ in 0..64 {
        client.call(&["SET", "big", &value])?;
    }
    let listed = client.text("CLIENT LIST TYPE replica")?;
    let waiting = listed
        .split_once("omem=")
        .and_then(|(_, rest)| rest.split_once(' '))
        .map(|(omem, _)| omem.parse::<u64>());
    let waiting = waiting.context("no omem")??;
    assert!(waiting > 32 << 20, "{listed}");
    eventually("the replica to be closed", DEADLINE, || {
        // It says so until it is closed.
        let _closed = replica.send_raw(b"\n");
        let info = client.text("INFO replication")?;
        Ok(info.contains("connected_slaves:0").then_some(()))
    })
}
