//! Lists: one listpack while small, then a queue of nodes.
//!
//! Owns: [`List`]. Called by: the list commands and the RDB code. `OBJECT ENCODING` is `listpack`
//! or `quicklist`, with Redis's rules for when the one becomes the other.
//!
//! Invariants: nodes are never empty; a list of nodes keeps every node within the limit that was
//! configured when the node was filled, except nodes of a single large element.
//!
//! Not done here: blocking, and the deletion of a key whose list became empty.

mod nodes;

use std::{collections::VecDeque, ops::RangeBounds};

use super::{
    EncodingLimits,
    compact::{CompactError, Iter, Listpack},
    entry::{Element, Needle},
    list_node::{Node, offset_of, without_matches},
    list_walk::ListWalk,
    thin::{OneOf, View},
    value::extrapolate_parts,
    walk::{Left, Piece, Slicing},
};

pub use super::list_node::Direction;

/// Bytes of a node when the limit is a number of elements.
const SAFE_NODE_BYTES: usize = 8192;
/// Bytes of nodes for the limits -1 to -5.
const NODE_BYTES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// What Redis adds to an element's length when it asks whether a node has room.
const ENTRY_OVERHEAD_BYTES: usize = 8;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where LPUSH adds.
    Head,
    /// Where RPUSH adds.
    Tail,
}

/// On which side of the pivot LINSERT inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In front of it.
    Before,
    /// Behind it.
    After,
}

/// Why a conversion from nodes back to a listpack is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shrink {
    /// Elements went away: only well below the limit, so that it does not flip back soon.
    WellBelow,
    /// The list is complete: the limit itself decides.
    AtLimit,
}

/// A list of byte strings.
#[derive(Debug, Clone)]
pub struct List(OneOf<Listpack, Nodes>);

#[derive(Debug, Default)]
struct Nodes {
    nodes: VecDeque<Node>,
    len: usize,
    /// While a snapshot writes the list in slices.
    walk: Option<Box<ListWalk>>,
}

impl Clone for Nodes {
    /// The same elements; the walk stays with the original.
    fn clone(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            len: self.len,
            walk: None,
        }
    }
}

const _: () = assert!(size_of::<List>() == 8);

/// Most bytes and most elements of a node.
fn node_limit(limits: &EncodingLimits) -> (usize, usize) {
    let fill = limits.list_max_listpack_size;
    match usize::try_from(fill) {
        Ok(count) => (SAFE_NODE_BYTES, count.max(1)),
        Err(_) => {
            let level = fill.unsigned_abs().clamp(1, 5) as usize - 1;
            (NODE_BYTES[level], usize::MAX)
        }
    }
}

