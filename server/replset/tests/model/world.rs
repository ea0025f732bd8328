//! The world of the model: three servers with the real state machines, a log of entries each, and
//! a network that may deliver late or never.
//!
//! One entry is one byte of offset; a master's marker is an entry. What a majority acknowledged
//! counts as acknowledged to a client, and must never be missing again.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use replset::{
    Boot, Bootstrapped, CutTails, DataPosition, Election, ElectionPlan, EmptySet, Endpoint,
    Generation, HeartbeatAck, Incarnation, Input, Intent, Loss, Member, MemberName, MemberState,
    NotObeyed, Offset, OldMaster, Output, Peer, Promoted, Promotion, QuorumLost, ReplId, Reply,
    RoleKind, Rules, Term, Timing, VoterSet,
};

/// Time stands still: safety must not depend on it, leases are examined elsewhere.
const NOW_MS: u64 = 1_000_000;
const NAMES: [&str; 3] = ["a", "b", "c"];
const FLEET: &str = "model";

/// How much may happen after the bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Highest term; 1 is the bootstrap's.
    pub terms: u64,
    pub writes: u8,
    pub crashes: u8,
    pub wipes: u8,
    pub kills: u8,
    /// Acknowledgements under way at a time.
    pub acks: usize,
    /// Changes of the voters.
    pub changes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Prepare(u64, usize),
    Decide(u64),
    Promote(u64),
    Follow(u64, usize),
    Write(usize),
    Sync(usize),
    Heartbeat(usize, usize),
    Ack(usize),
    /// The process ends, with everything on disk.
    Crash(usize),
    /// The process ends, with so many entries on disk.
    Kill(usize, usize),
    /// State and data are gone.
    Wipe(usize),
    /// Data are gone, the state file is not.
    LoseData(usize),
    /// The status records that this one votes no more, or does again.
    ChangeVoters(usize),
    /// A master is told who votes.
    TellVoters(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A new master lacks an acknowledged entry.
    MasterLacks { term: u64, entry: Entry },
    /// A follower's dataset with an acknowledged entry was replaced by one without.
    Discarded { node: usize, entry: Entry },
    /// Two acknowledged histories differ.
    Conflict { at: usize },
    /// A term has two masters.
    TwoMasters { term: u64 },
    /// A partial sync was allowed between histories that differ.
    Diverged { node: usize },
}

/// (term, number): unique.
pub type Entry = (u64, u8);

/// A part that most successors share, with its hash.
#[derive(Clone)]
struct Shared<T> {
    part: Arc<T>,
    digest: [u64; 2],
}

