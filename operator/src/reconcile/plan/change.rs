//! At most one change that takes a member away or moves the mastership.
//!
//! No pod is deleted before the StatefulSet makes its successor as wanted: it would come back from the
//! old template and have to be replaced once more.

use std::time::Duration;

use super::{
    super::{
        observe::Observed,
        step::{Planned, Step},
    },
    members::MemberFacts,
    relocation,
};
use crate::{
    api::{names, v1alpha1::FailoverReason},
    failover::switchover::{Order, Pause},
    placement::spread::Violation,
    resources,
    rollout::{
        order::{self, Duty, Health},
        reason::Reason,
    },
    scaling::{self, Sync},
    set::ValidatedSet,
};

/// What is to change, and what was found.
#[derive(Clone, Debug)]
pub struct ChangePlan {
    /// The steps, at most one of them disruptive.
    pub steps: Vec<Planned>,
    /// Members that the StatefulSet shall have now.
    pub workload_members: u32,
    /// What scaling wants.
    pub scaling: scaling::Next,
    /// What the rollout wants.
    pub rollout: order::Next,
    /// What is wrong with the places.
    pub violations: Vec<Violation>,
    /// When time alone changes this plan.
    pub wake_after: Option<Duration>,
}

/// The plan for number, template and places of the members.
#[must_use]
pub fn plan(set: &ValidatedSet, observed: &Observed, members: &[MemberFacts]) -> ChangePlan {
    let mut plan = at_once(set, observed, members);
    postpone(&mut plan, &observed.switchovers);
    plan
}

/// A switchover waits for the end of the pause after one that failed.
fn postpone(plan: &mut ChangePlan, pause: &Pause) {
    let is_switchover = |planned: &Planned| matches!(planned.step, Step::SwitchOver { .. });
    if pause.left.is_zero() || !plan.steps.iter().any(is_switchover) {
        return;
    }
    plan.steps.retain(|planned| !is_switchover(planned));
    plan.wake_after = Some(pause.left);
    let why = match pause.tried.last() {
        Some(last) => format!("{last} did not take over; there will be another attempt"),
        None => "there will be another attempt to hand over".to_owned(),
    };
    if let scaling::Next::SwitchOver { .. } = plan.scaling {
        plan.scaling = scaling::Next::Wait { why: why.clone() };
    }
    if let order::Next::SwitchOver { .. } = plan.rollout {
        plan.rollout = order::Next::Wait { why };
    }
}

/// The same, whatever failed before.
fn at_once(set: &ValidatedSet, observed: &Observed, members: &[MemberFacts]) -> ChangePlan {
    let wanted = usize::try_from(set.replicas).unwrap_or_default();
    let present = observed.workload_replicas.unwrap_or(set.replicas);
    let existing = usize::try_from(present)
        .unwrap_or_default()
        .min(members.len());
    let scalable: Vec<scaling::Member> = members[..existing].iter().map(scalable).collect();
    let status = observed.set.status.clone().unwrap_or_default();
    let scaling = scaling::next(
        &scalable,
        &status.voters,
        wanted,
        &observed.switchovers.tried,
    );
    let template = template(set, observed);
    let rollout = rollout(members, template, &observed.switchovers.tried);
    let violations = relocation::violations(set, observed, members);
    let mut plan = ChangePlan {
        steps: Vec::new(),
        workload_members: present,
        scaling,
        rollout,
        violations,
        wake_after: None,
    };
    let voters = next_voters(&status.voters, status.voters_generation, members, wanted);
    if let Some(voters) = voters {
        let why = format!("the voters become {}", voters.join(", "));
        let step = Step::SetVoters {
            after: status.voters_generation,
            voters,
        };
        plan.steps.push(Planned { step, why });
        return plan;
    }
    if resize(&mut plan) == Settled::No {
        if may_cure(&plan, members) {
            replace(&mut plan, observed);
        }
        return plan;
    }
    if replace(&mut plan, observed) == Settled::No {
        return plan;
    }
    if template == Template::InForce {
        let moves = relocation::steps(set, observed, members, &plan.violations);
        plan.steps.extend(moves);
    }
    plan
}

/// Whether an earlier concern is settled, so that the next one may act.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Settled {
    Yes,
    No,
}

fn scalable(member: &MemberFacts) -> scaling::Member {
    scaling::Member {
        name: member.name.clone(),
        duty: match member.duty {
            Duty::Master => scaling::Duty::Master,
            Duty::Replica => scaling::Duty::Replica,
        },
        sync: match member.health {
            Health::InSync => Sync::InSync,
            Health::Behind | Health::CannotStart | Health::Replacing | Health::Unknown => {
                Sync::NotInSync
            }
        },
    }
}

/// What a pod that is deleted now comes back from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Template {
    /// From the template that is wanted.
    InForce,
    /// Perhaps from another one, to be replaced once more.
    Outdated,
}

