//! Losing the master in every way we can make it happen, under a writer that remembers what was acknowledged.
//!
//! Each test prints the outage that clients of the Service felt. What must hold in all of them: writes resume, there is
//! exactly one master, and what was acknowledged and held by a replica before the fault is there. Each fault happens twice
//! to the same set: with the operators at work, and with both of them killed at the same moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use redfleet_operator::api::v1alpha1::PossibleLoss;
use redfleet_tests::cluster::{Cluster, Deletion, pod_node};
use redfleet_tests::faults::Signal;
use redfleet_tests::replicaset::{
    MINUTE, SECOND, SYSTEM, Set, kill_operators, route_services, services_settled,
};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::{Account, Connection, Connections, Writer, forget_numbers, numbers};

const SPEC: &str = "  replicas: 3\n  storage: {size: 100Mi}\n";

/// A set under load, just before its master is lost.
struct Scene {
    cluster: Cluster,
    set: Set,
    master: Pod,
    writer: Writer,
    /// What a replica held before the fault.
    held: BTreeSet<u64>,
    term: i64,
}

/// What the fault must not cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Nothing that was acknowledged.
    Nothing,
    /// Nothing that a replica held before the fault.
    OnlyTheUnreplicated,
}

/// What becomes of the operators when the fault happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operators {
    /// Both work.
    Work,
    /// Both are killed in the middle of it.
    Die,
}

impl Operators {
    async fn meet_the_fault(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Work => Ok(()),
            Self::Die => kill_operators(cluster).await,
        }
    }

    fn describe(self, fault: &str) -> String {
        match self {
            Self::Work => fault.to_owned(),
            Self::Die => format!("{fault}, operators killed too"),
        }
    }
}

impl Scene {
    async fn begin(set: &Set) -> anyhow::Result<Self> {
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

    fn master_name(&self) -> String {
        self.master.metadata.name.clone().unwrap_or_default()
    }

    /// Waits until another mastership began and 200 more writes were acknowledged; prints and checks what it cost.
    async fn end(self, what: &str, fault: Instant, loss: Loss) -> anyhow::Result<()> {
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
async fn one_master(set: &Set) -> anyhow::Result<()> {
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

async fn killed(set: &Set, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let fault = Instant::now();
    scene.cluster.signal(&scene.master, Signal::Kill).await?;
    operators.meet_the_fault(&scene.cluster).await?;
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
    set.namespace.delete_pod(&name, how).await?;
    operators.meet_the_fault(&scene.cluster).await?;
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
    namespace.delete_pvc(&format!("data-{name}")).await?;
    namespace.delete_pod(&name, Deletion::Forced).await?;
    operators.meet_the_fault(&scene.cluster).await?;
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
    let fault = Instant::now();
    cluster.signal(&master, Signal::Stop).await?;
    operators.meet_the_fault(&cluster).await?;
    let what = operators.describe("process stopped");
    Box::pin(scene.end(&what, fault, Loss::OnlyTheUnreplicated)).await?;
    let pause = Duration::from_secs(10).saturating_sub(fault.elapsed());
    tokio::time::sleep(pause).await;
    cluster.signal(&master, Signal::Continue).await?;
    // Whatever it says on waking, it may not acknowledge a write.
    for _ in 0..20 {
        if let Ok(mut c) = Connection::open(address, &password).await {
            let answer = c.call(&["SET", "woken", "1"]).await;
            ensure!(
                answer.is_err(),
                "the woken master acknowledged a write: {answer:?}"
            );
        }
    }
    Ok(())
}

async fn powered_off(set: &Set, operators: Operators) -> anyhow::Result<()> {
    let scene = Scene::begin(set).await?;
    let (cluster, name) = (scene.cluster.clone(), scene.master_name());
    let node = cluster.node_of(&scene.master)?;
    let fault = Instant::now();
    cluster.node_power_off(&node).await?;
    operators.meet_the_fault(&cluster).await?;
    let what = operators.describe("node off");
    scene.end(&what, fault, Loss::OnlyTheUnreplicated).await?;
    let booted = Instant::now();
    cluster.node_boot(&node).await?;
    follows(set, &name).await?;
    println!(
        "REBOOTED {:.1} s from power until the old master follows",
        booted.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until a member says that its link to a master is up.
async fn follows(set: &Set, member: &str) -> anyhow::Result<()> {
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
async fn at_peace_again(set: Set) -> anyhow::Result<()> {
    set.ready(MINUTE * 2).await?;
    set.namespace.delete().await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_process_is_killed() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "kill", SPEC).await?;
    killed(&set, Operators::Work).await?;
    killed(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn every_process_of_a_set_is_killed_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
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
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "stop", SPEC).await?;
    stopped_and_woken(&set, Operators::Work).await?;
    stopped_and_woken(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn the_masters_node_loses_power() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    if !cluster.can_be_broken() {
        return Ok(());
    }
    let set = Set::create(&cluster, "power", SPEC).await?;
    powered_off(&set, Operators::Work).await?;
    powered_off(&set, Operators::Die).await?;
    at_peace_again(set).await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn without_operators_the_set_serves_and_they_find_what_happened_meanwhile()
-> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let set = Set::create(&cluster, "operator", SPEC).await?;
    let count = |n: &'static str| {
        let cluster = cluster.clone();
        async move {
            let args = ["-n", SYSTEM, "scale", "deployment/redfleet-operator", n];
            cluster.kubectl(&args).await
        }
    };
    count("--replicas=0").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    wait_until("the operators to be gone", MINUTE, || async {
        let left = pods.list(&ListParams::default()).await?;
        Ok(left.items.is_empty().then_some(()))
    })
    .await?;
    let master = set.master().await?;
    let name = master.metadata.name.clone().unwrap_or_default();
    let mut connection = set.connect(&name).await?;
    connection.call(&["SET", "without", "operator"]).await?;
    let replicas = connection.call(&["WAIT", "2", "20000"]).await?;
    ensure!(replicas == ["2"], "only {replicas:?} replicas have it");
    let term = set.status().await?.term;
    cluster.signal(&master, Signal::Kill).await?;
    count("--replicas=2").await?;
    let status = set
        .until("a master after the operators are back", MINUTE * 2, |s| {
            s.term > term
        })
        .await?;
    set.ready(MINUTE * 2).await?;
    let mut connection = set.connect(&status.master.context("no master")?).await?;
    let value = connection.call(&["GET", "without"]).await?;
    ensure!(value == ["operator"], "the write is gone: {value:?}");
    set.namespace.delete().await
}
