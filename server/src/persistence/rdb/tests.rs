//! Whole files: round trips, files of every age, and bytes that lie.

use proptest::prelude::*;

use super::{
    checksum::crc64,
    decode::{self, Sink, Summary},
    encode::{self, Encoded},
    error::RdbError,
    pack::Packer,
    reader::{Checksums, Reader},
};
use crate::keyspace::{
    Entry,
    types::{EncodingLimits, hash::Hash, set::Set, sorted_set::SortedSet, value::Value},
};

/// A value in a form that tests compare: type, encoding and elements as clients see them.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    db: u32,
    key: Vec<u8>,
    encoding: &'static str,
    elements: Vec<Vec<u8>>,
    scores: Vec<f64>,
    expire_at_ms: Option<i64>,
}

#[derive(Default)]
struct Collected {
    db: u32,
    entries: Vec<Shown>,
    aux: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Sink for Collected {
    fn select_db(&mut self, db: u32) -> Result<(), RdbError> {
        self.db = db;
        Ok(())
    }

    fn resize_hint(&mut self, _: u64, _: u64) {}

    fn entry(&mut self, key: &[u8], value: Value, deadline: Option<i64>) -> Result<(), RdbError> {
        self.entries.push(show(self.db, key, &value, deadline));
        Ok(())
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.aux.push((name.to_vec(), value.to_vec()));
    }
}

fn show(db: u32, key: &[u8], value: &Value, expire_at_ms: Option<i64>) -> Shown {
    let mut scores = Vec::new();
    let mut elements: Vec<Vec<u8>> = match value {
        Value::String(string) => vec![string.to_vec()],
        Value::List(list) => list.iter().map(|e| e.to_vec()).collect(),
        Value::Set(set) => set.iter().map(|e| e.to_vec()).collect(),
        Value::Hash(hash) => hash
            .iter()
            .map(|(field, value)| [&field.to_vec()[..], b"=", &value.to_vec()].concat())
            .collect(),
        Value::SortedSet(sorted) => {
            scores = sorted.iter_from(0).map(|(_, score)| score).collect();
            sorted
                .iter_from(0)
                .map(|(member, _)| member.to_vec())
                .collect()
        }
    };
    if matches!(value, Value::Set(_) | Value::Hash(_)) {
        elements.sort();
    }
    let (key, encoding) = (key.to_vec(), value.encoding());
    Shown {
        db,
        key,
        encoding,
        elements,
        scores,
        expire_at_ms,
    }
}

fn load(bytes: &[u8]) -> Result<(Collected, Summary), RdbError> {
    let mut collected = Collected::default();
    let limits = EncodingLimits::default();
    let mut reader = Reader::new(bytes, Checksums::Verify);
    decode::load(&mut reader, &limits, &mut collected).map(|s| (collected, s))
}

/// A file with these sections, its checksum included.
fn file(version: &str, sections: &[u8]) -> Vec<u8> {
    let mut bytes = [version.as_bytes(), sections, &[0xff]].concat();
    let crc = crc64(0, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::length(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn one(type_byte: u8, value: &[u8]) -> Vec<u8> {
    [&[type_byte], &string(b"key")[..], value].concat()
}

fn load_one(version: &str, type_byte: u8, value: &[u8]) -> Result<Shown, RdbError> {
    let (mut collected, _) = load(&file(version, &one(type_byte, value)))?;
    assert_eq!(collected.entries.len(), 1);
    Ok(collected.entries.remove(0))
}

fn texts(shown: &Shown) -> Vec<String> {
    shown
        .elements
        .iter()
        .map(|e| String::from_utf8_lossy(e).into_owned())
        .collect()
}

fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut previous = 0;
    for element in elements {
        body.push(previous);
        body.push(element.len() as u8);
        body.extend_from_slice(element);
        previous = element.len() as u8 + 2;
    }
    let mut out = ((body.len() + 11) as u32).to_le_bytes().to_vec();
    out.extend([0; 4]);
    out.extend((elements.len() as u16).to_le_bytes());
    out.extend(body);
    out.push(0xff);
    string(&out)
}

fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut pack = crate::keyspace::types::compact::Listpack::new();
    for element in elements {
        pack.push_back(element);
    }
    string(pack.as_bytes())
}

#[test]
fn old_encodings_become_todays_types() {
    let row = |texts: &[&[u8]], count: u8| {
        let strings: Vec<u8> = texts.iter().flat_map(|text| string(text)).collect();
        [&[count], &strings[..]].concat()
    };
    let ab: [&[u8]; 2] = [b"a", b"b"];
    let cases: Vec<(u8, Vec<u8>, &str, &[&str])> = vec![
        (1, row(&ab, 2), "listpack", &["a", "b"]),
        (10, ziplist(&ab), "listpack", &["a", "b"]),
        (
            14,
            [&[2], &ziplist(&ab)[..], &ziplist(&ab)].concat(),
            "quicklist",
            &["a", "b", "a", "b"],
        ),
        (
            18,
            [&[2, 2], &listpack(&ab)[..], &[1], &string(b"c")].concat(),
            "quicklist",
            &["a", "b", "c"],
        ),
        (2, row(&ab, 2), "listpack", &["a", "b"]),
        (20, listpack(&ab), "listpack", &["a", "b"]),
        (
            11,
            string(&[2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0]),
            "intset",
            &["-1", "5"],
        ),
        (4, row(&ab, 1), "listpack", &["a=b"]),
        (9, string(b"\x01\x01a\x01\x00b\xff"), "listpack", &["a=b"]),
        (13, ziplist(&ab), "listpack", &["a=b"]),
        (16, listpack(&ab), "listpack", &["a=b"]),
        (12, ziplist(&[b"m", b"1.5"]), "listpack", &["m"]),
        (17, listpack(&[b"m", b"1.5"]), "listpack", &["m"]),
        (
            3,
            [&[1], &string(b"m")[..], b"\x031.5"].concat(),
            "listpack",
            &["m"],
        ),
        (
            5,
            [&[1], &string(b"m")[..], &1.5f64.to_le_bytes()].concat(),
            "listpack",
            &["m"],
        ),
    ];
    for (type_byte, value, encoding, elements) in cases {
        let shown = load_one("REDIS0012", type_byte, &value).unwrap();
        assert_eq!(shown.encoding, encoding, "type {type_byte}");
        assert_eq!(texts(&shown), elements, "type {type_byte}");
        if matches!(type_byte, 3 | 5 | 12 | 17) {
            assert_eq!(shown.scores, [1.5]);
        }
    }
}

#[test]
fn every_version_is_read_and_no_other() {
    for version in 1..=12 {
        let magic = format!("REDIS{version:04}");
        let mut bytes = file(&magic, &one(0, &string(b"v")));
        if version < 5 {
            bytes.truncate(bytes.len() - 8);
        }
        assert_eq!(load(&bytes).unwrap().1.keys, 1, "{magic}");
    }
    assert_eq!(
        load(&file("VALKEY080", &one(0, &string(b"v"))))
            .unwrap()
            .1
            .keys,
        1
    );
    for magic in ["REDIS0013", "REDIS0000", "VALKEY081"] {
        assert!(
            matches!(load(magic.as_bytes()), Err(RdbError::Version(_))),
            "{magic}"
        );
    }
    for magic in ["REDIS00x1", "HTTP/1.1 ", "VALKEY08 "] {
        assert!(
            matches!(load(magic.as_bytes()), Err(RdbError::Magic(_))),
            "{magic}"
        );
    }
}

#[test]
fn what_belongs_to_no_key_is_skipped() {
    let module = [
        &[247, 0x05, 2, 1][..],
        &[1, 7, 2, 8, 3, 0, 0, 0, 0],
        &[4, 0, 0, 0, 0, 0, 0, 0, 0, 5],
        &string(b"x"),
        &[0],
    ]
    .concat();
    let sections = [
        &[250][..],
        &string(b"repl-offset"),
        &[0xc1, 0x39, 0x30],
        &[245],
        &string(b"#!lua name=lib"),
        &module,
        &[254, 3, 251, 2, 1, 244, 1, 2, 3],
        &[252],
        &1234i64.to_le_bytes(),
        &[249, 7],
        &one(0, &string(b"v")),
        &[253],
        &9i32.to_le_bytes(),
        &[248, 60, 0],
        &string(b"other"),
        &string(b"w"),
    ]
    .concat();
    let (collected, summary) = load(&file("REDIS0012", &sections)).unwrap();
    assert_eq!(
        collected.aux,
        [(b"repl-offset".to_vec(), b"12345".to_vec())]
    );
    assert_eq!(
        (summary.functions_skipped, summary.module_data_skipped),
        (1, 1)
    );
    let deadlines: Vec<_> = collected
        .entries
        .iter()
        .map(|e| (e.db, e.expire_at_ms))
        .collect();
    assert_eq!(deadlines, [(3, Some(1234)), (3, Some(9000))]);
}

#[test]
fn types_we_do_not_have_are_named_with_their_key() {
    for type_byte in [6, 7, 15, 19, 21, 22, 23] {
        let error = load_one("REDIS0012", type_byte, &[0; 64]).unwrap_err();
        assert!(
            matches!(error, RdbError::UnsupportedType { .. }),
            "{type_byte}: {error}"
        );
        assert!(
            error.to_string().contains("key 'key' in database 0"),
            "{error}"
        );
    }
}

#[test]
fn hashes_that_could_have_deadlines_load_if_they_have_none() {
    let pair = [string(b"f"), string(b"v")].concat();
    let redis = [&0i64.to_le_bytes()[..], &[1, 0], &pair].concat();
    assert_eq!(texts(&load_one("REDIS0012", 24, &redis).unwrap()), ["f=v"]);
    let redis = [&5i64.to_le_bytes()[..], &[1, 1], &pair].concat();
    assert!(matches!(
        load_one("REDIS0012", 24, &redis),
        Err(RdbError::UnsupportedType { .. })
    ));
    let pack = |deadline: &'static [u8]| {
        [&0i64.to_le_bytes()[..], &listpack(&[b"f", b"v", deadline])].concat()
    };
    assert_eq!(
        texts(&load_one("REDIS0012", 25, &pack(b"0")).unwrap()),
        ["f=v"]
    );
    assert!(load_one("REDIS0012", 25, &pack(b"17")).is_err());
    let valkey = [&[1], &pair[..], &(-1i64).to_le_bytes()].concat();
    assert_eq!(texts(&load_one("VALKEY080", 22, &valkey).unwrap()), ["f=v"]);
    let valkey = [&[1], &pair[..], &5i64.to_le_bytes()].concat();
    assert!(matches!(
        load_one("VALKEY080", 22, &valkey),
        Err(RdbError::UnsupportedType { .. })
    ));
}

#[test]
fn empty_collections_are_left_out() {
    for (type_byte, value) in [
        (1, vec![0]),
        (2, vec![0]),
        (4, vec![0]),
        (5, vec![0]),
        (14, vec![0]),
        (18, vec![0]),
    ] {
        let (collected, summary) = load(&file("REDIS0010", &one(type_byte, &value))).unwrap();
        assert!(collected.entries.is_empty());
        assert_eq!(summary.empty_keys_skipped, 1);
    }
}

#[test]
fn a_wrong_checksum_is_refused_and_a_missing_one_accepted() {
    let mut bytes = file("REDIS0010", &one(0, &string(b"v")));
    let crc_at = bytes.len() - 8;
    bytes[crc_at] ^= 1;
    assert!(matches!(load(&bytes), Err(RdbError::Checksum { .. })));
    bytes[crc_at..].fill(0);
    assert!(load(&bytes).is_ok());
}

#[test]
fn duplicates_inside_a_value_are_refused() {
    let twice = [&[2], &string(b"m")[..], &string(b"m")].concat();
    assert!(load_one("REDIS0010", 2, &twice).is_err());
    let twice = [&[2], &string(b"m")[..], &[0; 8], &string(b"m"), &[0; 8]].concat();
    assert!(load_one("REDIS0010", 5, &twice).is_err());
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{0,4}".prop_map(String::into_bytes),
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        (0u8..200).prop_map(|n| n.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..100),
        "(abcd){20,40}".prop_map(String::into_bytes),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let limits = EncodingLimits {
        hash_max_listpack_entries: 8,
        list_max_listpack_size: 8,
        set_max_intset_entries: 8,
        set_max_listpack_entries: 8,
        zset_max_listpack_entries: 8,
        ..EncodingLimits::default()
    };
    let texts = || prop::collection::vec(any_text(), 1..20);
    prop_oneof![
        any_text().prop_map(|text| Value::string(&text)),
        texts().prop_map(move |texts| Value::list(texts.iter().map(Vec::as_slice), &limits)),
        texts().prop_map(move |texts| {
            let mut set = Set::new();
            for text in &texts {
                set.insert(text, &limits);
            }
            Value::Set(set)
        }),
        texts().prop_map(move |texts| {
            let mut hash = Hash::new();
            for text in &texts {
                hash.set(text, &texts[0], &limits);
            }
            Value::Hash(hash)
        }),
        texts().prop_map(move |texts| {
            let mut sorted = SortedSet::new();
            for (i, text) in texts.iter().enumerate() {
                sorted.set(text, i as f64 * 1.1 - 3.0, &limits);
            }
            Value::SortedSet(sorted)
        }),
    ]
}

/// A file that this server writes, and what it holds.
fn written(
    entries: Vec<(Vec<u8>, Value, Option<i64>)>,
    packer: Option<Packer>,
) -> (Vec<u8>, Vec<Shown>) {
    let mut out = Vec::new();
    encode::magic(&mut out);
    encode::aux("repl-offset", b"17", &mut out);
    encode::database(2, entries.len() as u64, 0, &mut out);
    // In two halves, as a snapshot joins what waited to what came before it.
    let mut halves = [Encoded::default(), Encoded::default()];
    let half = entries.len() / 2;
    let mut shown = Vec::new();
    for (index, (key, value, deadline)) in entries.into_iter().enumerate() {
        shown.push(show(2, &key, &value, deadline));
        let entry = Entry::new(&key, value, deadline);
        let out = &mut halves[usize::from(index >= half)];
        encode::entry(entry.key(), entry.value(), entry.expire_at(), out);
    }
    let [mut encoded, rest] = halves;
    encoded.append(&rest);
    match packer {
        Some(mut packer) => out.extend(packer.pack(&encoded)),
        None => out.extend(encoded.bytes),
    }
    encode::end_mark(&mut out);
    let crc = crc64(0, &out);
    encode::checksum(crc, &mut out);
    (out, shown)
}

fn any_entries() -> impl Strategy<Value = Vec<(Vec<u8>, Value, Option<i64>)>> {
    prop::collection::vec(
        (any_text(), any_value(), prop::option::of(any::<i64>())),
        0..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_comes_back(entries in any_entries(), compress: bool) {
        let (bytes, shown) = written(entries, compress.then(Packer::default));
        let (collected, _) = load(&bytes).unwrap();
        // Encodings may differ: the limits at loading are the defaults.
        let plain = |shown: &[Shown]| -> Vec<Shown> {
            shown.iter().cloned().map(|s| Shown { encoding: "", ..s }).collect()
        };
        prop_assert_eq!(plain(&collected.entries), plain(&shown));
        prop_assert_eq!(collected.aux.len(), 1);
    }

    #[test]
    fn a_cut_file_is_refused(entries in any_entries(), cut in 0.0f64..1.0) {
        let (bytes, _) = written(entries, Some(Packer::default()));
        let end = (bytes.len() as f64 * cut) as usize;
        prop_assert!(load(&bytes[..end]).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics(
        entries in any_entries(), at in any::<prop::sample::Index>(), to: u8,
    ) {
        let (mut bytes, _) = written(entries, Some(Packer::default()));
        let at = at.index(bytes.len());
        bytes[at] = to;
        // Without a checksum the lie reaches the parsers' ends.
        let end = bytes.len() - 8;
        bytes[end..].fill(0);
        let _ = load(&bytes);
    }

    #[test]
    fn an_edited_file_never_panics(
        entries in any_entries(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..9, prop::collection::vec(any::<u8>(), 0..9)), 1..8,
        ),
    ) {
        let (mut bytes, _) = written(entries, Some(Packer::default()));
        bytes.truncate(bytes.len() - 8);
        for (at, removed, inserted) in edits {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + removed);
            bytes.splice(at..end, inserted);
            bytes.push(0xff);
        }
        // Without a checksum the lie reaches the parsers' ends.
        bytes.extend([0; 8]);
        let _ = load(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300), version in 1u32..14, valkey: bool,
    ) {
        let magic = if valkey { "VALKEY080".to_owned() } else { format!("REDIS{version:04}") };
        let _ = load(&file(&magic, &bytes));
        let _ = load(&bytes);
    }

    #[test]
    fn rubbish_of_every_type_never_panics(
        type_byte in 0u8..26, value in prop::collection::vec(any::<u8>(), 0..200), frame: bool,
    ) {
        let mut value = value;
        if frame && value.len() > 12 {
            // A plausible string around a plausible header, so that the inner parsers are reached.
            let length = value.len() as u32;
            value[..4].copy_from_slice(&length.to_le_bytes());
            value = string(&value);
        }
        let _ = load(&file("REDIS0012", &one(type_byte, &value)));
    }
}

#[test]
fn a_list_keeps_its_order_over_many_nodes() {
    let limits = EncodingLimits {
        list_max_listpack_size: 4,
        ..EncodingLimits::default()
    };
    let texts: Vec<Vec<u8>> = (0..1000)
        .map(|i| format!("element {i}").into_bytes())
        .collect();
    let value = Value::list(texts.iter().map(Vec::as_slice), &limits);
    let (bytes, shown) = written(vec![(b"l".to_vec(), value, None)], None);
    assert_eq!(
        load(&bytes).unwrap().0.entries[0].elements,
        shown[0].elements
    );
}
