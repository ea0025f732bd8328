//! The thread that follows a master: sockets, time-outs and retries around the machines.
//!
//! One thread for the life of the server. While the server is a master it sleeps; while it is a
//! replica it connects, shakes hands, loads a snapshot where one comes (aside: the old dataset is
//! dropped when the new one is complete), and applies the stream in batches under the engine's
//! lock. Any failure keeps data and history; the next attempt asks for a continuation.
//!
//! Every wait ends at once when the role changes (`Shared::role_changed`), and nothing is applied
//! unless, under the lock, the server still follows the same master in the same history.

use std::{
    io::{self, Read},
    sync::Arc,
    thread,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

use super::{
    handshake::{self, Action, Handshake, HandshakeError, Position, Settings, Takeover},
    streaming::{StreamBuffer, Taken},
    transfer::{self, Framing, Payload, TransferError},
};
use crate::{
    command::{args::is, session::Session},
    engine::{Engine, Origin, State, clock},
    keyspace::ExpiryRule,
    persistence::{
        loader::{Dataset, DatasetSink, ExpiredKeys},
        rdb::{decode, error::RdbError, reader::Reader},
    },
    replication::{
        identity::{History, ReplId},
        state::{LinkState, Role},
    },
};

/// Wait before the second attempt; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Longest wait between attempts.
const MAX_RETRY: Duration = Duration::from_secs(1);
/// Time between acknowledgements.
const ACK_PERIOD: Duration = Duration::from_secs(1);
/// Commands applied under one lock.
const MAX_COMMANDS_PER_LOCK: usize = 512;
/// Bytes of the snapshot between two updates of what INFO shows.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

/// Why a link ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The role or the master changed.
    #[error("the role of this server has changed")]
    RoleChanged,
    /// The socket failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was going on.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing came for `repl-timeout`.
    #[error("{doing}: the master is silent for longer than repl-timeout")]
    Silent {
        /// What was going on.
        doing: &'static str,
    },
    /// The master refused or answered nonsense.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The snapshot's frame is wrong.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The snapshot cannot be loaded.
    #[error("the master's snapshot: {0}")]
    Snapshot(#[from] RdbError),
    /// The stream is no sequence of commands.
    #[error("the master's stream: {0}")]
    Stream(#[from] resp::ProtocolError),
}

/// Whom we follow, and in which history; a link lives only as long as this stays.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    history: ReplId,
}

/// Starts the thread.
pub fn start(engine: Arc<Engine>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let link = Link {
        engine,
        runtime,
        retry: FIRST_RETRY,
        distrust: Trust::History,
    };
    thread::Builder::new()
        .name("replica-link".to_owned())
        .spawn(move || link.run())?;
    Ok(())
}

/// Whether the next attempt may ask for a continuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It may.
    History,
    /// The stream broke the protocol: only a full copy is safe.
    Nothing,
}

struct Link {
    engine: Arc<Engine>,
    runtime: Runtime,
    retry: Duration,
    distrust: Trust,
}

/// The socket, the bytes read beyond what was used, and the time-out.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    timeout: Duration,
}

impl Link {
    fn run(mut self) {
        loop {
            let Some(target) = self.target() else {
                self.runtime
                    .block_on(self.engine.shared.role_changed.notified());
                continue;
            };
            let Err(error) = self.follow(target.clone());
            match error {
                LinkError::RoleChanged => {
                    self.retry = FIRST_RETRY;
                    continue;
                }
                LinkError::Stream(_) => self.distrust = Trust::Nothing,
                LinkError::Io { .. }
                | LinkError::Silent { .. }
                | LinkError::Handshake(_)
                | LinkError::Transfer(_)
                | LinkError::Snapshot(_) => {}
            }
            if !follows(&self.engine.lock(), &target) {
                self.retry = FIRST_RETRY;
                continue;
            }
            tracing::warn!(host = target.host, port = target.port, %error, "no link to the master");
            self.set_state(&target, LinkState::Connect);
            let changed = self.engine.shared.role_changed.notified();
            let wait = self.retry;
            self.retry = (self.retry * 2).min(MAX_RETRY);
            self.runtime.block_on(async {
                let _either = tokio::time::timeout(wait, changed).await;
            });
        }
    }

