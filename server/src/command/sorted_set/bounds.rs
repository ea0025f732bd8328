//! Bounds of ranges: of scores (`(1.5`, `+inf`), of members (`[a`, `(b`, `-`, `+`), of ranks.
//!
//! Owns: their parsing with Redis's error texts, and the ranks they mean in a sorted set.

use super::super::{CommandError, args, list::index_range};
use crate::keyspace::types::sorted_set::SortedSet;

const NOT_FLOAT: CommandError = CommandError::new("ERR min or max is not a float");
const NOT_STRING_RANGE: CommandError =
    CommandError::new("ERR min or max not valid string range item");

/// Whether a bound belongs to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Included,
    Excluded,
}

/// A bound of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ScoreBound {
    score: f64,
    edge: Edge,
}

impl ScoreBound {
    fn parse(argument: &[u8]) -> Result<Self, CommandError> {
        let (edge, text) = match argument {
            [b'(', rest @ ..] => (Edge::Excluded, rest),
            _ => (Edge::Included, argument),
        };
        args::parse_lenient_float(text)
            .map(|score| Self { score, edge })
            .ok_or(NOT_FLOAT)
    }

    fn includes_equal(self) -> bool {
        self.edge == Edge::Included
    }
}

/// A bound of members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LexBound<'a> {
    /// `-`: in front of every member.
    Lowest,
    /// `+`: behind every member.
    Highest,
    /// `[member`.
    Included(&'a [u8]),
    /// `(member`.
    Excluded(&'a [u8]),
}

impl<'a> LexBound<'a> {
    fn parse(argument: &'a [u8]) -> Result<Self, CommandError> {
        match argument {
            b"-" => Ok(Self::Lowest),
            b"+" => Ok(Self::Highest),
            [b'[', member @ ..] => Ok(Self::Included(member)),
            [b'(', member @ ..] => Ok(Self::Excluded(member)),
            _ => Err(NOT_STRING_RANGE),
        }
    }
}

/// A range of a sorted set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Range<'a> {
    /// From index to index; negative ones count from the end.
    Rank(i64, i64),
    /// From score to score.
    Score(ScoreBound, ScoreBound),
    /// From member to member.
    Lex(LexBound<'a>, LexBound<'a>),
}

/// What the bounds of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeKind {
    /// Indexes.
    Rank,
    /// Scores.
    Score,
    /// Members.
    Lex,
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// At the lowest score.
    Ascending,
    /// At the highest score.
    Descending,
}

impl<'a> Range<'a> {
    /// Reads two bounds, the lower one first.
    pub(super) fn parse(
        kind: RangeKind,
        min: &'a [u8],
        max: &'a [u8],
    ) -> Result<Self, CommandError> {
        match kind {
            RangeKind::Rank => Ok(Self::Rank(args::integer(min)?, args::integer(max)?)),
            RangeKind::Score => Ok(Self::Score(
                ScoreBound::parse(min)?,
                ScoreBound::parse(max)?,
            )),
            RangeKind::Lex => Ok(Self::Lex(LexBound::parse(min)?, LexBound::parse(max)?)),
        }
    }

    /// Whether it is left open what the range means in this set: a range of members where scores are not equal. What we
    /// find then depends on how the set is stored, which a replica may do in another way.
    pub(super) fn is_left_open(self, set: &SortedSet) -> bool {
        match self {
            Range::Rank(..)
            | Range::Score(..)
            | Range::Lex(LexBound::Lowest, LexBound::Highest) => false,
            Range::Lex(..) => {
                let score = |rank| set.get(rank).map(|(_, score)| score);
                score(0) != score(set.len().saturating_sub(1))
            }
        }
    }

    /// The rank, in ascending order, of the first member in the range, and the number of members.
    /// Indexes count in `order`.
    pub(super) fn ranks(self, set: &SortedSet, order: Order) -> (usize, usize) {
        let (start, end) = match self {
            Range::Rank(start, end) => {
                let (start, count) = index_range(start, end, set.len());
                return match order {
                    Order::Ascending => (start, count),
                    Order::Descending => (set.len() - start - count, count),
                };
            }
            Range::Score(min, max) => (
                set.partition_point(|score, _| {
                    score < min.score || (score == min.score && !min.includes_equal())
                }),
                set.partition_point(|score, _| {
                    score < max.score || (score == max.score && max.includes_equal())
                }),
            ),
            Range::Lex(min, max) => (
                match min {
                    LexBound::Lowest => 0,
                    LexBound::Highest => set.len(),
                    LexBound::Included(bound) => set.partition_point(|_, text| text < bound),
                    LexBound::Excluded(bound) => set.partition_point(|_, text| text <= bound),
                },
                match max {
                    LexBound::Lowest => 0,
                    LexBound::Highest => set.len(),
                    LexBound::Included(bound) => set.partition_point(|_, text| text <= bound),
                    LexBound::Excluded(bound) => set.partition_point(|_, text| text < bound),
                },
            ),
        };
        (start, end.saturating_sub(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::types::EncodingLimits;

    fn ranks(kind: RangeKind, min: &str, max: &str) -> (usize, usize) {
        let limits = EncodingLimits::default();
        let mut set = SortedSet::new();
        for (member, score) in [("a", 1.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)] {
            set.set(member.as_bytes(), score, &limits);
        }
        let range = Range::parse(kind, min.as_bytes(), max.as_bytes()).unwrap();
        range.ranks(&set, Order::Ascending)
    }

    #[test]
    fn bounds_mean_the_ranks_that_redis_gives_them() {
        assert_eq!(ranks(RangeKind::Score, "1", "2"), (0, 3));
        assert_eq!(ranks(RangeKind::Score, "(1", "(3"), (2, 1));
        assert_eq!(ranks(RangeKind::Score, "-inf", "+inf"), (0, 4));
        assert_eq!(ranks(RangeKind::Score, "3", "1").1, 0);
        assert_eq!(ranks(RangeKind::Rank, "1", "-2"), (1, 2));
        assert_eq!(ranks(RangeKind::Lex, "-", "+"), (0, 4));
        assert_eq!(ranks(RangeKind::Lex, "(a", "[c"), (1, 2));
        assert_eq!(ranks(RangeKind::Lex, "+", "-").1, 0);
    }

    #[test]
    fn malformed_bounds_are_errors() {
        for bad in ["x", "(x", "nan"] {
            assert!(
                Range::parse(RangeKind::Score, bad.as_bytes(), b"1").is_err(),
                "{bad}"
            );
        }
        for bad in ["", "a", "++"] {
            assert!(
                Range::parse(RangeKind::Lex, bad.as_bytes(), b"+").is_err(),
                "{bad}"
            );
        }
    }
}
