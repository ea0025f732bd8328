//! What commands may ask of the rest of the server: a port that the engine implements.
//!
//! Commands about the server itself (INFO, CONFIG, CLIENT, REPLICAOF …) reach everything but the
//! keyspace through [`Host`], so that this layer knows neither the engine nor a socket. Each trait
//! is one concern; the engine implements each in a file of the same name in `engine/host/`.

use std::{sync::Arc, time::Duration};

use super::{
    CommandError,
    session::{Scope, Session, Switch},
};
use crate::{
    config::{Locality, Permission},
    keyspace::Keyspace,
};

/// Everything a command may ask. Implemented by the engine.
pub trait Host:
    AuthHost + ClientHost + ConfigHost + ReplicationHost + SavingHost + ServerHost
{
}

impl<T: AuthHost + ClientHost + ConfigHost + ReplicationHost + SavingHost + ServerHost> Host for T {}

/// Users and passwords.
pub trait AuthHost {
    /// Logs the session in, or answers `WRONGPASS …`.
    fn authenticate(
        &mut self,
        session: &mut Session,
        user: &[u8],
        password: &[u8],
    ) -> Result<(), CommandError>;

    /// Whether user `default` is open to everybody (no password configured).
    fn default_user_is_open(&self) -> OpenDefault;

    /// All users, `default` first.
    fn users(&self) -> Vec<UserView>;

    /// Changes the passwords of user `default`, all or none. Each change comes with the word that asked for it, which is
    /// given back beside the problem.
    fn change_passwords<'a>(
        &mut self,
        changes: &[(&'a [u8], PasswordChange<'a>)],
    ) -> Result<(), (&'a [u8], String)>;
}

/// A user, as ACL shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserView {
    /// Name.
    pub name: Arc<str>,
    /// What the user may do.
    pub scope: Scope,
    /// Whether one of the passwords must be given.
    pub needs_password: NeedsPassword,
    /// SHA-256 of each password.
    pub digests: Vec<[u8; 32]>,
}

/// Whether a user must give a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedsPassword {
    /// One of those that are known.
    Yes,
    /// Any is good.
    No,
}

/// One change of a user's passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordChange<'a> {
    /// `>password`.
    Add(&'a [u8]),
    /// `<password`.
    Remove(&'a [u8]),
    /// `#hash`.
    AddDigest([u8; 32]),
    /// `!hash`.
    RemoveDigest([u8; 32]),
    /// `nopass`: everybody may log in.
    NeedNone,
    /// `resetpass`: nobody may, until a password is added.
    Clear,
}

/// Whether a connection is logged in as `default` from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenDefault {
    /// No password is configured.
    Yes,
    /// A password is required.
    No,
}

/// Snapshots on disk.
pub trait SavingHost {
    /// Begins a save in the background, unless one is running.
    fn begin_save(&mut self) -> Result<(), CommandError>;

    /// Whether a save is running; `SAVE` is refused then.
    fn check_not_saving(&self) -> Result<(), CommandError>;
}

/// What an order to follow or to lead has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleChange {
    /// The role or the master is another one now.
    Made,
    /// It was so already.
    None,
}

/// Roles and replicas.
pub trait ReplicationHost {
    /// Follows another server, or (`None`) becomes a master.
    fn replica_of(&mut self, master: Option<(&str, u16)>) -> Result<RoleChange, CommandError>;

    /// What ROLE shows.
    fn role(&self) -> RoleView;

    /// Number of replicas that have acknowledged the stream up to `offset`.
    fn acknowledged_by(&self, offset: u64) -> usize;

    /// `FAILOVER`: hands the role over to a replica, without losing a write.
    fn failover(&mut self, request: FailoverRequest) -> Result<(), CommandError>;

    /// `FAILOVER ABORT`.
    fn failover_abort(&mut self) -> Result<(), CommandError>;

    /// `PSYNC replid offset FAILOVER`: our master asks us to take over.
    fn accept_failover(&mut self, replid: &[u8]) -> Result<(), CommandError>;
}

/// Whether the switch goes on when the time is over although the target has not caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtDeadline {
    /// It is given up.
    Abort,
    /// It goes on (`FORCE`); writes may be lost.
    GoOn,
}

