//! Spread over topology domains: who shares one that should not.

use std::collections::{BTreeMap, BTreeSet};

/// One wish: members should be in different domains of this topology.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Constraint {
    /// Node label, for example `topology.kubernetes.io/zone`.
    pub topology_key: String,
    /// Whether a pod may start where the wish is not met.
    pub strictness: Strictness,
}

/// How binding a constraint is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strictness {
    /// The scheduler refuses a place that breaks it.
    Required,
    /// The scheduler avoids such a place when it can.
    Preferred,
    /// As `Preferred`, for a set that asks for no spread: it counts only where nodes carry the label.
    Default,
}

/// Where one member is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Located {
    /// Name of the member.
    pub member: String,
    /// Labels of its node; `None` while it is not scheduled or its node is unknown.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A node that takes members of the set, now or in better times; see `eligible`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Name of the node.
    pub name: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes them now.
    pub usable: Usable,
}

/// Whether new pods may go to a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usable {
    /// Ready, schedulable.
    Yes,
    /// Cordoned, not ready or tainted for its condition.
    No,
}

/// One way in which the spread is not as wished.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// More members in a domain than an even spread over the domains that take members allows.
    Crowded {
        /// The topology.
        topology_key: String,
        /// The domain with too many members.
        domain: String,
        /// The members in it, in order.
        members: Vec<String>,
        /// How many an even spread over all domains would put there.
        fair_share: usize,
    },
    /// The scheduler finds no place for the member; not found by [`assess`], which is told of no pods.
    Unplaced {
        /// The member.
        member: String,
    },
    /// The member's node does not carry the label.
    Unlabelled {
        /// The topology.
        topology_key: String,
        /// The member.
        member: String,
    },
}

impl Violation {
    /// One sentence for a condition, naming members and domain.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Crowded {
                topology_key,
                domain,
                members,
                fair_share,
            } => format!(
                "{} are together in {topology_key}={domain}, where an even spread has {fair_share}",
                members.join(" and ")
            ),
            Self::Unplaced { member } => format!("{member} is not on any node"),
            Self::Unlabelled {
                topology_key,
                member,
            } => {
                format!("the node of {member} has no label {topology_key}")
            }
        }
    }
}

/// All violations among members that have a place, in the order of the constraints, then of domains and members.
///
/// The fair share of a domain is counted over every domain that has a candidate, usable or not (a
/// drained zone does not make its neighbours' crowding acceptable, it explains it), or a member.
#[must_use]
pub fn assess(
    constraints: &[Constraint],
    members: &[Located],
    nodes: &[Candidate],
) -> Vec<Violation> {
    let of = |constraint| assess_one(constraint, members, nodes);
    constraints.iter().flat_map(of).collect()
}

fn assess_one(constraint: &Constraint, members: &[Located], nodes: &[Candidate]) -> Vec<Violation> {
    let key = &constraint.topology_key;
    let mut by_domain: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut unlabelled = Vec::new();
    for located in members {
        let Some(labels) = &located.labels else {
            continue;
        };
        match labels.get(key) {
            Some(domain) => by_domain
                .entry(domain)
                .or_default()
                .push(located.member.clone()),
            None => unlabelled.push(Violation::Unlabelled {
                topology_key: key.clone(),
                member: located.member.clone(),
            }),
        }
    }
    let mut domains: BTreeSet<&str> = nodes.iter().filter_map(|n| domain(n, key)).collect();
    domains.extend(by_domain.keys());
    if domains.is_empty() && constraint.strictness == Strictness::Default {
        return Vec::new();
    }
    let fair_share = members.len().div_ceil(domains.len().max(1));
    let crowded = by_domain
        .into_iter()
        .filter(|(_, here)| here.len() > fair_share)
        .map(|(domain, members)| Violation::Crowded {
            topology_key: key.clone(),
            domain: domain.to_owned(),
            members,
            fair_share,
        });
    unlabelled.into_iter().chain(crowded).collect()
}

