//! Changes of role and of history, and what time does to both.

use std::time::Duration;

use super::{
    Backlog, Continuable, Following, Handover, History, Hold, LinkState, Login, Refused, ReplId,
    Replication, Role,
};

/// Changes of role and history.
impl Replication {
    /// `REPLICAOF host port`: the data and the history are kept, so that the new master may let us
    /// continue.
    pub fn follow(&mut self, host: String, port: u16, monotonic_ms: i64) {
        self.orders += 1;
        self.hold = Hold::No;
        self.role = Role::Replica(Following {
            host,
            port,
            order: self.orders,
            refused: Refused::No,
            login_revision: self.login_revision,
            login: Login::InForce,
            link: LinkState::Connect,
            last_io_ms: None,
            down_since_ms: Some(monotonic_ms),
            last_error: None,
            sync_total_bytes: 0,
            sync_read_bytes: 0,
            read_offset: self.history.offset,
        });
        self.ensure_backlog();
        // The selected database stays: the new master may go on in the middle of our stream.
        self.disconnect_replicas();
    }

    /// Neither leads nor follows: a managed server that has not been told its master, or whose
    /// mastership has ended. Data and history stay as they are.
    pub fn await_master(&mut self, monotonic_ms: i64) {
        self.follow(String::new(), 0, monotonic_ms);
    }

    /// Revision of the password that the link to the master logs in with.
    pub fn login_revision(&self) -> u64 {
        self.login_revision
    }

    /// The password for the master has changed: a link is made anew, and logs in with it. One that receives a full copy,
    /// whose login was accepted, ends the copy first ([`Replication::link_is_up`]).
    pub fn log_in_anew(&mut self, revision: u64, monotonic_ms: i64) {
        self.login_revision = revision;
        if let Role::Replica(following) = &mut self.role {
            if following.link == LinkState::Sync {
                following.login = Login::Outdated;
                return;
            }
            self.orders += 1;
            following.order = self.orders;
            following.login_revision = revision;
            following.login = Login::InForce;
            following.link = LinkState::Connect;
            following.down_since_ms.get_or_insert(monotonic_ms);
        }
    }

    /// A new link is about to log in, with the password in force.
    pub fn logs_in(&mut self) {
        if let Role::Replica(following) = &mut self.role {
            following.login_revision = self.login_revision;
            following.login = Login::InForce;
        }
    }

    /// The link follows its master, unless its password is outdated: then it is made anew at once.
    pub fn link_is_up(&mut self, monotonic_ms: i64) {
        let Role::Replica(following) = &mut self.role else {
            return;
        };
        following.link = LinkState::Connected;
        following.last_error = None;
        following.down_since_ms = None;
        following.last_io_ms = Some(monotonic_ms);
        match following.login {
            Login::InForce => {}
            Login::Outdated => self.log_in_anew(self.login_revision, monotonic_ms),
        }
    }

    /// `REPLICAOF NO ONE`: a new id, the old one remembered. `id` is used where one is given (a
    /// managed server's ids carry its term).
    pub fn promote(&mut self, id: Option<ReplId>) {
        let id = id.unwrap_or_else(|| self.make_id());
        self.ensure_backlog();
        self.hold = Hold::No;
        self.role = Role::Master;
        self.lonely_since_ms = None;
        self.continuable = Continuable::Yes;
        self.history.shift(id);
        self.stream_db = None;
        self.disconnect_replicas();
    }

    /// A dataset was loaded at the start that belongs to this place of a history. A master goes on
    /// under a new id and serves those who know the old one; a replica asks to continue, unless the database is unknown that
    /// the stream goes on in: it asks for a full copy.
    pub fn restore(&mut self, id: ReplId, offset: u64, stream_db: Option<u32>) {
        self.replace_history(History {
            id,
            offset,
            previous: None,
        });
        match self.role {
            Role::Master => {
                let id = self.make_id();
                self.history.shift(id);
            }
            Role::Replica(_) => {
                self.stream_db = stream_db;
                if stream_db.is_none() {
                    self.continuable = Continuable::No;
                }
            }
        }
    }

    /// Periodic work of a master: a PING in the stream every `ping_period`, and the end of a backlog
    /// that no replica has used for `backlog_ttl` (zero: never). A replica keeps its backlog, and
    /// its master's PINGs are in the stream already.
    pub fn tick(&mut self, monotonic_ms: i64, ping_period: Duration, backlog_ttl: Duration) {
        if self.role != Role::Master {
            return;
        }
        if !self.replicas.is_empty() {
            self.lonely_since_ms = None;
            let due = monotonic_ms - self.pinged_ms >= ping_period.as_millis() as i64;
            if due && self.handover == Handover::None {
                self.pinged_ms = monotonic_ms;
                self.append_ping();
            }
            return;
        }
        let since_ms = *self.lonely_since_ms.get_or_insert(monotonic_ms);
        let ttl_ms = i64::try_from(backlog_ttl.as_millis()).unwrap_or(i64::MAX);
        let over = monotonic_ms - since_ms > ttl_ms;
        if over && !backlog_ttl.is_zero() && self.backlog.is_some() {
            tracing::info!("the backlog is freed: no replica has used it for repl-backlog-ttl");
            self.backlog = None;
            self.continuable = Continuable::No;
            let id = self.make_id();
            self.history = History {
                offset: self.history.offset,
                ..History::new(id)
            };
        }
    }

