//! The overlap of an old and a new credential as a state machine.

use std::time::Duration;

use jiff::Timestamp;

/// Where a rotation is. See the module's story for what each phase means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Nothing to do.
    Settled,
    /// Members learn to accept the new credential.
    Adding,
    /// Members begin to present the new credential.
    Switching,
    /// Clients move over.
    Overlapping,
    /// Members forget the old credential.
    Retiring,
}

/// The progress of one credential's rotation, as kept in the set's status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Number of the newest credential: the only one when settled, else the one being introduced.
    pub revision: u64,
    /// When the phase began.
    pub since: Timestamp,
}

/// Why a rotation should start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trigger {
    /// Nothing asks for one.
    None,
    /// `rotateEvery` has passed.
    Age,
    /// The Secret that the user refers to has other contents.
    SourceChanged,
    /// The annotation asks for one.
    Demanded,
}

/// What one member says about this credential.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The member.
    pub member: String,
    /// The label it last confirmed; `None` when it cannot be asked.
    pub applied: Option<String>,
    /// How long ago somebody last logged in with, or still holds a session from, the old
    /// credential; `None` when nobody has.
    pub old_used: Option<Duration>,
}

/// Everything a decision needs.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Present time.
    pub now: Timestamp,
    /// Whether a rotation is asked for.
    pub trigger: Trigger,
    /// One report for each member the set should have.
    pub reports: &'a [Report],
    /// How long old and new are both valid at least.
    pub overlap: Duration,
    /// How long nobody may have used the old one before it is retired.
    pub grace: Duration,
}

/// What must be done to the Secrets before the state may advance. Each is safe to repeat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Store a new credential beside the old one, in the Secret that members start with.
    AddNew,
    /// Write the new credential into the Secret that clients read.
    Publish,
    /// Remove the old credential from the Secret that members start with.
    DropOld,
}

/// The decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Nothing to do and nothing to wait for.
    Rest,
    /// Tell members what [`wanted`] says and wait.
    Wait {
        /// For whom or what, in words.
        why: String,
    },
    /// Perform the effect, then record the state.
    Advance {
        /// First this.
        effect: Effect,
        /// Then this goes to the status.
        to: State,
    },
}

/// What members shall accept and present.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Accepted from others.
    pub accept: Accept,
    /// Presented to the master by a replica.
    pub present: Present,
    /// What a member reports once it does so.
    pub label: String,
}

/// Which credentials are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accept {
    /// The newest only.
    Newest,
    /// The newest and the one before it.
    Both,
}

/// Which credential is presented.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Present {
    /// The newest.
    Newest,
    /// The one before it.
    Previous,
}

/// What members shall do in `state`.
#[must_use]
pub fn wanted(state: &State) -> Wanted {
    let (accept, present, word) = match state.phase {
        Phase::Settled | Phase::Retiring => (Accept::Newest, Present::Newest, "only"),
        Phase::Adding => (Accept::Both, Present::Previous, "add"),
        Phase::Switching | Phase::Overlapping => (Accept::Both, Present::Newest, "both"),
    };
    Wanted {
        accept,
        present,
        label: format!("{}-{word}", state.revision),
    }
}

/// The next move of the rotation that is in `state`.
#[must_use]
pub fn next(state: &State, facts: &Facts<'_>) -> Next {
    let here = wanted(state).label;
    match state.phase {
        Phase::Settled => match facts.trigger {
            Trigger::None => Next::Rest,
            Trigger::Age | Trigger::SourceChanged | Trigger::Demanded => Next::Advance {
                effect: Effect::AddNew,
                to: State {
                    phase: Phase::Adding,
                    revision: state.revision.saturating_add(1),
                    since: facts.now,
                },
            },
        },
        Phase::Adding => when_all(state, facts, &here, Effect::None, Phase::Switching),
        Phase::Switching => when_all(state, facts, &here, Effect::Publish, Phase::Overlapping),
        Phase::Overlapping => overlap(state, facts, &here),
        Phase::Retiring => when_all(state, facts, &here, Effect::None, Phase::Settled),
    }
}

