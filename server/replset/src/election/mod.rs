//! The elector's side: collect promises, choose the highest position, say how long to defer.
//!
//! **Owns** rules R3, R4 and the choice of a winner. **Called by** the operator, once per term it
//! obtained. **Invariants**: one [`Election`] decides at most once, so a term has at most one
//! winner; if the promotion fails, a new election needs a new term. **Does not** send anything.

mod plan;

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::{Generation, MemberName, Position, Term};
use crate::message::{
    Follow, Intent, NotObeyed, Peer, Prepare, Promise, Promote, Promoted, StartKind,
};
use crate::rules::Rules;
use crate::state::{IncarnationTable, Tail, Vote, VoterSet};
use crate::timing::Timing;

pub use plan::{Bootstrapped, CutTails, ElectionPlan, EmptySet, OldMaster, QuorumLost};

/// More than half of `voters`; 1 of 1, 2 of 2, 2 of 3.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// What came back from a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// It promised, at this time of the elector's clock.
    Promised(Box<Promise>, u64),
    /// It refused.
    Refused(NotObeyed),
    /// It did not answer in time.
    Unreachable,
}

/// Why a voter's promise is missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Absence {
    /// Not asked, or no answer yet.
    NoAnswer,
    /// It cannot be reached.
    Unreachable,
    /// It refused.
    Refused(NotObeyed),
    /// It has no vote: new, or it lost its state or its data.
    NoVote,
    /// Its life was replaced by another one.
    Replaced,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer yet"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::NoVote => f.write_str("has no vote (new, or lost its data)"),
            Self::Replaced => f.write_str("was replaced by a newer incarnation"),
        }
    }
}

/// Why nobody is promoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too few votes.
    #[error("{votes} of {needed} needed votes; missing: {}", list(.missing))]
    TooFewVotes {
        /// How many are needed.
        needed: usize,
        /// How many there are.
        votes: usize,
        /// Who is missing, and why.
        missing: Vec<(MemberName, Absence)>,
    },
    /// A set that had data has none any more.
    #[error("no voter (of {0}) holds data, although the set had some")]
    DatasetLost(usize),
    /// Whoever answered with the most data ended without saving; somebody who did not answer may hold more.
    #[error(
        "whoever holds the most of those that answer ended without saving and may lack its last writes; missing: {}",
        list(.0)
    )]
    TailsCut(Vec<(MemberName, Absence)>),
    /// The first master needs everybody, so that no dataset is overlooked.
    #[error("the first mastership needs every member; missing: {}", list(.0))]
    BootstrapNeedsAll(Vec<(MemberName, Absence)>),
    /// The status is older than what members know.
    #[error("members know the voters of generation {known}, this election has {ours}")]
    StaleVoters {
        /// What members know.
        known: Generation,
        /// What this election has.
        ours: Generation,
    },
    /// Members still hear the master.
    #[error("the master is alive, heard by {}", names(.0))]
    MasterAlive(Vec<MemberName>),
    /// This election has decided already.
    #[error("this election has decided already, a new one needs a new term")]
    Decided,
}

fn list(missing: &[(MemberName, Absence)]) -> String {
    let texts: Vec<String> = missing
        .iter()
        .map(|(name, absence)| format!("{name} ({absence})"))
        .collect();
    texts.join(", ")
}

