//! One record, one count and one event for each change of the master.
//!
//! Owns `status.term`, `status.master` and the history of failovers. A record is a compare-and-swap on the term, so of
//! all operators one makes it; that one counts the change and tells it. What could not be recorded is kept and tried
//! again, with its reason and figures, while its master serves. A mastership whose elector ended before that is recorded
//! by the acting operator, who does not know why it came about.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource,
    runtime::events::{Event, EventType},
};
use replset::{Intent, Loss, Promotion, StartKind, Term};
use serde_json::json;
use tracing::{info, warn};

use super::{
    election::Purpose,
    task::Guard,
    term::{TermError, decide},
};
use crate::{
    api::{
        RedisReplicaSet,
        duration::DurationText,
        v1alpha1::{
            FailoverReason, FailoverRecord, MAX_FAILOVER_RECORDS, PossibleLoss,
            RedisReplicaSetStatus,
        },
    },
    context::SetKey,
    failover::decide::Call,
    status::events::event,
    telemetry::metrics::{FailoverLabel, Metrics, SetLabel},
};

/// Pause between two attempts to record the same change: each may hold the guard up for a second.
const RETRY_MS: u64 = 2_000;

/// A change of the master.
#[derive(Clone, Debug)]
pub(super) struct Change {
    record: FailoverRecord,
    /// Why it was planned, in words.
    why: Option<String>,
}

/// A change that is not recorded yet, and when to try that.
#[derive(Debug)]
pub(super) struct Unrecorded {
    change: Change,
    not_before_ms: u64,
}

impl Guard {
    /// The change that an election brought, in the figures of this operator's clock.
    pub(super) fn change(
        &self,
        before: &RedisReplicaSet,
        call: &Call,
        promotion: &Promotion,
        purpose: &Purpose,
        began_ms: u64,
    ) -> Change {
        let served_ms = self.context.now_ms() + promotion.promote.defer_ms;
        let in_peace = matches!(call.intent, Intent::Planned(_));
        // It served until this election began: nothing had to be found out.
        let served_so_far = in_peace || matches!(purpose, Purpose::Again { .. });
        let last_ms = self.reign.as_ref().map(|r| r.served_ms);
        let since = |from_ms: u64, to_ms: u64| {
            DurationText::from(Duration::from_millis(to_ms.saturating_sub(from_ms)))
        };
        // If the target could not be asked any more, somebody may be master who holds less.
        let (why, has_all) = match purpose {
            Purpose::AnyMaster => (None, in_peace && promotion.loss == Loss::None),
            // It was fenced after all others.
            Purpose::Again { master, why } => (Some(why.clone()), promotion.winner.name == *master),
            Purpose::Handover { handed, why } => (
                Some(why.clone()),
                promotion.promote.position >= handed.position,
            ),
        };
        let record = FailoverRecord {
            at: Time(self.context.wall()),
            term: signed(promotion.promote.term),
            from: before.status.as_ref().and_then(|s| s.master.clone()),
            to: promotion.winner.name.to_string(),
            reason: call.reason,
            detected: last_ms
                .filter(|_| !served_so_far)
                .map(|last| since(last, began_ms)),
            served: match (served_so_far, last_ms) {
                (true, _) => Some(since(began_ms, served_ms)),
                (false, last) => last.map(|last| since(last, served_ms)),
            },
            lost_bytes: has_all.then_some(0),
            possible_loss: possible_loss(promotion).filter(|_| !has_all),
        };
        Change { record, why }
    }

    /// Keeps what there is to record if a promotion was obeyed whose answer did not come.
    pub(super) fn unanswered(&mut self, change: Change) {
        self.unrecorded = Some(Unrecorded {
            change,
            not_before_ms: self.context.now_ms(),
        });
    }

