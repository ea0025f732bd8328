//! Unions, intersections and differences of sorted sets (and of sets, whose members all have the
//! score 1).

use resp::Args;

use super::{Scores, reply_member, start_members};
use crate::{
    command::{
        CommandError, Context, args,
        collection::{Collection, at_least, store},
        error::CommandResult,
    },
    keyspace::{
        Db,
        types::{EncodingLimits, entry::Element, set::Set, sorted_set::SortedSet},
    },
};

/// Score of a member of a plain set.
const SET_SCORE: f64 = 1.0;

/// What becomes of several sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// Where the result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Reply,
    Store,
    Cardinality,
}

/// How the scores of one member become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn combine(self, one: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => not_nan(one + other),
            Aggregate::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Aggregate::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// Infinities of both signs cancel each other, and zero weights cancel infinities, to 0.
fn not_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One input, with the factor of its scores.
#[derive(Clone, Copy)]
struct Source<'a> {
    members: Members<'a>,
    weight: f64,
}

#[derive(Clone, Copy)]
enum Members<'a> {
    None,
    Set(&'a Set),
    SortedSet(&'a SortedSet),
}

impl<'a> Source<'a> {
    fn len(&self) -> usize {
        match self.members {
            Members::None => 0,
            Members::Set(set) => set.len(),
            Members::SortedSet(set) => set.len(),
        }
    }

    /// The weighted score of a member. It is NaN where a weight of 0 meets an infinity, which in a sum makes the whole
    /// sum 0, and is neither smaller nor larger than anything: as in Redis.
    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match self.members {
            Members::None => None,
            Members::Set(set) => set.contains(member).then_some(SET_SCORE),
            Members::SortedSet(set) => set.score(member),
        };
        score.map(|score| score * self.weight)
    }

    /// Members with weighted scores.
    fn iter(&self) -> impl Iterator<Item = (Element<'a>, f64)> + use<'a> {
        let (set, sorted) = match self.members {
            Members::None => (None, None),
            Members::Set(set) => (Some(set), None),
            Members::SortedSet(set) => (None, Some(set)),
        };
        let weight = self.weight;
        set.into_iter()
            .flat_map(|set| set.iter().map(|member| (member, SET_SCORE)))
            .chain(sorted.into_iter().flat_map(|set| set.iter_from(0)))
            .map(move |(member, score)| (member, not_nan(score * weight)))
    }
}

/// A parsed request.
struct Request<'a> {
    keys: Args<'a>,
    numkeys: usize,
    options: Args<'a>,
}

impl<'a> Request<'a> {
    /// Reads the number of keys at `count_at`; the keys follow it.
    fn parse(args: Args<'a>, count_at: usize, name: &str) -> Result<Self, CommandError> {
        let numkeys = args::integer(&args[count_at])?;
        if numkeys < 1 {
            return Err(CommandError::owned(format!(
                "ERR at least 1 input key is needed for '{name}' command"
            )));
        }
        let keys = args.tail(count_at + 1);
        let numkeys = usize::try_from(numkeys).map_err(|_| CommandError::SYNTAX)?;
        if numkeys > keys.len() {
            return Err(CommandError::SYNTAX);
        }
        Ok(Self {
            keys,
            numkeys,
            options: keys.tail(numkeys),
        })
    }

    /// The sources at the keys. A key of a type without members is an error.
    fn sources<'b>(&self, db: &'b mut Db) -> Result<Vec<Source<'b>>, CommandError> {
        for key in self.keys.iter().take(self.numkeys) {
            if let Some(entry) = db.get(key)
                && Set::of(entry.value()).is_none()
                && SortedSet::of(entry.value()).is_none()
            {
                return Err(CommandError::WRONG_TYPE);
            }
        }
        let db = &*db;
        let source = |key| {
            let members = match db.peek(key) {
                None => Members::None,
                Some(entry) => match (Set::of(entry.value()), SortedSet::of(entry.value())) {
                    (Some(set), _) => Members::Set(set),
                    (None, Some(set)) => Members::SortedSet(set),
                    (None, None) => Members::None,
                },
            };
            Source {
                members,
                weight: 1.0,
            }
        };
        Ok(self.keys.iter().take(self.numkeys).map(source).collect())
    }
}

/// What the options say.
struct Options {
    aggregate: Aggregate,
    scores: Scores,
    limit: usize,
}

