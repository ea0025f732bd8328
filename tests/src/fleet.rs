//! Real servers in managed mode on loopback, and an elector that drives them as the operator would:
//! [`replset::Election`] over the control port, nothing else.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use control::{
    auth::BearerToken,
    convert,
    proto::{self, member_client::MemberClient},
};
use replset::{
    Bootstrapped, CutTails, Election, ElectionPlan, EmptySet, Endpoint, Follow, Generation, Handed,
    Handover, History, Intent, NotObeyed, Offset, OldMaster, Peer, Prepare, Promise, Promotion,
    QuorumLost, Refusal, ReplId, Term, TermStart, Timing, VoterSet, master_is_lost,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Request, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    ports::free_port,
    servers::{Program, Server, eventually},
};

/// Longest wait for a condition of a set.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait for an answer on the control port.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the elector waits for a member that does not answer: one that is there may be starved.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(3);
const TOKEN: &str = "the-token-of-the-tests";
const FLEET: &str = "6b1f2c9e-fleet-of-the-tests";

type Client = MemberClient<InterceptedService<Channel, BearerToken>>;

/// One member.
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its process.
    pub server: Server,
    /// Its control port.
    pub control_port: u16,
}

/// A set of managed servers.
pub struct Fleet {
    /// Its members, in the order of their names `m-0`, `m-1` …
    pub members: Vec<Member>,
    /// The highest term obtained so far.
    pub term: u64,
    runtime: Runtime,
    token_file: PathBuf,
    _folder: TempDir,
}

