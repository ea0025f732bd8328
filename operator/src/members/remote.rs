//! Calls to one member's control port.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use control::{
    auth::BearerToken,
    convert,
    proto::{self, member_client::MemberClient},
};
use replset::{
    Follow, Handed, Handover, NotObeyed, Peer, Prepare, Promise, Promote, Promoted, VoterSet,
};
use thiserror::Error;
use tokio::time::timeout;
use tonic::{
    Request, Response, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

/// Longest wait for a connection to a member.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest wait for an answer that changes little there.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(400);
/// Longest wait for an answer that stands on the disk before it is given, or waits for another member.
pub const SLOW_CALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Why a member could not be told something.
#[derive(Debug, Error)]
pub enum CallError {
    /// It did not answer, or answered with a failure.
    #[error("{call}: {} ({})", status.message(), status.code())]
    Status {
        /// What was called.
        call: &'static str,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// Its answer makes no sense.
    #[error("{call}: {text}")]
    Malformed {
        /// What was called.
        call: &'static str,
        /// What is wrong with it.
        text: String,
    },
    /// The address or the token cannot be used.
    #[error("control port of {address}: {text}")]
    Setup {
        /// Where.
        address: IpAddr,
        /// What is wrong.
        text: String,
    },
}

type Client = MemberClient<InterceptedService<Channel, BearerToken>>;

/// One member's control port; cheap to clone, and all clones use one connection.
#[derive(Clone, Debug)]
pub struct Remote {
    endpoint: Endpoint,
    token: BearerToken,
    client: Arc<Mutex<Client>>,
}

impl Remote {
    /// The control port at `address`; connects when first used.
    ///
    /// # Errors
    /// When the token cannot be sent in a header.
    pub fn new(address: IpAddr, port: u16, token: &str) -> Result<Self, CallError> {
        let setup = |text: String| CallError::Setup { address, text };
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let endpoint = Endpoint::from_shared(format!("http://{host}:{port}"))
            .map_err(|error| setup(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let token = BearerToken::new(token).map_err(|error| setup(error.to_string()))?;
        let client = MemberClient::with_interceptor(endpoint.connect_lazy(), token.clone());
        Ok(Self {
            endpoint,
            token,
            client: Arc::new(Mutex::new(client)),
        })
    }

    /// Calls from now on use another connection. The kernel keeps one whose other end was cut off for as long as the cut
    /// lasted again, and tries less and less often whether it is over.
    pub fn connect_anew(&self) {
        let channel = self.endpoint.connect_lazy();
        let client = MemberClient::with_interceptor(channel, self.token.clone());
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    fn client(&self) -> Client {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.clone()
    }

    /// The state now.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn state(&self) -> Result<proto::State, CallError> {
        let (mut client, request) = (
            self.client(),
            timed(proto::GetStateRequest {}, CALL_TIMEOUT),
        );
        within(CALL_TIMEOUT, "GetState", client.get_state(request)).await
    }

    /// The stream of states.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn watch(&self) -> Result<Streaming<proto::State>, CallError> {
        let request = Request::new(proto::GetStateRequest {});
        let answer = self.client().watch_state(request).await;
        Ok(answer.map_err(failed("WatchState"))?.into_inner())
    }

    /// Asks for a promise.
    ///
    /// # Errors
    /// When it does not answer in time; a refusal is an answer.
    pub async fn prepare(
        &self,
        prepare: &Prepare,
    ) -> Result<Result<Box<Promise>, NotObeyed>, CallError> {
        let (mut client, request) = (
            self.client(),
            timed(proto::PrepareRequest::from(prepare), SLOW_CALL_TIMEOUT),
        );
        let answer = within(SLOW_CALL_TIMEOUT, "Prepare", client.prepare(request)).await?;
        convert::prepare_result(answer).map_err(malformed("Prepare"))
    }

    /// Makes it master.
    ///
    /// # Errors
    /// When it does not answer in time; a refusal is an answer.
    pub async fn promote(
        &self,
        promote: &Promote,
    ) -> Result<Result<Promoted, NotObeyed>, CallError> {
        let (mut client, request) = (
            self.client(),
            timed(proto::PromoteRequest::from(promote), SLOW_CALL_TIMEOUT),
        );
        let answer = within(SLOW_CALL_TIMEOUT, "Promote", client.promote(request)).await?;
        convert::promote_result(answer).map_err(malformed("Promote"))
    }

    /// Tells it whom to follow.
    ///
    /// # Errors
    /// When it does not answer in time; a refusal is an answer.
    pub async fn follow(&self, follow: &Follow) -> Result<Result<(), NotObeyed>, CallError> {
        let (mut client, request) = (
            self.client(),
            timed(proto::FollowRequest::from(follow), CALL_TIMEOUT),
        );
        let answer = within(CALL_TIMEOUT, "Follow", client.follow(request)).await?;
        convert::follow_result(answer).map_err(malformed("Follow"))
    }

    /// Asks it to release its term.
    ///
    /// # Errors
    /// When it does not answer in time; a refusal is an answer.
    pub async fn hand_over(
        &self,
        handover: &Handover,
    ) -> Result<Result<Handed, NotObeyed>, CallError> {
        let (mut client, request) = (
            self.client(),
            timed(proto::HandoverRequest::from(handover), SLOW_CALL_TIMEOUT),
        );
        let answer = within(SLOW_CALL_TIMEOUT, "Handover", client.handover(request)).await?;
        convert::handover_result(answer).map_err(malformed("Handover"))
    }

    /// Tells it who votes and who the members are.
    ///
    /// # Errors
    /// When it does not answer in time; a refusal is an answer.
    pub async fn set_voters(
        &self,
        voters: &VoterSet,
        peers: &[Peer],
    ) -> Result<Result<(), NotObeyed>, CallError> {
        let request = proto::SetVotersRequest {
            voters: Some(voters.into()),
            peers: peers.iter().map(proto::Peer::from).collect(),
        };
        let (mut client, request) = (self.client(), timed(request, SLOW_CALL_TIMEOUT));
        let answer = within(SLOW_CALL_TIMEOUT, "SetVoters", client.set_voters(request)).await?;
        convert::set_voters_result(answer).map_err(malformed("SetVoters"))
    }

    /// Tells it which passwords count.
    ///
    /// # Errors
    /// When it does not answer in time or refuses.
    pub async fn set_credentials(
        &self,
        credentials: proto::SetCredentialsRequest,
    ) -> Result<u64, CallError> {
        let (mut client, request) = (self.client(), timed(credentials, SLOW_CALL_TIMEOUT));
        let call = client.set_credentials(request);
        Ok(within(SLOW_CALL_TIMEOUT, "SetCredentials", call)
            .await?
            .revision)
    }

    /// Tells it its configuration.
    ///
    /// # Errors
    /// When it does not answer in time or refuses.
    pub async fn set_config(
        &self,
        config: proto::SetConfigRequest,
    ) -> Result<proto::SetConfigReply, CallError> {
        let (mut client, request) = (self.client(), timed(config, SLOW_CALL_TIMEOUT));
        within(SLOW_CALL_TIMEOUT, "SetConfig", client.set_config(request)).await
    }
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The answer to a call that has to come until then. The deadline that the request names begins with the connection; calls
/// that wait for one would wait for each other.
async fn within<T>(
    deadline: Duration,
    name: &'static str,
    call: impl Future<Output = Result<Response<T>, tonic::Status>>,
) -> Result<T, CallError> {
    let late = |_| Err(tonic::Status::deadline_exceeded("no answer in time"));
    let answer = timeout(deadline, call).await.unwrap_or_else(late);
    Ok(answer.map_err(failed(name))?.into_inner())
}

fn failed(call: &'static str) -> impl FnOnce(tonic::Status) -> CallError {
    move |status| CallError::Status {
        call,
        status: Box::new(status),
    }
}

fn malformed(call: &'static str) -> impl FnOnce(convert::Malformed) -> CallError {
    move |error| CallError::Malformed {
        call,
        text: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::Instant;

    use super::*;

    /// A port where no connection is accepted and none is refused: those that wait already fill it.
    async fn dark_port() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(CALL_TIMEOUT, TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn many_calls_to_a_dark_member_do_not_wait_for_each_other() {
        let (listener, _waiting) = dark_port().await;
        let address = listener.local_addr().unwrap();
        let remote = Remote::new(address.ip(), address.port(), "token").unwrap();
        let began = Instant::now();
        let answers = join_all((0..20).map(|_| remote.state())).await;
        assert!(answers.iter().all(Result::is_err));
        // One connection after the other would take six seconds.
        assert!(began.elapsed() < CONNECT_TIMEOUT * 10);
    }
}
