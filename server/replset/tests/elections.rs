//! A table of elections: what members answered, and what the elector makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

use replset::{
    Bootstrapped, CutTails, Election, ElectionPlan, EmptySet, Endpoint, Generation, GrantedLease,
    History, Incarnation, IncarnationTable, Intent, MasterSighting, MemberId, NotObeyed, Offset,
    OldMaster, Peer, Position, Promise, QuorumLost, Release, Stamp, TableEntry, Tail, Term, Timing,
    Vote, VoterSet, master_is_lost,
};

const TERM: Term = Term(9);

fn voters(names: &[&str]) -> VoterSet {
    let voters = names.iter().map(|name| (*name).into()).collect();
    VoterSet {
        generation: Generation(3),
        voters,
    }
}

fn plan(names: &[&str]) -> ElectionPlan {
    let peer = |name: &&str| Peer {
        name: (*name).into(),
        endpoint: Endpoint::default(),
    };
    ElectionPlan {
        heir_of: None,
        fleet: "f".into(),
        term: TERM,
        elector: "op".into(),
        intent: Intent::Unplanned,
        voters: voters(names),
        peers: names.iter().map(peer).collect(),
        bootstrapped: Bootstrapped::Yes,
        preference: Vec::new(),
        passed_over: None,
        old_master: OldMaster::Unknown,
        in_sync: Vec::new(),
        on_empty: EmptySet::Halt,
        on_quorum_lost: QuorumLost::Halt,
        on_cut_tails: CutTails::Wait,
        random: [0; 12],
    }
}

/// `term:offset`, then flags: `-` has no vote, `cut` was killed, `0` is blank, `old` is life 2 (others are life 1),
/// `+N` granted a lease of N ms in term 8, `gone` was master of term 8.
fn promise(name: &str, text: &str) -> Promise {
    let mut words = text.split(' ');
    let (term, offset) = words.next().unwrap().split_once(':').unwrap();
    let position = Position {
        term: Term(term.parse().unwrap()),
        offset: Offset(offset.parse().unwrap()),
    };
    let mut promise = Promise {
        id: MemberId {
            name: name.into(),
            incarnation: Incarnation(1),
        },
        boot: 1,
        term: TERM,
        position,
        history: History::default(),
        vote: Vote::Granted,
        tail: Tail::Whole,
        blank: false,
        generation: Generation(3),
        table: IncarnationTable::default(),
        leases: Vec::new(),
        relinquished: None,
    };
    for word in words {
        match word {
            "-" => promise.vote = Vote::Suspended,
            "0" => promise.blank = true,
            "cut" => promise.tail = Tail::MayBeCut,
            "old" => promise.id.incarnation = Incarnation(2),
            "gone" => promise.relinquished = Some(Term(8)),
            "newer" => promise.generation = Generation(4),
            lease => {
                let remaining_ms = lease.strip_prefix('+').unwrap().parse().unwrap();
                promise.leases.push(GrantedLease {
                    term: Term(8),
                    remaining_ms,
                });
            }
        }
    }
    promise
}

fn run(plan: ElectionPlan, answers: &[(&str, &str)]) -> String {
    let mut election = Election::new(plan);
    for (name, text) in answers {
        match *text {
            "down" => election.unreachable(&(*name).into()),
            "hears" => {
                let alive = NotObeyed::MasterAlive { seen_ms_ago: 5 };
                election.record(0, &(*name).into(), Err(alive));
            }
            text => election.record(0, &(*name).into(), Ok(Box::new(promise(name, text)))),
        }
    }
    match election.decide(100) {
        Ok(decided) => {
            let promote = decided.promote;
            format!(
                "{} by {:?}, defer {} ms, loss {:?}",
                decided.winner.name, promote.start, promote.defer_ms, decided.loss
            )
        }
        Err(refusal) => refusal.to_string(),
    }
}

fn expect_of_three(table: &[(Vec<(&str, &str)>, &str)]) {
    for (answers, expected) in table {
        let outcome = run(plan(&["a", "b", "c"]), answers);
        assert_eq!(outcome, *expected, "{answers:?}");
    }
}

