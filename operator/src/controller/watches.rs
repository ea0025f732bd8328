//! The watches, and which sets an event of one concerns.
//!
//! Owns: one task for each kind, which fills its cache and touches sets. Started by `controller::run`.
//! Invariant: whatever appears in a cache or disappears from it has its sets touched. A list (the first, or the one after
//! a watch was cut) is in the cache only when it is complete, so nothing is done before that, and then everything is looked
//! at: which objects came or went meanwhile no event tells.
//! Not done here: what is done about a set.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{Operator, Writers, key_of};
use crate::{api::names, guard::view::node_is_ready};

/// What a change of an object means for sets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Concerns {
    /// The set of this name.
    Itself,
    /// The set that the object's label names.
    Labelled,
    /// All sets, if what they care about changed.
    Everybody,
    /// Nobody: it is looked up when needed.
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
    pub fn start(self, writers: Writers) -> tokio::task::JoinSet<()> {
        use Concerns::{Everybody, Itself, Labelled, Nobody};
        let mut tasks = tokio::task::JoinSet::new();
        let ours = watcher::Config::default().labels(&names::all_children_selector());
        // Claims are made from a template whose labels never change: those that select the members.
        let claims = watcher::Config::default().labels(&names::all_members_selector());
        let all = watcher::Config::default;
        self.spawn(&mut tasks, writers.sets, all(), Itself, |_| String::new());
        self.spawn(
            &mut tasks,
            writers.stateful_sets,
            ours.clone(),
            Labelled,
            |_| String::new(),
        );
        self.spawn(&mut tasks, writers.pods, ours.clone(), Labelled, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.claims, claims, Nobody, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.volumes, all(), Nobody, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.services, ours.clone(), Labelled, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.slices, ours.clone(), Labelled, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.secrets, ours.clone(), Labelled, |_| {
            String::new()
        });
        self.spawn(
            &mut tasks,
            writers.config_maps,
            ours.clone(),
            Labelled,
            |_| String::new(),
        );
        self.spawn(&mut tasks, writers.budgets, ours.clone(), Labelled, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.accounts, ours.clone(), Labelled, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.policies, ours, Labelled, |_| {
            String::new()
        });
        self.spawn(&mut tasks, writers.nodes, all(), Everybody, node_digest);
        tasks
    }

    /// Watches one kind into its cache. `digest` is what of a cluster-wide object concerns sets.
    fn spawn<K>(
        &self,
        tasks: &mut tokio::task::JoinSet<()>,
        writer: Writer<K>,
        config: watcher::Config,
        concerns: Concerns,
        digest: fn(&K) -> String,
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
        let mut consequences = Consequences {
            operator: Arc::clone(&self.operator),
            concerns,
            digest,
            digests: BTreeMap::new(),
        };
        tasks.spawn(async move {
            let stream = watcher(api, config)
                .default_backoff()
                .modify(|object| object.managed_fields_mut().clear())
                .reflect(writer);
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
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
    concerns: Concerns,
    digest: fn(&K) -> String,
    /// Of the objects that concern everybody, by name.
    digests: BTreeMap<String, String>,
}

impl<K: Resource<DynamicType = ()>> Consequences<K> {
    fn heed(&mut self, event: &Event<K>) {
        match event {
            Event::Init => self.digests.clear(),
            Event::InitApply(object) => {
                if self.concerns == Concerns::Everybody {
                    let digest = (self.digest)(object);
                    self.digests.insert(object.name_any(), digest);
                }
            }
            Event::InitDone => {
                if self.concerns != Concerns::Nobody {
                    self.operator.touch_after_list();
                }
            }
            Event::Apply(object) => self.changed(object, Some((self.digest)(object))),
            Event::Delete(object) => self.changed(object, None),
        }
    }

    /// `now` is the digest of an object that exists.
    fn changed(&mut self, object: &K, now: Option<String>) {
        match self.concerns {
            Concerns::Nobody => {}
            Concerns::Itself => self.operator.touch(key_of(object)),
            Concerns::Labelled => self.operator.touch_labelled(object.meta()),
            Concerns::Everybody => {
                let name = object.name_any();
                if self.digests.get(&name) == now.as_ref() {
                    return;
                }
                match now {
                    Some(now) => self.digests.insert(name, now),
                    None => self.digests.remove(&name),
                };
                self.operator.touch_all();
            }
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
        .map(|t| format!("{}={}", t.key, t.effect))
        .collect();
    format!(
        "{} {cordoned} {taints:?} {:?}",
        node_is_ready(node),
        node.labels()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use kube::{Config, runtime::events::Recorder};
    use serde_json::json;

    use super::*;
    use crate::{
        context::{Context, SetKey, Settings, WatchedSet},
        controller::caches,
        leader::gate::Gate,
        reconcile::validate::Defaults,
        telemetry::metrics::Metrics,
    };

    /// An operator whose API server does not answer, and the writer of its cache of sets.
    fn operator() -> (Arc<Operator>, Writer<WatchedSet>) {
        let nowhere = Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(nowhere).unwrap();
        let (stores, writers) = caches();
        let context = Context {
            client: client.clone(),
            stores,
            gate: Gate::closed(),
            metrics: Arc::new(Metrics::new()),
            recorder: Recorder::new(client, "test".into()),
            settings: Settings {
                identity: "test".to_owned(),
                defaults: Defaults {
                    server_image: "redfleet/server:1".to_owned(),
                },
            },
            started: Instant::now(),
        };
        (Operator::new(Arc::new(context)).0, writers.sets)
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
        let mut consequences = Consequences {
            operator: Arc::clone(&operator),
            concerns: Concerns::Itself,
            digest: |_| String::new(),
            digests: BTreeMap::new(),
        };
        let mut hear = |events: Vec<Event<WatchedSet>>| {
            for event in events {
                sets.apply_watcher_event(&event);
                consequences.heed(&event);
            }
        };
        hear(listed(&["old", "going"]));
        assert!(operator.queue.is_empty(), "before all caches are full");
        operator.caches_are_full();
        assert_eq!(operator.queue.drain(), [key("going"), key("old")]);

        hear(listed(&["old", "new"]));
        assert_eq!(operator.queue.drain(), [key("new"), key("old")]);
        assert_eq!(operator.guards.known(), [key("new"), key("old")]);
    }
}
