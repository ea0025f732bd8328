//! Which member to move when the spread can be improved.

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
    /// Nodes with room that the scheduler was not offered yet, in order of their names.
    pub offers: Vec<String>,
}

/// The one move to make now, if any.
///
/// A member of a crowded domain moves when a usable domain has fewer members than its fair share.
/// Replicas go first, the highest ordinal among them; a bound volume stays where it is. A domain
/// whose usable nodes are all among `passed_over`, those that the scheduler did not take when it was
/// offered them, has no room: it may be full with other pods, and a move in vain costs a sync.
#[must_use]
pub fn next_move(
    constraints: &[Constraint],
    members: &[Movable],
    nodes: &[Candidate],
    passed_over: &BTreeSet<String>,
) -> Option<Move> {
    let places: Vec<Located> = members.iter().map(|m| m.place.clone()).collect();
    let offers: Vec<&Candidate> = nodes
        .iter()
        .filter(|n| n.usable == Usable::Yes && !passed_over.contains(&n.name))
        .collect();
    assess(constraints, &places, nodes)
        .into_iter()
        .find_map(|violation| match violation {
            Violation::Crowded {
                topology_key,
                domain,
                members: crowd,
                fair_share,
            } => {
                let roomy = roomy(&topology_key, &places, &offers, fair_share);
                let (_, to) = *roomy.keys().next()?;
                let mut offers: Vec<String> = roomy.values().flatten().cloned().collect();
                offers.sort();
                Some(Move {
                    member: whom(members, &crowd)?,
                    to: to.to_owned(),
                    topology_key,
                    from: domain,
                    offers,
                })
            }
            Violation::Unplaced { .. } | Violation::Unlabelled { .. } => None,
        })
}

/// The nodes in domains that have room for one more, by the number of members there and the domain.
fn roomy<'a>(
    key: &str,
    places: &[Located],
    offers: &[&'a Candidate],
    fair_share: usize,
) -> BTreeMap<(usize, &'a str), Vec<String>> {
    let mut roomy: BTreeMap<(usize, &str), Vec<String>> = BTreeMap::new();
    for node in offers {
        let Some(domain) = domain(node, key) else {
            continue;
        };
        let labels = places.iter().filter_map(|p| p.labels.as_ref());
        let here = labels.filter(|l| l.get(key).is_some_and(|d| d == domain));
        let count = here.count();
        if count < fair_share {
            let nodes = roomy.entry((count, domain)).or_default();
            nodes.push(node.name.clone());
        }
    }
    roomy
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

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
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
            next_move(&by_zone(), &crowded(Volume::Follows), &nodes, &none()),
            None
        );
    }

    #[test]
    fn when_the_zone_returns_the_replica_moves_not_the_master() {
        let moved = next_move(
            &by_zone(),
            &crowded(Volume::Follows),
            &nodes(&["a", "b", "c"], &[]),
            &none(),
        );
        let moved = moved.expect("a move");
        assert_eq!((moved.member.as_str(), moved.to.as_str()), ("m-1", "c"));
    }

    #[test]
    fn a_bound_volume_is_never_moved() {
        let nodes = nodes(&["a", "b", "c"], &[]);
        let next = next_move(&by_zone(), &crowded(Volume::Bound), &nodes, &none());
        assert_eq!(next, None);
    }

    #[test]
    fn a_domain_is_offered_again_only_with_a_node_that_was_not_passed_over() {
        let members = crowded(Volume::Follows);
        let mut nodes = nodes(&["a", "b", "c"], &[]);
        let next = |nodes: &[Candidate], passed_over: &BTreeSet<String>| {
            next_move(&by_zone(), &members, nodes, passed_over).map(|m| m.offers)
        };
        let offered = next(&nodes, &none()).unwrap();
        assert_eq!(offered, ["node-c"]);
        let passed_over = BTreeSet::from_iter(offered);
        assert_eq!(next(&nodes, &passed_over), None);
        nodes.push(Candidate {
            name: "another-c".into(),
            ..nodes[2].clone()
        });
        assert_eq!(next(&nodes, &passed_over).unwrap(), ["another-c"]);
    }
}
