//! Lists: LPUSH, LPOP, LRANGE, LMOVE and their kin.
//!
//! Specs on top, handlers below in the same order. The data structure is
//! `keyspace::types::list::List`; propagation is the request itself, except LMPOP, whose effect is
//! an LPOP or RPOP. Tests against a real Redis are in `tests/tests/processes/diff/list.rs`.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Group, KeySpec, args,
    collection::{
        at_least, change, change_or_create, pop_count, positive_count, read, reply_element,
    },
    context::Authority,
    error::CommandResult,
};
use crate::keyspace::types::{
    entry::Needle,
    list::{Direction, End, List, Side},
};

const fn spec(name: &'static str, arity: i32, handler: super::spec::Handler) -> CommandSpec {
    CommandSpec::new(name, Group::List, arity, handler)
}

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("lpush", -3, lpush).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "1.0.0",
        "Prepends one or more elements to a list. Creates the key if it doesn't exist.",
    ),
    spec("rpush", -3, rpush).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "1.0.0",
        "Appends one or more elements to a list. Creates the key if it doesn't exist.",
    ),
    spec("lpushx", -3, lpushx).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "2.2.0",
        "Prepends one or more elements to a list only when the list exists.",
    ),
    spec("rpushx", -3, rpushx).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "2.2.0",
        "Appends an element to a list only when the list exists.",
    ),
    spec("lpop", -2, lpop).writes(KeySpec::FIRST).uses(&["RW access delete"]).fast().doc(
        "1.0.0",
        "Returns the first elements in a list after removing it. Deletes the list if the last element was popped.",
    ),
    spec("rpop", -2, rpop).writes(KeySpec::FIRST).uses(&["RW access delete"]).fast().doc(
        "1.0.0",
        "Returns and removes the last elements of a list. Deletes the list if the last element was popped.",
    ),
    spec("lmpop", -4, lmpop).writes(KeySpec::Counted { count: 1, extra: 0 }).uses(&["RW access delete"]).doc(
        "7.0.0",
        "Returns multiple elements from a list after removing them. Deletes the list if the last element was popped.",
    ),
    spec("llen", 2, llen).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc("1.0.0", "Returns the length of a list."),
    spec("lindex", 3, lindex).reads(KeySpec::FIRST).doc(
        "1.0.0",
        "Returns an element from a list by its index.",
    ),
    spec("lset", 4, lset).writes(KeySpec::FIRST).grows().doc(
        "1.0.0",
        "Sets the value of an element in a list by its index.",
    ),
    spec("linsert", 5, linsert).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().doc(
        "2.2.0",
        "Inserts an element before or after another element in a list.",
    ),
    spec("lrange", 4, lrange).reads(KeySpec::FIRST).doc(
        "1.0.0",
        "Returns a range of elements from a list.",
    ),
    spec("ltrim", 4, ltrim).writes(KeySpec::FIRST).uses(&["RW delete"]).doc(
        "1.0.0",
        "Removes elements from both ends a list. Deletes the list if all elements were trimmed.",
    ),
    spec("lrem", 4, lrem).writes(KeySpec::FIRST).uses(&["RW delete"]).doc(
        "1.0.0",
        "Removes elements from a list. Deletes the list if the last element was removed.",
    ),
    spec("lpos", -3, lpos).reads(KeySpec::FIRST).doc(
        "6.0.6",
        "Returns the index of matching elements in a list.",
    ),
    spec("lmove", 5, lmove).writes(KeySpec::Two).uses(&["RW access delete", "RW insert"]).grows().doc(
        "6.2.0",
        "Returns an element after popping it from one list and pushing it to another. Deletes the list if the last element was moved.",
    ),
    spec("rpoplpush", 3, rpoplpush).writes(KeySpec::Two).uses(&["RW access delete", "RW insert"]).grows().doc(
        "1.2.0",
        "Returns the last element of a list after removing and pushing it to another list. Deletes the list if the last element was popped.",
    ),
];

fn lpush(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    push(cx, args, End::Head)
}

fn rpush(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    push(cx, args, End::Tail)
}

