//! Breaking a test cluster: processes, nodes, cables, packets, the API server.
//!
//! Called by `e2e` tests on a cluster of `tests/cluster/with-cluster.sh`; on any other cluster these fail with the reason
//! (ask [`Cluster::can_be_broken`] first). Each is one call of `tests/cluster/fault.sh` and has happened when it returns.
//! `mend`, which [`Cluster::connect`] calls, undoes them all.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, pod_ip, pod_node, run};

/// Longest a fault may take to happen; booting a node and starting an API server are the slow ones.
const FAULT_DEADLINE: Duration = Duration::from_secs(90);

/// What is sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Dies at once.
    Kill,
    /// Is asked to leave.
    Term,
    /// Stands still; its connections stay open.
    Stop,
    /// Goes on after [`Signal::Stop`].
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Term => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

impl Cluster {
    /// Sends a signal to the processes of a pod (not to its pause process).
    pub async fn signal(&self, pod: &Pod, signal: Signal) -> anyhow::Result<()> {
        let uid = pod.metadata.uid.as_deref().context("the pod has no UID")?;
        self.fault(&["signal", uid, signal.name()]).await
    }

    /// Pulls the power plug of a node: nothing says goodbye, nothing answers any more.
    pub async fn node_power_off(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["node-off", number(node)?]).await
    }

    /// Boots a node that was powered off; its pods are restarted in place with their volumes.
    pub async fn node_boot(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["node-boot", number(node)?]).await
    }

    /// All processes of a node stand still.
    pub async fn node_freeze(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["node-freeze", number(node)?]).await
    }

    /// They go on.
    pub async fn node_thaw(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["node-thaw", number(node)?]).await
    }

    /// Pulls a node's network cable.
    pub async fn cable_out(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["cable-out", number(node)?]).await
    }

    /// Plugs it in again.
    pub async fn cable_in(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["cable-in", number(node)?]).await
    }

    /// Packets from one pod to the other vanish; those in the other direction arrive.
    pub async fn drop_one_way(&self, from: &Pod, to: &Pod) -> anyhow::Result<()> {
        self.fault(&["drop", pod_ip(from)?, pod_ip(to)?]).await
    }

    /// Takes back every drop.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.fault(&["heal"]).await
    }

    /// Kills the API server.
    pub async fn api_down(&self) -> anyhow::Result<()> {
        self.fault(&["api-down"]).await
    }

    /// Starts it again and waits until it is ready.
    pub async fn api_up(&self) -> anyhow::Result<()> {
        self.fault(&["api-up"]).await
    }

    /// Kills the kubelet of a node; its containers live on.
    pub async fn kubelet_down(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["kubelet-down", number(node)?]).await
    }

    /// Starts it again.
    pub async fn kubelet_up(&self, node: &str) -> anyhow::Result<()> {
        self.fault(&["kubelet-up", number(node)?]).await
    }

    /// The node a pod is on: the argument of the faults above.
    pub fn node_of(&self, pod: &Pod) -> anyhow::Result<String> {
        pod_node(pod).map(str::to_owned)
    }

    /// Undoes every fault and waits until all nodes are Ready.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.fault(&["mend"]).await
    }

    async fn fault(&self, args: &[&str]) -> anyhow::Result<()> {
        self.state()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/fault.sh");
        let script = script
            .to_str()
            .context("the checkout's path is not UTF-8")?;
        tokio::time::timeout(FAULT_DEADLINE, run(script, args, ""))
            .await
            .with_context(|| format!("the fault `{}` did not happen", args.join(" ")))??;
        Ok(())
    }
}

/// `node2` → `2`.
fn number(node: &str) -> anyhow::Result<&str> {
    node.strip_prefix("node")
        .with_context(|| format!("{node} is no node of our cluster"))
}
