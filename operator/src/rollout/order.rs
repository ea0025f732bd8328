//! Which pod is next: replicas first, then a switchover, then the old master, one at a time.

use super::reason::Reason;

/// A member as the rollout sees it, in order of ordinals.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Name of the member and its pod.
    pub name: String,
    /// Why its pod must be replaced; empty when it need not be.
    pub reasons: Vec<Reason>,
    /// What it is at present.
    pub duty: Duty,
    /// How it is.
    pub health: Health,
}

/// The role of a member, as the members say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// Master of the present term.
    Master,
    /// Everything else.
    Replica,
}

/// How a member is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// It serves its role: the master, or a replica that holds all but the last moments.
    InSync,
    /// It runs and is catching up.
    Behind,
    /// Kubernetes says that its container does not run and cannot start as it is.
    CannotStart,
    /// Its pod is being deleted, or not there yet.
    Replacing,
    /// Nobody could say.
    Unknown,
}

/// What the rollout wants now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Every pod is as specified.
    Done,
    /// Delete this pod; the StatefulSet makes its successor.
    Replace {
        /// The member.
        member: String,
        /// Why, first reason first.
        reasons: Vec<Reason>,
    },
    /// Move the mastership first.
    SwitchOver {
        /// The master to be replaced.
        from: String,
        /// A member in sync that need not be replaced.
        to: String,
        /// Why the old master must be replaced.
        reasons: Vec<Reason>,
    },
    /// Not now.
    Wait {
        /// For whom and for what, in words.
        why: String,
    },
}

/// The next step of the rollout. Who was `tried` and did not take over comes after the others, who failed last comes last.
#[must_use]
pub fn next(members: &[Member], tried: &[String]) -> Next {
    let outdated: Vec<&Member> = members.iter().filter(|m| !m.reasons.is_empty()).collect();
    if outdated.is_empty() {
        return Next::Done;
    }
    if let Some(stuck) = cure(members) {
        return replace(stuck);
    }
    if let Some(busy) = members.iter().find(|m| m.health != Health::InSync) {
        return Next::Wait {
            why: waiting_for(busy),
        };
    }
    let replica = outdated.iter().rev().find(|m| m.duty == Duty::Replica);
    match (replica, outdated.iter().find(|m| m.duty == Duty::Master)) {
        (Some(replica), _) => replace(replica),
        (None, Some(master)) => hand_over(master, members, tried),
        (None, None) => Next::Done,
    }
}

/// A member that is not in sync and whose new pod is the cure. One that cannot start is already down. One that is behind may be
/// kept from following by what was corrected since, an image above all: it is replaced while a master serves and nobody but
/// such members is missing, whom this takes nothing from.
fn cure(members: &[Member]) -> Option<&Member> {
    let outdated = |m: &&Member| !m.reasons.is_empty();
    let cannot_start = |m: &&Member| m.health == Health::CannotStart && outdated(m);
    if let Some(stuck) = members.iter().find(cannot_start) {
        return Some(stuck);
    }
    let is_behind = |m: &&Member| m.health == Health::Behind && m.duty == Duty::Replica;
    let serves = |m: &Member| m.health == Health::InSync && m.duty == Duty::Master;
    let mut missing = members.iter().filter(|m| m.health != Health::InSync).rev();
    let last = missing.next().filter(|m| outdated(m) && is_behind(m))?;
    let alone = missing.all(|m| outdated(&m) && is_behind(&m));
    (alone && members.iter().any(serves)).then_some(last)
}

fn hand_over(master: &Member, members: &[Member], tried: &[String]) -> Next {
    let successor = members
        .iter()
        .filter(|m| m.duty == Duty::Replica && m.reasons.is_empty())
        .min_by_key(|m| tried.iter().position(|name| *name == m.name));
    match successor {
        Some(to) => Next::SwitchOver {
            from: master.name.clone(),
            to: to.name.clone(),
            reasons: master.reasons.clone(),
        },
        // A set of one has nobody to hand over to: its restart is an outage that was asked for.
        None => replace(master),
    }
}

fn replace(member: &Member) -> Next {
    Next::Replace {
        member: member.name.clone(),
        reasons: member.reasons.clone(),
    }
}

