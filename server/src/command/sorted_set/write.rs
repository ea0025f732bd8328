//! Adding, removing and popping members: ZADD, ZINCRBY, ZREM, ZPOPMIN, ZMPOP and their kin.

use resp::{Args, Version};

use crate::{
    command::{
        CommandError, Context, args,
        collection::{
            at_least, change, change_or_create, pop_count, positive_count, read, reply_element,
        },
        error::CommandResult,
    },
    keyspace::types::{EncodingLimits, sorted_set::SortedSet},
};

const NAN_SCORE: CommandError = CommandError::new("ERR resulting score is not a number (NaN)");

/// Which members ZADD may touch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existence {
    Any,
    New,
    Existing,
}

/// Which new scores ZADD may give to members that exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Any,
    Greater,
    Less,
}

/// What ZADD does with the score, and what it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Sets; answers the number of new members.
    Set,
    /// Sets; answers the number of new and changed members.
    SetAndCountChanged,
    /// Adds to the score; answers the new one.
    Increment,
}

#[derive(Clone, Copy)]
struct AddOptions {
    existence: Existence,
    comparison: Comparison,
    mode: Mode,
}

/// What became of one member.
#[derive(Clone, Copy, PartialEq)]
enum Added {
    /// New, with this score.
    New(f64),
    /// It has another score now.
    Changed(f64),
    /// It has the score it had.
    Same(f64),
    /// An option forbade the change.
    Refused,
}

