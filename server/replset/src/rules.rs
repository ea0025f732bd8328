//! Switches that break one rule each, so that tests can show that the rule is needed.
//!
//! Production code uses [`Rules::default`], everything on. The model check turns one off at a time
//! and must then find a history in which data are lost.

/// Which rules hold. Only tests construct anything but the default.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rules {
    /// R1: a promise is on disk before it is answered.
    pub persist_promise: bool,
    /// R1: a member that promised stops following the old term before its position is read.
    pub fence_before_read: bool,
    /// R3: promotion needs a majority of promises.
    pub read_quorum: bool,
    /// R4: positions compare by term, then offset.
    pub compare_terms: bool,
    /// R8: following a term does not raise the position.
    pub attach_is_not_adopt: bool,
    /// R11: a member without state or data does not vote.
    pub blank_has_no_vote: bool,
    /// R11: a member votes again only when it has caught up.
    pub admit_after_catch_up: bool,
    /// R11: a promise of an incarnation that was replaced is void.
    pub void_old_incarnations: bool,
    /// R11: enough others must have recorded an incarnation before it votes.
    pub admit_by_majority: bool,
    /// R11b: a member whose process ended without saving does not count as one that remembers.
    pub cut_tails_are_told: bool,
    /// R11b: it counts again when it holds all that its master had when it was heard, not before.
    pub tail_mends_by_catching_up: bool,
    /// R12: a restart never makes a master.
    pub born_follower: bool,
    /// A member obeys a promotion only if it still is where its promise said.
    pub promote_what_promised: bool,
    /// R9: an elector that works with an older set of voters than members know is refused.
    pub stale_voters_are_refused: bool,
    /// R13: a new master waits for the end of the old one's lease.
    pub defer_to_old_lease: bool,
    /// R13: a master serves only within its lease.
    pub lease: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            persist_promise: true,
            fence_before_read: true,
            read_quorum: true,
            compare_terms: true,
            attach_is_not_adopt: true,
            blank_has_no_vote: true,
            admit_after_catch_up: true,
            void_old_incarnations: true,
            admit_by_majority: true,
            cut_tails_are_told: true,
            tail_mends_by_catching_up: true,
            born_follower: true,
            promote_what_promised: true,
            stale_voters_are_refused: true,
            defer_to_old_lease: true,
            lease: true,
        }
    }
}