fn push(cx: &mut Context<'_>, args: Args<'_>, end: End) -> CommandResult {
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let (changes, length) = change_or_create(db, &args[1], List::new, |list| {
        push_all(list, args.tail(2), end, &limits)
    })?;
    cx.effects.changed(changes);
    cx.reply.integer(length as i64);
    Ok(())
}

fn push_all(
    list: &mut List,
    elements: Args<'_>,
    end: End,
    limits: &crate::keyspace::types::EncodingLimits,
) -> (u64, usize) {
    if elements.len() > 1 {
        let bytes = elements.iter().map(<[u8]>::len).sum();
        list.prepare_for(elements.len(), bytes, limits);
    }
    elements
        .iter()
        .for_each(|element| list.push(end, element, limits));
    (elements.len() as u64, list.len())
}

fn lpushx(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    push_existing(cx, args, End::Head)
}

fn rpushx(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    push_existing(cx, args, End::Tail)
}

fn push_existing(cx: &mut Context<'_>, args: Args<'_>, end: End) -> CommandResult {
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let pushed = change(db, &args[1], |list| {
        push_all(list, args.tail(2), end, &limits)
    })?;
    let (changes, length) = pushed.unwrap_or_default();
    cx.effects.changed(changes);
    cx.reply.integer(length as i64);
    Ok(())
}

fn lpop(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    pop(cx, args, End::Head, "lpop")
}

fn rpop(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    pop(cx, args, End::Tail, "rpop")
}

fn pop(cx: &mut Context<'_>, args: Args<'_>, end: End, name: &str) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::wrong_arity(name));
    }
    let limits = cx.limits;
    let Some(count) = args.get(2) else {
        let db = cx.keyspace.db(cx.session.db);
        let reply = &mut cx.reply;
        let popped = change(db, &args[1], |list: &mut List| {
            let popped = list.pop(end, &limits, |element| reply_element(reply, element));
            (u64::from(popped.is_some()), ())
        })?;
        match popped {
            Some((changes, ())) => cx.effects.changed(changes),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let count = positive_count(count)?;
    if pop_many(cx, &args[1], end, count)?.is_none() {
        cx.reply.null_array();
    }
    Ok(())
}

/// Pops up to `count` elements into an array reply; `None`, and no reply, where there is no list.
fn pop_many(
    cx: &mut Context<'_>,
    key: &[u8],
    end: End,
    count: usize,
) -> Result<Option<usize>, CommandError> {
    let limits = cx.limits;
    let reply = &mut cx.reply;
    let db = cx.keyspace.db(cx.session.db);
    let popped = change(db, key, |list: &mut List| {
        let count = count.min(list.len());
        reply.array(count);
        for _ in 0..count {
            list.pop(end, &limits, |element| reply_element(reply, element));
        }
        (count as u64, count)
    })?;
    Ok(popped.map(|(changes, count)| {
        cx.effects.changed(changes);
        count
    }))
}

/// `LEFT` or `RIGHT`.
fn end_of(word: &[u8]) -> Result<End, CommandError> {
    if args::is(word, "LEFT") {
        Ok(End::Head)
    } else if args::is(word, "RIGHT") {
        Ok(End::Tail)
    } else {
        Err(CommandError::SYNTAX)
    }
}

fn lmpop(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let numkeys = at_least(&args[1], 1, "ERR numkeys should be greater than 0")?;
    let where_at = numkeys.saturating_add(2);
    let end = end_of(args.get(where_at).ok_or(CommandError::SYNTAX)?)?;
    let count = pop_count(args.tail(where_at + 1))?;
    for key in args.tail(2).iter().take(numkeys) {
        if read::<List>(cx.keyspace.db(cx.session.db), key)?.is_none() {
            continue;
        }
        cx.reply.array(2);
        cx.reply.bulk(key);
        if let Some(popped) = pop_many(cx, key, end, count)? {
            let name: &[u8] = match end {
                End::Head => b"LPOP",
                End::Tail => b"RPOP",
            };
            cx.effects
                .propagate([name, key, &resp::format_i64(popped as i64)]);
        }
        return Ok(());
    }
    cx.reply.null_array();
    Ok(())
}

fn llen(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let list = read::<List>(cx.keyspace.db(cx.session.db), &args[1])?;
    cx.reply.integer(list.map_or(0, List::len) as i64);
    Ok(())
}

fn lindex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let Some(list) = read::<List>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.null();
        return Ok(());
    };
    let index = args::integer(&args[2])?;
    match list.resolve(index).and_then(|index| list.get(index)) {
        Some(element) => reply_element(&mut cx.reply, element),
        None => cx.reply.null(),
    }
    Ok(())
}

