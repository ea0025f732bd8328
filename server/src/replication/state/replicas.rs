//! Replicas: how they are answered, who they are, and what of the stream they still need.

use std::sync::atomic::Ordering;

use super::{
    Backlog, Continuable, Continuation, Fresh, Held, PsyncRequest, ReplId, Replica, ReplicaState,
    Replication, Role, SyncDecision,
};

/// Replicas coming, going and behind.
impl Replication {
    /// Wakes the senders if there is something new, drops replicas that more than `most_waiting` bytes wait for (0: no limit),
    /// and gives back what nobody needs.
    pub fn wake_senders(&mut self, most_waiting: u64) {
        if self.fresh == Fresh::No {
            return;
        }
        self.fresh = Fresh::No;
        if most_waiting > 0 {
            self.drop_slow_replicas(most_waiting);
        }
        let end = self.history.offset;
        for replica in &self.replicas {
            replica.show_waiting(end);
            replica.wake.notify_one();
        }
        // A replica that waits for a snapshot has no position yet.
        let reads = |replica: &&Replica| replica.state != ReplicaState::WaitSnapshot;
        let positions = self.replicas.iter().filter(reads);
        let needed = positions.map(|replica| replica.position).min();
        if let Some(backlog) = &mut self.backlog {
            backlog.trim(needed);
        }
    }

    /// At once, not when their senders look again, which wait for a socket that takes nothing: in a tenth of a second clients
    /// write a hundred megabytes.
    fn drop_slow_replicas(&mut self, most_waiting: u64) {
        let end = self.history.offset;
        self.replicas.retain(|replica| {
            let waiting = replica.waiting(end);
            if waiting <= most_waiting {
                return true;
            }
            let address = &*replica.handle.address;
            tracing::warn!(
                replica = address,
                waiting,
                "closed at its client-output-buffer-limit"
            );
            replica.handle.close();
            replica.wake.notify_one();
            false
        });
    }

    /// Copies to `out` the next bytes for a replica that follows the stream, `most` at most.
    pub fn next_for(&mut self, id: u64, most: usize, out: &mut Vec<u8>) -> Result<(), NoMore> {
        let (Some(backlog), Some(replica)) = (
            &self.backlog,
            self.replicas.iter_mut().find(|r| r.handle.id == id),
        ) else {
            return Err(NoMore::Closed);
        };
        // Under the lock that closed it: what follows may be of another history.
        if replica.handle.is_closing() {
            return Err(NoMore::Closed);
        }
        if backlog.holds(replica.position) == Held::No {
            return Err(NoMore::StreamGone);
        }
        replica.show_waiting(backlog.end());
        if replica.state == ReplicaState::Online {
            replica.position += backlog.copy_from(replica.position, most, out) as u64;
        }
        Ok(())
    }

    /// How a replica's request is answered. A backlog is made if there was none.
    pub fn decide(&mut self, request: &PsyncRequest) -> SyncDecision {
        self.ensure_backlog();
        let PsyncRequest::Continue { replid, offset, .. } = request else {
            return SyncDecision::Full;
        };
        let (Some(id), Ok(wanted)) = (ReplId::parse(replid), u64::try_from(*offset)) else {
            return SyncDecision::Full;
        };
        let position = wanted.saturating_sub(1);
        let held = self
            .backlog
            .as_ref()
            .map_or(Held::No, |backlog| backlog.holds(position));
        match (self.history.continues(&id, position), held) {
            (Continuation::Possible, Held::Yes) => SyncDecision::Continue {
                id: self.history.id,
                position,
            },
            (Continuation::Possible, Held::No) | (Continuation::OtherHistory, _) => {
                SyncDecision::Full
            }
        }
    }

    /// Begins to record the stream. A history that was not recorded so far cannot be continued by
    /// anybody: it gets a fresh id.
    pub fn ensure_backlog(&mut self) {
        if self.backlog.is_none() {
            self.backlog = Some(Backlog::new(self.history.offset, self.backlog_limit));
            if self.role == Role::Master {
                self.history.id = self.make_id();
                self.history.previous = None;
                self.continuable = Continuable::Yes;
            }
        }
    }

