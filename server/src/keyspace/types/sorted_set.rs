//! Sorted sets: members ordered by score, then by their bytes.
//!
//! Owns: [`SortedSet`]. Called by: the sorted set commands and the RDB code. `OBJECT ENCODING` is
//! `listpack` (members and scores in turns, in order) or `skiplist`: the name that clients know;
//! ours is a counted B+tree beside a table of members, so ranks cost `O(log n)`.
//!
//! Every query is one bisection to a rank ([`SortedSet::partition_point`]) and a walk from there.
//!
//! Invariants: members are unique; no score is NaN; -0 and 0 are equal in the order.

mod slices;

use std::cmp::Ordering;

use super::{
    EncodingLimits,
    compact::{CompactError, Listpack, Position},
    entry::Element,
    hashing::hash_bytes,
    number::{NumberText, parse_score},
    score_index::{Members, ScoreIndex},
    step_table::{StepTable, Tagged, tag_of},
    thin::{OneOf, View},
    walk::Walking,
};

/// A table element: 16 bits of the member's hash and its id.
#[derive(Debug, Clone, Copy)]
struct MemberId(u64);

impl MemberId {
    fn new(hash: u64, id: u32) -> Self {
        Self((u64::from(tag_of(hash)) << 48) | u64::from(id))
    }

    #[inline]
    fn id(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }
}

