//! The EndpointSlices of `<name>` and `<name>-replicas`, which decide where clients of those Services arrive.
//!
//! One slice for each Service and address family, of a fixed name: a switch of the master is one write.

use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::ObjectReference,
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};

use super::metadata;
use crate::{api::names, set::ValidatedSet};

/// A Service whose slice the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `<name>`.
    Master,
    /// `<name>-replicas`.
    Replicas,
}

impl Target {
    /// Name of the Service.
    #[must_use]
    pub fn service(self, set: &str) -> String {
        match self {
            Self::Master => names::master_service(set),
            Self::Replicas => names::replicas_service(set),
        }
    }
}

/// Family of the addresses in a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFamily {
    /// Version 4.
    #[default]
    Ipv4,
    /// Version 6.
    Ipv6,
}

impl AddressFamily {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// A member that a Service leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Name of its pod.
    pub pod: String,
    /// UID of its pod.
    pub pod_uid: String,
    /// Address of its pod.
    pub address: IpAddr,
    /// Its node.
    pub node: Option<String>,
    /// Zone of that node; lets clients prefer a near replica.
    pub zone: Option<String>,
}

/// The slice of a Service. `backends` of another family are left out; none leaves the Service without
/// endpoints, and connections to it are refused at once.
#[must_use]
pub fn endpoint_slice(
    set: &ValidatedSet,
    target: Target,
    family: AddressFamily,
    backends: &[Backend],
) -> EndpointSlice {
    let service = target.service(&set.name);
    let name = match family {
        AddressFamily::Ipv4 => names::endpoint_slice(&service),
        AddressFamily::Ipv6 => format!("{}-ipv6", names::endpoint_slice(&service)),
    };
    let mut metadata = metadata(set, name);
    metadata.labels.get_or_insert_default().extend([
        ("kubernetes.io/service-name".to_owned(), service),
        (
            "endpointslice.kubernetes.io/managed-by".to_owned(),
            "redfleet.dev".to_owned(),
        ),
    ]);
    let mut chosen: Vec<&Backend> = backends
        .iter()
        .filter(|b| AddressFamily::of(b.address) == family)
        .collect();
    chosen.sort_by(|a, b| a.pod.cmp(&b.pod));
    EndpointSlice {
        metadata,
        address_type: family.as_str().to_owned(),
        endpoints: chosen
            .into_iter()
            .map(|backend| endpoint(&set.namespace, backend))
            .collect(),
        ports: Some(vec![EndpointPort {
            name: Some(names::REDIS_PORT_NAME.to_owned()),
            port: Some(i32::from(names::REDIS_PORT)),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    }
}

fn endpoint(namespace: &str, backend: &Backend) -> Endpoint {
    Endpoint {
        addresses: vec![backend.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        node_name: backend.node.clone(),
        zone: backend.zone.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(backend.pod.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(backend.pod_uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}
