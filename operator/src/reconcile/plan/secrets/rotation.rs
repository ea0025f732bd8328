//! One credential: where its rotation is, and what it needs next.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    super::{
        super::{
            draft::{NewPassword, RingDraft},
            observe::Observed,
            step::{CredentialKind, Planned, Step},
        },
        members::{MemberFacts, is_attached},
    },
    Changes, READ_AGAIN_AFTER, SecretsPlan, problem_of,
};
use crate::{
    api::v1alpha1::{MemberRotation, RotationCause, RotationPhase, RotationState},
    resources::secrets::{Ring, ServerCredentials, client_secret, replication_secret},
    rollout::order::Duty,
    rotation::credential::{
        Answer, Effect, Facts, Next, Phase, Report, State, Trigger, User, next, wake_after, wanted,
    },
    set::{CredentialSource, Password, RotationScope, SecretProblem, ValidatedSet},
};

/// One credential with everything its rotation depends on.
pub(super) struct Rotation<'a> {
    set: &'a ValidatedSet,
    observed: &'a Observed,
    pub(super) kind: CredentialKind,
    source: &'a CredentialSource,
    pub(super) ring: &'a Ring,
    status: RotationState,
    pub(super) state: State,
}

impl<'a> Rotation<'a> {
    pub(super) fn new(
        set: &'a ValidatedSet,
        observed: &'a Observed,
        present: &'a ServerCredentials,
        kind: CredentialKind,
    ) -> Self {
        let ring = kind.ring(present);
        let all = observed.set.status.as_ref().map(|s| &s.rotation);
        let status = all.map(|s| kind.recorded(s).clone()).unwrap_or_default();
        Self {
            set,
            observed,
            kind,
            source: kind.source(&set.auth),
            ring,
            state: state_of(&status, ring, observed.now),
            status,
        }
    }

    /// Why a rotation should begin, and what to remember about it.
    fn trigger(&self) -> (Trigger, Option<RotationCause>) {
        if let CredentialSource::Referenced { password, .. } = self.source {
            let differs = password.as_ref().is_ok_and(|p| *p != self.ring.newest);
            return if differs {
                (Trigger::SourceChanged, Some(RotationCause::SecretChanged))
            } else {
                (Trigger::None, None)
            };
        }
        let request = self.request();
        if request.is_some() && request != self.status.request.as_deref() {
            return (Trigger::Demanded, Some(RotationCause::Requested));
        }
        match self.due_in() {
            Some(Duration::ZERO) => (Trigger::Age, Some(RotationCause::Timer)),
            Some(_) | None => (Trigger::None, None),
        }
    }

    /// The annotation's value, if it means this credential.
    fn request(&self) -> Option<&str> {
        let request = self.set.auth.request.as_ref()?;
        let meant = match request.scope {
            RotationScope::All => true,
            RotationScope::Client => self.kind == CredentialKind::Client,
            RotationScope::Replication => self.kind == CredentialKind::Replication,
        };
        meant.then_some(request.token.as_str())
    }

    /// When `rotateEvery` has passed since the last rotation, or since the set was made. A password from a Secret of the
    /// user is never due.
    fn due_at(&self) -> Option<Timestamp> {
        match self.source {
            CredentialSource::Generated => {}
            CredentialSource::Referenced { .. } => return None,
        }
        let every = self.set.auth.rotate_every?;
        let created = self.observed.set.metadata.creation_timestamp.as_ref();
        let last = self.status.completed_at.as_ref().or(created)?.0;
        last.checked_add(every).ok()
    }

    /// How long until then.
    fn due_in(&self) -> Option<Duration> {
        let left = self.due_at()?.duration_since(self.observed.now);
        Some(Duration::try_from(left).unwrap_or_default())
    }

    /// Adds what is to be done about this credential.
    pub(super) fn contribute(
        &self,
        plan: &mut SecretsPlan,
        changes: &mut Changes,
        members: &[MemberFacts],
    ) {
        plan.published.extend(self.published());
        if let CredentialSource::Referenced {
            secret,
            password: Err(problem),
        } = self.source
        {
            plan.problem = Some(problem_of(self.kind, secret, problem));
            plan.wake_within((*problem == SecretProblem::Unknown).then_some(READ_AGAIN_AFTER));
        }
        let reports = self.reports(members, plan.push_revision);
        let applied = self.applied(&reports);
        let next_at = self.due_at().map(Time);
        match self.kind {
            CredentialKind::Client => {
                (plan.client_members, plan.next_at[0]) = (applied, next_at);
            }
            CredentialKind::Replication => {
                (plan.replication_members, plan.next_at[1]) = (applied, next_at);
            }
        }
        if self.is_recorded() {
            self.move_on(plan, changes, &reports);
        } else if self.state.phase != Phase::Settled {
            plan.waiting
                .push(format!("rotation {} is going on", self.state.revision));
        }
    }

