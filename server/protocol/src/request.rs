//! Incremental parser of requests: multibulk and inline.
//!
//! The caller keeps unconsumed input in one buffer and hands all of it to [`RequestParser::parse`] each time;
//! after [`Parsed::Request`] or [`Parsed::Skip`] it drops the consumed bytes. Between calls that answer
//! [`Parsed::Incomplete`] the buffer may only grow at its end: the parser remembers how far it looked and starts
//! again there, so a large argument that arrives in small pieces is never scanned twice.
//!
//! Nothing is allocated for what a client merely announces: the list of spans grows with the bytes received.

use std::borrow::Cow;

use crate::args::{Args, Span};
use crate::number::parse_i64;

/// Spans kept allocated between requests; what a larger request needed is given back.
const KEPT_SPANS: usize = 4096;

/// Bytes of unquoted inline words kept allocated between requests.
const KEPT_SCRATCH_BYTES: usize = 4096;

/// Caps on one request, checked before anything is allocated for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most arguments of one request.
    pub max_args: u32,
    /// Longest argument in bytes (`proto-max-bulk-len`).
    pub max_bulk_bytes: u32,
    /// Longest inline request and longest `*`/`$` header line in bytes.
    pub max_inline_bytes: u32,
}

impl Limits {
    /// For connections that have not logged in yet: nobody may make the server hold much for them.
    pub const UNAUTHENTICATED: Self = Self {
        max_args: 10,
        max_bulk_bytes: 16 * 1024,
        max_inline_bytes: 64 * 1024,
    };

    /// For connections that may run commands; what Redis 7.2 allows by default.
    pub const AUTHENTICATED: Self = Self {
        max_args: i32::MAX as u32,
        max_bulk_bytes: 512 * 1024 * 1024,
        max_inline_bytes: 64 * 1024,
    };

    /// Whether these are the limits before login: decides which error a too large request gets.
    fn before_login(&self) -> bool {
        self.max_args <= Self::UNAUTHENTICATED.max_args
    }
}

/// Why a connection's input cannot be understood; the connection is closed after the error is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// An inline request without line end within the limit.
    TooBigInline,
    /// A `*` line without end within the limit.
    TooBigMultibulkHeader,
    /// A `$` line without end within the limit.
    TooBigBulkHeader,
    /// Quotes opened and not closed, or a closing quote inside a word.
    UnbalancedQuotes,
    /// The number after `*` is none, or too large.
    InvalidMultibulkLength,
    /// The number after `$` is none, negative, or too large.
    InvalidBulkLength,
    /// Too many arguments before login.
    UnauthenticatedMultibulkLength,
    /// Too long an argument before login.
    UnauthenticatedBulkLength,
    /// Another byte where `$` had to be.
    ExpectedDollar(u8),
    /// The whole request would reach past 4 GiB.
    TooBigRequest,
}

impl ProtocolError {
    /// Redis's text, without the leading `-ERR `.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match *self {
            Self::TooBigInline => "Protocol error: too big inline request",
            Self::TooBigMultibulkHeader => "Protocol error: too big mbulk count string",
            Self::TooBigBulkHeader => "Protocol error: too big bulk count string",
            Self::UnbalancedQuotes => "Protocol error: unbalanced quotes in request",
            Self::InvalidMultibulkLength => "Protocol error: invalid multibulk length",
            Self::InvalidBulkLength => "Protocol error: invalid bulk length",
            Self::UnauthenticatedMultibulkLength => {
                "Protocol error: unauthenticated multibulk length"
            }
            Self::UnauthenticatedBulkLength => "Protocol error: unauthenticated bulk length",
            Self::TooBigRequest => "Protocol error: too big request",
            Self::ExpectedDollar(got) => {
                let got = if matches!(got, b'\r' | b'\n') {
                    ' '
                } else {
                    char::from(got)
                };
                return Cow::Owned(format!("Protocol error: expected '$', got '{got}'"));
            }
        })
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for ProtocolError {}

