//! Snapshots during random changes equal the data at their beginning.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::super::snapshot_hook::{SnapshotError, SnapshotProgress, SnapshotSink};
use super::super::string::StringInput;
use super::super::types::walk::{Head, Piece};
use super::super::{Entry, ExpiryRule, Keyspace, ReplaceRule, SetExpiry, ValueMut};
use super::{Numbers, key, keyspace, text};

/// Values by database and key.
type Data = BTreeMap<(u32, Vec<u8>), (Vec<u8>, Option<i64>)>;

/// Collects what it gets; fails on a second time.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Data>>);

impl SnapshotSink for Collector {
    fn entry(&mut self, db: u32, entry: &Entry) {
        let mut data = self.0.lock().expect("no test panics while it holds it");
        let old = data.insert((db, entry.key().to_vec()), (text(entry), entry.expire_at()));
        assert!(old.is_none(), "{entry:?} of database {db} came twice");
    }

    fn begin(&mut self, head: &Head) {
        panic!("a string is not written in slices: {head:?}");
    }

    fn piece(&mut self, _: Piece<'_>) {}

    fn end(&mut self) {}
}

fn data_of(keyspace: &Keyspace) -> Data {
    let mut data = Data::new();
    for (index, db) in keyspace.iter() {
        let mut cursor = 0;
        loop {
            cursor = db.scan(cursor, 100, |entry| {
                data.insert(
                    (index, entry.key().to_vec()),
                    (text(entry), entry.expire_at()),
                );
            });
            if cursor == 0 {
                break;
            }
        }
    }
    data
}

/// One random change of the keys below `keys` in the first four databases.
fn change(keyspace: &mut Keyspace, numbers: &mut Numbers, keys: u64, now: i64) {
    let (db, number) = (numbers.below(4) as u32, numbers.below(keys));
    let (name, other) = (key(number), key(numbers.below(keys)));
    let kind = numbers.below(1000);
    match kind {
        0 => keyspace.db(db).clear(),
        1 => keyspace.swap(db, numbers.below(4) as u32),
        2 => {
            let mut loaded = keyspace.empty_like();
            for number in 0..keys {
                let value = StringInput::Int(number as i64 + 1);
                loaded
                    .db(db)
                    .set_string(&key(number), value, SetExpiry::Clear);
            }
            keyspace.replace_data(loaded);
        }
        3..400 => {
            let value = vec![b'v'; numbers.below(100) as usize];
            keyspace
                .db(db)
                .set_string(&name, StringInput::Bytes(&value), SetExpiry::Clear);
        }
        400..500 => {
            keyspace.db(db).remove(&name);
        }
        500..600 => {
            if let Some(mut entry) = keyspace.db(db).get_mut(&name) {
                entry.set_expiry(Some(now + 1 + numbers.below(50) as i64));
            }
        }
        600..700 => {
            if let Some(mut entry) = keyspace.db(db).get_mut(&name)
                && let ValueMut::String(mut string) = entry.value_mut()
            {
                string.append(b"more");
            }
        }
        700..800 => drop(keyspace.db(db).rename(&name, &other)),
        800..850 => {
            let target = numbers.below(4) as u32;
            if (db, &name) != (target, &other) {
                keyspace.copy_key((db, &name), (target, &other), ReplaceRule::Replace);
            }
        }
        850..900 => drop(keyspace.move_key(db, (db + 1) % 4, &name)),
        900..950 => drop(keyspace.active_expire(20)),
        _ => drop(keyspace.db(db).get(&name)),
    }
}

fn run_snapshot(seed: u64, keys: u64) {
    let mut numbers = Numbers(seed);
    let mut keyspace = keyspace();
    let mut now = 1_000_000;
    for _ in 0..keys * 4 {
        change(&mut keyspace, &mut numbers, keys, now);
    }
    for round in 0..4 {
        now += 20;
        keyspace.set_context(now, ExpiryRule::Delete);
        while keyspace.active_expire(100_000).expired > 0 {}
        let expected = data_of(&keyspace);
        let collector = Collector::default();
        keyspace
            .begin_snapshot(Box::new(collector.clone()))
            .expect("no other is running");
        let again = keyspace.begin_snapshot(Box::new(Collector::default()));
        assert_eq!(again, Err(SnapshotError::Running));
        let mut steps = 0;
        while !matches!(keyspace.snapshot_step(20), SnapshotProgress::Finished(_)) {
            steps += 1;
            if steps % 10 == 0 {
                now += 1;
                keyspace.set_context(now, ExpiryRule::Delete);
            }
            for _ in 0..numbers.below(30) {
                change(&mut keyspace, &mut numbers, keys, now);
            }
        }
        let found = collector
            .0
            .lock()
            .expect("no test panics while it holds it");
        assert_eq!(found.len(), expected.len(), "seed {seed}, round {round}");
        assert!(*found == expected, "seed {seed}, round {round}");
    }
}

#[test]
fn a_snapshot_is_the_data_at_its_beginning_whatever_happens_meanwhile() {
    let (seeds, keys) = if cfg!(miri) { (1, 60) } else { (40, 1_500) };
    for seed in 0..seeds {
        run_snapshot(seed, keys);
    }
}

#[test]
fn an_aborted_snapshot_is_cleared_away_before_the_next_begins() {
    let mut keyspace = keyspace();
    for number in 0..1_000 {
        keyspace
            .db(0)
            .set_string(&key(number), StringInput::Int(1), SetExpiry::Clear);
    }
    let first = Collector::default();
    keyspace
        .begin_snapshot(Box::new(first.clone()))
        .expect("no other is running");
    keyspace.snapshot_step(100);
    assert!(keyspace.abort_snapshot().is_some());
    assert!(keyspace.abort_snapshot().is_none());
    let given = first
        .0
        .lock()
        .expect("no test panics while it holds it")
        .len();
    keyspace.db(0).remove(&key(999));
    let second = Collector::default();
    let early = keyspace.begin_snapshot(Box::new(second.clone()));
    assert_eq!(early, Err(SnapshotError::Draining));
    while !matches!(keyspace.snapshot_step(100), SnapshotProgress::Drained) {}
    assert_eq!(
        first
            .0
            .lock()
            .expect("no test panics while it holds it")
            .len(),
        given
    );
    keyspace
        .begin_snapshot(Box::new(second.clone()))
        .expect("the first is cleared away");
    while !matches!(keyspace.snapshot_step(100), SnapshotProgress::Finished(_)) {}
    assert!(matches!(
        keyspace.snapshot_step(100),
        SnapshotProgress::Idle
    ));
    assert_eq!(
        second
            .0
            .lock()
            .expect("no test panics while it holds it")
            .len(),
        999
    );
}
