//! The master's stream on its way into the engine, as a buffer without I/O.
//!
//! Owns the bytes received and three places in them: what is parsed, what is applied (always at the
//! end of a command that stands outside of MULTI), and what was forwarded. `link.rs` fills the
//! buffer, has some commands parsed, applies them, and forwards the applied bytes exactly as they
//! came: sub-replicas and our own backlog must hold the master's bytes, never a re-encoding.

use bytes::{BufMut, buf::Limit};
use resp::{Args, Limits, Parsed, ProtocolError, RequestParser};

use crate::input::{self, Batch};

/// Whatever a master has taken from its clients is taken from it: `proto-max-bulk-len` is a matter of each server's own
/// clients. What is left is the bound of a request, and memory is taken only for bytes that have come.
const LIMITS: Limits = Limits {
    max_bulk_bytes: u32::MAX,
    ..Limits::AUTHENTICATED
};
/// A buffer that grew beyond this for a large command is given back when it is empty.
const KEEP_BYTES: usize = 1024 * 1024;

/// See the module's text.
pub struct StreamBuffer {
    bytes: Vec<u8>,
    /// End of the last command parsed.
    parsed: usize,
    /// End of the last command that is applied for good.
    applied: usize,
    parser: RequestParser,
    /// At least so many bytes are missing for the next command.
    needed: usize,
    /// The commands parsed last.
    batch: Batch,
}

/// What is behind the commands parsed last.
#[derive(Debug, PartialEq, Eq)]
pub enum Behind {
    /// Perhaps more commands.
    Commands,
    /// Part of a command, or nothing.
    NeedMore,
}

impl StreamBuffer {
    /// A buffer that begins with `first`, bytes that were read together with the handshake.
    pub fn new(first: Vec<u8>) -> Self {
        Self {
            bytes: first,
            parsed: 0,
            applied: 0,
            parser: RequestParser::new(LIMITS),
            needed: 1,
            batch: Batch::default(),
        }
    }

    /// Appends bytes from the socket by `read`, which gets the room.
    pub fn fill<T>(&mut self, read: impl FnOnce(&mut Limit<&mut Vec<u8>>) -> T) -> T {
        let room = input::make_room(&mut self.bytes, self.needed);
        read(&mut (&mut self.bytes).limit(room))
    }

    /// Parses the next commands, `most` at most: they take the place of those parsed before.
    ///
    /// # Errors
    /// For what is no command. Those before it are parsed.
    pub fn parse(&mut self, most: usize) -> Result<Behind, ProtocolError> {
        self.batch.clear();
        while self.batch.requests.len() < most {
            match self.parser.parse(&self.bytes[self.parsed..])? {
                Parsed::Request { consumed } => {
                    let end = self.parsed + consumed;
                    self.batch.push(&self.parser, self.parsed, end);
                    self.parsed = end;
                }
                Parsed::Skip { consumed } => self.parsed += consumed,
                Parsed::Incomplete { needed } => {
                    self.needed = needed;
                    return Ok(Behind::NeedMore);
                }
            }
        }
        Ok(Behind::Commands)
    }

    /// How many commands were parsed last.
    pub fn commands(&self) -> usize {
        self.batch.requests.len()
    }

