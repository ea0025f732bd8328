//! The table of commands, held against the one of a real Redis: arity, flags, ACL categories, where the keys are, and the
//! shape of COMMAND DOCS. The list of names is what an application's everyday use and every client library need.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use redfleet_tests::{
    client::{Client, as_text},
    diff::{Order, Pair},
};
use redis::Value;

/// What connects, what looks after the server, and everyday data.
const NAMES: &str = "
    PING ECHO AUTH HELLO SELECT QUIT RESET CLIENT COMMAND INFO CONFIG ROLE REPLICAOF SLAVEOF PSYNC SYNC REPLCONF WAIT
    FAILOVER SHUTDOWN SAVE BGSAVE LASTSAVE BGREWRITEAOF DBSIZE FLUSHALL FLUSHDB ACL TIME OBJECT MEMORY DEBUG
    SET GET MSET MSETNX MGET GETSET SETEX PSETEX SETNX GETEX GETDEL APPEND STRLEN INCR INCRBY INCRBYFLOAT DECR DECRBY
    GETRANGE SETRANGE SUBSTR DEL UNLINK EXISTS TYPE EXPIRE EXPIREAT PEXPIRE PEXPIREAT EXPIRETIME PEXPIRETIME TTL PTTL
    PERSIST RENAME RENAMENX COPY MOVE TOUCH KEYS SCAN RANDOMKEY SWAPDB
    HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS
    LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM RPOP RPOPLPUSH RPUSH RPUSHX
    SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SPOP SRANDMEMBER SREM
    SSCAN SUNION SUNIONSTORE
    ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN
    ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
    ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE
    MULTI EXEC DISCARD WATCH UNWATCH
    CLIENT|ID CLIENT|INFO CLIENT|LIST CLIENT|KILL CLIENT|SETNAME CLIENT|GETNAME CLIENT|PAUSE CLIENT|UNPAUSE
    CLIENT|NO-EVICT CLIENT|REPLY CLIENT|UNBLOCK CLIENT|HELP
    COMMAND|COUNT COMMAND|DOCS COMMAND|INFO COMMAND|LIST COMMAND|GETKEYS COMMAND|GETKEYSANDFLAGS COMMAND|HELP
    CONFIG|GET CONFIG|SET CONFIG|REWRITE CONFIG|RESETSTAT CONFIG|HELP
    OBJECT|ENCODING OBJECT|FREQ OBJECT|IDLETIME OBJECT|REFCOUNT OBJECT|HELP
    MEMORY|USAGE MEMORY|HELP
    ACL|WHOAMI ACL|USERS ACL|GETUSER ACL|LIST ACL|CAT ACL|SETUSER ACL|DELUSER ACL|HELP";

/// Where we follow Redis 7.2 and the peer is 7.0: name, and what is different there. Values are the fields as
/// [`described`] writes them.
const NEWER: &[(&str, &str, &str)] = &[
    // ZRANK … WITHSCORE.
    ("zrank", "arity", "-3"),
    ("zrevrank", "arity", "-3"),
    // A command without arguments is a question, too.
    ("command|getkeys", "arity", "-3"),
    ("command|getkeysandflags", "arity", "-3"),
    ("wait", "flags", "blocking"),
    ("wait", "categories", "@blocking @connection @slow"),
    // The destination is overwritten, not read: 7.0 had it wrong.
    (
        "sinterstore",
        "keys",
        "{begin_search={spec={index=1} type=index} find_keys={spec={keystep=1 lastkey=0 limit=0} type=range} flags=OW,update}; \
         {begin_search={spec={index=2} type=index} find_keys={spec={keystep=1 lastkey=-1 limit=0} type=range} flags=RO,access}",
    ),
    // Not newer but ours: subcommands of DEBUG are described.
    ("debug", "kinds", "--s---sssa"),
    // Not newer but ours: replicas may come back to a master whose lease has ended.
    (
        "psync",
        "flags",
        "admin no_async_loading no_multi noscript stale",
    ),
    (
        "sync",
        "flags",
        "admin no_async_loading no_multi noscript stale",
    ),
];