    /// Our master goes on with our history, perhaps under a new id.
    pub fn adopt_id(&mut self, id: ReplId) {
        if id != self.history.id {
            self.history.shift(id);
            self.disconnect_replicas();
        }
    }

    /// What the master did as one was done here in part, so the data are of no place of its history. Until a full copy puts
    /// another in place they have one that nobody knows: nobody goes on with them as they are, neither from another master,
    /// nor after a restart from a snapshot, nor as our replica after a promotion.
    pub fn leave_history(&mut self) {
        let id = self.make_id();
        self.replace_history(History {
            offset: self.history.offset,
            ..History::new(id)
        });
        self.continuable = Continuable::Torn;
    }

    /// A full synchronization, or a load at start, put another history in place.
    pub fn replace_history(&mut self, history: History) {
        self.backlog = Some(Backlog::new(history.offset, self.backlog_limit));
        self.history = history;
        self.continuable = Continuable::Yes;
        self.stream_db = None;
        self.disconnect_replicas();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::SyncDecision, *};
    use crate::{
        command::effects::{Failover, PsyncRequest},
        config::Config,
    };

    #[test]
    fn a_link_that_logs_in_anew_is_down_since_then() {
        let mut replication = Replication::new(1, &Config::default());
        replication.follow("master".to_owned(), 6379, 1_000);
        let following = replication.following_mut().unwrap();
        following.link = LinkState::Connected;
        following.down_since_ms = None;
        for (at_ms, since_ms) in [(5_000, 5_000), (6_000, 5_000)] {
            replication.log_in_anew(1, at_ms);
            let following = replication.following_mut().unwrap();
            assert_eq!(following.link, LinkState::Connect);
            assert_eq!(following.down_since_ms, Some(since_ms));
        }
    }

    #[test]
    fn nobody_goes_on_with_a_part_of_a_transaction() {
        let known = ReplId::from_random([7; 20]);
        let mut replication = Replication::new(1, &Config::default());
        replication.follow("master".to_owned(), 6379, 1_000);
        replication.replace_history(History {
            offset: 100,
            ..History::new(known)
        });
        assert!(replication.can_continue() && !replication.is_torn());
        replication.leave_history();
        replication.follow("other".to_owned(), 6379, 2_000);
        assert!(!replication.can_continue() && replication.is_torn());
        replication.promote(None);
        let sibling = PsyncRequest::Continue {
            replid: known.as_str().into(),
            offset: 101,
            failover: Failover::No,
        };
        assert_eq!(replication.decide(&sibling), SyncDecision::Full);
        assert_eq!(replication.offset(), 100);
        assert!(!replication.is_torn(), "what it has counts now");
        replication.leave_history();
        replication.replace_history(History::new(known));
        assert!(replication.can_continue(), "a full copy mends it");
    }

    #[test]
    fn a_copy_under_way_outlives_a_new_password() {
        let mut replication = Replication::new(1, &Config::default());
        replication.log_in_anew(1, 0);
        replication.follow("master".to_owned(), 6379, 1_000);
        replication.logs_in();
        let following = replication.following_mut().unwrap();
        following.link = LinkState::Sync;
        let order = following.order;
        replication.log_in_anew(2, 2_000);
        let following = replication.following_mut().unwrap();
        assert_eq!((following.link, following.order), (LinkState::Sync, order));
        assert_eq!(following.login_revision, 1, "what it logged in with");
        replication.link_is_up(3_000);
        let following = replication.following_mut().unwrap();
        assert_eq!(following.link, LinkState::Connect);
        assert!(following.order > order, "the link ends");
        replication.logs_in();
        replication.link_is_up(4_000);
        let following = replication.following_mut().unwrap();
        assert_eq!(following.link, LinkState::Connected);
        assert_eq!(following.login_revision, 2);
    }

    #[test]
    fn a_promoted_server_keeps_its_backlog_as_one_that_just_lost_its_replicas() {
        let (ping, ttl) = (Duration::from_secs(10), Duration::from_secs(3600));
        let mut replication = Replication::new(1, &Config::default());
        replication.tick(0, ping, ttl);
        replication.follow("master".to_owned(), 6379, 1_000);
        replication.replace_history(History::new(ReplId::from_random([7; 20])));
        let hour_ms = 3_600_000;
        replication.promote(None);
        replication.tick(2 * hour_ms, ping, ttl);
        assert!(replication.backlog().is_some(), "siblings may come");
        replication.tick(3 * hour_ms, ping, ttl);
        assert!(replication.backlog().is_some());
        replication.tick(3 * hour_ms + 1, ping, ttl);
        assert!(replication.backlog().is_none());
    }
}
