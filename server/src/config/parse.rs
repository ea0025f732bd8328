//! From `redis.conf`, standard input and the command line to a [`Config`].
//!
//! ```text
//! redfleet-server [FILE | -] [--directive word …]…
//! ```
//!
//! A file has one directive per line, `#` comments, `"…"` and `'…'` words, and `include`. An option on the command
//! line is the same as a last line of the file. Errors name the file, the line and what to do.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use resp::Span;
use resp::request::split_quoted;
use thiserror::Error;

use super::Config;
use super::directive::{self, Directive};
use super::kind::{Occurrence, WRONG_ARGUMENTS};
use crate::glob;

/// Files within files within files.
const MAX_INCLUDE_DEPTH: usize = 16;

/// Longest configuration file; a larger one is some other file.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Where a directive was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
    },
    /// A line of standard input.
    StandardInput {
        /// The line, counted from 1.
        line: usize,
    },
    /// An option.
    CommandLine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "file {}, line {line}", path.display()),
            Self::StandardInput { line } => write!(f, "standard input, line {line}"),
            Self::CommandLine => f.write_str("the command line"),
        }
    }
}

/// Why the server cannot start with what it was given.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A line that cannot be used.
    #[error("*** FATAL CONFIG FILE ERROR ***\nIn {place}\n>>> {text}\n{problem}")]
    Line {
        /// Where it is.
        place: Place,
        /// The line, or only its first word if the rest is a secret.
        text: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file that cannot be read.
    #[error("*** FATAL CONFIG FILE ERROR ***\nCannot read the configuration file {}: {source}\nCheck the path and its permissions; the first argument is a file unless it begins with --", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Standard input that cannot be read.
    #[error(
        "*** FATAL CONFIG FILE ERROR ***\nCannot read the configuration from standard input: {0}"
    )]
    ReadStandardInput(std::io::Error),
    /// Directives that exclude each other.
    #[error("*** FATAL CONFIG FILE ERROR ***\n{0}")]
    Combination(String),
}

/// A configuration and where it came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The configuration, checked.
    pub config: Config,
    /// The file that CONFIG REWRITE writes, absolute.
    pub file: Option<PathBuf>,
    /// What the log should say about the directives given, one sentence each.
    pub notes: Vec<String>,
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Startup {
    /// Run a server.
    Run(Box<Loaded>),
    /// Print [`help`] and leave.
    Help,
    /// Print [`version`] and leave.
    Version,
}

/// Understands the arguments of the program (without its own name). Reads the files named there, and standard
/// input if asked to.
pub fn from_args(args: &[String]) -> Result<Startup, ConfigError> {
    from_args_and_input(args, &mut std::io::stdin())
}

fn from_args_and_input(args: &[String], input: &mut dyn Read) -> Result<Startup, ConfigError> {
    match args.first().map(String::as_str) {
        Some("-h" | "--help") => return Ok(Startup::Help),
        Some("-v" | "--version") => return Ok(Startup::Version),
        _ => {}
    }
    let mut loader = Loader::default();
    let mut options = args;
    let mut file = None;
    if let [first, rest @ ..] = args
        && !first.starts_with("--")
    {
        options = rest;
        if first == "-" {
            loader.standard_input(input)?;
        } else {
            file = Some(loader.main_file(Path::new(first))?);
        }
    }
    if let [rest @ .., last] = options
        && last == "-"
    {
        options = rest;
        loader.standard_input(input)?;
    }
    loader.options(options)?;
    loader.config.check().map_err(ConfigError::Combination)?;
    let notes = super::compat::notes(&loader.config);
    Ok(Startup::Run(Box::new(Loaded {
        config: loader.config,
        file,
        notes,
    })))
}

/// Splits a line into its words; `None` for blank lines and comments. An error is Redis's text for the line.
pub(super) fn words_of(line: &[u8]) -> Result<Option<Vec<String>>, String> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let (mut bytes, mut spans) = (Vec::new(), Vec::<Span>::new());
    split_quoted(line, &mut bytes, &mut spans)
        .map_err(|_| "Unbalanced quotes in configuration line: close every quote".to_owned())?;
    let args = resp::Args::new(&bytes, &spans);
    let words = args.iter().map(|word| String::from_utf8(word.to_vec()));
    let words: Vec<String> = words
        .collect::<Result<_, _>>()
        .map_err(|_| "the line is not UTF-8: save the file in that encoding".to_owned())?;
    Ok((!words.is_empty()).then_some(words))
}

/// Collects directives into a configuration.
#[derive(Default)]
struct Loader {
    config: Config,
    seen: Vec<&'static str>,
}

impl Loader {
    /// Reads the file of the command line; answers its absolute path.
    fn main_file(&mut self, path: &Path) -> Result<PathBuf, ConfigError> {
        let absolute = path.canonicalize();
        let path = absolute.map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        self.file(&path, 0)?;
        Ok(path)
    }

    fn file(&mut self, path: &Path, depth: usize) -> Result<(), ConfigError> {
        let read_error = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(read_error)?;
        let text = read_capped(file).map_err(read_error)?;
        for (at, line) in text.split(|&b| b == b'\n').enumerate() {
            self.line(
                line,
                &Place::File {
                    path: path.to_owned(),
                    line: at + 1,
                },
                depth,
            )?;
        }
        Ok(())
    }

