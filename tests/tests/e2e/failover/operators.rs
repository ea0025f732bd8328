//! Operators that are away, and one of two that dies.

use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use redfleet_tests::cluster::Cluster;
use redfleet_tests::faults::Signal;
use redfleet_tests::replicaset::{MINUTE, SYSTEM, Set, operator_at_work};
use redfleet_tests::wait::wait_until;

use super::scene::{Loss, Scene, at_peace_again};
use crate::SPEC;

async fn scale_operators(cluster: &Cluster, replicas: &str) -> anyhow::Result<()> {
    let count = format!("--replicas={replicas}");
    let args = [
        "-n",
        SYSTEM,
        "scale",
        "deployment/redfleet-operator",
        &count,
    ];
    cluster.kubectl(&args).await.map(drop)
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn without_operators_the_set_serves_and_they_find_what_happened_meanwhile()
-> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "operator", SPEC).await?;
    scale_operators(&cluster, "0").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    wait_until("the operators to be gone", MINUTE, || async {
        let left = pods.list(&ListParams::default()).await?;
        Ok(left.items.is_empty().then_some(()))
    })
    .await?;
    // Its 200 writes are done without an operator.
    let scene = Scene::begin(&set).await?;
    let fault = Instant::now();
    cluster.signal(&scene.master, Signal::Kill).await?;
    scale_operators(&cluster, "2").await?;
    let what = "process killed without operators, who come back";
    Box::pin(scene.end(what, fault, Loss::OnlyTheUnreplicated)).await?;
    operator_at_work(&cluster).await?;
    at_peace_again(set).await
}

/// The one that acts stands still and gives nothing back: the other takes the Lease when it has run out, and does what is asked for meanwhile.
#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_acting_operator_stands_still_and_the_other_acts() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::connect_to_break().await? else {
        return Ok(());
    };
    let set = Set::create(&cluster, "acting", SPEC).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    let leases: Api<Lease> = Api::namespaced(cluster.client(), SYSTEM);
    let holder = || async {
        let lease = leases.get("redfleet-operator").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        holder.context("nobody holds the Lease")
    };
    let acting = holder().await?;
    let began = Instant::now();
    cluster
        .signal(&pods.get(&acting).await?, Signal::Stop)
        .await?;
    set.apply(&format!("{SPEC}  config: {{repl-backlog-size: 32mb}}\n"))
        .await?;
    set.ready(MINUTE * 2).await?;
    println!(
        "ACTING operator stopped: the other did what was asked after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    ensure!(holder().await? != acting, "{acting} still holds the Lease");
    cluster
        .signal(&pods.get(&acting).await?, Signal::Kill)
        .await?;
    operator_at_work(&cluster).await?;
    at_peace_again(set).await
}
