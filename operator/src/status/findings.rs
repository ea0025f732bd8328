//! What a reconcile found, as conditions. Pure.

use std::cmp::Ordering;

use super::conditions::{Finding, Truth};
use crate::{
    api::v1alpha1::{ConditionType, Reason},
    failover::health::Verdict,
    guard::view::{Stuck, View},
    placement::spread::Violation,
    reconcile::{
        plan::{Plan, configuration::Judged, members::MemberFacts},
        validate::InvalidSpec,
    },
    rollout::order::{Health, Next as Rollout},
    scaling::Next as Scaling,
    set::{Activity, ValidatedSet},
};

/// Why a reconcile did not reach its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// A name is taken: the user must act.
    NameTaken(String),
    /// Something that is tried again.
    Passing(String),
}

/// The findings about a set whose spec can be followed.
#[must_use]
pub fn findings(
    set: &ValidatedSet,
    view: &View,
    plan: &Plan,
    failure: Option<&Failure>,
) -> Vec<Finding> {
    let trouble = |m: &MemberFacts| m.trouble.as_ref().map(|t| format!("; {}: {t}", m.name));
    let troubles: String = plan.members.iter().filter_map(trouble).collect();
    let available = available(view, &troubles);
    let stalled = stalled(set, view, plan, failure);
    let progress = progress(set, plan, &available, failure);
    let refused = stalled
        .as_ref()
        .filter(|found| found.reason == Reason::DirectiveRefused);
    let mut found = vec![
        ready(&available, &progress, refused),
        available,
        progress,
        quorum(&plan.voters, &plan.members),
        placement(plan),
        secrets(plan),
        paused(set),
    ];
    found.extend(stalled);
    found
}

/// The findings about a set whose spec cannot be followed: what runs goes on running, and is guarded.
#[must_use]
pub fn invalid(error: &InvalidSpec, view: &View) -> Vec<Finding> {
    let message = error.to_string();
    let refused = [
        (ConditionType::Ready, Truth::False),
        (ConditionType::Progressing, Truth::False),
        (ConditionType::Stalled, Truth::True),
    ]
    .map(|(kind, truth)| Finding::new(kind, truth, Reason::InvalidSpec, &message));
    refused.into_iter().chain([available(view, "")]).collect()
}

/// `troubles` of members, in words, follow the reason.
fn available(view: &View, troubles: &str) -> Finding {
    let kind = ConditionType::Available;
    if let Some(Verdict::Serving { master, .. }) = &view.verdict
        && let Some(member) = view.members.get(master)
        && member.current().is_some_and(|state| state.serving)
    {
        let message = format!("{master} serves");
        return Finding::new(kind, Truth::True, Reason::MasterServing, &message);
    }
    let why = match &view.stuck {
        Some(Stuck::Waiting(why) | Stuck::DataLost(why)) => why.as_str(),
        None => "no member says that it serves as master",
    };
    let why = format!("{why}{troubles}");
    let why = why.as_str();
    match &view.verdict {
        None => Finding::new(
            kind,
            Truth::Unknown,
            Reason::Unknown,
            "no member was asked yet",
        ),
        Some(Verdict::NeverHadOne) => Finding::new(kind, Truth::False, Reason::Bootstrapping, why),
        Some(Verdict::Unsure { .. }) => Finding::new(kind, Truth::Unknown, Reason::NoMaster, why),
        Some(
            Verdict::Serving { .. } | Verdict::Released(_) | Verdict::Gone(_) | Verdict::Missed(_),
        ) => Finding::new(kind, Truth::False, Reason::FailingOver, why),
    }
}

