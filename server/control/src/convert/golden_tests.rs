//! Messages as earlier versions encoded them, committed as bytes: today's code must read them and see the same. A line of
//! `golden.txt` is never changed; a message that gains fields gets one more line.

use prost::Message;
use replset::{Handover, Heartbeat, Intent, Prepare};

use super::*;

const GOLDEN: &str = include_str!("golden.txt");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|two| two[0] * 16 + two[1]).collect()
}

/// The message of this name.
fn golden<M: Message + Default>(name: &str) -> M {
    let line = GOLDEN
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("golden.txt has no {name}"));
    M::decode(bytes(hex).as_slice()).unwrap()
}

fn hex(message: &impl Message) -> String {
    let bytes = message.encode_to_vec();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn reads<M: Message + Default + PartialEq>(name: &str, meant: &M) {
    let read: M = golden(name);
    assert!(
        read == *meant,
        "{name} reads differently; today it would be {}",
        hex(meant)
    );
}

fn id() -> proto::MemberId {
    proto::MemberId {
        name: "orders-1".into(),
        incarnation: 0x0123_4567_89ab_cdef,
    }
}

fn position() -> proto::Position {
    proto::Position {
        term: 6,
        offset: 1_000_000,
    }
}

fn voters() -> proto::VoterSet {
    proto::VoterSet {
        generation: 4,
        voters: vec!["orders-0".into(), "orders-1".into(), "orders-2".into()],
    }
}

fn peer() -> proto::Peer {
    proto::Peer {
        name: "orders-0".into(),
        endpoint: Some(proto::Endpoint {
            host: "10.0.0.7".into(),
            port: 6379,
            control_port: 6381,
        }),
    }
}

fn start() -> proto::TermStart {
    proto::TermStart {
        term: 6,
        start: 999_000,
        replid: "0123456789abcdef0123456789abcdef01234567".into(),
    }
}

fn table() -> Vec<proto::TableEntry> {
    vec![proto::TableEntry {
        name: "orders-2".into(),
        stamp: Some(proto::Stamp {
            term: 5,
            number: 12,
        }),
        incarnation: 77,
    }]
}

fn release() -> proto::Release {
    proto::Release {
        term: 6,
        token: 0xfeed,
    }
}

#[test]
fn a_state_is_read() {
    reads(
        "State",
        &proto::State {
            id: Some(id()),
            boot: 3,
            fleet: "0b6d".into(),
            version: "0.1.0".into(),
            promised_term: 7,
            role: proto::Role::Follower.into(),
            term: 6,
            position: Some(position()),
            replid: start().replid,
            master: "orders-0".into(),
            link: proto::Link::Up.into(),
            link_idle_ms: Some(0),
            master_seen_ms_ago: Some(90),
            lag_bytes: 5,
            vote: proto::Vote::Granted.into(),
            voter: true,
            blank: false,
            voters: Some(voters()),
            serving: true,
            lease_remaining_ms: Some(1100),
            released: Some(release()),
            relinquished_term: Some(4),
            peers: vec![proto::PeerState {
                name: "orders-2".into(),
                position: Some(position()),
                acked_ms_ago: Some(100),
                counts: true,
                generation: 4,
                promised_higher_term: 8,
            }],
            replicated_offset: 999_999,
            oldest_unreplicated_ms: 2,
            config_revision: 9,
            config_hash: "c0ffee".into(),
            secret_revision: 10,
            link_secret_revision: Some(3),
            clients: 11,
            replicas: 2,
            loading: Some(proto::Loading {
                source: proto::loading::Source::Master.into(),
                loaded_bytes: 1,
                total_bytes: 2,
            }),
            used_memory_bytes: 123_456,
            keys: 42,
            uptime_ms: 60_000,
        },
    );
}

#[test]
fn the_words_of_an_election_are_read() {
    let prepare = proto::PrepareRequest {
        fleet: "0b6d".into(),
        term: 7,
        elector: "operator-1".into(),
        generation: 4,
        intent: proto::prepare_request::Intent::Planned.into(),
        release: Some(release()),
        heir_of: "0a5c".into(),
    };
    reads("PrepareRequest", &prepare);
    let prepare = Prepare::try_from(prepare).unwrap();
    assert!(matches!(
        prepare.intent,
        Intent::Planned(Release {
            term: Term(6),
            token: 0xfeed
        })
    ));
    let promise = proto::Promise {
        id: Some(id()),
        boot: 3,
        term: 7,
        position: Some(position()),
        history: vec![start()],
        vote: proto::Vote::Granted.into(),
        blank: true,
        generation: 4,
        table: table(),
        leases: vec![proto::GrantedLease {
            term: 6,
            remaining_ms: 800,
        }],
        relinquished_term: Some(5),
        tail_may_be_cut: true,
    };
    let answer = proto::prepare_reply::Answer::Promise(promise);
    let reply = proto::PrepareReply {
        answer: Some(answer),
    };
    reads("PrepareReply", &reply);
    let read = prepare_result(reply).unwrap();
    assert_eq!(read.unwrap().position, Position::from(position()));
}

#[test]
fn the_words_of_a_promotion_are_read() {
    reads(
        "PromoteRequest",
        &proto::PromoteRequest {
            fleet: "0b6d".into(),
            term: 7,
            elector: "operator-1".into(),
            id: Some(id()),
            boot: 3,
            position: Some(position()),
            start: proto::promote_request::Start::LastResort.into(),
            voters: Some(voters()),
            table: table(),
            peers: vec![peer()],
            defer_ms: 300,
            random: (1..=12).collect(),
        },
    );
    let own = proto::TermStart {
        term: 7,
        start: 1_000_000,
        replid: "89abcdef0123456789abcdef0123456789abcdef".into(),
    };
    let promoted = proto::Promoted {
        term: 7,
        history: vec![start(), own],
    };
    let reply = proto::PromoteReply {
        answer: Some(proto::promote_reply::Answer::Promoted(promoted)),
    };
    reads("PromoteReply", &reply);
    let read = promote_result(reply).unwrap();
    assert_eq!(read.unwrap().term, Term(7));
    reads(
        "FollowRequest",
        &proto::FollowRequest {
            fleet: "0b6d".into(),
            term: 7,
            master: Some(peer()),
            history: vec![start()],
            voters: Some(voters()),
            peers: vec![peer()],
        },
    );
}

#[test]
fn the_words_of_a_switchover_are_read() {
    let handover = proto::HandoverRequest {
        term: 6,
        target: "orders-1".into(),
        budget_ms: 500,
        token: 0xfeed,
    };
    reads("HandoverRequest", &handover);
    assert_eq!(Handover::try_from(handover).unwrap().token, 0xfeed);
    let refusal = proto::Refusal {
        reason: proto::refusal::Reason::TargetBehind.into(),
        message: "the target is behind".into(),
        term: 6,
        elector: "operator-2".into(),
        seen_ms_ago: 40,
        generation: 4,
        fleet: "0b6d".into(),
        position: Some(position()),
        boot: 3,
    };
    reads(
        "HandoverReply",
        &proto::HandoverReply {
            answer: Some(proto::handover_reply::Answer::Refusal(refusal)),
        },
    );
}

#[test]
fn heartbeats_are_read() {
    let heartbeat = proto::HeartbeatRequest {
        fleet: "0b6d".into(),
        term: 6,
        number: 4711,
        master: Some(peer()),
        history: vec![start()],
        offset: 1_000_000,
        standing: proto::heartbeat_request::Standing::Released.into(),
        release: Some(release()),
        leased: true,
        voters: Some(voters()),
        table: table(),
        peers: vec![peer()],
        admit: Some(0),
    };
    reads("HeartbeatRequest", &heartbeat);
    assert_eq!(Heartbeat::try_from(heartbeat).unwrap().number, 4711);
    let ack = proto::HeartbeatAck {
        id: Some(id()),
        term: 6,
        number: 4711,
        position: Some(position()),
        vote: proto::Vote::Suspended.into(),
        recorded: Some(proto::Stamp {
            term: 5,
            number: 12,
        }),
        generation: 4,
    };
    let reply = proto::HeartbeatReply {
        answer: Some(proto::heartbeat_reply::Answer::Ack(ack)),
    };
    reads("HeartbeatReply", &reply);
    let read = heartbeat_result(reply).unwrap();
    assert_eq!(read.unwrap().vote, Vote::Suspended);
}

#[test]
fn credentials_and_configuration_are_read() {
    reads(
        "SetCredentialsRequest",
        &proto::SetCredentialsRequest {
            revision: 10,
            users: vec![proto::User {
                name: "default".into(),
                passwords: vec![proto::AcceptedPassword {
                    password: "one".into(),
                }],
            }],
            replication: Some(proto::ReplicationCredential {
                user: "replication".into(),
                password: "two".into(),
                since_revision: 3,
            }),
        },
    );
    reads(
        "SetConfigReply",
        &proto::SetConfigReply {
            revision: 9,
            config_hash: "c0ffee".into(),
            refused: vec![proto::RefusedDirective {
                name: "io-threads".into(),
                message: "it is read at start only".into(),
                needs_restart: true,
            }],
        },
    );
}
