//! Operators that are away, one of two that dies, and what one that died left behind.

use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams};
use redfleet_operator::api::names;
use redfleet_operator::api::v1alpha1::{FailoverReason, RedisReplicaSet};
use redfleet_operator::members::remote::Remote;
use redfleet_operator::resources::secrets::read_server_secret;
use redfleet_tests::cluster::Cluster;
use redfleet_tests::faults::Signal;
use redfleet_tests::replicaset::{MINUTE, SYSTEM, Set, operator_at_work};
use redfleet_tests::wait::wait_until;
use replset::{FleetId, Generation, Intent, Prepare, Term};
use serde_json::json;

use super::scene::{Loss, Scene, at_peace_again, follows};
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

/// Takes a term and asks one replica for its promise, as an operator that ends just then. Returns the replica.
async fn half_an_election(set: &Set) -> anyhow::Result<String> {
    let elector = "an-operator-that-ended";
    let object = set.object().await?;
    let status = object.status.clone().context("no status")?;
    let term = status.election_term + 1;
    let taken = json!({"status": {"electionTerm": term, "elector": elector}});
    let sets = set.namespace.api::<RedisReplicaSet>();
    let params = PatchParams::default();
    sets.patch_status(&set.name, &params, &Patch::Merge(taken))
        .await?;
    let prepare = Prepare {
        fleet: FleetId::new(object.metadata.uid.context("no UID")?),
        heir_of: None,
        term: Term(term.try_into()?),
        elector: elector.into(),
        generation: Generation(status.voters_generation.try_into()?),
        intent: Intent::Forced,
    };
    let others = status.members.iter().map(|m| &m.name);
    let mut others = others.filter(|name| status.master.as_ref() != Some(*name));
    let replica = others.next().context("no replica")?;
    let secrets = set.namespace.api::<Secret>();
    let token =
        read_server_secret(&secrets.get(&names::server_secret(&set.name)).await?)?.control_token;
    let address = set.member(replica).await?.ip();
    let promise = Remote::new(address, names::CONTROL_PORT, token.expose())?
        .prepare(&prepare)
        .await??;
    ensure!(promise.term == prepare.term, "{promise:?}");
    Ok(replica.clone())
}

/// A member that promised a term in which nobody became master refuses the master that is there. Nothing is lost by that,
/// and nobody misses the master; but the member would not replicate until the next election.
#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_member_that_an_unfinished_election_left_behind_is_brought_back() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "unfinished", SPEC).await?;
    let scene = Scene::begin(&set).await?;
    let master = scene.master_name();
    let fault = Instant::now();
    let left_behind = half_an_election(&set).await?;
    Box::pin(scene.end("an election that was not finished", fault, Loss::Nothing)).await?;
    follows(&set, &left_behind).await?;
    let status = set.ready(MINUTE).await?;
    let record = status.failovers.first().context("no record")?;
    ensure!(
        record.reason == FailoverReason::StrandedMember,
        "{record:?}"
    );
    ensure!(status.master == Some(master), "{record:?}");
    at_peace_again(set).await
}
