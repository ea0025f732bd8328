//! The control port: requests from the wire become commands of the agent, its replies go back.
//!
//! Decides nothing. A request that makes no sense is `INVALID_ARGUMENT`, one that comes while the
//! agent's inbox is full `RESOURCE_EXHAUSTED`; a refusal by the rules is an ordinary answer.

use std::{net::TcpListener, pin::Pin, time::Duration};

use control::proto::{self, member_server::MemberServer};
use replset::{Follow, Handover, Heartbeat, Prepare, Promote, Reply};
use tokio::sync::{oneshot, watch};
use tokio_stream::{Stream, StreamExt, wrappers::WatchStream};
use tonic::{Request, Response, Status, transport::Server, transport::server::TcpIncoming};

use super::{
    agent::{Ask, Command, Sender},
    tokens::TokenFile,
};

/// Connections whose other end is gone without a word are closed after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Requests of one connection that wait for an answer, at most.
const MAX_REQUESTS_PER_CONNECTION: usize = 64;

/// Serves the control port until the process ends.
pub async fn serve(listener: TcpListener, service: MemberService, tokens: TokenFile) {
    let check = move |request: Request<()>| {
        tokens.accepted().check(request.metadata())?;
        Ok(request)
    };
    let incoming = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => TcpIncoming::from(listener).with_nodelay(Some(true)),
        Err(error) => {
            tracing::error!(%error, "the control port cannot be served");
            return;
        }
    };
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .concurrency_limit_per_connection(MAX_REQUESTS_PER_CONNECTION)
        .add_service(MemberServer::with_interceptor(service, check))
        .serve_with_incoming(incoming)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the control port has ended");
    }
}

/// The service of the control port.
#[derive(Debug)]
pub struct MemberService {
    agent: Sender,
    states: watch::Receiver<proto::State>,
}

impl MemberService {
    /// A service that hands everything to the agent.
    pub fn new(agent: Sender, states: watch::Receiver<proto::State>) -> Self {
        Self { agent, states }
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, Status> {
        let (reply, answer) = oneshot::channel();
        self.call(Command::Ask(ask, reply), answer).await
    }

    async fn call<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        self.agent
            .send(command)
            .map_err(|full| Status::resource_exhausted(full.to_string()))?;
        // A dropped sender is a request that a later one took the place of.
        answer
            .await
            .map_err(|_| Status::aborted("another request took the place of this one"))
    }
}

fn unexpected() -> Status {
    Status::internal("the member answered something else")
}

#[tonic::async_trait]
impl proto::member_server::Member for MemberService {
    async fn get_state(
        &self,
        _: Request<proto::GetStateRequest>,
    ) -> Result<Response<proto::State>, Status> {
        let (reply, answer) = oneshot::channel();
        let state = self.call(Command::State(reply), answer).await?;
        Ok(Response::new(*state))
    }

    type WatchStateStream = Pin<Box<dyn Stream<Item = Result<proto::State, Status>> + Send>>;

    async fn watch_state(
        &self,
        _: Request<proto::GetStateRequest>,
    ) -> Result<Response<Self::WatchStateStream>, Status> {
        let states = WatchStream::new(self.states.clone()).map(Ok);
        Ok(Response::new(Box::pin(states)))
    }

    async fn prepare(
        &self,
        request: Request<proto::PrepareRequest>,
    ) -> Result<Response<proto::PrepareReply>, Status> {
        let prepare = Prepare::try_from(request.into_inner())?;
        let Reply::Prepare(result) = self.ask(Ask::Prepare(prepare)).await? else {
            return Err(unexpected());
        };
        Ok(Response::new((&result).into()))
    }

    async fn promote(
        &self,
        request: Request<proto::PromoteRequest>,
    ) -> Result<Response<proto::PromoteReply>, Status> {
        let promote = Box::new(Promote::try_from(request.into_inner())?);
        let Reply::Promote(result) = self.ask(Ask::Promote(promote)).await? else {
            return Err(unexpected());
        };
        Ok(Response::new((&result).into()))
    }

    async fn follow(
        &self,
        request: Request<proto::FollowRequest>,
    ) -> Result<Response<proto::FollowReply>, Status> {
        let follow = Box::new(Follow::try_from(request.into_inner())?);
        let Reply::Follow(result) = self.ask(Ask::Follow(follow)).await? else {
            return Err(unexpected());
        };
        Ok(Response::new((&result).into()))
    }

    async fn handover(
        &self,
        request: Request<proto::HandoverRequest>,
    ) -> Result<Response<proto::HandoverReply>, Status> {
        let handover = Handover::try_from(request.into_inner())?;
        let Reply::Handover(result) = self.ask(Ask::Handover(handover)).await? else {
            return Err(unexpected());
        };
        Ok(Response::new((&result).into()))
    }

    async fn set_voters(
        &self,
        request: Request<proto::SetVotersRequest>,
    ) -> Result<Response<proto::SetVotersReply>, Status> {
        let (voters, peers) = control::convert::set_voters(request.into_inner())?;
        let Reply::Voters(result) = self.ask(Ask::Voters(voters, peers)).await? else {
            return Err(unexpected());
        };
        Ok(Response::new((&result).into()))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let heartbeat = Box::new(Heartbeat::try_from(request.into_inner())?);
        let Reply::Heartbeat(result) = self.ask(Ask::Heartbeat(heartbeat)).await? else {
            return Err(unexpected());
        };
        Ok(Response::new((&result).into()))
    }

    async fn set_credentials(
        &self,
        request: Request<proto::SetCredentialsRequest>,
    ) -> Result<Response<proto::SetCredentialsReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let command = Command::SetCredentials(Box::new(request.into_inner()), reply);
        self.call(command, answer).await?.map(Response::new)
    }

    async fn set_config(
        &self,
        request: Request<proto::SetConfigRequest>,
    ) -> Result<Response<proto::SetConfigReply>, Status> {
        let (reply, answer) = oneshot::channel();
        let command = Command::SetConfig(Box::new(request.into_inner()), reply);
        self.call(command, answer).await?.map(Response::new)
    }
}
