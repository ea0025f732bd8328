//! Pauses of client commands, one for each purpose, so that who ends one ends no other.
//!
//! Owns what is held back at present, for whom and until when. Begun and ended by CLIENT PAUSE and
//! UNPAUSE, FAILOVER, the end of the server and the handover of a managed master; read by `admit`
//! and by connections that wait. What is in force is the strongest of all pauses. Wakes nobody:
//! [`Core::hold_clients`] and [`Core::release_clients`] do.

use super::{Core, clock};
use crate::{command::host::PauseKind, keyspace::ExpiryRule};

/// Why clients are paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `CLIENT PAUSE`.
    Client,
    /// The server ends: replicas catch up.
    Shutdown,
    /// `FAILOVER`.
    Failover,
    /// A managed master gives its term away.
    Handover,
}

/// How many purposes there are.
const PURPOSES: usize = Purpose::Handover as usize + 1;

/// The end of a pause that lasts until it is ended.
pub const UNTIL_ENDED: i64 = i64::MAX;

/// A pause of client commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// What is held back.
    pub kind: PauseKind,
    /// Until this moment of the monotonic clock (ms): a step of the clock on the wall ends no pause.
    pub until_ms: i64,
}

/// All pauses.
#[derive(Debug, Default)]
pub struct Pauses([Option<Pause>; PURPOSES]);

impl Pauses {
    /// Begins a pause. A present one of the same purpose never becomes weaker or shorter.
    pub fn begin(&mut self, purpose: Purpose, pause: Pause) {
        let old = &mut self.0[purpose as usize];
        let old_or_new = old.unwrap_or(pause);
        *old = Some(Pause {
            kind: old_or_new.kind.max(pause.kind),
            until_ms: old_or_new.until_ms.max(pause.until_ms),
        });
    }

    /// Ends the pause of one purpose.
    pub fn end(&mut self, purpose: Purpose) {
        self.0[purpose as usize] = None;
    }

    /// The pause of one purpose, if it lasts. The clock is read only if there is one.
    pub fn of(&self, purpose: Purpose, clock: impl FnOnce() -> i64) -> Option<Pause> {
        let pause = self.0[purpose as usize]?;
        (clock() < pause.until_ms).then_some(pause)
    }

    /// What is in force: the pause that holds back most, of several the one that ends last. Forgets
    /// those that are over. The clock is read only while there is any.
    pub fn in_force(&mut self, clock: impl FnOnce() -> i64) -> Option<Pause> {
        if self.0.iter().all(Option::is_none) {
            return None;
        }
        let now_ms = clock();
        for pause in &mut self.0 {
            pause.take_if(|pause| pause.until_ms <= now_ms);
        }
        let in_force = self.0.iter().flatten().copied();
        in_force.max_by_key(|pause| (pause.kind, pause.until_ms))
    }
}

impl Core {
    /// Holds clients back for a purpose, until a moment of the monotonic clock (ms).
    pub fn hold_clients(&mut self, purpose: Purpose, kind: PauseKind, until_ms: i64) {
        self.pauses.begin(purpose, Pause { kind, until_ms });
        self.shared.unpaused.notify_waiters();
    }

    /// Whether writes are held back, by whatever pause.
    pub fn holds_writes(&mut self) -> bool {
        self.pauses.in_force(clock::monotonic_ms).is_some()
    }

    /// What a lookup does with an expired key. While writes are held back nothing is removed, as in Redis: whoever paused them
    /// waits for a stream that stands still.
    pub fn expiry_rule(&mut self) -> ExpiryRule {
        if self.holds_writes() {
            ExpiryRule::Hide
        } else {
            self.replication.expiry_rule()
        }
    }

    /// Ends the pause of a purpose; clients that no other pause holds go on.
    pub fn release_clients(&mut self, purpose: Purpose) {
        self.pauses.end(purpose);
        self.shared.unpaused.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn pause(kind: PauseKind, until_ms: i64) -> Pause {
        Pause { kind, until_ms }
    }

    #[test]
    fn who_ends_a_pause_ends_no_other() {
        let mut pauses = Pauses::default();
        pauses.begin(Purpose::Handover, pause(PauseKind::Writes, UNTIL_ENDED));
        pauses.begin(Purpose::Client, pause(PauseKind::All, 50));
        pauses.end(Purpose::Client);
        let left = Some(pause(PauseKind::Writes, UNTIL_ENDED));
        assert_eq!(pauses.in_force(|| 1_000_000), left);
        assert_eq!(pauses.of(Purpose::Handover, || 1_000_000), left);
        pauses.end(Purpose::Handover);
        assert_eq!(pauses.in_force(|| panic!("no need of the time")), None);
    }

    #[test]
    fn the_strongest_is_in_force_and_each_ends_in_its_time() {
        let mut pauses = Pauses::default();
        pauses.begin(Purpose::Client, pause(PauseKind::All, 50));
        pauses.begin(Purpose::Shutdown, pause(PauseKind::Writes, 90));
        pauses.begin(Purpose::Failover, pause(PauseKind::Writes, 70));
        assert_eq!(pauses.in_force(|| 49), Some(pause(PauseKind::All, 50)));
        assert_eq!(pauses.of(Purpose::Client, || 50), None);
        assert_eq!(pauses.in_force(|| 50), Some(pause(PauseKind::Writes, 90)));
        assert_eq!(pauses.in_force(|| 90), None);
    }

    #[test]
    fn a_pause_is_never_made_weaker_or_shorter_by_another_of_its_purpose() {
        let mut pauses = Pauses::default();
        pauses.begin(Purpose::Client, pause(PauseKind::All, 20));
        pauses.begin(Purpose::Client, pause(PauseKind::Writes, 30));
        pauses.begin(Purpose::Client, pause(PauseKind::Writes, 10));
        assert_eq!(pauses.in_force(|| 0), Some(pause(PauseKind::All, 30)));
    }
}
