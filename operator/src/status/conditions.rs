//! Merging conditions: transition times, observed generation, fixed order.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::length::cut;
use crate::api::v1alpha1::{ConditionType, MAX_MESSAGE_CHARS, Reason};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

impl Truth {
    /// The word in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a reconcile found out about one condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Which condition.
    pub kind: ConditionType,
    /// Whether it holds.
    pub truth: Truth,
    /// Why, as a word.
    pub reason: Reason,
    /// Why, as a sentence.
    pub message: String,
}

impl Finding {
    /// A finding from its parts.
    #[must_use]
    pub fn new(kind: ConditionType, truth: Truth, reason: Reason, message: &str) -> Self {
        Self {
            kind,
            truth,
            reason,
            message: message.to_owned(),
        }
    }
}

/// The conditions to write: the findings in order of [`ConditionType::ALL`], each with the time of
/// its last change of truth, which is `now` only if the truth changed. Conditions that nothing was
/// found about are dropped: kstatus takes an absent `Stalled` as false.
#[must_use]
pub fn merge(
    before: &[Condition],
    findings: &[Finding],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    ConditionType::ALL
        .iter()
        .filter_map(|kind| findings.iter().find(|f| f.kind == *kind))
        .map(|finding| {
            let old = before
                .iter()
                .find(|c| c.type_ == finding.kind.as_str() && c.status == finding.truth.as_str());
            Condition {
                type_: finding.kind.as_str().to_owned(),
                status: finding.truth.as_str().to_owned(),
                reason: finding.reason.as_str().to_owned(),
                message: cut(&finding.message, MAX_MESSAGE_CHARS),
                observed_generation: generation,
                last_transition_time: old.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_moves_only_with_the_truth() {
        let ready = |truth| {
            vec![Finding::new(
                ConditionType::Ready,
                truth,
                Reason::AsSpecified,
                "m",
            )]
        };
        let first = merge(&[], &ready(Truth::False), Some(1), at(1));
        let second = merge(&first, &ready(Truth::False), Some(2), at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = merge(&second, &ready(Truth::True), Some(2), at(3));
        assert_eq!(third[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn the_order_is_fixed_and_what_was_not_found_is_absent() {
        let findings = [
            Finding::new(ConditionType::Paused, Truth::False, Reason::NotPaused, ""),
            Finding::new(ConditionType::Ready, Truth::Unknown, Reason::Unknown, ""),
        ];
        let merged = merge(&[], &findings, None, at(1));
        let kinds: Vec<&str> = merged.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(kinds, ["Ready", "Paused"]);
    }
}
