//! The walk of a snapshot over a long list, node by node.
//!
//! Owns: [`ListWalk`]. Called by: `list.rs` alone, which tells it before a node changes and after nodes come and go. What
//! `walk.rs` says of elements holds here of nodes, but lists have an order: the nodes that are still to come and have not
//! changed are one range of the list's nodes. A node of the range that is about to change is copied, with those between
//! it and the nearer end of the range. At the ends of a list, where nearly all writes are, that is the node alone; in the
//! middle (LSET, LINSERT, LREM) it may be up to half of the list, once.

use std::collections::VecDeque;
use std::ops::Range;

use super::{
    compact::Listpack,
    list_node::Node,
    walk::{Left, Piece, Slicing, Started},
};

/// See the module's text.
#[derive(Debug)]
pub(super) struct ListWalk {
    pub(super) slicing: Slicing,
    /// Nodes still to come, as they lie in the list.
    ahead: Range<usize>,
    /// Copies of what comes before them.
    front: VecDeque<Listpack>,
    /// Copies of what comes after them.
    back: VecDeque<Listpack>,
}

impl ListWalk {
    /// A walk over `nodes` nodes.
    pub(super) fn begin(slicing: Slicing, nodes: usize) -> Self {
        Self {
            slicing,
            ahead: 0..nodes,
            front: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    /// Before the node at `at` changes or goes.
    pub(super) fn keep(&mut self, nodes: &VecDeque<Node>, at: usize) {
        if !self.ahead.contains(&at) {
            return;
        }
        let in_front = at - self.ahead.start;
        let behind = self.ahead.end - 1 - at;
        if in_front <= behind {
            let range = nodes.range(self.ahead.start..=at);
            self.front.extend(range.map(Node::to_listpack));
            self.ahead.start = at + 1;
        } else {
            for node in nodes.range(at..self.ahead.end).rev() {
                self.back.push_front(node.to_listpack());
            }
            self.ahead.end = at;
        }
    }

    /// After a node was added at `at`: never between two nodes that are to come, because the split of a node changes it.
    pub(super) fn added(&mut self, at: usize) {
        if at <= self.ahead.start {
            self.ahead = self.ahead.start + 1..self.ahead.end + 1;
        }
    }

    /// After the node at `at`, which was kept, was taken out.
    pub(super) fn removed(&mut self, at: usize) {
        if at < self.ahead.start {
            self.ahead = self.ahead.start - 1..self.ahead.end - 1;
        }
    }

    /// Gives up to `budget` nodes.
    pub(super) fn slice(
        &mut self,
        nodes: &VecDeque<Node>,
        budget: usize,
        give: &mut dyn FnMut(Piece<'_>),
    ) -> Left {
        self.slicing.started = Started::Yes;
        for _ in 0..budget {
            if let Some(pack) = self.front.pop_front() {
                give(Piece::Elements(&pack));
            } else if let Some(at) = self.ahead.next() {
                if let Some(node) = nodes.get(at) {
                    give(Piece::Elements(&node.to_listpack()));
                }
            } else if let Some(pack) = self.back.pop_front() {
                give(Piece::Elements(&pack));
            } else {
                return Left::Nothing;
            }
        }
        Left::More
    }
}
