//! Plans of sets whose members are not where they should be.

use k8s_openapi::api::core::v1::Node;

use super::*;
use crate::api::v1alpha1::RelocationStatus;

/// A ready node, and what is special about it.
fn node(name: &str, labels: &Value, spec: &Value) -> Node {
    let mut node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels}, "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap();
    let labels = node.metadata.labels.get_or_insert_default();
    labels.insert("kubernetes.io/hostname".into(), name.into());
    node
}

pub(super) fn plain(name: &str) -> Node {
    node(name, &json!({}), &json!({}))
}

/// A node that takes only pods which tolerate this key.
fn tainted(name: &str, key: &str) -> Node {
    let taint = json!({"key": key, "effect": "NoSchedule"});
    node(name, &json!({}), &json!({"taints": [taint]}))
}

pub(super) fn three(pod_template: &Value) -> Value {
    json!({"replicas": 3, "storage": {"ephemeral": {}}, "podTemplate": pod_template})
}

impl World {
    /// Three members in sync on these nodes, the first of them the master.
    pub(super) fn of_three(spec: &Value, places: [&str; 3], nodes: Vec<Node>) -> Self {
        let mut world = Self::new(spec, 2);
        world.observed.workload_replicas = Some(3);
        let follower = proto::State {
            boot: 7,
            role: proto::Role::Follower.into(),
            vote: proto::Vote::Granted.into(),
            link: proto::Link::Up.into(),
            config_revision: 2,
            secret_revision: 10,
            ..proto::State::default()
        };
        for name in ["orders-1", "orders-2"] {
            let mut view = world.observed.view.members["orders-0"].clone();
            view.state = Some(Arc::new(follower.clone()));
            world.observed.view.members.insert(name.into(), view);
            let pod = Arc::clone(&world.observed.pods["orders-0"]);
            world.observed.pods.insert(name.into(), pod);
        }
        for (ordinal, node) in places.into_iter().enumerate() {
            let name = format!("orders-{ordinal}");
            world.put(&name, node, &format!("first-{ordinal}"));
            world.status().voters.push(name);
        }
        world.status().voters.dedup();
        world.have(nodes);
        world.write_children();
        world
    }

    fn status(&mut self) -> &mut RedisReplicaSetStatus {
        self.observed.set.status.as_mut().unwrap()
    }

    /// The scheduler puts a pod with this UID on a node.
    pub(super) fn put(&mut self, member: &str, node: &str, uid: &str) {
        let pod = Arc::make_mut(self.observed.pods.get_mut(member).unwrap());
        pod.metadata.uid = Some(uid.into());
        pod.spec.as_mut().unwrap().node_name = Some(node.into());
        let view = self.observed.view.members.get_mut(member).unwrap();
        view.pod_uid = uid.into();
    }

    fn have(&mut self, nodes: impl IntoIterator<Item = Node>) {
        for node in nodes {
            let name = node.metadata.name.clone().unwrap();
            self.observed.nodes.insert(name, Arc::new(node));
        }
    }

    /// What the plan does about places: pods that it deletes, records that it makes.
    pub(super) fn moves(&self) -> Vec<String> {
        let word = |step| match step {
            Step::RecordRelocation(Some(RelocationStatus { pod_uid, nodes })) => {
                Some(format!("{pod_uid} for {}", nodes.join(" ")))
            }
            Step::RecordRelocation(None) => Some("forget".into()),
            Step::DeletePod { member, .. } => Some(format!("delete {member}")),
            Step::SwitchOver { order, .. } => Some(format!("switch over to {}", order.to)),
            Step::StoreCredentials { .. }
            | Step::Apply(_)
            | Step::RecordRotation { .. }
            | Step::PushCredentials { .. }
            | Step::PushConfig { .. }
            | Step::SetVoters { .. }
            | Step::LabelPod { .. } => None,
        };
        self.steps().into_iter().filter_map(word).collect()
    }

    /// The first step of a move: what it records becomes the status.
    fn record(&mut self) {
        for step in self.steps() {
            if let Step::RecordRelocation(relocation) = step {
                self.status().relocation = relocation;
            }
        }
    }
}

#[tokio::test]
async fn nodes_that_the_pods_do_not_want_have_no_room() {
    let fast = |name: &str| node(name, &json!({"disk": "fast"}), &json!({}));
    let nodes = vec![fast("n1"), fast("n2"), plain("n3"), plain("n4")];
    let pinned = three(&json!({"nodeSelector": {"disk": "fast"}}));
    let world = World::of_three(&pinned, ["n1", "n2", "n2"], nodes.clone());
    assert_eq!(world.plan().violations, []);
    assert_eq!(world.moves(), Vec::<String>::new());
    // Of a set without the wish a member moves.
    let world = World::of_three(&three(&json!({})), ["n1", "n2", "n2"], nodes);
    assert_eq!(world.moves(), ["first-2 for n3 n4", "delete orders-2"]);
}

