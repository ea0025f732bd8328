//! An explicit-state model check of the real [`Member`] and [`Election`] code: three voters, delayed
//! promises and acknowledgements, stale masters, crashes, losses of disk.
//!
//! With all rules on, a breadth-first search over everything that can happen within a budget finds no
//! violation. With one rule switched off it finds one, and prints the shortest history to it: so the
//! search is able to see what the rules prevent.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

mod world;

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use replset::Rules;
use world::{Action, Budget, Violation, World};

/// States a search may visit before it gives up; keeps the test within seconds.
const MAX_STATES: usize = 2_000_000;

enum Found {
    Nothing { exhausted: bool },
    Violation(Violation, Vec<Action>),
}

struct Search {
    states: usize,
    found: Found,
}

/// Two independent hashes: 128 bits identify a state.
struct Fingerprints(RandomState, RandomState);

impl Fingerprints {
    fn of(&self, world: &World) -> (u64, u64) {
        (self.0.hash_one(world), self.1.hash_one(world))
    }
}

fn search(rules: Rules, budget: Budget, prefix: &[Action], max_states: usize) -> Search {
    let fingerprints = Fingerprints(RandomState::new(), RandomState::new());
    let mut start = World::bootstrapped(rules, budget);
    for action in prefix {
        start.perform(action).unwrap();
    }
    let mut seen = HashSet::from([fingerprints.of(&start)]);
    // Each state knows how it was reached, to print the history of a violation.
    let mut steps: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(start, 0)]);
    while let Some((world, at)) = queue.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            let outcome = next.perform(&action);
            if let Err(violation) = outcome {
                let history = history(&steps, at, action);
                return Search {
                    states: seen.len(),
                    found: Found::Violation(violation, history),
                };
            }
            if seen.insert(fingerprints.of(&next)) {
                steps.push((at, Some(action)));
                queue.push_back((next, steps.len() - 1));
            }
        }
        if seen.len() >= max_states {
            return Search {
                states: seen.len(),
                found: Found::Nothing { exhausted: false },
            };
        }
    }
    Search {
        states: seen.len(),
        found: Found::Nothing { exhausted: true },
    }
}

fn history(steps: &[(usize, Option<Action>)], mut at: usize, last: Action) -> Vec<Action> {
    let mut history = vec![last];
    while let Some((before, Some(action))) = steps.get(at).cloned() {
        history.push(action);
        at = before;
    }
    history.reverse();
    history
}

fn assert_safe(name: &str, budget: Budget, prefix: &[Action], max_states: usize) {
    let began = Instant::now();
    let search = search(Rules::default(), budget, prefix, max_states);
    match search.found {
        Found::Nothing { exhausted } => {
            let extent = if exhausted { "exhaustive" } else { "bounded" };
            println!(
                "{name}: no violation, {extent}, {} states, {:?}",
                search.states,
                began.elapsed()
            );
        }
        Found::Violation(violation, history) => {
            panic!("{name}: {violation:?} after {history:#?}")
        }
    }
}

/// `prefix` is what happened before the search begins, to keep long histories within seconds.
fn assert_caught(name: &str, rules: Rules, budget: Budget, prefix: &[Action]) {
    assert_ne!(rules, Rules::default(), "{name} breaks no rule");
    let began = Instant::now();
    let search = search(rules, budget, prefix, MAX_STATES);
    match search.found {
        Found::Violation(violation, history) => {
            println!(
                "{name}: {violation:?} in {} steps, {} states, {:?}",
                history.len(),
                search.states,
                began.elapsed()
            );
            for action in history {
                println!("    {action:?}");
            }
        }
        Found::Nothing { .. } => panic!("{name}: not caught within {} states", search.states),
    }
}

const QUIET: Budget = Budget {
    terms: 2,
    writes: 1,
    crashes: 0,
    wipes: 0,
    kills: 0,
    acks: 1,
    changes: 0,
};

#[test]
fn no_violation_with_two_elections() {
    assert_safe(
        "two elections",
        Budget {
            terms: 3,
            writes: 2,
            ..QUIET
        },
        &[],
        25_000,
    );
}

#[test]
fn no_violation_with_a_crash() {
    assert_safe(
        "a crash",
        Budget {
            terms: 3,
            crashes: 1,
            ..QUIET
        },
        &[],
        25_000,
    );
}

#[test]
fn no_violation_with_a_loss_of_disk_and_readmission() {
    assert_safe("a loss of disk", Budget { wipes: 1, ..QUIET }, &[], 25_000);
}

#[test]
fn no_write_is_lost_untold_with_a_killed_process() {
    let budget = Budget {
        kills: 1,
        writes: 2,
        ..QUIET
    };
    assert_safe("a process is killed", budget, &[], 12_000);
    assert_safe("killed, c is behind", budget, &C_IS_BEHIND, 12_000);
    let budget = Budget { terms: 3, ..budget };
    assert_safe("b was killed", budget, &B_WAS_KILLED, 12_000);
}

#[test]
fn no_violation_while_voters_change() {
    let budget = Budget {
        terms: 3,
        writes: 2,
        changes: 2,
        ..QUIET
    };
    assert_safe("voters change", budget, &[], 12_000);
    assert_safe("c was dropped", budget, &C_WAS_DROPPED, 12_000);
}

/// An election of term 2 has begun with all three as voters; meanwhile `a` has become the only one.
const A_VOTES_ALONE: [Action; 7] = [
    Action::Prepare(2, 2),
    Action::ChangeVoters(2),
    Action::TellVoters(0),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
    Action::ChangeVoters(1),
    Action::TellVoters(0),
];

