//! The Redfleet operator: turns each `RedisReplicaSet` into servers that replicate, survive
//! failures, rotate their secrets and stay spread over failure domains.
//!
//! ```text
//!   Kubernetes ──► observe ─► validate ─► plan ─► apply ─► report ──► Kubernetes
//!                     ▲                    ▲        │
//!   members ──────────┴── failover, rotation,       └──► members: credentials, configuration
//!   (control port)        rollout, placement, scaling: pure
//!        ▲
//!        └── failover task of the set: prepare, promote, follow. Waits for no queue and no Lease.
//! ```
//!
//! The operator decides and the servers enforce (terms, leases, durability): safety never rests on
//! the operator being alone, fast or up to date, and it may be killed between any two calls.

#![forbid(unsafe_code)]

pub mod api;
pub mod context;
pub mod controller;
pub mod failover;
pub mod guard;
pub mod leader;
pub mod members;
pub mod options;
pub mod placement;
pub mod quantity;
pub mod reconcile;
pub mod resources;
pub mod rollout;
pub mod rotation;
pub mod scaling;
pub mod set;
pub mod status;
pub mod telemetry;
#[cfg(test)]
mod testing;
