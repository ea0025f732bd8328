//! The agent: one thread that owns the [`Member`], feeds it inputs and performs its outputs.
//!
//! Invariants: one input at a time; outputs in order, each finished before the next; if the state
//! cannot be written the process ends, because it may not go on with a promise it could forget.

use std::{
    collections::HashMap,
    process,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use control::proto;
use replset::{
    DataPosition, Follow, Handover, Heartbeat, HeartbeatAck, Held, Input, Member, MemberName,
    NotObeyed, Output, Peer, Prepare, Promote, Reply, RequestId, RoleKind, Serve, Timing, VoterSet,
};
use tokio::sync::{oneshot, watch};
use tonic::Status;

use super::{
    credentials::Credentials,
    directives::Directives,
    now_ms,
    peers::Peers,
    port::EnginePort,
    report::{self, Unreplicated, Urgent},
    state_file::StateFile,
};

/// Commands that wait for the agent, at most.
const MAX_COMMANDS_QUEUED: usize = 1_024;
/// Longest time between two looks at the engine.
const LOOK_EVERY_MS: u64 = 50;
/// Longest time between two published states.
const PUBLISH_EVERY_MS: u64 = 1_000;
/// Time between two looks at the token file.
const TOKENS_EVERY_MS: u64 = 2_000;
/// Status of a process whose state could not be written.
const EXIT_STATE_LOST: i32 = 74;

/// A request to the member.
#[derive(Debug)]
pub enum Ask {
    /// Of an elector.
    Prepare(Prepare),
    /// Of an elector.
    Promote(Box<Promote>),
    /// Of an elector.
    Follow(Box<Follow>),
    /// Of a master.
    Heartbeat(Box<Heartbeat>),
    /// Of the operator.
    Handover(Handover),
    /// Of the operator.
    Voters(VoterSet, Vec<Peer>),
}

/// What the agent is told.
#[derive(Debug)]
pub enum Command {
    /// A request, and where its answer goes.
    Ask(Ask, oneshot::Sender<Reply>),
    /// A peer has answered a heartbeat.
    Ack(MemberName, Result<HeartbeatAck, NotObeyed>),
    /// The state now.
    State(oneshot::Sender<Box<proto::State>>),
    /// New credentials.
    SetCredentials(
        Box<proto::SetCredentialsRequest>,
        oneshot::Sender<Result<proto::SetCredentialsReply, Status>>,
    ),
    /// New configuration.
    SetConfig(
        Box<proto::SetConfigRequest>,
        oneshot::Sender<Result<proto::SetConfigReply, Status>>,
    ),
    /// The process is told to end: give the mastership away.
    Leave {
        /// How long writes may be paused for it.
        budget_ms: u64,
        /// When it is done, or there was nothing to do.
        done: oneshot::Sender<Left>,
    },
    /// Tell when a successor is known.
    AwaitSuccessor {
        /// When this server follows somebody.
        done: oneshot::Sender<()>,
    },
    /// The data are about to be saved for the last time.
    Freeze {
        /// When nothing changes them any more.
        done: oneshot::Sender<()>,
    },
    /// They are saved. Nothing is taken after this.
    CleanExit {
        /// When that is on disk.
        done: oneshot::Sender<()>,
    },
}

/// How a leaving server left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It was master and has released its term.
    Released,
    /// It was no master, or no replica could take over in time.
    WasNoMaster,
}

/// Where commands go in.
#[derive(Clone, Debug)]
pub struct Sender(SyncSender<Command>);

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too many wait already.
    #[error("too many requests wait for this member")]
    Full,
    /// The agent has ended.
    #[error("this member is ending")]
    Ended,
}

impl Sender {
    /// Queues a command, without waiting.
    pub fn send(&self, command: Command) -> Result<(), NotTaken> {
        self.0.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Full,
            TrySendError::Disconnected(_) => NotTaken::Ended,
        })
    }
}