    /// Records, counts and tells a change.
    pub(super) async fn record(&mut self, set: &RedisReplicaSet, change: Change) {
        match self.write_record(set, &change.record).await {
            Ok(recorded) => {
                self.unrecorded = None;
                self.tell(&recorded, &change);
                self.floor = Some(recorded);
            }
            Err(error) => {
                warn!(set = %self.key, %error, "the new master is not recorded yet");
                self.unrecorded = Some(Unrecorded {
                    change,
                    not_before_ms: self.context.now_ms().saturating_add(RETRY_MS),
                });
            }
        }
    }

    /// Records a mastership that is not recorded although it serves: its elector ended between the promotion and the
    /// record, or the API server was away.
    pub(super) async fn record_missing(&mut self, set: &RedisReplicaSet, master: &str, term: Term) {
        let status = set.status.clone().unwrap_or_default();
        let ours = self.unrecorded.take();
        let ours = ours.filter(|o| o.change.record.term == signed(term));
        if status.term >= signed(term) {
            // The answer to the write was lost, not the write.
            if let Some(Unrecorded { change, .. }) = ours.filter(|o| o.change.is_in(&status)) {
                self.tell(set, &change);
            }
            return;
        }
        let change = match ours {
            Some(ours) if self.context.now_ms() < ours.not_before_ms => {
                self.unrecorded = Some(ours);
                return;
            }
            Some(ours) => ours.change,
            // Whoever promoted it may be about to.
            None if !self.context.may_act() || !self.elector_had_its_time() => return,
            None => self.unexplained(status.master, master, term),
        };
        info!(set = %self.key, master, %term, "recording a mastership that is not recorded");
        self.record(set, change).await;
    }

    fn unexplained(&self, from: Option<String>, master: &str, term: Term) -> Change {
        let record = FailoverRecord {
            at: Time(self.context.wall()),
            term: signed(term),
            from,
            to: master.to_owned(),
            reason: FailoverReason::Unrecorded,
            detected: None,
            served: None,
            lost_bytes: None,
            possible_loss: None,
        };
        Change { record, why: None }
    }

    async fn write_record(
        &self,
        set: &RedisReplicaSet,
        record: &FailoverRecord,
    ) -> Result<RedisReplicaSet, TermError> {
        let mastership = |newest: &RedisReplicaSet| {
            let status = newest.status.clone().unwrap_or_default();
            if status.term >= record.term {
                return Err(format!("term {} has a master", status.term));
            }
            let mut failovers = status.failovers;
            failovers.insert(0, record.clone());
            failovers.truncate(MAX_FAILOVER_RECORDS);
            Ok(json!({
                "term": record.term,
                "master": record.to,
                "masterSince": record.at,
                "bootstrapped": true,
                "failovers": failovers,
            }))
        };
        let (api, metrics) = (self.api(), &self.context.metrics);
        Box::pin(decide(&api, set.clone(), metrics, mastership)).await
    }

    fn tell(&self, set: &RedisReplicaSet, change: &Change) {
        self.count(&change.record);
        let reference = set.object_ref(&());
        let (context, events) = (Arc::clone(&self.context), change.events());
        // Not waited for: the guard has a master to look after.
        tokio::spawn(async move {
            for event in events {
                context.publish(&event, &reference).await;
            }
        });
    }

    fn count(&self, record: &FailoverRecord) {
        let metrics = &self.context.metrics;
        let (namespace, name) = (self.key.namespace.clone(), self.key.name.clone());
        let reason = word(record.reason);
        let label = FailoverLabel {
            namespace: namespace.clone(),
            name: name.clone(),
            reason,
        };
        metrics.failovers.get_or_create(&label).inc();
        if let Some(Ok(served)) = record.served.as_ref().map(DurationText::parse) {
            let label = SetLabel { namespace, name };
            metrics
                .outage_seconds
                .get_or_create(&label)
                .set(served.as_secs_f64());
        }
    }
}

