//! Heartbeats on their way: one task per peer sends them and brings the answers to the agent.
//!
//! A peer that does not answer costs nothing but its own heartbeats: at most
//! [`MAX_HEARTBEATS_UNDER_WAY`] of them wait for an answer, further ones are dropped, which is what
//! would have become of them anyway.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use control::{
    auth::BearerToken,
    convert,
    proto::{self, member_client::MemberClient},
};
use replset::{Endpoint, Heartbeat, MemberName, Peer};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};
use tonic::{
    Request,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint as Target},
};

use super::{
    agent::{Command, Sender},
    tokens::TokenFile,
};

/// Heartbeats to one peer that wait for an answer, at most.
const MAX_HEARTBEATS_UNDER_WAY: usize = 8;
/// Heartbeats to one peer that wait to be sent, at most.
const MAX_HEARTBEATS_QUEUED: usize = 8;
/// An answer that takes longer is of no use to a lease.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(600);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// A connection whose other end is gone without a word is given up after twice this time.
const KEEP_ALIVE: Duration = Duration::from_millis(1_000);

type Client = MemberClient<InterceptedService<Channel, BearerToken>>;

/// The peers of a master.
#[derive(Debug)]
pub struct Peers {
    runtime: Handle,
    agent: Sender,
    tokens: TokenFile,
    links: BTreeMap<MemberName, Link>,
}

#[derive(Debug)]
struct Link {
    endpoint: Endpoint,
    token: Option<String>,
    heartbeats: mpsc::Sender<Box<Heartbeat>>,
}

impl Peers {
    /// No links yet; they are made by the first heartbeat.
    pub fn new(runtime: Handle, agent: Sender, tokens: TokenFile) -> Self {
        Self {
            runtime,
            agent,
            tokens,
            links: BTreeMap::new(),
        }
    }

    /// Sends a heartbeat, soon, or not at all if earlier ones are stuck.
    pub fn send(&mut self, peer: &Peer, heartbeat: Box<Heartbeat>) {
        let token = self.tokens.accepted().first().map(str::to_owned);
        let usable = self.links.get(&peer.name).is_some_and(|link| {
            link.endpoint == peer.endpoint && link.token == token && !link.heartbeats.is_closed()
        });
        if !usable {
            let Some(link) = self.connect(peer, token) else {
                return;
            };
            self.links.insert(peer.name.clone(), link);
        }
        if let Some(link) = self.links.get(&peer.name) {
            // Full: the peer does not answer; the next heartbeat says the same and more.
            let _dropped = link.heartbeats.try_send(heartbeat);
        }
    }

    /// Forgets the links of members that are gone, and takes a changed token over.
    pub fn keep(&mut self, members: &[Peer]) {
        self.links
            .retain(|name, _| members.iter().any(|peer| peer.name == *name));
        self.tokens.refresh();
    }

    fn connect(&self, peer: &Peer, token: Option<String>) -> Option<Link> {
        let Endpoint {
            host, control_port, ..
        } = &peer.endpoint;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let target = match Target::from_shared(format!("http://{host}:{control_port}")) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(peer = %peer.name, %error, "a peer's address cannot be used");
                return None;
            }
        };
        let target = target
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let credential = self.tokens.own()?;
        let _inside = self.runtime.enter();
        let client = MemberClient::with_interceptor(target.connect_lazy(), credential);
        let (heartbeats, queue) = mpsc::channel(MAX_HEARTBEATS_QUEUED);
        let name = peer.name.clone();
        self.runtime
            .spawn(send_all(name, client, queue, self.agent.clone()));
        Some(Link {
            endpoint: peer.endpoint.clone(),
            token,
            heartbeats,
        })
    }
}

async fn send_all(
    name: MemberName,
    client: Client,
    mut queue: mpsc::Receiver<Box<Heartbeat>>,
    agent: Sender,
) {
    let under_way = Arc::new(Semaphore::new(MAX_HEARTBEATS_UNDER_WAY));
    while let Some(heartbeat) = queue.recv().await {
        let Ok(permit) = under_way.clone().try_acquire_owned() else {
            continue;
        };
        let (name, mut client, agent) = (name.clone(), client.clone(), agent.clone());
        tokio::spawn(async move {
            let mut request = Request::new(proto::HeartbeatRequest::from(&*heartbeat));
            request.set_timeout(ANSWER_TIMEOUT);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.heartbeat(request)).await;
            drop(permit);
            match answer {
                Ok(Ok(answer)) => match convert::heartbeat_result(answer.into_inner()) {
                    // A full inbox: the acknowledgement is lost, the next one says the same.
                    Ok(result) => drop(agent.send(Command::Ack(name, result))),
                    Err(error) => tracing::warn!(peer = %name, %error, "an answer makes no sense"),
                },
                Ok(Err(status)) => tracing::debug!(peer = %name, %status, "no acknowledgement"),
                Err(_) => tracing::debug!(peer = %name, "no acknowledgement in time"),
            }
        });
    }
}
