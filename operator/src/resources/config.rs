//! `redis.conf`: what the operator sets, then what the user gave.
//!
//! The file is what a server starts with. Directives that make a server a member of this set are on its
//! command line (`pod/containers.rs`), where nothing in the file can override them.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{metadata, pod::volumes, secrets};
use crate::{api::names, set::ValidatedSet};

/// Key of the ConfigMap, and so the name of the mounted file.
pub const CONFIG_FILE: &str = "redis.conf";

/// The ConfigMap with `redis.conf`.
#[must_use]
pub fn config_map(set: &ValidatedSet) -> ConfigMap {
    let mut metadata = metadata(set, names::config_map(&set.name));
    metadata.annotations = Some(
        [(
            names::CONFIG_REVISION_ANNOTATION.to_owned(),
            set.config_revision(),
        )]
        .into(),
    );
    ConfigMap {
        metadata,
        data: Some([(CONFIG_FILE.to_owned(), redis_conf(set))].into()),
        ..ConfigMap::default()
    }
}

/// A new member copies at once: Redis waits five seconds for others that want the same snapshot, and until a member
/// has its copy it has no vote.
const FAST_SYNC: &str = "repl-diskless-sync-delay 0";

/// The text of `redis.conf`.
#[must_use]
pub fn redis_conf(set: &ValidatedSet) -> String {
    let mut text = format!(
        "# Written by the Redfleet operator; set directives in spec.config of RedisReplicaSet {}.\n\
         {FAST_SYNC}\n\
         include {}/{}\n",
        set.name,
        volumes::SECRETS_DIRECTORY,
        secrets::CREDENTIALS_FILE,
    );
    for (name, value) in &set.config {
        let value = if value.trim().is_empty() {
            "\"\""
        } else {
            value.as_str()
        };
        text.push_str(name);
        text.push(' ');
        text.push_str(value);
        text.push('\n');
    }
    text
}
