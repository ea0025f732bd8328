//! The nodes of a long list: adding and removing, with what a walk of a snapshot has to be told.
//!
//! Called by `list.rs` alone, whose invariants hold here.

use super::{Direction, Element, End, Needle, Node, Nodes, has_room, node_limit, without_matches};
use crate::keyspace::types::EncodingLimits;

impl Nodes {
    /// Before the node at `at` changes or goes.
    #[inline]
    pub(super) fn keep(&mut self, at: usize) {
        if let Some(walk) = &mut self.walk {
            walk.keep(&self.nodes, at);
        }
    }

    #[inline]
    fn keep_last(&mut self) {
        if let Some(last) = self.nodes.len().checked_sub(1) {
            self.keep(last);
        }
    }

    /// Puts a node at `at`.
    fn add_node(&mut self, at: usize, node: Node) {
        self.nodes.insert(at, node);
        if let Some(walk) = &mut self.walk {
            walk.added(at);
        }
    }

    /// Takes the node at an end out if it is empty.
    fn drop_empty(&mut self, end: End) {
        let at = match end {
            End::Head => 0,
            End::Tail => self.nodes.len().saturating_sub(1),
        };
        if self.nodes.get(at).is_none_or(|node| node.count() > 0) {
            return;
        }
        self.nodes.remove(at);
        if let Some(walk) = &mut self.walk {
            walk.removed(at);
        }
    }

    pub(super) fn push_front(&mut self, text: &[u8], limits: &EncodingLimits) {
        self.len += 1;
        let room = self
            .nodes
            .front()
            .map(|first| has_room(first, text.len(), limits));
        if room == Some(true) {
            self.keep(0);
        }
        if let (Some(first), Some(has_room)) = (self.nodes.front_mut(), room) {
            if has_room {
                return first.push_front(text);
            }
            first.settle();
        }
        let mut node = Node::default();
        node.push_front(text);
        self.add_node(0, node);
    }

    pub(super) fn push_back(&mut self, text: &[u8], limits: &EncodingLimits) {
        self.len += 1;
        let room = self
            .nodes
            .back()
            .map(|last| has_room(last, text.len(), limits));
        if room == Some(true) {
            self.keep_last();
        }
        if let (Some(last), Some(has_room)) = (self.nodes.back_mut(), room) {
            if has_room {
                return last.push_back(text);
            }
            last.settle();
        }
        let mut node = Node::default();
        node.push_back(text);
        self.add_node(self.nodes.len(), node);
    }

    pub(super) fn pop<R>(&mut self, end: End, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let result = match end {
            End::Head => {
                self.keep(0);
                self.nodes.front_mut()?.pop_front(take)
            }
            End::Tail => {
                self.keep_last();
                self.nodes.back_mut()?.pop_back(take)
            }
        }?;
        self.len -= 1;
        self.drop_empty(end);
        Some(result)
    }

    /// The node that holds the element with this index, and the index in it. The index behind the
    /// last element is the place behind the last element of the last node.
    pub(super) fn locate(&self, index: usize) -> (usize, usize) {
        if index > self.len / 2 {
            let mut behind = self.len;
            for (at, node) in self.nodes.iter().enumerate().rev() {
                behind -= node.count();
                if index >= behind {
                    return (at, index - behind);
                }
            }
        }
        let mut rest = index;
        for (at, node) in self.nodes.iter().enumerate() {
            if rest < node.count() {
                return (at, rest);
            }
            rest -= node.count();
        }
        (self.nodes.len(), 0)
    }

    pub(super) fn insert(&mut self, before: usize, text: &[u8], limits: &EncodingLimits) {
        let (at, index) = self.locate(before);
        self.keep(at);
        let Some(node) = self.nodes.get_mut(at) else {
            return self.push_back(text, limits);
        };
        node.insert(index, text);
        self.len += 1;
        self.split_if_large(at, limits);
    }

    /// Splits a node that exceeds the limit until its parts do not, or are single elements.
    pub(super) fn split_if_large(&mut self, at: usize, limits: &EncodingLimits) {
        let (bytes, count) = node_limit(limits);
        let mut at = at;
        while let Some(node) = self.nodes.get_mut(at) {
            if node.count() < 2 || (node.listpack_bytes() <= bytes && node.count() <= count) {
                return;
            }
            let tail = node.split_off(node.count() / 2);
            let head_is_large = node.listpack_bytes() > bytes || node.count() > count;
            self.add_node(at + 1, tail);
            at += usize::from(!head_is_large);
        }
    }

    pub(super) fn remove_matching(
        &mut self,
        needle: &Needle<'_>,
        direction: Direction,
        most: usize,
    ) -> usize {
        let mut removed = 0;
        let count = self.nodes.len();
        for step in 0..count {
            if removed == most {
                break;
            }
            let at = match direction {
                Direction::Forward => step,
                Direction::Backward => count - 1 - step,
            };
            let node = &self.nodes[at];
            let found = without_matches(node.entries(), needle, direction, most - removed);
            if let Some((kept, gone)) = found {
                self.keep(at);
                let node = &mut self.nodes[at];
                *node = Node::from_entries(kept, node.count() - gone);
                removed += gone;
            }
        }
        if removed > 0 {
            let mut at = 0;
            self.nodes.retain(|node| {
                let stays = node.count() > 0;
                if let (false, Some(walk)) = (stays, &mut self.walk) {
                    walk.removed(at);
                }
                at += usize::from(stays);
                stays
            });
            self.len -= removed;
        }
        removed
    }

    pub(super) fn trim(&mut self, start: usize, count: usize) {
        let end = start.saturating_add(count).min(self.len);
        let mut behind = self.len - end;
        let mut before = start.min(end);
        self.len = end - before;
        while before > 0 {
            self.keep(0);
            let Some(node) = self.nodes.front_mut() else {
                break;
            };
            let gone = before.min(node.count());
            node.remove(0, gone);
            before -= gone;
            self.drop_empty(End::Head);
        }
        while behind > 0 {
            self.keep_last();
            let Some(node) = self.nodes.back_mut() else {
                break;
            };
            let gone = behind.min(node.count());
            node.remove(node.count() - gone, gone);
            behind -= gone;
            self.drop_empty(End::Tail);
        }
    }
}