    /// Adds a replica. One that waits for a snapshot has the stream select its database anew when
    /// the snapshot begins ([`Replication::restart_selection`]).
    pub fn attach(&mut self, replica: Replica) {
        self.replicas.push(replica);
    }

    /// Forgets a replica.
    pub fn detach(&mut self, id: u64) {
        self.replicas.retain(|replica| replica.handle.id != id);
    }

    /// Closes every replica's link, so that they come back and see a new id or role.
    pub fn disconnect_replicas(&mut self) {
        for replica in &self.replicas {
            replica.handle.close();
            replica.wake.notify_one();
        }
    }

    /// Forces a SELECT before the next command (a snapshot begins here).
    pub fn restart_selection(&mut self) {
        self.stream_db = None;
    }

    /// `repl-backlog-size` has changed.
    pub fn set_backlog_limit(&mut self, limit: u64) {
        self.backlog_limit = limit;
        if let Some(backlog) = &mut self.backlog {
            backlog.set_limit(limit);
        }
    }
}

/// Why a replica is sent nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMore {
    /// Its link was closed.
    Closed,
    /// What it needs of the stream is not held.
    StreamGone,
}

impl Replica {
    /// Bytes of a stream that ends at `end` which it was not sent yet.
    fn waiting(&self, end: u64) -> u64 {
        match self.state {
            // It has no position yet.
            ReplicaState::WaitSnapshot => 0,
            ReplicaState::SendBulk | ReplicaState::Online => end.saturating_sub(self.position),
        }
    }

    /// Shows them where the soft limit is judged. Its sender does so, too, but not while it waits for a socket that takes
    /// nothing, nor before the snapshot is sent.
    fn show_waiting(&self, end: u64) {
        let waiting = self.waiting(end) as usize;
        self.handle.output_bytes.store(waiting, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;
    use crate::{config::Config, engine::clients::Registry, replication::identity::History};

    /// A master with a replica in each state, which is to be sent all but the first 10 bytes of the stream.
    fn with_replicas(states: &[ReplicaState]) -> Replication {
        let clients = Registry::default();
        let mut replication = Replication::new(1, &Config::default());
        replication.ensure_backlog();
        for &state in states {
            replication.attach(Replica {
                handle: clients.register(Arc::from("a"), Arc::from("b"), None, 0),
                ip: String::new(),
                port: 0,
                state,
                position: 10,
                acked: 0,
                acked_ms: 0,
                wake: Arc::new(Notify::new()),
            });
        }
        replication.append_raw(&[b'x'; 30]);
        replication
    }

    #[test]
    fn what_waits_for_a_replica_is_shown_while_its_sender_waits_for_the_socket() {
        use ReplicaState::{Online, SendBulk, WaitSnapshot};
        let mut replication = with_replicas(&[WaitSnapshot, SendBulk, Online]);
        replication.wake_senders(0);
        let replicas = replication.replicas().iter();
        let shown = replicas.map(|replica| replica.handle.output_bytes.load(Ordering::Relaxed));
        assert_eq!(shown.collect::<Vec<_>>(), [0, 20, 20]);
    }
    #[test]
    fn a_closed_replica_is_sent_nothing_of_the_next_history() {
        let mut replication = with_replicas(&[ReplicaState::Online]);
        let id = replication.replicas()[0].handle.id;
        let mut sent = Vec::new();
        assert_eq!(replication.next_for(id, 15, &mut sent), Ok(()));
        assert_eq!((sent.len(), replication.replicas()[0].position), (15, 25));
        replication.replace_history(History {
            id: ReplId::from_random([7; 20]),
            offset: 20,
            previous: None,
        });
        replication.append_raw(&[b'y'; 30]);
        assert_eq!(
            replication.next_for(id, 15, &mut sent),
            Err(NoMore::Closed),
            "its position is held, too"
        );
        assert_eq!(sent.len(), 15);
    }
}
