//! `redfleet-provisioner`: the volumes of the test clusters (StorageClass `disk`).
//!
//! Started by `tests/cluster/up.sh` as a process of the machine. For a claim of its class whose pod has been given a node
//! it makes a directory on that node's disk and a PersistentVolume of type `local` with node affinity; it grows volumes
//! (a number only: directories have no size limit) and, when a claim is deleted, removes directory and volume.
//! Everything is read from the API, so it may be killed at any moment. It never touches volumes of other provisioners.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

/// The provisioner's name in the StorageClass.
const PROVISIONER: &str = "redfleet.dev/disk";
/// Set by the scheduler on a claim that waits for its first pod.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Tells Kubernetes that somebody outside deletes the volume.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Pause before a failed step is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where a node's disk is.
struct Disks {
    /// On this machine, with `{node}` for the node's name.
    pattern: String,
    /// Inside the node.
    mount_root: String,
}

impl Disks {
    fn host_path(&self, node: &str, volume: &str) -> PathBuf {
        Path::new(&self.pattern.replace("{node}", node)).join(volume)
    }
}

/// What every step needs.
struct Provisioner {
    client: Client,
    disks: Disks,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Failure(#[from] anyhow::Error);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let disks = parse_args(std::env::args().skip(1))?;
    let client = Client::try_default()
        .await
        .context("connecting to the cluster of KUBECONFIG")?;
    let context = Arc::new(Provisioner {
        client: client.clone(),
        disks,
    });
    let claims = Controller::new(
        Api::<PersistentVolumeClaim>::all(client.clone()),
        watcher::Config::default(),
    )
    .run(reconcile_claim, retry, context.clone())
    .for_each(|_| async {});
    let volumes = Controller::new(
        Api::<PersistentVolume>::all(client),
        watcher::Config::default(),
    )
    .run(reconcile_volume, retry, context)
    .for_each(|_| async {});
    tokio::join!(claims, volumes);
    bail!("the watches ended")
}

fn parse_args(mut args: impl Iterator<Item = String>) -> anyhow::Result<Disks> {
    let (mut pattern, mut mount_root) = (None, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--disks" => pattern = args.next(),
            "--mount-root" => mount_root = args.next(),
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(Disks {
        pattern: pattern
            .context("--disks PATTERN is missing, {node} in it stands for the node's name")?,
        mount_root: mount_root
            .context("--mount-root DIRECTORY is missing: the disks inside a node")?,
    })
}

fn retry<K: Resource>(object: Arc<K>, error: &Failure, _context: Arc<Provisioner>) -> Action {
    eprintln!(
        "{}: {error}; trying again",
        object.meta().name.as_deref().unwrap_or_default()
    );
    Action::requeue(RETRY)
}

async fn reconcile_claim(
    claim: Arc<PersistentVolumeClaim>,
    context: Arc<Provisioner>,
) -> Result<Action, Failure> {
    let Some(spec) = &claim.spec else {
        return Ok(Action::await_change());
    };
    if let Some(volume) = &spec.volume_name {
        grow(&context.client, &claim, volume).await?;
    } else if let Some(node) = claim.annotations().get(SELECTED_NODE)
        && let Some(class) = own_class(&context.client, &claim).await?
    {
        provision(&context, &claim, node, &class).await?;
    }
    Ok(Action::await_change())
}

/// The claim's class, when it is ours.
async fn own_class(
    client: &Client,
    claim: &PersistentVolumeClaim,
) -> anyhow::Result<Option<StorageClass>> {
    let Some(name) = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_ref())
    else {
        return Ok(None);
    };
    let class = Api::<StorageClass>::all(client.clone())
        .get_opt(name)
        .await
        .context("reading the storage class")?;
    Ok(class.filter(|class| class.provisioner == PROVISIONER))
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim
        .spec
        .as_ref()?
        .resources
        .as_ref()?
        .requests
        .as_ref()?
        .get("storage")
}

async fn provision(
    context: &Provisioner,
    claim: &PersistentVolumeClaim,
    node: &str,
    class: &StorageClass,
) -> anyhow::Result<()> {
    let uid = claim.uid().context("a claim without UID")?;
    let name = format!("pvc-{uid}");
    let path = context.disks.host_path(node, &name);
    std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    let volume = volume(context, claim, node, class, &name)?;
    match Api::all(context.client.clone())
        .create(&PostParams::default(), &volume)
        .await
    {
        Ok(_) => println!(
            "{name}: made for {}/{} on {node}",
            claim.namespace().unwrap_or_default(),
            claim.name_any()
        ),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error).context("creating the volume"),
    }
    Ok(())
}

