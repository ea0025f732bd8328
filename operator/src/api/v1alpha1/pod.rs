//! What users may add to the pods of the members.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, Toleration};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Additions to the pods of the members. A change replaces the members one by one, the master last.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplateSpec {
    /// Labels added to every pod. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = (rules::RESERVED_LABELS_RULE, rules::RESERVED_LABELS_MESSAGE))]
    pub labels: BTreeMap<String, String>,

    /// Annotations added to every pod. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = (rules::RESERVED_KEYS_RULE, rules::RESERVED_KEYS_MESSAGE))]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate. Default: none but Kubernetes' own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// Affinity rules beyond `placement`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// PriorityClass of the pods. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// ServiceAccount of the pods; no token of it is mounted. Default: one that the operator creates, `<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// Seconds that a pod has to hand over and save before it is killed; 5 to 3600, default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (rules::GRACE_RULE, rules::GRACE_MESSAGE))]
    pub termination_grace_period_seconds: Option<i64>,

    /// Secrets for pulling the image. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}
