//! What must not cost as much as all of a big value, or all of many keys. Measured against what does, or against a time
//! that only the wrong way needs.

use std::time::{Duration, Instant};

use super::super::string::StringInput;
use super::super::types::{EncodingLimits, value::Value};
use super::super::{ReplaceRule, SetExpiry, TransferOutcome};
use super::keyspace;

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn a_copy_that_may_not_be_made() {
    let mut keyspace = keyspace();
    let elements = vec![b"element".as_slice(); 2_000_000];
    let list = Value::list(elements, &EncodingLimits::default());
    keyspace.db(0).set(b"big", list, SetExpiry::Clear);
    keyspace
        .db(1)
        .set_string(b"there", StringInput::Int(1), SetExpiry::Clear);
    let mut copy = |to: &[u8]| {
        timed(|| keyspace.copy_key((0, b"big"), (1, to), ReplaceRule::KeepTarget))
    };
    let (done, time_done) = copy(b"new");
    let (refused, time_refused) = copy(b"there");
    assert_eq!(done, TransferOutcome::Done);
    assert_eq!(refused, TransferOutcome::TargetExists);
    assert!(
        time_refused * 5 < time_done,
        "{time_refused:?}, where a copy takes {time_done:?}"
    );
}
