//! The order of a big sorted set: a B+tree of scores and member ids that knows ranks, and the store
//! that the ids point into.
//!
//! Owns: [`ScoreIndex`] and [`Members`]. Called by: `sorted_set.rs` alone.
//!
//! The tree is a sequence: it inserts and removes *at a rank*, and finds ranks by bisection with a
//! predicate. So it never compares members itself, and every query of a sorted set (by score, by
//! member, by rank, by lexical bound) is one bisection and a walk. A leaf holds scores and ids in
//! two arrays; an inner node holds for each child its number of elements and its first element.
//!
//! Invariants: counts and first elements of inner nodes are exact; all leaves are at one depth; no
//! node but the root is empty.

use super::{thin::ThinBytes, value::extrapolate_parts};

/// Elements of a leaf.
const LEAF_MAX: usize = 64;
/// Elements by which a full leaf's arrays grow.
const LEAF_STEP: usize = 8;
/// Children of an inner node.
const INNER_MAX: usize = 32;
/// Members that are allocated together.
const CHUNK_SLOTS: usize = 256;

/// An element: its score and the id of its member.
pub(super) type Scored = (f64, u32);

/// A counted, ordered sequence of scored ids.
#[derive(Debug)]
pub(super) struct ScoreIndex {
    root: Node,
}

#[derive(Debug)]
enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

#[derive(Debug, Default)]
struct Leaf {
    scores: Vec<f64>,
    ids: Vec<u32>,
}

#[derive(Debug, Default)]
struct Inner {
    children: Vec<Node>,
    counts: Vec<usize>,
    firsts: Vec<Scored>,
}

impl Leaf {
    fn insert(&mut self, at: usize, (score, id): Scored) -> Option<Leaf> {
        let mut right = None;
        let mut target = &mut *self;
        let mut at = at;
        if target.ids.len() == LEAF_MAX {
            // Ascending insertions, the common pattern, leave full leaves behind.
            let split = if at == LEAF_MAX {
                LEAF_MAX
            } else {
                LEAF_MAX / 2
            };
            let new = right.insert(Leaf {
                scores: target.scores.split_off(split),
                ids: target.ids.split_off(split),
            });
            if at > split || split == LEAF_MAX {
                at -= split;
                target = new;
            }
        }
        if target.ids.len() == target.ids.capacity() {
            target.scores.reserve_exact(LEAF_STEP);
            target.ids.reserve_exact(LEAF_STEP);
        }
        target.scores.insert(at, score);
        target.ids.insert(at, id);
        if right.is_some() {
            self.scores.shrink_to_fit();
            self.ids.shrink_to_fit();
        }
        right
    }
}

