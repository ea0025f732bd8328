//! The Services that clients use.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{super::duration::DurationText, is_default, rules};

/// The Services that clients use.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicesSpec {
    /// The Service `<name>`, which leads to the master.
    #[serde(default, skip_serializing_if = "is_default")]
    pub master: MasterServiceSpec,

    /// The Service `<name>-replicas`, which leads to the replicas in sync; without any, to nobody.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replicas: ReplicasServiceSpec,
}

/// The Service of the master.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterServiceSpec {
    /// How it is reached: `ClusterIP` (default), `NodePort` or `LoadBalancer`.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub service_type: ServiceType,

    /// Annotations of the Service, for a load balancer or external DNS. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = (rules::RESERVED_KEYS_RULE, rules::RESERVED_KEYS_MESSAGE))]
    pub annotations: BTreeMap<String, String>,
}

/// The Service of the replicas.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicasServiceSpec {
    /// How it is reached: `ClusterIP` (default), `NodePort` or `LoadBalancer`.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub service_type: ServiceType,

    /// Annotations of the Service, for a load balancer or external DNS. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = (rules::RESERVED_KEYS_RULE, rules::RESERVED_KEYS_MESSAGE))]
    pub annotations: BTreeMap<String, String>,

    /// A replica whose link to its master has been down for longer than this, or that has waited for longer for data it
    /// lacks, is taken out of the Service; 1 s to 1 h, default `10s`. One that restarts or loses its data is out at once,
    /// until it has caught up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (rules::MAX_LAG_RULE, rules::MAX_LAG_MESSAGE))]
    pub max_lag: Option<DurationText>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Inside the cluster only.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// Also on a port of every node.
    NodePort,
    /// Also through a load balancer of the cloud.
    LoadBalancer,
}

impl ServiceType {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}
