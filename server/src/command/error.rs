//! Errors of commands: each is an error reply of Redis, text and all.

use std::borrow::Cow;

use resp::Args;

/// Bytes of a name that an error about it shows, at most.
pub const MAX_SHOWN_BYTES: usize = 128;

/// Result of a handler; the reply has been written when it is `Ok`.
pub type CommandResult = Result<(), CommandError>;

/// An error reply. The text is what the client sees after the `-`, code word included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(Cow<'static, [u8]>);

impl CommandError {
    /// A value of another type lives at the key.
    pub const WRONG_TYPE: CommandError =
        CommandError::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// Unknown option or options that exclude each other.
    pub const SYNTAX: CommandError = CommandError::new("ERR syntax error");
    /// A number was expected.
    pub const NOT_INTEGER: CommandError =
        CommandError::new("ERR value is not an integer or out of range");
    /// A floating point number was expected.
    pub const NOT_FLOAT: CommandError = CommandError::new("ERR value is not a valid float");
    /// A sum that is no number.
    pub const NOT_FINITE: CommandError =
        CommandError::new("ERR increment would produce NaN or Infinity");
    /// The key must exist.
    pub const NO_SUCH_KEY: CommandError = CommandError::new("ERR no such key");
    /// A number that no database has.
    pub const DB_OUT_OF_RANGE: CommandError = CommandError::new("ERR DB index is out of range");
    /// An index beyond the end.
    pub const OUT_OF_RANGE: CommandError = CommandError::new("ERR index out of range");

    /// An error with a fixed text (code word first, such as `ERR …`).
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// An error with a text made for this request.
    pub fn owned(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }

    /// An error that names an argument: its bytes as they came, up to a zero byte, as in Redis.
    pub fn quoting(before: &str, argument: &[u8], after: &str) -> Self {
        let shown = argument.split(|byte| *byte == 0).next().unwrap_or_default();
        Self(Cow::Owned(
            [before.as_bytes(), shown, after.as_bytes()].concat(),
        ))
    }

    /// `ERR unknown subcommand 'word'. Try CONTAINER HELP.` for a request whose second argument names no subcommand.
    pub fn unknown_subcommand(args: Args<'_>) -> Self {
        let container = args.get(0).unwrap_or_default().to_ascii_uppercase();
        let container = String::from_utf8_lossy(&container);
        let word = args.get(1).unwrap_or_default();
        let word = &word[..word.len().min(MAX_SHOWN_BYTES)];
        let cure = format!("'. Try {container} HELP.");
        Self::quoting("ERR unknown subcommand '", word, &cure)
    }

    /// What a container answers to a subcommand that it knows, but not with so many arguments.
    pub fn unknown_form(args: Args<'_>) -> Self {
        let container = args.get(0).unwrap_or_default().to_ascii_uppercase();
        let cure = format!("'. Try {} HELP.", String::from_utf8_lossy(&container));
        let word = args.get(1).unwrap_or_default();
        Self::quoting(
            "ERR unknown subcommand or wrong number of arguments for '",
            word,
            &cure,
        )
    }

    /// `ERR wrong number of arguments for 'name' command`.
    pub fn wrong_arity(name: &str) -> Self {
        Self::owned(format!(
            "ERR wrong number of arguments for '{name}' command"
        ))
    }

    /// `ERR invalid expire time in 'name' command`.
    pub fn invalid_expire(name: &str) -> Self {
        Self::owned(format!("ERR invalid expire time in '{name}' command"))
    }

    /// The text as sent, without the leading `-`.
    pub fn text(&self) -> &[u8] {
        &self.0
    }

    /// The first word, as counted by `INFO errorstats`.
    pub fn code(&self) -> &str {
        let word = self.0.split(|byte| *byte == b' ').next();
        word.and_then(|word| std::str::from_utf8(word).ok())
            .unwrap_or("ERR")
    }
}
