//! Managed mode: this server as a member of a replica set, told its role over the control port.
//!
//! Owns: the member's state file, the control port, the heartbeats, and everything that turns a
//! decision of [`replset::Member`] into a deed of the engine. Called by `server.rs` at start and at
//! the end. The rules themselves are in the crate `replset`, the wire in the crate `control`.
//!
//! ```text
//!  operator, peers ──gRPC──► service ──┐ requests           ┌──► state file (fsync)
//!                                      ▼                    │
//!                      acks ──────► agent: replset::Member ─┼──► port: engine, gate, clients
//!                        ▲             (one thread)         │
//!                        └── peers ◄── heartbeats ──────────┘
//! ```
//!
//! Invariants:
//! - the agent's thread takes one input at a time and performs its outputs in order, so an answer
//!   leaves after the state that backs it is on disk;
//! - control traffic has its own threads: a full synchronization or a long command of a client
//!   cannot hold up a heartbeat (the agent waits for the engine's lock only to change a role);
//! - the gate (`Shared::serve_until_ms`) is shut before anything else when a mastership ends.
//!
//! Read next: `agent.rs`, `port.rs`, `state_file.rs`, `service.rs`, `peers.rs`, `report.rs`.

mod agent;
mod credentials;
mod directives;
mod peers;
mod port;
mod report;
mod service;
mod state_file;
mod tokens;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use replset::{Boot, Endpoint, Incarnation, Member, Timing};
use tokio::sync::oneshot;

use crate::{
    config::Config,
    engine::{Engine, Shared, clock},
};

use agent::{Agent, Command, Sender};
use port::EnginePort;
use state_file::{StateFile, StateFileError};
use tokens::TokenFile;

pub use credentials::admit_configured;
pub use port::Origin as DatasetOrigin;

/// How long a leaving master waits until its replicas have everything.
const LEAVE_BUDGET: Duration = Duration::from_secs(2);
/// How long a master that gave up its term stays reachable, so that its release is seen.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why managed mode could not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    /// The state file.
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    /// The token file cannot be read, or is empty.
    #[error("cannot use the control-token-file '{}': {problem}", path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The control port is taken.
    #[error("cannot listen on {address} (control-port): {source}; stop the program that holds it")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A running member.
#[derive(Debug)]
pub struct Managed {
    agent: Sender,
}

/// Where other members find this one: the announced address, else its name.
fn announced_host(config: &Config) -> String {
    match config.replication.announce_ip.as_str() {
        "" => config.fleet.member_name.clone(),
        address => address.to_owned(),
    }
}

/// Shuts the gate of a server that will be a member. To be called before it listens, long before
/// [`Managed::start`]: its data may take minutes to load.
pub fn shut_gate(shared: &Shared) {
    shared.serve_until_ms.shut();
}

impl Managed {
    /// Starts the member. The engine has loaded its data and the gate is shut; it comes out of
    /// this as a replica that has not been told its master.
    pub fn start(
        engine: &Arc<Engine>,
        config: &Config,
        dataset: DatasetOrigin,
    ) -> Result<Self, ManagedError> {
        let tokens = TokenFile::open(config.fleet.control_token_file.clone().unwrap_or_default())?;
        let listener = listen(config)?;
        // The process works in `dir`.
        let file = StateFile::open(Path::new("."))?;
        let port = EnginePort::new(engine.clone(), dataset);
        let data = port.fence();
        let boot = Boot {
            fleet: config.fleet.fleet_id.as_str().into(),
            name: config.fleet.member_name.as_str().into(),
            endpoint: Endpoint {
                host: announced_host(config),
                port: config.net.port,
                control_port: config.fleet.control_port,
            },
            fresh: Incarnation(rand::random()),
            data,
            now_ms: now_ms(),
        };
        let (member, outputs) = Member::start(file.load()?, boot, Timing::default());
        tracing::info!(
            member = %member.state().id.name,
            boot = member.state().boot,
            position = %member.position(),
            "a managed member, waiting to be told its role"
        );
        let (sender, inbox) = agent::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ManagedError::Thread)?;
        let peers = peers::Peers::new(runtime.handle().clone(), sender.clone(), tokens.clone());
        let mut agent = Agent::new(member, port, file, peers);
        agent.perform(outputs);
        let states = agent.states();
        spawn("managed-agent", move || agent.run(&inbox))?;
        let service = service::MemberService::new(sender.clone(), states);
        let serve = service::serve(listener, service, tokens);
        spawn("control", move || runtime.block_on(serve))?;
        Ok(Self { agent: sender })
    }

    /// The process is told to end. A master lets a replica catch up, gives up its term and stays
    /// reachable for a moment, so that the operator learns of it and need not wait for the lease.
    pub async fn leave(&self) {
        let (done, handed) = oneshot::channel();
        let budget_ms = LEAVE_BUDGET.as_millis() as u64;
        if self.agent.send(Command::Leave { budget_ms, done }).is_err() {
            return;
        }
        match tokio::time::timeout(LEAVE_BUDGET + Duration::from_millis(500), handed).await {
            Ok(Ok(agent::Left::Released)) => {}
            Ok(Ok(agent::Left::WasNoMaster) | Err(_)) | Err(_) => return,
        }
        let (succeeded, successor) = oneshot::channel();
        if self
            .agent
            .send(Command::AwaitSuccessor { done: succeeded })
            .is_ok()
        {
            let waited = tokio::time::timeout(FAREWELL, successor).await;
            tracing::info!(followed = waited.is_ok(), "the mastership was given away");
        }
    }

    /// No data come any more, neither from clients, which are held, nor from a master, and no mastership begins:
    /// what is saved from now on is all there is.
    pub async fn freeze(&self) {
        let (done, frozen) = oneshot::channel();
        if self.agent.send(Command::Freeze { done }).is_ok() {
            // Without an answer the agent is gone, and nobody marks the exit as clean.
            let _gone = frozen.await;
        }
    }

    /// What there was when it was frozen is saved: the next start knows that nothing is missing. Nothing is
    /// acknowledged after it.
    pub async fn exited_cleanly(&self) {
        let (done, written) = oneshot::channel();
        if self.agent.send(Command::CleanExit { done }).is_ok() {
            // Without an answer the agent is gone, and the mark is only missing.
            let _missing = written.await;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ManagedError> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(ManagedError::Thread)?;
    Ok(())
}

fn listen(config: &Config) -> Result<std::net::TcpListener, ManagedError> {
    let port = config.fleet.control_port;
    let addresses = match config.fleet.control_bind.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        // `*`: both protocols where the machine has both.
        Err(_) => vec![
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        ],
    };
    let address = addresses
        .first()
        .copied()
        .unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    let failed = |source| ManagedError::Listen { address, source };
    let listener = std::net::TcpListener::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Milliseconds of the clock that leases are measured with.
fn now_ms() -> u64 {
    u64::try_from(clock::monotonic_ms()).unwrap_or(0)
}
