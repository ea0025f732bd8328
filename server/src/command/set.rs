//! Sets: SADD, SPOP, SINTER and their kin.
//!
//! Specs on top, handlers below in the same order. The data structure is
//! `keyspace::types::set::Set`; propagation is the request itself, except SPOP, whose effect is an
//! SREM of what chance chose, or a DEL. Tests against a real Redis are in `tests/tests/processes/diff/set.rs`.

use resp::Args;

use super::{
    CommandError, CommandSpec, Context, Group, KeySpec, args,
    collection::{
        Draw, Scan, again, at_least, change, change_or_create, positive_count, propagate_removal,
        read, reply_element, reply_empty_scan, reply_repeated, store, unique_elements,
    },
    error::CommandResult,
};
use crate::keyspace::{
    Db,
    types::{EncodingLimits, entry::Element, hash::Written, set::Set},
};

const fn spec(name: &'static str, arity: i32, handler: super::spec::Handler) -> CommandSpec {
    CommandSpec::new(name, Group::Set, arity, handler)
}

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("sadd", -3, sadd).writes(KeySpec::FIRST).uses(&["RW insert"]).grows().fast().doc(
        "1.0.0",
        "Adds one or more members to a set. Creates the key if it doesn't exist.",
    ),
    spec("srem", -3, srem).writes(KeySpec::FIRST).uses(&["RW delete"]).fast().doc(
        "1.0.0",
        "Removes one or more members from a set. Deletes the set if the last member was removed.",
    ),
    spec("smove", 4, smove).writes(KeySpec::Two).uses(&["RW access delete", "RW insert"]).fast().doc(
        "1.0.0",
        "Moves a member from one set to another.",
    ),
    spec("spop", -2, spop).writes(KeySpec::FIRST).uses(&["RW access delete"]).fast().doc(
        "1.0.0",
        "Returns one or more random members from a set after removing them. Deletes the set if the last member was popped.",
    ),
    spec("srandmember", -2, srandmember).reads(KeySpec::FIRST).doc(
        "1.0.0",
        "Get one or multiple random members from a set",
    ),
    spec("sismember", 3, sismember).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "1.0.0",
        "Determines whether a member belongs to a set.",
    ),
    spec("smismember", -3, smismember).reads(KeySpec::FIRST).fast().doc(
        "6.2.0",
        "Determines whether multiple members belong to a set.",
    ),
    spec("scard", 2, scard).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "1.0.0",
        "Returns the number of members in a set.",
    ),
    spec("smembers", 2, smembers).reads(KeySpec::FIRST).doc(
        "1.0.0",
        "Returns all members of a set.",
    ),
    spec("sinter", -2, sinter).reads(KeySpec::ALL).doc(
        "1.0.0",
        "Returns the intersect of multiple sets.",
    ),
    spec("sintercard", -3, sintercard).reads(KeySpec::Counted { count: 1, extra: 0 }).doc(
        "7.0.0",
        "Returns the number of members of the intersect of multiple sets.",
    ),
    spec("sinterstore", -3, sinterstore).writes(KeySpec::TargetAndAll).uses(&["OW update", "RO access"]).grows().doc(
        "1.0.0",
        "Stores the intersect of multiple sets in a key.",
    ),
    spec("sunion", -2, sunion).reads(KeySpec::ALL).doc(
        "1.0.0",
        "Returns the union of multiple sets.",
    ),
    spec("sunionstore", -3, sunionstore).writes(KeySpec::TargetAndAll).uses(&["OW update", "RO access"]).grows().doc(
        "1.0.0",
        "Stores the union of multiple sets in a key.",
    ),
    spec("sdiff", -2, sdiff).reads(KeySpec::ALL).doc(
        "1.0.0",
        "Returns the difference of multiple sets.",
    ),
    spec("sdiffstore", -3, sdiffstore).writes(KeySpec::TargetAndAll).uses(&["OW update", "RO access"]).grows().doc(
        "1.0.0",
        "Stores the difference of multiple sets in a key.",
    ),
    spec("sscan", -3, sscan).reads(KeySpec::FIRST).doc("2.8.0", "Iterates over members of a set."),
];

fn sadd(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let limits = cx.limits;
    let members = args.tail(2);
    let db = cx.keyspace.db(cx.session.db);
    let (changes, ()) = change_or_create(
        db,
        &args[1],
        || Set::for_members(&args[2], members.len(), &limits),
        |set| {
            set.prepare_for(members.len(), &limits);
            let new = members
                .iter()
                .filter(|member| set.insert(member, &limits) == Written::New);
            (new.count() as u64, ())
        },
    )?;
    cx.effects.changed(changes);
    cx.reply.integer(changes as i64);
    Ok(())
}

fn srem(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let removed = change(db, &args[1], |set: &mut Set| {
        let removed = args
            .tail(2)
            .iter()
            .filter(|member| set.remove(member))
            .count();
        (removed as u64, ())
    })?;
    let removed = removed.map_or(0, |(changes, ())| changes);
    cx.effects.changed(removed);
    cx.reply.integer(removed as i64);
    Ok(())
}

