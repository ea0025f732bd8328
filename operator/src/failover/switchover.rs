//! Planned changes: whether the mastership may be handed to the one it is meant for.
//!
//! An order names both ends. Whoever repeats it, or made it from an old view, changes nothing by it; and a target that
//! cannot take over now is refused with its reason, never replaced by another that nobody chose. One that failed is not
//! given again at once: each attempt may stop writes for a moment.

use std::time::Duration;

use replset::{MasterLink, Position, RoleKind, Vote};
use thiserror::Error;

/// How far a target may be behind when a handover begins, in bytes: what it must still receive is
/// the pause that clients feel.
pub const MAX_TARGET_LAG_BYTES: u64 = 1 << 20;

/// Pause after an order that failed, the first one.
const MIN_PAUSE_MS: u64 = 2_000;
/// Longest pause after orders that failed; they are forgotten after another one.
const MAX_PAUSE_MS: u64 = 120_000;

/// From whom to whom the mastership shall go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// The master whom it was planned for.
    pub from: String,
    /// The next one.
    pub to: String,
}

/// What is left to do about an order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Nothing: the target is master.
    Done,
    /// The handover.
    HandOver,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refused {
    /// There is nobody to hand over.
    #[error("no master serves")]
    NoMaster,
    /// The order is from another mastership.
    #[error("{from} is master no more, {master} is")]
    Stale {
        /// Who was to hand over.
        from: String,
        /// Who is master.
        master: String,
    },
    /// The target cannot take over now.
    #[error("{to} {why}")]
    Unfit {
        /// The target.
        to: String,
        /// Why.
        why: Unfit,
    },
}

/// A member as a target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
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
    /// Whether it stays.
    pub stay: Stay,
}

/// Whether a name is among the voters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Voter {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Whether a member stays in the set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// It does.
    Stays,
    /// Its pod is being deleted, or the set shall be smaller.
    Leaves,
}

/// Why a candidate cannot take over now.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Unfit {
    /// It is about to go itself.
    #[error("is leaving the set")]
    Leaving,
    /// It is no voter, or its vote is suspended.
    #[error("has no vote")]
    NoVote,
    /// It is not attached to the master.
    #[error("is not attached to the master")]
    Detached,
    /// It is too far behind.
    #[error("is more than {} KiB behind", MAX_TARGET_LAG_BYTES >> 10)]
    Behind,
}

/// The orders of a set that failed, as far as they still matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Failures {
    targets: Vec<String>,
    pause_ms: u64,
    not_before_ms: u64,
}

/// What they mean for the next order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pause {
    /// How long it has to wait.
    pub left: Duration,
    /// Targets that failed or were refused; the last of them comes last.
    pub tried: Vec<String>,
}

impl Failures {
    /// An order to this target failed now.
    pub fn add(&mut self, target: &str, now_ms: u64) {
        self.forget_old(now_ms);
        self.targets.retain(|tried| tried != target);
        self.targets.push(target.to_owned());
        self.pause_ms = (self.pause_ms * 2).clamp(MIN_PAUSE_MS, MAX_PAUSE_MS);
        self.not_before_ms = now_ms.saturating_add(self.pause_ms);
    }

    /// An order to this target was refused before anybody felt it: others come first, and without a pause.
    pub fn pass_over(&mut self, target: &str, now_ms: u64) {
        self.forget_old(now_ms);
        self.targets.retain(|tried| tried != target);
        self.targets.push(target.to_owned());
        self.not_before_ms = self.not_before_ms.max(now_ms);
    }

