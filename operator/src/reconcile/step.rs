//! The closed list of things that a reconcile can do.
//!
//! Made by `plan`, performed by `apply`, told by `report`. A new kind of action is a new variant
//! here, and the compiler then asks all three about it. Every step is safe to repeat.

use std::fmt;

use control::proto;
use serde_json::Value;

use super::diff::Change;
use crate::{
    api::v1alpha1::{FailoverReason, RelocationStatus, RotationState},
    failover::switchover::Order,
    resources::secrets::ServerCredentials,
    set::Password,
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

/// A new password for a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPassword {
    /// To be generated.
    Generated,
    /// From the user's Secret.
    Given(Password),
}

/// What can be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the first credentials, and the Secret that members start with.
    CreateCredentials {
        /// The clients' password.
        client: NewPassword,
        /// The replication password.
        replication: NewPassword,
    },
    /// Write the Secret that members start with.
    StoreCredentials(Box<ServerCredentials>),
    /// Put a new password beside the old one in the Secret that members start with.
    AddPassword {
        /// What is there now.
        present: Box<ServerCredentials>,
        /// Which credential.
        kind: CredentialKind,
        /// The new one.
        password: NewPassword,
    },
    /// Apply a child object.
    Apply(Box<Child>),
    /// Record where a rotation stands.
    RecordRotation {
        /// Which credential.
        kind: CredentialKind,
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
    /// A short name for logs and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateCredentials { .. } => "create credentials",
            Self::StoreCredentials(_) => "store credentials",
            Self::AddPassword { .. } => "add a password",
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
