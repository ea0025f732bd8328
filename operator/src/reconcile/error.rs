//! Why a reconcile failed, and when it is tried again.

use std::time::Duration;

use thiserror::Error;

use crate::{
    guard::{handover::NotSwitched, term::TermError},
    members::remote::CallError,
};

/// First pause after a failure.
pub const MIN_RETRY: Duration = Duration::from_millis(500);
/// Longest pause after failures.
pub const MAX_RETRY: Duration = Duration::from_secs(60);

/// What the message of a Forbidden says where the object is refused and not the operator: by a webhook, by a
/// ValidatingAdmissionPolicy, by a ResourceQuota.
const REFUSALS: [&str; 3] = ["denied the request", "denied request", "exceeded quota"];

/// What is done to a child object that is not as wanted.
pub const APPLYING: &str = "applying";

/// Why a reconcile failed: one variant for each kind of step that can.
#[derive(Debug, Error)]
pub enum Error {
    /// A write to the API server failed.
    #[error("{doing} {kind} {name}: {source}")]
    Api {
        /// What was done.
        doing: &'static str,
        /// To what kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("{doing} {kind} {name}: no answer of the API server")]
    Timeout {
        /// What was done.
        doing: &'static str,
        /// To what kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object with the name of a child belongs to somebody else.
    #[error("{kind} {name} belongs to somebody else: rename this set, or remove that object")]
    NameTaken {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object with the name of a child is about to go.
    #[error("waiting for {kind} {name} to go, which is being deleted or left of a deleted set")]
    NameNotFree {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A member did not do what it was told.
    #[error("{member}: {source}")]
    Member {
        /// The member.
        member: String,
        /// Why.
        source: CallError,
    },
    /// A member that is to be told something has no connection.
    #[error("{member} has no control connection")]
    Disconnected {
        /// The member.
        member: String,
    },
    /// A decision could not be recorded.
    #[error("recording a decision: {0}")]
    Decision(#[from] TermError),
    /// The mastership was not handed over.
    #[error("the master does not change: {0}")]
    SwitchOver(#[from] NotSwitched),
    /// This operator is the acting one no more.
    #[error("another operator is acting now")]
    NotActing,
}

impl Error {
    /// Whether the API server refuses an object as it is, so that trying again helps nobody.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Api { doing, source, .. } => {
                *doing == APPLYING
                    && matches!(&**source, kube::Error::Api(status) if refuses(status.code, &status.message))
            }
            Self::Timeout { .. }
            | Self::NameTaken { .. }
            | Self::NameNotFree { .. }
            | Self::Member { .. }
            | Self::Disconnected { .. }
            | Self::Decision(_)
            | Self::SwitchOver(_)
            | Self::NotActing => false,
        }
    }

    /// The label of the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Timeout { .. } => "timeout",
            Self::NameTaken { .. } => "name_taken",
            Self::NameNotFree { .. } => "name_not_free",
            Self::Member { .. } => "member",
            Self::Disconnected { .. } => "disconnected",
            Self::Decision(_) => "decision",
            Self::SwitchOver(_) => "switch_over",
            Self::NotActing => "not_acting",
        }
    }
}

/// Whether an answer is about the object. A right that is missing, also a Forbidden, may be given without touching the set.
fn refuses(code: u16, message: &str) -> bool {
    match code {
        400 | 422 => true,
        403 => REFUSALS.iter().any(|words| message.contains(words)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_a_refusal_and_a_missing_right_is_not() {
        let cases = [
            (
                422,
                "StatefulSet.apps \"orders\" is invalid: spec: Invalid value",
                true,
            ),
            (
                400,
                "admission webhook \"a.example\" denied the request: no",
                true,
            ),
            (
                403,
                "admission webhook \"a.example\" denied the request: no",
                true,
            ),
            (
                403,
                "statefulsets.apps \"orders\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                true,
            ),
            (
                403,
                "services \"orders\" is forbidden: exceeded quota: few, requested: services=1, used: services=5, limited: services=5",
                true,
            ),
            (
                403,
                "statefulsets.apps \"orders\" is forbidden: User \"system:serviceaccount:redfleet-system:redfleet-operator\" cannot \
                 patch resource \"statefulsets\" in API group \"apps\" in the namespace \"shop\"",
                false,
            ),
            (409, "the object has been modified", false),
            (
                500,
                "failed calling webhook \"a.example\": connection refused",
                false,
            ),
        ];
        for (code, message, expected) in cases {
            let of = |doing| {
                let status = kube::core::Status::failure(message, "Test").with_code(code);
                Error::Api {
                    doing,
                    kind: "StatefulSet",
                    name: "orders".to_owned(),
                    source: Box::new(kube::Error::Api(Box::new(status))),
                }
            };
            assert_eq!(of(APPLYING).is_refusal(), expected, "{code} {message}");
            assert!(!of("deleting").is_refusal());
        }
    }
}
