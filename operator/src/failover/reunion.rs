//! Members that a living master cannot reach because they promised a later term, in which nobody became master.
//!
//! An election may stop half-way: the elector ends, or a promise comes too late to count. Whoever promised keeps its word
//! and refuses every master of a lower term, so it replicates nothing until the next election, which nothing else brings
//! about: the others hear their master. A new term for the same master ends that.

use replset::{Intent, OldMaster, RoleKind, Term, Vote, majority};

use super::{
    decide::Call,
    health::{Evidence, Witness, Word},
};
use crate::api::v1alpha1::FailoverReason;

/// The members that promised a term above that of the master that is there, and follow nobody. Nobody is stranded where
/// somebody knows of a later master.
#[must_use]
pub fn stranded<'a>(evidence: &Evidence<'a>, term: Term) -> Vec<&'a str> {
    let witnesses: &'a [Witness] = evidence.witnesses;
    let words = || witnesses.iter().filter_map(|w| Some((w, w.fresh()?)));
    if words().any(|(_, word)| word.term > term) {
        return Vec::new();
    }
    let refuses = |word: &Word| word.promised > term && word.role == RoleKind::Idle;
    let stranded = words().filter(|(_, word)| refuses(word));
    stranded.map(|(w, _)| w.member.as_str()).collect()
}

/// The election that brings everybody together again, if it can have a master in the end: the present one gives up its term
/// for it. So it must answer itself, and with it a majority whose votes count.
#[must_use]
pub fn reunion(evidence: &Evidence<'_>, master: &str) -> Option<Call> {
    let votes = |w: &&Witness| w.fresh().is_some_and(|word| word.vote == Vote::Granted);
    let is_voter = |w: &&Witness| evidence.voters.contains(&w.member.as_str().into());
    let witnesses = evidence.witnesses.iter();
    let voting: Vec<&Witness> = witnesses.filter(votes).filter(is_voter).collect();
    let enough = voting.len() >= majority(evidence.voters.voters.len());
    let agreed = enough && voting.iter().any(|w| w.member == master);
    agreed.then_some(Call {
        intent: Intent::Forced,
        old_master: OldMaster::Unknown,
        reason: FailoverReason::StrandedMember,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::health::{
        Line, Verdict, judge,
        tests::{evidence, voters, witness, word},
    };

    /// `m-0` is master of term 3; `m-2` promised term 4.
    fn one_promised() -> [Witness; 3] {
        let mut promised = word(RoleKind::Idle, None);
        (promised.term, promised.promised) = (Term(0), Term(4));
        [
            witness(0, Line::Up, Some(word(RoleKind::Master, None))),
            witness(1, Line::Up, Some(word(RoleKind::Follower, Some(10)))),
            witness(2, Line::Up, Some(promised)),
        ]
    }

    #[test]
    fn who_promised_a_later_term_is_stranded_beside_a_serving_master() {
        let (voters, witnesses) = (voters(3), one_promised());
        let evidence = evidence(&voters, &witnesses);
        assert!(matches!(judge(&evidence), Verdict::Serving { .. }));
        assert_eq!(stranded(&evidence, Term(3)), ["m-2"]);
        let call = reunion(&evidence, "m-0").unwrap();
        assert_eq!(call.reason, FailoverReason::StrandedMember);
    }

    #[test]
    fn nobody_is_stranded_in_the_term_that_was_promised() {
        let (voters, mut witnesses) = (voters(3), one_promised());
        witnesses[0].word.as_mut().unwrap().term = Term(4);
        let evidence = evidence(&voters, &witnesses);
        assert!(stranded(&evidence, Term(4)).is_empty());
    }

    #[test]
    fn a_follower_of_a_later_master_is_not_stranded_and_nobody_else_is_then() {
        let (voters, mut witnesses) = (voters(3), one_promised());
        let mut follower = word(RoleKind::Follower, Some(10));
        (follower.term, follower.promised) = (Term(4), Term(4));
        witnesses[1] = witness(1, Line::Up, Some(follower));
        let evidence = evidence(&voters, &witnesses);
        assert!(stranded(&evidence, Term(3)).is_empty());
    }

    #[test]
    fn a_master_alone_with_the_stranded_is_brought_together_with_it() {
        let (voters, mut witnesses) = (voters(3), one_promised());
        witnesses[1] = witness(1, Line::Unreachable, None);
        // Without a majority it serves nobody, and nobody else says that it is missed.
        witnesses[0].word.as_mut().unwrap().serving = false;
        let evidence = evidence(&voters, &witnesses);
        assert!(matches!(judge(&evidence), Verdict::Serving { .. }));
        assert!(reunion(&evidence, "m-0").is_some());
    }

    #[test]
    fn a_master_that_might_be_left_without_a_successor_keeps_its_term() {
        let (voters, mut witnesses) = (voters(3), one_promised());
        witnesses[1] = witness(1, Line::Unreachable, None);
        witnesses[2].word.as_mut().unwrap().vote = Vote::Suspended;
        assert!(reunion(&evidence(&voters, &witnesses), "m-0").is_none());
        let mut witnesses = one_promised();
        witnesses[0].line = Line::Silent;
        assert!(reunion(&evidence(&voters, &witnesses), "m-0").is_none());
    }
}
