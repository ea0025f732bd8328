//! The Secret of the servers made anew, so that nobody is refused.
//!
//! Made from what is left of it, the best first: what this operator saw last, a copy of an earlier
//! time that somebody restored, and the passwords that are published, which is what clients log in
//! with now. What is none of these is generated. A ring that is not known whole goes on above every
//! revision that the status or a member tells of, so that every member is told and confirms before
//! anything new is published; the status then records it as a rotation of the cause SecretLost.
//!
//! Not done here: the control token of running members. A lost one that nobody remembers is replaced,
//! and they take the new one over when Kubernetes has brought it into their files.

use super::{
    super::{
        super::{
            draft::{CredentialsDraft, NewPassword, RingDraft},
            observe::{Observed, Remains},
            step::{CredentialKind, Planned, Step},
        },
        members::MemberFacts,
    },
    READ_AGAIN_AFTER, SecretsPlan, ordinal, problem_of,
};
use crate::{
    api::{
        names,
        v1alpha1::{RotationPhase, RotationState, RotationStatus},
    },
    resources::secrets::{Ring, ServerCredentials},
    rotation::credential::Phase,
    set::{CredentialSource, SecretProblem, ValidatedSet},
};

/// Whether the status tells of newer passwords than these.
#[must_use]
pub fn is_outdated(credentials: &ServerCredentials, status: &RotationStatus) -> bool {
    let mut kinds = CredentialKind::ALL.into_iter();
    kinds.any(|kind| kind.ring(credentials).revision < kind.recorded(status).revision)
}

/// The plan that stores credentials where there are none that could be used.
pub(super) fn plan(
    set: &ValidatedSet,
    observed: &Observed,
    members: &[MemberFacts],
    remains: &Remains,
) -> SecretsPlan {
    let name = names::server_secret(&set.name);
    let status = observed.set.status.clone().unwrap_or_default().rotation;
    let why = if remains.outdated.is_some() {
        format!("Secret {name} is older than what the status records")
    } else if status == RotationStatus::default() {
        "the set has no credentials yet".to_owned()
    } else {
        format!("Secret {name} is gone")
    };
    match draft(set, &status, members, remains) {
        Ok(wanted) => SecretsPlan {
            store: vec![Planned {
                step: Step::StoreCredentials {
                    present: remains.outdated.clone(),
                    wanted: Box::new(wanted),
                },
                why: why.clone(),
            }],
            waiting: vec![why],
            ..SecretsPlan::default()
        },
        Err(unusable) => without(&unusable),
    }
}

/// A Secret of the user's that gives no password, and whose it is.
struct Unusable<'a> {
    kind: CredentialKind,
    secret: &'a str,
    problem: &'a SecretProblem,
}

/// The plan while nothing can be stored.
fn without(unusable: &Unusable<'_>) -> SecretsPlan {
    let why = problem_of(unusable.kind, unusable.secret, unusable.problem);
    match unusable.problem {
        SecretProblem::Missing | SecretProblem::Invalid(_) => SecretsPlan {
            problem: Some(why),
            ..SecretsPlan::default()
        },
        // Nobody has to correct anything, and no watch tells when it can be read again.
        SecretProblem::Unknown => SecretsPlan {
            waiting: vec![why],
            wake_after: Some(READ_AGAIN_AFTER),
            ..SecretsPlan::default()
        },
    }
}

fn draft<'a>(
    set: &'a ValidatedSet,
    status: &RotationStatus,
    members: &[MemberFacts],
    remains: &Remains,
) -> Result<CredentialsDraft, Unusable<'a>> {
    let known = [&remains.remembered, &remains.outdated];
    let known: Vec<&ServerCredentials> = known.into_iter().flatten().map(|c| &**c).collect();
    let told = members.iter().filter_map(|m| m.state.as_ref());
    let told = told.map(|s| s.secret_revision).max().unwrap_or_default();
    let above = revisions_above(status, told);
    let ring = |kind: CredentialKind, revision: i64| -> Result<RingDraft, Unusable<'a>> {
        match whole(kind.recorded(status), known.iter().map(|c| kind.ring(c))) {
            Some(ring) => Ok(ring),
            None => Ok(RingDraft::only(revision, in_use(set, remains, kind)?)),
        }
    };
    Ok(CredentialsDraft {
        client: ring(CredentialKind::Client, above[0])?,
        replication: ring(CredentialKind::Replication, above[1])?,
        control_token: match known.first() {
            Some(known) => NewPassword::Given(known.control_token.clone()),
            None => NewPassword::Generated,
        },
    })
}

/// The first of these rings that is as new as the status, without a password that was retired since.
fn whole<'a>(
    recorded: &RotationState,
    mut known: impl Iterator<Item = &'a Ring>,
) -> Option<RingDraft> {
    let ring = known.find(|ring| ring.revision >= recorded.revision)?;
    let mut draft = RingDraft::of(ring);
    let retired = match recorded.phase {
        RotationPhase::Settled | RotationPhase::Retiring => ring.revision == recorded.revision,
        RotationPhase::Adding | RotationPhase::Switching | RotationPhase::Overlapping => false,
    };
    draft.previous.take_if(|_| retired);
    Some(draft)
}

/// The password that is logged in with now, as far as that is known.
fn in_use<'a>(
    set: &'a ValidatedSet,
    remains: &Remains,
    kind: CredentialKind,
) -> Result<NewPassword, Unusable<'a>> {
    let published = match kind {
        CredentialKind::Client => &remains.client,
        CredentialKind::Replication => &remains.replication,
    };
    match kind.source(&set.auth) {
        CredentialSource::Generated => Ok(published
            .clone()
            .map_or(NewPassword::Generated, NewPassword::Given)),
        CredentialSource::Referenced {
            password: Ok(password),
            ..
        } => Ok(NewPassword::Given(password.clone())),
        CredentialSource::Referenced {
            secret,
            password: Err(problem),
        } => Err(Unusable {
            kind,
            secret,
            problem,
        }),
    }
}

/// Revisions of clients and of replication above those that the status records, such that what members
/// will be told has a higher number than what any of them was told, `told`.
fn revisions_above(status: &RotationStatus, told: u64) -> [i64; 2] {
    let [client, replication] =
        CredentialKind::ALL.map(|kind| kind.recorded(status).revision.max(0).saturating_add(1));
    let number =
        |revision: i64| ordinal(u64::try_from(revision).unwrap_or_default(), Phase::Adding);
    let sum = number(client).saturating_add(number(replication));
    let missing = told.saturating_add(1).saturating_sub(sum);
    let more = i64::try_from(missing.div_ceil(number(1))).unwrap_or_default();
    [client.saturating_add(more), replication]
}
