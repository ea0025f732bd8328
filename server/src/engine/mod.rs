//! The one owner of the data: a lock around the keyspace and everything that must change with it.
//!
//! Owns: [`Engine`] (the lock), [`State`] (what it guards) and the one door [`State::execute`],
//! through which clients, the link to a master, the loader and scripts all run commands.
//! Called by: `net` (a batch of requests of one connection for each lock), `replication`,
//! `persistence`, `managed`.
//!
//! Invariants:
//! - the order in which the lock is taken is the order of the replication stream;
//! - nothing awaits, blocks on I/O or walks the whole keyspace while the lock is held: long work
//!   is done in slices, each with a budget;
//! - a command is admitted (`admit.rs`), run, accounted and propagated in this order, in one place.
//!
//! Read next: `execute.rs`, `admit.rs`, `transaction.rs`, `cron.rs`, then `host/`.

mod admit;
pub mod clients;
pub mod clock;
pub mod cron;
pub mod dropper;
pub mod evict;
mod execute;
pub mod facts;
mod failover;
mod host;
pub mod huge_pages;
pub mod loading;
pub mod pause;
pub mod saving;
pub mod stats;
mod transaction;
pub mod users;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    command::{Effects, context::RandomWords, effects::ShutdownRequest},
    config::{Config, EncodingConfig, NetConfig},
    keyspace::{Keyspace, types::EncodingLimits},
    persistence::snapshot::Queue,
    replication::Replication,
};

pub use admit::Refusal;
pub use execute::{Origin, Verdict};

/// The engine: shared by all threads, entered through [`Engine::lock`].
pub struct Engine {
    state: Mutex<State>,
    /// Threads that found the lock taken and wait for it.
    wanted_by: AtomicUsize,
    /// What may be read and signalled without the lock.
    pub shared: Arc<Shared>,
}

/// What the lock guards: the data, and the rest.
pub struct State {
    /// All databases.
    pub keyspace: Keyspace,
    /// Everything else that commands may reach.
    pub core: Core,
    /// Reused for every command.
    effects: Effects,
    random: RandomWords,
    /// Unix time in microseconds, refreshed by [`State::begin_batch`], and the same in milliseconds.
    now_us: i64,
    now_ms: i64,
    /// What the present batch has run; begins anew with [`State::begin_batch`].
    replies_need: RepliesNeed,
    /// The opening of the gate that the batch may have passed.
    opening: Opening,
}

/// What must still hold when the replies of a batch leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepliesNeed {
    /// Nothing: they speak of the server, not of its data.
    Nothing,
    /// The lease, in this opening of the gate: they acknowledge writes or tell what is stored.
    Lease(Opening),
}

/// Everything but the keyspace. Commands see it as a `command::host::Host`.
pub struct Core {
    /// Present configuration.
    pub config: Config,
    /// File that CONFIG REWRITE writes.
    pub config_file: Option<PathBuf>,
    /// Thresholds of the compact encodings, from the configuration.
    pub encoding_limits: EncodingLimits,
    /// Users and their passwords.
    pub users: users::Users,
    /// Role, replication stream, replicas.
    pub replication: Replication,
    /// Counters.
    pub stats: stats::Stats,
    /// The process as such, and rates.
    pub about: facts::About,
    /// Where garbage goes.
    pub dropper: dropper::Dropper,
    /// Snapshots on disk.
    pub saving: saving::Saving,
    /// Commands held back, for what and until when.
    pub pauses: pause::Pauses,
    /// Clients blocked by WAIT, woken when a replica acknowledges.
    pub waiters: Vec<Arc<clients::ClientHandle>>,
    /// What may be read without the lock.
    pub shared: Arc<Shared>,
}

/// Flags and signals beside the lock.
#[derive(Debug, Default)]
pub struct Shared {
    /// All client connections.
    pub clients: clients::Registry,
    /// How much input a client may send.
    pub input_limits: InputLimits,
    /// The load of the dataset at the start.
    pub loading: loading::Loading,
    /// A managed server may serve clients only until this moment of the monotonic clock (ms since
    /// start, `clock::monotonic_ms`); `i64::MAX` where no lease applies.
    pub serve_until_ms: ServeUntil,
    /// Who wants a snapshot.
    pub snapshots: Queue,
    /// Held while CONFIG REWRITE writes; taken before the engine's lock.
    pub config_rewrite: Mutex<()>,
    /// Signalled when the role or the master has changed: the link thread looks.
    pub role_changed: Notify,
    /// Signalled when a pause ends or changes.
    pub unpaused: Notify,
    /// Signalled when the server is to end; how is in `shutdown_request`.
    pub shutdown: Notify,
    /// How the server is to end; `None` while it is not.
    pub shutdown_request: Mutex<Option<ShutdownRequest>>,
    /// Signalled when the shutdown in progress is to be called off.
    pub shutdown_aborted: Notify,
    /// Signalled when a shutdown was called off or failed: whoever asked for it is told.
    pub shutdown_called_off: Notify,
}

