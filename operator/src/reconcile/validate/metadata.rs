//! What Kubernetes asks of the labels, annotations and node selectors that users add.
//!
//! Called by `validate`. Pure, and never stricter than Kubernetes: what is refused here would be refused with the child
//! that carries it, for as long as it is there. Not done here: affinity and tolerations, which the API server judges.

use std::collections::BTreeMap;

use super::Findings;
use crate::api::v1alpha1::RedisReplicaSetSpec;

/// Longest label value, and longest name after the domain of a key.
const MAX_NAME_BYTES: usize = 63;
/// Longest domain of a key.
const MAX_DOMAIN_BYTES: usize = 253;

const KEY_MESSAGE: &str = "the key must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or \
    digit, after a domain and '/' if you want one: write for example example.com/team";
const VALUE_MESSAGE: &str = "the value must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter \
    or digit, or empty: write for example team-1";

/// Checks everything of this kind in a spec.
pub(super) fn check(spec: &RedisReplicaSetSpec, found: &mut Findings) {
    let (pod, services) = (&spec.pod_template, &spec.services);
    check_labels("spec.podTemplate.labels", &pod.labels, found);
    check_labels("spec.podTemplate.nodeSelector", &pod.node_selector, found);
    let annotations = [
        ("spec.podTemplate.annotations", &pod.annotations),
        (
            "spec.services.master.annotations",
            &services.master.annotations,
        ),
        (
            "spec.services.replicas.annotations",
            &services.replicas.annotations,
        ),
    ];
    for (field, annotations) in annotations {
        for key in annotations.keys() {
            // Kubernetes knows no case here.
            let valid = is_key(&key.to_ascii_lowercase());
            found.require(valid, &format!("{field}[{key}]"), KEY_MESSAGE);
        }
    }
}

fn check_labels(field: &str, labels: &BTreeMap<String, String>, found: &mut Findings) {
    for (key, value) in labels {
        let field = format!("{field}[{key}]");
        found.require(is_key(key), &field, KEY_MESSAGE);
        let valid = value.is_empty() || is_name(value);
        found.require(valid, &field, VALUE_MESSAGE);
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name
            .chars()
            .all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
}

fn is_domain(domain: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    };
    domain.len() <= MAX_DOMAIN_BYTES && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_judged_as_kubernetes_judges_them() {
        let long = "x".repeat(64);
        let keys = [
            ("team", true),
            ("example.com/Team_1.a", true),
            ("a--b", true),
            ("", false),
            ("example.com/", false),
            ("/team", false),
            ("a/b/c", false),
            ("Example.com/team", false),
            ("exa_mple.com/team", false),
            ("example..com/team", false),
            ("-team", false),
            ("team.", false),
            ("te am", false),
            ("té", false),
            (long.as_str(), false),
            (&long[1..], true),
        ];
        for (key, valid) in keys {
            assert_eq!(is_key(key), valid, "{key}");
        }
    }
}
