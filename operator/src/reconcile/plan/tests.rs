//! Plans of whole sets.

use std::{net::IpAddr, sync::Arc, time::Duration};

use control::proto;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        RedisReplicaSet, RedisReplicaSetStatus,
        v1alpha1::{
            ConditionType, Reason as ReadyReason, RotationCause, RotationPhase, RotationState,
        },
    },
    failover::{
        health::{Line, Verdict},
        switchover::Pause,
    },
    guard::view::{MemberView, View},
    members::remote::Remote,
    reconcile::{
        draft::{CredentialsDraft, NewPassword},
        observe::{ConfigAnswer, Credentials, Cure, RefusedDirective},
        step::CredentialKind,
        validate::{Defaults, ReferencedSecret, References, tolerate_with, validate},
    },
    resources::secrets::{Ring, ServerCredentials, server_secret},
    rollout::order::Next as Rollout,
    set::Password,
    status::{conditions::Truth, findings::findings},
};

mod departing;
mod relocation;
mod stuck;

pub(in crate::reconcile) fn object(spec: &Value) -> RedisReplicaSet {
    serde_json::from_value(json!({
        "apiVersion": "redfleet.dev/v1alpha1",
        "kind": "RedisReplicaSet",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "0b6d", "generation": 2},
        "spec": spec,
    }))
    .unwrap()
}

pub(in crate::reconcile) fn check(set: &RedisReplicaSet, references: &References) -> ValidatedSet {
    let defaults = Defaults {
        server_image: "server:1".into(),
    };
    validate(set, references, &defaults).unwrap()
}

/// A set with this spec.
pub(in crate::reconcile) fn valid(spec: Value) -> ValidatedSet {
    check(&object(&spec), &References::default())
}

pub(in crate::reconcile) fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A set of one member that serves and has been told everything about generation `told`.
pub(in crate::reconcile) struct World {
    pub(in crate::reconcile) observed: Observed,
}

impl World {
    pub(in crate::reconcile) fn new(spec: &Value, told: u64) -> Self {
        let set = object(spec);
        let ring = |text: &str| Ring::only(1, Password::new(text));
        let credentials = ServerCredentials {
            client: ring("client"),
            replication: ring("replication"),
            control_token: Password::new("token"),
        };
        let mut observed = Observed {
            set,
            references: References::default(),
            children: BTreeMap::new(),
            credentials: Credentials::Found(Box::new(credentials)),
            workload_replicas: Some(1),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            volumes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            view: View::default(),
            config_answers: BTreeMap::new(),
            switchovers: Pause::default(),
            waits: BTreeMap::new(),
            now: second(0),
        };
        let rotation = RotationState {
            revision: 1,
            completed_at: Some(Time(second(0))),
            ..RotationState::default()
        };
        let mut status = RedisReplicaSetStatus::default();
        status.rotation.client = rotation.clone();
        status.rotation.replication = rotation;
        status.voters = vec!["orders-0".into()];
        observed.set.status = Some(status);
        let state = proto::State {
            boot: 7,
            role: proto::Role::Master.into(),
            vote: proto::Vote::Granted.into(),
            term: 1,
            serving: true,
            config_revision: told,
            // Both rings are settled at revision 1, see `secrets::ordinal`.
            secret_revision: 10,
            ..proto::State::default()
        };
        let address = IpAddr::from([127, 0, 0, 1]);
        let member = MemberView {
            pod_uid: "pod".to_owned(),
            address,
            line: Line::Up,
            state: Some(Arc::new(state)),
            heard_ms: 0,
            remote: Remote::new(address, 1, "token").unwrap(),
        };
        observed.view.members.insert("orders-0".into(), member);
        observed.view.verdict = Some(Verdict::Serving {
            master: "orders-0".into(),
            term: replset::Term(1),
        });
        let mut world = Self { observed };
        world.make_pod();
        world.write_children();
        world
    }

    pub(in crate::reconcile) fn set(&self) -> ValidatedSet {
        check(&self.observed.set, &self.observed.references)
    }

    /// A pod as the StatefulSet makes it now.
    fn make_pod(&mut self) {
        let template =
            resources::pod::template(&configuration::plan(&self.set(), &self.observed).set);
        let mut pod = Pod {
            metadata: template.metadata.unwrap_or_default(),
            spec: template.spec,
            status: None,
        };
        pod.metadata.uid = Some("pod".into());
        self.observed.pods.insert("orders-0".into(), Arc::new(pod));
    }

    /// Writes every child that the plan wants written.
    fn write_children(&mut self) {
        if let Credentials::Found(credentials) = &self.observed.credentials {
            let mut secret = json(&server_secret(&self.set(), credentials));
            diff::stamp(&mut secret);
            let key = ("Secret", names::server_secret("orders"));
            self.observed.children.insert(key, secret);
        }
        for planned in self.steps() {
            if let Step::Apply(child) = planned {
                self.observed
                    .children
                    .insert((child.kind, child.name), child.object);
            }
        }
    }

