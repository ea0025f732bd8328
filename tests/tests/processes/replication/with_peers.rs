//! Replication both ways with real Redis and Valkey: full syncs of mixed data while writes go on,
//! links cut and back, chains, restarts. Each test names the peer it ran with when it fails.

use std::time::Duration;

use redfleet_tests::{
    client::{Client, as_text},
    dataset::{digest, fill},
    servers::{Program, Server, eventually},
};

use super::links::{SYNC_DEADLINE, ask_for_snapshot, caught_up, counter, offset};

/// Bytes of the large dataset.
const LARGE_BYTES: usize = 100_000_000;

/// Who plays which part.
#[derive(Debug, Clone, Copy)]
struct Pair {
    master: Program,
    replica: Program,
}

const PAIRS: [Pair; 7] = [
    Pair {
        master: Program::Redis,
        replica: Program::Redfleet,
    },
    Pair {
        master: Program::Redfleet,
        replica: Program::Redis,
    },
    Pair {
        master: Program::Valkey,
        replica: Program::Redfleet,
    },
    Pair {
        master: Program::Redfleet,
        replica: Program::Valkey,
    },
    Pair {
        master: Program::Valkey9,
        replica: Program::Redfleet,
    },
    Pair {
        master: Program::Redfleet,
        replica: Program::Valkey9,
    },
    Pair {
        master: Program::Redfleet,
        replica: Program::Redfleet,
    },
];

fn assert_equal_data(master: &Server, replica: &Server, what: &str) -> anyhow::Result<()> {
    caught_up(master, replica)?;
    let (mut m, mut r) = (master.client()?, replica.client()?);
    for database in ["SELECT 0", "SELECT 7"] {
        m.text(database)?;
        r.text(database)?;
        let (keys, held) = (m.text("DBSIZE")?, r.text("DBSIZE")?);
        assert_eq!(keys, held, "{what}, {database}: keys are missing");
        let (m, r) = (digest(&mut m)?, digest(&mut r)?);
        assert_eq!(m, r, "{what}, {database}: the data differ");
    }
    Ok(())
}

/// Cuts the replica's link and waits until it is back, by a partial synchronization alone.
fn cut_and_back(master: &Server, replica: &Server, what: &str) -> anyhow::Result<()> {
    let (full, partial) = (
        counter(master, "sync_full")?,
        counter(master, "sync_partial_ok")?,
    );
    let mut client = master.client()?;
    assert_eq!(client.text("CLIENT KILL TYPE replica")?, "1", "{what}");
    fill(&mut client, "after-cut", 100_000)?;
    eventually("the replica to be back", SYNC_DEADLINE, || {
        Ok((counter(master, "sync_partial_ok")? > partial).then_some(()))
    })?;
    assert_equal_data(master, replica, what)?;
    assert_eq!(
        counter(master, "sync_full")?,
        full,
        "{what}: a cut link cost a full copy"
    );
    Ok(())
}

fn full_then_partial(pair: Pair, bytes: usize) -> anyhow::Result<()> {
    let what = format!("{pair:?}");
    let master = Server::start(pair.master, &["--repl-backlog-size", "16mb"])?;
    let mut filler = master.client()?;
    fill(&mut filler, "key", bytes)?;
    // Every type has keys in another database, too.
    filler.text("SELECT 7")?;
    fill(&mut filler, "key", 100_000)?;
    let replica = Server::replica_of(pair.replica, &master, &[])?;
    // Writes go on while the snapshot is taken, sent and loaded, over old keys and new ones.
    let mut writer = master.client()?;
    let mut rounds = 0;
    eventually("the replica to be connected", SYNC_DEADLINE, || {
        fill(&mut writer, "key", 300_000)?;
        fill(&mut writer, &format!("during{rounds}"), 30_000)?;
        rounds += 1;
        offset(&mut replica.client()?)
    })?;
    // The data are compared after the cut: a partial synchronization mends nothing that a full one missed.
    caught_up(&master, &replica)?;
    let refused = replica.client()?.text("SET key value")?;
    assert_eq!(
        refused, "(error) READONLY You can't write against a read only replica.",
        "{what}"
    );
    cut_and_back(&master, &replica, &what)
}

#[test]
fn every_pair_is_equal_after_a_full_sync_under_writes_and_after_a_cut() -> anyhow::Result<()> {
    PAIRS
        .into_iter()
        .try_for_each(|pair| full_then_partial(pair, 3_000_000))
}

#[test]
fn a_hundred_megabytes_from_redis_are_equal() -> anyhow::Result<()> {
    full_then_partial(PAIRS[0], LARGE_BYTES)
}

#[test]
fn a_hundred_megabytes_to_redis_are_equal() -> anyhow::Result<()> {
    full_then_partial(PAIRS[1], LARGE_BYTES)
}

