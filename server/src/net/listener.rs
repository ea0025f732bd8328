//! Binds, accepts, sets socket options, refuses what may not connect.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::engine::{Engine, clients::ClientHandle, clock};

/// Wait after a failed `accept` (usually: out of file descriptors).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Longest times between probes of a connection that Linux takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`).
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// Shortest such time.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
/// Probes without an answer after which the kernel ends a connection; as in Redis.
const KEEPALIVE_PROBES: u32 = 3;

const DENIED: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is \
enabled and no password is set for the default user. In this mode connections are only accepted \
from the loopback interface. If you want to connect from external computers, set a password \
(requirepass), or bind only to loopback, or disable protected mode with 'protected-mode no' if \
you are sure that the network is safe.\r\n";
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// A listening socket on `address`. Fails where another process has the port.
pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Accepts for ever and gives each admitted connection to `give`.
pub async fn accept(
    listener: std::net::TcpListener,
    engine: Arc<Engine>,
    give: impl Fn(std::net::TcpStream, Arc<ClientHandle>),
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut last = Accepting::Works;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                last = Accepting::Works;
                if let Err(error) = admit(stream, peer, &engine, &give) {
                    tracing::debug!(%peer, %error, "connection refused");
                }
            }
            Err(error) => {
                // Once for each row of failures: there are ten a second.
                if last == Accepting::Works {
                    tracing::warn!(%error, "accepting a connection failed");
                }
                last = Accepting::Fails;
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// How the last `accept` ended.
#[derive(PartialEq, Eq)]
enum Accepting {
    Works,
    Fails,
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    engine: &Engine,
    give: &impl Fn(std::net::TcpStream, Arc<ClientHandle>),
) -> io::Result<()> {
    let (refusal, login) = {
        let mut state = engine.lock();
        let config = &state.core.config;
        let keepalive = config.net.tcp_keepalive;
        let limit = config.net.max_clients as usize;
        let login = state.core.users.open_login();
        let protected =
            config.net.protected_mode && login.is_some() && !peer.ip().to_canonical().is_loopback();
        let full = engine.shared.clients.len() >= limit;
        state.core.stats.connections_received += 1;
        state.core.stats.connections_rejected += u64::from(full || protected);
        keep_alive(&stream, keepalive);
        let refusal = if protected {
            Some(DENIED)
        } else if full {
            Some(TOO_MANY)
        } else {
            None
        };
        (refusal, login)
    };
    if let Some(text) = refusal {
        // The buffer of a new socket takes it. Nobody is waited for here: others want to be accepted.
        return stream.into_std()?.write_all(text);
    }
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let handle = engine.shared.clients.register(
        Arc::from(peer.to_string()),
        Arc::from(local.to_string()),
        login,
        clock::monotonic_ms(),
    );
    give(stream.into_std()?, handle);
    Ok(())
}

/// Has the kernel probe a connection that was quiet for `after`; zero: never. A connection serves without probes, too.
fn keep_alive(stream: &TcpStream, after: Duration) {
    if after.is_zero() {
        return;
    }
    let bounded = |time: Duration| time.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
    let keepalive = TcpKeepalive::new()
        .with_time(bounded(after))
        .with_interval(bounded(after / 3))
        .with_retries(KEEPALIVE_PROBES);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a connection without tcp-keepalive");
    }
}