fn waiting_for(member: &Member) -> String {
    let name = &member.name;
    match member.health {
        Health::InSync => format!("{name} is in sync"),
        Health::Behind => format!("{name} is catching up"),
        Health::CannotStart => format!("{name} cannot start"),
        Health::Replacing => format!("the pod of {name} is being replaced"),
        Health::Unknown => format!("the state of {name} is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, outdated: bool, duty: Duty, health: Health) -> Member {
        let reasons = if outdated {
            vec![Reason::Resources]
        } else {
            vec![]
        };
        Member {
            name: name.into(),
            reasons,
            duty,
            health,
        }
    }

    fn words(members: &[Member]) -> String {
        words_of(&next(members, &[]))
    }

    fn words_of(next: &Next) -> String {
        match next {
            Next::Done => "done".into(),
            Next::Replace { member, .. } => format!("replace {member}"),
            Next::SwitchOver { from, to, .. } => format!("switch {from} -> {to}"),
            Next::Wait { why } => format!("wait: {why}"),
        }
    }

    #[test]
    fn replicas_first_then_a_switchover_then_the_old_master() {
        use Duty::{Master, Replica};
        use Health::InSync;
        let steps = [
            (
                [(true, Replica), (true, Master), (true, Replica)],
                "replace m-2",
            ),
            (
                [(true, Replica), (true, Master), (false, Replica)],
                "replace m-0",
            ),
            (
                [(false, Replica), (true, Master), (false, Replica)],
                "switch m-1 -> m-0",
            ),
            (
                [(false, Master), (true, Replica), (false, Replica)],
                "replace m-1",
            ),
            (
                [(false, Master), (false, Replica), (false, Replica)],
                "done",
            ),
        ];
        for (state, expected) in steps {
            let members: Vec<Member> = state
                .iter()
                .enumerate()
                .map(|(i, (outdated, duty))| member(&format!("m-{i}"), *outdated, *duty, InSync))
                .collect();
            assert_eq!(words(&members), expected);
        }
    }

    #[test]
    fn who_did_not_take_over_is_tried_after_the_others() {
        let members = [
            member("m-0", true, Duty::Master, Health::InSync),
            member("m-1", false, Duty::Replica, Health::InSync),
            member("m-2", false, Duty::Replica, Health::InSync),
        ];
        let cases = [
            (vec![], "switch m-0 -> m-1"),
            (vec!["m-1"], "switch m-0 -> m-2"),
            (vec!["m-1", "m-2"], "switch m-0 -> m-1"),
            (vec!["m-2", "m-1"], "switch m-0 -> m-2"),
        ];
        for (tried, expected) in cases {
            let tried: Vec<String> = tried.into_iter().map(str::to_owned).collect();
            assert_eq!(words_of(&next(&members, &tried)), expected, "{tried:?}");
        }
    }

    #[test]
    fn nobody_is_replaced_while_another_is_not_in_sync() {
        for (health, expected) in [
            (Health::Behind, "wait: m-2 is catching up"),
            (Health::Replacing, "wait: the pod of m-2 is being replaced"),
            (Health::Unknown, "wait: the state of m-2 is unknown"),
        ] {
            let members = [
                member("m-0", true, Duty::Replica, Health::InSync),
                member("m-1", true, Duty::Master, Health::InSync),
                member("m-2", false, Duty::Replica, health),
            ];
            assert_eq!(words(&members), expected);
        }
    }

    #[test]
    fn a_pod_that_cannot_start_is_replaced_first() {
        let members = [
            member("m-0", true, Duty::Replica, Health::InSync),
            member("m-1", true, Duty::Master, Health::InSync),
            member("m-2", true, Duty::Replica, Health::CannotStart),
        ];
        assert_eq!(words(&members), "replace m-2");
    }

    #[test]
    fn what_is_behind_with_an_outdated_pod_gets_the_new_one() {
        use Duty::{Master, Replica};
        use Health::{Behind, InSync, Replacing, Unknown};
        let of = |third: Member, fourth: Member| {
            let first = member("m-0", true, Master, InSync);
            words(&[first, member("m-1", true, Replica, InSync), third, fourth])
        };
        let new = |health| member("m-2", false, Replica, health);
        let old = |name, health| member(name, true, Replica, health);
        let fine = member("m-3", false, Replica, InSync);
        assert_eq!(of(old("m-2", Behind), fine.clone()), "replace m-2");
        assert_eq!(of(old("m-2", Behind), old("m-3", Behind)), "replace m-3");
        // It may be about to catch up, and no more members than that may be away.
        assert_eq!(of(new(Behind), fine), "wait: m-2 is catching up");
        let catching_up = "wait: m-2 is catching up";
        assert_eq!(of(new(Behind), old("m-3", Behind)), catching_up);
        let unknown = "wait: the state of m-2 is unknown";
        assert_eq!(of(old("m-2", Unknown), old("m-3", Behind)), unknown);
        let replacing = "wait: the pod of m-2 is being replaced";
        assert_eq!(of(old("m-2", Replacing), old("m-3", Behind)), replacing);
        // Without a master everybody is behind.
        let lost = ["m-0", "m-1"].map(|name| old(name, Behind));
        assert_eq!(words(&lost), "wait: m-0 is catching up");
    }

    #[test]
    fn an_unknown_member_is_never_replaced() {
        let members = [
            member("m-0", false, Duty::Master, Health::InSync),
            member("m-1", true, Duty::Replica, Health::Unknown),
        ];
        assert_eq!(words(&members), "wait: the state of m-1 is unknown");
    }

    #[test]
    fn a_set_of_one_is_restarted_in_place() {
        let members = [member("m-0", true, Duty::Master, Health::InSync)];
        assert_eq!(words(&members), "replace m-0");
    }
}
