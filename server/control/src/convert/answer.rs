//! Answers, both ways. The wire's answers become `Ok(Ok(…))`, `Ok(Err(refusal))`, or
//! `Err(Malformed)`.

use replset::{
    Generation, GrantedLease, Handed, HeartbeatAck, NotObeyed, Promise, Promoted, Tail, Term,
};

use super::{Malformed, history, history_of_term, history_to_wire, required, table, table_to_wire};
use crate::proto;
use crate::proto::refusal::Reason;

impl From<&NotObeyed> for proto::Refusal {
    fn from(refusal: &NotObeyed) -> Self {
        let mut wire = Self {
            message: refusal.to_string(),
            ..Self::default()
        };
        let reason = match refusal {
            NotObeyed::HigherTerm(term) => {
                wire.term = term.0;
                Reason::HigherTerm
            }
            NotObeyed::PromisedToOther(elector) => {
                wire.elector = elector.to_string();
                Reason::PromisedToOther
            }
            NotObeyed::TermInUse(term) => {
                wire.term = term.0;
                Reason::TermInUse
            }
            NotObeyed::MasterAlive { seen_ms_ago } => {
                wire.seen_ms_ago = *seen_ms_ago;
                Reason::MasterAlive
            }
            NotObeyed::StaleVoters(generation) => {
                wire.generation = generation.0;
                Reason::StaleVoters
            }
            NotObeyed::WrongFleet(fleet) => {
                wire.fleet = fleet.to_string();
                Reason::WrongFleet
            }
            NotObeyed::NotPromised => Reason::NotPromised,
            NotObeyed::NotAsPromised { position, boot } => {
                wire.position = Some((*position).into());
                wire.boot = *boot;
                Reason::NotAsPromised
            }
            NotObeyed::NoVote => Reason::NoVote,
            NotObeyed::NotMaster => Reason::NotMaster,
            NotObeyed::Busy => Reason::Busy,
            NotObeyed::TargetBehind => Reason::TargetBehind,
            NotObeyed::BadTarget => Reason::BadTarget,
        };
        wire.set_reason(reason);
        wire
    }
}

impl TryFrom<proto::Refusal> for NotObeyed {
    type Error = Malformed;

    fn try_from(wire: proto::Refusal) -> Result<Self, Malformed> {
        Ok(match wire.reason() {
            Reason::Unspecified => {
                return Err(Malformed(format!(
                    "a refusal of an unknown kind: {}",
                    wire.message
                )));
            }
            Reason::HigherTerm => Self::HigherTerm(Term(wire.term)),
            Reason::PromisedToOther => Self::PromisedToOther(wire.elector.as_str().into()),
            Reason::TermInUse => Self::TermInUse(Term(wire.term)),
            Reason::MasterAlive => Self::MasterAlive {
                seen_ms_ago: wire.seen_ms_ago,
            },
            Reason::StaleVoters => Self::StaleVoters(Generation(wire.generation)),
            Reason::WrongFleet => Self::WrongFleet(wire.fleet.as_str().into()),
            Reason::NotPromised => Self::NotPromised,
            Reason::NotAsPromised => Self::NotAsPromised {
                position: wire.position.unwrap_or_default().into(),
                boot: wire.boot,
            },
            Reason::NoVote => Self::NoVote,
            Reason::NotMaster => Self::NotMaster,
            Reason::Busy => Self::Busy,
            Reason::TargetBehind => Self::TargetBehind,
            Reason::BadTarget => Self::BadTarget,
        })
    }
}

fn refused(refusal: Option<proto::Refusal>) -> Result<Result<(), NotObeyed>, Malformed> {
    refusal.map_or(Ok(Ok(())), |refusal| Ok(Err(refusal.try_into()?)))
}

impl From<&Promise> for proto::Promise {
    fn from(promise: &Promise) -> Self {
        let lease = |lease: &GrantedLease| proto::GrantedLease {
            term: lease.term.0,
            remaining_ms: lease.remaining_ms,
        };
        Self {
            id: Some((&promise.id).into()),
            boot: promise.boot,
            term: promise.term.0,
            position: Some(promise.position.into()),
            history: history_to_wire(&promise.history),
            vote: proto::Vote::from(promise.vote).into(),
            blank: promise.blank,
            generation: promise.generation.0,
            table: table_to_wire(&promise.table),
            leases: promise.leases.iter().map(lease).collect(),
            relinquished_term: promise.relinquished.map(|term| term.0),
            tail_may_be_cut: promise.tail == Tail::MayBeCut,
        }
    }
}

impl TryFrom<proto::Promise> for Promise {
    type Error = Malformed;

    fn try_from(wire: proto::Promise) -> Result<Self, Malformed> {
        let vote = wire.vote().into();
        let lease = |lease: &proto::GrantedLease| GrantedLease {
            term: Term(lease.term),
            remaining_ms: lease.remaining_ms,
        };
        Ok(Self {
            id: required(wire.id, "the promising member's id")?.try_into()?,
            boot: wire.boot,
            term: Term(wire.term),
            position: required(wire.position, "the promised position")?.into(),
            history: history(wire.history)?,
            vote,
            tail: if wire.tail_may_be_cut {
                Tail::MayBeCut
            } else {
                Tail::Whole
            },
            blank: wire.blank,
            generation: Generation(wire.generation),
            table: table(wire.table)?,
            leases: wire.leases.iter().map(lease).collect(),
            relinquished: wire.relinquished_term.map(Term),
        })
    }
}

