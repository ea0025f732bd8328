//! What is watched, and what follows from it.
//!
//! Owns: the watches that fill the caches, and the two consumers of every change: the guard of the
//! set concerned, in every operator pod, and the reconcile queue, served only by the acting one.
//! Called once by `main`. The watches themselves are in `controller/watches.rs`.
//!
//! Watched are the sets (every change of spec or status), their children and pods by label (every
//! change: a predicate on the generation would swallow deletions), the referenced volumes, the
//! metadata of Secrets (those that sets refer to may be any), and nodes (changes of labels,
//! readiness and schedulability only: their heartbeats concern nobody).
//! Leases are not watched: their renewals would wake everybody every second.
//!
//! kube's `applier` runs the queue: one reconcile of a set at a time, [`CONCURRENCY`] at once,
//! changes within [`DEBOUNCE`] taken together, failures paused for longer and longer.

mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    runtime::{
        controller::{Action, Config as QueueConfig, applier},
        reflector::{ObjectRef, store::Writer},
    },
};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, error, warn};

use self::watches::Watches;
use crate::{
    api::names,
    context::{Context, SetKey, Stores, WatchedSet},
    guard::registry::Guards,
    leader::{gate::Holding, lease::RETRY_PERIOD},
    reconcile::{
        error::{Error, MAX_RETRY, MIN_RETRY},
        observe::Notes,
        reconcile,
    },
};

/// Reconciles at once.
const CONCURRENCY: u16 = 16;
/// Changes within this time are reconciled together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Sets whose guards have news, waiting to be reconciled.
const MAX_NEWS: usize = 4096;

/// A running operator.
pub struct Operator {
    /// Everything shared.
    pub context: Arc<Context>,
    /// The guards.
    pub guards: Guards,
    queue: Queue,
    news: mpsc::Sender<SetKey>,
    notes: Mutex<BTreeMap<SetKey, Notes>>,
    failures: Mutex<BTreeMap<SetKey, u32>>,
    /// Whether all caches have been filled once.
    is_filled: AtomicBool,
}

/// Sets to be reconciled, each at most once.
#[derive(Default)]
struct Queue {
    waiting: Mutex<BTreeSet<SetKey>>,
    filled: Notify,
}

impl Queue {
    fn push(&self, key: SetKey) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
        self.filled.notify_one();
    }

    #[cfg(test)]
    fn drain(&self) -> Vec<SetKey> {
        std::mem::take(&mut *self.waiting.lock().unwrap())
            .into_iter()
            .collect()
    }

    async fn pop(&self) -> SetKey {
        loop {
            let next = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_first();
            match next {
                Some(key) => return key,
                None => self.filled.notified().await,
            }
        }
    }
}

impl Operator {
    /// An operator over `context`, and the queue of its guards' news for [`run`].
    #[must_use]
    pub fn new(context: Arc<Context>) -> (Arc<Self>, mpsc::Receiver<SetKey>) {
        let (news, heard) = mpsc::channel(MAX_NEWS);
        let operator = Self {
            context,
            guards: Guards::default(),
            queue: Queue::default(),
            news,
            notes: Mutex::default(),
            failures: Mutex::default(),
            is_filled: AtomicBool::new(false),
        };
        (Arc::new(operator), heard)
    }

    /// What is remembered about a set.
    #[must_use]
    pub fn notes_of(&self, key: &SetKey) -> Notes {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.get(key).cloned().unwrap_or_default()
    }

    /// Changes what is remembered about a set.
    pub fn notes(&self, key: &SetKey, change: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        change(notes.entry(key.clone()).or_default());
    }

    /// Something about a set changed.
    fn touch(&self, key: SetKey) {
        // While the operator starts some caches are empty: nobody may decide by them. All sets are looked at afterwards.
        if !self.is_filled.load(Ordering::Acquire) {
            return;
        }
        let exists = self.context.stores.sets.get(&reference(&key)).is_some();
        if exists {
            self.guards.look_at(&self.context, &key, &self.news);
            self.queue.push(key);
        } else {
            self.guards.forget(&self.context, &key);
            self.notes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
            self.failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
        }
    }

