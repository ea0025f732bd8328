//! The CRD in a real API server: what it accepts, what it refuses and with which words, and its subresources.

use anyhow::{Context, bail, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use redfleet_operator::api::v1alpha1::{RedisReplicaSet, rules};
use redfleet_operator::reconcile::validate::{Defaults, References, validate};
use redfleet_operator::resources;
use redfleet_operator::resources::secrets::{Ring, ServerCredentials};
use redfleet_operator::set::{Password, ValidatedSet};
use redfleet_tests::apiserver::{ApiServer, repository};
use serde_json::{Value, json};

/// The shared server with the CRD, and a namespace of the test's own.
async fn server(namespace: &str) -> anyhow::Result<&'static ApiServer> {
    let server = ApiServer::shared()?;
    let definition = repository()
        .join("crds/redisreplicasets.yaml")
        .display()
        .to_string();
    server
        .kubectl(&["apply", "--server-side", "-f", &definition])
        .await?;
    server
        .wait_established("redisreplicasets.redfleet.dev")
        .await?;
    server.namespace(namespace).await?;
    Ok(server)
}

fn object(name: &str, spec: &Value) -> anyhow::Result<RedisReplicaSet> {
    serde_json::from_value(json!({
        "apiVersion": "redfleet.dev/v1alpha1",
        "kind": "RedisReplicaSet",
        "metadata": {"name": name},
        "spec": spec,
    }))
    .context("making a set")
}

fn yaml(name: &str, namespace: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "redfleet.dev/v1alpha1",
        "kind": "RedisReplicaSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
    .to_string()
}

/// With a valid storage, unless the spec has one.
fn with_storage(spec: &str) -> anyhow::Result<Value> {
    let mut spec: Value = serde_json::from_str(spec)?;
    if spec.get("storage").is_none() {
        spec["storage"] = json!({"size": "1Gi"});
    }
    Ok(spec)
}

