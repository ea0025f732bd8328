//! The hash commands, answered as a real Redis answers them.

use redfleet_tests::diff::{Grammar, Order, Pair};

const TEMPLATES: &str = "
8: HSET $k $f $v
4: HSET $k $f $v $f $v
HSET $k $f $v $f
2: HMSET $k $f $v $f $v $f $v
2: HSETNX $k $f $v
4: HGET $k $f
2: HMGET $k $f $f $f
2: HGETALL $k
HKEYS $k
HVALS $k
HLEN $k
HSTRLEN $k $f
HEXISTS $k $f
3: HDEL $k $f
2: HDEL $k $f $f $f
4: HINCRBY $k $f $i
3: HINCRBYFLOAT $k $f $d
HRANDFIELD nobody 3
HRANDFIELD $wrong
HRANDFIELD $wrong 3
HRANDFIELD $k 0
HRANDFIELD $k abc
HRANDFIELD $k 2 BOGUS
HRANDFIELD nobody 9223372036854775807
HRANDFIELD nobody -9223372036854775807
HRANDFIELD $k 4611686018427387904 WITHVALUES
HRANDFIELD $k -4611686018427387904 WITHVALUES
HRANDFIELD $wrong 9223372036854775807 WITHVALUES
HRANDFIELD $k -9223372036854775808 WITHVALUES
HRANDFIELD $k 9223372036854775807 BOGUS
2: HSCAN $k 0
HSCAN $small 0
HSCAN $small 0 MATCH f*
HSCAN $small 0 MATCH f[1-3] COUNT 1000
HSCAN $k 0 COUNT 2
HSCAN $k abc
HSCAN $small 0 COUNT 0
HSCAN $small 0 COUNT abc
HSCAN $small 0 BOGUS 1
HSCAN $missing 0 BOGUS 1
HGET $k
HSET $k $f
";

fn grammar() -> Grammar {
    let long = "v".repeat(70);
    let fields: Vec<String> = (0..12)
        .map(|n| format!("f{n}"))
        .chain(["7".into(), "-3".into()])
        .collect();
    let values = [
        "1",
        "10",
        "-5",
        "922337203685477",
        "abc",
        "",
        "3.5",
        "-0.25",
        " 1",
        &long,
    ];
    Grammar::new(TEMPLATES)
        .choice(
            "$k",
            &[
                "h1", "h1", "h1", "h2", "h2", "h3", "small", "text", "missing",
            ],
        )
        .choice("$small", &["small", "small", "text"])
        .choice("$missing", &["missing"])
        .choice("$wrong", &["text"])
        .choice("$f", &fields)
        .choice("$v", &values)
        .choice(
            "$i",
            &[
                "1",
                "-1",
                "10",
                "9223372036854775807",
                "-9223372036854775808",
                "x",
                "1.5",
            ],
        )
        .choice(
            "$d",
            &[
                "0.5",
                "-0.25",
                "1",
                "1e2",
                "3.0",
                "x",
                "inf",
                "nan",
                "0.1",
                "-0",
                "1e20",
                "1e-17",
                "9.99999999999999999",
                "1e5000",
                "1e-5000",
                "0x1p3",
                " 1",
                "",
            ],
        )
}

fn keys() -> Vec<String> {
    ["h1", "h2", "h3", "small", "text"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn random_hash_commands_get_the_replies_of_redis() -> anyhow::Result<()> {
    for (seed, options) in [
        (1, vec![]),
        (2, vec!["--hash-max-listpack-entries", "4"]),
        (3, vec!["--hash-max-listpack-value", "5"]),
    ] {
        let mut pair = Pair::start(&options)?;
        pair.script("SET text 5\nHSET small f1 v1 f2 v2 f3 v3")?;
        pair.random(&grammar(), seed, 3000, &keys())?;
        pair.hello(3)?;
        pair.random(&grammar(), seed + 100, 1500, &keys())?;
    }
    Ok(())
}

#[test]
fn a_scan_of_a_big_hash_reports_every_field() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for n in 0..2000 {
        pair.same(
            &[
                "HSET".to_owned(),
                "big".into(),
                format!("f{n}"),
                n.to_string(),
            ],
            Order::Fixed,
        )?;
    }
    let mut seen = std::collections::HashSet::new();
    let mut cursor = "0".to_owned();
    let mut steps = 0;
    loop {
        let reply = pair
            .our_client
            .call(&["HSCAN", "big", &cursor, "COUNT", "50"])?;
        let (next, elements): (String, Vec<String>) = redis::from_redis_value(reply)?;
        seen.extend(elements.chunks(2).map(|chunk| chunk[0].clone()));
        cursor = next;
        steps += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 2000);
    // COUNT counts fields and values, as in Redis: every step but the last reports 25 fields or more.
    assert!((10..=80).contains(&steps), "{steps} steps");
    Ok(())
}

#[test]
fn random_fields_come_from_the_hash_in_the_asked_number() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for n in 0..700 {
        pair.same(
            &[
                "HSET".to_owned(),
                "big".into(),
                format!("f{n}"),
                format!("v{n}"),
            ],
            Order::Fixed,
        )?;
    }
    let client = &mut pair.our_client;
    for (count, expected, unique) in [
        (5, 5, true),
        (600, 600, true),
        (9000, 700, true),
        (-50, 50, false),
    ] {
        let fields: Vec<String> =
            redis::from_redis_value(client.call(&["HRANDFIELD", "big", &count.to_string()])?)?;
        assert_eq!(fields.len(), expected);
        let distinct: std::collections::HashSet<_> = fields.iter().collect();
        assert!(!unique || distinct.len() == fields.len());
        assert!(fields.iter().all(|field| field.starts_with('f')));
    }
    let pairs: Vec<String> =
        redis::from_redis_value(client.call(&["HRANDFIELD", "big", "-20", "WITHVALUES"])?)?;
    assert!(pairs.chunks(2).all(|pair| pair[0][1..] == pair[1][1..]));
    Ok(())
}

#[test]
fn decimal_sums_are_those_of_redis() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    pair.script(
        "HSET h a 0.1 b 10.50 c 3.0e3 d 5.0e3 e abc
        HINCRBYFLOAT h a 0.2
        HINCRBYFLOAT h a 0.3
        HINCRBYFLOAT h b 0.1
        HINCRBYFLOAT h c 200
        HINCRBYFLOAT h d -5000
        HINCRBYFLOAT h e 1
        HINCRBYFLOAT h f 1.1
        HINCRBYFLOAT h f inf
        SET s 0.1
        INCRBYFLOAT s 0.2
        INCRBYFLOAT s 1e-17
        HGETALL h",
    )
}
