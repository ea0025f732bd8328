//! The data: databases of keys and values.
//!
//! Owns every entry, table and pending snapshot. Called by `command` (through [`Keyspace::db`]), by the engine (context,
//! expiry, snapshots, garbage, statistics) and by the loaders. Knows values and time, nothing of clients, sockets or files;
//! it reads no clock and draws no random number: both come in as values.
//!
//! Invariants:
//! - nothing here takes time proportional to the number of keys, except what says so;
//! - an entry that a running snapshot has not passed reaches its sink before it changes ([`snapshot_hook`]);
//! - a key whose time is over is never seen, whatever the rule for removing it ([`ExpiryRule`]).
//!
//! Limits: a snapshot writes one string, or one element of a collection, at a time, however big.
//!
//! Read next: `db.rs` (what commands use), `entry.rs` and `table.rs` with `segment.rs` (memory), `snapshot_hook.rs`
//! and `slices.rs`, `expire.rs`, `scan.rs`, then `types/`.

pub mod db;
pub mod entry;
pub mod evict;
pub mod expire;
pub mod garbage;
pub mod hash;
pub mod memory;
pub mod scan;
mod segment;
mod slices;
pub mod snapshot_hook;
pub mod string;
mod table;
pub mod types;
pub mod usage;
pub mod value;
pub mod watch;

#[cfg(test)]
mod tests;

use self::db::Record;
use self::evict::Pool;
use self::expire::ExpireTurn;
use self::garbage::Garbage;
use self::hash::KeyHasher;
use self::memory::MemoryGauge;
use self::snapshot_hook::{Hook, SnapshotRun};
use self::table::Table;
use self::usage::{Tracking, UsageClock, Uses};

pub use self::db::{
    Db, EntryMut, LookupStats, PREFETCH_KEYS, RenameOutcome, SetExpiry, SetOutcome,
};
pub use self::entry::{Entry, ValueRef};
pub use self::string::{StringInput, StringRef};
pub use self::value::{StringMut, ValueMut};

/// What becomes of a key whose time is over when it is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryRule {
    /// It is removed and recorded for propagation: a master.
    #[default]
    Delete,
    /// It is not seen, but stays until the master's DEL comes: clients of a replica, and a master while it hands over.
    Hide,
    /// It is still there: commands from the master's stream, and loading.
    Ignore,
}

/// What lookups depend on besides the data. Fixed for a batch of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupContext {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// What becomes of expired keys.
    pub expiry: ExpiryRule,
    /// What a use of a key records.
    pub tracking: Tracking,
    /// Whether lookups count as uses.
    pub uses: Uses,
    clock: UsageClock,
}

impl LookupContext {
    /// The context of a moment.
    pub fn new(now_ms: i64, expiry: ExpiryRule) -> Self {
        Self {
            now_ms,
            expiry,
            tracking: Tracking::default(),
            uses: Uses::default(),
            clock: UsageClock::new(now_ms),
        }
    }

    /// Seconds since a key was last used, as far as the clock of 24 bits tells.
    pub fn idle_seconds(&self, entry: &Entry) -> u32 {
        self.clock.idle_seconds(entry.access())
    }

    /// The counter of a key's uses, where those are counted.
    pub fn frequency(&self, entry: &Entry) -> Option<u8> {
        match self.tracking {
            Tracking::Clock => None,
            Tracking::Frequency(rule) => Some(rule.decayed(entry.access(), self.now_ms)),
        }
    }

    /// What an entry records when it is made.
    #[inline]
    fn initial_access(&self) -> u32 {
        self.clock.initial(self.tracking, self.now_ms)
    }

    /// What an entry records after a use; `word` is random.
    #[inline]
    fn used(&self, access: u32, word: u64) -> u32 {
        match self.uses {
            Uses::Recorded => self.clock.used(access, self.tracking, self.now_ms, word),
            Uses::Unseen => access,
        }
    }

    #[inline]
    fn is_expired(&self, entry: &Entry) -> bool {
        match entry.expire_at() {
            None => false,
            Some(at) => at <= self.now_ms && self.expiry != ExpiryRule::Ignore,
        }
    }
}

/// All databases.
pub struct Keyspace {
    dbs: Vec<Db>,
    context: LookupContext,
    /// Which databases (modulo 64) were given out since expired keys were last looked for.
    touched: u64,
    snapshot: Option<SnapshotRun>,
    memory: MemoryGauge,
    eviction_pool: Pool,
    expire_turn: ExpireTurn,
    hasher: KeyHasher,
}

