//! The operator as a guest of the cluster: it writes nothing while nothing changes, may be upgraded, removed and installed
//! again without a set noticing, and says what is wrong with a set that cannot be.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redfleet_operator::api::v1alpha1::{RedisReplicaSetStatus, RotationPhase};
use redfleet_tests::apiserver::repository;
use redfleet_tests::cluster::{Cluster, Namespace};
use redfleet_tests::replicaset::{
    MINUTE, OURS, SYSTEM, Set, helm, install_operator, kill_operators, operator_at_work, pod_uids,
    route_services, versions,
};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::Connections;

use crate::SPEC;

/// How long an idle set is watched: an idle hour, scaled down. Longer than every resync but the slowest, which only reads.
const WATCHED: Duration = Duration::from_secs(30);
/// How often it is watched again because something did happen meanwhile.
const WINDOWS: u32 = 3;

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

/// Waits until no other set exists, and until nobody has written anything for a while: neither the operators nor Kubernetes,
/// which goes on tidying up the namespaces of earlier tests when their sets are gone.
async fn all_is_quiet(cluster: &Cluster, namespace: &Namespace) -> anyhow::Result<()> {
    wait_until("other tests' sets to be gone", MINUTE * 2, || async {
        let all = cluster.kubectl(&["get", "rrs", "-A", "-o", "name"]).await?;
        Ok((all.lines().count() == 1).then_some(()))
    })
    .await?;
    wait_until("the set to come to rest", MINUTE, || async {
        let look = || async {
            anyhow::Ok((
                counted_by_operators(cluster).await?,
                counted_by_the_api_server(cluster).await?,
                versions(namespace).await?,
            ))
        };
        let before = look().await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok((before == look().await?).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn an_idle_set_leaves_the_api_alone() -> anyhow::Result<()> {
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
    let mut c = set.connect(member).await?;
    Ok(c.call(&["GET", "count"]).await?.join(""))
}

async fn increment(set: &Set, master: &str) -> anyhow::Result<String> {
    let mut c = set.connect(master).await?;
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
    set.directive(&master, "repl-backlog-size", "67108864")
        .await?;
    ensure!(pod_uids(&set).await? == uids, "a pod was replaced");
    ensure!(set.object().await?.metadata.uid == uid);
    ensure!(set.status().await?.master.as_ref() == Some(&master));
    for member in uids.keys() {
        ensure!(count(&set, member).await? == "2", "{member} lost data");
    }
    set.namespace.delete().await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn quickstart_serves_and_a_second_apply_changes_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    operator_at_work(&cluster).await?;
    let example = repository().join("examples/quickstart.yaml");
    let example = example.to_str().context("the checkout's path")?;
    let namespace = cluster.namespace("quick").await?;
    let apply = ["apply", "-f", example];
    let began = Instant::now();
    namespace.kubectl(&apply).await?;
    let set = Set::named(&namespace, "orders");
    let status = set.ready(MINUTE * 2).await?;
    println!("READY {:.1} s after apply", began.elapsed().as_secs_f64());
    let roles: BTreeSet<String> = status
        .members
        .iter()
        .map(|m| format!("{:?}", m.role))
        .collect();
    ensure!(
        status.members.len() == 3 && roles == BTreeSet::from(["Master".into(), "Replica".into()]),
        "not a master and two replicas: {:?}",
        status.members
    );
    let master = status.master.as_deref().context("a master")?;
    let replicas = set
        .connect(master)
        .await?
        .call(&["WAIT", "2", "20000"])
        .await?;
    ensure!(replicas == ["2"], "only {replicas:?} replicas are in sync");
    let zones: BTreeSet<Option<String>> = status.members.iter().map(|m| m.zone.clone()).collect();
    ensure!(zones.len() == 3, "three zones, not {zones:?}");
    let password = set.password().await?;
    set.namespace.client_pod("client").await?;
    let redis = |host: &'static str, words: &[&str]| {
        let mut command = vec![
            "redis-cli",
            "-h",
            host,
            "-a",
            &password,
            "--no-auth-warning",
        ];
        command.extend(words);
        command.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |command: Vec<String>| {
        let namespace = set.namespace.clone();
        async move {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            namespace.exec("client", &words).await
        }
    };
    let answer = run(redis("orders", &["SET", "greeting", "hello"])).await?;
    ensure!(answer.trim() == "OK", "{answer}");
    wait_until("the replicas to have it", MINUTE, || async {
        let answer = run(redis("orders-replicas", &["GET", "greeting"])).await?;
        Ok((answer.trim() == "hello").then_some(()))
    })
    .await?;
    let before = set.object().await?.metadata.generation;
    let answer = namespace.kubectl(&apply).await?;
    let after = set.object().await?.metadata.generation;
    ensure!(
        before == after && answer.contains("unchanged"),
        "the second apply changed something: {answer}"
    );
    set.namespace.delete().await
}

/// Where a rotation of the clients' password can be cut, in its order.
const PHASES: [RotationPhase; 3] = [
    RotationPhase::Adding,
    RotationPhase::Switching,
    RotationPhase::Overlapping,
];

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn rotations_go_on_wherever_the_operators_were_killed() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let spec = format!("{SPEC}  auth: {{overlap: 2s}}\n");
    let set = Set::create(&cluster, "cut", &spec).await?;
    route_services(&cluster, "").await?;
    let uids = pod_uids(&set).await?;
    let writer = set.writer(Connections::EveryCommand).await?;
    let mut cut = Vec::new();
    for wanted in PHASES {
        let revision = set.status().await?.rotation.client.revision + 1;
        set.ask_for_rotation(&revision.to_string()).await?;
        let reached = |s: &RedisReplicaSetStatus| {
            let both = [&s.rotation.client, &s.rotation.replication];
            both.iter()
                .any(|r| r.revision == revision && r.phase >= wanted)
        };
        let status = set.until("the rotation", MINUTE, reached).await?;
        kill_operators(&cluster).await?;
        let phases = [&status.rotation.client, &status.rotation.replication].map(|r| r.phase);
        cut.push(format!("{phases:?}"));
        set.rotated(revision, MINUTE * 2).await?;
    }
    let logins = set.nobody_was_refused(writer, &uids).await?;
    println!("CUT at {}; {logins} logins, 0 refused", cut.join(" "));
    set.ready(MINUTE * 2).await?;
    set.namespace.delete().await
}
