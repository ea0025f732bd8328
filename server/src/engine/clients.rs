//! All client connections, seen from outside: for CLIENT LIST and KILL, and to wake or close them.
//!
//! Each connection registers one [`ClientHandle`] and publishes what others may see of its session.
//! The registry is locked only on connect, disconnect and by CLIENT commands, never per request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use resp::Version;
use tokio::sync::Notify;

use super::clock;
use crate::command::{
    host::{ClientFilter, ClientType, Unblock},
    session::{Login, Session, Switch},
    table,
};
use crate::config::{OutputLimit, OutputLimits};

/// All connections by id.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<BTreeMap<u64, Arc<ClientHandle>>>,
    last_id: AtomicU64,
}

/// What others may see of a connection and do to it.
#[derive(Debug)]
pub struct ClientHandle {
    /// Unique id.
    pub id: u64,
    /// `ip:port` of the peer.
    pub address: Arc<str>,
    /// `ip:port` of our side.
    pub local_address: Arc<str>,
    /// When it connected (ms of the monotonic clock).
    pub connected_ms: i64,
    /// When bytes last came from it or went to it (ms of the monotonic clock).
    active_ms: AtomicI64,
    /// Id of the last command in the table, or `usize::MAX`.
    pub last_command: AtomicUsize,
    /// Bytes waiting in its input buffer.
    pub input_bytes: AtomicUsize,
    /// Bytes waiting in its output buffer.
    pub output_bytes: AtomicUsize,
    /// Since when more than the soft limit waits there (ms of the monotonic clock); -1 while less does.
    over_soft_since_ms: AtomicI64,
    kind: AtomicU8,
    blocked: AtomicU8,
    closing: AtomicU8,
    unblock: Mutex<Option<Unblock>>,
    /// Signalled to make the connection look up: it is to close, or what it waits for came.
    pub wake: Notify,
    published: Mutex<Published>,
    /// How often that was published.
    publications: AtomicU64,
}

/// What a session publishes when it changes.
#[derive(Debug, Clone, Default)]
struct Published {
    name: Vec<u8>,
    library_name: Vec<u8>,
    library_version: Vec<u8>,
    login: Option<Login>,
    shown: Shown,
}

/// What commands of every kind change of a session, to be compared with what was published last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    db: u32,
    version: Version,
    /// Commands queued since MULTI, -1 without one.
    multi: i64,
    watch: usize,
    no_evict: Switch,
    no_touch: Switch,
    /// Where the user's name is: what was published keeps it, so that no other name is there meanwhile.
    user: Option<usize>,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            db: 0,
            version: Version::Resp2,
            multi: -1,
            watch: 0,
            no_evict: Switch::Off,
            no_touch: Switch::Off,
            user: None,
        }
    }
}

impl Shown {
    /// What there is to show of a session.
    pub fn of(session: &Session) -> Self {
        let queue = session.transaction.as_ref().map(|t| t.queue.len());
        Self {
            db: session.db,
            version: session.version,
            multi: queue.map_or(-1, |queued| queued as i64),
            watch: session.watched.len(),
            no_evict: session.no_evict,
            no_touch: session.no_touch,
            user: user_of(session.login.as_ref()),
        }
    }
}

fn user_of(login: Option<&Login>) -> Option<usize> {
    login.map(|login| Arc::as_ptr(&login.user).addr())
}

impl Registry {
    /// Makes a handle with a fresh id and adds it. `login` is what nobody has to ask for: others see it from the first moment, so
    /// that who closes all clients of a user misses none.
    pub fn register(
        &self,
        address: Arc<str>,
        local: Arc<str>,
        login: Option<Login>,
        now_ms: i64,
    ) -> Arc<ClientHandle> {
        let mut published = Published::default();
        published.shown.user = user_of(login.as_ref());
        published.login = login;
        let handle = Arc::new(ClientHandle {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            address,
            local_address: local,
            connected_ms: now_ms,
            active_ms: AtomicI64::new(now_ms),
            last_command: AtomicUsize::new(usize::MAX),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            over_soft_since_ms: AtomicI64::new(-1),
            kind: AtomicU8::new(ClientType::Normal as u8),
            blocked: AtomicU8::new(Blocked::No as u8),
            closing: AtomicU8::new(0),
            unblock: Mutex::new(None),
            wake: Notify::new(),
            published: Mutex::new(published),
            publications: AtomicU64::new(0),
        });
        self.clients.lock().insert(handle.id, handle.clone());
        handle
    }

