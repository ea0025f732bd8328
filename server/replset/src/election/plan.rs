//! What an election is to do: the facts and the choices that the elector begins it with.

use crate::ids::{ElectorId, FleetId, MemberName, Term};
use crate::message::{Intent, Peer};
use crate::state::VoterSet;

/// Whether the set ever had a master, from its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bootstrapped {
    /// Never: an empty member may be promoted.
    No,
    /// Yes: an empty member may not.
    Yes,
}

/// What to do when every voter answers and all are empty although the set had data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EmptySet {
    /// Stop and say so.
    Halt,
    /// Begin anew with nothing: the set is a cache, or a person accepted the loss.
    Accept,
}

/// What to do when every voter answers but too few have a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuorumLost {
    /// Stop and say so.
    Halt,
    /// Take the highest position of all: nothing better exists. Reported as [`Loss::Possible`].
    BestOfAll,
}

/// What to do when whoever holds the most of those that answered is not sure to hold all that it
/// acknowledged, and others have not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CutTails {
    /// Wait for the others: one of them may hold more.
    Wait,
    /// Take the highest position: the set is a cache. Reported as [`Loss::Possible`].
    Accept,
}

/// What the elector knows of the process that was master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OldMaster {
    /// Nothing: it may hold a lease.
    Unknown,
    /// Whoever led in this term is dead beyond doubt (its container terminated). Leases of other terms hold: their master may
    /// be another, cut off and serving.
    Gone(Term),
}

/// What an election is to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElectionPlan {
    /// The set.
    pub fleet: FleetId,
    /// The set before it whose data it takes over; only for its first mastership.
    pub heir_of: Option<FleetId>,
    /// The term obtained for it.
    pub term: Term,
    /// Who runs it.
    pub elector: ElectorId,
    /// Why.
    pub intent: Intent,
    /// The voters, from the set's status.
    pub voters: VoterSet,
    /// All members, voters and learners.
    pub peers: Vec<Peer>,
    /// Whether the set ever had a master.
    pub bootstrapped: Bootstrapped,
    /// Who is preferred among equals, best first.
    pub preference: Vec<MemberName>,
    /// A master whom its replicas did not hear, twice in a row: it holds the most each time, and would lead unheard for
    /// ever. Promoted only if those without it are too few to be sure.
    pub passed_over: Option<MemberName>,
    /// What is known of the old master.
    pub old_master: OldMaster,
    /// Only for sets of two voters: the members recorded in the status as in sync, each of which
    /// may be promoted alone.
    pub in_sync: Vec<MemberName>,
    /// When all are empty.
    pub on_empty: EmptySet,
    /// When too few can vote.
    pub on_quorum_lost: QuorumLost,
    /// When the best of those that answered ended without saving.
    pub on_cut_tails: CutTails,
    /// Random bytes for the new replication id.
    pub random: [u8; 12],
}
