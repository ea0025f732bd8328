//! A node of a long list: listpack entries in a buffer that is open at both ends.
//!
//! Owns: [`Node`]. Called by: `list.rs` alone. Unlike a listpack, a node can gain and lose entries
//! at its front without moving the others: that is what queues do all day. The entries are the
//! bytes of a listpack without header and end mark, so a dump only adds those.
//!
//! ```text
//! data: | free (start bytes) | entry | entry | … | (spare capacity of the vector) |
//! ```
//!
//! Invariants: `data[start..]` is `count` valid entries; a node in a list is never empty.

use super::{
    compact::{Iter, Listpack},
    entry::{self, Element, Encoded},
};

/// Bytes that a listpack has besides its entries.
const LISTPACK_FRAME_BYTES: usize = 7;
/// Most bytes that are kept free in front of a node that grows there.
const MAX_FRONT_BYTES: usize = 4096;

/// A run of list elements.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    data: Vec<u8>,
    start: usize,
    count: usize,
}

impl Node {
    /// A node of entries that are known to be valid.
    pub(super) fn from_entries(entries: Vec<u8>, count: usize) -> Self {
        Self {
            data: entries,
            start: 0,
            count,
        }
    }

    /// The same elements as a listpack.
    pub(super) fn to_listpack(&self) -> Listpack {
        Listpack::from_entries(self.entries(), self.count)
    }

    /// The entries' bytes.
    pub(super) fn entries(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// Number of elements.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes that the node would have as a listpack.
    pub(super) fn listpack_bytes(&self) -> usize {
        self.data.len() - self.start + LISTPACK_FRAME_BYTES
    }

    /// Bytes of memory it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.data.capacity() + size_of::<Self>()
    }

    /// Gives spare room back; done when the ends of the list move on to another node.
    pub(super) fn settle(&mut self) {
        self.data.drain(..self.start);
        self.start = 0;
        self.data.shrink_to_fit();
    }

    /// Adds an element at the end.
    pub(super) fn push_back(&mut self, text: &[u8]) {
        for part in Encoded::new(text).parts() {
            self.data.extend_from_slice(part);
        }
        self.count += 1;
    }

    /// Adds an element at the front.
    pub(super) fn push_front(&mut self, text: &[u8]) {
        let encoded = Encoded::new(text);
        let need = encoded.len();
        if self.start < need {
            let room = need + self.entries().len().min(MAX_FRONT_BYTES);
            let mut data = Vec::with_capacity(room + self.entries().len());
            data.resize(room, 0);
            data.extend_from_slice(self.entries());
            self.data = data;
            self.start = room;
        }
        self.start -= need;
        encoded.write(&mut self.data[self.start..]);
        self.count += 1;
    }

    /// Removes the first element after `take` has seen it.
    pub(super) fn pop_front<R>(&mut self, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let (element, next) = entry::decode(&self.data, self.start)?;
        let result = take(element);
        self.start = next;
        self.count -= 1;
        Some(result)
    }

    /// Removes the last element after `take` has seen it.
    pub(super) fn pop_back<R>(&mut self, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let at = entry::previous(&self.data, self.data.len()).filter(|&at| at >= self.start)?;
        let (element, _) = entry::decode(&self.data, at)?;
        let result = take(element);
        self.data.truncate(at);
        self.count -= 1;
        Some(result)
    }

    /// Offset of an element within the entries.
    fn offset(&self, index: usize) -> usize {
        offset_of(self.entries(), index, self.count)
    }

    /// Replaces an element.
    pub(super) fn replace(&mut self, index: usize, text: &[u8]) {
        let at = self.start + self.offset(index);
        let Some((_, next)) = entry::decode(&self.data, at) else {
            return;
        };
        self.data
            .splice(at..next, Encoded::new(text).parts().concat());
    }

    /// Adds an element in front of the one with this index.
    pub(super) fn insert(&mut self, index: usize, text: &[u8]) {
        let at = self.start + self.offset(index);
        self.data
            .splice(at..at, Encoded::new(text).parts().concat());
        self.count += 1;
    }

    /// Removes `removed` elements from this index on.
    pub(super) fn remove(&mut self, index: usize, removed: usize) {
        let from = self.start + self.offset(index);
        let to = self.start + self.offset(index + removed);
        self.data.drain(from..to);
        self.count -= removed;
    }

    /// Splits the elements from this index on off into a node of their own.
    pub(super) fn split_off(&mut self, index: usize) -> Node {
        let at = self.start + self.offset(index);
        let tail = Node::from_entries(self.data[at..].to_vec(), self.count - index);
        self.data.truncate(at);
        self.count = index;
        tail
    }
}

/// Offset of the element with this index in a run of `count` entries, walking from the nearer end.
pub(super) fn offset_of(entries: &[u8], index: usize, count: usize) -> usize {
    if index >= count {
        return entries.len();
    }
    if index > count / 2 {
        let mut at = entries.len();
        for _ in index..count {
            at = entry::previous(entries, at).unwrap_or(0);
        }
        return at;
    }
    let mut at = 0;
    for _ in 0..index {
        at = entry::decode(entries, at).map_or(entries.len(), |(_, next)| next);
    }
    at
}

/// From which end matching elements are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first element on.
    Forward,
    /// From the last element back.
    Backward,
}

/// The entries that are left of a run when at most `most` elements with the text `needle`,
/// counted in `direction`, are taken out. `None` if there is none.
pub(super) fn without_matches(
    entries: &[u8],
    needle: &entry::Needle<'_>,
    direction: Direction,
    most: usize,
) -> Option<(Vec<u8>, usize)> {
    let matches = Iter::over(entries)
        .filter(|element| needle.matches(*element))
        .count();
    if matches == 0 || most == 0 {
        return None;
    }
    let removed = matches.min(most);
    let spared_in_front = match direction {
        Direction::Forward => 0,
        Direction::Backward => matches - removed,
    };
    let mut kept = Vec::with_capacity(entries.len());
    let (mut at, mut seen) = (0, 0);
    while let Some((element, next)) = entry::decode(entries, at) {
        let is_match = needle.matches(element);
        let taken = is_match && seen >= spared_in_front && seen < spared_in_front + removed;
        seen += usize::from(is_match);
        if !taken {
            kept.extend_from_slice(&entries[at..next]);
        }
        at = next;
    }
    Some((kept, removed))
}
