//! Obeying electors and masters: promises, promotions, orders to follow, heartbeats.
//!
//! Rules R1, R2, R8, R14 of the protocol. Invariant: a request of a term below the promised one
//! changes nothing.

use crate::ids::{FleetId, MemberName, Offset, Term};
use crate::lease::Serve;
use crate::member::lead::Mastership;
use crate::member::{MasterLink, Member, Output, Reply, RequestId, Role};
use crate::message::{
    Follow, Heartbeat, HeartbeatAck, Intent, NotObeyed, Peer, Prepare, Promise, Promote, Promoted,
    Standing, StartKind,
};
use crate::state::{
    Following, History, Promised, Stamp, TableEntry, Tail, TermStart, Vote, VoterSet,
};

impl Member {
    pub(super) fn prepare(&mut self, now_ms: u64, id: RequestId, prepare: Prepare) -> Vec<Output> {
        if let Err(reason) = self.may_promise(now_ms, &prepare) {
            return vec![Output::Answer(id, Reply::Prepare(Err(reason)))];
        }
        if !self.rules.fence_before_read {
            let promise = self.promise(now_ms, prepare.term);
            return vec![Output::Answer(id, Reply::Prepare(Ok(Box::new(promise))))];
        }
        let mut outputs = Vec::new();
        self.set_serve(Serve::Never, &mut outputs);
        outputs.push(Output::Fence);
        self.pending = Some((id, prepare));
        outputs
    }

    fn may_promise(&self, now_ms: u64, prepare: &Prepare) -> Result<(), NotObeyed> {
        let comes_over = prepare.heir_of.as_ref() == Some(&self.state.fleet);
        if !comes_over {
            self.check_fleet(&prepare.fleet)?;
        }
        let promised = &self.state.promised;
        if prepare.term < promised.term {
            return Err(NotObeyed::HigherTerm(promised.term));
        }
        if prepare.term == self.role_term() {
            return Err(NotObeyed::TermInUse(prepare.term));
        }
        if prepare.term == promised.term {
            return match &promised.elector {
                Some(elector) if *elector == prepare.elector => Ok(()),
                Some(elector) => Err(NotObeyed::PromisedToOther(elector.clone())),
                None => Err(NotObeyed::TermInUse(prepare.term)),
            };
        }
        let known = self.state.voters.generation;
        if self.rules.stale_voters_are_refused && prepare.generation < known {
            return Err(NotObeyed::StaleVoters(known));
        }
        self.check_master_lost(now_ms, &prepare.intent)
    }

    /// R14: who still hears the master deposes nobody, unless told that the master agreed.
    fn check_master_lost(&self, now_ms: u64, intent: &Intent) -> Result<(), NotObeyed> {
        match intent {
            Intent::Forced => return Ok(()),
            Intent::Planned(release) if release.term >= self.role_term() => return Ok(()),
            Intent::Planned(_) | Intent::Unplanned => {}
        }
        let seen_ms_ago = match &self.role {
            Role::Idle => None,
            Role::Master(mastership) => mastership.is_standing(now_ms, self.serve).then_some(0),
            Role::Follower if self.link == MasterLink::Refused => None,
            Role::Follower => self
                .seen_ms
                .map(|seen| now_ms.saturating_sub(seen))
                .filter(|ago| *ago < self.timing.suspicion_ms),
        };
        seen_ms_ago.map_or(Ok(()), |seen_ms_ago| {
            Err(NotObeyed::MasterAlive { seen_ms_ago })
        })
    }

    fn check_fleet(&self, fleet: &FleetId) -> Result<(), NotObeyed> {
        if *fleet == self.state.fleet {
            Ok(())
        } else {
            Err(NotObeyed::WrongFleet(self.state.fleet.clone()))
        }
    }

    pub(super) fn fenced(&mut self, now_ms: u64, data: crate::state::DataPosition) -> Vec<Output> {
        let Some((id, prepare)) = self.pending.take() else {
            return Vec::new();
        };
        let was_master = self.leave_role();
        self.absorb(data);
        self.state.fleet = prepare.fleet;
        self.state.promised = Promised {
            term: prepare.term,
            elector: Some(prepare.elector),
        };
        let mut outputs = Vec::new();
        if self.rules.persist_promise {
            outputs.push(self.persist());
        }
        if was_master {
            outputs.push(Output::CloseClients);
        }
        let promise = self.promise(now_ms, prepare.term);
        outputs.push(Output::Answer(id, Reply::Prepare(Ok(Box::new(promise)))));
        outputs
    }