    /// The arguments of one of them.
    pub fn args(&self, index: usize) -> Args<'_> {
        self.batch.args(&self.batch.requests[index], &self.bytes)
    }

    /// The first arguments of all of them from `index` on: mostly keys.
    pub fn keys_from(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let requests = &self.batch.requests[index..];
        requests
            .iter()
            .filter_map(|request| self.batch.args(request, &self.bytes).get(1))
    }

    /// This one and all before it are applied: no transaction is open.
    pub fn mark_applied(&mut self, index: usize) {
        self.applied = self.batch.requests[index].end;
    }

    /// The applied bytes that were not forwarded yet.
    pub fn applied(&self) -> &[u8] {
        &self.bytes[..self.applied]
    }

    /// Bytes received but not applied.
    pub fn unapplied_bytes(&self) -> u64 {
        (self.bytes.len() - self.applied) as u64
    }

    /// Drops the applied bytes, which are forwarded now, and the commands parsed last.
    pub fn drop_applied(&mut self) {
        self.batch.clear();
        if self.applied == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP_BYTES);
        } else {
            self.bytes.drain(..self.applied);
        }
        self.parsed -= self.applied;
        self.applied = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(buffer: &mut StreamBuffer, bytes: &[u8]) {
        buffer.fill(|room| room.put_slice(bytes));
    }

    #[test]
    fn bytes_are_forwarded_only_to_the_end_of_an_applied_command() {
        let stream =
            b"*1\r\n$4\r\nPING\r\n\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$5\r\nMULTI\r\n";
        let mut buffer = StreamBuffer::new(Vec::new());
        let mut forwarded = Vec::new();
        for byte in stream {
            fill(&mut buffer, &[*byte]);
            assert_eq!(buffer.parse(9), Ok(Behind::NeedMore));
            for index in 0..buffer.commands() {
                if buffer.args(index).get(0) != Some(b"MULTI") {
                    buffer.mark_applied(index);
                }
            }
            forwarded.extend_from_slice(buffer.applied());
            buffer.drop_applied();
        }
        assert_eq!(
            forwarded,
            &stream[..stream.len() - 15],
            "MULTI is not applied yet"
        );
        fill(&mut buffer, b"*1\r\n$4\r\nEXEC\r\n");
        assert_eq!(buffer.parse(9), Ok(Behind::NeedMore));
        buffer.mark_applied(0);
        assert_eq!(
            buffer.applied(),
            b"*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n"
        );
    }

    /// A master's clients may have been allowed more than ours are.
    #[test]
    fn an_argument_may_be_as_long_as_a_request() {
        for (length, expected) in [
            (2_u64 << 30, Ok(Behind::NeedMore)),
            (1 << 32, Err(ProtocolError::InvalidBulkLength)),
        ] {
            let first = format!("*2\r\n$3\r\nGET\r\n${length}\r\nx");
            let mut buffer = StreamBuffer::new(first.into_bytes());
            assert_eq!(buffer.parse(1), expected);
            buffer.fill(|room| assert!(room.remaining_mut() <= 1 << 20));
            assert!(buffer.bytes.capacity() <= 1 << 18, "for what is announced");
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        let mut buffer = StreamBuffer::new(b"PING\r\n*1\r\nxPING\r\n".to_vec());
        assert!(buffer.parse(9).is_err());
        assert_eq!(buffer.commands(), 1, "what came before it is a command");
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let known: Vec<&[u8]> = vec![
            b"*1\r\n$4\r\nPING\r\n",
            b"*1\r\n$5\r\nMULTI\r\n",
            b"*1\r\n$4\r\nEXEC\r\n",
            b"\r\n",
            b"*0\r\n",
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"*-1\r\n",
            b"*2147483647\r\n",
            b"$536870912\r\n",
            b"inline word\r\n",
            b"*",
            b"$",
        ];
        prop_oneof![
            8 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// However the stream is cut, the same commands come out, and what is forwarded are its own
        /// bytes up to the end of an applied command.
        #[test]
        fn any_stream_is_taken_the_same_way_however_it_is_cut(
            pieces in prop::collection::vec(piece(), 0..12), step in 1usize..40, most in 1usize..5,
        ) {
            let stream = pieces.concat();
            let run = |step: usize, most: usize| {
                let mut buffer = StreamBuffer::new(Vec::new());
                let (mut commands, mut forwarded, mut open) = (Vec::new(), Vec::new(), false);
                for chunk in stream.chunks(step) {
                    fill(&mut buffer, chunk);
                    loop {
                        let behind = buffer.parse(most);
                        for index in 0..buffer.commands() {
                            let words: Vec<Vec<u8>> =
                                buffer.args(index).iter().map(<[u8]>::to_vec).collect();
                            open = match words[0].as_slice() {
                                b"MULTI" => true,
                                b"EXEC" => false,
                                _ => open,
                            };
                            commands.push(words);
                            if !open {
                                buffer.mark_applied(index);
                            }
                        }
                        forwarded.extend_from_slice(buffer.applied());
                        buffer.drop_applied();
                        match behind {
                            Ok(Behind::Commands) => {}
                            Ok(Behind::NeedMore) => break,
                            Err(error) => return (commands, Err(error)),
                        }
                    }
                }
                assert!(stream.starts_with(&forwarded));
                assert_eq!(forwarded.len() as u64 + buffer.unapplied_bytes(), stream.len() as u64);
                (commands, Ok(()))
            };
            prop_assert_eq!(run(step, most), run(stream.len().max(1), 99));
        }
    }
}
