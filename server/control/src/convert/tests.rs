//! Every message survives the way over the wire; what is missing is read carefully.

use replset::{
    Follow, GrantedLease, Handed, Handover, Heartbeat, HeartbeatAck, Intent, NotObeyed, Prepare,
    Promise, Promote, Promoted, Standing, StartKind, Tail,
};

use super::*;

fn peer(name: &str) -> Peer {
    let endpoint = Endpoint {
        host: format!("{name}.set"),
        port: 6379,
        control_port: 6381,
    };
    Peer {
        name: name.into(),
        endpoint,
    }
}

fn history_of(term: u64) -> History {
    let replid = ReplId::stamped(Term(term), [7; 12]);
    History::new(vec![TermStart {
        term: Term(term),
        start: Offset(9),
        replid,
    }])
}

fn id(name: &str) -> MemberId {
    MemberId {
        name: name.into(),
        incarnation: Incarnation(u64::MAX - 3),
    }
}

fn voters() -> VoterSet {
    VoterSet {
        generation: Generation(4),
        voters: vec!["a".into(), "b".into()],
    }
}

fn table_of() -> IncarnationTable {
    let stamp = Stamp {
        term: Term(2),
        number: 5,
    };
    IncarnationTable::new([(
        "b".into(),
        TableEntry {
            stamp,
            incarnation: Incarnation(8),
        },
    )])
}

fn position() -> Position {
    Position {
        term: Term(3),
        offset: Offset(70),
    }
}

#[test]
fn requests_survive_the_wire() {
    for (intent, heir_of) in [
        (Intent::Unplanned, None),
        (Intent::Forced, Some("before".into())),
        (
            Intent::Planned(Release {
                term: Term(3),
                token: 77,
            }),
            None,
        ),
    ] {
        let prepare = Prepare {
            fleet: "f".into(),
            heir_of,
            term: Term(4),
            elector: "op-1".into(),
            generation: Generation(4),
            intent,
        };
        assert_eq!(
            proto::PrepareRequest::from(&prepare).try_into(),
            Ok(prepare)
        );
    }
    for start in [
        StartKind::Quorum,
        StartKind::Bootstrap,
        StartKind::LastResort,
    ] {
        let promote = Promote {
            fleet: "f".into(),
            term: Term(4),
            elector: "op-1".into(),
            id: id("a"),
            boot: 3,
            position: position(),
            start,
            voters: voters(),
            table: table_of(),
            peers: vec![peer("a"), peer("b")],
            defer_ms: 12,
            random: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        };
        assert_eq!(
            proto::PromoteRequest::from(&promote).try_into(),
            Ok(promote)
        );
    }
    let follow = Follow {
        fleet: "f".into(),
        term: Term(4),
        master: peer("a"),
        history: history_of(4),
        voters: voters(),
        peers: vec![peer("a")],
    };
    assert_eq!(proto::FollowRequest::from(&follow).try_into(), Ok(follow));
    for target in [None, Some("b".into())] {
        let handover = Handover {
            term: Term(4),
            target,
            budget_ms: 500,
            token: 1,
        };
        assert_eq!(
            proto::HandoverRequest::from(&handover).try_into(),
            Ok(handover)
        );
    }
}

#[test]
fn heartbeats_survive_the_wire() {
    let release = Release {
        term: Term(4),
        token: 5,
    };
    for standing in [
        Standing::Serving,
        Standing::Lapsed,
        Standing::Released(release),
    ] {
        let heartbeat = Heartbeat {
            fleet: "f".into(),
            term: Term(4),
            number: 1_000,
            master: peer("a"),
            history: history_of(4),
            offset: Offset(99),
            standing,
            leased: true,
            voters: voters(),
            table: table_of(),
            peers: vec![peer("a")],
            admit: Some(Incarnation(6)),
        };
        assert_eq!(
            proto::HeartbeatRequest::from(&heartbeat).try_into(),
            Ok(heartbeat)
        );
    }
    let ack = HeartbeatAck {
        id: id("b"),
        term: Term(4),
        number: 1_000,
        position: position(),
        vote: Vote::Granted,
        recorded: Stamp {
            term: Term(4),
            number: 1,
        },
        generation: Generation(4),
    };
    let answer = Ok(ack);
    assert_eq!(heartbeat_result((&answer).into()), Ok(answer));
}