/// Whether the set is on its way to what the spec asks for; `False` means that it is there.
fn progress(
    set: &ValidatedSet,
    plan: &Plan,
    available: &Finding,
    failure: Option<&Failure>,
) -> Finding {
    let kind = ConditionType::Progressing;
    let going = |reason, message: &str| Finding::new(kind, Truth::True, reason, message);
    if let Some(Failure::NameTaken(why) | Failure::Passing(why)) = failure {
        return going(Reason::ApplyFailed, why);
    }
    if set.activity == Activity::Paused {
        return Finding::new(
            kind,
            Truth::False,
            Reason::PausedByUser,
            "spec.paused is set",
        );
    }
    if available.reason == Reason::Bootstrapping {
        return going(Reason::Bootstrapping, &available.message);
    }
    match &plan.scaling {
        Scaling::Keep => {}
        Scaling::Resize { to } => return going(Reason::Scaling, &format!("to {to} members")),
        Scaling::SwitchOver { from, to } => {
            return going(Reason::Scaling, &format!("{from} hands over to {to} first"));
        }
        Scaling::Resign { member } => {
            return going(
                Reason::Scaling,
                &format!("{member} gives up its vote first"),
            );
        }
        Scaling::Wait { why } => return going(Reason::Scaling, why),
    }
    match &plan.rollout {
        Rollout::Done => {}
        Rollout::Replace { member, reasons } => {
            let why = reasons.first().map(ToString::to_string).unwrap_or_default();
            return going(
                Reason::RollingOut,
                &format!("{member} is being replaced: {why}"),
            );
        }
        Rollout::SwitchOver { from, to, .. } => {
            return going(Reason::RollingOut, &format!("{from} hands over to {to}"));
        }
        Rollout::Wait { why } => return going(Reason::RollingOut, why),
    }
    if plan.config.judged == Judged::NotYet {
        return going(
            Reason::ApplyingConfig,
            "members are being told the directives of spec.config",
        );
    }
    match plan.members.iter().find(|m| m.health != Health::InSync) {
        Some(member) => going(Reason::MembersNotReady, &not_in_sync(member)),
        None => Finding::new(kind, Truth::False, Reason::AsSpecified, "as the spec asks"),
    }
}

fn not_in_sync(member: &MemberFacts) -> String {
    let name = &member.name;
    match (&member.trouble, member.health) {
        (Some(trouble), _) => format!("{name}: {trouble}"),
        (None, Health::Replacing) => format!("the pod of {name} is being made"),
        (None, Health::Behind) => format!("{name} is catching up"),
        (None, Health::Unknown) => format!("{name} cannot be asked"),
        (None, Health::CannotStart) => format!("{name} cannot start"),
        (None, Health::InSync) => format!("{name} is in sync"),
    }
}

fn ready(available: &Finding, progress: &Finding, refused: Option<&Finding>) -> Finding {
    let kind = ConditionType::Ready;
    if available.truth != Truth::True {
        return Finding {
            kind,
            ..available.clone()
        };
    }
    if let Some(refused) = refused {
        return Finding::new(kind, Truth::False, refused.reason, &refused.message);
    }
    match progress.truth {
        Truth::False => Finding::new(
            kind,
            Truth::True,
            Reason::AsSpecified,
            "all members are in sync",
        ),
        Truth::True | Truth::Unknown => Finding {
            kind,
            truth: Truth::False,
            ..progress.clone()
        },
    }
}

/// Counts those whose word counts when a master is chosen, which while the set grows or shrinks are not
/// those that the spec asks for.
fn quorum(voters: &[String], members: &[MemberFacts]) -> Finding {
    let kind = ConditionType::QuorumHealthy;
    let in_sync = |name: &&String| {
        let mut members = members.iter();
        members.any(|m| m.name == **name && m.health == Health::InSync)
    };
    let (there, missing): (Vec<&String>, Vec<&String>) = voters.iter().partition(in_sync);
    let message = format!("{} of {} voters are in sync", there.len(), voters.len());
    let named = if missing.is_empty() {
        message
    } else {
        let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
        format!("{message}; missing: {}", missing.join(", "))
    };
    if voters.len() < replset::LEASE_MIN_VOTERS {
        return Finding::new(kind, Truth::False, Reason::TooFewForMajority, &named);
    }
    match there.len().cmp(&replset::majority(voters.len())) {
        Ordering::Greater => Finding::new(kind, Truth::True, Reason::MajorityPresent, &named),
        Ordering::Equal => Finding::new(kind, Truth::False, Reason::MembersNotReady, &named),
        Ordering::Less => Finding::new(kind, Truth::False, Reason::MajorityMissing, &named),
    }
}

fn placement(plan: &Plan) -> Finding {
    let kind = ConditionType::PlacementSatisfied;
    let unplaced = |v: &Violation| match v {
        Violation::Unplaced { .. } => true,
        Violation::Crowded { .. } | Violation::Unlabelled { .. } => false,
    };
    let mut sentences: Vec<String> = plan.violations.iter().map(Violation::sentence).collect();
    let pending = plan
        .members
        .iter()
        .filter_map(|m| m.trouble.as_ref().map(|t| format!("{}: {t}", m.name)));
    let reason = if plan.violations.iter().any(unplaced) {
        sentences.extend(pending);
        Reason::Unschedulable
    } else {
        Reason::DomainsShared
    };
    if sentences.is_empty() {
        return Finding::new(
            kind,
            Truth::True,
            Reason::Spread,
            "members are spread as asked",
        );
    }
    Finding::new(kind, Truth::False, reason, &sentences.join("; "))
}