    /// What they mean at this moment.
    #[must_use]
    pub fn pause(mut self, now_ms: u64) -> Pause {
        self.forget_old(now_ms);
        Pause {
            left: Duration::from_millis(self.not_before_ms.saturating_sub(now_ms)),
            tried: self.targets,
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        if now_ms > self.not_before_ms.saturating_add(MAX_PAUSE_MS) {
            *self = Self::default();
        }
    }
}

/// What is left to do about `order` while `master` serves.
///
/// # Errors
/// When the order is not for this mastership.
pub fn next(order: &Order, master: Option<&str>) -> Result<Next, Refused> {
    match master {
        None => Err(Refused::NoMaster),
        Some(master) if master == order.to => Ok(Next::Done),
        Some(master) if master != order.from => Err(Refused::Stale {
            from: order.from.clone(),
            master: master.to_owned(),
        }),
        Some(_) => Ok(Next::HandOver),
    }
}

/// Whether `candidate` may be handed the mastership of a master at `master`.
///
/// # Errors
/// Why not.
pub fn fit(candidate: &Candidate, master: Position) -> Result<(), Unfit> {
    if candidate.stay == Stay::Leaves {
        return Err(Unfit::Leaving);
    }
    if candidate.voter == Voter::No || candidate.vote == Vote::Suspended {
        return Err(Unfit::NoVote);
    }
    if candidate.role != RoleKind::Follower || candidate.link != MasterLink::Up {
        return Err(Unfit::Detached);
    }
    let behind = master.offset.0.saturating_sub(candidate.position.offset.0);
    if candidate.position.term != master.term || behind > MAX_TARGET_LAG_BYTES {
        Err(Unfit::Behind)
    } else {
        Ok(())
    }
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

    fn candidate(offset: u64) -> Candidate {
        Candidate {
            role: RoleKind::Follower,
            voter: Voter::Yes,
            vote: Vote::Granted,
            link: MasterLink::Up,
            position: at(offset),
            stay: Stay::Stays,
        }
    }

    #[test]
    fn an_order_counts_for_the_master_that_it_names_and_is_done_once_its_target_is_master() {
        let order = Order {
            from: "m-0".into(),
            to: "m-1".into(),
        };
        assert_eq!(next(&order, Some("m-0")), Ok(Next::HandOver));
        assert_eq!(next(&order, Some("m-1")), Ok(Next::Done));
        assert_eq!(next(&order, None), Err(Refused::NoMaster));
        let stale = next(&order, Some("m-2")).unwrap_err();
        assert_eq!(stale.to_string(), "m-0 is master no more, m-2 is");
    }

    #[test]
    fn orders_that_fail_are_given_less_and_less_often_and_to_others_first() {
        let mut failures = Failures::default();
        assert_eq!(failures.clone().pause(0), Pause::default());
        let mut now_ms = 1_000;
        let mut pauses = Vec::new();
        for target in ["m-1", "m-2", "m-1", "m-1", "m-1", "m-1", "m-1", "m-1"] {
            failures.add(target, now_ms);
            let pause = failures.clone().pause(now_ms);
            assert_eq!(pause.tried.last().map(String::as_str), Some(target));
            pauses.push(pause.left.as_secs());
            now_ms += u64::try_from(pause.left.as_millis()).unwrap();
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 120, 120]);
        let due = failures.clone().pause(now_ms);
        assert_eq!(
            (due.left, due.tried),
            (Duration::ZERO, vec!["m-2".into(), "m-1".into()])
        );
        assert_eq!(failures.pause(now_ms + MAX_PAUSE_MS + 1), Pause::default());
    }

    #[test]
    fn who_is_refused_is_passed_over_without_a_pause_and_not_for_ever() {
        let mut failures = Failures::default();
        failures.pass_over("m-1", 5_000);
        let pause = |failures: &Failures, now_ms| failures.clone().pause(now_ms);
        let passed_over = Pause {
            left: Duration::ZERO,
            tried: vec!["m-1".into()],
        };
        assert_eq!(pause(&failures, 5_000), passed_over);
        assert_eq!(pause(&failures, 5_001 + MAX_PAUSE_MS), Pause::default());
        failures.add("m-2", 6_000);
        failures.pass_over("m-1", 6_500);
        let expected = Pause {
            left: Duration::from_millis(MIN_PAUSE_MS - 500),
            tried: vec!["m-2".into(), "m-1".into()],
        };
        assert_eq!(pause(&failures, 6_500), expected);
    }

    #[test]
    fn each_reason_against_a_target() {
        let master = at(MAX_TARGET_LAG_BYTES + 50);
        let mut learner = candidate(50);
        learner.vote = Vote::Suspended;
        let mut detached = candidate(50);
        detached.link = MasterLink::Down;
        let mut leaving = candidate(50);
        leaving.stay = Stay::Leaves;
        let mut of_another_term = candidate(50);
        of_another_term.position.term = Term(0);
        assert_eq!(fit(&candidate(49), master), Err(Unfit::Behind));
        assert_eq!(fit(&of_another_term, master), Err(Unfit::Behind));
        assert_eq!(fit(&learner, master), Err(Unfit::NoVote));
        assert_eq!(fit(&detached, master), Err(Unfit::Detached));
        assert_eq!(fit(&leaving, master), Err(Unfit::Leaving));
        assert_eq!(fit(&candidate(50), master), Ok(()));
    }
}
