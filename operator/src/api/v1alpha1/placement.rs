//! Over which failure domains members are spread.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Where members may run relative to each other.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSpec {
    /// Kinds of failure domains, most important first; counted are the domains of nodes that take the members' pods.
    /// Default: `topology.kubernetes.io/zone` if nodes carry it, then `kubernetes.io/hostname`, both as a preference.
    /// An empty list cannot be given: it means the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into()]))]
    pub spread: Vec<SpreadRule>,
}

/// One kind of failure domain.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpreadRule {
    /// Label of nodes whose value names the domain, for example `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    #[x_kube(validation = (rules::TOPOLOGY_KEY_RULE, rules::TOPOLOGY_KEY_MESSAGE))]
    pub topology_key: String,

    /// `true`: a member that would unbalance the domains stays Pending; domains that take no pods at present, for example a
    /// zone that is drained, do not count then. `false`: it runs anyway. The condition PlacementSatisfied says so in both
    /// cases. Default: `false`.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub require: bool,
}
