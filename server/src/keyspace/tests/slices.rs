//! Big collections in snapshots: whatever is done to them and to their keys while they are written in slices, the snapshot
//! is the data at its beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::super::snapshot_hook::{SnapshotProgress, SnapshotSink};
use super::super::string::StringInput;
use super::super::types::EncodingLimits;
use super::super::types::entry::Element;
use super::super::types::hash::Hash;
use super::super::types::list::{Direction, End, List, Side};
use super::super::types::set::Set;
use super::super::types::sorted_set::SortedSet;
use super::super::types::value::Value;
use super::super::types::walk::{CollectionKind, Head, Piece};
use super::super::{Entry, ExpiryRule, Keyspace, ReplaceRule, SetExpiry, ValueMut, ValueRef};
use super::{Numbers, keyspace};

const LIMITS: EncodingLimits = EncodingLimits {
    hash_max_listpack_entries: 4,
    hash_max_listpack_value: 64,
    list_max_listpack_size: 4,
    set_max_intset_entries: 4,
    set_max_listpack_entries: 4,
    set_max_listpack_value: 64,
    zset_max_listpack_entries: 4,
    zset_max_listpack_value: 64,
};

#[derive(Debug, Clone, PartialEq)]
enum Model {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    SortedSet(BTreeMap<Vec<u8>, u64>),
}

impl Model {
    fn of(entry: &Entry) -> Self {
        match entry.value() {
            ValueRef::String(string) => Self::String(string.to_vec()),
            ValueRef::List(list) => Self::List(list.iter().map(Element::to_vec).collect()),
            ValueRef::Set(set) => Self::Set(set.iter().map(Element::to_vec).collect()),
            ValueRef::Hash(hash) => {
                let pairs = hash.iter();
                Self::Hash(pairs.map(|(f, v)| (f.to_vec(), v.to_vec())).collect())
            }
            ValueRef::SortedSet(sorted) => {
                let pairs = sorted.iter_from(0);
                Self::SortedSet(pairs.map(|(m, s)| (m.to_vec(), s.to_bits())).collect())
            }
        }
    }

    fn empty(kind: CollectionKind) -> Self {
        match kind {
            CollectionKind::List => Self::List(Vec::new()),
            CollectionKind::Set => Self::Set(BTreeSet::new()),
            CollectionKind::Hash => Self::Hash(BTreeMap::new()),
            CollectionKind::SortedSet => Self::SortedSet(BTreeMap::new()),
        }
    }

    /// Adds a piece, which must be new.
    fn add(&mut self, piece: Piece<'_>) {
        let is_new = match (self, piece) {
            (Self::List(list), Piece::Elements(pack)) => {
                list.extend(pack.iter().map(Element::to_vec));
                true
            }
            (Self::Set(set), Piece::Member(member)) => set.insert(member.to_vec()),
            (Self::Hash(hash), Piece::Field(field, value)) => {
                hash.insert(field.to_vec(), value.to_vec()).is_none()
            }
            (Self::SortedSet(sorted), Piece::Scored(member, score)) => {
                sorted.insert(member.to_vec(), score.to_bits()).is_none()
            }
            (model, piece) => panic!("{piece:?} of {model:?}"),
        };
        assert!(is_new, "an element came twice");
    }
}

type Data = BTreeMap<(u32, Vec<u8>), (Model, Option<i64>)>;

#[derive(Default)]
struct Collected {
    data: Data,
    open: Option<(Head, usize, Model)>,
    sliced: usize,
}

/// Collects what it gets; fails where two collections mix or a key comes twice.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Collected>>);

impl Collector {
    fn with<R>(&self, f: impl FnOnce(&mut Collected) -> R) -> R {
        f(&mut self.0.lock().expect("no test panics while it holds it"))
    }
}

impl SnapshotSink for Collector {
    fn entry(&mut self, db: u32, entry: &Entry) {
        let old = self.with(|all| {
            let key = (db, entry.key().to_vec());
            all.data.insert(key, (Model::of(entry), entry.expire_at()))
        });
        assert!(old.is_none(), "{entry:?} of database {db} came twice");
    }

    fn begin(&mut self, head: &Head) {
        let open = (head.clone(), 0, Model::empty(head.kind));
        let old = self.with(|all| all.open.replace(open));
        assert!(old.is_none(), "{old:?} was not complete before {head:?}");
    }