fn volume(
    context: &Provisioner,
    claim: &PersistentVolumeClaim,
    node: &str,
    class: &StorageClass,
    name: &str,
) -> anyhow::Result<PersistentVolume> {
    let storage = requested(claim).context("a claim without a size")?.clone();
    let hostname = NodeSelectorRequirement {
        key: "kubernetes.io/hostname".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm {
        match_expressions: Some(vec![hostname]),
        ..NodeSelectorTerm::default()
    };
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some(BTreeMap::from([(
                PROVISIONED_BY.to_owned(),
                PROVISIONER.to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: claim
                .spec
                .as_ref()
                .and_then(|spec| spec.access_modes.clone()),
            capacity: Some(BTreeMap::from([("storage".to_owned(), storage)])),
            claim_ref: Some(claim.object_ref(&())),
            local: Some(LocalVolumeSource {
                path: format!("{}/{name}", context.disks.mount_root),
                fs_type: None,
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector {
                    node_selector_terms: vec![term],
                }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// A larger request than the volume's size: the volume follows, then the claim's status.
async fn grow(
    client: &Client,
    claim: &PersistentVolumeClaim,
    volume_name: &str,
) -> anyhow::Result<()> {
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let Some(volume) = volumes
        .get_opt(volume_name)
        .await
        .context("reading the volume")?
    else {
        return Ok(());
    };
    let Some(wanted) = requested(claim) else {
        return Ok(());
    };
    if !is_ours(&volume) || claim.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let capacity =
        |of: Option<&BTreeMap<String, Quantity>>| of.and_then(|all| all.get("storage").cloned());
    let size = json!({"capacity": {"storage": wanted}});
    if capacity(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref())).as_ref()
        != Some(wanted)
    {
        let patch = Patch::Merge(json!({"spec": size}));
        volumes
            .patch(volume_name, &PatchParams::default(), &patch)
            .await
            .context("growing the volume")?;
    }
    let status = claim.status.as_ref();
    let bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    if bound
        && capacity(status.and_then(|status| status.capacity.as_ref())).as_ref() != Some(wanted)
    {
        let claims = Api::<PersistentVolumeClaim>::namespaced(
            client.clone(),
            &claim.namespace().unwrap_or_default(),
        );
        let patch = Patch::Merge(json!({"status": size}));
        claims
            .patch_status(&claim.name_any(), &PatchParams::default(), &patch)
            .await
            .context("growing the claim")?;
        println!("{volume_name}: {} now", wanted.0);
    }
    Ok(())
}

fn is_ours(volume: &PersistentVolume) -> bool {
    volume
        .annotations()
        .get(PROVISIONED_BY)
        .is_some_and(|by| by == PROVISIONER)
}

/// The node a volume is bound to by its affinity.
fn node_of(volume: &PersistentVolume) -> Option<&str> {
    let terms = &volume
        .spec
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required
        .as_ref()?
        .node_selector_terms;
    let requirement = terms.first()?.match_expressions.as_ref()?.first()?;
    requirement.values.as_ref()?.first().map(String::as_str)
}

async fn reconcile_volume(
    volume: Arc<PersistentVolume>,
    context: Arc<Provisioner>,
) -> Result<Action, Failure> {
    let released = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some("Released");
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if released && is_ours(&volume) && policy == Some("Delete") {
        remove(&context, &volume).await?;
    }
    Ok(Action::await_change())
}

async fn remove(context: &Provisioner, volume: &PersistentVolume) -> anyhow::Result<()> {
    let name = volume.name_any();
    let node = node_of(volume).context("a volume without a node")?;
    let path = context.disks.host_path(node, &name);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("removing {}", path.display())),
    }
    match Api::<PersistentVolume>::all(context.client.clone())
        .delete(&name, &DeleteParams::default())
        .await
    {
        Ok(_) => println!("{name}: removed"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error).context("deleting the volume"),
    }
    Ok(())
}
