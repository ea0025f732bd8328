//! The EndpointSlices of `<name>` and `<name>-replicas`: one write for a switch.
//!
//! A slice is never emptied because its master was lost: kube-proxy would have to be told twice
//! within a second, and delays the second. It leads to the old address until there is a new one, or, after
//! [`GONE_AFTER_MS`] without one, while the pod that had it is there.
//! A slice that somebody deleted is made anew.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{Api, ResourceExt, api::PostParams};
use replset::{RoleKind, Term};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    task::Guard,
    view::{MemberView, in_sync, lag_ms, pod_is_ready, role},
};
use crate::{
    context::cached,
    failover::health::Line,
    resources::endpoints::{AddressFamily, Backend, Target, endpoint_slice},
    set::ValidatedSet,
};

/// Annotation with the term of the mastership that a slice speaks of.
const TERM_ANNOTATION: &str = "redfleet.dev/term";
/// Longest wait for one write of a slice.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long after a change of a Service kube-proxy may hold the next one back (its `minSyncPeriod`, 1 s by default).
const KUBE_PROXY_PAUSE_MS: u64 = 1_100;
/// Where the zone of a node is.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// How long a write is believed that the cache does not show: a slice that is missing for longer was deleted.
const CACHE_DELAY_MS: u64 = 5_000;

/// How long addresses of pods that are gone stay while no master serves. Another pod may be given one of them, and would be sent
/// what clients mean for the set, passwords included; a failover takes less.
const GONE_AFTER_MS: u64 = 10_000;

/// A slice as this process wrote it.
#[derive(Clone, Debug)]
struct Written {
    slice: EndpointSlice,
    at_ms: u64,
}

/// Until when a process of a replica had all data that it knew of or was receiving more, in the operator's monotonic
/// milliseconds.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    boot: u64,
    until_ms: u64,
}

/// What was written last, while the cache is behind it.
#[derive(Debug, Default)]
pub struct Slices {
    master: Option<Written>,
    replicas: Option<Written>,
    /// How fresh what each replica holds is.
    fresh: BTreeMap<String, Fresh>,
    /// When one of the two was written last.
    written_ms: Option<u64>,
    /// When addresses of pods that are gone are dropped, while no master serves.
    drop_at_ms: Option<u64>,
}

impl Slices {
    /// Whether it is time to drop the addresses of pods that are gone: first [`GONE_AFTER_MS`] after the first call since a
    /// master served, then again and again, with time for the cache to show what was done.
    fn must_drop(&mut self, now_ms: u64) -> bool {
        let due_ms = *self.drop_at_ms.get_or_insert(now_ms + GONE_AFTER_MS);
        if now_ms >= due_ms {
            self.drop_at_ms = Some(now_ms + CACHE_DELAY_MS);
        }
        now_ms >= due_ms
    }

    /// How long kube-proxy may still hold back what is written now.
    pub(super) fn pause_left_ms(&self, now_ms: u64) -> u64 {
        let free_ms = self.written_ms.map_or(0, |at| at + KUBE_PROXY_PAUSE_MS);
        free_ms.saturating_sub(now_ms)
    }

    /// Notes how fresh the replicas are. On every turn, whoever acts: once a master is lost nobody is in sync any more,
    /// and whoever runs the failover must know who was.
    pub(super) fn observe(&mut self, members: &BTreeMap<String, MemberView>, now_ms: u64) {
        self.fresh.retain(|name, _| members.contains_key(name));
        for (name, view) in members {
            let Some(state) = view.current() else {
                continue;
            };
            // A process that was started anew, lost its data or led meanwhile has to follow first.
            let other = |fresh: &Fresh| fresh.boot != state.boot;
            let anew = state.blank || self.fresh.get(name).is_some_and(other);
            if anew || role(state) == RoleKind::Master {
                self.fresh.remove(name);
            }
            if let Some(lag_ms) = lag_ms(state).filter(|_| in_sync(state)) {
                let until_ms = now_ms.saturating_sub(lag_ms);
                let boot = state.boot;
                let fresh = self.fresh.entry(name.clone());
                let fresh = fresh.or_insert(Fresh { boot, until_ms });
                fresh.until_ms = fresh.until_ms.max(until_ms);
            }
        }
    }