fn secrets(plan: &Plan) -> Finding {
    let kind = ConditionType::SecretsCurrent;
    if let Some(problem) = &plan.secrets.problem {
        let missing = problem.contains("does not exist");
        let reason = if missing {
            Reason::SecretMissing
        } else {
            Reason::SecretInvalid
        };
        return Finding::new(kind, Truth::False, reason, problem);
    }
    if plan.secrets.waiting.is_empty() {
        return Finding::new(
            kind,
            Truth::True,
            Reason::Current,
            "no rotation is going on",
        );
    }
    Finding::new(
        kind,
        Truth::False,
        Reason::Rotating,
        &plan.secrets.waiting.join("; "),
    )
}

fn paused(set: &ValidatedSet) -> Finding {
    let kind = ConditionType::Paused;
    match set.activity {
        Activity::Paused => {
            let message = "nothing is done for this set, failover included";
            Finding::new(kind, Truth::True, Reason::PausedByUser, message)
        }
        Activity::Active => Finding::new(kind, Truth::False, Reason::NotPaused, ""),
    }
}

fn stalled(
    set: &ValidatedSet,
    view: &View,
    plan: &Plan,
    failure: Option<&Failure>,
) -> Option<Finding> {
    let kind = ConditionType::Stalled;
    if let Some(Stuck::DataLost(why)) = &view.stuck {
        return Some(Finding::new(kind, Truth::True, Reason::AllDataLost, why));
    }
    if let Some(Failure::NameTaken(why)) = failure {
        return Some(Finding::new(kind, Truth::True, Reason::NameTaken, why));
    }
    let problem = plan.secrets.problem.as_ref();
    if let Some(problem) = problem.filter(|_| !plan.secrets.ready) {
        return Some(Finding::new(
            kind,
            Truth::True,
            Reason::SecretMissing,
            problem,
        ));
    }
    if let Some(mistake) = &set.auth.request_mistake {
        return Some(Finding::new(
            kind,
            Truth::True,
            Reason::InvalidSpec,
            mistake,
        ));
    }
    // While members are being replaced, a newer server may accept what an older one refuses.
    if plan.config.refused.is_empty() || plan.rollout != Rollout::Done {
        return None;
    }
    let message = format!(
        "not in force: {}; correct or remove it",
        plan.config.refused.join("; ")
    );
    Some(Finding::new(
        kind,
        Truth::True,
        Reason::DirectiveRefused,
        &message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::order::Duty;

    /// Members of which those in `lagging` are not in sync.
    fn members(count: usize, lagging: &[usize]) -> Vec<MemberFacts> {
        let member = |ordinal| MemberFacts {
            name: format!("m-{ordinal}"),
            state: None,
            duty: Duty::Replica,
            health: if lagging.contains(&ordinal) {
                Health::Behind
            } else {
                Health::InSync
            },
            reasons: Vec::new(),
            trouble: None,
            ready: true,
            voter: true,
        };
        (0..count).map(member).collect()
    }

    fn voters(count: usize) -> Vec<String> {
        (0..count).map(|ordinal| format!("m-{ordinal}")).collect()
    }

    #[test]
    fn a_quorum_is_of_voters_whatever_the_spec_asks_for() {
        use Reason::{MajorityMissing, MajorityPresent, MembersNotReady, TooFewForMajority};
        let cases = [
            // From three to five: the new members have no vote yet.
            (
                voters(3),
                members(5, &[3, 4]),
                MajorityPresent,
                "3 of 3 voters are in sync",
            ),
            // From five to three: all five vote still.
            (
                voters(5),
                members(5, &[3, 4]),
                MembersNotReady,
                "3 of 5 voters are in sync; missing: m-3, m-4",
            ),
            (
                voters(3),
                members(3, &[0, 2]),
                MajorityMissing,
                "1 of 3 voters are in sync; missing: m-0, m-2",
            ),
            // A voter that is no member is missing.
            (
                voters(5),
                members(3, &[]),
                MembersNotReady,
                "3 of 5 voters are in sync; missing: m-3, m-4",
            ),
            (
                voters(1),
                members(3, &[]),
                TooFewForMajority,
                "1 of 1 voters are in sync",
            ),
        ];
        for (voters, members, reason, message) in cases {
            let found = quorum(&voters, &members);
            assert_eq!((found.reason, found.message.as_str()), (reason, message));
            let healthy = reason == MajorityPresent;
            assert_eq!(found.truth == Truth::True, healthy);
        }
    }
}