impl AddOptions {
    /// Reads the options; answers them and where the scores begin.
    fn parse(args: Args<'_>, mode: Mode) -> Result<(Self, usize), CommandError> {
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        let (mut increments, mut counts_changed) = (mode == Mode::Increment, false);
        let mut at = 2;
        while let Some(word) = args.get(at) {
            match () {
                () if args::is(word, "NX") => nx = true,
                () if args::is(word, "XX") => xx = true,
                () if args::is(word, "GT") => gt = true,
                () if args::is(word, "LT") => lt = true,
                () if args::is(word, "CH") => counts_changed = true,
                () if args::is(word, "INCR") => increments = true,
                () => break,
            }
            at += 1;
        }
        let elements = args.len() - at;
        if elements == 0 || !elements.is_multiple_of(2) {
            return Err(CommandError::SYNTAX);
        }
        if nx && xx {
            return Err(CommandError::new(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if (nx && (gt || lt)) || (gt && lt) {
            return Err(CommandError::new(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if increments && elements > 2 {
            return Err(CommandError::new(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        let options = Self {
            existence: match (nx, xx) {
                (true, _) => Existence::New,
                (_, true) => Existence::Existing,
                (false, false) => Existence::Any,
            },
            comparison: match (gt, lt) {
                (true, _) => Comparison::Greater,
                (_, true) => Comparison::Less,
                (false, false) => Comparison::Any,
            },
            mode: match (increments, counts_changed) {
                (true, _) => Mode::Increment,
                (false, true) => Mode::SetAndCountChanged,
                (false, false) => Mode::Set,
            },
        };
        Ok((options, at))
    }

    /// Adds or changes one member.
    fn add(
        self,
        set: &mut SortedSet,
        member: &[u8],
        score: f64,
        limits: &EncodingLimits,
    ) -> Result<Added, CommandError> {
        let Some(old) = set.score(member) else {
            if self.existence == Existence::Existing {
                return Ok(Added::Refused);
            }
            set.set(member, score, limits);
            return Ok(Added::New(score));
        };
        if self.existence == Existence::New {
            return Ok(Added::Refused);
        }
        let new = if self.mode == Mode::Increment {
            old + score
        } else {
            score
        };
        if new.is_nan() {
            return Err(NAN_SCORE);
        }
        let is_refused = match self.comparison {
            Comparison::Any => false,
            Comparison::Greater => new <= old,
            Comparison::Less => new >= old,
        };
        if is_refused {
            return Ok(Added::Refused);
        }
        if new == old {
            return Ok(Added::Same(new));
        }
        set.set(member, new, limits);
        Ok(Added::Changed(new))
    }
}

pub(super) fn zadd(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let (options, scores_at) = AddOptions::parse(args, Mode::Set)?;
    add_all(cx, &args[1], args.tail(scores_at), options)
}

pub(super) fn zincrby(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let options = AddOptions {
        existence: Existence::Any,
        comparison: Comparison::Any,
        mode: Mode::Increment,
    };
    add_all(cx, &args[1], args.tail(2), options)
}

/// Adds pairs of scores and members.
fn add_all(
    cx: &mut Context<'_>,
    key: &[u8],
    pairs: Args<'_>,
    options: AddOptions,
) -> CommandResult {
    let count = pairs.len() / 2;
    let mut scores = Vec::with_capacity(count);
    for text in pairs.iter().step_by(2) {
        scores.push(args::float(text)?);
    }
    let limits = cx.limits;
    let members = pairs.iter().skip(1).step_by(2);
    // As in Redis, the first member stands for all.
    let length = members.clone().next().map_or(0, <[u8]>::len);
    let db = cx.keyspace.db(cx.session.db);
    let (changes, outcome) = change_or_create(
        db,
        key,
        || SortedSet::for_members(count, length, &limits),
        |set| {
            set.prepare_for(count, &limits);
            let (mut new, mut changed, mut last) = (0u64, 0u64, Added::Refused);
            for (member, score) in members.zip(&scores) {
                match options.add(set, member, *score, &limits) {
                    Ok(added) => last = added,
                    Err(error) => return (new + changed, Err(error)),
                }
                match last {
                    Added::New(_) => new += 1,
                    Added::Changed(_) => changed += 1,
                    Added::Same(_) | Added::Refused => {}
                }
            }
            (new + changed, Ok((new, last)))
        },
    )?;
    let (new, last) = outcome?;
    cx.effects.changed(changes);
    match (options.mode, last) {
        (Mode::Set, _) => cx.reply.integer(new as i64),
        (Mode::SetAndCountChanged, _) => cx.reply.integer(changes as i64),
        (Mode::Increment, Added::Refused) => cx.reply.null(),
        (Mode::Increment, Added::New(score) | Added::Changed(score) | Added::Same(score)) => {
            cx.reply.double(score);
        }
    }
    Ok(())
}

pub(super) fn zrem(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let db = cx.keyspace.db(cx.session.db);
    let removed = change(db, &args[1], |set: &mut SortedSet| {
        let removed = args
            .tail(2)
            .iter()
            .filter(|member| set.remove(member).is_some())
            .count();
        (removed as u64, ())
    })?;
    let removed = removed.map_or(0, |(changes, ())| changes);
    cx.effects.changed(removed);
    cx.reply.integer(removed as i64);
    Ok(())
}

/// From which end members are popped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extreme {
    Lowest,
    Highest,
}

/// How popped members are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One array of members and scores.
    Flat,
    /// An array of pairs.
    Pairs,
}

pub(super) fn zpopmin(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    pop(cx, args, Extreme::Lowest)
}

pub(super) fn zpopmax(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    pop(cx, args, Extreme::Highest)
}

fn pop(cx: &mut Context<'_>, args: Args<'_>, extreme: Extreme) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let count = args.get(2).map(positive_count).transpose()?;
    let shape = match (count, cx.reply.version()) {
        (Some(_), Version::Resp3) => Shape::Pairs,
        (None, _) | (_, Version::Resp2) => Shape::Flat,
    };
    if pop_members(cx, &args[1], extreme, count.unwrap_or(1), shape)?.is_none() {
        cx.reply.array(0);
    }
    Ok(())
}

/// Pops up to `count` members into a reply; `None`, and no reply, where there is no sorted set.
fn pop_members(
    cx: &mut Context<'_>,
    key: &[u8],
    extreme: Extreme,
    count: usize,
    shape: Shape,
) -> Result<Option<usize>, CommandError> {
    let reply = &mut cx.reply;
    let db = cx.keyspace.db(cx.session.db);
    let popped = change(db, key, |set: &mut SortedSet| {
        let len = set.len();
        let count = count.min(len);
        reply.array(match shape {
            Shape::Flat => 2 * count,
            Shape::Pairs => count,
        });
        let mut write = |(member, score)| {
            if shape == Shape::Pairs {
                reply.array(2);
            }
            reply_element(reply, member);
            reply.double(score);
        };
        match extreme {
            Extreme::Lowest => set.iter_from(0).take(count).for_each(&mut write),
            Extreme::Highest => {
                set.iter_back_from(len.saturating_sub(1))
                    .take(count)
                    .for_each(&mut write);
            }
        }
        let start = match extreme {
            Extreme::Lowest => 0,
            Extreme::Highest => len - count,
        };
        (set.remove_ranks(start, count) as u64, count)
    })?;
    Ok(popped.map(|(changes, count)| {
        cx.effects.changed(changes);
        count
    }))
}

pub(super) fn zmpop(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let numkeys = at_least(&args[1], 1, "ERR numkeys should be greater than 0")?;
    let where_at = numkeys.saturating_add(2);
    let extreme = match args.get(where_at) {
        Some(word) if args::is(word, "MIN") => Extreme::Lowest,
        Some(word) if args::is(word, "MAX") => Extreme::Highest,
        Some(_) | None => return Err(CommandError::SYNTAX),
    };
    let count = pop_count(args.tail(where_at + 1))?;
    for key in args.tail(2).iter().take(numkeys) {
        if read::<SortedSet>(cx.keyspace.db(cx.session.db), key)?.is_none() {
            continue;
        }
        cx.reply.array(2);
        cx.reply.bulk(key);
        if let Some(popped) = pop_members(cx, key, extreme, count, Shape::Pairs)? {
            let name: &[u8] = match extreme {
                Extreme::Lowest => b"ZPOPMIN",
                Extreme::Highest => b"ZPOPMAX",
            };
            cx.effects
                .propagate([name, key, &resp::format_i64(popped as i64)]);
        }
        return Ok(());
    }
    cx.reply.null_array();
    Ok(())
}