#[test]
fn answers_survive_the_wire() {
    let promise = Promise {
        id: id("a"),
        boot: 2,
        term: Term(4),
        position: position(),
        history: history_of(3),
        vote: Vote::Suspended,
        tail: Tail::MayBeCut,
        blank: true,
        generation: Generation(4),
        table: table_of(),
        leases: vec![GrantedLease {
            term: Term(3),
            remaining_ms: 800,
        }],
        relinquished: Some(Term(3)),
    };
    let answer = Ok(Box::new(promise));
    assert_eq!(prepare_result((&answer).into()), Ok(answer));
    let answer = Ok(Promoted {
        term: Term(4),
        history: history_of(4),
    });
    assert_eq!(promote_result((&answer).into()), Ok(answer));
    let release = Release {
        term: Term(4),
        token: 5,
    };
    let answer = Ok(Handed {
        release,
        position: position(),
        to: "b".into(),
    });
    assert_eq!(handover_result((&answer).into()), Ok(answer));
    assert_eq!(follow_result((&Ok(())).into()), Ok(Ok(())));
}

#[test]
fn every_refusal_survives_the_wire() {
    for refusal in [
        NotObeyed::HigherTerm(Term(9)),
        NotObeyed::PromisedToOther("op-2".into()),
        NotObeyed::TermInUse(Term(9)),
        NotObeyed::MasterAlive { seen_ms_ago: 30 },
        NotObeyed::StaleVoters(Generation(5)),
        NotObeyed::WrongFleet("g".into()),
        NotObeyed::NotPromised,
        NotObeyed::NotAsPromised {
            position: position(),
            boot: 4,
        },
        NotObeyed::NoVote,
        NotObeyed::NotMaster,
        NotObeyed::Busy,
        NotObeyed::TargetBehind,
        NotObeyed::BadTarget,
    ] {
        let answer = Err(refusal);
        assert_eq!(prepare_result((&answer).into()), Ok(answer.clone()));
        let answer = answer.map(|_| ());
        assert_eq!(set_voters_result((&answer).into()), Ok(answer));
    }
}

#[test]
fn unknown_and_missing_values_are_read_carefully() {
    let wire = proto::PrepareRequest {
        term: 1,
        elector: "e".to_owned(),
        intent: 99,
        ..proto::PrepareRequest::default()
    };
    assert_eq!(
        Prepare::try_from(wire).map(|p| p.intent),
        Ok(Intent::Unplanned)
    );
    assert!(Prepare::try_from(proto::PrepareRequest::default()).is_err());
    assert!(prepare_result(proto::PrepareReply::default()).is_err());
    let unknown = proto::Refusal {
        reason: 99,
        ..proto::Refusal::default()
    };
    assert!(NotObeyed::try_from(unknown).is_err());
    let foreign = proto::FollowRequest {
        term: 4,
        master: Some((&peer("a")).into()),
        voters: Some((&voters()).into()),
        history: history_to_wire(&history_of(3)),
        ..proto::FollowRequest::default()
    };
    assert!(
        Follow::try_from(foreign).is_err(),
        "a history must end with its master's term"
    );
}

#[test]
fn passwords_are_not_shown_by_debug() {
    let password = proto::AcceptedPassword {
        password: "secret".to_owned(),
    };
    let users = vec![proto::User {
        name: "default".to_owned(),
        passwords: vec![password],
    }];
    let replication = proto::ReplicationCredential {
        user: String::new(),
        password: "secret".to_owned(),
        since_revision: 3,
    };
    let replication = Some(replication);
    let request = proto::SetCredentialsRequest {
        revision: 3,
        users,
        replication,
    };
    assert!(!format!("{request:?}").contains("secret"));
}