/// Shows the changes of a set that is gone no more.
pub(super) fn forget(metrics: &Metrics, key: &SetKey) {
    let label = SetLabel {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    };
    metrics.forget(&label, FailoverReason::ALL.map(word));
}

/// The reason as in the status.
fn word(reason: FailoverReason) -> String {
    format!("{reason:?}")
}

impl Change {
    /// Whether the status has the record of this very change.
    fn is_in(&self, status: &RedisReplicaSetStatus) -> bool {
        let ours = &self.record;
        let same =
            |r: &FailoverRecord| (r.term, &r.to, r.reason) == (ours.term, &ours.to, ours.reason);
        status.failovers.iter().any(same)
    }

    /// What people are told.
    fn events(&self) -> Vec<Event> {
        let record = &self.record;
        let FailoverRecord {
            from,
            to,
            term,
            reason,
            ..
        } = record;
        // Only a master that gave its term up knows that nothing is lost.
        let handed_over = record.lost_bytes == Some(0);
        let (type_, word, who) = match from {
            None => (
                EventType::Normal,
                "Bootstrapped",
                format!("{to} is the first master"),
            ),
            Some(from) if handed_over && from == to => {
                let who = format!("{to} became master again");
                (EventType::Normal, "SwitchedOver", who)
            }
            Some(from) if handed_over => {
                let who = format!("{from} handed over to {to}");
                (EventType::Normal, "SwitchedOver", who)
            }
            Some(from) if from == to => {
                let who = format!("{to} became master again");
                (EventType::Warning, "FailedOver", who)
            }
            Some(from) => {
                let who = format!("{to} took over from {from}");
                (EventType::Warning, "FailedOver", who)
            }
        };
        let mut note = format!("{who} in term {term}: {reason:?}");
        let mut add = |words: &str, figure: Option<&DurationText>| {
            if let Some(DurationText(figure)) = figure {
                // Writing into a String cannot fail.
                let _ = write!(note, "; {words} {figure}");
            }
        };
        if handed_over {
            add("writes waited for", record.served.as_ref());
        } else {
            add("found after", record.detected.as_ref());
            add("writes were served again after", record.served.as_ref());
        }
        if let Some(why) = &self.why {
            let _ = write!(note, "; {why}");
        }
        let action = format!("PromoteInTerm{term}");
        let mut events = vec![event(type_, word, &action, &note)];
        if let Some(loss) = record.possible_loss {
            let note = format!("term {term}: {}", loss_in_words(loss));
            events.push(event(EventType::Warning, "PossibleLoss", &action, &note));
        }
        events
    }
}

fn possible_loss(promotion: &Promotion) -> Option<PossibleLoss> {
    match (promotion.loss, promotion.promote.start) {
        (Loss::None, _) => None,
        (Loss::Possible, StartKind::Bootstrap) => Some(PossibleLoss::BeganEmpty),
        (Loss::Possible, StartKind::LastResort) => Some(PossibleLoss::NoMajority),
        (Loss::Possible, StartKind::Quorum) => Some(PossibleLoss::EndedUnsaved),
    }
}

fn loss_in_words(loss: PossibleLoss) -> &'static str {
    match loss {
        PossibleLoss::NoMajority => {
            "all members answered and too few had a vote, so the one with the most data is master: acknowledged writes \
             that were not on its disk when it ended may be lost"
        }
        PossibleLoss::EndedUnsaved => {
            "members ended without saving and are back with what they saved last, too many to be sure that this master \
             holds everything: acknowledged writes after that may be lost"
        }
        PossibleLoss::BeganEmpty => {
            "no voter had data left, and that was accepted (a cache, storage.ephemeral, or the annotation \
             redfleet.dev/accept-empty): the set began anew, empty"
        }
    }
}

