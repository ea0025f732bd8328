//! The Kubernetes cluster under test: connection, namespaces, `kubectl`, pods.
//!
//! Called by the `api` and `e2e` tests. The cluster is the one `KUBECONFIG` names: usually the three nodes that
//! `tests/cluster/with-cluster.sh` makes around the test, but any other will do. What breaks it is in [`crate::faults`].
//! Each test works in a namespace of its own. One that touches more than that has the cluster to itself; the others may run
//! beside each other, as far as `--test-threads` lets them.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::apiserver::repository;
use crate::wait::wait_until;

/// Longest a single `kubectl` may take.
const KUBECTL_DEADLINE: Duration = Duration::from_secs(60);

/// The images under test, as the cluster knows them.
#[derive(Clone, Debug)]
pub struct Images {
    /// `redfleet-server`.
    pub server: String,
    /// The same server under another tag: what a changed image looks like to the operator.
    pub server_next: String,
    /// `redfleet-operator`.
    pub operator: String,
    /// Tools for test pods: busybox and `redis-cli`.
    pub client: String,
}

impl Images {
    /// The names `tests/cluster/images.sh` gives, unless `REDFLEET_*_IMAGE` names others (a cluster with a registry).
    #[must_use]
    pub fn from_env() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let image = |variable: &str, default: String| std::env::var(variable).unwrap_or(default);
        Self {
            server: image(
                "REDFLEET_SERVER_IMAGE",
                format!("redfleet.dev/server:{version}"),
            ),
            server_next: image(
                "REDFLEET_SERVER_NEXT_IMAGE",
                format!("redfleet.dev/server:{version}-next"),
            ),
            operator: image(
                "REDFLEET_OPERATOR_IMAGE",
                format!("redfleet.dev/operator:{version}"),
            ),
            client: image("REDFLEET_CLIENT_IMAGE", "redfleet.dev/client:1".to_owned()),
        }
    }
}

/// Who of the tests of this process may use the cluster now.
static TURN: RwLock<()> = RwLock::const_new(());

/// A test's turn, held for as long as a [`Cluster`] lives.
enum Turn {
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
    BesideOthers {
        _guard: RwLockReadGuard<'static, ()>,
    },
}

/// A cluster that answers.
#[derive(Clone)]
pub struct Cluster {
    _turn: Arc<Turn>,
    client: Client,
    /// State directory of a cluster made by our scripts; `None` for a foreign one, whose nodes we cannot break.
    state: Option<PathBuf>,
    images: Images,
}

impl Cluster {
    /// Connects to the cluster of `KUBECONFIG`, undoing what an earlier test broke, when no other test uses it.
    pub async fn connect() -> anyhow::Result<Self> {
        let turn = Turn::Alone {
            _guard: TURN.write().await,
        };
        Self::connect_in(turn).await
    }

    /// As [`Cluster::connect`] for a test that breaks processes, nodes or the network; `None`, told in its output, where the
    /// cluster is not ours to break.
    pub async fn connect_to_break() -> anyhow::Result<Option<Self>> {
        let cluster = Self::connect().await?;
        if cluster.state.is_some() {
            return Ok(Some(cluster));
        }
        // The test harness names a test's thread after it.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        println!("SKIPPED {test}: the cluster of KUBECONFIG is not ours to break");
        Ok(None)
    }

    /// As [`Cluster::connect`] for a test that leaves nodes, network and operators in peace and measures nothing that
    /// another one disturbs.
    pub async fn connect_beside_others() -> anyhow::Result<Self> {
        let turn = Turn::BesideOthers {
            _guard: TURN.read().await,
        };
        Self::connect_in(turn).await
    }

    async fn connect_in(turn: Turn) -> anyhow::Result<Self> {
        let config = kube::Config::infer().await.context(
            "no cluster: run the test through tests/cluster/with-cluster.sh, or set KUBECONFIG",
        )?;
        // Fails only when another test of this process has installed it already.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(config).context("making the Kubernetes client")?;
        let state = std::env::var_os("REDFLEET_CLUSTER").map(PathBuf::from);
        let cluster = Self {
            _turn: Arc::new(turn),
            client,
            state,
            images: Images::from_env(),
        };
        // Where nothing is broken this changes nothing, so it disturbs nobody.
        if cluster.state.is_some() {
            cluster.mend().await?;
        }
        cluster
            .client
            .apiserver_version()
            .await
            .context("asking the API server for its version")?;
        Ok(cluster)
    }

    /// The Kubernetes client, with administrator rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The images under test.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// State directory of our own cluster; an error on a foreign one.
    pub(crate) fn state(&self) -> anyhow::Result<&PathBuf> {
        self.state
            .as_ref()
            .context("this test breaks nodes: it needs a cluster of tests/cluster/with-cluster.sh")
    }

    /// Whether [`crate::faults`] can break this cluster's nodes, network and API server.
    #[must_use]
    pub fn can_be_broken(&self) -> bool {
        self.state.is_some()
    }