/// A new queue of commands.
pub fn channel() -> (Sender, Receiver<Command>) {
    let (sender, receiver) = sync_channel(MAX_COMMANDS_QUEUED);
    (Sender(sender), receiver)
}

/// Whether replicas' reads are served while no master is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplicaReads {
    /// It followed a master a moment ago: what it serves may be stale, as always on a replica.
    Served,
    /// It has just started, or was master.
    Refused,
}

/// Whether the engine said what it holds when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// It did.
    Answers,
    /// A command takes long.
    Busy,
}

/// What comes after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next one.
    GoOn,
    /// Nothing: the process ends.
    End,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    member: Member,
    port: EnginePort,
    file: StateFile,
    peers: Peers,
    replies: HashMap<RequestId, oneshot::Sender<Reply>>,
    next_request: RequestId,
    leaving: Option<oneshot::Sender<Left>>,
    leave_request: Option<RequestId>,
    successor: Option<oneshot::Sender<()>>,
    reads: ReplicaReads,
    gate: Serve,
    /// What is held by a process that ends, which neither follows nor leads any more.
    frozen: Option<DataPosition>,
    credentials: Credentials,
    config: Directives,
    unreplicated: Unreplicated,
    states: watch::Sender<proto::State>,
    urgent: Option<Urgent>,
    published_ms: u64,
    tokens_read_ms: u64,
    /// Until then nobody waits for the engine.
    busy_until_ms: u64,
}

impl Agent {
    /// An agent for this member.
    pub fn new(member: Member, port: EnginePort, file: StateFile, peers: Peers) -> Self {
        let (states, _) = watch::channel(proto::State::default());
        Self {
            member,
            port,
            file,
            peers,
            replies: HashMap::new(),
            next_request: 0,
            leaving: None,
            leave_request: None,
            successor: None,
            reads: ReplicaReads::Refused,
            gate: Serve::Never,
            frozen: None,
            credentials: Credentials::default(),
            config: Directives::default(),
            unreplicated: Unreplicated::default(),
            states,
            urgent: None,
            published_ms: 0,
            tokens_read_ms: 0,
            busy_until_ms: 0,
        }
    }

    /// The states as they are published.
    pub fn states(&self) -> watch::Receiver<proto::State> {
        self.states.subscribe()
    }