fn lset(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let list = read::<List>(db, &args[1])?.ok_or(CommandError::NO_SUCH_KEY)?;
    let index = args::integer(&args[2])?;
    let index = list.resolve(match cx.authority {
        Authority::Own => index,
        // Redis 7.2 and Valkey look at 32 bits of it.
        Authority::Master => i64::from(index as i32),
    });
    change(db, &args[1], |list: &mut List| match index {
        Some(index) => {
            list.set(index, &args[3], &limits);
            (1, ())
        }
        None => {
            // As if it were there, as in Redis: OBJECT ENCODING tells.
            list.prepare_for(1, args[3].len(), &limits);
            (0, ())
        }
    })?;
    index.ok_or(CommandError::OUT_OF_RANGE)?;
    cx.effects.changed(1);
    cx.reply.ok();
    Ok(())
}

fn linsert(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let side = if args::is(&args[2], "AFTER") {
        Side::After
    } else if args::is(&args[2], "BEFORE") {
        Side::Before
    } else {
        return Err(CommandError::SYNTAX);
    };
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let inserted = change(db, &args[1], |list: &mut List| {
        // Before the search, as in Redis: OBJECT ENCODING tells.
        list.prepare_for(1, args[4].len(), &limits);
        match list.position(&args[3]) {
            Some(index) => {
                list.insert(index, side, &args[4], &limits);
                (1, list.len() as i64)
            }
            None => (0, -1),
        }
    })?;
    let (changes, length) = inserted.unwrap_or_default();
    cx.effects.changed(changes);
    cx.reply.integer(length);
    Ok(())
}

/// The first index and the number of elements of `start..=end` in a list of `len`, where negative
/// indexes count from the end.
pub(super) fn index_range(start: i64, end: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let absolute = |index: i64| {
        if index < 0 {
            index.saturating_add(len)
        } else {
            index
        }
    };
    let (start, end) = (absolute(start).max(0), absolute(end).min(len - 1));
    if start > end {
        (0, 0)
    } else {
        (start as usize, (end - start + 1) as usize)
    }
}

fn lrange(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (args::integer(&args[2])?, args::integer(&args[3])?);
    let Some(list) = read::<List>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    let (start, count) = index_range(start, end, list.len());
    cx.reply.array(count);
    for element in list.iter_from(start).take(count) {
        reply_element(&mut cx.reply, element);
    }
    Ok(())
}

fn ltrim(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (args::integer(&args[2])?, args::integer(&args[3])?);
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let trimmed = change(db, &args[1], |list: &mut List| {
        let before = list.len();
        let (start, count) = index_range(start, end, before);
        if count < before {
            list.trim(start, count, &limits);
        }
        // Redis counts only what is cut off, but tells those who watch the key in any case.
        (1, (before - count) as u64)
    })?;
    cx.effects
        .changed(trimmed.map_or(0, |(_, removed)| removed));
    cx.reply.ok();
    Ok(())
}

