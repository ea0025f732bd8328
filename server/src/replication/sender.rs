//! The master's side of one replica: snapshot where needed, then the stream, and its
//! acknowledgements.
//!
//! One task for each replica, on the I/O thread that accepted its connection. It copies from the
//! shared backlog under short locks and never holds one while it writes.

use std::{io, sync::Arc, time::Duration};

use resp::{Limits, Parsed, RequestParser};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::Notify,
    time::{Instant, timeout},
};

use super::state::{NoMore, Replica, ReplicaState, SyncDecision};
use crate::{
    REDIS_VERSION,
    command::{
        effects::PsyncRequest,
        host::ClientType,
        session::{ReplicaHello, Session, Switch},
    },
    engine::{Engine, clients::ClientHandle, clock},
    persistence::{
        rdb::{checksum::crc64, encode},
        snapshot::{self, SnapshotFeed},
    },
};

/// Bytes of the stream copied under one lock.
const SEND_BYTES: usize = 256 * 1024;
/// Bytes read from a replica at once; it only sends acknowledgements.
const READ_BYTES: usize = 4 * 1024;
/// Time between newlines that keep a waiting replica from timing us out.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How often a replica that takes nothing is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A connection that asked to become a replica's link.
pub struct Handover<S> {
    /// The socket.
    pub stream: S,
    /// How others see it.
    pub handle: Arc<ClientHandle>,
    /// What the replica said so far.
    pub session: Session,
    /// What it asked for.
    pub request: PsyncRequest,
    /// Bytes read after the request.
    pub unread: Vec<u8>,
}

/// Why a replica's link ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed by this server")]
    Closed,
    #[error("what it needs of the stream is gone")]
    StreamGone,
    #[error("it has not answered for repl-timeout")]
    Silent,
    #[error("it sent what is not a request: {0}")]
    Protocol(String),
    #[error("the snapshot for it failed: {0}")]
    Snapshot(#[from] snapshot::SnapshotError),
    #[error("this server is a replica without a link to its own master")]
    NoMasterLink,
}

impl From<NoMore> for LinkError {
    fn from(reason: NoMore) -> Self {
        match reason {
            NoMore::Closed => LinkError::Closed,
            NoMore::StreamGone => LinkError::StreamGone,
        }
    }
}

/// Serves a replica until its link ends.
pub async fn serve_replica<S>(engine: &Arc<Engine>, handover: Handover<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Handover {
        stream,
        handle,
        session,
        request,
        unread,
    } = handover;
    let hello = session.replica.as_deref().cloned().unwrap_or_default();
    let sender = Sender {
        engine: engine.clone(),
        wake: Arc::new(Notify::new()),
        address: handle.address.clone(),
        acks: if request == PsyncRequest::Full {
            Switch::Off
        } else {
            Switch::On
        },
        handle,
        hello,
    };
    sender.handle.set_kind(ClientType::Replica);
    let id = sender.handle.id;
    let (reader, writer) = tokio::io::split(stream);
    let result = sender.run(reader, writer, &request, unread).await;
    engine.lock().core.replication.detach(id);
    if let Err(error) = result {
        tracing::info!(replica = %sender.address, %error, "the link of a replica ended");
    }
}

struct Sender {
    engine: Arc<Engine>,
    handle: Arc<ClientHandle>,
    address: Arc<str>,
    hello: ReplicaHello,
    wake: Arc<Notify>,
    /// A replica that said SYNC never acknowledges.
    acks: Switch,
}