#[test]
fn three_voters() {
    let table = [
        // The highest position of a majority; the term goes first.
        (
            vec![("a", "down"), ("b", "8:50"), ("c", "8:70")],
            "c by Quorum, defer 0 ms, loss None",
        ),
        (
            vec![("a", "7:900"), ("b", "8:50")],
            "b by Quorum, defer 0 ms, loss None",
        ),
        (
            vec![("a", "8:50"), ("b", "8:50"), ("c", "8:50")],
            "a by Quorum, defer 0 ms, loss None",
        ),
        // Leases are waited for, unless their master is known to be no more.
        (
            vec![("b", "8:5 +700"), ("c", "8:5 +900")],
            "b by Quorum, defer 800 ms, loss None",
        ),
        (
            vec![("a", "8:9 gone"), ("b", "8:5 +700"), ("c", "8:5 +900")],
            "a by Quorum, defer 0 ms, loss None",
        ),
        // Too few.
        (
            vec![("a", "down"), ("b", "8:50")],
            "1 of 2 needed votes; missing: a (unreachable), c (no answer yet)",
        ),
        (
            vec![("a", "down"), ("b", "8:50"), ("c", "8:50 -")],
            "1 of 2 needed votes; missing: a (unreachable), \
             c (has no vote (new, or lost its data))",
        ),
        (
            vec![("a", "down"), ("b", "8:50"), ("c", "hears")],
            "1 of 2 needed votes; missing: a (unreachable), \
             c (refused: the master was heard 5 ms ago)",
        ),
        // An empty member never wins over data, and nothing is promoted when all is gone.
        (
            vec![("a", "0:0 - 0"), ("b", "8:50"), ("c", "8:40")],
            "b by Quorum, defer 0 ms, loss None",
        ),
        (
            vec![("a", "0:0 - 0"), ("b", "0:0 - 0"), ("c", "0:0 - 0")],
            "no voter (of 3) holds data, although the set had some",
        ),
        // The status must be at least as new as what members know.
        (
            vec![("a", "8:1 newer"), ("b", "8:50")],
            "members know the voters of generation 4, this election has 3",
        ),
    ];
    expect_of_three(&table);
}

#[test]
fn the_preferred_member_wins_only_among_equals() {
    let mut prefers_c = plan(&["a", "b", "c"]);
    prefers_c.preference = vec!["c".into()];
    let equal = [("a", "8:50"), ("b", "8:50"), ("c", "8:50")];
    assert_eq!(
        run(prefers_c.clone(), &equal),
        "c by Quorum, defer 0 ms, loss None"
    );
    let behind = [("a", "8:50"), ("b", "8:51"), ("c", "8:50")];
    assert_eq!(
        run(prefers_c, &behind),
        "b by Quorum, defer 0 ms, loss None"
    );
}

#[test]
fn a_release_makes_waiting_needless() {
    let mut planned = plan(&["a", "b", "c"]);
    planned.intent = Intent::Planned(Release {
        term: Term(8),
        token: 7,
    });
    let answers = [("b", "8:5 +700"), ("c", "8:5 +900")];
    assert_eq!(run(planned, &answers), "b by Quorum, defer 0 ms, loss None");
    let mut known_dead = plan(&["a", "b", "c"]);
    known_dead.old_master = OldMaster::Gone(Term(8));
    assert_eq!(
        run(known_dead.clone(), &answers),
        "b by Quorum, defer 0 ms, loss None"
    );
    // Another one that led before may be cut off and serve on.
    known_dead.old_master = OldMaster::Gone(Term(9));
    let waited = run(known_dead, &answers);
    assert!(waited.contains("defer 800 ms"), "{waited}");
}