    /// Stops being what it is; whether that was a master with clients.
    fn leave_role(&mut self) -> bool {
        self.seen_ms = None;
        self.link = MasterLink::Down;
        let role = std::mem::replace(&mut self.role, Role::Idle);
        let held = self.held_until.take().is_some();
        matches!(role, Role::Master(_)) || held
    }

    fn promise(&self, now_ms: u64, term: Term) -> Promise {
        Promise {
            id: self.state.id.clone(),
            boot: self.state.boot,
            term,
            position: self.position(),
            history: self.state.history.clone(),
            vote: self.state.vote,
            tail: self.state.tail,
            blank: self.state.blank,
            generation: self.state.voters.generation,
            table: self.state.table.clone(),
            leases: self.grants.remaining(now_ms),
            relinquished: self.relinquished(),
        }
    }

    pub(super) fn promote(&mut self, now_ms: u64, id: RequestId, promote: Promote) -> Vec<Output> {
        if let Role::Master(mastership) = &self.role
            && mastership.term == promote.term
            && promote.id == self.state.id
        {
            return vec![Output::Answer(
                id,
                Reply::Promote(Ok(self.promoted(promote.term))),
            )];
        }
        if let Err(reason) = self.may_lead(&promote) {
            return vec![Output::Answer(id, Reply::Promote(Err(reason)))];
        }
        self.take_over(now_ms, id, promote)
    }

    fn may_lead(&self, promote: &Promote) -> Result<(), NotObeyed> {
        self.check_fleet(&promote.fleet)?;
        let promised = &self.state.promised;
        if promote.term < promised.term {
            return Err(NotObeyed::HigherTerm(promised.term));
        }
        if promote.term == self.role_term() {
            return Err(NotObeyed::TermInUse(promote.term));
        }
        if promote.term != promised.term {
            return if self.rules.fence_before_read {
                Err(NotObeyed::NotPromised)
            } else {
                Ok(())
            };
        }
        match &promised.elector {
            Some(elector) if *elector == promote.elector => {}
            Some(elector) => return Err(NotObeyed::PromisedToOther(elector.clone())),
            None => return Err(NotObeyed::TermInUse(promote.term)),
        }
        let position = self.position();
        let as_promised = promote.id == self.state.id
            && promote.boot == self.state.boot
            && promote.position == position;
        if self.rules.promote_what_promised && !as_promised {
            return Err(NotObeyed::NotAsPromised {
                position,
                boot: self.state.boot,
            });
        }
        match promote.start {
            StartKind::Bootstrap if !self.state.blank => Err(NotObeyed::NotAsPromised {
                position,
                boot: self.state.boot,
            }),
            StartKind::Quorum if self.state.vote == Vote::Suspended => Err(NotObeyed::NoVote),
            StartKind::Bootstrap | StartKind::Quorum | StartKind::LastResort => Ok(()),
        }
    }

    fn take_over(&mut self, now_ms: u64, id: RequestId, promote: Promote) -> Vec<Output> {
        let replid = promote.replid();
        let term = promote.term;
        self.leave_role();
        let mut mastership = Mastership::new(term, now_ms + promote.defer_ms);
        self.state.promised = Promised {
            term,
            elector: Some(promote.elector.clone()),
        };
        self.state.history.begin(TermStart {
            term,
            start: self.data.offset,
            replid: replid.clone(),
        });
        self.state.following = None;
        self.state.released = None;
        // What is missing is lost; the elector has said so.
        self.state.tail = Tail::Whole;
        self.master_released = None;
        self.adopt_voters(&promote.voters);
        self.adopt_table(&promote.table);
        match promote.start {
            StartKind::Quorum => {}
            StartKind::Bootstrap | StartKind::LastResort => {
                let stamp = Stamp {
                    term,
                    number: mastership.next_stamp(),
                };
                let entry = TableEntry {
                    stamp,
                    incarnation: self.state.id.incarnation,
                };
                self.state.table.set(self.state.id.name.clone(), entry);
                self.state.vote = Vote::Granted;
                self.state.blank = false;
            }
        }
        self.data.replid = Some(replid.clone());
        self.peers = promote.peers;
        self.role = Role::Master(Box::new(mastership));
        let mut outputs = vec![self.persist(), Output::Lead(term, replid)];
        outputs.push(Output::Answer(id, Reply::Promote(Ok(self.promoted(term)))));
        outputs.extend(self.tick(now_ms));
        outputs
    }

    fn promoted(&self, term: Term) -> Promoted {
        Promoted {
            term,
            history: self.state.history.clone(),
        }
    }