    fn piece(&mut self, piece: Piece<'_>) {
        self.with(|all| {
            let (_, pieces, model) = all.open.as_mut().expect("a piece after its head");
            *pieces += 1;
            model.add(piece);
        });
    }

    fn end(&mut self) {
        self.with(|all| {
            let (head, pieces, model) = all.open.take().expect("an end after its head");
            assert_eq!(head.len, pieces, "{head:?}");
            let key = (head.db, head.key.to_vec());
            let old = all.data.insert(key, (model, head.expire_at));
            assert!(old.is_none(), "{head:?} came twice");
            all.sliced += 1;
        });
    }
}

fn data_of(keyspace: &Keyspace) -> Data {
    let mut data = Data::new();
    for (index, db) in keyspace.iter() {
        let mut cursor = 0;
        loop {
            cursor = db.scan(cursor, 100, |entry| {
                let key = (index, entry.key().to_vec());
                data.insert(key, (Model::of(entry), entry.expire_at()));
            });
            if cursor == 0 {
                break;
            }
        }
    }
    data
}

fn name(prefix: &str, number: u64) -> Vec<u8> {
    format!("{prefix}{number}").into_bytes()
}

/// A collection of random kind and size.
fn collection(numbers: &mut Numbers) -> Value {
    let count = 1 + numbers.below(150);
    match numbers.below(4) {
        0 => {
            let mut list = List::new();
            (0..count).for_each(|n| list.push(End::Tail, &name("e", n), &LIMITS));
            Value::List(list)
        }
        1 => {
            let mut set = Set::new();
            for n in 0..count {
                set.insert(&name("m", n), &LIMITS);
            }
            Value::Set(set)
        }
        2 => {
            let mut hash = Hash::new();
            for n in 0..count {
                hash.set(&name("f", n), &name("v", n), &LIMITS);
            }
            Value::Hash(hash)
        }
        _ => {
            let mut sorted = SortedSet::new();
            for n in 0..count {
                sorted.set(&name("m", n), (n * 7 % 50) as f64, &LIMITS);
            }
            Value::SortedSet(sorted)
        }
    }
}

fn change_list(list: &mut List, numbers: &mut Numbers) {
    let text = name("n", numbers.below(1000));
    let len = list.len() as u64;
    let at = numbers.below(len) as usize;
    match numbers.below(9) {
        0 => list.push(End::Head, &text, &LIMITS),
        1 => list.push(End::Tail, &text, &LIMITS),
        2 if len > 1 => {
            list.pop(End::Head, &LIMITS, |_| ());
        }
        3 if len > 1 => {
            list.pop(End::Tail, &LIMITS, |_| ());
        }
        4 => list.set(at, &text, &LIMITS),
        5 => list.insert(at, Side::Before, &text, &LIMITS),
        6 => list.insert(at, Side::After, &[b'x'; 100], &LIMITS),
        7 => {
            let element = list.get(at).expect("it has that many").to_vec();
            let direction = match numbers.below(2) {
                0 => Direction::Forward,
                _ => Direction::Backward,
            };
            if list.len() > 50 {
                list.remove_matching(&element, direction, 3, &LIMITS);
            }
        }
        _ if len > 20 => list.trim(at % 5, list.len() - 8, &LIMITS),
        _ => {}
    }
}

/// A random change inside a collection; none is emptied.
fn change_value(value: ValueMut<'_>, numbers: &mut Numbers) {
    let number = numbers.below(220);
    let removes = numbers.below(3) == 0;
    match value {
        ValueMut::String(mut string) => string.replace(StringInput::Int(number as i64)),
        ValueMut::List(list) => change_list(list, numbers),
        ValueMut::Set(set) if removes && set.len() > 1 => {
            set.remove(&name("m", number));
        }
        ValueMut::Set(set) => {
            set.insert(&name("m", number), &LIMITS);
        }
        ValueMut::Hash(hash) if removes && hash.len() > 1 => {
            hash.remove(&name("f", number));
        }
        ValueMut::Hash(hash) => {
            let value = name("w", numbers.below(1_000_000));
            hash.set(&name("f", number), &value, &LIMITS);
        }
        ValueMut::SortedSet(sorted) if removes && sorted.len() > 8 => match numbers.below(2) {
            0 => {
                sorted.remove(&name("m", number));
            }
            _ => {
                sorted.remove_ranks(number as usize % sorted.len(), 3);
            }
        },
        ValueMut::SortedSet(sorted) => {
            sorted.set(&name("m", number), numbers.below(60) as f64, &LIMITS);
        }
    }
}