/// What COMMAND INFO says of one command, field by field, in a form that can be compared.
fn described(reply: &Value) -> Result<BTreeMap<String, String>> {
    let fields = items(reply).context("an array of ten fields")?;
    ensure!(fields.len() == 10, "{} fields", fields.len());
    let sorted = |value: &Value| {
        let words: BTreeSet<String> = items(value)
            .unwrap_or_default()
            .iter()
            .map(as_text)
            .collect();
        words.into_iter().collect::<Vec<_>>().join(" ")
    };
    let keys: Vec<String> = items(&fields[8])
        .unwrap_or_default()
        .iter()
        .map(key_spec)
        .collect();
    let number = |at: usize| as_text(&fields[at]);
    Ok(BTreeMap::from([
        ("arity".to_owned(), number(1)),
        ("flags".to_owned(), sorted(&fields[2])),
        (
            "positions".to_owned(),
            format!("{} {} {}", number(3), number(4), number(5)),
        ),
        ("categories".to_owned(), sorted(&fields[6])),
        ("keys".to_owned(), keys.join("; ")),
        ("kinds".to_owned(), fields.iter().map(kind).collect()),
    ]))
}

/// Arrays and sets, which RESP3 tells apart; `-` for any other.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn kind(value: &Value) -> char {
    match value {
        Value::Array(_) => 'a',
        Value::Set(_) => 's',
        _ => '-',
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn items(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items.clone()),
        _ => None,
    }
}

/// One key specification as text, its notes left out.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn key_spec(value: &Value) -> String {
    match value {
        Value::Map(pairs) => {
            let shown = pairs.iter().filter(|(key, _)| as_text(key) != "notes");
            let mut parts: Vec<String> = shown
                .map(|(key, value)| format!("{}={}", as_text(key), key_spec(value)))
                .collect();
            parts.sort();
            format!("{{{}}}", parts.join(" "))
        }
        Value::Array(items) | Value::Set(items) => {
            let mut parts: Vec<String> = items.iter().map(as_text).collect();
            parts.sort();
            parts.join(",")
        }
        other => as_text(other),
    }
}

fn info(client: &mut Client, name: &str) -> Result<Value> {
    let reply = client.call(&["COMMAND", "INFO", name])?;
    items(&reply)
        .and_then(|mut all| all.pop())
        .with_context(|| format!("COMMAND INFO {name}: {reply:?}"))
}

#[test]
fn every_everyday_command_is_described_as_redis_describes_it() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.hello(3)?;
    let mut problems = Vec::new();
    for name in NAMES.split_whitespace().map(str::to_ascii_lowercase) {
        let ours = info(&mut pair.our_client, &name)?;
        if ours == Value::Nil {
            problems.push(format!("{name}: not there"));
            continue;
        }
        let (ours, theirs) = (
            described(&ours)?,
            described(&info(&mut pair.their_client, &name)?)?,
        );
        for (field, expected) in &theirs {
            let newer = NEWER.iter().find(|(n, f, _)| *n == name && f == field);
            let expected = newer.map_or(expected.as_str(), |(_, _, value)| value);
            if ours[field] != expected {
                problems.push(format!(
                    "{name} {field}:\n   ours  {}\n   Redis {expected}",
                    ours[field]
                ));
            }
        }
    }
    ensure!(
        problems.is_empty(),
        "{} differences:\n{}",
        problems.len(),
        problems.join("\n")
    );
    Ok(())
}