    /// Whether a replica was so at most `max_lag` ago. Its link may be down: every change of the master breaks
    /// all links for a moment, and taking the replicas away and back would leave readers without any and make kube-proxy
    /// delay the one change that matters.
    fn is_fresh(&self, member: &str, max_lag: Duration, now_ms: u64) -> bool {
        let max_lag_ms = u64::try_from(max_lag.as_millis()).unwrap_or(u64::MAX);
        let fresh = self.fresh.get(member);
        fresh.is_some_and(|fresh| now_ms <= fresh.until_ms.saturating_add(max_lag_ms))
    }

    fn last(&mut self, target: Target) -> &mut Option<Written> {
        match target {
            Target::Master => &mut self.master,
            Target::Replicas => &mut self.replicas,
        }
    }
}

impl Guard {
    /// Brings both slices up to date for the mastership of `term`.
    pub(super) async fn write_slices(&mut self, master: &str, term: Term) {
        let Some(set) = self.wanted.clone() else {
            return;
        };
        self.slices.drop_at_ms = None;
        let Some(backend) = self.backend(master) else {
            return;
        };
        let family = AddressFamily::of(backend.address);
        self.write(&set, Target::Master, family, &[backend], term)
            .await;
        let replicas = self.replicas(&set, master);
        self.write(&set, Target::Replicas, family, &replicas, term)
            .await;
    }

    /// Without a master: keeps only the addresses of pods that are still there.
    pub(super) async fn drop_gone(&mut self) {
        if !self.slices.must_drop(self.context.now_ms()) {
            return;
        }
        let Some(set) = self.wanted.clone() else {
            return;
        };
        for target in [Target::Master, Target::Replicas] {
            for family in [AddressFamily::Ipv4, AddressFamily::Ipv6] {
                let name = endpoint_slice(&set, target, family, &[]).name_any();
                let Some(found) = cached(&self.context.stores.slices, &self.key, &name) else {
                    continue;
                };
                let mut wanted = (*found).clone();
                wanted.endpoints.retain(|e| self.is_of_a_pod(e));
                if wanted.endpoints != found.endpoints && !is_of_another(&found, &set) {
                    self.store(target, wanted).await;
                }
            }
        }
    }

    /// Whether the pod that an endpoint was written for is there and has the address.
    fn is_of_a_pod(&self, endpoint: &Endpoint) -> bool {
        let of = endpoint.target_ref.as_ref();
        let name = of.and_then(|of| of.name.as_deref()).unwrap_or_default();
        let Some(pod) = cached(&self.context.stores.pods, &self.key, name) else {
            return false;
        };
        let status = pod.status.clone().unwrap_or_default();
        // A pod that ended keeps its address in its status only.
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ips = status.pod_ips.unwrap_or_default();
        let has = |address: &String| ips.iter().any(|ip| ip.ip == *address);
        pod.uid() == of.and_then(|of| of.uid.clone())
            && !ended
            && endpoint.addresses.iter().all(has)
    }

    async fn write(
        &mut self,
        set: &ValidatedSet,
        target: Target,
        family: AddressFamily,
        backends: &[Backend],
        term: Term,
    ) {
        let mut wanted = endpoint_slice(set, target, family, backends);
        wanted
            .annotations_mut()
            .insert(TERM_ANNOTATION.to_owned(), term.to_string());
        let name = wanted.name_any();
        let cached = cached(&self.context.stores.slices, &self.key, &name);
        let now_ms = self.context.now_ms();
        let last = self.slices.last(target);
        *last = last.take().filter(|ours| {
            ours.slice.name_any() == name && is_ahead(ours, cached.as_deref(), now_ms)
        });
        let ours = last.as_ref().map(|ours| ours.slice.clone());
        let found = ours.or_else(|| cached.map(|c| (*c).clone()));
        if found.as_ref().is_some_and(|f| is_of_another(f, set)) {
            debug!(set = %self.key, slice = name, "endpoints of this name belong to somebody else");
            return;
        }
        if found
            .as_ref()
            .is_some_and(|f| says(f, &wanted) || term_of(f) > term)
        {
            return;
        }
        wanted.metadata.resource_version = found.as_ref().and_then(ResourceExt::resource_version);
        self.store(target, wanted).await;
    }

