//! Databases: expiry, watches, and all operations against a model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::expire::MAX_TURN_ROUNDS;
use super::super::string::StringInput;
use super::super::types::{EncodingLimits, value::Value};
use super::super::watch::WatchSet;
use super::super::{
    ExpiryRule, Keyspace, RenameOutcome, ReplaceRule, SetExpiry, SetOutcome, TransferOutcome,
    ValueMut,
};
use super::{key, keyspace, text};

const NOW: i64 = 1_000_000;

#[test]
fn a_master_removes_an_expired_key_and_tells() {
    let mut keyspace = keyspace();
    keyspace
        .db(3)
        .set_string(b"a", StringInput::Int(1), SetExpiry::At(NOW + 10));
    assert!(keyspace.db(3).get(b"a").is_some());
    keyspace.set_context(NOW + 10, ExpiryRule::Delete);
    assert!(!keyspace.has_expired());
    assert!(keyspace.db(3).get(b"a").is_none());
    assert!(keyspace.has_expired());
    assert_eq!(keyspace.take_expired(), [(3, b"a".as_slice().into())]);
    assert!(!keyspace.has_expired());
    assert_eq!((keyspace.len(), keyspace.stats().expired), (0, 1));
    assert_eq!((keyspace.stats().hits, keyspace.stats().misses), (1, 1));
}

#[test]
fn a_replica_hides_an_expired_key_and_its_master_still_sees_it() {
    let mut keyspace = keyspace();
    keyspace
        .db(0)
        .set_string(b"a", StringInput::Int(1), SetExpiry::At(NOW));
    keyspace.set_context(NOW, ExpiryRule::Hide);
    assert!(keyspace.db(0).get(b"a").is_none());
    assert!(keyspace.db(0).random_key(1).is_none());
    assert_eq!((keyspace.len(), keyspace.has_expired()), (1, false));
    keyspace.set_context(NOW, ExpiryRule::Ignore);
    assert!(keyspace.db(0).get_mut(b"a").is_some());
    keyspace.set_context(NOW, ExpiryRule::Hide);
    let outcome = keyspace
        .db(0)
        .set_string(b"a", StringInput::Int(2), SetExpiry::Keep);
    assert_eq!(
        outcome,
        SetOutcome::Inserted,
        "a write to a writable replica starts anew"
    );
    assert_eq!(
        keyspace.db(0).get(b"a").map(|entry| entry.expire_at()),
        Some(None)
    );
    assert!(!keyspace.has_expired());
}

#[test]
fn active_expiry_removes_everything_that_is_due_and_nothing_else() {
    let mut keyspace = keyspace();
    let total = if cfg!(miri) { 500 } else { 50_000 };
    for number in 0..total {
        let expiry = match number % 4 {
            0 => SetExpiry::Clear,
            1 => SetExpiry::At(NOW + 5),
            2 => SetExpiry::At(NOW + 10),
            _ => SetExpiry::At(NOW + 1_000_000),
        };
        keyspace
            .db(0)
            .set_string(&key(number), StringInput::Int(1), expiry);
    }
    assert_eq!(keyspace.db(0).expires_len() as u64, total * 3 / 4);
    for (now, left) in [
        (NOW + 4, total),
        (NOW + 5, total * 3 / 4),
        (NOW + 10, total / 2),
    ] {
        keyspace.set_context(now, ExpiryRule::Delete);
        for _ in 0..1_000 {
            keyspace.active_expire(400);
        }
        assert_eq!(keyspace.len() as u64, left);
        keyspace.take_expired();
    }
    let round = keyspace.active_expire(1_000_000);
    assert_eq!(
        (round.visited, round.expired),
        (0, 0),
        "nothing is due, so nothing is looked at"
    );
}

