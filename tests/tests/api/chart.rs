//! Installing, upgrading and removing, by Helm and by `kubectl apply -k`, against a real API server; and the rights that
//! the operator gets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event as OldEvent, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use redfleet_operator::api::v1alpha1::RedisReplicaSet;
use redfleet_tests::apiserver::{ApiServer, repository};
use redfleet_tests::replicaset::MINUTE;
use redfleet_tests::wait::wait_until;
use serde_json::json;

const SYSTEM: &str = "redfleet-system";
const DEFINITION: &str = "redisreplicasets.redfleet.dev";

fn chart(name: &str) -> String {
    repository().join("charts").join(name).display().to_string()
}

/// `helm install` or `helm upgrade` of a chart at `path`, with further arguments.
async fn helm(
    server: &ApiServer,
    verb: &str,
    release: &str,
    path: &str,
    more: &[&str],
) -> anyhow::Result<()> {
    let mut args = vec![verb, release, path, "-n", SYSTEM];
    args.extend(more);
    server.helm(&args).await.map(drop)
}

async fn install_both(server: &ApiServer) -> anyhow::Result<()> {
    server.namespace(SYSTEM).await?;
    helm(
        server,
        "install",
        "redfleet-crds",
        &chart("redfleet-crds"),
        &[],
    )
    .await?;
    helm(server, "install", "redfleet", &chart("redfleet"), &[]).await
}

async fn quickstart(server: &ApiServer) -> anyhow::Result<String> {
    server.wait_established(DEFINITION).await?;
    let path = repository()
        .join("examples/quickstart.yaml")
        .display()
        .to_string();
    server
        .kubectl(&["apply", "-n", "default", "-f", &path])
        .await?;
    uid(server).await
}

async fn uid(server: &ApiServer) -> anyhow::Result<String> {
    let sets: Api<RedisReplicaSet> = Api::namespaced(server.client().await?, "default");
    let set = sets.get("orders").await.context("the set is gone")?;
    ensure!(
        set.metadata.deletion_timestamp.is_none(),
        "the set is being deleted"
    );
    set.metadata.uid.context("a stored object has a UID")
}

