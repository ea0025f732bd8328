//! From what a guard knows to the evidence that the rules of failover judge.
//!
//! A pod of the same name made later says nothing about the process that was master: proof of a
//! death counts only for the very pod that this guard saw serving.

use kube::ResourceExt;
use replset::{FleetId, Term, Timing, VoterSet};
use tracing::debug;

use super::{
    election::fleet_of,
    task::{Guard, Reign},
    view::pod_fact,
};
use crate::{
    api::RedisReplicaSet,
    context::cached,
    failover::{
        decide::{Decision, decide},
        health::{Evidence, Line, PodFact, Verdict, Witness, judge},
    },
};

impl Guard {
    pub(super) fn witnesses(&self, set: &RedisReplicaSet, now_ms: u64) -> Vec<Witness> {
        let fleet = fleet_of(set);
        let mut names = self.member_names();
        let master = set.status.as_ref().and_then(|s| s.master.clone());
        names.extend(master.filter(|m| !names.contains(m)));
        names
            .iter()
            .map(|name| self.witness(&fleet, name, now_ms))
            .collect()
    }

    fn witness(&self, fleet: &FleetId, name: &str, now_ms: u64) -> Witness {
        let stores = &self.context.stores;
        let pod = cached(&stores.pods, &self.key, name);
        let node = pod
            .as_ref()
            .and_then(|p| p.spec.as_ref()?.node_name.clone());
        let node = node.and_then(|n| {
            stores
                .nodes
                .get(&kube::runtime::reflector::ObjectRef::new(&n))
        });
        let mut fact = pod_fact(pod.as_deref(), node.as_deref());
        let mut line = self.members.get(name).map_or(Line::Unknown, |m| m.line);
        let reign = self.reign.as_ref().filter(|r| r.master == name);
        let same_pod = reign.map(|r| pod.as_ref().and_then(|p| p.uid()) == Some(r.pod_uid.clone()));
        match (reign, same_pod) {
            (Some(reign), Some(false)) if line != Line::Up => {
                fact = PodFact::Deleted;
                let kept = self.links.get(name);
                if kept.is_none_or(|(uid, _)| *uid != reign.pod_uid) {
                    line = reign.line;
                }
            }
            // Never seen serving by this process: a pod that is down proves nothing.
            (None, _) if fact == PodFact::ContainerDown => fact = PodFact::Unknown,
            (Some(_) | None, _) => {}
        }
        match self.members.get(name) {
            Some(member) => Witness {
                line,
                ..member.witness(name, fleet, fact, now_ms)
            },
            None => Witness {
                member: name.to_owned(),
                line,
                word: None,
                pod: fact,
            },
        }
    }

    pub(super) fn conclude(
        &self,
        set: &RedisReplicaSet,
        voters: &VoterSet,
        witnesses: &[Witness],
    ) -> (Verdict, Decision) {
        let evidence = self.evidence(set, voters, witnesses);
        let verdict = judge(&evidence);
        let decision = decide(&verdict, &evidence);
        (verdict, decision)
    }