/// What the front of the input buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// A whole request: read it by [`RequestParser::args`], then drop `consumed` bytes.
    Request {
        /// Bytes of the buffer that belong to it.
        consumed: usize,
    },
    /// An empty line or an empty multibulk: nothing to answer, drop `consumed` bytes.
    Skip {
        /// Bytes of the buffer that belong to it.
        consumed: usize,
    },
    /// Part of a request.
    Incomplete {
        /// At least so many more bytes are missing.
        needed: usize,
    },
}

/// Where the parser stands within the request at the front of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing of it was looked at.
    Start,
    /// Looking for the end of an inline request.
    Inline,
    /// Looking for the end of the `*` line.
    Multibulk,
    /// Reading arguments; `bulk` is the length of the one whose `$` line was read.
    Arguments { missing: u32, bulk: Option<u32> },
}

/// Which bytes the spans of the last request refer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Input,
    Scratch,
}

/// The resumable parser of one connection.
#[derive(Debug)]
pub struct RequestParser {
    limits: Limits,
    state: State,
    /// Everything before this position is parsed.
    pos: usize,
    /// No line end was found before this position (only for a line that begins at `pos`).
    scanned: usize,
    source: Source,
    spans: Vec<Span>,
    /// Words of an inline request whose quotes had to be resolved.
    scratch: Vec<u8>,
}

/// A header line `*<n>` or `$<n>`.
enum Header {
    Value { value: i64, next: usize },
    Invalid,
    TooLong,
    Incomplete,
}

impl RequestParser {
    /// A parser at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            pos: 0,
            scanned: 0,
            source: Source::Input,
            spans: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Replaces the limits, as after a login; applies from the next header line on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Looks at the front of the input. After an error the connection cannot be used any further.
    #[inline]
    pub fn parse(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        if self.state == State::Start {
            let Some(&first) = buf.first() else {
                return Ok(Parsed::Incomplete { needed: 1 });
            };
            self.begin(first);
        }
        match self.state {
            State::Inline => self.inline(buf),
            State::Start | State::Multibulk => self.multibulk(buf),
            State::Arguments { missing, bulk } => self.arguments(buf, missing, bulk),
        }
    }

    /// Spans of the last request. For an inline request with quotes they refer to the parser's own scratch
    /// space and not to the input: use [`Self::args`] unless only their number matters.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The bytes that [`Self::spans`] refer to where that is not the input: an inline request with quotes.
    pub fn scratch(&self) -> Option<&[u8]> {
        match self.source {
            Source::Input => None,
            Source::Scratch => Some(&self.scratch),
        }
    }

