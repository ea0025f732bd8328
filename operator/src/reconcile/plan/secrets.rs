//! Credentials: the Secrets, what members are told, and how far each rotation is.

use std::time::Duration;

use control::proto;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    super::{
        observe::{Credentials as Found, Observed},
        step::{self, CredentialKind, NewPassword, Planned, Step},
    },
    child, json,
    members::{MemberFacts, is_attached},
};
use crate::{
    api::{
        names,
        v1alpha1::{MemberRotation, RotationCause, RotationPhase, RotationState},
    },
    resources::secrets::{
        Ring, ServerCredentials, client_secret, replication_secret, server_secret,
    },
    rollout::order::Duty,
    rotation::credential::{
        Accept, Effect, Facts, Next, Phase, Present, Report, State, Trigger, next, wake_after,
        wanted,
    },
    set::{CredentialSource, Password, RotationScope, ValidatedSet},
};

/// What is to be done about credentials.
#[derive(Clone, Debug, Default)]
pub struct SecretsPlan {
    /// First of all: the Secret that members start with.
    pub store: Vec<Planned>,
    /// Whether that Secret is there, so that pods can start.
    pub ready: bool,
    /// Secrets for clients and stock replicas.
    pub published: Vec<Secret>,
    /// What members must be told, and the progress to record.
    pub push: Vec<Planned>,
    /// Why the credentials are not current; empty when they are.
    pub waiting: Vec<String>,
    /// Why a Secret cannot be used.
    pub problem: Option<String>,
    /// When time alone moves a rotation.
    pub wake_after: Option<Duration>,
    /// The revision that members shall report.
    pub push_revision: u64,
    /// What members confirmed of the clients' password.
    pub client_members: Vec<MemberRotation>,
    /// What members confirmed of the replication password.
    pub replication_members: Vec<MemberRotation>,
    /// When the next rotation is due: of clients, of replication.
    pub next_at: [Option<Time>; 2],
    /// What the rotation waits for: of clients, of replication.
    pub messages: [Option<String>; 2],
}

/// The plan for both credentials.
#[must_use]
pub fn plan(set: &ValidatedSet, observed: &Observed, members: &[MemberFacts]) -> SecretsPlan {
    let present = match &observed.credentials {
        Found::Missing => return create(set),
        Found::Damaged(why) => {
            return SecretsPlan {
                problem: Some(why.clone()),
                ..SecretsPlan::default()
            };
        }
        Found::Found(present) => present.as_ref(),
    };
    let rotations: Vec<Rotation<'_>> = [CredentialKind::Client, CredentialKind::Replication]
        .into_iter()
        .map(|kind| Rotation::new(set, observed, present, kind))
        .collect();
    let push_revision = rotations.iter().map(|r| ordinal(&r.state)).sum();
    let mut plan = SecretsPlan {
        ready: true,
        push_revision,
        ..SecretsPlan::default()
    };
    if rotations
        .iter()
        .any(|r| i64::try_from(r.state.revision) != Ok(r.ring.revision))
    {
        // The caches of Secret and status are not of the same moment; the next look will see both.
        plan.waiting
            .push("the Secret of the servers is being read again".into());
        plan.published
            .extend(rotations.iter().filter_map(Rotation::published));
        return plan;
    }
    plan.push
        .extend(push(present, &rotations, members, push_revision));
    let kept = child(observed, "Secret", json(&server_secret(set, present)));
    if kept.is_some() {
        let why = format!("Secret {} shall change", names::server_secret(&set.name));
        plan.store.push(Planned {
            step: Step::StoreCredentials(Box::new(present.clone())),
            why,
        });
    }
    for rotation in &rotations {
        rotation.contribute(&mut plan, members);
    }
    plan
}