    pub(super) fn evidence<'a>(
        &self,
        set: &'a RedisReplicaSet,
        voters: &'a VoterSet,
        witnesses: &'a [Witness],
    ) -> Evidence<'a> {
        let status = set.status.as_ref();
        let mut timing = Timing::default();
        if let Some(wanted) = &self.wanted {
            timing.suspicion_ms =
                u64::try_from(wanted.detect_after.as_millis()).unwrap_or(timing.suspicion_ms);
        }
        let term = status.map_or(0, |s| s.term);
        Evidence {
            voters,
            term: Term(u64::try_from(term).unwrap_or_default()),
            master: status.and_then(|s| s.master.as_deref()),
            witnesses,
            timing,
        }
    }

    /// Notes a verdict: since when it stands, and what was seen of the reigning master.
    pub(super) fn remember(&mut self, verdict: &Verdict, now_ms: u64) {
        if self.verdict.as_ref().map(std::mem::discriminant)
            != Some(std::mem::discriminant(verdict))
        {
            debug!(set = %self.key, ?verdict, "verdict");
            self.verdict_since_ms = now_ms;
        }
        self.verdict = Some(verdict.clone());
        if let Verdict::Serving { master, .. } = verdict {
            if let (Some((uid, _)), Some(view)) = (self.links.get(master), self.members.get(master))
            {
                self.reign = Some(Reign {
                    master: master.clone(),
                    pod_uid: uid.clone(),
                    line: view.line,
                    served_ms: view.heard_ms,
                });
            }
        } else if let Some(reign) = &mut self.reign {
            let same = self
                .links
                .get(&reign.master)
                .is_some_and(|(uid, _)| *uid == reign.pod_uid);
            if let (true, Some(view)) = (same, self.members.get(&reign.master)) {
                reign.line = view.line;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::{ByteString, api::core::v1::Secret};
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::{
        api::{duration::DurationText, names},
        failover::health::Symptom,
        guard::{
            election::voters_of,
            testing::{Scene, pod},
        },
        members::link::Link,
        reconcile::validate::{Defaults, tolerate},
    };

    /// The verdict over a master that cannot be reached and that both replicas last heard two seconds ago.
    async fn verdict(detect_after: Option<&str>) -> Verdict {
        let mut scene = Scene::new().await;
        let mut set = scene.guard.set.clone().unwrap();
        set.spec.failover.detect_after = detect_after.map(DurationText::from);
        let defaults = Defaults {
            server_image: "server:1".into(),
        };
        scene.guard.wanted = Some(tolerate(&set, &defaults));
        scene.guard.members.get_mut("orders-0").unwrap().line = Line::Unreachable;
        for replica in ["orders-1", "orders-2"] {
            scene.says(replica, |state| state.master_seen_ms_ago = Some(2_000));
        }
        let witnesses = scene.guard.witnesses(&set, 0);
        let (verdict, _) = scene.guard.conclude(&set, &voters_of(&set), &witnesses);
        verdict
    }

    #[tokio::test]
    async fn a_master_is_missed_after_the_time_that_the_set_asks_for() {
        for prompt in [None, Some("800ms"), Some("2s")] {
            let missed = Verdict::Missed(Symptom::NodeLost);
            assert_eq!(verdict(prompt).await, missed, "{prompt:?}");
        }
        for patient in ["2001ms", "1m"] {
            let verdict = verdict(Some(patient)).await;
            assert!(matches!(verdict, Verdict::Unsure { .. }), "{verdict:?}");
        }
    }

    /// The Secret whose token links are made with.
    fn secret() -> Secret {
        let data = [
            ("control-token", "token"),
            ("credentials.conf", ""),
            ("client-1", "c"),
            ("replication-1", "r"),
        ];
        let mut secret = Secret::default();
        secret.metadata.name = Some(names::server_secret("orders"));
        secret.metadata.namespace = Some("shop".into());
        let bytes = |(key, text): (&str, &str)| (key.to_owned(), ByteString(text.into()));
        secret.data = Some(data.map(bytes).into());
        secret
    }

    #[tokio::test]
    async fn a_master_is_watched_to_its_end_although_another_pod_has_its_name() {
        let mut scene = Scene::new().await;
        let guard = &mut scene.guard;
        let (address, uid) = ([127, 0, 0, 1].into(), "pod-of-orders-0".to_owned());
        // Nobody listens there.
        let events = guard.events_in.clone();
        let link = Link::start("orders-0".into(), address, 1, "token", events).unwrap();
        guard.links.insert("orders-0".into(), (uid, link));
        let serving = guard.verdict.clone().unwrap();
        guard.remember(&serving, 0);
        assert!(guard.reign.is_some());

        let mut successor = pod("orders-0");
        successor.metadata.uid = Some("its-successor".into());
        let writers = &mut scene.writers;
        writers.pods.apply_watcher_event(&Event::Apply(successor));
        writers.secrets.apply_watcher_event(&Event::Apply(secret()));
        guard.connect();
        let set = guard.set.clone().unwrap();
        let seen = |guard: &Guard| {
            let all = guard.witnesses(&set, 0);
            let found = all.into_iter().find(|w| w.member == "orders-0").unwrap();
            (found.line, found.pod)
        };
        assert_eq!(seen(guard), (Line::Up, PodFact::Running));
        assert!(guard.backend("orders-0").is_none(), "half of each pod");

        let news = tokio::time::timeout(Duration::from_secs(10), guard.events.recv());
        let news = news.await.unwrap().unwrap();
        guard.hear(news);
        assert_eq!(seen(guard), (Line::Refused, PodFact::Deleted));
    }
}
