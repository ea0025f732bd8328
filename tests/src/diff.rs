//! Differential tests: the same commands to our server and to a real Redis, replies compared.
//!
//! Commands come from templates: words, and placeholders (`$k`) that a seeded random sequence fills
//! from a list of choices. A difference names the seed and prints the commands that led there.

use anyhow::{Context, ensure};
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
        let (mine, other) = (comparable(&ours, order), comparable(&theirs, order));
        let from = self.history.len().saturating_sub(SHOWN_COMMANDS);
        ensure!(
            mine == other,
            "replies differ\n ours: {mine}\nRedis: {other}\nafter:\n  {}",
            self.history[from..].join("\n  ")
        );
        Ok(ours)
    }

    /// As [`Pair::same`] for commands without spaces inside their words, one to a line.
    pub fn script(&mut self, lines: &str) -> anyhow::Result<()> {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            self.same(&words, order_of(words[0]))?;
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
            self.same(&words, order_of(&name))
                .with_context(|| format!("seed {seed}"))?;
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
        "HGETALL" | "HSCAN" | "ZSCAN" => Order::AnyOfPairs,
        "HKEYS" | "HVALS" | "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" | "SSCAN" | "SPOP"
        | "SRANDMEMBER" => Order::Any,
        _ => Order::Fixed,
    }
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
fn comparable(value: &Value, order: Order) -> String {
    let list = |values: &[Value]| {
        let mut texts: Vec<String> = values
            .iter()
            .map(|value| comparable(value, order))
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
                    format!("{} => {}", comparable(key, order), comparable(value, order))
                })
                .collect();
            texts.sort();
            format!("map[{}]", texts.join(", "))
        }
        Value::BulkString(bytes) => shown_whole(bytes),
        other => format!("{other:?} {}", as_text(other)),
    }
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
