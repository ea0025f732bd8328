//! What the cluster and the members say about one set, read once per reconcile.
//!
//! Called first. Reads caches and the guard's view; the Secrets that users refer to, which no cache
//! holds, are asked for by name, and so is what a cache lacks and the operator would otherwise make:
//! the caches see objects with our labels only, and those may be lost. Events are read of what takes too long. An answer that could not be
//! had is `Unknown`, and nothing destructive follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret},
    events::v1::Event,
};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::reflector::{Lookup, ObjectRef, Store},
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    plan::{
        secrets::restore::is_outdated,
        waits::{Wait, waits},
    },
    step::CredentialKind,
    validate::{ReferencedSecret, References},
};
use crate::{
    api::{RedisReplicaSet, names},
    context::{API_TIMEOUT, Context, SetKey, cached},
    failover::switchover::{Failures, Pause},
    guard::view::View,
    resources::{
        Belonging,
        secrets::{DamagedSecret, ServerCredentials, read_published, read_server_secret},
    },
    set::Password,
};

/// Events read about one object. Kubernetes keeps them for an hour and its components count repetitions instead of repeating
/// them, so there are a few dozen at most.
const MAX_EVENTS: u32 = 200;

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
    /// What switchovers that failed mean for the next one.
    pub switchovers: Pause,
    /// Members whose pods do not come to be, and why.
    pub waits: BTreeMap<String, Wait>,
    /// The wall clock.
    pub now: Timestamp,
}

/// The Secret that members start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// There are no credentials that could be used. This is left of them.
    Absent(Box<Remains>),
    /// It could not be read; the text says so.
    Unknown(String),
    /// It exists and cannot be understood.
    Damaged(String),
    /// It says this.
    Found(Box<ServerCredentials>),
}

/// What is left of credentials; nothing where there were none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// The Secret says this, which is older than what the status records: somebody restored it.
    pub outdated: Option<Box<ServerCredentials>>,
    /// What this process saw last, see [`Notes`].
    pub remembered: Option<Box<ServerCredentials>>,
    /// The clients' password that is published.
    pub client: Option<Password>,
    /// The replication password that is published.
    pub replication: Option<Password>,
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

/// What this process remembers of earlier reconciles. Losing it costs a repeated question or order, and if the
/// Secret of the servers is lost too, the control connections until Kubernetes has brought members
/// their new token.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The credentials that were there last.
    pub credentials: Option<Remembered>,
    /// What members answered to their configuration.
    pub config_answers: BTreeMap<String, ConfigAnswer>,
    /// Switchovers that failed.
    pub switchovers: Failures,
    /// Members whose pods did not come to be.
    pub waits: BTreeMap<String, Wait>,
}

/// Credentials that this process saw.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// UID of the set they belong to: a later one of the same name has its own.
    pub set_uid: String,
    /// They.
    pub credentials: Box<ServerCredentials>,
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
    let mut children = children(
        context,
        key,
        set.metadata.uid.as_deref().unwrap_or_default(),
    );
    let secrets = Secrets {
        context,
        key,
        set: &set,
    };
    let remembered = notes
        .credentials
        .filter(|r| Some(&r.set_uid) == set.metadata.uid.as_ref());
    let credentials = secrets
        .credentials(&mut children, remembered.map(|r| r.credentials))
        .await;
    let mut observed = Observed {
        references,
        children,
        credentials,
        workload_replicas,
        pods: BTreeMap::new(),
        claims: BTreeMap::new(),
        volumes: BTreeMap::new(),
        nodes: BTreeMap::new(),
        view,
        config_answers: notes.config_answers,
        switchovers: notes.switchovers.pause(context.now_ms()),
        waits: notes.waits,
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
    if let Some(uid) = workload.and_then(|w| w.metadata.uid.clone()) {
        observe_waits(context, key, &uid, &mut observed).await;
    }
    observed
}

/// Notes who waits for a pod of the StatefulSet with this UID, or for its container, and hears what the events say of those who
/// wait for too long.
async fn observe_waits(context: &Context, key: &SetKey, workload: &str, observed: &mut Observed) {
    let members = 0..observed.workload_replicas.unwrap_or_default();
    let members = members.map(|ordinal| names::member(&key.name, ordinal));
    let members = members.map(|name| {
        let pod = observed.pods.get(&name).map(Arc::as_ref);
        (name, pod)
    });
    let now = observed.now;
    let mut waits = waits(&observed.waits, members, workload, now);
    let asking = waits.values().filter(|wait| wait.asks(now));
    let asked: BTreeSet<String> = asking.map(|wait| wait.regarding.clone()).collect();
    let answers = asked.iter().map(|uid| events(context, key, uid));
    let answers = join_all(answers).await;
    for (uid, events) in asked.iter().zip(answers) {
        let asking = |wait: &Wait| wait.regarding == *uid && wait.asks(now);
        for (member, wait) in waits.iter_mut().filter(|(_, wait)| asking(wait)) {
            wait.hear(member, events.as_deref(), now);
        }
    }
    observed.waits = waits;
}

/// The events about the object with this UID.
async fn events(context: &Context, key: &SetKey, uid: &str) -> Option<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(context.client.clone(), &key.namespace);
    let about = ListParams::default()
        .fields(&format!("regarding.uid={uid}"))
        .limit(MAX_EVENTS);
    match timeout(API_TIMEOUT, api.list(&about)).await {
        Ok(Ok(events)) => Some(events.items),
        Ok(Err(error)) => {
            tracing::warn!(set = %key, uid, %error, "events not read");
            None
        }
        Err(_) => None,
    }
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