    /// Arguments of the last request; `buf` is what was given to [`Self::parse`].
    #[inline]
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        match self.source {
            Source::Input => Args::new(buf, &self.spans),
            Source::Scratch => Args::new(&self.scratch, &self.spans),
        }
    }

    /// Heap bytes held, for memory accounting.
    pub fn heap_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.scratch.capacity()
    }

    #[inline]
    fn begin(&mut self, first: u8) {
        if self.spans.capacity() > KEPT_SPANS {
            self.spans = Vec::new();
        }
        self.spans.clear();
        self.source = Source::Input;
        self.pos = 0;
        self.scanned = 0;
        self.state = if first == b'*' {
            State::Multibulk
        } else {
            State::Inline
        };
    }

    #[inline]
    fn multibulk(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        match self.header(buf) {
            Header::Incomplete => Ok(Parsed::Incomplete { needed: 1 }),
            Header::TooLong => Err(ProtocolError::TooBigMultibulkHeader),
            Header::Invalid => Err(ProtocolError::InvalidMultibulkLength),
            Header::Value { value, next } => {
                if value <= 0 {
                    self.state = State::Start;
                    return Ok(Parsed::Skip { consumed: next });
                }
                if value > i64::from(self.limits.max_args) {
                    return Err(
                        if self.limits.before_login()
                            && value <= i64::from(Limits::AUTHENTICATED.max_args)
                        {
                            ProtocolError::UnauthenticatedMultibulkLength
                        } else {
                            ProtocolError::InvalidMultibulkLength
                        },
                    );
                }
                self.pos = next;
                self.arguments(buf, value as u32, None)
            }
        }
    }

    fn arguments(
        &mut self,
        buf: &[u8],
        mut missing: u32,
        mut bulk: Option<u32>,
    ) -> Result<Parsed, ProtocolError> {
        while missing > 0 {
            let len = match bulk {
                Some(len) => len,
                None => match self.bulk_length(buf)? {
                    Some(len) => len,
                    None => {
                        self.state = State::Arguments {
                            missing,
                            bulk: None,
                        };
                        return Ok(Parsed::Incomplete { needed: 1 });
                    }
                },
            };
            let end = self.pos + len as usize + 2;
            if buf.len() < end {
                if end > u32::MAX as usize {
                    return Err(ProtocolError::TooBigRequest);
                }
                self.state = State::Arguments {
                    missing,
                    bulk: Some(len),
                };
                return Ok(Parsed::Incomplete {
                    needed: end - buf.len(),
                });
            }
            let Ok(start) = u32::try_from(self.pos) else {
                return Err(ProtocolError::TooBigRequest);
            };
            self.spans.push(Span { start, len });
            self.pos = end;
            bulk = None;
            missing -= 1;
        }
        self.state = State::Start;
        Ok(Parsed::Request { consumed: self.pos })
    }

    /// Reads the `$` line at the position and steps behind it; `None` while it is not complete.
    #[inline]
    fn bulk_length(&mut self, buf: &[u8]) -> Result<Option<u32>, ProtocolError> {
        match buf.get(self.pos) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedDollar(other)),
        }
        match self.header(buf) {
            Header::Incomplete => Ok(None),
            Header::TooLong => Err(ProtocolError::TooBigBulkHeader),
            Header::Invalid => Err(ProtocolError::InvalidBulkLength),
            Header::Value { value, next } => {
                let max = i64::from(self.limits.max_bulk_bytes);
                if value < 0 || value > max {
                    let known =
                        (0..=i64::from(Limits::AUTHENTICATED.max_bulk_bytes)).contains(&value);
                    return Err(if self.limits.before_login() && known {
                        ProtocolError::UnauthenticatedBulkLength
                    } else {
                        ProtocolError::InvalidBulkLength
                    });
                }
                self.pos = next;
                Ok(Some(value as u32))
            }
        }
    }

    /// Reads a header line at the position: its first byte is the type, the rest a number.
    #[inline]
    fn header(&mut self, buf: &[u8]) -> Header {
        let rest = buf.get(self.pos..).unwrap_or(&[]);
        let mut value: u32 = 0;
        let mut at = 1;
        while let Some(&byte) = rest.get(at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 || at > 9 {
                break;
            }
            value = value * 10 + u32::from(digit);
            at += 1;
        }
        let plain =
            rest.get(at) == Some(&b'\r') && at > 1 && (at == 2 || rest.get(1) != Some(&b'0'));
        if plain && rest.len() > at + 1 {
            return Header::Value {
                value: i64::from(value),
                next: self.pos + at + 2,
            };
        }
        self.unusual_header(buf)
    }

    /// The same for lines that are incomplete, negative, very long or wrong. The byte after `\r` is taken for
    /// `\n` unseen, as Redis does.
    #[cold]
    fn unusual_header(&mut self, buf: &[u8]) -> Header {
        let from = self.scanned.max(self.pos + 1);
        let line_end = buf
            .get(from..)
            .and_then(|rest| rest.iter().position(|&b| b == b'\r'));
        let length = line_end.map_or(buf.len(), |at| from + at) - self.pos;
        if length > self.limits.max_inline_bytes as usize {
            return Header::TooLong;
        }
        let Some(at) = line_end else {
            self.scanned = buf.len();
            return Header::Incomplete;
        };
        let end = from + at;
        if buf.len() < end + 2 {
            self.scanned = end;
            return Header::Incomplete;
        }
        match buf.get(self.pos + 1..end).and_then(parse_i64) {
            Some(value) => Header::Value {
                value,
                next: end + 2,
            },
            None => Header::Invalid,
        }
    }

    fn inline(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolError> {
        let fresh = buf.get(self.scanned..).unwrap_or(&[]);
        let line_end = fresh
            .iter()
            .position(|&b| b == b'\n')
            .map(|at| self.scanned + at);
        if line_end.unwrap_or(buf.len()) > self.limits.max_inline_bytes as usize {
            return Err(ProtocolError::TooBigInline);
        }
        let Some(end) = line_end else {
            self.scanned = buf.len();
            return Ok(Parsed::Incomplete { needed: 1 });
        };
        let line = buf.get(..end).unwrap_or(&[]);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.split_inline(line)?;
        self.state = State::Start;
        let consumed = end + 1;
        if self.spans.is_empty() {
            return Ok(Parsed::Skip { consumed });
        }
        if self.spans.len() > self.limits.max_args as usize {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        Ok(Parsed::Request { consumed })
    }

    /// Splits a line into words: in place where there are no quotes, otherwise into the scratch space.
    fn split_inline(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        if self.scratch.capacity() > KEPT_SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        self.scratch.clear();
        if line.iter().any(|b| matches!(b, b'"' | b'\'')) {
            self.source = Source::Scratch;
            return split_quoted(line, &mut self.scratch, &mut self.spans);
        }
        let mut at = 0;
        for word in line.split(|&b| is_blank(b)) {
            // A line is at most `max_inline_bytes` (a u32) long, so both numbers fit.
            if !word.is_empty() {
                self.spans.push(Span {
                    start: at as u32,
                    len: word.len() as u32,
                });
            }
            at += word.len() + 1;
        }
        Ok(())
    }
}

/// C's `isspace`, and NUL, which ends a line's words for Redis.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r' | 0)
}

