//! The disruption budget: a drain takes one member at a time.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::metadata;
use crate::{api::names, set::ValidatedSet};

/// One member may be drained at a time, and none while another is not ready. A set of one member can be
/// drained too: a budget of nought would only block the drain for ever.
#[must_use]
pub fn disruption_budget(set: &ValidatedSet) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(set, names::disruption_budget(&set.name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&set.name)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
