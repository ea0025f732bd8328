//! The kinds of directives: how the words of a line become a field of [`Config`] and back.
//!
//! Called by the loader, CONFIG SET and CONFIG GET, which all share Redis's texts for wrong values. Knows no
//! single directive; those are in [`super::directive`].

use std::borrow::Cow;

use super::Config;

/// What is wrong with a value, in Redis's words where it has some.
pub type Problem = Cow<'static, str>;

/// How one directive reads and prints its field. All functions are plain pointers, so that the table is a
/// constant.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `yes` or `no`.
    YesNo {
        get: fn(&Config) -> bool,
        set: fn(&mut Config, bool),
    },
    /// A number within bounds.
    Number {
        get: fn(&Config) -> i64,
        set: fn(&mut Config, i64),
        min: i64,
        max: i64,
    },
    /// A number of bytes within bounds, written like `64mb`.
    Bytes {
        get: fn(&Config) -> u64,
        set: fn(&mut Config, u64),
        min: u64,
        max: u64,
    },
    /// Any text that `set` accepts.
    Text {
        get: fn(&Config) -> String,
        set: fn(&mut Config, &str) -> Result<(), Problem>,
    },
    /// One of several names.
    Choice {
        names: fn() -> Vec<&'static str>,
        get: fn(&Config) -> &'static str,
        set: fn(&mut Config, &str) -> bool,
    },
    /// Several words.
    Words {
        get: fn(&Config) -> String,
        /// Replaces the value.
        set: fn(&mut Config, &[&str]) -> Result<(), Problem>,
        /// Adds to the value: a further line of the same directive.
        add: fn(&mut Config, &[&str]) -> Result<(), Problem>,
        /// The value as lines of a file, without the directive's name; none where there is nothing to say.
        lines: fn(&Config) -> Vec<String>,
    },
    /// Accepted only where it asks for what is done anyway; `cure` says what to do instead.
    Fixed {
        accepted: &'static [&'static str],
        cure: &'static str,
    },
    /// Accepted, kept and shown, without effect.
    Inert { default: &'static str, shape: Shape },
}

/// What the value of a directive without effect must look like: it is checked as if it had one, since the file that CONFIG
/// REWRITE writes may be read by Redis.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// `yes` or `no`.
    YesNo,
    /// A number within bounds.
    Number { min: i64, max: i64 },
    /// A number of bytes, written like `64mb`.
    Bytes,
    /// Permission bits in octal.
    Permissions,
    /// One of several names.
    OneOf(&'static [&'static str]),
    /// A text that `check` accepts.
    Text(fn(&str) -> Result<(), Problem>),
    /// Several words, which the function puts into their normal form.
    List(fn(&[&str]) -> Result<String, Problem>),
}

impl Shape {
    /// The value in its normal form, as it is kept and shown.
    fn read(self, words: &[&str]) -> Result<String, Problem> {
        if let Self::List(read) = self {
            let words: Vec<&str> = words
                .iter()
                .flat_map(|word| word.split_ascii_whitespace())
                .collect();
            return read(&words);
        }
        let [word] = words else {
            return Err(Problem::Borrowed(WRONG_ARGUMENTS));
        };
        Ok(match self {
            Self::YesNo => yes_or_no(parse_yes_no(word)?).to_owned(),
            Self::Number { min, max } => parse_number(word, min, max)?.to_string(),
            Self::Bytes => parse_bytes_within(word, 0, i64::MAX as u64)?.to_string(),
            Self::Permissions => parse_permissions(word)?,
            Self::OneOf(names) => {
                let found = names.iter().find(|name| name.eq_ignore_ascii_case(word));
                (*found.ok_or_else(|| none_of(names))?).to_owned()
            }
            Self::Text(check) => {
                check(word)?;
                (*word).to_owned()
            }
            Self::List(read) => read(words)?,
        })
    }
}

/// Whether a line is the first of its directive, or one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Occurrence {
    First,
    Further,
}

/// Wording for a wrong number of words, as Redis says it.
pub(super) const WRONG_ARGUMENTS: &str = "wrong number of arguments";

impl Kind {
    /// Sets the field from the words that follow the name.
    pub(super) fn set(
        &self,
        name: &'static str,
        config: &mut Config,
        words: &[&str],
        occurrence: Occurrence,
    ) -> Result<(), Problem> {
        if let Self::Words { set, add, .. } = self {
            return match occurrence {
                Occurrence::First => set(config, words),
                Occurrence::Further => add(config, words),
            };
        }
        if let Self::Inert { default, shape } = self {
            let value = shape.read(words)?;
            if value == *default {
                config.inert.remove(name);
            } else {
                config.inert.insert(name, value);
            }
            return Ok(());
        }
        let [word] = words else {
            return Err(Problem::Borrowed(WRONG_ARGUMENTS));
        };
        self.set_word(config, word)
    }

