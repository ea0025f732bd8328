//! Which member to move when the spread can be improved, and which master to prefer.

use std::collections::{BTreeMap, BTreeSet};

use super::spread::{Candidate, Constraint, Located, Usable, Violation, assess, domain};

/// A member as the mover sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Movable {
    /// Where it is.
    pub place: Located,
    /// What would happen to its data.
    pub volume: Volume,
    /// What it is at present.
    pub duty: Duty,
}

/// Whether a member's data can go where its pod goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Volume {
    /// The volume can be attached anywhere, or there is none.
    Follows,
    /// The volume is bound to the node or the zone it is in.
    Bound,
}

/// What moving a member costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// A replica: a partial sync.
    Replica,
    /// The master: a switchover first.
    Master,
}

/// A move that cures a violation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    /// Who.
    pub member: String,
    /// The topology whose spread it improves.
    pub topology_key: String,
    /// From this domain.
    pub from: String,
    /// A domain with room.
    pub to: String,
}

/// The one move to make now, if any.
///
/// A member of a crowded domain moves when a usable domain has fewer members than its fair share.
/// Replicas go first, the highest ordinal among them; a bound volume stays where it is.
#[must_use]
pub fn next_move(
    constraints: &[Constraint],
    members: &[Movable],
    nodes: &[Candidate],
) -> Option<Move> {
    let places: Vec<Located> = members.iter().map(|m| m.place.clone()).collect();
    assess(constraints, &places, nodes)
        .into_iter()
        .find_map(|violation| match violation {
            Violation::Crowded {
                topology_key,
                domain,
                members: crowd,
                fair_share,
            } => {
                let to = roomy(&topology_key, &places, nodes, fair_share)?;
                let member = whom(members, &crowd)?;
                Some(Move {
                    member,
                    topology_key,
                    from: domain,
                    to,
                })
            }
            Violation::Unplaced { .. } | Violation::Unlabelled { .. } => None,
        })
}

/// The usable domain with the fewest members, if it has room for one more.
fn roomy(key: &str, places: &[Located], nodes: &[Candidate], fair: usize) -> Option<String> {
    let usable: BTreeSet<&str> = nodes
        .iter()
        .filter(|n| n.usable == Usable::Yes)
        .filter_map(|n| domain(n, key))
        .collect();
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    for labels in places.iter().filter_map(|p| p.labels.as_ref()) {
        if let Some(domain) = labels.get(key) {
            *taken.entry(domain).or_default() += 1;
        }
    }
    usable
        .into_iter()
        .map(|d| (taken.get(d).copied().unwrap_or_default(), d))
        .filter(|(count, _)| *count < fair)
        .min()
        .map(|(_, d)| d.to_owned())
}

fn whom(members: &[Movable], crowd: &[String]) -> Option<String> {
    let of = |duty: Duty| {
        members.iter().rev().find(|m| {
            m.duty == duty && m.volume == Volume::Follows && crowd.contains(&m.place.member)
        })
    };
    of(Duty::Replica)
        .or_else(|| of(Duty::Master))
        .map(|m| m.place.member.clone())
}

#[cfg(test)]
mod tests {
    use super::{
        super::spread::tests::{at, by_zone, nodes},
        *,
    };

    fn member(name: &str, zone: &str, volume: Volume, duty: Duty) -> Movable {
        Movable {
            place: at(name, Some(zone)),
            volume,
            duty,
        }
    }

    fn crowded(volume: Volume) -> Vec<Movable> {
        vec![
            member("m-0", "a", volume, Duty::Replica),
            member("m-1", "b", volume, Duty::Replica),
            member("m-2", "b", volume, Duty::Master),
        ]
    }

    #[test]
    fn nothing_moves_while_the_empty_zone_is_drained() {
        let nodes = nodes(&["a", "b"], &["c"]);
        assert_eq!(
            next_move(&by_zone(), &crowded(Volume::Follows), &nodes),
            None
        );
    }

    #[test]
    fn when_the_zone_returns_the_replica_moves_not_the_master() {
        let moved = next_move(
            &by_zone(),
            &crowded(Volume::Follows),
            &nodes(&["a", "b", "c"], &[]),
        );
        let moved = moved.expect("a move");
        assert_eq!((moved.member.as_str(), moved.to.as_str()), ("m-1", "c"));
    }

    #[test]
    fn a_bound_volume_is_never_moved() {
        let nodes = nodes(&["a", "b", "c"], &[]);
        assert_eq!(next_move(&by_zone(), &crowded(Volume::Bound), &nodes), None);
    }
}