impl Node {
    /// Elements in a leaf, children in an inner node.
    fn width(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.ids.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    fn is_underfull(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.ids.len() < LEAF_MAX / 4,
            Node::Inner(inner) => inner.children.len() < INNER_MAX / 4,
        }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.ids.len(),
            Node::Inner(inner) => inner.counts.iter().sum(),
        }
    }

    fn first(&self) -> Scored {
        match self {
            Node::Leaf(leaf) => match (leaf.scores.first(), leaf.ids.first()) {
                (Some(&score), Some(&id)) => (score, id),
                (None, _) | (_, None) => (0.0, 0),
            },
            Node::Inner(inner) => inner.firsts.first().copied().unwrap_or((0.0, 0)),
        }
    }

    fn insert(&mut self, rank: usize, new: Scored) -> Option<Node> {
        match self {
            Node::Leaf(leaf) => leaf.insert(rank, new).map(Node::Leaf),
            Node::Inner(inner) => inner.insert(rank, new).map(Node::Inner),
        }
    }

    fn remove(&mut self, rank: usize) -> Scored {
        match self {
            Node::Leaf(leaf) => (leaf.scores.remove(rank), leaf.ids.remove(rank)),
            Node::Inner(inner) => inner.remove(rank),
        }
    }

    /// Appends a right neighbour of the same depth, and splits again if that is too much.
    fn merge(&mut self, right: Node) -> Option<Node> {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(mut right)) => {
                left.scores.append(&mut right.scores);
                left.ids.append(&mut right.ids);
                let total = left.ids.len();
                let again = (total > LEAF_MAX).then(|| Leaf {
                    scores: left.scores.split_off(total / 2),
                    ids: left.ids.split_off(total / 2),
                });
                left.scores.shrink_to_fit();
                left.ids.shrink_to_fit();
                again.map(Node::Leaf)
            }
            (Node::Inner(left), Node::Inner(mut right)) => {
                left.children.append(&mut right.children);
                left.counts.append(&mut right.counts);
                left.firsts.append(&mut right.firsts);
                let total = left.children.len();
                (total > INNER_MAX).then(|| Node::Inner(left.split_off(total / 2)))
            }
            (Node::Leaf(_), right @ Node::Inner(_)) | (Node::Inner(_), right @ Node::Leaf(_)) => {
                Some(right)
            }
        }
    }

    /// From `samples` children of each node (0: all).
    fn memory_bytes(&self, samples: usize) -> usize {
        match self {
            Node::Leaf(leaf) => {
                leaf.scores.capacity() * size_of::<f64>() + leaf.ids.capacity() * size_of::<u32>()
            }
            Node::Inner(inner) => {
                let each = size_of::<Node>() + size_of::<usize>() + size_of::<Scored>();
                let own = inner.children.capacity() * each;
                let size = |at: usize| inner.children[at].memory_bytes(samples);
                own + extrapolate_parts(inner.children.len(), samples, size)
            }
        }
    }
}

impl Inner {
    /// The child that holds `rank` (or at whose end it lies), and the rank in it.
    fn child_at(&self, rank: usize) -> (usize, usize) {
        let mut rest = rank;
        for (at, &count) in self.counts.iter().enumerate() {
            if rest < count || at + 1 == self.counts.len() {
                return (at, rest);
            }
            rest -= count;
        }
        (0, rest)
    }

    /// As [`Inner::child_at`], preferring the end of a child to the start of the next one.
    fn child_for_insert(&self, rank: usize) -> (usize, usize) {
        let mut rest = rank;
        for (at, &count) in self.counts.iter().enumerate() {
            if rest <= count {
                return (at, rest);
            }
            rest -= count;
        }
        (0, rest)
    }

    fn refresh(&mut self, at: usize) {
        self.counts[at] = self.children[at].count();
        self.firsts[at] = self.children[at].first();
    }

    fn add_child(&mut self, at: usize, child: Node) {
        self.counts.insert(at, child.count());
        self.firsts.insert(at, child.first());
        self.children.insert(at, child);
    }

    fn take_child(&mut self, at: usize) -> Node {
        self.counts.remove(at);
        self.firsts.remove(at);
        self.children.remove(at)
    }

    fn split_off(&mut self, at: usize) -> Inner {
        Inner {
            children: self.children.split_off(at),
            counts: self.counts.split_off(at),
            firsts: self.firsts.split_off(at),
        }
    }

    fn insert(&mut self, rank: usize, new: Scored) -> Option<Inner> {
        let (at, rest) = self.child_for_insert(rank);
        let split = self.children[at].insert(rest, new);
        match split {
            None => {
                self.counts[at] += 1;
                self.firsts[at] = self.children[at].first();
                None
            }
            Some(right) => {
                self.refresh(at);
                self.add_child(at + 1, right);
                let at_end = at + 2 == self.children.len();
                (self.children.len() > INNER_MAX)
                    .then(|| self.split_off(if at_end { INNER_MAX } else { INNER_MAX / 2 }))
            }
        }
    }

