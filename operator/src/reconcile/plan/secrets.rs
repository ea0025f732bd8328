//! Credentials: the Secrets, what members are told, and how far each rotation is.
//!
//! Invariants: the Secret of the servers is written once in a plan; members are told only what the
//! status records, so that a revision that any member may know is never given to another password;
//! what clients read is accepted by every member.
//!
//! Reading order: this file, `rotation` (one credential), `restore` (the Secret of the servers is
//! gone or older than the status).

pub mod restore;
mod rotation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use control::proto;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};

use self::rotation::Rotation;
use super::{
    super::{
        draft::CredentialsDraft,
        observe::{Credentials as Found, Observed},
        step::{self, CredentialKind, Planned, Step},
    },
    child, json,
    members::MemberFacts,
};
use crate::{
    api::{names, v1alpha1::MemberRotation},
    resources::secrets::{ServerCredentials, server_secret},
    rotation::credential::{Accept, Phase, Present, wanted},
    set::{Password, SecretProblem, ValidatedSet},
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

/// Pause before a Secret that could not be read is asked for again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl SecretsPlan {
    /// Has the set looked at again after this time, if not earlier.
    fn wake_within(&mut self, time: Option<Duration>) {
        self.wake_after = self.wake_after.into_iter().chain(time).min();
    }
}

/// What the Secret of the servers shall become, and what is recorded once it has.
struct Changes {
    draft: CredentialsDraft,
    reasons: Vec<String>,
    records: Vec<Planned>,
}

/// The plan for both credentials.
#[must_use]
pub fn plan(set: &ValidatedSet, observed: &Observed, members: &[MemberFacts]) -> SecretsPlan {
    let present = match &observed.credentials {
        Found::Absent(remains) => return restore::plan(set, observed, members, remains),
        Found::Unknown(why) => {
            return SecretsPlan {
                waiting: vec![why.clone()],
                wake_after: Some(READ_AGAIN_AFTER),
                ..SecretsPlan::default()
            };
        }
        Found::Damaged(why) => {
            return SecretsPlan {
                problem: Some(why.clone()),
                ..SecretsPlan::default()
            };
        }
        Found::Found(present) => present.as_ref(),
    };
    let rotations = CredentialKind::ALL.map(|kind| Rotation::new(set, observed, present, kind));
    let push_revision = rotations
        .iter()
        .map(|r| ordinal(r.state.revision, r.state.phase))
        .sum();
    let mut plan = SecretsPlan {
        ready: true,
        push_revision,
        push: rotations.iter().filter_map(Rotation::unrecorded).collect(),
        ..SecretsPlan::default()
    };
    plan.push
        .extend(push(present, &rotations, members, push_revision));
    let mut changes = Changes {
        draft: CredentialsDraft::of(present),
        reasons: Vec::new(),
        records: Vec::new(),
    };
    for rotation in &rotations {
        rotation.contribute(&mut plan, &mut changes, members);
    }
    store(&mut plan, set, observed, present, changes);
    plan
}

/// One write of the Secret for everything that is to change of it, then what is recorded of that.
fn store(
    plan: &mut SecretsPlan,
    set: &ValidatedSet,
    observed: &Observed,
    present: &ServerCredentials,
    changes: Changes,
) {
    let step = |why: String| Planned {
        step: Step::StoreCredentials {
            present: Some(Box::new(present.clone())),
            wanted: Box::new(changes.draft.clone()),
        },
        why,
    };
    if changes.draft != CredentialsDraft::of(present) {
        plan.push.push(step(changes.reasons.join(", ")));
    } else if child(observed, "Secret", json(&server_secret(set, present))).is_some() {
        let name = names::server_secret(&set.name);
        plan.store.push(step(format!("Secret {name} shall change")));
    }
    plan.push.extend(changes.records);
}

/// A problem with the field that names the Secret.
fn problem_of(kind: CredentialKind, secret: &str, problem: &SecretProblem) -> String {
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
fn problem_text(problem: &SecretProblem) -> String {
    match problem {
        SecretProblem::Missing => "it does not exist: create it with a key `password`".into(),
        SecretProblem::Invalid(why) => why.clone(),
        SecretProblem::Unknown => "it could not be read".into(),
    }
}

/// A number that grows with every phase, so that what members are told always has a higher
/// revision than what they were told before.
fn ordinal(revision: u64, phase: Phase) -> u64 {
    let within = match phase {
        Phase::Adding => 0,
        Phase::Switching | Phase::Overlapping => 1,
        Phase::Retiring | Phase::Settled => 2,
    };
    revision.saturating_mul(3).saturating_add(within)
}

/// Members that have not been told the present credentials.
fn push(
    present: &ServerCredentials,
    rotations: &[Rotation<'_>; 2],
    members: &[MemberFacts],
    revision: u64,
) -> Vec<Planned> {
    let [_, replication] = rotations;
    let presented = match wanted(&replication.state).present {
        Present::Newest => (&present.replication.newest, present.replication.revision),
        Present::Previous => (
            present.replication.oldest(),
            present.replication.revision - i64::from(present.replication.previous.is_some()),
        ),
    };
    let request = proto::SetCredentialsRequest {
        revision,
        users: rotations.iter().map(user).collect(),
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

fn user(rotation: &Rotation<'_>) -> proto::User {
    let ring = rotation.ring;
    let accepted = |password: &Password| proto::AcceptedPassword {
        password: password.expose().to_owned(),
    };
    let mut passwords = vec![accepted(&ring.newest)];
    if let (Accept::Both, Some(previous)) = (wanted(&rotation.state).accept, &ring.previous) {
        passwords.push(accepted(previous));
    }
    proto::User {
        name: rotation.kind.user().to_owned(),
        passwords,
    }
}