impl Sender {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        reader: ReadHalf<S>,
        mut writer: WriteHalf<S>,
        request: &PsyncRequest,
        unread: Vec<u8>,
    ) -> Result<(), LinkError> {
        let Some(decision) = self.decide(request) else {
            let text = b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n";
            writer.write_all(text).await?;
            return Err(LinkError::NoMasterLink);
        };
        match decision {
            SyncDecision::Continue { id, position } => {
                tracing::info!(replica = %self.address, position, "partial synchronization");
                let line = match self.hello.capa_psync2 {
                    Switch::On => format!("+CONTINUE {id}\r\n"),
                    Switch::Off => "+CONTINUE\r\n".to_owned(),
                };
                writer.write_all(line.as_bytes()).await?;
            }
            SyncDecision::Full if self.hello.functions_only == Switch::On => {
                return self.send_no_keys(&mut writer, request).await;
            }
            SyncDecision::Full => self.send_snapshot(&mut writer, request).await?,
        }
        if self.hello.rdb_only == Switch::On {
            writer.flush().await?;
            return Ok(());
        }
        tokio::select! {
            result = self.receive(reader, unread) => result,
            result = self.send_stream(writer) => result,
        }
    }

    /// How the request is answered; the replica is attached under the same lock.
    /// `None` where this server is a replica without a link to its master, or hands its role over.
    fn decide(&self, request: &PsyncRequest) -> Option<SyncDecision> {
        let mut state = self.engine.lock();
        let replication = &state.core.replication;
        let busy = *replication.handover() != super::handover::Handover::None;
        if busy || replication.has_no_link_to_its_master() {
            return None;
        }
        let decision = state.core.replication.decide(request);
        self.count(&mut state.core.stats, request, &decision);
        let replica = match decision {
            SyncDecision::Continue { position, .. } => self.replica(ReplicaState::Online, position),
            // Its place is set when its snapshot begins.
            SyncDecision::Full => self.replica(ReplicaState::WaitSnapshot, 0),
        };
        state.core.replication.attach(replica);
        Some(decision)
    }

    fn count(
        &self,
        stats: &mut crate::engine::stats::Stats,
        request: &PsyncRequest,
        decision: &SyncDecision,
    ) {
        let asked_to_continue = matches!(
            request,
            PsyncRequest::Continue { replid, .. } if replid != b"?"
        );
        match decision {
            SyncDecision::Continue { .. } => stats.sync_partial_ok += 1,
            SyncDecision::Full => {
                stats.sync_full += 1;
                stats.sync_partial_err += u64::from(asked_to_continue);
            }
        }
    }

    fn replica(&self, state: ReplicaState, position: u64) -> Replica {
        let announced = self.hello.ip_address.as_ref();
        let ip = announced.map_or_else(
            || {
                self.address
                    .rsplit_once(':')
                    .map_or("", |(ip, _)| ip)
                    .to_owned()
            },
            |ip| String::from_utf8_lossy(ip).into_owned(),
        );
        Replica {
            handle: self.handle.clone(),
            ip: ip.trim_matches(['[', ']']).to_owned(),
            port: self.hello.listening_port,
            state,
            position,
            acked: 0,
            acked_ms: clock::monotonic_ms(),
            wake: self.wake.clone(),
        }
    }

    /// The snapshot for one that wants functions, of which there are none here. No stream follows it.
    async fn send_no_keys<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        request: &PsyncRequest,
    ) -> Result<(), LinkError> {
        let mut file = Vec::new();
        encode::magic(&mut file);
        encode::aux("redis-ver", REDIS_VERSION.as_bytes(), &mut file);
        encode::end_mark(&mut file);
        let crc = crc64(0, &file);
        encode::checksum(crc, &mut file);
        let mut head = String::new();
        if let PsyncRequest::Continue { .. } = request {
            let state = self.engine.lock();
            let history = state.core.replication.history();
            head = format!("+FULLRESYNC {} {}\r\n", history.id, history.offset);
        }
        head.push_str(&format!("${}\r\n", file.len()));
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(&file).await?;
        writer.flush().await?;
        Ok(())
    }

    /// A full synchronization: the snapshot, framed as the replica understands it.
    async fn send_snapshot<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        request: &PsyncRequest,
    ) -> Result<(), LinkError> {
        let streamed = self.hello.capa_eof == Switch::On
            && self.engine.lock().core.config.replication.diskless_sync;
        tracing::info!(replica = %self.address, streamed, "full synchronization");
        let mode = if streamed {
            snapshot::Delivery::Streamed
        } else {
            snapshot::Delivery::File
        };
        let prepared = snapshot::for_replica(&self.engine, mode, self.handle.id);
        let mut feed = self.keep_alive_until(writer, prepared).await??;
        if let PsyncRequest::Continue { .. } = request {
            let line = format!(
                "+FULLRESYNC {} {}\r\n",
                feed.history.id, feed.history.offset
            );
            writer.write_all(line.as_bytes()).await?;
        }
        let mark = crate::replication::identity::ReplId::from_random(rand::random());
        match feed.length {
            Some(length) => {
                writer
                    .write_all(format!("${length}\r\n").as_bytes())
                    .await?
            }
            None => {
                writer
                    .write_all(format!("$EOF:{mark}\r\n").as_bytes())
                    .await?
            }
        }
        self.send_chunks(writer, &mut feed).await?;
        if feed.length.is_none() {
            writer.write_all(mark.as_str().as_bytes()).await?;
        }
        let mut state = self.engine.lock();
        if let Some(replica) = state.core.replication.replica_mut(self.handle.id) {
            replica.acked_ms = clock::monotonic_ms();
            // A streamed snapshot is over when the replica says so by its first acknowledgement.
            if feed.length.is_some() || self.acks == Switch::Off {
                replica.state = ReplicaState::Online;
            }
        }
        Ok(())
    }

    async fn send_chunks<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        feed: &mut SnapshotFeed,
    ) -> Result<(), LinkError> {
        while let Some(chunk) = feed.next().await? {
            let silent = self.engine.lock().core.config.replication.timeout;
            let write = self.write(writer, &chunk, || Ok(feed.check()?));
            timeout(silent, write)
                .await
                .map_err(|_| LinkError::Silent)??;
            self.check_open()?;
        }
        Ok(())
    }

    /// Writes to a replica; one that takes nothing is not waited for when it was closed, as at its output limit, or when
    /// `is_wanted` fails.
    async fn write<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        bytes: &[u8],
        is_wanted: impl Fn() -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut write = std::pin::pin!(writer.write_all(bytes));
        loop {
            match timeout(LOOK_EVERY, write.as_mut()).await {
                Ok(written) => return Ok(written?),
                Err(_) => {
                    self.check_open()?;
                    is_wanted()?;
                }
            }
        }
    }

    /// Waits for something while the replica is told by newlines that we are alive.
    async fn keep_alive_until<W: AsyncWrite + Unpin, T>(
        &self,
        writer: &mut W,
        work: impl Future<Output = T>,
    ) -> Result<T, LinkError> {
        let mut work = std::pin::pin!(work);
        loop {
            match timeout(KEEP_ALIVE, work.as_mut()).await {
                Ok(result) => return Ok(result),
                Err(_) => writer.write_all(b"\n").await?,
            }
            self.check_open()?;
        }
    }

    fn check_open(&self) -> Result<(), LinkError> {
        if self.handle.is_closing() {
            Err(LinkError::Closed)
        } else {
            Ok(())
        }
    }

    /// Copies the stream from the backlog to the socket.
    async fn send_stream<W: AsyncWrite + Unpin>(&self, mut writer: W) -> Result<(), LinkError> {
        let mut bytes = Vec::with_capacity(SEND_BYTES);
        let mut last_check = Instant::now();
        loop {
            bytes.clear();
            let silence = self.take_next(&mut bytes)?;
            // By the clock, whatever wakes this loop: while a replica loads, every write does, and none is for it.
            if last_check.elapsed() >= KEEP_ALIVE {
                last_check = Instant::now();
                self.check_alive(silence)?;
            }
            if bytes.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.handle.wake.notified() => {}
                    () = tokio::time::sleep(KEEP_ALIVE) => {}
                }
                continue;
            }
            // A replica that loads reads nothing and says that it lives.
            let began = Instant::now();
            let is_wanted = || match self.acks {
                Switch::On => self.check_alive(silence),
                Switch::Off if began.elapsed() > silence => Err(LinkError::Silent),
                Switch::Off => Ok(()),
            };
            self.write(&mut writer, &bytes, is_wanted).await?;
        }
    }

    /// Copies the next bytes for this replica; answers `repl-timeout`.
    fn take_next(&self, bytes: &mut Vec<u8>) -> Result<Duration, LinkError> {
        let core = &mut self.engine.lock().core;
        core.replication
            .next_for(self.handle.id, SEND_BYTES, bytes)?;
        Ok(core.config.replication.timeout)
    }

    fn check_alive(&self, silence: Duration) -> Result<(), LinkError> {
        if self.acks == Switch::Off {
            return Ok(());
        }
        let mut state = self.engine.lock();
        let replica = state
            .core
            .replication
            .replica_mut(self.handle.id)
            .ok_or(LinkError::Closed)?;
        let silent_ms = clock::monotonic_ms() - replica.acked_ms;
        if silent_ms > silence.as_millis() as i64 {
            Err(LinkError::Silent)
        } else {
            Ok(())
        }
    }

    /// Reads acknowledgements.
    async fn receive<R: AsyncRead + Unpin>(
        &self,
        mut reader: R,
        mut unread: Vec<u8>,
    ) -> Result<(), LinkError> {
        let mut parser = RequestParser::new(Limits::UNAUTHENTICATED);
        loop {
            let mut at = 0;
            loop {
                match parser.parse(&unread[at..]) {
                    Ok(Parsed::Request { consumed }) => {
                        self.acknowledge(parser.args(&unread[at..]));
                        at += consumed;
                    }
                    // A replica that loads its snapshot says no more than that it lives.
                    Ok(Parsed::Skip { consumed }) => {
                        self.note_alive();
                        at += consumed;
                    }
                    Ok(Parsed::Incomplete { .. }) => break,
                    Err(error) => return Err(LinkError::Protocol(error.message().into_owned())),
                }
            }
            unread.drain(..at);
            unread.reserve(READ_BYTES);
            if reader.read_buf(&mut unread).await? == 0 {
                return Err(LinkError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn note_alive(&self) {
        let mut state = self.engine.lock();
        if let Some(replica) = state.core.replication.replica_mut(self.handle.id) {
            replica.acked_ms = clock::monotonic_ms();
        }
    }

    /// `REPLCONF ACK offset [FACK offset]`; anything else on this link is ignored.
    fn acknowledge(&self, args: resp::Args<'_>) {
        let is = |i: usize, word: &str| {
            args.get(i)
                .is_some_and(|a| crate::command::args::is(a, word))
        };
        if !(is(0, "REPLCONF") && is(1, "ACK")) {
            return;
        }
        let offset = args
            .get(2)
            .and_then(resp::parse_i64)
            .and_then(|n| u64::try_from(n).ok());
        let mut state = self.engine.lock();
        let end = state.core.replication.offset();
        let Some(replica) = state.core.replication.replica_mut(self.handle.id) else {
            return;
        };
        replica.acked_ms = clock::monotonic_ms();
        if let Some(offset) = offset {
            // Nobody can hold more than there is.
            replica.acked = offset.min(end);
        }
        if replica.state == ReplicaState::SendBulk {
            replica.state = ReplicaState::Online;
            replica.wake.notify_one();
        }
        state.core.check_failover();
        state.core.wake_waiters();
    }
}
