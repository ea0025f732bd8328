//! What a member keeps on disk, and the small values it is made of.
//!
//! Owns the content of the state file; the server owns the file (write new, fsync, rename, fsync the
//! directory). Fields may be added with a default, never renamed: an older server must be able to
//! read the file after a rollback.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{
    ElectorId, FleetId, Generation, Incarnation, MemberId, MemberName, Offset, Position, ReplId,
    Term,
};
use crate::message::{Endpoint, Release};

/// Terms remembered in a history; older ones are dropped, which only costs a full sync to a member
/// that slept through that many masterships.
pub const MAX_HISTORY_TERMS: usize = 32;

/// Where a term begins in the stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// Offset of its master when it was promoted: all before is inherited.
    pub start: Offset,
    /// Replication id of the stream from there on.
    pub replid: ReplId,
}

/// The terms a stream went through, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<TermStart>);

impl History {
    /// A history from its entries; sorted by term here, and only the newest are kept.
    pub fn new(mut entries: Vec<TermStart>) -> Self {
        entries.sort_by_key(|entry| entry.term);
        let excess = entries.len().saturating_sub(MAX_HISTORY_TERMS);
        Self(entries.split_off(excess))
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[TermStart] {
        &self.0
    }

    /// The newest entry.
    pub fn last(&self) -> Option<&TermStart> {
        self.0.last()
    }

    /// Whether nothing was ever held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the start of a new term.
    pub fn begin(&mut self, start: TermStart) {
        self.0.push(start);
        let excess = self.0.len().saturating_sub(MAX_HISTORY_TERMS);
        self.0.drain(..excess);
    }

    /// The part of this history that a dataset reaching to `offset` of it really holds: terms of
    /// which it has at least one byte.
    pub fn held_at(&self, offset: Offset) -> Self {
        Self(
            self.0
                .iter()
                .filter(|entry| entry.start < offset)
                .cloned()
                .collect(),
        )
    }

    /// The part up to and including the term whose stream is `replid`.
    pub fn up_to(&self, replid: &ReplId) -> Option<Self> {
        let end = self.0.iter().position(|entry| &entry.replid == replid)?;
        Some(Self(self.0.iter().take(end + 1).cloned().collect()))
    }
}

/// What the engine holds: data of the stream `replid` up to `offset`. `replid` is `None` when there
/// is no dataset at all (never loaded, never synced), or one that is no prefix of any stream: a transaction failed halfway.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataPosition {
    /// The stream whose prefix the dataset is.
    pub replid: Option<ReplId>,
    /// How far.
    pub offset: Offset,
}

impl DataPosition {
    /// Data of a stream up to an offset.
    pub fn of(replid: ReplId, offset: Offset) -> Self {
        Self {
            replid: Some(replid),
            offset,
        }
    }
}

/// The highest term a member will obey, and to whom it promised it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Promised {
    /// The term.
    pub term: Term,
    /// The elector; `None` when the term was learned from its master.
    pub elector: Option<ElectorId>,
}

/// Whether a member's promises and acknowledgements count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Vote {
    /// They count if the member is one of the voters.
    Granted,
    /// They do not: it is new, or lost its state or data, and was not admitted yet.
    Suspended,
}

/// Whether a member still holds everything that it ever acknowledged and that no election gave up.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Tail {
    /// It does.
    #[default]
    Whole,
    /// A process of it ended without saving, or a transaction of its master failed halfway, and the member has not caught
    /// up with a master since: it holds what was saved last, or what is no prefix of the stream.
    MayBeCut,
}

/// Which names are voters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoterSet {
    /// Version; a higher one replaces a lower one. Consecutive versions differ in one name.
    pub generation: Generation,
    /// The names.
    pub voters: Vec<MemberName>,
}

impl VoterSet {
    /// Whether `name` is a voter.
    pub fn contains(&self, name: &MemberName) -> bool {
        self.voters.contains(name)
    }
}

/// When an entry of the incarnation table was written: by the master of `term`, as its `number`-th.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// The master's term.
    pub term: Term,
    /// Count within the term.
    pub number: u64,
}

/// The life of a member that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableEntry {
    /// When it was written; the higher stamp wins.
    pub stamp: Stamp,
    /// Which life.
    pub incarnation: Incarnation,
}

/// For each member that was ever admitted, the life that counts. A member without an entry was
/// never replaced: whatever life it has counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncarnationTable(BTreeMap<MemberName, TableEntry>);

/// Whether a merge brought something new.
pub(crate) enum Merged {
    Changed,
    Unchanged,
}

impl IncarnationTable {
    /// A table from its entries.
    pub fn new(entries: impl IntoIterator<Item = (MemberName, TableEntry)>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// All entries.
    pub fn entries(&self) -> impl Iterator<Item = (&MemberName, &TableEntry)> {
        self.0.iter()
    }

    /// The entry of a member.
    pub fn get(&self, name: &MemberName) -> Option<&TableEntry> {
        self.0.get(name)
    }

    /// Whether this life was replaced by another one.
    pub fn voids(&self, id: &MemberId) -> bool {
        self.0
            .get(&id.name)
            .is_some_and(|entry| entry.incarnation != id.incarnation)
    }

    /// Writes an entry.
    pub(crate) fn set(&mut self, name: MemberName, entry: TableEntry) {
        self.0.insert(name, entry);
    }

    /// Takes every entry of `other` that is newer than ours.
    pub(crate) fn merge(&mut self, other: &Self) -> Merged {
        let mut merged = Merged::Unchanged;
        for (name, theirs) in &other.0 {
            if self
                .0
                .get(name)
                .is_none_or(|ours| ours.stamp < theirs.stamp)
            {
                self.0.insert(name.clone(), *theirs);
                merged = Merged::Changed;
            }
        }
        merged
    }

    /// The highest stamp in the table.
    pub fn newest(&self) -> Stamp {
        self.0
            .values()
            .map(|entry| entry.stamp)
            .max()
            .unwrap_or_default()
    }
}

/// Whom a member follows, and the history of that master's stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Following {
    /// The master's term.
    pub term: Term,
    /// The master.
    pub master: MemberName,
    /// Where it serves replicas and clients.
    pub endpoint: Endpoint,
    /// Its history; the last entry is `term`.
    pub history: History,
}