/// How much input a client may send: read by connections without the lock.
#[derive(Debug)]
pub struct InputLimits {
    max_bulk_bytes: AtomicU32,
    max_query_buffer_bytes: AtomicU64,
}

impl Default for InputLimits {
    fn default() -> Self {
        let limits = Self {
            max_bulk_bytes: AtomicU32::new(0),
            max_query_buffer_bytes: AtomicU64::new(0),
        };
        limits.set(&NetConfig::default());
        limits
    }
}

impl InputLimits {
    /// Takes over `proto-max-bulk-len` and `client-query-buffer-limit`.
    pub fn set(&self, config: &NetConfig) {
        self.max_bulk_bytes
            .store(config.max_bulk_bytes, Ordering::Relaxed);
        self.max_query_buffer_bytes
            .store(config.max_query_buffer_bytes, Ordering::Relaxed);
    }

    /// Longest argument.
    pub fn max_bulk_bytes(&self) -> u32 {
        self.max_bulk_bytes.load(Ordering::Relaxed)
    }

    /// Most unprocessed input of a client.
    pub fn max_query_buffer_bytes(&self) -> u64 {
        self.max_query_buffer_bytes.load(Ordering::Relaxed)
    }
}

/// The gate of clients: the moment until which a lease lets this server answer them.
#[derive(Debug)]
pub struct ServeUntil {
    until_ms: AtomicI64,
    /// How often it was shut.
    shuttings: AtomicU64,
}

/// A time between two shuttings of the gate. When it is shut and opened again this server may have another role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening(u64);

impl Default for ServeUntil {
    fn default() -> Self {
        Self {
            until_ms: AtomicI64::new(i64::MAX),
            shuttings: AtomicU64::new(0),
        }
    }
}

impl ServeUntil {
    /// Sets the moment (ms of the monotonic clock); `i64::MAX` where no lease applies.
    pub fn set(&self, until_ms: i64) {
        self.until_ms.store(until_ms, Ordering::Release);
    }

    /// Shuts the gate: what ran before is answered no more, even when it is open again.
    pub fn shut(&self) {
        // No instant of the clock is before it.
        self.set(0);
        // After that: who finds the new number does not find the gate as it was open under the old one.
        self.shuttings.fetch_add(1, Ordering::Release);
    }

    /// The present opening. To be read before the lease is looked at for what is to run.
    pub fn opening(&self) -> Opening {
        Opening(self.shuttings.load(Ordering::Acquire))
    }

    /// Whether a lease applies and has ended at `monotonic_ms`.
    pub fn has_lapsed(&self, monotonic_ms: impl FnOnce() -> i64) -> Lease {
        let until = self.until_ms.load(Ordering::Acquire);
        if until == i64::MAX || monotonic_ms() < until {
            Lease::Valid
        } else {
            Lease::Lapsed
        }
    }

    /// The same for what ran in this opening: another one's lease says nothing of it.
    pub fn has_lapsed_since(&self, opening: Opening, monotonic_ms: impl FnOnce() -> i64) -> Lease {
        match self.has_lapsed(monotonic_ms) {
            // Read last: a gate that was opened anew was shut before.
            Lease::Valid if self.opening() == opening => Lease::Valid,
            Lease::Valid | Lease::Lapsed => Lease::Lapsed,
        }
    }
}

/// Whether this server may answer clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It may.
    Valid,
    /// It may not: a majority has not acknowledged it in time.
    Lapsed,
}

impl Engine {
    /// An engine over `keyspace`. `seed` starts the sequence that commands such as SPOP draw from.
    pub fn new(keyspace: Keyspace, core: Core, seed: u64) -> Arc<Self> {
        let shared = core.shared.clone();
        let opening = shared.serve_until_ms.opening();
        let now_us = clock::unix_us();
        let state = State {
            keyspace,
            core,
            effects: Effects::default(),
            random: RandomWords::new(seed),
            now_us,
            now_ms: now_us / 1000,
            replies_need: RepliesNeed::Nothing,
            opening,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            wanted_by: AtomicUsize::new(0),
            shared,
        })
    }

    /// Takes the lock unless that takes longer than `wait`.
    pub fn try_lock_for(&self, wait: std::time::Duration) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock_for(wait)
    }

    /// Takes the lock. Whoever holds it does bounded work and never awaits.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Some(state) => state,
            None => self.wait_for_lock(),
        }
    }

    #[cold]
    fn wait_for_lock(&self) -> MutexGuard<'_, State> {
        self.wanted_by.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock();
        self.wanted_by.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Whether somebody waits for the lock: work that can be put off should end.
    pub fn is_lock_wanted(&self) -> bool {
        self.wanted_by.load(Ordering::Relaxed) > 0
    }
}

