//! One database: lookups, writes and removals by key.
//!
//! Owns a table of entries with what must happen around every access: the rule for expired keys, the snapshot hook before
//! a change, the versions of watched keys, hits and misses, and garbage. Called by the command families and the loaders.
//! Time comes in by [`LookupContext`], random numbers as arguments.
//!
//! Invariant: every path that changes or removes an entry calls `hook.before_change` first.

use std::ops::Deref;

use super::entry::{CollectionMut, Entry};
use super::expire::TtlAverage;
use super::garbage::Garbage;
use super::snapshot_hook::Hook;
use super::string::StringInput;
use super::table::{Occupied, Table};
use super::types::value::Value;
use super::usage::Tracking;
use super::value::{StringMut, ValueMut};
use super::watch::WatchedKeys;
use super::{ExpiryRule, LookupContext};

/// Tries of [`Db::random_key`] to find a key that has not expired.
const RANDOM_KEY_TRIES: usize = 100;

/// Keys that one call of [`Db::prefetch`] fetches ahead: as many as the processor has loads under way.
pub const PREFETCH_KEYS: usize = 16;

/// What a write does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpiry {
    /// Keeps what there is.
    Keep,
    /// The key does not expire any more.
    Clear,
    /// The key expires at this time, in milliseconds since 1970.
    At(i64),
}

/// Whether a write made a key or replaced its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// The key is new.
    Inserted,
    /// The key had a value.
    Overwritten,
}

/// Whose record of uses an entry has that is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// That of its key, which is used by that; a new one where the key is new.
    Key,
    /// The one that it brings: the value was moved.
    Value,
    /// A new one: the value is a copy.
    New,
}

/// What became of a RENAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameOutcome {
    /// There is no such key.
    NoSuchKey,
    /// Done; a value at the target was replaced.
    Renamed,
}

/// Counts of lookups since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupStats {
    /// Reads that found the key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because their time was over.
    pub expired: u64,
}

/// One database. Made by [`super::Keyspace`].
pub struct Db {
    pub(super) table: Table,
    pub(super) context: LookupContext,
    pub(super) books: Books,
    /// Where the next round of active expiry begins.
    pub(super) expire_position: u64,
    /// Where the next search for keys with an expiry to evict begins.
    pub(super) evict_position: u64,
    /// How long its keys with an expiry have left.
    pub(super) ttl: TtlAverage,
    /// State of the sequence from which counters of uses draw.
    uses: u64,
}

/// What is kept up around the table.
pub(super) struct Books {
    pub(super) hook: Hook,
    pub(super) watched: WatchedKeys,
    pub(super) garbage: Garbage,
    pub(super) stats: LookupStats,
    /// Keys removed because their time was over, to be propagated as DEL; only under [`ExpiryRule::Delete`].
    pub(super) expired: Vec<Box<[u8]>>,
}

impl Books {
    /// Takes out an entry whose time is over.
    #[cold]
    fn expire(&mut self, mut occupied: Occupied<'_>, rule: ExpiryRule) {
        self.hook.before_change(&mut occupied);
        self.expired(occupied.remove(), rule);
    }

    /// Accounts for an entry that was taken out because its time was over, and drops it.
    pub(super) fn expired(&mut self, entry: Box<Entry>, rule: ExpiryRule) {
        self.watched.modified(entry.key());
        self.stats.expired += 1;
        if rule == ExpiryRule::Delete {
            self.expired.push(entry.key().into());
        }
        self.garbage.discard(entry);
    }
}

impl Db {
    pub(super) fn new(table: Table, hook: Hook) -> Self {
        let books = Books {
            hook,
            watched: WatchedKeys::default(),
            garbage: Garbage::default(),
            stats: LookupStats::default(),
            expired: Vec::new(),
        };
        Self {
            table,
            context: LookupContext::default(),
            books,
            expire_position: 0,
            evict_position: 0,
            ttl: TtlAverage::default(),
            uses: 0,
        }
    }

    /// The chance with which a use of a key counts, for [`touch`].
    #[inline]
    fn chance(&mut self) -> u64 {
        if self.context.tracking == Tracking::Clock {
            return 0;
        }
        const FACTOR: u64 = 6_364_136_223_846_793_005;
        self.uses = self
            .uses
            .wrapping_mul(FACTOR)
            .wrapping_add(1_442_695_040_888_963_407);
        self.uses >> 33
    }