    fn remove(&mut self, rank: usize) -> Scored {
        let (at, rest) = self.child_at(rank);
        let removed = self.children[at].remove(rest);
        self.counts[at] -= 1;
        if self.counts[at] == 0 {
            self.take_child(at);
        } else if self.children[at].is_underfull() && self.children.len() > 1 {
            let left = at.saturating_sub(1);
            let right = self.take_child(left + 1);
            let again = self.children[left].merge(right);
            self.refresh(left);
            if let Some(right) = again {
                self.add_child(left + 1, right);
            }
        } else {
            self.firsts[at] = self.children[at].first();
        }
        removed
    }
}

impl ScoreIndex {
    /// An empty sequence.
    pub(super) fn new() -> Self {
        Self {
            root: Node::Leaf(Leaf::default()),
        }
    }

    /// Inserts in front of the element of this rank, or at the end.
    pub(super) fn insert(&mut self, rank: usize, new: Scored) {
        if let Some(right) = self.root.insert(rank, new) {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Leaf::default()));
            let mut inner = Inner::default();
            inner.add_child(0, left);
            inner.add_child(1, right);
            self.root = Node::Inner(inner);
        }
    }

    /// Removes the element of this rank, which must exist.
    pub(super) fn remove(&mut self, rank: usize) -> Scored {
        let removed = self.root.remove(rank);
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() == 1
            && let Some(only) = inner.children.pop()
        {
            self.root = only;
        }
        removed
    }

    /// Number of elements in front of the first for which `is_before` does not hold. The predicate
    /// must hold for a prefix of the sequence and for nothing behind it.
    pub(super) fn partition_point(&self, is_before: impl Fn(Scored) -> bool) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + partition_leaf(leaf, is_before),
                Node::Inner(inner) => {
                    let at = inner.firsts.partition_point(|&first| is_before(first));
                    let Some(at) = at.checked_sub(1) else {
                        return rank;
                    };
                    rank += inner.counts[..at].iter().sum::<usize>();
                    node = &inner.children[at];
                }
            }
        }
    }

    /// The leaf that holds this rank, and where in it.
    fn leaf_at(&self, rank: usize) -> (&Leaf, usize) {
        let mut node = &self.root;
        let mut rest = rank;
        loop {
            match node {
                Node::Leaf(leaf) => return (leaf, rest),
                Node::Inner(inner) => {
                    let (at, inside) = inner.child_at(rest);
                    node = &inner.children[at];
                    rest = inside;
                }
            }
        }
    }

    /// The element of this rank.
    pub(super) fn get(&self, rank: usize) -> Option<Scored> {
        self.iter_from(rank).next()
    }

    /// Elements from this rank on.
    pub(super) fn iter_from(&self, rank: usize) -> Forward<'_> {
        let (leaf, at) = self.leaf_at(rank);
        Forward {
            index: self,
            rank,
            leaf,
            at,
        }
    }

    /// Elements in front of this rank, backwards.
    pub(super) fn iter_back(&self, end: usize) -> Backward<'_> {
        Backward {
            index: self,
            rank: end,
            leaf: None,
        }
    }

    /// Bytes of heap memory, extrapolated from `samples` children of each node (0: from all nodes).
    pub(super) fn memory_bytes(&self, samples: usize) -> usize {
        self.root.memory_bytes(samples) + self.root.width() * size_of::<usize>()
    }
}

/// Bisection in a leaf.
fn partition_leaf(leaf: &Leaf, is_before: impl Fn(Scored) -> bool) -> usize {
    let (mut low, mut high) = (0, leaf.ids.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_before((leaf.scores[middle], leaf.ids[middle])) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Elements in ascending order.
#[derive(Debug)]
pub(super) struct Forward<'a> {
    index: &'a ScoreIndex,
    rank: usize,
    leaf: &'a Leaf,
    at: usize,
}

impl Iterator for Forward<'_> {
    type Item = Scored;

    #[inline]
    fn next(&mut self) -> Option<Scored> {
        if self.at >= self.leaf.ids.len() {
            (self.leaf, self.at) = self.index.leaf_at(self.rank);
        }
        let found = (
            *self.leaf.scores.get(self.at)?,
            *self.leaf.ids.get(self.at)?,
        );
        self.at += 1;
        self.rank += 1;
        Some(found)
    }
}

