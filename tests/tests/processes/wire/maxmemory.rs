//! `maxmemory` and its policies: what is refused, what is evicted, and that replicas hear of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use redfleet_tests::{
    client::{Client, as_text, encode},
    dataset::digest,
    diff::{Order, Pair},
    servers::{Program, Server, eventually},
};

const LIMIT_MB: u64 = 40;
const LIMIT: &str = "40mb";
/// Keys of 1 kB each: twice what the limit holds.
const KEYS: usize = 80_000;
/// Keys that are used all the time.
const HOT_KEYS: usize = 200;
const DEADLINE: Duration = Duration::from_secs(60);

/// Writes keys of 1 kB; answers how many writes were refused for want of memory.
fn fill(client: &mut Client, expiry: &[&str]) -> Result<usize> {
    const PIPELINE: usize = 200;
    let value = "v".repeat(1000);
    let mut refused = 0;
    for batch in 0..KEYS / PIPELINE {
        let mut bytes = Vec::new();
        for n in 0..PIPELINE {
            let key = format!("key:{:08}", batch * PIPELINE + n);
            let words = [&["SET", &key, &value], expiry].concat();
            bytes.extend_from_slice(&encode(&words));
        }
        client.send_raw(&bytes)?;
        for _ in 0..PIPELINE {
            let reply = as_text(&client.read_reply()?);
            ensure!(reply == "OK" || reply.starts_with("(error) OOM"), "{reply}");
            refused += usize::from(reply != "OK");
        }
    }
    Ok(refused)
}

fn number(client: &mut Client, section: &str, field: &str) -> Result<u64> {
    Ok(client.info(section, field)?.trim().parse()?)
}

#[test]
fn every_policy_keeps_memory_at_its_limit_and_replicas_equal() -> Result<()> {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        let options = ["--maxmemory", LIMIT, "--maxmemory-policy", policy];
        let server = Server::start(Program::Redfleet, &options)?;
        let mut client = server.client()?;
        let expiry: &[&str] = if policy.starts_with("volatile") {
            &["EX", "100000"]
        } else {
            &[]
        };
        let refused = fill(&mut client, expiry)?;
        ensure!(refused == 0, "{policy}: {refused} writes were refused");
        // Evicting goes on in the background: between the two answers it must not have.
        let (evicted, left) = eventually("the counts to agree", DEADLINE, || {
            let evicted = number(&mut client, "stats", "evicted_keys")?;
            let left: u64 = client.text("DBSIZE")?.parse()?;
            Ok((evicted + left == KEYS as u64).then_some((evicted, left)))
        })?;
        ensure!(left > KEYS as u64 / 4, "{policy}: only {left} left");
        let limit = LIMIT_MB * 1024 * 1024;
        eventually("memory at its limit", DEADLINE, || {
            let used = number(&mut client, "memory", "used_memory")?;
            Ok((used <= limit + limit / 50).then_some(()))
        })?;
        println!("{policy}: {evicted} evicted, {left} left");
    }
    Ok(())
}

#[test]
fn a_replica_follows_what_is_evicted() -> Result<()> {
    let options = [
        "--maxmemory",
        LIMIT,
        "--maxmemory-policy",
        "allkeys-lru",
        "--repl-backlog-size",
        "8mb",
    ];
    let master = Server::start(Program::Redfleet, &options)?;
    let replica = Server::replica_of(Program::Redis, &master, &[])?;
    let mut client = master.client()?;
    client.until("WAIT 1 1000", |n| n == "1")?;
    fill(&mut client, &[])?;
    ensure!(number(&mut client, "stats", "evicted_keys")? > 0);
    // A digest fails while keys still go: each try has connections of its own.
    eventually("equal data", DEADLINE, || {
        let [m, r] = [
            digest(&mut master.client()?)?,
            digest(&mut replica.client()?)?,
        ];
        Ok((m == r).then_some(()))
    })
}

#[test]
fn keys_that_are_used_stay_and_others_go() -> Result<()> {
    for policy in ["allkeys-lru", "allkeys-lfu"] {
        let options = [
            "--maxmemory",
            LIMIT,
            "--maxmemory-policy",
            policy,
            "--maxmemory-samples",
            "10",
        ];
        let server = Server::start(Program::Redfleet, &options)?;
        let mut client = server.client()?;
        let value = "v".repeat(1000);
        let mut set = |name: String| -> Result<()> {
            let reply = as_text(&client.call(&["SET", &name, &value])?);
            ensure!(reply == "OK", "{reply}");
            Ok(())
        };
        let mut user = server.client()?;
        let mut touch_all = || -> Result<usize> {
            let mut there = 0;
            for n in 0..HOT_KEYS {
                there += usize::from(user.text(&format!("GET hot:{n}"))? != "(nil)");
            }
            Ok(there)
        };
        (0..HOT_KEYS).try_for_each(|n| set(format!("hot:{n}")))?;
        // Fewer than the limit holds; then their idle time, which is counted in seconds, must show.
        (0..30_000).try_for_each(|n| set(format!("old:{n}")))?;
        if policy == "allkeys-lru" {
            let mut looker = server.client()?;
            looker.until("OBJECT IDLETIME old:29999", |seconds| {
                seconds.parse().is_ok_and(|s: u32| s >= 3)
            })?;
        } else {
            for _ in 0..20 {
                touch_all()?;
            }
        }
        for n in 0..20_000 {
            if n % 1000 == 0 {
                touch_all()?;
            }
            set(format!("new:{n}"))?;
        }
        ensure!(number(&mut server.client()?, "stats", "evicted_keys")? > 5000);
        let left = touch_all()?;
        ensure!(
            left == HOT_KEYS,
            "{policy}: {left} of {HOT_KEYS} keys in use are left"
        );
    }
    Ok(())
}

