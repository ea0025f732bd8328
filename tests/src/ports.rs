//! Port numbers for the servers of tests.
//!
//! A server is told its port before it listens, and is restarted on the same one. Between those
//! moments nobody else may take the number, so [`free_port`] claims one for as long as the process
//! of the test lives:
//!
//! * from below the range that Linux takes for outgoing connections and for port 0, so that no
//!   connection of anybody lands on it;
//! * with a socket of the abstract namespace as the claim, which every other test process sees. Such
//!   names belong to a network namespace, as ports do, and end with the process, however it ends.

use std::{
    io::ErrorKind,
    net::TcpStream,
    ops::Range,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    sync::Mutex,
};

use anyhow::{Context, bail};

/// Above the well-known servers' ports; below Kubernetes' NodePorts (30000 on) and what Linux takes
/// by itself (`net.ipv4.ip_local_port_range`, 32768 on).
const PORTS: Range<u16> = 16_384..30_000;

/// The claims of this process, and the number to try next.
static CLAIMS: Mutex<Claims> = Mutex::new(Claims {
    held: Vec::new(),
    next: PORTS.start,
});

struct Claims {
    held: Vec<UnixListener>,
    next: u16,
}

/// A port of loopback that nobody listens on, and that no other call, in whatever test process,
/// returns while this process lives.
pub fn free_port() -> anyhow::Result<u16> {
    let mut claims = CLAIMS
        .lock()
        .expect("no test panics while it claims a port");
    for _ in PORTS {
        let port = claims.next;
        claims.next = if port + 1 == PORTS.end {
            PORTS.start
        } else {
            port + 1
        };
        if let Some(claim) = claim(port)? {
            claims.held.push(claim);
            return Ok(port);
        }
    }
    bail!("every port of {PORTS:?} is taken");
}

/// `None` where somebody has the number already.
fn claim(port: u16) -> anyhow::Result<Option<UnixListener>> {
    let name = SocketAddr::from_abstract_name(format!("redfleet-test-port-{port}"))
        .context("naming the claim of a port")?;
    let claim = match UnixListener::bind_addr(&name) {
        Ok(claim) => claim,
        Err(error) if error.kind() == ErrorKind::AddrInUse => return Ok(None),
        Err(error) => return Err(error).context("claiming a port"),
    };
    // Asked by connecting: the socket of a trial to listen would be inherited, for a moment, by a child that another thread is
    // making just then, and the server that gets the number could not listen.
    let is_free = TcpStream::connect(("127.0.0.1", port)).is_err();
    Ok(is_free.then_some(claim))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_listened_on() {
        let (one, other) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(one, other);
        assert!(claim(one).unwrap().is_none(), "the claim is held");
        TcpListener::bind(("127.0.0.1", one)).unwrap();
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(claim(port).unwrap().is_none());
    }
}
