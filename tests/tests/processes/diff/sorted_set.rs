//! The sorted set commands, answered as a real Redis answers them.
//!
//! Not compared: ranges by name over members of unequal scores. Redis leaves their result open, and where it keeps the
//! set as a skip list it depends on the random heights of its nodes; so those ranges ask keys whose scores are all 0.

use std::collections::HashSet;

use redfleet_tests::diff::{Grammar, Order, Pair};

const TEMPLATES: &str = "
10: ZADD $k $s $m
6: ZADD $k $s $m $s $m $s $m
6: ZADD $k $opt $s $m $s $m
4: ZADD $k $opt $opt $s $m
2: ZADD $k $s $m $s
3: ZADD $k INCR $s $m
2: ZADD $k $opt INCR $s $m
ZADD $k INCR $s $m $s $m
4: ZINCRBY $k $s $m
3: ZREM $k $m
2: ZREM $k $m $m $m
2: ZCARD $k
4: ZSCORE $k $m
2: ZMSCORE $k $m $m $m
3: ZRANK $k $m
3: ZREVRANK $k $m
4: ZRANGE $k $i $i
3: ZRANGE $k $i $i WITHSCORES
2: ZRANGE $k $i $i REV WITHSCORES
3: ZRANGE $k $b $b BYSCORE WITHSCORES
2: ZRANGE $k $b $b BYSCORE REV LIMIT $n $n
2: ZRANGE $lexkey $l $l BYLEX
ZRANGE $lexkey $l $l BYLEX REV LIMIT $n $n
ZRANGE $lexkey $l $l BYLEX WITHSCORES
ZRANGE $k $i $i LIMIT 0 5
ZRANGE $k $i $i LIMIT 0 -1
ZRANGE $k $i $i BOGUS
2: ZREVRANGE $k $i $i WITHSCORES
3: ZRANGEBYSCORE $k $b $b WITHSCORES
2: ZRANGEBYSCORE $k $b $b LIMIT $n $n
2: ZREVRANGEBYSCORE $k $b $b WITHSCORES LIMIT $n $n
2: ZRANGEBYLEX $lexkey $l $l
ZRANGEBYLEX $lexkey $l $l LIMIT $n $n
2: ZREVRANGEBYLEX $lexkey $l $l
2: ZRANGESTORE $k $k $i $i
ZRANGESTORE $k $k $b $b BYSCORE LIMIT $n $n
ZRANGESTORE $k $k $b $b BYSCORE REV
ZRANGESTORE $k $k $i $i WITHSCORES
2: ZCOUNT $k $b $b
2: ZLEXCOUNT $lexkey $l $l
ZREMRANGEBYRANK $k $n $n
ZREMRANGEBYSCORE $k $b $b
ZREMRANGEBYLEX $lex $l $l
2: ZPOPMIN $k
2: ZPOPMAX $k
ZPOPMIN $k $n
ZPOPMAX $k $n
ZPOPMIN $k 1 2
2: ZMPOP 2 $k $k MIN
2: ZMPOP 1 $k MAX COUNT $n
ZMPOP $n $k MIN
ZMPOP 1 $k BOGUS
ZMPOP 1 $k MIN COUNT
ZMPOP 1 $k MIN COUNT $n $n
ZMPOP 1 $k MAX COUNT $n COUNT $n
2: ZUNION 2 $k $k WITHSCORES
2: ZINTER 2 $k $k WITHSCORES
2: ZDIFF 2 $k $k WITHSCORES
ZUNION 2 $k $k WEIGHTS $w $w AGGREGATE $agg WITHSCORES
ZINTER 2 $k $k WEIGHTS $w $w AGGREGATE $agg WITHSCORES
ZUNION 2 $k set WITHSCORES
ZINTER 2 set $k WITHSCORES
ZDIFF 2 $k set
ZUNION $n $k $k
ZUNION 2 $k $k WEIGHTS 1
ZUNION 2 $k $k AGGREGATE BOGUS
ZDIFF 2 $k $k WEIGHTS 1 2
2: ZUNIONSTORE $k 2 $k $k
2: ZINTERSTORE $k 2 $k $k WEIGHTS $w $w
2: ZDIFFSTORE $k 2 $k $k
ZUNIONSTORE $k 2 $k $k AGGREGATE $agg
ZUNIONSTORE $k 1 $k WITHSCORES
ZINTERCARD 2 $k $k
ZINTERCARD 2 $k $k LIMIT $n
ZINTERCARD 0 $k
ZRANDMEMBER nobody
ZRANDMEMBER nobody 3
ZRANDMEMBER word
ZRANDMEMBER word 3
ZRANDMEMBER $k 0
ZRANDMEMBER $k x
ZRANDMEMBER $k 2 BOGUS
ZRANDMEMBER nobody 9223372036854775807
ZRANDMEMBER nobody -9223372036854775807
ZRANDMEMBER $k 4611686018427387904 WITHSCORES
ZRANDMEMBER $k -4611686018427387904 WITHSCORES
ZRANDMEMBER word 9223372036854775807 WITHSCORES
ZRANDMEMBER $k -9223372036854775808 WITHSCORES
ZRANDMEMBER $k 9223372036854775807 BOGUS
ZSCAN $small 0
ZSCAN $small 0 MATCH a*
2: ZSCAN $k 0
ZSCAN $k 0 MATCH m1* COUNT 3
ZSCAN word 0
ZSCAN $k x
ZADD $k 1
2: ZADD $lex 0 $m 0 $m
3: ZRANGEBYLEX $lex $l $l
3: ZREVRANGEBYLEX $lex $l $l
2: ZLEXCOUNT $lex $l $l
";