    fn standard_input(&mut self, input: &mut dyn Read) -> Result<(), ConfigError> {
        let text = read_capped(input).map_err(ConfigError::ReadStandardInput)?;
        for (at, line) in text.split(|&b| b == b'\n').enumerate() {
            self.line(line, &Place::StandardInput { line: at + 1 }, 0)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], place: &Place, depth: usize) -> Result<(), ConfigError> {
        match words_of(line) {
            Ok(None) => Ok(()),
            Ok(Some(words)) => self.directive(&words, place, depth),
            Err(problem) => {
                // Half a line may hold half a password.
                let first = line
                    .trim_ascii()
                    .split(u8::is_ascii_whitespace)
                    .next()
                    .unwrap_or_default();
                let text = String::from_utf8_lossy(first).into_owned();
                Err(ConfigError::Line {
                    place: place.clone(),
                    text,
                    problem,
                })
            }
        }
    }

    /// Each `--name` begins a directive, all further words up to the next belong to it.
    fn options(&mut self, options: &[String]) -> Result<(), ConfigError> {
        let mut rest = options;
        while let [first, tail @ ..] = rest {
            let Some(name) = first.strip_prefix("--").filter(|name| !name.is_empty()) else {
                let problem =
                    "an option begins with --; a configuration file must be the first argument";
                return Err(line_error(
                    &Place::CommandLine,
                    first.clone(),
                    problem.to_owned(),
                ));
            };
            let count = tail
                .iter()
                .position(|word| word.starts_with("--"))
                .unwrap_or(tail.len());
            let (values, next) = tail.split_at(count);
            let words: Vec<String> = std::iter::once(name.to_owned())
                .chain(values.iter().cloned())
                .collect();
            self.directive(&words, &Place::CommandLine, 0)?;
            rest = next;
        }
        Ok(())
    }

    fn directive(
        &mut self,
        words: &[String],
        place: &Place,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let [name, values @ ..] = words else {
            return Ok(());
        };
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if name.eq_ignore_ascii_case("include") {
            return self.include(words, &values, place, depth);
        }
        let Some(directive) = directive::find(name) else {
            return Err(line_error(place, words.join(" "), unknown(name)));
        };
        let occurrence = if self.seen.contains(&directive.name) {
            Occurrence::Further
        } else {
            Occurrence::First
        };
        let set = directive
            .kind
            .set(directive.name, &mut self.config, &values, occurrence);
        set.map_err(|problem| {
            let text = if directive.is_secret() {
                name.clone()
            } else {
                words.join(" ")
            };
            line_error(place, text, explain(directive, &problem))
        })?;
        self.seen.push(directive.name);
        Ok(())
    }

    fn include(
        &mut self,
        words: &[String],
        values: &[&str],
        place: &Place,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let wrong = |problem: &str| line_error(place, words.join(" "), problem.to_owned());
        let [path] = values else {
            return Err(wrong(
                "include takes one path; put it in quotes if it has blanks",
            ));
        };
        if depth >= MAX_INCLUDE_DEPTH {
            return Err(wrong(
                "files include each other more than 16 deep: remove the circle",
            ));
        }
        let files =
            included_files(Path::new(path)).map_err(|e| wrong(&format!("cannot list: {e}")))?;
        files.iter().try_for_each(|file| self.file(file, depth + 1))
    }
}

/// The file of an `include`, or all files that match a pattern in its last part, in order of their names.
fn included_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if !glob::is_pattern(name.as_bytes()) || path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let found = entry.file_name();
        if glob::matches(
            name.as_bytes(),
            found.as_encoded_bytes(),
            glob::Case::Sensitive,
        ) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read_capped(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let reason = "it is larger than 16 MB, so hardly a configuration";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

fn line_error(place: &Place, text: String, problem: String) -> ConfigError {
    ConfigError::Line {
        place: place.clone(),
        text,
        problem,
    }
}

fn explain(directive: &Directive, problem: &str) -> String {
    if problem == WRONG_ARGUMENTS {
        return format!(
            "Bad directive or wrong number of arguments; {} is: {}",
            directive.name, directive.doc
        );
    }
    format!("{}: {problem}", directive.name)
}

fn unknown(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("tls-") {
        return "TLS is not supported yet: remove the directive".to_owned();
    }
    if lower == "loadmodule" {
        return "modules are not supported: remove the directive".to_owned();
    }
    let names = directive::all()
        .iter()
        .flat_map(|d| [Some(d.name), d.alias])
        .flatten();
    let nearest = names.map(|known| (distance(&lower, known), known)).min();
    let hint = match nearest {
        Some((distance, known)) if distance <= 2 + lower.len() / 8 => {
            format!("did you mean '{known}'? ")
        }
        _ => String::new(),
    };
    format!("Bad directive or wrong number of arguments; {hint}--help lists all directives")
}

/// Edits that make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The text of `--version`.
pub fn version() -> String {
    format!(
        "redfleet-server v={} (speaks as Redis {})",
        env!("CARGO_PKG_VERSION"),
        crate::REDIS_VERSION
    )
}

/// The text of `--help`: usage and every directive that does something.
pub fn help() -> String {
    let mut text = format!(
        "{}\n\n\
         Usage: redfleet-server [FILE] [--DIRECTIVE VALUE...]...\n       \
         redfleet-server -                       read the configuration from standard input\n       \
         redfleet-server --help | --version\n\n\
         FILE has the form of redis.conf. Every directive can also be given as an option, after the file:\n\n  \
         redfleet-server --port 6380 --replicaof \"127.0.0.1 6379\"\n  \
         redfleet-server /etc/redis.conf --save \"\" --loglevel warning\n\n\
         Directives (default in brackets):\n\n",
        version()
    );
    let defaults = Config::default();
    for directive in directive::all().iter().filter(|d| !d.is_compatibility()) {
        let default = directive.get(&defaults);
        let alias = directive
            .alias
            .map(|alias| format!(", --{alias}"))
            .unwrap_or_default();
        text.push_str(&format!(
            "  --{}{alias} [{default}]\n      {}\n",
            directive.name, directive.doc
        ));
    }
    text
}

#[cfg(test)]
mod tests;