    /// The user changes the spec.
    fn respecify(&mut self, spec: &Value) {
        self.observed.set.spec = object(spec).spec;
        let generation = self.observed.set.metadata.generation.unwrap();
        self.observed.set.metadata.generation = Some(generation + 1);
    }

    fn answer(&mut self, refused: &[(&str, &str, Cure)]) {
        let refused = refused
            .iter()
            .map(|(name, message, cure)| RefusedDirective {
                name: (*name).into(),
                message: (*message).into(),
                cure: *cure,
            });
        let generation = self.observed.set.metadata.generation.unwrap();
        let answer = ConfigAnswer {
            boot: 7,
            pod_uid: "pod".into(),
            revision: u64::try_from(generation).unwrap(),
            refused: refused.collect(),
        };
        self.observed
            .config_answers
            .insert("orders-0".into(), answer);
    }

    pub(in crate::reconcile) fn plan(&self) -> Plan {
        plan(&self.set(), &self.observed)
    }

    fn steps(&self) -> Vec<Step> {
        self.plan().steps.into_iter().map(|p| p.step).collect()
    }

    /// Names of the steps, children by their kind.
    fn words(&self) -> Vec<String> {
        let word = |step: Step| {
            if let Step::Apply(child) = &step {
                child.kind.to_owned()
            } else {
                step.name().to_owned()
            }
        };
        self.steps().into_iter().map(word).collect()
    }

    fn redis_conf(&self) -> String {
        let stored = &self.observed.children[&("ConfigMap", "orders-config".to_owned())];
        stored["data"]["redis.conf"].as_str().unwrap().to_owned()
    }
}

fn one() -> Value {
    json!({"replicas": 1, "storage": {"ephemeral": {}}})
}

fn with(field: &str, value: Value) -> Value {
    let mut spec = one();
    spec[field] = value;
    spec
}

#[tokio::test]
async fn nothing_is_planned_when_everything_is_as_it_should_be() {
    let mut world = World::new(&one(), 2);
    world.answer(&[]);
    // The label for people is the only thing that the pod's template does not bring.
    assert_eq!(world.words(), ["label a pod"]);
}

#[tokio::test]
async fn members_judge_directives_before_new_processes_start_with_them() {
    let mut world = World::new(&one(), 2);
    world.respecify(&with("config", json!({"timeout": "300", "nonsense": "1"})));
    assert_eq!(world.words(), ["push configuration", "label a pod"]);
    world.answer(&[("nonsense", "Unknown option", Cure::Correction)]);
    world.observed.now = second(1);
    let words = world.words();
    assert!(words.contains(&"ConfigMap".to_owned()) && words.contains(&"StatefulSet".to_owned()));
    world.write_children();
    let text = world.redis_conf();
    assert!(
        text.contains("timeout 300") && !text.contains("nonsense"),
        "{text}"
    );
    let plan = world.plan();
    assert_eq!(
        plan.config.refused,
        ["spec.config.nonsense: Unknown option"]
    );
    assert_eq!(plan.rollout, Rollout::Done);
}

#[tokio::test]
async fn a_directive_that_is_read_at_start_only_replaces_the_pod_once() {
    let mut world = World::new(&one(), 2);
    world.respecify(&with("config", json!({"io-threads": "2"})));
    world.answer(&[("io-threads", "it is read at start only", Cure::Restart)]);
    world.write_children();
    let plan = world.plan();
    let Rollout::Replace { member, reasons } = plan.rollout else {
        panic!("{:?}", plan.rollout)
    };
    assert_eq!(member, "orders-0");
    assert_eq!(reasons[0].to_string(), "io-threads is read at start only");
    assert!(plan.config.refused.is_empty());
    // A new process that refuses it still would refuse it for ever: that is told and not repeated.
    world.make_pod();
    let plan = world.plan();
    assert_eq!(plan.rollout, Rollout::Done);
    assert_eq!(
        plan.config.refused,
        ["spec.config.io-threads: it is read at start only"]
    );
}

/// Whether the set is told to be ready, and why.
fn readiness(world: &World) -> (Truth, ReadyReason) {
    let (set, view) = (world.set(), &world.observed.view);
    let found = findings(&set, view, &world.plan(), None);
    let ready = found.iter().find(|f| f.kind == ConditionType::Ready);
    ready.map(|f| (f.truth, f.reason)).unwrap()
}

