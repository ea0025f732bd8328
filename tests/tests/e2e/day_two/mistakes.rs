//! A set that cannot be says what is wrong with it, and comes up when that is mended.

use anyhow::{Context, bail, ensure};
use redfleet_operator::api::v1alpha1::PossibleLoss;
use redfleet_tests::cluster::{Cluster, Deletion, Namespace};
use redfleet_tests::faults::Signal;
use redfleet_tests::replicaset::{MINUTE, Set, operator_at_work, pod_uids};
use redfleet_tests::wait::wait_until;
use serde_json::{Value, json};

/// Waits until a condition is as wanted and its message holds these words.
async fn says(
    set: &Set,
    condition: (&str, &str),
    reason: &str,
    words: &[&str],
) -> anyhow::Result<()> {
    let what = format!("{} to say {condition:?} {reason} {words:?}", set.name);
    let seen = wait_until(&what, MINUTE, || async {
        let status = set.status().await?;
        let Some(found) = status.conditions.iter().find(|c| c.type_ == condition.0) else {
            bail!("no such condition yet");
        };
        ensure!(
            found.status == condition.1
                && found.reason == reason
                && words.iter().all(|word| found.message.contains(word)),
            "{} {}: {}",
            found.status,
            found.reason,
            found.message
        );
        Ok(Some(found.message.clone()))
    })
    .await?;
    println!("{}: {} {reason}: {seen}", set.name, condition.0);
    Ok(())
}

/// Waits until an event about the set holds these words.
async fn event(set: &Set, words: &str) -> anyhow::Result<()> {
    wait_until(
        &format!("an event about {} with {words}", set.name),
        MINUTE,
        || async {
            let text = set
                .namespace
                .kubectl(&["describe", "rrs", &set.name])
                .await?;
            let events = text.split_once("Events:").context("no events")?.1;
            Ok(events.contains(words).then_some(()))
        },
    )
    .await
}

const ONE: &str = "  replicas: 1\n  storage: {ephemeral: {}}\n";

/// Taken by the CRD, and refused by the API server in the StatefulSet.
const REFUSED: &str = "  podTemplate: {tolerations: [{key: a, operator: Sometimes}]}\n";

/// A StorageClass that comes to be after a set asks for it.
const LATER: &str = "redfleet-test-later";

fn on_disk(class: &str) -> String {
    format!("  replicas: 1\n  storage: {{size: 100Mi, storageClassName: {class}}}\n")
}

/// Sets of one namespace, each with another mistake; `first` has none, and the name of `second` is that of its Service.
struct Wrong {
    secret: Set,
    class: Set,
    later: Set,
    born: Set,
    place: Set,
    taken: Set,
    refused: Set,
    first: Set,
    second: Set,
}

async fn wrong_sets(namespace: &Namespace) -> anyhow::Result<Wrong> {
    let set = |name: &str| Set::named(namespace, name);
    let wrong = Wrong {
        secret: set("secret"),
        class: set("class"),
        later: set("later"),
        born: set("born"),
        place: set("place"),
        taken: set("taken"),
        refused: set("refused"),
        first: set("pair"),
        second: set("pair-replicas"),
    };
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: taken}\nspec: {ports: [{port: 1}]}\n";
    namespace.apply(service).await?;
    let apply = |set: &Set, more: &str| {
        let (set, spec) = (set.clone(), format!("{ONE}{more}"));
        async move { set.apply(&spec).await }
    };
    apply(&wrong.secret, "  auth: {clientSecretName: mine}\n").await?;
    wrong.class.apply(&on_disk("none-such")).await?;
    wrong.later.apply(&on_disk(LATER)).await?;
    let rack = "  placement: {spread: [{topologyKey: example.com/rack, require: true}]}\n";
    apply(&wrong.place, rack).await?;
    apply(&wrong.born, "  config: {no-such-thing: \"1\"}\n").await?;
    apply(&wrong.taken, "").await?;
    apply(&wrong.refused, REFUSED).await?;
    apply(&wrong.first, "").await?;
    wrong.first.ready(MINUTE).await?;
    apply(&wrong.second, "").await?;
    Ok(wrong)
}

