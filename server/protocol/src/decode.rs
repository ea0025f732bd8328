//! Incremental decoder of replies, RESP2 and RESP3.
//!
//! Used by replica links, the operator and tests, on bytes that may come from a hostile peer. As for requests,
//! the caller hands in all unconsumed input each time and the decoder goes on where it stopped: finished elements
//! of an unfinished aggregate are kept, so nothing is decoded twice. Announced sizes allocate nothing.

use thiserror::Error;

use crate::number::parse_i64;
use crate::reply::Reply;

/// Longest line of a status, error, number or header.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Caps on one reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    /// Longest byte string.
    pub max_bulk_bytes: usize,
    /// Most values in one reply, nested ones included.
    pub max_values: usize,
    /// Deepest nesting.
    pub max_depth: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_bulk_bytes: 512 * 1024 * 1024,
            max_values: 16 * 1024 * 1024,
            max_depth: 64,
        }
    }
}

/// Why a peer's replies cannot be understood; the connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// A type byte that neither version has.
    #[error("reply of unknown type {0:#04x}")]
    UnknownType(u8),
    /// A line that does not end, or is not what its type byte says.
    #[error("malformed line after reply type '{}'", char::from(*.0))]
    BadLine(u8),
    /// A byte string that is not followed by a line end.
    #[error("byte string without its line end")]
    Unterminated,
    /// A byte string above the limit.
    #[error("byte string of {0} bytes is above the limit")]
    TooLong(u64),
    /// More values than the limit.
    #[error("reply with too many values")]
    TooMany,
    /// Nesting beyond the limit.
    #[error("reply nested too deeply")]
    TooDeep,
}

/// What the front of the input holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Decoded {
    /// A whole reply; drop `consumed` bytes of input.
    Reply {
        /// The value.
        reply: Reply,
        /// Bytes that belong to it.
        consumed: usize,
    },
    /// Part of one.
    Incomplete {
        /// At least so many more bytes are missing.
        needed: usize,
    },
}

/// Kind of an aggregate under construction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Array,
    Set,
    Push,
    Map,
    Attribute,
    /// The one reply that follows attributes.
    Attributed,
}

/// An aggregate under construction.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    missing: usize,
    items: Vec<Reply>,
}

/// One step's result: a value, the start of an aggregate, or not enough input.
enum Token {
    Value(Reply),
    Open(Kind, usize),
    Incomplete(usize),
}

/// The resumable decoder of one connection.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    limits: DecodeLimits,
    stack: Vec<Frame>,
    /// Everything before this position is decoded.
    pos: usize,
    /// No line end was found before this position.
    scanned: usize,
    values: usize,
}

impl ReplyDecoder {
    /// A decoder at the start of a connection.
    pub fn new(limits: DecodeLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Looks at the front of the input, which may only have grown at its end since the last call that answered
    /// [`Decoded::Incomplete`]. After an error the decoder cannot be used any further.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Decoded, DecodeError> {
        loop {
            let value = match self.token(buf)? {
                Token::Incomplete(needed) => return Ok(Decoded::Incomplete { needed }),
                Token::Open(kind, missing) => {
                    self.open(kind, missing)?;
                    None
                }
                Token::Value(value) => Some(value),
            };
            self.values += 1;
            if self.values > self.limits.max_values {
                return Err(DecodeError::TooMany);
            }
            if let Some(reply) = self.close(value) {
                let consumed = self.pos;
                (self.pos, self.scanned, self.values) = (0, 0, 0);
                return Ok(Decoded::Reply { reply, consumed });
            }
        }
    }

    fn open(&mut self, kind: Kind, missing: usize) -> Result<(), DecodeError> {
        if self.stack.len() >= self.limits.max_depth {
            return Err(DecodeError::TooDeep);
        }
        if missing > self.limits.max_values {
            return Err(DecodeError::TooMany);
        }
        self.stack.push(Frame {
            kind,
            missing,
            items: Vec::new(),
        });
        Ok(())
    }

    /// Hands a finished value to the aggregate it belongs to, and so on upwards; the outermost one comes out.
    fn close(&mut self, mut value: Option<Reply>) -> Option<Reply> {
        loop {
            let Some(frame) = self.stack.last_mut() else {
                return value;
            };
            if let Some(value) = value.take() {
                frame.items.push(value);
                frame.missing -= 1;
            }
            if frame.missing > 0 {
                return None;
            }
            if frame.kind == Kind::Attribute {
                // Its items become the attributes of the reply that follows.
                frame.kind = Kind::Attributed;
                frame.missing = 1;
                return None;
            }
            value = self.stack.pop().map(Frame::into_reply);
        }
    }