    async fn store(&mut self, target: Target, wanted: EndpointSlice) {
        // What is there after a write that failed only the cache can tell.
        *self.slices.last(target) = None;
        let api: Api<EndpointSlice> =
            Api::namespaced(self.context.client.clone(), &self.key.namespace);
        self.context.metrics.wrote("EndpointSlice");
        let name = wanted.name_any();
        match timeout(WRITE_TIMEOUT, put(&api, wanted)).await {
            Ok(Ok(slice)) => {
                let of = slice.endpoints.iter().filter_map(|e| e.target_ref.as_ref());
                let pods: Vec<&str> = of.filter_map(|of| of.name.as_deref()).collect();
                let term = term_of(&slice);
                info!(set = %self.key, slice = name, ?pods, %term, "endpoints");
                let at_ms = self.context.now_ms();
                *self.slices.last(target) = Some(Written { slice, at_ms });
                self.slices.written_ms = Some(at_ms);
            }
            Ok(Err(error)) => warn!(set = %self.key, slice = name, %error, "endpoints not written"),
            Err(_) => warn!(set = %self.key, slice = name, "endpoints not written in time"),
        }
    }

    pub(super) fn backend(&self, member: &str) -> Option<Backend> {
        let stores = &self.context.stores;
        let pod = cached(&stores.pods, &self.key, member)?;
        let view = self.members.get(member)?;
        if pod.uid().as_ref() != Some(&view.pod_uid) {
            // The old process still answers, and a new pod has its name: an endpoint that is half of each helps nobody.
            return None;
        }
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
        let labels = node.as_ref().and_then(|n| {
            stores
                .nodes
                .get(&kube::runtime::reflector::ObjectRef::new(n))
        });
        let zone = labels.and_then(|n| n.labels().get(ZONE_LABEL).cloned());
        Some(Backend {
            pod: member.to_owned(),
            pod_uid: pod.uid().unwrap_or_default(),
            address: view.address,
            node,
            zone,
        })
    }

    /// Replicas within the lag limit. One that nobody could ask stays where it is while Kubernetes holds it ready: not
    /// knowing is no reason to take it away. One whose pod is being deleted goes before it stops answering, unless nobody
    /// else is there.
    fn replicas(&self, set: &ValidatedSet, master: &str) -> Vec<Backend> {
        let name = crate::api::names::endpoint_slice(&Target::Replicas.service(&set.name));
        let present = cached(&self.context.stores.slices, &self.key, &name);
        let listed = |member: &str| {
            present
                .iter()
                .flat_map(|s| &s.endpoints)
                .any(|e| e.target_ref.as_ref().and_then(|t| t.name.as_deref()) == Some(member))
        };
        let now_ms = self.context.now_ms();
        let (mut staying, mut leaving) = (Vec::new(), Vec::new());
        for (member, view) in self.members.iter().filter(|(name, _)| *name != master) {
            let good = match view.current() {
                Some(_) => self.slices.is_fresh(member, set.max_lag, now_ms),
                None => view.line == Line::Unknown && listed(member) && self.is_ready(member),
            };
            if good && self.is_leaving(member) {
                leaving.extend(self.backend(member));
            } else if good {
                staying.extend(self.backend(member));
            }
        }
        if staying.is_empty() { leaving } else { staying }
    }

    fn is_leaving(&self, member: &str) -> bool {
        let pod = cached(&self.context.stores.pods, &self.key, member);
        pod.is_some_and(|p| p.metadata.deletion_timestamp.is_some())
    }

    fn is_ready(&self, member: &str) -> bool {
        let pod = cached(&self.context.stores.pods, &self.key, member);
        pod.is_some_and(|p| pod_is_ready(&p) && p.metadata.deletion_timestamp.is_none())
    }
}

/// Replaces the version of a slice that `wanted` names. Without one, or when there is none any more, it is created: a
/// Service without its slice leads nowhere.
async fn put(api: &Api<EndpointSlice>, mut wanted: EndpointSlice) -> kube::Result<EndpointSlice> {
    let params = PostParams::default();
    if wanted.metadata.resource_version.is_some() {
        match api.replace(&wanted.name_any(), &params, &wanted).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => return answer,
        }
    }
    wanted.metadata.resource_version = None;
    api.create(&params, &wanted).await
}

