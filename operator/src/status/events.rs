//! Events about a set, for `kubectl describe`. Pure; [`crate::context::Context::publish`] sends them.

use kube::runtime::events::{Event, EventType};
use sha2::{Digest, Sha256};

use super::length::cut_to_bytes;

/// Longest note of an event that the API server takes (its `NoteLengthLimit`), in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// Bytes of the digest in an [`action`]: two notes within some minutes share one by chance of 1 to 2^32.
const ACTION_DIGEST_BYTES: usize = 4;

/// `what` was done, as an action that is another for every other note. The same note is the same action, so that repetitions
/// are counted. The API server takes 128 characters.
#[must_use]
pub fn action(what: &str, note: &str) -> String {
    let digest = Sha256::digest(note.as_bytes());
    let digest = digest.iter().take(ACTION_DIGEST_BYTES);
    let digest: String = digest.map(|byte| format!("{byte:02x}")).collect();
    format!("{what}-{digest}")
}

/// An event from its parts. Within some minutes kube's recorder takes events of equal `reason` and `action` for
/// repetitions of one and keeps the first note: what must be seen each time has an action of its own.
#[must_use]
pub fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(cut_to_bytes(note, MAX_NOTE_BYTES)),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_another_for_every_other_note_and_stays() {
        assert_eq!(action("Reconcile", "a note"), "Reconcile-f63e34a0");
        assert_ne!(
            action("Reconcile", "a note"),
            action("Reconcile", "a note.")
        );
        let long = "long ".repeat(1000);
        assert!(action("Reconcile", &long).len() <= 128);
    }
}
