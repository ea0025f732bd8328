//! Members whose pods are not there, or are on a node and have no container yet: since when, and why by the events.
//!
//! Called by `observe`, which reads the events that [`Wait::asks`] for, and by `plan`, which wakes for the next look and tells
//! [`Wait::complaint`]. Pure. Events are read only of what takes too long, and of each object once in a while: nobody watches
//! them, since there are many, and nothing but a message follows from them.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};

use super::trouble::is_being_started;

/// How long a pod may take to be made, or to have its first container once it has a node, before anybody asks why.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// Pause before the events about the same object are read again.
const ASK_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Something that a member waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// UID of the object whose events tell why: the pod that has no container, or the StatefulSet that makes no pod.
    pub regarding: String,
    /// Since when: the pod has its node, or this process sees no pod.
    pub since: Timestamp,
    /// When its events were read last.
    pub asked: Option<Timestamp>,
    /// What is wrong, as they said then.
    pub complaint: Option<String>,
}

impl Wait {
    fn new(regarding: &str, since: Timestamp) -> Self {
        Self {
            regarding: regarding.to_owned(),
            since,
            asked: None,
            complaint: None,
        }
    }

    /// Whether the events are to be read now.
    #[must_use]
    pub fn asks(&self, now: Timestamp) -> bool {
        self.asks_in(now).is_zero()
    }

    fn asks_in(&self, now: Timestamp) -> Duration {
        let overdue = self.since.saturating_add(OVERDUE_AFTER);
        let again = self.asked.map(|at| at.saturating_add(ASK_AGAIN_AFTER));
        // Seconds and nanoseconds are added to a time, which has no error but that of the calendar's end.
        let due = [Ok(Timestamp::MIN), overdue]
            .into_iter()
            .chain(again)
            .flatten()
            .max();
        let left = due.map(|due| due.duration_since(now)).unwrap_or_default();
        Duration::try_from(left).unwrap_or_default()
    }

    /// What the events say; `None` if they could not be read.
    pub fn hear(&mut self, member: &str, events: Option<&[Event]>, now: Timestamp) {
        self.asked = Some(now);
        if let Some(events) = events {
            self.complaint = complaint(member, events);
        }
    }
}

/// Who waits, after who waited `before`. `members` are those that there should be pods of; the StatefulSet that makes them has the
/// UID `workload`.
#[must_use]
pub fn waits<'a>(
    before: &BTreeMap<String, Wait>,
    members: impl IntoIterator<Item = (String, Option<&'a Pod>)>,
    workload: &str,
    now: Timestamp,
) -> BTreeMap<String, Wait> {
    let of = |(member, pod): (String, Option<&Pod>)| {
        let wait = match pod {
            None => Wait::new(workload, now),
            Some(pod) => of_pod(pod)?,
        };
        let known = before.get(&member);
        let known = known.filter(|known| known.regarding == wait.regarding);
        Some((member, known.cloned().unwrap_or(wait)))
    };
    members.into_iter().filter_map(of).collect()
}

fn of_pod(pod: &Pod) -> Option<Wait> {
    if pod.metadata.deletion_timestamp.is_some() || !is_being_started(pod) {
        return None;
    }
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut scheduled = conditions.filter(|c| c.type_ == "PodScheduled");
    let scheduled = scheduled.find_map(|c| c.last_transition_time.as_ref());
    let since = scheduled.or(pod.metadata.creation_timestamp.as_ref())?;
    Some(Wait::new(pod.metadata.uid.as_deref()?, since.0))
}

/// When events are to be read next.
#[must_use]
pub fn wake_after(waits: &BTreeMap<String, Wait>, now: Timestamp) -> Option<Duration> {
    waits.values().map(|wait| wait.asks_in(now)).min()
}

/// What is wrong: what happened last was no success. A StatefulSet makes many pods, so those events count first that name the
/// member's; it may have given up at another pod before.
fn complaint(member: &str, events: &[Event]) -> Option<String> {
    let of_member = |e: &&Event| e.note.as_ref().is_some_and(|note| names(note, member));
    let last = newest(events.iter().filter(of_member)).filter(|e| is_warning(e));
    let last = last.or_else(|| newest(events.iter()).filter(|e| is_warning(e)))?;
    let reason = last.reason.as_deref().unwrap_or("Warning");
    let note = last.note.as_deref().unwrap_or_default().trim();
    Some(match hint(note) {
        Some(hint) => format!("{reason}: {note}; {hint}"),
        None => format!("{reason}: {note}"),
    })
}

/// The one that was seen last, of several in a second (most have no finer time) a warning.
fn newest<'a>(events: impl Iterator<Item = &'a Event>) -> Option<&'a Event> {
    events.max_by_key(|e| (seen(e).map(Timestamp::as_second), is_warning(e), seen(e)))
}

fn is_warning(event: &Event) -> bool {
    event.type_.as_deref() == Some("Warning")
}

/// When an event happened last; the components of Kubernetes say so in several ways.
fn seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|s| s.last_observed_time.0);
    let last = event.deprecated_last_timestamp.as_ref().map(|t| t.0);
    let once = event.event_time.as_ref().map(|t| t.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|t| t.0);
    [series, last, once, made].into_iter().flatten().max()
}

/// Whether a note names the pod; `orders-1` is not in `orders-10`.
fn names(note: &str, pod: &str) -> bool {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    note.split(|c| !of_name(c)).any(|word| word == pod)
}