impl<T: Clone + Hash> Shared<T> {
    fn new(part: T) -> Self {
        let digest = [digest(1, &part), digest(2, &part)];
        Self {
            part: Arc::new(part),
            digest,
        }
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let part = Arc::make_mut(&mut self.part);
        let result = change(part);
        self.digest = [digest(1, part), digest(2, part)];
        result
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

fn digest(seed: u64, part: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    part.hash(&mut hasher);
    hasher.finish()
}

#[derive(Clone, Hash)]
struct Node {
    member: Member,
    disk: Option<MemberState>,
    log: Vec<Entry>,
    replid: Option<ReplId>,
}

#[derive(Clone, Hash)]
struct Round {
    election: Election,
    promotion: Option<Promotion>,
    promoted: Option<Promoted>,
}

#[derive(Clone)]
pub struct World {
    nodes: Vec<Shared<Node>>,
    rounds: BTreeMap<u64, Shared<Round>>,
    acks: Shared<BTreeSet<(usize, usize, HeartbeatAck)>>,
    /// Entries that a client may have seen acknowledged, and by the master of which term.
    acknowledged: Vec<(Entry, u64)>,
    /// The last term that began with the word that writes of earlier ones may be lost.
    told_lost_before: u64,
    masters: BTreeMap<u64, usize>,
    /// As the status records them.
    voters: VoterSet,
    written: u8,
    lives: u64,
    rules: Rules,
    left: Budget,
}

impl Round {
    fn new(election: Election) -> Self {
        Self {
            election,
            promotion: None,
            promoted: None,
        }
    }
}

/// What came out of an input besides effects on the node itself.
#[derive(Default)]
struct Emitted {
    replies: Vec<Reply>,
    heartbeats: Vec<(usize, replset::Heartbeat)>,
}

fn index(name: &MemberName) -> usize {
    NAMES.iter().position(|n| *n == name.as_str()).unwrap()
}

fn peers() -> Vec<Peer> {
    let endpoint = Endpoint::default();
    NAMES
        .iter()
        .map(|name| Peer {
            name: (*name).into(),
            endpoint: endpoint.clone(),
        })
        .collect()
}

fn timing() -> Timing {
    // Every tick is due, so that a heartbeat is an action like any other.
    Timing {
        heartbeat_ms: 0,
        ..Timing::default()
    }
}

fn plan(term: u64, bootstrapped: Bootstrapped, voters: VoterSet) -> ElectionPlan {
    ElectionPlan {
        heir_of: None,
        fleet: FLEET.into(),
        term: Term(term),
        elector: "elector".into(),
        intent: Intent::Forced,
        voters,
        peers: peers(),
        bootstrapped,
        preference: vec!["a".into()],
        // Now and then somebody is passed over who may well be the best.
        passed_over: term.is_multiple_of(3).then(|| "a".into()),
        old_master: OldMaster::Unknown,
        in_sync: Vec::new(),
        on_empty: EmptySet::Halt,
        on_quorum_lost: QuorumLost::BestOfAll,
        on_cut_tails: CutTails::Accept,
        random: [term as u8; 12],
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.iter().for_each(|node| node.digest.hash(state));
        self.rounds
            .iter()
            .for_each(|(term, round)| (term, round.digest).hash(state));
        self.acks.digest.hash(state);
        (
            &self.acknowledged,
            self.told_lost_before,
            &self.masters,
            &self.voters,
            self.written,
            self.lives,
            self.left,
        )
            .hash(state);
    }
}

impl World {
    /// A set whose bootstrap is over: `a` is master of term 1, everybody votes and is in sync.
    pub fn bootstrapped(rules: Rules, budget: Budget) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            rounds: BTreeMap::new(),
            acks: Shared::new(BTreeSet::new()),
            acknowledged: Vec::new(),
            told_lost_before: 0,
            masters: BTreeMap::new(),
            voters: VoterSet {
                generation: Generation(1),
                voters: NAMES.iter().map(|name| (*name).into()).collect(),
            },
            written: 0,
            lives: 0,
            rules,
            left: Budget {
                terms: 1,
                writes: 0,
                crashes: 0,
                wipes: 0,
                kills: 0,
                acks: 10,
                changes: 0,
            },
        };
        for node in 0..NAMES.len() {
            let born = world.born(node, None, DataPosition::default());
            world.nodes.push(Shared::new(born));
        }
        let election = Election::with_rules(plan(1, Bootstrapped::No, world.voters.clone()), rules);
        world.rounds.insert(1, Shared::new(Round::new(election)));
        for node in 0..NAMES.len() {
            world.perform(&Action::Prepare(1, node)).unwrap();
        }
        let mut run = |action| world.perform(&action).unwrap();
        run(Action::Decide(1));
        run(Action::Promote(1));
        for follower in [1, 2] {
            run(Action::Follow(1, follower));
            run(Action::Sync(follower));
        }
        // Three rounds: seen, recorded, admitted; one more to acknowledge with a vote.
        for _ in 0..4 {
            for follower in [1, 2] {
                run(Action::Heartbeat(0, follower));
                run(Action::Ack(0));
            }
        }
        let vote = replset::Vote::Granted;
        assert!(
            world
                .nodes
                .iter()
                .all(|node| node.member.state().vote == vote)
        );
        world.rounds.clear();
        world.left = budget;
        world
    }

