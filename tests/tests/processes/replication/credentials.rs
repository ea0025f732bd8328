//! `masteruser` and `masterauth`: our replica logs in as a user that a real master has for replication alone.

use redfleet_tests::{
    client::Client,
    servers::{Program, Server, eventually},
};

use super::links::{SYNC_DEADLINE, equal_offsets};

/// A user and a password that the master refuses together, and why it would not do to confuse them.
const REFUSED: [(&str, &str, &str); 3] = [
    ("of-replicas", "wrong", "the password is wrong"),
    ("nobody", "secret", "there is no such user"),
    ("", "secret", "the default user has another password"),
];

fn set_login(replica: &mut Client, user: &str, password: &str) -> anyhow::Result<()> {
    for (name, value) in [("masteruser", user), ("masterauth", password)] {
        replica.call(&["CONFIG", "SET", name, value])?;
    }
    Ok(())
}

fn count(master: &mut Client, name: &str) -> anyhow::Result<u64> {
    Ok(master.info("stats", name)?.parse()?)
}

fn our_replica_logs_in_as_its_own_user(program: Program) -> anyhow::Result<()> {
    let master = Server::start(program, &["--requirepass", "of-clients"])?;
    let mut m = master.client()?;
    assert_eq!(m.text("AUTH of-clients")?, "OK");
    let user = "ACL SETUSER of-replicas on >secret +psync +replconf +ping";
    assert_eq!(m.text(user)?, "OK");
    m.text("SET before 1")?;
    let login = ["--masteruser", "of-replicas", "--masterauth", "secret"];
    let replica = Server::replica_of(Program::Redfleet, &master, &login)?;
    let mut r = replica.client()?;
    equal_offsets(&mut m, &mut r)?;
    let links = m.text("CLIENT LIST TYPE replica")?;
    assert!(links.contains("user=of-replicas"), "{links}");
    for (round, (user, password, why)) in REFUSED.into_iter().enumerate() {
        set_login(&mut r, user, password)?;
        assert_eq!(m.text("CLIENT KILL TYPE replica")?, "1");
        eventually("the login to be refused", SYNC_DEADLINE, || {
            let said = r.info("replication", "master_link_error")?;
            Ok(said.contains("WRONGPASS").then_some(()))
        })?;
        let status = r.info("replication", "master_link_status")?;
        assert_eq!(status, "down", "{why}");
        assert_eq!(m.text(&format!("SET while-down {round}"))?, "OK");
        assert_eq!(r.text("GET before")?, "1", "{why}: the data are kept");
        set_login(&mut r, "of-replicas", "secret")?;
        equal_offsets(&mut m, &mut r)?;
        assert_eq!(r.text("GET while-down")?, round.to_string(), "{why}");
    }
    assert_eq!(count(&mut m, "sync_full")?, 1, "{}", master.log());
    let continued = count(&mut m, "sync_partial_ok")?;
    assert_eq!(continued, REFUSED.len() as u64, "{}", master.log());
    Ok(())
}

#[test]
fn our_replica_logs_in_at_redis_as_its_own_user() -> anyhow::Result<()> {
    our_replica_logs_in_as_its_own_user(Program::Redis)
}

#[test]
fn our_replica_logs_in_at_valkey_as_its_own_user() -> anyhow::Result<()> {
    our_replica_logs_in_as_its_own_user(Program::Valkey)
}

#[test]
fn our_replica_logs_in_at_valkey_9_as_its_own_user() -> anyhow::Result<()> {
    our_replica_logs_in_as_its_own_user(Program::Valkey9)
}
