//! What electors, masters and members say to each other, as plain values.
//!
//! Owns the meaning; the crate `control` owns how it looks on the wire. Every request may be
//! repeated: the second answer says the same as the first.

use serde::{Deserialize, Serialize};

use crate::ids::{
    ElectorId, FleetId, Generation, Incarnation, MemberId, MemberName, Offset, Position, ReplId,
    Term,
};
use crate::state::{History, IncarnationTable, Stamp, Tail, Vote, VoterSet};

/// Where a member can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port for clients and replicas.
    pub port: u16,
    /// Port for operator and peers.
    pub control_port: u16,
}

/// A member of the set, voter or learner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: MemberName,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// Proof that the master of `term` stopped by itself and for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The mastership that was given up.
    pub term: Term,
    /// Random bits, never 0.
    pub token: u64,
}

/// Why an election is run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intent {
    /// The master seems lost: a member that still hears it refuses.
    Unplanned,
    /// The master released its term: nobody needs to miss it.
    Planned(Release),
    /// The elector knows better (the container is terminated, a person insists): every member
    /// obeys, a serving master included.
    Forced,
}

/// "Will you obey term T, promised to me?"
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prepare {
    /// The set that is meant.
    pub fleet: FleetId,
    /// A set that is no more, whose data this one takes over: its members come over with their promise.
    pub heir_of: Option<FleetId>,
    /// The term.
    pub term: Term,
    /// Who asks.
    pub elector: ElectorId,
    /// Version of the voters the elector works with.
    pub generation: Generation,
    /// Why.
    pub intent: Intent,
}

/// A lease a member granted that may not be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantedLease {
    /// To the master of this term.
    pub term: Term,
    /// Milliseconds until it must be over.
    pub remaining_ms: u64,
}

/// The answer to [`Prepare`]: on disk when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promise {
    /// Who promises.
    pub id: MemberId,
    /// Which process of that life.
    pub boot: u64,
    /// The term promised.
    pub term: Term,
    /// How much it holds.
    pub position: Position,
    /// Terms it holds data of.
    pub history: History,
    /// Whether it was admitted.
    pub vote: Vote,
    /// Whether the end of its data may be missing.
    pub tail: Tail,
    /// Whether it has no dataset.
    pub blank: bool,
    /// Version of the voters it knows.
    pub generation: Generation,
    /// The lives it knows to count.
    pub table: IncarnationTable,
    /// Leases it granted that may not be over.
    pub leases: Vec<GrantedLease>,
    /// A term this very life was master of and is no more.
    pub relinquished: Option<Term>,
}

/// How a promotion comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StartKind {
    /// By a read quorum.
    Quorum,
    /// The first mastership ever (or one over an empty set that a person accepted).
    Bootstrap,
    /// Too few votes, but every voter answered (or, of two voters, the one known to be in sync):
    /// nothing better exists.
    LastResort,
}

/// "Be master of term T."
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promote {
    /// The set that is meant.
    pub fleet: FleetId,
    /// The term, promised before.
    pub term: Term,
    /// Who was promised.
    pub elector: ElectorId,
    /// The life that promised.
    pub id: MemberId,
    /// The process that promised.
    pub boot: u64,
    /// The position it promised with.
    pub position: Position,
    /// How the promotion came about.
    pub start: StartKind,
    /// The voters.
    pub voters: VoterSet,
    /// The lives that count, from the whole quorum.
    pub table: IncarnationTable,
    /// All members, to send heartbeats to.
    pub peers: Vec<Peer>,
    /// How long to serve nobody, because an older lease may not be over.
    pub defer_ms: u64,
    /// Random bytes for the replication id.
    pub random: [u8; 12],
}

/// The answer to [`Promote`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promoted {
    /// The term.
    pub term: Term,
    /// The history of the stream; its last entry is the new term.
    pub history: History,
}

/// "Follow the master of term T."
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Follow {
    /// The set that is meant.
    pub fleet: FleetId,
    /// The master's term.
    pub term: Term,
    /// The master.
    pub master: Peer,
    /// Its history; the last entry is `term`.
    pub history: History,
    /// The voters.
    pub voters: VoterSet,
    /// All members.
    pub peers: Vec<Peer>,
}

