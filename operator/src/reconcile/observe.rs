//! What the cluster and the members say about one set, read once per reconcile.
//!
//! Called first. Reads caches and the guard's view only; the Secrets that users refer to, which no
//! cache holds, are asked for by name. An answer that could not be had is `Unknown`, and nothing
//! destructive follows from it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::{
    Api, Resource, ResourceExt,
    runtime::reflector::{Lookup, ObjectRef, Store},
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::validate::{ReferencedSecret, References};
use crate::{
    api::{RedisReplicaSet, names},
    context::{API_TIMEOUT, Context, SetKey, cached},
    guard::view::View,
    resources::secrets::{DamagedSecret, ServerCredentials, read_server_secret},
};

/// Everything a plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The set, as it was when this was read.
    pub set: RedisReplicaSet,
    /// Secrets that its spec refers to.
    pub references: References,
    /// Its child objects by kind and name.
    pub children: BTreeMap<(&'static str, String), Value>,
    /// The Secret that members start with.
    pub credentials: Credentials,
    /// Replicas that the StatefulSet asks for; `None` if there is none.
    pub workload_replicas: Option<u32>,
    /// Its members' pods, by name.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Their claims, by member.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// The volumes bound to them, by member.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// All nodes, by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// What the members say.
    pub view: View,
    /// What members answered to their configuration.
    pub config_answers: BTreeMap<String, ConfigAnswer>,
    /// The wall clock.
    pub now: Timestamp,
}

/// The Secret that members start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It does not exist.
    Missing,
    /// It exists and cannot be understood.
    Damaged(String),
    /// It says this.
    Found(Box<ServerCredentials>),
}

/// What a member answered when it was told its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAnswer {
    /// Which process answered.
    pub boot: u64,
    /// UID of its pod.
    pub pod_uid: String,
    /// The revision it was told.
    pub revision: u64,
    /// Directives that it did not take.
    pub refused: Vec<RefusedDirective>,
}

/// A directive that a member did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedDirective {
    /// Its name.
    pub name: String,
    /// Why.
    pub message: String,
    /// What helps.
    pub cure: Cure,
}

/// What helps against a refused directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// A new start: it is read at start only.
    Restart,
    /// Another value, or its removal: no server would start with it.
    Correction,
}

/// What this process remembers of earlier reconciles. Losing it costs a repeated question.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What members answered to their configuration.
    pub config_answers: BTreeMap<String, ConfigAnswer>,
}

/// Reads everything about a set that exists.
pub async fn observe(
    context: &Context,
    key: &SetKey,
    set: RedisReplicaSet,
    view: View,
    notes: Notes,
) -> Observed {
    let stores = &context.stores;
    let references = references(context, key, &set).await;
    let workload = cached(&stores.stateful_sets, key, &names::workload(&key.name));
    let workload_replicas = workload
        .as_ref()
        .and_then(|w| w.spec.as_ref()?.replicas)
        .map(|n| u32::try_from(n).unwrap_or_default());
    let credentials = match cached(&stores.secrets, key, &names::server_secret(&key.name)) {
        None => Credentials::Missing,
        Some(secret) => match read_server_secret(&secret) {
            Ok(found) => Credentials::Found(Box::new(found)),
            Err(damage @ DamagedSecret { .. }) => Credentials::Damaged(damage.to_string()),
        },
    };
    let mut observed = Observed {
        references,
        children: children(
            context,
            key,
            set.metadata.uid.as_deref().unwrap_or_default(),
        ),
        credentials,
        workload_replicas,
        pods: BTreeMap::new(),
        claims: BTreeMap::new(),
        volumes: BTreeMap::new(),
        nodes: BTreeMap::new(),
        view,
        config_answers: notes.config_answers,
        now: context.wall(),
        set,
    };
    for node in stores.nodes.state() {
        observed
            .nodes
            .insert(node.metadata.name.clone().unwrap_or_default(), node);
    }
    let wanted = u32::try_from(observed.set.spec.replicas).unwrap_or_default();
    for ordinal in 0..wanted.max(workload_replicas.unwrap_or_default()) {
        observe_member(
            context,
            key,
            names::member(&key.name, ordinal),
            &mut observed,
        );
    }
    observed
}

