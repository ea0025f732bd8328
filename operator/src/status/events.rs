//! Events about a set, for `kubectl describe`. Pure; [`crate::context::Context::publish`] sends them.

use kube::runtime::events::{Event, EventType};

use super::length::cut;

/// Longest note of an event that the API server takes, in characters.
const MAX_NOTE_CHARS: usize = 900;

/// An event from its parts. Within some minutes kube's recorder takes events of equal `reason` and `action` for
/// repetitions of one and keeps the first note: what must be seen each time has an action of its own.
#[must_use]
pub fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(cut(note, MAX_NOTE_CHARS)),
        action: action.to_owned(),
        secondary: None,
    }
}
