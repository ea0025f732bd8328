//! Where members keep their data.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rules;

/// Where members keep their data: `size` or `ephemeral`, never both.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of each member's volume, at least `64Mi`, for example `8Gi`. Leave room for three copies of the dataset
    /// (the snapshot, the one being written, one being received). It cannot be changed in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = (rules::STORAGE_SIZE_RULE, rules::STORAGE_SIZE_MESSAGE))]
    pub size: Option<String>,

    /// StorageClass of the volumes. Default: the cluster's default class. It cannot be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// What happens to the volumes of members that are removed, by deleting the set or by scaling down: `Retain`
    /// (default) or `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "retention_schema")]
    pub retention: Option<Retention>,

    /// Keep data on the node's disk for the life of the pod: for caches. A member whose pod is replaced starts
    /// empty and copies the data from the master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralStorage>,
}

/// Data that live as long as their pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralStorage {
    /// Most that a member may write, for example `4Gi`; a pod that exceeds it is evicted. Default: no limit. A
    /// change replaces the members one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = (rules::STORAGE_SIZE_RULE, rules::STORAGE_SIZE_MESSAGE))]
    pub size_limit: Option<String>,
}

/// What happens to the volumes of members that are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// They stay until somebody deletes them; a member of the same name finds its data again.
    #[default]
    Retain,
    /// They are deleted with the set or the member.
    Delete,
}

/// Written out, because the derived schema of an optional enumeration loses the description of its field.
fn retention_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Retain", "Delete"]})
}