/// A copy of the chart with one more printer column, as a later version could have it.
fn changed_chart(dir: &Path) -> anyhow::Result<String> {
    let original = repository().join("charts/redfleet-crds");
    let copy = dir.join("redfleet-crds");
    fs::create_dir_all(copy.join("templates"))?;
    for file in ["values.yaml", "values.schema.json"] {
        fs::copy(original.join(file), copy.join(file))?;
    }
    let meta = fs::read_to_string(original.join("Chart.yaml"))?;
    let newer: String = meta
        .lines()
        .map(|line| {
            if line.starts_with("version:") {
                "version: 99.0.0\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    fs::write(copy.join("Chart.yaml"), newer)?;
    let template = "templates/redisreplicasets.yaml";
    let text = fs::read_to_string(original.join(template))?;
    let column = "  - additionalPrinterColumns:\n    - jsonPath: .spec.image\n      name: Image\n      type: string\n";
    ensure!(text.contains("  - additionalPrinterColumns:\n"));
    fs::write(
        copy.join(template),
        text.replace("  - additionalPrinterColumns:\n", column),
    )?;
    Ok(copy.display().to_string())
}

async fn columns(server: &ApiServer) -> anyhow::Result<Vec<String>> {
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client().await?);
    let definition = definitions.get(DEFINITION).await?;
    let columns = definition
        .spec
        .versions
        .into_iter()
        .flat_map(|version| version.additional_printer_columns.unwrap_or_default());
    Ok(columns.map(|column| column.name).collect())
}

#[tokio::test]
async fn helm_upgrades_the_definition_and_its_removal_keeps_sets() -> anyhow::Result<()> {
    let server = ApiServer::start().await?;
    install_both(&server).await?;
    let before = quickstart(&server).await?;
    ensure!(!columns(&server).await?.contains(&"Image".to_owned()));

    let dir = tempfile::tempdir()?;
    let changed = changed_chart(dir.path())?;
    helm(&server, "upgrade", "redfleet-crds", &changed, &[]).await?;
    let three = ["--set", "replicas=3"];
    helm(&server, "upgrade", "redfleet", &chart("redfleet"), &three).await?;
    ensure!(
        columns(&server).await?.contains(&"Image".to_owned()),
        "the upgrade did not reach the definition"
    );
    ensure!(uid(&server).await? == before);
    let operators: Api<Deployment> = Api::namespaced(server.client().await?, SYSTEM);
    let replicas = operators
        .get("redfleet-operator")
        .await?
        .spec
        .and_then(|spec| spec.replicas);
    ensure!(
        replicas == Some(3),
        "the upgrade did not reach the operator"
    );

    server
        .helm(&["uninstall", "redfleet", "-n", SYSTEM])
        .await?;
    server
        .helm(&["uninstall", "redfleet-crds", "-n", SYSTEM])
        .await?;
    ensure!(operators.get_opt("redfleet-operator").await?.is_none());
    ensure!(
        uid(&server).await? == before,
        "removing the releases must keep sets"
    );

    // And back: the definition that was kept is taken over.
    helm(
        &server,
        "install",
        "redfleet-crds",
        &chart("redfleet-crds"),
        &[],
    )
    .await?;
    ensure!(uid(&server).await? == before);
    Ok(())
}

#[tokio::test]
async fn kustomize_installs_the_same_operator() -> anyhow::Result<()> {
    let server = ApiServer::start().await?;
    let install = repository().join("examples/install").display().to_string();
    let apply = ["apply", "--validate=strict", "-k", &install];
    server.kubectl(&apply).await?;
    quickstart(&server).await?;
    let before = server.versions(&["-k", &install], SYSTEM).await?;
    server.kubectl(&apply).await?;
    let after = server.versions(&["-k", &install], SYSTEM).await?;
    ensure!(
        before == after && after.len() >= 8,
        "{before:?} became {after:?}"
    );
    let operators: Api<Deployment> = Api::namespaced(server.client().await?, SYSTEM);
    let spec = operators
        .get("redfleet-operator")
        .await?
        .spec
        .context("a spec")?;
    ensure!(spec.replicas == Some(2));
    let pods: Api<Pod> = Api::namespaced(server.client().await?, SYSTEM);
    let template = spec.template;
    let mut pod = Pod {
        metadata: template.metadata.unwrap_or_default(),
        spec: template.spec,
        status: None,
    };
    pod.metadata.name = Some("trial".to_owned());
    pods.create(&kube::api::PostParams::default(), &pod)
        .await
        .context("the operator's pod must pass the restricted profile")?;
    Ok(())
}

/// Everything that the operator may do, each with its reason: what the roles of the chart say beyond this, or not, is a
/// mistake here or there.
const RIGHTS: [(&str, &str, &str); 17] = [
    (
        "redfleet.dev/redisreplicasets",
        "get list watch",
        "what users want; the spec is theirs",
    ),
    (
        "redfleet.dev/redisreplicasets/status",
        "patch",
        "conditions, history, and terms by compare-and-swap",
    ),
    (
        "apps/statefulsets",
        "get list watch create patch",
        "the members",
    ),
    (
        "/pods",
        "list watch patch delete",
        "role labels, and replacements one by one",
    ),
    (
        "/services",
        "get list watch create patch",
        "addresses of master and replicas",
    ),
    ("/configmaps", "get list watch create patch", "redis.conf"),
    (
        "/serviceaccounts",
        "get list watch create patch",
        "identity of the pods",
    ),
    (
        "/secrets",
        "get list watch create patch",
        "generated passwords, and those that sets refer to, of any name",
    ),
    (
        "discovery.k8s.io/endpointslices",
        "list watch create update",
        "where the master is, in one write that must not overtake another",
    ),
    (
        "discovery.k8s.io/endpointslices/restricted",
        "create",
        "the same where an admission plugin guards addresses of pods",
    ),
    (
        "policy/poddisruptionbudgets",
        "get list watch create patch",
        "one member is drained at a time",
    ),
    (
        "networking.k8s.io/networkpolicies",
        "get list watch create patch",
        "who may reach the control port",
    ),
    ("/nodes", "list watch", "zones, and whether a node is there"),
    (
        "/persistentvolumeclaims",
        "list watch",
        "whether a member's volume can follow it",
    ),
    ("/persistentvolumes", "list watch", "the same"),
    (
        "events.k8s.io/events",
        "list create patch",
        "what happened, for kubectl describe, and why a pod does not come to be",
    ),
    (
        "coordination.k8s.io/leases in redfleet-system",
        "create",
        "who reconciles; a name cannot limit this verb",
    ),
];
/// The one thing that is limited to an object.
const LEASE: (&str, &str) = (
    "coordination.k8s.io/leases redfleet-operator in redfleet-system",
    "get update",
);

/// What rules allow: a line for each verb of each resource.
fn allowed(rules: Vec<PolicyRule>, place: &str) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for rule in rules {
        for url in rule.non_resource_urls.unwrap_or_default() {
            lines.insert(format!("{url}: {}", rule.verbs.join(" ")));
        }
        let names = rule.resource_names.unwrap_or_default().join(" ");
        let names = if names.is_empty() {
            names
        } else {
            format!(" {names}")
        };
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.iter().flatten() {
                let line = |verb| format!("{group}/{resource}{names}{place}: {verb}");
                lines.extend(rule.verbs.iter().map(line));
            }
        }
    }
    lines
}