    /// Something about the set that a child's label names changed.
    fn touch_labelled(&self, child: &ObjectMeta) {
        let name = child.labels.as_ref().and_then(|l| l.get(names::SET_LABEL));
        if let (Some(name), Some(namespace)) = (name, &child.namespace) {
            self.touch(SetKey {
                namespace: namespace.clone(),
                name: name.clone(),
            });
        }
    }

    /// A Secret changed that sets may refer to.
    fn touch_referring(&self, secret: &ObjectMeta) {
        let (Some(namespace), Some(name)) = (&secret.namespace, &secret.name) else {
            return;
        };
        for watched in self.context.stores.sets.state() {
            let Ok(set) = &watched.0 else { continue };
            let auth = &set.spec.auth;
            let mut referred = [&auth.client_secret_name, &auth.replication_secret_name]
                .into_iter()
                .flatten();
            if set.metadata.namespace.as_ref() == Some(namespace) && referred.any(|r| r == name) {
                self.touch(key_of(&*watched));
            }
        }
    }

    /// Has every set looked at, and those forgotten that are gone.
    fn touch_all(&self) {
        let sets = self.context.stores.sets.state();
        let mut keys: BTreeSet<SetKey> = sets.iter().map(|set| key_of(&**set)).collect();
        keys.extend(self.guards.known());
        for key in keys {
            self.touch(key);
        }
    }

    /// From now on sets are looked at.
    fn caches_are_full(&self) {
        self.is_filled.store(true, Ordering::Release);
        self.touch_all();
    }
}

fn reference(key: &SetKey) -> ObjectRef<WatchedSet> {
    ObjectRef::new(&key.name).within(&key.namespace)
}

fn key_of<K: Resource>(object: &K) -> SetKey {
    SetKey {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        name: object.meta().name.clone().unwrap_or_default(),
    }
}

/// The writers of all caches; made together with [`Stores`].
pub struct Writers {
    pub(crate) sets: Writer<WatchedSet>,
    stateful_sets: Writer<k8s_openapi::api::apps::v1::StatefulSet>,
    pub(crate) pods: Writer<k8s_openapi::api::core::v1::Pod>,
    claims: Writer<k8s_openapi::api::core::v1::PersistentVolumeClaim>,
    volumes: Writer<k8s_openapi::api::core::v1::PersistentVolume>,
    services: Writer<k8s_openapi::api::core::v1::Service>,
    pub(crate) slices: Writer<k8s_openapi::api::discovery::v1::EndpointSlice>,
    pub(crate) secrets: Writer<k8s_openapi::api::core::v1::Secret>,
    config_maps: Writer<k8s_openapi::api::core::v1::ConfigMap>,
    budgets: Writer<k8s_openapi::api::policy::v1::PodDisruptionBudget>,
    accounts: Writer<k8s_openapi::api::core::v1::ServiceAccount>,
    policies: Writer<k8s_openapi::api::networking::v1::NetworkPolicy>,
    nodes: Writer<Node>,
}

/// Empty caches.
#[must_use]
pub fn caches() -> (Stores, Writers) {
    let writers = Writers {
        sets: Writer::default(),
        stateful_sets: Writer::default(),
        pods: Writer::default(),
        claims: Writer::default(),
        volumes: Writer::default(),
        services: Writer::default(),
        slices: Writer::default(),
        secrets: Writer::default(),
        config_maps: Writer::default(),
        budgets: Writer::default(),
        accounts: Writer::default(),
        policies: Writer::default(),
        nodes: Writer::default(),
    };
    let stores = Stores {
        sets: writers.sets.as_reader(),
        stateful_sets: writers.stateful_sets.as_reader(),
        pods: writers.pods.as_reader(),
        claims: writers.claims.as_reader(),
        volumes: writers.volumes.as_reader(),
        services: writers.services.as_reader(),
        slices: writers.slices.as_reader(),
        secrets: writers.secrets.as_reader(),
        config_maps: writers.config_maps.as_reader(),
        budgets: writers.budgets.as_reader(),
        accounts: writers.accounts.as_reader(),
        policies: writers.policies.as_reader(),
        nodes: writers.nodes.as_reader(),
    };
    (stores, writers)
}

