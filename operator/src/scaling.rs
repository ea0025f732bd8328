//! How many members there are and which come or go.
//!
//! Owns: the path from the present number of members to the wanted one. Called by
//! `reconcile::plan`.
//!
//! Invariants: pure; members are added all at once and vote only when they have caught up (the
//! set's voters change one at a time, see [`voters`]); they are removed one at a time, always the
//! highest ordinal because a StatefulSet can remove no other, and never the master: it hands over
//! first; nothing is removed while a member that stays is not in sync.
//!
//! Not done here: deleting the claims of removed members; that is the retention policy's, written
//! into the StatefulSet by `resources`.

/// A member as scaling sees it; `members[i]` has ordinal `i`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is the master.
    pub duty: Duty,
    /// Whether it could take over now.
    pub sync: Sync,
}

/// The role of a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// The master.
    Master,
    /// Anything else.
    Replica,
}

/// Whether a member is complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sync {
    /// It is the master or holds what the master holds, but for the last moments.
    InSync,
    /// It does not, or nobody knows.
    NotInSync,
}

/// What to do about the number of members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// There are as many as wanted.
    Keep,
    /// Set the StatefulSet to this many.
    Resize {
        /// Wanted replicas.
        to: i32,
    },
    /// The member to be removed is the master.
    SwitchOver {
        /// The master.
        from: String,
        /// A member that stays and is in sync.
        to: String,
    },
    /// The member must stop voting before it is removed.
    Resign {
        /// The member.
        member: String,
    },
    /// Not now.
    Wait {
        /// For whom, in words.
        why: String,
    },
}

/// The next step from the `members` there are to `wanted` of them. Who was `tried` and did not take over comes after the others,
/// who failed last comes last.
#[must_use]
pub fn next(members: &[Member], voters: &[String], wanted: usize, tried: &[String]) -> Next {
    let resize = |n: usize| Next::Resize {
        to: i32::try_from(n).unwrap_or(i32::MAX),
    };
    match members.len() {
        n if n == wanted => Next::Keep,
        n if n < wanted => resize(wanted),
        n => match members.last() {
            Some(last) => {
                let rest = &members[..n - 1];
                remove(last, rest, voters, wanted, tried).unwrap_or_else(|| resize(n - 1))
            }
            None => Next::Keep,
        },
    }
}

/// What must happen before `last` may go; `None` when it may.
fn remove(
    last: &Member,
    rest: &[Member],
    voters: &[String],
    wanted: usize,
    tried: &[String],
) -> Option<Next> {
    // One that goes next takes nothing away, and may be down for good.
    let mut stays = rest.iter().take(wanted);
    if last.duty == Duty::Master {
        // Likewise it would only have to hand over again.
        let fit = stays.filter(|m| m.sync == Sync::InSync);
        let target = fit.min_by_key(|m| tried.iter().position(|name| *name == m.name));
        return Some(match target {
            Some(to) => Next::SwitchOver {
                from: last.name.clone(),
                to: to.name.clone(),
            },
            None => Next::Wait {
                why: format!(
                    "{} is the master and nobody who stays is in sync",
                    last.name
                ),
            },
        });
    }
    if let Some(lagging) = stays.find(|m| m.sync == Sync::NotInSync) {
        return Some(Next::Wait {
            why: format!("{} is not in sync, so {} stays", lagging.name, last.name),
        });
    }
    voters.contains(&last.name).then(|| Next::Resign {
        member: last.name.clone(),
    })
}

