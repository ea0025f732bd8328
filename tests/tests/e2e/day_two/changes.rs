//! Members, configuration, image and place of a set change under load; a deleted set is applied again.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use redfleet_operator::api::v1alpha1::FailoverReason;
use redfleet_tests::apiserver::repository;
use redfleet_tests::cluster::{Cluster, Deletion};
use redfleet_tests::replicaset::{MINUTE, SECOND, Set, operator_at_work, pod_uids, route_services};
use redfleet_tests::wait::wait_until;
use redfleet_tests::writer::{Connection, Connections};

use crate::SPEC;

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn five_members_and_three_again_without_the_master_moving_away() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let set = Set::create(&cluster, "scale", SPEC).await?;
    route_services(&cluster, "").await?;
    let before = set.status().await?;
    let writer = set.writer(Connections::Kept).await?;
    let began = Instant::now();
    set.namespace
        .kubectl(&["scale", "rrs/orders", "--replicas=5"])
        .await?;
    set.until("five voters", MINUTE * 2, |s| s.voters.len() == 5)
        .await?;
    let five = set.ready(MINUTE * 2).await?;
    let zone = |ordinal: usize| five.members[ordinal].zone.clone();
    let mut in_zones: BTreeMap<Option<String>, usize> = BTreeMap::new();
    (0..5).for_each(|ordinal| *in_zones.entry(zone(ordinal)).or_default() += 1);
    ensure!(
        in_zones.len() == 3 && in_zones.values().all(|count| *count <= 2),
        "five voters are not spread over three zones: {in_zones:?}"
    );
    set.namespace
        .kubectl(&["scale", "rrs/orders", "--replicas=3"])
        .await?;
    set.until("three voters", MINUTE * 2, |s| {
        s.voters.len() == 3 && s.replicas == 3
    })
    .await?;
    set.ready(MINUTE * 2).await?;
    let account = writer.stop().await;
    let missing = set.missing(&account).await?;
    let after = set.status().await?;
    ensure!(
        (&after.master, after.term) == (&before.master, before.term),
        "the mastership moved from {:?} to {:?}",
        before.master,
        after.master
    );
    println!(
        "SCALED 3, 5, 3; longest pause {:.2} s",
        account.outage(began).as_secs_f64()
    );
    ensure!(missing.is_empty(), "acknowledged and gone: {missing:?}");
    set.namespace.delete().await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_master_that_has_to_go_hands_over_before_it_does() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let spec = SPEC.replace("replicas: 3", "replicas: 5");
    let set = Set::create(&cluster, "shrink", &spec).await?;
    route_services(&cluster, "").await?;
    let leaves = |master: &Option<String>| {
        let master = master.as_deref().unwrap_or_default();
        ["orders-3", "orders-4"].contains(&master)
    };
    // Who leads by then is not ours to choose: the three that stay are replaced together, so one of the others takes over.
    for _ in 0..5 {
        if leaves(&set.status().await?.master) {
            break;
        }
        let stay = ["orders-0", "orders-1", "orders-2"];
        set.namespace
            .kubectl(&[&["delete", "pod"][..], &stay].concat())
            .await?;
        set.ready(MINUTE * 2).await?;
    }
    let before = set.status().await?;
    ensure!(leaves(&before.master), "{:?} still leads", before.master);
    let writer = set.writer(Connections::Kept).await?;
    let began = Instant::now();
    set.namespace
        .kubectl(&["scale", "rrs/orders", "--replicas=3"])
        .await?;
    let after = set
        .until("three members", MINUTE * 2, |s| {
            s.voters.len() == 3 && s.replicas == 3
        })
        .await?;
    set.ready(MINUTE * 2).await?;
    let account = writer.stop().await;
    let missing = set.missing(&account).await?;
    ensure!(!leaves(&after.master), "{:?} leads", after.master);
    // A switchover may be refused at first, for a replica that is behind, and is ordered again then.
    let since = after.failovers.iter().filter(|r| r.term > before.term);
    let unplanned: Vec<_> = since
        .clone()
        .filter(|r| r.reason != FailoverReason::ScaleDown || r.lost_bytes != Some(0))
        .collect();
    ensure!(
        unplanned.is_empty() && since.count() == 1,
        "not one planned switchover: {:?}",
        after.failovers
    );
    println!(
        "SCALED 5, 3 with the master among those that leave; longest pause {:.2} s",
        account.outage(began).as_secs_f64()
    );
    ensure!(missing.is_empty(), "acknowledged and gone: {missing:?}");
    set.namespace.delete().await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_set_that_was_deleted_and_is_applied_again_has_its_data() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let set = Set::create(&cluster, "again", SPEC).await?;
    let master = set.master().await?.metadata.name.context("a name")?;
    set.namespace
        .delete_pod(&master, Deletion::Graceful)
        .await?;
    let before = set.until("a second term", MINUTE, |s| s.term > 1).await?;
    set.ready(MINUTE).await?;
    let write = |word: &'static str| {
        let set = set.clone();
        async move {
            let master = set.master().await?.metadata.name.context("a name")?;
            set.connect(&master).await?.call(&["INCR", word]).await
        }
    };
    ensure!(write("visits").await? == ["1"]);
    set.namespace.kubectl(&["delete", "rrs/orders"]).await?;
    // Fewer members than a majority of those that held the data: nobody can say that nothing is overlooked.
    set.apply(&SPEC.replace("replicas: 3", "replicas: 1"))
        .await?;
    set.until("the condition to name the cure", MINUTE * 2, |s| {
        let says = |c: &Condition| c.message.contains("set spec.replicas to 3");
        s.conditions.iter().any(says)
    })
    .await?;
    set.apply(SPEC).await?;
    let after = set.ready(MINUTE * 2).await?;
    ensure!(
        after.term > before.term && after.voters_generation > before.voters_generation,
        "terms and voters begin anew: {after:?}"
    );
    ensure!(write("visits").await? == ["2"], "the data are gone");
    set.namespace.delete().await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn configuration_is_live_and_an_image_rolls_with_partial_syncs_only() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let set = Set::create(&cluster, "roll", SPEC).await?;
    route_services(&cluster, "").await?;
    let uids = pod_uids(&set).await?;
    let live = format!("{SPEC}  config: {{repl-backlog-size: 64mb}}\n");
    set.apply(&live).await?;
    for member in ["orders-0", "orders-1", "orders-2"] {
        set.directive(member, "repl-backlog-size", "67108864")
            .await?;
    }
    let wrong = live.replace("{repl", "{no-such-thing: \"1\", repl");
    set.apply(&wrong).await?;
    set.until("the refused directive to be named", MINUTE, |s| {
        s.conditions.iter().any(|c| {
            c.type_ == "Stalled"
                && c.reason == "DirectiveRefused"
                && c.message.contains("spec.config.no-such-thing")
        })
    })
    .await?;
    ensure!(
        pod_uids(&set).await? == uids,
        "a pod was replaced for a live directive"
    );
    let old_master = set.master().await?;
    let old_name = old_master.metadata.name.clone().unwrap_or_default();
    let writer = set.writer(Connections::Kept).await?;
    let began = Instant::now();
    let next = &cluster.images().server_next;
    // A directive that is read at start only comes into force by the same replacements.
    let rolled = live.replace("{repl", "{tcp-backlog: \"128\", repl");
    set.apply(&format!("{rolled}  image: {next}\n")).await?;
    let syncs = Syncs::default();
    syncs.look(&set).await?;
    let order = follow_rollout(&set, &uids, &syncs).await?;
    set.ready(MINUTE * 3).await?;
    let account = writer.stop().await;
    println!(
        "ROLLED in the order {order:?}; longest pause {:.2} s; errors {:?}",
        account.outage(began).as_secs_f64(),
        account.error_kinds(began)
    );
    ensure!(
        order.last() == Some(&old_name),
        "{old_name} was not the last: {order:?}"
    );
    let missing = set.missing(&account).await?;
    ensure!(missing.is_empty(), "acknowledged and gone: {missing:?}");
    for member in ["orders-0", "orders-1", "orders-2"] {
        let mut c = set.connect(member).await?;
        let backlog = c.call(&["CONFIG", "GET", "tcp-backlog"]).await?;
        ensure!(backlog == ["tcp-backlog", "128"], "{member}: {backlog:?}");
    }
    syncs.look(&set).await?;
    let full = syncs.full(&uids)?;
    ensure!(full == 0, "{full} full syncs");
    set.namespace.delete().await
}