fn has_room(node: &Node, added: usize, limits: &EncodingLimits) -> bool {
    let (bytes, count) = node_limit(limits);
    node.listpack_bytes() + added + ENTRY_OVERHEAD_BYTES <= bytes && node.count() < count
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        Self(OneOf::small(Listpack::new()))
    }

    /// A list from the nodes of a dump: listpacks in order, none of them empty. Its encoding is
    /// what Redis would choose after loading.
    pub fn from_listpacks(
        listpacks: impl IntoIterator<Item = Listpack>,
        limits: &EncodingLimits,
    ) -> Result<Self, CompactError> {
        let mut nodes = Nodes::default();
        for pack in listpacks {
            if pack.is_empty() {
                return Err(CompactError::Empty);
            }
            nodes.len += pack.len();
            nodes
                .nodes
                .push_back(Node::from_entries(pack.entries().to_vec(), pack.len()));
        }
        if nodes.len == 0 {
            return Err(CompactError::Empty);
        }
        let mut list = Self(OneOf::big(Box::new(nodes)));
        list.try_compact(Shrink::AtLimit, limits);
        Ok(list)
    }

    /// The elements as listpacks, one after the other, as a dump holds them.
    pub fn for_each_listpack(&self, mut visit: impl FnMut(&Listpack)) {
        match self.0.view() {
            View::Small(pack) => visit(pack),
            View::Big(nodes) => nodes
                .nodes
                .iter()
                .for_each(|node| visit(&node.to_listpack())),
        }
    }

    /// Number of listpacks that [`List::for_each_listpack`] visits.
    pub fn listpack_count(&self) -> usize {
        match self.0.view() {
            View::Small(_) => 1,
            View::Big(nodes) => nodes.nodes.len(),
        }
    }

    /// The listpack with this index (a snapshot that copies a long list in slices asks for one
    /// after the other).
    pub fn listpack(&self, index: usize) -> Option<Listpack> {
        match self.0.view() {
            View::Small(pack) => (index == 0).then(|| pack.clone()),
            View::Big(nodes) => nodes.nodes.get(index).map(Node::to_listpack),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self.0.view() {
            View::Small(pack) => pack.len(),
            View::Big(nodes) => nodes.len,
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        match self.0.view() {
            View::Small(pack) => pack.is_empty(),
            View::Big(nodes) => nodes.len == 0,
        }
    }

    /// The name that `OBJECT ENCODING` shows.
    pub fn encoding(&self) -> &'static str {
        match self.0.view() {
            View::Small(_) => "listpack",
            View::Big(_) => "quicklist",
        }
    }

    /// Number of separate heap blocks, about: what freeing the list costs.
    pub fn heap_elements(&self) -> usize {
        self.listpack_count()
    }

    /// Bytes of heap memory, extrapolated from `samples` nodes (0: from all of them).
    pub fn memory_bytes(&self, samples: usize) -> usize {
        match self.0.view() {
            View::Small(pack) => pack.byte_len(),
            View::Big(nodes) => {
                let nodes = &nodes.nodes;
                let size = |at: usize| nodes.get(at).map_or(0, Node::memory_bytes);
                size_of::<Nodes>() + extrapolate_parts(nodes.len(), samples, size)
            }
        }
    }

    /// Changes to nodes if `count` more elements of together `bytes` would exceed the limit of a
    /// listpack. Commands call it once with all elements they are about to add.
    pub fn prepare_for(&mut self, count: usize, bytes: usize, limits: &EncodingLimits) {
        let View::Small(pack) = self.0.view() else {
            return;
        };
        let (most_bytes, most_count) = node_limit(limits);
        if pack.byte_len().saturating_add(bytes) > most_bytes || pack.len() + count > most_count {
            let mut nodes = Nodes {
                nodes: VecDeque::new(),
                len: pack.len(),
                walk: None,
            };
            if !pack.is_empty() {
                nodes
                    .nodes
                    .push_back(Node::from_entries(pack.entries().to_vec(), pack.len()));
            }
            self.0 = OneOf::big(Box::new(nodes));
        }
    }

    /// Changes back to a listpack where the elements are few enough.
    fn try_compact(&mut self, why: Shrink, limits: &EncodingLimits) {
        let View::Big(nodes) = self.0.view() else {
            return;
        };
        if nodes.nodes.len() > 1 || nodes.walk.is_some() {
            return;
        }
        let (mut bytes, mut count) = node_limit(limits);
        if why == Shrink::WellBelow {
            (bytes, count) = (bytes / 2, count / 2);
        }
        let pack = match nodes.nodes.front() {
            None => Listpack::new(),
            Some(node) if node.listpack_bytes() <= bytes && node.count() <= count => {
                node.to_listpack()
            }
            Some(_) => return,
        };
        self.0 = OneOf::small(pack);
    }

    /// Adds an element at an end.
    pub fn push(&mut self, end: End, text: &[u8], limits: &EncodingLimits) {
        self.prepare_for(1, text.len(), limits);
        match (self.0.view_mut(), end) {
            (View::Small(pack), End::Head) => pack.push_front(text),
            (View::Small(pack), End::Tail) => pack.push_back(text),
            (View::Big(nodes), End::Head) => nodes.push_front(text, limits),
            (View::Big(nodes), End::Tail) => nodes.push_back(text, limits),
        }
    }

    /// Removes an element at an end after `take` has seen it.
    pub fn pop<R>(
        &mut self,
        end: End,
        limits: &EncodingLimits,
        take: impl FnOnce(Element<'_>) -> R,
    ) -> Option<R> {
        let result = match self.0.view_mut() {
            View::Small(pack) => {
                let position = match end {
                    End::Head => pack.first(),
                    End::Tail => pack.last(),
                }?;
                let result = pack.get(position).map(take);
                pack.remove(position, 1);
                return result;
            }
            View::Big(nodes) => nodes.pop(end, take),
        };
        self.try_compact(Shrink::WellBelow, limits);
        result
    }

    /// The index from the front that an index from either end means, if there is such an element.
    pub fn resolve(&self, index: i64) -> Option<usize> {
        let len = self.len();
        let resolved = if index < 0 {
            len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
        } else {
            usize::try_from(index).ok()?
        };
        (resolved < len).then_some(resolved)
    }

    /// The element with this index from the front.
    pub fn get(&self, index: usize) -> Option<Element<'_>> {
        match self.0.view() {
            View::Small(pack) => pack.get(pack.seek(i64::try_from(index).ok()?)?),
            View::Big(_) => self.iter_from(index).next(),
        }
    }

    /// Replaces the element with this index, which must exist.
    pub fn set(&mut self, index: usize, text: &[u8], limits: &EncodingLimits) {
        // As if it were one more, as Redis does.
        self.prepare_for(1, text.len(), limits);
        match self.0.view_mut() {
            View::Small(pack) => {
                if let Some(position) = i64::try_from(index).ok().and_then(|at| pack.seek(at)) {
                    pack.replace(position, text);
                }
            }
            View::Big(nodes) => {
                let (node, offset) = nodes.locate(index);
                nodes.keep(node);
                if let Some(found) = nodes.nodes.get_mut(node) {
                    found.replace(offset, text);
                    nodes.split_if_large(node, limits);
                }
                self.try_compact(Shrink::WellBelow, limits);
            }
        }
    }

    /// Adds an element next to the one with this index, which must exist.
    pub fn insert(&mut self, index: usize, side: Side, text: &[u8], limits: &EncodingLimits) {
        self.prepare_for(1, text.len(), limits);
        let before = match side {
            Side::Before => index,
            Side::After => index + 1,
        };
        match self.0.view_mut() {
            View::Small(pack) => {
                match i64::try_from(before)
                    .ok()
                    .and_then(|before| pack.seek(before))
                {
                    Some(position) => pack.insert_before(position, text),
                    None => pack.push_back(text),
                }
            }
            View::Big(nodes) => nodes.insert(before, text, limits),
        }
    }

    /// The index of the first element with this text.
    pub fn position(&self, text: &[u8]) -> Option<usize> {
        let needle = Needle::new(text);
        self.iter().position(|element| needle.matches(element))
    }

    /// Removes up to `most` elements with this text, counted in `direction`; answers how many.
    pub fn remove_matching(
        &mut self,
        text: &[u8],
        direction: Direction,
        most: usize,
        limits: &EncodingLimits,
    ) -> usize {
        let needle = Needle::new(text);
        let removed = match self.0.view_mut() {
            View::Small(pack) => {
                let Some((kept, removed)) =
                    without_matches(pack.entries(), &needle, direction, most)
                else {
                    return 0;
                };
                *pack = Listpack::from_entries(&kept, pack.len() - removed);
                removed
            }
            View::Big(nodes) => nodes.remove_matching(&needle, direction, most),
        };
        self.try_compact(Shrink::WellBelow, limits);
        removed
    }

    /// Keeps `count` elements from index `start` on.
    pub fn trim(&mut self, start: usize, count: usize, limits: &EncodingLimits) {
        match self.0.view_mut() {
            View::Small(pack) => {
                let entries = pack.entries();
                let len = pack.len();
                let end = start.saturating_add(count).min(len);
                let start = start.min(end);
                let from = offset_of(entries, start, len);
                let to = offset_of(entries, end, len);
                *pack = Listpack::from_entries(&entries[from..to], end - start);
            }
            View::Big(nodes) => nodes.trim(start, count),
        }
        self.try_compact(Shrink::WellBelow, limits);
    }

    /// All elements, from either end.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Element<'_>> {
        self.runs(..).flat_map(|(entries, _)| Iter::over(entries))
    }

    /// The runs with these numbers; a listpack is one run.
    fn runs(
        &self,
        numbers: impl RangeBounds<usize>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], usize)> {
        let (pack, nodes) = match self.0.view() {
            View::Small(pack) => (Some((pack.entries(), pack.len())), None),
            View::Big(nodes) => (None, Some(nodes.nodes.range(numbers))),
        };
        pack.into_iter().chain(
            nodes
                .into_iter()
                .flatten()
                .map(|node| (node.entries(), node.count())),
        )
    }

    /// The number of the run that holds the element with this index, found from the nearer end of the list, and the
    /// index in it.
    fn locate(&self, index: usize) -> (usize, usize) {
        match self.0.view() {
            View::Small(_) => (0, index),
            View::Big(nodes) => nodes.locate(index),
        }
    }

    /// Elements from this index on.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = Element<'_>> {
        let (first, mut before) = self.locate(index);
        self.runs(first..).flat_map(move |(entries, count)| {
            let skipped = std::mem::take(&mut before).min(count);
            Iter::over(&entries[offset_of(entries, skipped, count)..])
        })
    }

    /// Elements from this index back to the first.
    pub fn iter_back_from(&self, index: usize) -> impl Iterator<Item = Element<'_>> {
        let end = index.saturating_add(1).min(self.len());
        let (last, in_last) = self.locate(end.saturating_sub(1));
        let mut taken = Some(in_last + 1);
        let runs = self.runs(..(last + 1).min(self.listpack_count()));
        runs.rev().flat_map(move |(entries, count)| {
            let taken = taken.take().unwrap_or(count);
            Iter::over(&entries[..offset_of(entries, taken, count)]).rev()
        })
    }
}

