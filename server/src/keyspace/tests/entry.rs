//! Entries: every shape, and every change from one to another.

use super::super::entry::MAX_INLINE_BYTES;
use super::super::string::StringInput;
use super::super::types::EncodingLimits;
use super::super::types::value::{StringValue, Value};
use super::super::{Entry, SetExpiry, ValueMut, ValueRef};
use super::{keyspace, text};

/// Key lengths around every limit.
const KEY_LENGTHS: [usize; 8] = [0, 1, 7, 16, 300, 65_534, 65_535, 70_000];
/// Value lengths around every limit.
const VALUE_LENGTHS: [usize; 9] = [
    0,
    1,
    20,
    44,
    45,
    MAX_INLINE_BYTES - 1,
    MAX_INLINE_BYTES,
    MAX_INLINE_BYTES + 1,
    50_000,
];

fn bytes(length: usize, first: u8) -> Vec<u8> {
    (0..length)
        .map(|i| first.wrapping_add((i % 23) as u8))
        .collect()
}

#[test]
fn every_shape_reads_back() {
    for key_len in KEY_LENGTHS {
        let key = bytes(key_len, b'a');
        for expire_at in [None, Some(-1), Some(i64::MAX)] {
            for value_len in VALUE_LENGTHS {
                let value = bytes(value_len, b'A');
                let entry = Entry::string(&key, StringInput::Bytes(&value), expire_at);
                assert_eq!(
                    (entry.key(), text(&entry), entry.expire_at()),
                    (&key[..], value, expire_at)
                );
            }
            let entry = Entry::string(&key, StringInput::Int(-5), expire_at);
            assert_eq!(
                (entry.key(), text(&entry), entry.expire_at()),
                (&key[..], b"-5".into(), expire_at)
            );
            let list = Value::list([b"x".as_slice(), b"y"], &EncodingLimits::default());
            let entry = Entry::new(&key, list, expire_at);
            assert_eq!(
                (entry.key(), entry.type_name(), entry.expire_at()),
                (&key[..], "list", expire_at)
            );
            let Value::List(list) = entry.into_value() else {
                panic!("a list")
            };
            assert_eq!(list.len(), 2);
        }
    }
}

#[test]
fn setting_and_clearing_the_expiry_keeps_everything_else() {
    for value_len in VALUE_LENGTHS {
        let value = bytes(value_len, b'A');
        let mut entry = Entry::string(b"key", StringInput::Bytes(&value), None);
        for expire_at in [Some(5), Some(6), None, None, Some(7), None] {
            entry = entry.with_expire(expire_at);
            assert_eq!(
                (entry.key(), text(&entry), entry.expire_at()),
                (&b"key"[..], value.clone(), expire_at)
            );
        }
    }
    let list = Value::list([b"x".as_slice()], &EncodingLimits::default());
    let entry = Entry::new(b"key", list, None)
        .with_expire(Some(1))
        .with_expire(None);
    assert_eq!((entry.key(), entry.type_name()), (&b"key"[..], "list"));
}

#[test]
fn any_string_overwrites_any_value() {
    for from_len in VALUE_LENGTHS {
        for to_len in VALUE_LENGTHS {
            for (from_expiry, to_expiry) in [
                (None, None),
                (None, Some(1)),
                (Some(1), None),
                (Some(1), Some(2)),
            ] {
                let (old, new) = (bytes(from_len, b'a'), bytes(to_len, b'A'));
                let entry = Entry::string(b"key", StringInput::Bytes(&old), from_expiry);
                let (entry, _) = entry.with_string(b"key", StringInput::Bytes(&new), to_expiry);
                assert_eq!(
                    (entry.key(), text(&entry), entry.expire_at()),
                    (&b"key"[..], new, to_expiry)
                );
                let (entry, _) = entry.with_string(b"key", StringInput::Int(77), None);
                assert_eq!(
                    (entry.key(), text(&entry), entry.expire_at()),
                    (&b"key"[..], b"77".into(), None)
                );
            }
        }
    }
    let list = Value::list([b"x".as_slice()], &EncodingLimits::default());
    let (entry, old) =
        Entry::new(b"key", list, None).with_string(b"key", StringInput::Int(1), None);
    assert_eq!(
        (text(&entry), old.map(|old| old.type_name())),
        (b"1".to_vec(), Some("list"))
    );
}

