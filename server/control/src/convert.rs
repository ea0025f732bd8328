//! Between the wire's messages and [`replset`]'s types.
//!
//! Owns the reading of absent and unknown values: what is missing is the careful choice where there
//! is one ([`Intent::Unplanned`], [`Standing::Lapsed`], [`Vote::Suspended`]), and [`Malformed`] where
//! there is none. Requests and answers are in `convert/request.rs` and `convert/answer.rs`.

mod answer;
mod request;

use replset::{
    Endpoint, FleetId, Generation, History, Incarnation, IncarnationTable, MasterSighting,
    MemberId, Offset, Peer, Position, Release, ReplId, Stamp, TableEntry, Term, TermStart, Vote,
    VoterSet,
};
#[cfg(doc)]
use replset::{Intent, Standing};

use crate::proto;

pub use answer::{
    follow_result, handover_result, heartbeat_result, prepare_result, promote_result,
    set_voters_result,
};

/// A message that lacks something that has no careful default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed control message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

fn required<T>(value: Option<T>, what: &str) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed(format!("{what} is missing")))
}

fn named(name: String, what: &str) -> Result<String, Malformed> {
    if name.is_empty() {
        Err(Malformed(format!("{what} is empty")))
    } else {
        Ok(name)
    }
}

impl From<&MemberId> for proto::MemberId {
    fn from(id: &MemberId) -> Self {
        Self {
            name: id.name.to_string(),
            incarnation: id.incarnation.0,
        }
    }
}

impl TryFrom<proto::MemberId> for MemberId {
    type Error = Malformed;

    fn try_from(id: proto::MemberId) -> Result<Self, Malformed> {
        let name = named(id.name, "a member's name")?.as_str().into();
        Ok(Self {
            name,
            incarnation: Incarnation(id.incarnation),
        })
    }
}

impl From<Position> for proto::Position {
    fn from(position: Position) -> Self {
        Self {
            term: position.term.0,
            offset: position.offset.0,
        }
    }
}

impl From<proto::Position> for Position {
    fn from(position: proto::Position) -> Self {
        Self {
            term: Term(position.term),
            offset: Offset(position.offset),
        }
    }
}

impl From<&Peer> for proto::Peer {
    fn from(peer: &Peer) -> Self {
        let endpoint = proto::Endpoint {
            host: peer.endpoint.host.clone(),
            port: u32::from(peer.endpoint.port),
            control_port: u32::from(peer.endpoint.control_port),
        };
        Self {
            name: peer.name.to_string(),
            endpoint: Some(endpoint),
        }
    }
}

impl TryFrom<proto::Peer> for Peer {
    type Error = Malformed;

    fn try_from(peer: proto::Peer) -> Result<Self, Malformed> {
        let endpoint = required(peer.endpoint, "a peer's endpoint")?;
        let port = |port: u32| u16::try_from(port).map_err(|_| Malformed(format!("port {port}")));
        Ok(Self {
            name: named(peer.name, "a peer's name")?.as_str().into(),
            endpoint: Endpoint {
                host: named(endpoint.host, "a peer's host")?,
                port: port(endpoint.port)?,
                control_port: port(endpoint.control_port)?,
            },
        })
    }
}

fn peers_to_wire(peers: &[Peer]) -> Vec<proto::Peer> {
    peers.iter().map(proto::Peer::from).collect()
}

fn peers(peers: Vec<proto::Peer>) -> Result<Vec<Peer>, Malformed> {
    peers.into_iter().map(Peer::try_from).collect()
}

/// The content of a `SetVoters`.
pub fn set_voters(wire: proto::SetVotersRequest) -> Result<(VoterSet, Vec<Peer>), Malformed> {
    Ok((
        required(wire.voters, "the voters")?.into(),
        peers(wire.peers)?,
    ))
}

fn history_to_wire(history: &History) -> Vec<proto::TermStart> {
    let entry = |entry: &TermStart| proto::TermStart {
        term: entry.term.0,
        start: entry.start.0,
        replid: entry.replid.to_string(),
    };
    history.entries().iter().map(entry).collect()
}

fn history(entries: Vec<proto::TermStart>) -> Result<History, Malformed> {
    let entry = |entry: proto::TermStart| {
        let replid = ReplId::parse(&entry.replid).map_err(|e| Malformed(e.to_string()))?;
        Ok(TermStart {
            term: Term(entry.term),
            start: Offset(entry.start),
            replid,
        })
    };
    Ok(History::new(
        entries
            .into_iter()
            .map(entry)
            .collect::<Result<_, Malformed>>()?,
    ))
}

/// A master's history, which names at least its own term.
fn history_of_term(entries: Vec<proto::TermStart>, term: u64) -> Result<History, Malformed> {
    let history = history(entries)?;
    match history.last() {
        Some(last) if last.term.0 == term => Ok(history),
        Some(_) | None => Err(Malformed(format!(
            "the history does not end with term {term}"
        ))),
    }
}

impl From<&VoterSet> for proto::VoterSet {
    fn from(set: &VoterSet) -> Self {
        let voters = set.voters.iter().map(ToString::to_string).collect();
        Self {
            generation: set.generation.0,
            voters,
        }
    }
}