impl From<&Result<Box<Promise>, NotObeyed>> for proto::PrepareReply {
    fn from(result: &Result<Box<Promise>, NotObeyed>) -> Self {
        use proto::prepare_reply::Answer;
        let answer = match result {
            Ok(promise) => Answer::Promise((&**promise).into()),
            Err(refusal) => Answer::Refusal(refusal.into()),
        };
        Self {
            answer: Some(answer),
        }
    }
}

/// The answer to a `Prepare`.
pub fn prepare_result(
    wire: proto::PrepareReply,
) -> Result<Result<Box<Promise>, NotObeyed>, Malformed> {
    use proto::prepare_reply::Answer;
    match required(wire.answer, "the answer")? {
        Answer::Promise(promise) => Ok(Ok(Box::new(promise.try_into()?))),
        Answer::Refusal(refusal) => Ok(Err(refusal.try_into()?)),
    }
}

impl From<&Result<Promoted, NotObeyed>> for proto::PromoteReply {
    fn from(result: &Result<Promoted, NotObeyed>) -> Self {
        use proto::promote_reply::Answer;
        let answer = match result {
            Ok(promoted) => Answer::Promoted(proto::Promoted {
                term: promoted.term.0,
                history: history_to_wire(&promoted.history),
            }),
            Err(refusal) => Answer::Refusal(refusal.into()),
        };
        Self {
            answer: Some(answer),
        }
    }
}

/// The answer to a `Promote`.
pub fn promote_result(wire: proto::PromoteReply) -> Result<Result<Promoted, NotObeyed>, Malformed> {
    use proto::promote_reply::Answer;
    match required(wire.answer, "the answer")? {
        Answer::Promoted(promoted) => {
            let history = history_of_term(promoted.history, promoted.term)?;
            Ok(Ok(Promoted {
                term: Term(promoted.term),
                history,
            }))
        }
        Answer::Refusal(refusal) => Ok(Err(refusal.try_into()?)),
    }
}

impl From<&Result<(), NotObeyed>> for proto::FollowReply {
    fn from(result: &Result<(), NotObeyed>) -> Self {
        Self {
            refusal: result.as_ref().err().map(proto::Refusal::from),
        }
    }
}

/// The answer to a `Follow`.
pub fn follow_result(wire: proto::FollowReply) -> Result<Result<(), NotObeyed>, Malformed> {
    refused(wire.refusal)
}

impl From<&Result<(), NotObeyed>> for proto::SetVotersReply {
    fn from(result: &Result<(), NotObeyed>) -> Self {
        Self {
            refusal: result.as_ref().err().map(proto::Refusal::from),
        }
    }
}

/// The answer to a `SetVoters`.
pub fn set_voters_result(wire: proto::SetVotersReply) -> Result<Result<(), NotObeyed>, Malformed> {
    refused(wire.refusal)
}

impl From<&Result<Handed, NotObeyed>> for proto::HandoverReply {
    fn from(result: &Result<Handed, NotObeyed>) -> Self {
        use proto::handover_reply::Answer;
        let answer = match result {
            Ok(handed) => Answer::Handed(proto::Handed {
                release: Some(handed.release.into()),
                position: Some(handed.position.into()),
                to: handed.to.to_string(),
            }),
            Err(refusal) => Answer::Refusal(refusal.into()),
        };
        Self {
            answer: Some(answer),
        }
    }
}

/// The answer to a `Handover`.
pub fn handover_result(wire: proto::HandoverReply) -> Result<Result<Handed, NotObeyed>, Malformed> {
    use proto::handover_reply::Answer;
    match required(wire.answer, "the answer")? {
        Answer::Handed(handed) => Ok(Ok(Handed {
            release: required(handed.release, "the release")?.into(),
            position: required(handed.position, "the position")?.into(),
            to: handed.to.as_str().into(),
        })),
        Answer::Refusal(refusal) => Ok(Err(refusal.try_into()?)),
    }
}

impl From<&Result<HeartbeatAck, NotObeyed>> for proto::HeartbeatReply {
    fn from(result: &Result<HeartbeatAck, NotObeyed>) -> Self {
        use proto::heartbeat_reply::Answer;
        let answer = match result {
            Ok(ack) => Answer::Ack(ack.into()),
            Err(refusal) => Answer::Refusal(refusal.into()),
        };
        Self {
            answer: Some(answer),
        }
    }
}

impl From<&HeartbeatAck> for proto::HeartbeatAck {
    fn from(ack: &HeartbeatAck) -> Self {
        Self {
            id: Some((&ack.id).into()),
            term: ack.term.0,
            number: ack.number,
            position: Some(ack.position.into()),
            vote: proto::Vote::from(ack.vote).into(),
            recorded: Some(ack.recorded.into()),
            generation: ack.generation.0,
        }
    }
}

/// The answer to a `Heartbeat`.
pub fn heartbeat_result(
    wire: proto::HeartbeatReply,
) -> Result<Result<HeartbeatAck, NotObeyed>, Malformed> {
    use proto::heartbeat_reply::Answer;
    let ack = match required(wire.answer, "the answer")? {
        Answer::Ack(ack) => ack,
        Answer::Refusal(refusal) => return Ok(Err(refusal.try_into()?)),
    };
    let vote = ack.vote().into();
    Ok(Ok(HeartbeatAck {
        id: required(ack.id, "the acknowledging member's id")?.try_into()?,
        term: Term(ack.term),
        number: ack.number,
        position: ack.position.unwrap_or_default().into(),
        vote,
        recorded: ack.recorded.unwrap_or_default().into(),
        generation: Generation(ack.generation),
    }))
}
