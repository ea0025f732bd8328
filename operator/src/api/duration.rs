//! Durations as users write them (`90s`, `1h30m`, `250ms`), kept as text so that what is read is written
//! back unchanged.
//!
//! Used by the CRD types; `reconcile::validate` turns the text into a [`Duration`]. The grammar is the
//! part of Go's that makes sense here: whole numbers with the units `ms`, `s`, `m`, `h`, no sign.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest text accepted, in bytes.
pub const MAX_DURATION_BYTES: usize = 32;

/// Most digits of one number.
const MAX_DIGITS: usize = 9;

/// The longest duration that is written (31 years): what lasted longer is written as that, since the status must
/// be written.
const MAX_WRITTEN: Duration = Duration::from_secs(999_999_999);

/// The same grammar as [`DurationText::parse`], as the CRD states it.
pub const DURATION_PATTERN: &str = "^([0-9]{1,9}(ms|s|m|h))+$";

/// A duration as text; see the module documentation for its grammar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

/// Why a text is not a duration.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a duration: write whole numbers with the units ms, s, m or h, such as 500ms, 90s or 1h30m"
)]
pub struct DurationError {
    /// What was written, cut to [`MAX_DURATION_BYTES`].
    pub text: String,
}

impl DurationText {
    /// The duration that the text says.
    pub fn parse(&self) -> Result<Duration, DurationError> {
        parse_terms(&self.0).ok_or_else(|| DurationError {
            text: self.0.chars().take(MAX_DURATION_BYTES).collect(),
        })
    }
}

impl From<&str> for DurationText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Duration> for DurationText {
    /// The shortest exact text that [`DURATION_PATTERN`] allows, with milliseconds when there is a fraction of a second.
    fn from(duration: Duration) -> Self {
        let millis = duration.min(MAX_WRITTEN).as_millis();
        Self(match (millis % 1000, millis / 1000) {
            (0, seconds) if seconds > 0 && seconds.is_multiple_of(3600) => {
                format!("{}h", seconds / 3600)
            }
            (0, seconds) if seconds > 0 && seconds.is_multiple_of(60) => {
                format!("{}m", seconds / 60)
            }
            (0, seconds) => format!("{seconds}s"),
            (rest, seconds) if seconds >= MAX_MILLIS_ALONE => format!("{seconds}s{rest}ms"),
            (_, _) => format!("{millis}ms"),
        })
    }
}

/// From so many seconds on, the number of milliseconds has more than [`MAX_DIGITS`] digits.
const MAX_MILLIS_ALONE: u128 = 1_000_000;

fn parse_terms(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_DURATION_BYTES {
        return None;
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > MAX_DIGITS {
            return None;
        }
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let tail = &rest[digits..];
        let (unit_ms, after) = if let Some(after) = tail.strip_prefix("ms") {
            (1, after)
        } else if let Some(after) = tail.strip_prefix('s') {
            (1000, after)
        } else if let Some(after) = tail.strip_prefix('m') {
            (60_000, after)
        } else {
            (3_600_000, tail.strip_prefix('h')?)
        };
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = after;
    }
    Some(Duration::from_millis(total_ms))
}

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": MAX_DURATION_BYTES, "pattern": DURATION_PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is refused here is told to the user; what is read cannot be beyond all bounds.
        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof!["\\PC{0,40}", "([0-9]{0,11}(ms|s|m|h|d|µs| )){0,6}"],
        ) {
            match DurationText(text.clone()).parse() {
                Ok(duration) => prop_assert!(duration <= Duration::from_hours(16 * 999_999_999)),
                Err(error) => prop_assert!(text.starts_with(&error.text)),
            }
        }

        #[test]
        fn what_is_written_is_read(millis in prop_oneof![any::<u64>(), 0_u64..2_000_000_000]) {
            let duration = Duration::from_millis(millis);
            let read = DurationText::from(duration).parse();
            prop_assert_eq!(read, Ok(duration.min(MAX_WRITTEN)));
        }
    }

    #[test]
    fn reads_what_the_pattern_allows() {
        for (text, millis) in [
            ("1s", 1000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("720h", 2_592_000_000),
            ("0s", 0),
        ] {
            assert_eq!(
                DurationText::from(text).parse(),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_everything_else_and_names_the_units() {
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1.5h",
            "1d",
            "1h ",
            "1000000000s",
            "99999999999999999999h",
            "é",
        ] {
            let error = DurationText::from(text).parse().expect_err(text);
            assert!(error.to_string().contains("ms, s, m or h"), "{error}");
        }
    }

    #[test]
    fn writes_the_shortest_exact_text() {
        for (millis, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (999_999_999, "999999999ms"),
            (1_000_000_001, "1000000s1ms"),
            (u64::MAX, "999999999s"),
        ] {
            assert_eq!(DurationText::from(Duration::from_millis(millis)).0, text);
        }
    }
}
