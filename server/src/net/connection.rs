//! One client: read → parse a batch → lock, execute, unlock → write.
//!
//! A turn of the connection happens inside one poll: it takes what the socket has, parses it
//! without the lock, executes the batch under one lock and tries to write the replies at once.
//! What could not be parsed or written yet is copied into the connection's own buffers, so an idle
//! connection owns none. A turn never runs while replies are unsent: that is the back-pressure.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BufMut;
use resp::{Limits, Parsed, ReplyWriter, RequestParser};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{
    cross_protocol,
    scratch::{self, Scratch},
};
use crate::{
    command::{
        effects::{Next, PartialReply, PsyncRequest, ShutdownRequest},
        host::Unblock,
        session::Session,
    },
    engine::{
        Engine, Lease, Origin, RepliesNeed, Verdict,
        clients::{Blocked, ClientHandle, Shown},
        clock,
    },
    input::{self, Batch},
    keyspace::PREFETCH_KEYS,
    persistence::snapshot,
    replication::{sender::Handover, state::Role},
};

/// A batch ends early when its replies exceed this, so that one pipeline cannot hold the lock or
/// fill memory with replies.
const MAX_BATCH_REPLY_BYTES: usize = 1024 * 1024;
/// Commands executed under one lock, at most.
const MAX_BATCH_REQUESTS: usize = 1024;

/// What a blocked client gets when this server stops being a master.
const UNBLOCKED: &str = "UNBLOCKED force unblock from blocking operation, instance state changed \
                         (master -> replica?)";

/// A client's connection.
pub struct Connection<S> {
    stream: S,
    engine: Arc<Engine>,
    handle: Arc<ClientHandle>,
    session: Session,
    /// What others see of the session, and how often it had been published then.
    published: (Shown, u64),
    parser: RequestParser,
    /// Read but not yet executed.
    unread: Vec<u8>,
    /// At least so many bytes are missing for the request that `unread` begins.
    needed: usize,
    /// Whether `unread` may hold a whole request (after a pause, or a batch that ended early).
    backlog: Backlog,
    /// Replies not yet written, and how many of their bytes are.
    unsent: Vec<u8>,
    sent: usize,
    /// Close when everything is written.
    closing: Closing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backlog {
    Empty,
    HasRequests,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    AfterFlush,
}

/// Why the turns of a connection stopped.
enum Stop {
    /// The peer, an error, or somebody else closed it.
    Closed,
    /// The session asks for something that takes time or the socket.
    Act(Next),
    /// Clients are paused.
    Paused,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection over an accepted socket.
    pub fn new(stream: S, engine: Arc<Engine>, handle: Arc<ClientHandle>) -> Self {
        let mut session = Session::new(
            handle.id,
            handle.address.clone(),
            handle.local_address.clone(),
        );
        session.login = handle.login();
        let limits = limits_of(&session, &engine);
        handle.publish(&session);
        Self {
            stream,
            engine,
            published: (Shown::of(&session), handle.publications()),
            handle,
            session,
            parser: RequestParser::new(limits),
            unread: Vec::new(),
            needed: 1,
            backlog: Backlog::Empty,
            unsent: Vec::new(),
            sent: 0,
            closing: Closing::No,
        }
    }

    /// Serves the client to its end; a handover is returned where it became a replica.
    pub async fn serve(mut self) -> Option<Handover<S>> {
        loop {
            let stop = self.turns().await;
            // Who waits for the server is not idle, however long it takes.
            self.handle.set_blocked(Blocked::Yes);
            match stop {
                Stop::Closed => break,
                Stop::Paused => self.wait_for_unpause().await,
                Stop::Act(Next::AwaitReplicas { count, timeout }) => {
                    self.wait_for_replicas(count, timeout).await;
                }
                Stop::Act(Next::AwaitSave) => self.wait_for_save().await,
                Stop::Act(Next::AwaitRewrite(reply)) => self.wait_for_rewrite(&reply).await,
                Stop::Act(Next::BecomeReplica(request)) => return self.hand_over(request).await,
                Stop::Act(Next::Shutdown(request)) => self.wait_for_shutdown(request).await,
                Stop::Act(Next::Close) => self.closing = Closing::AfterFlush,
                Stop::Act(Next::Continue | Next::RunTransaction) => {}
            }
            self.handle.set_blocked(Blocked::No);
        }
        self.end();
        None
    }

