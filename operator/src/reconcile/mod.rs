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
use report::{Outcome, report};

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
    if let Some(remembered) = observed.remembered() {
        operator.notes(key, |notes| notes.credentials = Some(remembered));
    }
    let defaults = &context.settings.defaults;
    let set = match validate::validate(&observed.set, &observed.references, defaults) {
        Ok(set) => set,
        Err(error) => {
            let findings = invalid(&error, &observed.view);
            let outcome = Outcome {
                observed: &observed,
                plan: None,
                findings,
                done: 0,
                failure: None,
            };
            report(context, key, &outcome).await?;
            return Ok(RESYNC);
        }
    };
    let plan = plan::plan(&set, &observed);
    let applied = apply::apply(operator, key, &set, &observed, &plan).await;
    let (done, failure, resync) = match applied {
        Ok(done) => (done, None, next_look(&plan)),
        Err((_, Error::NotActing)) => return Err(Error::NotActing),
        // No failure: a cache was behind, or somebody was faster.
        Err((done, Error::Decision(TermError::Overtaken(why)))) => {
            debug!(set = %key, why, "planning again");
            (done, None, OVERTAKEN_RESYNC)
        }
        Err((done, error)) => (done, Some(error), RESYNC),
    };
    let told = failure.as_ref().map(|error| match error {
        Error::NameTaken { .. } => Failure::NameTaken(error.to_string()),
        Error::Api { .. }
        | Error::Timeout { .. }
        | Error::Member { .. }
        | Error::Disconnected { .. }
        | Error::Decision(_)
        | Error::SwitchOver(_)
        | Error::NotActing => Failure::Passing(error.to_string()),
    });
    let findings = findings(&set, &observed.view, &plan, told.as_ref());
    let outcome = Outcome {
        observed: &observed,
        plan: Some(&plan),
        findings,
        done,
        failure: failure.as_ref(),
    };
    report(context, key, &outcome).await?;
    match failure {
        Some(error) => Err(error),
        None => Ok(resync),
    }
}

fn next_look(plan: &plan::Plan) -> Duration {
    // A little later than due, so that the due time has passed for certain.
    plan.wake_after
        .map_or(RESYNC, |due| RESYNC.min(due + Duration::from_millis(100)))
}