/// What FAILOVER asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailoverRequest {
    /// `TO host port`.
    pub target: Option<(String, u16)>,
    /// `TIMEOUT milliseconds`.
    pub timeout: Option<Duration>,
    /// `FORCE`.
    pub at_deadline: AtDeadline,
}

/// Role of this server, as ROLE shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleView {
    /// Takes writes.
    Master {
        /// Length of the stream in bytes.
        offset: u64,
        /// Address, port and acknowledged offset of each replica that is online.
        replicas: Vec<(String, u16, u64)>,
    },
    /// Follows another server.
    Replica {
        /// Its master.
        host: String,
        /// Its master's port.
        port: u16,
        /// State of the link.
        state: &'static str,
        /// Bytes of the stream applied, -1 while there is no link.
        offset: i64,
    },
}

/// The configuration.
pub trait ConfigHost {
    /// Names and values of the directives that match any of the patterns.
    fn config_get(&self, patterns: &[&str]) -> Vec<(String, String)>;

    /// Changes all the directives or none, and puts the change in force. What the operator of a managed server sets
    /// is refused.
    fn config_set(
        &mut self,
        pairs: &[(&str, &str)],
        client: Locality,
        keyspace: &mut Keyspace,
    ) -> Result<(), CommandError>;

    /// Whether there is a configuration file to write what is in force to, which is the server's own.
    fn check_config_file(&self) -> Result<(), CommandError>;

    /// Sets the counters of INFO to zero.
    fn reset_stats(&mut self);
}

/// The server as a whole.
pub trait ServerHost {
    /// The text of INFO for these sections.
    fn info(&self, sections: &[&str], keyspace: &Keyspace, now_ms: i64) -> String;

    /// `SHUTDOWN ABORT`: ends a shutdown that waits for replicas.
    fn abort_shutdown(&mut self) -> Result<(), CommandError>;

    /// Unix seconds of the last good snapshot.
    fn last_save_s(&self) -> i64;

    /// Who may use DEBUG.
    fn debug_permission(&self) -> Permission;

    /// Stops everybody for so long.
    fn debug_sleep(&self, duration: Duration);

    /// Whether expired keys are removed before somebody asks for them.
    fn set_active_expire(&mut self, wanted: Switch);
}

/// Other connections.
pub trait ClientHost {
    /// One line for each connection, as `CLIENT LIST` shows them.
    fn client_list(&self, filter: &ClientFilter) -> String;

    /// The line of one session, as `CLIENT INFO` shows it.
    fn client_info(&self, session: &Session) -> String;

    /// Closes the connections that match and answers their number. `own` is the caller's id.
    fn kill_clients(&mut self, filter: &ClientFilter, own: u64) -> Killed;

    /// Publishes the session's name, database and login for the lists of others.
    fn publish_session(&self, session: &Session);

    /// Holds commands of every client back for `duration` from now.
    fn pause(&mut self, kind: PauseKind, duration: Duration);

    /// Ends what [`ClientHost::pause`] began, and nothing that the server holds back for itself.
    fn unpause(&mut self);

    /// Ends the blocking command of another client; on if there was one.
    fn unblock(&mut self, id: u64, how: Unblock) -> Switch;
}

/// Result of `CLIENT KILL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// Connections closed.
    pub count: u64,
    /// Whether the caller's own connection was among them; it closes after its reply.
    pub own: Switch,
}

/// What a client gets that is unblocked by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblock {
    /// The same as if its time had run out.
    Timeout,
    /// An error.
    Error,
}

/// What a pause holds back, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseKind {
    /// Commands that may write.
    Writes,
    /// Every command.
    All,
}

/// The type of a connection, as `CLIENT LIST TYPE` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientType {
    /// An ordinary client.
    Normal,
    /// Our link to a master.
    Master,
    /// A replica's link to us.
    Replica,
    /// A subscriber.
    PubSub,
}

/// Which connections a `CLIENT LIST` or `CLIENT KILL` means; empty fields match all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// Of this type.
    pub kind: Option<ClientType>,
    /// With one of these ids.
    pub ids: Vec<u64>,
    /// With this peer address, `ip:port`.
    pub address: Option<Vec<u8>>,
    /// With this local address.
    pub local_address: Option<Vec<u8>>,
    /// Logged in as this user.
    pub user: Option<Vec<u8>>,
    /// Connected for at least so many seconds.
    pub min_age_s: Option<u64>,
    /// Leave the caller out.
    pub skip_me: Switch,
}