#[tokio::test]
async fn a_set_is_not_ready_before_the_next_operator_has_heard_its_members() {
    let mut world = World::new(&one(), 2);
    world.respecify(&with("config", json!({"io-threads": "2"})));
    world.answer(&[("io-threads", "it is read at start only", Cure::Restart)]);
    world.write_children();
    assert_eq!(readiness(&world), (Truth::False, ReadyReason::RollingOut));
    // Another operator acts now.
    world.observed.config_answers.clear();
    let Plan {
        config, wake_after, ..
    } = world.plan();
    assert_eq!(
        config.judged,
        configuration::Judged::Yes,
        "nothing is held back"
    );
    assert_eq!(wake_after, Some(HEAR_AFTER));
    let telling = (Truth::False, ReadyReason::ApplyingConfig);
    assert_eq!(readiness(&world), telling);

    // A set that was as specified stays so meanwhile, and so does one that is paused.
    let as_specified = (Truth::True, ReadyReason::AsSpecified);
    let mut world = World::new(&one(), 2);
    assert_eq!(readiness(&world), telling);
    let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "", "observedGeneration": 2,
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = vec![serde_json::from_value(ready).unwrap()];
    world.observed.set.status.as_mut().unwrap().conditions = conditions;
    assert_eq!(readiness(&world), as_specified);
    world.observed.set.metadata.generation = Some(3);
    assert_eq!(readiness(&world), telling);
    world.observed.set.spec.paused = true;
    assert_eq!(readiness(&world), as_specified);
}

#[tokio::test]
async fn a_pod_is_replaced_only_when_its_successor_will_be_as_wanted() {
    let mut world = World::new(&one(), 2);
    let mut spec = with("config", json!({"timeout": "300"}));
    spec["image"] = json!("server:2");
    world.respecify(&spec);
    let plans = |world: &World, step: &str| world.words().iter().any(|word| word == step);
    // The directives are not judged, so the template stays as it is.
    assert!(!plans(&world, "StatefulSet") && !plans(&world, "delete a pod"));
    let rollout = world.plan().rollout;
    assert!(matches!(rollout, Rollout::Wait { .. }), "{rollout:?}");
    world.answer(&[]);
    assert!(plans(&world, "StatefulSet") && !plans(&world, "delete a pod"));
    world.write_children();
    for (generation, replaced) in [(1, false), (2, true)] {
        let key = ("StatefulSet", names::workload("orders"));
        let workload = world.observed.children.get_mut(&key).unwrap();
        workload["metadata"]["generation"] = json!(2);
        workload["status"]["observedGeneration"] = json!(generation);
        assert!(!plans(&world, "StatefulSet"));
        assert_eq!(plans(&world, "delete a pod"), replaced);
    }
}

#[tokio::test]
async fn a_change_of_live_directives_replaces_no_pod() {
    let mut world = World::new(&one(), 2);
    world.respecify(&with("config", json!({"timeout": "300"})));
    world.answer(&[]);
    assert_eq!(world.plan().rollout, Rollout::Done);
}

#[tokio::test]
async fn the_timer_rotates_what_was_generated_when_its_time_has_come() {
    let auth = json!({"rotateEvery": "10m", "overlap": "1m"});
    let mut world = World::new(&with("auth", auth), 2);
    world.answer(&[]);
    let minutes = |n: i64| second(0) + SignedDuration::from_mins(n);
    world.observed.now = minutes(4);
    let plan = world.plan();
    assert_eq!(plan.wake_after, Some(Duration::from_secs(360)));
    assert_eq!(plan.secrets.next_at[0], Some(Time(minutes(10))));
    assert!(!world.words().contains(&"store credentials".to_owned()));
    world.observed.now = minutes(10);
    let steps = world.steps();
    let stored: Vec<&CredentialsDraft> = steps.iter().filter_map(draft).collect();
    let [both] = stored.as_slice() else {
        panic!("{stored:?}")
    };
    for ring in [&both.client, &both.replication] {
        assert_eq!((ring.revision, &ring.newest), (2, &NewPassword::Generated));
        assert!(ring.previous.is_some());
    }
}

/// The credentials that a step stores.
fn draft(step: &Step) -> Option<&CredentialsDraft> {
    if let Step::StoreCredentials { wanted, .. } = step {
        Some(wanted)
    } else {
        None
    }
}

#[tokio::test]
async fn a_changed_secret_of_the_user_rotates_and_a_lost_one_does_not() {
    for (field, kind, password) in [
        ("clientSecretName", CredentialKind::Client, "client"),
        (
            "replicationSecretName",
            CredentialKind::Replication,
            "replication",
        ),
    ] {
        changes_and_is_lost(field, kind, password);
    }
}