/// Full synchronizations that each process has served: when it was seen first, and last.
#[derive(Default)]
struct Syncs(std::sync::Mutex<BTreeMap<String, (u64, u64)>>);

impl Syncs {
    /// Asks every member that answers.
    async fn look(&self, set: &Set) -> anyhow::Result<()> {
        let password = set.password().await?;
        for (name, uid) in pod_uids(set).await? {
            let Ok(address) = set.member(&name).await else {
                continue;
            };
            let Ok(mut c) = Connection::open_within(address, &password, SECOND).await else {
                continue;
            };
            let Ok(info) = c.call(&["INFO", "stats"]).await else {
                continue;
            };
            let info = info.join("\n");
            let line = info.lines().find_map(|l| l.strip_prefix("sync_full:"));
            let count = line.context("sync_full")?.trim().parse()?;
            let mut seen = self.0.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            seen.entry(uid).or_insert((count, count)).1 = count;
        }
        Ok(())
    }

    /// How many there were since the first look; those of a process that was not there then count all.
    fn full(&self, old: &BTreeMap<String, String>) -> anyhow::Result<u64> {
        let seen = self.0.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        let was_there = |uid: &String| old.values().any(|o| o == uid);
        let counts = seen
            .iter()
            .map(|(uid, (first, last))| if was_there(uid) { last - first } else { *last });
        Ok(counts.sum())
    }
}

