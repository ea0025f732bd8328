//! Passwords change: on demand, with the Secret that they come from, by the timer, and not while the set is paused.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Secret;
use redfleet_operator::api::names;
use redfleet_operator::api::v1alpha1::{
    MemberRole, RedisReplicaSetStatus, RotationCause, RotationPhase,
};
use redfleet_tests::cluster::{Cluster, Deletion, Namespace};
use redfleet_tests::replicaset::{
    MINUTE, Set, operator_at_work, pod_uids, route_services, versions,
};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::Connections;

use crate::SPEC;

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn both_secrets_rotate_ten_times_and_nobody_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let spec = format!("{SPEC}  auth: {{overlap: 2s}}\n");
    let set = Set::create(&cluster, "rotate", &spec).await?;
    route_services(&cluster, "").await?;
    let (first, first_of_replicas) = (set.password().await?, replication_password(&set).await?);
    let uids = pod_uids(&set).await?;
    let writer = set.writer(Connections::EveryCommand).await?;
    let start = set.status().await?.rotation.client.revision;
    for round in 1..=10 {
        set.ask_for_rotation(&round.to_string()).await?;
        set.rotated(start + round, MINUTE).await?;
    }
    let logins = set.nobody_was_refused(writer, &uids).await?;
    println!("ROTATED ten times under {logins} logins, 0 refused");
    let master = set.status().await?.master.context("a master")?;
    refused(&set, &[&master], &first).await?;
    let newest = replication_password(&set).await?;
    let mut c = set.connect(&master).await?;
    let user = names::REPLICATION_USER;
    ensure!(
        c.call(&["AUTH", user, &first_of_replicas]).await.is_err(),
        "the first replication password is still accepted"
    );
    c.call(&["AUTH", user, &newest])
        .await
        .context("the newest replication password")?;
    set.namespace.delete().await
}

async fn replication_password(set: &Set) -> anyhow::Result<String> {
    let name = names::replication_secret(&set.name);
    let secret = set.namespace.api::<Secret>().get(&name).await?;
    let data = secret.data.unwrap_or_default();
    let password = data.get(names::PASSWORD_KEY).context("no password")?;
    Ok(String::from_utf8(password.0.clone())?)
}

/// What members are told is written into Secret `<name>-server` first. Without it a rotation could not go on, and a pod that
/// starts would know no password.
#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_secret_of_the_servers_is_deleted_and_restored_and_nobody_is_refused()
-> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let spec = format!("{SPEC}  auth: {{overlap: 2s}}\n");
    let set = Set::create(&cluster, "lost", &spec).await?;
    route_services(&cluster, "").await?;
    let uids = pod_uids(&set).await?;
    let writer = set.writer(Connections::EveryCommand).await?;
    let revision = set.status().await?.rotation.client.revision;
    let name = names::server_secret(&set.name);
    let before = server_secret(&set).await?.context("no Secret yet")?;
    set.namespace
        .kubectl(&["delete", "secret", &name, "--wait=false"])
        .await?;
    wait_until("the Secret to be back", MINUTE, || async {
        let found = server_secret(&set).await?;
        Ok(found.filter(|s| s.metadata.uid != before.metadata.uid))
    })
    .await?;
    set.ask_for_rotation("after").await?;
    set.rotated(revision + 1, MINUTE).await?;
    set.ready(MINUTE).await?;
    let logins = set.nobody_was_refused(writer, &uids).await?;
    println!("RESTORED under {logins} logins, 0 refused");
    let one = set.status().await?.members[0].name.clone();
    set.namespace.delete_pod(&one, Deletion::Graceful).await?;
    wait_until("a new pod", MINUTE, || async {
        let pod = set.namespace.pod(&one).await?;
        Ok((pod.metadata.uid.as_ref() != uids.get(&one)).then_some(()))
    })
    .await?;
    set.ready(MINUTE).await?;
    set.namespace.delete().await
}

async fn server_secret(set: &Set) -> anyhow::Result<Option<Secret>> {
    let secrets = set.namespace.api::<Secret>();
    Ok(secrets.get_opt(&names::server_secret(&set.name)).await?)
}

async fn store_password(namespace: &Namespace, password: &str) -> anyhow::Result<()> {
    let yaml = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: mine}}\nstringData: {{password: {password}}}\n"
    );
    namespace.apply(&yaml).await.map(drop)
}

/// Fails where clients may log in to one of these members with this password.
async fn refused(set: &Set, members: &[&str], password: &str) -> anyhow::Result<()> {
    for member in members {
        let connection = set.login(member, password).await?;
        ensure!(
            connection.is_none(),
            "{member} still accepts an old password"
        );
    }
    Ok(())
}

/// Fails where clients may not log in to every one of these members with this password.
async fn accepted(set: &Set, members: &[&str], password: &str) -> anyhow::Result<()> {
    for member in members {
        let connection = set.login(member, password).await?;
        connection.with_context(|| format!("{member} refuses {password:?}"))?;
    }
    Ok(())
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
    let set = Set::named(&namespace, "orders");
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
    refused(&set, &members, "first").await?;
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

/// A replica whose pod Kubernetes replaces during a pause has another address, and follows the master all the same.
async fn joins_again(set: &Set) -> anyhow::Result<()> {
    let status = set.status().await?;
    let mut members = status.members.iter();
    let replica = members.find(|m| Some(&m.name) != status.master.as_ref());
    let replica = &replica.context("a replica")?.name;
    let before = pod_uids(set).await?;
    set.namespace
        .delete_pod(replica, Deletion::Graceful)
        .await?;
    wait_until("another pod of the replica", MINUTE, || async {
        let now = pod_uids(set).await?;
        let uid = now.get(replica);
        Ok((uid.is_some() && uid != before.get(replica)).then_some(()))
    })
    .await?;
    set.until("the replica to follow during the pause", MINUTE, |s| {
        let mut members = s.members.iter();
        s.master == status.master
            && members.any(|m| m.name == *replica && m.role == MemberRole::Replica && m.ready)
    })
    .await
    .map(drop)
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
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    ensure!(
        ready.is_some_and(|c| c.status == "False" && c.message.contains("to 3 members")),
        "a third member was asked for, and there are two: {ready:?}"
    );
    let (before, uids) = (versions(&set.namespace).await?, pod_uids(set).await?);
    set.namespace
        .kubectl(&["label", "configmap", "orders-config", "redfleet.dev/set-"])
        .await?;
    set.ask_for_rotation("paused").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = versions(&set.namespace).await?;
    // What is changed here, and what the kubelet reports of pods, which stay the same ones.
    let expected = ["\"ConfigMap\"", "\"RedisReplicaSet\"", "\"Pod\""];
    let changed: Vec<&String> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .map(|(name, _)| name)
        .filter(|name| !expected.iter().any(|kind| name.starts_with(kind)))
        .collect();
    ensure!(
        changed.is_empty() && before.len() == after.len() && pod_uids(set).await? == uids,
        "changed during a pause: {changed:?}"
    );
    joins_again(set).await?;
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
