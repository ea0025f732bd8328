//! `FAILOVER`: the planned change of master, as plain data and decisions.
//!
//! Owns what a master remembers while it hands its role over, and when the next step is due. The
//! engine carries the steps out (`engine::failover`): pause writes → wait until the target has
//! acknowledged everything → follow it with `PSYNC … FAILOVER`, by which it promotes itself →
//! resume. Nothing is lost, and the old master continues with a partial synchronization.

use super::state::{Replica, ReplicaState};
use crate::command::host::AtDeadline;

/// An address as FAILOVER names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host, as the replica is listed.
    pub host: String,
    /// Port, as the replica is listed.
    pub port: u16,
}

/// What FAILOVER asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The replica to promote; `None` for whichever catches up first.
    pub target: Option<Address>,
    /// Monotonic ms at which patience ends.
    pub deadline_ms: Option<i64>,
    /// What happens then.
    pub at_deadline: AtDeadline,
}

/// Where the planned change of master stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Handover {
    /// None is going on.
    #[default]
    None,
    /// Writes are paused; a replica has to catch up.
    WaitingForSync(Plan),
    /// The target is asked to promote itself.
    InProgress,
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Follow this replica.
    Follow(Address),
    /// Give up: the time is over.
    GiveUp,
}

impl Handover {
    /// The word of `master_failover_state` while one is going on.
    pub fn step_name(&self) -> Option<&'static str> {
        match self {
            Handover::None => None,
            Handover::WaitingForSync(_) => Some("waiting-for-sync"),
            Handover::InProgress => Some("failover-in-progress"),
        }
    }

    /// What is due when the stream ends at `offset`.
    pub fn due(&self, replicas: &[Replica], offset: u64, now_ms: i64) -> Due {
        let Handover::WaitingForSync(plan) = self else {
            return Due::Nothing;
        };
        let wanted = |replica: &&Replica| {
            plan.target
                .as_ref()
                .is_none_or(|target| is_at(replica, target))
        };
        let ready =
            |replica: &&Replica| replica.state == ReplicaState::Online && replica.acked == offset;
        if let Some(replica) = replicas.iter().filter(wanted).find(ready) {
            return Due::Follow(Address {
                host: replica.ip.clone(),
                port: replica.port,
            });
        }
        if plan.deadline_ms.is_none_or(|deadline| now_ms < deadline) {
            return Due::Nothing;
        }
        match (plan.at_deadline, &plan.target) {
            (AtDeadline::GoOn, Some(target)) => Due::Follow(target.clone()),
            (AtDeadline::GoOn, None) | (AtDeadline::Abort, _) => Due::GiveUp,
        }
    }
}

/// Whether a replica is listed under this address.
pub fn is_at(replica: &Replica, address: &Address) -> bool {
    replica.ip == address.host && replica.port == address.port
}
