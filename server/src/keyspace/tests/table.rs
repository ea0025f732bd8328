//! The table against a `HashMap`, its load, and SCAN's promise.

use std::collections::{HashMap, HashSet};

use super::super::hash::KeyHasher;
use super::super::string::StringInput;
use super::super::table::Table;
use super::super::{Entry, SetExpiry};
use super::{Numbers, key, keyspace, text};

fn insert(table: &mut Table, number: u64) {
    let entry = Entry::string(&key(number), StringInput::Int(number as i64), None);
    table.insert_new(table.hash(&key(number)), entry);
}

fn remove(table: &mut Table, number: u64) -> bool {
    let hash = table.hash(&key(number));
    table
        .get_mut(hash, &key(number))
        .map(|occupied| occupied.remove())
        .is_some()
}

/// How many keys the tests that need many use; fewer under Miri, which is slow.
const MANY: u64 = if cfg!(miri) { 2_000 } else { 200_000 };

#[test]
fn the_table_agrees_with_a_map_while_it_grows_and_shrinks() {
    let mut table = Table::new(KeyHasher::new([3, 4]));
    let mut model = HashSet::new();
    let mut numbers = Numbers(1);
    for (phase, inserts_of_ten) in [8, 5, 2, 9, 1, 0].into_iter().enumerate() {
        for _ in 0..MANY / 4 {
            let number = numbers.below(MANY / 4);
            if numbers.below(10) < inserts_of_ten {
                if model.insert(number) {
                    insert(&mut table, number);
                }
            } else {
                assert_eq!(remove(&mut table, number), model.remove(&number));
            }
        }
        assert_eq!(table.len(), model.len(), "phase {phase}");
        for number in 0..MANY / 4 {
            let found = table.get(table.hash(&key(number)), &key(number)).map(text);
            let expected = model
                .contains(&number)
                .then(|| number.to_string().into_bytes());
            assert_eq!(found, expected, "phase {phase}");
        }
    }
    for number in 0..MANY / 4 {
        remove(&mut table, number);
    }
    assert_eq!(
        (table.len(), table.capacity()),
        (0, 32),
        "an emptied table is as small as a new one"
    );
}

#[test]
fn the_load_stays_high_at_every_size() {
    let mut table = Table::new(KeyHasher::new([5, 6]));
    let (mut lowest, mut sum, mut count) = (1.0f64, 0.0, 0);
    for number in 0..MANY {
        insert(&mut table, number);
        if number > 1_000 && number % 500 == 0 {
            let load = table.len() as f64 / table.capacity() as f64;
            lowest = lowest.min(load);
            sum += load;
            count += 1;
        }
    }
    let average = sum / f64::from(count);
    println!(
        "load: lowest {lowest:.3}, average {average:.3}, {} bytes a key",
        table.overhead() as f64 / MANY as f64
    );
    assert!(
        lowest > 0.68 && average > 0.78,
        "lowest {lowest}, average {average}"
    );
}

/// Scans with churn of other keys between the calls; the keys given, with how often.
fn scan_with_churn(keep: u64, mut churn: impl FnMut(&mut Table, u64)) -> HashMap<Vec<u8>, u32> {
    let mut table = Table::new(KeyHasher::new([7, 8]));
    for number in 0..keep {
        insert(&mut table, number);
    }
    let mut seen = HashMap::new();
    let (mut position, mut step) = (0, 0);
    loop {
        // Cursors of SCAN have 48 bits.
        let next = table.walk(position >> 16 << 16, 10, |entry| {
            *seen.entry(entry.key().to_vec()).or_insert(0) += 1;
        });
        match next {
            None => return seen,
            Some(next) => position = next,
        }
        churn(&mut table, step);
        step += 1;
    }
}

#[test]
fn a_scan_gives_every_lasting_key_exactly_once_while_the_table_grows() {
    let keep = MANY / 40;
    let seen = scan_with_churn(keep, |table, step| {
        for number in 0..10 {
            insert(table, 1_000_000 + step * 10 + number);
        }
    });
    for number in 0..keep {
        assert_eq!(seen.get(&key(number)), Some(&1), "key {number}");
    }
    assert!(seen.values().all(|&times| times == 1));
}

#[test]
fn a_scan_gives_every_lasting_key_exactly_once_while_the_table_shrinks() {
    let all = MANY / 10;
    let seen = scan_with_churn(all, |table, step| {
        for number in step * 60..(step + 1) * 60 {
            if number < all && number % 20 != 0 {
                remove(table, number);
            }
        }
    });
    for number in (0..all).step_by(20) {
        assert_eq!(seen.get(&key(number)), Some(&1), "key {number}");
    }
    assert!(seen.values().all(|&times| times == 1));
}

#[test]
fn any_cursor_may_be_given_to_scan() {
    let mut keyspace = keyspace();
    let db = keyspace.db(0);
    for number in 0..5_000 {
        db.set_string(&key(number), StringInput::Int(1), SetExpiry::Clear);
    }
    let mut numbers = Numbers(9);
    for cursor in (0..1_000)
        .map(|_| numbers.next())
        .chain([u64::MAX, 1, 1 << 63])
    {
        let mut count = 0;
        let next = db.scan(cursor, 10, |_| count += 1);
        assert!(
            next == 0 || next > cursor << 16 >> 16,
            "{cursor} leads to {next}"
        );
        assert!(count < 60);
    }
}

#[test]
fn random_entries_are_about_equally_likely() {
    let mut table = Table::new(KeyHasher::new([1, 1]));
    let keys = 1_000;
    (0..keys).for_each(|number| insert(&mut table, number));
    let mut numbers = Numbers(5);
    let mut counts = HashMap::new();
    let rounds = if cfg!(miri) { 2_000 } else { 200_000 };
    for _ in 0..rounds {
        let entry = table
            .random(numbers.next())
            .expect("the table is not empty");
        *counts.entry(entry.key().to_vec()).or_insert(0u64) += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    assert!(
        most < 10 + 2 * rounds / keys,
        "the most frequent came {most} times"
    );
    assert!(
        counts.len() as u64 > keys * 8 / 10,
        "{} of {keys} keys came",
        counts.len()
    );
    (1..keys).for_each(|number| assert!(remove(&mut table, number)));
    assert_eq!(
        table
            .random(numbers.next())
            .map(|entry| entry.key().to_vec()),
        Some(key(0))
    );
    assert!(remove(&mut table, 0));
    assert!(table.random(numbers.next()).is_none());
}
