//! Planned changes: to whom the mastership may be handed.

use replset::{MasterLink, Position, RoleKind, Vote};

/// How far a target may be behind when a handover begins, in bytes: what it must still receive is
/// the pause that clients feel.
pub const MAX_TARGET_LAG_BYTES: u64 = 1 << 20;

/// A member as a possible target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub member: String,
    /// What it is.
    pub role: RoleKind,
    /// Whether its name is among the voters.
    pub voter: Voter,
    /// Whether its vote counts.
    pub vote: Vote,
    /// Its replica link.
    pub link: MasterLink,
    /// What it holds.
    pub position: Position,
}

/// Whether a name is among the voters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Voter {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Why a candidate cannot take over now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// It is no voter, or its vote is suspended.
    NoVote,
    /// It is not attached to the master.
    Detached,
    /// It is too far behind.
    Behind,
}

/// Whether `candidate` may be handed the mastership of a master at `master`.
///
/// # Errors
/// Why not.
pub fn fit(candidate: &Candidate, master: Position) -> Result<(), Unfit> {
    if candidate.voter == Voter::No || candidate.vote == Vote::Suspended {
        return Err(Unfit::NoVote);
    }
    if candidate.role != RoleKind::Follower || candidate.link != MasterLink::Up {
        return Err(Unfit::Detached);
    }
    let behind = master.offset.0.saturating_sub(candidate.position.offset.0);
    if behind > MAX_TARGET_LAG_BYTES {
        Err(Unfit::Behind)
    } else {
        Ok(())
    }
}

/// The best target: the most complete fit one, the lowest name among equals.
#[must_use]
pub fn best(candidates: &[Candidate], master: Position) -> Option<&Candidate> {
    candidates
        .iter()
        .filter(|c| fit(c, master).is_ok())
        .max_by_key(|c| (c.position, std::cmp::Reverse(c.member.clone())))
}

#[cfg(test)]
mod tests {
    use replset::{Offset, Term};

    use super::*;

    fn at(offset: u64) -> Position {
        Position {
            term: Term(1),
            offset: Offset(offset),
        }
    }

    fn candidate(member: &str, offset: u64) -> Candidate {
        Candidate {
            member: member.into(),
            role: RoleKind::Follower,
            voter: Voter::Yes,
            vote: Vote::Granted,
            link: MasterLink::Up,
            position: at(offset),
        }
    }

    #[test]
    fn the_most_complete_wins_and_the_lowest_name_among_equals() {
        let all = [
            candidate("m-2", 90),
            candidate("m-1", 100),
            candidate("m-3", 100),
        ];
        assert_eq!(best(&all, at(100)).map(|c| c.member.as_str()), Some("m-1"));
    }

    #[test]
    fn each_reason_against_a_target() {
        let master = at(MAX_TARGET_LAG_BYTES + 50);
        let behind = candidate("m-1", 10);
        let mut learner = candidate("m-1", 50);
        learner.vote = Vote::Suspended;
        let mut detached = candidate("m-1", 50);
        detached.link = MasterLink::Down;
        assert_eq!(fit(&behind, master), Err(Unfit::Behind));
        assert_eq!(fit(&learner, master), Err(Unfit::NoVote));
        assert_eq!(fit(&detached, master), Err(Unfit::Detached));
        assert_eq!(fit(&candidate("m-1", 50), master), Ok(()));
    }
}