#[test]
fn keys_are_found_where_redis_finds_them() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    for command in [
        "GET k",
        "SET k v",
        "SET k v GET",
        "MSET a 1 b 2 c 3",
        "MSET a 1 b",
        "MGET a b c",
        "DEL a b",
        "RENAME a b",
        "COPY a b",
        "LMOVE a b LEFT RIGHT",
        "LMPOP 2 a b LEFT",
        "LMPOP 3 a b LEFT",
        "LMPOP x a LEFT",
        "SINTERCARD 2 a b LIMIT 1",
        "ZUNIONSTORE d 2 a b",
        "ZUNIONSTORE d 0 a b",
        "ZUNION 2 a b",
        "ZDIFF 1 a b",
        "ZMPOP 1 a MIN",
        "ZRANGESTORE d a 0 1",
        "SMOVE a b m",
        "OBJECT ENCODING k",
        "MEMORY USAGE k",
        "WATCH a b",
        "SINTERSTORE d a b",
        "PING x",
        "NOSUCH a",
        "CONFIG GET a",
        "SWAPDB 0 1",
        "EXISTS a b",
        "TOUCH a",
        "HSET h f v",
        "ZADD z 1 m",
        "GETEX k PERSIST",
        "SUNION a b c",
        "OBJECT NOSUCH k",
        "CONFIG NOSUCH a",
        "ZUNIONSTORE d x a b",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        for question in ["GETKEYS", "GETKEYSANDFLAGS"] {
            let all: Vec<&str> = [&["COMMAND", question], &words[..]].concat();
            // 7.2, which we follow, has it right.
            if words[0] != "SINTERSTORE" || question == "GETKEYS" {
                pair.same(&all, Order::Fixed)?;
            }
        }
    }
    Ok(())
}

#[test]
fn several_passwords_of_the_default_user_work_as_in_redis() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    let fresh = pair.our_client.text("ACL LIST")?;
    ensure!(
        fresh.contains("user default on nopass sanitize-payload ~* &* +@all"),
        "{fresh}"
    );
    // The peer does not set the flag of itself, as 7.2 does.
    pair.script(
        "ACL SETUSER default sanitize-payload
        ACL LIST
        ACL GETUSER default
        ACL GETUSER nobody
        ACL WHOAMI
        ACL USERS
        ACL CAT
        ACL CAT nosuch
        ACL CAT a b
        acl cat a b
        ACL DELUSER default
        ACL DELUSER nobody
        ACL SETUSER default >a >b
        ACL LIST
        ACL SETUSER default <c
        ACL SETUSER default >d <c
        ACL SETUSER default bogus
        ACL SETUSER default #abc
        ACL SETUSER default !abc
        AUTH a
        AUTH b
        AUTH c
        AUTH default a
        ACL SETUSER default <a
        AUTH a
        ACL SETUSER default on ~* &* +@all allkeys allcommands allchannels
        ACL GETUSER default
        ACL SETUSER default resetpass
        AUTH b
        ACL LIST
        ACL SETUSER default nopass
        ACL LIST
        CONFIG SET requirepass e
        AUTH e
        ACL LIST
        CONFIG GET requirepass",
    )?;
    let refused = pair.our_client.text("ACL SETUSER default -get")?;
    ensure!(
        refused.contains("'-get'") && refused.contains("does not support"),
        "{refused}"
    );
    let refused = pair.our_client.text("ACL SETUSER bob on >pw")?;
    ensure!(refused.contains("are not supported yet"), "{refused}");
    Ok(())
}

#[test]
fn clients_are_asked_about_and_held_back_as_in_redis() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "CLIENT
        CLIENT NOSUCH
        CLIENT KILL
        CLIENT KILL 1.2.3.4:5
        CLIENT KILL ID x
        CLIENT KILL ID 0
        CLIENT KILL ID 99999
        CLIENT KILL TYPE nosuch
        CLIENT KILL SKIPME maybe
        CLIENT KILL ADDR
        CLIENT KILL USER default SKIPME yes ID 99999
        CLIENT KILL USER nosuch
        CLIENT KILL USER nosuch ID x
        CLIENT LIST TYPE nosuch
        CLIENT LIST ID x
        CLIENT LIST BOGUS
        CLIENT PAUSE
        CLIENT PAUSE x
        CLIENT PAUSE -1
        CLIENT PAUSE 1 BOGUS
        CLIENT PAUSE 1 WRITE
        CLIENT PAUSE 1 WRITE x
        CLIENT UNBLOCK 1 ERROR x
        CLIENT UNPAUSE
        CLIENT UNBLOCK x
        CLIENT UNBLOCK 99999
        CLIENT UNBLOCK 99999 BOGUS
        CLIENT REPLY BOGUS
        CLIENT REPLY ON
        CLIENT NO-EVICT on
        CLIENT NO-EVICT maybe
        CLIENT NO-EVICT off
        CLIENT SETNAME a
        CLIENT GETNAME
        CLIENT SETNAME
        HELLO 9
        HELLO x
        HELLO 3 BOGUS
        SELECT 99
        SELECT x
        PING a b
        ECHO
        RESET
        CONFIG
        CONFIG NOSUCH
        CONFIG SET nosuch 1
        CONFIG GET nosuch
        CONFIG RESETSTAT x
        OBJECT HELP
        DEBUG SLEEP 0
        WAIT x 0
        WAIT 0 x
        WAIT 0 -1
        REPLICAOF
        FAILOVER BOGUS
        FAILOVER TO a b
        FAILOVER TO a 70000
        COMMAND INFO nosuch
        LASTSAVE x
        FLUSHALL BOGUS
        SWAPDB 0
        SWAPDB x 0
        SWAPDB 0 x
        SWAPDB 0 99",
    )
}

