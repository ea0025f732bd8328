//! The operator as a guest of the cluster: it writes nothing while nothing changes, may be upgraded, removed and installed
//! again without a set noticing, and says what is wrong with a set that cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use redfleet_operator::api::v1alpha1::{RedisReplicaSetStatus, RotationCause, RotationPhase};
use redfleet_tests::apiserver::repository;
use redfleet_tests::cluster::{Cluster, Namespace};
use redfleet_tests::replicaset::{
    MINUTE, SYSTEM, Set, helm, install_operator, operator_at_work, pod_uids,
};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::Connection;
use serde_json::Value;

const SPEC: &str = "  replicas: 3\n  storage: {size: 100Mi}\n";
/// How long an idle set is watched: an idle hour, scaled down. Longer than every resync but the slowest, which only reads.
const WATCHED: Duration = Duration::from_secs(30);
/// How often it is watched again because something did happen meanwhile.
const WINDOWS: u32 = 3;
/// Kinds that nobody but the operator writes while nothing happens.
const OURS: [&str; 9] = [
    "redisreplicasets",
    "statefulsets",
    "services",
    "endpointslices",
    "secrets",
    "configmaps",
    "serviceaccounts",
    "networkpolicies",
    "poddisruptionbudgets",
];

/// Writes to the API server that both operators have counted, Leases aside.
async fn counted_by_operators(cluster: &Cluster) -> anyhow::Result<u64> {
    let pods = cluster
        .kubectl(&["-n", SYSTEM, "get", "pods", "-o", "name"])
        .await?;
    let mut sum = 0;
    for pod in pods.lines() {
        let name = pod.trim_start_matches("pod/");
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:8080/proxy/metrics");
        let text = cluster.kubectl(&["get", "--raw", &path]).await?;
        sum += total(&text, |line| {
            line.starts_with("redfleet_operator_api_writes_total")
        });
    }
    Ok(sum)
}

/// Writes to [`OURS`] that the API server has counted, whoever made them.
async fn counted_by_the_api_server(cluster: &Cluster) -> anyhow::Result<u64> {
    let text = cluster.kubectl(&["get", "--raw", "/metrics"]).await?;
    let is_write = |line: &str| {
        ["PATCH", "APPLY", "PUT", "POST", "DELETE"]
            .iter()
            .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
    };
    let is_ours = |line: &str| {
        OURS.iter()
            .any(|kind| line.contains(&format!("resource=\"{kind}\"")))
    };
    Ok(total(&text, |line| {
        line.starts_with("apiserver_request_total{") && is_write(line) && is_ours(line)
    }))
}