fn create(set: &ValidatedSet) -> SecretsPlan {
    let first = |kind: CredentialKind, source: &CredentialSource| match source {
        CredentialSource::Generated => Ok(NewPassword::Generated),
        CredentialSource::Referenced {
            password: Ok(password),
            ..
        } => Ok(NewPassword::Given(password.clone())),
        CredentialSource::Referenced {
            secret,
            password: Err(problem),
        } => Err(problem_of(kind, secret, problem)),
    };
    let client = first(CredentialKind::Client, &set.auth.client);
    let replication = first(CredentialKind::Replication, &set.auth.replication);
    match (client, replication) {
        (Ok(client), Ok(replication)) => SecretsPlan {
            store: vec![Planned {
                step: Step::CreateCredentials {
                    client,
                    replication,
                },
                why: "the set has no credentials yet".into(),
            }],
            ..SecretsPlan::default()
        },
        (Err(why), _) | (_, Err(why)) => SecretsPlan {
            problem: Some(why),
            ..SecretsPlan::default()
        },
    }
}

/// A problem with the field that names the Secret.
fn problem_of(kind: CredentialKind, secret: &str, problem: &crate::set::SecretProblem) -> String {
    let field = match kind {
        CredentialKind::Client => "clientSecretName",
        CredentialKind::Replication => "replicationSecretName",
    };
    format!(
        "spec.auth.{field}: Secret {secret}: {}",
        problem_text(problem)
    )
}

/// Why a referenced Secret gives no password, for people.
#[must_use]
pub fn problem_text(problem: &crate::set::SecretProblem) -> String {
    use crate::set::SecretProblem;
    match problem {
        SecretProblem::Missing => "it does not exist: create it with a key `password`".into(),
        SecretProblem::Invalid(why) => why.clone(),
        SecretProblem::Unknown => "it could not be read".into(),
    }
}

/// One credential with everything its rotation depends on.
struct Rotation<'a> {
    set: &'a ValidatedSet,
    observed: &'a Observed,
    present: &'a ServerCredentials,
    kind: CredentialKind,
    source: &'a CredentialSource,
    ring: &'a Ring,
    status: RotationState,
    state: State,
}