    /// Works until it has taken a clean exit, or nobody can send commands any more.
    pub fn run(mut self, inbox: &Receiver<Command>) {
        self.publish();
        loop {
            let now_ms = now_ms();
            let due_ms = self.member.next_tick_ms(now_ms).min(now_ms + LOOK_EVERY_MS);
            let patience = Duration::from_millis(due_ms.saturating_sub(now_ms));
            match inbox.recv_timeout(patience) {
                Ok(command) => match self.take(command) {
                    Next::GoOn => {}
                    Next::End => return,
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
            self.feed(Input::Tick);
            self.settle();
        }
    }

    /// Remembers for the next start whether the snapshot holds everything that was acknowledged.
    fn exit(&mut self) {
        let now = self.port.freeze();
        if self.frozen.as_ref() == Some(&now) {
            self.feed(Input::Progress(now));
            self.feed(Input::CleanExit);
        } else {
            tracing::warn!(frozen = ?self.frozen, ?now, "the data are not those that were saved");
        }
    }

    fn take(&mut self, command: Command) -> Next {
        match command {
            Command::Ask(Ask::Promote(_), reply) if self.frozen.is_some() => {
                let _gone = reply.send(Reply::Promote(Err(NotObeyed::Busy)));
            }
            Command::Ask(ask, reply) => {
                // To pause clients is to wait for the command that runs, and heartbeats would wait with it.
                if self.look() == Engine::Busy && matches!(ask, Ask::Handover(_)) {
                    let _gone = reply.send(Reply::Handover(Err(NotObeyed::Busy)));
                    return Next::GoOn;
                }
                let id = self.request(reply);
                self.feed(match ask {
                    Ask::Prepare(prepare) => Input::Prepare(id, prepare),
                    Ask::Promote(promote) => Input::Promote(id, promote),
                    Ask::Follow(follow) => Input::Follow(id, follow),
                    Ask::Heartbeat(heartbeat) => Input::Heartbeat(id, heartbeat),
                    Ask::Handover(handover) => Input::Handover(id, handover),
                    Ask::Voters(voters, peers) => Input::Voters(id, voters, peers),
                });
            }
            Command::Ack(from, answer) => {
                self.look();
                self.feed(Input::Ack(from, answer));
            }
            Command::State(reply) => {
                self.look();
                // Whoever asked may have gone.
                let _gone = reply.send(Box::new(self.state()));
            }
            Command::SetCredentials(request, reply) => {
                let result = self.credentials.set(self.port.engine(), &request);
                let _gone = reply.send(result);
            }
            Command::SetConfig(request, reply) => {
                let result = self.config.set(self.port.engine(), &request);
                let _gone = reply.send(result);
            }
            Command::Leave { budget_ms, done } => self.leave(budget_ms, done),
            Command::AwaitSuccessor { done } => self.successor = Some(done),
            Command::Freeze { done } => {
                self.frozen = Some(self.port.freeze());
                let _gone = done.send(());
            }
            Command::CleanExit { done } => {
                self.exit();
                let _gone = done.send(());
                return Next::End;
            }
        }
        Next::GoOn
    }

    fn request(&mut self, reply: oneshot::Sender<Reply>) -> RequestId {
        self.next_request += 1;
        self.replies.retain(|_, waiting| !waiting.is_closed());
        self.replies.insert(self.next_request, reply);
        self.next_request
    }

    /// Brings the member up to date with the engine, unless a command takes long: then for a while nobody waits for it again,
    /// because acknowledgements that queue behind such waits are acknowledgements missed.
    fn look(&mut self) -> Engine {
        if self.engine() == Engine::Busy {
            return Engine::Busy;
        }
        let Some(data) = self.port.position() else {
            self.busy_until_ms = now_ms() + LOOK_EVERY_MS;
            return Engine::Busy;
        };
        self.feed(Input::Progress(data));
        if self.member.role() == RoleKind::Follower
            && let Some(link) = self.port.link()
        {
            self.feed(Input::Link(link));
        }
        Engine::Answers
    }

    fn engine(&self) -> Engine {
        match now_ms() < self.busy_until_ms {
            true => Engine::Busy,
            false => Engine::Answers,
        }
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.member.handle(now_ms(), input);
        self.perform(outputs);
    }

    /// Performs outputs in order.
    pub fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist(state) => {
                    if let Err(error) = self.file.save(&state) {
                        tracing::error!(%error, "this member cannot remember what it promises: it ends");
                        process::exit(EXIT_STATE_LOST);
                    }
                }
                Output::Fence => {
                    self.shut();
                    let data = self.port.fence();
                    self.feed(Input::Fenced(data));
                }
                Output::StepDown => {
                    self.port.fence();
                }
                Output::Answer(id, reply) => self.answer(id, reply),
                Output::Lead(term, replid) => {
                    // The gate of a replica may be open: a master's opens when its time has come.
                    self.open(Serve::Never);
                    let data = self.port.lead(term, &replid);
                    self.feed(Input::Progress(data));
                }
                Output::FollowMaster(_) if self.frozen.is_some() => {}
                Output::FollowMaster(following) => self.port.follow(&following),
                Output::Serve(serve) => self.open(serve),
                Output::CloseClients => self.port.close_clients(),
                Output::PauseClients(held, until_ms) => {
                    let data = self.port.pause(held, until_ms);
                    if held == Held::Writes {
                        self.feed(Input::Paused(data));
                    }
                }
                Output::ResumeClients => self.port.resume(),
                Output::Send(peer, heartbeat) => self.peers.send(&peer, heartbeat),
            }
        }
    }

    fn answer(&mut self, id: RequestId, reply: Reply) {
        if self.leave_request == Some(id) {
            self.leave_request = None;
            let released = matches!(reply, Reply::Handover(Ok(_)));
            let left = if released {
                Left::Released
            } else {
                Left::WasNoMaster
            };
            if let Some(done) = self.leaving.take() {
                let _gone = done.send(left);
            }
            return;
        }
        if let Some(waiting) = self.replies.remove(&id) {
            // Whoever asked may have given up; it asks again.
            let _gone = waiting.send(reply);
        }
    }

    fn leave(&mut self, budget_ms: u64, done: oneshot::Sender<Left>) {
        self.look();
        let term = self.member.role_term();
        if self.member.role() != RoleKind::Master {
            let _gone = done.send(Left::WasNoMaster);
            return;
        }
        self.next_request += 1;
        let id = self.next_request;
        self.leaving = Some(done);
        self.leave_request = Some(id);
        let token = rand::random_range(1..u64::MAX);
        self.feed(Input::Handover(
            id,
            Handover {
                term,
                target: None,
                budget_ms,
                token,
            },
        ));
    }

    /// Opens or shuts the gate to what the rules allow a master.
    fn open(&mut self, serve: Serve) {
        self.gate = serve;
        self.port.gate(serve);
    }

    fn shut(&mut self) {
        if self.reads == ReplicaReads::Refused {
            self.open(Serve::Never);
        }
    }

    /// After each command: the gate of a replica, the published state, the peers.
    fn settle(&mut self) {
        match self.member.role() {
            RoleKind::Follower => {
                self.reads = ReplicaReads::Served;
                if let Some(done) = self.successor.take() {
                    let _gone = done.send(());
                }
            }
            RoleKind::Master => self.reads = ReplicaReads::Refused,
            RoleKind::Idle => {}
        }
        let wanted = match (self.member.role(), self.reads) {
            (RoleKind::Master, _) => self.member.serve(),
            (RoleKind::Follower, _) | (RoleKind::Idle, ReplicaReads::Served) => Serve::Unlimited,
            (RoleKind::Idle, ReplicaReads::Refused) => Serve::Never,
        };
        if wanted != self.gate {
            self.open(wanted);
        }
        self.publish();
        let now_ms = now_ms();
        if now_ms >= self.tokens_read_ms + TOKENS_EVERY_MS {
            self.tokens_read_ms = now_ms;
            self.peers.keep(self.member.peers());
        }
    }

    fn state(&mut self) -> proto::State {
        let now_ms = now_ms();
        let report = self.member.report(now_ms);
        if report.role == RoleKind::Master {
            self.unreplicated
                .note(report.position.offset, report.replicated, now_ms);
        } else {
            self.unreplicated.clear();
        }
        let before = self.states.borrow().clone();
        let engine = self.port.engine();
        let mut state = report::state(&report, engine, &self.credentials, &self.config, &before);
        if self.engine() == Engine::Answers
            && let Some(locked) = engine.try_lock_for(report::PATIENCE)
        {
            report::add_facts(&mut state, &locked);
        }
        state.oldest_unreplicated_ms = self.unreplicated.age_ms(now_ms);
        state
    }

    /// Publishes the state if something urgent has changed or the last one is a second old.
    fn publish(&mut self) {
        let now_ms = now_ms();
        let state = self.state();
        let report = self.member.report(now_ms);
        let urgent = Some(Urgent::of(&state, &report, Timing::default().suspicion_ms));
        if urgent != self.urgent || now_ms >= self.published_ms + PUBLISH_EVERY_MS {
            self.urgent = urgent;
            self.published_ms = now_ms;
            self.states.send_replace(state);
        }
    }
}