fn names(members: &[MemberName]) -> String {
    members
        .iter()
        .map(MemberName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Nothing a majority held.
    None,
    /// Anything that only members without a vote, absent ones, or processes that ended without saving held.
    Possible,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promotion {
    /// Who.
    pub winner: Peer,
    /// What to send to it.
    pub promote: Promote,
    /// What may be lost by it.
    pub loss: Loss,
}

impl Promotion {
    /// What to send to everyone else, once the winner has answered.
    pub fn follow(&self, promoted: &Promoted) -> Follow {
        Follow {
            fleet: self.promote.fleet.clone(),
            term: promoted.term,
            master: self.winner.clone(),
            history: promoted.history.clone(),
            voters: self.promote.voters.clone(),
            peers: self.promote.peers.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Progress {
    Collecting,
    Decided,
}

/// One election for one term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Election {
    plan: ElectionPlan,
    rules: Rules,
    answers: BTreeMap<MemberName, Answer>,
    progress: Progress,
}

impl Election {
    /// An election that has asked nobody yet.
    pub fn new(plan: ElectionPlan) -> Self {
        Self::with_rules(plan, Rules::default())
    }

    /// As [`Election::new`], with rules that tests switch off.
    #[doc(hidden)]
    pub fn with_rules(plan: ElectionPlan, rules: Rules) -> Self {
        Self {
            plan,
            rules,
            answers: BTreeMap::new(),
            progress: Progress::Collecting,
        }
    }

    /// What to send to every peer.
    pub fn prepare(&self) -> Prepare {
        Prepare {
            fleet: self.plan.fleet.clone(),
            heir_of: self.plan.heir_of.clone(),
            term: self.plan.term,
            elector: self.plan.elector.clone(),
            generation: self.plan.voters.generation,
            intent: self.plan.intent.clone(),
        }
    }

    /// A member answered.
    pub fn record(
        &mut self,
        now_ms: u64,
        from: &MemberName,
        answer: Result<Box<Promise>, NotObeyed>,
    ) {
        let answer = match answer {
            Ok(promise) if promise.term == self.plan.term && promise.id.name == *from => {
                Answer::Promised(promise, now_ms)
            }
            Ok(_) => return,
            Err(reason) => Answer::Refused(reason),
        };
        self.answers.insert(from.clone(), answer);
    }

    /// A member did not answer in time.
    pub fn unreachable(&mut self, from: &MemberName) {
        self.answers
            .entry(from.clone())
            .or_insert(Answer::Unreachable);
    }

    /// Whether every voter has answered or is known to be unreachable: waiting brings nothing.
    pub fn is_complete(&self) -> bool {
        self.plan
            .voters
            .voters
            .iter()
            .all(|name| self.answers.contains_key(name))
    }

    /// Whether there are enough votes to decide now, of members that are sure to hold what they acknowledged:
    /// waiting longer may still find better data, but none that a majority held.
    pub fn has_quorum(&self) -> bool {
        let voting = self.without_the_passed_over(self.voting());
        voting.len() >= self.needed() && self.loss_by(&voting) == Loss::None
    }

    /// Whether there are enough votes with that of this voter, which was not asked yet.
    pub fn has_quorum_with(&self, voter: &MemberName) -> bool {
        let others = self.voting().into_iter().filter(|p| p.id.name != *voter);
        self.plan.voters.contains(voter) && others.count() + 1 >= self.needed()
    }

    /// Whether this voter's promise is among those that count.
    pub fn has_promise_of(&self, voter: &MemberName) -> bool {
        self.voting().iter().any(|p| p.id.name == *voter)
    }

    /// Chooses the new master. Call it when [`Election::is_complete`], or when there is a quorum
    /// and waiting longer costs more than it may bring.
    pub fn decide(&mut self, now_ms: u64) -> Result<Promotion, Refusal> {
        if self.progress == Progress::Decided {
            return Err(Refusal::Decided);
        }
        let (winner, start, loss) = self.choose()?;
        let promise = winner.clone();
        let name = &promise.id.name;
        let peer = self
            .plan
            .peers
            .iter()
            .find(|peer| peer.name == *name)
            .cloned();
        let Some(peer) = peer else {
            return Err(self.too_few(0));
        };
        self.progress = Progress::Decided;
        let promote = Promote {
            fleet: self.plan.fleet.clone(),
            term: self.plan.term,
            elector: self.plan.elector.clone(),
            id: promise.id.clone(),
            boot: promise.boot,
            position: promise.position,
            start,
            voters: self.plan.voters.clone(),
            table: self.table(),
            peers: self.plan.peers.clone(),
            defer_ms: self.defer_ms(now_ms),
            random: self.plan.random,
        };
        Ok(Promotion {
            winner: peer,
            promote,
            loss,
        })
    }

    fn choose(&self) -> Result<(&Promise, StartKind, Loss), Refusal> {
        let known = self
            .promises()
            .map(|(p, _)| p.generation)
            .max()
            .unwrap_or_default();
        let ours = self.plan.voters.generation;
        if self.rules.stale_voters_are_refused && known > ours {
            return Err(Refusal::StaleVoters { known, ours });
        }
        let voting = self.voting();
        let others = self.without_the_passed_over(voting.clone());
        let others_do = others.len() >= self.needed() && self.loss_by(&others) == Loss::None;
        let voting = if others_do { others } else { voting };
        if voting.len() >= self.needed()
            && let Some(best) = self.best(voting.iter().copied())
        {
            let loss = self.loss_by(&voting);
            let is_best = |p: &&Promise| !self.is_cut(p) && p.position >= best.position;
            let others_may_know = self.promises().count() < self.plan.voters.voters.len();
            if others_may_know
                && !voting.iter().any(is_best)
                && self.plan.on_cut_tails == CutTails::Wait
            {
                return Err(Refusal::TailsCut(self.missing(MissingOf::Answers)));
            }
            return Ok((best, StartKind::Quorum, loss));
        }
        if let [only] = voting.as_slice()
            && self.plan.voters.voters.len() == 2
            && self.plan.in_sync.contains(&only.id.name)
        {
            return Ok((only, StartKind::LastResort, Loss::Possible));
        }
        self.choose_without_quorum(voting.len())
    }

    /// The promises that count.
    fn voting(&self) -> Vec<&Promise> {
        let table = self.table();
        self.promises()
            .map(|(promise, _)| promise)
            .filter(|promise| self.absence_of(promise, &table).is_none())
            .collect()
    }

    fn without_the_passed_over<'a>(&self, mut voting: Vec<&'a Promise>) -> Vec<&'a Promise> {
        voting.retain(|promise| Some(&promise.id.name) != self.plan.passed_over.as_ref());
        voting
    }

    /// R11b. With so many members that still hold what they acknowledged, every majority has one of them;
    /// with fewer, a write that a majority held may be held by nobody who was asked.
    fn loss_by(&self, voting: &[&Promise]) -> Loss {
        let voters = self.plan.voters.voters.len();
        let needed = if self.rules.read_quorum {
            voters - majority(voters) + 1
        } else {
            1
        };
        let sure = voting.iter().filter(|promise| !self.is_cut(promise));
        if sure.count() >= needed {
            Loss::None
        } else {
            Loss::Possible
        }
    }

    fn is_cut(&self, promise: &Promise) -> bool {
        self.rules.cut_tails_are_told && promise.tail == Tail::MayBeCut
    }

    /// Too few votes: only if every voter answered is it certain that nothing better exists.
    fn choose_without_quorum(&self, votes: usize) -> Result<(&Promise, StartKind, Loss), Refusal> {
        let voters = &self.plan.voters.voters;
        let promises: Vec<&Promise> = self.promises().map(|(promise, _)| promise).collect();
        let everybody = promises.len() == voters.len() && !voters.is_empty();
        let filled = promises.iter().copied().filter(|promise| !promise.blank);
        let best_filled = self.best(filled);
        match (best_filled, everybody) {
            (None, false) if self.plan.bootstrapped == Bootstrapped::No => {
                Err(Refusal::BootstrapNeedsAll(self.missing(MissingOf::Answers)))
            }
            (_, false) => Err(self.too_few(votes)),
            (Some(best), true) if self.may_take_best_of_all() => {
                Ok((best, StartKind::LastResort, Loss::Possible))
            }
            (Some(_), true) => Err(self.too_few(votes)),
            (None, true) => self.choose_empty(&promises),
        }
    }

    /// Before the first mastership was recorded, taking over what a half-done one left is safe.
    fn may_take_best_of_all(&self) -> bool {
        self.plan.on_quorum_lost == QuorumLost::BestOfAll
            || self.plan.bootstrapped == Bootstrapped::No
    }

    fn choose_empty<'a>(
        &self,
        promises: &[&'a Promise],
    ) -> Result<(&'a Promise, StartKind, Loss), Refusal> {
        let loss = match (self.plan.bootstrapped, self.plan.on_empty) {
            (Bootstrapped::No, _) => Loss::None,
            (Bootstrapped::Yes, EmptySet::Accept) => Loss::Possible,
            (Bootstrapped::Yes, EmptySet::Halt) => {
                return Err(Refusal::DatasetLost(promises.len()));
            }
        };
        let first = promises.iter().min_by_key(|promise| self.rank(promise));
        let best = first.ok_or_else(|| self.too_few(0))?;
        Ok((best, StartKind::Bootstrap, loss))
    }

    /// R4: highest position; the caller's preference, then the name, only among equals.
    fn best<'a>(&self, promises: impl Iterator<Item = &'a Promise>) -> Option<&'a Promise> {
        let worth = |promise: &Promise| {
            let position = promise.position;
            if self.rules.compare_terms {
                position
            } else {
                Position {
                    term: Term(0),
                    offset: position.offset,
                }
            }
        };
        promises.min_by_key(|p| (std::cmp::Reverse(worth(p)), self.rank(p)))
    }

    fn rank(&self, promise: &Promise) -> (usize, MemberName) {
        let name = &promise.id.name;
        let preferred = self
            .plan
            .preference
            .iter()
            .position(|preferred| preferred == name);
        (preferred.unwrap_or(usize::MAX), name.clone())
    }

    /// Promises of voters, with the time of their arrival.
    fn promises(&self) -> impl Iterator<Item = (&Promise, u64)> {
        self.answers
            .iter()
            .filter_map(|(name, answer)| match answer {
                Answer::Promised(promise, at_ms) if self.plan.voters.contains(name) => {
                    Some((&**promise, *at_ms))
                }
                Answer::Promised(..) | Answer::Refused(_) | Answer::Unreachable => None,
            })
    }

    fn needed(&self) -> usize {
        if self.rules.read_quorum {
            majority(self.plan.voters.voters.len())
        } else {
            1
        }
    }

    /// The newest entries of all tables that came with promises.
    fn table(&self) -> IncarnationTable {
        let mut table = IncarnationTable::default();
        for (promise, _) in self.promises() {
            table.merge(&promise.table);
        }
        table
    }

    fn absence_of(&self, promise: &Promise, table: &IncarnationTable) -> Option<Absence> {
        if promise.vote == Vote::Suspended {
            return Some(Absence::NoVote);
        }
        let void = self.rules.void_old_incarnations && table.voids(&promise.id);
        void.then_some(Absence::Replaced)
    }

    fn too_few(&self, votes: usize) -> Refusal {
        let missing = self.missing(MissingOf::Votes);
        Refusal::TooFewVotes {
            needed: self.needed(),
            votes,
            missing,
        }
    }

    fn missing(&self, of: MissingOf) -> Vec<(MemberName, Absence)> {
        let table = self.table();
        let absence = |name: &MemberName| match self.answers.get(name) {
            None => Some(Absence::NoAnswer),
            Some(Answer::Unreachable) => Some(Absence::Unreachable),
            Some(Answer::Refused(reason)) => Some(Absence::Refused(reason.clone())),
            Some(Answer::Promised(promise, _)) => match of {
                MissingOf::Votes => self.absence_of(promise, &table),
                MissingOf::Answers => None,
            },
        };
        let voters = self.plan.voters.voters.iter();
        voters
            .filter_map(|name| Some((name.clone(), absence(name)?)))
            .collect()
    }

    /// How long the winner must serve nobody: until every lease that a promise speaks of is over,
    /// except those whose master is known to be gone.
    fn defer_ms(&self, now_ms: u64) -> u64 {
        if !self.rules.defer_to_old_lease {
            return 0;
        }
        let mut gone: Vec<Term> = self
            .promises()
            .filter_map(|(promise, _)| promise.relinquished)
            .collect();
        if let Intent::Planned(release) = &self.plan.intent {
            gone.push(release.term);
        }
        match self.plan.old_master {
            OldMaster::Gone(term) => gone.push(term),
            OldMaster::Unknown => {}
        }
        let left = |(promise, at_ms): (&Promise, u64)| {
            let passed_ms = now_ms.saturating_sub(at_ms);
            let running = promise
                .leases
                .iter()
                .filter(|lease| !gone.contains(&lease.term));
            running
                .map(|lease| lease.remaining_ms.saturating_sub(passed_ms))
                .max()
        };
        self.promises().filter_map(left).max().unwrap_or(0)
    }
}

