//! Hashes: HSET, HGET, HGETALL and their kin.
//!
//! Specs on top, handlers below in the same order. The data structure is
//! `keyspace::types::hash::Hash`; propagation is the request itself, except HINCRBYFLOAT, whose
//! effect is an HSET. Tests against a real Redis are in `tests/tests/processes/diff/hash.rs`.

use resp::{Args, ReplyWriter, Version};

use super::{
    CommandError, CommandSpec, Context, Group, KeySpec, args,
    collection::{
        Draw, Scan, change, change_or_create, read, reply_element, reply_empty_scan,
        reply_repeated, unique_elements,
    },
    error::CommandResult,
    float80::Float80,
};
use crate::keyspace::types::{
    entry::Element,
    hash::{Hash, Written},
};

const fn spec(name: &'static str, arity: i32, handler: super::spec::Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Hash, arity, handler)
}

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("hset", -4, hset).writes(KeySpec::FIRST).grows().fast().doc(
        "2.0.0",
        "Creates or modifies the value of a field in a hash.",
    ),
    spec("hsetnx", 4, hsetnx).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "2.0.0",
        "Sets the value of a field in a hash only when the field doesn't exist.",
    ),
    spec("hmset", -4, hmset).writes(KeySpec::FIRST).grows().fast().doc(
        "2.0.0",
        "Sets the values of multiple fields.",
    ),
    spec("hget", 3, hget).reads(KeySpec::FIRST).fast().doc(
        "2.0.0",
        "Returns the value of a field in a hash.",
    ),
    spec("hmget", -3, hmget).reads(KeySpec::FIRST).fast().doc(
        "2.0.0",
        "Returns the values of all fields in a hash.",
    ),
    spec("hgetall", 2, hgetall).reads(KeySpec::FIRST).doc(
        "2.0.0",
        "Returns all fields and values in a hash.",
    ),
    spec("hkeys", 2, hkeys).reads(KeySpec::FIRST).doc("2.0.0", "Returns all fields in a hash."),
    spec("hvals", 2, hvals).reads(KeySpec::FIRST).doc("2.0.0", "Returns all values in a hash."),
    spec("hlen", 2, hlen).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "2.0.0",
        "Returns the number of fields in a hash.",
    ),
    spec("hstrlen", 3, hstrlen).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "3.2.0",
        "Returns the length of the value of a field.",
    ),
    spec("hexists", 3, hexists).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "2.0.0",
        "Determines whether a field exists in a hash.",
    ),
    spec("hdel", -3, hdel).writes(KeySpec::FIRST).uses(&["RW delete"]).fast().doc(
        "2.0.0",
        "Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.",
    ),
    spec("hincrby", 4, hincrby).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "2.0.0",
        "Increments the integer value of a field in a hash by a number. Uses 0 as initial value if the field doesn't exist.",
    ),
    spec("hincrbyfloat", 4, hincrbyfloat).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "2.6.0",
        "Increments the floating point value of a field by a number. Uses 0 as initial value if the field doesn't exist.",
    ),
    spec("hrandfield", -2, hrandfield).reads(KeySpec::FIRST).doc(
        "6.2.0",
        "Returns one or more random fields from a hash.",
    ),
    spec("hscan", -3, hscan).reads(KeySpec::FIRST).doc(
        "2.8.0",
        "Iterates over fields and values of a hash.",
    ),
];

/// Sets pairs of fields and values; answers how many fields are new.
fn set_pairs(cx: &mut Context<'_>, args: Args<'_>, name: &str) -> Result<u64, CommandError> {
    let pairs = args.tail(2);
    if !pairs.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity(name));
    }
    let limits = cx.limits;
    let count = pairs.len() / 2;
    let db = cx.keyspace.db(cx.session.db);
    let (changes, new) = change_or_create(db, &args[1], Hash::new, |hash| {
        if count > 1 {
            let largest = pairs.iter().map(<[u8]>::len).max().unwrap_or(0);
            hash.prepare_for(count, largest, &limits);
        }
        let mut new = 0;
        let mut words = pairs.iter();
        while let (Some(field), Some(value)) = (words.next(), words.next()) {
            new += u64::from(hash.set(field, value, &limits) == Written::New);
        }
        (count as u64, new)
    })?;
    cx.effects.changed(changes);
    Ok(new)
}

