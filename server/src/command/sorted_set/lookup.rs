//! One member, random members, scans: ZSCORE, ZRANK, ZRANDMEMBER, ZSCAN and their kin.

use resp::Args;

use super::{Scores, reply_member, start_members};
use crate::{
    command::{
        CommandError, Context, args,
        collection::{
            Draw, Scan, read, reply_element, reply_empty_scan, reply_repeated, unique_numbers,
        },
        error::CommandResult,
    },
    keyspace::types::sorted_set::SortedSet,
};

fn reply_score(reply: &mut resp::ReplyWriter<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

pub(super) fn zcard(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let set = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])?;
    cx.reply.integer(set.map_or(0, SortedSet::len) as i64);
    Ok(())
}

pub(super) fn zscore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let set = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])?;
    reply_score(&mut cx.reply, set.and_then(|set| set.score(&args[2])));
    Ok(())
}

pub(super) fn zmscore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let set = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])?;
    let members = args.tail(2);
    cx.reply.array(members.len());
    for member in members.iter() {
        reply_score(&mut cx.reply, set.and_then(|set| set.score(member)));
    }
    Ok(())
}

pub(super) fn zrank(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_rank(cx, args, "zrank", |rank, _| rank)
}

pub(super) fn zrevrank(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_rank(cx, args, "zrevrank", |rank, len| len - 1 - rank)
}

/// Replies the rank of a member, as `from_rank` counts it.
fn reply_rank(
    cx: &mut Context<'_>,
    args: Args<'_>,
    name: &str,
    from_rank: fn(usize, usize) -> usize,
) -> CommandResult {
    let scores = match (args.get(3), args.len()) {
        (None, _) => Scores::Without,
        (Some(word), 4) if args::is(word, "WITHSCORE") => Scores::With,
        (Some(_), 4) => return Err(CommandError::SYNTAX),
        (Some(_), _) => return Err(CommandError::wrong_arity(name)),
    };
    let set = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])?;
    let found = set.and_then(|set| {
        let (rank, score) = set.rank(&args[2])?;
        Some((from_rank(rank, set.len()), score))
    });
    match (found, scores) {
        (None, Scores::With) => cx.reply.null_array(),
        (None, Scores::Without) => cx.reply.null(),
        (Some((rank, _)), Scores::Without) => cx.reply.integer(rank as i64),
        (Some((rank, score)), Scores::With) => {
            cx.reply.array(2);
            cx.reply.integer(rank as i64);
            cx.reply.double(score);
        }
    }
    Ok(())
}

pub(super) fn zrandmember(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let Some(count) = args.get(2) else {
        let set = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])?;
        match set.and_then(|set| set.random(&mut |bound| cx.random.below(bound))) {
            Some((member, _)) => reply_element(&mut cx.reply, member),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let draw = Draw::parse(count)?;
    let scores = match (args.get(3), args.len()) {
        (None, _) => Scores::Without,
        (Some(word), 4) if args::is(word, "WITHSCORES") => Scores::With,
        (Some(_), _) => return Err(CommandError::SYNTAX),
    };
    if scores == Scores::With {
        draw.check_pairs()?;
    }
    let Some(set) = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    let reply = &mut cx.reply;
    match draw {
        Draw::Repeated(count) => {
            start_members(reply, count, scores);
            reply_repeated(
                reply,
                count,
                set.listpack().map(|_| set.iter_from(0)),
                |random| set.random(&mut |bound| random.below(bound)),
                |reply, member| reply_member(reply, member, scores),
                cx.random,
            )?;
        }
        Draw::Unique(count) if count >= set.len() => {
            start_members(reply, set.len(), scores);
            set.iter_from(0)
                .for_each(|member| reply_member(reply, member, scores));
        }
        Draw::Unique(count) => {
            start_members(reply, count, scores);
            for rank in unique_numbers(count, set.len(), cx.random) {
                if let Some(member) = set.get(rank) {
                    reply_member(reply, member, scores);
                }
            }
        }
    }
    Ok(())
}

pub(super) fn zscan(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let cursor = args::cursor(&args[2])?;
    let Some(set) = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])? else {
        return reply_empty_scan(&mut cx.reply);
    };
    let scan = Scan::options(cursor, args.tail(3))?;
    // As Redis 7.2 has it: shortest only where the score is stored as text.
    let format = match set.listpack() {
        Some(_) => resp::format_double,
        None => resp::format_double_17,
    };
    scan.reply(&mut cx.reply, |cursor, out| {
        let mut written = 0;
        let next = set.scan(cursor, &mut |member, score| {
            if scan.takes(member) {
                reply_element(out, member);
                out.bulk(&format(score));
                written += 2;
            }
        });
        (next, written)
    });
    Ok(())
}