fn overlap(state: &State, facts: &Facts<'_>, label: &str) -> Next {
    let elapsed = facts.now.duration_since(state.since);
    let elapsed = Duration::try_from(elapsed).unwrap_or_default();
    if elapsed < facts.overlap {
        return Next::Wait {
            // A moment and no countdown: the status must not change while nothing does.
            why: match state.since.checked_add(facts.overlap) {
                Ok(end) => format!(
                    "the old password is accepted until {}",
                    end.strftime("%Y-%m-%dT%H:%M:%SZ")
                ),
                Err(_) => "the old password is accepted".to_owned(),
            },
        };
    }
    let user = facts
        .reports
        .iter()
        .find(|r| r.old_used.is_some_and(|ago| ago < facts.grace));
    if let Some(user) = user {
        return Next::Wait {
            why: format!(
                "somebody still uses the old credential with {}",
                user.member
            ),
        };
    }
    when_all(state, facts, label, Effect::DropOld, Phase::Retiring)
}

fn when_all(state: &State, facts: &Facts<'_>, label: &str, effect: Effect, phase: Phase) -> Next {
    let missing = facts
        .reports
        .iter()
        .find(|r| r.applied.as_deref() != Some(label));
    if let Some(missing) = missing {
        let name = &missing.member;
        let why = match missing.applied {
            Some(_) => format!("{name} has not confirmed revision {} yet", state.revision),
            None => format!("{name} cannot be asked for its revision"),
        };
        return Next::Wait { why };
    }
    if facts.reports.is_empty() {
        return Next::Wait {
            why: "there are no members yet".into(),
        };
    }
    Next::Advance {
        effect,
        to: State {
            phase,
            revision: state.revision,
            since: facts.now,
        },
    }
}