impl Following {
    /// The replication id of the master's stream.
    pub fn replid(&self) -> Option<&ReplId> {
        self.history.last().map(|entry| &entry.replid)
    }
}

/// Everything a member keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberState {
    /// The set it belongs to.
    pub fleet: FleetId,
    /// Its name and life.
    pub id: MemberId,
    /// How often it was started; distinguishes processes of one life.
    pub boot: u64,
    /// The promise.
    pub promised: Promised,
    /// Terms of which it holds data.
    pub history: History,
    /// Whom it follows.
    pub following: Option<Following>,
    /// The voters, as far as it knows.
    pub voters: VoterSet,
    /// The lives that count, as far as it knows.
    pub table: IncarnationTable,
    /// Its own vote.
    pub vote: Vote,
    /// Whether the end of its data may be missing.
    #[serde(default)]
    pub tail: Tail,
    /// Whether it has no dataset.
    pub blank: bool,
    /// A mastership it gave up in an orderly way.
    #[serde(default)]
    pub released: Option<Release>,
    /// Whether the process before this one saved its data and left in peace.
    pub clean_shutdown: bool,
}

impl MemberState {
    /// The state of a member nobody knows yet.
    pub fn new(fleet: FleetId, id: MemberId) -> Self {
        Self {
            fleet,
            id,
            boot: 0,
            promised: Promised::default(),
            history: History::default(),
            following: None,
            voters: VoterSet::default(),
            table: IncarnationTable::default(),
            vote: Vote::Suspended,
            tail: Tail::Whole,
            blank: true,
            released: None,
            clean_shutdown: false,
        }
    }

    /// The term this life was master of most recently, if it has not followed anybody since.
    pub fn last_mastership(&self) -> Option<Term> {
        if self.following.is_some() {
            return None;
        }
        self.history.last().map(|entry| entry.term)
    }

    /// The position that goes with `offset`.
    pub fn position(&self, offset: Offset) -> Position {
        Position {
            term: self.history.last().map_or(Term(0), |entry| entry.term),
            offset,
        }
    }

    /// The history a dataset has, or `None` if it belongs to no stream this member knows.
    ///
    /// Attaching to a stream renames the dataset before it holds a byte of the new term, so both
    /// the history held and the history followed are searched, and the offset decides.
    pub fn history_of(&self, data: &DataPosition) -> Option<History> {
        let replid = data.replid.as_ref()?;
        let followed = self
            .following
            .as_ref()
            .and_then(|f| f.history.up_to(replid));
        let history = followed.or_else(|| self.history.up_to(replid))?;
        Some(history.held_at(data.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(term: u64, start: u64) -> TermStart {
        let replid = ReplId::stamped(Term(term), [term as u8; 12]);
        TermStart {
            term: Term(term),
            start: Offset(start),
            replid,
        }
    }

    #[test]
    fn attaching_does_not_raise_the_position() {
        let history = History::new(vec![start(1, 0), start(2, 50)]);
        let term_at = |offset| history.held_at(Offset(offset)).last().map(|e| e.term.0);
        assert_eq!(term_at(0), None);
        assert_eq!(term_at(50), Some(1));
        assert_eq!(term_at(51), Some(2));
    }

    #[test]
    fn a_dataset_of_an_unknown_stream_has_no_history() {
        let id = MemberId {
            name: "a".into(),
            incarnation: Incarnation(1),
        };
        let mut state = MemberState::new("f".into(), id);
        state.history = History::new(vec![start(1, 0)]);
        let foreign = DataPosition::of(start(7, 0).replid, Offset(5));
        assert_eq!(state.history_of(&foreign), None);
        let own = DataPosition::of(start(1, 0).replid, Offset(5));
        assert_eq!(state.history_of(&own), Some(state.history.clone()));
    }

    #[test]
    fn a_history_is_bounded() {
        let mut history = History::default();
        for term in 1..=100 {
            history.begin(start(term, term * 10));
        }
        assert_eq!(history.entries().len(), MAX_HISTORY_TERMS);
        assert_eq!(history.last().unwrap().term, Term(100));
        assert_eq!(History::new(history.entries().to_vec()), history);
    }

    #[test]
    fn the_newer_stamp_wins_a_merge() {
        let entry = |term, number, incarnation| TableEntry {
            stamp: Stamp {
                term: Term(term),
                number,
            },
            incarnation: Incarnation(incarnation),
        };
        let mut ours = IncarnationTable::new([("a".into(), entry(1, 1, 10))]);
        let theirs = IncarnationTable::new([("a".into(), entry(2, 0, 20))]);
        assert!(matches!(ours.merge(&theirs), Merged::Changed));
        assert!(matches!(ours.merge(&theirs), Merged::Unchanged));
        let id = MemberId {
            name: "a".into(),
            incarnation: Incarnation(10),
        };
        assert!(ours.voids(&id));
    }

    #[test]
    fn the_state_survives_json() {
        let id = MemberId {
            name: "a".into(),
            incarnation: Incarnation(u64::MAX),
        };
        let mut state = MemberState::new("f".into(), id);
        state.history = History::new(vec![start(1, 0), start(3, 9)]);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<MemberState>(&text).unwrap(), state);
    }
}
