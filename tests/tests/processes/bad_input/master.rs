//! What a hostile or broken master can do to a replica of ours: nothing but be useless. Whatever it says at whatever
//! stage, the data that are there stay and are served, memory stays bounded, the log says what is wrong, and the
//! replica tries again with growing pauses.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Context;
use redfleet_tests::{
    client::{Client, encode},
    fake_master::{FakeMaster, ID, Peer, snapshot},
    servers::{Program, Server, eventually},
};

/// Longest wait for one thing to happen.
const DEADLINE: Duration = Duration::from_secs(30);
/// What a replica may need beyond what it holds, whatever its master says: buffers of the link, the value that is being
/// received, pages that the allocator keeps.
const MAX_GROWTH_BYTES: u64 = 48 * 1024 * 1024;
/// More than any buffer of the link may take.
const FLOOD_BYTES: usize = 256 * 1024 * 1024;
/// Keys that the replica holds before it meets the master.
const KEYS: usize = 1000;

type Play = fn(&mut Peer) -> io::Result<()>;
/// What the master does, what the replica says about it, and how.
type Case = (&'static str, &'static str, Play);

/// A server with data, which it must keep.
struct Victim {
    server: Server,
    client: Client,
}

impl Victim {
    fn start() -> anyhow::Result<Self> {
        let good = Server::start(Program::Redfleet, &[])?;
        let mut client = good.client()?;
        for number in 0..KEYS {
            client.text(&format!("SET key:{number} value:{number}"))?;
        }
        let server = Server::replica_of(Program::Redfleet, &good, &["--repl-timeout", "5"])?;
        // Replicas acknowledge what they have applied: from here on it holds a history that it can ask to continue.
        eventually("the replica", DEADLINE, || {
            Ok((client.text("WAIT 1 1000")? == "1").then_some(()))
        })?;
        let client = server.client()?;
        Ok(Self { server, client })
    }

    /// Follows the master until the log has `complaint`.
    fn meets(&mut self, name: &str, complaint: &str, play: Play) -> anyhow::Result<()> {
        self.server.forget_peak_memory()?;
        let before = self.server.peak_memory_bytes()?;
        let logged = self.server.log().len();
        let master = FakeMaster::start(play)?;
        let about = format!("port={} ", master.port);
        let follow = format!("REPLICAOF 127.0.0.1 {}", master.port);
        assert_eq!(self.client.text(&follow)?, "OK", "{name}");
        let seen = eventually(complaint, DEADLINE, || {
            let log = self.server.log();
            // Not what it still has to say about the master before.
            let told = |line: &str| line.contains(&about) && line.contains(complaint);
            Ok(log[logged..].lines().any(told).then_some(()))
        });
        seen.with_context(|| format!("{name}; log:\n{}", &self.server.log()[logged..]))?;
        self.keeps_everything(name)?;
        let grown = self.server.peak_memory_bytes()?.saturating_sub(before);
        assert!(grown <= MAX_GROWTH_BYTES, "{name}: {grown} bytes more");
        Ok(())
    }

    fn keeps_everything(&mut self, name: &str) -> anyhow::Result<()> {
        let client = &mut self.client;
        assert_eq!(client.text("DBSIZE")?, KEYS.to_string(), "{name}");
        assert_eq!(client.text("GET key:7")?, "value:7", "{name}");
        assert_eq!(client.info("replication", "role")?, "slave", "{name}");
        Ok(())
    }

    /// It is as good as before: a master when told so, that takes writes.
    fn recovers(&mut self) -> anyhow::Result<()> {
        assert_eq!(self.client.text("REPLICAOF NO ONE")?, "OK");
        assert_eq!(self.client.text("SET own 1")?, "OK");
        assert_eq!(self.client.text("DBSIZE")?, (KEYS + 1).to_string());
        Ok(())
    }
}

