//! Typed reads of arguments, with the error texts that all commands share.

use super::error::CommandError;

/// An integer argument.
pub fn integer(bytes: &[u8]) -> Result<i64, CommandError> {
    resp::parse_i64(bytes).ok_or(CommandError::NOT_INTEGER)
}

/// An integer that must not be negative; `what` is the start of the error text.
pub fn non_negative(bytes: &[u8], what: &'static str) -> Result<usize, CommandError> {
    usize::try_from(integer(bytes)?).map_err(|_| CommandError::new(what))
}

/// A finite or infinite number, never NaN (`ERR value is not a valid float`).
pub fn float(bytes: &[u8]) -> Result<f64, CommandError> {
    parse_float(bytes).ok_or(CommandError::NOT_FLOAT)
}

/// As [`float`], for callers with a text of their own: no surrounding white space, no NaN.
pub fn parse_float(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.is_empty() || text.len() > 255 || text.starts_with(|c: char| c.is_ascii_whitespace()) {
        return None;
    }
    let value = match text
        .trim_start_matches(['+', '-'])
        .to_ascii_lowercase()
        .as_str()
    {
        "inf" | "infinity" if text.starts_with('-') => f64::NEG_INFINITY,
        "inf" | "infinity" => f64::INFINITY,
        word if word.starts_with("0x") => parse_hex_float(text)?,
        _ => text.parse::<f64>().ok()?,
    };
    (!value.is_nan()).then_some(value)
}

/// `0x…` integers, which `strtod` of the C library accepts.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = rest
        .strip_prefix("0x")
        .or_else(|| rest.strip_prefix("0X"))?;
    let value = u64::from_str_radix(digits, 16).ok()? as f64;
    Some(if negative { -value } else { value })
}

/// Whether an option word is `word` (given in upper case), in any case.
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The unit in which a relative or absolute expiry was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// From when an expiry counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeBase {
    /// From now.
    Relative,
    /// From the Unix epoch.
    Absolute,
}

/// An expiry argument as Unix milliseconds. `now_ms` is the current time, `command` names the
/// command in the error. With `Positive` as `range`, zero and negative times are refused.
pub fn expire_at(
    bytes: &[u8],
    unit: TimeUnit,
    base: TimeBase,
    now_ms: i64,
    command: &str,
) -> Result<i64, CommandError> {
    let number = integer(bytes)?;
    let scaled = match unit {
        TimeUnit::Seconds => number.checked_mul(1000),
        TimeUnit::Milliseconds => Some(number),
    };
    let at = match base {
        TimeBase::Relative => scaled.and_then(|ms| ms.checked_add(now_ms)),
        TimeBase::Absolute => scaled,
    };
    at.ok_or_else(|| CommandError::invalid_expire(command))
}