/// Which field a pod that is refused is about, and what to do.
fn hint(complaint: &str) -> Option<&'static str> {
    let about = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if about(&["PriorityClass"]) {
        return Some("correct spec.podTemplate.priorityClassName, or create the PriorityClass");
    }
    if about(&["service account", "serviceaccount"]) {
        return Some("correct spec.podTemplate.serviceAccountName, or create the ServiceAccount");
    }
    about(&["exceeded quota", "failed quota"])
        .then_some("change spec.resources or spec.replicas, or raise the ResourceQuota")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn event(type_: &str, reason: &str, note: &str, seen: i64) -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": "e"}, "type": type_, "reason": reason, "note": note, "eventTime": null,
            "deprecatedLastTimestamp": at(seen).to_string(),
        }))
        .unwrap()
    }

    /// A pod that has its node since second 0.
    fn pod(state: Option<Value>) -> Pod {
        let container = |state: Value| {
            json!([{
                "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }])
        };
        serde_json::from_value(json!({
            "metadata": {"uid": "pod"},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(0).to_string()}],
                "containerStatuses": state.map(container),
            },
        }))
        .unwrap()
    }

    fn wait(
        before: &BTreeMap<String, Wait>,
        pod: Option<&Pod>,
        now: i64,
    ) -> BTreeMap<String, Wait> {
        waits(before, [("orders-1".to_owned(), pod)], "workload", at(now))
    }

    #[test]
    fn events_are_read_of_what_takes_too_long_and_once_in_a_while() {
        let mut waits = wait(&BTreeMap::new(), None, 0);
        assert_eq!(wake_after(&waits, at(1)), Some(Duration::from_secs(29)));
        assert!(!waits["orders-1"].asks(at(29)));
        waits = wait(&waits, None, 30);
        assert!(waits["orders-1"].asks(at(30)));
        let refused = [event("Warning", "FailedCreate", "no", 29)];
        let heard = waits.get_mut("orders-1").unwrap();
        heard.hear("orders-1", Some(&refused), at(30));
        waits = wait(&waits, None, 59);
        assert!(!waits["orders-1"].asks(at(59)));
        assert!(waits["orders-1"].asks(at(60)));
        let heard = waits.get_mut("orders-1").unwrap();
        heard.hear("orders-1", None, at(60));
        let told = heard.complaint.as_deref();
        assert_eq!(told, Some("FailedCreate: no"), "what is known stays");
        assert!(!heard.asks(at(89)));

        // The pod is there and waits for its container, longer than it may.
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        let creating = pod(Some(creating));
        waits = wait(&waits, Some(&creating), 61);
        assert_eq!(waits["orders-1"], Wait::new("pod", at(0)));
        assert!(waits["orders-1"].asks(at(61)));
    }

    #[test]
    fn nobody_waits_for_what_runs_or_tells_by_itself() {
        let state = |state: Value| pod(Some(state));
        let mut pending = pod(None);
        pending.spec.as_mut().unwrap().node_name = None;
        let mut leaving = pod(None);
        leaving.metadata.deletion_timestamp =
            serde_json::from_value(json!(at(0).to_string())).unwrap();
        for pod in [
            state(json!({"running": {}})),
            state(json!({"waiting": {"reason": "ImagePullBackOff"}})),
            state(json!({"terminated": {"exitCode": 1}})),
            pending,
            leaving,
        ] {
            assert_eq!(wait(&BTreeMap::new(), Some(&pod), 100), BTreeMap::new());
        }
        assert!(wait(&BTreeMap::new(), Some(&pod(None)), 100)["orders-1"].asks(at(100)));
        assert_eq!(wake_after(&BTreeMap::new(), at(0)), None);
    }

    #[test]
    fn the_last_thing_that_happened_counts_if_it_is_a_warning() {
        let made = |pod: &str, seen| {
            let note = format!("create Pod {pod} in StatefulSet orders successful");
            event("Normal", "SuccessfulCreate", &note, seen)
        };
        let refused = |pod: &str, seen| {
            let note = format!("create Pod {pod} in StatefulSet orders failed error: no");
            event("Warning", "FailedCreate", &note, seen)
        };
        let cases = [
            (vec![], None),
            (vec![refused("orders-1", 1), made("orders-1", 2)], None),
            (
                vec![made("orders-1", 1), refused("orders-1", 2)],
                Some("orders-1"),
            ),
            // Times of whole seconds.
            (
                vec![refused("orders-1", 1), made("orders-0", 1)],
                Some("orders-1"),
            ),
            (
                vec![refused("orders-1", 1), refused("orders-0", 2)],
                Some("orders-1"),
            ),
            (
                vec![made("orders-1", 1), refused("orders-0", 2)],
                Some("orders-0"),
            ),
            (
                vec![refused("orders-10", 2), refused("orders-1", 1)],
                Some("orders-1"),
            ),
        ];
        for (events, expected) in cases {
            let told = complaint("orders-1", &events);
            let expected = expected.map(|pod| {
                format!("FailedCreate: create Pod {pod} in StatefulSet orders failed error: no")
            });
            assert_eq!(told, expected, "{events:?}");
        }
    }

    #[test]
    fn a_complaint_names_the_field_that_helps() {
        let cases = [
            (
                "pods \"orders-1\" is forbidden: no PriorityClass with name hihg was found",
                "spec.podTemplate.priorityClassName",
            ),
            (
                "pods \"orders-1\" is forbidden: error looking up service account shop/x: serviceaccount \"x\" not found",
                "spec.podTemplate.serviceAccountName",
            ),
            (
                "pods \"orders-1\" is forbidden: exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5",
                "raise the ResourceQuota",
            ),
        ];
        for (note, field) in cases {
            let told = complaint("orders-1", &[event("Warning", "FailedCreate", note, 1)]).unwrap();
            assert!(
                told.starts_with(&format!("FailedCreate: {note}; ")),
                "{told}"
            );
            assert!(told.contains(field), "{told}");
        }
    }
}