    /// Closes the connection, then forgets it in the engine and in the registry: who does not find it in CLIENT LIST
    /// any more can rely on its end.
    fn end(self) {
        let Self {
            stream,
            engine,
            handle,
            mut session,
            ..
        } = self;
        drop(stream);
        let mut state = engine.lock();
        state.keyspace.unwatch(&mut session.watched);
        drop(state);
        engine.shared.clients.unregister(handle.id);
    }

    async fn hand_over(mut self, request: PsyncRequest) -> Option<Handover<S>> {
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            self.end();
            return None;
        }
        let mut state = self.engine.lock();
        state.keyspace.unwatch(&mut self.session.watched);
        drop(state);
        self.handle.set_blocked(Blocked::No);
        let Self {
            stream,
            handle,
            session,
            unread,
            ..
        } = self;
        Some(Handover {
            stream,
            handle,
            session,
            request,
            unread,
        })
    }

    async fn turns(&mut self) -> Stop {
        let handle = self.handle.clone();
        let mut woken = std::pin::pin!(handle.wake.notified());
        poll_fn(|cx| {
            loop {
                // Until it is pending: only then will the next wake be noticed.
                while woken.as_mut().poll(cx).is_ready() {
                    woken.set(handle.wake.notified());
                }
                if handle.is_closing() {
                    return Poll::Ready(Stop::Closed);
                }
                match ready!(self.poll_turn(cx)) {
                    Ok(None) => {}
                    Ok(Some(stop)) => return Poll::Ready(stop),
                    Err(_) => return Poll::Ready(Stop::Closed),
                }
            }
        })
        .await
    }