fn hset(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let new = set_pairs(cx, args, "hset")?;
    cx.reply.integer(new as i64);
    Ok(())
}

fn hmset(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    set_pairs(cx, args, "hmset")?;
    cx.reply.ok();
    Ok(())
}

fn hsetnx(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let limits = cx.limits;
    let (field, value) = (&args[2], &args[3]);
    let db = cx.keyspace.db(cx.session.db);
    let (changes, ()) = change_or_create(db, &args[1], Hash::new, |hash| {
        if hash.contains(field) {
            return (0, ());
        }
        hash.set(field, value, &limits);
        (1, ())
    })?;
    cx.effects.changed(changes);
    cx.reply.integer(changes as i64);
    Ok(())
}

/// The hash at the first key, to read.
fn hash_at<'a>(cx: &'a mut Context<'_>, args: Args<'_>) -> Result<Option<&'a Hash>, CommandError> {
    read(cx.keyspace.db(cx.session.db), &args[1])
}

fn reply_optional(reply: &mut ReplyWriter<'_>, element: Option<Element<'_>>) {
    match element {
        Some(element) => reply_element(reply, element),
        None => reply.null(),
    }
}

fn hget(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let hash = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])?;
    reply_optional(&mut cx.reply, hash.and_then(|hash| hash.get(&args[2])));
    Ok(())
}

fn hmget(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let hash = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])?;
    let fields = args.tail(2);
    cx.reply.array(fields.len());
    for field in fields.iter() {
        reply_optional(&mut cx.reply, hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hgetall(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let Some(hash) = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.map(0);
        return Ok(());
    };
    cx.reply.map(hash.len());
    for (field, value) in hash.iter() {
        reply_element(&mut cx.reply, field);
        reply_element(&mut cx.reply, value);
    }
    Ok(())
}

fn hkeys(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_each(cx, args, |(field, _)| field)
}

fn hvals(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_each(cx, args, |(_, value)| value)
}

/// Replies one part of every pair.
fn reply_each(
    cx: &mut Context<'_>,
    args: Args<'_>,
    part: for<'a> fn((Element<'a>, Element<'a>)) -> Element<'a>,
) -> CommandResult {
    let Some(hash) = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    cx.reply.array(hash.len());
    for pair in hash.iter() {
        reply_element(&mut cx.reply, part(pair));
    }
    Ok(())
}

fn hlen(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let length = hash_at(cx, args)?.map_or(0, Hash::len);
    cx.reply.integer(length as i64);
    Ok(())
}

fn hstrlen(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let value = hash_at(cx, args)?.and_then(|hash| hash.get(&args[2]));
    let length = value.map_or(0, |value| value.text().len());
    cx.reply.integer(length as i64);
    Ok(())
}

fn hexists(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let found = hash_at(cx, args)?.is_some_and(|hash| hash.contains(&args[2]));
    cx.reply.integer(i64::from(found));
    Ok(())
}

fn hdel(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let removed = change(db, &args[1], |hash: &mut Hash| {
        let removed = args
            .tail(2)
            .iter()
            .filter(|field| hash.remove(field))
            .count();
        (removed as u64, ())
    })?;
    let removed = removed.map_or(0, |(count, ())| count);
    cx.effects.changed(removed);
    cx.reply.integer(removed as i64);
    Ok(())
}

fn hincrby(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let field = &args[2];
    let amount = args::integer(&args[3])?;
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let (changes, sum) = change_or_create(db, &args[1], Hash::new, |hash| {
        let old = match hash.get(field) {
            None => Ok(0),
            Some(Element::Integer(value)) => Ok(value),
            Some(Element::Text(text)) => {
                resp::parse_i64(text).ok_or(CommandError::new("ERR hash value is not an integer"))
            }
        };
        let sum = old.and_then(|old| {
            let overflow = CommandError::new("ERR increment or decrement would overflow");
            old.checked_add(amount).ok_or(overflow)
        });
        if let Ok(sum) = sum {
            hash.set(field, &resp::format_i64(sum), &limits);
        }
        (u64::from(sum.is_ok()), sum)
    })?;
    let sum = sum?;
    cx.effects.changed(changes);
    cx.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (key, field) = (&args[1], &args[2]);
    let amount = Float80::parse(&args[3]).ok_or(CommandError::NOT_FLOAT)?;
    if amount.is_infinite() {
        return Err(CommandError::new("ERR value is NaN or Infinity"));
    }
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let (changes, text) = change_or_create(db, key, Hash::new, |hash| {
        let old = match hash.get(field) {
            None => Some(Float80::ZERO),
            Some(element) => Float80::parse(&element.text()),
        };
        let text = old
            .ok_or(CommandError::new("ERR hash value is not a float"))
            .and_then(|old| old.plus(amount).ok_or(CommandError::NOT_FINITE))
            .map(Float80::human);
        if let Ok(text) = &text {
            hash.set(field, text.as_bytes(), &limits);
        }
        (u64::from(text.is_ok()), text)
    })?;
    let text = text?;
    cx.effects.changed(changes);
    cx.effects.propagate([b"HSET", key, field, text.as_bytes()]);
    cx.reply.bulk(text.as_bytes());
    Ok(())
}

/// Whether HRANDFIELD and its kin answer values or scores, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    With,
    Without,
}