/// Runs watches, guards and the queue until `stop` changes. Calls `ready` once the caches are full.
pub async fn run(
    operator: Arc<Operator>,
    writers: Writers,
    mut news: mpsc::Receiver<SetKey>,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce() + Send + 'static,
) {
    let client = operator.context.client.clone();
    let watches = Watches {
        operator: Arc::clone(&operator),
        client,
    };
    let mut tasks = watches.start(writers);
    let fed = Arc::clone(&operator);
    tasks.spawn(async move {
        while let Some(key) = news.recv().await {
            fed.queue.push(key);
        }
    });
    let led = Arc::clone(&operator);
    tasks.spawn(async move {
        let mut holding = led.context.gate.subscribe();
        while holding.changed().await.is_ok() {
            let leads = *holding.borrow_and_update() == Holding::Leader;
            led.context.metrics.leader.set(i64::from(leads));
            led.touch_all();
        }
    });
    if wait_for_caches(&operator.context.stores).await {
        ready();
        operator.caches_are_full();
    }
    tokio::select! {
        () = serve_queue(operator) => {}
        _ = stop.changed() => {}
    }
    tasks.shutdown().await;
}

async fn wait_for_caches(stores: &Stores) -> bool {
    let Stores {
        sets,
        stateful_sets,
        pods,
        claims,
        volumes,
        services,
        slices,
        secrets,
        config_maps,
        budgets,
        accounts,
        policies,
        nodes,
    } = stores;
    let filled = futures::try_join!(
        sets.wait_until_ready(),
        stateful_sets.wait_until_ready(),
        pods.wait_until_ready(),
        claims.wait_until_ready(),
        volumes.wait_until_ready(),
        services.wait_until_ready(),
        slices.wait_until_ready(),
        secrets.wait_until_ready(),
        config_maps.wait_until_ready(),
        budgets.wait_until_ready(),
        accounts.wait_until_ready(),
        policies.wait_until_ready(),
        nodes.wait_until_ready(),
    );
    if filled.is_err() {
        error!("a watch ended before its cache was filled");
    }
    filled.is_ok()
}

async fn serve_queue(operator: Arc<Operator>) {
    let feeder = Arc::clone(&operator);
    let requests = stream::unfold(feeder, |feeder| async move {
        let key = feeder.queue.pop().await;
        Some((Ok::<_, Infallible>(reference(&key)), feeder))
    });
    let store = operator.context.stores.sets.clone();
    let config = QueueConfig::default()
        .concurrency(CONCURRENCY)
        .debounce(DEBOUNCE);
    let results = applier(
        look,
        on_failure,
        operator,
        store,
        Box::pin(requests),
        config,
    );
    results
        .for_each(|result| async move {
            if let Err(error) = result {
                debug!(%error, "queue");
            }
        })
        .await;
}

fn look(
    set: Arc<WatchedSet>,
    operator: Arc<Operator>,
) -> futures::future::BoxFuture<'static, Result<Action, Error>> {
    Box::pin(async move {
        let key = key_of(&*set);
        if let Err(invalid) = &set.0 {
            warn!(set = %key, error = %invalid, "the object cannot be read");
            return Ok(Action::await_change());
        }
        if !operator.context.may_act() {
            return Ok(not_acting(&operator));
        }
        let began = Instant::now();
        let result = reconcile(&operator, &key).await;
        let outcome = result.as_ref().map_or_else(Error::label, |_| "ok");
        operator
            .context
            .metrics
            .reconciled(outcome, began.elapsed());
        if result.is_ok() {
            let mut failures = operator
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            failures.remove(&key);
        }
        result.map(Action::requeue)
    })
}

/// A standby waits for its turn, when everything is looked at. The holder of a Lease whose renewal
/// is late looks again soon: nothing will tell it when the gate is open again.
fn not_acting(operator: &Operator) -> Action {
    match operator.context.gate.holding() {
        Holding::Leader => Action::requeue(RETRY_PERIOD),
        Holding::Standby => Action::await_change(),
    }
}

fn on_failure(set: Arc<WatchedSet>, error: &Error, operator: Arc<Operator>) -> Action {
    let key = key_of(&*set);
    if matches!(error, Error::NotActing) {
        return not_acting(&operator);
    }
    warn!(set = %key, %error, "reconcile failed");
    let mut failures = operator
        .failures
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(key).or_default();
    *count = count.saturating_add(1);
    let factor = 2_u32.saturating_pow(count.saturating_sub(1).min(16));
    Action::requeue(MIN_RETRY.saturating_mul(factor).min(MAX_RETRY))
}
