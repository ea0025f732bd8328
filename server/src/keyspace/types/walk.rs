//! What a big collection carries while a snapshot writes it in slices.
//!
//! Owns: [`Walk`], [`Head`] and the forms in which elements leave. Called by the collections, which tell it before they
//! change an element, and by `keyspace::slices`, which asks for slice after slice.
//!
//! A snapshot writes a collection as it was when the snapshot began. The walk goes over the collection as it is; an
//! element that is about to change and that the walk has not passed is first kept in `before` as it was (or as absent).
//! The walk leaves out elements that `before` knows, and gives what `before` holds at its end. So the cost of a change
//! is that of one more element, however big the collection is, and the memory is that of the elements changed meanwhile.

use std::collections::BTreeMap;

use super::{
    compact::Listpack,
    entry::Element,
    hashing::hash_bytes,
    step_table::{StepTable, Tagged},
};

/// The key under which a collection is written, as it was when the snapshot began: later it may have another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The database.
    pub db: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// When it expires, in milliseconds since 1970.
    pub expire_at: Option<i64>,
    /// Its type.
    pub kind: CollectionKind,
    /// Number of its elements; of a list: of its listpacks.
    pub len: usize,
}

/// Whether a snapshot's stream has a collection's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// Not yet.
    No,
    /// It has, but not its end.
    Yes,
}

/// A collection that is written in slices.
#[derive(Debug)]
pub struct Slicing {
    /// What it is.
    pub head: Head,
    /// Whether writing has begun.
    pub started: Started,
}

/// Type of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectionKind {
    /// A list: its pieces are listpacks, in order.
    List,
    /// A set: its pieces are members.
    Set,
    /// A hash: its pieces are fields.
    Hash,
    /// A sorted set: its pieces are members with scores.
    SortedSet,
}

/// A part of a collection on its way into a snapshot.
#[derive(Debug)]
pub enum Piece<'a> {
    /// The next elements of a list.
    Elements(&'a Listpack),
    /// A member of a set.
    Member(Element<'a>),
    /// A field of a hash with its value.
    Field(Element<'a>, Element<'a>),
    /// A member of a sorted set with its score.
    Scored(Element<'a>, f64),
}

impl Piece<'_> {
    /// Bytes of its texts, about.
    pub fn bytes(&self) -> usize {
        let of = |element: &Element<'_>| match element {
            Element::Integer(_) => size_of::<i64>(),
            Element::Text(text) => text.len(),
        };
        match self {
            Piece::Elements(pack) => pack.byte_len(),
            Piece::Member(member) | Piece::Scored(member, _) => of(member),
            Piece::Field(field, value) => of(field) + of(value),
        }
    }
}

/// Whether a walk has more to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// There is more.
    More,
    /// That was all.
    Nothing,
}

/// How far a walk has come.
#[derive(Debug)]
pub(super) enum Place<P> {
    /// Everything from here on is still to come.
    At(P),
    /// All elements have been met; what `before` holds is left.
    End,
}

/// The walk over a collection whose elements are told apart by their text. `P` is a place in the order of the walk,
/// `V` what belongs to an element.
#[derive(Debug)]
pub(super) struct Walk<P, V> {
    pub(super) slicing: Slicing,
    pub(super) place: Place<P>,
    /// Elements that have changed since the snapshot began: as they were then; `None` where the walk need not give them,
    /// because they were not there or it has given them.
    before: BTreeMap<Box<[u8]>, Option<V>>,
}

/// Absent but while a snapshot writes the collection.
pub(super) type Walking<P, V> = Option<Box<Walk<P, V>>>;

impl<P, V> Walk<P, V> {
    pub(super) fn begin(slicing: Slicing, at: P) -> Self {
        Self {
            slicing,
            place: Place::At(at),
            before: BTreeMap::new(),
        }
    }

    /// Keeps what `element` is, unless an earlier state is known.
    pub(super) fn keep(&mut self, element: &[u8], state: impl FnOnce() -> Option<V>) {
        if !self.before.contains_key(element) {
            self.before.insert(element.into(), state());
        }
    }

    /// Whether the walk leaves `element` out, as it is now.
    #[inline]
    pub(super) fn leaves_out(&self, element: &[u8]) -> bool {
        !self.before.is_empty() && self.before.contains_key(element)
    }

    /// Gives up to `budget` of the kept states, once all elements have been met.
    pub(super) fn give_kept_at_end(
        &mut self,
        budget: usize,
        mut give: impl FnMut(&[u8], V),
    ) -> Left {
        if matches!(self.place, Place::At(_)) {
            return Left::More;
        }
        for _ in 0..budget {
            match self.before.pop_first() {
                None => return Left::Nothing,
                Some((element, Some(state))) => give(&element, state),
                Some((_, None)) => {}
            }
        }
        Left::More
    }
}

/// A place in a hash table: everything whose bit-reversed hash is not smaller is still to come.
pub(super) type HashPlace = u64;

/// An element of a hash table, as a walk sees it.
pub(super) trait Hashed: Tagged {
    /// What belongs to it beside its text.
    type State;

    /// What tells it apart.
    fn text(&self) -> &[u8];

    /// The hash of its text.
    fn hash(&self) -> u64 {
        hash_bytes(self.text())
    }

    /// Its form in a snapshot.
    fn piece(&self) -> Piece<'_>;

    /// The form of one that was kept.
    fn kept_piece<'a>(text: &'a [u8], state: &'a Self::State) -> Piece<'a>;
}

impl<V> Walk<HashPlace, V> {
    /// Gives about `budget` elements of `table` as they were when the walk began.
    pub(super) fn give_slice<E: Hashed<State = V>>(
        &mut self,
        table: &StepTable<E>,
        budget: usize,
        give: &mut dyn FnMut(Piece<'_>),
    ) -> Left {
        self.slicing.started = Started::Yes;
        let mut given = 0;
        while let Place::At(at) = self.place
            && given < budget
        {
            let mut visit = |element: &E| {
                given += 1;
                if !self.leaves_out(element.text()) {
                    give(element.piece());
                }
            };
            let next = table.walk(at, E::hash, &mut visit);
            // A bucket costs something, also an empty one.
            given += 1;
            self.place = next.map_or(Place::End, Place::At);
        }
        self.give_kept_at_end(budget.saturating_sub(given), |text, state| {
            give(E::kept_piece(text, &state));
        })
    }

    /// As [`Walk::keep`], for an element of a hash table; does nothing if the walk has passed it.
    pub(super) fn keep_hashed(
        &mut self,
        hash: u64,
        element: &[u8],
        state: impl FnOnce() -> Option<V>,
    ) {
        match self.place {
            Place::At(at) if hash.reverse_bits() >= at => self.keep(element, state),
            Place::At(_) | Place::End => {}
        }
    }
}