impl State {
    /// Fixes the time for the commands that follow under this lock.
    pub fn begin_batch(&mut self) {
        self.now_us = clock::unix_us();
        self.now_ms = self.now_us / 1000;
        self.replies_need = RepliesNeed::Nothing;
        self.opening = self.core.shared.serve_until_ms.opening();
        self.refresh_context();
    }

    /// Lets lookups follow the role and the pauses as they are now.
    fn refresh_context(&mut self) {
        let rule = self.core.expiry_rule();
        self.keyspace.set_context(self.now_ms, rule);
    }

    /// Ends a batch: wakes whoever ships the replication stream.
    pub fn finish_batch(&mut self) {
        self.core.wake_senders();
        if self.keyspace.has_garbage() {
            self.core.dropper.give(self.keyspace.take_garbage());
        }
    }

    /// What must hold for the replies of the present batch to be sent.
    pub fn replies_need(&self) -> RepliesNeed {
        self.replies_need
    }

    /// The time of the present batch, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }
}

impl Shared {
    /// Asks `main` to end the server. The first request counts.
    pub fn request_shutdown(&self, request: ShutdownRequest) {
        self.shutdown_request.lock().get_or_insert(request);
        self.shutdown.notify_one();
    }
}

/// The thresholds of the compact encodings that the configuration asks for.
pub fn encoding_limits(config: &EncodingConfig) -> EncodingLimits {
    EncodingLimits {
        hash_max_listpack_entries: config.hash_max_listpack_entries as usize,
        hash_max_listpack_value: config.hash_max_listpack_value as usize,
        list_max_listpack_size: i64::from(config.list_max_listpack_size),
        set_max_intset_entries: config.set_max_intset_entries as usize,
        set_max_listpack_entries: config.set_max_listpack_entries as usize,
        set_max_listpack_value: config.set_max_listpack_value as usize,
        zset_max_listpack_entries: config.zset_max_listpack_entries as usize,
        zset_max_listpack_value: config.zset_max_listpack_value as usize,
    }
}

impl Core {
    /// Adds a client that waits for acknowledgements (`WAIT`).
    pub fn begin_wait(&mut self, client: &Arc<clients::ClientHandle>) {
        self.waiters.push(client.clone());
        // Replicas acknowledge once a second by themselves.
        if !self.holds_writes() {
            self.replication.request_acks();
            self.wake_senders();
        }
    }

    fn wake_senders(&mut self) {
        let limits = self.config.output_limits();
        self.replication.wake_senders(limits.replica.hard_bytes);
    }

    /// Removes it again.
    pub fn end_wait(&mut self, client: &Arc<clients::ClientHandle>) {
        self.waiters.retain(|waiter| waiter.id != client.id);
    }

    /// Tells the link to a master that whom it follows has changed. Clients blocked on a role they
    /// no longer have look up.
    pub fn role_changed(&mut self) {
        self.shared.role_changed.notify_one();
        self.wake_waiters();
    }

    /// Wakes the clients that wait for acknowledgements; they look whether they have enough.
    pub fn wake_waiters(&self) {
        for waiter in &self.waiters {
            waiter.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_master_ran_is_not_answered_through_the_gate_of_a_replica() {
        let gate = ServeUntil::default();
        gate.shut();
        gate.set(100);
        let opening = gate.opening();
        assert_eq!(gate.has_lapsed_since(opening, || 99), Lease::Valid);
        assert_eq!(gate.has_lapsed_since(opening, || 100), Lease::Lapsed);
        gate.set(200);
        assert_eq!(
            gate.has_lapsed_since(opening, || 100),
            Lease::Valid,
            "renewed"
        );
        // A heartbeat of a higher term: the mastership ends, and replicas' reads are served without limit.
        gate.shut();
        assert_eq!(gate.has_lapsed_since(opening, || 101), Lease::Lapsed);
        gate.set(i64::MAX);
        assert_eq!(gate.has_lapsed(|| 101), Lease::Valid);
        assert_eq!(gate.has_lapsed_since(opening, || 101), Lease::Lapsed);
        assert_eq!(gate.has_lapsed_since(gate.opening(), || 101), Lease::Valid);
    }
}
