//! Commands on strings and on keys of any type, answered as a real Redis answers them. Deadlines are compared where they
//! were given as a moment: how much of a duration is left depends on when each server was asked. DBSIZE counts keys whose
//! time is over until somebody notices, so it is asked where nothing expires.

use redfleet_tests::diff::{Grammar, Order, Pair};

const TEMPLATES: &str = "
8: SET $k $v
2: SET $k $v NX
2: SET $k $v XX
SET $k $v GET
SET $k $v NX GET
SET $k $v EX $t
SET $k $v PX $t KEEPTTL
SET $k $v KEEPTTL
SET $k $v EXAT $t NX XX
SET $k $v BOGUS
SET $k $v EX
8: GET $k
2: SETNX $k $v
SETEX $k $t $v
PSETEX $k $t $v
2: GETSET $k $v
2: GETDEL $k
GETEX $k
GETEX $k PERSIST
GETEX $k EX $t
GETEX $k BOGUS
GETEX $k EX 10 PERSIST
3: MGET $k $k $k
2: MSET $k $v $k $v
MSET $k $v $k
2: MSETNX $k $v $k $v
MSETNX $k $v $k
3: APPEND $k $v
3: STRLEN $k
4: INCR $k
2: DECR $k
4: INCRBY $k $n
3: DECRBY $k $n
3: INCRBYFLOAT $k $f
4: GETRANGE $k $i $i
SUBSTR $k $i $i
3: SETRANGE $k $i $v
3: DEL $k
UNLINK $k $k
3: EXISTS $k $k
3: TYPE $k
2: TOUCH $k $k
TTL nobody
PTTL nobody
2: EXPIRE $k $t
PEXPIRE $k $t
EXPIREAT $k $t
PEXPIREAT $k $t
2: SET at $v
2: EXPIREAT at $at
3: EXPIREAT at $at $opt
EXPIREAT at $at $opt $opt
PEXPIREAT at $at
PERSIST at
SET at $v EXAT $at
SET at $v KEEPTTL
GETEX at EXAT $at
2: EXPIRETIME at
PEXPIRETIME at
EXPIRETIME nobody
2: PERSIST $k
2: RENAME $k $k
RENAMENX $k $k
2: COPY $k $k
COPY $k $k REPLACE
COPY $k $k DB $db
COPY $k $k BOGUS
MOVE $k $db
SWAPDB 0 $db
2: SCAN 0
SCAN 0 MATCH k*
SCAN 0 COUNT $i
SCAN 0 TYPE string
SCAN 0 TYPE list
SCAN x
SCAN 0 BOGUS 1
KEYS nothing*
OBJECT ENCODING nobody
OBJECT REFCOUNT nobody
OBJECT BOGUS $k
OBJECT ENCODING
3: LPUSH list $v
SADD set $v
HSET hash f $v
SELECT $db
SELECT 0
2: SELECT 0
FLUSHDB BOGUS
GET
INCR
";

fn grammar() -> Grammar {
    let long = "x".repeat(50);
    let values = [
        "1",
        "-7",
        "0",
        "9223372036854775807",
        "-9223372036854775808",
        "3.5",
        "abc",
        "",
        " 12",
        "007",
        &long,
    ];
    Grammar::new(TEMPLATES)
        .choice(
            "$k",
            &[
                "k1", "k1", "k2", "k2", "k3", "k4", "list", "set", "hash", "missing",
            ],
        )
        .choice("$v", &values)
        .choice(
            "$n",
            &[
                "1",
                "-1",
                "100",
                "9223372036854775807",
                "-9223372036854775808",
                "x",
                "1.5",
                "+1",
                "007",
            ],
        )
        .choice("$f", &["0.1", "-2.5", "1e10", "x", "inf", "3"])
        .choice(
            "$i",
            &["0", "1", "3", "-1", "-3", "100", "-100", "x", "600000000"],
        )
        .choice(
            "$t",
            &[
                "0",
                "-1",
                "1000000",
                "9223372036854775807",
                "-9223372036854775808",
                "x",
                "99999999999",
            ],
        )
        .choice("$at", &["4102444800", "4102444900", "4102445000", "1", "x"])
        .choice("$opt", &["NX", "XX", "GT", "LT", "BOGUS"])
        .choice("$db", &["0", "1", "15", "16", "-1", "x"])
}

#[test]
fn random_commands_on_strings_and_keys_get_the_replies_of_redis() -> anyhow::Result<()> {
    let keys: Vec<String> = ["k1", "k2", "k3", "k4", "list", "set", "hash", "missing"]
        .map(str::to_owned)
        .to_vec();
    for seed in [1, 2] {
        let mut pair = Pair::start(&[])?;
        pair.random(&grammar(), seed, 5000, &keys)?;
        pair.hello(3)?;
        pair.random(&grammar(), seed + 100, 2500, &keys)?;
    }
    Ok(())
}

