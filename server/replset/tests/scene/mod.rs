//! Real members on a perfect network with a clock of its own: the stage of `members` and `scripts`.

#![allow(dead_code, reason = "every test program uses a part of it")]

use replset::{
    Boot, Bootstrapped, CutTails, DataPosition, Election, ElectionPlan, EmptySet, Endpoint,
    FleetId, Generation, Held, Incarnation, Input, Intent, Member, MemberName, MemberState,
    NotObeyed, Offset, OldMaster, Output, Peer, Prepare, Promotion, QuorumLost, Reply, RoleKind,
    Term, Timing, VoterSet,
};

pub struct Node {
    pub member: Member,
    pub disk: MemberState,
    pub data: DataPosition,
    /// Closed, paused, resumed, in order; forgotten when read.
    pub clients: Vec<String>,
    pub up: bool,
}

pub struct Set {
    /// Which set electors work for, and members that start are configured for.
    pub fleet: FleetId,
    /// The set whose data it takes over.
    pub heir_of: Option<FleetId>,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub term: u64,
    pub replies: Vec<Reply>,
}

pub fn name(at: usize) -> MemberName {
    ["a", "b", "c"][at].into()
}

pub fn boot(at: usize, life: u64, data: &DataPosition, now_ms: u64) -> Boot {
    Boot {
        fleet: "f".into(),
        name: name(at),
        endpoint: Endpoint::default(),
        fresh: Incarnation(life),
        data: data.clone(),
        now_ms,
    }
}

impl Set {
    /// A bootstrapped set of `size` members, `a` its master.
    pub fn of(size: usize) -> Self {
        let mut set = Self {
            fleet: "f".into(),
            heir_of: None,
            now: 0,
            nodes: Vec::new(),
            term: 0,
            replies: Vec::new(),
        };
        for at in 0..size {
            let data = DataPosition::default();
            let started =
                Member::start(None, boot(at, 10 + at as u64, &data, 0), Timing::default());
            let member = started.0;
            let disk = member.state().clone();
            set.nodes.push(Node {
                member,
                disk,
                data,
                clients: Vec::new(),
                up: true,
            });
        }
        set.elect(Intent::Unplanned, Bootstrapped::No).unwrap();
        set.pass(500);
        assert_eq!(set.serving(), vec![0]);
        set
    }

    pub fn plan(&self, intent: Intent, bootstrapped: Bootstrapped) -> ElectionPlan {
        let all = 0..self.nodes.len();
        let peer = |at| Peer {
            name: name(at),
            endpoint: Endpoint::default(),
        };
        ElectionPlan {
            fleet: self.fleet.clone(),
            heir_of: self.heir_of.clone(),
            term: Term(self.term),
            elector: "op".into(),
            intent,
            voters: VoterSet {
                generation: Generation(1),
                voters: all.clone().map(name).collect(),
            },
            peers: all.map(peer).collect(),
            bootstrapped,
            preference: Vec::new(),
            passed_over: None,
            old_master: OldMaster::Unknown,
            in_sync: Vec::new(),
            on_empty: EmptySet::Halt,
            on_quorum_lost: QuorumLost::Halt,
            on_cut_tails: CutTails::Wait,
            random: [self.term as u8; 12],
        }
    }

    pub fn elect(
        &mut self,
        intent: Intent,
        bootstrapped: Bootstrapped,
    ) -> Result<Promotion, String> {
        self.term += 1;
        let mut election = Election::new(self.plan(intent, bootstrapped));
        for at in 0..self.nodes.len() {
            match self.ask(at, Input::Prepare(1, election.prepare())) {
                Some(Reply::Prepare(answer)) => election.record(self.now, &name(at), answer),
                Some(other) => panic!("{other:?}"),
                None => election.unreachable(&name(at)),
            }
        }
        let promotion = election
            .decide(self.now)
            .map_err(|refusal| refusal.to_string())?;
        let winner = (0..3)
            .find(|at| name(*at) == promotion.winner.name)
            .unwrap();
        let promote = Input::Promote(2, Box::new(promotion.promote.clone()));
        let Some(Reply::Promote(Ok(promoted))) = self.ask(winner, promote) else {
            panic!("not promoted")
        };
        for at in (0..self.nodes.len()).filter(|at| *at != winner) {
            let follow = promotion.follow(&promoted);
            self.ask(at, Input::Follow(3, Box::new(follow)));
        }
        Ok(promotion)
    }

    /// Feeds one request; the answer, unless it comes later or the member is down.
    pub fn ask(&mut self, at: usize, input: Input) -> Option<Reply> {
        if !self.nodes[at].up {
            return None;
        }
        self.replies.clear();
        self.feed(at, input);
        self.replies.pop()
    }