    pub(super) fn follow(&mut self, now_ms: u64, id: RequestId, follow: Follow) -> Vec<Output> {
        if let Err(reason) = self.may_follow(&follow.fleet, follow.term, &follow.master.name) {
            return vec![Output::Answer(id, Reply::Follow(Err(reason)))];
        }
        let mut outputs = self.attach(
            now_ms,
            follow.term,
            follow.master,
            follow.history,
            &follow.voters,
        );
        self.peers = follow.peers;
        outputs.push(Output::Answer(id, Reply::Follow(Ok(()))));
        outputs
    }

    fn may_follow(
        &self,
        fleet: &FleetId,
        term: Term,
        master: &MemberName,
    ) -> Result<(), NotObeyed> {
        self.check_fleet(fleet)?;
        if term < self.state.promised.term {
            return Err(NotObeyed::HigherTerm(self.state.promised.term));
        }
        let leads = matches!(self.role, Role::Master(_)) && self.role_term() == term;
        if leads || *master == self.state.id.name {
            return Err(NotObeyed::TermInUse(term));
        }
        Ok(())
    }

    /// Follows the master of `term`; nothing happens if it does already.
    fn attach(
        &mut self,
        now_ms: u64,
        term: Term,
        master: Peer,
        history: History,
        voters: &VoterSet,
    ) -> Vec<Output> {
        let following = Following {
            term,
            master: master.name,
            endpoint: master.endpoint,
            history,
        };
        let mut changed = self.adopt_voters(voters);
        let mut outputs = Vec::new();
        let attached = self.following() == Some(&following);
        if !attached {
            self.set_serve(Serve::Never, &mut outputs);
            let same_term = self.following().is_some_and(|f| f.term == term);
            let seen_ms = self.seen_ms.filter(|_| same_term);
            if self.leave_role() {
                outputs.push(Output::CloseClients);
            }
            self.seen_ms = seen_ms.or(Some(now_ms));
            if term > self.state.promised.term {
                self.state.promised = Promised {
                    term,
                    elector: None,
                };
            }
            self.master_released = None;
            (self.master_offset, self.catch_up_to) = (Offset(0), None);
            self.state.released = None;
            self.state.following = Some(following.clone());
            self.role = Role::Follower;
            changed = true;
        }
        if changed {
            outputs.push(self.persist());
        }
        if !attached {
            outputs.push(Output::FollowMaster(Box::new(following)));
        }
        outputs
    }

    pub(super) fn heartbeat(
        &mut self,
        now_ms: u64,
        id: RequestId,
        heartbeat: Heartbeat,
    ) -> Vec<Output> {
        let allowed = self.may_follow(&heartbeat.fleet, heartbeat.term, &heartbeat.master.name);
        if let Err(reason) = allowed {
            return vec![Output::Answer(id, Reply::Heartbeat(Err(reason)))];
        }
        let term = heartbeat.term;
        let mut outputs = self.attach(
            now_ms,
            term,
            heartbeat.master,
            heartbeat.history,
            &heartbeat.voters,
        );
        self.peers = heartbeat.peers;
        self.master_offset = heartbeat.offset;
        self.catch_up_to.get_or_insert(heartbeat.offset);
        let mut changed = self.adopt_table(&heartbeat.table);
        if heartbeat.admit == Some(self.state.id.incarnation) && self.state.vote == Vote::Suspended
        {
            self.state.vote = Vote::Granted;
            changed = true;
        }
        changed |= self.mend_tail();
        if changed {
            outputs.push(self.persist());
        }
        // A heartbeat that the release of its term overtook on the way: a released term is never served again.
        let overtaken = self.master_released.is_some_and(|r| r.term >= term);
        if heartbeat.leased && !overtaken {
            self.grants.grant(term, now_ms, &self.timing);
        }
        match heartbeat.standing {
            Standing::Serving if overtaken => {}
            Standing::Serving => {
                self.seen_ms = Some(now_ms);
                if self.link == MasterLink::Refused {
                    self.link = MasterLink::Down;
                }
            }
            Standing::Lapsed => {}
            Standing::Released(release) => {
                self.grants.release(term);
                self.seen_ms = None;
                self.master_released = Some(release);
            }
        }
        let ack = self.ack(term, heartbeat.number);
        outputs.push(Output::Answer(id, Reply::Heartbeat(Ok(ack))));
        outputs
    }

    fn ack(&self, term: Term, number: u64) -> HeartbeatAck {
        HeartbeatAck {
            id: self.state.id.clone(),
            term,
            number,
            position: self.position(),
            vote: self.state.vote,
            recorded: self.state.table.newest(),
            generation: self.state.voters.generation,
        }
    }
}
