//! Start, live and ready, and what each must not depend on.
//!
//! Liveness asks only whether the process can answer: it never depends on another pod, on a role or on the
//! operator, or a partition would restart healthy members. Readiness says whether the member serves its role;
//! it is for people, for the disruption budget and for `kubectl wait`, while traffic is directed by the
//! EndpointSlices that the operator writes.

use k8s_openapi::{
    api::core::v1::{HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::api::names;

/// Seconds that a server has to open its ports; data are loaded behind open ports.
const STARTUP_SECONDS: i32 = 120;

/// The process has begun to answer.
#[must_use]
pub fn startup() -> Probe {
    Probe {
        period_seconds: Some(1),
        timeout_seconds: Some(2),
        failure_threshold: Some(STARTUP_SECONDS),
        ..get("/livez")
    }
}

/// The process answers. Thirty seconds of silence restart it; a failover has long happened by then.
#[must_use]
pub fn liveness() -> Probe {
    Probe {
        period_seconds: Some(5),
        timeout_seconds: Some(3),
        failure_threshold: Some(6),
        ..get("/livez")
    }
}

/// The member serves its role.
#[must_use]
pub fn readiness() -> Probe {
    Probe {
        period_seconds: Some(1),
        timeout_seconds: Some(2),
        failure_threshold: Some(2),
        ..get("/readyz")
    }
}

fn get(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(names::METRICS_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}
