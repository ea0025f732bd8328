//! Scenes with real members on a perfect network: what each does, in order.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

mod scene;

use replset::{
    Bootstrapped, DataPosition, Election, Generation, Handover, Input, Intent, Loss, MasterLink,
    Member, NotObeyed, Offset, Output, ReplId, Reply, RoleKind, Serve, Tail, Term, Timing, Vote,
    VoterSet,
};

use scene::{Set, boot, name};

#[test]
fn a_lower_term_and_a_second_elector_are_refused() {
    let mut set = Set::of(3);
    let first = set.prepare(5, "op", Intent::Forced);
    let Some(Reply::Prepare(Ok(promise))) = set.ask(1, first.clone()) else {
        panic!()
    };
    assert_eq!(
        set.nodes[1].disk.promised.term,
        Term(5),
        "on disk before the answer"
    );
    assert_eq!(
        set.ask(1, first),
        Some(Reply::Prepare(Ok(promise))),
        "repeating changes nothing"
    );
    let other = set.prepare(5, "other", Intent::Forced);
    assert_eq!(
        set.refusal(1, other),
        NotObeyed::PromisedToOther("op".into())
    );
    let lower = set.prepare(4, "op", Intent::Forced);
    assert_eq!(set.refusal(1, lower), NotObeyed::HigherTerm(Term(5)));
    set.crash(1);
    let lower = set.prepare(4, "op", Intent::Forced);
    assert_eq!(
        set.refusal(1, lower),
        NotObeyed::HigherTerm(Term(5)),
        "a kill forgets nothing"
    );
    assert_eq!(set.nodes[1].member.role(), RoleKind::Idle);
}

#[test]
fn who_hears_the_master_deposes_nobody() {
    let mut set = Set::of(3);
    let unplanned = |set: &Set| set.prepare(2, "op", Intent::Unplanned);
    let request = unplanned(&set);
    assert!(matches!(
        set.refusal(1, request),
        NotObeyed::MasterAlive { .. }
    ));
    let request = unplanned(&set);
    assert_eq!(
        set.refusal(0, request),
        NotObeyed::MasterAlive { seen_ms_ago: 0 }
    );
    assert_eq!(set.serving(), vec![0]);
    // The connection was closed and nobody listens: the process is gone.
    set.nodes[0].up = false;
    set.feed(1, Input::Link(MasterLink::Refused));
    let request = unplanned(&set);
    assert!(matches!(set.ask(1, request), Some(Reply::Prepare(Ok(_)))));
}

#[test]
fn a_killed_master_comes_back_as_follower_and_its_lease_is_not_waited_for() {
    let mut set = Set::of(3);
    set.nodes[0].up = false;
    set.pass(900);
    set.crash(0);
    assert_eq!(set.nodes[0].member.role(), RoleKind::Idle, "born follower");
    let promotion = set.elect(Intent::Unplanned, Bootstrapped::Yes).unwrap();
    assert_eq!(promotion.promote.defer_ms, 0);
    assert_eq!(promotion.winner.name, name(0), "it still has everything");
}

#[test]
fn a_lost_master_is_replaced_after_its_lease() {
    let mut set = Set::of(3);
    set.nodes[0].up = false;
    set.pass(810);
    let promotion = set.elect(Intent::Unplanned, Bootstrapped::Yes).unwrap();
    let defer_ms = promotion.promote.defer_ms;
    assert!((350..=460).contains(&defer_ms), "{defer_ms}");
    assert_eq!(
        set.serving(),
        vec![0],
        "a frozen master still has its lease"
    );
    set.pass(defer_ms + 20);
    assert_eq!(set.serving(), vec![1]);
    // The old master was only frozen: at its first tick it closes its clients.
    set.clients(0);
    set.nodes[0].up = true;
    assert_eq!(set.serving(), vec![1], "its lease ran out while it slept");
    set.feed(0, Input::Tick);
    assert_eq!(set.clients(0), vec!["closed"]);
    set.pass(200);
    assert_eq!(
        set.nodes[0].member.following().map(|f| f.term),
        Some(Term(2))
    );
    assert_eq!(
        set.nodes[0].member.position(),
        set.nodes[1].member.position()
    );
}

