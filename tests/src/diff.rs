//! Differential tests: the same commands to our server and to a real Redis, replies compared.
//!
//! Two replies are equal if their texts are, with three exceptions, each because nothing else can be compared:
//! - Redis 7.0, the peer, prints scores with 17 digits and we with as many as are needed, like 7.2: our text of a score
//!   is read, printed with 17 digits, and must then be the peer's, digit for digit;
//! - the cursor of a scan means something to its server only: both scans are carried to their end ([`Pair::same_scan`]),
//!   and everything they reported is compared;
//! - the order of hashes and sets is no promise ([`Order`]).
//!
//! Commands come from templates: words, and placeholders (`$k`) that a seeded random sequence fills
//! from a list of choices. A difference names the seed and prints the commands that led there.

use anyhow::{Context, bail, ensure};
use redis::Value;

use crate::{
    client::{Client, as_text},
    servers::{Program, Server},
};

/// Commands shown before one that differs.
const SHOWN_COMMANDS: usize = 12;

/// Our server and a real one, with a connection to each.
pub struct Pair {
    /// Ours.
    pub ours: Server,
    /// The real one.
    pub theirs: Server,
    /// Connection to ours.
    pub our_client: Client,
    /// Connection to the real one.
    pub their_client: Client,
    history: Vec<String>,
}

/// Whether the order of a reply's elements means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It does.
    Fixed,
    /// Any order is right.
    Any,
    /// Any order of pairs is right.
    AnyOfPairs,
}

impl Pair {
    /// Starts both with these options.
    pub fn start(options: &[&str]) -> anyhow::Result<Self> {
        let ours = Server::start(Program::Redfleet, options)?;
        let theirs = Server::start(Program::Redis, options)?;
        let (our_client, their_client) = (ours.client()?, theirs.client()?);
        Ok(Self {
            ours,
            theirs,
            our_client,
            their_client,
            history: Vec::new(),
        })
    }

    /// Switches both connections to a protocol version.
    pub fn hello(&mut self, version: u8) -> anyhow::Result<()> {
        for client in [&mut self.our_client, &mut self.their_client] {
            client.run(&format!("HELLO {version}"))?;
        }
        Ok(())
    }

    /// Sends the words to both and compares the replies.
    pub fn same<A: AsRef<[u8]>>(&mut self, words: &[A], order: Order) -> anyhow::Result<Value> {
        let shown: Vec<String> = words.iter().map(|word| shown(word.as_ref())).collect();
        self.history.push(shown.join(" "));
        let ours = self.our_client.call(words)?;
        let theirs = self.their_client.call(words)?;
        let mine = comparable(&ours, order, numbers_of(words));
        let other = comparable(&theirs, order, Numbers::AsText);
        self.ensure_same(&mine, &other)?;
        Ok(ours)
    }

    fn ensure_same(&self, mine: &str, other: &str) -> anyhow::Result<()> {
        let from = self.history.len().saturating_sub(SHOWN_COMMANDS);
        ensure!(
            mine == other,
            "replies differ\n ours: {mine}\nRedis: {other}\nafter:\n  {}",
            self.history[from..].join("\n  ")
        );
        Ok(())
    }

    /// Sends a command of the SCAN family to both, with every cursor that comes back until the end, and compares what was
    /// reported in all. An error must come from both, and be the same.
    pub fn same_scan<A: AsRef<[u8]>>(&mut self, words: &[A]) -> anyhow::Result<()> {
        let shown: Vec<String> = words.iter().map(|word| shown(word.as_ref())).collect();
        self.history.push(shown.join(" "));
        let ours = scan_to_the_end(&mut self.our_client, words)?;
        let theirs = scan_to_the_end(&mut self.their_client, words)?;
        let order = order_of(&shown[0]);
        // Redis's ZSCAN shows scores as they are stored, some as integers of 19 digits: read both.
        let [mine, other] =
            [ours, theirs].map(|reply| comparable(&reply, order, numbers_of(words)));
        self.ensure_same(&mine, &other)
    }