/// The sum of the samples on the lines that are wanted.
fn total(text: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    text.lines()
        .filter(|line| wanted(line))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// Generation and resource version of everything in a namespace, events aside.
async fn versions(namespace: &Namespace) -> anyhow::Result<BTreeMap<String, String>> {
    let kinds = format!("{},pods,persistentvolumeclaims", OURS.join(","));
    let text = namespace.kubectl(&["get", &kinds, "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("a list")?;
    let version = |item: &Value| {
        let meta = &item["metadata"];
        let name = format!("{}/{}", item["kind"], meta["name"]);
        (
            name,
            format!("{} at {}", meta["generation"], meta["resourceVersion"]),
        )
    };
    Ok(items.iter().map(version).collect())
}

/// Memory of the operator's processes, in KiB; empty where they are not to be seen.
fn operator_memory() -> Vec<u64> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let status = processes.filter_map(|p| fs::read_to_string(p.path().join("status")).ok());
    status
        .filter(|text| text.starts_with("Name:\tredfleet-operat"))
        .filter_map(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse().ok()
        })
        .collect()
}

/// Waits until no other set exists, and until the operators have written nothing for a while.
async fn all_is_quiet(cluster: &Cluster, namespace: &Namespace) -> anyhow::Result<()> {
    wait_until("other tests' sets to be gone", MINUTE * 2, || async {
        let all = cluster.kubectl(&["get", "rrs", "-A", "-o", "name"]).await?;
        Ok((all.lines().count() == 1).then_some(()))
    })
    .await?;
    wait_until("the set to come to rest", MINUTE, || async {
        let before = (
            counted_by_operators(cluster).await?,
            versions(namespace).await?,
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = (
            counted_by_operators(cluster).await?,
            versions(namespace).await?,
        );
        Ok((before == after).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_api_is_left_alone_while_nothing_changes() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "idle", SPEC).await?;
    for window in 1..=WINDOWS {
        all_is_quiet(&cluster, &set.namespace).await?;
        let told = told(&set).await?;
        let outcome = idle_window(&cluster, &set).await;
        // A starved machine loses sight of members for a moment, and the conditions tell it: that is no idle time.
        let now_told = self::told(&set).await?;
        if told == now_told || window == WINDOWS {
            outcome?;
            return set.namespace.delete().await;
        }
        println!("window {window} was not idle: {told:?} became {now_told:?}");
    }
    Ok(())
}

/// What the conditions say, and since when.
async fn told(set: &Set) -> anyhow::Result<Vec<String>> {
    let conditions = set.status().await?.conditions;
    Ok(conditions
        .iter()
        .map(|c| {
            format!(
                "{}={} {} {:?}",
                c.type_, c.status, c.message, c.last_transition_time
            )
        })
        .collect())
}

/// Watches for a while; two changeless applies are part of it.
async fn idle_window(cluster: &Cluster, set: &Set) -> anyhow::Result<()> {
    let before = versions(&set.namespace).await?;
    let status = serde_json::to_string(&set.status().await?)?;
    let writes = counted_by_operators(cluster).await?;
    let seen = counted_by_the_api_server(cluster).await?;
    set.apply(SPEC).await?;
    set.apply(SPEC).await?;
    tokio::time::sleep(WATCHED).await;
    let writes = counted_by_operators(cluster).await? - writes;
    let seen = counted_by_the_api_server(cluster).await? - seen;
    println!(
        "IDLE for {} s: {writes} writes of the operators, {seen} seen by the API server; memory of each operator {:?} KiB",
        WATCHED.as_secs(),
        operator_memory()
    );
    let after = versions(&set.namespace).await?;
    let changed: Vec<_> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .collect();
    ensure!(
        changed.is_empty() && before.len() == after.len(),
        "changed: {changed:?}; the status from {status} to {}",
        serde_json::to_string(&set.status().await?)?
    );
    ensure!(writes == 0, "{writes} writes while nothing changed");
    ensure!(
        seen == 2,
        "{seen} writes while two changeless applies were made"
    );
    Ok(())
}

/// A copy of the chart of definitions in which sets have one more field, as a later version could have it.
fn changed_chart(dir: &Path) -> anyhow::Result<String> {
    let original = repository().join("charts/redfleet-crds");
    let copy = dir.join("redfleet-crds");
    fs::create_dir_all(copy.join("templates"))?;
    for file in ["Chart.yaml", "values.yaml", "values.schema.json"] {
        fs::copy(original.join(file), copy.join(file))?;
    }
    let template = "templates/redisreplicasets.yaml";
    let text = fs::read_to_string(original.join(template))?;
    let anchor = "            properties:\n              auth:\n";
    ensure!(
        text.matches(anchor).count() == 1,
        "the definition looks different"
    );
    let field = "            properties:\n              addedLater:\n                type: string\n              auth:\n";
    fs::write(copy.join(template), text.replace(anchor, field))?;
    Ok(copy.display().to_string())
}

async fn count(set: &Set, member: &str) -> anyhow::Result<String> {
    let mut c = Connection::open(set.member(member).await?, &set.password().await?).await?;
    Ok(c.call(&["GET", "count"]).await?.join(""))
}

async fn increment(set: &Set, master: &str) -> anyhow::Result<String> {
    let mut c = Connection::open(set.member(master).await?, &set.password().await?).await?;
    Ok(c.call(&["INCR", "count"]).await?.join(""))
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_operator_is_upgraded_removed_and_back_and_sets_stay() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "helm", SPEC).await?;
    let (uids, uid) = (pod_uids(&set).await?, set.object().await?.metadata.uid);
    let master = set.status().await?.master.context("a master")?;
    increment(&set, &master).await?;

    let dir = tempfile::tempdir()?;
    let changed = changed_chart(dir.path())?;
    helm(&["upgrade", "redfleet-crds", &changed]).await?;
    set.apply(&format!("{SPEC}  addedLater: yes-it-is-there\n"))
        .await
        .context("the field that the upgrade brought")?;
    let text = set
        .namespace
        .kubectl(&["get", "rrs/orders", "-o", "jsonpath={.spec.addedLater}"])
        .await?;
    ensure!(text == "yes-it-is-there", "{text}");
    set.ready(MINUTE).await?;

    helm(&["uninstall", "redfleet", "--wait"]).await?;
    helm(&["uninstall", "redfleet-crds"]).await?;
    let object = set.object().await.context("the set is gone")?;
    ensure!(object.metadata.uid == uid && object.metadata.deletion_timestamp.is_none());
    ensure!(
        increment(&set, &master).await? == "2",
        "the set must serve without an operator"
    );

    install_operator(&cluster).await?;
    let live = format!("{SPEC}  config: {{repl-backlog-size: 64mb}}\n");
    set.apply(&live).await?;
    set.ready(MINUTE).await?;
    wait_until("the new operator to take the set over", MINUTE, || async {
        let address = set.member(&master).await?;
        let mut c = Connection::open(address, &set.password().await?).await?;
        let answer = c.call(&["CONFIG", "GET", "repl-backlog-size"]).await?;
        Ok(answer.contains(&"67108864".to_owned()).then_some(()))
    })
    .await?;
    ensure!(pod_uids(&set).await? == uids, "a pod was replaced");
    ensure!(set.object().await?.metadata.uid == uid);
    ensure!(set.status().await?.master.as_ref() == Some(&master));
    for member in uids.keys() {
        ensure!(count(&set, member).await? == "2", "{member} lost data");
    }
    set.namespace.delete().await
}

/// A set in the namespace of another.
fn beside(namespace: &Namespace, name: &str) -> Set {
    Set {
        namespace: namespace.clone(),
        name: name.to_owned(),
    }
}

/// Waits until a condition is as wanted and its message holds these words.
async fn says(
    set: &Set,
    condition: (&str, &str),
    reason: &str,
    words: &[&str],
) -> anyhow::Result<()> {
    let what = format!("{} to say {condition:?} {reason} {words:?}", set.name);
    let seen = wait_until(&what, MINUTE, || async {
        let status = set.status().await?;
        let Some(found) = status.conditions.iter().find(|c| c.type_ == condition.0) else {
            bail!("no such condition yet");
        };
        ensure!(
            found.status == condition.1
                && found.reason == reason
                && words.iter().all(|word| found.message.contains(word)),
            "{} {}: {}",
            found.status,
            found.reason,
            found.message
        );
        Ok(Some(found.message.clone()))
    })
    .await?;
    println!("{}: {} {reason}: {seen}", set.name, condition.0);
    Ok(())
}

/// Waits until an event about the set holds these words.
async fn event(set: &Set, words: &str) -> anyhow::Result<()> {
    wait_until(
        &format!("an event about {} with {words}", set.name),
        MINUTE,
        || async {
            let text = set
                .namespace
                .kubectl(&["describe", "rrs", &set.name])
                .await?;
            let events = text.split_once("Events:").context("no events")?.1;
            Ok(events.contains(words).then_some(()))
        },
    )
    .await
}

const ONE: &str = "  replicas: 1\n  storage: {ephemeral: {}}\n";

/// Sets of one namespace, each with another mistake; `first` has none, and the name of `second` is that of its Service.
struct Wrong {
    secret: Set,
    class: Set,
    born: Set,
    place: Set,
    taken: Set,
    first: Set,
    second: Set,
}

async fn wrong_sets(namespace: &Namespace) -> anyhow::Result<Wrong> {
    let set = |name: &str| beside(namespace, name);
    let wrong = Wrong {
        secret: set("secret"),
        class: set("class"),
        born: set("born"),
        place: set("place"),
        taken: set("taken"),
        first: set("pair"),
        second: set("pair-replicas"),
    };
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: taken}\nspec: {ports: [{port: 1}]}\n";
    namespace.apply(service).await?;
    let apply = |set: &Set, more: &str| {
        let (set, spec) = (set.clone(), format!("{ONE}{more}"));
        async move { set.apply(&spec).await }
    };
    apply(&wrong.secret, "  auth: {clientSecretName: mine}\n").await?;
    wrong
        .class
        .apply("  replicas: 1\n  storage: {size: 100Mi, storageClassName: none-such}\n")
        .await?;
    let rack = "  placement: {spread: [{topologyKey: example.com/rack, require: true}]}\n";
    apply(&wrong.place, rack).await?;
    apply(&wrong.born, "  config: {no-such-thing: \"1\"}\n").await?;
    apply(&wrong.taken, "").await?;
    apply(&wrong.first, "").await?;
    wrong.first.ready(MINUTE).await?;
    apply(&wrong.second, "").await?;
    Ok(wrong)
}

/// Every mistake is named with its field, in a condition and where it stops everything in an event too.
async fn mistakes_are_named(wrong: &Wrong) -> anyhow::Result<()> {
    let (stalled, unplaced) = (("Stalled", "True"), ("PlacementSatisfied", "False"));
    let words = ["spec.auth.clientSecretName", "Secret mine", "create it"];
    says(&wrong.secret, stalled, "SecretMissing", &words).await?;
    event(&wrong.secret, "Secret mine").await?;
    let words = ["class-0", "spec.storage.storageClassName", "none-such"];
    says(&wrong.class, unplaced, "Unschedulable", &words).await?;
    let words = ["born-0", "no-such-thing"];
    says(&wrong.born, ("Ready", "False"), "Bootstrapping", &words).await?;
    let words = ["place-0", "topology spread", "example.com/rack"];
    says(&wrong.place, unplaced, "Unschedulable", &words).await?;
    let words = ["Service taken belongs to somebody else", "rename this set"];
    says(&wrong.taken, stalled, "NameTaken", &words).await?;
    event(&wrong.taken, "Service taken").await?;
    let words = ["Service pair-replicas belongs to somebody else"];
    says(&wrong.second, stalled, "NameTaken", &words).await?;
    ensure!(
        wrong.first.ready(MINUTE).await?.master.as_deref() == Some("pair-0"),
        "the first of the two must not notice"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_set_that_cannot_be_says_why_and_comes_up_when_it_can() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    operator_at_work(&cluster).await?;
    let namespace = cluster.namespace("wrong").await?;
    let wrong = wrong_sets(&namespace).await?;
    mistakes_are_named(&wrong).await?;

    let secret = ["create", "secret", "generic", "mine"];
    namespace
        .kubectl(&[&secret[..], &["--from-literal=password=of-mine"]].concat())
        .await?;
    wrong.born.apply(ONE).await?;
    namespace.kubectl(&["delete", "service", "taken"]).await?;
    namespace
        .kubectl(&["delete", "rrs", "pair", "--wait=false"])
        .await?;
    let nodes = ["label", "nodes", "--all", "--overwrite"];
    cluster
        .kubectl(&[&nodes[..], &["example.com/rack=one"]].concat())
        .await?;
    for set in [
        &wrong.secret,
        &wrong.born,
        &wrong.place,
        &wrong.taken,
        &wrong.second,
    ] {
        set.ready(MINUTE * 2)
            .await
            .with_context(|| format!("{} after the cure", set.name))?;
    }
    cluster
        .kubectl(&[&nodes[..], &["example.com/rack-"]].concat())
        .await?;
    let mine = Connection::open(wrong.secret.member("secret-0").await?, "of-mine").await;
    ensure!(mine.is_ok(), "the Secret's password is not accepted");
    restarted_for_a_directive(&wrong.born).await?;
    namespace.delete().await
}

/// A directive that is read at start only brings a new pod, and is in force then.
async fn restarted_for_a_directive(set: &Set) -> anyhow::Result<()> {
    let before = pod_uids(set).await?;
    set.apply(&format!("{ONE}  config: {{tcp-backlog: \"128\"}}\n"))
        .await?;
    wait_until("the directive to be in force", MINUTE, || async {
        let address = set.member("born-0").await?;
        let mut c = Connection::open(address, &set.password().await?).await?;
        let answer = c.call(&["CONFIG", "GET", "tcp-backlog"]).await?;
        Ok((answer == ["tcp-backlog", "128"]).then_some(()))
    })
    .await?;
    ensure!(pod_uids(set).await? != before, "no pod was replaced");
    set.ready(MINUTE).await.map(drop)
}

async fn store_password(namespace: &Namespace, password: &str) -> anyhow::Result<()> {
    let yaml = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: mine}}\nstringData: {{password: {password}}}\n"
    );
    namespace.apply(&yaml).await.map(drop)
}

