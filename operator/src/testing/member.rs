//! A member that obeys, on a control port of its own.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use control::proto::{
    self,
    member_server::{Member as Service, MemberServer},
};
use futures::Stream;
use replset::{
    Handed, Handover, History, Incarnation, MemberId, NotObeyed, Position, Prepare, Promise,
    Promote, Promoted, Tail, TermStart, Vote,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{failover::health::Line, guard::view::MemberView, members::remote::Remote};

/// A member and what it was told.
#[derive(Clone)]
pub struct Member {
    name: String,
    state: Arc<Mutex<proto::State>>,
    calls: Arc<Mutex<Vec<&'static str>>>,
    tail: Arc<Mutex<Tail>>,
    answers: Arc<Mutex<Answers>>,
    promises_after: Arc<Mutex<Duration>>,
}

/// Whether what it answers to a promotion arrives.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Answers {
    #[default]
    Arrive,
    AreLost,
}

impl Member {
    /// Starts a member in this state; also how a guard sees it.
    pub async fn start(name: &str, state: proto::State) -> (Self, MemberView) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let member = Self {
            name: name.to_owned(),
            state: Arc::new(Mutex::new(state.clone())),
            calls: Arc::default(),
            tail: Arc::default(),
            answers: Arc::default(),
            promises_after: Arc::default(),
        };
        let served = Server::builder().add_service(MemberServer::new(member.clone()));
        tokio::spawn(served.serve_with_incoming(TcpIncoming::from(listener)));
        let view = MemberView {
            pod_uid: format!("pod-of-{name}"),
            address: address.ip(),
            line: Line::Up,
            state: Some(Arc::new(state)),
            heard_ms: 0,
            remote: Remote::new(address.ip(), address.port(), "token").unwrap(),
        };
        (member, view)
    }

    /// What it was told so far; questions are not counted.
    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    /// Changes what it says about itself from now on.
    pub fn change(&self, change: impl FnOnce(&mut proto::State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// From now on it is one that was killed and has not caught up since.
    pub fn was_killed(&self) {
        *self.tail.lock().unwrap() = Tail::MayBeCut;
    }

    /// From now on it needs so long for a promise.
    pub fn promises_after(&self, delay: Duration) {
        *self.promises_after.lock().unwrap() = delay;
    }

    /// From now on it obeys a promotion and its answer is lost.
    pub fn loses_its_answers(&self) {
        *self.answers.lock().unwrap() = Answers::AreLost;
    }

    fn told(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
    }

    fn position(&self) -> Position {
        let state = self.state.lock().unwrap();
        state.position.map(Position::from).unwrap_or_default()
    }

    fn promise(&self, prepare: &Prepare) -> Promise {
        Promise {
            id: MemberId {
                name: self.name.as_str().into(),
                incarnation: Incarnation(1),
            },
            boot: 1,
            term: prepare.term,
            position: self.position(),
            history: History::default(),
            vote: Vote::from(self.state.lock().unwrap().vote()),
            tail: *self.tail.lock().unwrap(),
            blank: false,
            generation: prepare.generation,
            table: replset::IncarnationTable::default(),
            leases: Vec::new(),
            relinquished: None,
        }
    }
}

/// The state of a member of this role, of the set that the guard's tests have, that holds this much of term 1.
pub fn state(role: proto::Role, offset: u64) -> proto::State {
    proto::State {
        fleet: "0b6d".into(),
        boot: 1,
        role: role.into(),
        term: 1,
        position: Some(proto::Position { term: 1, offset }),
        link: match role {
            proto::Role::Follower => proto::Link::Up.into(),
            proto::Role::Master | proto::Role::Idle | proto::Role::Unspecified => {
                proto::Link::Down.into()
            }
        },
        vote: proto::Vote::Granted.into(),
        voter: true,
        serving: role == proto::Role::Master,
        ..proto::State::default()
    }
}

#[tonic::async_trait]
impl Service for Member {
    async fn get_state(
        &self,
        _: Request<proto::GetStateRequest>,
    ) -> Result<Response<proto::State>, Status> {
        Ok(Response::new(self.state.lock().unwrap().clone()))
    }

    type WatchStateStream = Pin<Box<dyn Stream<Item = Result<proto::State, Status>> + Send>>;

    async fn watch_state(
        &self,
        _: Request<proto::GetStateRequest>,
    ) -> Result<Response<Self::WatchStateStream>, Status> {
        Err(Status::unimplemented("not in tests"))
    }

    async fn prepare(
        &self,
        request: Request<proto::PrepareRequest>,
    ) -> Result<Response<proto::PrepareReply>, Status> {
        self.told("prepare");
        let delay = *self.promises_after.lock().unwrap();
        tokio::time::sleep(delay).await;
        let prepare = Prepare::try_from(request.into_inner())?;
        let answer: Result<Box<Promise>, NotObeyed> = Ok(Box::new(self.promise(&prepare)));
        Ok(Response::new((&answer).into()))
    }

    async fn promote(
        &self,
        request: Request<proto::PromoteRequest>,
    ) -> Result<Response<proto::PromoteReply>, Status> {
        self.told("promote");
        let promote = Promote::try_from(request.into_inner())?;
        if *self.answers.lock().unwrap() == Answers::AreLost {
            return Err(Status::unavailable("the connection broke"));
        }
        let start = TermStart {
            term: promote.term,
            start: promote.position.offset,
            replid: promote.replid(),
        };
        let answer: Result<Promoted, NotObeyed> = Ok(Promoted {
            term: promote.term,
            history: History::new(vec![start]),
        });
        Ok(Response::new((&answer).into()))
    }

    async fn follow(
        &self,
        _: Request<proto::FollowRequest>,
    ) -> Result<Response<proto::FollowReply>, Status> {
        self.told("follow");
        let answer: Result<(), NotObeyed> = Ok(());
        Ok(Response::new((&answer).into()))
    }

    async fn handover(
        &self,
        request: Request<proto::HandoverRequest>,
    ) -> Result<Response<proto::HandoverReply>, Status> {
        self.told("handover");
        let handover = Handover::try_from(request.into_inner())?;
        let answer: Result<Handed, NotObeyed> = Ok(Handed {
            release: replset::Release {
                term: handover.term,
                token: handover.token,
            },
            position: self.position(),
            to: handover.target.unwrap_or_default(),
        });
        Ok(Response::new((&answer).into()))
    }

    async fn set_voters(
        &self,
        _: Request<proto::SetVotersRequest>,
    ) -> Result<Response<proto::SetVotersReply>, Status> {
        self.told("set voters");
        Ok(Response::new(proto::SetVotersReply::default()))
    }

    async fn heartbeat(
        &self,
        _: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        Err(Status::unimplemented("not in tests"))
    }

    async fn set_credentials(
        &self,
        _: Request<proto::SetCredentialsRequest>,
    ) -> Result<Response<proto::SetCredentialsReply>, Status> {
        self.told("set credentials");
        Ok(Response::new(proto::SetCredentialsReply::default()))
    }

    async fn set_config(
        &self,
        _: Request<proto::SetConfigRequest>,
    ) -> Result<Response<proto::SetConfigReply>, Status> {
        Err(Status::unimplemented("not in tests"))
    }
}
