//! The watches, and which sets an event of one concerns.
//!
//! Owns: one task for each kind, which fills its cache and touches sets, and one for the Secrets that sets refer to, which
//! has no cache. Started by `controller::run`.
//! Invariant: whatever appears in a cache or disappears from it has its sets touched. A list (the first, or the one after
//! a watch was cut) is in the cache only when it is complete, so nothing is done before that, and then everything is looked
//! at: which objects came or went meanwhile no event tells.
//! Not done here: what is done about a set.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::warn;

use super::{Operator, Writers, key_of};
use crate::{api::names, placement::eligible::node_is_ready};

/// Which sets a change of an object of kind `K` concerns.
enum Concerns<K> {
    /// The set of this name.
    Itself,
    /// The set that the object's label names.
    Labelled,
    /// All sets, if what this makes of the object changed.
    Everybody(fn(&K) -> String),
    /// None: the object is looked up when needed.
    Nobody,
}

/// The watches to be.
pub struct Watches {
    /// Whose sets are touched.
    pub operator: Arc<Operator>,
    /// The API client.
    pub client: Client,
}

impl Watches {
    /// Starts them; they end with the set of tasks.
    pub fn start(self, writers: Writers) -> JoinSet<()> {
        use Concerns::{Everybody, Itself, Labelled, Nobody};
        let mut tasks = JoinSet::new();
        let children = watcher::Config::default().labels(&names::all_children_selector());
        // Claims are made from a template whose labels never change: those that select the members.
        let members = watcher::Config::default().labels(&names::all_members_selector());
        let all = watcher::Config::default();
        let started = &mut tasks;
        self.spawn(started, writers.sets, &all, Itself);
        self.spawn(started, writers.stateful_sets, &children, Labelled);
        self.spawn(started, writers.pods, &children, Labelled);
        self.spawn(started, writers.claims, &members, Nobody);
        self.spawn(started, writers.volumes, &all, Nobody);
        self.spawn(started, writers.services, &children, Labelled);
        self.spawn(started, writers.slices, &children, Labelled);
        self.spawn(started, writers.secrets, &children, Labelled);
        self.spawn(started, writers.config_maps, &children, Labelled);
        self.spawn(started, writers.budgets, &children, Labelled);
        self.spawn(started, writers.accounts, &children, Labelled);
        self.spawn(started, writers.policies, &children, Labelled);
        self.spawn(started, writers.nodes, &all, Everybody(node_digest));
        self.spawn_references(started);
        tasks
    }

    /// Watches the metadata of all Secrets, for those that sets refer to: they have any name and no
    /// label of ours. Nothing of them is kept; what they say is read by `observe`.
    fn spawn_references(&self, tasks: &mut JoinSet<()>) {
        let api: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let operator = Arc::clone(&self.operator);
        tasks.spawn(async move {
            let events = watcher(api, watcher::Config::default()).default_backoff();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(secret) | Event::Delete(secret)) => {
                        operator.touch_referring(&secret.metadata);
                    }
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Ok(Event::InitDone) => operator.touch_all(),
                    Err(error) => warn!(kind = "Secret", %error, "watch of references"),
                }
            }
        });
    }

    /// Watches one kind into its cache.
    fn spawn<K>(
        &self,
        tasks: &mut JoinSet<()>,
        writer: Writer<K>,
        config: &watcher::Config,
        concerns: Concerns<K>,
    ) where
        K: Resource<DynamicType = ()>
            + Lookup<DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let events = watcher(api, config.clone())
            .default_backoff()
            .modify(|object| object.managed_fields_mut().clear())
            .reflect(writer);
        let mut consequences = Consequences::new(Arc::clone(&self.operator), concerns);
        tasks.spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => consequences.heed(&event),
                    Err(error) => {
                        warn!(kind = %<K as Resource>::kind(&()), %error, "watch");
                    }
                }
            }
        });
    }
}

/// Turns the events of one watch, already in the cache, into sets to be looked at.
struct Consequences<K> {
    operator: Arc<Operator>,
    concerns: Concerns<K>,
    /// Of the objects that concern everybody, by name.
    digests: BTreeMap<String, String>,
}

impl<K: Resource<DynamicType = ()>> Consequences<K> {
    fn new(operator: Arc<Operator>, concerns: Concerns<K>) -> Self {
        Self {
            operator,
            concerns,
            digests: BTreeMap::new(),
        }
    }

    fn heed(&mut self, event: &Event<K>) {
        match event {
            Event::Init => self.digests.clear(),
            Event::InitApply(object) => {
                self.is_news(object);
            }
            Event::InitDone => match self.concerns {
                Concerns::Itself | Concerns::Labelled | Concerns::Everybody(_) => {
                    self.operator.touch_all();
                }
                Concerns::Nobody => {}
            },
            Event::Apply(object) => {
                if self.is_news(object) {
                    self.touch_concerned(object);
                }
            }
            Event::Delete(object) => {
                self.digests.remove(&object.name_any());
                self.touch_concerned(object);
            }
        }
    }

