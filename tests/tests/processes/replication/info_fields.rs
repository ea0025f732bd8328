//! The names of `INFO replication`, which monitors and clients look for: in every situation ours has those of Redis 7.0.

use std::{collections::BTreeSet, io};

use redfleet_tests::{
    client::{Client, as_text},
    fake_master::{FakeMaster, Peer},
    ports::free_port,
    servers::{Program, Server, eventually},
};
use redis::Value;

use super::links::{SYNC_DEADLINE, caught_up};

/// Fields that Redis has not: the number of replicas by its newer name, and why there is no link.
const OURS: [&str; 2] = ["connected_replicas", "master_link_error"];
/// What ends in more fields when replicas are wanted.
const WANTS_REPLICAS: [&str; 2] = ["--min-replicas-to-write", "1"];

/// The names of all fields; the parts of a replica's line have names of their own (`slave0.ip`).
fn names(client: &mut Client) -> anyhow::Result<BTreeSet<String>> {
    let info = client.text("INFO replication")?;
    let fields = info.lines().filter_map(|line| line.split_once(':'));
    let mut names = BTreeSet::new();
    for (name, value) in fields {
        names.insert(name.to_owned());
        let parts = value.split(',').filter_map(|part| part.split_once('='));
        names.extend(parts.map(|(part, _)| format!("{name}.{part}")));
    }
    Ok(names)
}

/// The names as soon as `INFO replication` shows all of `signs`.
fn names_when(server: &Server, signs: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let mut client = server.client()?;
    eventually(&format!("{signs:?}"), SYNC_DEADLINE, || {
        let info = client.text("INFO replication")?;
        let is_so = signs.iter().all(|sign| info.contains(sign));
        is_so.then(|| names(&mut client)).transpose()
    })
}

/// Brings a server of each kind into a situation; no name of Redis may be missing on ours.
fn assert_none_missing(
    situation: impl Fn(Program) -> anyhow::Result<BTreeSet<String>>,
) -> anyhow::Result<()> {
    let (redis, ours) = (situation(Program::Redis)?, situation(Program::Redfleet)?);
    let missing: Vec<_> = redis.difference(&ours).collect();
    assert!(missing.is_empty(), "not in ours: {missing:?}");
    let mut more = ours.difference(&redis);
    assert!(
        more.all(|name| OURS.contains(&name.as_str())),
        "Redis: {redis:?}\nours: {ours:?}"
    );
    Ok(())
}

#[test]
fn a_master_without_replicas_has_the_fields_of_redis() -> anyhow::Result<()> {
    for options in [&[][..], &WANTS_REPLICAS] {
        assert_none_missing(|program| names(&mut Server::start(program, options)?.client()?))?;
    }
    Ok(())
}

#[test]
fn a_master_with_a_replica_has_the_fields_of_redis() -> anyhow::Result<()> {
    assert_none_missing(|program| {
        let master = Server::start(program, &WANTS_REPLICAS)?;
        let _replica = Server::replica_of(Program::Redis, &master, &[])?;
        let names = names_when(&master, &["state=online"])?;
        assert!(names.contains("slave0.lag"), "{names:?}");
        Ok(names)
    })
}

#[test]
fn a_replica_has_the_fields_of_redis_while_its_link_is_up_and_down() -> anyhow::Result<()> {
    let mut master = Server::start(Program::Redis, &[])?;
    let redis = Server::replica_of(Program::Redis, &master, &[])?;
    let ours = Server::replica_of(Program::Redfleet, &master, &[])?;
    let of = |program| {
        if program == Program::Redis {
            &redis
        } else {
            &ours
        }
    };
    for replica in [&redis, &ours] {
        caught_up(&master, replica)?;
    }
    assert_none_missing(|program| names_when(of(program), &["master_link_status:up"]))?;
    master.kill()?;
    assert_none_missing(|program| names_when(of(program), &["master_link_status:down"]))
}

#[test]
fn a_replica_that_never_met_its_master_has_the_fields_of_redis() -> anyhow::Result<()> {
    let nobody = free_port()?.to_string();
    assert_none_missing(|program| {
        let replica = Server::start(program, &["--replicaof", "127.0.0.1", &nobody])?;
        names_when(&replica, &["master_link_status:down"])
    })
}

/// A master that gets stuck in the middle of a full synchronization keeps the replica there.
fn stuck(play: fn(&mut Peer) -> io::Result<()>) -> anyhow::Result<()> {
    assert_none_missing(|program| {
        let master = FakeMaster::start(play)?;
        let port = master.port.to_string();
        let replica = Server::start(program, &["--replicaof", "127.0.0.1", &port])?;
        let names = names_when(&replica, &["master_sync_in_progress:1"])?;
        assert!(names.contains("master_sync_perc"), "{names:?}");
        let role = replica.client()?.run("ROLE")?;
        assert!(
            matches!(&role, Value::Array(role) if as_text(&role[3]) == "sync"),
            "{role:?}"
        );
        Ok(names)
    })
}

#[test]
fn a_replica_that_waits_for_its_snapshot_has_the_fields_of_redis() -> anyhow::Result<()> {
    stuck(|peer| {
        peer.announce_full_sync()?;
        peer.hold()
    })
}

/// A full copy that arrives beside data which are served.
#[test]
fn a_replica_that_loads_a_copy_beside_its_data_says_so() -> anyhow::Result<()> {
    let master = FakeMaster::start(|peer| {
        peer.announce_full_sync()?;
        peer.send("$1000\r\nREDIS0010")?;
        peer.hold()
    })?;
    let replica = Server::start(Program::Redfleet, &[])?;
    let mut client = replica.client()?;
    assert_eq!(client.info("persistence", "async_loading")?, "0");
    let follow = format!("REPLICAOF 127.0.0.1 {}", master.port);
    assert_eq!(client.text(&follow)?, "OK");
    client.until("INFO persistence", |text| {
        text.contains("async_loading:1") && text.contains("\nloading:0")
    })?;
    assert_eq!(client.text("REPLICAOF NO ONE")?, "OK");
    assert_eq!(client.info("persistence", "async_loading")?, "0");
    Ok(())
}

#[test]
fn a_replica_that_receives_its_snapshot_has_the_fields_of_redis() -> anyhow::Result<()> {
    stuck(|peer| {
        peer.announce_full_sync()?;
        peer.send("$1000\r\nREDIS0010")?;
        peer.hold()
    })
}