#[test]
fn without_keys_to_evict_writes_are_refused_as_in_redis() -> Result<()> {
    for policy in [
        "noeviction",
        "volatile-lru",
        "volatile-ttl",
        "volatile-random",
        "volatile-lfu",
    ] {
        let mut pair = Pair::start(&["--maxmemory-policy", policy])?;
        pair.script("SET k v\nSET n 5\nLPUSH l a b")?;
        pair.script("CONFIG SET maxmemory 1")?;
        pair.script(
            "SET k w
            INCR n
            LPUSH l c
            GET k
            DEL n
            LPOP l
            EXPIRE k -1
            MULTI
            SET k w
            EXEC
            MULTI
            GET k
            EXEC
            MULTI
            DISCARD
            CONFIG SET maxmemory 0
            MULTI
            SET a b
            CONFIG SET maxmemory 0
            EXEC
            SET k w",
        )?;
        // A transaction that was queued while there was memory.
        let mut other = [pair.ours.client()?, pair.theirs.client()?];
        pair.script("MULTI\nSET k x\nGET k")?;
        for client in &mut other {
            client.run("CONFIG SET maxmemory 1")?;
        }
        pair.script("EXEC")?;
        for client in &mut other {
            client.run("CONFIG SET maxmemory 0")?;
        }
        pair.script("GET k")?;
    }
    Ok(())
}

#[test]
fn use_is_shown_by_object_as_the_policy_counts_it() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script("SET k v")?;
    // Whole seconds by a clock that ticks: two servers may differ by one.
    for server in [&pair.ours, &pair.theirs] {
        let idle: u64 = server.client()?.text("OBJECT IDLETIME k")?.parse()?;
        ensure!(idle <= 2, "idle for {idle} s");
    }
    pair.script(
        "OBJECT FREQ k
        OBJECT IDLETIME nobody
        CONFIG SET maxmemory-policy allkeys-lfu
        SET f v
        OBJECT FREQ f
        OBJECT IDLETIME f
        OBJECT FREQ nobody
        CONFIG SET lfu-log-factor 0
        GET f
        GET f
        OBJECT FREQ f
        OBJECT FREQ f
        CONFIG SET maxmemory-policy bogus
        CONFIG GET maxmemory*
        CONFIG GET lfu*",
    )?;
    pair.same(&["TOUCH", "f"], Order::Fixed)?;
    pair.script("OBJECT FREQ f")?;
    // CLIENT NO-TOUCH came with 7.2: the peer does not know it.
    let client = &mut pair.our_client;
    let before: u8 = client.text("OBJECT FREQ f")?.parse()?;
    ensure!(client.text("CLIENT NO-TOUCH on")? == "OK");
    client.run("GET f")?;
    ensure!(client.text("OBJECT FREQ f")? == before.to_string());
    client.run("TOUCH f")?;
    ensure!(client.text("OBJECT FREQ f")? == (before + 1).to_string());
    ensure!(client.text("CLIENT NO-TOUCH off")? == "OK");
    client.run("GET f")?;
    ensure!(client.text("OBJECT FREQ f")? == (before + 2).to_string());
    Ok(())
}

#[test]
fn a_values_record_of_uses_goes_where_the_value_goes() -> Result<()> {
    let options = ["--maxmemory-policy", "allkeys-lfu"];
    let counts = ["--lfu-log-factor", "0", "--lfu-decay-time", "0"];
    let mut pair = Pair::start(&[options.as_slice(), &counts].concat())?;
    pair.script("SET a v")?;
    for _ in 0..20 {
        pair.script("GET a")?;
    }
    pair.script(
        "OBJECT FREQ a
        RENAME a b
        OBJECT FREQ b
        SET target v
        RENAME b target
        OBJECT FREQ target
        RENAMENX target c
        OBJECT FREQ c
        MOVE c 1
        SELECT 1
        OBJECT FREQ c
        COPY c d
        OBJECT FREQ c
        OBJECT FREQ d
        SET used v
        GET used
        GET used
        COPY c used REPLACE
        OBJECT FREQ used
        SET c other
        OBJECT FREQ c
        RPUSH cold e
        RENAME cold c
        OBJECT FREQ c",
    )
}

/// `replica-ignore-maxmemory`: a replica has what its master sends, and lets its own clients do what they may.
#[test]
fn a_replica_above_its_limit_refuses_nothing() -> Result<()> {
    for program in [Program::Redis, Program::Redfleet] {
        let master = Server::start(program, &[])?;
        assert_eq!(master.client()?.text("SET k v")?, "OK");
        let options = ["--maxmemory", "1kb", "--replica-read-only", "no"];
        let replica = Server::replica_of(program, &master, &options)?;
        let mut client = replica.client()?;
        client.until("GET k", |value| value == "v")?;
        for (command, reply) in [("MULTI", "OK"), ("GET k", "QUEUED"), ("SET own v", "OK")] {
            let answer = client.text(command)?;
            let is_queued = command == "SET own v" && answer == "QUEUED";
            ensure!(
                answer == reply || is_queued,
                "{program:?} {command}: {answer}"
            );
        }
        let answer = client.text("EXEC")?.to_lowercase();
        ensure!(
            answer.contains("\"v\"") && answer.contains("ok"),
            "{program:?}: {answer}"
        );
    }
    Ok(())
}
