//! Plans of sets one of whose members cannot start.

use k8s_openapi::api::core::v1::PodStatus;

use super::{
    relocation::{plain, three},
    *,
};

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