fn hrandfield(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let Some(count) = args.get(2) else {
        let hash = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])?;
        let drawn = hash.and_then(|hash| hash.random(&mut |bound| cx.random.below(bound)));
        reply_optional(&mut cx.reply, drawn.map(|(field, _)| field));
        return Ok(());
    };
    let draw = Draw::parse(count)?;
    let values = match (args.get(3), args.len()) {
        (None, _) => Values::Without,
        (Some(word), 4) if args::is(word, "WITHVALUES") => Values::With,
        (Some(_), _) => return Err(CommandError::SYNTAX),
    };
    if values == Values::With {
        draw.check_pairs()?;
    }
    let Some(hash) = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    let random = &mut *cx.random;
    match draw {
        Draw::Repeated(count) => {
            start_pairs(&mut cx.reply, count, values);
            reply_repeated(
                &mut cx.reply,
                count,
                hash.listpack().map(|_| hash.iter()),
                |random| hash.random(&mut |bound| random.below(bound)),
                |reply, pair| reply_pair(reply, pair, values),
                random,
            )?;
        }
        Draw::Unique(count) if count >= hash.len() => {
            start_pairs(&mut cx.reply, hash.len(), values);
            hash.iter()
                .for_each(|pair| reply_pair(&mut cx.reply, pair, values));
        }
        Draw::Unique(count) => {
            let picked = unique_elements(
                (count, hash.len()),
                hash.iter(),
                |random| hash.random(&mut |bound| random.below(bound)),
                |(field, _)| field,
                random,
            );
            start_pairs(&mut cx.reply, picked.len(), values);
            picked
                .into_iter()
                .for_each(|pair| reply_pair(&mut cx.reply, pair, values));
        }
    }
    Ok(())
}

/// The header of pairs: RESP2 gets them flat, RESP3 as arrays of two.
fn start_pairs(reply: &mut ReplyWriter<'_>, count: usize, values: Values) {
    let is_flat = values == Values::With && reply.version() == Version::Resp2;
    reply.array(if is_flat { 2 * count } else { count });
}

fn reply_pair(
    reply: &mut ReplyWriter<'_>,
    (field, value): (Element<'_>, Element<'_>),
    values: Values,
) {
    if values == Values::With && reply.version() == Version::Resp3 {
        reply.array(2);
    }
    reply_element(reply, field);
    if values == Values::With {
        reply_element(reply, value);
    }
}

fn hscan(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let cursor = args::cursor(&args[2])?;
    let Some(hash) = read::<Hash>(cx.keyspace.db(cx.session.db), &args[1])? else {
        return reply_empty_scan(&mut cx.reply);
    };
    let scan = Scan::options(cursor, args.tail(3))?;
    scan.reply(&mut cx.reply, |cursor, out| {
        let mut written = 0;
        let next = hash.scan(cursor, &mut |field, value| {
            if scan.takes(field) {
                reply_element(out, field);
                reply_element(out, value);
                written += 2;
            }
        });
        (next, written)
    });
    Ok(())
}