    pub fn feed(&mut self, at: usize, input: Input) {
        let now = self.now;
        self.replicate(at);
        let data = self.nodes[at].data.clone();
        let mut outputs = self.nodes[at].member.handle(now, Input::Progress(data));
        outputs.extend(self.nodes[at].member.handle(now, input));
        for output in outputs {
            self.perform(at, output);
        }
    }

    pub fn perform(&mut self, at: usize, output: Output) {
        match output {
            Output::Persist(state) => self.nodes[at].disk = *state,
            Output::Fence => {
                let data = self.nodes[at].data.clone();
                self.feed(at, Input::Fenced(data));
            }
            Output::Answer(_, reply) => self.replies.push(reply),
            Output::Lead(_, replid) => {
                self.nodes[at].data.replid = Some(replid);
                self.write(at, 14);
            }
            Output::CloseClients => self.nodes[at].clients.push("closed".to_owned()),
            Output::ResumeClients => self.nodes[at].clients.push("resumed".to_owned()),
            Output::PauseClients(held, _) => {
                self.nodes[at].clients.push(format!("{held:?} held"));
                if held == Held::Writes {
                    let data = self.nodes[at].data.clone();
                    self.feed(at, Input::Paused(data));
                }
            }
            Output::Send(peer, heartbeat) => {
                let to = (0..3).find(|to| name(*to) == peer.name).unwrap();
                if !self.nodes[to].up {
                    return;
                }
                let kept = std::mem::take(&mut self.replies);
                self.feed(to, Input::Heartbeat(9, heartbeat));
                let answers = std::mem::replace(&mut self.replies, kept);
                for answer in answers {
                    let Reply::Heartbeat(answer) = answer else {
                        continue;
                    };
                    self.feed(at, Input::Ack(name(to), answer));
                }
            }
            Output::FollowMaster(_) | Output::Serve(_) | Output::StepDown => {}
        }
    }

    /// What replication does: followers have what their master has.
    pub fn replicate(&mut self, at: usize) {
        let following = self.nodes[at]
            .member
            .following()
            .map(|f| (f.term, f.master.clone()));
        let Some((term, master)) = following else {
            return;
        };
        let from = (0..3).find(|from| name(*from) == master).unwrap();
        let leads = self.nodes[from].member.role() == RoleKind::Master
            && self.nodes[from].member.role_term() == term;
        if leads && self.nodes[from].up {
            self.nodes[at].data = self.nodes[from].data.clone();
        }
    }

    pub fn write(&mut self, at: usize, bytes: u64) {
        self.nodes[at].data.offset.0 += bytes;
    }

    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 10;
            for at in 0..self.nodes.len() {
                if self.nodes[at].up {
                    self.feed(at, Input::Tick);
                }
            }
        }
    }

    pub fn serving(&self) -> Vec<usize> {
        let serves = |at: &usize| self.nodes[*at].member.serve().allows(self.now);
        (0..self.nodes.len()).filter(serves).collect()
    }

    /// The process ends and starts again with what is on disk.
    pub fn restart(&mut self, at: usize, disk: Option<MemberState>, data: DataPosition) {
        let life = 100 + self.now;
        let mut boot = boot(at, life, &data, self.now);
        boot.fleet = self.fleet.clone();
        let (member, outputs) = Member::start(disk, boot, Timing::default());
        self.nodes[at].member = member;
        self.nodes[at].data = data;
        self.nodes[at].up = true;
        for output in outputs {
            self.perform(at, output);
        }
    }

    pub fn crash(&mut self, at: usize) {
        let (disk, data) = (self.nodes[at].disk.clone(), self.nodes[at].data.clone());
        self.restart(at, Some(disk), data);
    }

    /// The process ends, and starts again with what it had saved.
    pub fn kill(&mut self, at: usize, saved: u64) {
        self.nodes[at].data.offset = Offset(saved);
        self.crash(at);
    }

    pub fn clients(&mut self, at: usize) -> Vec<String> {
        std::mem::take(&mut self.nodes[at].clients)
    }

    pub fn prepare(&self, term: u64, elector: &str, intent: Intent) -> Input {
        Input::Prepare(
            1,
            Prepare {
                fleet: self.fleet.clone(),
                heir_of: None,
                term: Term(term),
                elector: elector.into(),
                generation: Generation(1),
                intent,
            },
        )
    }

    pub fn refusal(&mut self, at: usize, input: Input) -> NotObeyed {
        match self.ask(at, input) {
            Some(Reply::Prepare(Err(reason))) => reason,
            other => panic!("{other:?}"),
        }
    }
}
