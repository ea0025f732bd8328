//! State of one caller: what a connection has selected, who it is, what it has queued.
//!
//! A session is plain data, owned by its connection and lent to the engine for each batch.
//! Replication links and the loader have sessions too, with an origin that no client can have.

use std::sync::Arc;

use resp::{OwnedArgs, Version};

use super::{spec::Flags, table::CommandEntry};
use crate::keyspace::watch::WatchSet;

/// Per-connection state that commands read and change.
#[derive(Debug)]
pub struct Session {
    /// Unique id of the connection, as in `CLIENT ID`.
    pub id: u64,
    /// Selected database.
    pub db: u32,
    /// Protocol version chosen by `HELLO`.
    pub version: Version,
    /// Who has logged in; `None` before a required authentication.
    pub login: Option<Login>,
    /// Name given by `CLIENT SETNAME` or `HELLO … SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: Vec<u8>,
    /// `CLIENT REPLY`.
    pub reply_mode: ReplyMode,
    /// An open MULTI.
    pub transaction: Option<Transaction>,
    /// Keys watched for EXEC.
    pub watched: WatchSet,
    /// Id of the last command in the table, `usize::MAX` before the first.
    pub last_command: usize,
    /// Replication offset after this client's last write, for `WAIT`.
    pub last_write_offset: u64,
    /// What a replica said by `REPLCONF` before `PSYNC`.
    pub replica: Option<Box<ReplicaHello>>,
    /// `CLIENT NO-EVICT on`.
    pub no_evict: Switch,
    /// `CLIENT NO-TOUCH on`.
    pub no_touch: Switch,
    /// Address of the peer, `ip:port`.
    pub address: Arc<str>,
    /// Our own address on this connection, `ip:port`.
    pub local_address: Arc<str>,
}

/// A switch a client can turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// Off, the default.
    #[default]
    Off,
    /// On.
    On,
}

/// A successful authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Name of the user.
    pub user: Arc<str>,
    /// What the user may do.
    pub scope: Scope,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Everything,
    /// What a replica needs: `PING`, `REPLCONF`, `PSYNC`, `SYNC`, authentication.
    Replication,
}

/// Which replies a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// Not the next one.
    SkipNext,
}

/// Commands queued by MULTI.
#[derive(Debug, Default)]
pub struct Transaction {
    /// In order of arrival.
    pub queue: Vec<(&'static CommandEntry, OwnedArgs)>,
    /// Bytes of all queued arguments, bounded like an input buffer.
    pub bytes: usize,
    /// Whether a queued command was refused, so that EXEC must fail.
    pub state: TransactionState,
}

/// Whether EXEC may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionState {
    /// Every queued command was accepted.
    #[default]
    Open,
    /// One was refused: EXEC answers `EXECABORT`.
    Aborted,
}

/// What a replica announces about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaHello {
    /// `REPLCONF listening-port`.
    pub listening_port: u16,
    /// `REPLCONF ip-address`.
    pub ip_address: Option<Vec<u8>>,
    /// `capa eof`: takes a snapshot of unknown length.
    pub capa_eof: Switch,
    /// `capa psync2`: understands `+CONTINUE <replid>`.
    pub capa_psync2: Switch,
    /// `REPLCONF version`.
    pub version: Option<Vec<u8>>,
    /// `REPLCONF rdb-filter-only functions`: wants a snapshot without keys.
    pub functions_only: Switch,
    /// `REPLCONF rdb-only 1`: wants a snapshot and nothing after it.
    pub rdb_only: Switch,
}

impl Transaction {
    /// The flags of the queue and of the EXEC that runs it, as one.
    pub fn flags(&self, exec: Flags) -> Flags {
        self.queue
            .iter()
            .fold(exec, |unit, (entry, _)| unit.as_unit_with(entry.spec.flags))
    }
}

impl Session {
    /// A session for the connection `id` between the two addresses, nobody logged in.
    pub fn new(id: u64, address: Arc<str>, local_address: Arc<str>) -> Self {
        Self {
            id,
            db: 0,
            version: Version::Resp2,
            login: None,
            name: Vec::new(),
            library_name: Vec::new(),
            library_version: Vec::new(),
            reply_mode: ReplyMode::On,
            transaction: None,
            watched: WatchSet::default(),
            last_command: usize::MAX,
            last_write_offset: 0,
            replica: None,
            no_evict: Switch::Off,
            no_touch: Switch::Off,
            address,
            local_address,
        }
    }

    /// Takes the reply that begins at `mark` back if the client does not want it.
    pub fn mute(&mut self, out: &mut Vec<u8>, mark: usize) {
        match self.reply_mode {
            ReplyMode::On => {}
            ReplyMode::Off => out.truncate(mark),
            // The command that asked for it has no reply itself; the next one loses its reply.
            ReplyMode::SkipNext => {
                if out.len() > mark {
                    out.truncate(mark);
                    self.reply_mode = ReplyMode::On;
                }
            }
        }
    }

    /// Whether the peer is a program on this machine.
    pub fn is_local(&self) -> bool {
        let address = self.address.parse::<std::net::SocketAddr>();
        address.is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// A session without a connection (link to a master, loader).
    pub fn internal() -> Self {
        Self::new(0, Arc::from("internal"), Arc::from("internal"))
    }
}
