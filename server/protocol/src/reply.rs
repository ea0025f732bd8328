//! Reply values, for those who receive replies: replica links, the operator, tests. And the encoding of requests
//! that such a client sends.
//!
//! The server's own handlers never build these; they write through [`crate::ReplyWriter`].

use crate::number::format_i64;
use crate::writer::{Flag, ReplyWriter};

/// A decoded reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// A status line.
    Simple(String),
    /// An error line, code included.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A byte string.
    Bulk(Vec<u8>),
    /// The absent value, of either version and form.
    Null,
    /// An ordered list.
    Array(Vec<Reply>),
    /// Pairs in the order received.
    Map(Vec<(Reply, Reply)>),
    /// An unordered list.
    Set(Vec<Reply>),
    /// A message that answers no request.
    Push(Vec<Reply>),
    /// A double.
    Double(f64),
    /// A boolean.
    Boolean(bool),
    /// An integer of any size, in decimal.
    BigNumber(String),
    /// Text with its three-letter format.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text itself.
        text: Vec<u8>,
    },
    /// A reply preceded by attributes.
    Attributed {
        /// Pairs in the order received.
        attributes: Vec<(Reply, Reply)>,
        /// The reply they describe.
        reply: Box<Reply>,
    },
}

impl Reply {
    /// The bytes of a status, byte string or verbatim string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) => Some(text.as_bytes()),
            Self::Bulk(bytes) => Some(bytes),
            Self::Verbatim { text, .. } => Some(text),
            Self::Attributed { reply, .. } => reply.as_bytes(),
            Self::Error(_)
            | Self::Integer(_)
            | Self::Null
            | Self::Array(_)
            | Self::Map(_)
            | Self::Set(_)
            | Self::Push(_)
            | Self::Double(_)
            | Self::Boolean(_)
            | Self::BigNumber(_) => None,
        }
    }

    /// The same as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes()
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Writes this value; RESP3 types take their RESP2 form where the writer's version asks for it.
    pub fn write(&self, w: &mut ReplyWriter<'_>) {
        match self {
            Self::Simple(text) => w.simple(text),
            Self::Error(text) => w.error(text),
            Self::Integer(value) => w.integer(*value),
            Self::Bulk(bytes) => w.bulk(bytes),
            Self::Null => w.null(),
            Self::Array(items) => {
                w.array(items.len());
                items.iter().for_each(|item| item.write(w));
            }
            Self::Set(items) => {
                w.set(items.len());
                items.iter().for_each(|item| item.write(w));
            }
            Self::Push(items) => {
                w.push(items.len());
                items.iter().for_each(|item| item.write(w));
            }
            Self::Map(pairs) => {
                w.map(pairs.len());
                write_pairs(pairs, w);
            }
            Self::Double(value) => w.double(*value),
            Self::Boolean(value) => w.bool(Flag::from(*value)),
            Self::BigNumber(digits) => w.big_number(digits),
            Self::Verbatim { format, text } => w.verbatim(&String::from_utf8_lossy(format), text),
            Self::Attributed { attributes, reply } => {
                if w.version() == crate::Version::Resp3 {
                    w.raw(b"|");
                    w.raw(&format_i64(attributes.len() as i64));
                    w.raw(b"\r\n");
                    write_pairs(attributes, w);
                }
                reply.write(w);
            }
        }
    }
}

fn write_pairs(pairs: &[(Reply, Reply)], w: &mut ReplyWriter<'_>) {
    for (key, value) in pairs {
        key.write(w);
        value.write(w);
    }
}

/// Appends a request in multibulk form.
pub fn encode_command<I>(out: &mut Vec<u8>, args: I)
where
    I: IntoIterator<Item: AsRef<[u8]>, IntoIter: ExactSizeIterator>,
{
    let args = args.into_iter();
    // Requests look the same in both versions.
    let mut w = ReplyWriter::new(out, crate::Version::Resp2);
    w.array(args.len());
    for arg in args {
        w.bulk(arg.as_ref());
    }
}