    /// The next move of the rotation.
    fn move_on(&self, plan: &mut SecretsPlan, changes: &mut Changes, reports: &[Report]) {
        let (trigger, cause) = self.trigger();
        let facts = Facts {
            user: match self.kind {
                CredentialKind::Client => User::Clients,
                CredentialKind::Replication => User::Members,
            },
            now: self.observed.now,
            trigger,
            reports,
            overlap: match self.ring.previous {
                Some(_) => self.set.auth.overlap,
                // Nothing old is accepted any more.
                None => Duration::ZERO,
            },
        };
        let due = match self.state.phase {
            Phase::Settled => self.due_in(),
            Phase::Adding | Phase::Switching | Phase::Overlapping | Phase::Retiring => {
                wake_after(&self.state, &facts)
            }
        };
        // What is due already waits for something else than time: members, the end of a pause.
        plan.wake_within(due.filter(|left| !left.is_zero()));
        match next(&self.state, &facts) {
            Next::Rest => changes.records.extend(self.seen()),
            Next::Wait { why } => {
                match self.kind {
                    CredentialKind::Client => plan.messages[0] = Some(why.clone()),
                    CredentialKind::Replication => plan.messages[1] = Some(why.clone()),
                }
                let whose = self.kind.whose();
                plan.waiting.push(format!("password of {whose}: {why}"));
            }
            Next::Advance { effect, to } => {
                self.perform(effect, &to, plan, changes);
                let state = self.status_of(&to, cause);
                changes
                    .records
                    .push(self.record(state, "the rotation advances"));
                plan.waiting
                    .push(format!("rotation {} is going on", to.revision));
            }
        }
    }

    /// Whether the status tells of the newest password.
    fn is_recorded(&self) -> bool {
        self.status.revision == self.ring.revision
    }

    /// The record of a password that the Secret of the servers has and the status has not: the first
    /// one, one that an operator added before it was killed, one that was restored.
    pub(super) fn unrecorded(&self) -> Option<Planned> {
        if self.is_recorded() {
            return None;
        }
        let (cause, why) = match (self.state.phase, &self.ring.previous) {
            (Phase::Settled, _) => (None, "the first revision"),
            (_, Some(_)) => (self.began_by(), "a rotation was begun but not recorded yet"),
            (_, None) => (
                Some(RotationCause::SecretLost),
                "the password was restored but not recorded yet",
            ),
        };
        Some(self.record(self.status_of(&self.state, cause), why))
    }

    /// The record of a request that another password is rotated for and this one, the user's, is not: it is not to be acted
    /// upon when this one is generated some day.
    fn seen(&self) -> Option<Planned> {
        match self.source {
            CredentialSource::Generated => return None,
            CredentialSource::Referenced { .. } => {}
        }
        let request = self
            .request()
            .filter(|r| self.status.request.as_deref() != Some(r))?;
        let state = RotationState {
            request: Some(request.to_owned()),
            ..self.status.clone()
        };
        Some(self.record(state, "a request does not concern a password of the user's"))
    }

    /// Why a rotation began that was not recorded then.
    fn began_by(&self) -> Option<RotationCause> {
        match self.source {
            CredentialSource::Generated => self.trigger().1,
            // What it was changed to is the newest by now, so nothing asks for a rotation any more.
            CredentialSource::Referenced { .. } => Some(RotationCause::SecretChanged),
        }
    }

    fn perform(&self, effect: Effect, to: &State, plan: &mut SecretsPlan, changes: &mut Changes) {
        let whose = self.kind.whose();
        match effect {
            Effect::None => {}
            Effect::AddNew => {
                let password = match self.source {
                    CredentialSource::Referenced {
                        password: Ok(password),
                        ..
                    } => NewPassword::Given(password.clone()),
                    CredentialSource::Referenced { .. } | CredentialSource::Generated => {
                        NewPassword::Generated
                    }
                };
                *changes.draft.ring(self.kind) = RingDraft {
                    revision: self.ring.revision.saturating_add(1),
                    newest: password,
                    previous: Some(self.read_last().clone()),
                };
                changes
                    .reasons
                    .push(format!("rotation {} of {whose} begins", to.revision));
            }
            Effect::Publish => match self.source {
                CredentialSource::Generated => {
                    let secret = self.secret(&self.ring.newest);
                    plan.published
                        .retain(|s| s.metadata.name != secret.metadata.name);
                    plan.published.push(secret);
                }
                CredentialSource::Referenced { .. } => {}
            },
            Effect::DropOld => {
                changes.draft.ring(self.kind).previous = None;
                changes.reasons.push(format!(
                    "password {} of {whose} is retired",
                    to.revision.saturating_sub(1)
                ));
            }
        }
    }

    /// The password that was to be read last, which is still accepted beside the one that comes. A generated one is read once
    /// all members accept it; one of the user's was in a Secret before the operator knew it.
    fn read_last(&self) -> &Password {
        let generated = match self.status.cause {
            Some(RotationCause::Timer | RotationCause::Requested) => true,
            Some(RotationCause::SecretChanged | RotationCause::SecretLost) | None => false,
        };
        match self.state.phase {
            Phase::Adding | Phase::Switching if generated => self.ring.oldest(),
            Phase::Adding
            | Phase::Switching
            | Phase::Settled
            | Phase::Overlapping
            | Phase::Retiring => &self.ring.newest,
        }
    }

