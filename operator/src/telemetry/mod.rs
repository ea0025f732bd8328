//! What the operators of the operator see: logs, metrics, probes.
//!
//! Owns: the process's log format, the registry of metrics and the HTTP port. Called by `main`;
//! the counters are bumped by `reconcile`, `members` and `failover`.
//!
//! Invariants: no global registry, so that several operators can run in one test process; a probe
//! never depends on the API server, or an outage of it would restart every operator.

pub mod http;
pub mod logging;
pub mod metrics;
