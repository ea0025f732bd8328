//! The list commands, answered as a real Redis answers them.

use redfleet_tests::diff::{Grammar, Pair};

const TEMPLATES: &str = "
6: LPUSH $k $v
6: RPUSH $k $v $v $v
2: LPUSHX $k $v
2: RPUSHX $k $v $v
4: LPOP $k
4: RPOP $k
2: LPOP $k $n
2: RPOP $k $n
LPOP $k 1 2
2: LLEN $k
4: LINDEX $k $i
4: LSET $k $i $v
3: LINSERT $k BEFORE $v $v
3: LINSERT $k AFTER $v $v
LINSERT $k BOGUS $v $v
6: LRANGE $k $i $i
2: LTRIM $k $small $i
3: LREM $k $i $v
4: LPOS $k $v
2: LPOS $k $v RANK $i
2: LPOS $k $v COUNT $n
2: LPOS $k $v RANK $i COUNT $n MAXLEN $n
LPOS $k $v BOGUS 1
LPOS $k $v RANK
4: LMOVE $k $k $side $side
3: RPOPLPUSH $k $k
LMOVE $k $k LEFT BOGUS
2: LMPOP 2 $k $k $side
2: LMPOP 1 $k $side COUNT $n
LMPOP $n $k $side
LMPOP 1 $k BOGUS
LMPOP 1 $k LEFT COUNT
LMPOP 1 $k LEFT COUNT $n $n
LMPOP 1 $k LEFT COUNT $n COUNT $n
LMPOP 1 $k LEFT BOGUS 1
LMPOP 5 $k LEFT
LPUSH $k
";

fn grammar() -> Grammar {
    let (long, longer) = ("v".repeat(300), "w".repeat(9000));
    let values = [
        "a",
        "b",
        "c",
        "1",
        "2",
        "-7",
        "",
        "12345678901",
        &long,
        &longer,
    ];
    Grammar::new(TEMPLATES)
        .choice(
            "$k",
            &["l1", "l1", "l1", "l2", "l2", "l3", "text", "missing"],
        )
        .choice("$v", &values)
        .choice("$side", &["LEFT", "RIGHT", "left"])
        .choice("$small", &["0", "0", "1", "2"])
        .choice(
            "$i",
            &["0", "1", "2", "-1", "-2", "5", "30", "-30", "1000", "x"],
        )
        .choice("$n", &["0", "1", "2", "3", "10", "-1", "x"])
}

fn keys() -> Vec<String> {
    ["l1", "l2", "l3", "text"].map(str::to_owned).to_vec()
}

#[test]
fn random_list_commands_get_the_replies_of_redis() -> anyhow::Result<()> {
    for (seed, options) in [
        (1, vec![]),
        (2, vec!["--list-max-listpack-size", "4"]),
        (3, vec!["--list-max-listpack-size", "-1"]),
    ] {
        let mut pair = Pair::start(&options)?;
        pair.script("SET text 5")?;
        pair.random(&grammar(), seed, 4000, &keys())?;
        pair.hello(3)?;
        pair.random(&grammar(), seed + 100, 1500, &keys())?;
    }
    Ok(())
}