    /// Forgets a connection that has ended.
    pub fn unregister(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.clients.lock().len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of connections of a type.
    pub fn count(&self, kind: ClientType) -> usize {
        self.clients
            .lock()
            .values()
            .filter(|client| client.kind() == kind)
            .count()
    }

    /// The connection with this id.
    pub fn get(&self, id: u64) -> Option<Arc<ClientHandle>> {
        self.clients.lock().get(&id).cloned()
    }

    /// The connections that match, in the order of their ids.
    pub fn matching(&self, filter: &ClientFilter, now_ms: i64) -> Vec<Arc<ClientHandle>> {
        let clients = self.clients.lock();
        clients
            .values()
            .filter(|client| client.matches(filter, now_ms))
            .cloned()
            .collect()
    }

    /// Bytes in the buffers of all connections but replicas'.
    pub fn buffer_bytes(&self) -> u64 {
        let clients = self.clients.lock();
        let others = clients
            .values()
            .filter(|client| client.kind() != ClientType::Replica);
        let bytes = |client: &Arc<ClientHandle>| {
            client.input_bytes.load(Ordering::Relaxed) + client.output_bytes.load(Ordering::Relaxed)
        };
        others.map(|client| bytes(client) as u64).sum()
    }

    /// Closes every connection of these types, for instance when a master steps down.
    pub fn close_all(&self, kinds: &[ClientType]) -> usize {
        let clients = self.clients.lock();
        let chosen = clients
            .values()
            .filter(|client| kinds.contains(&client.kind()));
        chosen.map(|client| client.close()).count()
    }

    /// Closes normal clients that neither sent nor took a byte for `timeout_ms` and wait for nothing.
    pub fn close_idle(&self, timeout_ms: i64, now_ms: i64) {
        let clients = self.clients.lock();
        let free = |client: &&Arc<ClientHandle>| {
            client.kind() == ClientType::Normal && client.blocked() == Blocked::No
        };
        for client in clients.values().filter(free) {
            if now_ms - client.active_ms.load(Ordering::Relaxed) > timeout_ms {
                client.close();
            }
        }
    }

    /// `client-output-buffer-limit`: closes connections that do not read what waits for them.
    pub fn close_slow(&self, limits: &OutputLimits, now_ms: i64) {
        let clients = self.clients.lock();
        for client in clients.values() {
            let limit = match client.kind() {
                ClientType::Normal => limits.normal,
                ClientType::Replica => limits.replica,
                ClientType::PubSub => limits.pubsub,
                ClientType::Master => continue,
            };
            let waiting = client.output_bytes.load(Ordering::Relaxed) as u64;
            if client.is_too_slow(waiting, limit, now_ms) {
                tracing::warn!(
                    client = client.id,
                    address = &*client.address,
                    waiting,
                    "closed at its client-output-buffer-limit"
                );
                client.close();
            }
        }
    }
}

/// Whether a client waits for the server: for replicas, the disk, or the end of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// It may ask something.
    No,
    /// It waits.
    Yes,
}

impl ClientHandle {
    /// The connection's type.
    pub fn kind(&self) -> ClientType {
        match self.kind.load(Ordering::Relaxed) {
            1 => ClientType::Master,
            2 => ClientType::Replica,
            3 => ClientType::PubSub,
            _ => ClientType::Normal,
        }
    }

