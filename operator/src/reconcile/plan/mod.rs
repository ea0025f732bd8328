//! What to do about a set: `(ValidatedSet, Observed) → ordered steps, each with its reason`.
//!
//! Pure: no client, no clock, no randomness. Failover is not planned here; it cannot wait for a
//! reconcile, see `guard`.
//!
//! Order: credentials, child objects, what members must know (passwords, configuration), voters,
//! then at most one step that takes a member away or moves the mastership: scaling before rollout
//! before placement, because each leaves less to do for the next. While anything is unknown about
//! a member, no such step is planned.
//!
//! Reading order: `members` (facts in the words of the pure modules; why a pod does not run is in `trouble` and `waits`),
//! `secrets`, `configuration`, `change`, `relocation`.

pub mod change;
pub mod configuration;
pub mod members;
pub mod relocation;
pub mod secrets;
pub mod trouble;
pub mod waits;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{
    diff::{self, Change},
    observe::Observed,
    step::{Child, Planned, Step},
};
use crate::{
    api::names,
    placement::spread::Violation,
    resources::{self, Desired},
    rollout, scaling,
    set::{Activity, ValidatedSet},
};
use configuration::{ConfigPlan, Heard, Judged};
use members::{MemberFacts, facts};
use secrets::SecretsPlan;

/// Pause before the answers of members that were told their configuration are looked at.
const HEAR_AFTER: Duration = Duration::from_millis(400);

/// What to do, and what was found on the way.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Planned>,
    /// The members, in order.
    pub members: Vec<MemberFacts>,
    /// Names of those whose word counts when a master is chosen: every member that is wanted, until
    /// voters are recorded.
    pub voters: Vec<String>,
    /// The rotation of both credentials.
    pub secrets: SecretsPlan,
    /// What becomes of the directives.
    pub config: ConfigPlan,
    /// What scaling wants.
    pub scaling: scaling::Next,
    /// What the rollout wants.
    pub rollout: rollout::order::Next,
    /// What is wrong with the places.
    pub violations: Vec<Violation>,
    /// When time alone may change this plan.
    pub wake_after: Option<Duration>,
}

/// The plan for a set.
#[must_use]
pub fn plan(set: &ValidatedSet, observed: &Observed) -> Plan {
    let config = configuration::plan(set, observed);
    let set = &config.set;
    let members = facts(set, observed);
    let secrets = secrets::plan(set, observed, &members);
    let change = change::plan(set, observed, &members);
    let mut steps = Vec::new();
    if set.activity == Activity::Active {
        steps.extend(secrets.store.iter().cloned());
        if secrets.ready {
            steps.extend(children(
                &config,
                observed,
                &secrets,
                change.workload_members,
            ));
            steps.extend(secrets.push.iter().cloned());
            steps.extend(config.push.iter().cloned());
            steps.extend(change.steps);
            steps.extend(role_labels(observed, &members));
        }
    }
    let recorded = observed.set.status.as_ref().map(|s| s.voters.clone());
    let voters = recorded.filter(|voters| !voters.is_empty());
    Plan {
        steps,
        members,
        voters: voters.unwrap_or_else(|| set.member_names()),
        wake_after: [
            secrets.wake_after,
            change.wake_after,
            unheard(&config),
            waits::wake_after(&observed.waits, observed.now),
        ]
        .into_iter()
        .flatten()
        .min(),
        secrets,
        scaling: change.scaling,
        rollout: change.rollout,
        violations: change.violations,
        config,
    }
}

/// What members answer changes nothing that is watched.
fn unheard(config: &ConfigPlan) -> Option<Duration> {
    match config.heard {
        Heard::All => None,
        Heard::NotAll => Some(HEAR_AFTER),
    }
}

/// What is done for a set whose spec has mistakes elsewhere: a rotation that is due or under way.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    /// The steps, in order.
    pub steps: Vec<Planned>,
    /// When time alone may change this plan.
    pub wake_after: Option<Duration>,
}

/// The plan for the passwords alone. No new ones are made where there are none: a set that never could be built needs none.
#[must_use]
pub fn passwords(set: &ValidatedSet, observed: &Observed) -> Passwords {
    let secrets = secrets::plan(set, observed, &facts(set, observed));
    if set.activity == Activity::Paused || !secrets.ready {
        return Passwords::default();
    }
    let published = secrets.published.iter().map(json);
    let published = published.filter_map(|secret| child(observed, "Secret", secret));
    let mut steps = secrets.store;
    steps.extend(published);
    steps.extend(secrets.push);
    Passwords {
        steps,
        wake_after: secrets.wake_after,
    }
}

/// Child objects that are not as they should be.
fn children(
    config: &ConfigPlan,
    observed: &Observed,
    secrets: &SecretsPlan,
    workload_members: u32,
) -> Vec<Planned> {
    let Desired {
        service_account,
        config_map,
        headless_service,
        master_service,
        replicas_service,
        network_policy,
        disruption_budget,
        workload,
    } = resources::build(&config.set, workload_members);
    let mut wanted: Vec<(&'static str, Value)> = Vec::new();
    wanted.extend(secrets.published.iter().map(|s| ("Secret", json(s))));
    wanted.extend(service_account.iter().map(|a| ("ServiceAccount", json(a))));
    wanted.push(("ConfigMap", json(&config_map)));
    wanted.push(("Service", json(&headless_service)));
    wanted.push(("Service", json(&master_service)));
    wanted.push(("Service", json(&replicas_service)));
    wanted.push(("NetworkPolicy", json(&network_policy)));
    wanted.push(("PodDisruptionBudget", json(&disruption_budget)));
    wanted.push(("StatefulSet", json(&workload)));
    wanted
        .into_iter()
        .filter(|(kind, _)| config.judged == Judged::Yes || !starts_members(kind))
        .filter_map(|(kind, object)| child(observed, kind, object))
        .collect()
}

/// Whether new processes start with what this kind of child says.
fn starts_members(kind: &str) -> bool {
    matches!(kind, "ConfigMap" | "StatefulSet")
}

/// The step that applies an object, unless it is as wanted.
pub(super) fn child(observed: &Observed, kind: &'static str, mut object: Value) -> Option<Planned> {
    diff::stamp(&mut object);
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let change = diff::change(&object, observed.children.get(&(kind, name.clone())));
    let why = match &change {
        Change::None => return None,
        Change::Missing => format!("{kind} {name} does not exist"),
        Change::Wanted => format!("{kind} {name} shall change"),
        Change::Drift { path } => format!("{kind} {name} was changed at {path}"),
    };
    let step = Step::Apply(Box::new(Child {
        kind,
        name,
        object,
        change,
    }));
    Some(Planned { step, why })
}

pub(super) fn json<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object)
        .expect("objects of the API have string keys only, so they are JSON")
}

/// Pods whose label does not name their role.
fn role_labels(observed: &Observed, members: &[MemberFacts]) -> Vec<Planned> {
    let labels: BTreeMap<&str, &str> = members
        .iter()
        .filter(|m| m.state.is_some())
        .map(|m| (m.name.as_str(), m.role_label()))
        .collect();
    let wrong = observed.pods.iter().filter_map(|(name, pod)| {
        let role = *labels.get(name.as_str())?;
        let present = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(names::ROLE_LABEL));
        if present.map(String::as_str) == Some(role) || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let role: &'static str = match role {
            "master" => "master",
            "replica" => "replica",
            _ => "none",
        };
        Some(Planned {
            step: Step::LabelPod {
                member: name.clone(),
                role,
            },
            why: format!("{name} is {role} now"),
        })
    });
    wrong.collect()
}

#[cfg(test)]
pub(super) mod tests;