#[test]
fn options_may_come_twice_where_redis_takes_them() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "SET k v EX 10 EX 20000
        EXPIRETIME nobody
        SET k v EXAT 1 EXAT 4102444800
        EXPIRETIME k
        SET k v PXAT x PXAT 4102444900000
        EXPIRETIME k
        SET k v PX 1 PX 20000 GET GET
        SET k v EX 0 EX 20
        SET k v EX 20 EX 0
        SET k v EX 20 EX x
        SET k v EX EX 20
        SET k v EX 20 EX
        SET k v EX 20 PX 20000
        SET k v EX 20 KEEPTTL
        SET k v KEEPTTL EX 20
        SET k v EXAT 4102444800
        SET k w KEEPTTL KEEPTTL
        EXPIRETIME k
        SET k v NX NX
        SET new v XX XX
        SET k v NX XX
        SET k v PERSIST
        GETEX k EXAT 5 EXAT 4102444800
        EXPIRETIME k
        GETEX k PXAT x PXAT 4102444900000
        EXPIRETIME k
        GETEX k EX 10 PX 10
        GETEX k EX 10 PERSIST
        GETEX k PERSIST EX 10
        GETEX k EX 20 EX 0
        GETEX k EX
        GETEX k EX EX 1
        GETEX k PERSIST PERSIST
        EXPIRETIME k
        GETEX k PERSIST x
        GETEX k KEEPTTL
        GETEX k NX
        GETEX k
        EXISTS k",
    )
}

#[test]
fn encodings_are_named_as_redis_names_them() -> anyhow::Result<()> {
    let mut pair = Pair::start(&["--list-max-listpack-size", "4"])?;
    let lines = format!(
        "SET int 12345
        SET shared 9999
        SET unshared 10000
        SET minus -1
        SET short abc
        SET long {}
        SET big 12345678901234567890
        APPEND short x
        SET changed 12
        APPEND changed 3
        INCR changed
        HSET h f v
        HSET hbig f {}
        SADD ints 1 2 3
        ZADD z 1 m
        ZADD zbig 1 {}
        RPUSH l a b c d e f",
        "x".repeat(45),
        "x".repeat(65),
        "x".repeat(65)
    );
    pair.script(&lines)?;
    for key in [
        "int", "shared", "unshared", "minus", "short", "long", "big", "changed", "h", "hbig",
        "ints", "z", "zbig", "l", "nobody",
    ] {
        pair.script(&format!(
            "OBJECT ENCODING {key}\nTYPE {key}\nOBJECT REFCOUNT {key}"
        ))?;
    }
    Ok(())
}

#[test]
fn transactions_answer_as_redis_does() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "EXEC
        DISCARD
        MULTI
        MULTI
        WATCH k
        SET k 1
        INCR k
        LPUSH k x
        GET k
        EXEC
        MULTI
        SET k
        SET k 2
        EXEC
        GET k
        MULTI
        NOSUCH a b
        EXEC
        WATCH k
        SET k 5
        MULTI
        SET k 6
        EXEC
        GET k
        WATCH k k2
        UNWATCH
        SET k 7
        MULTI
        GET k
        EXEC
        MULTI
        GET k
        DISCARD
        MULTI
        SHUTDOWN
        EXEC
        MULTI
        EXEC
        MULTI
        SELECT 1
        SET other 1
        EXEC
        GET other
        SELECT 0
        GET other
        DBSIZE
        FLUSHALL
        DBSIZE
        MULTI
        SET x 1
        CONFIG bogus
        EXEC
        GET x",
    )
}

#[test]
fn commands_that_fail_change_no_watched_key() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "SET most 9223372036854775807
        SET least -9223372036854775808
        SET text abc
        RPUSH list a",
    )?;
    for (key, failing) in [
        ("most", "INCR most"),
        ("most", "INCRBY most 5"),
        ("most", "INCRBYFLOAT most x"),
        ("least", "DECR least"),
        ("least", "DECRBY least 5"),
        ("least", "DECRBY least -9223372036854775808"),
        ("text", "INCR text"),
        ("text", "DECRBY text 2"),
        ("list", "INCR list"),
        ("list", "APPEND list x"),
        ("most", "INCR other"),
        ("least", "INCR least"),
    ] {
        pair.script(&format!("WATCH {key}\n{failing}\nMULTI\nTYPE {key}\nEXEC"))?;
    }
    Ok(())
}

#[test]
fn an_empty_name_matches_one_star_only() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for words in [["SET", "", "v"], ["SADD", "s", ""], ["SADD", "s", "a"]] {
        pair.same(&words, Order::Fixed)?;
    }
    for pattern in ["*", "**", "***", "*?", "?*", "[^a]"] {
        pair.same(&["KEYS", pattern], Order::Any)?;
        pair.script(&format!(
            "SCAN 0 MATCH {pattern}\nSSCAN s 0 MATCH {pattern}"
        ))?;
    }
    for words in [&["KEYS", ""][..], &["SSCAN", "s", "0", "MATCH", ""]] {
        pair.same(words, Order::Any)?;
    }
    Ok(())
}

#[test]
fn subcommands_and_databases_that_are_not_there_are_refused_as_redis_does() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "MULTI
        CONFIG GET
        EXEC
        MULTI
        OBJECT ENCODING
        EXEC
        MULTI
        ACL nosuch a
        EXEC
        MULTI
        COMMAND nosuch
        EXEC
        MEMORY nosuch
        CLIENT nosuch a b
        CLIENT
        SELECT 2147483647
        SELECT 2147483648
        SELECT -2147483649
        SELECT -1
        SELECT x
        MOVE x 99999999999
        MOVE x 16
        MOVE x x
        COPY x y DB 99999999999
        COPY x y DB -1
        SWAPDB 0 99999999999",
    )
}
