//! What the operator reports, and the one place where its shared decisions are kept.
//!
//! `electionTerm`, `elector`, `term`, `master`, `bootstrapped`, `voters` and `relocation` are decisions, and so are
//! the phases of `rotation`: they change only by compare-and-swap. All the rest is a report that can be made anew.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{super::duration::DurationText, is_default};

/// Failovers remembered in the status.
pub const MAX_FAILOVER_RECORDS: usize = 10;

/// Longest message of the status, in characters: of a member or a rotation the API server takes no longer one. Conditions,
/// which may be longer, keep to it for those who read them.
pub const MAX_MESSAGE_CHARS: usize = 1024;

/// Nodes remembered by `relocation`; when there are as many, no member is moved any more.
pub const MAX_RELOCATION_NODES: usize = 100;

/// What a set is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisReplicaSetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Whether the set has ever had a master. Once true, an empty member is never made master.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bootstrapped: bool,

    /// Number of the current mastership; 0 before the first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub term: i64,

    /// Highest term ever handed out to an elector; above `term` while an election runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub election_term: i64,

    /// Identity of the elector to whom `electionTerm` was handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elector: Option<String>,

    /// Name of the member that takes writes in `term`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,

    /// When the current master was promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_since: Option<Time>,

    /// Members that exist; for the scale subresource.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replicas: i32,

    /// Names of the members whose word counts when a master is chosen; one at a time comes or goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub voters: Vec<String>,

    /// Version of `voters`; grows by one with every change of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub voters_generation: i64,

    /// Members in sync, the master among them, of members wanted, such as `3/3`; for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_members: Option<String>,

    /// Label selector of the pods, for the scale subresource and autoscalers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Generation of the spec whose `config` the members should have been told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_revision: Option<String>,

    /// The members, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<MemberStatus>,

    /// The last replacement of a pod for a better spread, until the members are spread as asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relocation: Option<RelocationStatus>,

    /// Rotation of the credentials.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rotation: RotationStatus,

    /// The last changes of the master, newest first; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failovers: Vec<FailoverRecord>,

    /// Ready, Available, Progressing, QuorumHealthy, PlacementSatisfied, SecretsCurrent and Paused; Stalled
    /// while the operator cannot go on without the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One member. Figures that move all the time (`offset`, `lag`) are as of the last change of anything else here.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Name of the member and its pod.
    pub name: String,

    /// What the member is doing.
    #[serde(default)]
    pub role: MemberRole,

    /// Whether its pod is ready.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ready: bool,

    /// Node that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// Zone of that node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,

    /// Term of the last write it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,

    /// Replication offset it holds, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,

    /// How far it is behind its master: nothing while it holds all that it knows of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<DurationText>,

    /// Whether it counts when a master is chosen: a member that lost its data does not until it has caught up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub vote: bool,

    /// Generation of the spec whose `config` it has been told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_revision: Option<String>,

    /// Number of the newest instruction about passwords that it follows; grows with every step of a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_revision: Option<i64>,

    /// Image its server runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Why it is not what it should be: the scheduler's reason of a Pending pod, Kubernetes' reason of one that is not made or not
    /// started, or the server's last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_MESSAGE_CHARS))]
    pub message: Option<String>,
}

/// What a member is doing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum MemberRole {
    /// Takes writes.
    Master,
    /// Follows the master and can replace it.
    Replica,
    /// Follows the master, but does not count yet: it is new or lost its data.
    Learner,
    /// Runs, and waits for its role.
    Waiting,
    /// Has no running server.
    Absent,
    /// Could not be asked.
    #[default]
    Unknown,
}

/// A replacement of a pod for a better spread.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelocationStatus {
    /// UID of the pod that is replaced.
    pub pod_uid: String,

    /// Nodes that had room for it, in this and in earlier replacements; at most 100. No pod is replaced for their sake
    /// again: if the members still share a domain, the scheduler had reasons not to take them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub nodes: Vec<String>,
}

/// One change of the master.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverRecord {
    /// When the new master was promoted.
    pub at: Time,

    /// Term of the new master.
    pub term: i64,

    /// The master before; absent for the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,

    /// The new master.
    pub to: String,

    /// Why.
    pub reason: FailoverReason,

    /// From the last sign of life of the old master until its loss was certain; absent for planned changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detected: Option<DurationText>,

    /// From the last sign of life of the old master (planned: from the stop of writes) until the new one served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<DurationText>,

    /// Bytes of the stream that the old master had and the new one has not; absent while nobody can know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_bytes: Option<i64>,

    /// Why writes that a majority held may be lost; absent when the choice of the new master lost none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub possible_loss: Option<PossibleLoss>,
}