/// Whether clients may log in to every member with this password.
async fn accepted(set: &Set, members: &[&str], password: &str) -> anyhow::Result<Option<()>> {
    for member in members {
        // Whether, not how fast: the machine may be busy.
        Connection::open_patiently(set.member(member).await?, password, MINUTE).await?;
    }
    Ok(Some(()))
}

fn rotated(status: &RedisReplicaSetStatus, cause: RotationCause, revision: i64) -> [bool; 2] {
    [&status.rotation.client, &status.rotation.replication].map(|r| {
        r.phase == RotationPhase::Settled && r.cause == Some(cause) && r.revision >= revision
    })
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn passwords_follow_their_secret_and_their_timer_and_a_pause_holds_all() -> anyhow::Result<()>
{
    let cluster = Cluster::connect_beside_others().await?;
    operator_at_work(&cluster).await?;
    let namespace = cluster.namespace("auth").await?;
    store_password(&namespace, "first").await?;
    let set = beside(&namespace, "orders");
    let spec = "  replicas: 2\n  storage: {ephemeral: {}}\n  auth: {clientSecretName: mine, rotateEvery: 1m, overlap: 1s}\n";
    set.apply(spec).await?;
    set.ready(MINUTE * 2).await?;
    let members = ["orders-0", "orders-1"];
    accepted(&set, &members, "first").await?;
    let uids = pod_uids(&set).await?;

    store_password(&namespace, "second").await?;
    set.until("the client's password to be rotated", MINUTE, |status| {
        rotated(status, RotationCause::SecretChanged, 2)[0]
    })
    .await?;
    accepted(&set, &members, "second").await?;
    for member in members {
        let old = Connection::open(set.member(member).await?, "first").await;
        ensure!(old.is_err(), "{member} still accepts the first password");
    }
    let published = namespace.api::<Secret>().get_opt("orders-client").await?;
    ensure!(
        published.is_none(),
        "a password of the user must not be published again"
    );

    set.until("the timer to rotate replication", MINUTE * 2, |status| {
        rotated(status, RotationCause::Timer, 2)[1]
    })
    .await?;
    ensure!(pod_uids(&set).await? == uids, "a pod was replaced");
    ensure!(
        set.status().await?.rotation.client.revision == 2,
        "the timer must leave the user's password alone"
    );
    paused(&set, spec).await?;
    namespace.delete().await
}

/// While a set is paused its status is kept and nothing else is.
async fn paused(set: &Set, spec: &str) -> anyhow::Result<()> {
    let more = spec.replace("replicas: 2", "replicas: 3");
    set.apply(&format!("{more}  paused: true\n")).await?;
    let status = set
        .until("the pause", MINUTE, |status| {
            let paused = |kind: &str, truth: &str| {
                let mut all = status.conditions.iter();
                all.any(|c| c.type_ == kind && c.status == truth)
            };
            paused("Paused", "True") && paused("Available", "True")
        })
        .await?;
    ensure!(status.master.is_some());
    let before = versions(&set.namespace).await?;
    set.namespace
        .kubectl(&["label", "configmap", "orders-config", "redfleet.dev/set-"])
        .await?;
    set.namespace
        .kubectl(&["annotate", "rrs/orders", "redfleet.dev/rotate=all@paused"])
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = versions(&set.namespace).await?;
    let expected = ["\"ConfigMap\"", "\"RedisReplicaSet\""];
    let changed: Vec<&String> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .map(|(name, _)| name)
        .filter(|name| !expected.iter().any(|kind| name.starts_with(kind)))
        .collect();
    ensure!(
        changed.is_empty() && before.len() == after.len(),
        "changed during a pause: {changed:?}"
    );
    set.apply(&more).await?;
    set.until("what was asked for during the pause", MINUTE * 2, |s| {
        s.members.len() == 3
            && [&s.rotation.client, &s.rotation.replication]
                .iter()
                .any(|r| r.request.as_deref() == Some("all@paused"))
    })
    .await?;
    set.ready(MINUTE * 2).await.map(drop)
}
