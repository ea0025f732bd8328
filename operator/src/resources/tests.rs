use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    endpoints::{AddressFamily, Backend, Target, endpoint_slice},
    secrets::{Ring, ServerCredentials, read_server_secret},
    *,
};
use crate::{
    api::v1alpha1::RedisReplicaSet,
    reconcile::validate::{Defaults, References, validate},
    set::Password,
};

pub(super) fn set(spec: Value) -> ValidatedSet {
    let object: RedisReplicaSet = serde_json::from_value(json!({
        "apiVersion": "redfleet.dev/v1alpha1",
        "kind": "RedisReplicaSet",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "0b6d", "generation": 1},
        "spec": spec,
    }))
    .expect("a set");
    let defaults = Defaults {
        server_image: "redfleet/server:1".to_owned(),
    };
    validate(&object, &References::default(), &defaults).expect("valid")
}

fn smallest() -> ValidatedSet {
    set(json!({"storage": {"size": "8Gi"}}))
}

/// Every field given.
fn fullest() -> ValidatedSet {
    set(json!({
        "replicas": 5,
        "image": "registry.example/server:2",
        "imagePullPolicy": "Always",
        "resources": {"limits": {"memory": "4Gi"}, "requests": {"cpu": "2", "memory": "4Gi"}},
        "storage": {"ephemeral": {"sizeLimit": "6Gi"}},
        "config": {"maxmemory-policy": "allkeys-lru", "save": ""},
        "placement": {"spread": [{"topologyKey": "example.com/rack", "require": true}]},
        "services": {
            "master": {"type": "LoadBalancer", "annotations": {"example.com/lb": "internal"}},
            "replicas": {"type": "NodePort", "maxLag": "30s"},
        },
        "podTemplate": {
            "labels": {"team": "shop"},
            "annotations": {"example.com/scrape": "true"},
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]},
            ]}}},
            "priorityClassName": "high",
            "serviceAccountName": "mine",
            "terminationGracePeriodSeconds": 60,
            "imagePullSecrets": [{"name": "pull"}],
        },
    }))
}

fn yaml<T: Serialize>(object: &T) -> String {
    let value = serde_json::to_value(object).expect("JSON");
    format!("---\n{}", serde_saphyr::to_string(&value).expect("YAML"))
}

fn all(desired: &Desired) -> String {
    let mut text = String::new();
    if let Some(account) = &desired.service_account {
        text.push_str(&yaml(account));
    }
    text.push_str(&yaml(&desired.config_map));
    text.push_str(&yaml(&desired.headless_service));
    text.push_str(&yaml(&desired.master_service));
    text.push_str(&yaml(&desired.replicas_service));
    text.push_str(&yaml(&desired.network_policy));
    text.push_str(&yaml(&desired.disruption_budget));
    text.push_str(&yaml(&desired.workload));
    text
}

fn credentials() -> ServerCredentials {
    ServerCredentials {
        client: Ring {
            revision: 2,
            newest: Password::new("c2"),
            previous: Some(Password::new("c1")),
        },
        replication: Ring::only(1, Password::new("r1")),
        control_token: Password::new("t"),
    }
}

#[test]
fn objects_of_the_smallest_spec() {
    insta::assert_snapshot!("smallest", all(&build(&smallest(), 3)));
}

#[test]
fn objects_of_the_fullest_spec() {
    insta::assert_snapshot!("fullest", all(&build(&fullest(), 5)));
}

#[test]
fn secrets_hold_what_clients_and_members_need() {
    let set = smallest();
    let text = |secret: &Secret| {
        let data = secret.data.iter().flatten();
        let lines: Vec<String> = data
            .map(|(key, value)| format!("{key}: {:?}", String::from_utf8_lossy(&value.0)))
            .collect();
        format!(
            "{}\n{}\n",
            secret.metadata.name.as_deref().unwrap_or_default(),
            lines.join("\n")
        )
    };
    let secrets = [
        secrets::client_secret(&set, &Password::new("c1")),
        secrets::replication_secret(&set, &Password::new("r1")),
        secrets::server_secret(&set, &credentials()),
    ];
    insta::assert_snapshot!("secrets", secrets.iter().map(text).collect::<String>());
}

#[test]
fn the_servers_secret_is_read_back_at_every_point_of_a_rotation() {
    let set = smallest();
    let first = ServerCredentials {
        client: Ring::only(1, Password::new("c1")),
        ..credentials()
    };
    let settled = ServerCredentials {
        client: Ring::only(2, Password::new("c2")),
        ..credentials()
    };
    for written in [first, credentials(), settled] {
        let secret = secrets::server_secret(&set, &written);
        assert_eq!(read_server_secret(&secret), Ok(written));
    }
}

