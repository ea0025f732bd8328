//! The thread that follows a master: sockets, time-outs and retries around the machines.
//!
//! One thread for the life of the server. While the server is a master it sleeps; while it is a
//! replica it connects, shakes hands, loads a snapshot where one comes (aside: the old dataset is
//! dropped when the new one is complete), and applies the stream in batches under the engine's
//! lock. Any failure keeps data and history; the next attempt asks for a continuation.
//!
//! Every wait ends at once when the role changes (`Shared::role_changed`), and nothing is applied
//! unless, under the lock, the server still follows the same master in the same history.

mod follow;
mod load;

use std::{io, sync::Arc, thread, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

use super::{
    handshake::{self, Action, Handshake, HandshakeError, Position, Settings, Takeover},
    transfer::TransferError,
};
use crate::{
    config::Config,
    engine::{Engine, State, clock},
    persistence::rdb::error::RdbError,
    replication::{
        handover::Handover,
        identity::ReplId,
        state::{LinkState, Refused, Role},
    },
};

/// Wait before the second attempt; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Longest wait between attempts.
const MAX_RETRY: Duration = Duration::from_secs(1);
/// Wait after a snapshot that cannot be loaded or a stream that cannot be applied; doubles each time. The next attempt
/// costs the master a full copy, perhaps for the same end.
const FIRST_COSTLY_RETRY: Duration = Duration::from_secs(10);
/// Longest wait of that kind; a link that lived so long begins with the first one again.
const MAX_COSTLY_RETRY: Duration = Duration::from_secs(300);
/// A link that lived so long was a good one: the next attempt comes without delay.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// Time between acknowledgements.
const ACK_PERIOD: Duration = Duration::from_secs(1);

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
    /// A command of the stream fails here: going on would make the data another than the master's.
    #[error("the master's stream: {command} cannot be applied here: {error}")]
    Unapplied {
        /// Its name.
        command: String,
        /// Why.
        error: String,
    },
}

impl LinkError {
    /// Whether nobody listens at the master's address.
    fn refused(&self) -> Refused {
        match self {
            LinkError::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Refused::Yes
            }
            LinkError::Io { .. }
            | LinkError::RoleChanged
            | LinkError::Silent { .. }
            | LinkError::Handshake(_)
            | LinkError::Transfer(_)
            | LinkError::Snapshot(_)
            | LinkError::Stream(_)
            | LinkError::Unapplied { .. } => Refused::No,
        }
    }
}

/// Whom we follow, and in which history; a link lives only as long as this stays.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    order: u64,
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
        costly_retry: FIRST_COSTLY_RETRY,
        distrusted: None,
        refused_logins: 0,
    };
    thread::Builder::new()
        .name("replica-link".to_owned())
        .spawn(move || link.run())?;
    Ok(())
}

