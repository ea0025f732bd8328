//! Planned switchovers: one order at a time, carried out in the order's own sense or refused.
//!
//! Owns the way of an order from whoever plans it to the election that ends it. An order waits for a moment in which
//! kube-proxy passes the change on at once, never longer than [`MAX_POSTPONED_MS`]. One that nobody waits for any more is
//! dropped: what it was made from is old. Whoever gave it is answered after the view shows what came of it, so that the
//! next plan is not made from the old one.

use std::time::Duration;

use control::proto;
use replset::{HANDOVER_BUDGET_MS, Handed, Handover, Intent, MemberName, OldMaster, Term, Vote};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{info, warn};

use super::{
    election::{Purpose, voters_of},
    task::Guard,
    term::TermError,
    view::{link, position, role},
};
use crate::{
    api::{RedisReplicaSet, names, v1alpha1::FailoverReason},
    context::cached,
    failover::{
        decide::Call,
        health::Verdict,
        switchover::{Candidate, Next, Order, Refused, Stay, Voter, fit, next},
    },
    members::remote::CallError,
};

/// How long an order waits for a moment in which kube-proxy passes it on at once.
const MAX_POSTPONED_MS: u64 = 3_000;

/// An order to hand the mastership over.
#[derive(Debug)]
pub struct SwitchOver {
    /// From whom to whom.
    pub order: Order,
    /// For the record.
    pub reason: FailoverReason,
    /// Why, in words, for whoever reads events.
    pub why: String,
    /// Whether it was done, or why not. Whoever gave it may have given up waiting.
    pub done: oneshot::Sender<Result<(), NotSwitched>>,
    /// There is no other order for the set while this one exists.
    pub turn: OwnedSemaphorePermit,
}

/// Why the mastership was not handed over as ordered.
#[derive(Debug, Error)]
pub enum NotSwitched {
    /// There is no guard.
    #[error("the set is not guarded")]
    NotGuarded,
    /// An earlier order is not done yet.
    #[error("an earlier change of the master is not done yet")]
    Busy,
    /// The order may still be carried out.
    #[error("no result within {0:?}")]
    TimedOut(Duration),
    /// The guard ended.
    #[error("the guard stopped")]
    Stopped,
    /// Nobody waits for it any more.
    #[error("nobody waits for it any more")]
    Abandoned,
    /// It is not for this mastership, or the target is not fit.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A member has no address.
    #[error("{member} has no address")]
    NoAddress {
        /// The member.
        member: String,
    },
    /// A member did not answer.
    #[error("{member}: {source}")]
    NoAnswer {
        /// The member.
        member: String,
        /// What happened.
        source: CallError,
    },
    /// No term.
    #[error("no term: {0}")]
    Term(#[from] TermError),
    /// The master keeps its term.
    #[error("{from} does not hand over: {why}")]
    Kept {
        /// The master.
        from: String,
        /// Why.
        why: String,
    },
    /// The master gave its term up, and nobody was promoted.
    #[error("after the handover: {0}")]
    NoSuccessor(String),
    /// The target could not be promoted any more.
    #[error("{master} became master instead of {to}, which did not answer in time")]
    Another {
        /// Who it should have been.
        to: String,
        /// Who it is.
        master: String,
    },
}

/// What a failed order means for the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Consequence {
    /// Nothing: it was not about the target.
    Nothing,
    /// The target could not take over; another may, at once.
    PassOver,
    /// Writes may have been stopped for it: others first, and after a pause.
    Pause,
}

impl NotSwitched {
    /// What it means for the next order: what is refused before anybody feels it costs no pause.
    #[must_use]
    pub fn consequence(&self) -> Consequence {
        match self {
            Self::NotGuarded
            | Self::Busy
            | Self::Stopped
            | Self::Abandoned
            | Self::Refused(Refused::NoMaster | Refused::Stale { .. })
            | Self::Term(_) => Consequence::Nothing,
            Self::Refused(Refused::Unfit { .. }) | Self::NoAddress { .. } => Consequence::PassOver,
            Self::TimedOut(_)
            | Self::NoAnswer { .. }
            | Self::Kept { .. }
            | Self::NoSuccessor(_)
            | Self::Another { .. } => Consequence::Pause,
        }
    }
}