fn meet_all(cases: &[Case]) -> anyhow::Result<()> {
    let mut victim = Victim::start()?;
    for (name, complaint, play) in cases {
        victim.meets(name, complaint, *play)?;
    }
    victim.recovers()
}

const IN_THE_HANDSHAKE: &[Case] = &[
    ("closes at once", "waiting for the master's answer", |_| {
        Ok(())
    }),
    (
        "speaks HTTP",
        "unexpected answer to PING: HTTP/1.1 400 Bad Request",
        |peer| {
            peer.request()?;
            peer.send("HTTP/1.1 400 Bad Request\r\n\r\n")
        },
    ),
    ("sends a line without end", "a line without end", |peer| {
        peer.flood(b"x", FLOOD_BYTES)
    }),
    ("sends zeros without end", "a line without end", |peer| {
        peer.flood(b"\0", FLOOD_BYTES)
    }),
    (
        "answers PING with an error",
        "the master is not ready: -ERR go away",
        |peer| {
            peer.request()?;
            peer.send("-ERR go away\r\n")
        },
    ),
    (
        "answers REPLCONF with a bulk",
        "unexpected answer to REPLCONF: $3",
        |peer| {
            peer.until("REPLCONF")?;
            peer.send("$3\r\nfoo\r\n")?;
            peer.hold()
        },
    ),
    (
        "answers PSYNC with a number",
        "unexpected answer to PSYNC: :1",
        |peer| {
            peer.until("PSYNC")?;
            peer.send(":1\r\n")
        },
    ),
    (
        "gives a history without a name",
        "unexpected answer to PSYNC: +FULLRESYNC",
        |peer| {
            peer.until("PSYNC")?;
            peer.send("+FULLRESYNC\r\n")
        },
    ),
    (
        "gives a negative offset",
        "unexpected answer to PSYNC: +FULLRESYNC",
        |peer| {
            peer.until("PSYNC")?;
            peer.send(format!("+FULLRESYNC {ID} -1000\r\n"))
        },
    ),
    (
        "continues a history with half a name",
        "unexpected answer to PSYNC: +CONTINUE 0123",
        |peer| {
            peer.until("PSYNC")?;
            peer.send("+CONTINUE 0123\r\n")
        },
    ),
];

#[test]
fn rubbish_in_the_handshake_costs_nothing() -> anyhow::Result<()> {
    meet_all(IN_THE_HANDSHAKE)
}

