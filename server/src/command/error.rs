//! Errors of commands: each is an error reply of Redis, text and all.

use std::borrow::Cow;

/// Result of a handler; the reply has been written when it is `Ok`.
pub type CommandResult = Result<(), CommandError>;

/// An error reply. The text is what the client sees after the `-`, code word included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(Cow<'static, str>);

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
    /// An index beyond the end.
    pub const OUT_OF_RANGE: CommandError = CommandError::new("ERR index out of range");

    /// An error with a fixed text (code word first, such as `ERR …`).
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// An error with a text made for this request.
    pub fn owned(text: String) -> Self {
        Self(Cow::Owned(text))
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
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The first word, as counted by `INFO errorstats`.
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or("ERR")
    }
}
