//! What to do with a Lease, decided without a client.
//!
//! Called by `leader::elector` with what the API server answered and the monotonic time. The
//! record's own times are written for people and never read back: machines' wall clocks differ.

use std::time::{Duration, Instant};

/// Others may take the Lease when its record has not changed for this long.
pub const LEASE_DURATION: Duration = Duration::from_secs(6);
/// A holder that could not renew for this long stops acting. Shorter than [`LEASE_DURATION`], so
/// that the old holder is silent before the next one begins.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(4);
/// Pause between renewals, and between looks at somebody else's Lease.
pub const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// The fields of a Lease that decide.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Identity of the holder; empty when it was given back.
    pub holder: String,
    /// How often the holder changed.
    pub transitions: i32,
    /// Version to put into the write.
    pub resource_version: String,
}

/// What one pod has seen of the Lease so far.
#[derive(Clone, Debug, Default)]
pub struct View {
    last: Option<(Record, Instant)>,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Write ourselves as the holder with this resource version and number of transitions.
    Write {
        /// Version the write must carry.
        resource_version: String,
        /// Number of transitions to write.
        transitions: i32,
    },
    /// The Lease does not exist: create it.
    Create,
    /// Somebody else holds it and is alive.
    Wait,
}

impl View {
    /// Notes what was read at `now` and says what to do about it.
    pub fn observe(&mut self, me: &str, read: Option<Record>, now: Instant) -> Action {
        let Some(read) = read else {
            self.last = None;
            return Action::Create;
        };
        let unchanged_since = match &self.last {
            Some((seen, at)) if seen.resource_version == read.resource_version => *at,
            Some(_) | None => now,
        };
        self.last = Some((read.clone(), unchanged_since));
        let mine = read.holder == me;
        let expired = now.duration_since(unchanged_since) >= LEASE_DURATION;
        if !mine && !read.holder.is_empty() && !expired {
            return Action::Wait;
        }
        let transitions = if mine {
            read.transitions
        } else {
            read.transitions.saturating_add(1)
        };
        Action::Write {
            resource_version: read.resource_version,
            transitions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: &str) -> Option<Record> {
        Some(Record {
            holder: holder.into(),
            transitions: 3,
            resource_version: version.into(),
        })
    }

    #[test]
    fn a_missing_lease_is_created() {
        assert_eq!(
            View::default().observe("a", None, Instant::now()),
            Action::Create
        );
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let action = View::default().observe("a", record("", "7"), Instant::now());
        assert_eq!(
            action,
            Action::Write {
                resource_version: "7".into(),
                transitions: 4
            }
        );
    }

    #[test]
    fn our_own_lease_is_renewed_without_a_transition() {
        let action = View::default().observe("a", record("a", "7"), Instant::now());
        assert_eq!(
            action,
            Action::Write {
                resource_version: "7".into(),
                transitions: 3
            }
        );
    }

    #[test]
    fn a_foreign_lease_is_taken_only_after_it_stood_still() {
        let (mut view, t) = (View::default(), Instant::now());
        assert_eq!(view.observe("a", record("b", "7"), t), Action::Wait);
        let almost = t + LEASE_DURATION - Duration::from_millis(1);
        assert_eq!(view.observe("a", record("b", "7"), almost), Action::Wait);
        assert_eq!(
            view.observe("a", record("b", "8"), t + LEASE_DURATION),
            Action::Wait
        );
        let later = t + LEASE_DURATION * 2;
        assert!(matches!(
            view.observe("a", record("b", "8"), later),
            Action::Write { .. }
        ));
    }

    #[test]
    fn the_old_holder_is_silent_before_the_next_begins() {
        const { assert!(RENEW_DEADLINE.as_millis() < LEASE_DURATION.as_millis()) };
    }
}