#[test]
fn caught_an_election_of_voters_that_were() {
    let rules = Rules {
        stale_voters_are_refused: false,
        ..Rules::default()
    };
    let budget = Budget {
        changes: 2,
        ..QUIET
    };
    assert_caught("voters that were", rules, budget, &A_VOTES_ALONE);
    assert_safe("a votes alone", budget, &A_VOTES_ALONE, 8_000);
}

#[test]
fn caught_promotion_from_one_promise() {
    let rules = Rules {
        read_quorum: false,
        ..Rules::default()
    };
    assert_caught("one promise is enough", rules, QUIET, &[]);
}

#[test]
fn caught_position_read_without_fencing() {
    let rules = Rules {
        fence_before_read: false,
        ..Rules::default()
    };
    assert_caught("positions read without fencing", rules, QUIET, &[]);
}

#[test]
fn caught_term_ignored_in_ordering() {
    let rules = Rules {
        compare_terms: false,
        ..Rules::default()
    };
    let budget = Budget { terms: 3, ..QUIET };
    let second_election = [
        Action::Prepare(2, 1),
        Action::Prepare(2, 2),
        Action::Decide(2),
        Action::Promote(2),
        Action::Follow(2, 2),
    ];
    assert_caught(
        "offsets compared without terms",
        rules,
        budget,
        &second_election,
    );
}

/// `b` holds two entries that `c` lacks; they may have been acknowledged.
const C_IS_BEHIND: [Action; 6] = [
    Action::Write(0),
    Action::Write(0),
    Action::Sync(1),
    Action::Sync(1),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
];

/// `c` votes no more, and holds nothing of what was written since.
const C_WAS_DROPPED: [Action; 8] = [
    Action::ChangeVoters(2),
    Action::TellVoters(0),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
    Action::Write(0),
    Action::Sync(1),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
];

/// Then `b` is killed, and holds none of the two.
const B_WAS_KILLED: [Action; 7] = [
    Action::Write(0),
    Action::Write(0),
    Action::Sync(1),
    Action::Sync(1),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
    Action::Kill(1, 1),
];

#[test]
fn caught_silence_about_what_a_killed_process_forgot() {
    let rules = Rules {
        cut_tails_are_told: false,
        ..Rules::default()
    };
    let budget = Budget {
        kills: 1,
        writes: 2,
        ..QUIET
    };
    assert_caught("killed and silent", rules, budget, &C_IS_BEHIND);
}

#[test]
fn caught_a_killed_process_that_counts_before_it_has_caught_up() {
    let rules = Rules {
        tail_mends_by_catching_up: false,
        ..Rules::default()
    };
    let budget = Budget {
        kills: 1,
        writes: 2,
        ..QUIET
    };
    assert_caught("mended too early", rules, budget, &B_WAS_KILLED);
}

#[test]
fn caught_attach_that_raises_the_position() {
    let rules = Rules {
        attach_is_not_adopt: false,
        ..Rules::default()
    };
    let budget = Budget {
        terms: 3,
        writes: 2,
        ..QUIET
    };
    assert_caught("attach is adopt", rules, budget, &C_IS_BEHIND);
}

#[test]
fn caught_wiped_member_that_votes() {
    let rules = Rules {
        blank_has_no_vote: false,
        ..Rules::default()
    };
    assert_caught(
        "a wiped member votes",
        rules,
        Budget { wipes: 1, ..QUIET },
        &[],
    );
}

#[test]
fn caught_promise_not_persisted() {
    let rules = Rules {
        persist_promise: false,
        ..Rules::default()
    };
    assert_caught(
        "promises are forgotten",
        rules,
        Budget {
            crashes: 1,
            ..QUIET
        },
        &[],
    );
}

#[test]
fn caught_wiped_master_that_resumes() {
    let rules = Rules {
        born_follower: false,
        ..Rules::default()
    };
    assert_caught(
        "a wiped master resumes",
        rules,
        Budget { wipes: 1, ..QUIET },
        &[],
    );
}

#[test]
fn caught_admission_before_catching_up() {
    let rules = Rules {
        admit_after_catch_up: false,
        ..Rules::default()
    };
    let budget = Budget {
        wipes: 1,
        writes: 2,
        ..QUIET
    };
    assert_caught("admitted too early", rules, budget, &C_IS_BEHIND);
}

/// `b` promised term 2, behind `c`, lost its disk, and holds everything again under a new life.
const B_IS_BACK: [Action; 9] = [
    Action::Write(0),
    Action::Sync(2),
    Action::Prepare(2, 1),
    Action::Wipe(1),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
    Action::Sync(1),
    Action::Heartbeat(0, 1),
    Action::Ack(0),
];

#[test]
fn caught_promise_of_a_replaced_life() {
    let rules = Rules {
        void_old_incarnations: false,
        ..Rules::default()
    };
    let budget = Budget {
        wipes: 1,
        writes: 2,
        ..QUIET
    };
    let recorded = [Action::Heartbeat(0, 2), Action::Ack(0)];
    assert_caught(
        "old promises count",
        rules,
        budget,
        &[&B_IS_BACK[..], &recorded].concat(),
    );
}

#[test]
fn caught_admission_that_too_few_recorded() {
    let rules = Rules {
        admit_by_majority: false,
        ..Rules::default()
    };
    let budget = Budget {
        wipes: 1,
        writes: 2,
        ..QUIET
    };
    assert_caught("recorded by the master alone", rules, budget, &B_IS_BACK);
}

#[test]
fn no_violation_after_what_precedes_the_mutants() {
    let budget = Budget {
        terms: 3,
        writes: 2,
        ..QUIET
    };
    assert_safe("c is behind", budget, &C_IS_BEHIND, 8_000);
    let budget = Budget {
        wipes: 1,
        writes: 2,
        ..QUIET
    };
    assert_safe("b is back", budget, &B_IS_BACK, 8_000);
}