/// Whether the StatefulSet has the template that is wanted, and its controller has seen that.
fn template(set: &ValidatedSet, observed: &Observed) -> Template {
    let key = ("StatefulSet", names::workload(&set.name));
    let Some(workload) = observed.children.get(&key) else {
        return Template::Outdated;
    };
    let wanted = resources::pod::template(set).metadata.unwrap_or_default();
    let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
    let same = |key: &str| {
        let wanted = wanted.annotations.as_ref().and_then(|a| a.get(key));
        annotations[key].as_str() == wanted.map(String::as_str)
    };
    let generation = workload["metadata"]["generation"].as_i64();
    let is_seen = workload["status"]["observedGeneration"].as_i64() >= generation;
    let revisions = [
        names::TEMPLATE_REVISION_ANNOTATION,
        names::CONFIG_REVISION_ANNOTATION,
    ];
    if is_seen && revisions.into_iter().all(same) {
        Template::InForce
    } else {
        Template::Outdated
    }
}

/// What the rollout wants; a pod is taken away only when its successor will be as wanted.
fn rollout(members: &[MemberFacts], template: Template, tried: &[String]) -> order::Next {
    let members: Vec<order::Member> = members.iter().map(replaceable).collect();
    let next = order::next(&members, tried);
    match (template, next) {
        (Template::Outdated, order::Next::Replace { .. } | order::Next::SwitchOver { .. }) => {
            let why = "the StatefulSet does not make the wanted pods yet".to_owned();
            order::Next::Wait { why }
        }
        (Template::Outdated | Template::InForce, next) => next,
    }
}

fn replaceable(member: &MemberFacts) -> order::Member {
    order::Member {
        name: member.name.clone(),
        reasons: member.reasons.clone(),
        duty: member.duty,
        health: member.health,
    }
}

/// The next voters, once everybody who votes has recorded the present ones: two changes at once
/// could make two majorities that do not meet.
fn next_voters(
    recorded: &[String],
    generation: i64,
    members: &[MemberFacts],
    wanted: usize,
) -> Option<Vec<String>> {
    let known = |member: &&MemberFacts| {
        let voters = member.state.as_ref().and_then(|s| s.voters.as_ref());
        voters.and_then(|v| i64::try_from(v.generation).ok()) == Some(generation)
    };
    let recorded_by = members.iter().filter(|m| m.voter).filter(known).count();
    let has_master = members
        .iter()
        .any(|m| m.duty == Duty::Master && m.health == Health::InSync);
    if recorded.is_empty() || !has_master || recorded_by < replset::majority(recorded.len()) {
        return None;
    }
    let scalable: Vec<scaling::Member> = members.iter().map(scalable).collect();
    scaling::voters(recorded, &scalable, wanted)
}

fn resize(plan: &mut ChangePlan) -> Settled {
    match plan.scaling.clone() {
        scaling::Next::Keep => Settled::Yes,
        scaling::Next::Resize { to } => {
            plan.workload_members = u32::try_from(to).unwrap_or(plan.workload_members);
            Settled::No
        }
        scaling::Next::SwitchOver { from, to } => {
            let why = format!("{from} is beyond the wanted number of members");
            let step = Step::SwitchOver {
                order: Order { from, to },
                reason: FailoverReason::ScaleDown,
            };
            plan.steps.push(Planned { step, why });
            Settled::No
        }
        scaling::Next::Resign { .. } | scaling::Next::Wait { .. } => Settled::No,
    }
}

/// Whether the rollout would replace a pod that is not in sync while scaling waits: it may be the very member that is waited
/// for, and takes nobody away.
fn may_cure(plan: &ChangePlan, members: &[MemberFacts]) -> bool {
    let is_missing = |name: &str| {
        let mut members = members.iter();
        members.any(|m| m.name == name && m.health != Health::InSync)
    };
    match (&plan.scaling, &plan.rollout) {
        (scaling::Next::Wait { .. }, order::Next::Replace { member, .. }) => is_missing(member),
        (
            scaling::Next::Wait { .. }
            | scaling::Next::Keep
            | scaling::Next::Resize { .. }
            | scaling::Next::SwitchOver { .. }
            | scaling::Next::Resign { .. },
            _,
        ) => false,
    }
}

fn replace(plan: &mut ChangePlan, observed: &Observed) -> Settled {
    match plan.rollout.clone() {
        order::Next::Done => Settled::Yes,
        order::Next::Replace { member, reasons } => {
            plan.steps.extend(delete(observed, member, &reasons));
            Settled::No
        }
        order::Next::SwitchOver { from, to, reasons } => {
            let why = format!("{from} must be replaced: {}", words(&reasons));
            let step = Step::SwitchOver {
                order: Order { from, to },
                reason: FailoverReason::Rollout,
            };
            plan.steps.push(Planned { step, why });
            Settled::No
        }
        order::Next::Wait { .. } => Settled::No,
    }
}

/// The deletion of a member's pod, unless that is under way.
pub(super) fn delete(observed: &Observed, member: String, reasons: &[Reason]) -> Option<Planned> {
    let pod = observed.pods.get(&member)?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let uid = observed.pod_uid(&member)?;
    Some(Planned {
        step: Step::DeletePod { member, uid },
        why: words(reasons),
    })
}

fn words(reasons: &[Reason]) -> String {
    reasons
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
