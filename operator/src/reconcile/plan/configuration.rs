//! Directives of `redis.conf`: who is told them, which of them a new process may start with, and
//! which members must be started anew for them.
//!
//! The running members judge a change first: a directive that they do not accept would keep them
//! from starting, so it stays out of the ConfigMap until it is corrected. Without a running member
//! there is nobody to ask, and everything is written.

use std::collections::{BTreeMap, BTreeSet};

use control::proto;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};

use super::super::{
    observe::{ConfigAnswer, Cure, Observed},
    step::{Planned, Step},
};
use crate::{
    api::{names, v1alpha1::ConditionType},
    set::{Activity, ValidatedSet},
};

/// What becomes of the directives.
#[derive(Clone, Debug)]
pub struct ConfigPlan {
    /// The set with those directives only that servers start with.
    pub set: ValidatedSet,
    /// Whether members were asked about the directives.
    pub judged: Judged,
    /// Whether all of them have answered that can.
    pub heard: Heard,
    /// Members to be told.
    pub push: Vec<Planned>,
    /// Directives that no cure of ours helps, each with its field and why.
    pub refused: Vec<String>,
}

/// Whether running members have said what they think of the directives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judged {
    /// They have, or nobody runs, or nothing is new.
    Yes,
    /// Not yet: what is in force stays.
    NotYet,
}

/// Whether it is known of every member that can be asked what it makes of the directives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It is, or was when the set was found to be as specified.
    All,
    /// Not yet: one of them may have to be started anew. What is known is written for those that start.
    NotAll,
}

/// The plan for the directives of `set`.
#[must_use]
pub fn plan(set: &ValidatedSet, observed: &Observed) -> ConfigPlan {
    let wanted = u64::try_from(set.generation).unwrap_or_default();
    let states: BTreeMap<&String, &proto::State> = observed
        .view
        .members
        .iter()
        .filter_map(|(name, member)| member.current().map(|state| (name, state)))
        .collect();
    let answers: BTreeMap<&String, &ConfigAnswer> = states
        .iter()
        .filter_map(|(name, state)| {
            let answer = observed.config_answers.get(*name)?;
            let current = answer.boot == state.boot && answer.revision == wanted;
            current.then_some((*name, answer))
        })
        .collect();
    let stored = observed
        .children
        .get(&("ConfigMap", names::config_map(&set.name)))
        .and_then(|map| map["metadata"]["annotations"][names::CONFIG_REVISION_ANNOTATION].as_str());
    let news = stored.is_some_and(|stored| stored != set.config_revision());
    let judged = if news && !states.is_empty() && answers.is_empty() {
        Judged::NotYet
    } else {
        Judged::Yes
    };
    let heard = if answers.len() == states.len() || needs_no_answer(set, observed) {
        Heard::All
    } else {
        Heard::NotAll
    };
    let effective = effective(set, &answers);
    ConfigPlan {
        push: push(set, observed, &states, &answers, wanted),
        refused: refused(&effective, observed, &answers),
        set: effective,
        judged,
        heard,
    }
}

/// Answers are kept by the operator that asked: the next one asks again, and no set that was as specified is taken for less
/// until it has. While a set is paused nobody is asked.
fn needs_no_answer(set: &ValidatedSet, observed: &Observed) -> bool {
    let is_ready = |c: &Condition| {
        c.type_ == ConditionType::Ready.as_str()
            && c.status == "True"
            && c.observed_generation == Some(set.generation)
    };
    let mut conditions = observed.set.status.iter().flat_map(|s| &s.conditions);
    set.activity == Activity::Paused || conditions.any(is_ready)
}

/// The set without the directives that a member would not start with.
fn effective(set: &ValidatedSet, answers: &BTreeMap<&String, &ConfigAnswer>) -> ValidatedSet {
    let wrong: BTreeSet<&str> = answers
        .values()
        .flat_map(|answer| &answer.refused)
        .filter(|refusal| refusal.cure == Cure::Correction)
        .map(|refusal| refusal.name.as_str())
        .collect();
    let mut effective = set.clone();
    effective
        .config
        .retain(|name, _| !wrong.contains(name.as_str()));
    effective
}

/// Members that run with another configuration than the set's.
fn push(
    set: &ValidatedSet,
    observed: &Observed,
    states: &BTreeMap<&String, &proto::State>,
    answers: &BTreeMap<&String, &ConfigAnswer>,
    wanted: u64,
) -> Vec<Planned> {
    let directive = |(name, value): (&String, &String)| proto::Directive {
        name: name.clone(),
        value: value.clone(),
    };
    let request = proto::SetConfigRequest {
        revision: wanted,
        directives: set.config.iter().map(directive).collect(),
    };
    let untold = states
        .iter()
        .filter(|(name, state)| !answers.contains_key(*name) || state.config_revision != wanted);
    untold
        .map(|(name, state)| Planned {
            step: Step::PushConfig {
                member: (*name).clone(),
                boot: state.boot,
                pod_uid: observed.pod_uid(name).unwrap_or_default(),
                request: request.clone(),
            },
            why: format!(
                "{name} has configuration {}, the spec is at {wanted}",
                state.config_revision
            ),
        })
        .collect()
}

/// What is not in force and will not be by anything that the operator does.
fn refused(
    set: &ValidatedSet,
    observed: &Observed,
    answers: &BTreeMap<&String, &ConfigAnswer>,
) -> Vec<String> {
    let mut told: BTreeMap<String, &str> = BTreeMap::new();
    for (member, answer) in answers {
        let pod = observed.pods.get(*member);
        for refusal in &answer.refused {
            let hopeless = match refusal.cure {
                Cure::Correction => true,
                Cure::Restart => pod.is_some_and(|pod| started_with(pod, set)),
            };
            if hopeless {
                told.insert(
                    format!("spec.config.{}", refusal.name),
                    refusal.message.as_str(),
                );
            }
        }
    }
    told.into_iter()
        .map(|(field, message)| format!("{field}: {message}"))
        .collect()
}

/// Directives for which `member` must be started anew: it reads them at start only, and it was
/// started with others. A member that was started with these and still refuses them would refuse
/// them for ever.
#[must_use]
pub fn restart_for(set: &ValidatedSet, observed: &Observed, member: &str) -> Vec<String> {
    let (Some(answer), Some(pod)) = (
        observed.config_answers.get(member),
        observed.pods.get(member),
    ) else {
        return Vec::new();
    };
    let current = i64::try_from(answer.revision) == Ok(set.generation)
        && pod.metadata.uid.as_deref() == Some(answer.pod_uid.as_str());
    if !current || started_with(pod, set) {
        return Vec::new();
    }
    let waiting = answer.refused.iter().filter(|r| r.cure == Cure::Restart);
    waiting.map(|r| r.name.clone()).collect()
}

/// Whether a pod was made when the directives were what they are now.
#[must_use]
pub fn started_with(pod: &Pod, set: &ValidatedSet) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let made_with = annotations.and_then(|a| a.get(names::CONFIG_REVISION_ANNOTATION));
    made_with.map(String::as_str) == Some(set.config_revision().as_str())
}

/// Whether a pod says what it was made with, and that is something else.
#[must_use]
pub fn started_with_other(pod: &Pod, set: &ValidatedSet) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let says = annotations.is_some_and(|a| a.contains_key(names::CONFIG_REVISION_ANNOTATION));
    says && !started_with(pod, set)
}