#[test]
fn a_hundred_megabytes_from_valkey_are_equal() -> anyhow::Result<()> {
    full_then_partial(PAIRS[2], LARGE_BYTES)
}

#[test]
fn a_hundred_megabytes_to_valkey_are_equal() -> anyhow::Result<()> {
    full_then_partial(PAIRS[3], LARGE_BYTES)
}

#[test]
fn a_hundred_megabytes_from_valkey_9_are_equal() -> anyhow::Result<()> {
    full_then_partial(PAIRS[4], LARGE_BYTES)
}

#[test]
fn a_hundred_megabytes_to_valkey_9_are_equal() -> anyhow::Result<()> {
    full_then_partial(PAIRS[5], LARGE_BYTES)
}

#[test]
fn snapshots_by_file_reach_replicas_too() -> anyhow::Result<()> {
    for pair in PAIRS {
        let master = Server::start(pair.master, &["--repl-diskless-sync", "no"])?;
        fill(&mut master.client()?, "key", 2_000_000)?;
        let replica = Server::replica_of(pair.replica, &master, &[])?;
        assert_equal_data(
            &master,
            &replica,
            &format!("{pair:?}, repl-diskless-sync no"),
        )?;
    }
    Ok(())
}

#[test]
fn a_chain_forwards_the_stream_byte_for_byte() -> anyhow::Result<()> {
    for (top, middle, bottom) in [
        (Program::Redis, Program::Redfleet, Program::Redis),
        (Program::Redfleet, Program::Redis, Program::Redfleet),
        (Program::Redfleet, Program::Redfleet, Program::Redfleet),
    ] {
        let what = format!("{top:?} > {middle:?} > {bottom:?}");
        let first = Server::start(top, &[])?;
        fill(&mut first.client()?, "key", 500_000)?;
        let second = Server::replica_of(middle, &first, &[])?;
        caught_up(&first, &second)?;
        let third = Server::replica_of(bottom, &second, &[])?;
        caught_up(&second, &third)?;
        let mut client = first.client()?;
        client.text("SELECT 3")?;
        fill(&mut client, "other-db", 200_000)?;
        client.text("MULTI")?;
        client.text("SET in-multi 1")?;
        client.text("INCR in-multi")?;
        client.text("EXEC")?;
        caught_up(&first, &third)?;
        let mut last = third.client()?;
        last.text("SELECT 3")?;
        assert_eq!(last.text("GET in-multi")?, "2", "{what}");
        assert_eq!(digest(&mut client)?, digest(&mut last)?, "{what}");
        // The bottom is told to follow the top: their histories are one.
        let full = counter(&first, "sync_full")?;
        last.text(&format!("REPLICAOF 127.0.0.1 {}", first.port))?;
        caught_up(&first, &third)?;
        client.text("SET after-move 1")?;
        caught_up(&first, &third)?;
        assert_eq!(
            last.text("GET after-move")?,
            "1",
            "{what}: the selected database was lost"
        );
        assert_eq!(counter(&first, "sync_full")?, full, "{what}");
    }
    Ok(())
}

#[test]
fn a_promoted_replica_serves_its_siblings_without_a_full_copy() -> anyhow::Result<()> {
    // A PING of the master, once the heir has left, would be more than the heir has.
    let master = Server::start(Program::Redfleet, &["--repl-ping-replica-period", "3600"])?;
    fill(&mut master.client()?, "key", 500_000)?;
    let heir = Server::replica_of(Program::Redfleet, &master, &[])?;
    let sibling = Server::replica_of(Program::Redis, &master, &[])?;
    caught_up(&master, &heir)?;
    caught_up(&master, &sibling)?;
    heir.client()?.text("REPLICAOF NO ONE")?;
    let follow = format!("REPLICAOF 127.0.0.1 {}", heir.port);
    sibling.client()?.text(&follow)?;
    master.client()?.text(&follow)?;
    fill(&mut heir.client()?, "new", 100_000)?;
    assert_equal_data(&heir, &sibling, "sibling")?;
    assert_equal_data(&heir, &master, "old master")?;
    assert_eq!(counter(&heir, "sync_full")?, 0);
    assert_eq!(counter(&heir, "sync_partial_ok")?, 2);
    Ok(())
}