fn observe_member(context: &Context, key: &SetKey, member: String, observed: &mut Observed) {
    let stores = &context.stores;
    if let Some(pod) = cached(&stores.pods, key, &member) {
        observed.pods.insert(member.clone(), pod);
    }
    let Some(claim) = cached(&stores.claims, key, &names::volume_claim(&member)) else {
        return;
    };
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
    if let Some(volume) = volume.and_then(|v| stores.volumes.get(&ObjectRef::new(&v))) {
        observed.volumes.insert(member.clone(), volume);
    }
    observed.claims.insert(member, claim);
}

fn children(context: &Context, key: &SetKey, uid: &str) -> BTreeMap<(&'static str, String), Value> {
    let stores = &context.stores;
    let set = &key.name;
    let mut found = BTreeMap::new();
    let mut all = Children {
        key,
        uid,
        found: &mut found,
    };
    all.add("StatefulSet", &stores.stateful_sets, names::workload(set));
    all.add("Service", &stores.services, names::headless_service(set));
    all.add("Service", &stores.services, names::master_service(set));
    all.add("Service", &stores.services, names::replicas_service(set));
    all.add("ConfigMap", &stores.config_maps, names::config_map(set));
    all.add(
        "ServiceAccount",
        &stores.accounts,
        names::service_account(set),
    );
    all.add(
        "NetworkPolicy",
        &stores.policies,
        names::network_policy(set),
    );
    all.add(
        "PodDisruptionBudget",
        &stores.budgets,
        names::disruption_budget(set),
    );
    all.add("Secret", &stores.secrets, names::server_secret(set));
    all.add("Secret", &stores.secrets, names::client_secret(set));
    all.add("Secret", &stores.secrets, names::replication_secret(set));
    found
}

struct Children<'a> {
    key: &'a SetKey,
    uid: &'a str,
    found: &'a mut BTreeMap<(&'static str, String), Value>,
}

impl Children<'_> {
    fn add<K>(&mut self, kind: &'static str, store: &Store<K>, name: String)
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Serialize + 'static,
    {
        let Some(object) = cached(store, self.key, &name) else {
            return;
        };
        // What another set controls is not ours, whatever its name; `apply` says so.
        let owners = object.owner_references();
        let controller = owners.iter().find(|owner| owner.controller == Some(true));
        if controller.is_some_and(|owner| owner.uid != self.uid) {
            return;
        }
        let value = serde_json::to_value(&*object)
            .expect("an object of the API that was read from JSON can be written as JSON");
        self.found.insert((kind, name), value);
    }
}

async fn references(context: &Context, key: &SetKey, set: &RedisReplicaSet) -> References {
    let auth = &set.spec.auth;
    References {
        client: referenced(context, key, auth.client_secret_name.as_deref()).await,
        replication: referenced(context, key, auth.replication_secret_name.as_deref()).await,
    }
}

async fn referenced(context: &Context, key: &SetKey, name: Option<&str>) -> ReferencedSecret {
    let Some(name) = name else {
        return ReferencedSecret::Unknown;
    };
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &key.namespace);
    match timeout(API_TIMEOUT, api.get_opt(name)).await {
        Ok(Ok(Some(secret))) => ReferencedSecret::Found(Box::new(secret)),
        Ok(Ok(None)) => ReferencedSecret::Missing,
        Ok(Err(error)) => {
            tracing::warn!(set = %key, secret = name, %error, "Secret not read");
            ReferencedSecret::Unknown
        }
        Err(_) => ReferencedSecret::Unknown,
    }
}

impl Observed {
    /// The UID of a member's pod.
    #[must_use]
    pub fn pod_uid(&self, member: &str) -> Option<String> {
        self.pods.get(member).and_then(|p| p.meta().uid.clone())
    }

    /// The node that a member's pod is on.
    #[must_use]
    pub fn node_of(&self, member: &str) -> Option<&Arc<Node>> {
        let name = self.pods.get(member)?.spec.as_ref()?.node_name.as_ref()?;
        self.nodes.get(name)
    }
}
