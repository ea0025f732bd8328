//! What a reconcile found, as conditions. Pure.

use std::cmp::Ordering;

use super::conditions::{Finding, Truth};
use crate::{
    api::v1alpha1::{ConditionType, Reason},
    failover::health::Verdict,
    guard::view::{Stuck, View},
    placement::spread::Violation,
    reconcile::{
        plan::{
            Plan,
            configuration::{Heard, Judged},
            members::MemberFacts,
        },
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
    /// The API server refuses a child as the spec makes it: the user must act.
    Refused(String),
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
    let available = available(view, set.activity, &troubles);
    let stalled = stalled(set, view, plan, failure);
    let remaining = remaining(plan, &available, failure);
    let remaining = remaining.as_ref();
    let going = match failure {
        Some(Failure::NameTaken(_) | Failure::Refused(_)) => Going::Nowhere,
        Some(Failure::Passing(_)) | None => Going::On,
    };
    let refused = stalled
        .as_ref()
        .filter(|found| found.reason == Reason::DirectiveRefused);
    let mut found = vec![
        ready(&available, refused, set.activity, remaining),
        available,
        progress(set.activity, going, remaining),
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
pub fn invalid(error: &InvalidSpec, activity: Activity, view: &View) -> Vec<Finding> {
    let message = error.to_string();
    let refused = [
        (ConditionType::Ready, Truth::False),
        (ConditionType::Progressing, Truth::False),
        (ConditionType::Stalled, Truth::True),
    ]
    .map(|(kind, truth)| Finding::new(kind, truth, Reason::InvalidSpec, &message));
    let available = available(view, activity, "");
    refused.into_iter().chain([available]).collect()
}

/// `troubles` of members, in words, follow the reason.
fn available(view: &View, activity: Activity, troubles: &str) -> Finding {
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
    let kept = match activity {
        Activity::Active => "",
        Activity::Paused => ", and spec.paused keeps the operator from choosing another",
    };
    let why = format!("{why}{kept}{troubles}");
    let why = why.as_str();
    match &view.verdict {
        None => Finding::new(
            kind,
            Truth::Unknown,
            Reason::Unknown,
            "no member was asked yet",
        ),
        Some(
            Verdict::NeverHadOne
            | Verdict::Serving { .. }
            | Verdict::Released(_)
            | Verdict::Gone(_)
            | Verdict::Missed(_),
        ) if activity == Activity::Paused => {
            Finding::new(kind, Truth::False, Reason::PausedByUser, why)
        }
        Some(Verdict::NeverHadOne) => Finding::new(kind, Truth::False, Reason::Bootstrapping, why),
        Some(Verdict::Unsure { .. }) => Finding::new(kind, Truth::Unknown, Reason::NoMaster, why),
        Some(
            Verdict::Serving { .. } | Verdict::Released(_) | Verdict::Gone(_) | Verdict::Missed(_),
        ) => Finding::new(kind, Truth::False, Reason::FailingOver, why),
    }
}

/// What there is still to do before the set is what the spec asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Remaining {
    reason: Reason,
    message: String,
}

fn remaining(plan: &Plan, available: &Finding, failure: Option<&Failure>) -> Option<Remaining> {
    let left = |reason, message: &str| {
        let message = message.to_owned();
        Some(Remaining { reason, message })
    };
    if let Some(Failure::NameTaken(why) | Failure::Refused(why) | Failure::Passing(why)) = failure {
        return left(Reason::ApplyFailed, why);
    }
    if available.reason == Reason::Bootstrapping {
        return left(Reason::Bootstrapping, &available.message);
    }
    match &plan.scaling {
        Scaling::Keep => {}
        Scaling::Resize { to } => return left(Reason::Scaling, &format!("to {to} members")),
        Scaling::SwitchOver { from, to } => {
            return left(Reason::Scaling, &format!("{from} hands over to {to} first"));
        }
        Scaling::Resign { member } => {
            return left(
                Reason::Scaling,
                &format!("{member} gives up its vote first"),
            );
        }
        Scaling::Wait { why } => return left(Reason::Scaling, &with_trouble(plan, why)),
    }
    match &plan.rollout {
        Rollout::Done => {}
        Rollout::Replace { member, reasons } => {
            let why = reasons.first().map(ToString::to_string).unwrap_or_default();
            return left(
                Reason::RollingOut,
                &format!("{member} is being replaced: {why}"),
            );
        }
        Rollout::SwitchOver { from, to, .. } => {
            return left(Reason::RollingOut, &format!("{from} hands over to {to}"));
        }
        Rollout::Wait { why } => return left(Reason::RollingOut, &with_trouble(plan, why)),
    }
    if plan.config.judged == Judged::NotYet || plan.config.heard == Heard::NotAll {
        return left(
            Reason::ApplyingConfig,
            "members are being told the directives of spec.config",
        );
    }
    let member = plan.members.iter().find(|m| m.health != Health::InSync)?;
    left(Reason::MembersNotReady, &not_in_sync(member))
}

/// What is waited for, and what Kubernetes or the member says of whoever is in trouble: that may be why.
fn with_trouble(plan: &Plan, why: &str) -> String {
    let mut missing = plan.members.iter().filter(|m| m.health != Health::InSync);
    match missing.find(|m| m.trouble.is_some()) {
        Some(member) => format!("{why}; {}", not_in_sync(member)),
        None => why.to_owned(),
    }
}

/// Whether the next attempt may bring a set further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Going {
    /// It may.
    On,
    /// Somebody has to change something first.
    Nowhere,
}

/// Whether the set is on its way to what the spec asks for; `False` means that it is there, or that
/// it is not going anywhere.
fn progress(activity: Activity, going: Going, remaining: Option<&Remaining>) -> Finding {
    let kind = ConditionType::Progressing;
    match (activity, remaining) {
        (Activity::Paused, _) => {
            let message = "spec.paused is set";
            Finding::new(kind, Truth::False, Reason::PausedByUser, message)
        }
        (Activity::Active, Some(Remaining { reason, message })) => {
            let truth = match going {
                Going::On => Truth::True,
                Going::Nowhere => Truth::False,
            };
            Finding::new(kind, truth, *reason, message)
        }
        (Activity::Active, None) => {
            Finding::new(kind, Truth::False, Reason::AsSpecified, "as the spec asks")
        }
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

fn ready(
    available: &Finding,
    refused: Option<&Finding>,
    activity: Activity,
    remaining: Option<&Remaining>,
) -> Finding {
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
    let Some(Remaining { reason, message }) = remaining else {
        let message = "all members are in sync";
        return Finding::new(kind, Truth::True, Reason::AsSpecified, message);
    };
    match activity {
        Activity::Active => Finding::new(kind, Truth::False, *reason, message),
        Activity::Paused => {
            let message = format!("spec.paused is set, and not all is done: {message}");
            Finding::new(kind, Truth::False, Reason::PausedByUser, &message)
        }
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
    if let Some(Failure::Refused(why)) = failure {
        return Some(Finding::new(kind, Truth::True, Reason::ApplyFailed, why));
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
    fn a_pause_is_no_excuse_for_what_is_not_done() {
        use Activity::{Active, Paused};
        let serves = Finding::new(
            ConditionType::Available,
            Truth::True,
            Reason::MasterServing,
            "m-0 serves",
        );
        let left = Remaining {
            reason: Reason::Scaling,
            message: "to 3 members".to_owned(),
        };
        let paused = "spec.paused is set, and not all is done: to 3 members";
        let cases = [
            (Active, None, Truth::True, Reason::AsSpecified, Truth::False),
            (Paused, None, Truth::True, Reason::AsSpecified, Truth::False),
            (
                Active,
                Some(&left),
                Truth::False,
                Reason::Scaling,
                Truth::True,
            ),
            (
                Paused,
                Some(&left),
                Truth::False,
                Reason::PausedByUser,
                Truth::False,
            ),
        ];
        for (activity, left, truth, reason, going) in cases {
            let ready = ready(&serves, None, activity, left);
            assert_eq!((ready.truth, ready.reason), (truth, reason));
            assert_eq!(ready.message == paused, reason == Reason::PausedByUser);
            assert_eq!(progress(activity, Going::On, left).truth, going);
            let stuck = progress(activity, Going::Nowhere, left);
            assert_eq!(stuck.truth, Truth::False);
        }
    }

    #[test]
    fn a_paused_set_without_a_master_is_not_failing_over() {
        let view = |verdict| View {
            verdict: Some(verdict),
            ..View::default()
        };
        let serving = Verdict::Serving {
            master: "m-0".into(),
            term: replset::Term(1),
        };
        for (verdict, otherwise) in [
            (serving, Reason::FailingOver),
            (Verdict::NeverHadOne, Reason::Bootstrapping),
        ] {
            let view = view(verdict);
            let found = available(&view, Activity::Paused, "; m-0: it crashed");
            assert_eq!(
                (found.truth, found.reason),
                (Truth::False, Reason::PausedByUser)
            );
            assert_eq!(
                found.message,
                "no member says that it serves as master, and spec.paused keeps the operator from choosing another; \
                 m-0: it crashed"
            );
            assert_eq!(available(&view, Activity::Active, "").reason, otherwise);
        }
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
