//! The one container of a member: the server, with everything built in.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector,
};

use super::{
    super::{config::CONFIG_FILE, non_empty, secrets::CONTROL_TOKEN_FILE},
    probes, security, volumes,
};
use crate::{
    api::{names, v1alpha1::ImagePullPolicy},
    set::ValidatedSet,
};

/// The program in the image.
pub const SERVER_PROGRAM: &str = "redfleet-server";

/// The server's container.
#[must_use]
pub fn server(set: &ValidatedSet) -> Container {
    Container {
        name: names::SERVER_CONTAINER.to_owned(),
        image: Some(set.image.clone()),
        image_pull_policy: set
            .image_pull_policy
            .map(ImagePullPolicy::as_str)
            .map(str::to_owned),
        command: Some(vec![SERVER_PROGRAM.to_owned()]),
        args: Some(arguments(set)),
        env: Some(vec![
            pod_field("POD_NAME", "metadata.name"),
            pod_field("POD_IP", "status.podIP"),
        ]),
        ports: Some(vec![
            port(names::REDIS_PORT_NAME, names::REDIS_PORT),
            port(names::CONTROL_PORT_NAME, names::CONTROL_PORT),
            port(names::METRICS_PORT_NAME, names::METRICS_PORT),
        ]),
        resources: non_empty(set.resources.clone()),
        startup_probe: Some(probes::startup()),
        liveness_probe: Some(probes::liveness()),
        readiness_probe: Some(probes::readiness()),
        security_context: Some(security::container()),
        // The last words of a server that cannot start reach the status.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(volumes::mounts()),
        ..Container::default()
    }
}

/// What makes a server a member of this set. On the command line, where `redis.conf` cannot override it.
fn arguments(set: &ValidatedSet) -> Vec<String> {
    let options = [
        ("--bind", "* -::*".to_owned()),
        ("--port", names::REDIS_PORT.to_string()),
        ("--dir", volumes::DATA_DIRECTORY.to_owned()),
        ("--metrics-port", names::METRICS_PORT.to_string()),
        ("--managed", "yes".to_owned()),
        ("--member-name", "$(POD_NAME)".to_owned()),
        // Heartbeats tell the others where the master is; a pod's name resolves too late or not at all.
        ("--replica-announce-ip", "$(POD_IP)".to_owned()),
        ("--fleet-id", set.uid.clone()),
        ("--control-port", names::CONTROL_PORT.to_string()),
        (
            "--control-token-file",
            format!("{}/{CONTROL_TOKEN_FILE}", volumes::SECRETS_DIRECTORY),
        ),
    ];
    let file = format!("{}/{CONFIG_FILE}", volumes::CONFIG_DIRECTORY);
    std::iter::once(file)
        .chain(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value]),
        )
        .collect()
}

/// A variable with a field of the pod itself.
fn pod_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}
