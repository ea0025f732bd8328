//! Numbers as text: sums of INCRBYFLOAT and HINCRBYFLOAT (80-bit floats of x86 in Redis), sums of scores (doubles), and
//! what is a number at all. Thousands of pairs, calculated by us and by a real Redis.

use redfleet_tests::diff::{Order, Pair, Random};

/// Pairs of each kind.
const PAIRS: usize = 3000;

/// A number as people and programs write them: short decimals, integers, exponents, many digits, hexadecimal.
fn number(random: &mut Random) -> String {
    let sign = *random.pick(&["", "", "-", "+"]);
    let digits = |random: &mut Random, most: usize| {
        let count = 1 + random.below(most);
        (0..count)
            .map(|_| char::from(b'0' + random.below(10) as u8))
            .collect::<String>()
    };
    let body = match random.below(8) {
        0 => digits(random, 3),
        1 => digits(random, 19),
        2 => format!("{}.{}", digits(random, 3), digits(random, 2)),
        3 => format!("{}.{}", digits(random, 8), digits(random, 17)),
        4 => format!("{}.{}", digits(random, 25), digits(random, 25)),
        5 => format!("{}e{}", digits(random, 4), random.below(40) as i64 - 20),
        6 => format!(
            "{}.{}E{}",
            digits(random, 3),
            digits(random, 10),
            random.below(9900) as i64 - 4950
        ),
        _ => format!(
            "0x{:x}.{:x}p{}",
            random.below(1 << 40),
            random.below(1 << 30),
            random.below(80) as i64 - 40
        ),
    };
    format!("{sign}{body}")
}

#[test]
fn sums_of_decimals_have_the_text_of_redis() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    let mut random = Random::new(11);
    for _ in 0..PAIRS {
        let (one, other) = (number(&mut random), number(&mut random));
        pair.same(&["SET", "s", &one], Order::Fixed)?;
        pair.same(&["INCRBYFLOAT", "s", &other], Order::Fixed)?;
        pair.same(&["INCRBYFLOAT", "s", &one], Order::Fixed)?;
        pair.same(&["GET", "s"], Order::Fixed)?;
        pair.same(&["HSET", "h", "f", &one], Order::Fixed)?;
        pair.same(&["HINCRBYFLOAT", "h", "f", &other], Order::Fixed)?;
        pair.same(&["HGET", "h", "f"], Order::Fixed)?;
    }
    Ok(())
}

#[test]
fn a_running_sum_stays_that_of_redis() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    let mut random = Random::new(12);
    for _ in 0..PAIRS {
        let cents = random.below(100_000) as i64 - 50_000;
        let amount = format!(
            "{}{}.{:02}",
            if cents < 0 { "-" } else { "" },
            cents.abs() / 100,
            cents.abs() % 100
        );
        pair.same(&["INCRBYFLOAT", "balance", &amount], Order::Fixed)?;
        pair.same(&["ZINCRBY", "balances", &amount, "m"], Order::Fixed)?;
    }
    Ok(())
}

#[test]
fn sums_of_scores_are_those_of_redis() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    let mut random = Random::new(13);
    for _ in 0..PAIRS {
        let (one, other) = (number(&mut random), number(&mut random));
        pair.same(&["DEL", "z"], Order::Fixed)?;
        pair.same(&["ZADD", "z", &one, "m"], Order::Fixed)?;
        pair.same(&["ZINCRBY", "z", &other, "m"], Order::Fixed)?;
        pair.same(&["ZSCORE", "z", "m"], Order::Fixed)?;
        pair.same(&["ZRANGEBYSCORE", "z", &one, &other], Order::Fixed)?;
    }
    Ok(())
}

/// Texts that are numbers, nearly numbers, and none.
const TEXTS: &[&str] = &[
    "",
    " ",
    "1 ",
    " 1",
    "+",
    "-",
    ".",
    "1.",
    ".5",
    "1e",
    "1e+",
    "e1",
    "1e5",
    "1E-5",
    "inf",
    "-INF",
    "Infinity",
    "infin",
    "nan",
    "-nan",
    "nan(1)",
    "0x",
    "0x1",
    "0X1P4",
    "0x.8",
    "0x1p",
    "1p4",
    "1_000",
    "1,5",
    "1\0",
    "\t1",
    "1e4932",
    "1.2e4932",
    "1e-4951",
    "4e-4951",
    "1e-4940",
    "1e309",
    "1e-324",
    "3e-324",
    "-0",
    "0e9999999999",
    "1e9999999999",
    "00012",
    "1e00005",
    "12345678901234567890123456789012345678901234567890",
    "0.1e-17",
    "５",
];

#[test]
fn what_is_no_number_for_redis_is_none_for_us() -> anyhow::Result<()> {
    let mut pair = Pair::start(&[])?;
    for text in TEXTS {
        let text = *text;
        for value in ["1", text] {
            pair.same(&["SET", "s", value], Order::Fixed)?;
            pair.same(&["INCRBYFLOAT", "s", text], Order::Fixed)?;
            pair.same(&["INCRBY", "s", text], Order::Fixed)?;
            pair.same(&["HSET", "h", "f", value], Order::Fixed)?;
            pair.same(&["HINCRBYFLOAT", "h", "f", text], Order::Fixed)?;
            pair.same(&["HINCRBY", "h", "f", text], Order::Fixed)?;
        }
        pair.same(&["ZADD", "z", text, "m"], Order::Fixed)?;
        pair.same(
            &["ZRANGEBYSCORE", "z", text, "+inf", "WITHSCORES"],
            Order::Fixed,
        )?;
        pair.same(&["ZCOUNT", "z", &format!("({text}"), text], Order::Fixed)?;
        pair.same(
            &["ZUNION", "1", "z", "WEIGHTS", text, "WITHSCORES"],
            Order::Fixed,
        )?;
    }
    Ok(())
}
