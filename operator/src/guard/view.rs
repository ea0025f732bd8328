//! What a guard knows about its set, as values that others may hold.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use control::proto;
use k8s_openapi::api::core::v1::{Node, Pod};
use replset::{FleetId, MasterLink, Position, Release, RoleKind, Term, Vote};

use crate::{
    api::names,
    failover::health::{Line, PodFact, Verdict, Witness, Word},
    members::remote::Remote,
    placement::eligible::node_is_ready,
};

/// What is known of one member's control port.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// UID of the pod whose process this is. Its object may be gone, and another of the same name be there.
    pub pod_uid: String,
    /// Where it is.
    pub address: IpAddr,
    /// How the line is.
    pub line: Line,
    /// What it said last.
    pub state: Option<Arc<proto::State>>,
    /// When it said so, in the operator's monotonic milliseconds.
    pub heard_ms: u64,
    /// For calls.
    pub remote: Remote,
}

/// What a guard knows about its set.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The members that have an address.
    pub members: BTreeMap<String, MemberView>,
    /// The last verdict.
    pub verdict: Option<Verdict>,
    /// Why nobody is master and nothing is done about it, in words.
    pub stuck: Option<Stuck>,
}

/// Why a set without a master stays without one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stuck {
    /// Too few members, or too few that can vote.
    Waiting(String),
    /// Every member is empty although the set had data.
    DataLost(String),
}

impl MemberView {
    /// Its last word, as the rules of failover of the set `fleet` read it. A member whose volume holds data of another
    /// set is there, and what it says is about that other set.
    #[must_use]
    pub fn word(&self, fleet: &FleetId, now_ms: u64) -> Option<Word> {
        let state = self.state.as_ref()?;
        let age_ms = now_ms.saturating_sub(self.heard_ms);
        if state.fleet != fleet.as_str() {
            return Some(Word::of_a_stranger(age_ms));
        }
        Some(Word {
            age_ms,
            role: role(state),
            term: Term(state.term),
            serving: state.serving,
            vote: vote(state),
            master_seen_ms_ago: state.master_seen_ms_ago,
            link: link(state),
            released: state.released.map(Release::from),
            relinquished: state.relinquished_term.map(Term),
            promised: Term(state.promised_term),
        })
    }

    /// As a witness of the set's master.
    #[must_use]
    pub fn witness(&self, member: &str, fleet: &FleetId, pod: PodFact, now_ms: u64) -> Witness {
        Witness {
            member: member.to_owned(),
            line: self.line,
            word: self.word(fleet, now_ms),
            pod,
        }
    }

    /// Its state, if the line is up.
    #[must_use]
    pub fn current(&self) -> Option<&proto::State> {
        self.state.as_deref().filter(|_| self.line == Line::Up)
    }
}

/// A state's role.
#[must_use]
pub fn role(state: &proto::State) -> RoleKind {
    match state.role() {
        proto::Role::Master => RoleKind::Master,
        proto::Role::Follower => RoleKind::Follower,
        proto::Role::Idle | proto::Role::Unspecified => RoleKind::Idle,
    }
}

/// A state's replica link.
#[must_use]
pub fn link(state: &proto::State) -> MasterLink {
    match state.link() {
        proto::Link::Up => MasterLink::Up,
        proto::Link::Refused => MasterLink::Refused,
        proto::Link::Down | proto::Link::Unspecified => MasterLink::Down,
    }
}

/// A state's vote.
#[must_use]
pub fn vote(state: &proto::State) -> Vote {
    Vote::from(state.vote())
}

/// A state's position.
#[must_use]
pub fn position(state: &proto::State) -> Position {
    state.position.map(Position::from).unwrap_or_default()
}

/// How far a replica is behind its master, in milliseconds: nothing while it holds all that it
/// knows of, else the time since it last got anything; `None` if it never got anything.
#[must_use]
pub fn lag_ms(state: &proto::State) -> Option<u64> {
    if state.lag_bytes == 0 {
        Some(0)
    } else {
        state.link_idle_ms
    }
}

/// Whether a replica holds all but the last moments of its master's data.
#[must_use]
pub fn in_sync(state: &proto::State) -> bool {
    role(state) == RoleKind::Follower
        && link(state) == MasterLink::Up
        && state.loading.is_none()
        && !state.blank
}

/// What Kubernetes says about a member's pod.
#[must_use]
pub fn pod_fact(pod: Option<&Pod>, node: Option<&Node>) -> PodFact {
    let Some(pod) = pod else {
        return PodFact::Deleted;
    };
    let container = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref())
        .and_then(|all| all.iter().find(|c| c.name == names::SERVER_CONTAINER))
        .and_then(|c| c.state.as_ref());
    let started = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    if container.is_some_and(|s| s.running.is_none() && (s.terminated.is_some() || started)) {
        return PodFact::ContainerDown;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return PodFact::Deleted;
    }
    match node.map(node_is_ready) {
        Some(false) => PodFact::NodeDown,
        Some(true) | None => PodFact::Running,
    }
}

/// The address of a pod.
#[must_use]
pub fn pod_address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// Whether Kubernetes holds a pod ready.
#[must_use]
pub fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
