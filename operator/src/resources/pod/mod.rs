//! The pod of a member, cut into containers, volumes, probes and security.
//!
//! The template carries its own digest as an annotation, so that a pod can be compared with what it should be
//! without comparing against what the API server filled in.

pub mod containers;
pub mod probes;
pub mod security;
pub mod volumes;

use k8s_openapi::{
    api::core::v1::{PodSpec, PodTemplateSpec, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::non_empty;
use crate::{
    api::names,
    placement::spread::{Constraint, Strictness},
    set::{ValidatedSet, revision},
};

/// The pod template of a set, with its revision.
#[must_use]
pub fn template(set: &ValidatedSet) -> PodTemplateSpec {
    let mut template = bare_template(set);
    let revision = digest(&template);
    let annotations = template
        .metadata
        .get_or_insert_default()
        .annotations
        .get_or_insert_default();
    annotations.insert(names::TEMPLATE_REVISION_ANNOTATION.to_owned(), revision);
    // Outside of the digest: a change of directives alone replaces no pod.
    annotations.insert(
        names::CONFIG_REVISION_ANNOTATION.to_owned(),
        set.config_revision(),
    );
    template
}

/// The revision that [`template`] carries.
#[must_use]
pub fn template_revision(set: &ValidatedSet) -> String {
    digest(&bare_template(set))
}

/// Which taints keep a domain from being counted concerns the scheduler and no pod that runs: it is outside of the digest,
/// so that nobody was restarted when it was introduced.
fn digest(template: &PodTemplateSpec) -> String {
    let mut template = template.clone();
    let spec = template.spec.get_or_insert_default();
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        constraint.node_taints_policy = None;
    }
    let text =
        serde_json::to_vec(&template).expect("a pod template has string keys only, so it is JSON");
    revision([text.as_slice()])
}

fn bare_template(set: &ValidatedSet) -> PodTemplateSpec {
    let mut labels = set.pod.labels.clone();
    labels.extend(names::child_labels(&set.name));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: non_empty(set.pod.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(set)),
    }
}

fn pod_spec(set: &ValidatedSet) -> PodSpec {
    let service_account = set
        .pod
        .service_account
        .clone()
        .unwrap_or_else(|| names::service_account(&set.name));
    PodSpec {
        containers: vec![containers::server(set)],
        volumes: Some(volumes::volumes(set)),
        security_context: Some(security::pod()),
        service_account_name: Some(service_account),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(set.pod.termination_grace_seconds),
        topology_spread_constraints: Some(
            set.spread
                .iter()
                .map(|rule| constraint(set, rule))
                .collect(),
        ),
        node_selector: non_empty(set.pod.node_selector.clone()),
        tolerations: non_empty(set.pod.tolerations.clone()),
        affinity: set.pod.affinity.clone(),
        priority_class_name: set.pod.priority_class.clone(),
        image_pull_secrets: non_empty(set.pod.image_pull_secrets.clone()),
        ..PodSpec::default()
    }
}

fn constraint(set: &ValidatedSet, rule: &Constraint) -> TopologySpreadConstraint {
    let when_unsatisfiable = match rule.strictness {
        Strictness::Required => "DoNotSchedule",
        Strictness::Preferred | Strictness::Default => "ScheduleAnyway",
    };
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: rule.topology_key.clone(),
        when_unsatisfiable: when_unsatisfiable.to_owned(),
        // As `placement::eligible` counts: where a taint keeps all members away nobody can be missing. A domain that is drained
        // does not count meanwhile, either: its member joins others rather than being away for as long.
        node_taints_policy: Some("Honor".to_owned()),
        label_selector: Some(LabelSelector {
            match_labels: Some(names::selector(&set.name)),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::tests::set;

    #[test]
    fn the_scheduler_counts_no_domain_that_a_taint_closes_and_no_pod_is_replaced_for_that() {
        let set = set(json!({
            "storage": {"size": "1Gi"}, "placement": {"spread": [{"topologyKey": "rack", "require": true}]},
        }));
        let mut template = bare_template(&set);
        let spec = template.spec.as_mut().unwrap();
        let constraint = &mut spec.topology_spread_constraints.as_mut().unwrap()[0];
        assert_eq!(constraint.when_unsatisfiable, "DoNotSchedule");
        assert_eq!(constraint.node_taints_policy.take().unwrap(), "Honor");
        let text = serde_json::to_vec(&template).unwrap();
        assert_eq!(template_revision(&set), revision([text.as_slice()]));
    }
}