const IN_THE_TRANSFER: &[Case] = &[
    (
        "aborts",
        "the master aborted the synchronization: -ERR no",
        |peer| {
            peer.announce_full_sync()?;
            peer.send("-ERR no disk\r\n")
        },
    ),
    (
        "gives no length",
        "expected the length of a snapshot",
        |peer| {
            peer.announce_full_sync()?;
            peer.send("$what\r\n")
        },
    ),
    (
        "gives a negative length",
        "expected the length of a snapshot",
        |peer| {
            peer.announce_full_sync()?;
            peer.send("$-1\r\n")
        },
    ),
    (
        "gives a length beyond numbers",
        "expected the length of a snapshot",
        |peer| {
            peer.announce_full_sync()?;
            peer.send("$99999999999999999999999\r\n")
        },
    ),
    ("sends no snapshot", "not an RDB file", |peer| {
        peer.announce_full_sync()?;
        peer.send("$9223372036854775807\r\n")?;
        peer.flood(b"rubbish!", FLOOD_BYTES)
    }),
    (
        "announces what it does not send",
        "the snapshot ends in the middle",
        |peer| {
            peer.announce_full_sync()?;
            // A string of 2 GiB, of which one byte comes.
            peer.send("$4000000000\r\nREDIS0010\0\x03key")?;
            peer.send(b"\x80\x7f\xff\xff\xffx")
        },
    ),
    (
        "announces a compressed giant",
        "invalid LZF compressed string",
        |peer| {
            peer.announce_full_sync()?;
            // 5 bytes that say they are 2 GiB.
            let packed = b"\0\x03key\xc3\x05\x80\x7f\xff\xff\xff\0x\0x\0";
            let snapshot = snapshot(packed);
            peer.send(format!("${}\r\n", snapshot.len()))?;
            peer.send(snapshot)
        },
    ),
    (
        "announces a collection of many",
        "the snapshot ends in the middle",
        |peer| {
            peer.announce_full_sync()?;
            // A set of 2^60 members, of which two come.
            peer.send("$4000000000\r\nREDIS0010\x02\x03key")?;
            peer.send(b"\x81\x10\0\0\0\0\0\0\0\x01a\x01b")
        },
    ),
    (
        "stops in the middle",
        "the snapshot ends in the middle",
        |peer| {
            let snapshot = snapshot(b"\0\x03key\x05value\0\x03kex\x05value");
            peer.announce_full_sync()?;
            peer.send(format!("${}\r\n", snapshot.len()))?;
            peer.send(&snapshot[..snapshot.len() - 12])
        },
    ),
    (
        "sends a shorter snapshot than announced",
        "does not end where the master said",
        |peer| {
            let snapshot = snapshot(b"\0\x03key\x05value");
            peer.announce_full_sync()?;
            peer.send(format!("${}\r\n", snapshot.len() + 100))?;
            peer.send(snapshot)?;
            peer.send([0; 100])
        },
    ),
    (
        "ends with another mark",
        "does not end where the master said",
        |peer| {
            peer.announce_full_sync()?;
            peer.send(format!("$EOF:{ID}\r\n"))?;
            peer.send(snapshot(b"\0\x03key\x05value"))?;
            peer.send("x".repeat(40))
        },
    ),
    ("has a wrong checksum", "wrong checksum", |peer| {
        let mut snapshot = snapshot(b"\0\x03key\x05value");
        let end = snapshot.len();
        snapshot[end - 8..].fill(1);
        peer.announce_full_sync()?;
        peer.send(format!("${}\r\n", snapshot.len()))?;
        peer.send(snapshot)
    }),
    (
        "has a value of an unknown type",
        "key 'orders' in database 0 holds a stream (RDB type 21)",
        |peer| {
            let snapshot = snapshot(b"\0\x03key\x05value\x15\x06orders\x00\x00\x00");
            peer.announce_full_sync()?;
            peer.send(format!("${}\r\n", snapshot.len()))?;
            peer.send(snapshot)
        },
    ),
    (
        "goes on in a database that is not here",
        "it uses database 20, but 'databases' allows 16; raise 'databases'",
        |peer| {
            let snapshot = snapshot(b"\xfa\x0erepl-stream-db\x0220\0\x03key\x05value");
            peer.announce_full_sync()?;
            peer.send(format!("${}\r\n", snapshot.len()))?;
            peer.send(snapshot)?;
            peer.send(encode(&["SET", "k", "v"]))?;
            peer.hold()
        },
    ),
    (
        "is from the future",
        "cannot load RDB version REDIS0099",
        |peer| {
            peer.announce_full_sync()?;
            peer.send("$100000\r\nREDIS0099")?;
            peer.hold()
        },
    ),
];

#[test]
fn rubbish_in_the_transfer_leaves_the_old_data() -> anyhow::Result<()> {
    meet_all(IN_THE_TRANSFER)
}