    /// Changes the type (a replica begins as a normal client).
    pub fn set_kind(&self, kind: ClientType) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }

    fn blocked(&self) -> Blocked {
        match self.blocked.load(Ordering::Acquire) {
            0 => Blocked::No,
            _ => Blocked::Yes,
        }
    }

    /// Says whether the client waits for the server. One that does so no longer begins to be idle.
    pub fn set_blocked(&self, blocked: Blocked) {
        // The order of the two keeps the end of a long wait from being taken for idleness.
        self.note_active();
        self.blocked.store(blocked as u8, Ordering::Release);
    }

    /// Bytes have come or gone: it is not idle.
    pub fn note_active(&self) {
        self.active_ms
            .store(clock::monotonic_ms(), Ordering::Relaxed);
    }

    /// Whether `waiting` bytes are too many, now or for too long.
    fn is_too_slow(&self, waiting: u64, limit: OutputLimit, now_ms: i64) -> bool {
        if limit.hard_bytes > 0 && waiting > limit.hard_bytes {
            return true;
        }
        if limit.soft_bytes == 0 || waiting <= limit.soft_bytes {
            self.over_soft_since_ms.store(-1, Ordering::Relaxed);
            return false;
        }
        let since_ms = self.over_soft_since_ms.load(Ordering::Relaxed);
        if since_ms < 0 {
            self.over_soft_since_ms.store(now_ms, Ordering::Relaxed);
            return false;
        }
        u64::try_from(now_ms - since_ms)
            .is_ok_and(|ms| ms > limit.soft_seconds.saturating_mul(1000))
    }

    /// Asks the connection to close; it does so at once, without another reply.
    pub fn close(&self) {
        self.closing.store(1, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends what the connection waits for.
    pub fn unblock(&self, how: Unblock) {
        *self.unblock.lock() = Some(how);
        self.wake.notify_one();
    }

    /// Takes what [`ClientHandle::unblock`] asked for.
    pub fn take_unblock(&self) -> Option<Unblock> {
        self.unblock.lock().take()
    }

    /// Whether somebody asked it to close.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) != 0
    }

    /// Takes over what others may see of the session.
    pub fn publish(&self, session: &Session) {
        let mut published = self.published.lock();
        published.name.clone_from(&session.name);
        published.library_name.clone_from(&session.library_name);
        published
            .library_version
            .clone_from(&session.library_version);
        published.login.clone_from(&session.login);
        published.shown = Shown::of(session);
        drop(published);
        self.publications.fetch_add(1, Ordering::Relaxed);
        self.last_command
            .store(session.last_command, Ordering::Relaxed);
    }

    /// The login that was published last.
    pub fn login(&self) -> Option<Login> {
        self.published.lock().login.clone()
    }

    /// How often [`ClientHandle::publish`] was called.
    pub fn publications(&self) -> u64 {
        self.publications.load(Ordering::Relaxed)
    }

    /// The letters of CLIENT LIST.
    fn flags(&self, shown: &Shown) -> String {
        let letters = [
            ('S', self.kind() == ClientType::Replica),
            ('M', self.kind() == ClientType::Master),
            ('P', self.kind() == ClientType::PubSub),
            ('x', shown.multi >= 0),
            ('b', self.blocked() == Blocked::Yes),
            ('A', self.is_closing()),
            ('e', shown.no_evict == Switch::On),
            ('T', shown.no_touch == Switch::On),
        ];
        let set = letters.iter().filter(|(_, is_set)| *is_set);
        let flags: String = set.map(|(letter, _)| letter).collect();
        if flags.is_empty() {
            "N".to_owned()
        } else {
            flags
        }
    }

    fn matches(&self, filter: &ClientFilter, now_ms: i64) -> bool {
        let published = self.published.lock();
        let user = published.login.as_ref().map(|login| login.user.as_bytes());
        let age_s = (now_ms - self.connected_ms).max(0) as u64 / 1000;
        filter.kind.is_none_or(|kind| kind == self.kind())
            && (filter.ids.is_empty() || filter.ids.contains(&self.id))
            && filter
                .address
                .as_ref()
                .is_none_or(|a| a == self.address.as_bytes())
            && filter
                .local_address
                .as_ref()
                .is_none_or(|a| a == self.local_address.as_bytes())
            && filter.user.as_ref().is_none_or(|name| user == Some(name))
            && filter.min_age_s.is_none_or(|age| age_s >= age)
    }

    /// The line of `CLIENT LIST`.
    pub fn describe(&self, now_ms: i64) -> String {
        let published = self.published.lock();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = published.shown;
        let command = self.last_command.load(Ordering::Relaxed);
        let command = table::table().all().find(|entry| entry.id == command);
        let seconds = |since: i64| (now_ms - since).max(0) / 1000;
        format!(
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db={} sub=0 psub=0 \
             ssub=0 multi={} watch={} qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 \
             obl={} oll=0 omem={} tot-mem={} events=r cmd={} user={} redir=-1 resp={} \
             lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.local_address,
            text(&published.name),
            seconds(self.connected_ms),
            seconds(self.active_ms.load(Ordering::Relaxed)),
            self.flags(&shown),
            shown.db,
            shown.multi,
            shown.watch,
            self.input_bytes.load(Ordering::Relaxed),
            self.output_bytes.load(Ordering::Relaxed),
            self.output_bytes.load(Ordering::Relaxed),
            self.input_bytes.load(Ordering::Relaxed) + self.output_bytes.load(Ordering::Relaxed),
            command.map_or("NULL", |entry| &entry.full_name),
            published
                .login
                .as_ref()
                .map_or("(unauthenticated)", |login| &login.user),
            shown.version.number(),
            text(&published.library_name),
            text(&published.library_version),
        )
    }
}