    fn token(&mut self, buf: &[u8]) -> Result<Token, DecodeError> {
        let Some(&kind) = buf.get(self.pos) else {
            return Ok(Token::Incomplete(1));
        };
        if !b"+-:$*_#,(=!%~>|".contains(&kind) {
            return Err(DecodeError::UnknownType(kind));
        }
        let Some((line, next)) = self.line(buf, kind)? else {
            return Ok(Token::Incomplete(1));
        };
        let bad = DecodeError::BadLine(kind);
        match kind {
            b'$' | b'=' | b'!' => return self.bulk(buf, kind, line, next),
            b'*' | b'%' | b'~' | b'>' | b'|' => {
                let token = aggregate(kind, line).ok_or(bad)?;
                self.advance(next);
                return Ok(token);
            }
            _ => {}
        }
        let text = || String::from_utf8_lossy(line).into_owned();
        let value = match kind {
            b'+' => Reply::Simple(text()),
            b'-' => Reply::Error(text()),
            b':' => Reply::Integer(parse_i64(line.strip_prefix(b"+").unwrap_or(line)).ok_or(bad)?),
            b'_' if line.is_empty() => Reply::Null,
            b'#' if line == b"t" => Reply::Boolean(true),
            b'#' if line == b"f" => Reply::Boolean(false),
            b',' => Reply::Double(text().parse().map_err(|_| bad)?),
            b'(' if is_decimal(line) => Reply::BigNumber(text()),
            _ => return Err(bad),
        };
        self.advance(next);
        Ok(Token::Value(value))
    }

    fn bulk(
        &mut self,
        buf: &[u8],
        kind: u8,
        line: &[u8],
        next: usize,
    ) -> Result<Token, DecodeError> {
        let bad = DecodeError::BadLine(kind);
        let len = parse_i64(line).ok_or(bad)?;
        if len == -1 && kind == b'$' {
            self.advance(next);
            return Ok(Token::Value(Reply::Null));
        }
        let len = u64::try_from(len).map_err(|_| bad)?;
        if len > self.limits.max_bulk_bytes as u64 {
            return Err(DecodeError::TooLong(len));
        }
        let end = next + len as usize;
        let Some(terminator) = buf.get(end..end + 2) else {
            return Ok(Token::Incomplete(end + 2 - buf.len()));
        };
        if terminator != b"\r\n" {
            return Err(DecodeError::Unterminated);
        }
        let bytes = buf.get(next..end).unwrap_or(&[]);
        let value = match (kind, bytes) {
            (b'$', bytes) => Reply::Bulk(bytes.to_vec()),
            (b'!', bytes) => Reply::Error(String::from_utf8_lossy(bytes).into_owned()),
            (_, [a, b, c, b':', text @ ..]) => Reply::Verbatim {
                format: [*a, *b, *c],
                text: text.to_vec(),
            },
            _ => return Err(bad),
        };
        self.advance(end + 2);
        Ok(Token::Value(value))
    }

    /// The line at the position without its type byte and end, and where the next begins.
    fn line<'a>(
        &mut self,
        buf: &'a [u8],
        kind: u8,
    ) -> Result<Option<(&'a [u8], usize)>, DecodeError> {
        let begin = self.pos + 1;
        let from = self.scanned.max(begin);
        let end = buf
            .get(from..)
            .and_then(|rest| rest.iter().position(|&b| b == b'\n'));
        let end = end.map(|at| from + at);
        if end.unwrap_or(buf.len()) - self.pos > MAX_LINE_BYTES {
            return Err(DecodeError::BadLine(kind));
        }
        let Some(end) = end else {
            self.scanned = buf.len();
            return Ok(None);
        };
        // A byte string is waited for with its line found anew each time; let that be quick.
        self.scanned = end;
        let line = buf
            .get(begin..end)
            .and_then(|line| line.strip_suffix(b"\r"));
        line.map(|line| Some((line, end + 1)))
            .ok_or(DecodeError::BadLine(kind))
    }

    fn advance(&mut self, next: usize) {
        self.pos = next;
        self.scanned = next;
    }
}

fn aggregate(kind: u8, line: &[u8]) -> Option<Token> {
    let len = parse_i64(line)?;
    if len == -1 && kind == b'*' {
        return Some(Token::Value(Reply::Null));
    }
    let len = usize::try_from(len).ok()?;
    Some(match kind {
        b'*' => Token::Open(Kind::Array, len),
        b'~' => Token::Open(Kind::Set, len),
        b'>' => Token::Open(Kind::Push, len),
        b'%' => Token::Open(Kind::Map, len.checked_mul(2)?),
        b'|' => Token::Open(Kind::Attribute, len.checked_mul(2)?),
        _ => return None,
    })
}

