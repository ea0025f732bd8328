//! The engine as the member's agent needs it: one method per deed.
//!
//! Owns nothing but handles. Called by the agent's thread only. Every method takes the engine's
//! lock for bounded work, except the gate, which has none. Invariant: the gate is opened last and
//! shut first.

use std::{sync::Arc, time::Duration};

use replset::{DataPosition, Following, Held, MasterLink, Offset, ReplId, Serve, Term};

use crate::{
    command::host::{ClientType, PauseKind},
    engine::{
        Engine, State, clock,
        pause::{Purpose, UNTIL_ENDED},
        saving::Owed,
    },
    replication::{
        identity,
        state::{LinkState, Refused, Role},
    },
};

/// How long the agent waits for the engine's lock where it can do without an answer.
const PATIENCE: Duration = Duration::from_millis(20);
/// A gate that stays open.
const OPEN_MS: i64 = i64::MAX;
/// What a new master appends first, so that it holds data of its own term.
const MARKER: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Where the dataset at the start came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A snapshot was loaded.
    Disk,
    /// There was none.
    Nowhere,
}

/// The engine, seen from the agent.
#[derive(Clone)]
pub struct EnginePort {
    engine: Arc<Engine>,
    dataset: Origin,
}

impl std::fmt::Debug for EnginePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnginePort")
            .field("dataset", &self.dataset)
            .finish_non_exhaustive()
    }
}

impl EnginePort {
    /// A port to this engine; the gate is shut.
    pub fn new(engine: Arc<Engine>, dataset: Origin) -> Self {
        let port = Self { engine, dataset };
        port.gate(Serve::Never);
        port
    }

    /// The engine itself, for what is only read.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Until when clients may be served. Takes effect at once, without the lock.
    pub fn gate(&self, serve: Serve) {
        let gate = &self.engine.shared.serve_until_ms;
        match serve {
            Serve::Never => gate.shut(),
            Serve::Until(end_ms) => gate.set(i64::try_from(end_ms).unwrap_or(OPEN_MS - 1)),
            Serve::Unlimited => gate.set(OPEN_MS),
        }
    }

    /// What the engine holds; `None` while it is too busy to say.
    pub fn position(&self) -> Option<DataPosition> {
        Some(self.position_in(&*self.engine.try_lock_for(PATIENCE)?))
    }

    fn position_in(&self, state: &State) -> DataPosition {
        if state.core.replication.is_torn() {
            // The member knows that it had data: it says that their end may be missing.
            return DataPosition::default();
        }
        let history = state.core.replication.history();
        let ours = ReplId::parse(history.id.as_str()).ok();
        // A fresh process has an id of its own before it has any data; only an id with a term in it
        // says that the data are a replica set's.
        let is_known = |id: &ReplId| id.term().is_some() || self.dataset == Origin::Disk;
        match ours.filter(is_known) {
            Some(id) => DataPosition::of(id, Offset(history.offset)),
            None => DataPosition::default(),
        }
    }

    /// Stops leading and following; says what is held. Clients are refused by the gate.
    pub fn fence(&self) -> DataPosition {
        let mut state = self.engine.lock();
        state.core.replication.await_master(clock::monotonic_ms());
        state.core.role_changed();
        self.position_in(&state)
    }

    /// Nothing is appended and nothing applied any more; says what is held, however long the engine is busy. A master
    /// stays one, for its replicas: its clients' writes are held already.
    pub fn freeze(&self) -> DataPosition {
        let mut state = self.engine.lock();
        match state.core.replication.role() {
            Role::Master => state.core.replication.hold_stream(),
            Role::Replica(_) => {
                state.core.replication.await_master(clock::monotonic_ms());
                state.core.role_changed();
            }
        }
        self.position_in(&state)
    }

    /// Leads, from the data held, under a new replication id.
    pub fn lead(&self, term: Term, replid: &ReplId) -> DataPosition {
        let mut state = self.engine.lock();
        state.begin_batch();
        let id = identity::ReplId::parse(replid.as_str().as_bytes());
        state.core.replication.promote(id);
        state.core.replication.append_raw(MARKER);
        state.core.role_changed();
        state.core.release_clients(Purpose::Handover);
        if self.dataset == Origin::Nowhere && state.core.saving.saves == 0 {
            state.core.saving.owed = Owed::Yes;
        }
        state.finish_batch();
        tracing::info!(%term, %replid, "this server is master");
        self.position_in(&state)
    }

    /// Follows a master, keeping the data until it has sent better ones.
    pub fn follow(&self, following: &Following) {
        let mut state = self.engine.lock();
        let endpoint = &following.endpoint;
        let now_ms = clock::monotonic_ms();
        state
            .core
            .replication
            .follow(endpoint.host.clone(), endpoint.port, now_ms);
        state.core.role_changed();
        state.core.release_clients(Purpose::Handover);
        let (term, master) = (following.term, &following.master);
        tracing::info!(%term, %master, host = endpoint.host, "this server follows a master");
    }

    /// Closes all connections of clients; replicas are left alone.
    pub fn close_clients(&self) {
        let closed = self
            .engine
            .shared
            .clients
            .close_all(&[ClientType::Normal, ClientType::PubSub]);
        tracing::info!(closed, "connections of clients are closed");
    }

    /// Holds commands back, everything until `until_ms` of the monotonic clock. No command is
    /// running when this returns, and the stream stands still.
    pub fn pause(&self, held: Held, until_ms: u64) -> DataPosition {
        let mut state = self.engine.lock();
        state.core.replication.hold_stream();
        let (kind, until_ms) = match held {
            // Until the member says so, however late it comes to it: it may yet give the term away
            // with the stream as it ends now, and a write after that would be lost.
            Held::Writes => (PauseKind::Writes, UNTIL_ENDED),
            Held::All => (PauseKind::All, i64::try_from(until_ms).unwrap_or(OPEN_MS)),
        };
        state.core.pauses.end(Purpose::Handover);
        state.core.hold_clients(Purpose::Handover, kind, until_ms);
        state.finish_batch();
        self.position_in(&state)
    }

    /// Lets held commands go on.
    pub fn resume(&self) {
        let mut state = self.engine.lock();
        state.core.replication.release_stream();
        state.core.release_clients(Purpose::Handover);
    }

    /// What the link to the master looks like; `None` while the engine is too busy to say.
    pub fn link(&self) -> Option<MasterLink> {
        let state = self.engine.try_lock_for(PATIENCE)?;
        Some(match state.core.replication.role() {
            Role::Master => MasterLink::Down,
            Role::Replica(following) if following.refused == Refused::Yes => MasterLink::Refused,
            Role::Replica(following) => match following.link {
                LinkState::Connected => MasterLink::Up,
                LinkState::Connect
                | LinkState::Connecting
                | LinkState::Handshake
                | LinkState::Sync => MasterLink::Down,
            },
        })
    }
}
