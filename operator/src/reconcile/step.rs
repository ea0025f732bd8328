//! The closed list of things that a reconcile can do.
//!
//! Made by `plan`, performed by `apply`, told by `report`. A new kind of action is a new variant
//! here, and the compiler then asks all three about it. Every step is safe to repeat.

use std::fmt;

use control::proto;
use serde_json::Value;

use super::{diff::Change, draft::CredentialsDraft};
use crate::{
    api::{
        names,
        v1alpha1::{FailoverReason, RelocationStatus, RotationState, RotationStatus},
    },
    failover::switchover::Order,
    resources::secrets::{Ring, ServerCredentials},
    set::{Auth, CredentialSource},
};

/// One thing to do, with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What.
    pub step: Step,
    /// Why, in words.
    pub why: String,
}

/// A child object to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it shall be, with the digest of that.
    pub object: Value,
    /// In what it differs.
    pub change: Change,
}

/// One of the two credentials that rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialKind {
    /// What clients log in with.
    Client,
    /// What replicas log in with.
    Replication,
}

impl CredentialKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Client, Self::Replication];

    /// Whose password it is, for people.
    #[must_use]
    pub fn whose(self) -> &'static str {
        match self {
            Self::Client => "clients",
            Self::Replication => "replication",
        }
    }

    /// The user that logs in with it.
    #[must_use]
    pub fn user(self) -> &'static str {
        match self {
            Self::Client => names::CLIENT_USER,
            Self::Replication => names::REPLICATION_USER,
        }
    }

    /// Name of the Secret that publishes it, while it is generated.
    #[must_use]
    pub fn published_secret(self, set: &str) -> String {
        match self {
            Self::Client => names::client_secret(set),
            Self::Replication => names::replication_secret(set),
        }
    }

    /// Where its password comes from.
    #[must_use]
    pub fn source(self, auth: &Auth) -> &CredentialSource {
        match self {
            Self::Client => &auth.client,
            Self::Replication => &auth.replication,
        }
    }

    /// Its passwords.
    #[must_use]
    pub fn ring(self, credentials: &ServerCredentials) -> &Ring {
        match self {
            Self::Client => &credentials.client,
            Self::Replication => &credentials.replication,
        }
    }

    /// Where its rotation stands.
    #[must_use]
    pub fn recorded(self, status: &RotationStatus) -> &RotationState {
        match self {
            Self::Client => &status.client,
            Self::Replication => &status.replication,
        }
    }

    /// Its field in [`RotationStatus`].
    #[must_use]
    pub fn status_field(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Replication => "replication",
        }
    }
}

/// What can be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the Secret that members start with, over the one that the plan was made from and over
    /// no other.
    StoreCredentials {
        /// What is there now; `None` if the Secret does not exist.
        present: Option<Box<ServerCredentials>>,
        /// What shall be there.
        wanted: Box<CredentialsDraft>,
    },
    /// Apply a child object.
    Apply(Box<Child>),
    /// Record where a rotation stands, in the place of what the plan was made from.
    RecordRotation {
        /// Which credential.
        kind: CredentialKind,
        /// Where it stood.
        seen: Box<RotationState>,
        /// Where it stands.
        state: Box<RotationState>,
    },
    /// Tell a member which passwords count.
    PushCredentials {
        /// The member.
        member: String,
        /// Everything it shall accept and present.
        request: Credentials,
    },
    /// Tell a member its configuration.
    PushConfig {
        /// The member.
        member: String,
        /// Which process of it.
        boot: u64,
        /// UID of its pod.
        pod_uid: String,
        /// The directives.
        request: proto::SetConfigRequest,
    },
    /// Record who votes.
    SetVoters {
        /// The version that this follows on.
        after: i64,
        /// The voters.
        voters: Vec<String>,
    },
    /// Hand the mastership over.
    SwitchOver {
        /// From whom to whom.
        order: Order,
        /// For the record.
        reason: FailoverReason,
    },
    /// Record for which nodes a pod is about to be deleted; `None` once that is of no interest.
    RecordRelocation(Option<RelocationStatus>),
    /// Delete a pod, so that its successor is as specified.
    DeletePod {
        /// Its name.
        member: String,
        /// The very pod that is meant.
        uid: String,
    },
    /// Label a pod with its role, for people.
    LabelPod {
        /// Its name.
        member: String,
        /// The label's value.
        role: &'static str,
    },
}

/// A credentials request whose `Debug` shows no password.
#[derive(Clone, PartialEq)]
pub struct Credentials(pub proto::SetCredentialsRequest);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(revision {})", self.0.revision)
    }
}

impl Step {
    /// Whether it is done although `failed` was not: passwords wait for nothing but Secrets. A StatefulSet that the API server
    /// refuses may be refused until somebody corrects the spec, and meanwhile clients read a password that no member knows.
    #[must_use]
    pub fn goes_on_after(&self, failed: &Self) -> bool {
        let concerns_passwords = match self {
            Self::StoreCredentials { .. }
            | Self::RecordRotation { .. }
            | Self::PushCredentials { .. } => true,
            Self::Apply(_)
            | Self::PushConfig { .. }
            | Self::SetVoters { .. }
            | Self::SwitchOver { .. }
            | Self::RecordRelocation(_)
            | Self::DeletePod { .. }
            | Self::LabelPod { .. } => false,
        };
        matches!(failed, Self::Apply(child) if child.kind != "Secret") && concerns_passwords
    }

    /// A short name for logs and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::StoreCredentials { .. } => "store credentials",
            Self::Apply(_) => "apply",
            Self::RecordRotation { .. } => "record the rotation",
            Self::PushCredentials { .. } => "push credentials",
            Self::PushConfig { .. } => "push configuration",
            Self::SetVoters { .. } => "set the voters",
            Self::SwitchOver { .. } => "switch over",
            Self::RecordRelocation(_) => "record the relocation",
            Self::DeletePod { .. } => "delete a pod",
            Self::LabelPod { .. } => "label a pod",
        }
    }
}
