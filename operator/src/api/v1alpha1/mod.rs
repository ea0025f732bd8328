//! The first version of `RedisReplicaSet`: one replicated Redis, as its user describes it.
//!
//! Each file holds one part of the spec; `status.rs` and `conditions.rs` hold what the operator reports.
//! Rules that the API server can check are CEL rules here; their messages say how to cure the mistake,
//! and `reconcile::validate` repeats them for clusters whose stored objects predate a rule.
//! A field exists only when it works.

mod auth;
mod conditions;
mod placement;
mod pod;
pub mod rules;
mod services;
mod status;
mod storage;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::duration::DurationText;
pub use auth::AuthSpec;
pub use conditions::{ConditionType, Reason};
pub use placement::{PlacementSpec, SpreadRule};
pub use pod::PodTemplateSpec;
pub use services::{MasterServiceSpec, ReplicasServiceSpec, ServiceType, ServicesSpec};
pub use status::{
    FailoverReason, FailoverRecord, MAX_FAILOVER_RECORDS, MAX_MESSAGE_CHARS, MAX_RELOCATION_NODES,
    MemberRole, MemberRotation, MemberStatus, PossibleLoss, RedisReplicaSetStatus,
    RelocationStatus, RotationCause, RotationPhase, RotationState, RotationStatus,
};
pub use storage::{EphemeralStorage, Retention, StorageSpec};

/// What a set should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redfleet.dev",
    version = "v1alpha1",
    kind = "RedisReplicaSet",
    plural = "redisreplicasets",
    shortname = "rrs",
    namespaced,
    status = "RedisReplicaSetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A replicated Redis: one master and its replicas, kept running, spread over failure domains and supplied with rotating credentials by the Redfleet operator.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the set is what its spec asks for and serves"
    ),
    printcolumn(name = "Master", type_ = "string", json_path = ".status.master", description = "The member that takes writes"),
    printcolumn(name = "Members", type_ = "string", json_path = ".status.readyMembers", description = "Members in sync / members wanted"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why the set is ready or not",
        priority = 1
    ),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term", description = "Number of the current mastership", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(rules::NAME_RULE).message(rules::NAME_MESSAGE)
)]
#[serde(rename_all = "camelCase")]
pub struct RedisReplicaSetSpec {
    /// Number of members, the master included; 1 to 9, default 3. With three or more, a master that a
    /// majority does not acknowledge stops serving by itself; with one or two there is no such majority and
    /// therefore no such protection. `kubectl scale` and autoscalers write this field.
    #[serde(default = "default_replicas")]
    #[x_kube(validation = (rules::REPLICAS_MIN_RULE, rules::REPLICAS_MIN_MESSAGE), validation = (rules::REPLICAS_MAX_RULE, rules::REPLICAS_MAX_MESSAGE))]
    pub replicas: i32,

    /// Image of the server, for example `redfleet.dev/server:0.1.0`. Default: the image of the operator's
    /// own version, so that an upgrade of the operator also rolls the servers. A change replaces the
    /// replicas one by one, then switches the master over, then replaces the old master.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When nodes pull the image: `Always`, `IfNotPresent` or `Never`. Default: Kubernetes' own, `Always` for
    /// the tag `latest` and `IfNotPresent` for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "image_pull_policy_schema")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// CPU and memory of each member, as for any container. Default: none, which suits trials only. The server
    /// runs one I/O thread per CPU of the limit; leave room for `maxmemory` plus a fifth.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "resources_schema")]
    pub resources: ResourceRequirements,

