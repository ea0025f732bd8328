//! The spine: observe → validate → plan → apply → report.
//!
//! Called by `controller` for one set at a time, only in the acting operator. Each step is a module
//! of its own; `plan` and everything it asks are pure.
//!
//! Reading order: this file, `observe`, `validate`, `plan`, `step`, `draft`, `apply`, `report`, `error`.

pub mod apply;
pub mod diff;
pub mod draft;
pub mod error;
pub mod observe;
pub mod plan;
pub mod report;
pub mod step;
pub mod validate;

use std::time::Duration;

use tracing::debug;

use crate::{
    context::SetKey,
    controller::Operator,
    guard::term::TermError,
    status::findings::{Failure, findings, invalid},
};
use error::Error;
use observe::Observed;
use plan::Passwords;
use report::{Outcome, report};
use validate::InvalidSpec;

/// How soon a set is looked at again although nothing happened, to find what no watch told.
pub const RESYNC: Duration = Duration::from_secs(300);
/// How soon a set is looked at again whose plan was made from what was of the past.
const OVERTAKEN_RESYNC: Duration = Duration::from_millis(200);

/// One reconcile. Returns when to look again although nothing happened.
///
/// # Errors
/// The first step that failed; it was reported already.
pub async fn reconcile(operator: &Operator, key: &SetKey) -> Result<Duration, Error> {
    let context = &operator.context;
    let Some(set) = context
        .set(key)
        .filter(|s| s.metadata.deletion_timestamp.is_none())
    else {
        return Ok(RESYNC);
    };
    let (view, notes) = (operator.guards.view(key), operator.notes_of(key));
    let observed = observe::observe(context, key, set, view, notes).await;
    operator.notes(key, |notes| {
        notes.waits.clone_from(&observed.waits);
        if let Some(remembered) = observed.remembered() {
            notes.credentials = Some(remembered);
        }
    });
    let defaults = &context.settings.defaults;
    let set = match validate::validate(&observed.set, &observed.references, defaults) {
        Ok(set) => set,
        Err(error) => return with_mistakes(operator, key, &observed, &error).await,
    };
    let plan = plan::plan(&set, &observed);
    let applied = apply::apply(operator, key, &set, &observed, &plan.steps).await;
    let (failure, resync) = ended(key, applied.failure, plan.wake_after)?;
    let told = failure.as_ref().map(told);
    let findings = findings(&set, &observed.view, &plan, told.as_ref());
    let outcome = Outcome {
        observed: &observed,
        plan: Some(&plan),
        findings,
        done: applied.done,
        failure: failure.as_ref(),
    };
    report(context, key, &outcome).await?;
    failure.map_or(Ok(resync), Err)
}

/// A failure in the words of the status.
fn told(error: &Error) -> Failure {
    match error {
        Error::NameTaken { .. } => Failure::NameTaken(error.to_string()),
        Error::Api { .. } if error.is_refusal() => {
            Failure::Refused(format!("{error}; correct in the spec what it names"))
        }
        Error::Api { .. }
        | Error::Timeout { .. }
        | Error::NameNotFree { .. }
        | Error::Member { .. }
        | Error::Disconnected { .. }
        | Error::Decision(_)
        | Error::SwitchOver(_)
        | Error::NotActing => Failure::Passing(error.to_string()),
    }
}

/// A set whose spec cannot be followed: what runs goes on running with passwords that clients can read.
async fn with_mistakes(
    operator: &Operator,
    key: &SetKey,
    observed: &Observed,
    mistakes: &InvalidSpec,
) -> Result<Duration, Error> {
    let context = &operator.context;
    let defaults = &context.settings.defaults;
    let set = validate::tolerate_with(&observed.set, &observed.references, defaults);
    let plan = if mistakes.spares_passwords() {
        plan::passwords(&set, observed)
    } else {
        Passwords::default()
    };
    let applied = apply::apply(operator, key, &set, observed, &plan.steps).await;
    let (failure, resync) = ended(key, applied.failure, plan.wake_after)?;
    let outcome = Outcome {
        observed,
        plan: None,
        findings: invalid(mistakes, set.activity, &observed.view),
        done: applied.done,
        failure: failure.as_ref(),
    };
    report(context, key, &outcome).await?;
    failure.map_or(Ok(resync), Err)
}

/// What is left of a failure, and when to look again.
fn ended(
    key: &SetKey,
    failure: Option<Error>,
    wake_after: Option<Duration>,
) -> Result<(Option<Error>, Duration), Error> {
    match failure {
        None => Ok((None, next_look(wake_after))),
        Some(Error::NotActing) => Err(Error::NotActing),
        // No failure: a cache was behind, or somebody was faster.
        Some(Error::Decision(TermError::Overtaken(why))) => {
            debug!(set = %key, why, "planning again");
            Ok((None, OVERTAKEN_RESYNC))
        }
        Some(error) => Ok((Some(error), RESYNC)),
    }
}

fn next_look(wake_after: Option<Duration>) -> Duration {
    // A little later than due, so that the due time has passed for certain.
    wake_after.map_or(RESYNC, |due| RESYNC.min(due + Duration::from_millis(100)))
}