/// The order in which the pods were replaced.
async fn follow_rollout(
    set: &Set,
    before: &BTreeMap<String, String>,
    syncs: &Syncs,
) -> anyhow::Result<Vec<String>> {
    let order = std::sync::Mutex::new(Vec::new());
    wait_until("all pods to be replaced", MINUTE * 3, || async {
        // A pod may be gone just now; the next look sees its successor.
        let _absent = syncs.look(set).await;
        for (name, uid) in before {
            let pods = set.namespace.api::<Pod>();
            let replaced = pods
                .get_opt(name)
                .await?
                .is_none_or(|p| p.metadata.uid.as_ref() != Some(uid));
            let mut order = order.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            if replaced && !order.contains(name) {
                order.push(name.clone());
            }
        }
        let order = order.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        Ok((order.len() == before.len()).then(|| order.clone()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn every_example_comes_up() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    operator_at_work(&cluster).await?;
    let examples = repository().join("examples");
    let path = |name: &str| examples.join(name).display().to_string();
    let sources = [
        ("sessions", path("cache.yaml"), 3),
        ("ledger", path("zones.yaml"), 5),
        ("carts", path("gitops/production"), 5),
    ];
    for (name, source, members) in sources {
        let namespace = cluster.namespace("example").await?;
        if source.ends_with(".yaml") {
            // Test nodes are small.
            let large = r#"requests: {cpu: "1", memory: 3Gi}"#;
            let yaml = std::fs::read_to_string(&source)?;
            let yaml = yaml.replace(large, "requests: {cpu: 10m, memory: 64Mi}");
            namespace.apply(&yaml).await?;
        } else {
            namespace.kubectl(&["apply", "-k", &source]).await?;
        }
        let set = Set::named(&namespace, name);
        let status = set.ready(MINUTE * 2).await.context(name)?;
        ensure!(status.members.len() == members, "{name}: {status:?}");
        let spread = status
            .conditions
            .iter()
            .any(|c| c.type_ == "PlacementSatisfied" && c.status == "True");
        ensure!(spread, "{name}: {:?}", status.conditions);
        namespace.delete().await?;
    }
    Ok(())
}