fn lrem(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let count = args::integer(&args[2])?;
    let direction = if count < 0 {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let most = match count {
        0 => usize::MAX,
        count => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
    };
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let removed = change(db, &args[1], |list: &mut List| {
        (
            list.remove_matching(&args[3], direction, most, &limits) as u64,
            (),
        )
    })?;
    let removed = removed.map_or(0, |(changes, ())| changes);
    cx.effects.changed(removed);
    if removed > 0 && count == i64::MIN {
        // Newer servers refuse this count, which has no opposite: 0 removes all, too.
        cx.effects.propagate([b"LREM", &args[1], b"0", &args[3]]);
    }
    cx.reply.integer(removed as i64);
    Ok(())
}

const RANK_IS_ZERO: CommandError = CommandError::new(
    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
     or use negative to start from the end of the list",
);

/// What LPOS looks for.
struct PositionQuery {
    direction: Direction,
    /// Matches to pass over.
    skip: usize,
    /// Matches to report; `None` for one, not as an array.
    count: Option<usize>,
    /// Elements to look at.
    most: usize,
}

fn position_query(options: Args<'_>) -> Result<PositionQuery, CommandError> {
    let mut query = PositionQuery {
        direction: Direction::Forward,
        skip: 0,
        count: None,
        most: usize::MAX,
    };
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or(CommandError::SYNTAX)?;
        if args::is(word, "RANK") {
            let rank = args::integer(value)?;
            if rank == i64::MIN {
                return Err(CommandError::new(
                    "ERR value is out of range, value must between -9223372036854775807 and \
                     9223372036854775807",
                ));
            }
            let magnitude = usize::try_from(rank.unsigned_abs()).unwrap_or(usize::MAX);
            query.skip = magnitude.checked_sub(1).ok_or(RANK_IS_ZERO)?;
            query.direction = if rank < 0 {
                Direction::Backward
            } else {
                Direction::Forward
            };
        } else if args::is(word, "COUNT") {
            let count = at_least(value, 0, "ERR COUNT can't be negative")?;
            query.count = Some(if count == 0 { usize::MAX } else { count });
        } else if args::is(word, "MAXLEN") {
            let most = at_least(value, 0, "ERR MAXLEN can't be negative")?;
            query.most = if most == 0 { usize::MAX } else { most };
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(query)
}

fn lpos(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let query = position_query(args.tail(3))?;
    let Some(list) = read::<List>(cx.keyspace.db(cx.session.db), &args[1])? else {
        match query.count {
            Some(_) => cx.reply.array(0),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let needle = Needle::new(&args[2]);
    let len = list.len();
    let mut elements: Box<dyn Iterator<Item = _>> = match query.direction {
        Direction::Forward => Box::new(list.iter().enumerate()),
        Direction::Backward => Box::new((0..len).rev().zip(list.iter().rev())),
    };
    let mut found = elements
        .by_ref()
        .take(query.most)
        .filter(|(_, element)| needle.matches(*element))
        .map(|(index, _)| index as i64)
        .skip(query.skip);
    let Some(count) = query.count else {
        match found.next() {
            Some(index) => cx.reply.integer(index),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let mark = cx.reply.begin_array();
    let mut written = 0;
    for index in found.take(count) {
        cx.reply.integer(index);
        written += 1;
    }
    cx.reply.finish_array(mark, written);
    Ok(())
}

fn lmove(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (end_of(&args[3])?, end_of(&args[4])?);
    move_element(cx, &args[1], from, &args[2], to)
}

fn rpoplpush(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    move_element(cx, &args[1], End::Tail, &args[2], End::Head)
}

fn move_element(
    cx: &mut Context<'_>,
    source: &[u8],
    from: End,
    target: &[u8],
    to: End,
) -> CommandResult {
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    if read::<List>(db, source)?.is_none() {
        cx.reply.null();
        return Ok(());
    }
    read::<List>(db, target)?;
    let reply = &mut cx.reply;
    let mut moved = Vec::new();
    // Within one list the element is put back before the list can be seen empty, and deleted.
    change(db, source, |list: &mut List| {
        list.pop(from, &limits, |element| {
            reply_element(reply, element);
            moved.extend_from_slice(&element.text());
        });
        if source == target {
            list.push(to, &moved, &limits);
        }
        (1, ())
    })?;
    if source != target {
        change_or_create(db, target, List::new, |list| {
            list.push(to, &moved, &limits);
            (1, ())
        })?;
    }
    cx.effects.changed(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_as_redis_does() {
        assert_eq!(index_range(0, -1, 5), (0, 5));
        assert_eq!(index_range(-3, -2, 5), (2, 2));
        assert_eq!(index_range(-100, 100, 5), (0, 5));
        assert_eq!(index_range(3, 1, 5), (0, 0));
        assert_eq!(index_range(5, 10, 5), (0, 0));
        assert_eq!(index_range(0, -1, 0), (0, 0));
        assert_eq!(index_range(i64::MIN, i64::MIN, 5), (0, 0));
    }
}