    /// As [`Pair::same`] for commands without spaces inside their words, one to a line.
    pub fn script(&mut self, lines: &str) -> anyhow::Result<()> {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if is_scan(words[0]) {
                self.same_scan(&words)?;
            } else {
                self.same(&words, order_of(words[0]))?;
            }
        }
        Ok(())
    }

    /// Sends `count` commands that `grammar` makes, and compares the values of `keys` now and then.
    pub fn random(
        &mut self,
        grammar: &Grammar,
        seed: u64,
        count: usize,
        keys: &[String],
    ) -> anyhow::Result<()> {
        const COMPARE_EVERY: usize = 200;
        let mut random = Random::new(seed);
        for number in 1..=count {
            let words = grammar.command(&mut random);
            let name = String::from_utf8_lossy(&words[0]).into_owned();
            let outcome = if is_scan(&name) {
                self.same_scan(&words)
            } else {
                self.same(&words, order_of(&name)).map(drop)
            };
            outcome.with_context(|| format!("seed {seed}"))?;
            if number % COMPARE_EVERY == 0 || number == count {
                self.same_values(keys)
                    .with_context(|| format!("seed {seed}"))?;
            }
        }
        Ok(())
    }

    /// Compares whole values.
    pub fn same_values(&mut self, keys: &[String]) -> anyhow::Result<()> {
        for key in keys {
            for (command, order) in READERS {
                let words: Vec<&str> = command
                    .split(' ')
                    .map(|word| if word == "$k" { key } else { word })
                    .collect();
                self.same(&words, *order)?;
            }
        }
        Ok(())
    }
}

/// Commands that read a whole value of each type; on another type they all answer an error.
const READERS: &[(&str, Order)] = &[
    ("GET $k", Order::Fixed),
    ("LRANGE $k 0 -1", Order::Fixed),
    ("HGETALL $k", Order::AnyOfPairs),
    ("SMEMBERS $k", Order::Any),
    ("ZRANGE $k 0 -1 WITHSCORES", Order::Fixed),
];

fn order_of(command: &str) -> Order {
    match command.to_ascii_uppercase().as_str() {
        "HGETALL" | "HSCAN" | "ZSCAN" | "CONFIG" => Order::AnyOfPairs,
        "SCAN" | "HKEYS" | "HVALS" | "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" | "SSCAN"
        | "SPOP" | "SRANDMEMBER" => Order::Any,
        _ => Order::Fixed,
    }
}

fn is_scan(command: &str) -> bool {
    command.to_ascii_uppercase().ends_with("SCAN")
}

/// What a scan reports from its first call to the end, without repetitions (which a server may make); an error as it is.
fn scan_to_the_end<A: AsRef<[u8]>>(client: &mut Client, words: &[A]) -> anyhow::Result<Value> {
    const MAX_STEPS: usize = 10_000;
    let mut words: Vec<Vec<u8>> = words.iter().map(|word| word.as_ref().to_vec()).collect();
    let is_keyspace = words[0].eq_ignore_ascii_case(b"SCAN");
    let (cursor_at, width) = match (is_keyspace, words[0].to_ascii_uppercase().as_slice()) {
        (true, _) => (1, 1),
        (false, b"SSCAN") => (2, 1),
        (false, _) => (2, 2),
    };
    let mut found: Vec<Vec<Value>> = Vec::new();
    for _ in 0..MAX_STEPS {
        let reply = client.call(&words)?;
        let Value::Array(parts) = &reply else {
            return Ok(reply);
        };
        let [cursor, Value::Array(elements)] = &parts[..] else {
            bail!("no answer to a scan: {reply:?}");
        };
        for element in elements.chunks(width) {
            if !found.iter().any(|known| known == element) {
                found.push(element.to_vec());
            }
        }
        let cursor = as_text(cursor);
        if cursor == "0" {
            return Ok(Value::Array(found.concat()));
        }
        words[cursor_at] = cursor.into_bytes();
    }
    bail!("a scan did not end in {MAX_STEPS} steps")
}

/// Whether a reply may hold scores; see the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// It holds none, or is the peer's.
    AsText,
    /// It does, and is ours.
    Scores,
}

fn numbers_of<A: AsRef<[u8]>>(words: &[A]) -> Numbers {
    match words.first().map(|word| word.as_ref()) {
        Some([b'Z' | b'z', ..]) => Numbers::Scores,
        _ => Numbers::AsText,
    }
}

