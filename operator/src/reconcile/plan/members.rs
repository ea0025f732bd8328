//! Facts about members, in the words of the pure modules.

use std::sync::Arc;

use control::proto;
use k8s_openapi::api::core::v1::Pod;
use replset::{RoleKind, Vote};

use super::{
    super::observe::Observed,
    configuration::{restart_for, started_with_other},
    trouble::{Stake, data_of_another_set, trouble},
};
use crate::{
    api::{names, v1alpha1::MemberRole},
    failover::health::Verdict,
    guard::view::{in_sync, link, pod_is_ready, role, vote},
    resources::pod::template_revision,
    rollout::{
        order::{Duty, Health},
        reason::{Fingerprint, Reason, reasons},
    },
    set::ValidatedSet,
};

/// What is known of one member.
#[derive(Clone, Debug)]
pub struct MemberFacts {
    /// Its name.
    pub name: String,
    /// What it says, if it can be asked.
    pub state: Option<Arc<proto::State>>,
    /// Whether it is the master.
    pub duty: Duty,
    /// How it is.
    pub health: Health,
    /// Why its pod must be replaced.
    pub reasons: Vec<Reason>,
    /// Why it is not what it should be, in the words of Kubernetes.
    pub trouble: Option<String>,
    /// Whether its pod is ready.
    pub ready: bool,
    /// Whether its name is among the recorded voters.
    pub voter: bool,
}

impl MemberFacts {
    /// Its role, for the status.
    #[must_use]
    pub fn role(&self) -> MemberRole {
        let Some(state) = &self.state else {
            return match self.health {
                Health::CannotStart | Health::Replacing => MemberRole::Absent,
                Health::InSync | Health::Behind | Health::Unknown => MemberRole::Unknown,
            };
        };
        match (role(state), vote(state)) {
            (RoleKind::Master, _) => MemberRole::Master,
            (RoleKind::Follower, Vote::Granted) => MemberRole::Replica,
            (RoleKind::Follower, Vote::Suspended) => MemberRole::Learner,
            (RoleKind::Idle, _) => MemberRole::Waiting,
        }
    }

    /// Its role, for the label of its pod.
    #[must_use]
    pub fn role_label(&self) -> &'static str {
        match self.role() {
            MemberRole::Master => "master",
            MemberRole::Replica | MemberRole::Learner => "replica",
            MemberRole::Waiting | MemberRole::Absent | MemberRole::Unknown => "none",
        }
    }
}

/// Facts about every member that is wanted or exists, in order of ordinals.
#[must_use]
pub fn facts(set: &ValidatedSet, observed: &Observed) -> Vec<MemberFacts> {
    let count = set
        .replicas
        .max(observed.workload_replicas.unwrap_or_default());
    (0..count)
        .map(|ordinal| fact(set, observed, names::member(&set.name, ordinal)))
        .collect()
}

fn fact(set: &ValidatedSet, observed: &Observed, name: String) -> MemberFacts {
    let pod = observed.pods.get(&name).map(Arc::as_ref);
    let view = observed.view.members.get(&name);
    // What the process of a pod that is gone says is nothing about the new pod of its name.
    let of_this_pod = |uid: &str| pod.is_none_or(|p| p.metadata.uid.as_deref() == Some(uid));
    let state = view
        .filter(|v| v.current().is_some() && of_this_pod(&v.pod_uid))
        .and_then(|v| v.state.clone());
    let master = match &observed.view.verdict {
        Some(Verdict::Serving { master, .. }) => Some(master.as_str()),
        Some(_) | None => None,
    };
    let duty = if master == Some(name.as_str()) {
        Duty::Master
    } else {
        Duty::Replica
    };
    let status = observed.set.status.as_ref();
    let bootstrapped = status.is_some_and(|s| s.bootstrapped);
    let stranger = || {
        let state = state.as_ref().filter(|_| bootstrapped)?;
        data_of_another_set(set, &name, state)
    };
    // Whoever answers waits for nothing, whatever the kubelet has not told yet.
    let complaint = || {
        let wait = observed.waits.get(&name).filter(|_| state.is_none())?;
        wait.complaint.clone()
    };
    let trouble = pod
        .and_then(|pod| trouble(set, pod, Stake::of(observed.claims.values())))
        .or_else(complaint)
        .or_else(stranger);
    let voter = status.is_some_and(|s| s.voters.contains(&name));
    let health = health(pod, state.as_deref(), duty, voter, trouble.as_deref());
    let mut reasons = pod
        .map(|pod| why_replace(set, observed, &name, pod))
        .unwrap_or_default();
    let other_config = pod.is_some_and(|pod| started_with_other(pod, set));
    if health == Health::CannotStart && other_config && reasons.is_empty() {
        // What keeps it from starting may be just what was corrected.
        let directives = Vec::new();
        reasons.push(Reason::StartConfig { directives });
    }
    MemberFacts {
        reasons,
        ready: pod.is_some_and(pod_is_ready),
        name,
        state,
        duty,
        health,
        trouble,
        voter,
    }
}

fn health(
    pod: Option<&Pod>,
    state: Option<&proto::State>,
    duty: Duty,
    voter: bool,
    trouble: Option<&str>,
) -> Health {
    match pod {
        None => return Health::Replacing,
        Some(pod) if pod.metadata.deletion_timestamp.is_some() => return Health::Replacing,
        Some(_) => {}
    }
    let Some(state) = state else {
        return if trouble.is_some() {
            Health::CannotStart
        } else {
            Health::Unknown
        };
    };
    let serves = duty == Duty::Master && state.serving;
    let may_vote = !voter || vote(state) == Vote::Granted;
    if serves || (duty == Duty::Replica && in_sync(state) && may_vote) {
        Health::InSync
    } else {
        Health::Behind
    }
}

fn why_replace(set: &ValidatedSet, observed: &Observed, name: &str, pod: &Pod) -> Vec<Reason> {
    let annotation = |key: &str| {
        pod.metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let container = pod.spec.as_ref().and_then(|s| {
        s.containers
            .iter()
            .find(|c| c.name == names::SERVER_CONTAINER)
    });
    let wanted = crate::resources::pod::containers::server(set);
    let text = |resources: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        let value = serde_json::to_value(resources.cloned().unwrap_or_default());
        value.map(|v| v.to_string()).unwrap_or_default()
    };
    let current = Fingerprint {
        image: container.and_then(|c| c.image.clone()).unwrap_or_default(),
        resources: text(container.and_then(|c| c.resources.as_ref())),
        revision: annotation(names::TEMPLATE_REVISION_ANNOTATION),
    };
    let desired = Fingerprint {
        image: wanted.image.clone().unwrap_or_default(),
        resources: text(wanted.resources.as_ref()),
        revision: template_revision(set),
    };
    let mut found = reasons(&current, &desired);
    let directives = restart_for(set, observed, name);
    if !directives.is_empty() {
        found.push(Reason::StartConfig { directives });
    }
    found
}

/// Whether a replica's link is up; a master has none.
#[must_use]
pub fn is_attached(state: &proto::State) -> bool {
    link(state) == replset::MasterLink::Up
}
