//! The ground itself: three zones, volumes, Service names, and that the faults of the harness happen and can be undone.
//! Nothing of Redfleet runs here; when this fails, look at the cluster before looking at the product.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::ListParams;
use redfleet_tests::cluster::{Cluster, Deletion, Namespace, pod_ip, pod_node};
use redfleet_tests::faults::Signal;
use redfleet_tests::wait::wait_until;

const MINUTE: Duration = Duration::from_secs(60);

/// Three pods, one per zone, each with a volume, each serving a file from it.
const STATEFUL_SET: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: ground}
spec: {clusterIP: None, selector: {app: ground}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: any}
spec: {selector: {app: ground}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ground}
spec:
  replicas: 3
  serviceName: ground
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: ground}}
  template:
    metadata: {labels: {app: ground}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: ground}}}
      securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: httpd
        image: IMAGE
        command: [sh, -c, "echo $(hostname) >>/data/boots; exec busybox httpd -f -p 8080 -h /data"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 100Mi}}}
"#;

async fn three_pods(cluster: &Cluster) -> anyhow::Result<Namespace> {
    let namespace = cluster.namespace("ground").await?;
    namespace
        .apply(&STATEFUL_SET.replace("IMAGE", &cluster.images().client))
        .await?;
    wait_until("three Ready pods", MINUTE, || async {
        let set = namespace.api::<StatefulSet>().get("ground").await?;
        Ok((set.status.and_then(|status| status.ready_replicas) == Some(3)).then_some(()))
    })
    .await?;
    Ok(namespace)
}

async fn zone_of(cluster: &Cluster, pod: &Pod) -> anyhow::Result<String> {
    let node = Api::<Node>::all(cluster.client())
        .get(pod_node(pod)?)
        .await?;
    let labels = node.metadata.labels.unwrap_or_default();
    Ok(labels
        .get("topology.kubernetes.io/zone")
        .cloned()
        .unwrap_or_default())
}

/// What `nc` in the client pod reads from an HTTP server there.
async fn fetch(namespace: &Namespace, host: &str, port: u16) -> anyhow::Result<String> {
    let script = format!("printf 'GET /boots HTTP/1.0\r\n\r\n' | timeout 2 nc {host} {port}");
    namespace.exec("client", &["sh", "-c", &script]).await
}

