//! Cables, packets that get lost in one direction, and the API server.

use std::time::Instant;

use anyhow::{Context, ensure};
use redfleet_tests::cluster::Cluster;
use redfleet_tests::faults::Signal;
use redfleet_tests::replicaset::{MINUTE, SECOND, Set, route_services};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::Connections;

use super::scene::{Loss, Scene, at_peace_again, follows, one_master};
use crate::SPEC;

/// The old master lives on without anybody, and is not one any more when it is back.
async fn cable_pulled(set: &Set) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let (cluster, name) = (scene.cluster.clone(), scene.master_name());
    let node = cluster.node_of(&scene.master)?;
    let fault = Instant::now();
    cluster.cable_out(&node).await?;
    Box::pin(scene.end("cable pulled", fault, Loss::OnlyTheUnreplicated)).await?;
    cluster.cable_in(&node).await?;
    follows(set, &name).await?;
    one_master(set).await
}

/// Nothing that the master says reaches its replicas, while everybody else hears it, the operators among them.
async fn heard_by_no_replica(set: &Set) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let (cluster, name) = (scene.cluster.clone(), scene.master_name());
    let mut replicas = Vec::new();
    for member in set.status().await?.members {
        if member.name != name {
            replicas.push(set.namespace.pod(&member.name).await?);
        }
    }
    let fault = Instant::now();
    for replica in &replicas {
        cluster.drop_one_way(&scene.master, replica).await?;
    }
    let what = "the master unheard by its replicas";
    Box::pin(scene.end(what, fault, Loss::OnlyTheUnreplicated)).await?;
    cluster.heal().await?;
    follows(set, &name).await?;
    one_master(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_cable_is_pulled_and_its_packets_vanish() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "network", SPEC).await?;
    cable_pulled(&set).await?;
    heard_by_no_replica(&set).await?;
    at_peace_again(set).await
}

/// Without the API nobody can take a term: the master that is there goes on, and one that is lost is replaced when the API
/// is back, not by a guess.
#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_api_server_is_away() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "api", SPEC).await?;
    route_services(&cluster, "").await?;
    let master = set.master().await?;
    let name = master.metadata.name.clone().context("a name")?;
    let term = set.status().await?.term;
    let mut connection = set.connect(&name).await?;
    let writer = set.writer(Connections::Kept).await?;
    let began = Instant::now();
    cluster.api_down().await?;
    // A window in which nothing may happen: longer than a lease and than the operators' patience with members.
    tokio::time::sleep(SECOND * 5).await;
    let before = writer.count();
    wait_until("writes to go on without an API server", MINUTE, || async {
        Ok((writer.count() >= before + 200).then_some(()))
    })
    .await?;
    let account = writer.stop().await;
    let pause = account.outage(began);
    connection.call(&["SET", "without", "api"]).await?;
    let replicas = connection.call(&["WAIT", "2", "20000"]).await?;
    ensure!(replicas == ["2"], "only {replicas:?} replicas have it");
    cluster.signal(&master, Signal::Kill).await?;
    cluster.api_up().await?;
    let status = set
        .until("a master after the API server is back", MINUTE * 2, |s| {
            s.term > term
        })
        .await?;
    set.ready(MINUTE * 2).await?;
    let master = status.master.context("no master")?;
    let value = set
        .connect(&master)
        .await?
        .call(&["GET", "without"])
        .await?;
    ensure!(value == ["api"], "the write is gone: {value:?}");
    let missing = set.missing(&account).await?;
    ensure!(missing.is_empty(), "acknowledged and gone: {missing:?}");
    println!(
        "WITHOUT API server: {} writes, longest pause {:.2} s",
        account.count(),
        pause.as_secs_f64()
    );
    one_master(&set).await?;
    at_peace_again(set).await
}