fn smove(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (source, target, member) = (&args[1], &args[2], &args[3]);
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let Some(set) = read::<Set>(db, source)? else {
        cx.reply.integer(0);
        return Ok(());
    };
    let is_member = set.contains(member);
    read::<Set>(db, target)?;
    if source == target || !is_member {
        cx.reply.integer(i64::from(is_member));
        return Ok(());
    }
    change(db, source, |set: &mut Set| (1, set.remove(member)))?;
    let (added, ()) = change_or_create(
        db,
        target,
        || Set::for_members(member, 1, &limits),
        |set| (u64::from(set.insert(member, &limits) == Written::New), ()),
    )?;
    cx.effects.changed(1 + added);
    cx.reply.integer(1);
    Ok(())
}

fn spop(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let key = &args[1];
    let count = args.get(2).map(positive_count).transpose()?;
    let db = cx.keyspace.db(cx.session.db);
    let Some(set) = read::<Set>(db, key)? else {
        match count {
            Some(_) => cx.reply.set(0),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let random = &mut *cx.random;
    let drawn =
        |random: &mut super::context::RandomWords| set.random(&mut |bound| random.below(bound));
    let popped: Vec<Vec<u8>> = match count {
        Some(count) if count >= set.len() => {
            cx.reply.set(set.len());
            set.iter()
                .for_each(|member| reply_element(&mut cx.reply, member));
            cx.effects.changed(set.len() as u64);
            cx.effects.propagate([b"DEL".as_slice(), key]);
            db.remove(key);
            return Ok(());
        }
        Some(count) => {
            let lengths = (count, set.len());
            unique_elements(lengths, set.iter(), drawn, |member| member, random)
                .into_iter()
                .map(Element::to_vec)
                .collect()
        }
        None => drawn(random).into_iter().map(Element::to_vec).collect(),
    };
    if count.is_some() {
        cx.reply.set(popped.len());
    }
    popped.iter().for_each(|member| cx.reply.bulk(member));
    change(db, key, |set: &mut Set| {
        let removed = popped.iter().filter(|member| set.remove(member)).count();
        (removed as u64, ())
    })?;
    cx.effects.changed(popped.len() as u64);
    propagate_removal(cx.effects, "SREM", key, &popped);
    Ok(())
}

fn srandmember(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let draw = args.get(2).map(Draw::parse).transpose()?;
    let set = read::<Set>(cx.keyspace.db(cx.session.db), &args[1])?;
    let random = &mut *cx.random;
    let reply = &mut cx.reply;
    match (draw, set) {
        (Some(_), None) => reply.array(0),
        (None, set) => match set.and_then(|set| set.random(&mut |bound| random.below(bound))) {
            Some(member) => reply_element(reply, member),
            None => reply.null(),
        },
        (Some(Draw::Repeated(count)), Some(set)) => {
            reply.array(count);
            reply_repeated(
                reply,
                count,
                set.compact().map(|_| set.iter()),
                |random| set.random(&mut |bound| random.below(bound)),
                reply_element,
                random,
            )?;
        }
        (Some(Draw::Unique(count)), Some(set)) if count >= set.len() => {
            reply.array(set.len());
            set.iter().for_each(|member| reply_element(reply, member));
        }
        (Some(Draw::Unique(count)), Some(set)) => {
            let draw = |random: &mut super::context::RandomWords| {
                set.random(&mut |bound| random.below(bound))
            };
            let picked = unique_elements(
                (count, set.len()),
                set.iter(),
                draw,
                |member| member,
                random,
            );
            reply.array(picked.len());
            picked
                .into_iter()
                .for_each(|member| reply_element(reply, member));
        }
    }
    Ok(())
}

fn sismember(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let set = read::<Set>(cx.keyspace.db(cx.session.db), &args[1])?;
    let found = set.is_some_and(|set| set.contains(&args[2]));
    cx.reply.integer(i64::from(found));
    Ok(())
}

fn smismember(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let set = read::<Set>(cx.keyspace.db(cx.session.db), &args[1])?;
    let members = args.tail(2);
    cx.reply.array(members.len());
    for member in members.iter() {
        let found = set.is_some_and(|set| set.contains(member));
        cx.reply.integer(i64::from(found));
    }
    Ok(())
}

fn scard(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let set = read::<Set>(cx.keyspace.db(cx.session.db), &args[1])?;
    cx.reply.integer(set.map_or(0, Set::len) as i64);
    Ok(())
}

fn smembers(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let Some(set) = read::<Set>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.set(0);
        return Ok(());
    };
    cx.reply.set(set.len());
    set.iter()
        .for_each(|member| reply_element(&mut cx.reply, member));
    Ok(())
}

/// The sets at `keys`, `None` for keys that do not exist. A key of another type is an error, even
/// where the others already decide the result.
fn sets_at<'a>(
    db: &'a mut Db,
    keys: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Vec<Option<&'a Set>>, CommandError> {
    for key in keys.clone() {
        read::<Set>(db, key)?;
    }
    let db = &*db;
    Ok(keys.map(|key| again(db, key)).collect())
}

