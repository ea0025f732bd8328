//! Redfleet on three nodes: `tests/cluster/with-cluster.sh` makes them.
//!
//! Tests run in the order of their names, some beside each other (`Cluster::connect_beside_others`).

mod day_two;
mod failover;
mod ground;
mod operator;

/// What most tests make: three members with volumes.
const SPEC: &str = "  replicas: 3\n  storage: {size: 100Mi}\n";