#[test]
fn everybody_without_votes() {
    let all = [("a", "8:10 -"), ("b", "8:50 -"), ("c", "0:0 - 0")];
    let mut best = plan(&["a", "b", "c"]);
    best.on_quorum_lost = QuorumLost::BestOfAll;
    assert_eq!(
        run(best.clone(), &all),
        "b by LastResort, defer 0 ms, loss Possible"
    );
    let one_is_missing = [("a", "8:10 -"), ("b", "8:50 -"), ("c", "down")];
    assert!(run(best, &one_is_missing).starts_with("0 of 2 needed votes"));
    assert!(run(plan(&["a", "b", "c"]), &all).starts_with("0 of 2 needed votes"));
}

/// Who was killed may lack what it acknowledged; of two that were not, one has it.
#[test]
fn three_voters_of_which_some_were_killed() {
    let table = [
        (
            vec![("a", "8:70 cut"), ("b", "8:50"), ("c", "8:60")],
            "a by Quorum, defer 0 ms, loss None",
        ),
        (
            vec![("a", "8:10 cut"), ("b", "8:50"), ("c", "down")],
            "b by Quorum, defer 0 ms, loss Possible",
        ),
        (
            vec![("a", "8:10 cut"), ("b", "8:50 cut"), ("c", "8:20 cut")],
            "b by Quorum, defer 0 ms, loss Possible",
        ),
        (
            vec![("a", "8:10 cut"), ("b", "8:50 cut"), ("c", "down")],
            "whoever holds the most of those that answer ended without saving and may lack its last writes; \
             missing: c (unreachable)",
        ),
        (
            vec![("a", "8:50 cut"), ("b", "8:10"), ("c", "down")],
            "whoever holds the most of those that answer ended without saving and may lack its last writes; \
             missing: c (unreachable)",
        ),
    ];
    expect_of_three(&table);
}

#[test]
fn a_member_that_may_hold_more_is_waited_for_only_so_long() {
    let answers = [("a", "8:10 cut"), ("b", "8:50 cut"), ("c", "down")];
    let mut late = plan(&["a", "b", "c"]);
    late.on_cut_tails = CutTails::Accept;
    assert_eq!(
        run(late, &answers),
        "b by Quorum, defer 0 ms, loss Possible"
    );
}

#[test]
fn a_master_that_nobody_hears_is_passed_over_if_the_others_are_sure() {
    let cases = [
        (
            ["8:90", "8:40", "8:50"],
            "c by Quorum, defer 0 ms, loss None",
        ),
        // Too few without it: what it holds may be held by one who did not answer.
        (
            ["8:90", "down", "8:50"],
            "a by Quorum, defer 0 ms, loss None",
        ),
        // Those who were killed may lack what it has.
        (
            ["8:90", "8:40 cut", "8:50 cut"],
            "a by Quorum, defer 0 ms, loss Possible",
        ),
    ];
    for ([a, b, c], expected) in cases {
        let mut again = plan(&["a", "b", "c"]);
        again.passed_over = Some("a".into());
        let answers = [("a", a), ("b", b), ("c", c)];
        assert_eq!(run(again, &answers), expected, "{answers:?}");
    }
}

#[test]
fn a_replaced_life_does_not_vote() {
    let mut election = Election::new(plan(&["a", "b", "c"]));
    let stamp = Stamp {
        term: Term(8),
        number: 1,
    };
    let entry = TableEntry {
        stamp,
        incarnation: Incarnation(1),
    };
    let mut b = promise("b", "8:50");
    b.table = IncarnationTable::new([("a".into(), entry)]);
    election.record(0, &"a".into(), Ok(Box::new(promise("a", "8:90 old"))));
    election.record(0, &"b".into(), Ok(Box::new(b)));
    let refusal = election.decide(0).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "1 of 2 needed votes; missing: a (was replaced by a newer incarnation), c (no answer yet)"
    );
}