impl<'a> Rotation<'a> {
    fn new(
        set: &'a ValidatedSet,
        observed: &'a Observed,
        present: &'a ServerCredentials,
        kind: CredentialKind,
    ) -> Self {
        let recorded = observed.set.status.clone().unwrap_or_default().rotation;
        let (source, ring, status) = match kind {
            CredentialKind::Client => (&set.auth.client, &present.client, recorded.client),
            CredentialKind::Replication => (
                &set.auth.replication,
                &present.replication,
                recorded.replication,
            ),
        };
        let state = state_of(&status, ring, observed.now);
        Self {
            set,
            observed,
            present,
            kind,
            source,
            ring,
            status,
            state,
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
        let requested = self.set.auth.request.as_ref().is_some_and(|request| {
            let meant = match request.scope {
                RotationScope::All => true,
                RotationScope::Client => self.kind == CredentialKind::Client,
                RotationScope::Replication => self.kind == CredentialKind::Replication,
            };
            meant && self.status.request.as_deref() != Some(request.token.as_str())
        });
        if requested {
            return (Trigger::Demanded, Some(RotationCause::Requested));
        }
        match self.due_in() {
            Some(Duration::ZERO) => (Trigger::Age, Some(RotationCause::Timer)),
            Some(_) | None => (Trigger::None, None),
        }
    }

    /// When `rotateEvery` has passed since the last rotation, or since the set was made.
    fn due_at(&self) -> Option<Timestamp> {
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

    fn contribute(&self, plan: &mut SecretsPlan, members: &[MemberFacts]) {
        if let Some(secret) = self.published() {
            plan.published.push(secret);
        }
        if let CredentialSource::Referenced {
            secret,
            password: Err(problem),
        } = self.source
        {
            plan.problem = Some(problem_of(self.kind, secret, problem));
        }
        let reports = self.reports(members, plan.push_revision);
        let confirmed: Vec<MemberRotation> = reports
            .iter()
            .map(|r| MemberRotation {
                name: r.member.clone(),
                applied: r.applied.clone(),
            })
            .collect();
        let next_at = self.due_at().map(Time);
        match self.kind {
            CredentialKind::Client => {
                (plan.client_members, plan.next_at[0]) = (confirmed, next_at);
            }
            CredentialKind::Replication => {
                (plan.replication_members, plan.next_at[1]) = (confirmed, next_at);
            }
        }
        let (trigger, cause) = self.trigger();
        let facts = Facts {
            now: self.observed.now,
            trigger,
            reports: &reports,
            overlap: self.set.auth.overlap,
            grace: Duration::ZERO,
        };
        let soonest = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let due = if self.state.phase == Phase::Settled {
            self.due_in()
        } else {
            None
        };
        plan.wake_after = soonest(plan.wake_after, wake_after(&self.state, &facts).or(due));
        match next(&self.state, &facts) {
            Next::Rest => self.settle(plan),
            Next::Wait { why } => {
                let what = match self.kind {
                    CredentialKind::Client => "clients",
                    CredentialKind::Replication => "replication",
                };
                match self.kind {
                    CredentialKind::Client => plan.messages[0] = Some(why.clone()),
                    CredentialKind::Replication => plan.messages[1] = Some(why.clone()),
                }
                plan.waiting.push(format!("password of {what}: {why}"));
                self.repair(plan);
            }
            Next::Advance { effect, to } => self.advance(plan, effect, &to, cause),
        }
    }

    /// Records the first revision, so that the status always tells it.
    fn settle(&self, plan: &mut SecretsPlan) {
        if self.status.revision == 0 {
            let state = RotationState {
                revision: self.ring.revision,
                completed_at: Some(Time(self.observed.now)),
                ..self.status.clone()
            };
            plan.push.push(self.recorded(state, "the first revision"));
        }
    }

    /// A rotation whose beginning was stored but not recorded.
    fn repair(&self, plan: &mut SecretsPlan) {
        let recorded = self.status.phase != RotationPhase::Settled;
        if !recorded && self.state.phase != Phase::Settled {
            let state = self.status_of(&self.state, self.trigger().1);
            plan.push
                .push(self.recorded(state, "a rotation was begun but not recorded"));
        }
    }

    fn advance(
        &self,
        plan: &mut SecretsPlan,
        effect: Effect,
        to: &State,
        cause: Option<RotationCause>,
    ) {
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
                let present = Box::new(self.present.clone());
                let step = Step::AddPassword {
                    present,
                    kind: self.kind,
                    password,
                };
                plan.push.push(Planned {
                    step,
                    why: format!("rotation {} begins", to.revision),
                });
            }
            Effect::Publish => {
                let published = match self.source {
                    CredentialSource::Generated => Some(self.secret(&self.ring.newest)),
                    CredentialSource::Referenced { .. } => None,
                };
                if let Some(secret) = published {
                    let ours = secret.metadata.name.clone();
                    plan.published.retain(|s| s.metadata.name != ours);
                    plan.published.push(secret);
                }
            }
            Effect::DropOld => {
                let mut kept = self.present.clone();
                match self.kind {
                    CredentialKind::Client => kept.client = kept.client.newest_only(),
                    CredentialKind::Replication => {
                        kept.replication = kept.replication.newest_only();
                    }
                }
                let step = Step::StoreCredentials(Box::new(kept));
                plan.push.push(Planned {
                    step,
                    why: format!("{} is retired", to.revision - 1),
                });
            }
        }
        let state = self.status_of(to, cause);
        plan.push
            .push(self.recorded(state, "the rotation advances"));
        plan.waiting
            .push(format!("rotation {} is going on", to.revision));
    }

