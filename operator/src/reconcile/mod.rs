//! The spine: observe → validate → plan → apply → report.
//!
//! Called by `controller` for one set at a time, only in the acting operator. Each step is a module
//! of its own; `plan` and everything it asks are pure.
//!
//! Reading order: this file, `observe`, `validate`, `plan`, `step`, `apply`, `report`, `error`.

pub mod apply;
pub mod diff;
pub mod error;
pub mod observe;
pub mod plan;
pub mod report;
pub mod step;
pub mod validate;

use std::time::Duration;

use crate::{
    context::SetKey,
    controller::Operator,
    status::findings::{Failure, findings, invalid},
};
use error::Error;
use report::{Outcome, report};

/// How soon a set is looked at again although nothing happened, to find what no watch told.
pub const RESYNC: Duration = Duration::from_secs(300);
/// How soon the Secrets that a set refers to are looked at again: no cache holds them.
pub const REFERENCE_RESYNC: Duration = Duration::from_secs(5);

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
    let (done, failure) = match applied {
        Ok(done) => (done, None),
        Err((_, Error::NotActing)) => return Err(Error::NotActing),
        Err((done, error)) => (done, Some(error)),
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
        None => Ok(next_look(&observed.set, &plan)),
    }
}

fn next_look(set: &crate::api::RedisReplicaSet, plan: &plan::Plan) -> Duration {
    let auth = &set.spec.auth;
    let refers = auth.client_secret_name.is_some() || auth.replication_secret_name.is_some();
    let base = if refers { REFERENCE_RESYNC } else { RESYNC };
    // A little later than due, so that the due time has passed for certain.
    plan.wake_after
        .map_or(base, |due| base.min(due + Duration::from_millis(100)))
}