fn signed(term: Term) -> i64 {
    i64::try_from(term.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use control::proto;

    use super::*;
    use crate::{
        guard::{election::Failure, testing::Scene},
        testing::eventually,
    };

    fn change(from: &str, reason: FailoverReason) -> Change {
        let record = FailoverRecord {
            at: Time(jiff::Timestamp::from_second(1_000_000).unwrap()),
            term: 2,
            from: Some(from.into()),
            to: "orders-1".into(),
            reason,
            detected: Some("1100ms".into()),
            served: Some("2200ms".into()),
            lost_bytes: None,
            possible_loss: None,
        };
        Change { record, why: None }
    }

    fn process_lost() -> Call {
        Call {
            intent: Intent::Forced,
            old_master: replset::OldMaster::Gone(replset::Term(1)),
            reason: FailoverReason::ProcessLost,
        }
    }

    fn told(change: &Change) -> Vec<String> {
        let word = |type_| match type_ {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let text = |e: &Event| {
            format!(
                "{} {}: {}",
                word(e.type_),
                e.reason,
                e.note.clone().unwrap()
            )
        };
        change.events().iter().map(text).collect()
    }

    #[test]
    fn an_event_names_both_masters_the_term_the_reason_and_how_long_it_took() {
        let lost = change("orders-0", FailoverReason::NodeLost);
        assert_eq!(
            told(&lost),
            [
                "Warning FailedOver: orders-1 took over from orders-0 in term 2: NodeLost; found after 1100ms; \
              writes were served again after 2200ms"
            ]
        );
        let again = change("orders-1", FailoverReason::ProcessLost);
        assert!(told(&again)[0].contains("orders-1 became master again in term 2: ProcessLost"));
        let mut planned = change("orders-0", FailoverReason::Rollout);
        planned.record.lost_bytes = Some(0);
        planned.why = Some("orders-0 must be replaced: the image changes".into());
        assert_eq!(
            told(&planned),
            [
                "Normal SwitchedOver: orders-0 handed over to orders-1 in term 2: Rollout; writes waited for 2200ms; \
              orders-0 must be replaced: the image changes"
            ]
        );
        let mut again = change("orders-1", FailoverReason::StrandedMember);
        again.record.lost_bytes = Some(0);
        let again = &told(&again)[0];
        assert!(again.starts_with("Normal SwitchedOver: orders-1 became master again in term 2"));
        let mut first = change("orders-0", FailoverReason::Bootstrap);
        first.record.from = None;
        assert!(
            told(&first)[0]
                .starts_with("Normal Bootstrapped: orders-1 is the first master in term 2")
        );
    }

    #[tokio::test]
    async fn a_promotion_without_a_majority_of_votes_is_told_and_recorded_as_a_possible_loss() {
        let mut scene = Scene::new().await;
        for member in &scene.members {
            member.change(|state| state.vote = proto::Vote::Suspended.into());
        }
        let set = scene.guard.decided().unwrap();
        let elected = scene
            .guard
            .elect(&set, &process_lost(), Purpose::AnyMaster)
            .await;
        elected.unwrap();
        let status = scene.guard.decided().unwrap().status.unwrap();
        let loss = status.failovers[0].possible_loss;
        assert_eq!(loss, Some(PossibleLoss::NoMajority));
        eventually(|| scene.written("/events").len() == 2).await;
        let warning = &scene.written("/events")[1];
        assert_eq!(
            (&warning["type"], &warning["reason"]),
            (&json!("Warning"), &json!("PossibleLoss"))
        );
    }

    #[tokio::test]
    async fn a_member_that_may_have_saved_later_is_waited_for_and_what_is_lost_then_is_told() {
        let mut scene = Scene::new().await;
        for member in &scene.members {
            member.was_killed();
        }
        let away = scene.guard.members.remove("orders-2").unwrap();
        let set = scene.guard.decided().unwrap();
        let refused = scene
            .guard
            .elect(&set, &process_lost(), Purpose::AnyMaster)
            .await
            .unwrap_err();
        assert_eq!(refused.awaited(), ["orders-2"]);
        let told = "whoever holds the most of those that answer ended without saving and may lack its last writes; \
                    missing: orders-2 (unreachable)";
        assert_eq!(refused.to_string(), told);

        scene.guard.members.insert("orders-2".into(), away);
        let set = scene.guard.decided().unwrap();
        scene
            .guard
            .elect(&set, &process_lost(), Purpose::AnyMaster)
            .await
            .unwrap();
        let status = scene.guard.decided().unwrap().status.unwrap();
        assert_eq!(
            status.failovers[0].possible_loss,
            Some(PossibleLoss::EndedUnsaved)
        );
    }

    #[tokio::test]
    async fn a_promotion_whose_answer_is_lost_is_recorded_with_what_it_may_have_cost() {
        let mut scene = Scene::new().await;
        for member in &scene.members {
            member.was_killed();
            member.loses_its_answers();
        }
        let set = scene.guard.decided().unwrap();
        let lost = scene
            .guard
            .elect(&set, &process_lost(), Purpose::AnyMaster)
            .await;
        assert!(matches!(lost, Err(Failure::NotPromoted { .. })));
        let promoted = scene
            .members
            .iter()
            .position(|m| m.calls().contains(&"promote"));
        let winner = format!("orders-{}", promoted.unwrap());
        let set = scene.guard.decided().unwrap();
        scene.guard.record_missing(&set, &winner, Term(2)).await;
        let record = scene.guard.decided().unwrap().status.unwrap().failovers[0].clone();
        assert_eq!((record.term, &record.to), (2, &winner));
        assert_eq!(record.reason, FailoverReason::ProcessLost);
        assert_eq!(record.possible_loss, Some(PossibleLoss::EndedUnsaved));
    }

    #[test]
    fn a_set_that_begins_anew_says_so() {
        let mut anew = change("orders-0", FailoverReason::PodDeleted);
        anew.record.possible_loss = Some(PossibleLoss::BeganEmpty);
        let expected = "Warning PossibleLoss: term 2: no voter had data left, and that was accepted (a cache, \
                        storage.ephemeral, or the annotation redfleet.dev/accept-empty): the set began anew, empty";
        assert_eq!(told(&anew)[1], expected);
    }

    fn counted(scene: &Scene) -> u64 {
        let label = FailoverLabel {
            namespace: "shop".into(),
            name: "orders".into(),
            reason: "NodeLost".into(),
        };
        let metrics = &scene.guard.context.metrics;
        metrics.failovers.get_or_create(&label).get()
    }

    #[tokio::test]
    async fn a_change_counts_and_is_told_when_it_is_recorded_and_once() {
        let mut scene = Scene::new().await;
        let set = scene.guard.decided().unwrap();
        scene.refuses.store(true, Ordering::SeqCst);
        let lost = change("orders-0", FailoverReason::NodeLost);
        scene.guard.record(&set, lost).await;
        for _ in 0..3 {
            scene.later(RETRY_MS);
            scene.guard.record_missing(&set, "orders-1", Term(2)).await;
        }
        assert_eq!(scene.written("/status").len(), 4);
        assert_eq!((counted(&scene), scene.written("/events").len()), (0, 0));

        scene.refuses.store(false, Ordering::SeqCst);
        scene.later(RETRY_MS);
        scene.guard.record_missing(&set, "orders-1", Term(2)).await;
        let set = scene.guard.decided().unwrap();
        let status = set.status.as_ref().unwrap();
        assert_eq!(
            (status.term, status.master.as_deref()),
            (2, Some("orders-1"))
        );
        assert_eq!(status.failovers[0].reason, FailoverReason::NodeLost);
        scene.guard.record_missing(&set, "orders-1", Term(2)).await;
        eventually(|| scene.written("/events").len() == 1).await;
        assert_eq!((counted(&scene), scene.written("/status").len()), (1, 5));
    }
}
