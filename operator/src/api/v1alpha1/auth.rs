//! The two credentials of a set that people meet: what clients log in with, and what replicas log in with.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{super::duration::DurationText, rules};

/// Credentials and their rotation.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthSpec {
    /// Rotate the generated passwords this often, at least one minute and more than `overlap`, for example `720h`.
    /// Default: never on a timer. Passwords from a Secret of yours are not touched: change the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<DurationText>,

    /// How long the old password is accepted after the new one was published, so that clients can pick it up; at most
    /// 30 days, default `1h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (rules::OVERLAP_RULE, rules::OVERLAP_MESSAGE))]
    pub overlap: Option<DurationText>,

    /// Name of a Secret of yours in the same namespace whose key `password` is the clients' password. A change of
    /// that Secret starts a rotation; for a moment, until members have been told, a login with the new password is
    /// refused. Default: the operator generates the Secret `<name>-client`, which never is ahead of the members.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_secret_name: Option<String>,

    /// Name of a Secret of yours in the same namespace whose key `password` is the replication password. A change
    /// of that Secret starts a rotation. Default: the operator generates the Secret `<name>-replication`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub replication_secret_name: Option<String>,
}