#[test]
fn strings_grow_in_place_through_every_form() {
    let mut keyspace = keyspace();
    let db = keyspace.db(0);
    db.set_string(b"key", StringInput::Int(12), SetExpiry::At(2_000_000));
    let mut expected = b"12".to_vec();
    for length in [1, 100, 5_000, 20_000, 7] {
        let suffix = bytes(length, b'k');
        let mut entry = db.get_mut(b"key").expect("the key is there");
        let ValueMut::String(mut string) = entry.value_mut() else {
            panic!("a string")
        };
        expected.extend_from_slice(&suffix);
        assert_eq!(string.append(&suffix), expected.len());
        assert_eq!(entry.encoding_name(), "raw");
        assert_eq!(
            (text(&entry), entry.expire_at()),
            (expected.clone(), Some(2_000_000))
        );
    }
    let mut entry = db.get_mut(b"key").expect("the key is there");
    let ValueMut::String(mut string) = entry.value_mut() else {
        panic!("a string")
    };
    assert_eq!(
        string.set_range(expected.len() + 3, b"end"),
        expected.len() + 6
    );
    expected.extend_from_slice(b"\0\0\0end");
    assert_eq!(string.set_range(0, b"AB"), expected.len());
    expected[..2].copy_from_slice(b"AB");
    assert_eq!(text(&entry), expected);
}

#[test]
fn integers_are_counted_in_place_and_texts_become_integers() {
    let mut keyspace = keyspace();
    let db = keyspace.db(0);
    db.set_string(b"n", b"10".as_slice().into(), SetExpiry::Clear);
    for expected in 11..20 {
        let mut entry = db.get_mut(b"n").expect("the key is there");
        let ValueMut::String(mut string) = entry.value_mut() else {
            panic!("a string")
        };
        let old = string.as_int().expect("an integer");
        string.set_int(old + 1);
        assert_eq!(
            (text(&entry), entry.encoding_name()),
            (expected.to_string().into_bytes(), "int")
        );
    }
    db.set_string(b"text", StringInput::Bytes(b"abc"), SetExpiry::Clear);
    let mut entry = db.get_mut(b"text").expect("the key is there");
    let ValueMut::String(mut string) = entry.value_mut() else {
        panic!("a string")
    };
    string.set_int(-1);
    assert_eq!((entry.key(), text(&entry)), (&b"text"[..], b"-1".to_vec()));
}

#[test]
fn encodings_have_the_names_of_redis() {
    let of = |input| Entry::string(b"key", input, None).encoding_name();
    assert_eq!(of(StringInput::encode(b"123")), "int");
    assert_eq!(of(StringInput::encode(b"0123")), "embstr");
    assert_eq!(of(StringInput::Bytes(&[b'x'; 44])), "embstr");
    assert_eq!(of(StringInput::Bytes(&[b'x'; 45])), "raw");
    assert_eq!(of(StringInput::Bytes(&[b'x'; 40_000])), "raw");
}

#[test]
fn copies_and_renamed_entries_are_equal_but_for_the_key() {
    for value_len in VALUE_LENGTHS {
        let value = bytes(value_len, b'A');
        let entry = Entry::string(b"key", StringInput::Bytes(&value), Some(5));
        let copy = entry.duplicate(b"copy", entry.expire_at());
        let renamed = entry.with_key(b"another key");
        assert_eq!(
            (copy.key(), text(&copy), copy.expire_at()),
            (&b"copy"[..], value.clone(), Some(5))
        );
        assert_eq!(
            (renamed.key(), text(&renamed), renamed.expire_at()),
            (&b"another key"[..], value, Some(5))
        );
    }
    let list = Value::list([b"x".as_slice()], &EncodingLimits::default());
    let entry = Entry::new(b"key", list, None).with_key(b"list");
    let ValueRef::List(list) = entry.value() else {
        panic!("a list")
    };
    assert_eq!((entry.key(), list.len()), (&b"list"[..], 1));
}

#[test]
fn big_strings_give_their_bytes_back() {
    let value = bytes(100_000, b'a');
    let entry = Entry::new(
        b"key",
        Value::String(StringValue::Bytes(value.clone().into())),
        None,
    );
    assert!(entry.memory_bytes(0) >= 100_000);
    let Value::String(StringValue::Bytes(back)) = entry.into_value() else {
        panic!("a string")
    };
    assert_eq!(*back, value);
}