    /// Number of keys, those included whose time is over but that have not been removed yet.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Number of keys with an expiry.
    pub fn expires_len(&self) -> usize {
        self.table.expires_len()
    }

    /// Hits, misses and expired keys.
    pub fn stats(&self) -> LookupStats {
        self.books.stats
    }

    /// Bytes of memory of the table itself, without the entries.
    pub fn table_overhead(&self) -> usize {
        self.table.overhead()
    }

    /// Slots of the table; `len` of them are in use.
    pub fn table_capacity(&self) -> usize {
        self.table.capacity()
    }
}

/// Reading.
impl Db {
    /// The entry of a key, counted as a hit or miss and as a use of the key.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&Entry> {
        let (context, chance) = (self.context, self.chance());
        let mut occupied = self.read(key)?;
        touch(&mut occupied, &context, chance);
        Some(occupied.into_entry())
    }

    /// As [`Db::get`], but not as a use of the key: TTL, TYPE, OBJECT and whoever only looks.
    pub fn inspect(&mut self, key: &[u8]) -> Option<&Entry> {
        self.read(key).map(Occupied::into_entry)
    }

    #[inline]
    fn read(&mut self, key: &[u8]) -> Option<Occupied<'_>> {
        let hash = self.table.hash(key);
        let context = self.context;
        let Some(occupied) = self.table.get_mut(hash, key) else {
            self.books.stats.misses += 1;
            return None;
        };
        if context.is_expired(occupied.entry()) {
            self.books.stats.misses += 1;
            if context.expiry == ExpiryRule::Delete {
                self.books.expire(occupied, context.expiry);
            }
            return None;
        }
        self.books.stats.hits += 1;
        Some(occupied)
    }

    /// The entry of a key, without counting or recording a use; a key whose time is over is not there.
    #[inline]
    pub fn peek(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.table.get(self.table.hash(key), key)?;
        (!self.context.is_expired(entry)).then_some(entry)
    }

    /// Whether a key exists; removes it if its time is over. Neither counted nor a use.
    pub fn contains(&mut self, key: &[u8]) -> bool {
        self.live(key).is_some()
    }

    /// Whether a key is in the table with its time over at `now_ms`.
    pub(super) fn has_expired(&self, key: &[u8], now_ms: i64) -> bool {
        self.table
            .get(self.table.hash(key), key)
            .is_some_and(|entry| entry.is_expired(now_ms))
    }

    /// A key, all about equally likely for a random `word`.
    pub fn random_key(&mut self, mut word: u64) -> Option<&[u8]> {
        for _ in 0..RANDOM_KEY_TRIES {
            let entry = self.table.random(word)?;
            if !self.context.is_expired(entry) {
                break;
            }
            if self.context.expiry == ExpiryRule::Delete {
                let key = entry.key().to_vec();
                self.contains(&key);
            }
            word = word
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(23)
                .wrapping_add(1);
        }
        let context = self.context;
        let entry = self.table.random(word)?;
        (!context.is_expired(entry)).then(|| entry.key())
    }

    /// Starts fetching the memory that lookups of the first [`PREFETCH_KEYS`] of these keys will read, all at once, so that
    /// the lookups that follow wait for little. For the keys of a batch of commands.
    pub fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let (mut hashes, mut count) = ([0; PREFETCH_KEYS], 0);
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.table.hash(key);
            self.table.prefetch(*hash);
            count += 1;
        }
        for &hash in &hashes[..count] {
            self.table.prefetch_entry(hash);
        }
    }
}