const IN_THE_STREAM: &[Case] = &[
    (
        "speaks no protocol",
        "the master's stream: Protocol error",
        |peer| {
            peer.let_continue()?;
            peer.send("*1\r\nxPING\r\n")?;
            peer.hold()
        },
    ),
    (
        "sends a line without end",
        "the master's stream: Protocol error: too big inline",
        |peer| {
            peer.let_continue()?;
            peer.flood(b"x", FLOOD_BYTES)
        },
    ),
    (
        "announces a giant and leaves",
        "following the master",
        |peer| {
            peer.let_continue()?;
            peer.send("*2147483647\r\n$536870912\r\nabc")
        },
    ),
    (
        "announces more than there is",
        "the master's stream: Protocol error: invalid bulk",
        |peer| {
            peer.let_continue()?;
            peer.send("*2\r\n$3\r\nGET\r\n$4294967296\r\n")?;
            peer.hold()
        },
    ),
    ("never ends a transaction", "following the master", |peer| {
        peer.let_continue()?;
        peer.send(encode(&["MULTI"]))?;
        peer.send(encode(&["FLUSHALL"]).repeat(10_000))
    }),
    (
        "sends unknown commands",
        // Escaped and cut.
        "NNNNNNNN cannot be applied here: ERR unknown command",
        |peer| {
            peer.let_continue()?;
            let words = [vec![b'N'; 5000], b"\r\n\x1b[31m".to_vec()];
            peer.flood(&encode(&words), 64 * 1024 * 1024)
        },
    ),
    (
        "sends half a command",
        "GET cannot be applied here: ERR wrong number of arguments",
        |peer| {
            peer.let_continue()?;
            peer.flood(&encode(&["GET"]), 4 * 1024 * 1024)
        },
    ),
];

#[test]
fn rubbish_in_the_stream_changes_no_data() -> anyhow::Result<()> {
    // After such a stream a replica asks for a full copy only: each case meets one of its own.
    IN_THE_STREAM
        .iter()
        .try_for_each(|case| meet_all(std::slice::from_ref(case)))
}

/// Plays a master that sends one command, and waits for what comes of it.
fn administer(peer: &mut Peer, command: &str) -> io::Result<()> {
    peer.let_continue()?;
    peer.send(encode(&command.split(' ').collect::<Vec<_>>()))?;
    peer.hold()
}

const NOT_A_MASTERS: &str = "cannot be applied here: NOPERM a master";
const ADMINISTERING: &[Case] = &[
    ("ends it", NOT_A_MASTERS, |peer| {
        administer(peer, "SHUTDOWN NOSAVE")
    }),
    ("moves it", NOT_A_MASTERS, |peer| {
        administer(peer, "CONFIG SET dir /")
    }),
    ("locks it", NOT_A_MASTERS, |peer| {
        administer(peer, "CONFIG SET requirepass x")
    }),
    ("promotes it", NOT_A_MASTERS, |peer| {
        administer(peer, "REPLICAOF NO ONE")
    }),
    ("kills clients", NOT_A_MASTERS, |peer| {
        administer(peer, "CLIENT KILL TYPE normal")
    }),
    ("pauses clients", NOT_A_MASTERS, |peer| {
        administer(peer, "CLIENT PAUSE 1000000")
    }),
    ("lets it sleep", NOT_A_MASTERS, |peer| {
        administer(peer, "DEBUG SLEEP 1000")
    }),
];

#[test]
fn a_master_cannot_administer_its_replica() -> anyhow::Result<()> {
    ADMINISTERING
        .iter()
        .try_for_each(|case| meet_all(std::slice::from_ref(case)))
}

