//! Keys that WATCH keeps an eye on.
//!
//! Owns a version number for each watched key of a database (only for those) and the list of one client's watched keys.
//! [`super::db::Db`] reports every change; with nothing watched that costs one comparison. A mutable borrow of a value
//! counts as a change even if the command then leaves it as it was: EXEC may fail without need, never succeed wrongly.

use std::collections::BTreeMap;

use super::Keyspace;

/// The watched keys of one database.
#[derive(Debug, Default)]
pub(super) struct WatchedKeys {
    keys: BTreeMap<Box<[u8]>, Watched>,
}

#[derive(Debug)]
struct Watched {
    version: u64,
    clients: u32,
}

impl WatchedKeys {
    /// Notes that `key` was changed.
    #[inline]
    pub(super) fn modified(&mut self, key: &[u8]) {
        if !self.keys.is_empty() {
            self.bump(key);
        }
    }

    #[cold]
    fn bump(&mut self, key: &[u8]) {
        if let Some(watched) = self.keys.get_mut(key) {
            watched.version += 1;
        }
    }

    /// Notes a change of every watched key for which `affects` says so.
    pub(super) fn modified_where(&mut self, mut affects: impl FnMut(&[u8]) -> bool) {
        for (key, watched) in &mut self.keys {
            watched.version += u64::from(affects(key));
        }
    }

    fn add(&mut self, key: &[u8]) -> u64 {
        let watched = self.keys.entry(key.into()).or_insert(Watched {
            version: 0,
            clients: 0,
        });
        watched.clients += 1;
        watched.version
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(watched) = self.keys.get_mut(key) {
            watched.clients -= 1;
            if watched.clients == 0 {
                self.keys.remove(key);
            }
        }
    }

    fn version(&self, key: &[u8]) -> Option<u64> {
        self.keys.get(key).map(|watched| watched.version)
    }
}

/// What one client watches, by database and key: it may be very many keys. Give it back with [`Keyspace::unwatch`] before
/// dropping it.
#[derive(Debug, Default)]
pub struct WatchSet {
    databases: BTreeMap<u32, BTreeMap<Box<[u8]>, WatchedKey>>,
}

#[derive(Debug)]
struct WatchedKey {
    version: u64,
    /// The key was there when WATCH was called (a key whose time was over is not).
    existed: bool,
}

impl WatchSet {
    /// Number of watched keys.
    pub fn len(&self) -> usize {
        self.databases.values().map(BTreeMap::len).sum()
    }

    /// Whether no key is watched.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }
}

impl Keyspace {
    /// Adds a key to `set`, unless it is in it already.
    pub fn watch(&mut self, set: &mut WatchSet, db: u32, key: &[u8]) {
        let keys = set.databases.entry(db).or_default();
        if keys.contains_key(key) {
            return;
        }
        let database = self.db(db);
        let existed = database.contains(key);
        let version = database.books.watched.add(key);
        keys.insert(key.into(), WatchedKey { version, existed });
    }

    /// Empties `set`.
    pub fn unwatch(&mut self, set: &mut WatchSet) {
        for (db, keys) in std::mem::take(&mut set.databases) {
            let watched = &mut self.db(db).books.watched;
            keys.keys().for_each(|key| watched.remove(key));
        }
    }

    /// Whether a key of `set` has changed since it was added, or has expired by `now_ms`.
    pub fn watch_broken(&self, set: &WatchSet, now_ms: i64) -> bool {
        set.databases.iter().any(|(db, keys)| {
            let Some(db) = self.dbs.get(*db as usize) else {
                return true;
            };
            keys.iter().any(|(key, watched)| {
                db.books.watched.version(key) != Some(watched.version)
                    || (watched.existed && db.has_expired(key, now_ms))
            })
        })
    }
}
