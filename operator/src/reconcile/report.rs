//! Tells what really happened: conditions, member table, events, metrics.
//!
//! Called last, whether the steps were done or failed. It writes the status only when something
//! that people read has changed; the figures that always move (`offset`, `lag`) go along then. It
//! never writes what is decided elsewhere: term, master, voters, failovers, relocation, phases of a
//! rotation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{
    error::Error,
    observe::Observed,
    plan::{Plan, members::MemberFacts},
    step::{Planned, Step},
};
use crate::{
    api::{
        RedisReplicaSet, STATUS_FIELD_MANAGER,
        duration::DurationText,
        names,
        v1alpha1::{
            MAX_MESSAGE_CHARS, MemberStatus, Reason, RedisReplicaSetStatus, RotationStatus,
        },
    },
    context::{API_TIMEOUT, Context, SetKey},
    guard::view::{lag_ms, position},
    rollout::order::Health,
    status::{
        conditions::{Finding, Truth, merge},
        events::{action, event},
        length::{CUT_MARK, cut},
    },
};

/// Where the zone of a node is.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What a reconcile came to.
pub struct Outcome<'a> {
    /// What was seen.
    pub observed: &'a Observed,
    /// What was planned; `None` when the spec cannot be followed.
    pub plan: Option<&'a Plan>,
    /// What it means.
    pub findings: Vec<Finding>,
    /// The steps that were done.
    pub done: Vec<&'a Planned>,
    /// Why not all of them.
    pub failure: Option<&'a Error>,
}

