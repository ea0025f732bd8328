//! Being master: heartbeats, the lease they earn, and the admission of members that lost their vote.
//!
//! Rules R6, R11, R13, R15. Invariants: only acknowledgements of this term, of the life that counts
//! and with a vote extend the lease or the replicated offset; the lease is counted from the moment
//! the acknowledged heartbeat was sent.

use std::collections::BTreeMap;

use crate::election::majority;
use crate::ids::{Generation, Incarnation, MemberName, Offset, Position, Term};
use crate::lease::Serve;
use crate::member::handover::PendingHandover;
use crate::member::{Member, Output, PeerReport, Role};
use crate::message::{Heartbeat, HeartbeatAck, NotObeyed, Peer, Standing};
use crate::state::{Stamp, TableEntry, Vote};
use crate::timing::{HANDOVER_HEARTBEAT_MS, LEASE_MIN_VOTERS};

/// What a master keeps in memory about its mastership.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mastership {
    pub(super) term: Term,
    /// Serves nobody before: older leases may not be over.
    serve_from_ms: u64,
    stamps: u64,
    last_heartbeat_ms: Option<u64>,
    tracks: BTreeMap<MemberName, Track>,
    /// Whether it has served since its lease last began, so that its end must close clients.
    serving: bool,
    /// The voters became too few for a lease with this generation.
    leased_until_recorded: Option<Generation>,
    pub(super) handover: Option<PendingHandover>,
}

/// What a master knows of another member.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Track {
    /// Number of (= when was sent) the newest heartbeat acknowledged, by any life.
    heard: Option<u64>,
    /// The same, if the acknowledgement counts.
    counted: Option<u64>,
    pub(super) position: Position,
    /// What the life that counts holds.
    counted_position: Position,
    recorded: Stamp,
    generation: Generation,
    candidate: Option<Candidate>,
    promised_higher: Option<Term>,
}

/// A life without a vote that wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Candidate {
    incarnation: Incarnation,
    /// It must hold what its former life may have acknowledged, and all there was when it came.
    catch_up_to: Offset,
    /// The entry that names it, once written.
    stamp: Option<Stamp>,
}

impl Mastership {
    pub(super) fn new(term: Term, serve_from_ms: u64) -> Self {
        Self {
            term,
            serve_from_ms,
            stamps: 0,
            last_heartbeat_ms: None,
            tracks: BTreeMap::new(),
            serving: false,
            leased_until_recorded: None,
            handover: None,
        }
    }

    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    pub(super) fn track(&self, name: &MemberName) -> Option<&Track> {
        self.tracks.get(name)
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = (&MemberName, &Track)> {
        self.tracks.iter()
    }

    /// Sends a heartbeat at the next tick.
    pub(super) fn hurry(&mut self) {
        self.last_heartbeat_ms = None;
    }

    /// Whether it must be taken for alive: it serves, or is about to.
    pub(super) fn is_standing(&self, now_ms: u64, serve: Serve) -> bool {
        serve.allows(now_ms) || now_ms < self.serve_from_ms
    }
}

impl Track {
    /// Whether the acknowledgements of its present life count.
    pub(super) fn counts(&self) -> bool {
        self.candidate.is_none() && self.counted.is_some()
    }
}

impl Member {
    pub(super) fn acknowledged(
        &mut self,
        now_ms: u64,
        from: &MemberName,
        answer: Result<HeartbeatAck, NotObeyed>,
    ) -> Vec<Output> {
        let mut outputs = Vec::new();
        match answer {
            Ok(ack) => self.take_ack(from, &ack, &mut outputs),
            Err(NotObeyed::HigherTerm(term)) => {
                if let Role::Master(mastership) = &mut self.role {
                    mastership
                        .tracks
                        .entry(from.clone())
                        .or_default()
                        .promised_higher = Some(term);
                }
            }
            // The other refusals say nothing about the term; the lease runs out if they last.
            Err(_) => {}
        }
        self.renew(now_ms, &mut outputs);
        self.advance_handover(now_ms, &mut outputs);
        outputs
    }

    fn take_ack(&mut self, from: &MemberName, ack: &HeartbeatAck, outputs: &mut Vec<Output>) {
        let own_offset = self.data.offset;
        let known = self.peers.iter().any(|peer| peer.name == *from);
        let votes = self.state.voters.contains(from);
        let void = self.rules.void_old_incarnations && self.state.table.voids(&ack.id);
        let Role::Master(mastership) = &mut self.role else {
            return;
        };
        if ack.term != mastership.term || ack.id.name != *from || !known {
            return;
        }
        let track = mastership.tracks.entry(from.clone()).or_default();
        if track.heard.is_some_and(|heard| ack.number < heard) {
            return;
        }
        let replaced = track
            .candidate
            .is_some_and(|c| c.incarnation != ack.id.incarnation);
        if replaced && track.heard.is_some_and(|heard| ack.number <= heard) {
            return;
        }
        track.heard = Some(ack.number);
        track.position = ack.position;
        track.recorded = ack.recorded;
        track.generation = ack.generation;
        track.promised_higher = None;
        let admitted = ack.vote == Vote::Granted && !void;
        if admitted && !replaced {
            track.candidate = None;
            track.counted = Some(ack.number);
            track.counted_position = ack.position;
        } else if votes {
            track.consider(ack, own_offset);
            self.admit(from, outputs);
        }
    }

