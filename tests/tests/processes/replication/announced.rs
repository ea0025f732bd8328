//! `replica-announce-ip` and `replica-announce-port`: a replica behind a translated address is listed where it says
//! that it can be reached, whichever side is ours.

use std::time::Duration;

use anyhow::Context;
use redfleet_tests::{
    client::{Client, as_text},
    servers::{Program, Server, eventually},
};

/// Longest wait for a replica to come or go.
const DEADLINE: Duration = Duration::from_secs(30);
/// An address of loopback at which nobody listens.
const IP: &str = "127.0.0.9";
const PORT: &str = "7777";

/// Where the only replica is to be reached as `INFO` and `ROLE` of its master tell it; `None` unless it is online.
fn listed(master: &mut Client) -> anyhow::Result<Option<[(String, String); 2]>> {
    let line = master.info("replication", "slave0")?;
    let field = |name: &str| {
        let found = line.split(',').find_map(|part| part.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    let redis::Value::Array(role) = master.run("ROLE")? else {
        return Ok(None);
    };
    let Some(redis::Value::Array(replicas)) = role.get(2) else {
        return Ok(None);
    };
    let [redis::Value::Array(replica)] = &replicas[..] else {
        return Ok(None);
    };
    let in_role = (as_text(&replica[0]), as_text(&replica[1]));
    let in_info = (field("ip="), field("port="));
    Ok((field("state=") == "online").then_some([in_info, in_role]))
}

fn assert_listed(master: &mut Client, address: (&str, &str), what: &str) -> anyhow::Result<()> {
    let expected = (address.0.to_owned(), address.1.to_owned());
    let mut last = None;
    let waited = eventually("the replica to be listed", DEADLINE, || {
        last = listed(master)?;
        Ok((last == Some([expected.clone(), expected.clone()])).then_some(()))
    });
    waited.with_context(|| format!("{what}: expected {expected:?}, listed is {last:?}"))
}

/// The replica announces either, both, and after CONFIG SET another.
fn is_listed_as_announced(master: Program, replica: Program) -> anyhow::Result<()> {
    let what = format!("{master:?} < {replica:?}");
    let master = Server::start(master, &[])?;
    let mut client = master.client()?;
    for (ip, port) in [
        (Some(IP), Some(PORT)),
        (Some(IP), None),
        (None, Some(PORT)),
        (None, None),
    ] {
        let mut options = Vec::new();
        options.extend(ip.iter().flat_map(|ip| ["--replica-announce-ip", *ip]));
        options.extend(
            port.iter()
                .flat_map(|port| ["--replica-announce-port", *port]),
        );
        let replica = Server::replica_of(replica, &master, &options)?;
        let own = replica.port.to_string();
        let expected = (ip.unwrap_or("127.0.0.1"), port.unwrap_or(&own));
        assert_listed(&mut client, expected, &what)?;
        let mut its = replica.client()?;
        assert_eq!(its.text("CONFIG SET replica-announce-ip 127.0.0.8")?, "OK");
        assert_eq!(its.text("CONFIG SET replica-announce-port 8888")?, "OK");
        assert_eq!(client.text("CLIENT KILL TYPE replica")?, "1", "{what}");
        assert_listed(&mut client, ("127.0.0.8", "8888"), &what)?;
        drop(replica);
        eventually("the replica to be gone", DEADLINE, || {
            Ok((client.info("replication", "connected_slaves")? == "0").then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn our_replica_is_listed_as_announced_by_redis() -> anyhow::Result<()> {
    is_listed_as_announced(Program::Redis, Program::Redfleet)
}

#[test]
fn our_replica_is_listed_as_announced_by_valkey() -> anyhow::Result<()> {
    is_listed_as_announced(Program::Valkey, Program::Redfleet)
}

#[test]
fn our_replica_is_listed_as_announced_by_ours() -> anyhow::Result<()> {
    is_listed_as_announced(Program::Redfleet, Program::Redfleet)
}

#[test]
fn a_redis_replica_is_listed_as_announced_by_ours() -> anyhow::Result<()> {
    is_listed_as_announced(Program::Redfleet, Program::Redis)
}

#[test]
fn a_valkey_replica_is_listed_as_announced_by_ours() -> anyhow::Result<()> {
    is_listed_as_announced(Program::Redfleet, Program::Valkey)
}

/// What `redis-cli --functions-rdb` asks for.
#[test]
fn whoever_wants_functions_only_gets_a_snapshot_without_keys() -> anyhow::Result<()> {
    let server = Server::start(Program::Redfleet, &[])?;
    let mut client = server.client()?;
    client.run("SET secret-key v")?;
    let mut reader = server.client()?;
    assert_eq!(
        reader.text("REPLCONF rdb-filter-only keys")?,
        "(error) ERR Unsupported rdb-filter-only option"
    );
    assert_eq!(reader.text("REPLCONF rdb-only 1")?, "OK");
    assert_eq!(reader.text("REPLCONF rdb-filter-only functions")?, "OK");
    reader.send_raw(b"SYNC\r\n")?;
    let snapshot = reader.read_to_end()?;
    let text = snapshot.escape_ascii().to_string();
    assert!(
        text.starts_with("$") && text.contains("REDIS0010"),
        "{text}"
    );
    assert!(!text.contains("secret-key"), "{text}");
    Ok(())
}