/// A set whose `password` comes from the Secret that this field names.
fn changes_and_is_lost(field: &str, kind: CredentialKind, password: &str) {
    let mut world = World::new(&with("auth", json!({field: "mine"})), 2);
    world.answer(&[]);
    let give = |world: &mut World, secret: ReferencedSecret| {
        let references = &mut world.observed.references;
        match kind {
            CredentialKind::Client => references.client = secret,
            CredentialKind::Replication => references.replication = secret,
        }
    };
    let secret = |password: &str| {
        let encoded = serde_json::from_value(json!({
            "data": {"password": k8s_openapi::ByteString(password.as_bytes().to_vec())},
        }));
        ReferencedSecret::Found(Box::new(encoded.unwrap()))
    };
    give(&mut world, secret(password));
    assert_eq!(world.words(), ["label a pod"]);
    give(&mut world, ReferencedSecret::Missing);
    assert_eq!(world.words(), ["label a pod"]);
    let problem = world.plan().secrets.problem.unwrap();
    assert!(
        problem.starts_with(&format!(
            "spec.auth.{field}: Secret mine: it does not exist"
        )),
        "{problem}"
    );
    give(&mut world, secret("changed"));
    let steps = world.steps();
    let given = NewPassword::Given(Password::new("changed"));
    let drafts: Vec<CredentialsDraft> = steps.iter().filter_map(draft).cloned().collect();
    let [mut wanted] = drafts.try_into().expect("one write");
    for ring in CredentialKind::ALL {
        let changed = wanted.ring(ring).newest == given;
        assert_eq!(changed, ring == kind, "{ring:?}");
    }
    let caused = |step: &Step| {
        matches!(step, Step::RecordRotation { kind: whose, state, .. }
            if *whose == kind && state.cause == Some(RotationCause::SecretChanged))
    };
    assert!(steps.iter().any(caused), "{steps:?}");
}

#[tokio::test]
async fn a_mistake_elsewhere_in_the_spec_does_not_freeze_passwords() {
    let secret = |password: &str| {
        let encoded = serde_json::from_value(json!({
            "data": {"password": k8s_openapi::ByteString(password.as_bytes().to_vec())},
        }));
        ReferencedSecret::Found(Box::new(encoded.unwrap()))
    };
    let defaults = Defaults {
        server_image: "server:1".into(),
    };
    let cases = [
        (json!({"resources": {"limits": {"memory": "much"}}}), true),
        (json!({"paused": true, "replicas": 10}), false),
    ];
    for (mistake, goes_on) in cases {
        let mut world = World::new(&with("auth", json!({"clientSecretName": "mine"})), 2);
        let mut spec = with("auth", json!({"clientSecretName": "mine"}));
        for (field, value) in mistake.as_object().unwrap() {
            spec[field] = value.clone();
        }
        world.respecify(&spec);
        world.observed.references.client = secret("changed");
        let (set, references) = (&world.observed.set, &world.observed.references);
        let mistakes = validate(set, references, &defaults).unwrap_err();
        assert!(mistakes.spares_passwords());
        let plan = passwords(&tolerate_with(set, references, &defaults), &world.observed);
        let words: Vec<&str> = plan.steps.iter().map(|p| p.step.name()).collect();
        let expected = ["store credentials", "record the rotation"];
        assert_eq!(words == expected, goes_on, "{words:?}");
        assert!(goes_on || words.is_empty(), "{words:?}");
    }
    let wrong = with("auth", json!({"overlap": "never"}));
    let mistakes = validate(&object(&wrong), &References::default(), &defaults).unwrap_err();
    assert!(!mistakes.spares_passwords());
}

#[tokio::test]
async fn a_paused_set_is_looked_at_and_left_alone() {
    let mut spec = with("config", json!({"save": ""}));
    spec["paused"] = json!(true);
    spec["image"] = json!("other:2");
    let mut world = World::new(&one(), 2);
    world.respecify(&spec);
    let plan = world.plan();
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    assert_eq!(plan.members.len(), 1);
}

#[tokio::test]
async fn a_secret_that_could_not_be_read_is_read_again_and_one_that_is_missing_stalls() {
    let spec = with("auth", json!({"clientSecretName": "mine"}));
    let mut world = World::new(&spec, 2);
    world.observed.credentials = Credentials::Absent(Box::default());
    for (read, stalled, wakes) in [
        (ReferencedSecret::Unknown, false, true),
        (ReferencedSecret::Missing, true, false),
    ] {
        world.observed.references.client = read;
        let plan = world.plan();
        assert!(plan.steps.is_empty(), "{:?}", plan.steps);
        assert_eq!(plan.secrets.wake_after.is_some(), wakes);
        let found = findings(&world.set(), &world.observed.view, &plan, None);
        let of = |kind| found.iter().find(|f| f.kind == kind);
        assert_eq!(of(ConditionType::Stalled).is_some(), stalled);
        let secrets = of(ConditionType::SecretsCurrent).unwrap();
        assert_eq!(secrets.truth, Truth::False);
        let message = &secrets.message;
        assert!(
            message.starts_with("spec.auth.clientSecretName: Secret mine: it "),
            "{message}"
        );
    }
}
