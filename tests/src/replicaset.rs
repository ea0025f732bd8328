//! The product on a test cluster: the operator installed by its charts, and sets made through it.
//!
//! Used by the `e2e` tests of sets. The operator is installed once and stays.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use redfleet_operator::api::v1alpha1::{RedisReplicaSet, RedisReplicaSetStatus, RotationPhase};
use redfleet_operator::api::{ROTATE_ANNOTATION, names};
use serde_json::Value;

use crate::apiserver::repository;
use crate::cluster::{Cluster, Namespace, pod_ip, run};
use crate::faults::Signal;
use crate::wait::wait_until;
use crate::writer::{Account, Connection, Connections, Copied, PasswordSource, Writer, numbers};

/// Namespace of the operator.
pub const SYSTEM: &str = "redfleet-system";
/// The operator's Deployment.
const DEPLOYMENT: &str = "redfleet-operator";
/// Longest wait for anything that needs no fault to be detected by Kubernetes.
pub const MINUTE: Duration = Duration::from_secs(60);
/// Longest wait for a member that may be away and is asked again.
pub const SECOND: Duration = Duration::from_secs(1);
/// Addresses of Services in our own clusters.
const SERVICES: &str = "10.96.0.0/16";

/// Installs the operator if this process has not done it or somebody has removed it, and waits until both pods are ready.
pub async fn operator_at_work(cluster: &Cluster) -> anyhow::Result<()> {
    static IS_OURS: tokio::sync::Mutex<bool> = tokio::sync::Mutex::const_new(false);
    let mut is_ours = IS_OURS.lock().await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), SYSTEM);
    if !*is_ours || deployments.get_opt(DEPLOYMENT).await?.is_none() {
        install_operator(cluster).await?;
        *is_ours = true;
    }
    operators_ready(cluster).await
}

/// Installs the operator by its charts, or changes the one that is installed into ours, and waits until both pods are ready.
pub async fn install_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let path = |chart: &str| {
        repository()
            .join("charts")
            .join(chart)
            .display()
            .to_string()
    };
    let (operator, server) = (
        cluster.images().operator.clone(),
        cluster.images().server.clone(),
    );
    let image = |prefix: &str, image: &str| {
        // The colon of `host:5000/name` is a port's.
        let (repository, tag) = image
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .unwrap_or((image, "latest"));
        [
            format!("--set-string={prefix}.repository={repository}"),
            format!("--set-string={prefix}.tag={tag}"),
        ]
    };
    let [o1, o2] = image("image", &operator);
    let [s1, s2] = image("serverImage", &server);
    let crds = path("redfleet-crds");
    let chart = path("redfleet");
    let common = ["upgrade", "--install", "--create-namespace"];
    helm(&[&common[..], &["redfleet-crds", &crds]].concat()).await?;
    let log = "--set=log=info\\,redfleet_operator=debug";
    let more = ["redfleet", &chart, &o1, &o2, &s1, &s2, log];
    helm(&[&common[..], &more].concat()).await?;
    operators_ready(cluster).await
}

async fn operators_ready(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("both operators to be ready", MINUTE * 2, || async {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client(), SYSTEM);
        let deployment = deployments.get(DEPLOYMENT).await?;
        let ready = deployment.status.and_then(|s| s.ready_replicas);
        Ok((ready == Some(2)).then_some(()))
    })
    .await
}

/// Waits until kube-proxy has been left in peace for longer than its pause between two updates (1 s). Within that pause a
/// change of a Service reaches its clients up to a second later, whoever wrote it: what a fault costs would then depend on
/// how long ago an earlier test was taken away.
pub async fn services_settled(cluster: &Cluster) -> anyhow::Result<()> {
    const CALM: Duration = Duration::from_millis(1_500);
    let slices: Api<EndpointSlice> = Api::all(cluster.client());
    let known = RefCell::new((BTreeSet::new(), Instant::now()));
    wait_until("Services that do not change", MINUTE * 2, || async {
        let list = slices.list(&ListParams::default()).await?;
        let versions: BTreeSet<String> = list
            .into_iter()
            .filter_map(|slice| slice.metadata.resource_version)
            .collect();
        let (before, since) = &mut *known.borrow_mut();
        if *before != versions {
            (*before, *since) = (versions, Instant::now());
        }
        Ok((since.elapsed() >= CALM).then_some(()))
    })
    .await
}