#[test]
fn a_damaged_secret_names_the_key() {
    let set = smallest();
    let mut secret = secrets::server_secret(&set, &credentials());
    secret.data.get_or_insert_default().remove("replication-1");
    let error = read_server_secret(&secret).expect_err("a password is missing");
    assert!(
        error
            .to_string()
            .contains("orders-server lacks a usable replication password"),
        "{error}"
    );
    let error = read_server_secret(&Secret::default()).expect_err("empty");
    assert_eq!(error.key, secrets::CONTROL_TOKEN_FILE);
}

#[test]
fn a_member_starts_with_every_password_that_counts() {
    let both = ServerCredentials {
        replication: Ring {
            revision: 2,
            newest: Password::new("r2"),
            previous: Some(Password::new("r1")),
        },
        ..credentials()
    };
    let secret = secrets::server_secret(&smallest(), &both);
    let text = secret
        .data
        .and_then(|mut data| data.remove(secrets::CREDENTIALS_FILE));
    let text = String::from_utf8(text.expect("credentials").0).expect("text");
    let expected = [
        r#"requirepass "c2""#,
        "masteruser replication",
        r#"masterauth "r1""#,
        r#"accept-password default "c1""#,
        r#"accept-password replication "r2""#,
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn an_object_belongs_to_the_set_that_controls_it_or_that_it_names() {
    let set = smallest();
    let mut secret = secrets::server_secret(&set, &credentials());
    let whose = |secret: &Secret| Belonging::of(&secret.metadata, &set.name, &set.uid);
    assert_eq!(whose(&secret), Belonging::Ours);
    let labels = secret.metadata.labels.take();
    assert_eq!(whose(&secret), Belonging::Ours, "only its labels are lost");
    secret.metadata.owner_references = None;
    assert_eq!(whose(&secret), Belonging::Others, "a stranger of that name");
    secret.metadata.labels = labels;
    assert_eq!(whose(&secret), Belonging::Ours, "a copy that was restored");
    let mut owner = set.owner.clone();
    owner.uid = "other".to_owned();
    owner.controller = Some(true);
    let mut owned = |change: fn(&mut OwnerReference)| {
        let mut owner = owner.clone();
        change(&mut owner);
        secret.metadata.owner_references = Some(vec![owner]);
        whose(&secret)
    };
    assert_eq!(
        owned(|_| ()),
        Belonging::Leaving,
        "left of a set of that name"
    );
    let others: [fn(&mut OwnerReference); 3] = [
        |owner| owner.name = "another".to_owned(),
        |owner| owner.kind = "StatefulSet".to_owned(),
        |owner| owner.api_version = "example.com/v1".to_owned(),
    ];
    for change in others {
        assert_eq!(owned(change), Belonging::Others);
    }
    secret.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(whose(&secret), Belonging::Leaving, "it is being deleted");
}

#[test]
fn passwords_stay_one_word_of_the_configuration() {
    let mut hostile = credentials();
    hostile.client = Ring::only(1, Password::new(r#"a"\b"#));
    let secret = secrets::server_secret(&smallest(), &hostile);
    let text = secret
        .data
        .and_then(|mut data| data.remove(secrets::CREDENTIALS_FILE))
        .expect("credentials");
    let text = String::from_utf8(text.0).expect("text");
    assert_eq!(text.lines().next(), Some(r#"requirepass "a\"\\b""#));
}

#[test]
fn a_slice_leads_to_the_members_given_and_to_no_others() {
    let backend = |pod: &str, address: &str| Backend {
        pod: pod.to_owned(),
        pod_uid: format!("uid-{pod}"),
        address: address.parse::<IpAddr>().expect("an address"),
        node: Some("node-1".to_owned()),
        zone: Some("eu-1a".to_owned()),
    };
    let backends = [
        backend("orders-2", "10.0.0.2"),
        backend("orders-1", "10.0.0.1"),
        backend("orders-0", "fd00::1"),
    ];
    let set = smallest();
    let slices = [
        endpoint_slice(&set, Target::Replicas, AddressFamily::Ipv4, &backends),
        endpoint_slice(&set, Target::Replicas, AddressFamily::Ipv6, &backends),
        endpoint_slice(&set, Target::Master, AddressFamily::Ipv4, &[]),
    ];
    insta::assert_snapshot!("slices", slices.iter().map(yaml).collect::<String>());
}

#[test]
fn the_template_revision_follows_the_template_and_nothing_else() {
    let set = smallest();
    let revision = pod::template_revision(&set);
    let annotations = pod::template(&set)
        .metadata
        .and_then(|m| m.annotations)
        .expect("annotations");
    assert_eq!(
        annotations.get(names::TEMPLATE_REVISION_ANNOTATION),
        Some(&revision)
    );
    let more_members = ValidatedSet {
        replicas: 5,
        generation: 7,
        ..set.clone()
    };
    assert_eq!(pod::template_revision(&more_members), revision);
    let other_config = ValidatedSet {
        config: [("timeout".to_owned(), "1".to_owned())].into(),
        ..set.clone()
    };
    assert_eq!(
        pod::template_revision(&other_config),
        revision,
        "a new redis.conf is applied to running servers first"
    );
    let other_image = ValidatedSet {
        image: "other".to_owned(),
        ..set
    };
    assert_ne!(pod::template_revision(&other_image), revision);
}

#[test]
fn pods_hold_no_token_and_pass_the_restricted_profile() {
    for set in [smallest(), fullest()] {
        let pod = pod::template(&set).spec.expect("a pod");
        assert_eq!(pod.automount_service_account_token, Some(false));
        let security = pod.security_context.expect("security");
        assert_eq!(security.run_as_non_root, Some(true));
        assert_eq!(
            security.seccomp_profile.map(|p| p.type_).as_deref(),
            Some("RuntimeDefault")
        );
        for container in pod.containers {
            let security = container.security_context.expect("security");
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_eq!(
                security.capabilities.and_then(|c| c.drop),
                Some(vec!["ALL".to_owned()])
            );
        }
    }
}

#[test]
fn the_retention_of_volumes_is_as_specified() {
    let policy = |storage: Value| {
        let workload = build(&set(json!({"storage": storage})), 3).workload;
        let policy = workload
            .spec
            .unwrap()
            .persistent_volume_claim_retention_policy;
        policy.map(|p| (p.when_deleted.unwrap(), p.when_scaled.unwrap()))
    };
    let both = |word: &str| Some((word.to_owned(), word.to_owned()));
    assert_eq!(policy(json!({"size": "1Gi"})), both("Retain"));
    for word in ["Retain", "Delete"] {
        assert_eq!(
            policy(json!({"size": "1Gi", "retention": word})),
            both(word)
        );
    }
    assert_eq!(policy(json!({"ephemeral": {}})), None);
}

/// A password that a user may choose.
fn password() -> impl Strategy<Value = Password> {
    "[!-~é漢]{1,40}".prop_map(|text| Password::check(text.as_bytes()).unwrap())
}

fn ring() -> impl Strategy<Value = Ring> {
    let previous = proptest::option::of(password());
    (1_i64..1 << 40, password(), previous).prop_map(|(revision, newest, previous)| Ring {
        revision,
        newest,
        previous,
    })
}

proptest! {
    #[test]
    fn credentials_are_read_from_the_secret_that_they_were_written_to(
        client in ring(), replication in ring(), control_token in password(),
    ) {
        let credentials = ServerCredentials { client, replication, control_token };
        let secret = secrets::server_secret(&smallest(), &credentials);
        prop_assert_eq!(read_server_secret(&secret), Ok(credentials));
    }

    #[test]
    fn a_secret_that_others_wrote_into_is_read_or_refused(
        strange in proptest::collection::btree_map(
            prop_oneof![
                "(client|replication)-[-+0]?[0-9]{0,20}",
                "control-token",
                "[-._a-zA-Z0-9]{0,20}",
            ],
            proptest::collection::vec(any::<u8>(), 0..40),
            0..6,
        ),
    ) {
        let mut secret = secrets::server_secret(&smallest(), &credentials());
        let data = secret.data.get_or_insert_default();
        data.extend(strange.into_iter().map(|(key, value)| (key, ByteString(value))));
        if let Ok(read) = read_server_secret(&secret) {
            for revision in [read.client.revision, read.replication.revision] {
                let end = format!("-{revision}");
                let mut keys = secret.data.iter().flat_map(|data| data.keys());
                prop_assert!(keys.any(|key| key.ends_with(&end)));
                prop_assert!(revision.checked_add(1).is_some() && revision >= 0);
            }
        }
        // Without the rest, too.
        secret.data = None;
        prop_assert!(read_server_secret(&secret).is_err());
    }
}

#[test]
fn a_key_that_only_looks_like_a_revision_is_nobodys() {
    for stray in [
        "client-02",
        "client-+3",
        "client--1",
        "client-9223372036854775807",
    ] {
        let mut secret = secrets::server_secret(&smallest(), &credentials());
        let data = secret.data.get_or_insert_default();
        data.insert(stray.to_owned(), ByteString(b"stray".to_vec()));
        assert_eq!(read_server_secret(&secret), Ok(credentials()), "{stray}");
    }
}