struct Link {
    engine: Arc<Engine>,
    runtime: Runtime,
    retry: Duration,
    costly_retry: Duration,
    /// The order ([`Target::order`]) under which the stream broke the protocol or could not be applied: only a full copy
    /// leads on there. Of another master, or after a time as master, it says nothing.
    distrusted: Option<u64>,
    /// Logins that masters have refused since the last that one accepted.
    refused_logins: usize,
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
            let began = clock::monotonic_ms();
            let Err(error) = self.follow(target.clone());
            let lived = Duration::from_millis((clock::monotonic_ms() - began) as u64);
            if lived >= GOOD_LINK {
                self.retry = FIRST_RETRY;
            }
            if lived >= MAX_COSTLY_RETRY {
                self.costly_retry = FIRST_COSTLY_RETRY;
            }
            let now = self.target();
            let same = |now: &Target| now.host == target.host && now.port == target.port;
            let Some(now) = now.filter(same) else {
                self.retry = FIRST_RETRY;
                self.costly_retry = FIRST_COSTLY_RETRY;
                continue;
            };
            let wait = self.after(&error, &now);
            tracing::warn!(host = now.host, port = now.port, %error, "no link to the master");
            self.set_state(&now, LinkState::Connect);
            self.note_failure(&now, &error);
            let changed = self.engine.shared.role_changed.notified();
            self.runtime.block_on(async {
                let _either = tokio::time::timeout(wait, changed).await;
            });
        }
    }

    /// What follows from the end of a link; answers how long to wait before the next attempt.
    fn after(&mut self, error: &LinkError, target: &Target) -> Duration {
        let wait = self.retry;
        self.retry = (self.retry * 2).min(MAX_RETRY);
        match error {
            LinkError::Stream(_) | LinkError::Unapplied { .. } => {
                self.distrusted = Some(target.order);
                return self.next_costly_retry();
            }
            LinkError::Handshake(HandshakeError::Authentication(_)) => self.refused_logins += 1,
            LinkError::Handshake(HandshakeError::TakeoverRejected(_)) => {
                // If the role has changed meanwhile there is nothing to take back.
                drop(self.locked(target, |state| state.core.failover_refused()));
            }
            LinkError::Transfer(TransferError::Header(_) | TransferError::End)
            | LinkError::Snapshot(
                RdbError::UnsupportedType { .. }
                | RdbError::Version(_)
                | RdbError::Refused(_)
                | RdbError::Magic(_)
                | RdbError::Corrupt { .. }
                | RdbError::Checksum { .. },
            ) => return self.next_costly_retry(),
            LinkError::RoleChanged
            | LinkError::Io { .. }
            | LinkError::Silent { .. }
            | LinkError::Handshake(_)
            | LinkError::Transfer(TransferError::Aborted(_))
            | LinkError::Snapshot(RdbError::Read { .. } | RdbError::Truncated { .. }) => {}
        }
        wait
    }

    fn next_costly_retry(&mut self) -> Duration {
        let wait = self.costly_retry;
        self.costly_retry = (wait * 2).min(MAX_COSTLY_RETRY);
        wait
    }

    /// Whom to follow now.
    fn target(&self) -> Option<Target> {
        let state = self.engine.lock();
        let history = state.core.replication.history().id;
        match state.core.replication.role() {
            Role::Master => None,
            // A managed server that has not been told its master.
            Role::Replica(f) if f.port == 0 => None,
            Role::Replica(f) => Some(Target {
                host: f.host.clone(),
                port: f.port,
                order: f.order,
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

    /// Notes why there is no link, for those who ask.
    fn note_failure(&self, target: &Target, error: &LinkError) {
        let changed = self.locked(target, |state| {
            if let Some(following) = state.core.replication.following_mut() {
                following.refused = error.refused();
                following.last_error = Some(error.to_string());
            }
        });
        // A change of role is noticed by the next wait.
        drop(changed);
    }

    fn note_accepted(&self, target: &Target) {
        let changed = self.locked(target, |state| {
            if let Some(following) = state.core.replication.following_mut() {
                following.refused = Refused::No;
            }
        });
        // A change of role is noticed by the next wait.
        drop(changed);
    }

    fn set_state(&self, target: &Target, link: LinkState) {
        let changed = self.locked(target, |state| {
            let now = clock::monotonic_ms();
            let replication = &mut state.core.replication;
            let Some(following) = replication.following_mut() else {
                return;
            };
            match link {
                LinkState::Connected => replication.link_is_up(now),
                LinkState::Connect
                | LinkState::Connecting
                | LinkState::Handshake
                | LinkState::Sync => {
                    let was = std::mem::replace(&mut following.link, link);
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
        self.refused_logins = 0;
        self.locked(&target, |state| state.core.end_failover())?;
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
        self.distrusted = None;
        self.set_state(&target, LinkState::Connected);
        self.stream(&target, wire)
    }

    fn settings(&self, target: &Target) -> Result<Settings, LinkError> {
        let is_trusted = self.distrusted != Some(target.order);
        let refused_logins = self.refused_logins;
        self.locked(target, |state| {
            state.core.replication.logs_in();
            let config = &state.core.config;
            let replication = &state.core.replication;
            let announced = config.replication.announce_port;
            let history = replication.history();
            let position = (is_trusted && replication.can_continue()).then_some(Position {
                id: history.id,
                offset: history.offset,
            });
            Settings {
                user: config.replication.master_user.clone().into_bytes(),
                password: password(config, refused_logins).as_bytes().to_vec(),
                listening_port: if announced == 0 {
                    config.net.port
                } else {
                    announced
                },
                announce_ip: config.replication.announce_ip.clone().into_bytes(),
                position,
                failover: match replication.handover() {
                    Handover::InProgress => Takeover::Requested,
                    Handover::None | Handover::WaitingForSync(_) => Takeover::No,
                },
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
        self.note_accepted(target);
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
}

/// What to log in with after so many refusals: `masterauth`, and in turn what else the configuration
/// file says that its user may have. A managed server that started in the middle of a rotation cannot
/// know which of them its master accepts.
fn password(config: &Config, refused_logins: usize) -> &str {
    let user = &config.replication.master_user;
    let others = config.fleet.accepted.iter().filter(|a| a.user == *user);
    let mut all = vec![config.replication.master_auth.as_str()];
    all.extend(others.map(|a| a.password.as_str()));
    all[refused_logins % all.len()]
}

fn follows(state: &State, target: &Target) -> bool {
    let replication = &state.core.replication;
    match replication.role() {
        Role::Master => false,
        Role::Replica(f) => {
            f.host == target.host
                && f.port == target.port
                && f.order == target.order
                && replication.history().id == target.history
        }
    }
}