/// Waits until this word comes back: the network may need a moment.
async fn answers(namespace: &Namespace, host: &str, port: u16, word: &str) -> anyhow::Result<()> {
    wait_until(&format!("{host} to answer"), MINUTE, || async {
        let text = fetch(namespace, host, port).await?;
        Ok(text.contains(word).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn pods_volumes_and_names_in_three_zones() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let namespace = three_pods(&cluster).await?;
    let mut zones = Vec::new();
    for member in ["ground-0", "ground-1", "ground-2"] {
        zones.push(zone_of(&cluster, &namespace.pod(member).await?).await?);
    }
    zones.sort_unstable();
    assert_eq!(zones, ["zone-a", "zone-b", "zone-c"]);

    namespace.client_pod("client").await?;
    answers(&namespace, "ground-1.ground", 8080, "ground-1").await?;
    answers(&namespace, "any", 80, "ground-").await?;

    grown_and_removed(&cluster, &namespace).await?;
    namespace.delete().await
}

/// A volume grows when its claim asks for more, and is gone with its claim.
async fn grown_and_removed(cluster: &Cluster, namespace: &Namespace) -> anyhow::Result<()> {
    let claims = namespace.api::<PersistentVolumeClaim>();
    let more = r#"{"spec":{"resources":{"requests":{"storage":"200Mi"}}}}"#;
    namespace
        .kubectl(&["patch", "pvc", "data-ground-2", "-p", more])
        .await?;
    let claim = wait_until("the claim to have grown", MINUTE, || async {
        let claim = claims.get("data-ground-2").await?;
        let capacity = claim
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref());
        let grown = capacity
            .and_then(|all| all.get("storage"))
            .is_some_and(|size| size.0 == "200Mi");
        Ok(grown.then_some(claim))
    })
    .await?;
    let volume = claim
        .spec
        .and_then(|spec| spec.volume_name)
        .unwrap_or_default();
    namespace
        .kubectl(&["scale", "statefulset/ground", "--replicas=2"])
        .await?;
    namespace.delete_pvc("data-ground-2").await?;
    wait_until("the volume to be removed", MINUTE, || async {
        let volumes = Api::<PersistentVolume>::all(cluster.client())
            .list(&ListParams::default())
            .await?;
        Ok((!volumes
            .iter()
            .any(|v| v.metadata.name.as_ref() == Some(&volume)))
        .then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn power_failure_keeps_the_volume() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    if !cluster.can_be_broken() {
        return Ok(());
    }
    let namespace = three_pods(&cluster).await?;
    let before = namespace.pod("ground-0").await?;
    let node = cluster.node_of(&before)?;
    cluster.node_power_off(&node).await?;
    let nodes = Api::<Node>::all(cluster.client());
    wait_until("the node to be seen as lost", MINUTE, || async {
        let conditions = nodes
            .get(&node)
            .await?
            .status
            .and_then(|status| status.conditions);
        let lost = conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c.type_ == "Ready" && c.status == "Unknown")
        });
        Ok(lost.then_some(()))
    })
    .await?;
    cluster.node_boot(&node).await?;
    let boots = wait_until("the pod to be back with its volume", MINUTE, || async {
        let boots = namespace.exec("ground-0", &["cat", "/data/boots"]).await?;
        Ok((boots.lines().count() == 2).then_some(boots))
    })
    .await?;
    assert_eq!(boots, "ground-0\nground-0\n");
    assert_eq!(
        namespace.pod("ground-0").await?.metadata.uid,
        before.metadata.uid
    );
    namespace.delete().await
}

/// A node that is frozen, one without its cable, and one without a kubelet, seen from another.
async fn nodes_that_stand_still(
    cluster: &Cluster,
    namespace: &Namespace,
    client: &Pod,
) -> anyhow::Result<()> {
    let mut elsewhere = None;
    for name in ["ground-0", "ground-1", "ground-2"] {
        let pod = namespace.pod(name).await?;
        if pod_node(&pod)? != pod_node(client)? {
            elsewhere = Some((name, pod));
        }
    }
    let (name, pod) = elsewhere.context("no pod on another node")?;
    let (node, address) = (pod_node(&pod)?.to_owned(), pod_ip(&pod)?.to_owned());
    let is_silent = || async { fetch(namespace, &address, 8080).await.is_err() };

    cluster.node_freeze(&node).await?;
    ensure!(is_silent().await, "a frozen node answered");
    cluster.node_thaw(&node).await?;
    answers(namespace, &address, 8080, name).await?;

    cluster.cable_out(&node).await?;
    ensure!(is_silent().await, "a node without a cable answered");
    cluster.cable_in(&node).await?;
    answers(namespace, &address, 8080, name).await?;

    cluster.kubelet_down(&node).await?;
    answers(namespace, &address, 8080, name).await?;
    namespace.delete_pod(name, Deletion::Graceful).await?;
    cluster.kubelet_up(&node).await?;
    wait_until("the kubelet to let the pod go", MINUTE, || async {
        let now = namespace.pod(name).await?;
        Ok((now.metadata.uid != pod.metadata.uid).then_some(()))
    })
    .await?;
    namespace.pod_ready(name, MINUTE).await.map(drop)
}

#[tokio::test]
#[ignore = "needs a cluster: tests/cluster/with-cluster.sh"]
async fn processes_packets_and_the_api_server() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    if !cluster.can_be_broken() {
        return Ok(());
    }
    let namespace = three_pods(&cluster).await?;
    namespace.client_pod("client").await?;
    let (client, server) = (
        namespace.pod("client").await?,
        namespace.pod("ground-0").await?,
    );
    let address = pod_ip(&server)?.to_owned();

    cluster.signal(&server, Signal::Stop).await?;
    ensure!(
        !fetch(&namespace, &address, 8080)
            .await
            .is_ok_and(|text| text.contains("ground-0")),
        "a stopped process answered"
    );
    cluster.signal(&server, Signal::Continue).await?;
    answers(&namespace, &address, 8080, "ground-0").await?;

    cluster.drop_one_way(&client, &server).await?;
    ensure!(
        fetch(&namespace, &address, 8080).await.is_err(),
        "the packets arrived"
    );
    cluster.heal().await?;
    answers(&namespace, &address, 8080, "ground-0").await?;

    nodes_that_stand_still(&cluster, &namespace, &client).await?;

    cluster.signal(&server, Signal::Kill).await?;
    wait_until("the container to be restarted", MINUTE, || async {
        let boots = namespace.exec("ground-0", &["cat", "/data/boots"]).await?;
        Ok((boots.lines().count() == 2).then_some(()))
    })
    .await?;

    cluster.api_down().await?;
    ensure!(
        cluster
            .kubectl(&["get", "nodes", "--request-timeout=2s"])
            .await
            .is_err(),
        "the API answers"
    );
    cluster.api_up().await?;
    namespace.delete_pod("ground-1", Deletion::Forced).await?;
    namespace.pod_ready("ground-1", MINUTE).await?;
    namespace.delete().await
}