impl Guard {
    /// How long the order that waits has to wait yet. Writers feel a switchover until kube-proxy has passed it on, and
    /// in a rollout it comes right after the return of a replica: a moment later it costs them a second less.
    pub(super) fn postponement(&self) -> Option<Duration> {
        let (_, since_ms) = self.postponed.as_ref()?;
        let now_ms = self.context.now_ms();
        let limit_ms = (since_ms + MAX_POSTPONED_MS).saturating_sub(now_ms);
        let left_ms = self.slices.pause_left_ms(now_ms).min(limit_ms);
        Some(Duration::from_millis(left_ms))
    }

    pub(super) async fn obey_postponed(&mut self) {
        if self.postponement().is_some_and(|left| left.is_zero())
            && let Some((command, _)) = self.postponed.take()
        {
            Box::pin(self.obey(command)).await;
        }
    }

    pub(super) async fn obey(&mut self, command: SwitchOver) {
        let result = self.switch_over(&command).await;
        let Order { from, to } = &command.order;
        match &result {
            Ok(()) => info!(set = %self.key, from, to, reason = ?command.reason, "switched over"),
            Err(why) => warn!(set = %self.key, from, to, %why, "not switched over"),
        }
        self.hear_waiting();
        self.publish();
        let SwitchOver { done, turn, .. } = command;
        drop(turn);
        // Nobody may be waiting; what happened shows in the view.
        let _ = done.send(result);
    }

    /// Hands the mastership over in peace: pause, catch up, release, promote.
    async fn switch_over(&mut self, command: &SwitchOver) -> Result<(), NotSwitched> {
        let still_wanted = || match command.done.is_closed() {
            true => Err(NotSwitched::Abandoned),
            false => Ok(()),
        };
        still_wanted()?;
        let order = &command.order;
        let serving = match &self.verdict {
            Some(Verdict::Serving { master, term }) => Some((master.clone(), *term)),
            Some(_) | None => None,
        };
        if next(order, serving.as_ref().map(|(master, _)| master.as_str()))? == Next::Done {
            return Ok(());
        }
        let (Some(set), Some((_, term))) = (self.decided(), serving) else {
            return Err(Refused::NoMaster.into());
        };
        self.check_target(&set, order).await?;
        // The term first: between the release and the promotion nobody serves.
        let claimed = self.claim_term(&set, None).await?;
        still_wanted()?;
        let began_ms = self.context.now_ms();
        let handed = self.release(order, term).await?;
        let call = Call {
            intent: Intent::Planned(handed.release),
            old_master: OldMaster::Unknown,
            reason: command.reason,
        };
        let purpose = Purpose::Handover {
            handed,
            why: command.why.clone(),
        };
        let elected = self
            .elect_in(&claimed, &call, purpose, None, began_ms)
            .await;
        match elected {
            Ok(master) if master == order.to => Ok(()),
            Ok(master) => Err(NotSwitched::Another {
                to: order.to.clone(),
                master,
            }),
            Err(failure) => Err(NotSwitched::NoSuccessor(failure.to_string())),
        }
    }

    /// Asks both before anybody is told to pause: what they said last may be a second old.
    async fn check_target(&self, set: &RedisReplicaSet, order: &Order) -> Result<(), NotSwitched> {
        // The master first: what it writes meanwhile does not count against the target.
        let master = self.ask(&order.from).await?;
        let target = self.ask(&order.to).await?;
        let candidate = Candidate {
            role: role(&target),
            voter: match voters_of(set).contains(&order.to.as_str().into()) {
                true => Voter::Yes,
                false => Voter::No,
            },
            vote: Vote::from(target.vote()),
            link: link(&target),
            position: position(&target),
            stay: self.stay(set, &order.to),
        };
        fit(&candidate, position(&master)).map_err(|why| {
            let to = order.to.clone();
            NotSwitched::Refused(Refused::Unfit { to, why })
        })
    }

    /// Whether a member will be there after what is under way now.
    fn stay(&self, set: &RedisReplicaSet, member: &str) -> Stay {
        let pod = cached(&self.context.stores.pods, &self.key, member);
        let deleted = pod.is_none_or(|p| p.metadata.deletion_timestamp.is_some());
        let ordinal = names::ordinal(&self.key.name, member).map(i64::from);
        let wanted = i64::from(set.spec.replicas);
        if deleted || ordinal.is_none_or(|ordinal| ordinal >= wanted) {
            Stay::Leaves
        } else {
            Stay::Stays
        }
    }

