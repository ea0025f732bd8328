//! Plans of sets one of whose pods is being deleted and never ends: its node is off.

use super::{
    relocation::{plain, three},
    *,
};

fn spread_out() -> World {
    let nodes = vec![plain("n1"), plain("n2"), plain("n3")];
    World::of_three(&three(&json!({})), ["n1", "n2", "n3"], nodes)
}

impl World {
    /// The pod of this member is deleted, and nobody is there to end it.
    fn lose(&mut self, member: &str) {
        let pod = Arc::make_mut(self.observed.pods.get_mut(member).unwrap());
        pod.metadata.deletion_timestamp = Some(Time(second(0)));
        let view = self.observed.view.members.get_mut(member).unwrap();
        view.line = Line::Unreachable;
    }

    /// Members that are told something, without those that are told again what they know.
    fn told(&self) -> Vec<String> {
        let generation = self.observed.set.metadata.generation.unwrap();
        let member = |step| match step {
            Step::PushConfig {
                member, request, ..
            } if i64::try_from(request.revision) == Ok(generation) => {
                Some(format!("{member}: configuration"))
            }
            Step::PushCredentials { member, .. } => Some(format!("{member}: credentials")),
            Step::PushConfig { .. }
            | Step::StoreCredentials { .. }
            | Step::Apply(_)
            | Step::RecordRotation { .. }
            | Step::SetVoters { .. }
            | Step::SwitchOver { .. }
            | Step::DeletePod { .. }
            | Step::RecordRelocation(_)
            | Step::LabelPod { .. } => None,
        };
        self.steps().into_iter().filter_map(member).collect()
    }
}

#[tokio::test]
async fn nobody_else_is_replaced() {
    let outdated = |lost: Option<&str>| {
        let mut world = spread_out();
        let mut spec = three(&json!({}));
        spec["image"] = json!("server:2");
        world.respecify(&spec);
        world.answer(&[]);
        world.write_children();
        if let Some(lost) = lost {
            world.lose(lost);
        }
        world
    };
    assert_eq!(outdated(None).moves(), ["delete orders-2"]);
    for lost in ["orders-1", "orders-2"] {
        let world = outdated(Some(lost));
        assert_eq!(world.moves(), Vec::<String>::new(), "{lost}");
        let why = format!("the pod of {lost} is being replaced");
        assert_eq!(world.plan().rollout, Rollout::Wait { why });
    }
}

/// A set whose replicas are replaced already, and whose master is not.
fn half_way() -> World {
    let mut world = spread_out();
    let old = Arc::clone(&world.observed.pods["orders-0"]);
    let mut spec = three(&json!({}));
    spec["image"] = json!("server:2");
    world.respecify(&spec);
    world.answer(&[]);
    world.write_children();
    // The replicas are replaced already.
    world.make_pod();
    for (member, node) in [("orders-1", "n2"), ("orders-2", "n3")] {
        let new = Arc::clone(&world.observed.pods["orders-0"]);
        world.observed.pods.insert(member.into(), new);
        world.put(member, node, &format!("second-of-{member}"));
    }
    world.observed.pods.insert("orders-0".into(), old);
    world
}

#[tokio::test]
async fn the_master_hands_over_to_nobody_while_a_replica_is_away() {
    let mut world = half_way();
    assert_eq!(world.moves(), ["switch over to orders-1"]);
    world.lose("orders-2");
    assert_eq!(world.moves(), Vec::<String>::new());
}

#[tokio::test]
async fn a_handover_that_failed_is_tried_with_another_after_a_pause() {
    let mut world = half_way();
    let answers = &mut world.observed.config_answers;
    let answer = answers["orders-0"].clone();
    answers.extend(["orders-1", "orders-2"].map(|name| (name.into(), answer.clone())));
    let pause = |left| Pause {
        left: Duration::from_secs(left),
        tried: vec!["orders-1".into()],
    };
    world.observed.switchovers = pause(2);
    assert_eq!(world.moves(), Vec::<String>::new());
    let plan = world.plan();
    assert_eq!(plan.wake_after, Some(Duration::from_secs(2)));
    let why = "orders-1 did not take over; there will be another attempt".to_owned();
    assert_eq!(plan.rollout, Rollout::Wait { why });
    world.observed.switchovers = pause(0);
    assert_eq!(world.moves(), ["switch over to orders-2"]);
}

#[tokio::test]
async fn nobody_moves_for_a_better_spread() {
    let crowded = || {
        let nodes = vec![plain("n1"), plain("n2"), plain("n3"), plain("n4")];
        World::of_three(&three(&json!({})), ["n1", "n2", "n2"], nodes)
    };
    assert_eq!(crowded().moves(), ["first-2 for n3 n4", "delete orders-2"]);
    for lost in ["orders-1", "orders-2"] {
        let mut world = crowded();
        world.lose(lost);
        assert_eq!(world.moves(), Vec::<String>::new(), "{lost}");
    }
}

#[tokio::test]
async fn the_others_are_told_a_new_configuration() {
    let mut world = spread_out();
    world.lose("orders-2");
    let mut spec = three(&json!({}));
    spec["config"] = json!({"timeout": "300"});
    world.respecify(&spec);
    assert_eq!(
        world.told(),
        ["orders-0: configuration", "orders-1: configuration"]
    );
    // What one of them has judged is written for those that start.
    world.answer(&[]);
    world.write_children();
    assert!(world.redis_conf().contains("timeout 300"));
}

#[tokio::test]
async fn the_others_are_told_new_passwords() {
    let mut world = spread_out();
    world.lose("orders-2");
    let Credentials::Found(credentials) = &mut world.observed.credentials else {
        panic!("there are credentials")
    };
    credentials.client = Ring {
        revision: 2,
        newest: Password::new("next"),
        previous: Some(Password::new("client")),
    };
    let status = world.observed.set.status.as_mut().unwrap();
    status.rotation.client.revision = 2;
    status.rotation.client.phase = RotationPhase::Adding;
    let told = world.told();
    for member in ["orders-0", "orders-1"] {
        assert!(told.contains(&format!("{member}: credentials")), "{told:?}");
    }
    assert!(!told.contains(&"orders-2: credentials".into()), "{told:?}");
    let revision = world.plan().secrets.push_revision;
    for member in ["orders-0", "orders-1"] {
        let view = world.observed.view.members.get_mut(member).unwrap();
        Arc::make_mut(view.state.as_mut().unwrap()).secret_revision = revision;
    }
    let told = world.told();
    assert!(!told.iter().any(|told| told.ends_with("credentials")));
    let message = world.plan().secrets.messages[0].clone();
    assert_eq!(
        message.as_deref(),
        Some("orders-2 cannot be asked for its revision")
    );
}
