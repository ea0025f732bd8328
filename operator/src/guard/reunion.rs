//! The election that brings back members which an earlier one left behind; see [`crate::failover::reunion`].

use replset::{MemberName, VoterSet};
use tracing::warn;

use super::{election::Purpose, task::Guard};
use crate::{
    api::RedisReplicaSet,
    failover::{
        health::Verdict,
        reunion::{reunion, stranded},
    },
};

/// How long a member must have been left behind: longer than most elections that may be under way.
const STRANDED_MS: u64 = 2_000;

impl Guard {
    /// Elects the serving master again if members promised a later term than its own.
    pub(super) async fn reunite(&mut self, set: &RedisReplicaSet, voters: &VoterSet) {
        let Some(Verdict::Serving { master, term }) = self.verdict.clone() else {
            return;
        };
        // What members say by now: what was done for a calm set may have taken its time.
        let witnesses = self.witnesses(set, self.context.now_ms());
        let evidence = self.evidence(set, voters, &witnesses);
        let stranded = stranded(&evidence, term);
        if stranded.is_empty() {
            self.stranded_since_ms = None;
            return;
        }
        let now_ms = self.context.now_ms();
        let since_ms = *self.stranded_since_ms.get_or_insert(now_ms);
        let is_due = now_ms >= since_ms + STRANDED_MS && self.elector_had_its_time();
        if !is_due || !self.context.may_act() || self.is_pausing(now_ms) {
            return;
        }
        let Some(call) = reunion(&evidence, &master) else {
            return;
        };
        let who = stranded.join(", ");
        let why = format!("{who} had promised a later term, in which nobody became master");
        warn!(set = %self.key, master, %term, why, "electing the master again");
        self.stranded_since_ms = None;
        let master = MemberName::new(master);
        self.run_election(set, &call, Purpose::Again { master, why })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use control::proto::Role;

    use super::*;
    use crate::{api::v1alpha1::FailoverReason, guard::testing::Scene};

    /// Everybody is well, but for `orders-2`, which promised term 2.
    async fn scene() -> Scene {
        let mut scene = Scene::new().await;
        for member in ["orders-0", "orders-1", "orders-2"] {
            scene.says(member, |state| {
                state.master_seen_ms_ago = Some(50);
                state.promised_term = 1;
            });
        }
        scene.says("orders-2", |state| {
            state.role = Role::Idle.into();
            (state.term, state.promised_term) = (0, 2);
        });
        scene
    }

    /// One look while what members said is new.
    async fn turn(scene: &mut Scene) -> Vec<Vec<&'static str>> {
        let now_ms = scene.guard.context.now_ms();
        for member in scene.guard.members.values_mut() {
            member.heard_ms = now_ms;
        }
        Box::pin(scene.guard.turn()).await;
        let elections = ["prepare", "promote", "follow"];
        let asked = |calls: Vec<&'static str>| {
            let calls = calls.into_iter();
            calls.filter(|call| elections.contains(call)).collect()
        };
        scene.members.iter().map(|m| asked(m.calls())).collect()
    }

    #[tokio::test]
    async fn a_member_left_behind_is_brought_back_under_the_same_master() {
        let mut scene = scene().await;
        scene.acts();
        let nobody: [Vec<&str>; 3] = Default::default();
        assert_eq!(
            turn(&mut scene).await,
            nobody,
            "it may be an election of now"
        );
        scene.later(STRANDED_MS);
        let calls = turn(&mut scene).await;
        assert_eq!(calls[0], ["prepare", "promote"]);
        assert_eq!(calls[1], ["prepare", "follow"]);
        assert_eq!(calls[2], ["prepare", "follow"]);
        let status = scene.guard.decided().unwrap().status.unwrap();
        assert_eq!(status.master.as_deref(), Some("orders-0"));
        assert!(status.election_term > 1);
        let record = &status.failovers[0];
        assert_eq!(record.reason, FailoverReason::StrandedMember);
        assert_eq!(record.detected, None, "it served until then");
    }

    /// The master is the busiest of all, and its promise the one that matters.
    #[tokio::test]
    async fn a_master_that_is_late_with_its_promise_is_waited_for() {
        let mut scene = scene().await;
        scene.acts();
        scene.members[0].promises_after(Duration::from_millis(300));
        turn(&mut scene).await;
        scene.later(STRANDED_MS);
        let calls = turn(&mut scene).await;
        assert_eq!(calls[0], ["prepare", "promote"]);
        let status = scene.guard.decided().unwrap().status.unwrap();
        assert_eq!(status.failovers[0].lost_bytes, Some(0));
    }

    #[tokio::test]
    async fn a_master_is_not_asked_for_its_term_before_enough_others_promised() {
        let mut scene = scene().await;
        scene.acts();
        for other in [1, 2] {
            scene.members[other].promises_after(Duration::from_secs(3600));
        }
        turn(&mut scene).await;
        scene.later(STRANDED_MS);
        let calls = turn(&mut scene).await;
        assert_eq!(calls, [vec![], vec!["prepare"], vec!["prepare"]]);
    }

    #[tokio::test]
    async fn another_operator_leaves_it_to_the_acting_one() {
        let mut scene = scene().await;
        turn(&mut scene).await;
        scene.later(STRANDED_MS);
        let nobody: [Vec<&str>; 3] = Default::default();
        assert_eq!(turn(&mut scene).await, nobody);
    }
}