/// Reads the options; weights go to the sources.
fn parse_options(
    request: &Request<'_>,
    sources: &mut [Source<'_>],
    operation: Operation,
    goal: Goal,
) -> Result<Options, CommandError> {
    let mut options = Options {
        aggregate: Aggregate::Sum,
        scores: Scores::Without,
        limit: usize::MAX,
    };
    let combines = operation != Operation::Difference && goal != Goal::Cardinality;
    let mut words = request.options.iter();
    while let Some(word) = words.next() {
        if combines && args::is(word, "WEIGHTS") && words.len() >= sources.len() {
            for (source, weight) in sources.iter_mut().zip(words.by_ref()) {
                source.weight = args::parse_float(weight)
                    .ok_or(CommandError::new("ERR weight value is not a float"))?;
            }
        } else if combines && args::is(word, "AGGREGATE") {
            options.aggregate = match words.next() {
                Some(word) if args::is(word, "SUM") => Aggregate::Sum,
                Some(word) if args::is(word, "MIN") => Aggregate::Min,
                Some(word) if args::is(word, "MAX") => Aggregate::Max,
                Some(_) | None => return Err(CommandError::SYNTAX),
            };
        } else if goal == Goal::Reply && args::is(word, "WITHSCORES") {
            options.scores = Scores::With;
        } else if goal == Goal::Cardinality && args::is(word, "LIMIT") {
            let limit = words.next().ok_or(CommandError::SYNTAX)?;
            let limit = at_least(limit, 0, "ERR LIMIT can't be negative")?;
            options.limit = if limit == 0 { usize::MAX } else { limit };
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(options)
}

/// The members that are in all sources with their combined scores, found from the smallest.
fn intersection<'a>(
    sources: &mut [Source<'a>],
    aggregate: Aggregate,
) -> impl Iterator<Item = (Element<'a>, f64)> {
    sources.sort_by_key(Source::len);
    let (first, others) = match sources.split_first() {
        Some((first, others)) => (Some(*first), others.to_vec()),
        None => (None, Vec::new()),
    };
    first
        .into_iter()
        .flat_map(|first| first.iter())
        .filter_map(move |(member, score)| {
            let text = member.text();
            let mut combined = score;
            for other in &others {
                combined = aggregate.combine(combined, other.score(&text)?);
            }
            Some((member, combined))
        })
}

fn combine(
    sources: &mut [Source<'_>],
    operation: Operation,
    aggregate: Aggregate,
    limits: &EncodingLimits,
) -> SortedSet {
    // Not compact while it grows: a compact one would lose the sign of a negative zero.
    let mut result = SortedSet::new_result();
    match operation {
        Operation::Union => {
            sources.sort_by_key(Source::len);
            for (member, score) in sources.iter().flat_map(Source::iter) {
                let text = member.text();
                let score = match result.score(&text) {
                    Some(old) => aggregate.combine(old, score),
                    None => score,
                };
                result.set(&text, score, limits);
            }
        }
        Operation::Intersection => {
            for (member, score) in intersection(sources, aggregate) {
                result.set(&member.text(), score, limits);
            }
        }
        Operation::Difference => {
            let Some((first, others)) = sources.split_first() else {
                return result;
            };
            for (member, score) in first.iter() {
                let text = member.text();
                if !others.iter().any(|other| other.score(&text).is_some()) {
                    result.set(&text, score, limits);
                }
            }
        }
    }
    result
}

fn reply_result(
    cx: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> CommandResult {
    let request = Request::parse(args, 1, name)?;
    let limits = cx.limits;
    let mut sources = request.sources(cx.keyspace.db(cx.session.db))?;
    let options = parse_options(&request, &mut sources, operation, Goal::Reply)?;
    let result = combine(&mut sources, operation, options.aggregate, &limits);
    start_members(&mut cx.reply, result.len(), options.scores);
    for member in result.iter_from(0) {
        reply_member(&mut cx.reply, member, options.scores);
    }
    Ok(())
}

fn store_result(
    cx: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> CommandResult {
    let request = Request::parse(args, 2, name)?;
    let limits = cx.limits;
    let db = cx.keyspace.db(cx.session.db);
    let mut sources = request.sources(db)?;
    let options = parse_options(&request, &mut sources, operation, Goal::Store)?;
    let mut result = combine(&mut sources, operation, options.aggregate, &limits);
    let size = result.len();
    result.compact_result(&limits);
    cx.effects.changed(store(db, &args[1], result));
    cx.reply.integer(size as i64);
    Ok(())
}

pub(super) fn zunion(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_result(cx, args, Operation::Union, "zunion")
}

pub(super) fn zinter(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_result(cx, args, Operation::Intersection, "zinter")
}

pub(super) fn zdiff(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    reply_result(cx, args, Operation::Difference, "zdiff")
}

pub(super) fn zunionstore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    store_result(cx, args, Operation::Union, "zunionstore")
}

pub(super) fn zinterstore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    store_result(cx, args, Operation::Intersection, "zinterstore")
}

pub(super) fn zdiffstore(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    store_result(cx, args, Operation::Difference, "zdiffstore")
}

pub(super) fn zintercard(cx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
    let request = Request::parse(args, 1, "zintercard")?;
    let mut sources = request.sources(cx.keyspace.db(cx.session.db))?;
    let operation = Operation::Intersection;
    let options = parse_options(&request, &mut sources, operation, Goal::Cardinality)?;
    let count = intersection(&mut sources, options.aggregate)
        .take(options.limit)
        .count();
    cx.reply.integer(count as i64);
    Ok(())
}
