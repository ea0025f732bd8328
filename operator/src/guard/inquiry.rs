//! Questions to members whose word is needed now.
//!
//! Words get old while an operator stands still, and its whole machine may have: what a member said before proves nothing
//! about the master then. So the voters are asked once more before an election that nobody else asked for, because one that
//! fails costs a promise that keeps who gave it from the master.

use std::collections::BTreeSet;

use replset::VoterSet;
use tokio::task::JoinSet;

use super::{task::Guard, view::Stuck};
use crate::{
    api::RedisReplicaSet,
    failover::{
        decide::{Call, Decision},
        health::Verdict,
    },
    members::link::{Event, News},
};

impl Guard {
    /// Asks every member for its state, without waiting for the answers.
    pub(super) fn ask_everybody(&self) {
        for (name, member) in &self.members {
            let (remote, events) = (member.remote.clone(), self.events_in.clone());
            let (member, address) = (name.clone(), member.address);
            tokio::spawn(async move {
                if let Ok(state) = remote.state().await {
                    let news = News::State(Box::new(state));
                    // A full queue means that there is news enough.
                    let _ = events.try_send(Event {
                        member,
                        address,
                        news,
                    });
                }
            });
        }
    }

    /// The election that follows from what members answer now; `None` if they say otherwise or too few answer.
    pub(super) async fn confirm(
        &mut self,
        set: &RedisReplicaSet,
        voters: &VoterSet,
    ) -> Option<Call> {
        let mut asked = JoinSet::new();
        for (name, member) in &self.members {
            let (name, address, remote) = (name.clone(), member.address, member.remote.clone());
            asked.spawn(async move { (name, address, remote.state().await) });
        }
        let mut answered = BTreeSet::new();
        // As soon as those that answered are enough: the lost master itself does not answer.
        while let Some(Ok((member, address, answer))) = asked.join_next().await {
            let Ok(state) = answer else {
                continue;
            };
            answered.insert(member.clone());
            self.hear(Event {
                member,
                address,
                news: News::State(Box::new(state)),
            });
            let mut witnesses = self.witnesses(set, self.context.now_ms());
            for witness in &mut witnesses {
                witness
                    .word
                    .take_if(|_| !answered.contains(&witness.member));
            }
            let concluded = self.conclude(set, voters, &witnesses);
            // What some answers might prove, others may refute: only a majority is one however the rest answers.
            if let (Verdict::Missed(_), Decision::Elect(call)) = concluded {
                return Some(call);
            }
        }
        if !matches!(self.stuck, Some(Stuck::DataLost(_))) {
            let why = "when asked, too few members miss the master";
            self.stuck = Some(Stuck::Waiting(why.to_owned()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{failover::health::Line, guard::testing::Scene};

    /// The guard has heard nobody for longer than a master may be silent. What they say now is another thing.
    async fn after_a_standstill(scene: &mut Scene, master_seen_ms_ago: u64) {
        for member in ["orders-0", "orders-1", "orders-2"] {
            scene.says(member, |state| state.master_seen_ms_ago = Some(50));
        }
        for member in &scene.members {
            member.change(|state| {
                state.master_seen_ms_ago = Some(master_seen_ms_ago);
                state.serving &= master_seen_ms_ago < 800;
            });
        }
        scene.guard.members.get_mut("orders-0").unwrap().line = Line::Silent;
        scene.acts();
        scene.later(1_200);
        Box::pin(scene.guard.turn()).await;
    }

    #[tokio::test]
    async fn who_stood_still_itself_asks_before_it_deposes_anybody() {
        let mut scene = Scene::new().await;
        after_a_standstill(&mut scene, 50).await;
        assert!(matches!(scene.guard.verdict, Some(Verdict::Missed(_))));
        assert!(scene.members.iter().all(|m| m.calls().is_empty()));
        assert!(scene.api.methods().is_empty(), "no term is taken");
    }

    #[tokio::test]
    async fn what_the_voters_say_when_asked_is_enough() {
        let mut scene = Scene::new().await;
        after_a_standstill(&mut scene, 900).await;
        assert!(scene.members[1].calls().contains(&"prepare"));
    }
}
