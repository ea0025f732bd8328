//! The three Services of a set.
//!
//! `<name>` and `<name>-replicas` have no selector: the operator writes their EndpointSlices itself
//! (`endpoints`), one write for a switch. `<name>-headless` has one; it gives every member a DNS name, ready
//! or not, because members must find each other before they can become ready.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{metadata, non_empty};
use crate::{
    api::names,
    set::{ServiceOptions, ValidatedSet},
};

/// The Service that leads to the master.
#[must_use]
pub fn master(set: &ValidatedSet) -> Service {
    client_service(set, names::master_service(&set.name), &set.master_service)
}

/// The Service that leads to replicas in sync.
#[must_use]
pub fn replicas(set: &ValidatedSet) -> Service {
    client_service(
        set,
        names::replicas_service(&set.name),
        &set.replicas_service,
    )
}

/// The Service that gives members their DNS names.
#[must_use]
pub fn headless(set: &ValidatedSet) -> Service {
    let ports = [
        (names::REDIS_PORT_NAME, names::REDIS_PORT),
        (names::CONTROL_PORT_NAME, names::CONTROL_PORT),
        (names::METRICS_PORT_NAME, names::METRICS_PORT),
    ];
    Service {
        metadata: metadata(set, names::headless_service(&set.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(&set.name)),
            ports: Some(
                ports
                    .into_iter()
                    .map(|(name, number)| port(name, number))
                    .collect(),
            ),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn client_service(set: &ValidatedSet, name: String, options: &ServiceOptions) -> Service {
    let mut metadata = metadata(set, name);
    metadata.annotations = non_empty(options.annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(options.service_type.as_str().to_owned()),
            ports: Some(vec![port(names::REDIS_PORT_NAME, names::REDIS_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