/// The domain of a node in the topology `key`.
#[must_use]
pub fn domain<'a>(node: &'a Candidate, key: &str) -> Option<&'a str> {
    node.labels.get(key).map(String::as_str)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::placement) const ZONE: &str = "topology.kubernetes.io/zone";

    pub(in crate::placement) fn zone(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(ZONE.to_owned(), name.to_owned())])
    }

    pub(in crate::placement) fn at(member: &str, place: Option<&str>) -> Located {
        Located {
            member: member.into(),
            labels: place.map(zone),
        }
    }

    pub(in crate::placement) fn nodes(usable: &[&str], unusable: &[&str]) -> Vec<Candidate> {
        let make = |usable: Usable| {
            move |z: &&str| Candidate {
                name: format!("node-{z}"),
                labels: zone(z),
                usable,
            }
        };
        usable
            .iter()
            .map(make(Usable::Yes))
            .chain(unusable.iter().map(make(Usable::No)))
            .collect()
    }

    pub(in crate::placement) fn by_zone() -> Vec<Constraint> {
        vec![Constraint {
            topology_key: ZONE.into(),
            strictness: Strictness::Preferred,
        }]
    }

    #[test]
    fn one_member_a_zone_is_what_we_want() {
        let members = [
            at("m-0", Some("a")),
            at("m-1", Some("b")),
            at("m-2", Some("c")),
        ];
        assert_eq!(
            assess(&by_zone(), &members, &nodes(&["a", "b", "c"], &[])),
            vec![]
        );
    }

    #[test]
    fn five_members_in_three_zones_may_pair_up() {
        let members: Vec<Located> = ["a", "b", "c", "a", "b"]
            .iter()
            .enumerate()
            .map(|(i, z)| at(&format!("m-{i}"), Some(z)))
            .collect();
        assert_eq!(
            assess(&by_zone(), &members, &nodes(&["a", "b", "c"], &[])),
            vec![]
        );
    }

    #[test]
    fn a_drained_zone_leaves_its_neighbour_crowded_and_the_sentence_names_who_and_where() {
        let members = [
            at("m-0", Some("a")),
            at("m-1", Some("b")),
            at("m-2", Some("b")),
        ];
        let found = assess(&by_zone(), &members, &nodes(&["a", "b"], &["c"]));
        let sentences: Vec<String> = found.iter().map(Violation::sentence).collect();
        assert_eq!(
            sentences,
            [
                "m-1 and m-2 are together in topology.kubernetes.io/zone=b, where an even spread has 1"
            ]
        );
    }

    #[test]
    fn two_zones_for_three_members_is_an_even_spread() {
        let members = [
            at("m-0", Some("a")),
            at("m-1", Some("b")),
            at("m-2", Some("b")),
        ];
        assert_eq!(
            assess(&by_zone(), &members, &nodes(&["a", "b"], &[])),
            vec![]
        );
    }

    #[test]
    fn a_member_without_a_node_is_not_misplaced() {
        let members = [at("m-0", Some("a")), at("m-1", None)];
        let found = assess(&by_zone(), &members, &nodes(&["a", "b"], &[]));
        assert_eq!(found, []);
    }

    #[test]
    fn a_node_without_the_label_is_named() {
        let members = [Located {
            member: "m-0".into(),
            labels: Some(BTreeMap::new()),
        }];
        let found = assess(&by_zone(), &members, &[]);
        assert_eq!(
            found[0].sentence(),
            "the node of m-0 has no label topology.kubernetes.io/zone"
        );
    }

    #[test]
    fn a_label_that_no_node_carries_matters_only_if_somebody_asked_for_it() {
        let labels = Some(BTreeMap::new());
        let member = "m-0".to_owned();
        let members = [Located { member, labels }];
        let mut spread = by_zone();
        let unlabelled = assess(&spread, &members, &[]);
        assert!(matches!(unlabelled[..], [Violation::Unlabelled { .. }]));
        spread[0].strictness = Strictness::Default;
        assert_eq!(assess(&spread, &members, &[]), vec![]);
        // Somewhere there are zones, so the member's node lacks its own.
        assert_eq!(assess(&spread, &members, &nodes(&["a"], &[])), unlabelled);
    }
}