/// Why writes that a majority held may be lost by the choice of this master: `NoMajority`, too few members had a vote, for
/// example because others lost their volumes, and the one with the most data was taken; `EndedUnsaved`, members ended without
/// saving and came back with what they had saved last, and too few others answered to be sure; `BeganEmpty`, no voter had data
/// left, and the set is a cache (`storage.ephemeral`) or a person accepted that. Absent when none of them is lost.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum PossibleLoss {
    /// Every voter answered, too few had a vote, and the one with the most data was taken.
    NoMajority,
    /// Members whose processes ended without saving took part, and too few others.
    EndedUnsaved,
    /// Every voter was empty, and the set is one that may begin anew.
    BeganEmpty,
}

/// Why the master changed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum FailoverReason {
    /// The first master of the set.
    Bootstrap,
    /// The server's process ended.
    ProcessLost,
    /// The pod was deleted or evicted.
    PodDeleted,
    /// The node went away.
    NodeLost,
    /// The server was silent for too long.
    Unresponsive,
    /// The old master had to be replaced for a new image, configuration or template.
    Rollout,
    /// The old master was beyond the wanted number of members.
    ScaleDown,
    /// The old master's place violated the placement.
    Placement,
    /// The same master in a new term: a member had promised a later term in which nobody became master, and kept to that.
    StrandedMember,
    /// It serves, but the operator that promoted it ended before it could say why.
    Unrecorded,
}

impl FailoverReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Bootstrap,
        Self::ProcessLost,
        Self::PodDeleted,
        Self::NodeLost,
        Self::Unresponsive,
        Self::Rollout,
        Self::ScaleDown,
        Self::Placement,
        Self::StrandedMember,
        Self::Unrecorded,
    ];
}

/// Rotation of the credentials.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// The clients' password.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client: RotationState,

    /// The replication password.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replication: RotationState,
}

/// Where the rotation of one credential stands.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationState {
    /// Number of the newest password, counted from 1: the only one when `phase` is Settled, else the one being
    /// introduced.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revision: i64,

    /// What is being done.
    #[serde(default)]
    pub phase: RotationPhase,

    /// When the phase began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// Why the running or last rotation began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<RotationCause>,

    /// When the running or last rotation began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the last rotation ended, or the first password was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,

    /// When the next rotation is due; absent without `rotateEvery`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,

    /// The value of the annotation `redfleet.dev/rotate` that was last acted upon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,

    /// What each member has confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<MemberRotation>,

    /// What the rotation waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_MESSAGE_CHARS))]
    pub message: Option<String>,
}

/// Phases of a rotation, in order. Each is safe to repeat, so that a killed operator resumes at the recorded one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum RotationPhase {
    /// No rotation runs.
    #[default]
    Settled,
    /// Every member is told to accept the new password beside the old.
    Adding,
    /// Replicas begin to log in to their master with the new password.
    Switching,
    /// The new password is published, and both are accepted until the overlap has passed.
    Overlapping,
    /// Every member is told to refuse the old password.
    Retiring,
}

/// Why a rotation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationCause {
    /// `rotateEvery` has passed.
    Timer,
    /// The referenced Secret, or the reference to it, changed.
    SecretChanged,
    /// The annotation asked for it.
    Requested,
    /// The Secret `<name>-server` was lost or replaced by an older copy, and made anew.
    SecretLost,
}

/// What one member has confirmed of a rotation.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRotation {
    /// Name of the member.
    pub name: String,

    /// The last instruction that it confirmed: the revision, and whether it was to accept it in addition (`4-add`),
    /// to use it while the old one is still accepted (`4-both`) or to accept nothing else (`4-only`). Absent until
    /// it confirmed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_reasons_are_those_of_the_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(FailoverReason)).unwrap();
        let words = schema["oneOf"].as_array().unwrap().iter();
        let words: BTreeSet<&str> = words.map(|w| w["const"].as_str().unwrap()).collect();
        let all: Vec<String> = FailoverReason::ALL.map(|r| format!("{r:?}")).into();
        assert_eq!(
            all.iter().map(String::as_str).collect::<BTreeSet<_>>(),
            words
        );
    }
}