    fn set_word(&self, config: &mut Config, word: &str) -> Result<(), Problem> {
        match self {
            Self::YesNo { set, .. } => set(config, parse_yes_no(word)?),
            Self::Number { set, min, max, .. } => set(config, parse_number(word, *min, *max)?),
            Self::Bytes { set, min, max, .. } => {
                set(config, parse_bytes_within(word, *min, *max)?);
            }
            Self::Text { set, .. } => set(config, word)?,
            Self::Choice { names, set, .. } => {
                if !set(config, word) {
                    return Err(none_of(&names()));
                }
            }
            Self::Fixed { accepted, cure } => {
                if !accepted
                    .iter()
                    .any(|value| value.eq_ignore_ascii_case(word))
                {
                    return Err(Problem::Borrowed(cure));
                }
            }
            Self::Words { .. } | Self::Inert { .. } => {
                return Err(Problem::Borrowed(WRONG_ARGUMENTS));
            }
        }
        Ok(())
    }

    /// The value as CONFIG GET shows it.
    pub(super) fn get(&self, name: &'static str, config: &Config) -> String {
        match self {
            Self::YesNo { get, .. } => yes_or_no(get(config)).to_owned(),
            Self::Number { get, .. } => get(config).to_string(),
            Self::Bytes { get, .. } => get(config).to_string(),
            Self::Text { get, .. } | Self::Words { get, .. } => get(config),
            Self::Choice { get, .. } => get(config).to_owned(),
            Self::Fixed { accepted, .. } => {
                accepted.first().copied().unwrap_or_default().to_owned()
            }
            Self::Inert { default, .. } => config
                .inert
                .get(name)
                .cloned()
                .unwrap_or_else(|| (*default).to_owned()),
        }
    }

    /// The value as lines of a file, without the directive's name.
    pub(super) fn lines(&self, name: &'static str, config: &Config) -> Vec<String> {
        match self {
            Self::Words { lines, .. } => lines(config),
            Self::Bytes { get, .. } => vec![format_bytes(get(config))],
            Self::Text { .. } => vec![quote(&self.get(name, config))],
            Self::Fixed { .. } => vec![quote(&self.get(name, config))],
            Self::Inert {
                shape: Shape::List(_),
                ..
            } => vec![quote_words(&self.get(name, config))],
            Self::Inert { .. } => vec![quote(&self.get(name, config))],
            Self::YesNo { .. } | Self::Number { .. } | Self::Choice { .. } => {
                vec![self.get(name, config)]
            }
        }
    }
}

fn parse_yes_no(word: &str) -> Result<bool, Problem> {
    match word {
        yes if yes.eq_ignore_ascii_case("yes") => Ok(true),
        no if no.eq_ignore_ascii_case("no") => Ok(false),
        _ => Err(Problem::Borrowed("argument must be 'yes' or 'no'")),
    }
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn none_of(names: &[&str]) -> Problem {
    let names = names.join(", ");
    format!("argument(s) must be one of the following: {names}").into()
}

fn parse_permissions(word: &str) -> Result<String, Problem> {
    const MAX: u32 = 0o777;
    let bits = u32::from_str_radix(word, 8)
        .map_err(|_| "argument couldn't be parsed as an octal number")?;
    if bits > MAX {
        return Err(format!("argument must be between 0 and {MAX:o} inclusive").into());
    }
    Ok(format!("{bits:o}"))
}

fn parse_bytes_within(word: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let bytes = parse_bytes(word).ok_or("argument must be a memory value")?;
    if !(min..=max).contains(&bytes) {
        return Err(format!("argument must be between {min} and {max} inclusive").into());
    }
    Ok(bytes)
}

fn parse_number(word: &str, min: i64, max: i64) -> Result<i64, Problem> {
    let value = resp::parse_i64(word.as_bytes()).ok_or(Problem::Borrowed(
        "argument couldn't be parsed into an integer",
    ))?;
    if !(min..=max).contains(&value) {
        return Err(format!("argument must be between {min} and {max} inclusive").into());
    }
    Ok(value)
}

/// Reads a number of bytes: a plain number, or with a unit (`k` = 1000, `kb` = 1024, and so on). No number is 0, as in Redis.
pub fn parse_bytes(word: &str) -> Option<u64> {
    let digits = word
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    if number.is_empty() {
        return Some(0);
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest exact form: `64mb` rather than `67108864`.
pub(super) fn format_bytes(bytes: u64) -> String {
    for (unit, shift) in [("gb", 30), ("mb", 20), ("kb", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A value whose words were joined by blanks: as plain words where they are plain, else as one quoted word.
fn quote_words(value: &str) -> String {
    let plain = |word: &str| quote(word) == word;
    if value.split(' ').all(plain) {
        value.to_owned()
    } else {
        quote(value)
    }
}

/// Puts a word in quotes where the grammar of `redis.conf` needs them.
pub(super) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'#');
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