/// Slices for a snapshot; see `walk.rs`. Only long lists are walked: of a short one nothing comes.
impl List {
    /// Begins a walk over the elements as they are now.
    pub fn begin_walk(&mut self, slicing: Slicing) {
        if let View::Big(nodes) = self.0.view_mut() {
            nodes.walk = Some(Box::new(ListWalk::begin(slicing, nodes.nodes.len())));
        }
    }

    /// The walk under way.
    pub fn slicing(&self) -> Option<&Slicing> {
        match self.0.view() {
            View::Small(_) => None,
            View::Big(nodes) => Some(&nodes.walk.as_ref()?.slicing),
        }
    }

    /// Gives up to `budget` listpacks of the list as it was when the walk began, in order.
    pub fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        match self.0.view_mut() {
            View::Small(_) => Left::Nothing,
            View::Big(nodes) => match &mut nodes.walk {
                None => Left::Nothing,
                Some(walk) => walk.slice(&nodes.nodes, budget, give),
            },
        }
    }

    /// Ends the walk.
    pub fn end_walk(&mut self) {
        if let View::Big(nodes) = self.0.view_mut() {
            nodes.walk = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(End, Vec<u8>),
        Pop(End),
        Set(usize, Vec<u8>),
        Insert(usize, Side, Vec<u8>),
        Remove(Vec<u8>, Direction, usize),
        Trim(usize, usize),
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => (0u8..6).prop_map(|digit| vec![b'0' + digit]),
            4 => (0usize..300).prop_map(|length| vec![b'v'; length]),
            1 => (5000usize..9000).prop_map(|length| vec![b'w'; length]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = prop_oneof![Just(End::Head), Just(End::Tail)];
        let side = prop_oneof![Just(Side::Before), Just(Side::After)];
        let direction = prop_oneof![Just(Direction::Forward), Just(Direction::Backward)];
        prop_oneof![
            8 => (end.clone(), element()).prop_map(|(end, text)| Step::Push(end, text)),
            3 => end.prop_map(Step::Pop),
            2 => (0usize..90, element()).prop_map(|(at, text)| Step::Set(at, text)),
            2 => (0usize..90, side, element()).prop_map(|(at, side, text)| Step::Insert(at, side, text)),
            1 => (element(), direction, 1usize..9).prop_map(|(text, way, most)| Step::Remove(text, way, most)),
            1 => (0usize..4, 20usize..90).prop_map(|(start, count)| Step::Trim(start, count)),
        ]
    }

    fn remove_from(
        model: &mut Vec<Vec<u8>>,
        text: &[u8],
        direction: Direction,
        most: usize,
    ) -> usize {
        let mut left = most;
        let mut keep = |element: &Vec<u8>| {
            let gone = left > 0 && element == text;
            left -= usize::from(gone);
            !gone
        };
        match direction {
            Direction::Forward => model.retain(&mut keep),
            Direction::Backward => {
                model.reverse();
                model.retain(&mut keep);
                model.reverse();
            }
        }
        most - left
    }

    fn apply(list: &mut List, model: &mut Vec<Vec<u8>>, step: Step, limits: &EncodingLimits) {
        match step {
            Step::Push(End::Head, text) => {
                list.push(End::Head, &text, limits);
                model.insert(0, text);
            }
            Step::Push(End::Tail, text) => {
                list.push(End::Tail, &text, limits);
                model.push(text);
            }
            Step::Pop(End::Head) => {
                let popped = list.pop(End::Head, limits, |element| element.to_vec());
                assert_eq!(popped, (!model.is_empty()).then(|| model.remove(0)));
            }
            Step::Pop(End::Tail) => {
                assert_eq!(
                    list.pop(End::Tail, limits, |element| element.to_vec()),
                    model.pop()
                );
            }
            Step::Set(at, text) if at < model.len() => {
                list.set(at, &text, limits);
                model[at] = text;
            }
            Step::Insert(at, side, text) if at < model.len() => {
                list.insert(at, side, &text, limits);
                model.insert(at + usize::from(side == Side::After), text);
            }
            Step::Remove(text, direction, most) => {
                let expected = remove_from(model, &text, direction, most);
                assert_eq!(
                    list.remove_matching(&text, direction, most, limits),
                    expected
                );
            }
            Step::Trim(start, count) => {
                list.trim(start, count, limits);
                *model = model.iter().skip(start).take(count).cloned().collect();
            }
            Step::Set(..) | Step::Insert(..) => {}
        }
    }

    fn check(list: &List, model: &[Vec<u8>]) {
        assert_eq!(list.len(), model.len());
        assert!(list.iter().map(Element::to_vec).eq(model.iter().cloned()));
        assert!(
            list.iter()
                .rev()
                .map(Element::to_vec)
                .eq(model.iter().rev().cloned())
        );
        for index in 0..model.len() {
            assert!(list.get(index).unwrap().is(&model[index]));
            assert!(
                list.iter_from(index)
                    .map(Element::to_vec)
                    .eq(model[index..].iter().cloned())
            );
            let back = model[..=index].iter().rev().cloned();
            assert!(list.iter_back_from(index).map(Element::to_vec).eq(back));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_history_equals_a_vector(
            steps in proptest::collection::vec(step(), 0..160),
            fill in prop_oneof![Just(-2i64), Just(-1), Just(4), Just(20)],
        ) {
            let limits =
                EncodingLimits { list_max_listpack_size: fill, ..EncodingLimits::default() };
            let mut list = List::new();
            let mut model = Vec::new();
            for step in steps {
                apply(&mut list, &mut model, step, &limits);
                prop_assert_eq!(list.len(), model.len());
            }
            check(&list, &model);
            let mut packs = Vec::new();
            list.for_each_listpack(|pack| packs.push(pack.clone()));
            prop_assert_eq!(packs.len(), list.listpack_count());
            if !model.is_empty() {
                check(&List::from_listpacks(packs, &limits).unwrap(), &model);
            }
        }
    }

    #[test]
    fn the_encoding_changes_where_that_of_redis_does() {
        let limits = EncodingLimits::default();
        let mut list = List::new();
        list.push(End::Tail, &[b'x'; 8185], &limits);
        assert_eq!(list.encoding(), "listpack");
        list.push(End::Tail, b"y", &limits);
        assert_eq!(list.encoding(), "quicklist");
        list.pop(End::Head, &limits, |_| ());
        assert_eq!((list.encoding(), list.len()), ("listpack", 1));
        // An element that is replaced counts as one more, and the way back is half as long.
        let limits = EncodingLimits {
            list_max_listpack_size: 2,
            ..limits
        };
        list.push(End::Tail, b"z", &limits);
        assert_eq!(list.encoding(), "listpack");
        list.set(0, b"x", &limits);
        assert_eq!((list.encoding(), list.len()), ("quicklist", 2));
    }
}
