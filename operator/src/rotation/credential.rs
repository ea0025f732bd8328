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
    /// Whether it does what [`wanted`] says.
    pub answer: Answer,
}

/// Whether a member does what it shall.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It says that it does.
    Confirmed,
    /// It does not yet.
    Pending,
    /// It cannot be asked.
    Silent,
}

/// Who logs in with a credential.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    /// Clients.
    Clients,
    /// The members, to their master.
    Members,
}

/// Everything a decision needs.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Whose credential it is.
    pub user: User,
    /// Present time.
    pub now: Timestamp,
    /// Whether a rotation is asked for.
    pub trigger: Trigger,
    /// One report for each member the set should have.
    pub reports: &'a [Report],
    /// How long old and new are both valid at least.
    pub overlap: Duration,
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
    match state.phase {
        Phase::Settled => match facts.trigger {
            Trigger::None => Next::Rest,
            Trigger::Age | Trigger::SourceChanged | Trigger::Demanded => begin(state, facts),
        },
        // Whoever reads the user's Secret logs in with what it says now, and would be refused until the overlap is over.
        // The older of the two old passwords goes: nobody reads it any more.
        Phase::Overlapping | Phase::Retiring if facts.trigger == Trigger::SourceChanged => {
            begin(state, facts)
        }
        // No less so while a member that cannot be asked holds the rotation back, for hours maybe. Members are another matter:
        // they show the old password until all have confirmed, and dropping it would cut them off from their master.
        Phase::Adding | Phase::Switching
            if (facts.trigger, facts.user) == (Trigger::SourceChanged, User::Clients) =>
        {
            begin(state, facts)
        }
        Phase::Adding => when_all(state, facts, Effect::None, Phase::Switching),
        Phase::Switching => when_all(state, facts, Effect::Publish, Phase::Overlapping),
        Phase::Overlapping => overlap(state, facts),
        Phase::Retiring => when_all(state, facts, Effect::None, Phase::Settled),
    }
}

fn begin(state: &State, facts: &Facts<'_>) -> Next {
    Next::Advance {
        effect: Effect::AddNew,
        to: State {
            phase: Phase::Adding,
            revision: state.revision.saturating_add(1),
            since: facts.now,
        },
    }
}

fn overlap(state: &State, facts: &Facts<'_>) -> Next {
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
    when_all(state, facts, Effect::DropOld, Phase::Retiring)
}