/// What became of a MOVE or COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// There is no such key.
    NoSuchKey,
    /// The target exists and was not to be replaced.
    TargetExists,
    /// Done.
    Done,
}

/// Whether a COPY may replace its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceRule {
    /// An existing target stays.
    KeepTarget,
    /// An existing target is replaced.
    Replace,
}

impl Keyspace {
    /// An empty keyspace of `databases` databases, at least one. The seed must be secret and random.
    pub fn new(databases: u32, seed: [u64; 2]) -> Self {
        let hasher = KeyHasher::new(seed);
        let db = |index| Db::new(Table::new(hasher), Hook::new(index));
        Self {
            dbs: (0..databases.max(1)).map(db).collect(),
            context: LookupContext::default(),
            touched: 0,
            snapshot: None,
            memory: MemoryGauge::default(),
            eviction_pool: Pool::default(),
            expire_turn: ExpireTurn::default(),
            hasher,
        }
    }

    /// An empty keyspace like this one, to load another dataset into while this one still serves; see
    /// [`Keyspace::replace_data`]. Its context is [`ExpiryRule::Ignore`].
    pub fn empty_like(&self) -> Self {
        let db = |index| Db::new(Table::new(self.hasher), Hook::new(index));
        Self {
            dbs: (0..self.databases()).map(db).collect(),
            context: LookupContext {
                tracking: self.context.tracking,
                ..LookupContext::new(self.context.now_ms, ExpiryRule::Ignore)
            },
            touched: 0,
            snapshot: None,
            memory: MemoryGauge::default(),
            eviction_pool: Pool::default(),
            expire_turn: ExpireTurn::default(),
            hasher: self.hasher,
        }
    }

    /// Sets what lookups depend on, for all databases.
    pub fn set_context(&mut self, now_ms: i64, expiry: ExpiryRule) {
        let tracking = self.context.tracking;
        self.context = LookupContext {
            tracking,
            ..LookupContext::new(now_ms, expiry)
        };
    }

    /// Sets what a use of a key records from now on.
    pub fn set_tracking(&mut self, tracking: Tracking) {
        self.context.tracking = tracking;
    }

    /// Sets whether lookups count as uses, until the context is set anew.
    pub fn set_uses(&mut self, uses: Uses) {
        self.context.uses = uses;
    }

    /// What lookups depend on at present.
    pub fn context(&self) -> LookupContext {
        self.context
    }

    /// Number of databases.
    pub fn databases(&self) -> u32 {
        self.dbs.len() as u32
    }

    /// A database. SELECT has checked `index` against [`Keyspace::databases`].
    #[inline]
    pub fn db(&mut self, index: u32) -> &mut Db {
        self.touched |= 1 << (index & 63);
        let db = &mut self.dbs[index as usize];
        db.context = self.context;
        db
    }

    /// As [`Db::prefetch`]; does nothing for a number that is no database's.
    pub fn prefetch<'k>(&self, db: u32, keys: impl Iterator<Item = &'k [u8]>) {
        if let Some(db) = self.dbs.get(db as usize) {
            db.prefetch(keys);
        }
    }

    /// All databases with their numbers, to read.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Db)> {
        (0..).zip(&self.dbs)
    }

    /// Number of keys in all databases.
    pub fn len(&self) -> usize {
        self.dbs.iter().map(Db::len).sum()
    }

    /// Whether no database has a key.
    pub fn is_empty(&self) -> bool {
        self.dbs.iter().all(Db::is_empty)
    }

    /// Hits, misses and expired keys of all databases.
    pub fn stats(&self) -> LookupStats {
        self.dbs
            .iter()
            .fold(LookupStats::default(), |sum, db| LookupStats {
                hits: sum.hits + db.books.stats.hits,
                misses: sum.misses + db.books.stats.misses,
                expired: sum.expired + db.books.stats.expired,
            })
    }

    /// Sets the counts of [`Keyspace::stats`] to zero (CONFIG RESETSTAT).
    pub fn reset_stats(&mut self) {
        for db in &mut self.dbs {
            db.books.stats = LookupStats::default();
        }
    }

    /// Used memory, and the limit it is held against.
    pub fn memory(&self) -> &MemoryGauge {
        &self.memory
    }

    /// As [`Keyspace::memory`], to refresh it or to set the limit.
    pub fn memory_mut(&mut self) -> &mut MemoryGauge {
        &mut self.memory
    }

    /// Whether commands that grow memory must be refused.
    #[inline]
    pub fn is_over_memory_limit(&self) -> bool {
        self.memory.is_over_limit()
    }
}

