//! The set's status as the one place of shared decisions, by compare-and-swap.
//!
//! Two ways: [`swap`] fails if anything of the object changed since it was read; [`decide`] fails only
//! if another decision was made, so that reports on a lively set cannot hold up a failover. Then
//! the object is read again and the decision made anew. Only the fields that are decided are
//! written: what others report stays.

use std::time::Duration;

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    api::{RedisReplicaSet, STATUS_FIELD_MANAGER},
    telemetry::metrics::Metrics,
};

/// Longest wait for one answer of the API server during a failover.
const DECISION_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a write is tried again because something else changed.
const MAX_CONFLICTS: usize = 5;

/// Why a decision was not recorded.
#[derive(Debug, Error)]
pub enum TermError {
    /// Somebody else decided first.
    #[error("somebody else decided first: {0}")]
    Overtaken(String),
    /// The object changed again and again.
    #[error("the status changed {MAX_CONFLICTS} times while it was being written")]
    Contended,
    /// The API server refused or could not be reached.
    #[error("writing the decision: {0}")]
    Api(Box<kube::Error>),
    /// The API server did not answer.
    #[error("no answer of the API server within {DECISION_TIMEOUT:?}")]
    Timeout,
}

/// Writes what `decide` makes of the newest object, starting with `cached`. `decide` returns the
/// fields of the status to set, or why nothing is to be decided any more.
///
/// # Errors
/// When it is not to be decided, or cannot be written.
pub async fn swap(
    api: &Api<RedisReplicaSet>,
    cached: RedisReplicaSet,
    metrics: &Metrics,
    decide: impl Fn(&RedisReplicaSet) -> Result<Value, String> + Send + Sync,
) -> Result<RedisReplicaSet, TermError> {
    repeat(api, cached, metrics, decide, if_unchanged).await
}

/// As [`swap`], for what concerns the mastership: it may only depend on the terms and the voters'
/// generation, and set whole fields of the status.
///
/// # Errors
/// When it is not to be decided, or cannot be written.
pub async fn decide(
    api: &Api<RedisReplicaSet>,
    cached: RedisReplicaSet,
    metrics: &Metrics,
    decide: impl Fn(&RedisReplicaSet) -> Result<Value, String> + Send + Sync,
) -> Result<RedisReplicaSet, TermError> {
    repeat(api, cached, metrics, decide, if_nothing_was_decided).await
}

async fn repeat(
    api: &Api<RedisReplicaSet>,
    cached: RedisReplicaSet,
    metrics: &Metrics,
    decide: impl Fn(&RedisReplicaSet) -> Result<Value, String> + Send + Sync,
    patch: fn(&RedisReplicaSet, &Value) -> Patch<Value>,
) -> Result<RedisReplicaSet, TermError> {
    let name = cached.name_any();
    let params = PatchParams {
        field_manager: Some(STATUS_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let mut read = cached;
    for _ in 0..MAX_CONFLICTS {
        let status = decide(&read).map_err(TermError::Overtaken)?;
        metrics.wrote("RedisReplicaSet/decision");
        match within(api.patch_status(&name, &params, &patch(&read, &status))).await {
            Ok(written) => return Ok(written),
            Err(TermError::Api(error)) if is_conflict(&error) => {
                read = within(api.get(&name)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(TermError::Contended)
}

/// Sets fields of the status if the object is the one that was read.
fn if_unchanged(read: &RedisReplicaSet, status: &Value) -> Patch<Value> {
    let version = read.resource_version().unwrap_or_default();
    Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}))
}

/// Sets fields of the status if no decision was made since it was read. Before the first one the
/// fields to compare with do not exist: then any change counts.
fn if_nothing_was_decided(read: &RedisReplicaSet, fields: &Value) -> Patch<Value> {
    let status = read.status.clone().unwrap_or_default();
    let decided = [
        ("electionTerm", status.election_term),
        ("term", status.term),
        ("votersGeneration", status.voters_generation),
    ];
    let unchanged = || if_unchanged(read, fields);
    let (true, Some(fields)) = (
        decided.iter().all(|(_, value)| *value > 0),
        fields.as_object(),
    ) else {
        return unchanged();
    };
    let tests = decided.iter().map(
        |(field, value)| json!({"op": "test", "path": format!("/status/{field}"), "value": value}),
    );
    // "add" replaces what is there.
    let sets = fields.iter().map(
        |(field, value)| json!({"op": "add", "path": format!("/status/{field}"), "value": value}),
    );
    serde_json::from_value(tests.chain(sets).collect()).map_or_else(|_| unchanged(), Patch::Json)
}

async fn within<T>(request: impl Future<Output = kube::Result<T>> + Send) -> Result<T, TermError> {
    match timeout(DECISION_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| TermError::Api(Box::new(error))),
        Err(_) => Err(TermError::Timeout),
    }
}

/// 409: another resource version. 422: a `test` failed.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || status.code == 422)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::RedisReplicaSetStatus;

    fn set(status: RedisReplicaSetStatus) -> RedisReplicaSet {
        let mut set = RedisReplicaSet::new("orders", Default::default());
        set.metadata.resource_version = Some("7".into());
        set.status = Some(status);
        set
    }

    #[test]
    fn a_decision_depends_on_decisions_only() {
        let decided = set(RedisReplicaSetStatus {
            term: 3,
            election_term: 4,
            voters_generation: 2,
            ..Default::default()
        });
        let Patch::Json::<Value>(patch) = if_nothing_was_decided(&decided, &json!({"term": 4}))
        else {
            panic!("a JSON patch");
        };
        let expected = json!([
            {"op": "test", "path": "/status/electionTerm", "value": 4},
            {"op": "test", "path": "/status/term", "value": 3},
            {"op": "test", "path": "/status/votersGeneration", "value": 2},
            {"op": "add", "path": "/status/term", "value": 4},
        ]);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
    }

    #[test]
    fn the_first_decision_depends_on_the_whole_object() {
        let fresh = set(RedisReplicaSetStatus::default());
        let Patch::Merge(patch) = if_nothing_was_decided(&fresh, &json!({"electionTerm": 1}))
        else {
            panic!("a merge patch");
        };
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
