//! A guard of a set of three that obey, over an API server that keeps the set's status. `orders-0` is master of term 1.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use control::proto::{Role, State};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use replset::Term;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use super::{task::Guard, view::View};
use crate::{
    api::{RedisReplicaSet, names},
    context::SetKey,
    controller::Writers,
    failover::health::Verdict,
    reconcile::validate::{Defaults, tolerate},
    testing::{
        self, Api, Request,
        member::{Member, state},
    },
};

/// The guard and those around it.
pub(super) struct Scene {
    pub guard: Guard,
    pub api: Api,
    pub members: Vec<Member>,
    pub view: watch::Receiver<View>,
    /// Of the guard's caches.
    pub writers: Writers,
    /// Whether the API server refuses to write the status.
    pub refuses: Arc<AtomicBool>,
}

fn set() -> RedisReplicaSet {
    serde_json::from_value(json!({
        "apiVersion": "redfleet.dev/v1alpha1", "kind": "RedisReplicaSet",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "0b6d", "generation": 1, "resourceVersion": "1"},
        "spec": {"replicas": 3, "storage": {"size": "1Gi"}},
        "status": {
            "bootstrapped": true, "term": 1, "electionTerm": 1, "votersGeneration": 1, "master": "orders-0",
            "voters": ["orders-0", "orders-1", "orders-2"],
        },
    }))
    .unwrap()
}

pub(super) fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("pod-of-{name}")},
    }))
    .unwrap()
}

/// Keeps the status by JSON patches; gives back what else is written.
fn keep(object: &Mutex<Value>, request: &Request) -> (u16, Value) {
    if !request.path.ends_with("/status") {
        return (201, request.body.clone());
    }
    let mut object = object.lock().unwrap();
    for change in request.body.as_array().unwrap() {
        let field = change["path"].as_str().unwrap();
        let field = field.strip_prefix("/status/").unwrap();
        match change["op"].as_str().unwrap() {
            "add" => object["status"][field] = change["value"].clone(),
            _ if object["status"][field] == change["value"] => {}
            _ => return testing::refused(422),
        }
    }
    (200, object.clone())
}

impl Scene {
    pub(super) async fn new() -> Self {
        let refuses = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&refuses);
        let object = Mutex::new(serde_json::to_value(set()).unwrap());
        let api = Api::start(move |request| {
            let refused = asked.load(Ordering::SeqCst);
            match request.path.ends_with("/status") && refused {
                true => testing::refused(403),
                false => keep(&object, request),
            }
        })
        .await;
        let (context, mut writers) = testing::context(api.client());
        let (_, commands) = mpsc::channel(1);
        let (view_in, view) = watch::channel(View::default());
        let (changed, _) = mpsc::channel(16);
        let key = SetKey {
            namespace: "shop".into(),
            name: "orders".into(),
        };
        let wake = Arc::new(Notify::new());
        let mut guard = Guard::new(context, key, commands, wake, view_in, changed);
        let defaults = Defaults {
            server_image: "server:1".into(),
        };
        guard.wanted = Some(tolerate(&set(), &defaults));
        guard.set = Some(set());
        let mut members = Vec::new();
        for (name, role) in [
            ("orders-0", Role::Master),
            ("orders-1", Role::Follower),
            ("orders-2", Role::Follower),
        ] {
            let (member, view) = Member::start(name, state(role, 100)).await;
            members.push(member);
            guard.members.insert(name.into(), view);
            writers.pods.apply_watcher_event(&Event::Apply(pod(name)));
        }
        guard.verdict = Some(Verdict::Serving {
            master: "orders-0".into(),
            term: Term(1),
        });
        Self {
            guard,
            api,
            members,
            view,
            writers,
            refuses,
        }
    }

    /// Who the view says is master.
    pub(super) fn master(&self) -> Option<String> {
        match &self.view.borrow().verdict {
            Some(Verdict::Serving { master, .. }) => Some(master.clone()),
            Some(_) | None => None,
        }
    }

    /// Has a member say something else about itself.
    pub(super) fn says(&mut self, member: &str, change: impl FnOnce(&mut State)) {
        let view = self.guard.members.get_mut(member).unwrap();
        let mut state = view.state.as_deref().cloned().unwrap();
        change(&mut state);
        view.state = Some(Arc::new(state));
    }

    /// The pods of the last slice that was written for this Service; `None` if none was.
    pub(super) fn endpoints(&self, service: &str) -> Option<Vec<String>> {
        let name = names::endpoint_slice(service);
        let requests = self.api.requests();
        let written = requests
            .iter()
            .rfind(|r| r.body["metadata"]["name"] == name)?;
        let pod = |endpoint: &Value| endpoint["targetRef"]["name"].as_str().map(str::to_owned);
        let endpoints = written.body["endpoints"].as_array();
        Some(endpoints.into_iter().flatten().filter_map(pod).collect())
    }

    /// Makes this operator the acting one.
    pub(super) fn acts(&self) {
        let soon = Instant::now() + Duration::from_secs(60);
        self.guard.context.gate.open_until(soon);
    }

    /// Lets time pass for the guard; the tasks that it started must have ended.
    pub(super) fn later(&mut self, ms: u64) {
        let context = Arc::get_mut(&mut self.guard.context).unwrap();
        context.started -= Duration::from_millis(ms);
    }

    /// What the API server was asked to write of this kind, as the end of the path.
    pub(super) fn written(&self, end: &str) -> Vec<Value> {
        let requests = self.api.requests().into_iter();
        requests
            .filter(|r| r.method != "GET" && r.path.ends_with(end))
            .map(|r| r.body)
            .collect()
    }
}
