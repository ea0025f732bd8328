//! An independent Redis client for tests: our own codec must not judge itself, so replies are read
//! by the `redis` crate's parser. One blocking connection, no retries, a deadline on everything.
//!
//! Where a reply ends is found here: the crate's parser of a stream is generic, so it would be compiled with the tests,
//! without optimization, and took most of the time of the tests that compare large data.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};
use redis::{Value, parse_redis_value};

use crate::servers::eventually;

/// Longest wait for a reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(120);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection.
pub struct Client {
    stream: TcpStream,
    /// Where reads go first: room that is not cleared for each.
    chunk: Box<[u8]>,
    /// What has come.
    received: Vec<u8>,
    /// Bytes of it that belong to replies already given.
    given: usize,
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
            chunk: vec![0; READ_BYTES].into(),
            received: Vec::new(),
            given: 0,
        })
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads exactly `count` bytes.
    pub fn read_raw(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        while self.received.len() - self.given < count {
            self.receive()?;
        }
        let bytes = self.received[self.given..self.given + count].to_vec();
        self.given += count;
        Ok(bytes)
    }

    /// The same after the newlines that keep a replica's link alive while its snapshot is prepared.
    pub fn read_past_newlines(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        loop {
            let first = self.read_raw(1)?;
            if first != b"\n" {
                let rest = self.read_raw(count - 1)?;
                return Ok([first, rest].concat());
            }
        }
    }

    /// Reads until the server closes the connection.
    pub fn read_to_end(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = self.received.split_off(self.given);
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether nothing comes for so long.
    pub fn is_silent_for(&mut self, duration: Duration) -> anyhow::Result<bool> {
        if self.given < self.received.len() {
            return Ok(false);
        }
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
        let mut scan = Scan::default();
        while !scan.go_on(&self.received[self.given..])? {
            self.receive().context("reading a reply")?;
        }
        let end = self.given + scan.at;
        let value =
            parse_redis_value(&self.received[self.given..end]).context("reading a reply")?;
        self.given = end;
        Ok(value)
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        self.received.drain(..self.given);
        self.given = 0;
        let length = self.stream.read(&mut self.chunk)?;
        if length == 0 {
            bail!("the server closed the connection");
        }
        self.received.extend_from_slice(&self.chunk[..length]);
        Ok(())
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

/// Looks for the end of the reply with which the bytes begin; goes on where it was when more have come.
#[derive(Default)]
struct Scan {
    /// Bytes that were looked at.
    at: usize,
    /// Values that are still to come, beside the first.
    more: usize,
    has_begun: bool,
}

impl Scan {
    /// Whether the reply is complete: it ends at `at`.
    fn go_on(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        while !self.has_begun || self.more > 0 {
            let Some(line) = bytes[self.at.min(bytes.len())..]
                .split_inclusive(|&byte| byte == b'\n')
                .next()
                .filter(|line| line.ends_with(b"\r\n"))
            else {
                return Ok(false);
            };
            let number = || -> anyhow::Result<usize> {
                let digits = std::str::from_utf8(&line[1..line.len() - 2])?;
                // -1 is "nothing": neither bytes nor values follow.
                Ok(if digits == "-1" { 0 } else { digits.parse()? })
            };
            let (bytes_after, values) = match line[0] {
                b'$' | b'!' | b'=' if line != b"$-1\r\n" => (number()? + 2, 0),
                b'*' | b'~' | b'>' => (0, number()?),
                b'%' => (0, 2 * number()?),
                // Attributes come before the value that they describe.
                b'|' => (0, 2 * number()? + 1),
                _ => (0, 0),
            };
            if self.at + line.len() + bytes_after > bytes.len() {
                return Ok(false);
            }
            self.at += line.len() + bytes_after;
            self.more = self.more.saturating_sub(usize::from(self.has_begun)) + values;
            self.has_begun = true;
        }
        Ok(true)
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