/// When time alone will change the answer of [`next`], for the next look.
#[must_use]
pub fn wake_after(state: &State, facts: &Facts<'_>) -> Option<Duration> {
    if state.phase != Phase::Overlapping {
        return None;
    }
    let elapsed = Duration::try_from(facts.now.duration_since(state.since)).unwrap_or_default();
    let overlap = facts.overlap.saturating_sub(elapsed);
    let grace = facts
        .reports
        .iter()
        .filter_map(|r| r.old_used)
        .map(|ago| facts.grace.saturating_sub(ago))
        .max()
        .unwrap_or_default();
    Some(overlap.max(grace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn reports(labels: [Option<&str>; 3]) -> Vec<Report> {
        labels
            .iter()
            .enumerate()
            .map(|(i, label)| Report {
                member: format!("m-{i}"),
                applied: label.map(Into::into),
                old_used: None,
            })
            .collect()
    }

    fn facts(now: Timestamp, trigger: Trigger, reports: &[Report]) -> Facts<'_> {
        Facts {
            now,
            trigger,
            reports,
            overlap: OVERLAP,
            grace: GRACE,
        }
    }

    fn advance(state: &mut State, f: &Facts<'_>) -> Effect {
        match next(state, f) {
            Next::Advance { effect, to } => {
                *state = to;
                effect
            }
            other @ (Next::Rest | Next::Wait { .. }) => {
                panic!("expected an advance from {state:?}, got {other:?}")
            }
        }
    }

    fn waits(state: &State, f: &Facts<'_>) -> String {
        match next(state, f) {
            Next::Wait { why } => why,
            other @ (Next::Rest | Next::Advance { .. }) => {
                panic!("expected a wait in {state:?}, got {other:?}")
            }
        }
    }

    #[test]
    fn a_whole_rotation_in_order() {
        let mut state = State {
            phase: Phase::Settled,
            revision: 4,
            since: at(0),
        };
        let r = reports([Some("4-only"); 3]);
        assert_eq!(next(&state, &facts(at(1), Trigger::None, &r)), Next::Rest);
        assert_eq!(
            advance(&mut state, &facts(at(1), Trigger::Demanded, &r)),
            Effect::AddNew
        );
        assert_eq!((state.phase, state.revision), (Phase::Adding, 5));
        assert_eq!(wanted(&state).present, Present::Previous);
        assert_eq!(
            waits(&state, &facts(at(2), Trigger::None, &r)),
            "m-0 has not confirmed revision 5 yet"
        );
        let r = reports([Some("5-add"); 3]);
        assert_eq!(
            advance(&mut state, &facts(at(3), Trigger::None, &r)),
            Effect::None
        );
        assert_eq!(wanted(&state).present, Present::Newest);
        let r = reports([Some("5-both"); 3]);
        assert_eq!(
            advance(&mut state, &facts(at(4), Trigger::None, &r)),
            Effect::Publish
        );
        assert_eq!(
            waits(&state, &facts(at(10), Trigger::None, &r)),
            "the old password is accepted until 1970-01-12T13:47:44Z"
        );
        assert_eq!(
            advance(&mut state, &facts(at(64), Trigger::None, &r)),
            Effect::DropOld
        );
        assert_eq!(wanted(&state).accept, Accept::Newest);
        let r = reports([Some("5-only"); 3]);
        assert_eq!(
            advance(&mut state, &facts(at(65), Trigger::None, &r)),
            Effect::None
        );
        assert_eq!(
            state,
            State {
                phase: Phase::Settled,
                revision: 5,
                since: at(65)
            }
        );
    }

    #[test]
    fn an_unreachable_member_holds_every_phase_back() {
        for (phase, label) in [
            (Phase::Adding, "2-add"),
            (Phase::Switching, "2-both"),
            (Phase::Overlapping, "2-both"),
            (Phase::Retiring, "2-only"),
        ] {
            let state = State {
                phase,
                revision: 2,
                since: at(0),
            };
            let r = reports([Some(label), None, Some(label)]);
            assert_eq!(
                waits(&state, &facts(at(1000), Trigger::None, &r)),
                "m-1 cannot be asked for its revision"
            );
        }
    }

    #[test]
    fn the_old_one_is_not_retired_while_somebody_uses_it() {
        let state = State {
            phase: Phase::Overlapping,
            revision: 2,
            since: at(0),
        };
        let mut r = reports([Some("2-both"); 3]);
        r[2].old_used = Some(Duration::from_secs(3));
        let f = facts(at(100), Trigger::None, &r);
        assert_eq!(
            waits(&state, &f),
            "somebody still uses the old credential with m-2"
        );
        assert_eq!(wake_after(&state, &f), Some(Duration::from_secs(7)));
        r[2].old_used = Some(GRACE);
        assert!(matches!(
            next(&state, &facts(at(107), Trigger::None, &r)),
            Next::Advance { .. }
        ));
    }

    #[test]
    fn a_trigger_during_a_rotation_waits_for_its_end() {
        let state = State {
            phase: Phase::Adding,
            revision: 2,
            since: at(0),
        };
        let r = reports([Some("1-only"); 3]);
        assert!(matches!(
            next(&state, &facts(at(1), Trigger::Demanded, &r)),
            Next::Wait { .. }
        ));
    }

    #[test]
    fn a_wall_clock_that_jumps_back_only_lengthens_the_overlap() {
        let state = State {
            phase: Phase::Overlapping,
            revision: 2,
            since: at(100),
        };
        let r = reports([Some("2-both"); 3]);
        assert_eq!(
            waits(&state, &facts(at(0), Trigger::None, &r)),
            "the old password is accepted until 1970-01-12T13:49:20Z"
        );
    }

    #[test]
    fn every_state_with_every_report_either_waits_or_advances_once() {
        let labels = [None, Some("2-add"), Some("2-both"), Some("2-only")];
        for phase in [
            Phase::Adding,
            Phase::Switching,
            Phase::Overlapping,
            Phase::Retiring,
        ] {
            let state = State {
                phase,
                revision: 2,
                since: at(0),
            };
            for a in labels {
                for b in labels {
                    let r = reports([a, b, a]);
                    if let Next::Advance { to, .. } =
                        next(&state, &facts(at(1000), Trigger::None, &r))
                    {
                        let here = wanted(&state).label;
                        assert!(
                            r.iter()
                                .all(|r| r.applied.as_deref() == Some(here.as_str()))
                        );
                        assert_eq!(to.revision, state.revision);
                    }
                }
            }
        }
    }
}