/// Splits a line into words by the rules of `redis-cli` and `redis.conf`: `"…"` with `\n \r \t \b \a \xHH`
/// escapes, `'…'` with `\'` only; a closing quote must be followed by a blank. Appends the bytes of all words to
/// `out` and one span per word to `spans`.
pub fn split_quoted(
    line: &[u8],
    out: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        while let [blank, tail @ ..] = rest
            && is_blank(*blank)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = out.len();
        rest = unquote_word(rest, out)?;
        let (Ok(at), Ok(len)) = (u32::try_from(start), u32::try_from(out.len() - start)) else {
            return Err(ProtocolError::TooBigRequest);
        };
        spans.push(Span { start: at, len });
    }
}

/// Appends the word at the front of `rest` to `out`, unquoted; answers what follows it.
fn unquote_word<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    enum Quote {
        None,
        Single,
        Double,
    }
    let mut quote = Quote::None;
    loop {
        rest = match (&quote, rest) {
            (Quote::None, []) => return Ok(rest),
            (Quote::None, [blank, ..]) if is_blank(*blank) => return Ok(rest),
            (Quote::None, [b'"', tail @ ..]) => {
                quote = Quote::Double;
                tail
            }
            (Quote::None, [b'\'', tail @ ..]) => {
                quote = Quote::Single;
                tail
            }
            (Quote::Single | Quote::Double, []) => return Err(ProtocolError::UnbalancedQuotes),
            (Quote::Double, [b'"', tail @ ..]) | (Quote::Single, [b'\'', tail @ ..]) => {
                if tail.first().is_some_and(|b| !is_blank(*b)) {
                    return Err(ProtocolError::UnbalancedQuotes);
                }
                return Ok(tail);
            }
            (Quote::Double, [b'\\', b'x', high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex(*high) << 4 | hex(*low));
                tail
            }
            (Quote::Double, [b'\\', escaped, tail @ ..]) => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            (Quote::Single, [b'\\', b'\'', tail @ ..]) => {
                out.push(b'\'');
                tail
            }
            (_, [byte, tail @ ..]) => {
                out.push(*byte);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests;
