//! Why a member's pod does not run: the words of the scheduler, of the kubelet or of the server itself, and the
//! field of the spec that helps.

use control::proto;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::{
    api::names,
    placement::spread::Strictness,
    set::{Storage, ValidatedSet},
};

/// Reasons of a waiting container that pass by themselves.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// How much of the end of a server's last words is told.
const MAX_LAST_WORDS_BYTES: usize = 400;

/// Why a pod does not run, if it does not.
#[must_use]
pub fn trouble(set: &ValidatedSet, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        let reason = condition.reason.as_deref().unwrap_or("Unscheduled");
        let message = condition.message.as_deref().unwrap_or_default();
        let told = format!("{reason}: {message}");
        return Some(match hint(set, message) {
            Some(hint) => format!("{told}; {hint}"),
            None => told,
        });
    }
    let server = status
        .container_statuses
        .iter()
        .flatten()
        .find(|c| c.name == names::SERVER_CONTAINER)?;
    let waiting = server.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    if STARTING.contains(&reason) {
        return None;
    }
    let words = last_words(server).or_else(|| waiting.message.clone());
    Some(format!("{reason}: {}", words.unwrap_or_default()))
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
fn hint(set: &ValidatedSet, complaint: &str) -> Option<String> {
    let complaint = complaint.to_ascii_lowercase();
    let about = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if about(&[
        "persistentvolumeclaim",
        "storageclass",
        "storage class",
        "persistent volume",
    ]) {
        return Some(about_storage(&set.storage));
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

fn about_storage(storage: &Storage) -> String {
    match storage {
        Storage::Persistent { size, class, .. } => {
            let class = class.as_ref().map_or_else(
                || "none, so the default of the cluster".to_owned(),
                Clone::clone,
            );
            format!(
                "check spec.storage.storageClassName ({class}) and spec.storage.size ({size}): `kubectl get storageclass` \
                 lists what there is"
            )
        }
        Storage::Ephemeral { .. } => "check the volumes of the pod".to_owned(),
    }
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
                "spec.storage.storageClassName (fast)",
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
            let told = trouble(&set, &pending(message)).unwrap();
            assert!(
                told.starts_with(&format!("Unschedulable: {message}; ")),
                "{told}"
            );
            assert!(told.contains(field), "{told}");
        }
        assert_eq!(
            trouble(&set, &pending("odd")).unwrap(),
            "Unschedulable: odd"
        );
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
        let told = trouble(&set, &waiting("CrashLoopBackOff", ended));
        assert_eq!(
            told.unwrap(),
            "CrashLoopBackOff: redis.conf:4: no such directive"
        );
        let told = trouble(&set, &waiting("ImagePullBackOff", json!({})));
        assert_eq!(told.unwrap(), "ImagePullBackOff: back-off 10s");
        assert_eq!(
            trouble(&set, &waiting("ContainerCreating", json!({}))),
            None
        );
    }
}