/// Between databases, and all at once.
impl Keyspace {
    /// Moves a key to another database, unless it exists there.
    pub fn move_key(&mut self, from: u32, to: u32, key: &[u8]) -> TransferOutcome {
        if !self.db(from).contains(key) {
            return TransferOutcome::NoSuchKey;
        }
        if self.db(to).contains(key) {
            return TransferOutcome::TargetExists;
        }
        let Some(entry) = self.db(from).take(key) else {
            return TransferOutcome::NoSuchKey;
        };
        self.db(to).insert_with(entry, Record::Value);
        TransferOutcome::Done
    }

    /// Copies a value with its expiry to another key, perhaps in another database.
    pub fn copy_key(
        &mut self,
        (from, key): (u32, &[u8]),
        (to, new_key): (u32, &[u8]),
        rule: ReplaceRule,
    ) -> TransferOutcome {
        if self.db(from).get(key).is_none() {
            return TransferOutcome::NoSuchKey;
        }
        // Before the value is copied: it may be big.
        if rule == ReplaceRule::KeepTarget && self.db(to).contains(new_key) {
            return TransferOutcome::TargetExists;
        }
        let Some(entry) = self.db(from).peek(key) else {
            return TransferOutcome::NoSuchKey;
        };
        let copy = entry.duplicate(new_key, entry.expire_at());
        let target = self.db(to);
        if let Some(old) = target.insert_with(copy, Record::New) {
            target.discard(old);
        }
        TransferOutcome::Done
    }

    /// Exchanges the contents of two databases (SWAPDB).
    pub fn swap(&mut self, a: u32, b: u32) {
        let (a, b) = (a.min(b) as usize, a.max(b) as usize);
        if a == b {
            return;
        }
        let (left, right) = self.dbs.split_at_mut(b);
        let (left, right) = (&mut left[a], &mut right[0]);
        left.note_swap(right);
        right.note_swap(left);
        std::mem::swap(&mut left.table, &mut right.table);
        std::mem::swap(&mut left.expire_position, &mut right.expire_position);
        std::mem::swap(&mut left.ttl, &mut right.ttl);
        left.books.hook.swap_origin(&mut right.books.hook);
    }

    /// Removes all keys of all databases. While a snapshot runs, they are kept until it has written them.
    pub fn clear(&mut self) {
        for db in &mut self.dbs {
            db.clear();
        }
    }

    /// Puts a loaded dataset in place of this one. Databases that `loaded` does not have become empty.
    pub fn replace_data(&mut self, loaded: Self) {
        let mut tables = loaded.dbs.into_iter().map(|db| db.table);
        for db in &mut self.dbs {
            let table = tables.next().unwrap_or_else(|| Table::new(self.hasher));
            db.replace_table(table);
        }
    }

    /// Whether [`Keyspace::take_expired`] has something to give.
    #[inline]
    pub fn has_expired(&mut self) -> bool {
        let mut touched = self.touched;
        while touched != 0 {
            let first = touched.trailing_zeros() as usize;
            if self
                .dbs
                .iter()
                .skip(first)
                .step_by(64)
                .any(|db| !db.books.expired.is_empty())
            {
                return true;
            }
            touched &= touched - 1;
        }
        self.touched = 0;
        false
    }

    /// The keys removed because their time was over, with their databases, since the last call. To be propagated as DEL
    /// before the command that found them.
    pub fn take_expired(&mut self) -> Vec<(u32, Box<[u8]>)> {
        self.touched = 0;
        let mut all = Vec::new();
        for (index, db) in (0..).zip(&mut self.dbs) {
            all.extend(db.books.expired.drain(..).map(|key| (index, key)));
        }
        all
    }

    /// Whether [`Keyspace::take_garbage`] has something to give.
    #[inline]
    pub fn has_garbage(&self) -> bool {
        self.dbs.iter().any(|db| !db.books.garbage.is_empty())
            || self
                .snapshot
                .as_ref()
                .is_some_and(|run| !run.garbage().is_empty())
    }

    /// What is to be dropped on another thread. Ask after each batch; cheap when there is nothing.
    pub fn take_garbage(&mut self) -> Garbage {
        let mut all = Garbage::default();
        for db in &mut self.dbs {
            all.append(&mut db.books.garbage);
        }
        if let Some(run) = &mut self.snapshot {
            all.append(run.garbage_mut());
        }
        all
    }
}
