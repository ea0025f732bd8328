//! Which nodes take members of a set: what its pods demand of a node, read as the scheduler reads it.
//!
//! A node is no candidate if its labels, its name or a taint that somebody gave it keep the set's pods
//! away: it neither has room nor counts as a domain. A node that is cordoned, not ready or tainted by
//! Kubernetes for its condition is a candidate that cannot be used at present.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};

use super::spread::{Candidate, Usable};

/// Taints by which Kubernetes and cloud providers tell a node's passing condition begin so.
const CONDITION_TAINTS: [&str; 2] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"];

/// Whether a node says that it is ready.
#[must_use]
pub fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// What the pods of a set demand of a node.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// Labels that it must have.
    pub node_selector: &'a BTreeMap<String, String>,
    /// Of this only what nodes must match when a pod is scheduled.
    pub affinity: Option<&'a Affinity>,
    /// Taints that keep no pod away.
    pub tolerations: &'a [Toleration],
}

impl Demands<'_> {
    /// What `node` is for these pods; `None` if it takes none of them.
    #[must_use]
    pub fn candidate(&self, node: &Node) -> Option<Candidate> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let (passing, lasting): (Vec<&Taint>, Vec<&Taint>) = taints
            .filter(|taint| self.keeps_away(taint))
            .partition(|taint| tells_a_condition(taint));
        if !lasting.is_empty() || !self.selects(&name, &labels) {
            return None;
        }
        let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
        let usable = if node_is_ready(node) && !cordoned && passing.is_empty() {
            Usable::Yes
        } else {
            Usable::No
        };
        Some(Candidate {
            name,
            labels,
            usable,
        })
    }

    fn keeps_away(&self, taint: &Taint) -> bool {
        let binding = matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        binding && !self.tolerations.iter().any(|t| tolerates(t, taint))
    }

    fn selects(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let required = self
            .affinity
            .and_then(|a| a.node_affinity.as_ref())
            .and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .as_ref()
            });
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.node_selector.iter().all(has) && required.is_none_or(|r| matches(r, name, labels))
    }
}

fn tells_a_condition(taint: &Taint) -> bool {
    CONDITION_TAINTS
        .iter()
        .any(|prefix| taint.key.starts_with(prefix))
}

/// An empty effect or key stands for all of them; an empty operator is `Equal`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    let value_fits = match text(&toleration.operator).as_str() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        // What a newer Kubernetes may know: a taint that is not known to be tolerated is not.
        _ => false,
    };
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && value_fits
}

/// One of the terms must match. One that demands nothing matches no node.
fn matches(selector: &NodeSelector, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let term_matches = |term: &NodeSelectorTerm| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let field = |key: &str| (key == "metadata.name").then_some(name);
        (!expressions.is_empty() || !fields.is_empty())
            && expressions
                .iter()
                .all(|r| holds(r, labels.get(&r.key).map(String::as_str)))
            && fields.iter().all(|r| holds(r, field(&r.key)))
    };
    selector.node_selector_terms.iter().any(term_matches)
}

