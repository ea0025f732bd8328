//! What the parts of a running operator share: client, caches, clock, metrics, identity.
//!
//! Made once by `main`; handed to `controller`, `guard` and the effectful steps of `reconcile`.
//! The caches are label-scoped and filled by `controller`; names of child objects are functions of
//! the set's name, so every lookup is by name and nothing is searched.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{
        ConfigMap, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
        Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::{
        events::{Event, Recorder},
        reflector::{Lookup, ObjectRef, Store},
    },
};
use tokio::time::timeout;
use tracing::warn;

use crate::{
    api::RedisReplicaSet, leader::gate::Gate, reconcile::validate::Defaults,
    telemetry::metrics::Metrics,
};

/// A set by namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SetKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for SetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A set as watched: one that cannot be read must not stop the watch of the others.
pub type WatchedSet = DeserializeGuard<RedisReplicaSet>;

/// The caches.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The sets.
    pub sets: Store<WatchedSet>,
    /// Their workloads.
    pub stateful_sets: Store<StatefulSet>,
    /// Their pods.
    pub pods: Store<Pod>,
    /// Their volumes' claims.
    pub claims: Store<PersistentVolumeClaim>,
    /// Volumes, for what they are bound to.
    pub volumes: Store<PersistentVolume>,
    /// Their Services.
    pub services: Store<Service>,
    /// The slices that the operator writes.
    pub slices: Store<EndpointSlice>,
    /// Their Secrets, not those that users refer to.
    pub secrets: Store<Secret>,
    /// Their ConfigMaps.
    pub config_maps: Store<ConfigMap>,
    /// Their disruption budgets.
    pub budgets: Store<PodDisruptionBudget>,
    /// Their ServiceAccounts.
    pub accounts: Store<ServiceAccount>,
    /// Their network policies.
    pub policies: Store<NetworkPolicy>,
    /// All nodes.
    pub nodes: Store<Node>,
}

/// Looks an object of a set's namespace up by its name.
#[must_use]
pub fn cached<K>(store: &Store<K>, key: &SetKey, name: &str) -> Option<Arc<K>>
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(&key.namespace))
}

/// Settings of this operator process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this process in Leases, terms and events: the pod's name.
    pub identity: String,
    /// What a spec leaves open.
    pub defaults: Defaults,
}

/// Everything shared.
pub struct Context {
    /// The API client.
    pub client: Client,
    /// The caches.
    pub stores: Stores,
    /// Whether this process is the acting operator.
    pub gate: Gate,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The one recorder of events, so that repeated ones are counted and not repeated.
    pub recorder: Recorder,
    /// Settings.
    pub settings: Settings,
    /// The beginning of this process's monotonic time.
    pub started: Instant,
}

impl Context {
    /// Milliseconds of this process's monotonic clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock, for what people read and for times that outlive the process.
    #[expect(
        clippy::disallowed_methods,
        reason = "the place where the wall clock is read"
    )]
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether this process may change the cluster now as the acting operator.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.gate.may_act(Instant::now())
    }

    /// Sends an event about the object that `reference` names. One that cannot be sent is only missed.
    pub async fn publish(&self, event: &Event, reference: &ObjectReference) {
        self.metrics.wrote("Event");
        let sent = self.recorder.publish(event, reference);
        match timeout(API_TIMEOUT, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(reason = event.reason, %error, "event not published"),
            Err(_) => warn!(reason = event.reason, "event not published in time"),
        }
    }

    /// The set, if it is there and can be read.
    #[must_use]
    pub fn set(&self, key: &SetKey) -> Option<RedisReplicaSet> {
        cached(&self.stores.sets, key, &key.name).and_then(|set| set.0.as_ref().ok().cloned())
    }
}

/// Longest wait for one answer of the API server outside of watches. kube's client retries by
/// itself, so that a call without a limit of its own may take minutes.
pub const API_TIMEOUT: Duration = Duration::from_secs(5);
