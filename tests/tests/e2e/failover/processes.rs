//! Processes, pods, volumes and nodes.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use redfleet_operator::api::v1alpha1::PossibleLoss;
use redfleet_tests::cluster::{Cluster, Deletion, pod_node};
use redfleet_tests::faults::Signal;
use redfleet_tests::replicaset::{MINUTE, SECOND, Set};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::Connection;

use super::scene::{Loss, Operators, Scene, at_peace_again, follows, one_master};
use crate::SPEC;

async fn killed(set: &Set, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let fault = Instant::now();
    let kill = scene.cluster.signal(&scene.master, Signal::Kill);
    operators.meet(&scene.cluster, kill).await?;
    let what = operators.describe("process killed");
    scene.end(&what, fault, Loss::OnlyTheUnreplicated).await
}

/// Nobody is left who could be asked: what is on disk decides.
async fn all_killed(set: &Set) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let password = set.password().await?;
    let mut pods = Vec::new();
    for member in set.status().await?.members {
        let address = set.member(&member.name).await?;
        wait_until("a save", MINUTE, || async {
            let mut c = Connection::open(address, &password).await?;
            c.call(&["SAVE"]).await.map(Some)
        })
        .await?;
        pods.push(set.namespace.pod(&member.name).await?);
    }
    let fault = Instant::now();
    let kills = pods
        .iter()
        .map(|pod| scene.cluster.signal(pod, Signal::Kill));
    futures::future::try_join_all(kills).await?;
    // What they had not saved is lost; `held` was saved.
    let loss = Loss::OnlyTheUnreplicated;
    Box::pin(scene.end("all processes killed", fault, loss)).await?;
    wait_until("the loss to be told", MINUTE, || async {
        let status = set.status().await?;
        let newest = status.failovers.iter().find(|r| r.term == status.term);
        let told = newest.and_then(|record| record.possible_loss);
        Ok((told == Some(PossibleLoss::EndedUnsaved)).then_some(()))
    })
    .await
}

async fn deleted(set: &Set, how: Deletion, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let name = scene.master_name();
    let fault = Instant::now();
    let deletion = set.namespace.delete_pod(&name, how);
    operators.meet(&scene.cluster, deletion).await?;
    let (what, loss) = match how {
        Deletion::Graceful => ("pod deleted in peace", Loss::Nothing),
        Deletion::Forced => ("pod deleted by force", Loss::OnlyTheUnreplicated),
    };
    scene.end(&operators.describe(what), fault, loss).await
}

async fn deleted_with_its_volume(set: &Set, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let (name, namespace) = (scene.master_name(), &set.namespace);
    let fault = Instant::now();
    let deletion = async {
        namespace.delete_pvc(&format!("data-{name}")).await?;
        namespace.delete_pod(&name, Deletion::Forced).await
    };
    operators.meet(&scene.cluster, deletion).await?;
    let what = operators.describe("pod and volume deleted");
    scene.end(&what, fault, Loss::OnlyTheUnreplicated).await?;
    // The member comes back empty, copies everything and votes again.
    set.ready(MINUTE * 2).await.map(drop)
}

async fn stopped_and_woken(set: &Set, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let (master, cluster) = (scene.master.clone(), scene.cluster.clone());
    let name = scene.master_name();
    let (address, password) = (set.member(&name).await?, set.password().await?);
    let mut opened_before = set.connect(&name).await?;
    let fault = Instant::now();
    let stop = cluster.signal(&master, Signal::Stop);
    operators.meet(&cluster, stop).await?;
    let what = operators.describe("process stopped");
    Box::pin(scene.end(&what, fault, Loss::OnlyTheUnreplicated)).await?;
    let pause = Duration::from_secs(10).saturating_sub(fault.elapsed());
    tokio::time::sleep(pause).await;
    cluster.signal(&master, Signal::Continue).await?;
    // Whatever it says on waking, it may not acknowledge a write: neither to a client that is connected still …
    let answer = opened_before.call(&["SET", "woken", "1"]).await;
    ensure!(
        answer.is_err(),
        "the woken master acknowledged a write: {answer:?}"
    );
    // … nor to new ones, of which it has to refuse one in so many words.
    let began = Instant::now();
    wait_until("the woken master to refuse a write", MINUTE, || async {
        let mut c = Connection::open_within(address, &password, SECOND).await?;
        match c.call(&["SET", "woken", "1"]).await {
            Ok(answer) => Ok(Some(Err(answer))),
            Err(why) if format!("{why:#}").contains("READONLY") => Ok(Some(Ok(()))),
            Err(why) => Err(why),
        }
    })
    .await?
    .map_err(|answer| anyhow!("the woken master acknowledged a write: {answer:?}"))?;
    println!(
        "WOKEN: refuses writes {:.2} s later",
        began.elapsed().as_secs_f64()
    );
    follows(set, &name).await?;
    one_master(set).await
}