    async fn ask(&self, member: &str) -> Result<proto::State, NotSwitched> {
        let member = member.to_owned();
        let Some(view) = self.members.get(&member) else {
            return Err(NotSwitched::NoAddress { member });
        };
        let state = view.remote.state().await;
        state.map_err(|source| NotSwitched::NoAnswer { member, source })
    }

    /// Has the master of `term` give it up once the target holds everything.
    async fn release(&self, order: &Order, term: Term) -> Result<Handed, NotSwitched> {
        let from = order.from.clone();
        let Some(view) = self.members.get(&from) else {
            return Err(NotSwitched::NoAddress { member: from });
        };
        let handover = Handover {
            term,
            target: Some(MemberName::new(order.to.clone())),
            budget_ms: HANDOVER_BUDGET_MS,
            token: rand::random::<u64>().max(1),
        };
        match view.remote.hand_over(&handover).await {
            Ok(Ok(handed)) => Ok(handed),
            Ok(Err(refusal)) => Err(NotSwitched::Kept {
                from,
                why: refusal.to_string(),
            }),
            Err(source) => Err(NotSwitched::NoAnswer {
                member: from,
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::guard::testing::Scene;

    type Answer = oneshot::Receiver<Result<(), NotSwitched>>;

    fn order(from: &str, to: &str) -> (SwitchOver, Answer) {
        let (done, answer) = oneshot::channel();
        let order = Order {
            from: from.into(),
            to: to.into(),
        };
        let turn = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let command = SwitchOver {
            order,
            reason: FailoverReason::Rollout,
            why: "the image changes".into(),
            done,
            turn,
        };
        (command, answer)
    }

    async fn told(scene: &mut Scene, from: &str, to: &str) -> Result<(), String> {
        let (command, answer) = order(from, to);
        scene.guard.obey(command).await;
        answer.await.unwrap().map_err(|why| why.to_string())
    }

    #[tokio::test]
    async fn a_repeated_order_is_done_and_a_stale_one_refused() {
        let mut scene = Scene::new().await;
        assert_eq!(told(&mut scene, "orders-0", "orders-1").await, Ok(()));
        assert_eq!(scene.master().as_deref(), Some("orders-1"));
        let asked = scene.api.methods().len();
        assert_eq!(told(&mut scene, "orders-0", "orders-1").await, Ok(()));
        let stale = told(&mut scene, "orders-0", "orders-2").await;
        assert_eq!(stale, Err("orders-0 is master no more, orders-1 is".into()));
        assert_eq!(scene.api.methods().len(), asked, "nothing is written again");
        let all: Vec<_> = scene.members.iter().map(|m| m.calls()).collect();
        assert_eq!(all[0], ["handover", "prepare", "follow"]);
        assert_eq!(all[1], ["prepare", "promote"]);
    }

    #[tokio::test]
    async fn the_view_shows_the_new_master_before_the_answer_comes() {
        let mut scene = Scene::new().await;
        let (command, answer) = order("orders-0", "orders-1");
        let mut view = scene.view.clone();
        view.mark_unchanged();
        let first = tokio::spawn(async move {
            let answered = answer.await;
            (answered, view.has_changed().unwrap())
        });
        scene.guard.obey(command).await;
        let (answered, shown) = first.await.unwrap();
        assert!(answered.unwrap().is_ok() && shown);
    }

    #[tokio::test]
    async fn an_unfit_target_is_refused_and_nobody_takes_its_place() {
        let mut scene = Scene::new().await;
        scene.members[1].change(|state| state.link = proto::Link::Down.into());
        let refused = told(&mut scene, "orders-0", "orders-1").await;
        let why = "orders-1 is not attached to the master";
        assert_eq!(refused, Err(why.into()));
        scene.guard.set.as_mut().unwrap().spec.replicas = 2;
        let refused = told(&mut scene, "orders-0", "orders-2").await;
        assert_eq!(refused, Err("orders-2 is leaving the set".into()));
        assert!(scene.members.iter().all(|m| m.calls().is_empty()));
        assert!(scene.api.methods().is_empty());
    }

    #[tokio::test]
    async fn an_order_that_nobody_waits_for_is_dropped() {
        let mut scene = Scene::new().await;
        let (command, answer) = order("orders-0", "orders-1");
        drop(answer);
        scene.guard.obey(command).await;
        assert!(scene.members.iter().all(|m| m.calls().is_empty()));
        assert!(scene.api.methods().is_empty());
    }
}
