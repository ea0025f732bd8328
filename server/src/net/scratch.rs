//! Buffers that the connections of one I/O thread share: only one of them runs at a time.

use std::cell::RefCell;

use resp::{Args, RequestParser, Span};

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// An output buffer that has grown beyond this is given back to the allocator.
const KEEP_OUTPUT_BYTES: usize = 1024 * 1024;

/// One thread's buffers.
pub struct Scratch {
    /// Filled by a read, consumed by the batch that follows.
    pub input: Box<[u8]>,
    /// Replies of the present batch.
    pub output: Vec<u8>,
    /// The requests of the present batch.
    pub batch: Batch,
}

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

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.requests.clear();
        self.unquoted.clear();
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; READ_BYTES].into_boxed_slice(),
        output: Vec::new(),
        batch: Batch::default(),
    });
}

/// Lends this thread's buffers to `work`.
pub fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let result = work(&mut scratch);
        scratch.output.clear();
        if scratch.output.capacity() > KEEP_OUTPUT_BYTES {
            scratch.output = Vec::new();
        }
        result
    })
}