/// The Secrets of one set, by name.
struct Secrets<'a> {
    context: &'a Context,
    key: &'a SetKey,
    set: &'a RedisReplicaSet,
}

impl Secrets<'_> {
    /// The Secret that members start with. What the cache has not, or has as it was before what the
    /// status records, is asked for: it may have lost its label, and the cache may be behind. One
    /// that is found joins the children, so that its labels are put right.
    async fn credentials(
        &self,
        children: &mut BTreeMap<(&'static str, String), Value>,
        remembered: Option<Box<ServerCredentials>>,
    ) -> Credentials {
        let name = names::server_secret(&self.key.name);
        let seen = cached(&self.context.stores.secrets, self.key, &name);
        if let Some(Ok(found)) = seen.map(|secret| read_server_secret(&secret))
            && !self.is_outdated(&found)
        {
            return Credentials::Found(Box::new(found));
        }
        let found = match self.ours(&name).await {
            Ok(found) => found,
            Err(why) => return Credentials::Unknown(why),
        };
        let mut remains = Remains {
            remembered,
            ..Remains::default()
        };
        if let Some(secret) = found {
            children.insert(("Secret", name), super::plan::json(&secret));
            match read_server_secret(&secret) {
                Ok(found) if self.is_outdated(&found) => remains.outdated = Some(Box::new(found)),
                Ok(found) => return Credentials::Found(Box::new(found)),
                Err(damage @ DamagedSecret { .. }) => {
                    return Credentials::Damaged(damage.to_string());
                }
            }
        }
        for kind in CredentialKind::ALL {
            let secret = match self.ours(&kind.published_secret(&self.key.name)).await {
                Ok(secret) => secret,
                Err(why) => return Credentials::Unknown(why),
            };
            let password = secret.as_ref().and_then(read_published);
            match kind {
                CredentialKind::Client => remains.client = password,
                CredentialKind::Replication => remains.replication = password,
            }
        }
        Credentials::Absent(Box::new(remains))
    }

    fn is_outdated(&self, credentials: &ServerCredentials) -> bool {
        let status = self.set.status.as_ref();
        status.is_some_and(|status| is_outdated(credentials, &status.rotation))
    }

    /// The Secret of this name as the API server has it now, if it belongs to the set.
    async fn ours(&self, name: &str) -> Result<Option<Secret>, String> {
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let problem = match timeout(API_TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(found)) => {
                let uid = self.set.metadata.uid.as_deref().unwrap_or_default();
                let belonging = |s: &Secret| Belonging::of(&s.metadata, &self.key.name, uid);
                return Ok(found.filter(|s| belonging(s) == Belonging::Ours));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer of the API server".to_owned(),
        };
        Err(format!("Secret {name} could not be read: {problem}"))
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
    /// What is to be remembered of the credentials.
    #[must_use]
    pub fn remembered(&self) -> Option<Remembered> {
        match &self.credentials {
            Credentials::Found(found) => Some(Remembered {
                set_uid: self.set.metadata.uid.clone()?,
                credentials: found.clone(),
            }),
            Credentials::Absent(_) | Credentials::Unknown(_) | Credentials::Damaged(_) => None,
        }
    }

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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::{reconcile::plan::tests::World, testing};

    #[tokio::test]
    async fn events_are_read_when_a_pod_is_missing_for_too_long_and_at_no_other_time() {
        let refused = json!({
            "metadata": {"name": "e"}, "type": "Warning", "reason": "FailedCreate", "eventTime": null,
            "note": "create Pod orders-1 in StatefulSet orders failed error: no",
        });
        let answer = json!({"apiVersion": "events.k8s.io/v1", "kind": "EventList", "metadata": {}, "items": [refused]});
        let api = testing::Api::start(move |_| (200, answer.clone())).await;
        let (context, _writers) = testing::context(api.client());
        let key = SetKey {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        };
        let spec = json!({"replicas": 3, "storage": {"ephemeral": {}}});
        let mut observed = World::new(&spec, 2).observed;
        // The pod of `orders-0` has a node's answer, those of the others are missing.
        let running = json!({"containerStatuses": [{
            "name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
        }]});
        let pod = observed.pods.get_mut("orders-0").unwrap();
        Arc::make_mut(pod).status = Some(serde_json::from_value(running).unwrap());
        observed.workload_replicas = Some(3);
        let mut look = async |seconds: i64| {
            observed.now += SignedDuration::from_secs(seconds);
            observe_waits(&context, &key, "workload-uid", &mut observed).await;
            let told = observed.waits.iter();
            let told =
                told.filter_map(|(name, wait)| Some((name.clone(), wait.complaint.clone()?)));
            let told: Vec<(String, String)> = told.collect();
            (told, api.requests().len())
        };
        assert_eq!(look(0).await, (vec![], 0));
        assert_eq!(look(29).await, (vec![], 0), "it may take a while");
        let complaint = "FailedCreate: create Pod orders-1 in StatefulSet orders failed error: no";
        let told: Vec<(String, String)> = ["orders-1", "orders-2"]
            .map(|name| (name.to_owned(), complaint.to_owned()))
            .into();
        assert_eq!(look(1).await, (told.clone(), 1), "once for both");
        assert_eq!(look(1).await, (told.clone(), 1), "it is known");
        assert_eq!(look(29).await, (told, 2), "it may have changed");
        let request = &api.requests()[0];
        assert_eq!(
            request.path,
            "/apis/events.k8s.io/v1/namespaces/shop/events"
        );
        let about = "fieldSelector=regarding.uid%3Dworkload-uid&limit=200";
        assert!(request.query.contains(about), "{}", request.query);
    }
}