#[test]
fn a_restarted_master_and_a_restarted_replica_continue() -> anyhow::Result<()> {
    let mut master = Server::start(Program::Redfleet, &["--save", "3600 1"])?;
    let mut replica = Server::replica_of(Program::Redfleet, &master, &["--save", "900 1"])?;
    fill(&mut master.client()?, "key", 500_000)?;
    caught_up(&master, &replica)?;
    assert!(replica.terminate()?, "{}", replica.log());
    fill(&mut master.client()?, "while-away", 100_000)?;
    replica.restart()?;
    assert_equal_data(&master, &replica, "restarted replica")?;
    assert_eq!(counter(&master, "sync_full")?, 1, "{}", master.log());
    assert!(master.terminate()?, "{}", master.log());
    master.restart()?;
    fill(&mut master.client()?, "after", 100_000)?;
    assert_equal_data(&master, &replica, "restarted master")?;
    assert_eq!(counter(&master, "sync_full")?, 0, "{}", master.log());
    assert_eq!(counter(&master, "sync_partial_ok")?, 1);
    Ok(())
}

/// Its stream goes on in a database that it does not have any more, which it cannot do; the data do not need it.
#[test]
fn a_replica_restarted_with_fewer_databases_asks_for_a_full_copy() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--databases", "32"])?;
    let more = ["--databases", "32", "--save", "900 1"];
    let mut replica = Server::replica_of(Program::Redfleet, &master, &more)?;
    // Behind a copy that has all of it already the stream would begin with a SELECT, and could go on.
    caught_up(&master, &replica)?;
    let mut client = master.client()?;
    for command in ["SET here 1", "SELECT 20", "SET far 1", "DEL far"] {
        client.run(command)?;
    }
    caught_up(&master, &replica)?;
    assert!(replica.terminate()?, "{}", replica.log());
    let folder = replica.folder().display().to_string();
    let less = ["--databases", "16", "--dir", &folder];
    let replica = Server::replica_of(Program::Redfleet, &master, &less)?;
    caught_up(&master, &replica)?;
    assert_eq!(counter(&master, "sync_full")?, 2, "{}", replica.log());
    client.run("SELECT 3")?;
    client.run("SET near 1")?;
    caught_up(&master, &replica)?;
    assert_eq!(replica.client()?.text("DBSIZE")?, "1");
    client.run("SELECT 20")?;
    client.run("SET far 2")?;
    replica.client()?.until("INFO replication", |text| {
        text.contains("SELECT cannot be applied")
    })?;
    Ok(())
}

#[test]
fn saved_files_load_in_redis_and_back() -> anyhow::Result<()> {
    let mut ours = Server::start(Program::Redfleet, &["--save", "3600 1"])?;
    fill(&mut ours.client()?, "key", 3_000_000)?;
    let before = digest(&mut ours.client()?)?;
    assert_eq!(ours.client()?.text("SAVE")?, "OK");
    let file = ours.folder().join("dump.rdb");
    let mut redis = Server::start(Program::Redis, &["--save", "3600 1"])?;
    redis.kill()?;
    std::fs::copy(&file, redis.folder().join("dump.rdb"))?;
    redis.restart()?;
    assert_eq!(
        digest(&mut redis.client()?)?,
        before,
        "Redis reads our file"
    );
    assert_eq!(redis.client()?.text("SAVE")?, "OK");
    ours.kill()?;
    std::fs::copy(redis.folder().join("dump.rdb"), &file)?;
    ours.restart()?;
    assert_eq!(digest(&mut ours.client()?)?, before, "we read Redis' file");
    Ok(())
}

#[test]
fn wait_counts_replicas_that_acknowledged() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let ours = Server::replica_of(Program::Redfleet, &master, &[])?;
    let redis = Server::replica_of(Program::Redis, &master, &[])?;
    caught_up(&master, &ours)?;
    caught_up(&master, &redis)?;
    let mut client = master.client()?;
    for round in 0..20 {
        client.text(&format!("SET key {round}"))?;
        assert_eq!(client.text("WAIT 2 60000")?, "2", "round {round}");
        assert_eq!(ours.client()?.text("GET key")?, round.to_string());
    }
    assert_eq!(client.text("WAIT 3 100")?, "2");
    Ok(())
}

#[test]
fn writes_are_refused_without_enough_good_replicas() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--min-replicas-to-write", "1"])?;
    let mut client = master.client()?;
    let refused = "(error) NOREPLICAS Not enough good replicas to write.";
    assert_eq!(client.text("SET k v")?, refused);
    let mut replica = Server::replica_of(Program::Redis, &master, &[])?;
    eventually("a good replica", SYNC_DEADLINE, || {
        Ok((client.text("SET k v")? == "OK").then_some(()))
    })?;
    replica.kill()?;
    eventually("the replica to be missed", SYNC_DEADLINE, || {
        Ok((client.text("SET k v")? == refused).then_some(()))
    })
}

