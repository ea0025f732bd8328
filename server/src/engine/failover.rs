//! The steps of `FAILOVER` that touch more than the replication state: pausing, changing the role.
//! The decisions are in `replication::handover`.

use super::{
    Core, clock,
    pause::{Purpose, UNTIL_ENDED},
};
use crate::{
    command::{
        CommandError,
        host::{AtDeadline, FailoverRequest, PauseKind},
    },
    replication::{
        handover::{Address, Due, Handover, Plan, is_at},
        state::{ReplicaState, Role},
    },
};

impl Core {
    /// `FAILOVER`: checks the request and pauses writes. The rest follows by acknowledgements.
    pub fn begin_failover(&mut self, request: FailoverRequest) -> Result<(), CommandError> {
        let refuse = |text| Err(CommandError::new(text));
        if *self.replication.role() != Role::Master {
            return refuse("ERR FAILOVER is not valid when server is a replica.");
        }
        if *self.replication.handover() != Handover::None {
            return refuse("ERR FAILOVER already in progress.");
        }
        if self.replication.replicas().is_empty() {
            return refuse("ERR FAILOVER requires connected replicas.");
        }
        let target = request.target.map(|(host, port)| Address { host, port });
        if request.at_deadline == AtDeadline::GoOn
            && (target.is_none() || request.timeout.is_none())
        {
            return refuse(
                "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
            );
        }
        if let Some(target) = &target {
            let found = self
                .replication
                .replicas()
                .iter()
                // A replica that never said where it listens has port 0, and so has a target whose port is none.
                .find(|replica| target.port != 0 && is_at(replica, target));
            match found.map(|replica| replica.state) {
                None => return refuse("ERR FAILOVER target HOST and PORT is not a replica."),
                Some(ReplicaState::WaitSnapshot | ReplicaState::SendBulk) => {
                    return refuse("ERR FAILOVER target replica is not online.");
                }
                Some(ReplicaState::Online) => {}
            }
        }
        let now_ms = clock::monotonic_ms();
        let deadline_ms = request
            .timeout
            .map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))
            .map(|timeout_ms| now_ms.saturating_add(timeout_ms));
        self.hold_clients(Purpose::Failover, PauseKind::Writes, UNTIL_ENDED);
        // The acknowledgements of this last entry tell who has everything.
        self.replication.request_acks();
        let at_deadline = request.at_deadline;
        let plan = Plan {
            target,
            deadline_ms,
            at_deadline,
        };
        self.replication
            .set_handover(Handover::WaitingForSync(plan));
        tracing::info!("FAILOVER: writes are paused until a replica has caught up");
        Ok(())
    }

    /// `FAILOVER ABORT`.
    pub fn abort_failover(&mut self) -> Result<(), CommandError> {
        match self.replication.handover() {
            Handover::None => return Err(CommandError::new("ERR No failover in progress.")),
            Handover::WaitingForSync(_) => {}
            Handover::InProgress => {
                self.replication.promote(None);
                self.role_changed();
            }
        }
        tracing::info!("FAILOVER: aborted");
        self.end_failover();
        Ok(())
    }

    /// Takes the next step if it is due: after acknowledgements, and periodically.
    pub fn check_failover(&mut self) {
        let replication = &self.replication;
        let now_ms = clock::monotonic_ms();
        let due = replication
            .handover()
            .due(replication.replicas(), replication.offset(), now_ms);
        match due {
            Due::Nothing => {}
            Due::GiveUp => {
                tracing::warn!("FAILOVER: no replica caught up in time, writes go on here");
                self.end_failover();
            }
            Due::Follow(Address { host, port }) => {
                tracing::info!(
                    host,
                    port,
                    "FAILOVER: the replica has everything, following it"
                );
                self.replication.set_handover(Handover::InProgress);
                self.replication.follow(host, port, now_ms);
                self.role_changed();
            }
        }
    }

    /// The target took the role over: what was paused is refused or goes on now.
    pub fn end_failover(&mut self) {
        if *self.replication.handover() == Handover::None {
            return;
        }
        self.replication.set_handover(Handover::None);
        self.release_clients(Purpose::Failover);
    }

    /// The target refused: this server is the master again.
    pub fn failover_refused(&mut self) {
        if *self.replication.handover() == Handover::InProgress {
            self.replication.promote(None);
            self.role_changed();
        }
        self.end_failover();
    }
}