    /// Writes the table entry of a candidate that has caught up.
    fn admit(&mut self, name: &MemberName, outputs: &mut Vec<Output>) {
        let catch_up = self.rules.admit_after_catch_up;
        let Role::Master(mastership) = &mut self.role else {
            return;
        };
        let term = mastership.term;
        let number = mastership.stamps + 1;
        let Some(track) = mastership.tracks.get_mut(name) else {
            return;
        };
        let Some(candidate) = &mut track.candidate else {
            return;
        };
        let needed = Position {
            term,
            offset: candidate.catch_up_to,
        };
        if candidate.stamp.is_some() || (catch_up && track.position < needed) {
            return;
        }
        let stamp = Stamp { term, number };
        candidate.stamp = Some(stamp);
        let entry = TableEntry {
            stamp,
            incarnation: candidate.incarnation,
        };
        mastership.stamps = number;
        self.state.table.set(name.clone(), entry);
        outputs.push(self.persist());
    }

    /// The life of `name` that may be told it has a vote: enough others have recorded it.
    fn admission(&self, mastership: &Mastership, name: &MemberName) -> Option<Incarnation> {
        let candidate = mastership.tracks.get(name)?.candidate?;
        let stamp = candidate.stamp?;
        let me = &self.state.id.name;
        let voters = &self.state.voters.voters;
        if !voters.contains(name) {
            return None;
        }
        let recorded = voters
            .iter()
            .filter(|voter| *voter != name)
            .filter(|voter| {
                let track = mastership.tracks.get(*voter);
                *voter == me || track.is_some_and(|track| track.recorded >= stamp)
            })
            .count();
        let needed = majority(voters.len()).min(voters.len().saturating_sub(1));
        let needed = if self.rules.admit_by_majority {
            needed
        } else {
            needed.min(1)
        };
        (recorded >= needed).then_some(candidate.incarnation)
    }

    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.expire_hold(now_ms, &mut outputs);
        self.expire_handover(now_ms, &mut outputs);
        self.renew(now_ms, &mut outputs);
        self.advance_handover(now_ms, &mut outputs);
        let interval_ms = self.heartbeat_interval_ms();
        if let Role::Master(mastership) = &mut self.role
            && mastership
                .last_heartbeat_ms
                .is_none_or(|last| now_ms >= last + interval_ms)
        {
            mastership.last_heartbeat_ms = Some(now_ms);
            outputs.extend(self.heartbeats(now_ms, None));
        }
        outputs
    }

    /// When the next tick is due, at the latest.
    pub fn next_tick_ms(&self, now_ms: u64) -> u64 {
        let mut due = now_ms + self.timing.heartbeat_ms;
        if let Role::Master(mastership) = &self.role {
            let interval_ms = self.heartbeat_interval_ms();
            due = mastership
                .last_heartbeat_ms
                .map_or(now_ms, |last| last + interval_ms);
            if now_ms < mastership.serve_from_ms {
                due = due.min(mastership.serve_from_ms);
            }
            if let Some(handover) = &mastership.handover {
                due = due.min(handover.deadline_ms);
            }
        }
        if let Serve::Until(end_ms) = self.serve {
            due = due.min(end_ms);
        }
        due.max(now_ms)
    }

    fn heartbeat_interval_ms(&self) -> u64 {
        match &self.role {
            Role::Master(mastership) if mastership.handover.is_some() => HANDOVER_HEARTBEAT_MS,
            Role::Master(_) | Role::Idle | Role::Follower => self.timing.heartbeat_ms,
        }
    }

    /// One heartbeat for every other member; `standing` overrides what the lease says.
    pub(super) fn heartbeats(&self, now_ms: u64, standing: Option<Standing>) -> Vec<Output> {
        let Role::Master(mastership) = &self.role else {
            return Vec::new();
        };
        let lapsed = !mastership.is_standing(now_ms, self.serve);
        let earned = if lapsed {
            Standing::Lapsed
        } else {
            Standing::Serving
        };
        let me = self.me();
        let others = self.peers.iter().filter(|peer| peer.name != me.name);
        let send = |peer: &Peer| {
            let heartbeat = Heartbeat {
                fleet: self.state.fleet.clone(),
                term: mastership.term,
                number: now_ms,
                master: me.clone(),
                history: self.state.history.clone(),
                offset: self.data.offset,
                standing: standing.unwrap_or(earned),
                leased: self.has_lease(),
                voters: self.state.voters.clone(),
                table: self.state.table.clone(),
                peers: self.peers.clone(),
                admit: self.admission(mastership, &peer.name),
            };
            Output::Send(peer.clone(), Box::new(heartbeat))
        };
        others.map(send).collect()
    }