impl Fleet {
    /// Starts `size` members that have not been told anything.
    pub fn start(size: usize, options: &[&str]) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("redfleet-fleet-")?;
        let token_file = folder.path().join("token");
        fs::write(&token_file, TOKEN)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut fleet = Self {
            members: Vec::new(),
            term: 0,
            runtime,
            token_file,
            _folder: folder,
        };
        for at in 0..size {
            let member = fleet.spawn(&format!("m-{at}"), options)?;
            fleet.members.push(member);
        }
        for at in 0..size {
            fleet.wait(at, "its control port", |_| true)?;
        }
        Ok(fleet)
    }

    /// Starts `size` members and makes the first one master of them, all voting.
    pub fn bootstrapped(size: usize, options: &[&str]) -> anyhow::Result<Self> {
        let mut fleet = Self::start(size, options)?;
        fleet.elect(Intent::Unplanned, Bootstrapped::No)?;
        fleet.wait(0, "to serve as master", |state| state.serving)?;
        for at in 0..size {
            fleet.wait(at, "a vote", |state| state.vote() == proto::Vote::Granted)?;
        }
        for at in 1..size {
            fleet.wait_attached(at, 0)?;
        }
        Ok(fleet)
    }

    /// Starts members again that have all ended.
    pub fn respawn_all(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.server.respawn()?;
        }
        for at in 0..self.members.len() {
            self.wait(at, "its control port", |_| true)?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, options: &[&str]) -> anyhow::Result<Member> {
        let control_port = free_port()?;
        let (control, token) = (
            control_port.to_string(),
            self.token_file.display().to_string(),
        );
        let mut all = vec![
            "--managed",
            "yes",
            "--member-name",
            name,
            "--fleet-id",
            FLEET,
        ];
        all.extend(["--control-port", &control, "--control-bind", "127.0.0.1"]);
        all.extend(["--control-token-file", &token]);
        all.extend(["--replica-announce-ip", "127.0.0.1"]);
        all.extend(options);
        let server = Server::spawn_in_memory(Program::Redfleet, &all)?;
        Ok(Member {
            name: name.to_owned(),
            server,
            control_port,
        })
    }

    /// Where a member is.
    pub fn peer(&self, at: usize) -> Peer {
        let member = &self.members[at];
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            port: member.server.port,
            control_port: member.control_port,
        };
        Peer {
            name: member.name.as_str().into(),
            endpoint,
        }
    }

    /// All members as voters.
    pub fn voters(&self) -> VoterSet {
        let voters = self
            .members
            .iter()
            .map(|member| member.name.as_str().into())
            .collect();
        VoterSet {
            generation: Generation(1),
            voters,
        }
    }

    fn client(&self, at: usize, token: &str) -> anyhow::Result<Client> {
        let port = self.members[at].control_port;
        let _inside = self.runtime.enter();
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}"))?
            .connect_timeout(Duration::from_millis(300))
            .connect_lazy();
        Ok(MemberClient::with_interceptor(
            channel,
            BearerToken::new(token)?,
        ))
    }

    /// The state of a member now.
    pub fn state(&self, at: usize) -> anyhow::Result<proto::State> {
        let mut client = self.client(at, TOKEN)?;
        let call = timed(proto::GetStateRequest {}, CALL_TIMEOUT);
        Ok(self.runtime.block_on(client.get_state(call))?.into_inner())
    }

    /// What a call with this token is answered.
    pub fn state_with_token(&self, at: usize, token: &str) -> Result<proto::State, tonic::Status> {
        let client = self.client(at, token);
        let mut client = client.map_err(|error| tonic::Status::internal(error.to_string()))?;
        let call = timed(proto::GetStateRequest {}, CALL_TIMEOUT);
        self.runtime
            .block_on(client.get_state(call))
            .map(tonic::Response::into_inner)
    }

    /// The next `count` states that a member publishes.
    pub fn watch(&self, at: usize, count: usize) -> anyhow::Result<Vec<proto::State>> {
        let mut client = self.client(at, TOKEN)?;
        let collect = async {
            let mut stream = client
                .watch_state(proto::GetStateRequest {})
                .await?
                .into_inner();
            let mut states = Vec::new();
            while states.len() < count {
                let state = stream
                    .message()
                    .await?
                    .context("the stream of states has ended")?;
                states.push(state);
            }
            anyhow::Ok(states)
        };
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, collect).await })?
    }

    /// Waits until a member's state is as wanted.
    pub fn wait(
        &self,
        at: usize,
        what: &str,
        is_so: impl Fn(&proto::State) -> bool,
    ) -> anyhow::Result<proto::State> {
        let name = &self.members[at].name;
        let mut last = None;
        let found = eventually(&format!("{name}: {what}"), DEADLINE, || {
            let state = self.state(at)?;
            last = Some(state.clone());
            Ok(is_so(&state).then_some(state))
        });
        found.with_context(|| format!("its last state: {last:#?}\n{}", self.logs()))
    }

    /// The ends of all logs.
    fn logs(&self) -> String {
        let log = |member: &Member| format!("{}:\n{}\n", member.name, tail(&member.server.log()));
        self.members.iter().map(log).collect()
    }

    /// Waits until a member follows `master`, attached and without a lag.
    pub fn wait_attached(&self, at: usize, master: usize) -> anyhow::Result<proto::State> {
        let name = self.members[master].name.clone();
        self.wait(at, "to follow its master", |state| {
            state.master == name && state.link() == proto::Link::Up && state.lag_bytes == 0
        })
    }

    /// Asks for a promise.
    pub fn prepare(
        &self,
        at: usize,
        prepare: &Prepare,
    ) -> anyhow::Result<Result<Box<Promise>, NotObeyed>> {
        let mut client = self.client(at, TOKEN)?;
        let call = timed(proto::PrepareRequest::from(prepare), PREPARE_TIMEOUT);
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(PREPARE_TIMEOUT, client.prepare(call)).await
        })??;
        Ok(convert::prepare_result(answer.into_inner())?)
    }

    /// A request for this term.
    pub fn request(&self, term: u64, elector: &str, intent: Intent) -> Prepare {
        Prepare {
            fleet: FLEET.into(),
            heir_of: None,
            term: Term(term),
            elector: elector.into(),
            generation: Generation(1),
            intent,
        }
    }

    /// Waits until a majority misses the master, as the operator does before an unplanned election.
    pub fn wait_master_lost(&self) -> anyhow::Result<()> {
        eventually("a majority to miss the master", DEADLINE, || {
            let states = (0..self.members.len()).filter_map(|at| self.state(at).ok());
            let sightings: Vec<_> = states.filter_map(|state| state.sighting()).collect();
            Ok(master_is_lost(&self.voters(), &sightings, &Timing::default()).ok())
        })
    }

    /// Runs an election in the next term.
    pub fn elect(
        &mut self,
        intent: Intent,
        bootstrapped: Bootstrapped,
    ) -> anyhow::Result<Promotion> {
        self.elect_preferring(intent, bootstrapped, None)
    }

    /// Runs an election in the next term; among equals this member wins.
    pub fn elect_preferring(
        &mut self,
        intent: Intent,
        bootstrapped: Bootstrapped,
        preferred: Option<usize>,
    ) -> anyhow::Result<Promotion> {
        self.term += 1;
        let all = 0..self.members.len();
        let preference = preferred.map(|at| self.members[at].name.as_str().into());
        let mut election = Election::new(ElectionPlan {
            heir_of: None,
            fleet: FLEET.into(),
            term: Term(self.term),
            elector: "elector".into(),
            intent,
            voters: self.voters(),
            peers: all.clone().map(|at| self.peer(at)).collect(),
            bootstrapped,
            preference: preference.into_iter().collect(),
            passed_over: None,
            old_master: OldMaster::Unknown,
            in_sync: Vec::new(),
            on_empty: EmptySet::Halt,
            on_quorum_lost: QuorumLost::Halt,
            on_cut_tails: CutTails::Accept,
            random: [self.term as u8; 12],
        });
        let began = Instant::now();
        let now_ms = || began.elapsed().as_millis() as u64;
        for at in all {
            let name = self.members[at].name.as_str().into();
            match self.prepare(at, &election.prepare()) {
                Ok(answer) => election.record(now_ms(), &name, answer),
                Err(_) => election.unreachable(&name),
            }
        }
        let decided = election.decide(now_ms());
        let promotion = decided.map_err(|refusal: Refusal| anyhow::anyhow!("{refusal}"))?;
        self.promote(&promotion)?;
        Ok(promotion)
    }

    fn promote(&self, promotion: &Promotion) -> anyhow::Result<()> {
        let winner = self.index(promotion.winner.name.as_str())?;
        let mut client = self.client(winner, TOKEN)?;
        let call = timed(
            proto::PromoteRequest::from(&promotion.promote),
            CALL_TIMEOUT,
        );
        let answer = self.runtime.block_on(client.promote(call))?.into_inner();
        let promoted = convert::promote_result(answer)??;
        let follow = promotion.follow(&promoted);
        for at in (0..self.members.len()).filter(|at| *at != winner) {
            let mut client = self.client(at, TOKEN)?;
            let call = timed(proto::FollowRequest::from(&follow), PREPARE_TIMEOUT);
            // Whoever is away learns it from the heartbeats of the new master.
            let _away = self.runtime.block_on(async {
                tokio::time::timeout(PREPARE_TIMEOUT, client.follow(call)).await
            });
        }
        Ok(())
    }

    /// Tells a member to follow whoever listens on `port` of this machine, as the master of term 1.
    pub fn follow_stranger(&self, at: usize, port: u16) -> anyhow::Result<()> {
        let term = Term(1);
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            control_port: port,
        };
        let master = Peer {
            name: "stranger".into(),
            endpoint,
        };
        let follow = Follow {
            fleet: FLEET.into(),
            term,
            master,
            history: History::new(vec![TermStart {
                term,
                start: Offset(0),
                replid: ReplId::stamped(term, [7; 12]),
            }]),
            voters: self.voters(),
            peers: Vec::new(),
        };
        let mut client = self.client(at, TOKEN)?;
        let call = timed(proto::FollowRequest::from(&follow), CALL_TIMEOUT);
        let answer = self.runtime.block_on(client.follow(call))?.into_inner();
        Ok(convert::follow_result(answer)??)
    }

    /// Which member has this name.
    pub fn index(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.members.iter().position(|member| member.name == name);
        found.with_context(|| format!("no member is called {name}"))
    }

    /// Asks the master to give its term to `target`.
    pub fn hand_over(
        &self,
        master: usize,
        target: usize,
        budget: Duration,
    ) -> anyhow::Result<Result<Handed, NotObeyed>> {
        let handover = Handover {
            term: Term(self.state(master)?.term),
            target: Some(self.members[target].name.as_str().into()),
            budget_ms: budget.as_millis() as u64,
            token: 4_711,
        };
        let mut client = self.client(master, TOKEN)?;
        let call = timed(
            proto::HandoverRequest::from(&handover),
            budget + CALL_TIMEOUT,
        );
        let answer = self.runtime.block_on(client.handover(call))?;
        Ok(convert::handover_result(answer.into_inner())?)
    }

    /// Pushes credentials to one member.
    pub fn set_credentials(
        &self,
        at: usize,
        request: proto::SetCredentialsRequest,
    ) -> Result<u64, tonic::Status> {
        let client = self.client(at, TOKEN);
        let mut client = client.map_err(|error| tonic::Status::internal(error.to_string()))?;
        let call = timed(request, CALL_TIMEOUT);
        self.runtime
            .block_on(client.set_credentials(call))
            .map(|answer| answer.into_inner().revision)
    }

    /// Pushes configuration to one member.
    pub fn set_config(
        &self,
        at: usize,
        request: proto::SetConfigRequest,
    ) -> anyhow::Result<proto::SetConfigReply> {
        let mut client = self.client(at, TOKEN)?;
        let call = timed(request, CALL_TIMEOUT);
        Ok(self.runtime.block_on(client.set_config(call))?.into_inner())
    }

    /// The one member that serves as master; fails if there are several.
    pub fn master(&self) -> anyhow::Result<usize> {
        let serves = |at: &usize| {
            let state = self.state(*at);
            state.is_ok_and(|s| s.role() == proto::Role::Master && s.serving)
        };
        let serving: Vec<usize> = (0..self.members.len()).filter(serves).collect();
        match serving.as_slice() {
            [one] => Ok(*one),
            other => bail!("masters that serve: {other:?}"),
        }
    }
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The end of a log.
fn tail(log: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
