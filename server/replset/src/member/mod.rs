//! One member of a set: what it promises, whom it obeys, when it may serve.
//!
//! **Owns** the member's rules and its [`MemberState`]. **Called by** the server's managed mode with
//! one [`Input`] at a time. **Invariants**: an answer that rests on a state comes after the
//! [`Output::Persist`] of that state; the promised term never falls; nothing but a promotion makes
//! a master. **Does not** know sockets, files, clients or the engine: it names what to do with them.
//!
//! How the caller performs outputs: in order, each finished before the next. Before it feeds
//! `Heartbeat`, `Ack`, `Handover` or `Tick` it feeds [`Input::Progress`] with the engine's position.
//! [`Output::Fence`] is answered at once with [`Input::Fenced`], [`Output::PauseClients`] of a
//! handover with [`Input::Paused`], before any other input.
//!
//! Read next: `start` (birth), `obey` (electors and masters), `lead` (being master), `handover`.

mod handover;
mod lead;
mod obey;
mod start;

use crate::ids::{FleetId, MemberId, MemberName, Offset, Position, ReplId, Term};
use crate::lease::{Grants, Serve};
use crate::message::{
    Endpoint, Follow, Handover, Heartbeat, HeartbeatAck, NotObeyed, Peer, Prepare, Promise,
    Promote, Promoted, Release,
};
use crate::rules::Rules;
use crate::state::{
    DataPosition, Following, History, IncarnationTable, MemberState, Tail, Vote, VoterSet,
};
use crate::timing::Timing;

use lead::Mastership;
pub use start::Boot;

/// Names a request so that its answer, perhaps later, finds its way back.
pub type RequestId = u64;

/// What the link to the master looks like from the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MasterLink {
    /// There is none, or it is being set up.
    #[default]
    Down,
    /// Attached.
    Up,
    /// The connection was closed by the other end and nobody listens there any more: the process
    /// is gone.
    Refused,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// An elector asks for a promise.
    Prepare(RequestId, Prepare),
    /// The engine is fenced and holds this: the answer to [`Output::Fence`].
    Fenced(DataPosition),
    /// An elector promotes.
    Promote(RequestId, Box<Promote>),
    /// Somebody says whom to follow.
    Follow(RequestId, Box<Follow>),
    /// A master speaks.
    Heartbeat(RequestId, Box<Heartbeat>),
    /// A member answered our heartbeat.
    Ack(MemberName, Result<HeartbeatAck, NotObeyed>),
    /// The operator asks for a planned switchover, or this server is told to leave.
    Handover(RequestId, Handover),
    /// Writes are paused and the stream ends here: the answer to the pause of a handover.
    Paused(DataPosition),
    /// The operator changes who votes and who the members are.
    Voters(RequestId, VoterSet, Vec<Peer>),
    /// The engine's position now.
    Progress(DataPosition),
    /// The replica link changed.
    Link(MasterLink),
    /// Time passed.
    Tick,
    /// Data are saved, the process leaves in peace.
    CleanExit,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write the state to disk; finished when it cannot be lost any more. If it fails, the process
    /// must end: it may not go on with a promise it could forget.
    Persist(Box<MemberState>),
    /// Stop serving and stop applying the stream, then feed [`Input::Fenced`].
    Fence,
    /// Stop serving and stop leading: the mastership was given away.
    StepDown,
    /// Answer a request.
    Answer(RequestId, Reply),
    /// Be master: continue the data held under this replication id and write a marker at once.
    Lead(Term, ReplId),
    /// Attach to this master, keeping the data until it has sent better ones.
    FollowMaster(Box<Following>),
    /// Clients may be served until then, by the clock that the inputs use.
    Serve(Serve),
    /// Close all connections of clients.
    CloseClients,
    /// Hold commands of clients back: all of them until this instant; writes until
    /// [`Output::ResumeClients`] or another role, however late that comes, since the term may be given
    /// away with the stream as it ends now.
    PauseClients(Held, u64),
    /// Let held commands go on.
    ResumeClients,
    /// Send a heartbeat; its answer comes back as [`Input::Ack`].
    Send(Peer, Box<Heartbeat>),
}