    /// Where members keep their data: a volume each (`size`) or the node's disk for the life of the pod
    /// (`ephemeral`). Required, because it decides what survives. The choice cannot be changed later.
    #[x_kube(
        validation = (rules::STORAGE_CHOICE_RULE, rules::STORAGE_CHOICE_MESSAGE),
        validation = (rules::STORAGE_VOLUME_ONLY_RULE, rules::STORAGE_VOLUME_ONLY_MESSAGE),
        validation = (rules::STORAGE_SWITCH_RULE, rules::STORAGE_SWITCH_MESSAGE),
        validation = (rules::STORAGE_SIZE_CHANGE_RULE, rules::STORAGE_SIZE_CHANGE_MESSAGE),
        validation = (rules::STORAGE_CLASS_CHANGE_RULE, rules::STORAGE_CLASS_CHANGE_MESSAGE)
    )]
    pub storage: StorageSpec,

    /// Directives of `redis.conf` by name, values as the text after the name, always quoted in YAML:
    /// `repl-backlog-size: 64mb`, `save: "3600 1 300 100"`, `appendonly: "no"`. Default: none, the server's
    /// defaults. A change is applied to the running servers where they allow it; otherwise the members are
    /// replaced one by one. Directives that the operator sets itself are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "config_schema")]
    #[x_kube(
        validation = (rules::CONFIG_LINE_RULE, rules::CONFIG_LINE_MESSAGE),
        validation = (rules::CONFIG_ADDRESS_RULE, rules::CONFIG_ADDRESS_MESSAGE),
        validation = (rules::CONFIG_FILES_RULE, rules::CONFIG_FILES_MESSAGE),
        validation = (rules::CONFIG_ROLE_RULE, rules::CONFIG_ROLE_MESSAGE),
        validation = (rules::CONFIG_CREDENTIAL_RULE, rules::CONFIG_CREDENTIAL_MESSAGE),
        validation = (rules::CONFIG_PROCESS_RULE, rules::CONFIG_PROCESS_MESSAGE)
    )]
    pub config: BTreeMap<String, String>,

    /// Passwords of clients and of replication, and when they rotate. Default: both generated, rotated only
    /// on request.
    #[serde(default, skip_serializing_if = "is_default")]
    #[x_kube(validation = (rules::ROTATE_EVERY_RULE, rules::ROTATE_EVERY_MESSAGE), validation = (rules::SECRETS_DIFFER_RULE, rules::SECRETS_DIFFER_MESSAGE))]
    pub auth: AuthSpec,

    /// Over which failure domains members are spread. Default: zones, then nodes, both as a preference.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: PlacementSpec,

    /// The Services that clients use: `<name>` leads to the master, `<name>-replicas` to replicas in sync.
    #[serde(default, skip_serializing_if = "is_default")]
    pub services: ServicesSpec,

    /// Additions to the pods of the members: labels, tolerations, priority and the like.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod_template: PodTemplateSpec,

    /// When the loss of a master is acted upon.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failover: FailoverSpec,

    /// `true` stops everything the operator does for this set, failover included: nothing is created, changed or
    /// promoted until it is `false` again. The servers keep running and serving: a replica whose pod Kubernetes replaces
    /// joins again, and the Services find it. What is not done yet by then is named by the condition Ready (reason
    /// PausedByUser). Default: `false`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused: bool,
}

/// When nodes pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Ask the registry at every start.
    Always,
    /// Only if the node does not have it.
    IfNotPresent,
    /// Never; the image must be on the node.
    Never,
}

impl ImagePullPolicy {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// When the loss of a master is acted upon.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverSpec {
    /// How long a master must be silent before its replicas and the operator take it for lost; 800 ms to 1 min,
    /// default `800ms`. More mistakes a stall for a loss less often and finds a loss later. A process that has
    /// visibly ended is replaced at once, without this wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (rules::DETECT_AFTER_RULE, rules::DETECT_AFTER_MESSAGE))]
    pub detect_after: Option<DurationText>,
}

fn default_replicas() -> i32 {
    DEFAULT_REPLICAS
}

/// Members of a set whose spec does not say.
pub const DEFAULT_REPLICAS: i32 = 3;

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Written out, because the derived schema of an optional enumeration loses the description of its field.
fn image_pull_policy_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Always", "IfNotPresent", "Never"]})
}

fn config_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": rules::MAX_CONFIG_DIRECTIVES,
        "additionalProperties": {"type": "string", "maxLength": rules::MAX_CONFIG_VALUE_BYTES},
    })
}

/// Limits and requests only: claims of dynamic resources are not passed on to the pod.
fn resources_schema(_: &mut SchemaGenerator) -> Schema {
    let quantities = |text: &str| {
        json_schema!({
            "description": text,
            "type": "object",
            "additionalProperties": {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "pattern": rules::QUANTITY_PATTERN,
                "x-kubernetes-int-or-string": true,
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "limits": quantities("Most a member may use, for example `{cpu: \"2\", memory: 4Gi}`. Default: no limit."),
            "requests": quantities("What the scheduler reserves for a member. Default: the limits."),
        },
    })
}
