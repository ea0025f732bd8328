//! Writes replies in the connection's protocol version straight into its output buffer.
//!
//! Made by the engine for each command it executes; used by every handler. Types that only RESP3 has are written
//! to RESP2 connections in the form Redis gives them there, so handlers do not ask for the version.

use crate::Version;
use crate::number::{format_double, format_i64};

/// A boolean reply; RESP2 connections see it as 1 or 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// `#t` or `:1`.
    True,
    /// `#f` or `:0`.
    False,
}

impl From<bool> for Flag {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Where a reply of yet unknown length begins; see [`ReplyWriter::begin_array`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an aggregate that is begun must be finished"]
pub struct Mark(usize);

/// Space kept for the header of a deferred aggregate: right for up to nine elements.
const DEFERRED_HEADER: &[u8] = b"*0\r\n";

/// Appends replies to an output buffer.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: &'a mut Vec<u8>,
    version: Version,
}

impl<'a> ReplyWriter<'a> {
    /// A writer at the end of `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, version: Version) -> Self {
        Self { out, version }
    }

    /// The protocol version replies are written in.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Changes the version for what follows (`HELLO`).
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Bytes in the buffer; give it to [`Self::truncate`] to take back what was written since.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a position in the buffer, not a collection's size"
    )]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes back everything after position `len`.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// What was written after position `from`.
    pub fn since(&self, from: usize) -> &[u8] {
        self.out.get(from..).unwrap_or(&[])
    }

    /// Appends bytes that are already encoded.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status line.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error line; `text` begins with the code, as in `ERR syntax error`.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'-', text.as_ref());
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A byte string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer in the form of a byte string.
    #[inline]
    pub fn bulk_int(&mut self, value: i64) {
        self.bulk(&format_i64(value));
    }

    /// The absent value.
    #[inline]
    pub fn null(&mut self) {
        self.raw(match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// The absent value where a list was asked for.
    pub fn null_array(&mut self) {
        self.raw(match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// Header of an array: `len` replies follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// Header of a map: `pairs` times two replies follow.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', pairs as i64 * 2),
            Version::Resp3 => self.header(b'%', pairs as i64),
        }
    }

    /// Header of a set: `len` replies follow.
    pub fn set(&mut self, len: usize) {
        self.typed_array(b'~', len);
    }

    /// Header of a message that is not the answer to a request: `len` replies follow.
    pub fn push(&mut self, len: usize) {
        self.typed_array(b'>', len);
    }

    /// A double. RESP2 gets it as a byte string.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        match self.version {
            Version::Resp2 => self.bulk(&text),
            Version::Resp3 => self.line(b',', &text),
        }
    }

    /// A boolean. RESP2 gets 1 or 0.
    pub fn bool(&mut self, value: Flag) {
        self.raw(match (self.version, value) {
            (Version::Resp2, Flag::True) => b":1\r\n",
            (Version::Resp2, Flag::False) => b":0\r\n",
            (Version::Resp3, Flag::True) => b"#t\r\n",
            (Version::Resp3, Flag::False) => b"#f\r\n",
        });
    }

    /// Text for people with a format of three letters, such as `txt`. RESP2 gets a byte string.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(
            format.len(),
            3,
            "the format of a verbatim string has three letters"
        );
        match self.version {
            Version::Resp2 => self.bulk(text),
            Version::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.raw(format.as_bytes());
                self.raw(b":");
                self.raw(text);
                self.raw(b"\r\n");
            }
        }
    }

    /// An integer of any size, in decimal. RESP2 gets a byte string.
    pub fn big_number(&mut self, digits: &str) {
        match self.version {
            Version::Resp2 => self.bulk(digits.as_bytes()),
            Version::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// Begins an aggregate whose length is known only after its elements are written.
    pub fn begin_array(&mut self) -> Mark {
        let mark = Mark(self.out.len());
        self.raw(DEFERRED_HEADER);
        mark
    }

    /// Writes the header of the array begun at `mark`: `len` replies were written since.
    pub fn finish_array(&mut self, mark: Mark, len: usize) {
        self.finish(mark, b'*', len);
    }

    /// Like [`Self::finish_array`] for a map: `pairs` times two replies were written since.
    pub fn finish_map(&mut self, mark: Mark, pairs: usize) {
        match self.version {
            Version::Resp2 => self.finish(mark, b'*', pairs * 2),
            Version::Resp3 => self.finish(mark, b'%', pairs),
        }
    }

    /// Like [`Self::finish_array`] for a set.
    pub fn finish_set(&mut self, mark: Mark, len: usize) {
        match self.version {
            Version::Resp2 => self.finish(mark, b'*', len),
            Version::Resp3 => self.finish(mark, b'~', len),
        }
    }

    fn finish(&mut self, mark: Mark, kind: u8, len: usize) {
        let digits = format_i64(len as i64);
        if let ([digit], Some(header)) = (&*digits, self.out.get_mut(mark.0..mark.0 + 2)) {
            header.copy_from_slice(&[kind, *digit]);
            return;
        }
        let mut header = [0; 24];
        header[0] = kind;
        header[1..=digits.len()].copy_from_slice(&digits);
        self.out
            .splice(mark.0..mark.0 + 2, header[..=digits.len()].iter().copied());
    }

    #[inline]
    fn typed_array(&mut self, resp3_kind: u8, len: usize) {
        let kind = match self.version {
            Version::Resp2 => b'*',
            Version::Resp3 => resp3_kind,
        };
        self.header(kind, len as i64);
    }

    /// `<kind><value>\r\n`.
    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        if (0..10).contains(&value) {
            self.out
                .extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
            return;
        }
        let digits = format_i64(value);
        let mut line = [0; 24];
        let end = digits.len() + 1;
        line[0] = kind;
        line[1..end].copy_from_slice(&digits);
        line[end] = b'\r';
        line[end + 1] = b'\n';
        self.out.extend_from_slice(&line[..end + 2]);
    }

    /// `<kind><text>\r\n`, with line ends in the text made blanks: a reply may never be split by its content.
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        if text.iter().any(|b| matches!(b, b'\r' | b'\n')) {
            let clean = text
                .iter()
                .map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b });
            self.out.extend(clean);
        } else {
            self.out.extend_from_slice(text);
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, write: impl FnOnce(&mut ReplyWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut ReplyWriter::new(&mut out, version));
        String::from_utf8(out).unwrap()
    }

    fn both(write: impl Fn(&mut ReplyWriter<'_>)) -> (String, String) {
        (
            written(Version::Resp2, &write),
            written(Version::Resp3, &write),
        )
    }

    #[test]
    fn each_type_has_its_form_in_both_versions() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both(|w| w.null()), pair("$-1\r\n", "_\r\n"));
        assert_eq!(both(|w| w.null_array()), pair("*-1\r\n", "_\r\n"));
        assert_eq!(both(|w| w.map(3)), pair("*6\r\n", "%3\r\n"));
        assert_eq!(both(|w| w.set(12)), pair("*12\r\n", "~12\r\n"));
        assert_eq!(both(|w| w.push(2)), pair("*2\r\n", ">2\r\n"));
        assert_eq!(both(|w| w.double(1.5)), pair("$3\r\n1.5\r\n", ",1.5\r\n"));
        assert_eq!(both(|w| w.bool(true.into())), pair(":1\r\n", "#t\r\n"));
        assert_eq!(both(|w| w.bool(Flag::False)), pair(":0\r\n", "#f\r\n"));
        assert_eq!(
            both(|w| w.verbatim("txt", b"ab")),
            pair("$2\r\nab\r\n", "=6\r\ntxt:ab\r\n")
        );
        assert_eq!(
            both(|w| w.big_number("12")),
            pair("$2\r\n12\r\n", "(12\r\n")
        );
        assert_eq!(
            written(Version::Resp2, |w| w.bulk_int(-12)),
            "$3\r\n-12\r\n"
        );
        assert_eq!(
            written(Version::Resp2, |w| w.integer(i64::MIN)),
            ":-9223372036854775808\r\n"
        );
        assert_eq!(
            written(Version::Resp2, |w| w.error("ERR a\r\nb")),
            "-ERR a  b\r\n"
        );
    }

    #[test]
    fn deferred_aggregates_get_their_header_afterwards() {
        for len in [0usize, 3, 9, 10, 1234] {
            for version in [Version::Resp2, Version::Resp3] {
                let plain = written(version, |w| {
                    w.ok();
                    w.set(len);
                    w.raw(b"body");
                });
                let deferred = written(version, |w| {
                    w.ok();
                    let mark = w.begin_array();
                    w.raw(b"body");
                    w.finish_set(mark, len);
                });
                assert_eq!(plain, deferred);
            }
        }
    }

    #[test]
    fn what_was_written_can_be_taken_back() {
        let text = written(Version::Resp2, |w| {
            w.ok();
            let at = w.len();
            w.bulk(b"half");
            w.truncate(at);
            w.error("ERR no");
        });
        assert_eq!(text, "+OK\r\n-ERR no\r\n");
    }
}
