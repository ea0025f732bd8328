//! Sets: sorted integers, or one listpack, while small; then a table.
//!
//! Owns: [`Set`]. Called by: the set commands and the RDB code. `OBJECT ENCODING` is `intset`,
//! `listpack` or `hashtable`, with Redis 7.2's rules for the changes.
//!
//! Invariants: members are unique; once a table, a set stays one (as in Redis).

use super::{
    EncodingLimits,
    compact::{CompactError, Listpack},
    entry::Element,
    hash::Written,
    hashing::hash_bytes,
    intset::IntSet,
    number::{NumberText, canonical_i64},
    step_table::{StepTable, Tagged, tag_of},
    thin::{TaggedBytes, ThinBytes},
    walk::{HashPlace, Hashed, Left, Piece, Slicing, Walk, Walking},
};

/// A member of a table.
#[derive(Debug)]
struct Member(TaggedBytes);

impl Tagged for Member {
    #[inline]
    fn tag(&self) -> u16 {
        self.0.tag()
    }
}

impl Member {
    fn new(hash: u64, text: &[u8]) -> Self {
        Self(TaggedBytes::new(ThinBytes::concat(&[text]), tag_of(hash)))
    }
}

impl Hashed for Member {
    type State = ();

    #[inline]
    fn text(&self) -> &[u8] {
        self.0.body()
    }

    fn piece(&self) -> Piece<'_> {
        Piece::Member(Element::Text(self.text()))
    }

    fn kept_piece<'a>(member: &'a [u8], (): &'a ()) -> Piece<'a> {
        Piece::Member(Element::Text(member))
    }
}

/// A set of byte strings.
#[derive(Debug)]
pub struct Set(Repr);

#[derive(Debug)]
enum Repr {
    Integers(IntSet),
    Compact(Listpack),
    Table(Box<Table>),
}

/// The members of a big set.
#[derive(Debug, Default)]
struct Table {
    members: StepTable<Member>,
    walk: Walking<HashPlace, ()>,
}

impl Table {
    fn contains(&self, member: &[u8]) -> bool {
        self.members
            .find(hash_bytes(member), |found| found.text() == member)
            .is_some()
    }

    fn insert(&mut self, member: &[u8]) -> Written {
        let hash = hash_bytes(member);
        if self
            .members
            .find(hash, |found| found.text() == member)
            .is_some()
        {
            return Written::Replaced;
        }
        if let Some(walk) = &mut self.walk {
            walk.keep_hashed(hash, member, || None);
        }
        self.members
            .insert_new(hash, Member::new(hash, member), Member::hash);
        Written::New
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        let hash = hash_bytes(member);
        let removed = self.members.remove(hash, |found| found.text() == member);
        if let (Some(walk), Some(_)) = (&mut self.walk, &removed) {
            walk.keep_hashed(hash, member, || Some(()));
        }
        removed.is_some()
    }

    fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        let walk = self.walk.as_mut();
        walk.map_or(Left::Nothing, |walk| {
            walk.give_slice(&self.members, budget, give)
        })
    }
}

const _: () = assert!(size_of::<Set>() <= 16);