#[test]
fn a_master_without_a_majority_fences_itself_and_revives_with_it() {
    let mut set = Set::of(3);
    set.nodes[1].up = false;
    set.pass(2_000);
    assert_eq!(set.serving(), vec![0], "one of two replicas is enough");
    set.nodes[2].up = false;
    set.pass(1_100);
    assert_eq!(set.serving(), vec![0]);
    set.pass(150);
    assert_eq!(set.serving(), Vec::<usize>::new());
    assert_eq!(set.clients(0), vec!["closed"]);
    set.nodes[1].up = true;
    set.pass(150);
    assert_eq!(
        set.serving(),
        vec![0],
        "nobody promised a higher term meanwhile"
    );
}

#[test]
fn a_member_that_lost_its_disk_has_no_vote_until_the_others_know_it() {
    let mut set = Set::of(3);
    set.write(0, 100);
    set.pass(100);
    set.restart(2, None, DataPosition::default());
    assert_eq!(set.nodes[2].member.state().vote, Vote::Suspended);
    set.nodes[1].up = false;
    set.pass(1_000);
    assert_eq!(
        set.nodes[2].member.state().vote,
        Vote::Suspended,
        "b has not recorded it"
    );
    assert_eq!(
        set.nodes[2].member.position(),
        set.nodes[0].member.position()
    );
    set.nodes[1].up = true;
    set.pass(500);
    assert_eq!(set.nodes[2].member.state().vote, Vote::Granted);
    assert_eq!(set.nodes[2].disk.vote, Vote::Granted);
    assert_eq!(set.serving(), vec![0]);
}

fn voters(set: &Set, generation: u64, voters: &[usize]) -> Input {
    let peers = set.plan(Intent::Forced, Bootstrapped::Yes).peers;
    let voters = VoterSet {
        generation: Generation(generation),
        voters: voters.iter().map(|at| name(*at)).collect(),
    };
    Input::Voters(8, voters, peers)
}

/// The other one may be about to elect with the third, as voters that they were.
#[test]
fn a_master_of_two_needs_its_lease_until_the_other_knows_that_they_are_two() {
    let mut set = Set::of(3);
    set.nodes[1].up = false;
    set.pass(100);
    let two = voters(&set, 2, &[0, 1]);
    set.ask(0, two);
    set.pass(1_500);
    assert!(set.serving().is_empty());
    set.nodes[1].up = true;
    set.pass(200);
    assert_eq!(set.serving(), vec![0]);
    set.nodes[1].up = false;
    set.pass(5_000);
    assert_eq!(set.serving(), vec![0], "two have no lease");
}

#[test]
fn who_was_no_voter_for_a_while_votes_again_when_the_master_knows() {
    let mut set = Set::of(3);
    let two = voters(&set, 2, &[0, 1]);
    set.ask(0, two);
    set.pass(500);
    let vote = |set: &Set| set.nodes[2].member.state().vote;
    assert_eq!(vote(&set), Vote::Suspended);
    assert_eq!(set.nodes[2].disk.vote, Vote::Suspended);
    // The master of two serves without a lease: those who know of three must not depose it behind its back.
    let three = voters(&set, 3, &[0, 1, 2]);
    set.ask(1, three.clone());
    set.ask(2, three.clone());
    set.pass(500);
    assert_eq!(vote(&set), Vote::Suspended);
    assert_eq!(set.serving(), vec![0]);
    set.ask(0, three);
    set.pass(500);
    assert_eq!(vote(&set), Vote::Granted);
    assert_eq!(set.serving(), vec![0]);
}

#[test]
fn data_lost_beside_an_intact_state_file_are_a_new_life() {
    let mut set = Set::of(3);
    let disk = set.nodes[2].disk.clone();
    set.restart(2, Some(disk.clone()), DataPosition::default());
    let state = set.nodes[2].member.state();
    assert_ne!(state.id, disk.id);
    assert_eq!((state.vote, state.blank), (Vote::Suspended, true));
    assert_eq!(
        state.promised, disk.promised,
        "what it promised still holds"
    );
}