/// The text that C's `%.17g` gives for a number.
fn seventeen_digits(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.16e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let short = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..17).contains(&exponent) {
        return short(&format!("{value:.*}", (16 - exponent) as usize));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", short(digits), exponent.abs())
}

fn shown(word: &[u8]) -> String {
    const SHOWN_BYTES: usize = 40;
    if word.is_empty() {
        return "\"\"".to_owned();
    }
    let start = word[..word.len().min(SHOWN_BYTES)]
        .escape_ascii()
        .to_string();
    if word.len() > SHOWN_BYTES {
        format!("{start}…({})", word.len())
    } else {
        start
    }
}

/// A reply as text to compare.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
fn comparable(value: &Value, order: Order, numbers: Numbers) -> String {
    let list = |values: &[Value]| {
        let mut texts: Vec<String> = values
            .iter()
            .map(|value| comparable(value, order, numbers))
            .collect();
        match order {
            Order::Fixed => {}
            Order::Any => texts.sort(),
            Order::AnyOfPairs => {
                let mut pairs: Vec<_> = texts.chunks(2).map(|pair| pair.join(" = ")).collect();
                pairs.sort();
                texts = pairs;
            }
        }
        format!("[{}]", texts.join(", "))
    };
    match value {
        Value::Array(values) => list(values),
        Value::Set(values) => format!("set{}", list(values)),
        Value::Map(pairs) => {
            let mut texts: Vec<String> = pairs
                .iter()
                .map(|(key, value)| {
                    let [key, value] = [key, value].map(|v| comparable(v, order, numbers));
                    format!("{key} => {value}")
                })
                .collect();
            texts.sort();
            format!("map[{}]", texts.join(", "))
        }
        Value::BulkString(bytes) => match (numbers, score_of(bytes)) {
            (Numbers::Scores, Some(score)) => shown_whole(seventeen_digits(score).as_bytes()),
            _ => shown_whole(bytes),
        },
        other => format!("{other:?} {}", as_text(other)),
    }
}

/// A text that is a score: tests give members no such texts but integers, which print the same either way.
fn score_of(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn shown_whole(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// A seeded random sequence.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number under `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Templates of commands, and what their placeholders stand for.
#[derive(Debug, Default)]
pub struct Grammar {
    templates: Vec<String>,
    choices: Vec<(String, Vec<Vec<u8>>)>,
}

impl Grammar {
    /// Templates one to a line; a line may begin with a weight and a colon.
    pub fn new(templates: &str) -> Self {
        let mut grammar = Self::default();
        for line in templates
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let (weight, template) = match line.split_once(": ") {
                Some((weight, template)) => (weight.parse().unwrap_or(1), template),
                None => (1, line),
            };
            for _ in 0..weight {
                grammar.templates.push(template.to_owned());
            }
        }
        grammar
    }

    /// What a placeholder (with its `$`) stands for: one of these words.
    pub fn choice<A: AsRef<[u8]>>(mut self, placeholder: &str, words: &[A]) -> Self {
        let words = words.iter().map(|word| word.as_ref().to_vec()).collect();
        self.choices.push((placeholder.to_owned(), words));
        self
    }

    /// The next command.
    pub fn command(&self, random: &mut Random) -> Vec<Vec<u8>> {
        let template = random.pick(&self.templates);
        let fill = |word: &str, random: &mut Random| {
            let found = self.choices.iter().find(|(name, _)| name == word);
            match found {
                Some((_, words)) => random.pick(words).clone(),
                None => word.as_bytes().to_vec(),
            }
        };
        template
            .split_whitespace()
            .map(|word| fill(word, random))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seventeen_digits_are_those_of_c() {
        for (value, text) in [
            (0.1, "0.10000000000000001"),
            (-0.0, "-0"),
            (3.0, "3"),
            (1e20, "1e+20"),
            (123_456_789.125, "123456789.125"),
            (0.0001, "0.0001"),
            (0.000_01, "1.0000000000000001e-05"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (-1.5e300, "-1.5000000000000001e+300"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(seventeen_digits(value), text);
        }
    }
}
