//! Why a member's pod does not run: the words of the scheduler, of the kubelet or of the server itself, and the
//! field of the spec that helps.

use std::sync::Arc;

use control::proto;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, PodCondition};

use crate::{
    api::names,
    placement::spread::Strictness,
    set::{Storage, ValidatedSet},
};

/// Reasons of a waiting container that pass by themselves.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// How much of the end of a server's last words is told.
const MAX_LAST_WORDS_BYTES: usize = 400;

/// What deleting the set would cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stake {
    /// Nothing: no member has a volume.
    Nothing,
    /// Volumes, which may hold data.
    Volumes,
}

impl Stake {
    /// By the claims of the members.
    pub fn of<'a>(mut claims: impl Iterator<Item = &'a Arc<PersistentVolumeClaim>>) -> Self {
        let bound = |claim: &PersistentVolumeClaim| {
            let spec = claim.spec.as_ref();
            spec.is_some_and(|s| s.volume_name.is_some())
        };
        if claims.any(|claim| bound(claim)) {
            Self::Volumes
        } else {
            Self::Nothing
        }
    }
}

/// What the scheduler says about a pod that it finds no place for.
#[must_use]
pub fn unschedulable(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let refused = |c: &&PodCondition| c.type_ == "PodScheduled" && c.status == "False";
    conditions.iter().find(refused)
}

/// Why a pod does not run, if it does not.
#[must_use]
pub fn trouble(set: &ValidatedSet, pod: &Pod, stake: Stake) -> Option<String> {
    if let Some(condition) = unschedulable(pod) {
        let reason = condition.reason.as_deref().unwrap_or("Unscheduled");
        let message = condition.message.as_deref().unwrap_or_default();
        let told = format!("{reason}: {message}");
        return Some(match hint(set, message, stake) {
            Some(hint) => format!("{told}; {hint}"),
            None => told,
        });
    }
    let server = server_of(pod)?;
    let waiting = server.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    if STARTING.contains(&reason) {
        return None;
    }
    let words = last_words(server).or_else(|| waiting.message.clone());
    Some(format!("{reason}: {}", words.unwrap_or_default()))
}

/// Whether a pod is on a node, and its server has not been started nor has the kubelet said why.
#[must_use]
pub fn is_being_started(pod: &Pod) -> bool {
    let has_node = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let Some(server) = server_of(pod) else {
        return has_node;
    };
    let waiting = server.state.as_ref().and_then(|s| s.waiting.as_ref());
    let reason = waiting.and_then(|w| w.reason.as_deref());
    has_node && reason.is_some_and(|reason| STARTING.contains(&reason))
}

fn server_of(pod: &Pod) -> Option<&ContainerStatus> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let server = |c: &&ContainerStatus| c.name == names::SERVER_CONTAINER;
    containers.iter().find(server)
}

/// What to do about a member whose volume holds data of another set, though this one has its own.
#[must_use]
pub fn data_of_another_set(
    set: &ValidatedSet,
    member: &str,
    state: &proto::State,
) -> Option<String> {
    let other = &state.fleet;
    if other.is_empty() || *other == set.uid {
        return None;
    }
    Some(format!(
        "its volume holds data of another set ({other}): to have it filled from the master, delete PersistentVolumeClaim {} and \
         then the pod",
        names::volume_claim(member)
    ))
}

/// Which field a complaint of the scheduler is about, and what to do. A complaint about several
/// things is answered for the first.
fn hint(set: &ValidatedSet, complaint: &str, stake: Stake) -> Option<String> {
    let complaint = complaint.to_ascii_lowercase();
    let about = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if about(&[
        "persistentvolumeclaim",
        "storageclass",
        "storage class",
        "persistent volume",
    ]) {
        return Some(about_storage(set, stake));
    }
    let required: Vec<&str> = set
        .spread
        .iter()
        .filter(|rule| rule.strictness == Strictness::Required)
        .map(|rule| rule.topology_key.as_str())
        .collect();
    if about(&["topology spread"]) && !required.is_empty() {
        return Some(format!(
            "spec.placement.spread requires {}: label nodes with it, add nodes with another value of it, lower spec.replicas, or \
             remove `require`",
            required.join(" and ")
        ));
    }
    if about(&["node affinity", "node selector", "node(s) didn't match"]) {
        return Some(
            "check spec.podTemplate.nodeSelector and spec.podTemplate.affinity against the labels of the nodes".into(),
        );
    }
    if about(&["insufficient"]) {
        return Some("lower spec.resources.requests, or add nodes".into());
    }
    about(&["taint"])
        .then(|| "name the taint in spec.podTemplate.tolerations, or make a node available".into())
}

