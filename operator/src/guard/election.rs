//! Obtaining a term, asking for promises, promoting, and telling the members.

use std::{collections::BTreeSet, time::Duration};

use jiff::SignedDuration;
use kube::{Api, ResourceExt};
use replset::{
    Bootstrapped, CutTails, Election, ElectionPlan, ElectorId, EmptySet, FleetId, Generation,
    Handed, MemberName, Promoted, Promotion, QuorumLost, Refusal, Term, VoterSet,
};
use serde_json::json;
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{debug, info};

use super::{
    task::Guard,
    term::{TermError, decide},
    view::{MemberView, Stuck},
};
use crate::{
    api::{
        self, RedisReplicaSet,
        v1alpha1::{FailoverReason, RedisReplicaSetStatus},
    },
    context::cached,
    failover::{
        decide::Call,
        health::Verdict,
        heritage::{Found, Heritage, Undecided, heritage},
    },
    members::remote::{CALL_TIMEOUT, CallError, SLOW_CALL_TIMEOUT},
};

/// How long an election waits for more promises once it has a quorum: one that comes late may hold
/// better data only if it holds a write that no majority held.
const LATE_PROMISES: Duration = Duration::from_millis(30);

/// A master that is not heard within this time after it was chosen again is passed over for others.
const UNHEARD_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// What an election is meant for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// For a master, whoever it is.
    AnyMaster,
    /// For a new term of the master that serves.
    Again {
        /// The master.
        master: MemberName,
        /// Why, in words.
        why: String,
    },
    /// For the one that the old master handed over to.
    Handover {
        /// To whom.
        handed: Handed,
        /// Why that was planned, in words.
        why: String,
    },
}