/// Whether scores and weights may be negative zeros.
#[derive(Clone, Copy, PartialEq)]
enum Zeros {
    /// A listpack drops the sign. Where sets change their encoding all the time, the moment of the change shows, which is
    /// another one in Redis 7.0 (the peer) than in 7.2 (which we follow).
    Unsigned,
    /// They may.
    Signed,
}

fn grammar(zeros: Zeros) -> Grammar {
    let mut members: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    let minus_zero = if zeros == Zeros::Signed { "-0" } else { "0" };
    members.extend(["1".into(), "-5".into(), String::new(), "x".repeat(80)]);
    Grammar::new(TEMPLATES)
        .choice(
            "$k",
            &["z1", "z1", "z1", "z2", "z2", "z3", "z4", "text", "missing"],
        )
        .choice("$lex", &["lex"])
        .choice("$lexkey", &["lex", "lex", "lex", "word", "nobody"])
        .choice("$small", &["small"])
        .choice("$missing", &["missing2"])
        .choice("$m", &members)
        .choice("$opt", &["NX", "XX", "GT", "LT", "CH", "ch"])
        .choice(
            "$s",
            &[
                "1",
                "2",
                "3",
                "0.5",
                "-1.25",
                "100",
                "inf",
                "-inf",
                "+inf",
                "3e2",
                "0",
                minus_zero,
                "x",
                "7",
                "-8",
                "0.1",
                "1e17",
                "-1.7976931348623157e308",
                "5e-324",
                "1e400",
                "1e-400",
                "nan",
                "9223372036854775807",
                "-9223372036854775808",
                "4611686018427387904",
                "123456789012345680",
                "0x10",
                " 1",
                "",
            ],
        )
        .choice(
            "$w",
            &[
                "1", "2", "-0.5", "0", minus_zero, "inf", "-inf", "0.1", "x", "nan",
            ],
        )
        .choice("$agg", &["SUM", "MIN", "MAX", "max"])
        .choice("$i", &["0", "1", "5", "-1", "-3", "100", "-100", "x"])
        .choice("$n", &["0", "1", "2", "3", "10", "-1", "x"])
        .choice(
            "$b",
            &[
                "-inf", "+inf", "0", "(0.5", "1", "(2", "3", "100", "x", "(", "", " 1", "1 ",
                "(inf", minus_zero, "(-0", "1e400", "nan", "(x", "0x10", "0.1", "(-inf",
            ],
        )
        .choice(
            "$l",
            &["-", "+", "[m1", "(m2", "[m3", "(m35", "[", "x", "[zzz"],
        )
}

