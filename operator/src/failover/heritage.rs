//! Data that a set finds when it begins: its volumes may hold those of a set of the same name that was deleted.
//!
//! Called by the guard before the first mastership. Pure. Invariant: data are taken over only from one set, and only if
//! so many of its voters are asked that no write is overlooked which a majority of them held.

use replset::{FleetId, Generation, Term, VoterSet};
use thiserror::Error;

/// What a member says about itself that matters here.
#[derive(Clone, Debug)]
pub struct Found {
    /// The member.
    pub member: String,
    /// The set that it and its data belong to.
    pub fleet: FleetId,
    /// The highest term it promised.
    pub promised: Term,
    /// The voters it knows.
    pub voters: VoterSet,
}

/// Data that are taken over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heritage {
    /// The set they come from.
    pub of: FleetId,
    /// The highest term that one of its members promised: elections need a higher one.
    pub promised: Term,
    /// The newest generation of its voters: the next set's are newer.
    pub generation: Generation,
}

/// Why nobody can say which data are the newest.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum Undecided {
    /// Volumes of several sets.
    #[error(
        "the volumes hold data of different sets ({}): delete the PersistentVolumeClaims of those that shall not be used, and their pods",
        .0.iter().map(|(member, fleet)| format!("{member}: {fleet}")).collect::<Vec<_>>().join(", ")
    )]
    Mixed(Vec<(String, FleetId)>),
    /// The set before was larger.
    #[error(
        "the volumes hold data of a set with {before} voters, and this one asks too few of them to find every write: \
         set spec.replicas to {wanted} or more, and lower it when the set is ready"
    )]
    TooFewAsked {
        /// Voters of the set before.
        before: usize,
        /// Replicas that suffice.
        wanted: usize,
    },
}

/// What the set `fleet`, which never had a master and whose first voters are these, finds on its volumes.
///
/// # Errors
/// Why it must not begin with any of it.
pub fn heritage(
    fleet: &FleetId,
    first_voters: &VoterSet,
    members: &[Found],
) -> Result<Option<Heritage>, Undecided> {
    let foreign: Vec<&Found> = members.iter().filter(|m| m.fleet != *fleet).collect();
    let Some(first) = foreign.first() else {
        return Ok(None);
    };
    if foreign.iter().any(|m| m.fleet != first.fleet) {
        let named = foreign.iter().map(|m| (m.member.clone(), m.fleet.clone()));
        return Err(Undecided::Mixed(named.collect()));
    }
    let newest = foreign
        .iter()
        .map(|m| &m.voters)
        .max_by_key(|v| v.generation);
    let before = newest.cloned().unwrap_or_default();
    let is_asked = |name: &&replset::MemberName| first_voters.contains(name);
    let asked = before.voters.iter().filter(is_asked).count();
    let total = before.voters.len();
    if total > 0 && asked < replset::majority(total) {
        return Err(Undecided::TooFewAsked {
            before: total,
            wanted: total,
        });
    }
    Ok(Some(Heritage {
        of: first.fleet.clone(),
        promised: foreign.iter().map(|m| m.promised).max().unwrap_or_default(),
        generation: before.generation,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(generation: u64, count: u32) -> VoterSet {
        let name = |i| format!("m-{i}").as_str().into();
        VoterSet {
            generation: Generation(generation),
            voters: (0..count).map(name).collect(),
        }
    }

    fn found(i: u32, fleet: &str, promised: u64, generation: u64) -> Found {
        Found {
            member: format!("m-{i}"),
            fleet: fleet.into(),
            promised: Term(promised),
            voters: voters(generation, 3),
        }
    }

    #[test]
    fn members_of_its_own_leave_nothing_to_take_over() {
        let own = [found(0, "new", 2, 1), found(1, "new", 0, 0)];
        assert_eq!(heritage(&"new".into(), &voters(1, 3), &own), Ok(None));
    }

    #[test]
    fn terms_and_voters_go_on_above_those_of_the_set_before() {
        // One volume was lost, or one member has come over already.
        let members = [
            found(0, "old", 7, 3),
            found(1, "old", 9, 4),
            found(2, "new", 0, 0),
        ];
        let expected = Heritage {
            of: "old".into(),
            promised: Term(9),
            generation: Generation(4),
        };
        assert_eq!(
            heritage(&"new".into(), &voters(1, 3), &members),
            Ok(Some(expected))
        );
    }

    #[test]
    fn volumes_of_two_sets_before_are_for_people_to_choose_from() {
        let members = [found(0, "old", 7, 3), found(1, "older", 90, 4)];
        let error = heritage(&"new".into(), &voters(1, 3), &members).unwrap_err();
        assert!(
            error.to_string().contains("m-0: old, m-1: older"),
            "{error}"
        );
    }

    #[test]
    fn a_smaller_set_does_not_guess_what_the_others_held() {
        let one = [found(0, "old", 7, 3)];
        assert_eq!(
            heritage(&"new".into(), &voters(1, 1), &one),
            Err(Undecided::TooFewAsked {
                before: 3,
                wanted: 3
            })
        );
    }
}