#[test]
fn a_password_of_the_master_is_used_and_a_wrong_one_costs_nothing() -> anyhow::Result<()> {
    let master = Server::start(Program::Redis, &["--requirepass", "secret"])?;
    let mut client = master.client()?;
    client.text("AUTH secret")?;
    client.text("SET k v")?;
    let replica = Server::replica_of(Program::Redfleet, &master, &["--masterauth", "wrong"])?;
    let mut r = replica.client()?;
    eventually("the refusal to be logged", SYNC_DEADLINE, || {
        Ok(replica.log().contains("WRONGPASS").then_some(()))
    })?;
    r.text("CONFIG SET masterauth secret")?;
    eventually("the link", SYNC_DEADLINE, || offset(&mut r))?;
    assert_eq!(r.text("GET k")?, "v");
    Ok(())
}

#[test]
fn a_lag_of_zero_switches_the_check_off() -> anyhow::Result<()> {
    let options = [
        "--min-replicas-to-write",
        "1",
        "--min-replicas-max-lag",
        "0",
    ];
    for program in [Program::Redfleet, Program::Redis] {
        let server = Server::start(program, &options)?;
        let mut client = server.client()?;
        assert_eq!(client.text("SET k v")?, "OK", "{program:?}");
        let info = client.text("INFO replication")?;
        assert!(!info.contains("min_slaves_good_slaves"), "{info}");
    }
    Ok(())
}

/// More than sockets and the server's own buffers hold between it and a replica that reads nothing.
fn write_much(client: &mut Client) -> anyhow::Result<()> {
    let value = "x".repeat(1024 * 1024);
    for number in 0..100 {
        client.call(&["SET", &format!("big:{number}"), &value])?;
    }
    Ok(())
}

#[test]
fn a_replica_that_takes_nothing_holds_up_neither_a_save_nor_the_end() -> anyhow::Result<()> {
    let options = ["--save", "3600 1000000", "--shutdown-timeout", "600"];
    let mut master = Server::start(Program::Redfleet, &options)?;
    let mut client = master.client()?;
    write_much(&mut client)?;
    let _stuck = ask_for_snapshot(&master, "eof")?;
    assert_eq!(client.text("SAVE")?, "OK");
    eventually("the stuck replica to go", SYNC_DEADLINE, || {
        Ok((client.info("replication", "connected_slaves")? == "0").then_some(()))
    })?;
    assert!(master.log().contains("too slowly"), "{}", master.log());
    let _stuck = ask_for_snapshot(&master, "eof")?;
    std::fs::remove_file(master.folder().join("dump.rdb"))?;
    client.text("SET last 1")?;
    // Long before the timeout: nobody waits for it.
    assert!(master.terminate()?, "{}", master.log());
    master.restart()?;
    assert_eq!(master.client()?.text("DBSIZE")?, "101", "{}", master.log());
    Ok(())
}

/// The file for a replica of the old kind cannot be made: that is no reason to lose a save, still less to claim one.
#[test]
fn a_save_beside_a_replica_without_a_snapshot_is_on_disk() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let mut client = master.client()?;
    write_much(&mut client)?;
    let spool = format!("temp-repl-{}.rdb", master.pid());
    std::fs::create_dir(master.folder().join(spool))?;
    let stuck = ask_for_snapshot(&master, "eof")?;
    let mut by_file = master.client()?;
    by_file.send_raw(b"PSYNC ? -1\r\n")?;
    eventually("the second replica to wait", SYNC_DEADLINE, || {
        Ok((client.info("replication", "connected_slaves")? == "2").then_some(()))
    })?;
    client.send_raw(b"SAVE\r\n")?;
    master.client()?.until("INFO persistence", |info| {
        info.contains("rdb_bgsave_in_progress:1")
    })?;
    drop(stuck);
    assert_eq!(as_text(&client.read_reply()?), "OK");
    assert!(
        master.folder().join("dump.rdb").exists(),
        "{}",
        master.log()
    );
    assert!(master.log().contains("temp-repl-"), "{}", master.log());
    Ok(())
}

/// While it loads a replica says no more than newlines.
#[test]
fn a_replica_that_loads_for_longer_than_the_timeout_keeps_its_link() -> anyhow::Result<()> {
    let master = Server::start(Program::Redfleet, &["--repl-timeout", "6"])?;
    let mut client = master.client()?;
    for capability in ["eof", "psync2"] {
        let mut replica = ask_for_snapshot(&master, capability)?;
        for _ in 0..9 {
            std::thread::sleep(Duration::from_secs(1));
            replica.send_raw(b"\n")?;
        }
        assert_eq!(
            client.info("replication", "connected_slaves")?,
            "1",
            "{capability}"
        );
        drop(replica);
        eventually("the replica to go", SYNC_DEADLINE, || {
            Ok((client.info("replication", "connected_slaves")? == "0").then_some(()))
        })?;
    }
    Ok(())
}
