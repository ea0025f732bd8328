use k8s_openapi::ByteString;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn set(spec: Value) -> RedisReplicaSet {
    let object = json!({
        "apiVersion": "redfleet.dev/v1alpha1",
        "kind": "RedisReplicaSet",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u-1", "generation": 3},
        "spec": spec,
    });
    serde_json::from_value(object).expect("a set")
}

fn check(spec: Value) -> Result<ValidatedSet, InvalidSpec> {
    validate(&set(spec), &References::default(), &defaults())
}

fn defaults() -> Defaults {
    Defaults {
        server_image: "redfleet/server:1".to_owned(),
    }
}

fn mistake(spec: Value) -> Mistake {
    let InvalidSpec(mut mistakes) = check(spec).expect_err("must be refused");
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes.remove(0)
}

fn secret(data: &[(&str, &[u8])]) -> ReferencedSecret {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())))
        .collect();
    ReferencedSecret::Found(Box::new(Secret {
        data: Some(data),
        ..Secret::default()
    }))
}

#[test]
fn the_smallest_spec_gets_every_default() {
    let set = check(json!({"storage": {"size": "8Gi"}})).expect("valid");
    assert_eq!(set.replicas, 3);
    assert_eq!(set.image, "redfleet/server:1");
    assert_eq!(set.max_lag, DEFAULT_MAX_LAG);
    assert_eq!(set.detect_after, DEFAULT_DETECT_AFTER);
    assert_eq!(set.auth.overlap, DEFAULT_OVERLAP);
    assert_eq!(set.auth.rotate_every, None);
    assert_eq!(set.pod.termination_grace_seconds, 30);
    assert_eq!(set.activity, Activity::Active);
    let keys: Vec<_> = set
        .spread
        .iter()
        .map(|c| (c.topology_key.as_str(), c.strictness))
        .collect();
    assert_eq!(
        keys,
        DEFAULT_SPREAD_KEYS.map(|key| (key, Strictness::Default))
    );
    assert_eq!(set.owner.name, "orders");
    assert_eq!(set.owner.controller, Some(true));
}

