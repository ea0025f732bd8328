//! Slices of a big sorted set for a snapshot; see `walk.rs`.
//!
//! The walk goes from the highest score down, the order in which Redis loads fastest.

use std::cmp::Ordering;

use super::{Element, Indexed, ScorePlace, SortedSet, compare};
use crate::keyspace::types::{
    thin::View,
    walk::{Left, Piece, Place, Slicing, Started, Walk, Walking},
};

/// Only big sets are walked: of a small one nothing comes.
impl SortedSet {
    /// Begins a walk over the members as they are now.
    pub fn begin_walk(&mut self, slicing: Slicing) {
        if let View::Big(indexed) = self.0.view_mut() {
            indexed.walk = Some(Box::new(Walk::begin(slicing, None)));
        }
    }

    /// The walk under way.
    pub fn slicing(&self) -> Option<&Slicing> {
        match self.0.view() {
            View::Small(_) => None,
            View::Big(indexed) => Some(&indexed.walk.as_ref()?.slicing),
        }
    }

    /// Gives about `budget` members as they were when the walk began, from the highest score down.
    pub fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        match self.0.view_mut() {
            View::Small(_) => Left::Nothing,
            View::Big(indexed) => indexed.walk_slice(budget, give),
        }
    }

    /// Ends the walk.
    pub fn end_walk(&mut self) {
        if let View::Big(indexed) = self.0.view_mut() {
            indexed.walk = None;
        }
    }
}

impl Indexed {
    /// Before a member changes: the walk keeps the score it had, if it still has to give it.
    #[inline]
    pub(super) fn keep(&mut self, member: &[u8], score: Option<f64>) {
        keep(&mut self.walk, member, score);
    }

    fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        let Some(mut walk) = self.walk.take() else {
            return Left::Nothing;
        };
        walk.slicing.started = Started::Yes;
        let mut left = budget;
        if let Place::At(at) = &walk.place {
            let end = match at {
                None => self.table.len(),
                Some((score, member)) => self.rank_of(*score, member),
            };
            let mut last = None;
            for (score, id) in self.index.iter_back(end).take(budget) {
                let member = self.members.text(id);
                if !walk.leaves_out(member) {
                    give(Piece::Scored(Element::Text(member), score));
                }
                last = Some((score, member));
            }
            left = budget.saturating_sub(end);
            walk.place = match last {
                Some((score, member)) if end > budget => Place::At(Some((score, member.into()))),
                Some(_) | None => Place::End,
            };
        }
        let end = walk.give_kept_at_end(left, |member, score| {
            give(Piece::Scored(Element::Text(member), score));
        });
        self.walk = Some(walk);
        end
    }
}

/// See [`Indexed::keep`]. A member that the walk has met may come again under a lower score: it is noted all the same.
pub(super) fn keep(walk: &mut Walking<ScorePlace, f64>, member: &[u8], score: Option<f64>) {
    let Some(walk) = walk else { return };
    let Walk { place, .. } = &**walk;
    let Place::At(at) = place else { return };
    let is_ahead = |score: &f64| match at {
        None => true,
        Some((at, last)) => compare((*score, member), (*at, last)) == Ordering::Less,
    };
    let state = score.filter(is_ahead);
    walk.keep(member, || state);
}
