//! Requests, both ways.

use replset::{
    Follow, Handover, Heartbeat, Incarnation, Intent, Offset, Prepare, Promote, Standing,
    StartKind, Term,
};

use super::{
    Malformed, history_of_term, history_to_wire, named, peers, peers_to_wire, required, table,
    table_to_wire,
};
use crate::proto;
use crate::proto::heartbeat_request::Standing as WireStanding;
use crate::proto::prepare_request::Intent as WireIntent;
use crate::proto::promote_request::Start as WireStart;

impl From<&Prepare> for proto::PrepareRequest {
    fn from(prepare: &Prepare) -> Self {
        let (intent, release) = match &prepare.intent {
            Intent::Unplanned => (WireIntent::Unplanned, None),
            Intent::Planned(release) => (WireIntent::Planned, Some((*release).into())),
            Intent::Forced => (WireIntent::Forced, None),
        };
        Self {
            fleet: prepare.fleet.to_string(),
            term: prepare.term.0,
            elector: prepare.elector.to_string(),
            generation: prepare.generation.0,
            intent: intent.into(),
            release,
            heir_of: prepare
                .heir_of
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::PrepareRequest> for Prepare {
    type Error = Malformed;

    fn try_from(wire: proto::PrepareRequest) -> Result<Self, Malformed> {
        let intent = match wire.intent() {
            WireIntent::Unspecified | WireIntent::Unplanned => Intent::Unplanned,
            WireIntent::Planned => {
                Intent::Planned(required(wire.release, "the release of a planned election")?.into())
            }
            WireIntent::Forced => Intent::Forced,
        };
        Ok(Self {
            fleet: wire.fleet.as_str().into(),
            term: term(wire.term)?,
            elector: named(wire.elector, "the elector")?.as_str().into(),
            generation: replset::Generation(wire.generation),
            intent,
            heir_of: Some(wire.heir_of.as_str())
                .filter(|fleet| !fleet.is_empty())
                .map(Into::into),
        })
    }
}

/// A term that fits into a replication id and is a mastership's.
fn term(number: u64) -> Result<Term, Malformed> {
    let term = Term(number);
    if term > Term(0) && term <= Term::MAX {
        Ok(term)
    } else {
        Err(Malformed(format!("term {number} is out of range")))
    }
}

impl From<&Promote> for proto::PromoteRequest {
    fn from(promote: &Promote) -> Self {
        let start = match promote.start {
            StartKind::Quorum => WireStart::Quorum,
            StartKind::Bootstrap => WireStart::Bootstrap,
            StartKind::LastResort => WireStart::LastResort,
        };
        Self {
            fleet: promote.fleet.to_string(),
            term: promote.term.0,
            elector: promote.elector.to_string(),
            id: Some((&promote.id).into()),
            boot: promote.boot,
            position: Some(promote.position.into()),
            start: start.into(),
            voters: Some((&promote.voters).into()),
            table: table_to_wire(&promote.table),
            peers: peers_to_wire(&promote.peers),
            defer_ms: promote.defer_ms,
            random: promote.random.to_vec(),
        }
    }
}

impl TryFrom<proto::PromoteRequest> for Promote {
    type Error = Malformed;

    fn try_from(wire: proto::PromoteRequest) -> Result<Self, Malformed> {
        let start = match wire.start() {
            WireStart::Unspecified | WireStart::Quorum => StartKind::Quorum,
            WireStart::Bootstrap => StartKind::Bootstrap,
            WireStart::LastResort => StartKind::LastResort,
        };
        let random = wire.random.as_slice().try_into();
        Ok(Self {
            fleet: wire.fleet.as_str().into(),
            term: term(wire.term)?,
            elector: named(wire.elector, "the elector")?.as_str().into(),
            id: required(wire.id, "the member's id")?.try_into()?,
            boot: wire.boot,
            position: required(wire.position, "the promised position")?.into(),
            start,
            voters: required(wire.voters, "the voters")?.into(),
            table: table(wire.table)?,
            peers: peers(wire.peers)?,
            defer_ms: wire.defer_ms,
            random: random.map_err(|_| Malformed("12 random bytes are needed".to_owned()))?,
        })
    }
}

impl From<&Follow> for proto::FollowRequest {
    fn from(follow: &Follow) -> Self {
        Self {
            fleet: follow.fleet.to_string(),
            term: follow.term.0,
            master: Some((&follow.master).into()),
            history: history_to_wire(&follow.history),
            voters: Some((&follow.voters).into()),
            peers: peers_to_wire(&follow.peers),
        }
    }
}

impl TryFrom<proto::FollowRequest> for Follow {
    type Error = Malformed;

    fn try_from(wire: proto::FollowRequest) -> Result<Self, Malformed> {
        Ok(Self {
            fleet: wire.fleet.as_str().into(),
            term: term(wire.term)?,
            master: required(wire.master, "the master")?.try_into()?,
            history: history_of_term(wire.history, wire.term)?,
            voters: required(wire.voters, "the voters")?.into(),
            peers: peers(wire.peers)?,
        })
    }
}

impl From<&Handover> for proto::HandoverRequest {
    fn from(handover: &Handover) -> Self {
        Self {
            term: handover.term.0,
            target: handover
                .target
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            budget_ms: handover.budget_ms,
            token: handover.token,
        }
    }
}

impl TryFrom<proto::HandoverRequest> for Handover {
    type Error = Malformed;

    fn try_from(wire: proto::HandoverRequest) -> Result<Self, Malformed> {
        if wire.token == replset::RELEASE_NONE {
            return Err(Malformed(
                "the token of a handover must not be 0".to_owned(),
            ));
        }
        Ok(Self {
            term: term(wire.term)?,
            target: (!wire.target.is_empty()).then(|| wire.target.as_str().into()),
            budget_ms: wire.budget_ms,
            token: wire.token,
        })
    }
}

impl From<&Heartbeat> for proto::HeartbeatRequest {
    fn from(heartbeat: &Heartbeat) -> Self {
        let (standing, release) = match heartbeat.standing {
            Standing::Serving => (WireStanding::Serving, None),
            Standing::Lapsed => (WireStanding::Lapsed, None),
            Standing::Released(release) => (WireStanding::Released, Some(release.into())),
        };
        Self {
            fleet: heartbeat.fleet.to_string(),
            term: heartbeat.term.0,
            number: heartbeat.number,
            master: Some((&heartbeat.master).into()),
            history: history_to_wire(&heartbeat.history),
            offset: heartbeat.offset.0,
            standing: standing.into(),
            release,
            leased: heartbeat.leased,
            voters: Some((&heartbeat.voters).into()),
            table: table_to_wire(&heartbeat.table),
            peers: peers_to_wire(&heartbeat.peers),
            admit: heartbeat.admit.map(|incarnation| incarnation.0),
        }
    }
}

impl TryFrom<proto::HeartbeatRequest> for Heartbeat {
    type Error = Malformed;

    fn try_from(wire: proto::HeartbeatRequest) -> Result<Self, Malformed> {
        let standing = match (wire.standing(), wire.release) {
            (WireStanding::Serving, _) => Standing::Serving,
            (WireStanding::Released, Some(release)) => Standing::Released(release.into()),
            (WireStanding::Unspecified | WireStanding::Lapsed | WireStanding::Released, _) => {
                Standing::Lapsed
            }
        };
        Ok(Self {
            fleet: wire.fleet.as_str().into(),
            term: term(wire.term)?,
            number: wire.number,
            master: required(wire.master, "the master")?.try_into()?,
            history: history_of_term(wire.history, wire.term)?,
            offset: Offset(wire.offset),
            standing,
            leased: wire.leased,
            voters: required(wire.voters, "the voters")?.into(),
            table: table(wire.table)?,
            peers: peers(wire.peers)?,
            admit: wire.admit.map(Incarnation),
        })
    }
}
