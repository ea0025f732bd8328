//! The set commands, answered as a real Redis answers them.

use std::collections::HashSet;

use redfleet_tests::diff::{Grammar, Order, Pair};

const TEMPLATES: &str = "
8: SADD $k $m
6: SADD $k $m $m $m $m
3: SREM $k $m
2: SREM $k $m $m $m
4: SMOVE $k $k $m
4: SISMEMBER $k $m
2: SMISMEMBER $k $m $m $m
2: SCARD $k
2: SMEMBERS $k
3: SINTER $k $k
SINTER $k
2: SINTER $k $k $k
2: SINTERCARD 2 $k $k
SINTERCARD 2 $k $k LIMIT $n
SINTERCARD $n $k $k
SINTERCARD 1 $k LIMIT
SINTERCARD 1 $k BOGUS 1
2: SINTERSTORE $k $k $k
3: SUNION $k $k
2: SUNIONSTORE $k $k $k
3: SDIFF $k $k
2: SDIFF $k $k $k
2: SDIFFSTORE $k $k $k
SPOP $k 0
SPOP nobody 3
SPOP nobody
SPOP word
SPOP word 3
SPOP $k $bad
SPOP $k 1 2
2: SPOP $k 1000
SRANDMEMBER nobody
SRANDMEMBER word
SRANDMEMBER word 3
SRANDMEMBER nobody 3
SRANDMEMBER $k 0
SRANDMEMBER $k x
SRANDMEMBER nobody 9223372036854775807
SRANDMEMBER nobody -9223372036854775807
SRANDMEMBER word -9223372036854775807
SRANDMEMBER $k -9223372036854775808
SRANDMEMBER $k 1 2
2: SSCAN $k 0
SSCAN $k 0 MATCH a*
SSCAN $k 0 COUNT 3
SSCAN word 0
SSCAN $small 0
SSCAN $small 0 MATCH a*
SSCAN $k x
SSCAN $small 0 COUNT -5
SADD $k
";

fn grammar() -> Grammar {
    let long = "m".repeat(80);
    let mut members: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    members.extend((0..10).map(|n| format!("a{n}")));
    members.extend([
        "-1".into(),
        "9223372036854775807".into(),
        "70000".into(),
        String::new(),
        long,
    ]);
    Grammar::new(TEMPLATES)
        .choice(
            "$k",
            &["s1", "s1", "s2", "s2", "s3", "s4", "text", "missing"],
        )
        .choice("$small", &["small"])
        .choice("$missing", &["missing2"])
        .choice("$wrong", &["text"])
        .choice("$bad", &["x", "-1"])
        .choice("$m", &members)
        .choice("$n", &["0", "1", "2", "5", "-1", "x"])
}

fn keys() -> Vec<String> {
    ["s1", "s2", "s3", "s4", "missing", "text"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn random_set_commands_get_the_replies_of_redis() -> anyhow::Result<()> {
    for (seed, options) in [(1, vec![]), (2, vec!["--set-max-intset-entries", "4"])] {
        let mut pair = Pair::start(&options)?;
        pair.script("SET text 5\nSET word 5\nSADD small a1 a2 b1")?;
        pair.random(&grammar(), seed, 4000, &keys())?;
        pair.hello(3)?;
        pair.random(&grammar(), seed + 100, 2000, &keys())?;
    }
    Ok(())
}

#[test]
fn popped_and_drawn_members_come_from_the_set_in_the_asked_number() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for n in 0..700 {
        pair.same(
            &["SADD".to_owned(), "big".into(), format!("m{n}")],
            Order::Fixed,
        )?;
    }
    let client = &mut pair.our_client;
    for (count, expected) in [(5, 5), (600, 600), (9000, 700)] {
        let reply = client.call(&["SRANDMEMBER", "big", &count.to_string()])?;
        let members: HashSet<String> = redis::from_redis_value(reply)?;
        assert_eq!(members.len(), expected);
    }
    let drawn: Vec<String> =
        redis::from_redis_value(client.call(&["SRANDMEMBER", "big", "-50"])?)?;
    assert_eq!(drawn.len(), 50);
    let mut popped = HashSet::new();
    for (count, left) in [(1, 699), (10, 689), (500, 189), (189, 0)] {
        let reply = client.call(&["SPOP", "big", &count.to_string()])?;
        let members: Vec<String> = redis::from_redis_value(reply)?;
        assert_eq!(members.len(), count);
        assert!(members.into_iter().all(|member| popped.insert(member)));
        assert_eq!(client.text("SCARD big")?, left.to_string());
    }
    Ok(())
}