/// Why a request was not obeyed. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotObeyed {
    /// A higher term was promised.
    #[error("term {0} is promised, lower terms are refused")]
    HigherTerm(Term),
    /// The same term was promised to somebody else.
    #[error("the term is promised to elector {0}")]
    PromisedToOther(ElectorId),
    /// The term already has a master.
    #[error("term {0} already has a master")]
    TermInUse(Term),
    /// The master is alive as seen from here.
    #[error("the master was heard {seen_ms_ago} ms ago")]
    MasterAlive {
        /// When it was heard; 0 if the answering member is the master.
        seen_ms_ago: u64,
    },
    /// The request works with an older set of voters.
    #[error("the voters of generation {0} are known here")]
    StaleVoters(Generation),
    /// Another set's request.
    #[error("this member belongs to set {0}")]
    WrongFleet(FleetId),
    /// A promotion for a term that was never promised here.
    #[error("the term was not promised")]
    NotPromised,
    /// A promotion for a promise given by another life or process, or at another position.
    #[error("this member is at {position} in process {boot}, not where its promise said")]
    NotAsPromised {
        /// Its position now.
        position: Position,
        /// Its process now.
        boot: u64,
    },
    /// It has no vote and the promotion is an ordinary one.
    #[error("this member has no vote")]
    NoVote,
    /// Only a master of that term can do this.
    #[error("this member is not master of the term")]
    NotMaster,
    /// A switchover is already going on, or the process is about to end, or a command takes long.
    #[error("a switchover, the end of the process, or a long command is going on")]
    Busy,
    /// The switchover's target did not catch up in time; writes were resumed.
    #[error("the target did not catch up in time, writes go on")]
    TargetBehind,
    /// The switchover's target is not a voter of this set with a vote.
    #[error("the target is not a voter")]
    BadTarget,
}

/// What a master says about itself in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It serves (or will, once older leases are over).
    Serving,
    /// Its lease is over: counts as missed, but an acknowledgement may revive it.
    Lapsed,
    /// It gave up its term.
    Released(Release),
}

/// Master → member, every [`crate::HEARTBEAT_MS`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Heartbeat {
    /// The set that is meant.
    pub fleet: FleetId,
    /// The master's term.
    pub term: Term,
    /// Counts up within the term.
    pub number: u64,
    /// The master.
    pub master: Peer,
    /// Its history; the last entry is `term`.
    pub history: History,
    /// Where its stream ends now.
    pub offset: Offset,
    /// What it says about itself.
    pub standing: Standing,
    /// Whether it relies on acknowledgements to serve.
    pub leased: bool,
    /// The voters.
    pub voters: VoterSet,
    /// The lives that count.
    pub table: IncarnationTable,
    /// All members.
    pub peers: Vec<Peer>,
    /// The life of the receiver that has a vote from now on.
    pub admit: Option<Incarnation>,
}

/// Member → master, the answer to [`Heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeartbeatAck {
    /// Who acknowledges.
    pub id: MemberId,
    /// The master's term.
    pub term: Term,
    /// The heartbeat's number.
    pub number: u64,
    /// What the member holds.
    pub position: Position,
    /// Whether it was admitted.
    pub vote: Vote,
    /// The newest entry of its incarnation table.
    pub recorded: Stamp,
    /// The version of the voters it has recorded.
    pub generation: Generation,
}

/// "Give your mastership to `target`": writes pause, the target catches up, the master releases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handover {
    /// The term that is meant.
    pub term: Term,
    /// Who shall be next; `None` = whichever voter catches up first (the master is leaving).
    pub target: Option<MemberName>,
    /// How long writes may be paused.
    pub budget_ms: u64,
    /// Random bits for the release, not 0.
    pub token: u64,
}

/// A replication id is needed where a term begins.
impl Promote {
    /// The replication id of the new mastership.
    pub fn replid(&self) -> ReplId {
        ReplId::stamped(self.term, self.random)
    }
}
