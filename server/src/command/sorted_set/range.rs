//! Everything that walks a range: ZRANGE in all its spellings, ZRANGESTORE, ZCOUNT, ZREMRANGEBY….

use resp::Args;

use super::{
    Scores,
    bounds::{Order, Range, RangeKind},
    reply_member, start_members,
};
use crate::{
    command::{
        CommandError, Context, args,
        collection::{MAX_PROPAGATED_ELEMENTS, change, propagate_removal, read, store},
        effects::Effects,
        error::CommandResult,
    },
    keyspace::types::{entry::Element, sorted_set::SortedSet},
};

const LIMIT_WITH_RANKS: CommandError = CommandError::new(
    "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
);
const SCORES_WITH_LEX: CommandError =
    CommandError::new("ERR syntax error, WITHSCORES not supported in combination with BYLEX");

/// What a spelling of ZRANGE fixes, and what its options may still choose.
#[derive(Clone, Copy)]
struct Spelling {
    kind: Option<RangeKind>,
    order: Option<Order>,
    stores: Stores,
}

/// Whether the result goes to a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stores {
    Yes,
    No,
}

/// A parsed ZRANGE.
struct Query<'a> {
    range: Range<'a>,
    order: Order,
    scores: Scores,
    skip: usize,
    most: usize,
}

impl Spelling {
    const fn fixed(kind: RangeKind, order: Order) -> Self {
        Self {
            kind: Some(kind),
            order: Some(order),
            stores: Stores::No,
        }
    }

    /// Reads two bounds and the options behind them.
    fn parse<'a>(self, bounds: Args<'a>) -> Result<Query<'a>, CommandError> {
        let (mut kind, mut order) = (self.kind, self.order);
        let mut scores = Scores::Without;
        let mut limit = None;
        let mut words = bounds.tail(2).iter();
        while let Some(word) = words.next() {
            if self.stores == Stores::No && args::is(word, "WITHSCORES") {
                scores = Scores::With;
            } else if args::is(word, "LIMIT") && words.len() >= 2 {
                let (Some(skip), Some(most)) = (words.next(), words.next()) else {
                    return Err(CommandError::SYNTAX);
                };
                limit = Some((args::integer(skip)?, args::integer(most)?));
            } else if order.is_none() && args::is(word, "REV") {
                order = Some(Order::Descending);
            } else if kind.is_none() && args::is(word, "BYLEX") {
                kind = Some(RangeKind::Lex);
            } else if kind.is_none() && args::is(word, "BYSCORE") {
                kind = Some(RangeKind::Score);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        let kind = kind.unwrap_or(RangeKind::Rank);
        let order = order.unwrap_or(Order::Ascending);
        // As in Redis, -1 as the number of members is as good as no LIMIT.
        if kind == RangeKind::Rank && limit.is_some_and(|(_, most)| most != -1) {
            return Err(LIMIT_WITH_RANKS);
        }
        if kind == RangeKind::Lex && scores == Scores::With {
            return Err(SCORES_WITH_LEX);
        }
        let (min, max) = match (order, kind) {
            (Order::Descending, RangeKind::Score | RangeKind::Lex) => (1, 0),
            (Order::Descending, RangeKind::Rank) | (Order::Ascending, _) => (0, 1),
        };
        let range = Range::parse(kind, part(bounds, min)?, part(bounds, max)?)?;
        let (skip, most) = match limit {
            Some((skip, most)) if kind != RangeKind::Rank => (
                // A negative offset skips everything.
                usize::try_from(skip).unwrap_or(usize::MAX),
                usize::try_from(most).unwrap_or(usize::MAX),
            ),
            Some(_) | None => (0, usize::MAX),
        };
        Ok(Query {
            range,
            order,
            scores,
            skip,
            most,
        })
    }
}

fn part(bounds: Args<'_>, at: usize) -> Result<&[u8], CommandError> {
    bounds.get(at).ok_or(CommandError::SYNTAX)
}

impl Query<'_> {
    /// The members that the query selects, in its order, and how many there are.
    fn select<'a>(
        &self,
        set: &'a SortedSet,
    ) -> (usize, Box<dyn Iterator<Item = (Element<'a>, f64)> + 'a>) {
        let (start, count) = self.range.ranks(set, self.order);
        let skip = self.skip.min(count);
        let taken = (count - skip).min(self.most);
        if taken == 0 {
            return (0, Box::new(std::iter::empty()));
        }
        match self.order {
            Order::Ascending => (taken, Box::new(set.iter_from(start + skip).take(taken))),
            Order::Descending => {
                let last = start + count - 1 - skip;
                (taken, Box::new(set.iter_back_from(last).take(taken)))
            }
        }
    }
}