    /// Whether what concerns sets of an object that exists differs from the last time, and remembers it.
    fn is_news(&mut self, object: &K) -> bool {
        let Concerns::Everybody(digest) = self.concerns else {
            return true;
        };
        let now = digest(object);
        let before = self.digests.insert(object.name_any(), now.clone());
        before != Some(now)
    }

    fn touch_concerned(&self, object: &K) {
        match self.concerns {
            Concerns::Itself => self.operator.touch(key_of(object)),
            Concerns::Labelled => self.operator.touch_labelled(object.meta()),
            Concerns::Everybody(_) => self.operator.touch_all(),
            Concerns::Nobody => {}
        }
    }
}

/// What of a node concerns sets.
fn node_digest(node: &Node) -> String {
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|s| s.unschedulable).unwrap_or_default();
    let taints: Vec<String> = spec
        .and_then(|s| s.taints.as_ref())
        .into_iter()
        .flatten()
        .map(|t| format!("{}={:?}:{}", t.key, t.value, t.effect))
        .collect();
    format!(
        "{} {cordoned} {taints:?} {:?}",
        node_is_ready(node),
        node.labels()
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;
    use crate::{
        context::{SetKey, WatchedSet},
        telemetry::metrics::{FailoverLabel, SetLabel},
        testing,
    };

    /// An operator whose API server does not answer, and the writer of its cache of sets.
    fn operator() -> (Arc<Operator>, Writer<WatchedSet>) {
        let (context, writers) = testing::context(testing::nowhere());
        (Operator::new(context).0, writers.sets)
    }

    fn set(name: &str) -> WatchedSet {
        let object = json!({
            "apiVersion": "redfleet.dev/v1alpha1", "kind": "RedisReplicaSet",
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"replicas": 3, "storage": {"size": "1Gi"}},
        });
        serde_json::from_value(object).unwrap()
    }

    fn key(name: &str) -> SetKey {
        SetKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    /// A list that holds the sets of these names.
    fn listed(names: &[&str]) -> Vec<Event<WatchedSet>> {
        let objects = names.iter().map(|name| Event::InitApply(set(name)));
        std::iter::once(Event::Init)
            .chain(objects)
            .chain([Event::InitDone])
            .collect()
    }

    #[tokio::test]
    async fn sets_that_come_and_go_while_a_watch_is_cut_are_looked_at_and_forgotten() {
        let (operator, mut sets) = operator();
        let mut consequences = Consequences::new(Arc::clone(&operator), Concerns::Itself);
        let mut hear = |events: Vec<Event<WatchedSet>>| {
            for event in events {
                sets.apply_watcher_event(&event);
                consequences.heed(&event);
            }
        };
        hear(listed(&["old", "going"]));
        assert_eq!(operator.queue.drain(), [], "before all caches are full");
        operator.caches_are_full();
        assert_eq!(operator.queue.drain(), [key("going"), key("old")]);

        let metrics = &operator.context.metrics;
        for name in ["old", "going"] {
            let (namespace, name) = ("shop".to_owned(), name.to_owned());
            let set = SetLabel { namespace, name };
            metrics.outage_seconds.get_or_create(&set).set(0.5);
            for reason in ["NodeLost", "Rollout"] {
                let SetLabel { namespace, name } = set.clone();
                let reason = reason.to_owned();
                let label = FailoverLabel {
                    namespace,
                    name,
                    reason,
                };
                metrics.failovers.get_or_create(&label).inc();
            }
        }
        hear(listed(&["old", "new"]));
        let text = metrics.encode();
        assert_eq!(text.matches("name=\"old\"").count(), 3, "{text}");
        assert!(!text.contains("name=\"going\""), "{text}");
        assert_eq!(operator.queue.drain(), [key("new"), key("old")]);
        assert_eq!(operator.guards.known(), [key("new"), key("old")]);
    }

    #[tokio::test]
    async fn a_secret_concerns_the_sets_of_its_namespace_that_refer_to_it() {
        let (operator, mut sets) = operator();
        operator.caches_are_full();
        for name in ["refers", "other"] {
            let mut object = set(name);
            if name == "refers"
                && let Ok(set) = &mut object.0
            {
                set.spec.auth.client_secret_name = Some("mine".to_owned());
            }
            sets.apply_watcher_event(&Event::Apply(object));
        }
        let secret = |namespace: &str, name: &str| ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        operator.touch_referring(&secret("shop", "mine"));
        assert_eq!(operator.queue.drain(), [key("refers")]);
        operator.touch_referring(&secret("elsewhere", "mine"));
        operator.touch_referring(&secret("shop", "other"));
        assert_eq!(operator.queue.drain(), []);
    }
}