/// Kills every operator's process, then its pod: a new pod starts without the kubelet's pause after a crash.
pub async fn kill_operators(cluster: &Cluster) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    let all = pods.list(&ListParams::default()).await?.items;
    // One on a node that is off is gone already.
    let kills = all.iter().map(|pod| cluster.signal(pod, Signal::Kill));
    let _already = futures::future::join_all(kills).await;
    let now = DeleteParams::default().grace_period(0);
    for pod in all {
        let name = pod.metadata.name.unwrap_or_default();
        pods.delete(&name, &now).await?;
    }
    Ok(())
}

/// Runs `helm` in the operator's namespace.
pub async fn helm(args: &[&str]) -> anyhow::Result<()> {
    let all = [&["-n", SYSTEM], args].concat();
    run("helm", &all, "").await.map(drop)
}

/// UIDs of a set's pods, by name.
pub async fn pod_uids(set: &Set) -> anyhow::Result<BTreeMap<String, String>> {
    let of_the_set = ListParams::default().labels(&names::selector_text(&set.name));
    let pods = set.namespace.api::<Pod>().list(&of_the_set).await?;
    let uids = pods.into_iter().map(|pod| {
        let meta = pod.metadata;
        (meta.name.unwrap_or_default(), meta.uid.unwrap_or_default())
    });
    Ok(uids.collect())
}

/// Kinds that nobody but the operator writes while nothing happens.
pub const OURS: [&str; 9] = [
    "redisreplicasets",
    "statefulsets",
    "services",
    "endpointslices",
    "secrets",
    "configmaps",
    "serviceaccounts",
    "networkpolicies",
    "poddisruptionbudgets",
];

