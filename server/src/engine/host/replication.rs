//! Roles and replicas, as commands ask for them.

use crate::{
    command::{
        CommandError,
        host::{FailoverRequest, ReplicationHost, RoleChange, RoleView},
    },
    engine::{Core, clock},
    replication::{
        handover::Handover,
        identity::ReplId,
        state::{LinkState, ReplicaState, Role},
    },
};

impl ReplicationHost for Core {
    fn replica_of(&mut self, master: Option<(&str, u16)>) -> Result<RoleChange, CommandError> {
        if self.config.fleet.managed {
            return Err(CommandError::new(
                "ERR REPLICAOF is not allowed: the role of this server is managed by its operator",
            ));
        }
        if *self.replication.handover() != Handover::None {
            return Err(CommandError::new(
                "ERR REPLICAOF not allowed while failing over.",
            ));
        }
        match (master, self.replication.role()) {
            (None, Role::Master) => return Ok(RoleChange::None),
            (None, Role::Replica(_)) => {
                self.replication.promote(None);
                tracing::info!("this server is a master now (REPLICAOF NO ONE)");
            }
            (Some((host, port)), Role::Replica(now)) if now.host == host && now.port == port => {
                return Ok(RoleChange::None);
            }
            (Some((host, port)), Role::Master | Role::Replica(_)) => {
                self.replication
                    .follow(host.to_owned(), port, clock::monotonic_ms());
                tracing::info!(host, port, "this server follows a master now (REPLICAOF)");
            }
        }
        self.role_changed();
        Ok(RoleChange::Made)
    }

    fn role(&self) -> RoleView {
        match self.replication.role() {
            Role::Master => {
                let online = |replica: &&crate::replication::state::Replica| {
                    replica.state == ReplicaState::Online
                };
                let replicas = self.replication.replicas().iter().filter(online);
                RoleView::Master {
                    offset: self.replication.offset(),
                    replicas: replicas.map(|r| (r.ip.clone(), r.port, r.acked)).collect(),
                }
            }
            Role::Replica(following) => RoleView::Replica {
                host: following.host.clone(),
                port: following.port,
                state: following.link.name(),
                offset: match following.link {
                    LinkState::Connected => self.replication.offset() as i64,
                    LinkState::Connect
                    | LinkState::Connecting
                    | LinkState::Handshake
                    | LinkState::Sync => -1,
                },
            },
        }
    }

    fn acknowledged_by(&self, offset: u64) -> usize {
        self.replication.acknowledged_by(offset)
    }

    fn failover(&mut self, request: FailoverRequest) -> Result<(), CommandError> {
        if self.config.fleet.managed {
            return Err(CommandError::new(
                "ERR FAILOVER is not allowed: the role of this server is managed by its operator",
            ));
        }
        self.begin_failover(request)
    }

    fn failover_abort(&mut self) -> Result<(), CommandError> {
        self.abort_failover()
    }

    fn accept_failover(&mut self, replid: &[u8]) -> Result<(), CommandError> {
        let ours = ReplId::parse(replid) == Some(self.replication.history().id);
        if *self.replication.role() == Role::Master {
            return Err(CommandError::new(
                "ERR PSYNC FAILOVER can't be sent to a master.",
            ));
        }
        if !ours {
            return Err(CommandError::new(
                "ERR PSYNC FAILOVER replid must match my replid.",
            ));
        }
        if self.config.fleet.managed {
            return Err(CommandError::new(
                "ERR the role of this server is managed by its operator",
            ));
        }
        self.replication.promote(None);
        self.role_changed();
        tracing::info!("this server is a master now (FAILOVER)");
        Ok(())
    }
}