#[test]
fn no_database_waits_for_the_expired_keys_of_another() {
    let filled = |keys: u64, due_every: u64| {
        let mut keyspace = keyspace();
        for number in 0..keys {
            let at = if number % due_every == 0 {
                1
            } else {
                1_000_000
            };
            let expiry = SetExpiry::At(NOW + at);
            keyspace
                .db(0)
                .set_string(&key(number), StringInput::Int(1), expiry);
        }
        keyspace
            .db(5)
            .set_string(b"a", StringInput::Int(1), SetExpiry::At(NOW + 1));
        keyspace.set_context(NOW + 1, ExpiryRule::Delete);
        keyspace
    };
    // Few of db 0 are expired: it is soon another's turn, and that of db 0 again where it was.
    let mut keyspace = filled(if cfg!(miri) { 5_000 } else { 50_000 }, 20);
    let first = keyspace.active_expire(400);
    assert!(first.expired > 0 && first.expired < first.visited / 10);
    assert_eq!(first.turns, 1);
    assert_eq!(keyspace.active_expire(400).turns, 16);
    assert_eq!(keyspace.db(5).len(), 0);
    // Very many are: it has a number of rounds.
    let mut keyspace = filled(if cfg!(miri) { 500 } else { 200_000 }, 1);
    for _ in 0..=MAX_TURN_ROUNDS {
        keyspace.active_expire(400);
    }
    assert_eq!(keyspace.db(5).len(), 0);
    assert!(cfg!(miri) || keyspace.db(0).len() > 1000);
}

#[test]
fn expired_watches_and_changed_watches_are_broken() {
    let mut keyspace = keyspace();
    keyspace
        .db(0)
        .set_string(b"a", StringInput::Int(1), SetExpiry::At(NOW + 10));
    let mut set = WatchSet::default();
    keyspace.watch(&mut set, 0, b"a");
    keyspace.watch(&mut set, 0, b"a");
    keyspace.watch(&mut set, 0, b"new");
    assert_eq!(set.len(), 2);
    keyspace
        .db(0)
        .set_string(b"other", StringInput::Int(1), SetExpiry::Clear);
    keyspace
        .db(1)
        .set_string(b"a", StringInput::Int(1), SetExpiry::Clear);
    assert!(!keyspace.watch_broken(&set, NOW));
    assert!(keyspace.watch_broken(&set, NOW + 10));
    keyspace.db(0).remove(b"new");
    assert!(!keyspace.watch_broken(&set, NOW), "it was not there");
    keyspace
        .db(0)
        .set_string(b"new", StringInput::Int(1), SetExpiry::Clear);
    assert!(keyspace.watch_broken(&set, NOW));
    keyspace.unwatch(&mut set);
    keyspace.watch(&mut set, 0, b"a");
    keyspace.clear();
    assert!(keyspace.watch_broken(&set, NOW));
}

#[test]
fn keys_move_and_are_copied_between_databases() {
    let mut keyspace = keyspace();
    keyspace
        .db(0)
        .set_string(b"a", StringInput::Int(1), SetExpiry::At(NOW + 10));
    assert_eq!(
        keyspace.copy_key((0, b"a"), (1, b"b"), ReplaceRule::KeepTarget),
        TransferOutcome::Done
    );
    assert_eq!(
        keyspace.copy_key((0, b"a"), (1, b"b"), ReplaceRule::KeepTarget),
        TransferOutcome::TargetExists
    );
    assert_eq!(
        keyspace.copy_key((0, b"x"), (1, b"b"), ReplaceRule::Replace),
        TransferOutcome::NoSuchKey
    );
    assert_eq!(keyspace.move_key(0, 1, b"a"), TransferOutcome::Done);
    assert_eq!(keyspace.move_key(0, 1, b"a"), TransferOutcome::NoSuchKey);
    let expiry =
        |db: &mut super::super::Db, key: &[u8]| db.get(key).and_then(|entry| entry.expire_at());
    assert_eq!(expiry(keyspace.db(1), b"a"), Some(NOW + 10));
    assert_eq!(expiry(keyspace.db(1), b"b"), Some(NOW + 10));
    keyspace.swap(1, 4);
    assert_eq!((keyspace.db(1).len(), keyspace.db(4).len()), (0, 2));
}

#[test]
fn heavy_values_go_to_the_garbage_and_light_ones_do_not() {
    let mut keyspace = keyspace();
    keyspace
        .db(0)
        .set_string(b"light", StringInput::Int(1), SetExpiry::Clear);
    keyspace
        .db(0)
        .get_mut(b"light")
        .expect("it is there")
        .delete();
    assert!(keyspace.take_garbage().is_empty());
    keyspace.clear();
    assert!(!keyspace.take_garbage().is_empty());
    assert!(keyspace.take_garbage().is_empty());
}

