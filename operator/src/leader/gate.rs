//! "May I write now?" as a value that expires by itself.
//!
//! Written by `leader::elector` after each confirmed renewal, read by everything that changes the
//! cluster as the acting operator. A gate that is not renewed closes without anybody's help.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

/// Whether this pod is the acting operator, shared between the elector and those who ask.
#[derive(Clone, Debug)]
pub struct Gate {
    until: Arc<Mutex<Option<Instant>>>,
    holding: watch::Sender<Holding>,
}

/// What the last attempt to hold the Lease ended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holding {
    /// This pod holds the Lease.
    Leader,
    /// Another pod holds it, or nobody could be asked.
    Standby,
}

impl Default for Gate {
    fn default() -> Self {
        Self::closed()
    }
}

impl Gate {
    /// A gate that nobody has opened yet.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            until: Arc::default(),
            holding: watch::Sender::new(Holding::Standby),
        }
    }

    /// Opens the gate until `until`; called after a write of the Lease was confirmed.
    pub fn open_until(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.holding
            .send_if_modified(|now| set(now, Holding::Leader));
    }

    /// Closes the gate at once.
    pub fn close(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.holding
            .send_if_modified(|now| set(now, Holding::Standby));
    }

    /// May the caller change the cluster at `now`?
    #[must_use]
    pub fn may_act(&self, now: Instant) -> bool {
        self.until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| now < until)
    }

    /// Whether the last attempt to hold the Lease succeeded. The gate may be shut all the same, for
    /// a moment, when a renewal is late; then work waits and is not given up.
    #[must_use]
    pub fn holding(&self) -> Holding {
        *self.holding.borrow()
    }

    /// A receiver that is told when leadership is gained or lost.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Holding> {
        self.holding.subscribe()
    }
}

fn set(slot: &mut Holding, value: Holding) -> bool {
    let changed = *slot != value;
    *slot = value;
    changed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_gate_closes_by_itself() {
        let (gate, now) = (Gate::closed(), Instant::now());
        assert!(!gate.may_act(now));
        gate.open_until(now + Duration::from_secs(1));
        assert!(gate.may_act(now));
        assert!(!gate.may_act(now + Duration::from_secs(1)));
        gate.close();
        assert!(!gate.may_act(now));
    }

    #[test]
    fn subscribers_hear_only_changes() {
        let gate = Gate::closed();
        let mut heard = gate.subscribe();
        gate.close();
        assert!(!heard.has_changed().unwrap());
        gate.open_until(Instant::now());
        assert_eq!(*heard.borrow_and_update(), Holding::Leader);
        gate.open_until(Instant::now());
        assert!(!heard.has_changed().unwrap());
    }
}
