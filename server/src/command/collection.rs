//! What the families of collections share: typed access to a key's value, scans, random picks.
//!
//! Owns: the rules that a key with a collection is made by its first element and goes with its
//! last, and that a change is reported to watchers only if there was one. Called by: `hash.rs`,
//! `list.rs`, `set.rs`, `sorted_set/`.

use std::collections::HashSet;

use resp::{Args, ReplyWriter};

use super::{
    args,
    context::RandomWords,
    effects::Effects,
    error::{CommandError, CommandResult},
};
use crate::{
    glob,
    keyspace::{
        Db, SetExpiry, ValueMut, ValueRef,
        types::{
            entry::Element, hash::Hash, list::List, set::Set, sorted_set::SortedSet, value::Value,
        },
    },
};

const OUT_OF_RANGE: CommandError = CommandError::new("ERR value is out of range");
const REPLY_TOO_LARGE: CommandError = CommandError::new(
    "ERR the reply would have more than 512 MB, ask for fewer elements at a time",
);

/// Elements that a scan returns unless `COUNT` says otherwise.
const DEFAULT_SCAN_COUNT: usize = 10;
/// Steps of a scan for each element asked for, before it answers with what it has.
const SCAN_STEPS_PER_ELEMENT: usize = 10;
/// Most elements that a command with a negative count repeats; Redis has no limit and dies of it.
const MAX_REPEATED_ELEMENTS: usize = 16 << 20;
/// Most bytes of their reply: few big elements, repeated, are as much as many small ones.
const MAX_REPEATED_BYTES: usize = 512 << 20;

/// Elements of one command that a removal of many is propagated as.
pub const MAX_PROPAGATED_ELEMENTS: usize = 1024;

/// A type of value that has elements.
pub trait Collection: Sized {
    /// The value at a key, if it is of this type.
    fn of(value: ValueRef<'_>) -> Option<&Self>;
    /// The value at a key to change, if it is of this type.
    fn of_mut(value: ValueMut<'_>) -> Option<&mut Self>;
    /// As a value to store.
    fn into_value(self) -> Value;
    /// Whether it has no element left.
    fn has_no_element(&self) -> bool;
}

macro_rules! collections {
    ($($name:ident),*) => {$(
        impl Collection for $name {
            #[inline]
            fn of(value: ValueRef<'_>) -> Option<&Self> {
                if let ValueRef::$name(found) = value { Some(found) } else { None }
            }

            #[inline]
            fn of_mut(value: ValueMut<'_>) -> Option<&mut Self> {
                if let ValueMut::$name(found) = value { Some(found) } else { None }
            }

            fn into_value(self) -> Value {
                Value::$name(self)
            }

            fn has_no_element(&self) -> bool {
                self.is_empty()
            }
        }
    )*};
}

collections!(Hash, List, Set, SortedSet);

/// The collection at `key`, to read. Counts as a use of the key.
#[inline]
pub fn read<'a, T: Collection>(db: &'a mut Db, key: &[u8]) -> Result<Option<&'a T>, CommandError> {
    match db.get(key) {
        None => Ok(None),
        Some(entry) => T::of(entry.value())
            .map(Some)
            .ok_or(CommandError::WRONG_TYPE),
    }
}

/// The collection at `key` once more, after [`read`] has checked the type: several at a time.
pub fn again<'a, T: Collection>(db: &'a Db, key: &[u8]) -> Option<&'a T> {
    T::of(db.peek(key)?.value())
}

/// Changes the collection at `key` if there is one. `apply` answers the number of changes (0: none)
/// and a result. A collection that became empty goes with its key.
#[inline]
pub fn change<T: Collection, R>(
    db: &mut Db,
    key: &[u8],
    apply: impl FnOnce(&mut T) -> (u64, R),
) -> Result<Option<(u64, R)>, CommandError> {
    let Some(mut entry) = db.get_mut(key) else {
        return Ok(None);
    };
    let value = T::of_mut(entry.value_mut_quietly()).ok_or(CommandError::WRONG_TYPE)?;
    let outcome = apply(value);
    let is_empty = value.has_no_element();
    if outcome.0 > 0 {
        entry.report_change();
    }
    if is_empty {
        entry.delete();
    }
    Ok(Some(outcome))
}

/// As [`change`]; makes the collection if there is none.
#[inline]
pub fn change_or_create<T: Collection, R>(
    db: &mut Db,
    key: &[u8],
    create: impl FnOnce() -> T,
    apply: impl FnOnce(&mut T) -> (u64, R),
) -> Result<(u64, R), CommandError> {
    if let Some(mut entry) = db.get_mut(key) {
        let value = T::of_mut(entry.value_mut_quietly()).ok_or(CommandError::WRONG_TYPE)?;
        let outcome = apply(value);
        if outcome.0 > 0 {
            entry.report_change();
        }
        return Ok(outcome);
    }
    let mut new = create();
    let outcome = apply(&mut new);
    if !new.has_no_element() {
        db.set(key, new.into_value(), SetExpiry::Clear);
    }
    Ok(outcome)
}

