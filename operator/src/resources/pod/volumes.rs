//! The three directories of a member: its data, its configuration, its secrets.

use k8s_openapi::{
    api::core::v1::{
        ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, SecretVolumeSource, Volume,
        VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::super::secrets::{CONTROL_TOKEN_FILE, CREDENTIALS_FILE};
use crate::{
    api::names,
    set::{Storage, ValidatedSet},
};

/// Where data are.
pub const DATA_DIRECTORY: &str = "/data";
/// Where `redis.conf` is.
pub const CONFIG_DIRECTORY: &str = "/etc/redfleet/config";
/// Where passwords and the control token are.
pub const SECRETS_DIRECTORY: &str = "/etc/redfleet/secrets";

const CONFIG_VOLUME: &str = "config";
const SECRETS_VOLUME: &str = "secrets";

/// Files of secrets are for the server's group only: 0440.
const SECRET_MODE: i32 = 0o440;

/// The volumes of the pod; the claim of a persistent set comes from the StatefulSet.
#[must_use]
pub fn volumes(set: &ValidatedSet) -> Vec<Volume> {
    let file = |key: &str| KeyToPath {
        key: key.to_owned(),
        path: key.to_owned(),
        mode: None,
    };
    let mut volumes = vec![
        Volume {
            name: CONFIG_VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::config_map(&set.name),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: SECRETS_VOLUME.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(names::server_secret(&set.name)),
                default_mode: Some(SECRET_MODE),
                items: Some(vec![file(CONTROL_TOKEN_FILE), file(CREDENTIALS_FILE)]),
                optional: None,
            }),
            ..Volume::default()
        },
    ];
    match &set.storage {
        Storage::Persistent { .. } => {}
        Storage::Ephemeral { size_limit } => volumes.push(Volume {
            name: names::DATA_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: None,
                size_limit: size_limit.clone().map(Quantity),
            }),
            ..Volume::default()
        }),
    }
    volumes
}

/// Where the server finds them.
#[must_use]
pub fn mounts() -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    vec![
        mount(names::DATA_VOLUME, DATA_DIRECTORY, None),
        mount(CONFIG_VOLUME, CONFIG_DIRECTORY, Some(true)),
        mount(SECRETS_VOLUME, SECRETS_DIRECTORY, Some(true)),
    ]
}