/// Every rule that a new object can break, and its message.
const REFUSED: &[(&str, &str)] = &[
    (r#"{"replicas": 0}"#, rules::REPLICAS_MIN_MESSAGE),
    (r#"{"replicas": -1}"#, rules::REPLICAS_MIN_MESSAGE),
    (r#"{"replicas": 10}"#, rules::REPLICAS_MAX_MESSAGE),
    (r#"{"storage": {}}"#, rules::STORAGE_CHOICE_MESSAGE),
    (
        r#"{"storage": {"size": "1Gi", "ephemeral": {}}}"#,
        rules::STORAGE_CHOICE_MESSAGE,
    ),
    (
        r#"{"storage": {"ephemeral": {}, "retention": "Delete"}}"#,
        rules::STORAGE_VOLUME_ONLY_MESSAGE,
    ),
    (
        r#"{"storage": {"ephemeral": {}, "storageClassName": "fast"}}"#,
        rules::STORAGE_VOLUME_ONLY_MESSAGE,
    ),
    (
        r#"{"storage": {"size": "1Ki"}}"#,
        rules::STORAGE_SIZE_MESSAGE,
    ),
    (
        r#"{"storage": {"size": "-1Gi"}}"#,
        rules::STORAGE_SIZE_MESSAGE,
    ),
    (
        r#"{"storage": {"size": "65Ti"}}"#,
        rules::STORAGE_SIZE_MESSAGE,
    ),
    (
        r#"{"storage": {"size": "big"}}"#,
        rules::STORAGE_SIZE_MESSAGE,
    ),
    (
        r#"{"storage": {"ephemeral": {"sizeLimit": "0"}}}"#,
        rules::STORAGE_SIZE_MESSAGE,
    ),
    (
        r#"{"config": {"save": "1 1\nport 7"}}"#,
        rules::CONFIG_LINE_MESSAGE,
    ),
    (
        r#"{"config": {"port": "7000"}}"#,
        rules::CONFIG_ADDRESS_MESSAGE,
    ),
    (
        r#"{"config": {"bind": "0.0.0.0"}}"#,
        rules::CONFIG_ADDRESS_MESSAGE,
    ),
    (
        r#"{"config": {"dir": "/tmp"}}"#,
        rules::CONFIG_FILES_MESSAGE,
    ),
    (
        r#"{"config": {"replicaof": "a 1"}}"#,
        rules::CONFIG_ROLE_MESSAGE,
    ),
    (
        r#"{"config": {"requirepass": "x"}}"#,
        rules::CONFIG_CREDENTIAL_MESSAGE,
    ),
    (
        r#"{"config": {"masterauth": "x"}}"#,
        rules::CONFIG_CREDENTIAL_MESSAGE,
    ),
    (
        r#"{"config": {"managed": "no"}}"#,
        rules::CONFIG_PROCESS_MESSAGE,
    ),
    (r#"{"auth": {"overlap": "721h"}}"#, rules::OVERLAP_MESSAGE),
    (
        r#"{"auth": {"rotateEvery": "1h"}}"#,
        rules::ROTATE_EVERY_MESSAGE,
    ),
    (
        r#"{"auth": {"rotateEvery": "30s", "overlap": "1s"}}"#,
        rules::ROTATE_EVERY_MESSAGE,
    ),
    (
        r#"{"auth": {"clientSecretName": "a", "replicationSecretName": "a"}}"#,
        rules::SECRETS_DIFFER_MESSAGE,
    ),
    (
        r#"{"placement": {"spread": [{"topologyKey": "a zone"}]}}"#,
        rules::TOPOLOGY_KEY_MESSAGE,
    ),
    (
        r#"{"services": {"replicas": {"maxLag": "10ms"}}}"#,
        rules::MAX_LAG_MESSAGE,
    ),
    (
        r#"{"failover": {"detectAfter": "2m"}}"#,
        rules::DETECT_AFTER_MESSAGE,
    ),
    (
        r#"{"services": {"master": {"annotations": {"redfleet.dev/x": "y"}}}}"#,
        rules::RESERVED_KEYS_MESSAGE,
    ),
    (
        r#"{"podTemplate": {"annotations": {"redfleet.dev/x": "y"}}}"#,
        rules::RESERVED_KEYS_MESSAGE,
    ),
    (
        r#"{"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}"#,
        rules::RESERVED_LABELS_MESSAGE,
    ),
    (
        r#"{"podTemplate": {"terminationGracePeriodSeconds": 1}}"#,
        rules::GRACE_MESSAGE,
    ),
    // Refused by the schema itself, in Kubernetes' words.
    (r#"{"auth": {"overlap": "1 day"}}"#, "should match"),
    (
        r#"{"config": {"appendonly": true}}"#,
        "must be of type string",
    ),
    (
        r#"{"replicas": 3, "replica": 4}"#,
        "unknown field \"spec.replica\"",
    ),
    (
        r#"{"services": {"master": {"type": "ExternalName"}}}"#,
        "supported values: \"ClusterIP\"",
    ),
    (
        r#"{"placement": {"spread": [{"topologyKey": "a"}, {"topologyKey": "a"}]}}"#,
        "Duplicate value",
    ),
];

#[tokio::test]
async fn mistakes_are_refused_with_the_cure() -> anyhow::Result<()> {
    let server = server("refused").await?;
    for (spec, message) in REFUSED {
        let yaml = yaml("wrong", "refused", &with_storage(spec)?);
        match server
            .kubectl_with_input(&["create", "--validate=strict", "-f", "-"], &yaml)
            .await
        {
            Ok(_) => bail!("accepted: {spec}"),
            Err(error) => ensure!(
                error.to_string().contains(message),
                "{spec} was refused, but not for {message:?}: {error}"
            ),
        }
    }
    for name in ["1st", &"x".repeat(41)] {
        let refused = server
            .kubectl_with_input(
                &["create", "-f", "-"],
                &yaml(name, "refused", &json!({"storage": {"size": "1Gi"}})),
            )
            .await;
        let Err(error) = refused else {
            bail!("the name {name} was accepted")
        };
        ensure!(error.to_string().contains(rules::NAME_MESSAGE), "{error}");
    }
    let refused = server
        .kubectl_with_input(
            &["create", "-f", "-"],
            &yaml("none", "refused", &json!({"replicas": 1})),
        )
        .await;
    let Err(error) = refused else {
        bail!("a set without storage was accepted")
    };
    ensure!(
        error.to_string().contains("spec.storage: Required value"),
        "{error}"
    );
    Ok(())
}

/// What an existing object may not become: before, after, message.
const CHANGES_REFUSED: &[(&str, &str, &str)] = &[
    (
        r#"{"size": "1Gi"}"#,
        r#"{"ephemeral": {}}"#,
        rules::STORAGE_SWITCH_MESSAGE,
    ),
    (
        r#"{"ephemeral": {}}"#,
        r#"{"size": "1Gi"}"#,
        rules::STORAGE_SWITCH_MESSAGE,
    ),
    (
        r#"{"size": "1Gi"}"#,
        r#"{"size": "2Gi"}"#,
        rules::STORAGE_SIZE_CHANGE_MESSAGE,
    ),
    (
        r#"{"size": "2Gi"}"#,
        r#"{"size": "1Gi"}"#,
        rules::STORAGE_SIZE_CHANGE_MESSAGE,
    ),
    (
        r#"{"size": "1Gi"}"#,
        r#"{"size": "1Gi", "storageClassName": "fast"}"#,
        rules::STORAGE_CLASS_CHANGE_MESSAGE,
    ),
    (
        r#"{"size": "1Gi", "storageClassName": "fast"}"#,
        r#"{"size": "1Gi"}"#,
        rules::STORAGE_CLASS_CHANGE_MESSAGE,
    ),
];

#[tokio::test]
async fn what_is_for_life_cannot_be_changed() -> anyhow::Result<()> {
    let server = server("changes").await?;
    let sets: Api<RedisReplicaSet> = Api::namespaced(server.client().await?, "changes");
    for (index, (before, after, message)) in CHANGES_REFUSED.iter().enumerate() {
        let spec =
            |storage: &str| anyhow::Ok(json!({"storage": serde_json::from_str::<Value>(storage)?}));
        let name = format!("set-{index}");
        let created = sets
            .create(&PostParams::default(), &object(&name, &spec(before)?)?)
            .await?;
        let mut changed = object(&name, &spec(after)?)?;
        changed.metadata.resource_version = created.metadata.resource_version;
        match sets.replace(&name, &PostParams::default(), &changed).await {
            Ok(_) => bail!("{before} could become {after}"),
            Err(error) => ensure!(error.to_string().contains(message), "{after}: {error}"),
        }
    }
    // The same size in other words is no change, and retention is free.
    let same = json!({"spec": {"storage": {"size": "1024Mi", "retention": "Delete"}}});
    sets.patch("set-0", &PatchParams::default(), &Patch::Merge(same))
        .await
        .context("1024Mi is 1Gi")?;
    Ok(())
}

#[tokio::test]
async fn every_example_is_accepted_and_applying_it_twice_changes_nothing() -> anyhow::Result<()> {
    let server = server("examples").await?;
    let examples = repository().join("examples");
    let path = |name: &str| examples.join(name).display().to_string();
    let sources = [
        ["-f", &path("quickstart.yaml")],
        ["-f", &path("cache.yaml")],
        ["-f", &path("zones.yaml")],
        ["-k", &path("gitops/production")],
    ];
    for [how, source] in sources {
        let apply = ["apply", "--validate=strict", "-n", "examples", how, source];
        server.kubectl(&apply).await?;
        let before = server.versions(&[how, source], "examples").await?;
        server.kubectl(&apply).await?;
        let after = server.versions(&[how, source], "examples").await?;
        ensure!(
            before == after && !after.is_empty(),
            "{source}: {before:?} became {after:?}"
        );
    }
    let listed = server.get("rrs", "examples").await?;
    for set in listed["items"].as_array().context("a list")? {
        ensure!(
            set["metadata"]["generation"] == 1,
            "{} changed",
            set["metadata"]["name"]
        );
        let set: RedisReplicaSet = serde_json::from_value(set.clone())?;
        validate(&set, &References::default(), &defaults())?;
    }
    Ok(())
}

#[tokio::test]
async fn scale_reads_and_writes_the_number_of_members() -> anyhow::Result<()> {
    let server = server("scaling").await?;
    let sets: Api<RedisReplicaSet> = Api::namespaced(server.client().await?, "scaling");
    sets.create(
        &PostParams::default(),
        &object("orders", &json!({"storage": {"size": "1Gi"}}))?,
    )
    .await?;
    let scale = sets.get_scale("orders").await?;
    ensure!(
        scale.spec.and_then(|spec| spec.replicas) == Some(3),
        "the default must be visible to autoscalers"
    );
    server
        .kubectl(&["scale", "-n", "scaling", "rrs/orders", "--replicas=5"])
        .await?;
    ensure!(sets.get("orders").await?.spec.replicas == 5);
    let Err(error) = server
        .kubectl(&["scale", "-n", "scaling", "rrs/orders", "--replicas=0"])
        .await
    else {
        bail!("it was scaled to nothing");
    };
    ensure!(
        error.to_string().contains(rules::REPLICAS_MIN_MESSAGE),
        "{error}"
    );
    let status = json!({"status": {"replicas": 4, "selector": "a=b"}});
    sets.patch_status("orders", &PatchParams::default(), &Patch::Merge(status))
        .await?;
    let scale = sets.get_scale("orders").await?.status.context("a status")?;
    ensure!(
        (scale.replicas, scale.selector.as_deref()) == (4, Some("a=b")),
        "{scale:?}"
    );
    Ok(())
}

fn full_status() -> Value {
    let now = Timestamp::UNIX_EPOCH.to_string();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "AsSpecified", "message": "", "lastTransitionTime": now, "observedGeneration": 1});
    json!({"status": {
        "observedGeneration": 1, "bootstrapped": true, "term": 7, "electionTerm": 8, "elector": "operator-a",
        "master": "orders-1", "masterSince": now, "replicas": 3, "readyMembers": "2/3",
        "selector": "a=b", "configRevision": "4f2a", "voters": ["orders-0", "orders-1", "orders-2"],
        "members": [{"name": "orders-1", "role": "Master", "ready": true, "node": "n", "zone": "z", "term": 7, "offset": 918273,
            "lag": "100ms", "vote": true, "configRevision": "4f2a", "secretRevision": 9, "image": "i", "message": "m"}],
        "relocation": {"podUid": "u", "nodes": ["n"]},
        "rotation": {"client": {"revision": 9, "phase": "Overlapping", "since": now, "cause": "Timer", "startedAt": now,
            "completedAt": now, "nextAt": now, "request": "client@1", "members": [{"name": "orders-0", "applied": "9-both"}], "message": "m"}},
        "failovers": [{"at": now, "term": 7, "from": "orders-0", "to": "orders-1", "reason": "NodeLost", "detected": "1100ms",
            "served": "2200ms", "lostBytes": 0, "possibleLoss": "NoMajority"}],
        "conditions": [condition("Ready"), condition("Available")],
    }})
}

#[tokio::test]
async fn status_is_apart_from_the_spec_and_fills_the_columns() -> anyhow::Result<()> {
    let server = server("status").await?;
    let sets: Api<RedisReplicaSet> = Api::namespaced(server.client().await?, "status");
    let created = sets
        .create(
            &PostParams::default(),
            &object("orders", &json!({"storage": {"size": "1Gi"}}))?,
        )
        .await?;
    let strict = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let patched = sets
        .patch_status("orders", &strict, &Patch::Merge(full_status()))
        .await?;
    ensure!(
        patched.metadata.generation == created.metadata.generation,
        "a status must not be a new generation"
    );
    ensure!(patched.spec == created.spec);
    // Read into our types and back, nothing is lost.
    let back = serde_json::to_value(patched.status.context("a status")?)?;
    ensure!(back == full_status()["status"], "{back:#}");
    let table = server.kubectl(&["get", "rrs", "-n", "status"]).await?;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(
        rows[0] == ["NAME", "READY", "MASTER", "MEMBERS", "AGE"],
        "{table}"
    );
    ensure!(
        rows[1][..4] == ["orders", "True", "orders-1", "2/3"],
        "{table}"
    );
    let spec = json!({"status": {"term": 99}});
    let untouched = sets
        .patch("orders", &PatchParams::default(), &Patch::Merge(spec))
        .await?;
    ensure!(
        untouched.status.map(|status| status.term) == Some(7),
        "a write to the spec must not reach the status"
    );
    let wrong = json!({"status": {"failovers": [{"at": "yesterday", "term": 1, "to": "a", "reason": "NodeLost"}]}});
    ensure!(
        sets.patch_status("orders", &PatchParams::default(), &Patch::Merge(wrong))
            .await
            .is_err()
    );
    Ok(())
}

fn defaults() -> Defaults {
    Defaults {
        server_image: "redfleet.dev/server:1".to_owned(),
    }
}

/// Server-side apply of one object, twice; the second time must change nothing.
async fn apply_twice<K>(server: &ApiServer, object: &K) -> anyhow::Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + serde::Serialize,
    K: serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let meta = object.meta();
    let (name, namespace) = (
        meta.name.clone().unwrap_or_default(),
        meta.namespace.clone().unwrap_or_default(),
    );
    let api: Api<K> = Api::namespaced(server.client().await?, &namespace);
    let mut params = PatchParams::apply("test");
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let kind = K::kind(&());
    let first = api
        .patch(&name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("applying {kind} {name}"))?;
    let second = api.patch(&name, &params, &Patch::Apply(object)).await?;
    ensure!(
        first.meta().resource_version == second.meta().resource_version,
        "{kind} {name} changed when applied again"
    );
    Ok(())
}

async fn stored_set(
    server: &ApiServer,
    namespace: &str,
    spec: &Value,
) -> anyhow::Result<ValidatedSet> {
    let sets: Api<RedisReplicaSet> = Api::namespaced(server.client().await?, namespace);
    let stored = sets
        .create(&PostParams::default(), &object("orders", spec)?)
        .await?;
    Ok(validate(&stored, &References::default(), &defaults())?)
}

async fn apply_everything(server: &ApiServer, set: &ValidatedSet) -> anyhow::Result<()> {
    let desired = resources::build(set, set.replicas);
    if let Some(account) = &desired.service_account {
        apply_twice(server, account).await?;
    }
    apply_twice(server, &desired.config_map).await?;
    apply_twice(server, &desired.headless_service).await?;
    apply_twice(server, &desired.master_service).await?;
    apply_twice(server, &desired.replicas_service).await?;
    apply_twice(server, &desired.network_policy).await?;
    apply_twice(server, &desired.disruption_budget).await?;
    apply_twice(server, &desired.workload).await?;
    let ring = || Ring::only(1, Password::new("secret"));
    let credentials = ServerCredentials {
        client: ring(),
        replication: ring(),
        control_token: Password::new("token"),
    };
    apply_twice(
        server,
        &resources::secrets::server_secret(set, &credentials),
    )
    .await?;
    apply_twice(
        server,
        &resources::secrets::client_secret(set, &Password::new("secret")),
    )
    .await?;
    apply_twice(
        server,
        &resources::secrets::replication_secret(set, &Password::new("secret")),
    )
    .await?;
    let backend = resources::endpoints::Backend {
        pod: "orders-0".to_owned(),
        pod_uid: "0b6d".to_owned(),
        address: "10.1.2.3".parse()?,
        node: Some("node-1".to_owned()),
        zone: Some("eu-1a".to_owned()),
    };
    for target in [
        resources::endpoints::Target::Master,
        resources::endpoints::Target::Replicas,
    ] {
        let slice = resources::endpoints::endpoint_slice(
            set,
            target,
            resources::endpoints::AddressFamily::Ipv4,
            std::slice::from_ref(&backend),
        );
        apply_twice(server, &slice).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_object_of_a_set_is_accepted_and_applying_it_again_changes_nothing()
-> anyhow::Result<()> {
    let specs = [
        ("smallest", json!({"storage": {"size": "1Gi"}})),
        (
            "fullest",
            json!({
                "replicas": 5,
                "image": "registry.example/server:2",
                "imagePullPolicy": "Always",
                "resources": {"limits": {"memory": "4Gi"}, "requests": {"cpu": 2, "memory": "4Gi"}},
                "storage": {"ephemeral": {"sizeLimit": "6Gi"}},
                "config": {"maxmemory-policy": "allkeys-lru", "save": ""},
                "placement": {"spread": [{"topologyKey": "example.com/rack", "require": true}]},
                "services": {"master": {"type": "LoadBalancer", "annotations": {"example.com/lb": "internal"}}, "replicas": {"type": "NodePort"}},
                "podTemplate": {
                    "labels": {"team": "shop"}, "annotations": {"a": "b"}, "nodeSelector": {"disk": "fast"},
                    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "noisy"}}}]}},
                    "terminationGracePeriodSeconds": 60, "imagePullSecrets": [{"name": "pull"}],
                },
            }),
        ),
    ];
    for (namespace, spec) in specs {
        let server = server(namespace).await?;
        let set = stored_set(server, namespace, &spec).await?;
        apply_everything(server, &set).await?;
    }
    Ok(())
}

#[tokio::test]
async fn pods_pass_the_restricted_profile() -> anyhow::Result<()> {
    let server = server("restricted").await?;
    let set = stored_set(server, "restricted", &json!({"storage": {"ephemeral": {}}})).await?;
    let template = resources::pod::template(&set);
    let mut pod = k8s_openapi::api::core::v1::Pod {
        metadata: template.metadata.unwrap_or_default(),
        spec: template.spec,
        status: None,
    };
    pod.metadata.name = Some("orders-0".to_owned());
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(server.client().await?, "restricted");
    pods.create(&PostParams::default(), &pod)
        .await
        .context("a pod of the template")?;
    pods.delete("orders-0", &DeleteParams::default()).await?;
    // The namespace does hold pods to it: without the security contexts the same pod is refused.
    if let Some(spec) = &mut pod.spec {
        spec.security_context = None;
        spec.containers[0].security_context = None;
    }
    ensure!(pods.create(&PostParams::default(), &pod).await.is_err());
    Ok(())
}