/// Runs a spelling of ZRANGE that replies.
fn reply_range(cx: &mut Context<'_>, args: Args<'_>, spelling: Spelling) -> CommandResult {
    let query = spelling.parse(args.tail(2))?;
    let Some(set) = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])? else {
        cx.reply.array(0);
        return Ok(());
    };
    let (count, members) = query.select(set);
    start_members(&mut cx.reply, count, query.scores);
    members.for_each(|member| reply_member(&mut cx.reply, member, query.scores));
    Ok(())
}

pub(super) fn zrange(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_range(
        cx,
        args,
        Spelling {
            kind: None,
            order: None,
            stores: Stores::No,
        },
    )
}

pub(super) fn zrevrange(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_range(
        cx,
        args,
        Spelling::fixed(RangeKind::Rank, Order::Descending),
    )
}

pub(super) fn zrangebyscore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_range(
        cx,
        args,
        Spelling::fixed(RangeKind::Score, Order::Ascending),
    )
}

pub(super) fn zrevrangebyscore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_range(
        cx,
        args,
        Spelling::fixed(RangeKind::Score, Order::Descending),
    )
}

pub(super) fn zrangebylex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_range(cx, args, Spelling::fixed(RangeKind::Lex, Order::Ascending))
}

pub(super) fn zrevrangebylex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_range(cx, args, Spelling::fixed(RangeKind::Lex, Order::Descending))
}

pub(super) fn zrangestore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let spelling = Spelling {
        kind: None,
        order: None,
        stores: Stores::Yes,
    };
    let query = spelling.parse(args.tail(3))?;
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let mut result = SortedSet::new();
    let mut is_left_open = false;
    if let Some(set) = read::<SortedSet>(db, &args[2])? {
        is_left_open = query.range.is_left_open(set);
        let (count, members) = query.select(set);
        result = SortedSet::for_members(count, 0, &limits);
        for (member, score) in members {
            result.set(&member.text(), score, &limits);
        }
    }
    let size = result.len();
    if is_left_open && (size > 0 || db.contains(&args[1])) {
        propagate_stored(cx.effects, &args[1], &result);
    }
    cx.effects.changed(store(db, &args[1], result));
    cx.reply.integer(size as i64);
    Ok(())
}

/// Propagates a result that is to be stored by its members: a replica might find others.
fn propagate_stored(effects: &mut Effects, key: &[u8], result: &SortedSet) {
    effects.propagate([b"DEL".as_slice(), key]);
    let mut members = result.iter_from(0).peekable();
    while members.peek().is_some() {
        let mut words = vec![b"ZADD".to_vec(), key.to_vec()];
        for (member, score) in members.by_ref().take(MAX_PROPAGATED_ELEMENTS) {
            words.push(resp::format_double(score).to_vec());
            words.push(member.to_vec());
        }
        effects.propagate(words.iter().map(Vec::as_slice));
    }
}

/// Replies the number of members in a range.
fn count(cx: &mut Context<'_>, args: Args<'_>, kind: RangeKind) -> CommandResult {
    let range = Range::parse(kind, &args[2], &args[3])?;
    let set = read::<SortedSet>(cx.keyspace.db(cx.session.db), &args[1])?;
    let count = set.map_or(0, |set| range.ranks(set, Order::Ascending).1);
    cx.reply.integer(count as i64);
    Ok(())
}

pub(super) fn zcount(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    count(cx, args, RangeKind::Score)
}

pub(super) fn zlexcount(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    count(cx, args, RangeKind::Lex)
}

/// Removes the members in a range and replies their number.
fn remove(cx: &mut Context<'_>, args: Args<'_>, kind: RangeKind) -> CommandResult {
    let range = Range::parse(kind, &args[2], &args[3])?;
    let db = cx.keyspace.db(cx.session.db);
    // What a replica might find otherwise is named to it.
    let mut named = Vec::new();
    let removed = change(db, &args[1], |set: &mut SortedSet| {
        let (start, count) = range.ranks(set, Order::Ascending);
        if range.is_left_open(set) {
            let members = set.iter_from(start).take(count);
            named.extend(members.map(|(member, _)| member.to_vec()));
        }
        (set.remove_ranks(start, count) as u64, ())
    })?;
    let removed = removed.map_or(0, |(changes, ())| changes);
    cx.effects.changed(removed);
    propagate_removal(cx.effects, "ZREM", &args[1], &named);
    cx.reply.integer(removed as i64);
    Ok(())
}

pub(super) fn zremrangebyrank(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    remove(cx, args, RangeKind::Rank)
}

pub(super) fn zremrangebyscore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    remove(cx, args, RangeKind::Score)
}

pub(super) fn zremrangebylex(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    remove(cx, args, RangeKind::Lex)
}
