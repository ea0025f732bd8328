//! A simulation in time: clocks of different rate, slow and lost messages, partitions and pauses, an
//! elector that opens elections whenever the rules let it. At no moment may two members serve.
//!
//! The world is a queue of events and a seeded generator of random numbers, so a failing seed can be
//! run again. With the deferral or the lease switched off, two members do serve at once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

use std::collections::BTreeMap;

use replset::{
    Boot, Bootstrapped, CutTails, DataPosition, Election, ElectionPlan, EmptySet, Endpoint, Follow,
    Generation, Heartbeat, HeartbeatAck, Incarnation, Input, Intent, MasterSighting, Member,
    MemberName, NotObeyed, Offset, OldMaster, Output, Peer, Promise, Promoted, Promotion,
    QuorumLost, ReplId, Reply, RoleKind, Rules, Term, Timing, VoterSet, master_is_lost,
};

const NAMES: [&str; 3] = ["a", "b", "c"];
const STEPS_MS: u64 = 60_000;
/// Rates of the members' clocks, in thousandths: within the error allowed.
const RATES: [u64; 3] = [976, 1_000, 1_024];

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

enum Event {
    Prepare(usize, replset::Prepare),
    Prepared(usize, Result<Box<Promise>, NotObeyed>),
    Decide(Term),
    Promote(Box<Promotion>),
    Promoted(Box<Promotion>, Promoted),
    Follow(usize, Box<Follow>),
    Heartbeat(usize, usize, Box<Heartbeat>),
    Ack(usize, usize, Result<HeartbeatAck, NotObeyed>),
}

struct Server {
    member: Member,
    replid: Option<ReplId>,
    offset: u64,
    paused_until: u64,
}

struct Sim {
    now: u64,
    random: Random,
    servers: Vec<Server>,
    events: BTreeMap<(u64, u64), Event>,
    sent: u64,
    term: u64,
    election: Option<Election>,
    /// `cut[i]`: this server hears nobody and nobody hears it until then.
    cut_until: [u64; 3],
    elections: u64,
    bootstrapped: bool,
    served_ms: u64,
    rules: Rules,
}

fn peers() -> Vec<Peer> {
    let peer = |name: &&str| Peer {
        name: (*name).into(),
        endpoint: Endpoint::default(),
    };
    NAMES.iter().map(peer).collect()
}

fn voters() -> VoterSet {
    let voters = NAMES.iter().map(|name| (*name).into()).collect();
    VoterSet {
        generation: Generation(1),
        voters,
    }
}

fn index(name: &MemberName) -> usize {
    NAMES.iter().position(|n| *n == name.as_str()).unwrap()
}

impl Sim {
    fn new(seed: u64, rules: Rules) -> Self {
        let born = |at: usize| {
            let boot = Boot {
                fleet: "sim".into(),
                name: NAMES[at].into(),
                endpoint: Endpoint::default(),
                fresh: Incarnation(at as u64 + 1),
                data: DataPosition::default(),
                now_ms: 0,
            };
            let started = Member::start_with_rules(None, boot, Timing::default(), rules);
            Server {
                member: started.0,
                replid: None,
                offset: 0,
                paused_until: 0,
            }
        };
        Self {
            now: 0,
            random: Random(seed * 0x9e37_79b9 + 1),
            servers: (0..NAMES.len()).map(born).collect(),
            events: BTreeMap::new(),
            sent: 0,
            term: 0,
            election: None,
            cut_until: [0; 3],
            elections: 0,
            bootstrapped: false,
            served_ms: 0,
            rules,
        }
    }

    /// What this server's clock shows.
    fn clock(&self, at: usize) -> u64 {
        self.now * RATES[at] / 1_000 + at as u64 * 5_000
    }

    fn is_cut(&self, at: usize) -> bool {
        self.cut_until[at] > self.now
    }

    /// Puts a message under way; one in fifty is lost, and every one that a cut touches.
    fn send(&mut self, ends: &[usize], event: Event) {
        let lost = self.random.below(50) == 0 || ends.iter().any(|end| self.is_cut(*end));
        let slow = if self.random.below(20) == 0 { 400 } else { 5 };
        let delay = 1 + self.random.below(slow);
        self.sent += 1;
        if !lost {
            self.events.insert((self.now + delay, self.sent), event);
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while self.now < STEPS_MS {
            self.now += 1;
            self.disturb();
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let event = entry.remove();
                self.deliver(event);
            }
            for at in 0..self.servers.len() {
                if self.runs(at) && self.now.is_multiple_of(10) {
                    self.feed(at, Input::Tick);
                }
            }
            if self.now.is_multiple_of(50) {
                self.elect();
            }
            self.check()?;
        }
        Ok(())
    }