/// Spec, field, part of the cure.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        r#"{"replicas": 0, "storage": {"size": "8Gi"}}"#,
        "spec.replicas",
        "delete it with storage.retention: Retain",
    ),
    (
        r#"{"replicas": 10, "storage": {"size": "8Gi"}}"#,
        "spec.replicas",
        "REPLICAOF",
    ),
    (r#"{"storage": {}}"#, "spec.storage", "{ephemeral: {}}"),
    (
        r#"{"storage": {"size": "8Gi", "ephemeral": {}}}"#,
        "spec.storage",
        "exactly one",
    ),
    (
        r#"{"storage": {"ephemeral": {}, "retention": "Delete"}}"#,
        "spec.storage",
        "remove them",
    ),
    (
        r#"{"storage": {"size": "-8Gi"}}"#,
        "spec.storage.size",
        "8Gi",
    ),
    (r#"{"storage": {"size": "1"}}"#, "spec.storage.size", "64Mi"),
    (
        r#"{"storage": {"ephemeral": {"sizeLimit": "much"}}}"#,
        "spec.storage.ephemeral.sizeLimit",
        "8Gi",
    ),
];

/// The same, for parts of the spec beside a valid storage.
const MISTAKES_BESIDE_STORAGE: &[(&str, &str, &str)] = &[
    (
        r#"{"config": {"port": "1"}}"#,
        "spec.config.port",
        "spec.services",
    ),
    (
        r#"{"config": {"dir": "/"}}"#,
        "spec.config.dir",
        "spec.storage",
    ),
    (
        r#"{"config": {"requirepass": "x"}}"#,
        "spec.config.requirepass",
        "spec.auth.clientSecretName",
    ),
    (
        r#"{"config": {"replicaof": "a 1"}}"#,
        "spec.config.replicaof",
        "assigns the roles",
    ),
    (
        r#"{"config": {"managed": "no"}}"#,
        "spec.config.managed",
        "remove them",
    ),
    (
        r#"{"config": {"MaxMemory": "1"}}"#,
        "spec.config.MaxMemory",
        "lower case",
    ),
    (
        r#"{"config": {"save": "1 1\nport 7"}}"#,
        "spec.config.save",
        "one line",
    ),
    (
        r#"{"auth": {"rotateEvery": "30m"}}"#,
        "spec.auth.rotateEvery",
        "lower overlap",
    ),
    (
        r#"{"auth": {"overlap": "1d"}}"#,
        "spec.auth.overlap",
        "1h30m",
    ),
    (
        r#"{"auth": {"overlap": "721h"}}"#,
        "spec.auth.overlap",
        "720h",
    ),
    (
        r#"{"auth": {"clientSecretName": "orders-client"}}"#,
        "spec.auth.clientSecretName",
        "another name",
    ),
    (
        r#"{"auth": {"clientSecretName": "a", "replicationSecretName": "a"}}"#,
        "spec.auth",
        "different Secrets",
    ),
    (
        r#"{"failover": {"detectAfter": "1ms"}}"#,
        "spec.failover.detectAfter",
        "800ms",
    ),
    (
        r#"{"services": {"replicas": {"maxLag": "2h"}}}"#,
        "spec.services.replicas.maxLag",
        "10s",
    ),
    (
        r#"{"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}"#,
        "spec.podTemplate.labels",
        "other names",
    ),
    (
        r#"{"podTemplate": {"annotations": {"redfleet.dev/x": "x"}}}"#,
        "spec.podTemplate.annotations",
        "another prefix",
    ),
    (
        r#"{"resources": {"limits": {"memory": "lots"}}}"#,
        "spec.resources.limits.memory",
        "4Gi",
    ),
    (
        r#"{"resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "0.6"}}}"#,
        "spec.resources.requests.cpu",
        "spec.resources.limits.cpu (500m): lower it",
    ),
    (
        r#"{"podTemplate": {"labels": {"team": "the shop"}}}"#,
        "spec.podTemplate.labels[team]",
        "write for example team-1",
    ),
    (
        r#"{"podTemplate": {"nodeSelector": {"disk": "-fast"}}}"#,
        "spec.podTemplate.nodeSelector[disk]",
        "beginning and ending with",
    ),
    (
        r#"{"podTemplate": {"annotations": {"no such": "key"}}}"#,
        "spec.podTemplate.annotations[no such]",
        "example.com/team",
    ),
    (
        r#"{"services": {"master": {"annotations": {"example.com/a/b": "x"}}}}"#,
        "spec.services.master.annotations[example.com/a/b]",
        "example.com/team",
    ),
    (
        r#"{"placement": {"spread": [{"topologyKey": ""}]}}"#,
        "spec.placement.spread[0].topologyKey",
        "topology.kubernetes.io/zone",
    ),
];

#[test]
fn every_mistake_names_its_field_and_the_cure() {
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let whole = MISTAKES
        .iter()
        .map(|(spec, field, cure)| (parse(spec), field, cure));
    let beside = MISTAKES_BESIDE_STORAGE.iter().map(|(part, field, cure)| {
        let mut spec = parse(part);
        spec["storage"] = json!({"size": "8Gi"});
        (spec, field, cure)
    });
    for (spec, field, cure) in whole.chain(beside) {
        let found = mistake(spec.clone());
        assert_eq!(found.field, *field, "{spec}");
        assert!(found.message.contains(cure), "{spec}: {}", found.message);
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let error = check(json!({"replicas": 0, "storage": {"size": "x"}, "config": {"port": "1"}}))
        .expect_err("three mistakes");
    assert_eq!(error.0.len(), 3);
    assert!(error.to_string().contains("spec.storage.size: "));
}

#[test]
fn names_that_cannot_name_services_are_refused() {
    for name in ["1orders", "Orders", "orders-", "", "a.b", &"x".repeat(41)] {
        let mut wrong = set(json!({"storage": {"size": "8Gi"}}));
        wrong.metadata.name = Some(name.to_owned());
        let error = validate(&wrong, &References::default(), &defaults()).expect_err(name);
        assert_eq!(error.0[0].field, "metadata.name");
    }
}

#[test]
fn a_missing_secret_is_no_mistake_of_the_spec() {
    let object = set(json!({"storage": {"size": "8Gi"}, "auth": {"clientSecretName": "mine"}}));
    let problem = |client: ReferencedSecret| {
        let references = References {
            client,
            replication: ReferencedSecret::Unknown,
        };
        match validate(&object, &references, &defaults())
            .expect("valid")
            .auth
            .client
        {
            CredentialSource::Referenced { secret, password } => {
                assert_eq!(secret, "mine");
                password
            }
            CredentialSource::Generated => panic!("it is referenced"),
        }
    };
    assert_eq!(
        problem(ReferencedSecret::Missing),
        Err(SecretProblem::Missing)
    );
    assert_eq!(
        problem(ReferencedSecret::Unknown),
        Err(SecretProblem::Unknown)
    );
    assert_eq!(
        problem(secret(&[("password", b"s3cret")])),
        Ok(Password::new("s3cret"))
    );
    for (data, cure) in [
        (secret(&[("pass", b"x")]), "add it"),
        (secret(&[("password", b"")]), "write a password"),
        (secret(&[("password", b"x\n")]), "echo -n"),
        (secret(&[("password", b"a b")]), "space"),
        (secret(&[("password", &[0xff])]), "UTF-8"),
        (secret(&[("password", &[b'x'; 513])]), "shorter"),
    ] {
        let Err(SecretProblem::Invalid(text)) = problem(data) else {
            panic!("{cure}: must be invalid")
        };
        assert!(text.contains(cure), "{text}");
    }
}

/// A set with this rotate annotation.
fn annotated(value: &str) -> RedisReplicaSet {
    let mut object = set(json!({"storage": {"size": "8Gi"}}));
    let annotation = (api::ROTATE_ANNOTATION.to_owned(), value.to_owned());
    object.metadata.annotations = Some([annotation].into());
    object
}

proptest! {
    #[test]
    fn any_rotate_annotation_is_a_request_or_a_mistake(
        value in prop_oneof!["\\PC{0,40}", "(client|replication|all|al)[@ ]?\\PC{0,20}"],
    ) {
        let scope = value.split('@').next().unwrap();
        let known = ["client", "replication", "all"].contains(&scope);
        match rotation_request(&annotated(&value)) {
            Ok(request) => {
                prop_assert!(known);
                prop_assert_eq!(request.map(|r| r.token), Some(value));
            }
            Err(mistake) => {
                prop_assert!(!known);
                prop_assert!(mistake.contains(api::ROTATE_ANNOTATION));
            }
        }
    }
}

#[test]
fn the_annotation_asks_for_a_rotation() {
    let ask = |value: &str| {
        let object = annotated(value);
        let set = validate(&object, &References::default(), &defaults());
        let auth = set.expect("the rest goes on").auth;
        (auth.request.map(|r| r.scope), auth.request_mistake)
    };
    assert_eq!(ask("client@1"), (Some(RotationScope::Client), None));
    assert_eq!(ask("replication"), (Some(RotationScope::Replication), None));
    assert_eq!(
        ask("all@2026-11-23T10:00:00Z"),
        (Some(RotationScope::All), None)
    );
    let (scope, mistake) = ask("everything");
    assert_eq!(scope, None);
    assert!(mistake.expect("it is wrong").contains("client@1"));
}

#[test]
fn a_request_to_rotate_what_is_the_users_names_the_secret_to_change() {
    let ask = |token: &str, auth: Value, seen: Option<&str>| {
        let mut object = annotated(token);
        object.spec.auth = serde_json::from_value(auth).unwrap();
        let status = object.status.get_or_insert_default();
        status.rotation.client.request = seen.map(str::to_owned);
        let auth = validate(&object, &References::default(), &defaults()).unwrap();
        (auth.auth.request.is_some(), auth.auth.request_mistake)
    };
    let client = json!({"clientSecretName": "mine"});
    let both = json!({"clientSecretName": "mine", "replicationSecretName": "theirs"});
    let (requested, mistake) = ask("client@1", client.clone(), Some("client@0"));
    assert!(!requested);
    let told = "change Secret mine (spec.auth.clientSecretName) instead, and remove the annotation";
    assert!(mistake.unwrap().ends_with(told));
    let (_, mistake) = ask("all@1", both, None);
    assert!(
        mistake
            .unwrap()
            .contains("(spec.auth.clientSecretName) and Secret theirs")
    );
    for (token, seen) in [
        ("replication@1", None),
        ("all@1", None),
        // Made before there was a Secret.
        ("client@1", Some("client@1")),
    ] {
        assert_eq!(ask(token, client.clone(), seen), (true, None), "{token}");
    }
}

#[test]
fn a_spec_with_mistakes_is_guarded_by_what_is_right_of_it() {
    let mistaken = set(json!({
        "storage": {"size": "8Gi", "ephemeral": {}}, "config": {"maxmemory_policy": "noeviction"},
        "failover": {"detectAfter": "3s"}, "services": {"replicas": {"maxLag": "soon"}},
    }));
    assert!(validate(&mistaken, &References::default(), &defaults()).is_err());
    let guarded = tolerate(&mistaken, &defaults());
    assert_eq!(guarded.detect_after, Duration::from_secs(3));
    assert_eq!(guarded.max_lag, DEFAULT_MAX_LAG);
    assert!(!guarded.storage.is_ephemeral(), "data that must last");
}

#[test]
fn a_password_is_never_shown() {
    assert!(!format!("{:?}", Password::new("s3cret")).contains("s3cret"));
}

#[test]
fn the_config_revision_changes_with_names_and_values_only() {
    let revision = |config: Value| {
        check(json!({"storage": {"size": "8Gi"}, "config": config}))
            .expect("valid")
            .config_revision()
    };
    let first = revision(json!({"save": "1 1", "timeout": "0"}));
    assert_eq!(first, revision(json!({"timeout": "0", "save": "1 1"})));
    assert_ne!(first, revision(json!({"timeout": "0", "save": "1 2"})));
    assert_ne!(revision(json!({"a": "bc"})), revision(json!({"ab": "c"})));
}