    fn record(&self, state: RotationState, why: &str) -> Planned {
        Planned {
            step: Step::RecordRotation {
                kind: self.kind,
                seen: Box::new(self.status.clone()),
                state: Box::new(state),
            },
            why: why.to_owned(),
        }
    }

    /// The Secret that others read, for a generated password.
    fn published(&self) -> Option<Secret> {
        match self.source {
            CredentialSource::Generated => {}
            CredentialSource::Referenced { .. } => return None,
        }
        let password = match self.state.phase {
            // Without a previous one the Secret stays as it is until members accept the newest.
            Phase::Adding | Phase::Switching => self.ring.previous.as_ref()?,
            Phase::Settled | Phase::Overlapping | Phase::Retiring => &self.ring.newest,
        };
        Some(self.secret(password))
    }

    fn secret(&self, password: &Password) -> Secret {
        match self.kind {
            CredentialKind::Client => client_secret(self.set, password),
            CredentialKind::Replication => replication_secret(self.set, password),
        }
    }

    /// Whether members do what this phase wants.
    fn reports(&self, members: &[MemberFacts], push_revision: u64) -> Vec<Report> {
        let revision = u64::try_from(self.ring.revision).unwrap_or_default();
        let answer = |member: &MemberFacts| {
            let Some(state) = member.state.as_ref() else {
                return Answer::Silent;
            };
            let told = state.secret_revision >= push_revision;
            let must_present = self.kind == CredentialKind::Replication
                && self.state.phase == Phase::Switching
                && member.duty == Duty::Replica;
            let presents = !must_present
                || (is_attached(state) && state.link_secret_revision == Some(revision));
            if told && presents {
                Answer::Confirmed
            } else {
                Answer::Pending
            }
        };
        members
            .iter()
            .map(|m| Report {
                member: m.name.clone(),
                answer: answer(m),
            })
            .collect()
    }

    /// The last instruction that each member confirmed: this one, or what the status says.
    fn applied(&self, reports: &[Report]) -> Vec<MemberRotation> {
        let before = |name: &str| {
            let known = self.status.members.iter().find(|m| m.name == name);
            known.and_then(|m| m.applied.clone())
        };
        reports
            .iter()
            .map(|r| MemberRotation {
                name: r.member.clone(),
                applied: match r.answer {
                    Answer::Confirmed => Some(wanted(&self.state).label),
                    Answer::Pending | Answer::Silent => before(&r.member),
                },
            })
            .collect()
    }

    /// How a state is kept in the set's status.
    fn status_of(&self, state: &State, cause: Option<RotationCause>) -> RotationState {
        let newest = i64::try_from(state.revision).unwrap_or(i64::MAX);
        let since = Time(state.since);
        let phase = match state.phase {
            Phase::Settled => RotationPhase::Settled,
            Phase::Adding => RotationPhase::Adding,
            Phase::Switching => RotationPhase::Switching,
            Phase::Overlapping => RotationPhase::Overlapping,
            Phase::Retiring => RotationPhase::Retiring,
        };
        let mut kept = RotationState {
            revision: newest,
            phase,
            since: Some(since.clone()),
            message: None,
            ..self.status.clone()
        };
        match state.phase {
            Phase::Adding => {
                kept.cause = cause.or(kept.cause);
                kept.started_at = Some(since);
                if kept.cause != Some(RotationCause::SecretLost) {
                    // A request is not answered by restoring what was there.
                    kept.request = self.request().map(str::to_owned).or(kept.request);
                }
            }
            Phase::Settled => kept.completed_at = Some(since),
            Phase::Switching | Phase::Overlapping | Phase::Retiring => {}
        }
        kept
    }
}

/// The state that a status records. A password that the Secret of the servers has and the status has not
/// is a rotation that was begun and not recorded, unless it is the very first: whatever phase the
/// status tells of belongs to an older one. (The other way round, see `restore`.)
fn state_of(status: &RotationState, ring: &Ring, now: Timestamp) -> State {
    let first = status.revision == 0 && *ring == Ring::only(1, ring.newest.clone());
    let phase = if status.revision != ring.revision && !first {
        Phase::Adding
    } else {
        match status.phase {
            RotationPhase::Settled => Phase::Settled,
            RotationPhase::Adding => Phase::Adding,
            RotationPhase::Switching => Phase::Switching,
            RotationPhase::Overlapping => Phase::Overlapping,
            RotationPhase::Retiring => Phase::Retiring,
        }
    };
    let recorded = status
        .since
        .as_ref()
        .filter(|_| status.revision == ring.revision);
    State {
        phase,
        revision: u64::try_from(ring.revision).unwrap_or_default(),
        since: recorded.map_or(now, |t| t.0),
    }
}