/// The next change of the voters, one name at a time so that any two successive majorities meet.
///
/// `members` are all that are wanted or exist. Those that are in sync and shall stay become voters; names that shall not
/// stay are dropped, first who is not in sync, then last to first. `None` when nothing changes: never to voters of whom less than
/// a majority is in sync, under whom the master would lose its lease at once.
#[must_use]
pub fn voters(current: &[String], members: &[Member], wanted: usize) -> Option<Vec<String>> {
    let stays = &members[..wanted.min(members.len())];
    let in_sync = |name: &String| {
        let member = members.iter().find(|m| &m.name == name);
        member.is_some_and(|m| m.sync == Sync::InSync)
    };
    let mut gone = current
        .iter()
        .filter(|name| stays.iter().all(|m| m.name != **name))
        .rev()
        .peekable();
    let next: Vec<String> = if gone.peek().is_some() {
        let is_master = |name: &String| {
            let mut members = members.iter();
            members.any(|m| &m.name == name && m.duty == Duty::Master)
        };
        let first = gone
            .filter(|name| !is_master(name))
            .min_by_key(|name| in_sync(name))?;
        if stays.iter().any(|m| m.sync == Sync::NotInSync) {
            return None;
        }
        current.iter().filter(|n| *n != first).cloned().collect()
    } else {
        let mut candidates = stays.iter().filter(|m| m.sync == Sync::InSync);
        let newcomer = candidates.find(|m| !current.contains(&m.name))?;
        let mut more = current.to_vec();
        more.push(newcomer.name.clone());
        more.sort();
        more
    };
    let complete = next.iter().filter(|name| in_sync(name)).count();
    (complete >= replset::majority(next.len())).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(spec: &str) -> Vec<Member> {
        spec.chars()
            .enumerate()
            .map(|(i, c)| Member {
                name: format!("m-{i}"),
                duty: if c == 'M' {
                    Duty::Master
                } else {
                    Duty::Replica
                },
                sync: if c == '-' {
                    Sync::NotInSync
                } else {
                    Sync::InSync
                },
            })
            .collect()
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("m-{i}")).collect()
    }

    #[test]
    fn growing_adds_all_at_once() {
        assert_eq!(
            next(&members("Mrr"), &names(3), 5, &[]),
            Next::Resize { to: 5 }
        );
    }

    #[test]
    fn shrinking_takes_the_vote_then_one_member_then_the_next() {
        let all = members("Mrrrr");
        assert_eq!(
            next(&all, &names(5), 3, &[]),
            Next::Resign {
                member: "m-4".into()
            }
        );
        assert_eq!(next(&all, &names(4), 3, &[]), Next::Resize { to: 4 });
        assert_eq!(
            next(&all[..4], &names(4), 3, &[]),
            Next::Resign {
                member: "m-3".into()
            }
        );
        assert_eq!(next(&all[..4], &names(3), 3, &[]), Next::Resize { to: 3 });
        assert_eq!(next(&all[..3], &names(3), 3, &[]), Next::Keep);
    }

    #[test]
    fn the_master_is_never_removed_it_hands_over_first() {
        let next = next(&members("-rrrM"), &names(5), 3, &[]);
        assert_eq!(
            next,
            Next::SwitchOver {
                from: "m-4".into(),
                to: "m-1".into()
            }
        );
    }

    #[test]
    fn who_did_not_take_over_is_tried_after_the_others() {
        for (tried, to) in [
            (vec![], "m-0"),
            (vec!["m-0"], "m-1"),
            (vec!["m-1", "m-0"], "m-2"),
        ] {
            let tried: Vec<String> = tried.into_iter().map(str::to_owned).collect();
            let next = next(&members("rrrrM"), &names(5), 3, &tried);
            let expected = Next::SwitchOver {
                from: "m-4".into(),
                to: to.into(),
            };
            assert_eq!(next, expected, "{tried:?}");
        }
    }

    #[test]
    fn the_master_hands_over_to_nobody_who_goes_next() {
        let next = next(&members("---rM"), &names(5), 3, &[]);
        let why = "m-4 is the master and nobody who stays is in sync".into();
        assert_eq!(next, Next::Wait { why });
    }

    #[test]
    fn nobody_is_removed_while_another_is_not_in_sync() {
        let next = next(&members("M-rrr"), &names(5), 3, &[]);
        assert_eq!(
            next,
            Next::Wait {
                why: "m-1 is not in sync, so m-4 stays".into()
            }
        );
    }

    #[test]
    fn a_member_that_goes_too_may_be_down_for_good() {
        let all = members("Mrr-r");
        let without_it = vec!["m-0".into(), "m-1".into(), "m-2".into(), "m-4".into()];
        assert_eq!(voters(&names(5), &all, 3), Some(without_it.clone()));
        assert_eq!(voters(&without_it, &all, 3), Some(names(3)));
        assert_eq!(next(&all, &names(3), 3, &[]), Next::Resize { to: 4 });
        assert_eq!(next(&all[..4], &names(3), 3, &[]), Next::Resize { to: 3 });
    }

    #[test]
    fn a_master_keeps_a_majority_on_the_way_to_one_member() {
        let all = members("M-r");
        let two = vec!["m-0".to_owned(), "m-2".to_owned()];
        assert_eq!(voters(&names(3), &all, 1), Some(two.clone()));
        assert_eq!(voters(&two, &all, 1), Some(names(1)));
        // Of many, too, and of one that is no member any more.
        let three = vec!["m-0".to_owned(), "m-2".to_owned(), "m-3".to_owned()];
        assert_eq!(voters(&names(4), &members("M-rr"), 1), Some(three));
        assert_eq!(voters(&names(3), &members("Mr"), 1), Some(names(2)));
        // Of two of whom one is away there is no lease, and the other may go.
        assert_eq!(voters(&names(2), &members("M-"), 1), Some(names(1)));
        assert_eq!(voters(&names(3), &members("M--r"), 4), None);
    }

    #[test]
    fn who_is_wanted_stays_a_voter_though_its_pod_is_gone() {
        // `kubectl scale statefulset` is no change of the set.
        assert_eq!(voters(&names(3), &members("M--"), 3), None);
        assert_eq!(voters(&names(3), &members("Mr-"), 3), None);
    }

    #[test]
    fn voters_change_one_at_a_time_and_only_when_in_sync() {
        assert_eq!(voters(&names(3), &members("Mrr--"), 5), None);
        assert_eq!(voters(&names(3), &members("Mrrrr"), 5), Some(names(4)));
        assert_eq!(voters(&names(4), &members("Mrrrr"), 5), Some(names(5)));
        assert_eq!(voters(&names(5), &members("Mrrrr"), 5), None);
        assert_eq!(voters(&names(5), &members("Mrrrr"), 3), Some(names(4)));
        assert_eq!(voters(&names(5), &members("Mr-rr"), 3), None);
        assert_eq!(voters(&names(4), &members("rrrM"), 3), None);
    }
}