/// A node that is off keeps its pod in the API, and whoever takes it away there does not get rid of it: it is Terminating
/// until the node is back.
async fn powered_off(set: &Set, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let (cluster, name) = (scene.cluster.clone(), scene.master_name());
    let node = cluster.node_of(&scene.master)?;
    let fault = Instant::now();
    operators
        .meet(&cluster, cluster.node_power_off(&node))
        .await?;
    let what = operators.describe("node off");
    scene.end(&what, fault, Loss::OnlyTheUnreplicated).await?;
    if operators == Operators::Work {
        terminating_is_no_obstacle(set, &name).await?;
    }
    let booted = Instant::now();
    cluster.node_boot(&node).await?;
    follows(set, &name).await?;
    println!(
        "REBOOTED {:.1} s from power until the old master follows",
        booted.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The others are looked after as ever: a directive reaches them, and the conditions name who is missing.
async fn terminating_is_no_obstacle(set: &Set, away: &str) -> anyhow::Result<()> {
    set.namespace.delete_pod(away, Deletion::Graceful).await?;
    set.apply(&format!("{SPEC}  config: {{repl-backlog-size: 32mb}}\n"))
        .await?;
    for member in set.status().await?.members {
        if member.name != away {
            set.directive(&member.name, "repl-backlog-size", "33554432")
                .await?;
        }
    }
    let pod = set.namespace.pod(away).await?;
    ensure!(
        pod.metadata.deletion_timestamp.is_some(),
        "the pod of a node that is off cannot be gone"
    );
    set.until("the conditions to name who is missing", MINUTE, |status| {
        let says = |kind: &str, truth: &str, word: &str| {
            let mut conditions = status.conditions.iter();
            conditions.any(|c| c.type_ == kind && c.status == truth && c.message.contains(word))
        };
        says("Available", "True", "serves")
            && says("Ready", "False", away)
            && says("QuorumHealthy", "False", away)
    })
    .await
    .map(drop)
}

/// Two that were killed are not sure of their end, and the third, which may know more, is away: nobody leads before it is back.
async fn killed_while_one_is_away(set: &Set) -> anyhow::Result<()> {
    let cluster = set.namespace.cluster();
    let status = set.ready(MINUTE).await?;
    let master = status.master.context("no master")?;
    let replica = status.members.iter().find(|m| m.name != master);
    let away = &replica.context("no replica")?.name;
    let killed = status
        .members
        .iter()
        .map(|m| &m.name)
        .filter(|n| *n != away);
    let node = pod_node(&set.namespace.pod(away).await?)?.to_owned();
    let mut pods = Vec::new();
    for name in killed {
        pods.push(set.namespace.pod(name).await?);
    }
    cluster.node_power_off(&node).await?;
    let kills = pods.iter().map(|pod| cluster.signal(pod, Signal::Kill));
    futures::future::try_join_all(kills).await?;
    set.until("the condition to name who is missing", MINUTE, |s| {
        s.conditions.iter().any(|c| {
            c.type_ == "Available"
                && c.status != "True"
                && c.message.contains(&format!("missing: {away}"))
        })
    })
    .await?;
    let term = set.status().await?.term;
    // A window in which nothing may happen: longer than any election that takes place.
    tokio::time::sleep(SECOND * 3).await;
    ensure!(
        set.status().await?.term == term,
        "somebody leads without {away}"
    );
    cluster.node_boot(&node).await?;
    let status = set.ready(MINUTE * 3).await?;
    let record = status.failovers.iter().find(|r| r.term == status.term);
    ensure!(
        record.and_then(|r| r.possible_loss) == Some(PossibleLoss::EndedUnsaved),
        "all have come back with what they saved last: {record:?}"
    );
    println!("AWAITED {away}, then led by {:?}", status.master);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_process_is_killed() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "kill", SPEC).await?;
    killed(&set, Operators::Work).await?;
    killed(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn every_process_of_a_set_is_killed_at_once() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "all", SPEC).await?;
    all_killed(&set).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_pod_is_deleted_in_peace() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "peace", SPEC).await?;
    deleted(&set, Deletion::Graceful, Operators::Work).await?;
    deleted(&set, Deletion::Graceful, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_pod_is_deleted_by_force() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "force", SPEC).await?;
    deleted(&set, Deletion::Forced, Operators::Work).await?;
    deleted(&set, Deletion::Forced, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_pod_and_its_volume_are_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "volume", SPEC).await?;
    deleted_with_its_volume(&set, Operators::Work).await?;
    deleted_with_its_volume(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_process_stands_still_and_wakes_up() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "stop", SPEC).await?;
    stopped_and_woken(&set, Operators::Work).await?;
    stopped_and_woken(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_node_loses_power() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "power", SPEC).await?;
    powered_off(&set, Operators::Work).await?;
    powered_off(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn two_are_killed_while_the_third_is_away_and_it_is_waited_for() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "await", SPEC).await?;
    killed_while_one_is_away(&set).await?;
    at_peace_again(set).await
}
