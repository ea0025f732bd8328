//! What replication is at this moment, under the engine's lock. Changes of role: `state/role.rs`; replicas: `state/replicas.rs`.

mod replicas;
mod role;

pub use replicas::NoMore;

use std::sync::Arc;

use resp::Args;
use tokio::sync::Notify;

use super::{
    backlog::{Backlog, Held},
    handover::Handover,
    identity::{Continuation, History, ReplId},
};
use crate::{
    command::effects::PsyncRequest, config::Config, engine::clients::ClientHandle,
    keyspace::ExpiryRule,
};

/// Role, history, stream and replicas.
#[derive(Debug)]
pub struct Replication {
    role: Role,
    history: History,
    /// Made for the first replica (or a promotion); without one nothing is recorded.
    backlog: Option<Backlog>,
    backlog_limit: u64,
    /// Database that the stream has selected; `None` forces a SELECT.
    stream_db: Option<u32>,
    /// Whether others may know our history.
    continuable: Continuable,
    /// Monotonic ms of the last PING in the stream.
    pinged_ms: i64,
    /// Monotonic ms since when no replica is attached.
    lonely_since_ms: Option<i64>,
    handover: Handover,
    /// Effects of the transaction that is running.
    unit: Option<Unit>,
    replicas: Vec<Replica>,
    /// Bytes were appended since the senders were last woken.
    fresh: Fresh,
    /// Whether anything may be appended that no client asked for.
    hold: Hold,
    /// Revision of the password that the link to the master logs in with.
    login_revision: u64,
    /// Counts orders to follow, so that a link knows whether it is the one that was asked for.
    orders: u64,
    /// Sequence of random words for new ids.
    id_seed: u64,
    ids_made: u64,
}

#[derive(Debug, Default)]
struct Unit {
    bytes: Vec<u8>,
    commands: u32,
}

/// Whether others may know our history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Continuable {
    No,
    Yes,
    /// The data are of no place of any history: a part of what our master did as one is in them.
    Torn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    No,
    Yes,
}

/// Whether the stream stands still but for clients, who are paused themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Expiry, PING and GETACK may append.
    No,
    /// A successor is catching up: nothing is appended.
    Yes,
}

/// Master or replica.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// Takes writes.
    Master,
    /// Follows another server.
    Replica(Following),
}

/// What is known about the server we follow.
#[derive(Debug, Clone, PartialEq)]
pub struct Following {
    /// Host name or address.
    pub host: String,
    /// Port; 0 while a managed server has not been told its master.
    pub port: u16,
    /// Number of the order to follow; a link ends when there is a newer one.
    pub order: u64,
    /// Whether nobody listens there: the master's process is gone.
    pub refused: Refused,
    /// Revision of the password that the link logged in with.
    pub login_revision: u64,
    /// Whether that password is still the one to log in with.
    pub login: Login,
    /// Where the link is.
    pub link: LinkState,
    /// Monotonic ms of the last byte from the master.
    pub last_io_ms: Option<i64>,
    /// Monotonic ms since when the link is down.
    pub down_since_ms: Option<i64>,
    /// Why the last attempt failed or the link ended, until there is a link again.
    pub last_error: Option<String>,
    /// Progress of a full synchronization: bytes expected (0 if unknown) and read.
    pub sync_total_bytes: u64,
    /// Bytes of the snapshot read so far.
    pub sync_read_bytes: u64,
    /// Bytes of the stream received, applied or not (`slave_read_repl_offset`).
    pub read_offset: u64,
}

/// Whether the password that a link logged in with is still the one to log in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It is.
    InForce,
    /// There is a new one, which waits for the end of a full synchronization.
    Outdated,
}

/// Whether the last attempt to connect was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It was not, or there was none.
    No,
    /// It was.
    Yes,
}

/// State of the link to the master, as ROLE names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// To be connected.
    Connect,
    /// Connecting.
    Connecting,
    /// Talking about who we are.
    Handshake,
    /// Receiving a snapshot.
    Sync,
    /// Following.
    Connected,
}

impl LinkState {
    /// The word of ROLE.
    pub const fn name(self) -> &'static str {
        match self {
            LinkState::Connect => "connect",
            LinkState::Connecting => "connecting",
            LinkState::Handshake => "handshake",
            LinkState::Sync => "sync",
            LinkState::Connected => "connected",
        }
    }
}

/// A replica attached to us.
#[derive(Debug)]
pub struct Replica {
    /// Its connection.
    pub handle: Arc<ClientHandle>,
    /// Address it announced, or that of its connection.
    pub ip: String,
    /// Port it listens on.
    pub port: u16,
    /// How far it is.
    pub state: ReplicaState,
    /// Next byte to send.
    pub position: u64,
    /// Bytes acknowledged.
    pub acked: u64,
    /// Monotonic ms of the last acknowledgement, or newline of a replica that still loads.
    pub acked_ms: i64,
    /// Wakes its sender.
    pub wake: Arc<Notify>,
}