/// Writes status and events.
///
/// # Errors
/// When the status cannot be written.
pub async fn report(context: &Context, key: &SetKey, outcome: &Outcome<'_>) -> Result<(), Error> {
    let set = &outcome.observed.set;
    let before = set.status.clone().unwrap_or_default();
    let after = status(&before, outcome);
    let reference = set.object_ref(&());
    for event in events(&before.conditions, &after.conditions, outcome) {
        context.publish(&event, &reference).await;
    }
    if settled(&before) == settled(&after) {
        return Ok(());
    }
    let patch = json!({"status": owned(&before, &after)});
    let api: Api<RedisReplicaSet> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = PatchParams {
        field_manager: Some(STATUS_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    context.metrics.wrote("RedisReplicaSet/status");
    let patch = Patch::Merge(&patch);
    let write = api.patch_status(&key.name, &params, &patch);
    let (doing, kind) = ("reporting on", "RedisReplicaSet");
    match timeout(API_TIMEOUT, write).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(source)) => Err(Error::Api {
            doing,
            kind,
            name: key.name.clone(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout {
            doing,
            kind,
            name: key.name.clone(),
        }),
    }
}

/// The status after this reconcile.
fn status(before: &RedisReplicaSetStatus, outcome: &Outcome<'_>) -> RedisReplicaSetStatus {
    let observed = outcome.observed;
    let generation = observed.set.metadata.generation;
    let mut after = before.clone();
    after.observed_generation = generation;
    after.conditions = merge(
        &before.conditions,
        &outcome.findings,
        generation,
        observed.now,
    );
    let Some(plan) = outcome.plan else {
        return after;
    };
    let name = observed.set.name_any();
    after.selector = Some(names::selector_text(&name));
    after.replicas = i32::try_from(observed.pods.len()).unwrap_or(i32::MAX);
    let in_sync = |m: &&MemberFacts| m.health == Health::InSync;
    let ready = plan.members.iter().filter(in_sync).count();
    // As the condition Ready counts them, which waits for no probe of a kubelet.
    after.ready_members = Some(format!("{ready}/{}", observed.set.spec.replicas));
    after.config_revision = generation.map(|g| g.to_string());
    after.members = plan.members.iter().map(|m| member(observed, m)).collect();
    let rotation = &mut after.rotation;
    rotation
        .client
        .members
        .clone_from(&plan.secrets.client_members);
    rotation
        .replication
        .members
        .clone_from(&plan.secrets.replication_members);
    let [client, replication] = plan.secrets.next_at.clone();
    (rotation.client.next_at, rotation.replication.next_at) = (client, replication);
    let [client, replication] = plan.secrets.messages.clone();
    (rotation.client.message, rotation.replication.message) = (client, replication);
    fit(&mut after);
    after
}

/// Cuts what may be too long for its field: one such message, and the API server refuses the whole status.
fn fit(status: &mut RedisReplicaSetStatus) {
    let RotationStatus {
        client,
        replication,
    } = &mut status.rotation;
    let rotations = [&mut client.message, &mut replication.message];
    let members = status.members.iter_mut().map(|m| &mut m.message);
    for message in members.chain(rotations).flatten() {
        *message = cut(message, MAX_MESSAGE_CHARS);
    }
}

fn member(observed: &Observed, facts: &MemberFacts) -> MemberStatus {
    let node = observed.node_of(&facts.name);
    let pod = observed.pods.get(&facts.name);
    let state = facts.state.as_deref();
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let image = pod.and_then(|p| p.spec.as_ref()).and_then(|s| {
        s.containers
            .iter()
            .find(|c| c.name == names::SERVER_CONTAINER)?
            .image
            .clone()
    });
    MemberStatus {
        name: facts.name.clone(),
        role: facts.role(),
        ready: facts.ready,
        node: pod.and_then(|p| p.spec.as_ref()?.node_name.clone()),
        zone: node.and_then(|n| n.labels().get(ZONE_LABEL).cloned()),
        term: state.map(|s| signed(position(s).term.0)),
        offset: state.map(|s| signed(position(s).offset.0)),
        lag: state
            .and_then(lag_ms)
            .map(|lag| DurationText::from(std::time::Duration::from_millis(lag))),
        vote: facts.voter && state.is_some_and(|s| s.vote() == control::proto::Vote::Granted),
        config_revision: state.map(|s| s.config_revision.to_string()),
        secret_revision: state.map(|s| signed(s.secret_revision)),
        image,
        message: facts.trouble.clone(),
    }
}

/// A status without the figures that always move.
fn settled(status: &RedisReplicaSetStatus) -> RedisReplicaSetStatus {
    let mut settled = status.clone();
    for member in &mut settled.members {
        (member.term, member.offset, member.lag) = (None, None, None);
    }
    settled
}

/// The patch for the fields that reports own, `null` where one is gone.
fn owned(before: &RedisReplicaSetStatus, after: &RedisReplicaSetStatus) -> Value {
    const OWNED: [&str; 7] = [
        "observedGeneration",
        "conditions",
        "selector",
        "replicas",
        "readyMembers",
        "configRevision",
        "members",
    ];
    let value =
        |status: &RedisReplicaSetStatus| serde_json::to_value(status).unwrap_or_else(|_| json!({}));
    let (before, after) = (value(before), value(after));
    let mut patch = Map::new();
    for field in OWNED {
        if before.get(field) != after.get(field) {
            patch.insert(
                field.to_owned(),
                after.get(field).cloned().unwrap_or(Value::Null),
            );
        }
    }
    for kind in ["client", "replication"] {
        for field in ["members", "nextAt", "message"] {
            let old = before.pointer(&format!("/rotation/{kind}/{field}"));
            let new = after.pointer(&format!("/rotation/{kind}/{field}"));
            if old != new {
                let rotation = patch.entry("rotation").or_insert_with(|| json!({}));
                rotation[kind][field] = new.cloned().unwrap_or(Value::Null);
            }
        }
    }
    Value::Object(patch)
}

/// Events for what was done, and for conditions whose truth changed.
fn events(before: &[Condition], after: &[Condition], outcome: &Outcome<'_>) -> Vec<Event> {
    let mut told: Vec<Event> = outcome.done.iter().filter_map(|p| step_event(p)).collect();
    for condition in after {
        let old = before.iter().find(|c| c.type_ == condition.type_);
        if old.is_some_and(|c| c.status == condition.status && c.reason == condition.reason) {
            continue;
        }
        if condition.type_ != "Ready" && condition.type_ != "Stalled" {
            continue;
        }
        let bad = (condition.type_ == "Ready") == (condition.status != Truth::True.as_str());
        let bad = bad && ON_THE_WAY.iter().all(|r| r.as_str() != condition.reason);
        let message = format!(
            "{} is {}: {}",
            condition.type_, condition.status, condition.message
        );
        let type_ = if bad {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let action = action("Report", &message);
        told.push(event(type_, &condition.reason, &action, &message));
    }
    // Told once; while it lasts the condition says so.
    let known = |text: &str| {
        let tells = |told: &str| {
            let told = told.trim_end_matches(CUT_MARK);
            told.starts_with(text) || text.starts_with(told)
        };
        before
            .iter()
            .any(|c| !c.message.is_empty() && tells(&c.message))
    };
    if let Some(error) = outcome.failure.filter(|e| !known(&e.to_string())) {
        let note = error.to_string();
        let action = action("Reconcile", &note);
        told.push(event(EventType::Warning, "Failed", &action, &note));
    }
    told
}

fn step_event(planned: &Planned) -> Option<Event> {
    let why = || planned.why.clone();
    let (reason, note) = match &planned.step {
        Step::DeletePod { member, .. } => ("ReplacedPod", format!("{member}: {}", planned.why)),
        Step::SetVoters { .. } => ("VotersChanged", why()),
        Step::StoreCredentials { present: None, .. } => ("CredentialsCreated", why()),
        Step::StoreCredentials {
            present: Some(present),
            wanted,
        } if present.client.revision < wanted.client.revision
            || present.replication.revision < wanted.replication.revision =>
        {
            ("RotationStarted", why())
        }
        // The guard tells every change of the master.
        Step::SwitchOver { .. }
        | Step::StoreCredentials { .. }
        | Step::Apply(_)
        | Step::RecordRotation { .. }
        | Step::RecordRelocation(_)
        | Step::PushCredentials { .. }
        | Step::PushConfig { .. }
        | Step::LabelPod { .. } => return None,
    };
    let action = action("Reconcile", &note);
    Some(event(EventType::Normal, reason, &action, &note))
}

/// Reasons of a set that is on its way to what its spec asks for: nothing to be warned of.
const ON_THE_WAY: [Reason; 5] = [
    Reason::Bootstrapping,
    Reason::Scaling,
    Reason::RollingOut,
    Reason::ApplyingConfig,
    Reason::PausedByUser,
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::{reconcile::plan::tests::World, status::findings::findings};

    fn status_of(world: &World, plan: &Plan) -> RedisReplicaSetStatus {
        let observed = &world.observed;
        let outcome = Outcome {
            observed,
            plan: Some(plan),
            findings: findings(&world.set(), &observed.view, plan, None),
            done: Vec::new(),
            failure: None,
        };
        status(&RedisReplicaSetStatus::default(), &outcome)
    }

    #[tokio::test]
    async fn what_is_news_is_an_event_of_its_own() {
        let world = World::new(&json!({"replicas": 1, "storage": {"ephemeral": {}}}), 2);
        let replaced = |member: &str, why: &str| Planned {
            step: Step::DeletePod {
                member: member.to_owned(),
                uid: "pod".to_owned(),
            },
            why: why.to_owned(),
        };
        let steps = [
            replaced("orders-1", "another image"),
            replaced("orders-2", "another image"),
            replaced("orders-2", "other resources"),
        ];
        let failure = |member: &str| Error::Disconnected {
            member: member.to_owned(),
        };
        let (first, second) = (failure("orders-1"), failure("orders-2"));
        let told = |failure| {
            let outcome = Outcome {
                observed: &world.observed,
                plan: None,
                findings: Vec::new(),
                done: steps.iter().collect(),
                failure: Some(failure),
            };
            events(&[], &[], &outcome)
        };
        // What kube's recorder takes for repetitions has all of these in common.
        let key = |e: &Event| (e.reason.clone(), e.action.clone());
        let all: Vec<Event> = [&first, &second].into_iter().flat_map(told).collect();
        let distinct: BTreeSet<_> = all.iter().map(key).collect();
        // Three replacements, each told twice, and two failures.
        assert_eq!((all.len(), distinct.len()), (8, 5));
    }

    /// The lengths that the schema allows, by the name of the field.
    fn limits(schema: &Value, name: &str, found: &mut BTreeSet<(String, u64)>) {
        if let Some(max) = schema["maxLength"].as_u64() {
            found.insert((name.to_owned(), max));
        }
        limits_within(schema, name, found);
    }

    fn limits_within(schema: &Value, name: &str, found: &mut BTreeSet<(String, u64)>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            limits(property, name, found);
        }
        if let Some(items) = schema.get("items") {
            limits(items, name, found);
        }
    }

    #[tokio::test]
    async fn no_message_is_longer_than_its_field() {
        let spec = json!({"replicas": 9, "storage": {"size": "1Gi", "storageClassName": "fast"}});
        let mut world = World::new(&spec, 2);
        let name = "a-set-whose-name-has-forty-characters-00";
        world.observed.set.metadata.name = Some(name.to_owned());
        world.observed.workload_replicas = Some(9);
        let complaint = format!(
            "0/90 nodes are available: {}",
            "unbound immediate PersistentVolumeClaims, 1 node(s) had untolerated taint {käse: 12}, ".repeat(8)
        );
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "pod"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": complaint},
        ]}}))
        .unwrap();
        let pods = (0..9).map(|n| (names::member(name, n), Arc::new(pod.clone())));
        world.observed.pods = pods.collect();
        let mut plan = world.plan();
        plan.secrets.messages = [Some("x".repeat(2000)), Some("y".repeat(1024))];
        let after = status_of(&world, &plan);
        let told = after.members.iter().map(|m| m.message.as_ref().unwrap());
        let told: Vec<&String> = told.collect();
        assert_eq!(told.len(), 9);
        let rotation = &after.rotation;
        let waiting = rotation.client.message.as_ref().unwrap();
        for message in told.into_iter().chain([waiting]) {
            assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS);
            assert!(message.ends_with(CUT_MARK), "{message}");
        }
        assert_eq!(rotation.replication.message, Some("y".repeat(1024)));
        for condition in &after.conditions {
            assert!(condition.message.chars().count() <= MAX_MESSAGE_CHARS);
        }
    }

    #[test]
    fn the_status_has_no_other_fields_that_a_text_may_be_too_long_for() {
        let definition = serde_json::to_value(crate::api::crd::redis_replica_set()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = BTreeSet::new();
        limits(&schema["properties"]["status"], "status", &mut found);
        // Durations are short by their form, see `DurationText`.
        let known = [
            ("detected", 32),
            ("lag", 32),
            ("message", 1024),
            ("served", 32),
        ];
        let known = known.map(|(name, max)| (name.to_owned(), max));
        assert_eq!(found, BTreeSet::from(known));
    }
}