#[test]
fn an_older_dataset_lowers_the_position_and_voids_the_promise() {
    let mut set = Set::of(3);
    set.pass(100);
    let saved = set.nodes[1].data.clone();
    set.write(0, 100);
    set.pass(200);
    set.nodes[0].up = false;
    set.pass(900);
    set.term += 1;
    let mut election = Election::new(set.plan(Intent::Unplanned, Bootstrapped::Yes));
    for at in [1, 2] {
        let Some(Reply::Prepare(answer)) = set.ask(at, Input::Prepare(1, election.prepare()))
        else {
            panic!()
        };
        election.record(set.now, &name(at), answer);
    }
    let promotion = election.decide(set.now).unwrap();
    assert_eq!(promotion.winner.name, name(1));
    let disk = set.nodes[1].disk.clone();
    set.restart(1, Some(disk), saved);
    let answer = set.ask(1, Input::Promote(2, Box::new(promotion.promote)));
    let Some(Reply::Promote(Err(NotObeyed::NotAsPromised { .. }))) = answer else {
        panic!("{answer:?}")
    };
}

#[test]
fn a_planned_switchover_waits_for_no_lease() {
    let mut set = Set::of(3);
    set.write(0, 50);
    set.pass(100);
    let handover = Handover {
        term: Term(1),
        target: Some(name(2)),
        budget_ms: 500,
        token: 77,
    };
    let Some(Reply::Handover(Ok(handed))) = set.ask(0, Input::Handover(4, handover.clone())) else {
        panic!()
    };
    assert_eq!(set.clients(0), vec!["Writes held", "All held"]);
    assert_eq!(set.serving(), Vec::<usize>::new());
    assert_eq!(
        set.nodes[0].disk.released,
        Some(handed.release),
        "on disk before the answer"
    );
    let again = set.ask(0, Input::Handover(5, handover));
    assert!(matches!(again, Some(Reply::Handover(Ok(h))) if h.release == handed.release));
    let promotion = set
        .elect(Intent::Planned(handed.release), Bootstrapped::Yes)
        .unwrap();
    assert_eq!(promotion.promote.defer_ms, 0);
    set.pass(20);
    assert_eq!(
        set.serving(),
        vec![0],
        "without a preference the first of equals"
    );
}

#[test]
fn a_switchover_whose_target_lags_is_given_up() {
    let mut set = Set::of(3);
    set.nodes[2].up = false;
    set.write(0, 50);
    let handover = Handover {
        term: Term(1),
        target: Some(name(2)),
        budget_ms: 500,
        token: 77,
    };
    assert_eq!(
        set.ask(0, Input::Handover(4, handover)),
        None,
        "the answer comes later"
    );
    set.pass(490);
    assert_eq!(set.clients(0), vec!["Writes held"]);
    set.replies.clear();
    set.pass(20);
    assert_eq!(set.clients(0), vec!["resumed"]);
    let late = Reply::Handover(Err(NotObeyed::TargetBehind));
    assert!(set.replies.contains(&late), "{:?}", set.replies);
    assert_eq!(set.serving(), vec![0]);
}

#[test]
fn a_leaving_master_is_missed_at_once() {
    let mut set = Set::of(3);
    let handover = Handover {
        term: Term(1),
        target: None,
        budget_ms: 500,
        token: 77,
    };
    assert!(matches!(
        set.ask(0, Input::Handover(4, handover)),
        Some(Reply::Handover(Ok(_)))
    ));
    set.nodes[0].up = false;
    // The members heard the release: no suspicion to wait for, no lease to respect.
    let promotion = set.elect(Intent::Unplanned, Bootstrapped::Yes).unwrap();
    assert_eq!(promotion.promote.defer_ms, 0);
    set.pass(20);
    assert_eq!(set.serving(), vec![1]);
}

#[test]
fn small_sets_have_no_lease() {
    let mut one = Set::of(1);
    assert_eq!(one.nodes[0].member.serve(), Serve::Unlimited);
    one.crash(0);
    assert_eq!(
        one.serving(),
        Vec::<usize>::new(),
        "born follower, even alone"
    );
    one.elect(Intent::Unplanned, Bootstrapped::Yes).unwrap();
    one.pass(10);
    assert_eq!(one.serving(), vec![0]);
    let mut two = Set::of(2);
    two.nodes[1].up = false;
    two.pass(5_000);
    assert_eq!(two.serving(), vec![0]);
}