fn when_all(state: &State, facts: &Facts<'_>, effect: Effect, phase: Phase) -> Next {
    for report in facts.reports {
        let name = &report.member;
        let why = match report.answer {
            Answer::Confirmed => continue,
            Answer::Pending => format!("{name} has not confirmed revision {} yet", state.revision),
            Answer::Silent => format!("{name} cannot be asked for its revision"),
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
    Some(facts.overlap.saturating_sub(elapsed))
}

#[cfg(test)]
mod tests {
    use super::{Answer::*, *};

    const OVERLAP: Duration = Duration::from_secs(60);
    const GOING_ON: [Phase; 4] = [
        Phase::Adding,
        Phase::Switching,
        Phase::Overlapping,
        Phase::Retiring,
    ];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn reports(answers: [Answer; 3]) -> Vec<Report> {
        answers
            .iter()
            .enumerate()
            .map(|(i, answer)| Report {
                member: format!("m-{i}"),
                answer: *answer,
            })
            .collect()
    }

    fn facts(now: Timestamp, trigger: Trigger, reports: &[Report]) -> Facts<'_> {
        Facts {
            user: User::Members,
            now,
            trigger,
            reports,
            overlap: OVERLAP,
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
        let all = reports([Confirmed; 3]);
        let untold = reports([Pending; 3]);
        assert_eq!(next(&state, &facts(at(1), Trigger::None, &all)), Next::Rest);
        assert_eq!(
            advance(&mut state, &facts(at(1), Trigger::Demanded, &all)),
            Effect::AddNew
        );
        assert_eq!((state.phase, state.revision), (Phase::Adding, 5));
        assert_eq!(wanted(&state).present, Present::Previous);
        assert_eq!(wanted(&state).label, "5-add");
        assert_eq!(
            waits(&state, &facts(at(2), Trigger::None, &untold)),
            "m-0 has not confirmed revision 5 yet"
        );
        assert_eq!(
            advance(&mut state, &facts(at(3), Trigger::None, &all)),
            Effect::None
        );
        assert_eq!(wanted(&state).present, Present::Newest);
        assert_eq!(wanted(&state).label, "5-both");
        assert_eq!(
            advance(&mut state, &facts(at(4), Trigger::None, &all)),
            Effect::Publish
        );
        assert_eq!(
            waits(&state, &facts(at(10), Trigger::None, &all)),
            "the old password is accepted until 1970-01-12T13:47:44Z"
        );
        assert_eq!(
            wake_after(&state, &facts(at(10), Trigger::None, &all)),
            Some(Duration::from_secs(54))
        );
        assert_eq!(
            advance(&mut state, &facts(at(64), Trigger::None, &all)),
            Effect::DropOld
        );
        assert_eq!(wanted(&state).accept, Accept::Newest);
        assert_eq!(wanted(&state).label, "5-only");
        assert_eq!(
            advance(&mut state, &facts(at(65), Trigger::None, &all)),
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
        for phase in GOING_ON {
            let state = State {
                phase,
                revision: 2,
                since: at(0),
            };
            let r = reports([Confirmed, Silent, Confirmed]);
            assert_eq!(
                waits(&state, &facts(at(1000), Trigger::None, &r)),
                "m-1 cannot be asked for its revision"
            );
        }
    }

    #[test]
    fn a_trigger_during_a_rotation_waits_for_its_end() {
        let state = State {
            phase: Phase::Adding,
            revision: 2,
            since: at(0),
        };
        let r = reports([Pending; 3]);
        assert!(matches!(
            next(&state, &facts(at(1), Trigger::Demanded, &r)),
            Next::Wait { .. }
        ));
    }

    #[test]
    fn a_secret_that_changes_again_is_followed_when_nobody_shows_what_it_said_before_the_last() {
        let r = reports([Confirmed, Silent, Confirmed]);
        for (user, phase) in [User::Clients, User::Members]
            .into_iter()
            .flat_map(|user| GOING_ON.map(|phase| (user, phase)))
        {
            let mut state = State {
                phase,
                revision: 2,
                since: at(0),
            };
            let mut f = facts(at(1), Trigger::SourceChanged, &r);
            f.user = user;
            match (user, phase) {
                (User::Members, Phase::Adding | Phase::Switching) => {
                    waits(&state, &f);
                }
                (User::Clients | User::Members, _) => {
                    assert_eq!(advance(&mut state, &f), Effect::AddNew);
                    assert_eq!((state.phase, state.revision), (Phase::Adding, 3));
                }
            }
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_back_only_lengthens_the_overlap() {
        let state = State {
            phase: Phase::Overlapping,
            revision: 2,
            since: at(100),
        };
        let r = reports([Confirmed; 3]);
        assert_eq!(
            waits(&state, &facts(at(0), Trigger::None, &r)),
            "the old password is accepted until 1970-01-12T13:49:20Z"
        );
    }

    #[test]
    fn every_state_with_every_report_either_waits_or_advances_once() {
        let answers = [Silent, Pending, Confirmed];
        for phase in GOING_ON {
            let state = State {
                phase,
                revision: 2,
                since: at(0),
            };
            for a in answers {
                for b in answers {
                    let r = reports([a, b, a]);
                    if let Next::Advance { to, .. } =
                        next(&state, &facts(at(1000), Trigger::None, &r))
                    {
                        assert_eq!([a, b], [Confirmed, Confirmed]);
                        assert_eq!(to.revision, state.revision);
                    }
                }
            }
        }
    }
}