#[test]
fn bootstrap() {
    let mut first = plan(&["a", "b", "c"]);
    first.bootstrapped = Bootstrapped::No;
    let empty = [("a", "0:0 - 0"), ("b", "0:0 - 0"), ("c", "0:0 - 0")];
    assert_eq!(
        run(first.clone(), &empty),
        "a by Bootstrap, defer 0 ms, loss None"
    );
    assert_eq!(
        run(first.clone(), &empty[..2]),
        "the first mastership needs every member; missing: c (no answer yet)"
    );
    // A bootstrap whose elector died before it was recorded: what it left is taken over.
    let half_done = [("a", "1:14"), ("b", "0:0 - 0"), ("c", "0:0 - 0")];
    assert_eq!(
        run(first, &half_done),
        "a by LastResort, defer 0 ms, loss Possible"
    );
    let mut cache = plan(&["a", "b", "c"]);
    cache.on_empty = EmptySet::Accept;
    assert_eq!(
        run(cache, &empty),
        "a by Bootstrap, defer 0 ms, loss Possible"
    );
}

#[test]
fn two_voters_need_both_unless_one_is_recorded_in_sync() {
    let both = [("a", "8:10"), ("b", "8:50")];
    assert_eq!(
        run(plan(&["a", "b"]), &both),
        "b by Quorum, defer 0 ms, loss None"
    );
    // What both held, the one that was not killed has.
    let one_was_killed = [("a", "8:10 cut"), ("b", "8:50")];
    assert_eq!(
        run(plan(&["a", "b"]), &one_was_killed),
        "b by Quorum, defer 0 ms, loss None"
    );
    let one = [("a", "8:10"), ("b", "down")];
    assert_eq!(
        run(plan(&["a", "b"]), &one),
        "1 of 2 needed votes; missing: b (unreachable)"
    );
    let mut in_sync = plan(&["a", "b"]);
    in_sync.in_sync = vec!["a".into()];
    assert_eq!(
        run(in_sync, &one),
        "a by LastResort, defer 0 ms, loss Possible"
    );
}

#[test]
fn one_voter_is_its_own_majority_but_not_when_empty() {
    assert_eq!(
        run(plan(&["a"]), &[("a", "8:10")]),
        "a by Quorum, defer 0 ms, loss None"
    );
    assert_eq!(
        run(plan(&["a"]), &[("a", "0:0 - 0")]),
        "no voter (of 1) holds data, although the set had some"
    );
    assert_eq!(
        run(plan(&["a"]), &[("a", "8:10 cut")]),
        "a by Quorum, defer 0 ms, loss Possible"
    );
}

#[test]
fn an_election_decides_once() {
    let mut election = Election::new(plan(&["a"]));
    election.record(0, &"a".into(), Ok(Box::new(promise("a", "8:10"))));
    assert!(election.decide(0).is_ok());
    let again = election.decide(0).unwrap_err().to_string();
    assert_eq!(
        again,
        "this election has decided already, a new one needs a new term"
    );
}

#[test]
fn an_election_opens_only_when_enough_members_miss_the_master() {
    let see = |member: &str, seen_ms_ago: Option<u64>| MasterSighting {
        member: member.into(),
        seen_ms_ago,
        leads: false,
    };
    let ask = |sightings: &[MasterSighting], names: &[&str]| {
        let verdict = master_is_lost(&voters(names), sightings, &Timing::default());
        verdict.map_or_else(|refusal| refusal.to_string(), |()| "lost".to_owned())
    };
    let abc = ["a", "b", "c"];
    assert_eq!(ask(&[see("b", None), see("c", Some(900))], &abc), "lost");
    assert_eq!(
        ask(&[see("b", None), see("c", Some(100))], &abc),
        "the master is alive, heard by c"
    );
    // An operator that sees one member only knows nothing.
    assert_eq!(
        ask(&[see("b", None)], &abc),
        "1 of 2 needed votes; missing: a (unreachable), c (unreachable)"
    );
    let leads = MasterSighting {
        leads: true,
        ..see("a", None)
    };
    assert_eq!(
        ask(&[leads, see("b", None), see("c", None)], &abc),
        "the master is alive, heard by a"
    );
    assert_eq!(ask(&[see("b", None)], &["a", "b"]), "lost");
}
