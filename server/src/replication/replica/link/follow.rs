//! The stream: commands are applied in batches under the lock and forwarded byte for byte.

use std::{io, time::Duration};

use tokio::io::AsyncWriteExt;

use super::{ACK_PERIOD, Link, LinkError, Target, Wire};
use crate::{
    command::{args::is, session::Session},
    engine::{Origin, State, clock},
    keyspace::ExpiryRule,
    replication::replica::streaming::{StreamBuffer, Taken},
};

/// Bytes of the stream that may wait for the end of a transaction.
const MAX_UNAPPLIED_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Commands applied under one lock.
const MAX_COMMANDS_PER_LOCK: usize = 512;

impl Link {
    /// Applies the stream until the link ends.
    pub(super) fn stream(
        &self,
        target: &Target,
        wire: Wire,
    ) -> Result<std::convert::Infallible, LinkError> {
        let Wire {
            mut stream,
            unread,
            timeout,
        } = wire;
        let mut buffer = StreamBuffer::new(unread);
        let mut session = Session::internal();
        session.db = self
            .locked(target, |state| state.core.replication.stream_db())?
            .unwrap_or(0);
        let mut last_ack_ms = i64::MIN / 2;
        let mut last_data_ms = clock::monotonic_ms();
        let doing = "following the master";
        loop {
            let ack = self.apply(target, &mut buffer, &mut session)?;
            let now_ms = clock::monotonic_ms();
            if ack == Ack::Asked || now_ms - last_ack_ms >= ACK_PERIOD.as_millis() as i64 {
                last_ack_ms = now_ms;
                let ack = self.acknowledgement(target)?;
                self.wait(target, doing, timeout, stream.write_all(&ack))?;
            }
            let until_ack = ACK_PERIOD.as_millis() as i64 - (now_ms - last_ack_ms);
            let pause = Duration::from_millis(until_ack.max(1) as u64);
            match self.wait(target, doing, pause, stream.readable()) {
                Ok(()) => {}
                Err(LinkError::Silent { .. }) => {
                    if clock::monotonic_ms() - last_data_ms > timeout.as_millis() as i64 {
                        return Err(LinkError::Silent { doing });
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            match buffer.fill(|room| stream.try_read(room)) {
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

    /// Runs the commands that the buffer holds and forwards their bytes.
    fn apply(
        &self,
        target: &Target,
        buffer: &mut StreamBuffer,
        session: &mut Session,
    ) -> Result<Ack, LinkError> {
        let mut ack = Ack::NotAsked;
        let mut replies = Vec::new();
        loop {
            let more = self.locked(target, |state| {
                state.begin_batch();
                // The master decides what has expired: its commands see every key.
                let now_ms = state.now_ms();
                state.keyspace.set_context(now_ms, ExpiryRule::Ignore);
                let more = apply_some(state, buffer, session, &mut replies, &mut ack);
                let now_ms = clock::monotonic_ms();
                let replication = &mut state.core.replication;
                replication.append_raw(buffer.applied());
                replication.set_stream_db(Some(session.db));
                let offset = replication.offset();
                if let Some(following) = replication.following_mut() {
                    following.last_io_ms = Some(now_ms);
                    following.read_offset = offset + buffer.unapplied_bytes();
                }
                state.finish_batch();
                more
            })?;
            buffer.drop_applied();
            match more? {
                Taken::Command => {}
                Taken::NeedMore if buffer.unapplied_bytes() > MAX_UNAPPLIED_BYTES => {
                    return Err(resp::ProtocolError::TooBigRequest.into());
                }
                Taken::NeedMore => return Ok(ack),
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

/// Runs as many commands as one lock may; answers whether there may be more.
fn apply_some(
    state: &mut State,
    buffer: &mut StreamBuffer,
    session: &mut Session,
    replies: &mut Vec<u8>,
    ack: &mut Ack,
) -> Result<Taken, resp::ProtocolError> {
    for _ in 0..MAX_COMMANDS_PER_LOCK {
        if buffer.take()? == Taken::NeedMore {
            return Ok(Taken::NeedMore);
        }
        let args = buffer.args();
        let word = |i: usize, name: &str| args.get(i).is_some_and(|arg| is(arg, name));
        if word(0, "REPLCONF") {
            if word(1, "GETACK") {
                *ack = Ack::Asked;
            }
        } else {
            replies.clear();
            let _verdict = state.execute(session, args, replies, Origin::Master);
            if replies.first() == Some(&b'-') {
                let error = replies.escape_ascii().to_string();
                let command = args.get(0).unwrap_or_default().escape_ascii().to_string();
                tracing::error!(command, error, "a command of the master failed here");
            }
        }
        if session.transaction.is_none() {
            buffer.mark_applied();
        }
    }
    Ok(Taken::Command)
}
