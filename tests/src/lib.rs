//! Harness of everything that needs more than one process: server processes ([`servers`]) and an independent client
//! ([`client`]); an API server without nodes ([`apiserver`]); a real Kubernetes ([`cluster`]) and what breaks it ([`faults`]); waiting for conditions ([`wait`]).
//! What reads the workspace itself: [`source`].
//! The tests are in `tests/tests`, the cluster's scripts in `tests/cluster`.

#![forbid(unsafe_code)]

pub mod apiserver;
pub mod client;
pub mod cluster;
pub mod dataset;
pub mod diff;
pub mod fake_master;
pub mod faults;
pub mod fleet;
pub mod ports;
pub mod replicaset;
pub mod servers;
pub mod source;
pub mod wait;
pub mod writer;