/// The compact forms as a dump holds them.
#[derive(Debug)]
pub enum CompactSet<'a> {
    /// Sorted integers.
    Integers(&'a IntSet),
    /// A listpack of members.
    Listpack(&'a Listpack),
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Set {
    /// An empty set.
    pub fn new() -> Self {
        Self(Repr::Integers(IntSet::new()))
    }

    /// An empty set in the encoding that suits `count` members of which `first` is one.
    pub fn for_members(first: &[u8], count: usize, limits: &EncodingLimits) -> Self {
        if canonical_i64(first).is_some() && count <= limits.set_max_intset_entries {
            Self::new()
        } else if count <= limits.set_max_listpack_entries {
            Self(Repr::Compact(Listpack::new()))
        } else {
            Self(Repr::Table(Box::default()))
        }
    }

    /// A set of integers that came from outside.
    pub fn from_intset(ints: IntSet, limits: &EncodingLimits) -> Result<Self, CompactError> {
        if ints.is_empty() {
            return Err(CompactError::Empty);
        }
        let mut set = Self(Repr::Integers(ints));
        set.limit_integers(limits);
        Ok(set)
    }

    /// A set from a listpack of members that came from outside.
    pub fn from_listpack(pack: Listpack, limits: &EncodingLimits) -> Result<Self, CompactError> {
        let count = pack.iter().count();
        if count == 0 {
            return Err(CompactError::Empty);
        }
        let largest = pack
            .iter()
            .map(|element| element.text().len())
            .max()
            .unwrap_or(0);
        if count <= limits.set_max_listpack_entries && largest <= limits.set_max_listpack_value {
            super::convert::check_unique(pack.iter())?;
            return Ok(Self(Repr::Compact(pack)));
        }
        let mut set = Self(Repr::Table(Box::default()));
        for member in pack.iter() {
            if set.insert(&member.text(), limits) == Written::Replaced {
                return Err(CompactError::Duplicate);
            }
        }
        Ok(set)
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Integers(ints) => ints.len(),
            Repr::Compact(pack) => pack.len(),
            Repr::Table(table) => table.members.len(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that `OBJECT ENCODING` shows.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Integers(_) => "intset",
            Repr::Compact(_) => "listpack",
            Repr::Table(_) => "hashtable",
        }
    }

    /// The compact form, while it has one.
    pub fn compact(&self) -> Option<CompactSet<'_>> {
        match &self.0 {
            Repr::Integers(ints) => Some(CompactSet::Integers(ints)),
            Repr::Compact(pack) => Some(CompactSet::Listpack(pack)),
            Repr::Table(_) => None,
        }
    }

    /// Number of separate heap blocks, about: what freeing the set costs.
    pub fn heap_elements(&self) -> usize {
        match &self.0 {
            Repr::Integers(_) | Repr::Compact(_) => 1,
            Repr::Table(table) => table.members.len(),
        }
    }

    /// Bytes of heap memory, extrapolated from `samples` members (0: from all of them).
    pub fn memory_bytes(&self, samples: usize) -> usize {
        match &self.0 {
            Repr::Integers(ints) => ints.byte_len(),
            Repr::Compact(pack) => pack.byte_len(),
            Repr::Table(table) => {
                let table = &table.members;
                let sizes = table.iter().map(|member| member.0.total());
                table.table_bytes() + super::value::extrapolate(sizes, table.len(), samples)
            }
        }
    }

    /// Changes to a table if a compact form cannot take `count` members. Commands call it once
    /// with the number of members they are about to add.
    pub fn prepare_for(&mut self, count: usize, limits: &EncodingLimits) {
        let most = match &self.0 {
            Repr::Integers(_) => limits.set_max_intset_entries,
            Repr::Compact(_) => limits.set_max_listpack_entries,
            Repr::Table(_) => return,
        };
        if count > most {
            self.become_table();
        }
    }

    fn become_table(&mut self) {
        let mut table = Box::<Table>::default();
        for member in self.iter() {
            table.insert(&member.text());
        }
        self.0 = Repr::Table(table);
    }

    fn limit_integers(&mut self, limits: &EncodingLimits) {
        if let Repr::Integers(ints) = &self.0
            && ints.len() > limits.set_max_intset_entries
        {
            self.become_table();
        }
    }

    /// Whether `member` is in the set.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.0 {
            Repr::Integers(ints) => canonical_i64(member).is_some_and(|value| ints.contains(value)),
            Repr::Compact(pack) => pack
                .first()
                .is_some_and(|first| pack.find(first, member, 1).is_some()),
            Repr::Table(table) => table.contains(member),
        }
    }

    /// Adds a member.
    pub fn insert(&mut self, member: &[u8], limits: &EncodingLimits) -> Written {
        match &mut self.0 {
            Repr::Integers(ints) => {
                if let Some(value) = canonical_i64(member) {
                    let new = ints.insert(value);
                    self.limit_integers(limits);
                    return if new { Written::New } else { Written::Replaced };
                }
                if integers_fit_a_listpack(ints, member, limits) {
                    let mut pack = Listpack::new();
                    ints.iter()
                        .for_each(|value| pack.push_back(&NumberText::integer(value)));
                    self.0 = Repr::Compact(pack);
                } else {
                    self.become_table();
                }
                self.insert_absent(member, limits);
                Written::New
            }
            Repr::Compact(pack) => {
                if pack
                    .first()
                    .is_some_and(|first| pack.find(first, member, 1).is_some())
                {
                    return Written::Replaced;
                }
                self.insert_absent(member, limits);
                Written::New
            }
            Repr::Table(table) => table.insert(member),
        }
    }

    /// Adds a member that is not in the set, which is no set of integers any more.
    fn insert_absent(&mut self, member: &[u8], limits: &EncodingLimits) {
        if let Repr::Compact(pack) = &mut self.0 {
            if pack.len() < limits.set_max_listpack_entries
                && member.len() <= limits.set_max_listpack_value
                && pack.has_room_for(member.len())
            {
                return pack.push_back(member);
            }
            self.become_table();
        }
        if let Repr::Table(table) = &mut self.0 {
            table.insert(member);
        }
    }

    /// Removes a member; answers whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Repr::Integers(ints) => canonical_i64(member).is_some_and(|value| ints.remove(value)),
            Repr::Compact(pack) => {
                let found = pack.first().and_then(|first| pack.find(first, member, 1));
                found.is_some_and(|at| pack.remove(at, 1) > 0)
            }
            Repr::Table(table) => table.remove(member),
        }
    }

    /// Members, in no order that clients may rely on.
    pub fn iter(&self) -> impl Iterator<Item = Element<'_>> {
        let (ints, pack, table) = match &self.0 {
            Repr::Integers(ints) => (Some(ints.iter()), None, None),
            Repr::Compact(pack) => (None, Some(pack.iter()), None),
            Repr::Table(table) => (None, None, Some(table.members.iter())),
        };
        let ints = ints.into_iter().flatten().map(Element::Integer);
        let table = table
            .into_iter()
            .flatten()
            .map(|member| Element::Text(member.text()));
        ints.chain(pack.into_iter().flatten()).chain(table)
    }

    /// A member drawn with equal chances; `below(n)` draws a number under `n`.
    pub fn random(&self, below: &mut dyn FnMut(usize) -> usize) -> Option<Element<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.0 {
            Repr::Integers(ints) => ints.get(below(ints.len())).map(Element::Integer),
            Repr::Compact(pack) => pack.get(pack.seek(i64::try_from(below(pack.len())).ok()?)?),
            Repr::Table(table) => table
                .members
                .random(below)
                .map(|member| Element::Text(member.text())),
        }
    }

    /// One step of a scan from `cursor`, which is 0 at its beginning and, as an answer, at its end.
    pub fn scan(&self, cursor: u64, visit: &mut dyn FnMut(Element<'_>)) -> u64 {
        match &self.0 {
            Repr::Integers(_) | Repr::Compact(_) => {
                self.iter().for_each(visit);
                0
            }
            Repr::Table(table) => table
                .members
                .scan(cursor, &mut |member| visit(Element::Text(member.text()))),
        }
    }
}

