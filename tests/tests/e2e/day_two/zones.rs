//! Zones: members are spread over them, a zone that is drained is missed, and the spread comes back with it. Whether the spread
//! is a preference or required makes no difference to that: nobody stays away because a zone is drained.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use redfleet_operator::api::v1alpha1::RedisReplicaSetStatus;
use redfleet_tests::cluster::{Cluster, pod_node};
use redfleet_tests::replicaset::{MINUTE, Set};

fn satisfied(status: &RedisReplicaSetStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.type_ == "PlacementSatisfied" && c.status == "True")
}

fn names_a_crowd(status: &RedisReplicaSetStatus) -> bool {
    status.conditions.iter().any(|c| {
        c.type_ == "PlacementSatisfied"
            && c.status == "False"
            && c.message.contains("topology.kubernetes.io/zone=")
    })
}

/// Every one of three zones has one voter.
fn one_voter_in_each_zone(status: &RedisReplicaSetStatus) -> anyhow::Result<()> {
    let voting = status
        .members
        .iter()
        .filter(|m| status.voters.contains(&m.name) && m.vote);
    let zones: Vec<&String> = voting.filter_map(|m| m.zone.as_ref()).collect();
    let different: BTreeSet<&&String> = zones.iter().collect();
    ensure!(
        zones.len() == 3 && different.len() == 3,
        "not a voter in each zone: {:?}",
        status.members
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_drained_zone_is_named_and_the_spread_comes_back() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(
        &cluster,
        "zones",
        "  replicas: 3\n  storage: {ephemeral: {}}\n",
    )
    .await?;
    let spread = "[{topologyKey: topology.kubernetes.io/zone, require: true}]";
    let required = format!(
        "  replicas: 3\n  storage: {{ephemeral: {{}}}}\n  placement: {{spread: {spread}}}\n"
    );
    let hard = Set::create(&cluster, "zones-hard", &required).await?;
    set.until("a spread over three zones", MINUTE, satisfied)
        .await?;
    one_voter_in_each_zone(&hard.ready(MINUTE).await?)?;
    let status = set.ready(MINUTE).await?;
    one_voter_in_each_zone(&status)?;
    let replica = status
        .members
        .iter()
        .find(|m| Some(&m.name) != status.master.as_ref())
        .context("a replica")?;
    let pod = set.namespace.pod(&replica.name).await?;
    let node = pod_node(&pod)?.to_owned();
    cluster
        .kubectl(&[
            "drain",
            &node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=50s",
        ])
        .await?;
    let status = set
        .until("the condition to name the crowd", MINUTE, names_a_crowd)
        .await?;
    hard.until("its condition to name the crowd", MINUTE, names_a_crowd)
        .await?;
    let condition = status
        .conditions
        .iter()
        .find(|c| c.type_ == "PlacementSatisfied");
    println!(
        "DRAINED {node}: {}",
        condition.map(|c| c.message.as_str()).unwrap_or_default()
    );
    cluster.kubectl(&["uncordon", &node]).await?;
    set.until("the spread to come back", MINUTE * 2, satisfied)
        .await?;
    one_voter_in_each_zone(&set.ready(MINUTE * 2).await?)?;
    hard.until("its spread to come back", MINUTE * 2, satisfied)
        .await?;
    one_voter_in_each_zone(&hard.ready(MINUTE * 2).await?)?;
    hard.namespace.delete().await?;
    set.namespace.delete().await
}
