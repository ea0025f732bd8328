//! Verdict → what to do. The table, and nothing else.

use replset::{Intent, MemberName, OldMaster, Vote};

use super::health::{Evidence, Proof, Symptom, Verdict, Witness};
use crate::api::v1alpha1::FailoverReason;

/// What the guard shall do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Nothing: a master serves.
    Rest,
    /// Nothing yet.
    Wait {
        /// For whom or what, in words.
        why: String,
    },
    /// Obtain a term and run an election.
    Elect(Call),
}

/// How an election is run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    /// What members are told.
    pub intent: Intent,
    /// What is known of the old master's lease.
    pub old_master: OldMaster,
    /// For the record.
    pub reason: FailoverReason,
}

/// The decision that follows from a verdict.
#[must_use]
pub fn decide(verdict: &Verdict, evidence: &Evidence<'_>) -> Decision {
    let elect = |intent, old_master, reason| {
        Decision::Elect(Call {
            intent,
            old_master,
            reason,
        })
    };
    match verdict {
        Verdict::Serving { .. } => Decision::Rest,
        Verdict::NeverHadOne => match silent_voter(evidence) {
            // The first mastership needs every member, so that no dataset is overlooked.
            Some(missing) => Decision::Wait {
                why: format!("waiting for {missing}"),
            },
            None => elect(
                Intent::Unplanned,
                OldMaster::Unknown,
                FailoverReason::Bootstrap,
            ),
        },
        // Of its lease the release speaks.
        Verdict::Released(release) => elect(
            Intent::Planned(*release),
            OldMaster::Unknown,
            FailoverReason::PodDeleted,
        ),
        Verdict::Gone(proof) => with_votes(evidence, || {
            let reason = match proof {
                Proof::Container | Proof::Refused | Proof::OwnWord => FailoverReason::ProcessLost,
                Proof::PodDeleted => FailoverReason::PodDeleted,
            };
            elect(Intent::Forced, OldMaster::Gone(evidence.term), reason)
        }),
        Verdict::Missed(symptom) => with_votes(evidence, || {
            let reason = match symptom {
                Symptom::NodeLost => FailoverReason::NodeLost,
                Symptom::Unresponsive => FailoverReason::Unresponsive,
            };
            elect(Intent::Unplanned, OldMaster::Unknown, reason)
        }),
        Verdict::Unsure { why } => Decision::Wait { why: why.clone() },
    }
}

/// An election that cannot win only costs terms, fences members and begins copies anew: wait for enough votes first. With all
/// voters there the best of them leads, whoever has a vote.
fn with_votes(evidence: &Evidence<'_>, elect: impl Fn() -> Decision) -> Decision {
    let voters = &evidence.voters.voters;
    let word = |voter: &MemberName| evidence.witness(voter.as_str()).and_then(Witness::fresh);
    let missing = |voter: &MemberName| match word(voter).map(|w| w.vote) {
        Some(Vote::Granted) => None,
        Some(Vote::Suspended) => Some(format!("{voter} (has no vote yet)")),
        None => Some(voter.to_string()),
    };
    let missing: Vec<String> = voters.iter().filter_map(missing).collect();
    let (votes, needed) = (
        voters.len() - missing.len(),
        replset::majority(voters.len()),
    );
    if votes >= needed || voters.iter().all(|voter| word(voter).is_some()) {
        return elect();
    }
    let missing = missing.join(", ");
    Decision::Wait {
        why: format!("{votes} of {needed} needed votes; missing: {missing}"),
    }
}

fn silent_voter(evidence: &Evidence<'_>) -> Option<String> {
    let voters = evidence.voters.voters.iter().map(|v| v.as_str());
    voters
        .filter(|v| evidence.witness(v).is_none_or(|w| w.fresh().is_none()))
        .map(str::to_owned)
        .next()
}

#[cfg(test)]
mod tests {
    use replset::{Release, RoleKind, Term};

    use super::{
        super::health::{
            Line,
            tests::{evidence, voters, witness, word},
        },
        *,
    };

    fn replicas(up: usize) -> Vec<Witness> {
        (0..3)
            .map(|i| match (1..=up).contains(&i) {
                true => witness(i, Line::Up, Some(word(RoleKind::Follower, None))),
                false => witness(i, Line::Unreachable, None),
            })
            .collect()
    }

    fn call(verdict: &Verdict, up: usize) -> Result<Call, String> {
        let (voters, witnesses) = (voters(3), replicas(up));
        match decide(verdict, &evidence(&voters, &witnesses)) {
            Decision::Elect(call) => Ok(call),
            Decision::Wait { why } => Err(why),
            Decision::Rest => Err("rest".into()),
        }
    }

    #[test]
    fn the_table() {
        let release = Release {
            term: Term(3),
            token: 1,
        };
        for (verdict, intent, old, reason) in [
            (
                Verdict::Released(release),
                Intent::Planned(release),
                OldMaster::Unknown,
                FailoverReason::PodDeleted,
            ),
            (
                Verdict::Gone(Proof::Refused),
                Intent::Forced,
                OldMaster::Gone(Term(3)),
                FailoverReason::ProcessLost,
            ),
            (
                Verdict::Missed(Symptom::NodeLost),
                Intent::Unplanned,
                OldMaster::Unknown,
                FailoverReason::NodeLost,
            ),
            (
                Verdict::Missed(Symptom::Unresponsive),
                Intent::Unplanned,
                OldMaster::Unknown,
                FailoverReason::Unresponsive,
            ),
        ] {
            let expected = Call {
                intent,
                old_master: old,
                reason,
            };
            assert_eq!(call(&verdict, 2), Ok(expected), "{verdict:?}");
        }
    }

    #[test]
    fn with_too_few_voices_it_waits_and_names_who_is_missing() {
        let why = call(&Verdict::Gone(Proof::Container), 1).unwrap_err();
        assert_eq!(why, "1 of 2 needed votes; missing: m-0, m-2");
    }

    #[test]
    fn members_that_copy_the_masters_data_are_not_disturbed_while_it_may_come_back() {
        let (voters, mut witnesses) = (voters(3), replicas(2));
        for copying in &mut witnesses[1..] {
            copying.word.as_mut().unwrap().vote = Vote::Suspended;
        }
        let missed = Verdict::Missed(Symptom::NodeLost);
        let decision = |witnesses: &[Witness]| decide(&missed, &evidence(&voters, witnesses));
        let why = "0 of 2 needed votes; missing: m-0, m-1 (has no vote yet), m-2 (has no vote yet)";
        assert_eq!(decision(&witnesses), Decision::Wait { why: why.into() });
        // All there: the best of them leads.
        witnesses[0] = witness(0, Line::Up, Some(word(RoleKind::Idle, None)));
        witnesses[0].word.as_mut().unwrap().vote = Vote::Suspended;
        assert!(matches!(decision(&witnesses), Decision::Elect(_)));
    }

    #[test]
    fn the_first_mastership_waits_for_everybody() {
        assert_eq!(
            call(&Verdict::NeverHadOne, 2),
            Err("waiting for m-0".into())
        );
    }

    #[test]
    fn a_serving_master_is_left_alone() {
        let serving = Verdict::Serving {
            master: "m-0".into(),
            term: Term(3),
        };
        assert_eq!(call(&serving, 2), Err("rest".into()));
    }
}
