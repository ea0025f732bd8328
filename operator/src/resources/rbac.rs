//! The identity of the pods: a ServiceAccount without rights and without a token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::{api::names, set::ValidatedSet};

/// The ServiceAccount; `None` if the user named one.
#[must_use]
pub fn service_account(set: &ValidatedSet) -> Option<ServiceAccount> {
    if set.pod.service_account.is_some() {
        return None;
    }
    Some(ServiceAccount {
        metadata: metadata(set, names::service_account(&set.name)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