    /// Makes a namespace `<prefix>-<unique>`.
    #[expect(
        clippy::disallowed_methods,
        reason = "names of two runs of the tests must differ"
    )]
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace> {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("clock before 1970")?
            .as_nanos();
        let name = format!("{prefix}-{:x}", nanos & 0xffff_ffff);
        self.kubectl(&["create", "namespace", &name]).await?;
        let left = Left {
            name: name.clone(),
            state: self.state.clone(),
            is_deleted: AtomicBool::new(false),
        };
        Ok(Namespace {
            cluster: self.clone(),
            name,
            left: Arc::new(left),
        })
    }

    /// Runs `kubectl` and returns what it printed; an error holds its complaint.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with_input(args, "").await
    }

    /// Runs `kubectl` with text on its standard input.
    pub async fn kubectl_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let run = run("kubectl", args, input);
        tokio::time::timeout(KUBECTL_DEADLINE, run)
            .await
            .with_context(|| format!("kubectl {} did not return", args.join(" ")))?
    }

    /// Server-side apply of any number of YAML documents that name their namespaces themselves.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.kubectl_with_input(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            yaml,
        )
        .await
    }

    /// One object as JSON, for example `get("statefulset/orders", Some("default"))`.
    pub async fn get(&self, what: &str, namespace: Option<&str>) -> anyhow::Result<Value> {
        let mut args = vec!["get", what, "-o", "json"];
        if let Some(namespace) = namespace {
            args.extend(["-n", namespace]);
        }
        serde_json::from_str(&self.kubectl(&args).await?).context("reading kubectl's JSON")
    }
}

/// Runs a program to its end; an error holds what it complained about.
pub(crate) async fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let mut stdin = child.stdin.take().context("standard input of the child")?;
    // A program that does not read its input may close it first; its exit code tells.
    let _closed_early = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} {}: {}: {}",
            args.join(" "),
            output.status,
            complaint.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A namespace of one test. One that the test did not delete goes when the test is over: what it left would be in the way
/// of the next one, which would fail for no reason of its own.
#[derive(Clone)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
    left: Arc<Left>,
}

/// Deletes a namespace that a failed test left, once nobody holds it any more and its logs and objects are kept.
struct Left {
    name: String,
    /// State directory of a cluster of ours, whose logs can be kept.
    state: Option<PathBuf>,
    is_deleted: AtomicBool,
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.is_deleted.load(Ordering::Relaxed) || std::env::var_os("REDFLEET_KEEP").is_some() {
            return;
        }
        if let Some(state) = &self.state {
            let cluster = state.file_name().unwrap_or_default().to_string_lossy();
            let evidence = format!("target/cluster-logs/{cluster}-{}", self.name);
            complain_if_failed(
                std::process::Command::new(repository().join("tests/cluster/collect.sh"))
                    .arg("1")
                    .env("REDFLEET_EVIDENCE", repository().join(evidence)),
            );
        }
        complain_if_failed(std::process::Command::new("kubectl").args([
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
        ]));
    }
}

/// For what is tidied up after a failure: a failure of its own is told and changes nothing.
fn complain_if_failed(command: &mut std::process::Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{command:?}: {status}"),
        Err(error) => eprintln!("{command:?}: {error}"),
    }
}

impl Namespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is in.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Typed access to one kind of objects in it.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// Runs `kubectl` in this namespace.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend(args);
        self.cluster.kubectl(&all).await
    }

    /// Server-side apply of YAML documents into this namespace.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        let args = [
            "-n",
            &self.name,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ];
        self.cluster.kubectl_with_input(&args, yaml).await
    }

    /// Runs a command in a pod and returns what it printed.
    pub async fn exec(&self, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        let mut args = vec!["exec", pod, "--"];
        args.extend(command);
        self.kubectl(&args).await
    }

    /// A pod by name.
    pub async fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        self.api::<Pod>()
            .get(name)
            .await
            .with_context(|| format!("reading pod {name}"))
    }

    /// Starts a pod with the client tools that sleeps until it is deleted, and waits until it runs.
    pub async fn client_pod(&self, name: &str) -> anyhow::Result<()> {
        let image = &self.cluster.images.client;
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
             containers:\n  - {{name: client, image: {image}, command: [sleep, infinity], imagePullPolicy: IfNotPresent}}\n"
        ))
        .await?;
        self.pod_ready(name, Duration::from_secs(60))
            .await
            .map(drop)
    }

    /// Waits until a pod is Ready and returns it.
    pub async fn pod_ready(&self, name: &str, deadline: Duration) -> anyhow::Result<Pod> {
        wait_until(&format!("pod {name} to be Ready"), deadline, || async {
            let pod = self.pod(name).await?;
            Ok(is_ready(&pod).then_some(pod))
        })
        .await
    }

    /// Deletes a pod: in peace with its grace period, or by force.
    pub async fn delete_pod(&self, name: &str, how: Deletion) -> anyhow::Result<()> {
        let mut args = vec!["delete", "pod", name, "--wait=false"];
        match how {
            Deletion::Graceful => {}
            Deletion::Forced => args.extend(["--grace-period=0", "--force"]),
        }
        self.kubectl(&args).await.map(drop)
    }

    /// Deletes a claim; Kubernetes keeps it until the pod that uses it is gone.
    pub async fn delete_pvc(&self, name: &str) -> anyhow::Result<()> {
        self.kubectl(&["delete", "pvc", name, "--wait=false"])
            .await
            .map(drop)
    }

    /// Deletes the namespace with all that is in it, without waiting for the end of it.
    pub async fn delete(self) -> anyhow::Result<()> {
        self.cluster
            .kubectl(&["delete", "namespace", &self.name, "--wait=false"])
            .await?;
        self.left.is_deleted.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// How a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// SIGTERM, then the pod's own grace period.
    Graceful,
    /// Removed from the API at once, killed without a word.
    Forced,
}

/// Whether a pod's Ready condition is true and nobody deletes it.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Address of a pod.
pub fn pod_ip(pod: &Pod) -> anyhow::Result<&str> {
    pod.status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref())
        .context("the pod has no address yet")
}

/// Node of a pod.
pub fn pod_node(pod: &Pod) -> anyhow::Result<&str> {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .context("the pod has no node yet")
}