/// Whether the cache has yet to show what was written. One that shows nothing is believed after a while.
fn is_ahead(ours: &Written, cached: Option<&EndpointSlice>, now_ms: u64) -> bool {
    match cached {
        Some(cached) => version(cached) < version(&ours.slice),
        None => now_ms < ours.at_ms.saturating_add(CACHE_DELAY_MS),
    }
}

/// Whether a slice in the cluster says what is wanted.
fn says(found: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    found.endpoints == wanted.endpoints
        && found.ports == wanted.ports
        && wanted
            .labels()
            .iter()
            .all(|(k, v)| found.labels().get(k) == Some(v))
        && term_of(found) >= term_of(wanted)
}

/// Whether a slice has another owner: a set whose Services have the same name.
fn is_of_another(found: &EndpointSlice, set: &ValidatedSet) -> bool {
    let owner = found
        .owner_references()
        .iter()
        .find(|o| o.controller == Some(true));
    owner.is_some_and(|o| o.uid != set.uid)
}

fn term_of(slice: &EndpointSlice) -> Term {
    let text = slice.annotations().get(TERM_ANNOTATION);
    Term(text.and_then(|t| t.parse().ok()).unwrap_or_default())
}

/// Resource versions of one object are comparable as numbers since Kubernetes 1.35 by contract and
/// before it in fact; a wrong order only costs one refused write.
fn version(slice: &EndpointSlice) -> u64 {
    slice
        .resource_version()
        .and_then(|v| v.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use control::proto;

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::{
        guard::testing::{Scene, pod as testing_pod},
        testing::{self, Api as FakeApi},
    };

    fn slice(version: u64) -> EndpointSlice {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some("orders-members".into());
        slice.metadata.resource_version = Some(version.to_string());
        slice
    }

    #[test]
    fn what_was_written_counts_until_the_cache_shows_it() {
        let ours = Written {
            slice: slice(7),
            at_ms: 1_000,
        };
        assert!(is_ahead(&ours, Some(&slice(6)), 1_000_000));
        assert!(!is_ahead(&ours, Some(&slice(7)), 1_000));
        assert!(!is_ahead(&ours, Some(&slice(8)), 1_000));
        assert!(is_ahead(&ours, None, 1_000 + CACHE_DELAY_MS - 1));
        assert!(!is_ahead(&ours, None, 1_000 + CACHE_DELAY_MS));
    }

    #[tokio::test]
    async fn a_slice_that_is_gone_is_created_by_the_same_write() {
        let api = FakeApi::start(|request| match request.method.as_str() {
            "PUT" => testing::refused(404),
            _ => (201, request.body.clone()),
        })
        .await;
        let slices: Api<EndpointSlice> = Api::namespaced(api.client(), "shop");
        let written = put(&slices, slice(7)).await.unwrap();
        assert_eq!(written.name_any(), "orders-members");
        assert_eq!(api.methods(), ["PUT", "POST"]);
        assert_eq!(
            api.requests()[1].body["metadata"].get("resourceVersion"),
            None
        );
    }

    #[tokio::test]
    async fn a_standby_knows_who_was_in_sync_when_the_links_broke() {
        let mut scene = Scene::new().await;
        assert!(!scene.guard.context.may_act());
        scene.guard.turn().await;
        assert_eq!(scene.endpoints("orders"), None, "a standby writes nothing");
        scene.says("orders-2", |state| state.link = proto::Link::Down.into());
        scene.guard.write_slices("orders-1", Term(2)).await;
        assert_eq!(scene.endpoints("orders").unwrap(), ["orders-1"]);
        assert_eq!(scene.endpoints("orders-replicas").unwrap(), ["orders-2"]);
    }

    #[tokio::test]
    async fn a_replica_whose_pod_is_being_deleted_leaves_at_once_unless_it_is_the_last() {
        let mut scene = Scene::new().await;
        scene.guard.turn().await;
        for (deleted, left) in [
            ("orders-1", vec!["orders-2"]),
            ("orders-2", vec!["orders-1", "orders-2"]),
        ] {
            let mut pod = testing_pod(deleted);
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            let event = Event::Apply(pod);
            scene.writers.pods.apply_watcher_event(&event);
            scene.guard.write_slices("orders-0", Term(1)).await;
            assert_eq!(scene.endpoints("orders-replicas").unwrap(), left);
        }
    }

    #[tokio::test]
    async fn without_a_master_the_addresses_of_pods_that_are_gone_are_dropped_after_a_while() {
        let mut scene = Scene::new().await;
        scene.acts();
        scene.guard.turn().await;
        let all = ["orders-1", "orders-2"];
        for service in ["orders", "orders-replicas"] {
            let name = crate::api::names::endpoint_slice(service);
            let written = scene.api.requests();
            let written = written.iter().rfind(|r| r.body["metadata"]["name"] == name);
            let slice = serde_json::from_value(written.unwrap().body.clone()).unwrap();
            scene
                .writers
                .slices
                .apply_watcher_event(&Event::Apply(slice));
        }
        for (member, phase) in [("orders-1", "Running"), ("orders-2", "Failed")] {
            let mut pod = testing_pod(member);
            let address = scene.guard.members[member].address.to_string();
            let status = serde_json::json!({"phase": phase, "podIPs": [{"ip": address}]});
            pod.status = serde_json::from_value(status).unwrap();
            scene.writers.pods.apply_watcher_event(&Event::Apply(pod));
        }
        let gone = Event::Delete(testing_pod("orders-0"));
        scene.writers.pods.apply_watcher_event(&gone);
        scene.guard.drop_gone().await;
        scene.later(GONE_AFTER_MS - 1_000);
        scene.guard.drop_gone().await;
        assert_eq!(scene.endpoints("orders").unwrap(), ["orders-0"]);
        assert_eq!(scene.endpoints("orders-replicas").unwrap(), all);
        scene.later(1_000);
        scene.guard.drop_gone().await;
        assert!(scene.endpoints("orders").unwrap().is_empty());
        assert_eq!(scene.endpoints("orders-replicas").unwrap(), ["orders-1"]);
    }

    fn replica() -> proto::State {
        testing::member::state(proto::Role::Follower, 100)
    }

    /// Whether a replica that says these things, each at its second, is fresh at `at_s` with a limit of 10 s.
    async fn fresh(said: &[(u64, proto::State)], at_s: u64) -> bool {
        let (_member, mut view) = testing::member::Member::start("orders-1", replica()).await;
        let mut slices = Slices::default();
        for (second, state) in said {
            view.state = Some(std::sync::Arc::new(state.clone()));
            let members = BTreeMap::from([("orders-1".to_owned(), view.clone())]);
            slices.observe(&members, second * 1_000);
        }
        slices.is_fresh("orders-1", Duration::from_secs(10), at_s * 1_000)
    }

    #[tokio::test]
    async fn a_replica_stays_until_its_data_are_older_than_the_limit_with_or_without_a_link() {
        let cut = proto::State {
            link: proto::Link::Down.into(),
            ..replica()
        };
        let said = [(100, replica()), (103, cut)];
        assert!(fresh(&said, 110).await);
        assert!(!fresh(&said, 111).await);
        let silent = proto::State {
            lag_bytes: 1,
            link_idle_ms: Some(4_000),
            ..replica()
        };
        assert!(fresh(&[(100, silent.clone())], 106).await);
        assert!(!fresh(&[(100, silent)], 107).await);
    }

    #[tokio::test]
    async fn a_process_that_is_not_the_one_that_was_in_sync_has_to_catch_up_first() {
        let other = |change: fn(&mut proto::State)| {
            let mut state = replica();
            state.link = proto::Link::Down.into();
            change(&mut state);
            [(100, replica()), (101, state)]
        };
        assert!(fresh(&other(|_| {}), 101).await);
        assert!(!fresh(&other(|s| s.boot = 2), 101).await);
        assert!(!fresh(&other(|s| s.blank = true), 101).await);
        assert!(!fresh(&other(|s| s.role = proto::Role::Master.into()), 101).await);
    }
}
