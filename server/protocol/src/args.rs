//! Arguments of one request: borrowed from an input buffer ([`Args`]) or kept for later ([`OwnedArgs`]).
//!
//! Made by [`crate::RequestParser`], read by every command handler. Both are a byte buffer plus one [`Span`] per
//! argument, so that passing a request on costs two pointers and looking at an argument costs no allocation.

use std::fmt;
use std::ops::Index;

/// Byte range of one argument, relative to the start of the buffer it was found in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    fn of(self, buf: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &buf[start..start + self.len as usize]
    }
}

/// One request, borrowed: the command name is argument 0.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// Arguments at `spans` of `buf`. Every span must lie within `buf`; looking at one that does not panics.
    pub fn new(buf: &'a [u8], spans: &'a [Span]) -> Self {
        Self { buf, spans }
    }

    /// Number of arguments, the command name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no argument at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `i`, if there is one.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.spans.get(i).map(|span| span.of(self.buf))
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let buf = self.buf;
        self.spans.iter().map(move |span| span.of(buf))
    }

    /// The arguments from number `from` on; none if there are fewer.
    #[inline]
    pub fn tail(&self, from: usize) -> Args<'a> {
        Args {
            buf: self.buf,
            spans: self.spans.get(from..).unwrap_or(&[]),
        }
    }

    /// Sum of the argument lengths in bytes.
    pub fn total_bytes(&self) -> usize {
        self.spans.iter().map(|span| span.len as usize).sum()
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        self.spans[i].of(self.buf)
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

/// A request that outlives its input buffer: one contiguous allocation for the bytes, one for the spans.
///
/// Made for the queue of MULTI and for commands that replication sends instead of the client's.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedArgs {
    buf: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// A copy of `args` that holds the argument bytes and nothing else.
    pub fn from_args(args: Args<'_>) -> Self {
        let mut owned = Self {
            buf: Vec::with_capacity(args.total_bytes()),
            spans: Vec::with_capacity(args.len()),
        };
        args.iter().for_each(|arg| owned.push(arg));
        owned
    }

    /// Appends one argument.
    pub fn push(&mut self, arg: &[u8]) {
        let start = u32::try_from(self.buf.len());
        let len = u32::try_from(arg.len());
        let (Ok(start), Ok(len)) = (start, len) else {
            unreachable!("a request is capped below 4 GiB by the parser that made its arguments");
        };
        self.buf.extend_from_slice(arg);
        self.spans.push(Span { start, len });
    }

    /// The arguments, borrowed.
    pub fn as_args(&self) -> Args<'_> {
        Args {
            buf: &self.buf,
            spans: &self.spans,
        }
    }

    /// Heap bytes held, for memory accounting.
    pub fn heap_bytes(&self) -> usize {
        self.buf.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}

impl From<Args<'_>> for OwnedArgs {
    fn from(args: Args<'_>) -> Self {
        Self::from_args(args)
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let mut owned = Self {
            buf: Vec::new(),
            spans: Vec::new(),
        };
        iter.into_iter().for_each(|arg| owned.push(arg.as_ref()));
        owned
    }
}

impl fmt::Debug for OwnedArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_args().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_arguments_equal_the_borrowed_ones_they_were_made_from() {
        let buf = b"xxSETyykeyzz";
        let spans = [
            Span { start: 2, len: 3 },
            Span { start: 7, len: 3 },
            Span { start: 0, len: 0 },
        ];
        let args = Args::new(buf, &spans);
        let owned = OwnedArgs::from(args);
        assert_eq!(
            owned.as_args().iter().collect::<Vec<_>>(),
            [&b"SET"[..], b"key", b""]
        );
        assert_eq!(owned, ["SET", "key", ""].into_iter().collect());
        assert_eq!(&args[1], b"key");
        assert_eq!(args.get(3), None);
        assert_eq!(args.tail(1).len(), 2);
        assert!(args.tail(9).is_empty());
        assert_eq!(format!("{owned:?}"), r#"["SET", "key", ""]"#);
    }
}
