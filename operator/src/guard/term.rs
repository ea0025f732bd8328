//! The set's status as the one place of shared decisions, by compare-and-swap.
//!
//! Every write carries the resource version that was read, so it fails if anything changed in
//! between; then the object is read again and the decision made anew. Only the fields that are
//! decided are written: what others report stays.

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
    let name = cached.name_any();
    let mut read = cached;
    for _ in 0..MAX_CONFLICTS {
        let status = decide(&read).map_err(TermError::Overtaken)?;
        let version = read.resource_version().unwrap_or_default();
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        let params = PatchParams {
            field_manager: Some(STATUS_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        metrics.wrote("RedisReplicaSet/decision");
        let patch = Patch::Merge(&patch);
        match within(api.patch_status(&name, &params, &patch)).await {
            Ok(written) => return Ok(written),
            Err(TermError::Api(error)) if is_conflict(&error) => {
                read = within(api.get(&name)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(TermError::Contended)
}

async fn within<T>(request: impl Future<Output = kube::Result<T>> + Send) -> Result<T, TermError> {
    match timeout(DECISION_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| TermError::Api(Box::new(error))),
        Err(_) => Err(TermError::Timeout),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