fn keys() -> Vec<String> {
    ["z1", "z2", "z3", "z4", "lex", "missing", "text"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn random_sorted_set_commands_get_the_replies_of_redis() -> anyhow::Result<()> {
    for (seed, options, zeros) in [
        (1, vec![], Zeros::Signed),
        (2, vec!["--zset-max-listpack-entries", "4"], Zeros::Unsigned),
        (3, vec!["--zset-max-listpack-entries", "0"], Zeros::Signed),
    ] {
        let mut pair = Pair::start(&options)?;
        pair.script("SET text 5\nSET word 5\nZADD small 1 a1 2 a2 3 b1\nSADD set m1 m2 m3 m9")?;
        pair.random(&grammar(zeros), seed, 6000, &keys())?;
        pair.hello(3)?;
        pair.random(&grammar(zeros), seed + 100, 3000, &keys())?;
    }
    Ok(())
}

#[test]
fn ranks_and_ranges_of_a_big_set_are_those_of_redis() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for n in 0..3000u32 {
        let score = (n.wrapping_mul(2_654_435_761) >> 20).to_string();
        pair.same(&["ZADD", "big", &score, &format!("m{n}")], Order::Fixed)?;
    }
    for n in (0..3000).step_by(37) {
        pair.same(&["ZRANK", "big", &format!("m{n}")], Order::Fixed)?;
        pair.same(&["ZREVRANK", "big", &format!("m{n}")], Order::Fixed)?;
        let (start, end) = (n.to_string(), (n + 70).to_string());
        pair.same(&["ZRANGE", "big", &start, &end, "WITHSCORES"], Order::Fixed)?;
        pair.same(
            &["ZREVRANGE", "big", &start, &end, "WITHSCORES"],
            Order::Fixed,
        )?;
        pair.same(&["ZCOUNT", "big", &start, &end], Order::Fixed)?;
    }
    pair.script("ZREMRANGEBYRANK big 100 1500\nZREMRANGEBYSCORE big 2000 (2500")?;
    pair.script("ZRANGE big 0 -1 WITHSCORES\nZREVRANGE big 0 -1 WITHSCORES")
}

#[test]
fn a_scan_of_a_big_set_shows_seventeen_digits() -> anyhow::Result<()> {
    let mut pair = Pair::start(&["--zset-max-listpack-entries", "0"])?;
    for score in [
        "0.1",
        "-0.1",
        "0.3",
        "3",
        "-0",
        "1e16",
        "1e17",
        "123456789012345678",
        "1e-5",
        "0.0001",
        "1.7e300",
        "inf",
        "-inf",
        "1234567890123456.75",
        "5e-324",
    ] {
        pair.same(&["DEL", "z"], Order::Fixed)?;
        pair.same(&["ZADD", "z", score, "m"], Order::Fixed)?;
        let [ours, theirs] =
            [&mut pair.our_client, &mut pair.their_client].map(|client| client.text("ZSCAN z 0"));
        assert_eq!(ours?, theirs?);
    }
    Ok(())
}

#[test]
fn random_members_come_from_the_set_in_the_asked_number() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for n in 0..700 {
        pair.same(
            &[
                "ZADD".to_owned(),
                "big".into(),
                n.to_string(),
                format!("m{n}"),
            ],
            Order::Fixed,
        )?;
    }
    let client = &mut pair.our_client;
    for (count, expected) in [(5, 5), (600, 600), (9000, 700)] {
        let reply = client.call(&["ZRANDMEMBER", "big", &count.to_string()])?;
        let members: HashSet<String> = redis::from_redis_value(reply)?;
        assert_eq!(members.len(), expected);
    }
    let drawn: Vec<String> =
        redis::from_redis_value(client.call(&["ZRANDMEMBER", "big", "-20", "WITHSCORES"])?)?;
    assert!(
        drawn
            .chunks(2)
            .all(|pair| pair[0] == format!("m{}", pair[1]))
    );
    Ok(())
}
