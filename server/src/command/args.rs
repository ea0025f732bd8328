//! Typed reads of arguments, with the error texts that all commands share.

use super::{error::CommandError, float80::Written};

/// An integer argument.
pub fn integer(bytes: &[u8]) -> Result<i64, CommandError> {
    resp::parse_i64(bytes).ok_or(CommandError::NOT_INTEGER)
}

/// The number of one of `databases` databases.
pub fn database(bytes: &[u8], databases: u32) -> Result<u32, CommandError> {
    let index = i32::try_from(integer(bytes)?).map_err(|_| {
        CommandError::new(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        )
    })?;
    let index = u32::try_from(index).ok();
    index
        .filter(|index| *index < databases)
        .ok_or(CommandError::DB_OUT_OF_RANGE)
}

/// An integer that must not be negative; `what` is the start of the error text.
pub fn non_negative(bytes: &[u8], what: &'static str) -> Result<usize, CommandError> {
    usize::try_from(integer(bytes)?).map_err(|_| CommandError::new(what))
}

/// A finite or infinite number, never NaN (`ERR value is not a valid float`).
pub fn float(bytes: &[u8]) -> Result<f64, CommandError> {
    parse_float(bytes).ok_or(CommandError::NOT_FLOAT)
}

/// As [`float`], for callers with a text of their own: what `strtod` of the C library reads as a whole, no surrounding
/// white space, no NaN, nothing too large for a double or too small to be told from 0.
pub fn parse_float(bytes: &[u8]) -> Option<f64> {
    Written::parse(bytes)?.to_double(bytes)
}

/// A number as a plain call of `strtod` reads it, for the bounds of ranges: white space in front is skipped, the text
/// ends at a zero byte, nothing at all is 0, and what is too large is infinite.
pub fn parse_lenient_float(bytes: &[u8]) -> Option<f64> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|byte| !is_space(byte))?;
    let number = &text[start..];
    let written = Written::parse(number)?;
    let exact = written.to_double(number);
    exact.or_else(|| std::str::from_utf8(number).ok()?.parse().ok())
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

/// A cursor of SCAN and its like, to be checked before the key is looked up. Redis 7.2 reads it by C's `strtoul`: a sign is
/// taken, a negative number wraps around, and no text at all is 0.
pub fn cursor(argument: &[u8]) -> Result<u64, CommandError> {
    const INVALID: CommandError = CommandError::new("ERR invalid cursor");
    let number = |digits: &[u8]| {
        let digits = digits
            .first()
            .filter(|first| first.is_ascii_digit())
            .and(Some(digits));
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        text.and_then(|text| text.parse::<u64>().ok())
            .ok_or(INVALID)
    };
    match argument {
        [] => Ok(0),
        [b'-', digits @ ..] => number(digits).map(u64::wrapping_neg),
        [b'+', digits @ ..] | digits => number(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_c_does() {
        let good: [(&[u8], u64); 6] = [
            (b"0", 0),
            (b"18446744073709551615", u64::MAX),
            (b"-1", u64::MAX),
            (b"+7", 7),
            (b"", 0),
            (b"007", 7),
        ];
        for (text, number) in good {
            assert_eq!(cursor(text), Ok(number));
        }
        let bad: [&[u8]; 8] = [
            b"x",
            b"1x",
            b" 1",
            b"-",
            b"--1",
            b"-+1",
            b"18446744073709551616",
            b"0x1",
        ];
        for text in bad {
            assert!(cursor(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