#[test]
fn a_repeated_promotion_is_answered_alike() {
    let mut set = Set::of(3);
    let promotion = set.elect(Intent::Forced, Bootstrapped::Yes).unwrap();
    let before = set.nodes[0].data.clone();
    let again = set.ask(0, Input::Promote(7, Box::new(promotion.promote)));
    assert!(matches!(again, Some(Reply::Promote(Ok(_)))));
    assert_eq!(set.nodes[0].data, before, "no second marker");
}

#[test]
fn a_release_is_not_taken_back_by_a_heartbeat_that_it_overtook() {
    let mut set = Set::of(3);
    let now = set.now + 1_000;
    let outputs = set.nodes[0].member.handle(now, Input::Tick);
    let late = outputs.into_iter().find_map(|output| {
        let Output::Send(peer, heartbeat) = output else {
            return None;
        };
        (peer.name == name(1)).then_some(heartbeat)
    });
    let handover = Handover {
        term: Term(1),
        target: None,
        budget_ms: 1_000,
        token: 7,
    };
    set.feed(0, Input::Handover(5, handover));
    set.pass(100);
    let released = |set: &Set| set.nodes[1].member.report(set.now).released;
    assert!(released(&set).is_some());
    set.feed(1, Input::Heartbeat(6, late.unwrap()));
    assert!(released(&set).is_some(), "the old heartbeat came last");
}

#[test]
fn data_of_another_set_obey_nobody_until_an_heir_claims_them() {
    let mut set = Set::of(3);
    set.write(0, 70);
    set.pass(500);
    let held = set.nodes[1].member.position();
    set.fleet = "g".into();
    (0..3).for_each(|at| set.crash(at));
    let report = set.nodes[1].member.report(set.now);
    assert_eq!((report.fleet, report.position), ("f".into(), held));

    let stranger = set.prepare(50, "op", Intent::Forced);
    assert_eq!(set.refusal(1, stranger), NotObeyed::WrongFleet("f".into()));
    let refused = set.elect(Intent::Unplanned, Bootstrapped::No).unwrap_err();
    assert!(refused.contains("belongs to set f"), "{refused}");

    set.heir_of = Some("f".into());
    set.elect(Intent::Unplanned, Bootstrapped::No).unwrap();
    set.pass(500);
    assert_eq!(set.serving(), vec![0]);
    assert!(set.nodes[0].member.position() > held, "with its data");
    let fleets = set.nodes.iter().map(|node| node.disk.fleet.to_string());
    assert_eq!(fleets.collect::<Vec<_>>(), ["g", "g", "g"]);
}

#[test]
fn a_member_whose_data_are_torn_leads_only_before_those_who_have_less() {
    let mut set = Set::of(3);
    set.write(0, 100);
    set.pass(200);
    set.nodes[0].up = false;
    set.nodes[1].data = DataPosition::default();
    set.nodes[2].data.offset.0 -= 50;
    set.pass(900);
    assert_eq!(set.nodes[1].disk.tail, Tail::MayBeCut);
    let promotion = set.elect(Intent::Unplanned, Bootstrapped::Yes).unwrap();
    assert_eq!(promotion.winner.name, name(2), "it holds a whole prefix");
    assert_eq!(promotion.loss, Loss::Possible);
    set.pass(promotion.promote.defer_ms + 200);
    assert_eq!(set.serving(), vec![2]);
    assert_eq!(set.nodes[1].disk.tail, Tail::Whole, "it got a full copy");
    let position = set.nodes[2].member.position();
    assert_eq!(set.nodes[1].member.position(), position);
}

#[test]
fn a_dataset_of_an_unknown_stream_brings_no_vote() {
    let replid = ReplId::parse(&"a".repeat(40)).unwrap();
    let data = DataPosition::of(replid, Offset(500));
    let (member, _) = Member::start(None, boot(0, 1, &data, 0), Timing::default());
    assert_eq!(member.state().vote, Vote::Suspended);
    assert!(!member.state().blank, "it has data, only no vote");
}