/// Writing.
impl Db {
    /// The entry of a key, to change. Not counted as hit or miss.
    #[inline]
    pub fn get_mut(&mut self, key: &[u8]) -> Option<EntryMut<'_>> {
        let hash = self.table.hash(key);
        let (context, chance) = (self.context, self.chance());
        let mut occupied = self.table.get_mut(hash, key)?;
        if context.is_expired(occupied.entry()) {
            // On a replica too, because a write to the key follows.
            self.books.expire(occupied, self.context.expiry);
            return None;
        }
        self.books.hook.before_change(&mut occupied);
        touch(&mut occupied, &context, chance);
        Some(EntryMut {
            occupied,
            watched: &mut self.books.watched,
            garbage: &mut self.books.garbage,
        })
    }

    /// As `get_mut` without a use and without the snapshot hook; removes a key whose time is over.
    fn live(&mut self, key: &[u8]) -> Option<Occupied<'_>> {
        let hash = self.table.hash(key);
        let occupied = self.table.get_mut(hash, key)?;
        if !self.context.is_expired(occupied.entry()) {
            return Some(occupied);
        }
        if self.context.expiry == ExpiryRule::Delete {
            self.books.expire(occupied, self.context.expiry);
        }
        None
    }

    /// Stores a string, whatever was there. The fast path of SET: one lookup, and the old entry's memory is used again
    /// where the size permits.
    #[inline]
    pub fn set_string(
        &mut self,
        key: &[u8],
        input: StringInput<'_>,
        expiry: SetExpiry,
    ) -> SetOutcome {
        let hash = self.table.hash(key);
        let chance = self.chance();
        if let Some(mut occupied) = self.table.get_mut(hash, key) {
            if !self.context.is_expired(occupied.entry()) {
                self.books.watched.modified(key);
                self.books.hook.before_change(&mut occupied);
                let old = occupied.replace_with(|entry| {
                    let expire_at = expiry.resolve(entry.expire_at());
                    entry.with_string(key, input, expire_at)
                });
                touch(&mut occupied, &self.context, chance);
                if let Some(old) = old {
                    self.books.garbage.discard(old);
                }
                return SetOutcome::Overwritten;
            }
            self.remove_expired(key);
        }
        let entry = Entry::string(key, input, expiry.resolve(None));
        self.insert_absent(hash, entry);
        SetOutcome::Inserted
    }

    /// Stores a value, whatever was there.
    pub fn set(&mut self, key: &[u8], value: Value, expiry: SetExpiry) -> SetOutcome {
        let old_expiry = self
            .live(key)
            .and_then(|occupied| occupied.entry().expire_at());
        let entry = Entry::new(key, value, expiry.resolve(old_expiry));
        match self.insert_entry(entry) {
            None => SetOutcome::Inserted,
            Some(old) => {
                self.books.garbage.discard(old);
                SetOutcome::Overwritten
            }
        }
    }

    /// Stores an entry under its key; returns the entry that was there. The loaders' way in.
    pub fn insert_entry(&mut self, entry: Box<Entry>) -> Option<Box<Entry>> {
        self.insert_with(entry, Record::Key)
    }

    /// As [`Db::insert_entry`], with a record of uses other than that of the key.
    pub(super) fn insert_with(&mut self, entry: Box<Entry>, record: Record) -> Option<Box<Entry>> {
        let key = entry.key();
        let hash = self.table.hash(key);
        if self.context.expiry != ExpiryRule::Ignore {
            self.remove_expired(key);
        }
        let (chance, access) = (self.chance(), entry.access());
        self.books.hook.note_moved(&entry);
        if let Some(mut occupied) = self.table.get_mut(hash, key) {
            self.books.watched.modified(key);
            self.books.hook.before_change(&mut occupied);
            let old = occupied.replace_with(|old| old.replaced_by(entry));
            match record {
                Record::Key => touch(&mut occupied, &self.context, chance),
                Record::Value => occupied.entry_mut().set_access(access),
                Record::New => {
                    let initial = self.context.initial_access();
                    occupied.entry_mut().set_access(initial);
                }
            }
            return old;
        }
        match record {
            Record::Key | Record::New => self.insert_absent(hash, entry),
            Record::Value => self.insert_as_it_is(hash, entry),
        }
        None
    }

    fn insert_absent(&mut self, hash: u64, mut entry: Box<Entry>) {
        entry.set_access(self.context.initial_access());
        self.insert_as_it_is(hash, entry);
    }

    fn insert_as_it_is(&mut self, hash: u64, entry: Box<Entry>) {
        self.books.watched.modified(entry.key());
        self.table.insert_new(hash, entry);
    }

    /// Removes a key; answers whether it was there. Big values are dropped where nobody waits for it.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.get_mut(key).map(EntryMut::delete).is_some()
    }

    /// Takes an entry out to put it in elsewhere: a snapshot may not have written all of it.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Box<Entry>> {
        Some(self.get_mut(key)?.take())
    }

    /// Drops an entry where nobody waits for it, if that may take long.
    pub(super) fn discard(&mut self, entry: Box<Entry>) {
        self.books.garbage.discard(entry);
    }

    /// Gives the value of one key, with its expiry, to another key.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> RenameOutcome {
        if from == to {
            return match self.contains(from) {
                true => RenameOutcome::Renamed,
                false => RenameOutcome::NoSuchKey,
            };
        }
        let Some(entry) = self.take(from) else {
            return RenameOutcome::NoSuchKey;
        };
        if let Some(old) = self.insert_with(entry.with_key(to), Record::Value) {
            self.books.garbage.discard(old);
        }
        RenameOutcome::Renamed
    }

    /// Removes all keys. While a snapshot runs, their table is kept until it has been written.
    pub fn clear(&mut self) {
        let empty = Table::new(self.table.hasher());
        self.replace_table(empty);
    }

    /// Puts another table in place of this one.
    pub(super) fn replace_table(&mut self, table: Table) {
        let table = std::mem::replace(&mut self.table, table);
        let (old, new) = (&table, &self.table);
        let is_in = |table: &Table, key: &[u8]| table.get(table.hash(key), key).is_some();
        self.books
            .watched
            .modified_where(|key| is_in(old, key) || is_in(new, key));
        self.expire_position = 0;
        self.ttl = TtlAverage::default();
        if let Some(table) = self.books.hook.keep_table(table) {
            self.books.garbage.discard_table(table);
        }
    }

    /// Before its contents are exchanged with those of `other`: watched keys of either change.
    pub(super) fn note_swap(&mut self, other: &Self) {
        let mut watched = std::mem::take(&mut self.books.watched);
        watched.modified_where(|key| self.peek(key).is_some() || other.peek(key).is_some());
        self.books.watched = watched;
    }

    /// Removes a key before a write if its time is over.
    fn remove_expired(&mut self, key: &[u8]) {
        if self.has_expired(key, self.context.now_ms) {
            self.get_mut(key);
        }
    }
}