/// The fields cannot be changed, and a claim outlives its set unless the retention says otherwise: so what
/// the claim asks for must come to be, or the claim must go too. That is told only where no data can go with it.
fn about_storage(set: &ValidatedSet, stake: Stake) -> String {
    let (size, class) = match &set.storage {
        Storage::Persistent { size, class, .. } => (size, class),
        Storage::Ephemeral { .. } => return "check the volumes of the pod".to_owned(),
    };
    let class = class.as_ref().map_or_else(
        || "a default StorageClass (spec.storage.storageClassName is not set)".to_owned(),
        |class| format!("StorageClass {class} (spec.storage.storageClassName)"),
    );
    let wanted = format!(
        "create {class} if `kubectl get storageclass` does not list it, or make room in it for {size} (spec.storage.size): the \
         member starts then. Neither field can be changed; for other values "
    );
    let claims: Vec<String> = (0..set.replicas)
        .map(|ordinal| names::volume_claim(&names::member(&set.name, ordinal)))
        .collect();
    let other = match stake {
        Stake::Nothing => format!(
            "`kubectl delete rrs {name} -n {namespace}`, when its pods are gone `kubectl delete pvc {claims} -n {namespace}`, \
             and apply it again",
            name = set.name,
            namespace = set.namespace,
            // By name: others of the set's labels may be left of members it had before, with data.
            claims = claims.join(" "),
        ),
        Stake::Volumes => "create a second set and let it copy the data".to_owned(),
    };
    wanted + &other
}

/// What the server said before it ended last.
fn last_words(server: &ContainerStatus) -> Option<String> {
    let ended = server.last_state.as_ref()?.terminated.as_ref()?;
    let lines: Vec<&str> = ended.message.as_ref()?.lines().map(str::trim).collect();
    let words = lines.join(" ");
    let words = words.trim();
    let cut = words.len().saturating_sub(MAX_LAST_WORDS_BYTES);
    let start = (cut..=words.len()).find(|at| words.is_char_boundary(*at))?;
    (!words.is_empty()).then(|| words[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::plan::tests::valid;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"status": status})).unwrap()
    }

    fn pending(message: &str) -> Pod {
        pod(json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
        ]}))
    }

    #[test]
    fn a_complaint_of_the_scheduler_names_the_field_that_helps() {
        let spread = json!([{"topologyKey": "example.com/rack", "require": true}]);
        let set = valid(json!({
            "storage": {"size": "1Gi", "storageClassName": "fast"}, "placement": {"spread": spread},
        }));
        let cases = [
            (
                "storageclass.storage.k8s.io \"fast\" not found",
                "create StorageClass fast (spec.storage.storageClassName)",
            ),
            (
                "3 node(s) didn't match pod topology spread constraints",
                "requires example.com/rack",
            ),
            (
                "3 node(s) didn't match Pod's node affinity/selector",
                "spec.podTemplate.nodeSelector",
            ),
            ("3 Insufficient memory", "spec.resources.requests"),
            (
                "3 node(s) had untolerated taint {a: b}",
                "spec.podTemplate.tolerations",
            ),
        ];
        for (message, field) in cases {
            let told = trouble(&set, &pending(message), Stake::Nothing).unwrap();
            assert!(
                told.starts_with(&format!("Unschedulable: {message}; ")),
                "{told}"
            );
            assert!(told.contains(field), "{told}");
        }
        assert_eq!(
            trouble(&set, &pending("odd"), Stake::Nothing).unwrap(),
            "Unschedulable: odd"
        );
    }

    #[test]
    fn a_claim_that_cannot_be_met_is_to_be_deleted_only_where_no_data_go_with_it() {
        let set = valid(json!({"replicas": 2, "storage": {"size": "1Gi"}}));
        let missing = pending("pod has unbound immediate PersistentVolumeClaims");
        let told = trouble(&set, &missing, Stake::Nothing).unwrap();
        let cure = "`kubectl delete rrs orders -n shop`, when its pods are gone `kubectl delete pvc data-orders-0 \
                    data-orders-1 -n shop`, and apply it again";
        assert!(told.contains("create a default StorageClass"), "{told}");
        assert!(told.ends_with(cure), "{told}");
        let told = trouble(&set, &missing, Stake::Volumes).unwrap();
        assert!(
            !told.contains("delete") && told.contains("a second set"),
            "{told}"
        );
    }

    #[test]
    fn a_claim_with_a_volume_may_hold_data() {
        let claim = |spec: Value| -> Arc<PersistentVolumeClaim> {
            Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap())
        };
        let (open, bound) = (claim(json!({})), claim(json!({"volumeName": "pv"})));
        assert_eq!(Stake::of([].iter()), Stake::Nothing);
        assert_eq!(Stake::of([open.clone()].iter()), Stake::Nothing);
        assert_eq!(Stake::of([open, bound].iter()), Stake::Volumes);
    }

    #[test]
    fn the_last_words_of_a_server_tell_more_than_its_back_off() {
        let set = valid(json!({"storage": {"ephemeral": {}}}));
        let waiting = |reason: &str, last: Value| {
            pod(json!({"containerStatuses": [{
                "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 2, "lastState": last,
                "state": {"waiting": {"reason": reason, "message": "back-off 10s"}},
            }]}))
        };
        let ended =
            json!({"terminated": {"exitCode": 1, "message": "redis.conf:4: no such directive\n"}});
        let told = trouble(&set, &waiting("CrashLoopBackOff", ended), Stake::Nothing);
        assert_eq!(
            told.unwrap(),
            "CrashLoopBackOff: redis.conf:4: no such directive"
        );
        let told = trouble(
            &set,
            &waiting("ImagePullBackOff", json!({})),
            Stake::Nothing,
        );
        assert_eq!(told.unwrap(), "ImagePullBackOff: back-off 10s");
        assert_eq!(
            trouble(
                &set,
                &waiting("ContainerCreating", json!({})),
                Stake::Nothing
            ),
            None
        );
    }
}