/// Whether a filter leaves the caller out.
pub fn skips(filter: &ClientFilter, id: u64, own: u64) -> bool {
    filter.skip_me == Switch::On && id == own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::session::Scope;

    #[test]
    fn a_client_that_does_not_read_is_too_slow_at_once_or_after_a_while() {
        let registry = Registry::default();
        let client = registry.register(Arc::from("a"), Arc::from("b"), None, 0);
        let limit = OutputLimit {
            hard_bytes: 100,
            soft_bytes: 50,
            soft_seconds: 2,
        };
        assert!(client.is_too_slow(101, limit, 0));
        assert!(!client.is_too_slow(60, limit, 1000));
        assert!(!client.is_too_slow(60, limit, 3000));
        assert!(client.is_too_slow(60, limit, 3001));
        assert!(!client.is_too_slow(50, limit, 4000), "it has read");
        assert!(!client.is_too_slow(60, limit, 5000));
        let limits = OutputLimits {
            normal: limit,
            ..OutputLimits::default()
        };
        client.output_bytes.store(101, Ordering::Relaxed);
        registry.close_slow(&limits, 5000);
        assert!(client.is_closing());
    }

    #[test]
    fn a_new_client_that_need_not_log_in_is_its_users_from_the_first_moment() {
        let registry = Registry::default();
        let login = Login {
            user: Arc::from("default"),
            scope: Scope::Everything,
        };
        let address = || Arc::<str>::from("a");
        let open = registry.register(address(), address(), Some(login.clone()), 0);
        registry.register(address(), address(), None, 0);
        let of_the_user = ClientFilter {
            user: Some(b"default".to_vec()),
            ..ClientFilter::default()
        };
        let found = registry.matching(&of_the_user, 0);
        let found: Vec<u64> = found.iter().map(|client| client.id).collect();
        assert_eq!(found, [open.id]);
        assert_eq!(open.login(), Some(login));
    }

    #[test]
    fn a_client_that_waits_is_not_idle() {
        let registry = Registry::default();
        let client = registry.register(Arc::from("a"), Arc::from("b"), None, 0);
        client.set_blocked(Blocked::Yes);
        let later_ms = clock::monotonic_ms() + 10_000;
        registry.close_idle(1_000, later_ms);
        assert!(!client.is_closing(), "it waits");
        client.set_blocked(Blocked::No);
        registry.close_idle(1_000, clock::monotonic_ms());
        assert!(!client.is_closing(), "its wait has just ended");
        registry.close_idle(1_000, later_ms);
        assert!(client.is_closing());
    }
}
