//! How every child object of a set is named and labelled; the one place that knows.
//!
//! Names are functions of the set's name, so that nothing has to be looked up. A set's name has at most
//! [`super::v1alpha1::rules::MAX_NAME_BYTES`] bytes, which leaves room for every suffix here.

use std::collections::BTreeMap;

/// Label that names the set; on every child object and on every pod.
pub const SET_LABEL: &str = "redfleet.dev/set";
/// Label of pods that says what the member does: `master`, `replica` or `none`. For people; nothing selects by it.
pub const ROLE_LABEL: &str = "redfleet.dev/role";
/// Annotation of pods: digest of the template they were made from.
pub const TEMPLATE_REVISION_ANNOTATION: &str = "redfleet.dev/template-revision";
/// Annotation of the ConfigMap and of pods: digest of the directives in it, or there when the pod was made.
pub const CONFIG_REVISION_ANNOTATION: &str = "redfleet.dev/config-revision";

/// Name of the server's container.
pub const SERVER_CONTAINER: &str = "server";
/// Name of the volume, and so of the claim template, that holds a member's data.
pub const DATA_VOLUME: &str = "data";

/// Port of Redis clients and of replication.
pub const REDIS_PORT: u16 = 6379;
/// Port that only the operator and the other members speak to.
pub const CONTROL_PORT: u16 = 6381;
/// Port of `/metrics`, `/livez` and `/readyz`.
pub const METRICS_PORT: u16 = 9121;

/// Name of [`REDIS_PORT`] in pods and Services.
pub const REDIS_PORT_NAME: &str = "redis";
/// Name of [`CONTROL_PORT`] in pods and Services.
pub const CONTROL_PORT_NAME: &str = "control";
/// Name of [`METRICS_PORT`] in pods and Services.
pub const METRICS_PORT_NAME: &str = "metrics";

/// Key of a password in every Secret that holds one.
pub const PASSWORD_KEY: &str = "password";

/// The user that clients log in as, with or without naming it.
pub const CLIENT_USER: &str = "default";

/// The user that replicas log in to their master as.
pub const REPLICATION_USER: &str = "replication";

const APP_NAME: &str = "redfleet-server";
const MANAGED_BY: &str = "redfleet-operator";

/// The StatefulSet; its pods are the members.
pub fn workload(set: &str) -> String {
    set.to_owned()
}

/// A member and its pod, by ordinal.
pub fn member(set: &str, ordinal: u32) -> String {
    format!("{set}-{ordinal}")
}

/// The ordinal in a member's name; `None` if the name is no member of the set.
pub fn ordinal(set: &str, member: &str) -> Option<u32> {
    let digits = member.strip_prefix(set)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    if canonical && digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

/// The claim of a member's volume.
pub fn volume_claim(member: &str) -> String {
    format!("{DATA_VOLUME}-{member}")
}

/// The Service that leads to the master.
pub fn master_service(set: &str) -> String {
    set.to_owned()
}

/// The Service that leads to replicas in sync.
pub fn replicas_service(set: &str) -> String {
    format!("{set}-replicas")
}

/// The Service that gives each member a DNS name.
pub fn headless_service(set: &str) -> String {
    format!("{set}-headless")
}

/// DNS name of a member inside its namespace's search path: stable over restarts of its pod.
pub fn member_host(set: &str, namespace: &str, member: &str) -> String {
    format!("{member}.{}.{namespace}.svc", headless_service(set))
}

/// The EndpointSlice of a Service that the operator fills.
pub fn endpoint_slice(service: &str) -> String {
    format!("{service}-members")
}

/// The ConfigMap with `redis.conf`.
pub fn config_map(set: &str) -> String {
    format!("{set}-config")
}

/// The Secret with the clients' password, when the operator generates it.
pub fn client_secret(set: &str) -> String {
    format!("{set}-client")
}

/// The Secret with the replication password, when the operator generates it.
pub fn replication_secret(set: &str) -> String {
    format!("{set}-replication")
}

/// The Secret with everything that servers start with: accepted passwords and the control token.
pub fn server_secret(set: &str) -> String {
    format!("{set}-server")
}

/// The disruption budget.
pub fn disruption_budget(set: &str) -> String {
    set.to_owned()
}

/// The ServiceAccount, when the operator creates it.
pub fn service_account(set: &str) -> String {
    set.to_owned()
}

/// The network policy.
pub fn network_policy(set: &str) -> String {
    set.to_owned()
}

/// Labels that select exactly the members of a set.
pub fn selector(set: &str) -> BTreeMap<String, String> {
    labels(&[
        ("app.kubernetes.io/name", APP_NAME),
        ("app.kubernetes.io/instance", set),
    ])
}

/// [`selector`] as text, for the scale subresource and for list calls.
pub fn selector_text(set: &str) -> String {
    let pairs: Vec<String> = selector(set)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// Labels of every child object.
pub fn child_labels(set: &str) -> BTreeMap<String, String> {
    let mut all = selector(set);
    all.extend(labels(&[
        ("app.kubernetes.io/component", "server"),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        (SET_LABEL, set),
    ]));
    all
}

/// Label selector that finds all child objects of all sets.
pub fn all_children_selector() -> String {
    format!("app.kubernetes.io/managed-by={MANAGED_BY}")
}

/// Label selector that finds the pods and claims of all members of all sets.
pub fn all_members_selector() -> String {
    format!("app.kubernetes.io/name={APP_NAME}")
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_read_back_and_nothing_else_is() {
        for ordinal_in in [0, 1, 10] {
            assert_eq!(
                ordinal("orders", &member("orders", ordinal_in)),
                Some(ordinal_in)
            );
        }
        for stranger in [
            "orders",
            "orders-",
            "orders-x",
            "orders-1x",
            "orders-+1",
            "order-1",
            "orders-eu-1",
            "orders-01",
        ] {
            assert_eq!(ordinal("orders", stranger), None, "{stranger}");
        }
    }

    #[test]
    fn names_of_the_longest_set_are_dns_labels() {
        let set = "s".repeat(crate::api::v1alpha1::rules::MAX_NAME_BYTES);
        let services = [
            master_service(&set),
            replicas_service(&set),
            headless_service(&set),
        ];
        for name in services
            .iter()
            .cloned()
            .chain(services.iter().map(|s| endpoint_slice(s)))
            .chain([server_secret(&set)])
        {
            assert!(name.len() <= 63, "{name}");
        }
        assert!(volume_claim(&member(&set, 9)).len() <= 63);
        // StatefulSets label their pods with `<name>-<hash of 10>`.
        assert!(workload(&set).len() + 11 <= 63);
    }
}