/// Numbers at the ends of their ranges, all of them valid: an offset that the stream carries on, deadlines, scores.
#[test]
fn extreme_numbers_of_a_master_are_borne() -> anyhow::Result<()> {
    let server = Server::start(Program::Redfleet, &["--repl-timeout", "5"])?;
    let mut client = server.client()?;
    let master = FakeMaster::start(|peer| {
        peer.until("PSYNC")?;
        peer.send(format!("+FULLRESYNC {ID} {}\r\n", i64::MAX))?;
        let deadline = |key: &[u8], at: i64| {
            let head = [&b"\xfc"[..], &at.to_le_bytes(), b"\0\x04", key];
            [&head.concat()[..], b"\x01v"].concat()
        };
        let sections = [
            deadline(b"past", i64::MIN),
            deadline(b"next", i64::MAX),
            [&b"\xfd"[..], &i32::MIN.to_le_bytes(), b"\0\x03old\x01v"].concat(),
            [&b"\x05\x01z\x01\x01m"[..], &f64::MAX.to_le_bytes()].concat(),
        ];
        let snapshot = snapshot(&sections.concat());
        peer.send(format!("${}\r\n", snapshot.len()))?;
        peer.send(snapshot)?;
        peer.send(encode(&["SET", "k", "v"]))?;
        peer.hold()
    })?;
    client.text(&format!("REPLICAOF 127.0.0.1 {}", master.port))?;
    eventually("the stream's command", DEADLINE, || {
        Ok((client.text("GET k")? == "v").then_some(()))
    })?;
    for command in [
        "TTL past",
        "PTTL past",
        "TTL next",
        "PTTL next",
        "EXPIRETIME next",
        "PEXPIRETIME next",
        "ZSCORE z m",
        "INFO",
        "ROLE",
        "SCAN 0",
        "RANDOMKEY",
        "OBJECT IDLETIME next",
        "DBSIZE",
        "TTL old",
        "CLIENT LIST",
    ] {
        let reply = client.text(command)?;
        assert!(!reply.starts_with("(error)"), "{command}: {reply}");
    }
    client.text("REPLICAOF NO ONE")?;
    assert_eq!(client.text("SET own 1")?, "OK");
    assert_eq!(client.text("SAVE")?, "OK");
    assert_eq!(client.text("PTTL past")?, "-2", "it expires here now");
    Ok(())
}

#[test]
fn attempts_that_fail_come_with_growing_pauses() -> anyhow::Result<()> {
    let refused = FakeMaster::start(|peer| {
        peer.until("AUTH")?;
        peer.send("-WRONGPASS invalid username-password pair or user is disabled.\r\n")
    })?;
    let mut victim = Victim::start()?;
    victim.client.text("CONFIG SET masterauth wrong")?;
    victim
        .client
        .text(&format!("REPLICAOF 127.0.0.1 {}", refused.port))?;
    let attempts = eventually("seven attempts", DEADLINE, || {
        let attempts = refused.attempts();
        Ok((attempts.len() >= 7).then_some(attempts))
    })?;
    let pauses: Vec<Duration> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[4] >= Duration::from_millis(700), "{pauses:?}");
    assert!(pauses[5] >= Duration::from_millis(900), "{pauses:?}");
    assert!(
        victim
            .server
            .log()
            .contains("the master refused our authentication: -WRONGPASS"),
        "{}",
        victim.server.log()
    );
    victim.keeps_everything("wrong masterauth")?;
    let status = victim.client.info("replication", "master_link_status")?;
    assert_eq!(status, "down");
    // The right one is used without a restart.
    let right = Server::start(Program::Redis, &["--requirepass", "right"])?;
    victim.client.text("CONFIG SET masterauth right")?;
    victim
        .client
        .text(&format!("REPLICAOF 127.0.0.1 {}", right.port))?;
    eventually("the link", DEADLINE, || {
        let status = victim.client.info("replication", "master_link_status")?;
        Ok((status == "up").then_some(()))
    })
}

/// A snapshot that cannot be loaded is as bad the next time: the master is not asked for it again at once.
#[test]
fn a_master_is_not_asked_again_and_again_for_a_snapshot_that_is_broken() -> anyhow::Result<()> {
    let master = FakeMaster::start(|peer| {
        peer.announce_full_sync()?;
        peer.send("$1000\r\nno snapshot at all, but rubbish")?;
        peer.hold()
    })?;
    let victim = Victim::start()?;
    let started = Instant::now();
    let follow = format!("REPLICAOF 127.0.0.1 {}", master.port);
    victim.server.client()?.text(&follow)?;
    let attempts = eventually("the second attempt", DEADLINE, || {
        let attempts = master.attempts();
        Ok((attempts.len() >= 2).then_some(attempts))
    })?;
    let pause = attempts[1] - attempts[0];
    assert!(
        pause >= Duration::from_secs(9),
        "{pause:?}, {:?}",
        started.elapsed()
    );
    Ok(())
}