/// Why an election brought no master.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// No term.
    #[error("no term: {0}")]
    Term(#[from] TermError),
    /// Nobody may be promoted.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It is not clear which data the set begins with.
    #[error("{0}")]
    Heritage(#[from] Undecided),
    /// The winner did not obey.
    #[error("{member} was not promoted: {why}")]
    NotPromoted {
        /// The winner.
        member: String,
        /// Why.
        why: String,
    },
}

impl Failure {
    /// The members that have not answered and may hold more than those that have.
    pub(super) fn awaited(&self) -> Vec<String> {
        let Self::Refused(Refusal::TailsCut(missing)) = self else {
            return Vec::new();
        };
        missing.iter().map(|(name, _)| name.to_string()).collect()
    }

    /// What to tell the people of this set.
    pub(super) fn stuck(&self, set: &RedisReplicaSet) -> Stuck {
        match self {
            Self::Refused(Refusal::DatasetLost(_)) => Stuck::DataLost(format!(
                "{self}: if there is no volume left that holds them, begin without any: \
                 kubectl annotate rrs -n {} {} {}={} --overwrite",
                set.namespace().unwrap_or_default(),
                set.name_any(),
                api::ACCEPT_EMPTY_ANNOTATION,
                term_of(set)
            )),
            Self::Refused(Refusal::TailsCut(_)) => Stuck::Waiting(format!(
                "{self}: bring them back, or, if their nodes or volumes are lost for good, delete pods (by force where \
                 the node is gone) and claims of the missing: they come back empty, and what the others saved is served"
            )),
            Self::Refused(_) | Self::Heritage(_) | Self::Term(_) | Self::NotPromoted { .. } => {
                Stuck::Waiting(self.to_string())
            }
        }
    }
}

/// The identity that members know the set by.
pub(super) fn fleet_of(set: &RedisReplicaSet) -> FleetId {
    FleetId::new(set.uid().unwrap_or_default())
}

fn term_of(set: &RedisReplicaSet) -> i64 {
    set.status.as_ref().map_or(0, |status| status.term)
}

/// Whether the data of the last mastership are given up by [`api::ACCEPT_EMPTY_ANNOTATION`].
pub(super) fn accepts_empty(set: &RedisReplicaSet) -> bool {
    set.annotations()
        .get(api::ACCEPT_EMPTY_ANNOTATION)
        .is_some_and(|value| *value == term_of(set).to_string())
}

/// The voters that a status records.
pub(super) fn voters_of(set: &RedisReplicaSet) -> VoterSet {
    let status = set.status.as_ref();
    let recorded = status.map(|s| s.voters.clone()).unwrap_or_default();
    let generation = status.map_or(0, |s| s.voters_generation);
    let names = if recorded.is_empty() {
        first_voters(set)
    } else {
        recorded
    };
    VoterSet {
        generation: Generation(u64::try_from(generation).unwrap_or_default()),
        voters: names.into_iter().map(MemberName::new).collect(),
    }
}

/// The voters of a set that never had any: every member it was made with.
fn first_voters(set: &RedisReplicaSet) -> Vec<String> {
    let wanted = u32::try_from(set.spec.replicas).unwrap_or_default();
    (0..wanted)
        .map(|ordinal| crate::api::names::member(&set.name_any(), ordinal))
        .collect()
}

impl Guard {
    /// Runs one election under a term of its own. Returns the new master.
    pub(super) async fn elect(
        &mut self,
        set: &RedisReplicaSet,
        call: &Call,
        purpose: Purpose,
    ) -> Result<String, Failure> {
        let began_ms = self.context.now_ms();
        let heritage = self.heritage(set)?;
        let claimed = self.claim_term(set, heritage.as_ref()).await?;
        let heir_of = heritage.map(|h| h.of);
        if let Some(before) = &heir_of {
            info!(set = %self.key, %before, "the volumes hold data of a set of this name that was deleted: going on with them");
        }
        self.elect_in(&claimed, call, purpose, heir_of, began_ms)
            .await
    }

    /// Data of a deleted set on the volumes; only before the first mastership.
    fn heritage(&self, set: &RedisReplicaSet) -> Result<Option<Heritage>, Undecided> {
        if set.status.as_ref().is_some_and(|s| s.bootstrapped) {
            return Ok(None);
        }
        let found = self.members.iter().filter_map(|(name, member)| {
            let state = member.current()?;
            Some(Found {
                member: name.clone(),
                fleet: FleetId::new(state.fleet.clone()),
                promised: Term(state.promised_term),
                voters: state.voters.clone().map(VoterSet::from).unwrap_or_default(),
            })
        });
        let found: Vec<Found> = found.collect();
        heritage(&fleet_of(set), &voters_of(set), &found)
    }

    /// Obtains the next term; nobody else can have it.
    pub(super) async fn claim_term(
        &mut self,
        set: &RedisReplicaSet,
        heritage: Option<&Heritage>,
    ) -> Result<RedisReplicaSet, TermError> {
        let expected = set.status.as_ref().map_or(0, |s| s.election_term);
        let me = self.context.settings.identity.clone();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (promised, known) = self.known_to_members(set);
        let promised = signed(heritage.map_or(promised, |h| h.promised.0));
        let known = signed(heritage.map_or(known, |h| h.generation.0));
        let inherits = heritage.is_some();
        let claim = |newest: &RedisReplicaSet| {
            let status = newest.status.clone().unwrap_or_default();
            if status.election_term != expected {
                let elector = status.elector.unwrap_or_default();
                return Err(format!("{elector} has term {}", status.election_term));
            }
            let term = expected.max(status.term).max(promised).saturating_add(1);
            let mut fields = json!({"electionTerm": term, "elector": me});
            if status.voters.is_empty() {
                fields["voters"] = json!(first_voters(newest));
            }
            // The same number was given to the voters of the set before, or others than these.
            if status.voters_generation < known || inherits && status.voters_generation == known {
                fields["votersGeneration"] = json!(known.saturating_add(1));
            }
            Ok(fields)
        };
        let claimed = Box::pin(decide(
            &self.api(),
            set.clone(),
            &self.context.metrics,
            claim,
        ))
        .await?;
        self.floor = Some(claimed.clone());
        Ok(claimed)
    }

    /// The highest term that members of this set promised, and the newest generation of its voters that they know: a status that
    /// was restored from a backup is behind both.
    fn known_to_members(&self, set: &RedisReplicaSet) -> (u64, u64) {
        let fleet = fleet_of(set);
        let states = self.members.values().filter_map(MemberView::current);
        let ours = states.filter(|state| state.fleet == fleet.as_str());
        ours.fold((0, 0), |(term, generation), state| {
            let known = state.voters.as_ref().map_or(0, |v| v.generation);
            (term.max(state.promised_term), generation.max(known))
        })
    }

    /// Fence, read, promote, tell; under the term that `claimed` records.
    pub(super) async fn elect_in(
        &mut self,
        claimed: &RedisReplicaSet,
        call: &Call,
        purpose: Purpose,
        heir_of: Option<FleetId>,
        began_ms: u64,
    ) -> Result<String, Failure> {
        let plan = ElectionPlan {
            heir_of,
            ..self.plan(claimed, call, &purpose)
        };
        let mut election = Election::new(plan);
        self.collect(&mut election, &purpose).await?;
        let promotion = election.decide(self.context.now_ms())?;
        let winner = promotion.winner.name.to_string();
        let promoted = match self.promote(&promotion).await {
            Ok(promoted) => promoted,
            Err(failure) => {
                // It may have obeyed, with its answer lost: then this is what there is to record of it.
                let change = self.change(claimed, call, &promotion, &purpose, began_ms);
                self.unanswered(change);
                return Err(failure);
            }
        };
        let term = promoted.term;
        info!(
            set = %self.key, winner, %term, deferMs = promotion.promote.defer_ms,
            tookMs = self.context.now_ms().saturating_sub(began_ms), "promoted"
        );
        let followers = self.tell_followers(&promotion, &promoted);
        self.write_slices(&winner, term).await;
        let change = self.change(claimed, call, &promotion, &purpose, began_ms);
        self.record(claimed, change).await;
        followers.join_all().await;
        // Until the members say so themselves: nothing may be planned for the old master any more.
        let master = winner.clone();
        self.remember(&Verdict::Serving { master, term }, self.context.now_ms());
        Ok(winner)
    }

    fn plan(&self, claimed: &RedisReplicaSet, call: &Call, purpose: &Purpose) -> ElectionPlan {
        let status = claimed.status.clone().unwrap_or_default();
        let preference = self.preference(status.master.as_deref(), purpose);
        let cache = self
            .wanted
            .as_ref()
            .is_some_and(|v| v.storage.is_ephemeral());
        ElectionPlan {
            fleet: fleet_of(claimed),
            heir_of: None,
            term: Term(u64::try_from(status.election_term).unwrap_or_default()),
            elector: ElectorId::new(self.context.settings.identity.clone()),
            intent: call.intent.clone(),
            voters: voters_of(claimed),
            peers: self.peers(),
            bootstrapped: if status.bootstrapped {
                Bootstrapped::Yes
            } else {
                Bootstrapped::No
            },
            preference,
            passed_over: self.passed_over(&status, call),
            old_master: call.old_master,
            in_sync: Vec::new(),
            // A cache may begin anew; data that were promised to last may not vanish silently.
            on_empty: if cache || accepts_empty(claimed) {
                EmptySet::Accept
            } else {
                EmptySet::Halt
            },
            // What it may have cost is in the record of the change and in an event.
            on_quorum_lost: QuorumLost::BestOfAll,
            // Nobody promised that what a cache holds lasts.
            on_cut_tails: if cache {
                CutTails::Accept
            } else {
                CutTails::Wait
            },
            random: rand::random(),
        }
    }

    /// The master that was chosen again a moment ago, after its replicas had not heard it, and is not heard again.
    fn passed_over(&self, status: &RedisReplicaSetStatus, call: &Call) -> Option<MemberName> {
        let unheard = |reason| {
            matches!(
                reason,
                FailoverReason::NodeLost | FailoverReason::Unresponsive
            )
        };
        let last = status.failovers.first()?;
        let same = last.term == status.term && last.from.as_ref() == Some(&last.to);
        let age = self.context.wall().duration_since(last.at.0);
        let again = same && unheard(last.reason) && unheard(call.reason);
        // A record of the future was made by another clock: it does not tell when.
        let is_fresh = !age.is_negative() && age < UNHEARD_AGAIN;
        (again && is_fresh).then(|| MemberName::new(last.to.clone()))
    }

    /// Who is preferred among equals: whom the old master handed over to, or the master itself that shall have a new term,
    /// then everybody but the old master and those whose pods are being deleted.
    fn preference(&self, master: Option<&str>, purpose: &Purpose) -> Vec<MemberName> {
        let first = match purpose {
            Purpose::Handover { handed, .. } => Some(handed.to.clone()),
            Purpose::Again { master, .. } => Some(master.clone()),
            Purpose::AnyMaster => None,
        };
        let stays = |name: &&String| {
            let pod = cached(&self.context.stores.pods, &self.key, name);
            let leaving = pod.is_none_or(|p| p.metadata.deletion_timestamp.is_some());
            Some(name.as_str()) != master && !leaving
        };
        let others = self
            .members
            .keys()
            .filter(stays)
            .map(|name| MemberName::new(name.clone()));
        first.into_iter().chain(others).collect()
    }

    /// Asks the members for their promises, until waiting brings nothing more. A master that serves is asked last, and only if
    /// its promise is all that is missing: with it, it gives up its term.
    async fn collect(&self, election: &mut Election, purpose: &Purpose) -> Result<(), Failure> {
        match purpose {
            Purpose::Again { master, .. } => {
                let with_master = |e: &Election| e.has_quorum_with(master);
                let others = self.members.keys().filter(|name| *name != master.as_str());
                self.ask_promises(election, others, with_master).await;
                if with_master(election) {
                    let name = master.to_string();
                    let only = std::iter::once(&name);
                    self.ask_promises(election, only, |e| e.has_promise_of(master))
                        .await;
                }
                if !election.has_promise_of(master) {
                    let member = master.to_string();
                    let why = "too few others promised, or it did not answer".to_owned();
                    return Err(Failure::NotPromoted { member, why });
                }
            }
            Purpose::AnyMaster | Purpose::Handover { .. } => {
                let all = self.members.keys();
                self.ask_promises(election, all, Election::has_quorum).await;
            }
        }
        // Whoever has no address, or did not answer by now, is not waited for.
        for name in self.member_names() {
            election.unreachable(&MemberName::new(name));
        }
        Ok(())
    }

    /// Asks these members until there are enough and the rest had its moment.
    async fn ask_promises<'a>(
        &self,
        election: &mut Election,
        names: impl Iterator<Item = &'a String>,
        enough: impl Fn(&Election) -> bool,
    ) {
        let prepare = election.prepare();
        let mut asked = JoinSet::new();
        let mut awaited: BTreeSet<String> = BTreeSet::new();
        for name in names {
            let Some(member) = self.members.get(name) else {
                continue;
            };
            if member.current().is_some() {
                awaited.insert(name.clone());
            }
            let (name, remote, prepare) = (name.clone(), member.remote.clone(), prepare.clone());
            asked.spawn(async move { (name, remote.prepare(&prepare).await) });
        }
        let began = Instant::now();
        loop {
            let patience = match (enough(election), awaited.is_empty()) {
                (true, true) => break,
                (true, false) => LATE_PROMISES,
                // A promise is on the disk before it is given, and disks may be slow.
                (false, false) => SLOW_CALL_TIMEOUT.saturating_sub(began.elapsed()),
                (false, true) => CALL_TIMEOUT.saturating_sub(began.elapsed()),
            };
            let Ok(Some(Ok((name, answer)))) = timeout(patience, asked.join_next()).await else {
                break;
            };
            awaited.remove(&name);
            self.note(election, &name, answer);
            if election.is_complete() {
                break;
            }
        }
    }

    fn note(
        &self,
        election: &mut Election,
        name: &str,
        answer: Result<Result<Box<replset::Promise>, replset::NotObeyed>, CallError>,
    ) {
        let member = MemberName::new(name);
        match answer {
            Ok(answer) => {
                if let Err(refusal) = &answer {
                    debug!(set = %self.key, member = name, %refusal, "no promise");
                }
                election.record(self.context.now_ms(), &member, answer);
            }
            Err(error) => {
                debug!(set = %self.key, member = name, %error, "no promise");
                election.unreachable(&member);
            }
        }
    }

    async fn promote(&self, promotion: &Promotion) -> Result<Promoted, Failure> {
        let member = promotion.winner.name.to_string();
        let failed = |why: String| Failure::NotPromoted {
            member: member.clone(),
            why,
        };
        let remote = &self
            .members
            .get(&member)
            .ok_or_else(|| failed("it is gone".into()))?
            .remote;
        match remote.promote(&promotion.promote).await {
            Ok(Ok(promoted)) => Ok(promoted),
            Ok(Err(refusal)) => Err(failed(refusal.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Tells the others whom to follow; the master's heartbeats repeat it to whom this misses.
    fn tell_followers(&self, promotion: &Promotion, promoted: &Promoted) -> JoinSet<()> {
        let follow = promotion.follow(promoted);
        let mut told = JoinSet::new();
        for (name, member) in &self.members {
            if *name == promotion.winner.name.as_str() {
                continue;
            }
            let (name, remote, follow) = (name.clone(), member.remote.clone(), follow.clone());
            told.spawn(async move {
                match remote.follow(&follow).await {
                    Ok(Ok(())) => {}
                    Ok(Err(refusal)) => debug!(member = name, %refusal, "does not follow yet"),
                    Err(error) => debug!(member = name, %error, "does not follow yet"),
                }
            });
        }
        told
    }

    pub(super) fn api(&self) -> Api<RedisReplicaSet> {
        Api::namespaced(self.context.client.clone(), &self.key.namespace)
    }
}

#[cfg(test)]
mod tests {
    use control::proto;
    use replset::{Intent, OldMaster};

    use super::*;
    use crate::guard::testing::Scene;

    fn unheard() -> Call {
        Call {
            intent: Intent::Forced,
            old_master: OldMaster::Gone(Term(1)),
            reason: FailoverReason::NodeLost,
        }
    }

    /// As after the API server's data were restored from a backup.
    #[tokio::test]
    async fn a_status_that_is_behind_its_members_catches_up_with_them() {
        let mut scene = Scene::new().await;
        scene.says("orders-2", |state| {
            state.promised_term = 9;
            let generation = 4;
            let voters = vec!["orders-2".into()];
            state.voters = Some(proto::VoterSet { generation, voters });
        });
        let set = scene.guard.decided().unwrap();
        let claimed = scene.guard.claim_term(&set, None).await.unwrap();
        let status = claimed.status.unwrap();
        assert_eq!((status.election_term, status.voters_generation), (10, 5));
        assert_eq!(status.voters.len(), 3);
    }

    /// The master holds the most, so it is chosen again. If that did not help, it leads no third time.
    #[tokio::test]
    async fn a_master_that_its_replicas_do_not_hear_is_chosen_again_only_once() {
        let mut scene = Scene::new().await;
        let most = proto::Position {
            term: 1,
            offset: 200,
        };
        scene.members[0].change(|state| state.position = Some(most));
        let mut masters = Vec::new();
        for _ in 0..2 {
            let set = scene.guard.decided().unwrap();
            let master = scene
                .guard
                .elect(&set, &unheard(), Purpose::AnyMaster)
                .await;
            masters.push(master.unwrap());
        }
        assert_eq!(masters[0], "orders-0");
        assert_ne!(masters[1], "orders-0");
    }
}