/// Whether a node whose label or field has the value `actual`, or is absent, meets a requirement.
fn holds(requirement: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = actual.is_some_and(|actual| values.iter().any(|v| v == actual));
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let numbers = number(actual).zip(number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => numbers.is_some_and(|(actual, bound)| actual > bound),
        "Lt" => numbers.is_some_and(|(actual, bound)| actual < bound),
        // What a newer Kubernetes may know: a demand that is not known to be met is not.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A ready node; `spec` says what is special about it.
    fn node(labels: &Value, spec: &Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": labels}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap()
    }

    /// What the node is for pods that demand this.
    fn usable(
        node_selector: &Value,
        affinity: &Value,
        tolerations: &Value,
        node: &Node,
    ) -> Option<Usable> {
        let node_selector = serde_json::from_value(node_selector.clone()).unwrap();
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": affinity});
        let affinity: Option<Affinity> = (!affinity.is_null())
            .then(|| serde_json::from_value(json!({"nodeAffinity": required})).unwrap());
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations.clone()).unwrap();
        let demands = Demands {
            node_selector: &node_selector,
            affinity: affinity.as_ref(),
            tolerations: &tolerations,
        };
        demands.candidate(node).map(|c| c.usable)
    }

    fn undemanding(node: &Node) -> Option<Usable> {
        usable(&json!({}), &Value::Null, &json!([]), node)
    }

    fn tainted(key: &str, value: &str, effect: &str) -> Node {
        let taint = json!({"key": key, "value": value, "effect": effect});
        node(&json!({}), &json!({"taints": [taint]}))
    }

    #[test]
    fn a_node_in_a_passing_condition_is_a_candidate_that_cannot_be_used() {
        let mut silent = node(&json!({}), &json!({}));
        assert_eq!(undemanding(&silent), Some(Usable::Yes));
        silent.status = None;
        assert_eq!(undemanding(&silent), Some(Usable::No));
        // As `kubectl cordon` and the node controller leave it.
        let cordoned = node(
            &json!({}),
            &json!({"unschedulable": true, "taints": [
                {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
            ]}),
        );
        assert_eq!(undemanding(&cordoned), Some(Usable::No));
        let pressed = tainted("node.kubernetes.io/disk-pressure", "", "NoSchedule");
        assert_eq!(undemanding(&pressed), Some(Usable::No));
    }

    #[test]
    fn a_tainted_node_is_a_candidate_only_for_pods_that_tolerate_all_its_taints() {
        let control_plane = tainted("node-role.kubernetes.io/control-plane", "", "NoSchedule");
        assert_eq!(undemanding(&control_plane), None);
        let dedicated = tainted("dedicated", "redis", "NoExecute");
        let mild = tainted("dedicated", "redis", "PreferNoSchedule");
        assert_eq!(undemanding(&mild), Some(Usable::Yes));
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "dedicated", "operator": "Exists"}), true),
            (json!({"key": "dedicated", "value": "redis"}), true),
            (
                json!({"key": "dedicated", "operator": "Equal", "value": "redis", "effect": "NoExecute"}),
                true,
            ),
            (json!({"key": "dedicated", "value": "other"}), false),
            (json!({"key": "dedicated"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (
                json!({"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}),
                false,
            ),
            (
                json!({"key": "dedicated", "operator": "Gt", "value": "redis"}),
                false,
            ),
        ];
        for (toleration, tolerated) in cases {
            let found = usable(&json!({}), &Value::Null, &json!([toleration]), &dedicated);
            assert_eq!(found, tolerated.then_some(Usable::Yes), "{toleration}");
        }
    }

    #[test]
    fn a_node_without_the_labels_of_the_selector_is_no_candidate() {
        let fast = node(&json!({"disk": "fast", "zone": "a"}), &json!({}));
        let cases = [
            (json!({"disk": "fast"}), true),
            (json!({"disk": "slow"}), false),
            (json!({"disk": "fast", "rack": "1"}), false),
        ];
        for (selector, selected) in cases {
            let found = usable(&selector, &Value::Null, &json!([]), &fast);
            assert_eq!(found.is_some(), selected, "{selector}");
        }
    }

    #[test]
    fn every_operator_of_node_affinity_is_read_as_the_scheduler_reads_it() {
        let subject = node(&json!({"disk": "fast", "cores": "16"}), &json!({}));
        let cases = [
            ("disk", "In", json!(["fast", "slow"]), true),
            ("disk", "In", json!(["slow"]), false),
            ("rack", "In", json!(["1"]), false),
            ("disk", "NotIn", json!(["fast"]), false),
            ("disk", "NotIn", json!(["slow"]), true),
            ("rack", "NotIn", json!(["1"]), true),
            ("disk", "Exists", json!([]), true),
            ("rack", "Exists", json!([]), false),
            ("disk", "DoesNotExist", json!([]), false),
            ("rack", "DoesNotExist", json!([]), true),
            ("cores", "Gt", json!(["8"]), true),
            ("cores", "Gt", json!(["16"]), false),
            ("cores", "Lt", json!(["17"]), true),
            ("cores", "Lt", json!(["16"]), false),
            ("disk", "Gt", json!(["1"]), false),
            ("rack", "Lt", json!(["1"]), false),
            ("disk", "Near", json!(["fast"]), false),
        ];
        for (key, operator, values, matched) in cases {
            let requirement = json!({"key": key, "operator": operator, "values": values});
            let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [requirement]}]});
            let found = usable(&json!({}), &terms, &json!([]), &subject);
            assert_eq!(found.is_some(), matched, "{requirement}");
        }
    }

    #[test]
    fn one_term_of_several_suffices_and_all_of_a_term_must_hold() {
        let subject = node(&json!({"disk": "fast"}), &json!({}));
        let requirement =
            |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
        let named = |name: &str| json!([requirement("metadata.name", name)]);
        let (fits, fails) = (requirement("disk", "fast"), requirement("disk", "slow"));
        let cases = [
            (json!([]), false),
            (json!([{}]), false),
            (
                json!([{"matchExpressions": [fits]}, {"matchExpressions": [fails]}]),
                true,
            ),
            (json!([{"matchExpressions": [fits, fails]}]), false),
            (json!([{"matchFields": named("n")}]), true),
            (json!([{"matchFields": named("other")}]), false),
            (
                json!([{"matchExpressions": [fits], "matchFields": named("other")}]),
                false,
            ),
        ];
        for (terms, matched) in cases {
            let selector = json!({"nodeSelectorTerms": terms});
            let found = usable(&json!({}), &selector, &json!([]), &subject);
            assert_eq!(found.is_some(), matched, "{selector}");
        }
    }
}