#[tokio::test]
async fn a_control_plane_and_missing_zones_do_not_spoil_the_default_spread() {
    let control_plane = tainted("cp", "node-role.kubernetes.io/control-plane");
    let nodes = vec![control_plane, plain("n1"), plain("n2")];
    let world = World::of_three(&three(&json!({})), ["n1", "n2", "n2"], nodes);
    assert_eq!(world.plan().violations, []);
    assert_eq!(world.moves(), Vec::<String>::new());
}

#[tokio::test]
async fn a_tainted_node_has_room_for_pods_that_tolerate_it() {
    let nodes = vec![plain("n1"), plain("n2"), tainted("n3", "redis")];
    let tolerant = three(&json!({"tolerations": [{"key": "redis", "operator": "Exists"}]}));
    let world = World::of_three(&tolerant, ["n1", "n2", "n2"], nodes);
    assert_eq!(world.moves(), ["first-2 for n3", "delete orders-2"]);
}

#[tokio::test]
async fn a_move_in_vain_is_not_repeated_by_an_operator_that_knows_the_status_only() {
    let mut n4 = tainted("n4", "node.kubernetes.io/unschedulable");
    n4.spec.get_or_insert_default().unschedulable = Some(true);
    let nodes = vec![plain("n1"), plain("n2"), plain("n3"), n4];
    let mut world = World::of_three(&three(&json!({})), ["n1", "n2", "n2"], nodes);
    world.record();
    // Nobody deleted the pod yet.
    assert_eq!(world.moves(), ["first-2 for n3", "delete orders-2"]);
    world.put("orders-2", "n2", "second-2");
    assert_eq!(world.moves(), Vec::<String>::new());
    world.have([
        tainted("n5", "somebody"),
        tainted("n3", "node.kubernetes.io/not-ready"),
    ]);
    assert_eq!(world.moves(), Vec::<String>::new());
    world.have([plain("n3")]);
    assert_eq!(world.moves(), Vec::<String>::new());
    // What was not offered is.
    world.have([plain("n4")]);
    assert_eq!(world.moves(), ["second-2 for n3 n4", "delete orders-2"]);
    world.record();
    world.put("orders-2", "n4", "third-2");
    assert_eq!(world.moves(), ["forget"]);
    world.record();
    assert_eq!(world.moves(), Vec::<String>::new());
}

#[tokio::test]
async fn a_record_that_is_full_ends_the_moving() {
    let many = (10..120).map(|n| plain(&format!("n{n}")));
    let nodes = many.chain([plain("n1"), plain("n2")]).collect();
    let mut world = World::of_three(&three(&json!({})), ["n1", "n2", "n2"], nodes);
    world.record();
    world.put("orders-2", "n2", "second-2");
    assert_eq!(world.moves(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pod_that_is_missing_is_not_unschedulable() {
    let nodes = vec![plain("n1"), plain("n2"), plain("n3")];
    let spec = three(&json!({}));
    let mut world = World::of_three(&spec, ["n1", "n2", "n3"], nodes);
    world.answer(&[]);
    let found = |world: &World| {
        let plan = world.plan();
        let found = findings(&world.set(), &world.observed.view, &plan, None);
        let mut found = found.into_iter();
        let placement = found.find(|f| f.kind == ConditionType::PlacementSatisfied);
        let placement = placement.unwrap();
        (placement.truth, placement.reason)
    };
    let satisfied = (Truth::True, ReadyReason::Spread);
    assert_eq!(found(&world), satisfied);
    let mut pod = world.observed.pods.remove("orders-2").unwrap();
    world.observed.view.members.remove("orders-2");
    assert_eq!(found(&world), satisfied, "the pod is being replaced");
    Arc::make_mut(&mut pod).spec.as_mut().unwrap().node_name = None;
    world
        .observed
        .pods
        .insert("orders-2".into(), Arc::clone(&pod));
    assert_eq!(found(&world), satisfied, "the scheduler comes to it");
    let refused = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
    Arc::make_mut(&mut pod).status = Some(serde_json::from_value(refused).unwrap());
    world.observed.pods.insert("orders-2".into(), pod);
    let unschedulable = (Truth::False, ReadyReason::Unschedulable);
    assert_eq!(found(&world), unschedulable);
}