/// Which commands are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Those that write; when all running ones are done feed [`Input::Paused`].
    Writes,
    /// All: the mastership is given away, whoever waits is told by the end of its connection.
    All,
}

/// Who shall take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverTarget {
    /// This member.
    Member(MemberName),
    /// Whichever voter has everything first.
    Any,
}

/// The answer to a handover: the master has stepped down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Proof, to be shown in the election.
    pub release: Release,
    /// Where the stream ends.
    pub position: Position,
    /// A voter that has all of it.
    pub to: MemberName,
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Input::Prepare`].
    Prepare(Result<Box<Promise>, NotObeyed>),
    /// To [`Input::Promote`].
    Promote(Result<Promoted, NotObeyed>),
    /// To [`Input::Follow`].
    Follow(Result<(), NotObeyed>),
    /// To [`Input::Heartbeat`].
    Heartbeat(Result<HeartbeatAck, NotObeyed>),
    /// To [`Input::Handover`].
    Handover(Result<Handed, NotObeyed>),
    /// To [`Input::Voters`].
    Voters(Result<(), NotObeyed>),
}

/// What a member is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleKind {
    /// It knows no master it may follow.
    Idle,
    /// It follows one.
    Follower,
    /// It is one.
    Master,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Role {
    Idle,
    Follower,
    Master(Box<Mastership>),
}

/// What a master knows of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Its name.
    pub name: MemberName,
    /// What it acknowledged.
    pub position: Position,
    /// When the newest heartbeat that it acknowledged was sent.
    pub acked_ms_ago: Option<u64>,
    /// Whether its acknowledgements count.
    pub counts: bool,
    /// The version of the voters that it has recorded.
    pub generation: crate::ids::Generation,
    /// A higher term it promised: it can be won back only by a new election.
    pub promised_higher: Option<Term>,
}

/// What a member tells the operator about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its name and life.
    pub id: MemberId,
    /// The set that it and its data belong to.
    pub fleet: FleetId,
    /// Which process of that life.
    pub boot: u64,
    /// The term promised.
    pub promised: Term,
    /// What it is.
    pub role: RoleKind,
    /// The term in which it is that; 0 if idle.
    pub term: Term,
    /// What it holds.
    pub position: Position,
    /// The stream its data belong to.
    pub replid: Option<ReplId>,
    /// Whom it follows.
    pub master: Option<MemberName>,
    /// When it last heard its master say that it serves; `None` if it misses it altogether.
    pub master_seen_ms_ago: Option<u64>,
    /// Bytes of its master's stream that it knows of and does not hold.
    pub lag_bytes: u64,
    /// The replica link.
    pub link: MasterLink,
    /// Whether clients may be served now.
    pub serving: bool,
    /// What is left of the lease; `None` without one.
    pub lease_remaining_ms: Option<u64>,
    /// Its vote.
    pub vote: Vote,
    /// Whether its name is a voter's.
    pub voter: bool,
    /// Whether it has no dataset.
    pub blank: bool,
    /// The voters it knows.
    pub voters: VoterSet,
    /// A mastership that it gave up, or saw given up by its master.
    pub released: Option<Release>,
    /// A term it was master of in this life, and is no more.
    pub relinquished: Option<Term>,
    /// The highest offset that a majority holds (master only).
    pub replicated: Offset,
    /// The other members (master only).
    pub peers: Vec<PeerReport>,
}

/// The state machine of one member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    state: MemberState,
    endpoint: Endpoint,
    timing: Timing,
    rules: Rules,
    role: Role,
    data: DataPosition,
    seen_ms: Option<u64>,
    /// Where the stream of the master followed ended, as it said last.
    master_offset: Offset,
    /// Where it ended when that master was heard first.
    catch_up_to: Option<Offset>,
    link: MasterLink,
    grants: Grants,
    pending: Option<(RequestId, Prepare)>,
    peers: Vec<Peer>,
    master_released: Option<Release>,
    /// Clients are held after a handover until then.
    held_until: Option<u64>,
    serve: Serve,
}

impl Member {
    /// Takes one input; the outputs are to be performed in order.
    pub fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        match input {
            Input::Prepare(id, prepare) => self.prepare(now_ms, id, prepare),
            Input::Fenced(data) => self.fenced(now_ms, data),
            Input::Promote(id, promote) => self.promote(now_ms, id, *promote),
            Input::Follow(id, follow) => self.follow(now_ms, id, *follow),
            Input::Heartbeat(id, heartbeat) => self.heartbeat(now_ms, id, *heartbeat),
            Input::Ack(from, answer) => self.acknowledged(now_ms, &from, answer),
            Input::Handover(id, handover) => self.begin_handover(now_ms, id, handover),
            Input::Paused(data) => self.paused(now_ms, data),
            Input::Voters(id, voters, peers) => self.set_voters(id, voters, peers),
            Input::Progress(data) => self.progress(data),
            Input::Link(link) => {
                self.link = link;
                Vec::new()
            }
            Input::Tick => self.tick(now_ms),
            Input::CleanExit => {
                self.state.clean_shutdown = true;
                vec![self.persist()]
            }
        }
    }

    /// What is, or will be, on disk.
    pub fn state(&self) -> &MemberState {
        &self.state
    }

    /// What it holds.
    pub fn position(&self) -> Position {
        self.state.position(self.data.offset)
    }

    /// What it is.
    pub fn role(&self) -> RoleKind {
        match self.role {
            Role::Idle => RoleKind::Idle,
            Role::Follower => RoleKind::Follower,
            Role::Master(_) => RoleKind::Master,
        }
    }

    /// The term in which it is what it is; 0 if idle.
    pub fn role_term(&self) -> Term {
        match &self.role {
            Role::Idle => Term(0),
            Role::Follower => self.state.following.as_ref().map_or(Term(0), |f| f.term),
            Role::Master(mastership) => mastership.term,
        }
    }

    /// Whom it follows now.
    pub fn following(&self) -> Option<&Following> {
        match self.role {
            Role::Follower => self.state.following.as_ref(),
            Role::Idle | Role::Master(_) => None,
        }
    }

    /// All members, as far as it was told.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Until when clients may be served.
    pub fn serve(&self) -> Serve {
        self.serve
    }

    /// The highest offset of its term that a majority of the voters holds; 0 unless it is master.
    pub fn replicated(&self) -> Offset {
        match &self.role {
            Role::Master(mastership) => self.replicated_of(mastership),
            Role::Idle | Role::Follower => Offset(0),
        }
    }

    /// What it tells the operator.
    pub fn report(&self, now_ms: u64) -> Report {
        let lease_remaining_ms = match self.serve {
            Serve::Until(end_ms) => Some(end_ms.saturating_sub(now_ms)),
            Serve::Never | Serve::Unlimited => None,
        };
        let peers = match &self.role {
            Role::Master(mastership) => self.peer_reports(mastership, now_ms),
            Role::Idle | Role::Follower => Vec::new(),
        };
        Report {
            id: self.state.id.clone(),
            fleet: self.state.fleet.clone(),
            boot: self.state.boot,
            promised: self.state.promised.term,
            role: self.role(),
            term: self.role_term(),
            position: self.position(),
            replid: self.data.replid.clone(),
            master: self.following().map(|f| f.master.clone()),
            master_seen_ms_ago: self.seen_ms.map(|seen| now_ms.saturating_sub(seen)),
            lag_bytes: self.lag_bytes(),
            link: self.link,
            serving: self.serve.allows(now_ms),
            lease_remaining_ms,
            vote: self.state.vote,
            voter: self.is_voter(),
            blank: self.state.blank,
            voters: self.state.voters.clone(),
            released: self.state.released.or(self.master_released),
            relinquished: self.relinquished(),
            replicated: self.replicated(),
            peers,
        }
    }

    /// Offsets of other terms say nothing: without data of the master's term, all is missing.
    fn lag_bytes(&self) -> u64 {
        let Some(following) = self.following() else {
            return 0;
        };
        let position = self.position();
        let held = if position.term == following.term {
            position.offset.0
        } else {
            0
        };
        self.master_offset.0.saturating_sub(held)
    }

    /// Its name and where it is.
    fn me(&self) -> Peer {
        Peer {
            name: self.state.id.name.clone(),
            endpoint: self.endpoint.clone(),
        }
    }

    fn is_voter(&self) -> bool {
        self.state.voters.contains(&self.state.id.name)
    }

    /// A term this life was master of and is no more.
    fn relinquished(&self) -> Option<Term> {
        match self.role {
            Role::Master(_) => None,
            Role::Idle | Role::Follower => self.state.last_mastership(),
        }
    }

    fn persist(&self) -> Output {
        Output::Persist(Box::new(self.state.clone()))
    }

    /// Changes what clients may do, if it is a change.
    fn set_serve(&mut self, serve: Serve, outputs: &mut Vec<Output>) {
        if self.serve != serve {
            self.serve = serve;
            outputs.push(Output::Serve(serve));
        }
    }

    /// Takes the engine's position in; the state on disk follows when a new term is held.
    fn progress(&mut self, data: DataPosition) -> Vec<Output> {
        let changed = self.absorb(data);
        if self.mend_tail() || changed {
            vec![self.persist()]
        } else {
            Vec::new()
        }
    }

    /// Whether what is on disk changed: the history held, or its tail.
    fn absorb(&mut self, data: DataPosition) -> bool {
        self.data = data;
        if matches!(self.role, Role::Master(_)) {
            return false;
        }
        let had_data = !self.state.blank;
        if had_data && !self.state.history.is_empty() && self.data.replid.is_none() {
            return self.note_torn();
        }
        let Some(history) = self.history_held() else {
            return false;
        };
        if had_data && history == self.state.history {
            return false;
        }
        self.state.history = history;
        self.state.blank = false;
        true
    }

    /// Its data are no prefix of a stream any more: of its term it can be sure of nothing, so whoever holds more is chosen before
    /// it. Whether that is news.
    fn note_torn(&mut self) -> bool {
        let is_news = self.state.tail == Tail::Whole;
        self.state.tail = Tail::MayBeCut;
        is_news
    }

    /// A follower that holds as much as its master had when it was heard first lacks nothing any more
    /// that it acknowledged in a former process: the master had all of that before. Whether that is news.
    fn mend_tail(&mut self) -> bool {
        if self.state.tail == Tail::Whole || self.data.replid.is_none() {
            return false;
        }
        let (Some(following), Some(target)) = (self.following(), self.catch_up_to) else {
            return false;
        };
        let (term, position) = (following.term, self.position());
        let caught_up = position.term == term && position.offset >= target;
        let mended = caught_up || !self.rules.tail_mends_by_catching_up;
        if mended {
            self.state.tail = Tail::Whole;
        }
        mended
    }

    fn history_held(&self) -> Option<History> {
        if self.rules.attach_is_not_adopt {
            return self.state.history_of(&self.data);
        }
        let replid = self.data.replid.as_ref()?;
        let followed = self.state.following.as_ref()?;
        followed
            .history
            .up_to(replid)
            .or_else(|| self.state.history_of(&self.data))
    }

    /// Adopts newer voters; whether anything changed. Who is none of them gives up its vote: if it becomes one again, a master
    /// that knows this has to admit it. Else it could elect another while its master, which does not count on it yet, needs
    /// nobody's lease.
    fn adopt_voters(&mut self, voters: &VoterSet) -> bool {
        let newer = voters.generation > self.state.voters.generation;
        let first = self.state.voters.voters.is_empty() && !voters.voters.is_empty();
        if newer || first {
            let before = self.state.voters.voters.len();
            self.state.voters = voters.clone();
            self.voters_changed(before);
            if !voters.contains(&self.state.id.name) {
                self.state.vote = Vote::Suspended;
            }
        }
        newer || first
    }

    fn adopt_table(&mut self, table: &IncarnationTable) -> bool {
        matches!(self.state.table.merge(table), crate::state::Merged::Changed)
    }

    fn set_voters(&mut self, id: RequestId, voters: VoterSet, peers: Vec<Peer>) -> Vec<Output> {
        let known = self.state.voters.generation;
        if voters.generation < known {
            let refusal = Err(NotObeyed::StaleVoters(known));
            return vec![Output::Answer(id, Reply::Voters(refusal))];
        }
        let mut outputs = Vec::new();
        if self.adopt_voters(&voters) {
            outputs.push(self.persist());
        }
        self.peers = peers;
        outputs.push(Output::Answer(id, Reply::Voters(Ok(()))));
        outputs
    }
}
