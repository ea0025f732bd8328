//! The stream: commands are applied in batches under the lock and forwarded byte for byte.
//!
//! Invariant: what a command of the master did there it does here, or the link ends before it. A command that fails
//! here is not counted as applied: offset and data stay those of one moment of the master, and the next attempt asks
//! for a full copy. Only a transaction that fails halfway leaves a part of itself behind: the data leave the history.

use std::{io, time::Duration};

use resp::Args;
use tokio::io::AsyncWriteExt;

use super::{ACK_PERIOD, Link, LinkError, Target, Wire};
use crate::{
    command::{args::is, session::Session},
    engine::{Origin, State, clock},
    keyspace::{ExpiryRule, PREFETCH_KEYS},
    replication::replica::streaming::{Behind, StreamBuffer},
};

/// Bytes of the stream that may wait for the end of a command or a transaction: as much as one request may have.
const MAX_UNAPPLIED_BYTES: u64 = u32::MAX as u64;
/// Commands applied under one lock.
const MAX_COMMANDS_PER_LOCK: usize = 512;
/// Bytes of a failed command's name and of its error that are told.
const MAX_SHOWN_BYTES: usize = 128;
/// Commands of a master that change no data and are not known here: messages for subscribers, and scripts and function
/// libraries, whose effects come as commands of their own.
const WITHOUT_EFFECT: [&str; 4] = ["PUBLISH", "SPUBLISH", "SCRIPT", "FUNCTION"];