    fn born(&mut self, node: usize, disk: Option<MemberState>, data: DataPosition) -> Node {
        self.lives += 1;
        let boot = Boot {
            fleet: FLEET.into(),
            name: NAMES[node].into(),
            endpoint: Endpoint::default(),
            fresh: Incarnation(self.lives),
            data: data.clone(),
            now_ms: NOW_MS,
        };
        let (member, outputs) = Member::start_with_rules(disk.clone(), boot, timing(), self.rules);
        let mut born = Node {
            member,
            disk,
            log: Vec::new(),
            replid: data.replid,
        };
        for output in outputs {
            if let Output::Persist(state) = output {
                born.disk = Some(*state);
            }
        }
        born
    }

    /// Everything that may happen next.
    pub fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.electing(&mut actions);
        self.replicating(&mut actions);
        self.voting(&mut actions);
        let everyone = 0..self.nodes.len();
        if self.left.crashes > 0 {
            actions.extend(everyone.clone().map(Action::Crash));
        }
        if self.left.kills > 0 {
            for node in everyone.clone() {
                let saved = 1..=self.nodes[node].log.len();
                actions.extend(saved.map(|saved| Action::Kill(node, saved)));
            }
        }
        if self.left.wipes > 0 {
            actions.extend(everyone.clone().map(Action::Wipe));
            actions.extend(everyone.map(Action::LoseData));
        }
        actions
    }

    fn electing(&self, actions: &mut Vec<Action>) {
        for term in 2..=self.left.terms {
            let everyone = 0..self.nodes.len();
            let Some(round) = self.rounds.get(&term) else {
                actions.extend(everyone.map(|node| Action::Prepare(term, node)));
                // Terms are obtained in order.
                break;
            };
            match (&round.promotion, &round.promoted) {
                (None, _) => {
                    actions.extend(everyone.map(|node| Action::Prepare(term, node)));
                    // A member that does not answer is not waited for for ever.
                    if round.election.clone().decide(NOW_MS).is_ok() {
                        actions.push(Action::Decide(term));
                    }
                }
                (Some(_), None) => actions.push(Action::Promote(term)),
                (Some(promotion), Some(_)) => {
                    let others = everyone.filter(|node| *node != index(&promotion.winner.name));
                    actions.extend(others.map(|node| Action::Follow(term, node)));
                }
            }
        }
    }

    fn replicating(&self, actions: &mut Vec<Action>) {
        for (at, node) in self.nodes.iter().enumerate() {
            let master = node.member.role() == RoleKind::Master;
            if master && self.left.writes > 0 {
                actions.push(Action::Write(at));
            }
            if self.source(at).is_some() {
                actions.push(Action::Sync(at));
            }
            if master && self.acks.len() < self.left.acks {
                let others = (0..self.nodes.len()).filter(|other| *other != at);
                actions.extend(others.map(|other| Action::Heartbeat(at, other)));
            }
        }
        actions.extend((0..self.acks.len()).map(Action::Ack));
    }

    /// As the operator does it: one voter at a time, none who is master, while there is one, and only once a majority has
    /// recorded the voters before.
    fn voting(&self, actions: &mut Vec<Action>) {
        let everyone = || 0..self.nodes.len();
        let leads = |at: &usize| self.nodes[*at].member.role() == RoleKind::Master;
        let known = |at: usize| self.nodes[at].member.state().voters.generation;
        let present = self.voters.generation;
        let voters = self.voters.voters.iter().map(index);
        let recorded = voters.filter(|at| known(*at) == present).count();
        let needed = replset::majority(self.voters.voters.len());
        if self.left.changes > 0 && recorded >= needed && everyone().any(|at| leads(&at)) {
            let others = everyone().filter(|at| !leads(at));
            actions.extend(others.map(Action::ChangeVoters));
        }
        let untold = everyone().filter(leads).filter(|at| known(*at) < present);
        actions.extend(untold.map(Action::TellVoters));
    }

    /// The master that this node follows, if it leads that very term.
    fn source(&self, node: usize) -> Option<usize> {
        let following = self.nodes[node].member.following()?;
        let master = index(&following.master);
        let leader = &self.nodes[master].member;
        let leads = leader.role() == RoleKind::Master && leader.role_term() == following.term;
        leads.then_some(master)
    }

    pub fn perform(&mut self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::Prepare(term, node) => self.prepare(*term, *node),
            Action::Decide(term) => {
                let round = self.rounds.get_mut(term).unwrap();
                round.change(|round| round.promotion = round.election.decide(NOW_MS).ok());
                Ok(())
            }
            Action::Promote(term) => self.promote(*term),
            Action::Follow(term, node) => {
                let round = &self.rounds[term];
                let (promotion, promoted) = (&round.promotion, &round.promoted);
                let follow = promotion
                    .as_ref()
                    .unwrap()
                    .follow(promoted.as_ref().unwrap());
                self.input(*node, Input::Follow(0, Box::new(follow)))
                    .map(|_| ())
            }
            Action::Write(node) => self.write(*node),
            Action::Sync(node) => self.sync(*node),
            Action::Heartbeat(from, to) => self.heartbeat(*from, *to),
            Action::Ack(at) => self.ack(*at),
            Action::Crash(node) => {
                self.left.crashes -= 1;
                let saved = |state| MemberState {
                    clean_shutdown: true,
                    ..state
                };
                let disk = self.nodes[*node].disk.clone().map(saved);
                let log = self.nodes[*node].log.clone();
                self.restart(*node, disk, log)
            }
            Action::Kill(node, saved) => {
                self.left.kills -= 1;
                let disk = self.nodes[*node].disk.clone();
                let log = self.nodes[*node].log[..*saved].to_vec();
                self.restart(*node, disk, log)
            }
            Action::Wipe(node) => {
                self.left.wipes -= 1;
                self.restart(*node, None, Vec::new())
            }
            Action::ChangeVoters(node) => {
                self.left.changes -= 1;
                let name: MemberName = NAMES[*node].into();
                let voters = &mut self.voters;
                voters.generation.0 += 1;
                if voters.contains(&name) {
                    voters.voters.retain(|voter| *voter != name);
                } else {
                    voters.voters.push(name);
                }
                Ok(())
            }
            Action::TellVoters(node) => {
                let told = Input::Voters(0, self.voters.clone(), peers());
                self.input(*node, told)?;
                self.commit(*node)
            }
            Action::LoseData(node) => {
                self.left.wipes -= 1;
                let disk = self.nodes[*node].disk.clone();
                self.restart(*node, disk, Vec::new())
            }
        }
    }

    fn prepare(&mut self, term: u64, node: usize) -> Result<(), Violation> {
        let (rules, voters) = (self.rules, self.voters.clone());
        let fresh = || {
            let election = Election::with_rules(plan(term, Bootstrapped::Yes, voters), rules);
            Shared::new(Round::new(election))
        };
        let request = self
            .rounds
            .entry(term)
            .or_insert_with(fresh)
            .election
            .prepare();
        let emitted = self.input(node, Input::Prepare(0, request))?;
        let round = self.rounds.get_mut(&term).unwrap();
        for reply in emitted.replies {
            // A refusal is a lost message to the elector: what it cannot use, it does not count.
            if let Reply::Prepare(Ok(promise)) = reply {
                let from = NAMES[node].into();
                round.change(|round| round.election.record(NOW_MS, &from, Ok(promise)));
            }
        }
        Ok(())
    }

    fn promote(&mut self, term: u64) -> Result<(), Violation> {
        let promotion = self.rounds[&term].promotion.clone().unwrap();
        let winner = index(&promotion.winner.name);
        let emitted = self.input(winner, Input::Promote(0, Box::new(promotion.promote)))?;
        for reply in emitted.replies {
            if let Reply::Promote(Ok(promoted)) = reply {
                let round = self.rounds.get_mut(&term).unwrap();
                round.change(|round| round.promoted = Some(promoted));
            }
        }
        Ok(())
    }

    fn write(&mut self, node: usize) -> Result<(), Violation> {
        self.left.writes -= 1;
        self.written += 1;
        let term = self.nodes[node].member.role_term().0;
        let entry = (term, self.written);
        self.nodes[node].change(|node| node.log.push(entry));
        self.progress(node)?;
        // A master that is the only voter waits for nobody.
        self.commit(node)
    }

    fn progress(&mut self, node: usize) -> Result<(), Violation> {
        let data = self.data(node);
        self.input(node, Input::Progress(data)).map(|_| ())
    }

    fn data(&self, node: usize) -> DataPosition {
        let node = &self.nodes[node];
        DataPosition {
            replid: node.replid.clone(),
            offset: Offset(node.log.len() as u64),
        }
    }

    /// One step of replication: the next entry if the histories agree, else the whole dataset.
    fn sync(&mut self, node: usize) -> Result<(), Violation> {
        let Some(master) = self.source(node) else {
            return Ok(());
        };
        let source = self.nodes[master].log.clone();
        let log = self.nodes[node].log.clone();
        let partial = self.may_continue(node, master);
        if partial && !source.starts_with(&log) {
            return Err(Violation::Diverged { node });
        }
        let next = if partial {
            source.iter().take(log.len() + 1).copied().collect()
        } else {
            source
        };
        let lost = self.acknowledged.iter().enumerate();
        let mut lost =
            lost.filter(|(at, (e, _))| log.get(*at) == Some(e) && next.get(*at) != Some(e));
        if let Some((_, (entry, _))) = lost.next() {
            return Err(Violation::Discarded {
                node,
                entry: *entry,
            });
        }
        let replid = self.nodes[master].replid.clone();
        self.nodes[node].change(|node| {
            node.log = next;
            node.replid = replid;
        });
        self.progress(node)
    }

    /// What PSYNC decides from replication id and offset.
    fn may_continue(&self, node: usize, master: usize) -> bool {
        let data = self.data(node);
        let history = &self.nodes[master].member.state().history;
        let known = |replid: &ReplId| history.entries().iter().position(|e| e.replid == *replid);
        let Some(at) = data.replid.as_ref().and_then(known) else {
            return false;
        };
        let end = self.nodes[master].log.len() as u64;
        let end = history
            .entries()
            .get(at + 1)
            .map_or(end, |next| next.start.0);
        data.offset.0 <= end
    }

    fn heartbeat(&mut self, from: usize, to: usize) -> Result<(), Violation> {
        let emitted = self.input(from, Input::Tick)?;
        let sent = emitted.heartbeats.into_iter().find(|(node, _)| *node == to);
        let Some((_, heartbeat)) = sent else {
            return Ok(());
        };
        let answered = self.input(to, Input::Heartbeat(0, Box::new(heartbeat)))?;
        for reply in answered.replies {
            if let Reply::Heartbeat(Ok(ack)) = reply {
                self.acks.change(|acks| acks.insert((to, from, ack)));
            }
        }
        Ok(())
    }

    fn ack(&mut self, at: usize) -> Result<(), Violation> {
        let Some(delivered) = self.acks.iter().nth(at).cloned() else {
            return Ok(());
        };
        self.acks.change(|acks| acks.remove(&delivered));
        let (from, to, ack) = delivered;
        self.input(to, Input::Ack(NAMES[from].into(), Ok::<_, NotObeyed>(ack)))?;
        self.commit(to)
    }

    /// What a majority holds may have been acknowledged to a client.
    fn commit(&mut self, node: usize) -> Result<(), Violation> {
        let node = &self.nodes[node];
        if node.member.role_term().0 < self.told_lost_before {
            return Ok(());
        }
        let committed = node.member.replicated().0 as usize;
        let prefix = &node.log[..committed.min(node.log.len())];
        let common = self.acknowledged.len().min(prefix.len());
        if let Some(at) = (0..common).find(|at| self.acknowledged[*at].0 != prefix[*at]) {
            return Err(Violation::Conflict { at });
        }
        let term = node.member.role_term().0;
        let new = prefix.iter().skip(common).map(|entry| (*entry, term));
        self.acknowledged.extend(new);
        Ok(())
    }

    fn restart(
        &mut self,
        node: usize,
        disk: Option<MemberState>,
        log: Vec<Entry>,
    ) -> Result<(), Violation> {
        let replid = self.replid_of(node, &log);
        let data = DataPosition {
            replid,
            offset: Offset(log.len() as u64),
        };
        let born = self.born(node, disk, data);
        self.nodes[node] = Shared::new(Node { log, ..born });
        let leads = self.nodes[node].member.role() == RoleKind::Master;
        if leads {
            // Only a broken rule gets here: it carries on with what it has.
            let last = self.nodes[node].member.state().history.last().cloned();
            self.nodes[node].change(|node| node.replid = last.map(|entry| entry.replid));
        }
        Ok(())
    }

    /// The stream that a snapshot with this log names: the one that its last entry came from, or the present one if
    /// nothing is missing.
    fn replid_of(&self, node: usize, log: &[Entry]) -> Option<ReplId> {
        let node = &self.nodes[node];
        let last = log.last()?;
        if log.len() == node.log.len() {
            return node.replid.clone();
        }
        let state = node.member.state();
        let followed = state.following.iter().flat_map(|f| f.history.entries());
        let mut terms = followed.chain(state.history.entries());
        terms.find(|e| e.term.0 == last.0).map(|e| e.replid.clone())
    }

    /// Feeds one input and performs its outputs in order.
    fn input(&mut self, node: usize, input: Input) -> Result<Emitted, Violation> {
        let mut emitted = Emitted::default();
        let outputs = self.nodes[node].change(|node| node.member.handle(NOW_MS, input));
        for output in outputs {
            match output {
                Output::Persist(state) => {
                    self.nodes[node].change(|node| node.disk = Some(*state));
                }
                Output::Fence => {
                    let fenced = Input::Fenced(self.data(node));
                    emitted.replies.extend(self.input(node, fenced)?.replies);
                }
                Output::Answer(_, reply) => emitted.replies.push(reply),
                Output::Send(peer, heartbeat) => {
                    emitted.heartbeats.push((index(&peer.name), *heartbeat));
                }
                Output::Lead(term, replid) => self.lead(node, term, replid)?,
                Output::FollowMaster(_)
                | Output::Serve(_)
                | Output::StepDown
                | Output::CloseClients
                | Output::PauseClients(..)
                | Output::ResumeClients => {}
            }
        }
        Ok(emitted)
    }

    fn lead(&mut self, node: usize, term: Term, replid: ReplId) -> Result<(), Violation> {
        if self
            .masters
            .insert(term.0, node)
            .is_some_and(|other| other != node)
        {
            return Err(Violation::TwoMasters { term: term.0 });
        }
        let log = &self.nodes[node].log;
        // What the master of a higher term acknowledged is not for this one, which nobody follows.
        let earlier = self
            .acknowledged
            .iter()
            .enumerate()
            .filter(|(_, (_, by))| *by < term.0);
        let mut lacking = earlier.filter(|(at, (entry, _))| log.get(*at) != Some(entry));
        let lacking = lacking.next().map(|(at, (entry, _))| (at, *entry));
        let told = self.rounds.get(&term.0).and_then(|r| r.promotion.as_ref());
        if told.is_some_and(|promotion| promotion.loss == Loss::Possible) {
            self.told_lost_before = self.told_lost_before.max(term.0);
            let is_newest = self.acknowledged.iter().all(|(_, by)| *by < term.0);
            if let (true, Some((at, _))) = (is_newest, lacking) {
                self.acknowledged.truncate(at);
            }
        } else if let Some((_, entry)) = lacking {
            return Err(Violation::MasterLacks {
                term: term.0,
                entry,
            });
        }
        self.nodes[node].change(|node| {
            node.replid = Some(replid);
            node.log.push((term.0, 0));
        });
        self.progress(node)
    }
}