/// Records a use of the key. Written only when it changes something, to leave the cache line clean.
#[inline]
fn touch(occupied: &mut Occupied<'_>, context: &LookupContext, chance: u64) {
    let entry = occupied.entry_mut();
    let access = context.used(entry.access(), chance);
    if entry.access() != access {
        entry.set_access(access);
    }
}

impl SetExpiry {
    #[inline]
    fn resolve(self, old: Option<i64>) -> Option<i64> {
        match self {
            Self::Keep => old,
            Self::Clear => None,
            Self::At(at) => Some(at),
        }
    }
}

/// An entry of a [`Db`] to change; reads like the [`Entry`] itself.
pub struct EntryMut<'a> {
    occupied: Occupied<'a>,
    watched: &'a mut WatchedKeys,
    garbage: &'a mut Garbage,
}

impl Deref for EntryMut<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.occupied.entry()
    }
}

impl EntryMut<'_> {
    /// The value to change, for changes that may turn out to be none: the caller reports what it did
    /// by [`EntryMut::report_change`].
    #[inline]
    pub fn value_mut_quietly(&mut self) -> ValueMut<'_> {
        if self.occupied.entry().is_string() {
            return ValueMut::String(StringMut::new(self.occupied.reborrow()));
        }
        match self
            .occupied
            .entry_mut()
            .collection_mut()
            .expect("not a string, as just seen")
        {
            CollectionMut::List(list) => ValueMut::List(list),
            CollectionMut::Set(set) => ValueMut::Set(set),
            CollectionMut::Hash(hash) => ValueMut::Hash(hash),
            CollectionMut::SortedSet(sorted) => ValueMut::SortedSet(sorted),
        }
    }

    /// Tells those who watch the key that its value has changed.
    #[inline]
    pub fn report_change(&mut self) {
        self.watched.modified(self.occupied.entry().key());
    }

    /// The value to change. Counts as a change for those who watch the key.
    #[inline]
    pub fn value_mut(&mut self) -> ValueMut<'_> {
        self.report_change();
        self.value_mut_quietly()
    }

    /// Sets or clears the expiry, in milliseconds since 1970.
    pub fn set_expiry(&mut self, expire_at: Option<i64>) {
        self.watched.modified(self.occupied.entry().key());
        self.occupied
            .replace_with(|entry| (entry.with_expire(expire_at), ()));
    }

    /// Takes the entry out of the database, to put it in elsewhere.
    pub(super) fn take(self) -> Box<Entry> {
        self.watched.modified(self.occupied.entry().key());
        self.occupied.remove()
    }

    /// Removes the entry and drops it, elsewhere if that may take long.
    pub fn delete(self) {
        self.watched.modified(self.occupied.entry().key());
        self.garbage.discard(self.occupied.remove());
    }
}