/// Slices for a snapshot; see `walk.rs`. Only big sets are walked: of a small one nothing comes.
impl Set {
    /// Begins a walk over the members as they are now.
    pub fn begin_walk(&mut self, slicing: Slicing) {
        if let Repr::Table(table) = &mut self.0 {
            table.walk = Some(Box::new(Walk::begin(slicing, 0)));
        }
    }

    /// The walk under way.
    pub fn slicing(&self) -> Option<&Slicing> {
        match &self.0 {
            Repr::Integers(_) | Repr::Compact(_) => None,
            Repr::Table(table) => Some(&table.walk.as_ref()?.slicing),
        }
    }

    /// Gives about `budget` members as they were when the walk began.
    pub fn walk_slice(&mut self, budget: usize, give: &mut dyn FnMut(Piece<'_>)) -> Left {
        match &mut self.0 {
            Repr::Integers(_) | Repr::Compact(_) => Left::Nothing,
            Repr::Table(table) => table.walk_slice(budget, give),
        }
    }

    /// Ends the walk.
    pub fn end_walk(&mut self) {
        if let Repr::Table(table) = &mut self.0 {
            table.walk = None;
        }
    }
}

/// Whether a set of integers that gets its first other member becomes a listpack (else a table).
fn integers_fit_a_listpack(ints: &IntSet, member: &[u8], limits: &EncodingLimits) -> bool {
    let digits = |index: Option<usize>| {
        let value = index.and_then(|index| ints.get(index));
        value.map_or(0, |value| NumberText::integer(value).len())
    };
    let longest = digits(Some(0)).max(digits(ints.len().checked_sub(1)));
    ints.len() < limits.set_max_listpack_entries
        && member.len() <= limits.set_max_listpack_value
        && longest <= limits.set_max_listpack_value
}

impl Clone for Set {
    fn clone(&self) -> Self {
        match &self.0 {
            Repr::Integers(ints) => Self(Repr::Integers(ints.clone())),
            Repr::Compact(pack) => Self(Repr::Compact(pack.clone())),
            Repr::Table(table) => {
                let mut copy = Box::<Table>::default();
                for member in table.members.iter() {
                    copy.insert(member.text());
                }
                Self(Repr::Table(copy))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            20 => (-30i64..30).prop_map(|number| number.to_string().into_bytes()),
            1 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            2 => "[a-e]{1,2}".prop_map(String::into_bytes),
            1 => (60usize..70).prop_map(|length| vec![b'g'; length]),
        ]
    }

    fn contents(set: &Set) -> BTreeSet<Vec<u8>> {
        set.iter().map(Element::to_vec).collect()
    }

    proptest! {
        #[test]
        fn any_history_equals_a_set(
            steps in proptest::collection::vec((0u8..4, member()), 0..200),
            entries in prop_oneof![Just(4usize), Just(40), Just(128)],
        ) {
            let limits = EncodingLimits {
                set_max_intset_entries: entries,
                set_max_listpack_entries: entries,
                ..EncodingLimits::default()
            };
            let mut set = Set::new();
            let mut model = BTreeSet::new();
            for (kind, member) in steps {
                if kind > 0 {
                    let new = model.insert(member.clone());
                    prop_assert_eq!(set.insert(&member, &limits) == Written::New, new);
                } else {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.contains(&member), model.contains(&member));
            }
            prop_assert_eq!(&contents(&set), &model);
            prop_assert_eq!(&contents(&set.clone()), &model);
            let mut scanned = BTreeSet::new();
            let mut cursor = 0;
            loop {
                cursor = set.scan(cursor, &mut |member| { scanned.insert(member.to_vec()); });
                if cursor == 0 { break; }
            }
            prop_assert_eq!(&scanned, &model);
            if let Some(drawn) = set.random(&mut |bound| bound / 2) {
                prop_assert!(model.contains(&drawn.to_vec()));
            }
        }
    }

    #[test]
    fn encodings_change_as_in_redis() {
        let limits = EncodingLimits {
            set_max_intset_entries: 3,
            set_max_listpack_entries: 4,
            ..EncodingLimits::default()
        };
        let mut set = Set::new();
        ["1", "2", "3"].iter().for_each(|member| {
            set.insert(member.as_bytes(), &limits);
        });
        assert_eq!(set.encoding(), "intset");
        let mut integers = set.clone();
        integers.insert(b"4", &limits);
        assert_eq!((integers.encoding(), integers.len()), ("hashtable", 4));
        set.insert(b"x", &limits);
        assert_eq!((set.encoding(), set.len()), ("listpack", 4));
        let mut long = set.clone();
        long.remove(b"1");
        long.insert(&[b'y'; 65], &limits);
        assert_eq!((long.encoding(), long.len()), ("hashtable", 4));
        set.insert(b"y", &limits);
        assert_eq!((set.encoding(), set.len()), ("hashtable", 5));
    }

    #[test]
    fn hostile_members_are_refused() {
        let limits = EncodingLimits::default();
        let mut pack = Listpack::new();
        assert_eq!(
            Set::from_listpack(pack.clone(), &limits).err(),
            Some(CompactError::Empty)
        );
        (0..200).for_each(|number: i32| pack.push_back(number.to_string().as_bytes()));
        assert_eq!(
            Set::from_listpack(pack.clone(), &limits).unwrap().len(),
            200
        );
        pack.push_back(b"7");
        assert_eq!(
            Set::from_listpack(pack, &limits).err(),
            Some(CompactError::Duplicate)
        );
    }
}