impl From<proto::VoterSet> for VoterSet {
    fn from(set: proto::VoterSet) -> Self {
        let voters = set.voters.iter().map(|name| name.as_str().into()).collect();
        Self {
            generation: Generation(set.generation),
            voters,
        }
    }
}

impl From<Stamp> for proto::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self {
            term: stamp.term.0,
            number: stamp.number,
        }
    }
}

impl From<proto::Stamp> for Stamp {
    fn from(stamp: proto::Stamp) -> Self {
        Self {
            term: Term(stamp.term),
            number: stamp.number,
        }
    }
}

fn table_to_wire(table: &IncarnationTable) -> Vec<proto::TableEntry> {
    let entry = |(name, entry): (&replset::MemberName, &TableEntry)| proto::TableEntry {
        name: name.to_string(),
        stamp: Some(entry.stamp.into()),
        incarnation: entry.incarnation.0,
    };
    table.entries().map(entry).collect()
}

fn table(entries: Vec<proto::TableEntry>) -> Result<IncarnationTable, Malformed> {
    let entry = |entry: proto::TableEntry| {
        let stamp = required(entry.stamp, "the stamp of an incarnation")?.into();
        let incarnation = Incarnation(entry.incarnation);
        let name = named(entry.name, "the name of an incarnation")?;
        Ok((name.as_str().into(), TableEntry { stamp, incarnation }))
    };
    let entries: Vec<_> = entries
        .into_iter()
        .map(entry)
        .collect::<Result<_, Malformed>>()?;
    Ok(IncarnationTable::new(entries))
}

impl From<Release> for proto::Release {
    fn from(release: Release) -> Self {
        Self {
            term: release.term.0,
            token: release.token,
        }
    }
}

impl From<proto::Release> for Release {
    fn from(release: proto::Release) -> Self {
        Self {
            term: Term(release.term),
            token: release.token,
        }
    }
}

impl From<Vote> for proto::Vote {
    fn from(vote: Vote) -> Self {
        match vote {
            Vote::Granted => Self::Granted,
            Vote::Suspended => Self::Suspended,
        }
    }
}

impl From<proto::Vote> for Vote {
    fn from(vote: proto::Vote) -> Self {
        match vote {
            proto::Vote::Granted => Self::Granted,
            proto::Vote::Suspended | proto::Vote::Unspecified => Self::Suspended,
        }
    }
}

impl From<replset::RoleKind> for proto::Role {
    fn from(role: replset::RoleKind) -> Self {
        match role {
            replset::RoleKind::Idle => Self::Idle,
            replset::RoleKind::Follower => Self::Follower,
            replset::RoleKind::Master => Self::Master,
        }
    }
}

impl From<replset::MasterLink> for proto::Link {
    fn from(link: replset::MasterLink) -> Self {
        match link {
            replset::MasterLink::Down => Self::Down,
            replset::MasterLink::Up => Self::Up,
            replset::MasterLink::Refused => Self::Refused,
        }
    }
}

impl From<&replset::PeerReport> for proto::PeerState {
    fn from(peer: &replset::PeerReport) -> Self {
        Self {
            name: peer.name.to_string(),
            position: Some(peer.position.into()),
            acked_ms_ago: peer.acked_ms_ago,
            counts: peer.counts,
            generation: peer.generation.0,
            promised_higher_term: peer.promised_higher.map_or(0, |term| term.0),
        }
    }
}

/// The part of the state that the replica-set rules know; the server adds the rest.
impl From<&replset::Report> for proto::State {
    fn from(report: &replset::Report) -> Self {
        Self {
            id: Some((&report.id).into()),
            boot: report.boot,
            promised_term: report.promised.0,
            role: proto::Role::from(report.role).into(),
            term: report.term.0,
            position: Some(report.position.into()),
            replid: report
                .replid
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            master: report
                .master
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            link: proto::Link::from(report.link).into(),
            master_seen_ms_ago: report.master_seen_ms_ago,
            lag_bytes: report.lag_bytes,
            vote: proto::Vote::from(report.vote).into(),
            voter: report.voter,
            blank: report.blank,
            voters: Some((&report.voters).into()),
            serving: report.serving,
            lease_remaining_ms: report.lease_remaining_ms,
            released: report.released.map(proto::Release::from),
            relinquished_term: report.relinquished.map(|term| term.0),
            peers: report.peers.iter().map(proto::PeerState::from).collect(),
            replicated_offset: report.replicated.0,
            ..Self::default()
        }
    }
}

impl proto::State {
    /// What the member says about its master, for [`replset::master_is_lost`]. A replica whose
    /// master's process is gone misses it at once.
    pub fn sighting(&self) -> Option<MasterSighting> {
        let member = self.id.as_ref()?.name.as_str().into();
        let gone = self.link() == proto::Link::Refused || self.released.is_some();
        let seen_ms_ago = self.master_seen_ms_ago.filter(|_| !gone);
        let leads = self.role() == proto::Role::Master && self.serving;
        Some(MasterSighting {
            member,
            seen_ms_ago,
            leads,
        })
    }

    /// The set it belongs to.
    pub fn fleet_id(&self) -> FleetId {
        self.fleet.as_str().into()
    }
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
