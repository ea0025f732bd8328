//! Requests that are parsed ahead of being executed: without the engine's lock, and so that the memory of their keys can be
//! fetched while others run.
//!
//! Filled and emptied by a connection, and by the link to a master; the bytes stay in their buffers.

use resp::{Args, RequestParser, Span};

/// Arguments whose places need no memory of their own again: a full batch of short commands has fewer.
const KEPT_SPANS: usize = 64 * 1024;
/// Bytes of unquoted arguments that are kept room for.
const KEPT_BYTES: usize = 64 * 1024;

/// Requests that were parsed before the lock is taken.
#[derive(Default)]
pub struct Batch {
    /// Arguments of all requests, one after the other, relative to each request's start.
    pub spans: Vec<Span>,
    /// Arguments of inline requests whose quotes had to be resolved.
    pub unquoted: Vec<u8>,
    /// In order of arrival.
    pub requests: Vec<Request>,
}

/// One parsed request of a batch.
#[derive(Clone, Copy)]
pub struct Request {
    /// First byte in the input.
    pub start: usize,
    /// First byte behind it.
    pub end: usize,
    /// First span.
    pub first_span: usize,
    /// Number of spans.
    pub spans: usize,
    /// Where its arguments are.
    pub source: Source,
}

/// Where the arguments of a request are.
#[derive(Clone, Copy)]
pub enum Source {
    /// In the input, between the request's start and end.
    Input,
    /// In `Batch::unquoted`, from here on.
    Unquoted(usize),
}

impl Batch {
    /// Adds the request that `parser` has just found at `start..end` of the input.
    pub fn push(&mut self, parser: &RequestParser, start: usize, end: usize) {
        let first_span = self.spans.len();
        self.spans.extend_from_slice(parser.spans());
        let spans = self.spans.len() - first_span;
        let source = match parser.scratch() {
            None => Source::Input,
            Some(bytes) => {
                let at = self.unquoted.len();
                self.unquoted.extend_from_slice(bytes);
                Source::Unquoted(at)
            }
        };
        self.requests.push(Request {
            start,
            end,
            first_span,
            spans,
            source,
        });
    }

    /// The arguments of a request of this batch.
    pub fn args<'a>(&'a self, request: &Request, input: &'a [u8]) -> Args<'a> {
        let spans = &self.spans[request.first_span..request.first_span + request.spans];
        match request.source {
            Source::Input => Args::new(&input[request.start..request.end], spans),
            Source::Unquoted(at) => Args::new(&self.unquoted[at..], spans),
        }
    }

    /// Empties it, keeping its memory unless a large request made it grow.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.spans.shrink_to(KEPT_SPANS);
        self.requests.clear();
        self.unquoted.clear();
        self.unquoted.shrink_to(KEPT_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use resp::{Limits, Parsed};

    use super::*;

    #[test]
    fn what_a_large_request_needed_is_given_back() {
        let mut parser = RequestParser::new(Limits::AUTHENTICATED);
        let mut input = b"*500001\r\n$3\r\nDEL\r\n".to_vec();
        input.extend(b"$1\r\nk\r\n".repeat(500_000));
        let consumed = input.len();
        assert_eq!(parser.parse(&input), Ok(Parsed::Request { consumed }));
        let mut batch = Batch::default();
        batch.push(&parser, 0, consumed);
        assert_eq!(batch.args(&batch.requests[0], &input).len(), 500_001);
        batch.clear();
        assert!(batch.spans.capacity() <= KEPT_SPANS);
    }
}