    fn runs(&self, at: usize) -> bool {
        self.servers[at].paused_until <= self.now
    }

    fn disturb(&mut self) {
        if self.random.below(3_000) == 0 {
            let at = self.random.below(3) as usize;
            self.cut_until[at] = self.now + self.random.below(4_000);
        }
        if self.random.below(3_000) == 0 {
            let at = self.random.below(3) as usize;
            self.servers[at].paused_until = self.now + self.random.below(4_000);
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let serving: Vec<usize> = (0..self.servers.len())
            .filter(|at| self.servers[*at].member.serve().allows(self.clock(*at)))
            .collect();
        self.served_ms += u64::from(!serving.is_empty());
        if serving.len() > 1 {
            return Err(format!("at {} ms {serving:?} serve", self.now));
        }
        Ok(())
    }

    fn elect(&mut self) {
        let first = !self.bootstrapped;
        if self.election.is_some() || !first && !self.master_is_lost() {
            return;
        }
        self.term += 1;
        let plan = ElectionPlan {
            heir_of: None,
            fleet: "sim".into(),
            term: Term(self.term),
            elector: "elector".into(),
            intent: Intent::Unplanned,
            voters: voters(),
            peers: peers(),
            bootstrapped: if first {
                Bootstrapped::No
            } else {
                Bootstrapped::Yes
            },
            preference: Vec::new(),
            passed_over: None,
            old_master: OldMaster::Unknown,
            in_sync: Vec::new(),
            on_empty: EmptySet::Halt,
            on_quorum_lost: QuorumLost::BestOfAll,
            on_cut_tails: CutTails::Accept,
            random: [self.term as u8; 12],
        };
        let election = Election::with_rules(plan, self.rules);
        let prepare = election.prepare();
        self.election = Some(election);
        for at in 0..self.servers.len() {
            self.send(&[at], Event::Prepare(at, prepare.clone()));
        }
        let deadline = (self.now + 60, u64::MAX);
        self.events.insert(deadline, Event::Decide(Term(self.term)));
    }

    fn master_is_lost(&self) -> bool {
        let sighting = |at: usize| {
            let report = self.servers[at].member.report(self.clock(at));
            MasterSighting {
                member: NAMES[at].into(),
                seen_ms_ago: report.master_seen_ms_ago,
                leads: report.role == RoleKind::Master && report.serving,
            }
        };
        let heard: Vec<_> = (0..self.servers.len())
            .filter(|at| self.runs(*at) && !self.is_cut(*at))
            .map(sighting)
            .collect();
        master_is_lost(&voters(), &heard, &Timing::default()).is_ok()
    }

    fn deliver(&mut self, event: Event) {
        // A paused server finds its messages when it wakes.
        let to = match &event {
            Event::Prepare(to, _) | Event::Follow(to, _) => Some(*to),
            Event::Heartbeat(_, to, _) | Event::Ack(_, to, _) => Some(*to),
            Event::Promote(promotion) => Some(index(&promotion.winner.name)),
            Event::Prepared(..) | Event::Decide(_) | Event::Promoted(..) => None,
        };
        if let Some(to) = to.filter(|to| !self.runs(*to)) {
            self.sent += 1;
            self.events
                .insert((self.servers[to].paused_until, self.sent), event);
            return;
        }
        match event {
            Event::Prepare(to, prepare) => {
                for reply in self.feed(to, Input::Prepare(0, prepare)) {
                    let Reply::Prepare(result) = reply else {
                        continue;
                    };
                    self.send(&[to], Event::Prepared(to, result));
                }
            }
            Event::Prepared(from, result) => {
                let now = self.now;
                let Some(election) = &mut self.election else {
                    return;
                };
                election.record(now, &NAMES[from].into(), result);
                if election.is_complete() {
                    self.decide();
                }
            }
            Event::Decide(term) => {
                if self
                    .election
                    .as_ref()
                    .is_some_and(|e| e.prepare().term == term)
                {
                    self.decide();
                }
            }
            Event::Promote(promotion) => self.promote(promotion),
            Event::Promoted(promotion, promoted) => {
                self.bootstrapped = true;
                let follow = promotion.follow(&promoted);
                let winner = index(&promotion.winner.name);
                for at in (0..self.servers.len()).filter(|at| *at != winner) {
                    self.send(&[at], Event::Follow(at, Box::new(follow.clone())));
                }
            }
            Event::Follow(to, follow) => {
                self.feed(to, Input::Follow(0, follow));
            }
            Event::Heartbeat(from, to, heartbeat) => {
                for reply in self.feed(to, Input::Heartbeat(0, heartbeat)) {
                    let Reply::Heartbeat(result) = reply else {
                        continue;
                    };
                    self.send(&[from, to], Event::Ack(to, from, result));
                }
            }
            Event::Ack(from, to, result) => {
                self.feed(to, Input::Ack(NAMES[from].into(), result));
            }
        }
    }

    fn decide(&mut self) {
        let Some(mut election) = self.election.take() else {
            return;
        };
        if let Ok(promotion) = election.decide(self.now) {
            self.elections += 1;
            let winner = index(&promotion.winner.name);
            self.send(&[winner], Event::Promote(Box::new(promotion)));
        }
    }

    fn promote(&mut self, promotion: Box<Promotion>) {
        let winner = index(&promotion.winner.name);
        let promote = Box::new(promotion.promote.clone());
        for reply in self.feed(winner, Input::Promote(0, promote)) {
            let Reply::Promote(Ok(promoted)) = reply else {
                continue;
            };
            self.send(&[winner], Event::Promoted(promotion.clone(), promoted));
        }
    }

    /// Feeds an input, with the engine's position first; data arrive at followers at once.
    fn feed(&mut self, at: usize, input: Input) -> Vec<Reply> {
        self.replicate(at);
        let clock = self.clock(at);
        let mut replies = Vec::new();
        for output in self.servers[at].member.handle(clock, input) {
            match output {
                Output::Fence => {
                    let data = self.data(at);
                    replies.extend(self.feed(at, Input::Fenced(data)));
                }
                Output::Answer(_, reply) => replies.push(reply),
                Output::Lead(_, replid) => {
                    self.servers[at].replid = Some(replid);
                    self.servers[at].offset += 1;
                    let data = self.data(at);
                    self.servers[at].member.handle(clock, Input::Progress(data));
                }
                Output::Send(peer, heartbeat) => {
                    let to = index(&peer.name);
                    self.send(&[at, to], Event::Heartbeat(at, to, heartbeat));
                }
                Output::Persist(_)
                | Output::FollowMaster(_)
                | Output::Serve(_)
                | Output::StepDown
                | Output::CloseClients
                | Output::PauseClients(..)
                | Output::ResumeClients => {}
            }
        }
        replies
    }

    fn data(&self, at: usize) -> DataPosition {
        let server = &self.servers[at];
        DataPosition {
            replid: server.replid.clone(),
            offset: Offset(server.offset),
        }
    }

    fn replicate(&mut self, at: usize) {
        let following = self.servers[at]
            .member
            .following()
            .map(|f| (f.term, index(&f.master)));
        if let Some((term, master)) = following
            && self.servers[master].member.role() == RoleKind::Master
            && self.servers[master].member.role_term() == term
            && !self.is_cut(at)
            && !self.is_cut(master)
        {
            self.servers[at].replid = self.servers[master].replid.clone();
            self.servers[at].offset = self.servers[master].offset;
        }
        let (data, clock) = (self.data(at), self.clock(at));
        self.servers[at].member.handle(clock, Input::Progress(data));
    }
}

#[test]
fn two_members_never_serve_at_once() {
    let (mut elections, mut served_ms) = (0, 0);
    let seeds = 40;
    for seed in 1..=seeds {
        let mut sim = Sim::new(seed, Rules::default());
        sim.run()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        elections += sim.elections;
        served_ms += sim.served_ms;
    }
    println!(
        "{elections} elections, served {} %",
        served_ms * 100 / (seeds * STEPS_MS)
    );
    assert!(
        elections > seeds * 5,
        "only {elections} elections: nothing was tried"
    );
    assert!(
        served_ms > seeds * STEPS_MS * 7 / 10,
        "served only {served_ms} ms: nothing was at stake"
    );
}

fn caught(rules: Rules) -> bool {
    (1..=40).any(|seed| Sim::new(seed, rules).run().is_err())
}

#[test]
fn two_members_serve_at_once_without_deferral() {
    assert!(caught(Rules {
        defer_to_old_lease: false,
        ..Rules::default()
    }));
}

#[test]
fn two_members_serve_at_once_without_leases() {
    assert!(caught(Rules {
        lease: false,
        ..Rules::default()
    }));
}