enum MissingOf {
    Votes,
    Answers,
}

/// What a voter says about its master, before any election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterSighting {
    /// The voter.
    pub member: MemberName,
    /// When it last heard its master serve; `None` if it misses it altogether.
    pub seen_ms_ago: Option<u64>,
    /// Whether it is itself a master that serves.
    pub leads: bool,
}

/// R14: an unplanned election may open only if a majority of the voters miss the master themselves.
/// Ask this before an election, because a failed one costs those that promised their master.
pub fn master_is_lost(
    voters: &VoterSet,
    sightings: &[MasterSighting],
    timing: &Timing,
) -> Result<(), Refusal> {
    let voting = sightings.iter().filter(|s| voters.contains(&s.member));
    let hears =
        |s: &MasterSighting| s.leads || s.seen_ms_ago.is_some_and(|ago| ago < timing.suspicion_ms);
    let (hearing, missing): (Vec<_>, Vec<_>) = voting.partition(|s| hears(s));
    if hearing.iter().any(|s| s.leads) {
        return Err(Refusal::MasterAlive(
            hearing.iter().map(|s| s.member.clone()).collect(),
        ));
    }
    let needed = majority(voters.voters.len()).min(voters.voters.len().saturating_sub(1).max(1));
    if missing.len() >= needed {
        return Ok(());
    }
    if !hearing.is_empty() {
        return Err(Refusal::MasterAlive(
            hearing.iter().map(|s| s.member.clone()).collect(),
        ));
    }
    let known = |name: &MemberName| sightings.iter().any(|s| s.member == *name);
    let absent = voters.voters.iter().filter(|name| !known(name));
    let absent = absent
        .map(|name| (name.clone(), Absence::Unreachable))
        .collect();
    Err(Refusal::TooFewVotes {
        needed,
        votes: missing.len(),
        missing: absent,
    })
}