/// How far a replica is, as INFO names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState {
    /// Waits for a snapshot to begin.
    WaitSnapshot,
    /// Receives a snapshot.
    SendBulk,
    /// Follows the stream.
    Online,
}

impl ReplicaState {
    /// The word of INFO.
    pub const fn name(self) -> &'static str {
        match self {
            ReplicaState::WaitSnapshot => "wait_bgsave",
            ReplicaState::SendBulk => "send_bulk",
            ReplicaState::Online => "online",
        }
    }
}

/// Answer to a PSYNC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncDecision {
    /// Go on from this position; the id is told to the replica.
    Continue {
        /// Our present id.
        id: ReplId,
        /// Next byte to send.
        position: u64,
    },
    /// A snapshot first.
    Full,
}

impl Replication {
    /// A master with a fresh history. `seed` is random: ids are made from it.
    pub fn new(seed: u64, config: &Config) -> Self {
        let mut replication = Self {
            role: Role::Master,
            history: History::new(ReplId::NONE),
            backlog: None,
            backlog_limit: config.replication.backlog_bytes,
            stream_db: None,
            continuable: Continuable::No,
            pinged_ms: 0,
            lonely_since_ms: None,
            handover: Handover::None,
            unit: None,
            replicas: Vec::new(),
            fresh: Fresh::No,
            hold: Hold::No,
            login_revision: 0,
            orders: 0,
            id_seed: seed,
            ids_made: 0,
        };
        replication.history.id = replication.make_id();
        replication
    }

    fn make_id(&mut self) -> ReplId {
        let mut words = crate::command::context::RandomWords::new(
            self.id_seed ^ self.ids_made.wrapping_mul(0xd6e8_feb8_6659_fd93),
        );
        self.ids_made += 1;
        let mut bits = [0; 20];
        for chunk in bits.chunks_mut(8) {
            chunk.copy_from_slice(&words.next_word().to_le_bytes()[..chunk.len()]);
        }
        ReplId::from_random(bits)
    }

    /// Present role.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The server we follow, to note what its link does.
    pub fn following_mut(&mut self) -> Option<&mut Following> {
        match &mut self.role {
            Role::Master => None,
            Role::Replica(following) => Some(following),
        }
    }

    /// Ids and offset.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// `master_repl_offset`.
    pub fn offset(&self) -> u64 {
        self.history.offset
    }

    /// Whether another server may be asked to continue this history. One that began in this process
    /// and was never recorded is known to nobody.
    pub fn can_continue(&self) -> bool {
        self.continuable == Continuable::Yes
    }

    /// Whether the data are of no place of any history ([`Replication::leave_history`]).
    pub fn is_torn(&self) -> bool {
        self.continuable == Continuable::Torn
    }

    /// Where a planned change of master stands.
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// Notes the next step of a planned change of master.
    pub fn set_handover(&mut self, handover: Handover) {
        self.handover = handover;
    }

    /// Database that the stream has selected, where one is.
    pub fn stream_db(&self) -> Option<u32> {
        self.stream_db
    }

    /// A replica follows its master's selection, so that a continued stream goes on in it.
    pub fn set_stream_db(&mut self, db: Option<u32>) {
        self.stream_db = db;
    }

    /// The stream's recent bytes, where they are kept.
    pub fn backlog(&self) -> Option<&Backlog> {
        self.backlog.as_ref()
    }

    /// Attached replicas.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The attached replica with this connection.
    pub fn replica_mut(&mut self, id: u64) -> Option<&mut Replica> {
        self.replicas
            .iter_mut()
            .find(|replica| replica.handle.id == id)
    }

    /// What a lookup does with an expired key: only a master may remove it.
    pub fn expiry_rule(&self) -> ExpiryRule {
        match (&self.role, &self.handover) {
            (Role::Master, Handover::None) if self.hold == Hold::No => ExpiryRule::Delete,
            // While writes are paused for a handover nothing may enter the stream.
            (Role::Master | Role::Replica(_), _) => ExpiryRule::Hide,
        }
    }

    /// Whether clients may not write here.
    pub fn refuses_writes(&self, config: &Config) -> bool {
        match self.role {
            Role::Master => false,
            Role::Replica(_) => config.replication.replica_read_only,
        }
    }

    /// Whether reads are refused because the link is down (`replica-serve-stale-data no`).
    pub fn is_stale(&self, config: &Config) -> bool {
        match &self.role {
            Role::Master => false,
            Role::Replica(following) => {
                following.link != LinkState::Connected
                    && !config.replication.replica_serve_stale_data
            }
        }
    }

    /// Whether this is a replica that cannot give a snapshot because it has no link itself.
    pub fn has_no_link_to_its_master(&self) -> bool {
        match &self.role {
            Role::Master => false,
            Role::Replica(following) => following.link != LinkState::Connected,
        }
    }