impl Tagged for MemberId {
    #[inline]
    fn tag(&self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// A set ordered by score.
#[derive(Debug)]
pub struct SortedSet(OneOf<Listpack, Indexed>);

#[derive(Debug)]
struct Indexed {
    table: StepTable<MemberId>,
    members: Members,
    index: ScoreIndex,
    /// Bytes of all members, for the estimate of memory.
    member_bytes: usize,
    walk: Walking<ScorePlace, f64>,
}

/// The last member that a walk from the highest score down has met; `None` before the first.
type ScorePlace = Option<(f64, Box<[u8]>)>;

const _: () = assert!(size_of::<SortedSet>() == 8);

/// The order of a sorted set.
fn compare(one: (f64, &[u8]), other: (f64, &[u8])) -> Ordering {
    one.0
        .partial_cmp(&other.0)
        .unwrap_or(Ordering::Equal)
        .then_with(|| one.1.cmp(other.1))
}

fn score_of(element: Element<'_>) -> Option<f64> {
    match element {
        Element::Integer(value) => Some(value as f64),
        Element::Text(text) => parse_score(text),
    }
}

impl Default for SortedSet {
    fn default() -> Self {
        Self::new()
    }
}

impl SortedSet {
    /// An empty one.
    pub fn new() -> Self {
        Self(OneOf::small(Listpack::new()))
    }

    /// An empty one in the encoding that suits `count` members of at most `largest` bytes.
    pub fn for_members(count: usize, largest: usize, limits: &EncodingLimits) -> Self {
        if count <= limits.zset_max_listpack_entries && largest <= limits.zset_max_listpack_value {
            Self::new()
        } else {
            Self::new_result()
        }
    }

    /// An empty one that is no listpack, for results: [`SortedSet::compact_result`] may make one of it at the end.
    pub fn new_result() -> Self {
        Self(OneOf::big(Box::new(Indexed::new())))
    }

    /// A sorted set from a listpack of members and scores that came from outside.
    pub fn from_listpack(pack: Listpack, limits: &EncodingLimits) -> Result<Self, CompactError> {
        let elements = pack.iter().count();
        if elements == 0 {
            return Err(CompactError::Empty);
        }
        if elements % 2 == 1 {
            return Err(CompactError::OddPairs);
        }
        let mut largest = 0;
        let mut in_order = true;
        let mut before: Option<(f64, Element<'_>)> = None;
        for (member, score) in pack.pairs() {
            let score = score_of(score).ok_or(CompactError::Score)?;
            let text = member.text();
            largest = largest.max(text.len());
            in_order &= before.is_none_or(|(earlier, element)| {
                compare((earlier, &element.text()), (score, &text)) == Ordering::Less
            });
            before = Some((score, member));
        }
        if in_order
            && elements / 2 <= limits.zset_max_listpack_entries
            && largest <= limits.zset_max_listpack_value
        {
            super::convert::check_unique(pack.pairs().map(|(member, _)| member))?;
            return Ok(Self(OneOf::small(pack)));
        }
        let mut set = Self::for_members(elements / 2, largest, limits);
        for (member, score) in pack.pairs() {
            let score = score_of(score).ok_or(CompactError::Score)?;
            if set.set(&member.text(), score, limits).is_some() {
                return Err(CompactError::Duplicate);
            }
        }
        Ok(set)
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match self.0.view() {
            View::Small(pack) => pack.len() / 2,
            View::Big(indexed) => indexed.table.len(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that `OBJECT ENCODING` shows.
    pub fn encoding(&self) -> &'static str {
        match self.0.view() {
            View::Small(_) => "listpack",
            View::Big(_) => "skiplist",
        }
    }

    /// The listpack of members and scores, while it is one.
    pub fn listpack(&self) -> Option<&Listpack> {
        match self.0.view() {
            View::Small(pack) => Some(pack),
            View::Big(_) => None,
        }
    }

    /// Number of separate heap blocks, about: what freeing the set costs.
    pub fn heap_elements(&self) -> usize {
        match self.0.view() {
            View::Small(_) => 1,
            View::Big(indexed) => indexed.table.len(),
        }
    }

    /// Bytes of heap memory, about; those of the order are extrapolated from `samples` parts of it (0: from all).
    pub fn memory_bytes(&self, samples: usize) -> usize {
        match self.0.view() {
            View::Small(pack) => pack.byte_len(),
            View::Big(indexed) => {
                const MEMBER_HEAD_BYTES: usize = 12;
                size_of::<Indexed>()
                    + indexed.table.table_bytes()
                    + indexed.members.store_bytes()
                    + indexed.index.memory_bytes(samples)
                    + indexed.member_bytes
                    + indexed.table.len() * MEMBER_HEAD_BYTES
            }
        }
    }

    /// Changes back to a listpack where members are few and short: Redis does so with the results
    /// of unions, intersections and differences.
    pub fn compact_result(&mut self, limits: &EncodingLimits) {
        let is_short =
            |(member, _): (Element<'_>, f64)| member.text().len() <= limits.zset_max_listpack_value;
        if matches!(self.0.view(), View::Small(_))
            || self.len() > limits.zset_max_listpack_entries
            || !self.iter_from(0).all(is_short)
        {
            return;
        }
        let mut pack = Listpack::new();
        for (member, score) in self.iter_from(0) {
            pack.push_pair(&member.text(), &compact_score(score));
        }
        self.0 = OneOf::small(pack);
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self.0.view() {
            View::Small(pack) => score_of(pack.get(pack.next(find(pack, member)?)?)?),
            View::Big(indexed) => {
                let id = indexed.find(hash_bytes(member), member)?;
                Some(indexed.members.score(id))
            }
        }
    }

    /// Leaves the listpack if it may not hold as many members as `count`, which are about to be set, whether they are new or
    /// not: Redis does so.
    pub fn prepare_for(&mut self, count: usize, limits: &EncodingLimits) {
        if count > limits.zset_max_listpack_entries {
            self.become_indexed();
        }
    }

    /// Sets the score of a member, which must not be NaN; answers the score it had.
    pub fn set(&mut self, member: &[u8], score: f64, limits: &EncodingLimits) -> Option<f64> {
        if let View::Small(pack) = self.0.view_mut() {
            if let Some(at) = find(pack, member) {
                let old = pack
                    .next(at)
                    .and_then(|next| pack.get(next))
                    .and_then(score_of);
                if old != Some(score) {
                    pack.remove(at, 2);
                    insert_pair(pack, member, score);
                }
                return old;
            }
            if pack.len() / 2 < limits.zset_max_listpack_entries
                && member.len() <= limits.zset_max_listpack_value
                && pack.has_room_for(member.len())
            {
                insert_pair(pack, member, score);
                return None;
            }
            self.become_indexed();
        }
        match self.0.view_mut() {
            View::Small(_) => None,
            View::Big(indexed) => indexed.set(member, score),
        }
    }

    fn become_indexed(&mut self) {
        let View::Small(pack) = self.0.view() else {
            return;
        };
        let mut indexed = Box::new(Indexed::new());
        for (rank, (member, score)) in pack.pairs().enumerate() {
            let text = member.text();
            indexed.add(
                hash_bytes(&text),
                &text,
                score_of(score).unwrap_or(0.0),
                rank,
            );
        }
        self.0 = OneOf::big(indexed);
    }

    /// Removes a member; answers the score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self.0.view_mut() {
            View::Small(pack) => {
                let at = find(pack, member)?;
                let score = pack
                    .next(at)
                    .and_then(|next| pack.get(next))
                    .and_then(score_of);
                pack.remove(at, 2);
                score
            }
            View::Big(indexed) => indexed.remove(member),
        }
    }

    /// Removes `count` members from this rank on; answers how many there were.
    pub fn remove_ranks(&mut self, start: usize, count: usize) -> usize {
        let count = count.min(self.len().saturating_sub(start));
        match self.0.view_mut() {
            View::Small(pack) => {
                match i64::try_from(2 * start)
                    .ok()
                    .and_then(|index| pack.seek(index))
                {
                    Some(at) => pack.remove(at, 2 * count) / 2,
                    None => 0,
                }
            }
            View::Big(indexed) => {
                (0..count).for_each(|_| indexed.remove_rank(start));
                count
            }
        }
    }

    /// Number of members in front of the first for which `is_before` does not hold: the rank of
    /// that one. The predicate must hold for the members in front of it and for no other.
    pub fn partition_point(&self, is_before: impl Fn(f64, &[u8]) -> bool) -> usize {
        match self.0.view() {
            View::Small(pack) => pack
                .pairs()
                .take_while(|(member, score)| {
                    score_of(*score).is_some_and(|score| is_before(score, &member.text()))
                })
                .count(),
            View::Big(indexed) => indexed
                .index
                .partition_point(|(score, id)| is_before(score, indexed.members.text(id))),
        }
    }

    /// The rank of a member and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self.0.view() {
            View::Small(pack) => {
                let needle = super::entry::Needle::new(member);
                pack.pairs().enumerate().find_map(|(rank, (found, score))| {
                    needle
                        .matches(found)
                        .then(|| Some((rank, score_of(score)?)))?
                })
            }
            View::Big(indexed) => {
                let score = indexed
                    .members
                    .score(indexed.find(hash_bytes(member), member)?);
                Some((indexed.rank_of(score, member), score))
            }
        }
    }

    /// Members with scores from this rank on, ascending.
    pub fn iter_from(&self, rank: usize) -> impl Iterator<Item = (Element<'_>, f64)> {
        let (pack, indexed) = match self.0.view() {
            View::Small(pack) => (Some(pack), None),
            View::Big(indexed) => (None, Some(indexed)),
        };
        let pairs = pack.into_iter().flat_map(move |pack| {
            pack.pairs()
                .skip(rank)
                .filter_map(|(member, score)| Some((member, score_of(score)?)))
        });
        let walked = indexed.into_iter().flat_map(move |indexed| {
            indexed
                .index
                .iter_from(rank)
                .map(|(score, id)| (Element::Text(indexed.members.text(id)), score))
        });
        pairs.chain(walked)
    }

    /// Members with scores from this rank back to the first, descending.
    pub fn iter_back_from(&self, rank: usize) -> impl Iterator<Item = (Element<'_>, f64)> {
        let len = self.len();
        let end = rank.saturating_add(1).min(len);
        let (pack, indexed) = match self.0.view() {
            View::Small(pack) => (Some(pack), None),
            View::Big(indexed) => (None, Some(indexed)),
        };
        let pairs = pack.into_iter().flat_map(move |pack| {
            let behind = pack.pairs().rev().skip(len - end);
            behind.filter_map(|(member, score)| Some((member, score_of(score)?)))
        });
        let walked = indexed.into_iter().flat_map(move |indexed| {
            indexed
                .index
                .iter_back(end)
                .map(|(score, id)| (Element::Text(indexed.members.text(id)), score))
        });
        pairs.chain(walked)
    }

    /// A member drawn with equal chances; `below(n)` draws a number under `n`.
    pub fn random(&self, below: &mut dyn FnMut(usize) -> usize) -> Option<(Element<'_>, f64)> {
        if self.is_empty() {
            return None;
        }
        self.get(below(self.len()))
    }

    /// The member of this rank.
    pub fn get(&self, rank: usize) -> Option<(Element<'_>, f64)> {
        match self.0.view() {
            View::Small(_) => self.iter_from(rank).next(),
            View::Big(indexed) => {
                let (score, id) = indexed.index.get(rank)?;
                Some((Element::Text(indexed.members.text(id)), score))
            }
        }
    }

    /// One step of a scan from `cursor`, which is 0 at its beginning and, as an answer, at its end.
    pub fn scan(&self, cursor: u64, visit: &mut dyn FnMut(Element<'_>, f64)) -> u64 {
        match self.0.view() {
            View::Small(_) => {
                self.iter_from(0)
                    .for_each(|(member, score)| visit(member, score));
                0
            }
            View::Big(indexed) => indexed.table.scan(cursor, &mut |entry| {
                let id = entry.id();
                visit(
                    Element::Text(indexed.members.text(id)),
                    indexed.members.score(id),
                );
            }),
        }
    }
}

impl Clone for SortedSet {
    fn clone(&self) -> Self {
        match self.0.view() {
            View::Small(pack) => Self(OneOf::small(pack.clone())),
            View::Big(_) => {
                let mut copy = Box::new(Indexed::new());
                for (rank, (member, score)) in self.iter_from(0).enumerate() {
                    let text = member.text();
                    copy.add(hash_bytes(&text), &text, score, rank);
                }
                Self(OneOf::big(copy))
            }
        }
    }
}

impl Indexed {
    fn new() -> Self {
        Self {
            table: StepTable::new(),
            members: Members::default(),
            index: ScoreIndex::new(),
            member_bytes: 0,
            walk: None,
        }
    }

    #[inline]
    fn find(&self, hash: u64, member: &[u8]) -> Option<u32> {
        self.table
            .find(hash, |entry| self.members.text(entry.id()) == member)
            .map(|entry| entry.id())
    }

    /// The rank that this score and member have, or would have.
    fn rank_of(&self, score: f64, member: &[u8]) -> usize {
        self.index
            .partition_point(|(other, id)| match other.partial_cmp(&score) {
                Some(Ordering::Less) => true,
                Some(Ordering::Greater) => false,
                Some(Ordering::Equal) | None => self.members.text(id) < member,
            })
    }

    /// Adds a member that is not in the set, at the rank where it belongs.
    fn add(&mut self, hash: u64, member: &[u8], score: f64, rank: usize) {
        let id = self.members.add(score, member);
        self.index.insert(rank, (score, id));
        let members = &self.members;
        self.table
            .insert_new(hash, MemberId::new(hash, id), |entry| {
                hash_bytes(members.text(entry.id()))
            });
        self.member_bytes += member.len();
    }

    fn set(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let hash = hash_bytes(member);
        let Some(id) = self.find(hash, member) else {
            self.keep(member, None);
            let rank = self.rank_of(score, member);
            self.add(hash, member, score, rank);
            return None;
        };
        let old = self.members.score(id);
        if old.to_bits() != score.to_bits() {
            self.keep(member, Some(old));
            let rank = self.rank_of(old, member);
            self.index.remove(rank);
            self.members.set_score(id, score);
            let rank = self.rank_of(score, member);
            self.index.insert(rank, (score, id));
        }
        Some(old)
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let members = &self.members;
        let entry = self.table.remove(hash_bytes(member), |entry| {
            members.text(entry.id()) == member
        })?;
        let score = self.members.score(entry.id());
        self.keep(member, Some(score));
        let rank = self.rank_of(score, member);
        self.index.remove(rank);
        self.members.remove(entry.id());
        self.member_bytes -= member.len();
        Some(score)
    }

    fn remove_rank(&mut self, rank: usize) {
        let (score, id) = self.index.remove(rank);
        let text = self.members.text(id);
        slices::keep(&mut self.walk, text, Some(score));
        self.member_bytes -= text.len();
        self.table
            .remove(hash_bytes(text), |entry| entry.id() == id);
        self.members.remove(id);
    }
}

fn find(pack: &Listpack, member: &[u8]) -> Option<Position> {
    pack.find(pack.first()?, member, 2)
}

/// The text of a score in a listpack. As in Redis, a negative zero loses its sign there: it is stored as an integer.
fn compact_score(score: f64) -> NumberText {
    NumberText::double(if score == 0.0 { 0.0 } else { score })
}

/// Adds a pair where it belongs.
fn insert_pair(pack: &mut Listpack, member: &[u8], score: f64) {
    let text = compact_score(score);
    let mut at = pack.first();
    while let Some(position) = at {
        let Some(score_at) = pack.next(position) else {
            break;
        };
        let (Some(other), Some(other_score)) = (pack.get(position), pack.get(score_at)) else {
            break;
        };
        let other_score = score_of(other_score).unwrap_or(0.0);
        if compare((score, member), (other_score, &other.text())) == Ordering::Less {
            return pack.insert_pair_before(position, member, &text);
        }
        at = pack.next(score_at);
    }
    pack.push_pair(member, &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            20 => (0u16..300).prop_map(|number| number.to_string().into_bytes()),
            1 => (60usize..70).prop_map(|length| vec![b'g'; length]),
        ]
    }

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (-5i8..5).prop_map(f64::from),
            1 => any::<f64>().prop_filter("no NaN", |score| !score.is_nan()),
            1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0)],
        ]
    }

    /// The value of a score: a listpack does not keep the sign of a zero, which has a test of its own.
    fn bits(score: f64) -> u64 {
        if score == 0.0 { 0 } else { score.to_bits() }
    }

    fn ordered(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, u64)> {
        let mut all: Vec<_> = model.iter().collect();
        all.sort_by(|one, other| compare((*one.1, one.0), (*other.1, other.0)));
        all.into_iter()
            .map(|(member, score)| (member.clone(), bits(*score)))
            .collect()
    }

    fn check(set: &SortedSet, model: &BTreeMap<Vec<u8>, f64>) {
        let expected = ordered(model);
        let owned = |(member, score): (Element<'_>, f64)| (member.to_vec(), bits(score));
        assert!(set.iter_from(0).map(owned).eq(expected.iter().cloned()));
        let back = set.iter_back_from(model.len()).map(owned);
        assert!(back.eq(expected.iter().rev().cloned()));
        for (rank, (member, score)) in expected.iter().enumerate() {
            let found = set.rank(member).map(|(rank, score)| (rank, bits(score)));
            assert_eq!(found, Some((rank, *score)));
            assert_eq!(set.get(rank).map(owned), Some((member.clone(), *score)));
        }
        let middle = expected.len() / 2;
        assert!(
            set.iter_from(middle)
                .map(owned)
                .eq(expected[middle..].iter().cloned())
        );
    }

    #[test]
    fn a_negative_zero_is_kept_outside_of_listpacks_only() {
        let limits = EncodingLimits::default();
        let mut set = SortedSet::new();
        set.set(b"m", -0.0, &limits);
        assert!(set.score(b"m").is_some_and(f64::is_sign_positive));
        let mut set = SortedSet::new_result();
        set.set(b"m", -0.0, &limits);
        assert!(set.score(b"m").is_some_and(f64::is_sign_negative));
        set.compact_result(&limits);
        assert_eq!(set.encoding(), "listpack");
        assert!(set.score(b"m").is_some_and(f64::is_sign_positive));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn any_history_equals_a_map(
            steps in proptest::collection::vec((0u8..8, member(), score()), 0..700),
            entries in prop_oneof![Just(4usize), Just(128)],
        ) {
            let limits = EncodingLimits {
                zset_max_listpack_entries: entries, ..EncodingLimits::default()
            };
            let mut set = SortedSet::new();
            let mut model = BTreeMap::new();
            for (kind, member, score) in steps {
                match kind {
                    0 => prop_assert_eq!(set.remove(&member), model.remove(&member)),
                    1 if !model.is_empty() => {
                        let start = member.len() % model.len();
                        let gone: Vec<_> =
                            ordered(&model).into_iter().skip(start).take(3).collect();
                        prop_assert_eq!(set.remove_ranks(start, 3), gone.len());
                        for (member, _) in gone { model.remove(&member); }
                    }
                    _ => {
                        let old = set.set(&member, score, &limits);
                        prop_assert_eq!(old, model.insert(member.clone(), score));
                    }
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.score(&member), model.get(&member).copied());
            }
            check(&set, &model);
            let mut copy = set.clone();
            check(&copy, &model);
            copy.compact_result(&EncodingLimits::default());
            check(&copy, &model);
            let bound = 1.0;
            let expected = model.values().filter(|score| **score < bound).count();
            prop_assert_eq!(set.partition_point(|score, _| score < bound), expected);
            if let (Some(pack), false) = (set.listpack(), set.is_empty()) {
                check(&SortedSet::from_listpack(pack.clone(), &limits).unwrap(), &model);
            }
        }
    }

    #[test]
    fn encodings_change_beyond_either_limit() {
        let limits = EncodingLimits {
            zset_max_listpack_entries: 2,
            ..EncodingLimits::default()
        };
        let mut set = SortedSet::new();
        set.set(b"a", 1.0, &limits);
        set.set(&[b'x'; 64], 2.0, &limits);
        assert_eq!(set.encoding(), "listpack");
        let mut long = set.clone();
        set.set(b"c", 3.0, &limits);
        assert_eq!((set.encoding(), set.len()), ("skiplist", 3));
        long.remove(b"a");
        long.set(&[b'x'; 65], 2.0, &limits);
        assert_eq!((long.encoding(), long.len()), ("skiplist", 2));
        let mut few = SortedSet::new();
        few.set(b"a", 1.0, &limits);
        few.prepare_for(2, &limits);
        assert_eq!(few.encoding(), "listpack");
        few.prepare_for(3, &limits);
        assert_eq!((few.encoding(), few.score(b"a")), ("skiplist", Some(1.0)));
    }

    #[test]
    fn hostile_scores_are_refused_and_disorder_is_put_right() {
        let limits = EncodingLimits::default();
        let pack_of = |texts: &[&[u8]]| {
            let mut pack = Listpack::new();
            texts.iter().for_each(|text| pack.push_back(text));
            pack
        };
        let cases: [(&[&[u8]], CompactError); 5] = [
            (&[], CompactError::Empty),
            (&[b"a"], CompactError::OddPairs),
            (&[b"a", b"x"], CompactError::Score),
            (&[b"a", b"nan"], CompactError::Score),
            (
                &[b"a", b"1", b"b", b"2", b"a", b"3"],
                CompactError::Duplicate,
            ),
        ];
        for (texts, error) in cases {
            assert_eq!(
                SortedSet::from_listpack(pack_of(texts), &limits).err(),
                Some(error)
            );
        }
        let set = SortedSet::from_listpack(pack_of(&[b"b", b"2", b"a", b"-inf"]), &limits).unwrap();
        assert_eq!(set.rank(b"a"), Some((0, f64::NEG_INFINITY)));
    }
}
