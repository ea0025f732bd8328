//! Terms, promises, leases and elections of a replica set, as state machines without I/O.
//!
//! **Owns** the rules that decide who may be master: what a member promises, when it obeys, what its
//! position is worth, how long it may serve, how an elector chooses. **Called by** the server (its
//! managed mode runs a [`Member`]), by the operator (it runs an [`Election`]) and by the simulators
//! and the model check in `tests/`. **Never** reads a clock, a socket, a disk or a random number:
//! milliseconds of a monotonic clock, random bits and the engine's position come in as values.
//!
//! # The story
//!
//! A *term* numbers masterships. An elector obtains a term nobody used before (the operator: by
//! compare-and-swap on the set's status) and then goes **fence → read → promote**:
//!
//! 1. [`Prepare`] to every member. A member that agrees stops following or serving the old term,
//!    writes the promise to disk and only then answers with its [`Promise`]: its position
//!    `(term of the last entry held, offset)`, its vote, the lease it has granted.
//! 2. [`Election::decide`] waits for a read quorum, takes the highest position, computes how long
//!    the new master must keep silent because the old one may still hold a lease.
//! 3. [`Promote`] to the winner, then [`Follow`] to the others. Heartbeats of the new master repeat
//!    what `Follow` said, so a lost `Follow` heals by itself.
//!
//! A master of three or more voters serves only while a majority acknowledges its heartbeats
//! ([`Timing::lease_ms`]); with fewer voters there is no lease, so a master that is cut off serves
//! until somebody reaches it.
//!
//! A member that lost its state or its data has no vote. The master admits it again, under a new
//! [`Incarnation`], when it has caught up and enough of the others have recorded the new incarnation.
//!
//! # Using it
//!
//! * Server: [`Member::start`], then [`Member::handle`] with one [`Input`] at a time; perform the
//!   returned [`Output`]s **in order**, each one finished before the next (a `Persist` is finished
//!   when the bytes and their directory entry are on disk). That order is the whole contract with
//!   the disk: an answer comes after the `Persist` that backs it.
//! * Operator: [`Election::new`], send [`Election::prepare`], feed [`Election::record`] and
//!   [`Election::unreachable`], then [`Election::decide`] → [`Promotion`]; send
//!   [`Promotion::promote`], then [`Promotion::follow`] to everyone else. Before an unplanned
//!   election ask [`master_is_lost`], a planned one begins with the `Handover` call.
//!
//! Read next: `ids`, `state`, `message`, `member`, `election`.

#![forbid(unsafe_code)]

mod election;
mod ids;
mod lease;
mod member;
mod message;
mod rules;
mod state;
mod timing;

pub use election::{
    Absence, Answer, Bootstrapped, CutTails, Election, ElectionPlan, EmptySet, Loss,
    MasterSighting, OldMaster, Promotion, QuorumLost, Refusal, majority, master_is_lost,
};
pub use ids::{
    BadReplId, ElectorId, FleetId, Generation, Incarnation, MemberId, MemberName, Offset, Position,
    RELEASE_NONE, ReplId, Term,
};
pub use lease::Serve;
pub use member::{
    Boot, Handed, HandoverTarget, Held, Input, MasterLink, Member, Output, PeerReport, Reply,
    Report, RequestId, RoleKind,
};
pub use message::{
    Endpoint, Follow, GrantedLease, Handover, Heartbeat, HeartbeatAck, Intent, NotObeyed, Peer,
    Prepare, Promise, Promote, Promoted, Release, Standing, StartKind,
};
pub use rules::Rules;
pub use state::{
    DataPosition, Following, History, IncarnationTable, MAX_HISTORY_TERMS, MemberState, Promised,
    Stamp, TableEntry, Tail, TermStart, Vote, VoterSet,
};
pub use timing::{
    HANDOVER_BUDGET_MS, HANDOVER_HEARTBEAT_MS, HEARTBEAT_MS, LEASE_MIN_VOTERS, LEASE_MS,
    RATE_ERROR_PERCENT, SUSPICION_MS, Timing,
};