/// Members that are in all sets, found from the smallest; nothing where one is missing.
fn intersection<'a>(sets: &[Option<&'a Set>]) -> Box<dyn Iterator<Item = Element<'a>> + 'a> {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else {
        return Box::new(std::iter::empty());
    };
    sets.sort_by_key(|set| set.len());
    let Some((&smallest, others)) = sets.split_first() else {
        return Box::new(std::iter::empty());
    };
    let others = others.to_vec();
    Box::new(smallest.iter().filter(move |member| {
        let text = member.text();
        others.iter().all(|set| set.contains(&text))
    }))
}

/// Members that are in any set, as a set.
fn union(sets: &[Option<&Set>], limits: &EncodingLimits) -> Set {
    let mut all = Set::new();
    for member in sets.iter().flatten().flat_map(|set| set.iter()) {
        all.insert(&member.text(), limits);
    }
    all
}

/// Members of the first set that are in no other.
fn difference<'a>(sets: &[Option<&'a Set>]) -> Box<dyn Iterator<Item = Element<'a>> + 'a> {
    let Some((&Some(first), others)) = sets.split_first() else {
        return Box::new(std::iter::empty());
    };
    let others: Vec<&Set> = others.iter().flatten().copied().collect();
    Box::new(first.iter().filter(move |member| {
        let text = member.text();
        !others.iter().any(|set| set.contains(&text))
    }))
}

/// Writes members as a set.
fn reply_members<'a>(cx: &mut resp::ReplyWriter<'_>, members: impl Iterator<Item = Element<'a>>) {
    let mark = cx.begin_array();
    let mut count = 0;
    for member in members {
        reply_element(cx, member);
        count += 1;
    }
    cx.finish_set(mark, count);
}

fn sinter(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let sets = sets_at(cx.keyspace.db(cx.session.db), args.tail(1).iter())?;
    reply_members(&mut cx.reply, intersection(&sets));
    Ok(())
}

fn sunion(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let sets = sets_at(cx.keyspace.db(cx.session.db), args.tail(1).iter())?;
    let all = union(&sets, &cx.limits);
    reply_members(&mut cx.reply, all.iter());
    Ok(())
}

fn sdiff(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let sets = sets_at(cx.keyspace.db(cx.session.db), args.tail(1).iter())?;
    reply_members(&mut cx.reply, difference(&sets));
    Ok(())
}

fn sintercard(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let numkeys = at_least(&args[1], 1, "ERR numkeys should be greater than 0")?;
    if numkeys > args.len() - 2 {
        return Err(CommandError::new(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let mut limit = usize::MAX;
    let options = args.tail(2 + numkeys);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match words.next() {
            Some(value) if args::is(word, "LIMIT") => {
                let most = at_least(value, 0, "ERR LIMIT can't be negative")?;
                limit = if most == 0 { usize::MAX } else { most };
            }
            Some(_) | None => return Err(CommandError::SYNTAX),
        }
    }
    let keys = args.tail(2);
    let sets = sets_at(cx.keyspace.db(cx.session.db), keys.iter().take(numkeys))?;
    let count = intersection(&sets).take(limit).count();
    cx.reply.integer(count as i64);
    Ok(())
}

/// Stores what `combine` makes of the sets at the keys behind the first, and replies its size.
fn store_combined(
    cx: &mut Context<'_>,
    args: Args<'_>,
    combine: fn(&[Option<&Set>], &EncodingLimits) -> Set,
) -> CommandResult {
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let result = combine(&sets_at(db, args.tail(2).iter())?, &limits);
    let size = result.len();
    cx.effects.changed(store(db, &args[1], result));
    cx.reply.integer(size as i64);
    Ok(())
}

fn collect<'a>(members: impl Iterator<Item = Element<'a>>, limits: &EncodingLimits) -> Set {
    let mut set = Set::new();
    members.for_each(|member| {
        set.insert(&member.text(), limits);
    });
    set
}

fn sinterstore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    store_combined(cx, args, |sets, limits| collect(intersection(sets), limits))
}

fn sunionstore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    store_combined(cx, args, union)
}

fn sdiffstore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    store_combined(cx, args, |sets, limits| collect(difference(sets), limits))
}

fn sscan(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let cursor = args::cursor(&args[2])?;
    let Some(set) = read::<Set>(cx.keyspace.db(cx.session.db), &args[1])? else {
        return reply_empty_scan(&mut cx.reply);
    };
    let scan = Scan::options(cursor, args.tail(3))?;
    scan.reply(&mut cx.reply, |cursor, out| {
        let mut written = 0;
        let next = set.scan(cursor, &mut |member| {
            if scan.takes(member) {
                reply_element(out, member);
                written += 1;
            }
        });
        (next, written)
    });
    Ok(())
}
