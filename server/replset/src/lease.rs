//! Lease arithmetic: how long a master may serve, and what a voter has granted.
//!
//! Owns the two ends of the lease. The master's end counts from the moment a heartbeat was *sent*,
//! the voter's from the moment it *arrived*, and longer by the rate error: so whatever the delay, a
//! voter's end is later than the master's.

use crate::ids::Term;
use crate::message::GrantedLease;
use crate::timing::Timing;

/// Until when a master may serve clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serve {
    /// Not at all.
    Never,
    /// Until this instant (monotonic milliseconds), then not.
    Until(u64),
    /// Without limit: it is master and the set is too small for leases.
    Unlimited,
}

impl Serve {
    /// Whether clients may be served at `now_ms`.
    pub fn allows(self, now_ms: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Until(end_ms) => now_ms < end_ms,
            Self::Unlimited => true,
        }
    }
}

/// The leases a member has granted that may not be over, one per term.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Grants(Vec<(Term, u64)>);

impl Grants {
    /// Acknowledges a heartbeat of the master of `term`.
    pub(crate) fn grant(&mut self, term: Term, now_ms: u64, timing: &Timing) {
        let until = now_ms + timing.grant_ms();
        self.0
            .retain(|(granted, end)| *granted != term && *end > now_ms);
        self.0.push((term, until));
    }

    /// The master of `term` gave its lease up.
    pub(crate) fn release(&mut self, term: Term) {
        self.0.retain(|(granted, _)| *granted != term);
    }

    /// What is left at `now_ms`.
    pub(crate) fn remaining(&self, now_ms: u64) -> Vec<GrantedLease> {
        let left = |(term, end): &(Term, u64)| GrantedLease {
            term: *term,
            remaining_ms: end.saturating_sub(now_ms),
        };
        self.0
            .iter()
            .map(left)
            .filter(|lease| lease.remaining_ms > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_at_its_instant() {
        assert!(Serve::Until(100).allows(99));
        assert!(!Serve::Until(100).allows(100));
        assert!(Serve::Unlimited.allows(u64::MAX));
        assert!(!Serve::Never.allows(0));
    }

    #[test]
    fn grants_of_two_terms_run_side_by_side() {
        let timing = Timing::default();
        let mut grants = Grants::default();
        grants.grant(Term(1), 0, &timing);
        grants.grant(Term(2), 500, &timing);
        grants.release(Term(2));
        let left = grants.remaining(600);
        assert_eq!(
            left,
            vec![GrantedLease {
                term: Term(1),
                remaining_ms: 660
            }]
        );
        assert!(grants.remaining(1_260).is_empty());
    }
}