#[test]
fn numbers_that_no_client_has_list_nobody() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "CLIENT LIST ID 0
        CLIENT LIST ID -1
        CLIENT LIST ID 99999 0 -9223372036854775808
        CLIENT LIST ID 0 x",
    )?;
    // The peer takes the longest pause, and it is over at once: 7.2 refuses it.
    for mode in ["ALL", "WRITE"] {
        let refused = pair
            .our_client
            .text(&format!("CLIENT PAUSE 9223372036854775807 {mode}"))?;
        ensure!(refused.contains("timeout is out of range"), "{refused}");
    }
    Ok(())
}

#[test]
fn cursors_directives_and_shutdown_take_only_what_redis_takes() -> Result<()> {
    Pair::start(&[])?.script(
        "SHUTDOWN BOGUS
        SHUTDOWN ABORT
        SHUTDOWN SAVE NOSAVE
        SHUTDOWN NOW ABORT
        SCAN -1
        SCAN +0
        SCAN -
        SCAN --1
        CONFIG SET appendfsync foo
        CONFIG SET appendfsync ALWAYS
        CONFIG GET appendfsync
        CONFIG SET slowlog-max-len abc
        CONFIG SET slowlog-log-slower-than -2
        CONFIG SET lazyfree-lazy-expire maybe
        CONFIG SET stream-node-max-entries x
        CONFIG SET stream-node-max-bytes x
        CONFIG SET stream-node-max-bytes 4kb
        CONFIG GET stream-node-max-bytes
        CONFIG SET active-expire-effort 11
        CONFIG SET repl-diskless-load x",
    )
}

#[test]
fn documentation_has_the_shape_of_redis() -> Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.hello(3)?;
    for name in [
        "get",
        "set",
        "config",
        "config|get",
        "zunionstore",
        "client",
        "multi",
    ] {
        let [ours, theirs] = [&mut pair.our_client, &mut pair.their_client]
            .map(|client| client.call(&["COMMAND", "DOCS", name]));
        let (ours, theirs) = (entry(&ours?, name)?, entry(&theirs?, name)?);
        for field in ["summary", "since", "group", "subcommands"] {
            ensure!(
                ours.contains_key(field) == theirs.contains_key(field),
                "{name}: {field}"
            );
        }
        for field in ["since", "group"] {
            ensure!(
                ours[field] == theirs[field],
                "{name} {field}: {} and {}",
                ours[field],
                theirs[field]
            );
        }
    }
    Ok(())
}

/// The fields of one command's documentation.
fn entry(reply: &Value, name: &str) -> Result<BTreeMap<String, String>> {
    let Value::Map(pairs) = reply else {
        anyhow::bail!("{reply:?}");
    };
    let (found, fields) = pairs.first().context("one command")?;
    ensure!(as_text(found) == name, "{found:?}");
    let Value::Map(fields) = fields else {
        anyhow::bail!("{fields:?}");
    };
    Ok(fields
        .iter()
        .map(|(key, value)| (as_text(key), as_text(value)))
        .collect())
}
