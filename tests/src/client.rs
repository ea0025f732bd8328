//! An independent Redis client for tests: our own codec must not judge itself, so replies are read
//! by the `redis` crate's parser. One blocking connection, no retries, a deadline on everything.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context;
use redis::{Parser, Value};

use crate::servers::eventually;

/// Longest wait for a reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// A connection.
pub struct Client {
    stream: TcpStream,
    parser: Parser,
}

impl Client {
    /// Connects within a second.
    pub fn connect(port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(REPLY_DEADLINE))?;
        stream.set_write_timeout(Some(REPLY_DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            parser: Parser::new(),
        })
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads exactly `count` bytes. Do not mix with replies that are still on their way.
    pub fn read_raw(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads until the server closes the connection.
    pub fn read_to_end(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether nothing comes for so long.
    pub fn is_silent_for(&mut self, duration: Duration) -> anyhow::Result<bool> {
        self.stream.set_read_timeout(Some(duration))?;
        let silent = match self.stream.peek(&mut [0]) {
            Ok(_) => false,
            Err(error) => {
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
            }
        };
        self.stream.set_read_timeout(Some(REPLY_DEADLINE))?;
        Ok(silent)
    }

    /// Repeats a command until its reply is what `accepts` wants, and answers that reply.
    pub fn until(
        &mut self,
        command: &str,
        accepts: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        eventually(command, REPLY_DEADLINE, || {
            let text = self.text(command)?;
            Ok(accepts(&text).then_some(text))
        })
    }

    /// Reads one reply; an error reply is a value (`Value::ServerError`).
    pub fn read_reply(&mut self) -> anyhow::Result<Value> {
        self.parser
            .parse_value(&mut self.stream)
            .context("reading a reply")
    }

    /// Sends a command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> anyhow::Result<Value> {
        self.send_raw(&encode(words))?;
        self.read_reply()
    }

    /// As [`Client::call`] for a command without spaces inside its words: `"SET k v"`.
    pub fn run(&mut self, command: &str) -> anyhow::Result<Value> {
        self.call(&command.split_whitespace().collect::<Vec<_>>())
    }

    /// The reply as text: bulk and simple strings, numbers, `(error) …`, `(nil)`.
    pub fn text(&mut self, command: &str) -> anyhow::Result<String> {
        Ok(as_text(&self.run(command)?))
    }

    /// A field of `INFO section`.
    pub fn info(&mut self, section: &str, field: &str) -> anyhow::Result<String> {
        let info = self.text(&format!("INFO {section}"))?;
        let prefix = format!("{field}:");
        let line = info.lines().find_map(|line| line.strip_prefix(&prefix));
        line.map(str::to_owned)
            .with_context(|| format!("INFO {section} has no {field}:\n{info}"))
    }
}

/// A command as RESP.
pub fn encode<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A reply as `redis-cli` would show a single value.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate may add kinds of values"
)]
pub fn as_text(value: &Value) -> String {
    match value {
        Value::Nil => "(nil)".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::ServerError(error) => {
            format!(
                "(error) {} {}",
                error.code(),
                error.details().unwrap_or_default()
            )
        }
        _ => format!("{value:?}"),
    }
}