const KEYS: u64 = 12;
const DATABASES: u64 = 3;

fn change(keyspace: &mut Keyspace, numbers: &mut Numbers, now: i64) {
    let db = numbers.below(DATABASES) as u32;
    let other_db = numbers.below(DATABASES) as u32;
    let (key, other) = (
        name("k", numbers.below(KEYS)),
        name("k", numbers.below(KEYS)),
    );
    match numbers.below(1000) {
        0..3 => keyspace.db(db).clear(),
        3..6 => keyspace.swap(db, other_db),
        6..20 => {
            keyspace.db(db).remove(&key);
        }
        20..40 => {
            keyspace.db(db).rename(&key, &other);
        }
        40..60 => {
            keyspace.move_key(db, (db + 1) % DATABASES as u32, &key);
        }
        60..70 if (db, &key) != (other_db, &other) => {
            keyspace.copy_key((db, &key), (other_db, &other), ReplaceRule::Replace);
        }
        70..120 => {
            let value = collection(numbers);
            keyspace.db(db).set(&key, value, SetExpiry::Clear);
        }
        120..130 => {
            let input = StringInput::Bytes(b"text");
            keyspace.db(db).set_string(&key, input, SetExpiry::Keep);
        }
        130..150 => {
            if let Some(mut entry) = keyspace.db(db).get_mut(&key) {
                entry.set_expiry(Some(now + 1 + numbers.below(50) as i64));
            }
        }
        150..160 => {
            keyspace.active_expire(20);
        }
        _ => {
            if let Some(mut entry) = keyspace.db(db).get_mut(&key) {
                change_value(entry.value_mut(), numbers);
            }
        }
    }
    drop(keyspace.take_garbage());
    drop(keyspace.take_expired());
}

/// Runs a snapshot to its end, or aborts it; answers how many collections came in slices.
fn run_snapshot(keyspace: &mut Keyspace, numbers: &mut Numbers, now: &mut i64) -> usize {
    *now += 20;
    keyspace.set_context(*now, ExpiryRule::Delete);
    while keyspace.active_expire(100_000).expired > 0 {}
    let expected = data_of(keyspace);
    let collector = Collector::default();
    keyspace
        .begin_snapshot(Box::new(collector.clone()))
        .expect("no other is running");
    let abort_at = numbers.below(100);
    let mut steps = 0;
    loop {
        match keyspace.snapshot_step(1 + numbers.below(20) as usize) {
            SnapshotProgress::Running => {}
            SnapshotProgress::Finished(_) => break,
            SnapshotProgress::Drained => return 0,
            SnapshotProgress::Idle => panic!("the snapshot is lost"),
        }
        steps += 1;
        if steps == abort_at {
            assert!(keyspace.abort_snapshot().is_some());
        }
        *now += i64::from(steps % 10 == 0);
        keyspace.set_context(*now, ExpiryRule::Delete);
        for _ in 0..numbers.below(12) {
            change(keyspace, numbers, *now);
        }
    }
    collector.with(|all| {
        assert!(all.open.is_none());
        assert_eq!(
            all.data.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (key, expected) in &expected {
            assert_eq!(&all.data[key], expected, "{key:?}");
        }
        all.sliced
    })
}

#[test]
fn big_collections_are_written_as_they_were_whatever_happens_to_them_meanwhile() {
    let (seeds, rounds) = if cfg!(miri) { (1, 2) } else { (60, 12) };
    let mut sliced = 0;
    for seed in 0..seeds {
        let (mut numbers, mut keyspace, mut now) = (Numbers(seed), keyspace(), 1_000_000);
        for _ in 0..200 {
            change(&mut keyspace, &mut numbers, now);
        }
        for round in 0..rounds {
            println!("seed {seed}, round {round}");
            sliced += run_snapshot(&mut keyspace, &mut numbers, &mut now);
        }
    }
    assert!(sliced > 2 * seeds as usize, "only {sliced} came in slices");
}