/// Elements in descending order.
#[derive(Debug)]
pub(super) struct Backward<'a> {
    index: &'a ScoreIndex,
    rank: usize,
    leaf: Option<(&'a Leaf, usize)>,
}

impl Iterator for Backward<'_> {
    type Item = Scored;

    #[inline]
    fn next(&mut self) -> Option<Scored> {
        let rank = self.rank.checked_sub(1)?;
        let (leaf, at) = match self.leaf {
            Some((leaf, at)) if at > 0 => (leaf, at - 1),
            Some(_) | None => self.index.leaf_at(rank),
        };
        self.leaf = Some((leaf, at));
        self.rank = rank;
        Some((*leaf.scores.get(at)?, *leaf.ids.get(at)?))
    }
}

/// The members of a sorted set by id: one allocation each, score and bytes.
#[derive(Debug, Default)]
pub(super) struct Members {
    chunks: Vec<Option<Box<Chunk>>>,
    /// Chunks with a free slot, each once.
    open: Vec<u32>,
    /// Chunks that there are.
    allocated: usize,
}

#[derive(Debug)]
struct Chunk {
    slots: [Option<ThinBytes>; CHUNK_SLOTS],
    used: usize,
    /// No slot below this one is free.
    lowest_free: usize,
}

/// Bytes of the score in front of a member.
const SCORE_BYTES: usize = 8;

impl Members {
    /// Stores a member and answers its id.
    pub(super) fn add(&mut self, score: f64, member: &[u8]) -> u32 {
        let number = match self.open.last() {
            Some(&number) => number as usize,
            None => {
                self.open.push(self.chunks.len() as u32);
                self.chunks.push(None);
                self.chunks.len() - 1
            }
        };
        let allocated = &mut self.allocated;
        let chunk = self.chunks[number].get_or_insert_with(|| {
            *allocated += 1;
            Box::new(Chunk {
                slots: [const { None }; CHUNK_SLOTS],
                used: 0,
                lowest_free: 0,
            })
        });
        let mut slot = chunk.lowest_free;
        while chunk.slots[slot].is_some() {
            slot += 1;
        }
        chunk.slots[slot] = Some(ThinBytes::concat(&[&score.to_le_bytes(), member]));
        chunk.lowest_free = slot + 1;
        chunk.used += 1;
        if chunk.used == CHUNK_SLOTS {
            self.open.pop();
        }
        (number * CHUNK_SLOTS + slot) as u32
    }

    /// Drops a member.
    pub(super) fn remove(&mut self, id: u32) {
        let (number, slot) = (id as usize / CHUNK_SLOTS, id as usize % CHUNK_SLOTS);
        let Some(place) = self.chunks.get_mut(number) else {
            return;
        };
        let Some(chunk) = place else { return };
        if chunk.slots[slot].take().is_none() {
            return;
        }
        if chunk.used == CHUNK_SLOTS {
            self.open.push(number as u32);
        }
        chunk.used -= 1;
        chunk.lowest_free = chunk.lowest_free.min(slot);
        if chunk.used == 0 {
            *place = None;
            self.allocated -= 1;
        }
    }

    #[inline]
    fn bytes(&self, id: u32) -> &[u8] {
        let (number, slot) = (id as usize / CHUNK_SLOTS, id as usize % CHUNK_SLOTS);
        let chunk = self.chunks.get(number).and_then(Option::as_ref);
        chunk
            .and_then(|chunk| chunk.slots[slot].as_ref())
            .map_or(&[], ThinBytes::body)
    }

    /// The member's text.
    #[inline]
    pub(super) fn text(&self, id: u32) -> &[u8] {
        self.bytes(id).get(SCORE_BYTES..).unwrap_or_default()
    }