/// Every mistake is named with its field, in a condition and where it stops everything in an event too.
async fn mistakes_are_named(wrong: &Wrong) -> anyhow::Result<()> {
    let (stalled, unplaced) = (("Stalled", "True"), ("PlacementSatisfied", "False"));
    let words = ["spec.auth.clientSecretName", "Secret mine", "create it"];
    says(&wrong.secret, stalled, "SecretMissing", &words).await?;
    event(&wrong.secret, "Secret mine").await?;
    let words = [
        "class-0",
        "create StorageClass none-such (spec.storage.storageClassName)",
        "kubectl delete rrs class",
        "kubectl delete pvc data-class-0",
    ];
    says(&wrong.class, unplaced, "Unschedulable", &words).await?;
    let words = ["later-0", "create StorageClass", LATER];
    says(&wrong.later, unplaced, "Unschedulable", &words).await?;
    let words = ["born-0", "no-such-thing"];
    says(&wrong.born, ("Ready", "False"), "Bootstrapping", &words).await?;
    let words = ["place-0", "topology spread", "example.com/rack"];
    says(&wrong.place, unplaced, "Unschedulable", &words).await?;
    let words = ["Service taken belongs to somebody else", "rename this set"];
    says(&wrong.taken, stalled, "NameTaken", &words).await?;
    event(&wrong.taken, "Service taken").await?;
    let words = ["StatefulSet refused", "tolerations", "correct in the spec"];
    says(&wrong.refused, stalled, "ApplyFailed", &words).await?;
    says(&wrong.refused, ("Progressing", "False"), "ApplyFailed", &[]).await?;
    let words = ["Service pair-replicas belongs to somebody else"];
    says(&wrong.second, stalled, "NameTaken", &words).await?;
    ensure!(
        wrong.first.ready(MINUTE).await?.master.as_deref() == Some("pair-0"),
        "the first of the two must not notice"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_set_that_cannot_be_says_why_and_comes_up_when_it_can() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    operator_at_work(&cluster).await?;
    let namespace = cluster.namespace("wrong").await?;
    let wrong = wrong_sets(&namespace).await?;
    mistakes_are_named(&wrong).await?;

    let secret = ["create", "secret", "generic", "mine"];
    namespace
        .kubectl(&[&secret[..], &["--from-literal=password=of-mine"]].concat())
        .await?;
    other_class(&wrong.class).await?;
    make_class(&cluster, LATER).await?;
    wrong.born.apply(ONE).await?;
    wrong.refused.apply(ONE).await?;
    namespace.kubectl(&["delete", "service", "taken"]).await?;
    namespace
        .kubectl(&["delete", "rrs", "pair", "--wait=false"])
        .await?;
    let nodes = ["label", "nodes", "--all", "--overwrite"];
    cluster
        .kubectl(&[&nodes[..], &["example.com/rack=one"]].concat())
        .await?;
    for set in [
        &wrong.secret,
        &wrong.class,
        &wrong.later,
        &wrong.born,
        &wrong.place,
        &wrong.taken,
        &wrong.refused,
        &wrong.second,
    ] {
        set.ready(MINUTE * 2)
            .await
            .with_context(|| format!("{} after the cure", set.name))?;
    }
    cluster
        .kubectl(&[&nodes[..], &["example.com/rack-"]].concat())
        .await?;
    cluster.kubectl(&["delete", "storageclass", LATER]).await?;
    let mine = wrong.secret.login("secret-0", "of-mine").await?;
    ensure!(mine.is_some(), "the Secret's password is not accepted");
    restarted_for_a_directive(&wrong.born).await?;
    namespace.delete().await
}

/// Does what the message says: the claim would outlive the set, and ask for the old class again.
async fn other_class(set: &Set) -> anyhow::Result<()> {
    let namespace = &set.namespace;
    namespace.kubectl(&["delete", "rrs", &set.name]).await?;
    wait_until("the pods to go with the set", MINUTE, || async {
        Ok(pod_uids(set).await?.is_empty().then_some(()))
    })
    .await?;
    let claim = format!("data-{}-0", set.name);
    namespace.kubectl(&["delete", "pvc", &claim]).await?;
    set.apply("  replicas: 1\n  storage: {size: 100Mi}\n").await
}

/// A copy of the cluster's default StorageClass under another name, which is not the default.
async fn make_class(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let classes = cluster.get("storageclasses", None).await?;
    let is_default = |class: &&Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    };
    let classes = classes["items"].as_array().context("a list")?;
    let default = classes.iter().find(is_default);
    let mut class = default.context("no default StorageClass")?.clone();
    class["metadata"] = json!({"name": name});
    cluster.apply(&class.to_string()).await.map(drop)
}

/// A directive that is read at start only brings a new pod, and is in force then.
async fn restarted_for_a_directive(set: &Set) -> anyhow::Result<()> {
    let before = pod_uids(set).await?;
    set.apply(&format!("{ONE}  config: {{tcp-backlog: \"128\"}}\n"))
        .await?;
    set.directive("born-0", "tcp-backlog", "128").await?;
    ensure!(pod_uids(set).await? != before, "no pod was replaced");
    set.ready(MINUTE).await.map(drop)
}

/// The only copy of the data is deleted: nothing may begin empty by itself.
#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_set_whose_data_are_gone_says_so_and_begins_anew_when_it_is_told() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let set = Set::create(
        &cluster,
        "gone",
        "  replicas: 1\n  storage: {size: 100Mi}\n",
    )
    .await?;
    let term = set.status().await?.term;
    let uid = pod_uids(&set).await?;
    set.namespace.delete_pvc("data-orders-0").await?;
    set.namespace
        .delete_pod("orders-0", Deletion::Graceful)
        .await?;
    let annotation = format!("redfleet.dev/accept-empty={term}");
    says(
        &set,
        ("Stalled", "True"),
        "AllDataLost",
        &["no voter (of 1) holds data", &annotation],
    )
    .await?;
    set.namespace
        .kubectl(&["annotate", "rrs", "orders", &annotation])
        .await?;
    let status = set.ready(MINUTE).await?;
    ensure!(pod_uids(&set).await? != uid, "the pod is the old one");
    let record = status.failovers.first().context("no record")?;
    ensure!(
        record.possible_loss == Some(PossibleLoss::BeganEmpty),
        "{record:?}"
    );
    set.namespace.delete().await
}

/// A container that is killed before the first save point comes back with what was saved when it began.
#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn a_single_member_that_is_killed_early_serves_again() -> anyhow::Result<()> {
    let cluster = Cluster::connect_beside_others().await?;
    let set = Set::create(
        &cluster,
        "early",
        "  replicas: 1\n  storage: {size: 100Mi}\n",
    )
    .await?;
    if !cluster.can_be_broken() {
        return set.namespace.delete().await;
    }
    let term = set.status().await?.term;
    let pod = set.namespace.pod("orders-0").await?;
    cluster.signal(&pod, Signal::Kill).await?;
    set.until("the next term", MINUTE, |s| s.term > term)
        .await?;
    set.ready(MINUTE).await?;
    set.namespace.delete().await
}
