//! The state that the operator watches: what the rules know, and what the engine adds.

use std::{collections::VecDeque, time::Duration};

use control::proto;
use replset::{Offset, Report, RoleKind};

use super::{credentials::Credentials, directives::Directives};
use crate::{
    command::host::ClientType,
    engine::{Engine, State, clock},
    replication::state::{LinkState, Role},
};

/// How long the engine's lock is waited for: facts may be a moment old.
pub const PATIENCE: Duration = Duration::from_millis(5);
/// Remembered moments of the stream, to know how old an unreplicated write is.
const MAX_MARKS: usize = 128;

/// How old the oldest write is that no majority holds.
#[derive(Debug, Default)]
pub struct Unreplicated {
    /// (end of the stream, when it was seen there), oldest first.
    marks: VecDeque<(Offset, u64)>,
}

impl Unreplicated {
    /// Notes where the stream ends now, and up to where a majority has it.
    pub fn note(&mut self, end: Offset, replicated: Offset, now_ms: u64) {
        while self
            .marks
            .front()
            .is_some_and(|(offset, _)| *offset <= replicated)
        {
            self.marks.pop_front();
        }
        let grown = self.marks.back().is_none_or(|(last, _)| end > *last);
        if end > replicated && grown && self.marks.len() < MAX_MARKS {
            self.marks.push_back((end, now_ms));
        }
    }

    /// Forgets everything: this server is no master.
    pub fn clear(&mut self) {
        self.marks.clear();
    }

    /// The age now; 0 if a majority has everything.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.marks
            .front()
            .map_or(0, |(_, since)| now_ms.saturating_sub(*since))
    }
}

/// Adds to the rules' report what is known without the engine's lock. What is under it is as it was in `before`, until
/// [`add_facts`].
pub fn state(
    report: &Report,
    engine: &Engine,
    credentials: &Credentials,
    config: &Directives,
    before: &proto::State,
) -> proto::State {
    let shared = &engine.shared;
    let clients = &shared.clients;
    proto::State {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: report.fleet.to_string(),
        config_revision: config.revision(),
        config_hash: config.hash().to_owned(),
        secret_revision: credentials.revision(),
        clients: clients.count(ClientType::Normal) as u64,
        replicas: clients.count(ClientType::Replica) as u64,
        used_memory_bytes: before.used_memory_bytes,
        keys: before.keys,
        link_idle_ms: before.link_idle_ms,
        link_secret_revision: before.link_secret_revision,
        loading: before.loading,
        uptime_ms: u64::try_from(clock::monotonic_ms()).unwrap_or(0),
        ..proto::State::from(report)
    }
}

/// Adds what is known under the engine's lock.
pub fn add_facts(state: &mut proto::State, engine: &State) {
    state.used_memory_bytes = engine.keyspace.memory().stats().allocated;
    state.keys = engine.keyspace.len() as u64;
    add_link(state, engine.core.replication.role());
}

fn add_link(state: &mut proto::State, role: &Role) {
    let now_ms = clock::monotonic_ms();
    (
        state.link_idle_ms,
        state.link_secret_revision,
        state.loading,
    ) = (None, None, None);
    let Role::Replica(following) = role else {
        return;
    };
    let idle_ms = following.last_io_ms.map(|last| now_ms.saturating_sub(last));
    state.link_idle_ms = idle_ms.and_then(|idle| u64::try_from(idle).ok());
    match following.link {
        LinkState::Connected => state.link_secret_revision = Some(following.login_revision),
        LinkState::Sync => {
            state.loading = Some(proto::Loading {
                source: proto::loading::Source::Master.into(),
                loaded_bytes: following.sync_read_bytes,
                total_bytes: following.sync_total_bytes,
            });
        }
        LinkState::Connect | LinkState::Connecting | LinkState::Handshake => {}
    }
}

/// What must be told at once when it changes; the rest is told once a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Urgent(proto::State);

impl Urgent {
    /// The urgent part of a state.
    pub fn of(state: &proto::State, report: &Report, suspicion_ms: u64) -> Self {
        let suspects = |ago: u64| u64::from(ago >= suspicion_ms);
        let led = report.role == RoleKind::Master;
        Self(proto::State {
            id: state.id.clone(),
            promised_term: state.promised_term,
            role: state.role,
            term: state.term,
            replid: state.replid.clone(),
            master: state.master.clone(),
            link: state.link,
            // Only whether it suspects, and whether it lags at all.
            master_seen_ms_ago: state.master_seen_ms_ago.map(suspects),
            lag_bytes: u64::from(state.lag_bytes > 0),
            vote: state.vote,
            voter: state.voter,
            blank: state.blank,
            voters: state.voters.clone(),
            serving: state.serving,
            released: state.released,
            relinquished_term: state.relinquished_term,
            peers: if led {
                state.peers.iter().map(urgent_peer).collect()
            } else {
                Vec::new()
            },
            config_revision: state.config_revision,
            config_hash: state.config_hash.clone(),
            secret_revision: state.secret_revision,
            link_secret_revision: state.link_secret_revision,
            ..proto::State::default()
        })
    }
}

fn urgent_peer(peer: &proto::PeerState) -> proto::PeerState {
    let proto::PeerState {
        name,
        counts,
        generation,
        promised_higher_term,
        ..
    } = peer.clone();
    proto::PeerState {
        name,
        counts,
        generation,
        promised_higher_term,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_unreplicated_write() {
        let mut unreplicated = Unreplicated::default();
        unreplicated.note(Offset(10), Offset(10), 0);
        assert_eq!(unreplicated.age_ms(5), 0);
        unreplicated.note(Offset(20), Offset(10), 100);
        unreplicated.note(Offset(30), Offset(10), 200);
        assert_eq!(unreplicated.age_ms(250), 150);
        unreplicated.note(Offset(30), Offset(20), 260);
        assert_eq!(unreplicated.age_ms(260), 60);
        unreplicated.note(Offset(30), Offset(30), 300);
        assert_eq!(unreplicated.age_ms(300), 0);
    }
}