    fn recorded(&self, state: RotationState, why: &str) -> Planned {
        let state = Box::new(state);
        Planned {
            step: Step::RecordRotation {
                kind: self.kind,
                state,
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
            Phase::Adding | Phase::Switching => self.ring.oldest(),
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

    /// What members have confirmed of the present phase.
    fn reports(&self, members: &[MemberFacts], push_revision: u64) -> Vec<Report> {
        let label = wanted(&self.state).label;
        let revision = u64::try_from(self.ring.revision).unwrap_or_default();
        let confirmed = |member: &MemberFacts| {
            let state = member.state.as_ref()?;
            let told = state.secret_revision >= push_revision;
            let must_present = self.kind == CredentialKind::Replication
                && self.state.phase == Phase::Switching
                && member.duty == Duty::Replica;
            let presents = !must_present
                || (is_attached(state) && state.link_secret_revision == Some(revision));
            if told && presents {
                Some(label.clone())
            } else {
                Some(format!("before {label}"))
            }
        };
        members
            .iter()
            .map(|m| Report {
                member: m.name.clone(),
                applied: confirmed(m),
                old_used: None,
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
                let request = self.set.auth.request.as_ref().map(|r| r.token.clone());
                kept.request = request.or(kept.request);
            }
            Phase::Settled => kept.completed_at = Some(since),
            Phase::Switching | Phase::Overlapping | Phase::Retiring => {}
        }
        kept
    }
}

/// The state that a status records. A password that was stored before its rotation was recorded
/// counts as begun: an operator was killed in between.
fn state_of(status: &RotationState, ring: &Ring, now: Timestamp) -> State {
    let unsigned = |n: i64| u64::try_from(n).unwrap_or_default();
    let since = status.since.as_ref().map_or(now, |t| t.0);
    let phase = match status.phase {
        RotationPhase::Settled if status.revision > 0 && ring.revision > status.revision => {
            return State {
                phase: Phase::Adding,
                revision: unsigned(ring.revision),
                since: now,
            };
        }
        RotationPhase::Settled => Phase::Settled,
        RotationPhase::Adding => Phase::Adding,
        RotationPhase::Switching => Phase::Switching,
        RotationPhase::Overlapping => Phase::Overlapping,
        RotationPhase::Retiring => Phase::Retiring,
    };
    let revision = if status.revision == 0 {
        ring.revision
    } else {
        status.revision
    };
    State {
        phase,
        revision: unsigned(revision),
        since,
    }
}

/// A number that grows with every phase, so that what members are told always has a higher
/// revision than what they were told before.
fn ordinal(state: &State) -> u64 {
    let within = match state.phase {
        Phase::Adding => 0,
        Phase::Switching | Phase::Overlapping => 1,
        Phase::Retiring | Phase::Settled => 2,
    };
    state.revision.saturating_mul(3) + within
}

/// Members that have not been told the present credentials.
fn push(
    present: &ServerCredentials,
    rotations: &[Rotation<'_>],
    members: &[MemberFacts],
    revision: u64,
) -> Vec<Planned> {
    let ring = |kind: CredentialKind| rotations.iter().find(|r| r.kind == kind);
    let (Some(client), Some(replication)) = (
        ring(CredentialKind::Client),
        ring(CredentialKind::Replication),
    ) else {
        return Vec::new();
    };
    let presented = match wanted(&replication.state).present {
        Present::Newest => (&present.replication.newest, present.replication.revision),
        Present::Previous => (
            present.replication.oldest(),
            present.replication.revision - i64::from(present.replication.previous.is_some()),
        ),
    };
    let request = proto::SetCredentialsRequest {
        revision,
        users: vec![
            user("default", client),
            user(names::REPLICATION_USER, replication),
        ],
        replication: Some(proto::ReplicationCredential {
            user: names::REPLICATION_USER.to_owned(),
            password: presented.0.expose().to_owned(),
            since_revision: u64::try_from(presented.1).unwrap_or_default(),
        }),
    };
    let untold = |m: &&MemberFacts| {
        m.state
            .as_ref()
            .is_some_and(|s| s.secret_revision < revision)
    };
    members
        .iter()
        .filter(untold)
        .map(|m| Planned {
            step: Step::PushCredentials {
                member: m.name.clone(),
                request: step::Credentials(request.clone()),
            },
            why: format!("{} does not know credentials {revision} yet", m.name),
        })
        .collect()
}

fn user(name: &str, rotation: &Rotation<'_>) -> proto::User {
    let ring = rotation.ring;
    let accepted = |password: &Password, revision: i64| proto::AcceptedPassword {
        password: password.expose().to_owned(),
        since_revision: u64::try_from(revision).unwrap_or_default(),
    };
    let mut passwords = vec![accepted(&ring.newest, ring.revision)];
    if let (Accept::Both, Some(previous)) = (wanted(&rotation.state).accept, &ring.previous) {
        passwords.push(accepted(previous, ring.revision - 1));
    }
    proto::User {
        name: name.to_owned(),
        passwords,
    }
}