    /// With few voters there is none, but not before all of them know that they are few: until then an election may be under
    /// way among those that were, and serve beside this master.
    fn has_lease(&self) -> bool {
        let voters = &self.state.voters.voters;
        let Role::Master(mastership) = &self.role else {
            return false;
        };
        let knows = |voter: &MemberName, generation: Generation| {
            let track = mastership.tracks.get(voter);
            *voter == self.state.id.name || track.is_some_and(|t| t.generation >= generation)
        };
        let shrinking = mastership
            .leased_until_recorded
            .is_some_and(|generation| !voters.iter().all(|voter| knows(voter, generation)));
        self.rules.lease && (voters.len() >= LEASE_MIN_VOTERS || shrinking)
    }

    /// Notes that the voters have changed, from so many.
    pub(super) fn voters_changed(&mut self, before: usize) {
        let voters = &self.state.voters;
        if let Role::Master(mastership) = &mut self.role
            && before >= LEASE_MIN_VOTERS
            && voters.voters.len() < LEASE_MIN_VOTERS
        {
            mastership.leased_until_recorded = Some(voters.generation);
        }
    }

    /// Recomputes until when clients may be served; closes them when the lease has run out.
    fn renew(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        let Role::Master(mastership) = &self.role else {
            return;
        };
        let serve = self.earned(mastership, now_ms);
        let serves = serve.allows(now_ms);
        self.set_serve(if serves { serve } else { Serve::Never }, outputs);
        let Role::Master(mastership) = &mut self.role else {
            return;
        };
        if mastership.serving && !serves {
            outputs.push(Output::CloseClients);
        }
        mastership.serving = serves;
    }

    fn earned(&self, mastership: &Mastership, now_ms: u64) -> Serve {
        if now_ms < mastership.serve_from_ms {
            return Serve::Never;
        }
        if !self.has_lease() {
            return Serve::Unlimited;
        }
        let voters = &self.state.voters.voters;
        let me = &self.state.id.name;
        let counted = |voter: &MemberName| {
            if voter == me {
                return Some(now_ms);
            }
            mastership
                .tracks
                .get(voter)
                .filter(|track| track.counts())?
                .counted
        };
        let mut acked: Vec<u64> = voters.iter().filter_map(counted).collect();
        acked.sort_unstable_by(|a, b| b.cmp(a));
        match acked.get(majority(voters.len()) - 1) {
            Some(sent_ms) => Serve::Until(sent_ms + self.timing.lease_ms),
            None => Serve::Never,
        }
    }

    /// The highest offset of this term that a majority of the voters holds.
    pub(super) fn replicated_of(&self, mastership: &Mastership) -> Offset {
        let voters = &self.state.voters.voters;
        let me = &self.state.id.name;
        let own = self.position();
        let held = |voter: &MemberName| {
            let track = mastership.tracks.get(voter).filter(|track| track.counts());
            let position = if voter == me {
                Some(own)
            } else {
                track.map(|t| t.counted_position)
            };
            position
                .filter(|p| p.term == mastership.term)
                .map(|p| p.offset)
        };
        let mut offsets: Vec<Offset> = voters.iter().filter_map(held).collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        let needed = majority(voters.len());
        needed
            .checked_sub(1)
            .and_then(|i| offsets.get(i))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn peer_reports(&self, mastership: &Mastership, now_ms: u64) -> Vec<PeerReport> {
        let report = |(name, track): (&MemberName, &Track)| PeerReport {
            name: name.clone(),
            position: track.position,
            acked_ms_ago: track.heard.map(|sent| now_ms.saturating_sub(sent)),
            counts: track.counts() && self.state.voters.contains(name),
            generation: track.generation,
            promised_higher: track.promised_higher,
        };
        mastership.tracks().map(report).collect()
    }
}

impl Track {
    /// Notes a life without a vote; acknowledgements of the life before it are void from here on.
    fn consider(&mut self, ack: &HeartbeatAck, own_offset: Offset) {
        if self
            .candidate
            .is_some_and(|c| c.incarnation == ack.id.incarnation)
        {
            return;
        }
        self.candidate = Some(Candidate {
            incarnation: ack.id.incarnation,
            catch_up_to: own_offset.max(self.counted_position.offset),
            stamp: None,
        });
        self.counted = None;
        self.counted_position = Position::default();
    }
}