/// The roles that are bound to the operator's account, wherever they are.
async fn bound(server: &ApiServer) -> anyhow::Result<Vec<String>> {
    let client = server.client().await?;
    let is_ours = |subjects: Option<Vec<Subject>>| {
        let mut subjects = subjects.into_iter().flatten();
        subjects.any(|s| s.name == "redfleet-operator" && s.namespace.as_deref() == Some(SYSTEM))
    };
    let all = ListParams::default();
    let mut found = Vec::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone())
        .list(&all)
        .await?
    {
        if is_ours(binding.subjects) {
            found.push(format!(
                "{}/{}",
                binding.role_ref.kind, binding.role_ref.name
            ));
        }
    }
    for binding in Api::<RoleBinding>::all(client).list(&all).await? {
        if is_ours(binding.subjects) {
            found.push(format!(
                "{}/{}",
                binding.role_ref.kind, binding.role_ref.name
            ));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn every_right_of_the_operator_has_its_reason() -> anyhow::Result<()> {
    let server = ApiServer::start().await?;
    install_both(&server).await?;
    let client = server.client().await?;
    let everywhere = Api::<ClusterRole>::all(client.clone());
    let at_home = Api::<Role>::namespaced(client, SYSTEM);
    let role = "redfleet-operator";
    let mut found = allowed(everywhere.get(role).await?.rules.unwrap_or_default(), "");
    let place = format!(" in {SYSTEM}");
    found.extend(allowed(
        at_home.get(role).await?.rules.unwrap_or_default(),
        &place,
    ));
    let listed = RIGHTS.iter().map(|(what, verbs, _)| (*what, *verbs));
    let wanted: BTreeSet<String> = listed
        .chain([LEASE])
        .flat_map(|(what, verbs)| verbs.split(' ').map(move |verb| format!("{what}: {verb}")))
        .collect();
    let extra: Vec<_> = found.difference(&wanted).collect();
    let missing: Vec<_> = wanted.difference(&found).collect();
    ensure!(
        extra.is_empty() && missing.is_empty(),
        "allowed without a reason here: {extra:?}; not allowed: {missing:?}"
    );
    let bound = bound(&server).await?;
    ensure!(
        bound == [format!("ClusterRole/{role}"), format!("Role/{role}")],
        "{bound:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_operator_may_do_what_it_must_and_nothing_else() -> anyhow::Result<()> {
    let server = ApiServer::start().await?;
    install_both(&server).await?;
    quickstart(&server).await?;
    let client = server.client_as(SYSTEM, "redfleet-operator").await?;
    let sets: Api<RedisReplicaSet> = Api::namespaced(client.clone(), "default");
    let status = json!({"status": {"term": 1}});
    wait_until(
        "the rights to be known, and the status written",
        MINUTE,
        || async {
            let (how, patch) = (PatchParams::default(), Patch::Merge(&status));
            let written = sets.patch_status("orders", &how, &patch).await?;
            Ok(Some(written))
        },
    )
    .await?;
    let apply = PatchParams::apply("redfleet-operator");
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let owner = sets.get("orders").await?.controller_owner_ref(&());
    let meta = json!({"name": "orders-config", "ownerReferences": [owner]});
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta});
    config_maps
        .patch("orders-config", &apply, &Patch::Apply(config_map))
        .await
        .context("applying a child")?;
    let secrets: Api<Secret> = Api::all(client.clone());
    secrets
        .list(&ListParams::default().labels("redfleet.dev/set=orders"))
        .await
        .context("listing Secrets")?;

    events_of_one_object(&server, client.clone()).await?;

    let spec = json!({"spec": {"replicas": 1}});
    refused(
        "writing a spec",
        sets.patch("orders", &PatchParams::default(), &Patch::Merge(spec))
            .await,
    )?;
    refused(
        "deleting a set",
        sets.delete("orders", &DeleteParams::default()).await,
    )?;
    refused(
        "deleting a ConfigMap",
        config_maps
            .delete("orders-config", &DeleteParams::default())
            .await,
    )?;
    let workloads: Api<StatefulSet> = Api::namespaced(client.clone(), "default");
    refused(
        "deleting a StatefulSet",
        workloads.delete("orders", &DeleteParams::default()).await,
    )?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    refused(
        "reading definitions",
        definitions.list(&ListParams::default()).await,
    )?;
    Ok(())
}

/// A pod that does not come to be is explained by what Kubernetes' components say, in the old form of events.
async fn events_of_one_object(server: &ApiServer, operator: Client) -> anyhow::Result<()> {
    let told: Api<OldEvent> = Api::namespaced(server.client().await?, "default");
    for uid in ["uid-1", "uid-2"] {
        let event = json!({
            "metadata": {"name": uid},
            "involvedObject": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "orders", "namespace": "default", "uid": uid},
            "type": "Warning", "reason": "FailedCreate", "message": uid, "lastTimestamp": "2026-01-01T00:00:00Z",
        });
        told.create(&PostParams::default(), &serde_json::from_value(event)?)
            .await?;
    }
    let events: Api<Event> = Api::namespaced(operator, "default");
    let one = ListParams::default()
        .fields("regarding.uid=uid-1")
        .limit(200);
    let found = events.list(&one).await.context("listing events")?.items;
    let notes: Vec<_> = found.iter().map(|e| e.note.as_deref()).collect();
    ensure!(notes == [Some("uid-1")], "{notes:?}");
    ensure!(found[0].deprecated_last_timestamp.is_some(), "{found:?}");
    Ok(())
}

fn refused<T>(what: &str, result: kube::Result<T>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(error) => bail!("{what}: expected to be forbidden, but {error}"),
        Ok(_) => bail!("{what} is allowed"),
    }
}