/// Puts `value` in place of whatever is at `key`; an empty one only removes the key. Answers the
/// number of changes.
pub fn store<T: Collection>(db: &mut Db, key: &[u8], value: T) -> u64 {
    if value.has_no_element() {
        return u64::from(db.remove(key));
    }
    db.set(key, value.into_value(), SetExpiry::Clear);
    1
}

/// Propagates a removal by the names of what was removed; `command` is SREM or ZREM.
pub fn propagate_removal(effects: &mut Effects, command: &str, key: &[u8], removed: &[Vec<u8>]) {
    for elements in removed.chunks(MAX_PROPAGATED_ELEMENTS) {
        let words: Vec<&[u8]> = [command.as_bytes(), key]
            .into_iter()
            .chain(elements.iter().map(Vec::as_slice))
            .collect();
        effects.propagate(words);
    }
}

/// Writes an element as a byte string.
#[inline]
pub fn reply_element(reply: &mut ReplyWriter<'_>, element: Element<'_>) {
    match element {
        Element::Integer(value) => reply.bulk_int(value),
        Element::Text(bytes) => reply.bulk(bytes),
    }
}

/// The count of a command that pops or draws: positive, or the error that Redis has for it.
pub fn positive_count(argument: &[u8]) -> Result<usize, CommandError> {
    at_least(argument, 0, "ERR value is out of range, must be positive")
}

/// An integer of at least `least`, or the error `text`.
pub fn at_least(argument: &[u8], least: i64, text: &'static str) -> Result<usize, CommandError> {
    let number = resp::parse_i64(argument).filter(|&number| number >= least);
    number
        .and_then(|number| usize::try_from(number).ok())
        .ok_or(CommandError::new(text))
}

/// How many elements LMPOP and ZMPOP take: what follows their `LEFT` or `MIN`.
pub fn pop_count(options: Args<'_>) -> Result<usize, CommandError> {
    let Some(word) = options.get(0) else {
        return Ok(1);
    };
    let count = options.get(1).filter(|_| args::is(word, "COUNT"));
    let count = count.ok_or(CommandError::SYNTAX)?;
    let count = at_least(count, 1, "ERR count should be greater than 0")?;
    match options.len() {
        2 => Ok(count),
        _ => Err(CommandError::SYNTAX),
    }
}

/// How many elements a command draws at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Up to that many different ones.
    Unique(usize),
    /// That many, each drawn from all.
    Repeated(usize),
}

impl Draw {
    /// The count argument of HRANDFIELD, SRANDMEMBER and ZRANDMEMBER: negative counts repeat.
    pub fn parse(argument: &[u8]) -> Result<Self, CommandError> {
        let count = args::integer(argument)?;
        match usize::try_from(count) {
            Ok(count) => Ok(Self::Unique(count)),
            Err(_) if count == i64::MIN => Err(CommandError::new(
                "ERR value is out of range, value must between -9223372036854775807 and \
                 9223372036854775807",
            )),
            Err(_) => {
                let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
                Ok(Self::Repeated(count))
            }
        }
    }

    /// Refuses what would be too many with a value or score each.
    pub fn check_pairs(self) -> CommandResult {
        const MOST: usize = i64::MAX as usize / 2;
        match self {
            Self::Unique(count) | Self::Repeated(count) if count > MOST => Err(OUT_OF_RANGE),
            Self::Unique(_) | Self::Repeated(_) => Ok(()),
        }
    }
}