fn is_decimal(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

impl Frame {
    fn into_reply(self) -> Reply {
        match self.kind {
            Kind::Array => Reply::Array(self.items),
            Kind::Set => Reply::Set(self.items),
            Kind::Push => Reply::Push(self.items),
            Kind::Map | Kind::Attribute => Reply::Map(into_pairs(self.items)),
            Kind::Attributed => {
                let mut items = self.items;
                let reply = Box::new(items.pop().unwrap_or(Reply::Null));
                Reply::Attributed {
                    attributes: into_pairs(items),
                    reply,
                }
            }
        }
    }
}

fn into_pairs(items: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ReplyWriter, Version};

    fn run(input: &[u8], step: usize) -> (Vec<Reply>, Option<DecodeError>) {
        let limits = DecodeLimits {
            max_bulk_bytes: 1000,
            max_values: 500,
            max_depth: 8,
        };
        let mut decoder = ReplyDecoder::new(limits);
        let (mut start, mut end) = (0, 0);
        let mut replies = Vec::new();
        loop {
            match decoder.decode(&input[start..end]) {
                Err(error) => return (replies, Some(error)),
                Ok(Decoded::Reply { reply, consumed }) => {
                    replies.push(reply);
                    start += consumed;
                }
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(needed > 0);
                    if end == input.len() {
                        return (replies, None);
                    }
                    end = (end + step).min(input.len());
                }
            }
        }
    }

    #[test]
    fn hostile_replies_are_refused_before_anything_is_allocated() {
        let cases: &[(&[u8], DecodeError)] = &[
            (b"?\r\n", DecodeError::UnknownType(b'?')),
            (b"$2000\r\n", DecodeError::TooLong(2000)),
            (b"*9999999\r\n", DecodeError::TooMany),
            (b"%9223372036854775807\r\n", DecodeError::TooMany),
            (b"*-2\r\n", DecodeError::BadLine(b'*')),
            (b"$2\r\nabcd", DecodeError::Unterminated),
            (b":1x\r\n", DecodeError::BadLine(b':')),
            (b"+OK\n", DecodeError::BadLine(b'+')),
            (b"=2\r\nab\r\n", DecodeError::BadLine(b'=')),
            (&b"*1\r\n".repeat(9), DecodeError::TooDeep),
        ];
        for (input, error) in cases {
            for step in [1, 3, 100] {
                assert_eq!(
                    run(input, step).1,
                    Some(*error),
                    "{:?}",
                    String::from_utf8_lossy(input)
                );
            }
        }
    }

    #[test]
    fn attributes_belong_to_the_reply_that_follows_them() {
        let (replies, error) = run(
            b"|1\r\n+ttl\r\n:5\r\n$1\r\nx\r\n*0\r\n%0\r\n$-1\r\n*-1\r\n",
            2,
        );
        assert_eq!(error, None);
        let attributes = vec![(Reply::Simple("ttl".into()), Reply::Integer(5))];
        let first = Reply::Attributed {
            attributes,
            reply: Box::new(Reply::Bulk(b"x".to_vec())),
        };
        assert_eq!(
            replies,
            [
                first,
                Reply::Array(vec![]),
                Reply::Map(vec![]),
                Reply::Null,
                Reply::Null
            ]
        );
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        let leaf = prop_oneof![
            "[ -~]{0,10}".prop_map(Reply::Simple),
            "[ -~]{0,10}".prop_map(Reply::Error),
            any::<i64>().prop_map(Reply::Integer),
            bytes().prop_map(Reply::Bulk),
            Just(Reply::Null),
            any::<bool>().prop_map(Reply::Boolean),
            any::<f64>()
                .prop_filter("NaN equals nothing", |v| !v.is_nan())
                .prop_map(Reply::Double),
            "-?[0-9]{1,30}".prop_map(Reply::BigNumber),
            bytes().prop_map(|text| Reply::Verbatim {
                format: *b"txt",
                text
            }),
        ];
        leaf.prop_recursive(3, 40, 5, |inner| {
            let list = || proptest::collection::vec(inner.clone(), 0..5);
            let pairs = || proptest::collection::vec((inner.clone(), inner.clone()), 0..4);
            prop_oneof![
                list().prop_map(Reply::Array),
                list().prop_map(Reply::Set),
                list().prop_map(Reply::Push),
                pairs().prop_map(Reply::Map),
                (pairs(), inner.clone()).prop_map(|(attributes, reply)| Reply::Attributed {
                    attributes,
                    reply: Box::new(reply),
                }),
            ]
        })
    }

    fn any_garbage() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            "[+:$*_#,(=!%~>|-]".prop_map(String::into_bytes),
            Just(b"\r\n".to_vec()),
            "[0-9]{1,2}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..3),
        ];
        proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_decoded(replies in proptest::collection::vec(any_reply(), 1..4), step in 1usize..40) {
            let mut input = Vec::new();
            for reply in &replies {
                reply.write(&mut ReplyWriter::new(&mut input, Version::Resp3));
            }
            prop_assert_eq!(run(&input, step), (replies, None));
        }

        #[test]
        fn garbage_never_panics_and_the_way_it_is_cut_changes_nothing(input in any_garbage()) {
            let whole = run(&input, input.len().max(1));
            for step in 1..=input.len().min(30) {
                let cut = run(&input, step);
                prop_assert_eq!(format!("{cut:?}"), format!("{whole:?}"));
            }
        }
    }
}