    /// The member's score.
    #[inline]
    pub(super) fn score(&self, id: u32) -> f64 {
        self.bytes(id)
            .first_chunk()
            .map_or(0.0, |bytes| f64::from_le_bytes(*bytes))
    }

    /// Changes the score that is stored with a member.
    pub(super) fn set_score(&mut self, id: u32, score: f64) {
        let (number, slot) = (id as usize / CHUNK_SLOTS, id as usize % CHUNK_SLOTS);
        if let Some(Some(chunk)) = self.chunks.get_mut(number)
            && let Some(bytes) = &mut chunk.slots[slot]
        {
            bytes.body_mut()[..SCORE_BYTES].copy_from_slice(&score.to_le_bytes());
        }
    }

    /// Bytes of heap memory besides the members' own.
    pub(super) fn store_bytes(&self) -> usize {
        self.allocated * size_of::<Chunk>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_node(node: &Node) -> usize {
        match node {
            Node::Leaf(leaf) => {
                assert_eq!(leaf.scores.len(), leaf.ids.len());
                assert!(leaf.ids.len() <= LEAF_MAX);
                1
            }
            Node::Inner(inner) => {
                assert!(inner.children.len() <= INNER_MAX && !inner.children.is_empty());
                let depths: Vec<usize> = inner.children.iter().map(check_node).collect();
                assert!(
                    depths.windows(2).all(|pair| pair[0] == pair[1]),
                    "leaves at one depth"
                );
                for (at, child) in inner.children.iter().enumerate() {
                    assert!(child.count() > 0);
                    assert_eq!(inner.counts[at], child.count());
                    assert_eq!(inner.firsts[at], child.first());
                }
                depths[0] + 1
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_history_equals_a_vector(
            steps in proptest::collection::vec((0u8..5, any::<u16>()), 0..6000),
            removals in 1u8..5,
        ) {
            let mut index = ScoreIndex::new();
            let mut model: Vec<Scored> = Vec::new();
            for (number, (kind, place)) in steps.into_iter().enumerate() {
                let place = usize::from(place);
                if kind >= removals || model.is_empty() {
                    let at = if kind == 4 { model.len() } else { place % (model.len() + 1) };
                    let new = (place as f64, number as u32);
                    index.insert(at, new);
                    model.insert(at, new);
                } else {
                    let at = place % model.len();
                    prop_assert_eq!(index.remove(at), model.remove(at));
                }
            }
            check_node(&index.root);
            prop_assert!(index.iter_from(0).eq(model.iter().copied()));
            prop_assert!(index.iter_back(model.len()).eq(model.iter().rev().copied()));
            let middle = model.len() / 2;
            prop_assert!(index.iter_from(middle).eq(model[middle..].iter().copied()));
            prop_assert_eq!(index.get(model.len()), None);
        }

        #[test]
        fn bisection_finds_the_rank(count in 0usize..3000, bound in 0usize..3100) {
            let mut index = ScoreIndex::new();
            (0..count).for_each(|at| index.insert(at, (at as f64, at as u32)));
            let found = index.partition_point(|(score, _)| score < bound as f64);
            prop_assert_eq!(found, bound.min(count));
        }
    }

    #[test]
    fn members_reuse_slots_and_free_empty_chunks() {
        let mut members = Members::default();
        let ids: Vec<u32> = (0..1000)
            .map(|n| members.add(f64::from(n), b"member"))
            .collect();
        ids.iter().skip(1).for_each(|&id| members.remove(id));
        assert_eq!(members.chunks.iter().flatten().count(), 1);
        assert_eq!(members.allocated, 1);
        let again: Vec<u32> = (0..999)
            .map(|n| members.add(f64::from(n), b"other"))
            .collect();
        assert_eq!((members.chunks.len(), members.allocated), (4, 4));
        assert_eq!(
            (members.text(ids[0]), members.score(ids[0])),
            (b"member".as_slice(), 0.0)
        );
        assert!(
            again
                .iter()
                .all(|&id| id != ids[0] && members.text(id) == b"other")
        );
    }
}
