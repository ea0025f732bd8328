//! Plans of sets one of whose members cannot start.

use k8s_openapi::api::core::v1::PodStatus;

use super::{
    relocation::{plain, three},
    waits::Wait,
    *,
};
use crate::rollout::order::{self, Health};

impl World {
    /// The pod of this member does not start, and its process is gone.
    fn crash(&mut self, member: &str) {
        let pod = Arc::make_mut(self.observed.pods.get_mut(member).unwrap());
        let waiting = json!({"containerStatuses": [{
            "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        }]});
        let status: PodStatus = serde_json::from_value(waiting).unwrap();
        pod.status = Some(status);
        self.observed.view.members.remove(member);
    }
}

#[tokio::test]
async fn a_set_that_shrinks_cures_a_member_that_cannot_start() {
    let nodes = vec![plain("n1"), plain("n2"), plain("n3")];
    for (limit, expected) in [("1Gi", vec!["delete orders-1"]), ("512Mi", vec![])] {
        let memory = |limit: &str| json!({"limits": {"memory": limit}});
        let mut spec = three(&json!({}));
        spec["resources"] = memory("512Mi");
        let mut world = World::of_three(&spec, ["n1", "n2", "n3"], nodes.clone());
        world.answer(&[]);
        world.crash("orders-1");
        spec["resources"] = memory(limit);
        spec["replicas"] = json!(2);
        world.respecify(&spec);
        world.answer(&[]);
        world.write_children();
        let why = "orders-1 is not in sync, so orders-2 stays".to_owned();
        assert_eq!(world.plan().scaling, scaling::Next::Wait { why });
        assert_eq!(world.moves(), expected, "{limit}");
    }
}

#[tokio::test]
async fn a_pod_that_is_not_made_is_told_with_its_reason() {
    let nodes = vec![plain("n1"), plain("n2"), plain("n3")];
    let mut world = World::of_three(&three(&json!({})), ["n1", "n2", "n3"], nodes);
    world.answer(&[]);
    let answer = world.observed.config_answers["orders-0"].clone();
    for n in 0..3 {
        let mut answer = answer.clone();
        answer.pod_uid = format!("first-{n}");
        let member = format!("orders-{n}");
        world.observed.config_answers.insert(member, answer);
    }
    world.observed.pods.remove("orders-2");
    world.observed.view.members.remove("orders-2");
    let since = world.observed.now;
    let wait = Wait {
        regarding: "workload".into(),
        since,
        asked: Some(since),
        complaint: Some("FailedCreate: no PriorityClass with name hihg was found".into()),
    };
    world.observed.waits.insert("orders-2".into(), wait.clone());
    world.observed.waits.insert("orders-1".into(), wait);
    world.observed.now += SignedDuration::from_secs(10);
    let plan = world.plan();
    let told = |n: usize| plan.members[n].trouble.as_deref();
    assert_eq!(told(1), None, "it answers");
    let complaint = "FailedCreate: no PriorityClass with name hihg was found";
    assert_eq!(told(2), Some(complaint));
    assert_eq!(plan.members[2].health, Health::Replacing);
    assert_eq!(plan.wake_after, Some(Duration::from_secs(20)));
    let found = findings(&world.set(), &world.observed.view, &plan, None);
    let progressing = found
        .iter()
        .find(|f| f.kind == ConditionType::Progressing)
        .unwrap();
    assert_eq!(progressing.message, format!("orders-2: {complaint}"));
    // In the middle of a rollout, too, whose next pod waits for this one.
    let mut plan = world.plan();
    let why = "the pod of orders-2 is being replaced";
    plan.rollout = order::Next::Wait { why: why.into() };
    let found = findings(&world.set(), &world.observed.view, &plan, None);
    let ready = found.iter().find(|f| f.kind == ConditionType::Ready);
    let message = format!("{why}; orders-2: {complaint}");
    assert_eq!(ready.unwrap().message, message);
}
