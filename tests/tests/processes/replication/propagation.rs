//! What a master sends to its replicas: after thousands of random writes of every kind, alone and in transactions, with
//! chance in them and with times, two kinds of replica hold what the master holds, deadlines included.

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use redfleet_tests::{
    client::{Client, as_text, encode},
    dataset::digest,
    diff::{Grammar, Random},
    fake_master::{FakeMaster, ID, snapshot},
    servers::{Program, Server, eventually},
};
use redis::Value;

/// Commands of one run.
const COMMANDS: usize = 6000;
/// Longest wait until replicas are equal.
const DEADLINE: Duration = Duration::from_secs(60);

/// Every write command, each with the forms that are propagated in another way.
const TEMPLATES: &str = "
6: SET $s $v
2: SET $s $v EX $ttl
SET $s $v PX $ms
SET $s $v EXAT $past
SET $s $v PXAT $at
SET $s $v KEEPTTL
SET $s $v NX GET
SET $s $v XX GET
SETNX $s $v
SETEX $s $ttl $v
PSETEX $s $ms $v
GETSET $s $v
2: GETDEL $s
2: GETEX $s EX $ttl
GETEX $s PX $ms
GETEX $s PERSIST
GETEX $s EXAT $past
GETEX $s PXAT $at
MSET $s $v $s $v
MSETNX $s $v $s $v
2: APPEND $s $v
SETRANGE $s 3 $v
SETRANGE $s 0 $v
INCR $n
DECR $n
INCRBY $n 7
DECRBY $n 9
3: INCRBYFLOAT $n $f
2: DEL $any
UNLINK $any $any
2: EXPIRE $any $ttl
EXPIRE $any -1
EXPIRE $any $ttl NX
EXPIRE $any $ttl GT
PEXPIRE $any $ms
EXPIREAT $any $past
PEXPIREAT $any $at
PEXPIREAT $any $at LT
2: PERSIST $any
RENAME $any $any
RENAMENX $any $any
COPY $any $any
COPY $any $any REPLACE
COPY $any $any DB 1 REPLACE
MOVE $any 1
3: LPUSH $l $v $v
3: RPUSH $l $v $v $v
LPUSHX $l $v
RPUSHX $l $v
LPOP $l
RPOP $l 2
LSET $l 0 $v
LINSERT $l BEFORE $v $v
LREM $l 0 $v
LTRIM $l 0 30
LMOVE $l $l LEFT RIGHT
RPOPLPUSH $l $l
2: LMPOP 2 $l $l LEFT COUNT 2
4: SADD $t $v $v $v
SREM $t $v
4: SPOP $t
3: SPOP $t 2
SPOP $t 1000
SMOVE $t $t $v
SINTERSTORE $t $t $t
2: SUNIONSTORE $t $t $t
SDIFFSTORE $t $t $t
4: HSET $h $v $v $v $v
HMSET $h $v $v
HSETNX $h $v $v
HDEL $h $v
HINCRBY $h count 3
3: HINCRBYFLOAT $h sum $f
4: ZADD $z $f $v $f $v
ZADD $z GT CH $f $v
ZADD $z INCR $f $v
2: ZINCRBY $z $f $v
ZREM $z $v
ZREMRANGEBYRANK $z 0 0
ZREMRANGEBYSCORE $z (1 2
ZREMRANGEBYLEX $z [a [b
ZPOPMIN $z
ZPOPMAX $z 2
2: ZMPOP 2 $z $z MIN COUNT 2
ZUNIONSTORE $z 2 $z $t WEIGHTS 0 2
ZINTERSTORE $z 2 $z $z AGGREGATE MAX
ZDIFFSTORE $z 2 $z $z
ZRANGESTORE $z $z 0 5
SWAPDB 0 1
";

fn grammar(now_ms: i64) -> Grammar {
    let far = (now_ms + 3_600_000).to_string();
    let past = (now_ms / 1000 - 10).to_string();
    Grammar::new(TEMPLATES)
        .choice("$s", &["s1", "s2", "s3", "n1"])
        .choice("$n", &["n1", "n2", "s1"])
        .choice("$l", &["l1", "l2", "l3"])
        .choice("$t", &["t1", "t2", "t3"])
        .choice("$h", &["h1", "h2"])
        .choice("$z", &["z1", "z2", "z3"])
        .choice(
            "$any",
            &["s1", "n1", "l1", "t1", "h1", "z1", "s2", "z2", "nobody"],
        )
        .choice(
            "$v",
            &[
                "a",
                "b",
                "c",
                "1",
                "22",
                "-3",
                "",
                "long long value with spaces in it, and more of it",
            ],
        )
        .choice("$f", &["0.1", "0.2", "-1.5", "3", "1e3", "0", "-0"])
        .choice("$ttl", &["100", "5000"])
        .choice("$ms", &["1", "700000"])
        .choice("$at", &[&far])
        .choice("$past", &[&past, "1"])
}

/// Runs random commands, one in ten in a transaction; answers how often each command changed or found something.
fn write(client: &mut Client, seed: u64) -> Result<BTreeMap<String, u32>> {
    let time = client.call(&["TIME"])?;
    let now_s: i64 = redis::from_redis_value::<Vec<i64>>(time)?[0];
    let grammar = grammar(now_s * 1000);
    let mut random = Random::new(seed);
    let mut successes: BTreeMap<String, u32> = BTreeMap::new();
    let mut count = |words: &[Vec<u8>], reply: &Value| {
        let name = String::from_utf8_lossy(&words[0]).into_owned();
        let failed = matches!(reply, Value::ServerError(_) | Value::Nil | Value::Int(0));
        *successes.entry(name).or_default() += u32::from(!failed);
    };
    let mut number = 0;
    while number < COMMANDS {
        if random.below(10) > 0 {
            let words = grammar.command(&mut random);
            let reply = client.call(&words)?;
            count(&words, &reply);
            number += 1;
            continue;
        }
        client.run("MULTI")?;
        let block: Vec<_> = (0..1 + random.below(4))
            .map(|_| grammar.command(&mut random))
            .collect();
        for words in &block {
            ensure!(as_text(&client.call(words)?) == "QUEUED", "{words:?}");
        }
        let end = if random.below(8) == 0 {
            "DISCARD"
        } else {
            "EXEC"
        };
        let replies = client.run(end)?;
        if let Value::Array(replies) = &replies {
            block
                .iter()
                .zip(replies)
                .for_each(|(words, reply)| count(words, reply));
        }
        number += block.len();
    }
    Ok(successes)
}

fn digests(server: &Server) -> Result<Vec<[u8; 32]>> {
    let mut client = server.client()?;
    ["SELECT 0", "SELECT 1"]
        .iter()
        .map(|select| {
            client.run(select)?;
            digest(&mut client)
        })
        .collect()
}

fn replicas_equal_their_master(master: Program, replicas: &[Program], seed: u64) -> Result<()> {
    let master_server = Server::start(master, &[])?;
    let replicas: Vec<Server> = replicas
        .iter()
        .map(|program| Server::replica_of(*program, &master_server, &[]))
        .collect::<Result<_>>()?;
    let mut client = master_server.client()?;
    let online = replicas.len().to_string();
    eventually("replicas online", DEADLINE, || {
        Ok((client.text("WAIT 0 100")? == online).then_some(()))
    })?;
    let successes = write(&mut client, seed)?;
    for name in TEMPLATES.lines().filter_map(|line| {
        line.split_whitespace()
            .find(|word| word.chars().all(|c| c.is_ascii_uppercase()))
    }) {
        ensure!(
            successes.get(name).is_some_and(|n| *n > 0),
            "{name} never did anything"
        );
    }
    // Keys whose millisecond is over go when somebody notices; a replica waits for the DEL.
    eventually("nothing left that expires soon", DEADLINE, || {
        client.run("KEYS *")?;
        client.run("SELECT 1")?;
        client.run("KEYS *")?;
        client.run("SELECT 0")?;
        let expected = digests(&master_server)?;
        let found: Vec<_> = replicas.iter().map(digests).collect::<Result<_>>()?;
        Ok(found
            .iter()
            .all(|digests| *digests == expected)
            .then_some(()))
    })
    .with_context(|| format!("{master:?}, seed {seed}"))?;
    // Each replica came by the stream, not by another snapshot.
    let full: u64 = client.info("stats", "sync_full")?.trim().parse()?;
    ensure!(
        full == replicas.len() as u64,
        "{full} full synchronizations"
    );
    Ok(())
}

#[test]
fn every_write_reaches_replicas_as_it_was_on_our_master() -> Result<()> {
    for seed in [1, 2] {
        replicas_equal_their_master(
            Program::Redfleet,
            &[Program::Redis, Program::Redfleet],
            seed,
        )?;
    }
    Ok(())
}

#[test]
fn every_write_of_a_real_master_is_applied_by_our_replica() -> Result<()> {
    replicas_equal_their_master(Program::Redis, &[Program::Redfleet], 3)
}

/// Redis 7.2 and Valkey look at 32 bits of an index, and send the command as it came.
#[test]
fn an_index_beyond_32_bits_means_to_a_replica_what_it_meant_to_its_master() -> Result<()> {
    let master = Server::start(Program::Valkey, &[])?;
    let replica = Server::replica_of(Program::Redfleet, &master, &[])?;
    let (mut m, mut r) = (master.client()?, replica.client()?);
    m.until("WAIT 1 1000", |n| n == "1")?;
    m.run("RPUSH l a b c")?;
    for command in ["LSET l 4294967297 x", "LSET l 4294967295 y"] {
        ensure!(m.text(command)? == "OK");
    }
    m.until("WAIT 1 1000", |n| n == "1")?;
    ensure!(r.text("LRANGE l 0 -1")? == m.text("LRANGE l 0 -1")?);
    ensure!(m.info("stats", "sync_full")?.trim() == "1");
    Ok(())
}

/// The effects of single commands, as a replica of Redis's protocol sees them.
#[test]
fn what_depends_on_time_or_chance_is_sent_as_what_it_did() -> Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let replica = Server::replica_of(Program::Redis, &master, &[])?;
    let (mut m, mut r) = (master.client()?, replica.client()?);
    m.until("WAIT 1 1000", |n| n == "1")?;
    for (commands, check) in [
        ("SADD t a b c d e f;SPOP t;SPOP t 2", "SMEMBERS t"),
        ("SET k v EX 100", "PEXPIRETIME k"),
        ("SET e v;EXPIRE e 100", "PEXPIRETIME e"),
        ("SET g v;GETEX g PX 100000", "PEXPIRETIME g"),
        ("SET d v;GETDEL d", "EXISTS d"),
        ("SET p v;EXPIRE p -1", "EXISTS p"),
        ("SET f 0.1;INCRBYFLOAT f 0.2", "GET f"),
        ("HSET h f 0.1;HINCRBYFLOAT h f 0.2", "HGET h f"),
        ("SET x v PX 1", "EXISTS x"),
        ("MULTI;SADD u 1 2 3;SPOP u;EXPIRE u 1000;EXEC", "SMEMBERS u"),
    ] {
        for command in commands.split(';') {
            m.run(command)?;
        }
        eventually(check, DEADLINE, || {
            let [mut ours, mut theirs] = [m.run(check)?, r.run(check)?];
            for reply in [&mut ours, &mut theirs] {
                if let Value::Array(items) = reply {
                    items.sort_by_key(as_text);
                }
            }
            Ok((ours == theirs && !(check == "EXISTS x" && ours != Value::Int(0))).then_some(()))
        })?;
    }
    Ok(())
}

/// Valkey 8 refuses the count, which our master takes as Redis does.
#[test]
fn the_least_count_of_lrem_reaches_a_replica_that_does_not_know_it() -> Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let replica = Server::replica_of(Program::Valkey, &master, &[])?;
    let (mut m, mut r) = (master.client()?, replica.client()?);
    m.until("WAIT 1 1000", |n| n == "1")?;
    m.run("RPUSH l a b a")?;
    ensure!(m.text("LREM l -9223372036854775808 a")? == "2");
    ensure!(m.text("LREM l -9223372036854775808 a")? == "0");
    m.until("WAIT 1 1000", |n| n == "1")?;
    ensure!(r.text("LRANGE l 0 -1")? == m.text("LRANGE l 0 -1")?);
    Ok(())
}

/// A range of members means little where scores differ: what it is depends on how the set is stored, so the replica, which
/// stores it in another way, is told the members.
#[test]
fn ranges_of_members_of_unequal_scores_reach_replicas_as_what_they_did() -> Result<()> {
    let master = Server::start(Program::Redfleet, &[])?;
    let options = ["--zset-max-listpack-entries", "100000"];
    let replicas = [
        Server::replica_of(Program::Redfleet, &master, &options)?,
        Server::replica_of(Program::Redis, &master, &options)?,
    ];
    let mut client = master.client()?;
    client.until("WAIT 2 1000", |n| n == "2")?;
    let mut random = Random::new(5);
    let mut member = || {
        format!(
            "{}{}",
            char::from(b'a' + random.below(26) as u8),
            random.below(1000)
        )
    };
    for number in 0..1000 {
        client.run(&format!("ZADD z {number} {}", member()))?;
        client.run(&format!("ZADD same 0 {}", member()))?;
    }
    let (mut removed, mut stored) = (0, 0);
    for letter in 'c'..='v' {
        for key in ["z", "same"] {
            let reply = client.text(&format!(
                "ZRANGESTORE to:{key}:{letter} {key} [{letter} (x BYLEX"
            ))?;
            stored += reply.parse::<usize>()?;
        }
        removed += client
            .text(&format!("ZREMRANGEBYLEX z [{letter} ({letter}5"))?
            .parse::<usize>()?;
        client.run(&format!("ZREMRANGEBYLEX same [{letter} ({letter}5"))?;
    }
    ensure!(
        stored > 1000 && removed > 20,
        "{stored} stored, {removed} removed"
    );
    for command in [
        "SET old v",
        "ZRANGESTORE old z (b (b BYLEX",
        "ZRANGESTORE z z [b (w BYLEX LIMIT 1 500",
        "ZREMRANGEBYLEX z - +",
    ] {
        client.run(command)?;
    }
    for replica in &replicas {
        equal(&master, replica)?;
    }
    Ok(())
}

fn equal(master: &Server, replica: &Server) -> Result<()> {
    eventually("equal data", DEADLINE, || {
        Ok((digests(master)? == digests(replica)?).then_some(()))
    })
}

/// A replica of a real master, both without data.
fn followed_by_ours(options: &[&str]) -> Result<(Server, Server)> {
    let master = Server::start(Program::Redis, &[])?;
    let replica = Server::replica_of(Program::Redfleet, &master, options)?;
    master.client()?.until("WAIT 1 1000", |n| n == "1")?;
    Ok((master, replica))
}

/// Waits until the replica's link is down for this reason.
fn stopped_by(replica: &Server, reason: &str) -> Result<()> {
    let mut client = replica.client()?;
    let stopped = client.until("INFO replication", |info| {
        info.contains("master_link_status:down") && info.contains(reason)
    });
    stopped.with_context(|| format!("{reason}; log:\n{}", replica.log()))?;
    ensure!(replica.log().contains(reason), "{}", replica.log());
    Ok(())
}

#[test]
fn messages_in_a_real_masters_transactions_and_scripts_are_taken() -> Result<()> {
    let (master, replica) = followed_by_ours(&[])?;
    let mut client = master.client()?;
    for command in [
        "PUBLISH channel alone",
        "MULTI",
        "SET a 1",
        "PUBLISH channel in-a-transaction",
        "INCR n",
        "EXEC",
    ] {
        client.run(command)?;
    }
    let script = "redis.call('set', 's', '1'); redis.call('publish', 'c', 'm'); redis.call('incr', 'm'); \
                  redis.call('spublish', 'c', 'm')";
    client.call(&["EVAL", script, "0"])?;
    client.call(&["SCRIPT", "LOAD", script])?;
    client.run("SET last 1")?;
    ensure!(client.text("WAIT 1 10000")? == "1", "{}", replica.log());
    equal(&master, &replica)?;
    ensure!(client.info("stats", "sync_full")? == "1", "another copy");
    Ok(())
}

/// It stops before the command, with a reason that people find, keeps what it has, and asks for a full copy, which it
/// refuses while there is something in it that it does not know.
#[test]
fn a_replica_stops_before_what_it_cannot_apply() -> Result<()> {
    let (master, replica) = followed_by_ours(&[])?;
    let (mut m, mut r) = (master.client()?, replica.client()?);
    for command in [
        "SET before 1",
        "MULTI",
        "SET a 1",
        "XADD orders * f v",
        "INCR n",
        "EXEC",
        "SET after 1",
    ] {
        m.run(command)?;
    }
    stopped_by(&replica, "XADD cannot be applied here: ERR unknown command")?;
    for (key, value) in [
        ("before", "1"),
        ("a", "(nil)"),
        ("n", "(nil)"),
        ("after", "(nil)"),
    ] {
        ensure!(r.text(&format!("GET {key}"))? == value, "{key}");
    }
    stopped_by(&replica, "key 'orders' in database 0 holds a stream")?;
    ensure!(r.text("GET before")? == "1", "the old data are gone");
    m.run("DEL orders")?;
    equal(&master, &replica)
}

/// A master that does as it is asked, and then sends a transaction of which our replica can apply the first half. It tells what
/// it was asked for: a history, or `?` for a full copy.
fn half_applied(asked: Sender<String>) -> Result<FakeMaster> {
    FakeMaster::start(move |peer| {
        let history = peer.until("PSYNC")?.swap_remove(1);
        if history == "?" {
            let empty = snapshot(b"");
            peer.send(format!("+FULLRESYNC {ID} 1000\r\n${}\r\n", empty.len()))?;
            peer.send(empty)?;
        } else {
            peer.send("+CONTINUE\r\n")?;
        }
        asked.send(history).map_err(io::Error::other)?;
        peer.send(encode(&["MULTI"]))?;
        peer.send(encode(&["INCR", "a"]))?;
        peer.send(encode(&["SET", "k", "v", "IFEQ", "x"]))?;
        peer.send(encode(&["EXEC"]))?;
        peer.hold()
    })
}

/// Half of a transaction is in the data: neither another master of the history nor one after a restart may begin it again.
#[test]
fn a_transaction_that_was_applied_in_part_is_not_applied_again() -> Result<()> {
    let (sender, asked) = channel();
    let (first, other) = (half_applied(sender.clone())?, half_applied(sender)?);
    let address = format!("127.0.0.1 {}", first.port);
    let options = ["--replicaof", &address, "--save", "900 1"];
    let mut replica = Server::start(Program::Redfleet, &options)?;
    let half = "EXEC cannot be applied here: ERR syntax error";
    ensure!(asked.recv_timeout(DEADLINE)? == "?");
    stopped_by(&replica, half)?;
    let follow = format!("REPLICAOF 127.0.0.1 {}", other.port);
    replica.client()?.run(&follow)?;
    ensure!(
        asked.recv_timeout(DEADLINE)? == "?",
        "another master: {}",
        replica.log()
    );
    stopped_by(&replica, half)?;
    ensure!(replica.client()?.text("GET a")? == "1");
    ensure!(replica.terminate()?, "{}", replica.log());
    replica.restart()?;
    ensure!(
        asked.recv_timeout(DEADLINE)? == "?",
        "after a restart: {}",
        replica.log()
    );
    Ok(())
}

/// Data that are another already show when a command fails that did not fail there.
#[test]
fn a_replica_that_was_written_to_is_made_equal_when_that_shows() -> Result<()> {
    let (master, replica) = followed_by_ours(&["--replica-read-only", "no"])?;
    replica.client()?.run("SET list string")?;
    let mut client = master.client()?;
    for command in ["MULTI", "INCR n", "RPUSH list a", "SET b 1", "EXEC"] {
        client.run(command)?;
    }
    stopped_by(&replica, "EXEC cannot be applied here: WRONGTYPE")?;
    equal(&master, &replica)
}
