//! Where members are, and the move of one of them for a better spread.
//!
//! Called by `change` when nothing more urgent is to be done. Invariants: a pod is deleted at most once
//! for the same nodes, whoever is the acting operator, because the nodes are in the status before the
//! pod is gone; the record goes when the members are spread as asked. Not done here: which nodes count,
//! what is a violation and who moves; that is `placement`'s.

use std::collections::BTreeSet;

use super::{
    super::{
        observe::Observed,
        step::{Planned, Step},
    },
    change::delete,
    members::MemberFacts,
    trouble::unschedulable,
};
use crate::{
    api::v1alpha1::{FailoverReason, MAX_RELOCATION_NODES, RelocationStatus},
    failover::switchover::Order,
    placement::{
        eligible::Demands,
        score::{self, Movable, Move, Volume, next_move},
        spread::{Candidate, Located, Violation, assess},
    },
    rollout::{
        order::{Duty, Health},
        reason::Reason,
    },
    set::{Storage, ValidatedSet},
};

/// What is wrong with the places of the members.
#[must_use]
pub fn violations(
    set: &ValidatedSet,
    observed: &Observed,
    members: &[MemberFacts],
) -> Vec<Violation> {
    let places: Vec<Located> = members.iter().map(|m| located(observed, &m.name)).collect();
    let misplaced = assess(&set.spread, &places, &candidates(set, observed));
    // A pod that is missing, or that nobody has looked at yet, says nothing about places.
    let unplaced = |m: &&MemberFacts| {
        let pod = observed.pods.get(&m.name);
        pod.is_some_and(|pod| unschedulable(pod).is_some())
    };
    let unplaced = members.iter().filter(unplaced);
    let unplaced = unplaced.map(|m| Violation::Unplaced {
        member: m.name.clone(),
    });
    unplaced.chain(misplaced).collect()
}

/// The nodes that take members of the set, now or in better times.
fn candidates(set: &ValidatedSet, observed: &Observed) -> Vec<Candidate> {
    let demands = Demands {
        node_selector: &set.pod.node_selector,
        affinity: set.pod.affinity.as_ref(),
        tolerations: &set.pod.tolerations,
    };
    let nodes = observed.nodes.values();
    nodes.filter_map(|node| demands.candidate(node)).collect()
}

fn located(observed: &Observed, member: &str) -> Located {
    let labels = observed
        .node_of(member)
        .map(|n| n.metadata.labels.clone().unwrap_or_default());
    Located {
        member: member.to_owned(),
        labels,
    }
}

/// The move of one member to a domain with room, when everybody is in sync and the scheduler has not
/// passed that domain over before: it may know a reason against it.
#[must_use]
pub fn steps(
    set: &ValidatedSet,
    observed: &Observed,
    members: &[MemberFacts],
    violations: &[Violation],
) -> Vec<Planned> {
    if members.iter().any(|m| m.health != Health::InSync) {
        return Vec::new();
    }
    let record = observed
        .set
        .status
        .as_ref()
        .and_then(|s| s.relocation.as_ref());
    let located = members.iter().all(|m| observed.node_of(&m.name).is_some());
    if record.is_some() && located && !violations.iter().any(concerns_moves) {
        let step = Step::RecordRelocation(None);
        let why = "the members are spread as asked".to_owned();
        return vec![Planned { step, why }];
    }
    if record.is_some_and(|r| r.nodes.len() >= MAX_RELOCATION_NODES) {
        return Vec::new();
    }
    let movable: Vec<Movable> = members.iter().map(|m| movable(set, observed, m)).collect();
    let nodes = candidates(set, observed);
    let passed_over = passed_over(record, observed);
    next_move(&set.spread, &movable, &nodes, &passed_over)
        .map(|next| move_member(observed, members, &next, &passed_over))
        .unwrap_or_default()
}

/// Whether a violation is or hides what a move may cure.
fn concerns_moves(violation: &Violation) -> bool {
    match violation {
        Violation::Crowded { .. } | Violation::Unplaced { .. } => true,
        Violation::Unlabelled { .. } => false,
    }
}

/// Nodes with room that a pod was deleted for in vain. A record that names a pod which still exists
/// is of a deletion that did not happen.
fn passed_over(record: Option<&RelocationStatus>, observed: &Observed) -> BTreeSet<String> {
    let exists = |uid: &String| {
        observed
            .pods
            .values()
            .any(|p| p.metadata.uid.as_ref() == Some(uid))
    };
    let nodes = record.filter(|r| !exists(&r.pod_uid)).map(|r| &r.nodes);
    // A node that is gone is forgotten, so that the record does not grow with the age of the cluster.
    let known = |node: &&String| observed.nodes.contains_key(*node);
    nodes.into_iter().flatten().filter(known).cloned().collect()
}

/// The switchover before a move, or the record of the move and the deletion, in that order: after a
/// change of the acting operator nobody repeats a move that helped nothing.
fn move_member(
    observed: &Observed,
    members: &[MemberFacts],
    next: &Move,
    passed_over: &BTreeSet<String>,
) -> Vec<Planned> {
    let Move {
        member,
        topology_key,
        from,
        to,
        offers,
    } = next;
    let is_master = |m: &MemberFacts| m.name == *member && m.duty == Duty::Master;
    if members.iter().any(is_master) {
        let tried = |m: &&MemberFacts| observed.switchovers.tried.iter().position(|t| *t == m.name);
        let replicas = members.iter().filter(|m| m.duty == Duty::Replica);
        let target = replicas.min_by_key(tried);
        let switch_over = target.map(|target| Planned {
            step: Step::SwitchOver {
                order: Order {
                    from: member.clone(),
                    to: target.name.clone(),
                },
                reason: FailoverReason::Placement,
            },
            why: format!("{member} must move from {topology_key}={from} to {to}"),
        });
        return switch_over.into_iter().collect();
    }
    let sentence = format!("{topology_key}={from} has too many members and {to} has room");
    let Some(deletion) = delete(observed, member.clone(), &[Reason::Relocation { sentence }])
    else {
        return Vec::new();
    };
    let mut nodes: BTreeSet<String> = passed_over.clone();
    nodes.extend(offers.iter().cloned());
    let record = RelocationStatus {
        pod_uid: observed.pod_uid(member).unwrap_or_default(),
        nodes: nodes.into_iter().take(MAX_RELOCATION_NODES).collect(),
    };
    let record = Planned {
        step: Step::RecordRelocation(Some(record)),
        why: deletion.why.clone(),
    };
    vec![record, deletion]
}

fn movable(set: &ValidatedSet, observed: &Observed, member: &MemberFacts) -> Movable {
    Movable {
        place: located(observed, &member.name),
        volume: volume(set, observed, &member.name),
        duty: match member.duty {
            Duty::Master => score::Duty::Master,
            Duty::Replica => score::Duty::Replica,
        },
    }
}

/// Whether a member's data can follow it. A volume that is not known counts as bound.
fn volume(set: &ValidatedSet, observed: &Observed, member: &str) -> Volume {
    match set.storage {
        Storage::Ephemeral { .. } => return Volume::Follows,
        Storage::Persistent { .. } => {}
    }
    let spec = observed.volumes.get(member).and_then(|v| v.spec.as_ref());
    match spec {
        Some(spec) if spec.node_affinity.is_none() => Volume::Follows,
        Some(_) | None => Volume::Bound,
    }
}