impl Link {
    /// Applies the stream until the link ends.
    pub(super) fn stream(
        &self,
        target: &Target,
        wire: Wire,
    ) -> Result<std::convert::Infallible, LinkError> {
        let Wire {
            mut stream, unread, ..
        } = wire;
        let mut buffer = StreamBuffer::new(unread);
        let db = self.locked(target, |state| state.core.replication.stream_db())?;
        let mut applier = Applier::new(db.unwrap_or(0));
        let mut last_ack_ms = i64::MIN / 2;
        let mut last_data_ms = clock::monotonic_ms();
        let doing = "following the master";
        loop {
            let ack = self.apply(target, &mut buffer, &mut applier, last_data_ms)?;
            let now_ms = clock::monotonic_ms();
            if ack == Ack::Asked || now_ms - last_ack_ms >= ACK_PERIOD.as_millis() as i64 {
                last_ack_ms = now_ms;
                let ack = self.acknowledgement(target)?;
                self.wait(target, doing, self.timeout(), stream.write_all(&ack))?;
            }
            let until_ack = ACK_PERIOD.as_millis() as i64 - (now_ms - last_ack_ms);
            let pause = Duration::from_millis(until_ack.max(1) as u64);
            match self.wait(target, doing, pause, stream.readable()) {
                Ok(()) => {}
                Err(LinkError::Silent { .. }) => {
                    // What the configuration says now: the link may be older.
                    let silent_ms = clock::monotonic_ms() - last_data_ms;
                    if silent_ms > self.timeout().as_millis() as i64 {
                        return Err(LinkError::Silent { doing });
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            match buffer.fill(|room| stream.try_read_buf(room)) {
                Ok(0) => {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(LinkError::Io { doing, source });
                }
                Ok(_) => last_data_ms = clock::monotonic_ms(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(LinkError::Io { doing, source }),
            }
        }
    }

    /// Runs the commands that the buffer holds and forwards their bytes, the last of which came at `last_data_ms`.
    fn apply(
        &self,
        target: &Target,
        buffer: &mut StreamBuffer,
        applier: &mut Applier,
        last_data_ms: i64,
    ) -> Result<Ack, LinkError> {
        applier.ack = Ack::NotAsked;
        loop {
            let behind = buffer.parse(MAX_COMMANDS_PER_LOCK);
            let applied = self.locked(target, |state| {
                state.begin_batch();
                // The master decides what has expired: its commands see every key.
                let now_ms = state.now_ms();
                state.keyspace.set_context(now_ms, ExpiryRule::Ignore);
                let applied = applier.apply_all(state, buffer);
                let replication = &mut state.core.replication;
                replication.append_raw(buffer.applied());
                replication.set_stream_db(Some(applier.session.db));
                let offset = replication.offset();
                if let Some(following) = replication.following_mut() {
                    following.last_io_ms = Some(last_data_ms);
                    following.read_offset = offset + buffer.unapplied_bytes();
                }
                state.finish_batch();
                applied
            })?;
            buffer.drop_applied();
            applied?;
            match behind? {
                Behind::Commands => {}
                Behind::NeedMore if buffer.unapplied_bytes() > MAX_UNAPPLIED_BYTES => {
                    return Err(resp::ProtocolError::TooBigRequest.into());
                }
                Behind::NeedMore => return Ok(applier.ack),
            }
        }
    }

    fn acknowledgement(&self, target: &Target) -> Result<Vec<u8>, LinkError> {
        let offset = self.locked(target, |state| state.core.replication.offset())?;
        let digits = resp::format_i64(i64::try_from(offset).unwrap_or(i64::MAX));
        let mut out = Vec::new();
        resp::encode_command(&mut out, [b"REPLCONF".as_slice(), b"ACK", &digits]);
        Ok(out)
    }
}

/// Whether the master wants to know our offset now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    Asked,
    NotAsked,
}

/// Runs the master's commands in a session of its own.
struct Applier {
    session: Session,
    replies: Vec<u8>,
    ack: Ack,
}

impl Applier {
    fn new(db: u32) -> Self {
        let mut session = Session::internal();
        session.db = db;
        Self {
            session,
            replies: Vec::new(),
            ack: Ack::NotAsked,
        }
    }

    /// Runs the commands that are parsed, to the first that fails.
    fn apply_all(&mut self, state: &mut State, buffer: &mut StreamBuffer) -> Result<(), LinkError> {
        for index in 0..buffer.commands() {
            if index % PREFETCH_KEYS == 0 && buffer.commands() > 1 {
                let db = self.session.db;
                state.keyspace.prefetch(db, buffer.keys_from(index));
            }
            self.apply(state, buffer.args(index))?;
            if self.session.transaction.is_none() {
                buffer.mark_applied(index);
            }
        }
        Ok(())
    }

    fn apply(&mut self, state: &mut State, args: Args<'_>) -> Result<(), LinkError> {
        let word = |i: usize, name: &str| args.get(i).is_some_and(|arg| is(arg, name));
        if word(0, "REPLCONF") {
            if word(1, "GETACK") {
                self.ack = Ack::Asked;
            }
            return Ok(());
        }
        if WITHOUT_EFFECT.iter().any(|name| word(0, name)) {
            return Ok(());
        }
        self.replies.clear();
        // Counted, not read from the reply: in a transaction's reply errors are somewhere in the middle.
        let errors = state.core.stats.error_replies;
        let changes = state.core.stats.dirty;
        let _verdict = state.execute(&mut self.session, args, &mut self.replies, Origin::Master);
        if state.core.stats.error_replies == errors {
            Ok(())
        } else {
            if state.core.stats.dirty != changes {
                state.core.replication.leave_history();
            }
            Err(unapplied(args.get(0).unwrap_or_default(), &self.replies))
        }
    }
}

/// A command of the master that fails here, as it is told.
fn unapplied(command: &[u8], replies: &[u8]) -> LinkError {
    let shown = |bytes: &[u8]| {
        let cut = &bytes[..bytes.len().min(MAX_SHOWN_BYTES)];
        cut.trim_ascii_end().escape_ascii().to_string()
    };
    // The reply of a transaction is an array, with the error somewhere in it.
    let is_error = |line: &&[u8]| matches!(line, [b'-', b'A'..=b'Z', ..]);
    let error = replies.split(|&byte| byte == b'\n').find(is_error);
    LinkError::Unapplied {
        command: shown(command),
        error: shown(
            error
                .unwrap_or_default()
                .strip_prefix(b"-")
                .unwrap_or_default(),
        ),
    }
}
