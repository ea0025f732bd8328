//! The frame of every test here: a set under load before the fault, and what must hold after it.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use redfleet_tests::cluster::{Cluster, pod_node};
use redfleet_tests::replicaset::{
    MINUTE, SECOND, Set, kill_operators, route_services, services_settled,
};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::{Account, Connection, Connections, Writer, forget_numbers, numbers};

/// A set under load, just before its master is lost.
pub struct Scene {
    pub cluster: Cluster,
    pub set: Set,
    pub master: Pod,
    writer: Writer,
    /// What a replica held before the fault.
    held: BTreeSet<u64>,
    term: i64,
}

/// What the fault must not cost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was acknowledged.
    Nothing,
    /// Nothing that a replica held before the fault.
    OnlyTheUnreplicated,
}

/// What becomes of the operators when the fault happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Operators {
    /// Both work.
    Work,
    /// Both are killed in the middle of it.
    Die,
}

impl Operators {
    /// Lets the fault happen, and at the same moment what becomes of the operators.
    pub async fn meet(
        self,
        cluster: &Cluster,
        fault: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Work => fault.await,
            Self::Die => futures::try_join!(fault, kill_operators(cluster)).map(drop),
        }
    }

    /// The fault's name with it.
    pub fn describe(self, fault: &str) -> String {
        match self {
            Self::Work => fault.to_owned(),
            Self::Die => format!("{fault}, operators killed too"),
        }
    }
}

impl Scene {
    /// A set that is complete, with 200 writes done.
    pub async fn begin(set: &Set) -> anyhow::Result<Self> {
        let (set, cluster) = (set.clone(), set.namespace.cluster().clone());
        let status = set.ready(MINUTE * 2).await?;
        let master = set.master().await?;
        let name = master.metadata.name.clone().unwrap_or_default();
        route_services(&cluster, pod_node(&master)?).await?;
        forget_numbers(set.member(&name).await?, &set.password().await?).await?;
        let writer = set.writer(Connections::Kept).await?;
        wait_until("200 acknowledged writes", MINUTE, || async {
            Ok((writer.count() >= 200).then_some(()))
        })
        .await?;
        let replica = status
            .members
            .iter()
            .find(|m| m.name != name)
            .context("no replica")?;
        let address = set.member(&replica.name).await?;
        services_settled(&cluster).await?;
        let held = numbers(address, &set.password().await?).await?;
        Ok(Self {
            cluster,
            set,
            master,
            writer,
            held,
            term: status.term,
        })
    }

    /// The name of the master before the fault.
    pub fn master_name(&self) -> String {
        self.master.metadata.name.clone().unwrap_or_default()
    }

    /// Waits until another mastership began and 200 more writes were acknowledged; prints and checks what it cost.
    pub async fn end(self, what: &str, fault: Instant, loss: Loss) -> anyhow::Result<()> {
        let Self {
            set,
            writer,
            held,
            term,
            ..
        } = self;
        set.until("another mastership", MINUTE, |s| s.term > term)
            .await?;
        let before = writer.count();
        wait_until("writes to go on", MINUTE, || async {
            Ok((writer.count() >= before + 200).then_some(()))
        })
        .await?;
        let account = writer.stop().await;
        let status = set.status().await?;
        let master = status.master.clone().context("no master")?;
        let found = numbers(set.member(&master).await?, &set.password().await?).await?;
        report(what, &account, fault, &found, &status.failovers.first());
        let lost: Vec<&u64> = held.difference(&found).collect();
        ensure!(
            lost.is_empty(),
            "a replica held {lost:?}, and they are gone"
        );
        if loss == Loss::Nothing {
            let missing = account.missing(&found, None);
            ensure!(missing.is_empty(), "acknowledged and gone: {missing:?}");
        }
        one_master(&set).await
    }
}

fn report<T: std::fmt::Debug>(
    what: &str,
    account: &Account,
    fault: Instant,
    found: &BTreeSet<u64>,
    record: &T,
) {
    println!(
        "OUTAGE {what}: {:.2} s; {} acknowledged, {} of them missing; errors {:?}; {record:?}",
        account.outage(fault).as_secs_f64(),
        account.count(),
        account.missing(found, None).len(),
        account.error_kinds(fault)
    );
}

/// Exactly one member that can be asked calls itself master.
pub async fn one_master(set: &Set) -> anyhow::Result<()> {
    let (status, password) = (set.status().await?, set.password().await?);
    let mut masters = Vec::new();
    for member in status.members {
        let Ok(address) = set.member(&member.name).await else {
            continue;
        };
        let Ok(mut connection) = Connection::open_within(address, &password, SECOND * 2).await
        else {
            continue;
        };
        let role = connection.call(&["ROLE"]).await.unwrap_or_default();
        if role.first().is_some_and(|role| role == "master") {
            masters.push(member.name);
        }
    }
    ensure!(masters.len() == 1, "not one master but {masters:?}");
    Ok(())
}

/// Waits until a member says that its link to a master is up.
pub async fn follows(set: &Set, member: &str) -> anyhow::Result<()> {
    let password = set.password().await?;
    wait_until("the old master to follow", MINUTE * 3, || async {
        let address = set.member(member).await?;
        let mut connection = Connection::open_within(address, &password, SECOND).await?;
        let role = connection.call(&["ROLE"]).await?;
        let attached = role.first().is_some_and(|r| r == "slave");
        let connected = role.get(3).is_some_and(|state| state == "connected");
        Ok((attached && connected).then_some(()))
    })
    .await
}

/// Waits until the set is complete, then takes it away.
pub async fn at_peace_again(set: Set) -> anyhow::Result<()> {
    set.ready(MINUTE * 2).await?;
    set.namespace.delete().await
}
