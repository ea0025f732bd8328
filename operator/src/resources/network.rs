//! The network policy: anybody may speak Redis and read metrics, only members and the operator may use the
//! control port.
//!
//! Where no network plugin enforces policies, the control port is still guarded by its token.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::metadata;
use crate::{api::names, set::ValidatedSet};

/// Value of `app.kubernetes.io/name` on the operator's own pods.
pub const OPERATOR_APP_NAME: &str = "redfleet-operator";

/// The policy of a set's pods. It concerns incoming traffic only; clients may come from anywhere, because the
/// password decides about them, and so may Prometheus.
#[must_use]
pub fn network_policy(set: &ValidatedSet) -> NetworkPolicy {
    let members = LabelSelector {
        match_labels: Some(names::selector(&set.name)),
        ..LabelSelector::default()
    };
    let operator = LabelSelector {
        match_labels: Some(
            [(
                "app.kubernetes.io/name".to_owned(),
                OPERATOR_APP_NAME.to_owned(),
            )]
            .into(),
        ),
        ..LabelSelector::default()
    };
    let anybody = NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![
            port(names::REDIS_PORT_NAME),
            port(names::METRICS_PORT_NAME),
        ]),
    };
    let insiders = NetworkPolicyIngressRule {
        from: Some(vec![
            NetworkPolicyPeer {
                pod_selector: Some(members.clone()),
                ..NetworkPolicyPeer::default()
            },
            NetworkPolicyPeer {
                namespace_selector: Some(LabelSelector::default()),
                pod_selector: Some(operator),
                ..NetworkPolicyPeer::default()
            },
        ]),
        ports: Some(vec![port(names::CONTROL_PORT_NAME)]),
    };
    NetworkPolicy {
        metadata: metadata(set, names::network_policy(&set.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(members),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![anybody, insiders]),
            egress: None,
        }),
    }
}

fn port(name: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