/// An operation on one of a few keys.
#[derive(Clone, Debug)]
enum Operation {
    Set(u8, Vec<u8>, SetExpiry),
    Append(u8, Vec<u8>),
    Expire(u8, Option<i64>),
    Remove(u8),
    Rename(u8, u8),
    Time(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    let value = prop_oneof![
        Just(b"17".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..60),
        (0usize..40_000).prop_map(|length| vec![b'v'; length]),
    ];
    let at = 0i64..400;
    let expiry = prop_oneof![
        Just(SetExpiry::Keep),
        Just(SetExpiry::Clear),
        at.clone().prop_map(|at| SetExpiry::At(NOW + at)),
    ];
    let key = 0u8..12;
    prop_oneof![
        (key.clone(), value.clone(), expiry).prop_map(|(k, v, e)| Operation::Set(k, v, e)),
        (key.clone(), value).prop_map(|(k, v)| Operation::Append(k, v)),
        (
            key.clone(),
            proptest::option::of(at.prop_map(|at| NOW + at))
        )
            .prop_map(|(k, e)| Operation::Expire(k, e)),
        key.clone().prop_map(Operation::Remove),
        (key.clone(), key).prop_map(|(a, b)| Operation::Rename(a, b)),
        (0u8..20).prop_map(Operation::Time),
    ]
}

type Model = BTreeMap<u8, (Vec<u8>, Option<i64>)>;

fn apply(keyspace: &mut Keyspace, model: &mut Model, now: &mut i64, operation: Operation) {
    model.retain(|_, (_, expire_at)| expire_at.is_none_or(|at| at > *now));
    let db = keyspace.db(0);
    match operation {
        Operation::Set(k, value, expiry) => {
            let old = model.get(&k).and_then(|(_, at)| *at);
            let expire_at = match expiry {
                SetExpiry::Keep => old,
                SetExpiry::Clear => None,
                SetExpiry::At(at) => Some(at),
            };
            db.set_string(&[k], value.as_slice().into(), expiry);
            model.insert(k, (value, expire_at));
        }
        Operation::Append(k, suffix) => {
            let entry = db.get_mut(&[k]);
            assert_eq!(entry.is_some(), model.contains_key(&k));
            if let Some(mut entry) = entry {
                let ValueMut::String(mut string) = entry.value_mut() else {
                    panic!("a string")
                };
                string.append(&suffix);
                model.entry(k).and_modify(|(value, _)| value.extend(suffix));
            }
        }
        Operation::Expire(k, expire_at) => {
            if let Some(mut entry) = db.get_mut(&[k]) {
                entry.set_expiry(expire_at);
                model.entry(k).and_modify(|(_, at)| *at = expire_at);
            }
        }
        Operation::Remove(k) => {
            assert_eq!(db.remove(&[k]), model.remove(&k).is_some());
        }
        Operation::Rename(from, to) => {
            let outcome = db.rename(&[from], &[to]);
            match model.remove(&from) {
                None => assert_eq!(outcome, RenameOutcome::NoSuchKey),
                Some(value) => {
                    assert_eq!(outcome, RenameOutcome::Renamed);
                    model.insert(to, value);
                }
            }
        }
        Operation::Time(ms) => {
            *now += i64::from(ms);
            keyspace.set_context(*now, ExpiryRule::Delete);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 200 }))]

    #[test]
    fn databases_behave_like_a_map(operations in proptest::collection::vec(operation(), 1..150)) {
        let (mut keyspace, mut model, mut now) = (keyspace(), Model::new(), NOW);
        for operation in operations {
            apply(&mut keyspace, &mut model, &mut now, operation);
            model.retain(|_, (_, expire_at)| expire_at.is_none_or(|at| at > now));
            let db = keyspace.db(0);
            for k in 0..12 {
                let found = db.get(&[k]).map(|entry| (text(entry), entry.expire_at()));
                prop_assert_eq!(found.as_ref(), model.get(&k));
            }
            let expiring = model.values().filter(|(_, at)| at.is_some()).count();
            prop_assert_eq!((db.len(), db.expires_len()), (model.len(), expiring));
        }
    }
}

#[test]
fn collections_are_changed_in_place() {
    let mut keyspace = keyspace();
    let limits = EncodingLimits::default();
    let list = Value::list([b"x".as_slice()], &limits);
    assert_eq!(
        keyspace.db(0).set(b"list", list, SetExpiry::Clear),
        SetOutcome::Inserted
    );
    let mut entry = keyspace.db(0).get_mut(b"list").expect("it is there");
    let ValueMut::List(list) = entry.value_mut() else {
        panic!("a list")
    };
    list.push(super::super::types::list::End::Tail, b"y", &limits);
    assert_eq!(list.len(), 2);
    assert_eq!(
        keyspace
            .db(0)
            .set(b"list", Value::string(b"s"), SetExpiry::Keep),
        SetOutcome::Overwritten
    );
}