    /// One turn: `Ok(None)` where there is more to do.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Stop>>> {
        ready!(self.poll_flush(cx))?;
        if self.closing == Closing::AfterFlush {
            return Poll::Ready(Ok(Some(Stop::Closed)));
        }
        scratch::with(|scratch| {
            let stop = if self.backlog == Backlog::HasRequests {
                self.run_unread(scratch)
            } else if self.unread.is_empty() {
                let Scratch {
                    input,
                    output,
                    batch,
                } = scratch;
                let n = ready!(poll_read(&mut self.stream, cx, input))?;
                if n == 0 {
                    return Poll::Ready(Ok(Some(Stop::Closed)));
                }
                let (consumed, stop) = self.run(&input[..n], output, batch);
                self.unread.extend_from_slice(&input[consumed..n]);
                stop
            } else {
                let n = ready!(self.poll_read_more(cx))?;
                if n == 0 {
                    return Poll::Ready(Ok(Some(Stop::Closed)));
                }
                self.run_unread(scratch)
            };
            self.handle
                .input_bytes
                .store(self.unread.len(), Ordering::Relaxed);
            self.handle.note_active();
            self.send(cx, &scratch.output)?;
            Poll::Ready(Ok(stop))
        })
    }

    fn limits(&self) -> Limits {
        limits_of(&self.session, &self.engine)
    }

    fn run_unread(&mut self, scratch: &mut Scratch) -> Option<Stop> {
        let unread = std::mem::take(&mut self.unread);
        let (consumed, stop) = self.run(&unread, &mut scratch.output, &mut scratch.batch);
        self.unread = unread;
        self.unread.drain(..consumed);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        stop
    }

    /// Reads behind an incomplete request.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.unread.len() as u64 > self.engine.shared.input_limits.max_query_buffer_bytes() {
            let client = self.handle.id;
            tracing::warn!(
                client,
                "closing a client: more input than client-query-buffer-limit"
            );
            return Poll::Ready(Ok(0));
        }
        let room = input::make_room(&mut self.unread, self.needed);
        let mut room = (&mut self.unread).limit(room);
        std::pin::pin!(self.stream.read_buf(&mut room)).poll(cx)
    }

    /// Parses and executes what `input` holds; answers the bytes that are done with.
    fn run(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        batch: &mut Batch,
    ) -> (usize, Option<Stop>) {
        self.backlog = Backlog::Empty;
        // CONFIG SET may have changed them.
        self.parser.set_limits(self.limits());
        batch.clear();
        let mut at = 0;
        let error = loop {
            // Before a login the limits are small and the next request may change them.
            let full = batch.requests.len() >= MAX_BATCH_REQUESTS
                || (self.session.login.is_none() && !batch.requests.is_empty());
            if full {
                self.backlog = Backlog::HasRequests;
                break None;
            }
            match self.parser.parse(&input[at..]) {
                Ok(Parsed::Request { consumed }) => {
                    batch.push(&self.parser, at, at + consumed);
                    at += consumed;
                }
                Ok(Parsed::Skip { consumed }) => at += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    self.needed = needed;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        let (done, stop) = self.execute(input, at, output, batch);
        if done < at {
            // The rest is parsed again later, from the beginning of its first request.
            self.backlog = Backlog::HasRequests;
            self.parser = RequestParser::new(self.limits());
        } else if let Some(error) = error {
            let version = self.session.version;
            ReplyWriter::new(output, version).error(format!("ERR {}", error.message()));
            self.closing = Closing::AfterFlush;
            return (input.len(), stop);
        }
        (done, stop)
    }

    /// Executes a parsed batch under one lock. `end` is where parsing stopped.
    fn execute(
        &mut self,
        input: &[u8],
        end: usize,
        output: &mut Vec<u8>,
        batch: &Batch,
    ) -> (usize, Option<Stop>) {
        if batch.requests.is_empty() {
            return (end, None);
        }
        let had_login = self.session.login.is_some();
        let mut state = self.engine.lock();
        state.begin_batch();
        state.core.stats.net_input_bytes += end as u64;
        let mut result = (end, None);
        for (index, request) in batch.requests.iter().enumerate() {
            if index % PREFETCH_KEYS == 0 && batch.requests.len() > 1 {
                let next = batch.requests[index..].iter().take(PREFETCH_KEYS);
                let first_keys = next.filter_map(|request| batch.args(request, input).get(1));
                state.keyspace.prefetch(self.session.db, first_keys);
            }
            let args = batch.args(request, input);
            if args.get(0).is_some_and(cross_protocol::is_http) {
                cross_protocol::warn(&self.handle.address);
                result = (end, Some(Stop::Closed));
                break;
            }
            match state.execute(&mut self.session, args, output, Origin::Client) {
                Verdict::Done if output.len() <= MAX_BATCH_REPLY_BYTES => {}
                Verdict::Done => {
                    result = (request.end, None);
                    break;
                }
                Verdict::Paused => {
                    result = (request.start, Some(Stop::Paused));
                    break;
                }
                Verdict::Then(next) => {
                    result = (request.end, Some(Stop::Act(next)));
                    break;
                }
            }
        }
        state.core.stats.net_output_bytes += output.len() as u64;
        state.finish_batch();
        let replies_need = state.replies_need();
        drop(state);
        let last_command = self.session.last_command;
        self.handle
            .last_command
            .store(last_command, Ordering::Relaxed);
        if !had_login && self.session.login.is_some() {
            self.parser.set_limits(self.limits());
        }
        // A command may have published the session as it was in the middle of the batch.
        let shown = Shown::of(&self.session);
        if (shown, self.handle.publications()) != self.published {
            self.handle.publish(&self.session);
            self.published = (shown, self.handle.publications());
        }
        // A master whose lease ended between executing and replying must not answer: the writes
        // may be lost and the reads stale. The outcome is unknown to the client: close.
        let lease = &self.engine.shared.serve_until_ms;
        if let RepliesNeed::Lease(opening) = replies_need
            && lease.has_lapsed_since(opening, clock::monotonic_ms) == Lease::Lapsed
        {
            output.clear();
            return (end, Some(Stop::Closed));
        }
        result
    }

    /// Writes replies at once; what the socket does not take is kept.
    fn send(&mut self, cx: &mut Context<'_>, output: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < output.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &output[written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.unsent.extend_from_slice(&output[written..]);
                    self.handle
                        .output_bytes
                        .store(self.unsent.len(), Ordering::Relaxed);
                    break;
                }
            }
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let rest = &self.unsent[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
            self.handle.note_active();
        }
        if self.sent > 0 {
            (self.unsent, self.sent) = (Vec::new(), 0);
            self.handle.output_bytes.store(0, Ordering::Relaxed);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    async fn wait_for_unpause(&mut self) {
        let shared = self.engine.shared.clone();
        let unpaused = shared.unpaused.notified();
        let mut unpaused = std::pin::pin!(unpaused);
        unpaused.as_mut().enable();
        let left = {
            let mut state = self.engine.lock();
            let pause = state.core.pauses.in_force(clock::monotonic_ms);
            pause.map_or(0, |pause| pause.until_ms - clock::monotonic_ms())
        };
        if left > 0 {
            let left = Duration::from_millis(left as u64);
            let handle = self.handle.clone();
            tokio::select! {
                () = unpaused => {}
                () = tokio::time::sleep(left) => {}
                () = handle.wake.notified() => {}
                () = self.until_gone() => handle.close(),
            }
        }
    }

    /// What goes on while the client waits for the server: the rest of earlier replies is written, and what comes is kept
    /// for later. Returns when the client is gone, as nobody else would notice.
    async fn until_gone(&mut self) {
        poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(());
            }
            loop {
                match ready!(self.poll_read_more(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => self.backlog = Backlog::HasRequests,
                }
                let kept = self.unread.len();
                self.handle.input_bytes.store(kept, Ordering::Relaxed);
            }
        })
        .await;
    }

    /// `SAVE`: answers when the snapshot is on disk. Others are served meanwhile.
    async fn wait_for_save(&mut self) {
        let saved = snapshot::save(&self.engine).await;
        self.answer(|reply| match saved {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(format!("ERR {error}")),
        });
    }

    /// `SHUTDOWN`: the end of the server is the answer, unless it is called off or fails.
    async fn wait_for_shutdown(&mut self, request: ShutdownRequest) {
        let shared = self.engine.shared.clone();
        let called_off = shared.shutdown_called_off.notified();
        let mut called_off = std::pin::pin!(called_off);
        called_off.as_mut().enable();
        shared.request_shutdown(request);
        called_off.await;
        self.answer(|reply| reply.error("ERR Errors trying to SHUTDOWN. Check logs."));
    }

    /// `CONFIG REWRITE`: completes the reply when the file is on disk. Others are served meanwhile.
    async fn wait_for_rewrite(&mut self, partial: &PartialReply) {
        let engine = self.engine.clone();
        let work = move || {
            // One at a time, each with what is in force when it begins: the last one wins.
            let _turn = engine.shared.config_rewrite.lock();
            let rewrite = engine.lock().core.config_to_write();
            rewrite?.run()
        };
        let written = tokio::task::spawn_blocking(work).await;
        let mut part = Vec::new();
        let mut reply = ReplyWriter::new(&mut part, self.session.version);
        match written {
            Ok(Ok(())) => reply.ok(),
            Ok(Err(error)) => reply.error(error.text()),
            Err(error) => reply.error(format!("ERR Rewriting config file: {error}")),
        }
        let mark = self.unsent.len();
        partial.complete(&part, &mut self.unsent);
        self.session.mute(&mut self.unsent, mark);
    }

    /// Writes the reply of a command that was waited for, unless the client wants none.
    fn answer(&mut self, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        let mark = self.unsent.len();
        write(&mut ReplyWriter::new(
            &mut self.unsent,
            self.session.version,
        ));
        self.session.mute(&mut self.unsent, mark);
    }

    /// `WAIT`: answers when enough replicas have acknowledged or the time is over.
    async fn wait_for_replicas(&mut self, count: u32, timeout: Option<Duration>) {
        let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        let offset = self.session.last_write_offset;
        // Before it can be seen waiting: what comes after that is meant for this wait.
        let _stale = self.handle.take_unblock();
        self.engine.lock().core.begin_wait(&self.handle);
        let answer = loop {
            let reached = {
                let state = self.engine.lock();
                if *state.core.replication.role() != Role::Master {
                    break Err(UNBLOCKED);
                }
                state.core.replication.acknowledged_by(offset)
            };
            let over = deadline.is_some_and(|at| tokio::time::Instant::now() >= at);
            let unblocked = self.handle.take_unblock();
            if unblocked == Some(Unblock::Error) {
                break Err("UNBLOCKED client unblocked via CLIENT UNBLOCK");
            }
            let closing = self.handle.is_closing();
            if reached >= count as usize || over || unblocked.is_some() || closing {
                break Ok(reached);
            }
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let handle = self.handle.clone();
            tokio::select! {
                () = handle.wake.notified() => {}
                () = sleep => {}
                () = self.until_gone() => handle.close(),
            }
        };
        self.engine.lock().core.end_wait(&self.handle);
        self.answer(|reply| match answer {
            Ok(reached) => reply.integer(reached as i64),
            Err(text) => reply.error(text),
        });
        // Closed while waiting: the close must be seen by the next turn.
        if self.handle.is_closing() {
            self.handle.close();
        }
    }
}

/// How much the client may send in one request: little before it has logged in.
fn limits_of(session: &Session, engine: &Engine) -> Limits {
    if session.login.is_none() {
        return Limits::UNAUTHENTICATED;
    }
    let max_bulk_bytes = engine.shared.input_limits.max_bulk_bytes();
    Limits {
        max_bulk_bytes,
        ..Limits::AUTHENTICATED
    }
}

fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