/// Generation and resource version of everything in a namespace, events aside.
pub async fn versions(namespace: &Namespace) -> anyhow::Result<BTreeMap<String, String>> {
    let kinds = format!("{},pods,persistentvolumeclaims", OURS.join(","));
    let text = namespace.kubectl(&["get", &kinds, "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("a list")?;
    let version = |item: &Value| {
        let meta = &item["metadata"];
        let name = format!("{}/{}", item["kind"], meta["name"]);
        (
            name,
            format!("{} at {}", meta["generation"], meta["resourceVersion"]),
        )
    };
    Ok(items.iter().map(version).collect())
}

/// One set in a namespace of its own.
#[derive(Clone)]
pub struct Set {
    /// Where it is.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl Set {
    /// The set of this name in a namespace that exists.
    #[must_use]
    pub fn named(namespace: &Namespace, name: &str) -> Self {
        Self {
            namespace: namespace.clone(),
            name: name.to_owned(),
        }
    }

    /// Makes the set `orders` with this spec (indented by two) in a fresh namespace and waits until it is ready.
    pub async fn create(cluster: &Cluster, prefix: &str, spec: &str) -> anyhow::Result<Self> {
        operator_at_work(cluster).await?;
        let namespace = cluster.namespace(prefix).await?;
        let set = Self {
            namespace,
            name: "orders".to_owned(),
        };
        set.apply(spec).await?;
        set.ready(MINUTE * 2).await?;
        Ok(set)
    }

    /// Applies the set with this spec.
    pub async fn apply(&self, spec: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "apiVersion: redfleet.dev/v1alpha1\nkind: RedisReplicaSet\nmetadata: {{name: {}}}\nspec:\n{spec}",
            self.name
        );
        self.namespace.apply(&yaml).await.map(drop)
    }

    /// The object.
    pub async fn object(&self) -> anyhow::Result<RedisReplicaSet> {
        Ok(self
            .namespace
            .api::<RedisReplicaSet>()
            .get(&self.name)
            .await?)
    }

    /// Its status.
    pub async fn status(&self) -> anyhow::Result<RedisReplicaSetStatus> {
        Ok(self.object().await?.status.unwrap_or_default())
    }

    /// Waits until the set is ready for its present spec.
    pub async fn ready(&self, deadline: Duration) -> anyhow::Result<RedisReplicaSetStatus> {
        wait_until(
            &format!("set {} to be ready", self.name),
            deadline,
            || async {
                let object = self.object().await?;
                let status = object.status.unwrap_or_default();
                let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
                let ready = ready.context("no condition Ready yet")?;
                ensure!(
                    ready.status == "True"
                        && status.observed_generation == object.metadata.generation,
                    "{}: {}",
                    ready.reason,
                    ready.message
                );
                // A master that serves is recorded a moment later.
                Ok((status.term > 0 && status.master.is_some()).then_some(status))
            },
        )
        .await
    }

    /// Waits until the status says this.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        holds: impl Fn(&RedisReplicaSetStatus) -> bool,
    ) -> anyhow::Result<RedisReplicaSetStatus> {
        wait_until(what, deadline, || async {
            let status = self.status().await?;
            Ok(holds(&status).then_some(status))
        })
        .await
    }

    /// Asks for a rotation of both passwords, with any text that makes the request new.
    pub async fn ask_for_rotation(&self, text: &str) -> anyhow::Result<()> {
        let set = format!("rrs/{}", self.name);
        let request = format!("{ROTATE_ANNOTATION}=all@{text}");
        let annotate = ["annotate", "--overwrite", &set, &request];
        self.namespace.kubectl(&annotate).await.map(drop)
    }

    /// Waits until the rotations of both passwords are over and have brought this revision, or a later one.
    pub async fn rotated(&self, revision: i64, deadline: Duration) -> anyhow::Result<()> {
        let what = format!("the end of rotation {revision}");
        let settled = |status: &RedisReplicaSetStatus| {
            [&status.rotation.client, &status.rotation.replication]
                .iter()
                .all(|r| r.revision >= revision && r.phase == RotationPhase::Settled)
        };
        self.until(&what, deadline, settled).await.map(drop)
    }

    /// Ends a writer that logs in for every command: nobody may have been refused, and these must still be the pods.
    /// Answers how many logins there were.
    pub async fn nobody_was_refused(
        &self,
        writer: Writer,
        uids: &BTreeMap<String, String>,
    ) -> anyhow::Result<usize> {
        let account = writer.stop().await;
        let refused = account.refused_logins;
        ensure!(refused == 0, "{refused} logins were refused");
        ensure!(pod_uids(self).await? == *uids, "a pod was replaced");
        Ok(account.count())
    }

    /// The master's pod.
    pub async fn master(&self) -> anyhow::Result<Pod> {
        let master = self.status().await?.master.context("no master")?;
        self.namespace.pod(&master).await
    }

    /// The clients' password, as published.
    pub async fn password(&self) -> anyhow::Result<String> {
        let secrets = self.namespace.api::<Secret>();
        let secret = secrets.get(&format!("{}-client", self.name)).await?;
        let data = secret.data.context("an empty Secret")?;
        Ok(String::from_utf8(
            data.get("password").context("no password")?.0.clone(),
        )?)
    }

    /// Address of a Service of the set, reachable from here after [`route_services`].
    pub async fn service(&self, suffix: &str) -> anyhow::Result<SocketAddr> {
        let services = self.namespace.api::<Service>();
        let service = services.get(&format!("{}{suffix}", self.name)).await?;
        let address = service
            .spec
            .and_then(|s| s.cluster_ip)
            .context("no address")?;
        Ok(SocketAddr::new(address.parse()?, 6379))
    }

    /// Address of a member.
    pub async fn member(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let pod = self.namespace.pod(name).await?;
        Ok(SocketAddr::new(pod_ip(&pod)?.parse()?, 6379))
    }

    /// Connects to a member and logs in with this password; `None` where that is refused. A member that does not answer just
    /// now is asked again.
    pub async fn login(&self, member: &str, password: &str) -> anyhow::Result<Option<Connection>> {
        let what = format!("{member} to answer a login");
        wait_until(&what, MINUTE, || async {
            match Connection::open(self.member(member).await?, password).await {
                Ok(connection) => Ok(Some(Some(connection))),
                Err(why) if format!("{why:#}").contains("WRONGPASS") => Ok(Some(None)),
                Err(why) => Err(why),
            }
        })
        .await
    }

    /// [`Self::login`] with the published password, which has to be accepted.
    pub async fn connect(&self, member: &str) -> anyhow::Result<Connection> {
        let connection = self.login(member, &self.password().await?).await?;
        connection.with_context(|| format!("{member} refuses the published password"))
    }

    /// Waits until a member says that this directive has this value.
    pub async fn directive(
        &self,
        member: &str,
        directive: &str,
        value: &str,
    ) -> anyhow::Result<()> {
        let what = format!("{directive} to be {value} on {member}");
        wait_until(&what, MINUTE, || async {
            let mut connection = self.connect(member).await?;
            let answer = connection.call(&["CONFIG", "GET", directive]).await?;
            Ok((answer == [directive, value]).then_some(()))
        })
        .await
    }

    /// Numbers that were acknowledged to a writer and that the master does not hold.
    pub async fn missing(&self, account: &Account) -> anyhow::Result<Vec<u64>> {
        let master = self.status().await?.master.context("no master")?;
        let found = numbers(self.member(&master).await?, &self.password().await?).await?;
        Ok(account.missing(&found, None))
    }

    /// Starts a writer to the master's Service.
    pub async fn writer(&self, how: Connections) -> anyhow::Result<Writer> {
        let password = self.password_source().await?;
        Ok(Writer::start(self.service("").await?, password, how))
    }

    /// A source that gives the published password, as a client that mounts the Secret has it: a fraction of a second old.
    pub async fn password_source(&self) -> anyhow::Result<PasswordSource> {
        let newest = Arc::new(Mutex::new(copied(self).await?));
        let (set, kept) = (self.clone(), Arc::downgrade(&newest));
        tokio::spawn(async move {
            while let Some(kept) = kept.upgrade() {
                if let Ok(copied) = copied(&set).await {
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = copied;
                }
                drop(kept);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Ok(Arc::new(move || {
            newest
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }))
    }
}

/// Makes Services reachable from here, through a node that is not `avoid`: the network of our own clusters has no other way
/// to them. How those of another cluster are reached is for whoever runs the tests there.
pub async fn route_services(cluster: &Cluster, avoid: &str) -> anyhow::Result<()> {
    if !cluster.can_be_broken() {
        return Ok(());
    }
    let nodes: Api<Node> = Api::all(cluster.client());
    let list = nodes.list(&ListParams::default()).await?;
    let other = list
        .items
        .into_iter()
        .find(|n| n.metadata.name.as_deref() != Some(avoid))
        .context("no other node")?;
    let addresses = other.status.and_then(|s| s.addresses).unwrap_or_default();
    let internal = addresses
        .iter()
        .find(|a| a.type_ == "InternalIP")
        .context("no address")?;
    run(
        "ip",
        &["route", "replace", SERVICES, "via", &internal.address],
        "",
    )
    .await
    .map(drop)
}

/// What a client would copy from the Secret now.
async fn copied(set: &Set) -> anyhow::Result<Copied> {
    let at = Instant::now();
    let password = set.password().await?;
    Ok(Copied { password, at })
}