    /// Whether a full copy is on its way, which is loaded beside the data that are served.
    pub fn loads_aside(&self) -> bool {
        match &self.role {
            Role::Master => false,
            Role::Replica(following) => {
                following.link == LinkState::Sync && following.sync_read_bytes > 0
            }
        }
    }

    /// `min-replicas-to-write`: enough online replicas that acknowledged lately.
    pub fn has_enough_good_replicas(
        &self,
        config: &Config,
        monotonic_ms: impl FnOnce() -> i64,
    ) -> bool {
        if !config.replication.wants_good_replicas() || self.role != Role::Master {
            return true;
        }
        self.good_replicas(config, monotonic_ms())
            >= config.replication.min_replicas_to_write as usize
    }

    /// Number of online replicas whose last acknowledgement is recent enough.
    pub fn good_replicas(&self, config: &Config, monotonic_ms: i64) -> usize {
        let max_lag_ms = config.replication.min_replicas_max_lag.as_millis() as i64;
        let good = |replica: &&Replica| {
            replica.state == ReplicaState::Online && monotonic_ms - replica.acked_ms <= max_lag_ms
        };
        self.replicas.iter().filter(good).count()
    }

    /// Number of replicas that have acknowledged the stream up to `offset`.
    pub fn acknowledged_by(&self, offset: u64) -> usize {
        let has =
            |replica: &&Replica| replica.state == ReplicaState::Online && replica.acked >= offset;
        self.replicas.iter().filter(has).count()
    }
}

/// Appending to the stream.
impl Replication {
    /// Appends a request as the client sent it.
    pub fn append_request(&mut self, db: u32, args: Args<'_>) {
        self.append(db, 1, |out| resp::encode_command(out, args.iter()));
    }

    /// Appends commands that are already encoded.
    pub fn append_encoded(&mut self, db: u32, bytes: &[u8], commands: u32) {
        if commands > 0 {
            self.append(db, commands, |out| out.extend_from_slice(bytes));
        }
    }

    /// Appends a command of our own.
    pub fn append_command<const N: usize>(&mut self, db: u32, words: [&[u8]; N]) {
        self.append(db, 1, |out| resp::encode_command(out, words));
    }

    fn append(&mut self, db: u32, commands: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if self.backlog.is_none() || self.role != Role::Master {
            return;
        }
        let mut unit = self.unit.take();
        let mut bytes = unit
            .as_mut()
            .map_or_else(Vec::new, |unit| std::mem::take(&mut unit.bytes));
        if self.stream_db != Some(db) {
            self.stream_db = Some(db);
            resp::encode_command(
                &mut bytes,
                [b"SELECT".as_slice(), &resp::format_i64(i64::from(db))],
            );
        }
        write(&mut bytes);
        match unit {
            Some(mut unit) => {
                unit.bytes = bytes;
                unit.commands += commands;
                self.unit = Some(unit);
            }
            // One request with several effects is one unit for replicas, too.
            None if commands > 1 => self.append_unit(&bytes),
            None => self.append_raw(&bytes),
        }
    }

    /// Begins a transaction: what follows is appended together at its end.
    pub fn begin_unit(&mut self) {
        self.unit = Some(Unit::default());
    }

    /// Ends it: several effects between MULTI and EXEC, one as it is.
    pub fn end_unit(&mut self) {
        let Some(unit) = self.unit.take() else { return };
        match unit.commands {
            0 => {}
            1 => self.append_raw(&unit.bytes),
            _ => self.append_unit(&unit.bytes),
        }
    }

    fn append_unit(&mut self, bytes: &[u8]) {
        self.append_raw(b"*1\r\n$5\r\nMULTI\r\n");
        self.append_raw(bytes);
        self.append_raw(b"*1\r\n$4\r\nEXEC\r\n");
    }

    /// Appends bytes of the stream as they are: our own, or our master's.
    pub fn append_raw(&mut self, bytes: &[u8]) {
        self.history.offset += bytes.len() as u64;
        if let Some(backlog) = &mut self.backlog {
            if self.replicas.is_empty() {
                backlog.append_unread(bytes);
            } else {
                backlog.append(bytes);
            }
            self.fresh = Fresh::Yes;
        }
    }

    /// Asks all replicas to acknowledge now.
    pub fn request_acks(&mut self) {
        if self.may_append_by_itself() {
            self.append_raw(b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n");
        }
    }

    /// Keeps replicas from timing us out.
    pub fn append_ping(&mut self) {
        if self.may_append_by_itself() {
            self.append_raw(b"*1\r\n$4\r\nPING\r\n");
        }
    }

    fn may_append_by_itself(&self) -> bool {
        !self.replicas.is_empty() && self.role == Role::Master && self.hold == Hold::No
    }

    /// Lets nothing be appended but what clients ask for, who must be paused: a successor can catch
    /// up with a stream that stands still.
    pub fn hold_stream(&mut self) {
        self.hold = Hold::Yes;
    }

    /// Ends [`Replication::hold_stream`]; a change of role does so, too.
    pub fn release_stream(&mut self) {
        self.hold = Hold::No;
    }
}
