//! Sorted sets: ZADD, ZRANGE, ZUNION and their kin.
//!
//! Owns: the specs of the family and what its parts share. The handlers are in `write.rs` (adding,
//! removing, popping), `range.rs` (everything that walks a range), `lookup.rs` (one member, scans,
//! random members) and `algebra.rs` (unions, intersections, differences). The data structure is
//! `keyspace::types::sorted_set::SortedSet`. Tests against a real Redis are in
//! `tests/tests/processes/diff/sorted_set.rs`.

mod algebra;
mod bounds;
mod lookup;
mod range;
mod write;

use resp::{ReplyWriter, Version};

use super::{CommandSpec, Group, KeySpec, collection::reply_element, spec::Handler};
use crate::keyspace::types::entry::Element;

const fn spec(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, Group::SortedSet, arity, handler)
}

/// Keys behind their number at position 1.
const COUNTED: KeySpec = KeySpec::Counted { count: 1, extra: 0 };
/// A destination at position 1, and keys behind their number at position 2.
const COUNTED_WITH_TARGET: KeySpec = KeySpec::Counted { count: 2, extra: 1 };

/// The family's commands.
pub const COMMANDS: &[CommandSpec] = &[
    spec("zadd", -4, write::zadd).writes(KeySpec::FIRST).grows().fast().doc(
        "1.2.0",
        "Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.",
    ),
    spec("zincrby", 4, write::zincrby).writes(KeySpec::FIRST).uses(&["RW access update"]).grows().fast().doc(
        "1.2.0",
        "Increments the score of a member in a sorted set.",
    ),
    spec("zrem", -3, write::zrem).writes(KeySpec::FIRST).uses(&["RW delete"]).fast().doc(
        "1.2.0",
        "Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.",
    ),
    spec("zremrangebyrank", 4, range::zremrangebyrank).writes(KeySpec::FIRST).uses(&["RW delete"]).doc(
        "2.0.0",
        "Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were removed.",
    ),
    spec("zremrangebyscore", 4, range::zremrangebyscore).writes(KeySpec::FIRST).uses(&["RW delete"]).doc(
        "1.2.0",
        "Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were removed.",
    ),
    spec("zremrangebylex", 4, range::zremrangebylex).writes(KeySpec::FIRST).uses(&["RW delete"]).doc(
        "2.8.9",
        "Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members were removed.",
    ),
    spec("zpopmin", -2, write::zpopmin).writes(KeySpec::FIRST).uses(&["RW access delete"]).fast().doc(
        "5.0.0",
        "Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
    ),
    spec("zpopmax", -2, write::zpopmax).writes(KeySpec::FIRST).uses(&["RW access delete"]).fast().doc(
        "5.0.0",
        "Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
    ),
    spec("zmpop", -4, write::zmpop).writes(COUNTED).uses(&["RW access delete"]).doc(
        "7.0.0",
        "Returns the highest- or lowest-scoring members from one or more sorted sets after removing them. Deletes the sorted set if the last member was popped.",
    ),
    spec("zrange", -4, range::zrange).reads(KeySpec::FIRST).doc(
        "1.2.0",
        "Returns members in a sorted set within a range of indexes.",
    ),
    spec("zrangestore", -5, range::zrangestore).writes(KeySpec::Two).uses(&["OW update", "RO access"]).grows().doc(
        "6.2.0",
        "Stores a range of members from sorted set in a key.",
    ),
    spec("zrevrange", -4, range::zrevrange).reads(KeySpec::FIRST).doc(
        "1.2.0",
        "Returns members in a sorted set within a range of indexes in reverse order.",
    ),
    spec("zrangebyscore", -4, range::zrangebyscore).reads(KeySpec::FIRST).doc(
        "1.0.5",
        "Returns members in a sorted set within a range of scores.",
    ),
    spec("zrevrangebyscore", -4, range::zrevrangebyscore).reads(KeySpec::FIRST).doc(
        "2.2.0",
        "Returns members in a sorted set within a range of scores in reverse order.",
    ),
    spec("zrangebylex", -4, range::zrangebylex).reads(KeySpec::FIRST).doc(
        "2.8.9",
        "Returns members in a sorted set within a lexicographical range.",
    ),
    spec("zrevrangebylex", -4, range::zrevrangebylex).reads(KeySpec::FIRST).doc(
        "2.8.9",
        "Returns members in a sorted set within a lexicographical range in reverse order.",
    ),
    spec("zcount", 4, range::zcount).reads(KeySpec::FIRST).fast().doc(
        "2.0.0",
        "Returns the count of members in a sorted set that have scores within a range.",
    ),
    spec("zlexcount", 4, range::zlexcount).reads(KeySpec::FIRST).fast().doc(
        "2.8.9",
        "Returns the number of members in a sorted set within a lexicographical range.",
    ),
    spec("zcard", 2, lookup::zcard).reads(KeySpec::FIRST).uses(&["RO"]).fast().doc(
        "1.2.0",
        "Returns the number of members in a sorted set.",
    ),
    spec("zscore", 3, lookup::zscore).reads(KeySpec::FIRST).fast().doc(
        "1.2.0",
        "Returns the score of a member in a sorted set.",
    ),
    spec("zmscore", -3, lookup::zmscore).reads(KeySpec::FIRST).fast().doc(
        "6.2.0",
        "Returns the score of one or more members in a sorted set.",
    ),
    spec("zrank", -3, lookup::zrank).reads(KeySpec::FIRST).fast().doc(
        "2.0.0",
        "Returns the index of a member in a sorted set ordered by ascending scores.",
    ),
    spec("zrevrank", -3, lookup::zrevrank).reads(KeySpec::FIRST).fast().doc(
        "2.0.0",
        "Returns the index of a member in a sorted set ordered by descending scores.",
    ),
    spec("zrandmember", -2, lookup::zrandmember).reads(KeySpec::FIRST).doc(
        "6.2.0",
        "Returns one or more random members from a sorted set.",
    ),
    spec("zscan", -3, lookup::zscan).reads(KeySpec::FIRST).doc(
        "2.8.0",
        "Iterates over members and scores of a sorted set.",
    ),
    spec("zunion", -3, algebra::zunion).reads(COUNTED).doc(
        "6.2.0",
        "Returns the union of multiple sorted sets.",
    ),
    spec("zinter", -3, algebra::zinter).reads(COUNTED).doc(
        "6.2.0",
        "Returns the intersect of multiple sorted sets.",
    ),
    spec("zdiff", -3, algebra::zdiff).reads(COUNTED).doc(
        "6.2.0",
        "Returns the difference between multiple sorted sets.",
    ),
    spec("zintercard", -3, algebra::zintercard).reads(COUNTED).doc(
        "7.0.0",
        "Returns the number of members of the intersect of multiple sorted sets.",
    ),
    spec("zunionstore", -4, algebra::zunionstore).writes(COUNTED_WITH_TARGET).uses(&["OW update", "RO access"]).grows().doc(
        "2.0.0",
        "Stores the union of multiple sorted sets in a key.",
    ),
    spec("zinterstore", -4, algebra::zinterstore).writes(COUNTED_WITH_TARGET).uses(&["OW update", "RO access"]).grows().doc(
        "2.0.0",
        "Stores the intersect of multiple sorted sets in a key.",
    ),
    spec("zdiffstore", -4, algebra::zdiffstore).writes(COUNTED_WITH_TARGET).uses(&["OW update", "RO access"]).grows().doc(
        "6.2.0",
        "Stores the difference of multiple sorted sets in a key.",
    ),
];

/// Whether scores are answered beside members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scores {
    With,
    Without,
}

/// The header of `count` members: RESP2 gets scores between them, RESP3 pairs.
fn start_members(reply: &mut ReplyWriter<'_>, count: usize, scores: Scores) {
    let is_flat = scores == Scores::With && reply.version() == Version::Resp2;
    reply.array(if is_flat { 2 * count } else { count });
}

fn reply_member(reply: &mut ReplyWriter<'_>, (member, score): (Element<'_>, f64), scores: Scores) {
    if scores == Scores::With && reply.version() == Version::Resp3 {
        reply.array(2);
    }
    reply_element(reply, member);
    if scores == Scores::With {
        reply.double(score);
    }
}