    /// Whom to follow now.
    fn target(&self) -> Option<Target> {
        let state = self.engine.lock();
        let history = state.core.replication.history().id;
        match state.core.replication.role() {
            Role::Master => None,
            Role::Replica(f) => Some(Target {
                host: f.host.clone(),
                port: f.port,
                history,
            }),
        }
    }

    /// Runs `change` under the lock if the link still has its reason.
    fn locked<T>(
        &self,
        target: &Target,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<T, LinkError> {
        let mut state = self.engine.lock();
        if follows(&state, target) {
            Ok(change(&mut state))
        } else {
            Err(LinkError::RoleChanged)
        }
    }

    fn set_state(&self, target: &Target, link: LinkState) {
        let changed = self.locked(target, |state| {
            let now = clock::monotonic_ms();
            let Some(following) = state.core.replication.following_mut() else {
                return;
            };
            let was = std::mem::replace(&mut following.link, link);
            match link {
                LinkState::Connected => {
                    following.down_since_ms = None;
                    following.last_io_ms = Some(now);
                }
                LinkState::Connect
                | LinkState::Connecting
                | LinkState::Handshake
                | LinkState::Sync => {
                    if was == LinkState::Connected {
                        following.down_since_ms = Some(now);
                    }
                }
            }
        });
        // A change of role is noticed by the next wait.
        drop(changed);
    }

    /// One link, from connecting to its end.
    fn follow(&mut self, mut target: Target) -> Result<std::convert::Infallible, LinkError> {
        self.set_state(&target, LinkState::Connecting);
        let mut wire = self.connect(&target)?;
        self.set_state(&target, LinkState::Handshake);
        let settings = self.settings(&target)?;
        let action = self.shake_hands(&target, &mut wire, settings)?;
        match action {
            Action::Continue(id) => {
                tracing::info!("the master lets us continue (partial synchronization)");
                if let Some(id) = id.filter(|id| *id != target.history) {
                    self.locked(&target, |state| state.core.replication.adopt_id(id))?;
                    target.history = id;
                }
            }
            Action::FullSync(position) => self.load(&mut target, &mut wire, Some(position))?,
            Action::FullSyncWithoutOffset => {
                self.send(&target, &mut wire, &handshake::sync_request())?;
                self.load(&mut target, &mut wire, None)?;
            }
            Action::Send(_) | Action::Wait => {
                // `shake_hands` returns only what ends a handshake.
            }
        }
        self.distrust = Trust::History;
        self.retry = FIRST_RETRY;
        self.set_state(&target, LinkState::Connected);
        self.stream(&target, wire)
    }

    fn settings(&self, target: &Target) -> Result<Settings, LinkError> {
        let distrust = self.distrust;
        self.locked(target, |state| {
            let config = &state.core.config;
            let replication = &state.core.replication;
            let announced = config.replication.announce_port;
            let history = replication.history();
            let position =
                (distrust == Trust::History && replication.can_continue()).then_some(Position {
                    id: history.id,
                    offset: history.offset,
                });
            Settings {
                user: config.replication.master_user.clone().into_bytes(),
                password: config.replication.master_auth.clone().into_bytes(),
                listening_port: if announced == 0 {
                    config.net.port
                } else {
                    announced
                },
                announce_ip: config.replication.announce_ip.clone().into_bytes(),
                position,
                failover: Takeover::No,
            }
        })
    }

    fn timeout(&self) -> Duration {
        self.engine.lock().core.config.replication.timeout
    }

    /// Waits for `work`, but not longer than `limit` nor beyond a change of role.
    fn wait<T>(
        &self,
        target: &Target,
        doing: &'static str,
        limit: Duration,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, LinkError> {
        self.runtime.block_on(async {
            let mut work = std::pin::pin!(tokio::time::timeout(limit, work));
            loop {
                tokio::select! {
                    biased;
                    () = self.engine.shared.role_changed.notified() => {
                        if !follows(&self.engine.lock(), target) {
                            return Err(LinkError::RoleChanged);
                        }
                    }
                    result = &mut work => {
                        let result = result.map_err(|_| LinkError::Silent { doing })?;
                        return result.map_err(|source| LinkError::Io { doing, source });
                    }
                }
            }
        })
    }

    fn connect(&self, target: &Target) -> Result<Wire, LinkError> {
        let timeout = self.timeout();
        let address = (target.host.as_str(), target.port);
        let stream = self.wait(target, "connecting", timeout, TcpStream::connect(address))?;
        stream.set_nodelay(true).map_err(|source| LinkError::Io {
            doing: "connecting",
            source,
        })?;
        Ok(Wire {
            stream,
            unread: Vec::new(),
            timeout,
        })
    }

    fn send(&self, target: &Target, wire: &mut Wire, bytes: &[u8]) -> Result<(), LinkError> {
        self.wait(
            target,
            "sending to the master",
            wire.timeout,
            wire.stream.write_all(bytes),
        )
    }

    /// Reads one line, without its end. Bytes behind it stay in `unread`.
    fn line(&self, target: &Target, wire: &mut Wire) -> Result<Vec<u8>, LinkError> {
        let doing = "waiting for the master's answer";
        loop {
            if let Some(end) = wire.unread.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = wire.unread.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if wire.unread.len() > handshake::MAX_LINE_BYTES {
                let source = io::Error::other("a line without end");
                return Err(LinkError::Io { doing, source });
            }
            let read = wire.stream.read_buf(&mut wire.unread);
            if self.wait(target, doing, wire.timeout, read)? == 0 {
                let source = io::ErrorKind::UnexpectedEof.into();
                return Err(LinkError::Io { doing, source });
            }
        }
    }

    /// Drives the handshake to the action that ends it.
    fn shake_hands(
        &self,
        target: &Target,
        wire: &mut Wire,
        settings: Settings,
    ) -> Result<Action, LinkError> {
        let (mut machine, first) = Handshake::start(settings);
        self.send(target, wire, &first)?;
        loop {
            let line = self.line(target, wire)?;
            match machine.on_line(&line)? {
                Action::Send(bytes) => self.send(target, wire, &bytes)?,
                Action::Wait => {}
                end @ (Action::Continue(_)
                | Action::FullSync(_)
                | Action::FullSyncWithoutOffset) => return Ok(end),
            }
        }
    }

    /// Receives a snapshot aside and puts it in the place of the old dataset.
    fn load(
        &self,
        target: &mut Target,
        wire: &mut Wire,
        position: Option<Position>,
    ) -> Result<(), LinkError> {
        let framing = loop {
            let line = self.line(target, wire)?;
            if let Some(framing) = transfer::header(&line)? {
                break framing;
            }
        };
        tracing::info!(
            ?framing,
            "the master sends a snapshot (full synchronization)"
        );
        self.locked(target, |state| {
            if let Some(following) = state.core.replication.following_mut() {
                following.link = LinkState::Sync;
                following.sync_read_bytes = 0;
                following.sync_total_bytes = match framing {
                    Framing::Length(length) => length,
                    Framing::Mark(_) => 0,
                };
            }
        })?;
        let dataset = self.receive(target, wire, framing)?;
        let history = match position {
            Some(Position { id, offset }) => History {
                id,
                offset,
                previous: None,
            },
            // The master has no offsets: a history that nobody can continue.
            None => History::new(ReplId::from_random(rand::random())),
        };
        let id = history.id;
        let keys = dataset.summary.keys;
        self.locked(target, |state| {
            state.keyspace.replace_data(dataset.keyspace);
            state.core.replication.replace_history(history);
            state
                .core
                .replication
                .set_stream_db(dataset.facts.stream_db);
            state.finish_batch();
        })?;
        target.history = id;
        tracing::info!(keys, "the snapshot is loaded and in place");
        Ok(())
    }

    /// Loads the snapshot's bytes into a dataset of its own.
    fn receive(
        &self,
        target: &Target,
        wire: &mut Wire,
        framing: Framing,
    ) -> Result<Dataset, LinkError> {
        let (mut sink, limits) = self.locked(target, |state| {
            let empty = state.keyspace.empty_like();
            let sink = DatasetSink::new(empty, clock::unix_ms(), ExpiredKeys::Keep);
            (sink, state.core.encoding_limits)
        })?;
        let source = LinkReader {
            link: self,
            target,
            wire,
            read: 0,
            shown: 0,
            last_newline_ms: clock::monotonic_ms(),
        };
        let mut reader = Reader::new(Payload::new(source, framing));
        let summary = decode::load(&mut reader, &limits, &mut sink)?;
        let (payload, rest) = reader.into_parts();
        let (mut source, left) = payload.into_parts();
        let stream = match framing {
            Framing::Length(_) if left == 0 && rest.is_empty() => Vec::new(),
            Framing::Length(_) => return Err(TransferError::End.into()),
            Framing::Mark(mark) => {
                transfer::take_mark(&mark, rest, &mut source).map_err(|source| {
                    LinkError::Io {
                        doing: "receiving a snapshot",
                        source,
                    }
                })??
            }
        };
        // What came behind the snapshot belongs to the stream, before anything still unread.
        let behind = std::mem::take(&mut source.wire.unread);
        source.wire.unread = [stream, behind].concat();
        Ok(sink.finish(summary))
    }

    /// Applies the stream until the link ends.
    fn stream(&self, target: &Target, wire: Wire) -> Result<std::convert::Infallible, LinkError> {
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

fn follows(state: &State, target: &Target) -> bool {
    let replication = &state.core.replication;
    match replication.role() {
        Role::Master => false,
        Role::Replica(f) => {
            f.host == target.host
                && f.port == target.port
                && replication.history().id == target.history
        }
    }
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

/// The socket as the loader reads it: shows progress and keeps the master from timing us out.
struct LinkReader<'a> {
    link: &'a Link,
    target: &'a Target,
    wire: &'a mut Wire,
    read: u64,
    shown: u64,
    last_newline_ms: i64,
}

impl LinkReader<'_> {
    fn note(&mut self, count: usize) -> Result<(), LinkError> {
        self.read += count as u64;
        let now_ms = clock::monotonic_ms();
        if self.read - self.shown >= PROGRESS_BYTES {
            self.shown = self.read;
            self.link.locked(self.target, |state| {
                if let Some(following) = state.core.replication.following_mut() {
                    following.sync_read_bytes = self.read;
                    following.last_io_ms = Some(now_ms);
                }
            })?;
        }
        if now_ms - self.last_newline_ms >= ACK_PERIOD.as_millis() as i64 {
            self.last_newline_ms = now_ms;
            self.link.send(self.target, self.wire, b"\n")?;
        }
        Ok(())
    }
}

impl Read for LinkReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.wire.unread.is_empty() {
            let read = self.wire.stream.read(buffer);
            self.link
                .wait(self.target, "receiving a snapshot", self.wire.timeout, read)
                .map_err(io::Error::other)?
        } else {
            let count = buffer.len().min(self.wire.unread.len());
            buffer[..count].copy_from_slice(&self.wire.unread[..count]);
            self.wire.unread.drain(..count);
            count
        };
        self.note(count).map_err(io::Error::other)?;
        Ok(count)
    }
}
