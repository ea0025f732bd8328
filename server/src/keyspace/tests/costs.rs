//! What must not cost as much as all of a big value, or all of many keys: done so often that the wrong way takes minutes,
//! with a deadline.

use std::time::{Duration, Instant};

use super::super::string::StringInput;
use super::super::types::{
    EncodingLimits,
    list::{End, List},
    sorted_set::SortedSet,
    value::Value,
};
use super::super::watch::WatchSet;
use super::super::{Entry, ReplaceRule, SetExpiry, TransferOutcome};
use super::{key, keyspace};

/// The right way takes less than a second.
const DEADLINE: Duration = Duration::from_secs(20);

fn in_time(run: impl FnOnce()) {
    let start = Instant::now();
    run();
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn a_copy_that_may_not_be_made() {
    let mut keyspace = keyspace();
    let elements = vec![b"element".as_slice(); 2_000_000];
    let list = Value::list(elements, &EncodingLimits::default());
    keyspace.db(0).set(b"big", list, SetExpiry::Clear);
    keyspace
        .db(1)
        .set_string(b"there", StringInput::Int(1), SetExpiry::Clear);
    let mut copy = |to: &[u8]| keyspace.copy_key((0, b"big"), (1, to), ReplaceRule::KeepTarget);
    assert_eq!(copy(b"new"), TransferOutcome::Done);
    in_time(|| {
        for _ in 0..100_000 {
            assert_eq!(copy(b"there"), TransferOutcome::TargetExists);
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn watching_one_more_key() {
    const KEYS: u64 = 300_000;
    let mut keyspace = keyspace();
    let mut set = WatchSet::default();
    in_time(|| {
        for number in 0..KEYS {
            keyspace.watch(&mut set, 0, &key(number));
        }
        assert_eq!(set.len() as u64, KEYS);
        assert!(!keyspace.watch_broken(&set, 1_000_000));
        keyspace.unwatch(&mut set);
        assert!(set.is_empty());
    });
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn the_last_elements_of_a_long_list() {
    const ELEMENTS: usize = 200_000;
    const READS: usize = 100_000;
    let limits = EncodingLimits {
        list_max_listpack_size: 1,
        ..EncodingLimits::default()
    };
    let mut list = List::new();
    for number in 0..ELEMENTS {
        list.push(End::Tail, number.to_string().as_bytes(), &limits);
    }
    in_time(|| {
        for read in 0..READS {
            let index = ELEMENTS - 1 - read % 10;
            assert!(list.get(index).unwrap().is(index.to_string().as_bytes()));
            assert!(list.iter_from(index).count() <= 10);
            let mut back = list.iter_back_from(index);
            assert!(back.next().unwrap().is(index.to_string().as_bytes()));
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn the_size_of_a_big_collection() {
    const ELEMENTS: usize = 200_000;
    let limits = EncodingLimits {
        list_max_listpack_size: 1,
        ..EncodingLimits::default()
    };
    let (mut list, mut sorted) = (List::new(), SortedSet::new());
    for number in 0..ELEMENTS {
        let text = key(number as u64);
        list.push(End::Tail, &text, &limits);
        // Half of them in disorder: nodes of all sizes.
        let score = if number % 2 == 0 {
            number
        } else {
            number * 7919 % ELEMENTS
        };
        sorted.set(&text, score as f64, &limits);
    }
    for value in [Value::List(list), Value::SortedSet(sorted)] {
        let entry = Entry::new(b"k", value, None);
        let all = entry.memory_bytes(0);
        in_time(|| {
            for _ in 0..50_000 {
                let some = entry.memory_bytes(5);
                assert!(all.abs_diff(some) < all / 10, "{some} of {all}");
            }
        });
    }
}