/// Writes `count` elements, each drawn from all: from `packed`, all elements of an encoding in which every draw is a walk,
/// or by `draw`. An error where that would be too many.
pub fn reply_repeated<T: Copy>(
    reply: &mut ReplyWriter<'_>,
    count: usize,
    packed: Option<impl Iterator<Item = T>>,
    draw: impl Fn(&mut RandomWords) -> Option<T>,
    write: impl Fn(&mut ReplyWriter<'_>, T),
    random: &mut RandomWords,
) -> CommandResult {
    if count > MAX_REPEATED_ELEMENTS {
        return Err(OUT_OF_RANGE);
    }
    let packed = packed.filter(|_| count > 1);
    let packed: Option<Vec<T>> = packed.map(Iterator::collect);
    let drawn = (0..count).filter_map(|_| match &packed {
        Some(all) if all.is_empty() => None,
        Some(all) => all.get(random.below(all.len())).copied(),
        None => draw(random),
    });
    write_within(reply, MAX_REPEATED_BYTES, drawn, write)
}

/// Writes elements; an error once the reply has more than `most_bytes`.
fn write_within<T>(
    reply: &mut ReplyWriter<'_>,
    most_bytes: usize,
    mut elements: impl Iterator<Item = T>,
    write: impl Fn(&mut ReplyWriter<'_>, T),
) -> CommandResult {
    let start = reply.len();
    elements.try_for_each(|element| {
        write(reply, element);
        if reply.len() - start > most_bytes {
            return Err(REPLY_TOO_LARGE);
        }
        Ok(())
    })
}

/// `count` different numbers under `bound`, which is larger, in random order.
pub fn unique_numbers(count: usize, bound: usize, random: &mut RandomWords) -> Vec<usize> {
    if count > bound / 3 {
        let mut all: Vec<usize> = (0..bound).collect();
        for at in 0..count.min(bound) {
            let other = at + random.below(bound - at);
            all.swap(at, other);
        }
        all.truncate(count);
        return all;
    }
    let mut seen = HashSet::with_capacity(count);
    while seen.len() < count {
        seen.insert(random.below(bound));
    }
    seen.into_iter().collect()
}

/// `count` different elements of a collection of `len` elements, more than `count`: picked from
/// all of them where that is a good part, else drawn until enough are different.
pub fn unique_elements<'a, T: Copy>(
    (count, len): (usize, usize),
    all: impl Iterator<Item = T>,
    mut draw: impl FnMut(&mut RandomWords) -> Option<T>,
    identity: impl Fn(T) -> Element<'a>,
    random: &mut RandomWords,
) -> Vec<T> {
    if count > len / 3 {
        let all: Vec<T> = all.collect();
        let numbers = unique_numbers(count, all.len(), random);
        return numbers
            .into_iter()
            .filter_map(|number| all.get(number).copied())
            .collect();
    }
    let mut seen = HashSet::with_capacity(count);
    let mut picked = Vec::with_capacity(count);
    while picked.len() < count {
        let Some(element) = draw(random) else { break };
        if seen.insert(identity(element)) {
            picked.push(element);
        }
    }
    picked
}

/// The arguments of HSCAN, SSCAN and ZSCAN behind the key.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    cursor: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Scan<'a> {
    /// The options behind the cursor, which are looked at only where the key exists.
    pub fn options(cursor: u64, options: Args<'a>) -> Result<Self, CommandError> {
        let mut scan = Self {
            cursor,
            pattern: None,
            count: DEFAULT_SCAN_COUNT,
        };
        let mut words = options.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::SYNTAX)?;
            if args::is(word, "COUNT") {
                let count = args::integer(value)?;
                scan.count = usize::try_from(count).map_err(|_| CommandError::SYNTAX)?;
                if scan.count == 0 {
                    return Err(CommandError::SYNTAX);
                }
            } else if args::is(word, "MATCH") {
                scan.pattern = (value != b"*").then_some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(scan)
    }

    /// Whether an element is to be returned.
    pub fn takes(&self, element: Element<'_>) -> bool {
        self.pattern
            .is_none_or(|pattern| glob::matches(pattern, &element.text(), glob::Case::Sensitive))
    }

    /// Runs the scan: `step` goes on from a cursor, writes elements, and answers the next cursor
    /// and how many replies it wrote. Writes the whole reply.
    pub fn reply(
        &self,
        reply: &mut ReplyWriter<'_>,
        mut step: impl FnMut(u64, &mut ReplyWriter<'_>) -> (u64, usize),
    ) {
        let mut elements = Vec::new();
        let mut inner = ReplyWriter::new(&mut elements, reply.version());
        let mut cursor = self.cursor;
        let mut written = 0;
        for _ in 0..self.count.saturating_mul(SCAN_STEPS_PER_ELEMENT) {
            let (next, count) = step(cursor, &mut inner);
            written += count;
            cursor = next;
            if cursor == 0 || written >= self.count {
                break;
            }
        }
        reply.array(2);
        reply.bulk(cursor.to_string().as_bytes());
        reply.array(written);
        reply.raw(&elements);
    }
}

/// The reply of a scan of a key that does not exist.
pub fn reply_empty_scan(reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.array(2);
    reply.bulk(b"0");
    reply.array(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_elements_end_at_the_limit_of_their_reply() {
        let big = [b'x'; 1000];
        for (count, expected) in [(9, Ok(())), (10, Err(REPLY_TOO_LARGE))] {
            let mut out = vec![b'y'; 5000];
            let mut reply = ReplyWriter::new(&mut out, resp::Version::Resp3);
            let elements = std::iter::repeat_n(Element::Text(&big), count).chain(
                // What comes behind the limit is not even drawn.
                std::iter::from_fn(|| (count > 9).then(|| panic!("it was drawn"))),
            );
            assert_eq!(
                write_within(&mut reply, 10_000, elements, reply_element),
                expected
            );
        }
    }

    #[test]
    fn unique_numbers_are_unique_at_any_ratio() {
        let mut random = RandomWords::new(7);
        for (count, bound) in [(0, 5), (1, 100), (30, 100), (40, 100), (100, 100)] {
            let numbers = unique_numbers(count, bound, &mut random);
            assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), count);
            assert!(numbers.iter().all(|&number| number < bound));
        }
    }
}
