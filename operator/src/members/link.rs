//! One member's stream of states, and what its breaking says.
//!
//! Started and dropped by `guard`; a dropped link ends its task. What it finds goes into the
//! guard's bounded queue.

use std::{
    error::Error as _,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use control::proto;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::Streaming;
use tracing::{debug, warn};

use super::remote::{CONNECT_TIMEOUT, CallError, Remote};
use crate::failover::health::Line;

/// A member speaks at least once a second; silence beyond this is a broken line.
const SILENCE: Duration = Duration::from_millis(1_250);
/// First pause before connecting again.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause before connecting again.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What a link has to say.
#[derive(Debug)]
pub struct Event {
    /// The member.
    pub member: String,
    /// The address that was spoken to: events of an older address are ignored.
    pub address: IpAddr,
    /// What happened.
    pub news: News,
}

/// What happened on a link.
#[derive(Debug)]
pub enum News {
    /// It spoke.
    State(Box<proto::State>),
    /// The line is broken in this way.
    Line(Line),
}

/// A running link; dropping it ends it.
#[derive(Debug)]
pub struct Link {
    /// Where the member is.
    pub address: IpAddr,
    /// The token it is spoken to with.
    pub token: String,
    /// For calls.
    pub remote: Remote,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts a link to the control port of `member`.
    ///
    /// # Errors
    /// When the token cannot be sent.
    pub fn start(
        member: String,
        address: IpAddr,
        port: u16,
        token: &str,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, CallError> {
        let remote = Remote::new(address, port, token)?;
        let watcher = Watcher {
            member,
            address: SocketAddr::new(address, port),
            remote: remote.clone(),
            events,
        };
        let task = tokio::spawn(watcher.run());
        Ok(Self {
            address,
            token: token.to_owned(),
            remote,
            task,
        })
    }
}

struct Watcher {
    member: String,
    address: SocketAddr,
    remote: Remote,
    events: mpsc::Sender<Event>,
}

/// How a stream ended.
enum End {
    /// The other end closed it, or its kernel did.
    Closed,
    /// Nothing came for too long, or the network gave up.
    Silent,
    /// The guard is gone.
    Unwanted,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        // Whether the last stream was closed by the other end: proof that something there lived.
        let mut closed = false;
        loop {
            let found = probe(self.address).await;
            let line = match found {
                Ok(()) => match timeout(SILENCE, self.remote.watch()).await {
                    Ok(Ok(stream)) => {
                        let (end, spoke) = self.follow(stream).await;
                        if spoke {
                            (pause, closed) = (MIN_PAUSE, false);
                        }
                        match end {
                            End::Unwanted => return,
                            End::Silent => Line::Silent,
                            End::Closed => {
                                closed = true;
                                if spoke {
                                    // The next probe tells whether anybody still listens.
                                    continue;
                                }
                                Line::Closed
                            }
                        }
                    }
                    Ok(Err(error)) => {
                        debug!(member = self.member, %error, "control port");
                        if closed { Line::Closed } else { Line::Unknown }
                    }
                    Err(_) => Line::Silent,
                },
                Err(Probe::Refused) => Line::Refused,
                Err(Probe::Unreachable) if closed => Line::Closed,
                Err(Probe::Unreachable) => Line::Unreachable,
            };
            if line == Line::Silent || found == Err(Probe::Unreachable) {
                self.remote.connect_anew();
            }
            // Each time: a state that was asked for may have come since.
            if !self.send(News::Line(line)).await {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Passes states on until the stream ends; also whether any came.
    async fn follow(&mut self, mut stream: Streaming<proto::State>) -> (End, bool) {
        let mut spoke = false;
        loop {
            match timeout(SILENCE, stream.message()).await {
                Err(_) => return (End::Silent, spoke),
                Ok(Ok(None)) => return (End::Closed, spoke),
                Ok(Err(status)) => {
                    let end = if gave_up(&status) {
                        End::Silent
                    } else {
                        End::Closed
                    };
                    if status.code() == tonic::Code::Unauthenticated {
                        warn!(member = self.member, "the member refuses the control token");
                    }
                    return (end, spoke);
                }
                Ok(Ok(Some(state))) => {
                    spoke = true;
                    if !self.send(News::State(Box::new(state))).await {
                        return (End::Unwanted, spoke);
                    }
                }
            }
        }
    }

    async fn send(&self, news: News) -> bool {
        let event = Event {
            member: self.member.clone(),
            address: self.address.ip(),
            news,
        };
        self.events.send(event).await.is_ok()
    }
}

/// Why a plain connection could not be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    /// Nobody listens there.
    Refused,
    /// Nothing answers there.
    Unreachable,
}

/// Whether the kernel at `address` accepts connections.
///
/// # Errors
/// Why not.
pub async fn probe(address: SocketAddr) -> Result<(), Probe> {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Probe::Refused),
        Ok(Err(_)) | Err(_) => Err(Probe::Unreachable),
    }
}

/// Whether an error means that our side gave up, rather than that the other side closed.
fn gave_up(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::TimedOut
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            );
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_port_without_listener_is_refused_and_one_with_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address).await, Ok(()));
        drop(listener);
        assert_eq!(probe(address).await, Err(Probe::Refused));
    }

    #[tokio::test]
    async fn a_process_that_accepts_and_says_nothing_is_silent_and_one_that_died_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, mut heard) = mpsc::channel(4);
        let link = Link::start("m-0".into(), address.ip(), address.port(), "t", events).unwrap();
        let first = heard.recv().await.unwrap();
        assert!(matches!(first.news, News::Line(Line::Silent)), "{first:?}");
        drop(listener);
        loop {
            if let News::Line(Line::Refused) = heard.recv().await.unwrap().news {
                break;
            }
        }
        drop(link);
    }

    #[tokio::test]
    async fn what_did_not_answer_is_called_over_another_connection() {
        const PREFACE: &[u8] = b"PRI * HTTP/2";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, _heard) = mpsc::channel(4);
        let link = Link::start("m-0".into(), address.ip(), address.port(), "t", events).unwrap();
        let mut kept = Vec::new();
        while kept.len() < 2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut begin = [0; PREFACE.len()];
            // A probe says nothing.
            if stream.read_exact(&mut begin).await.is_ok() {
                assert_eq!(begin, PREFACE);
                kept.push(stream);
            }
        }
        drop(link);
    }
}
