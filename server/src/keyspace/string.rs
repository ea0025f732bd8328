//! Strings on their way in and out of entries: what a value is given as, what a reader sees.
//!
//! Owns the rule which strings are kept as integers, and decimal formatting. Knows nothing of memory layout
//! (that is [`super::entry`]). Called by `command` and by the loaders.

/// Longest decimal text of an `i64`: `-9223372036854775808`.
pub const MAX_DECIMAL_BYTES: usize = 20;

/// A string to store, borrowed from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringInput<'a> {
    /// Kept as a 64-bit integer; reads back as its decimal text.
    Int(i64),
    /// Kept as bytes.
    Bytes(&'a [u8]),
}

impl<'a> StringInput<'a> {
    /// The form in which SET keeps `bytes`: as an integer if they are exactly what that integer prints as.
    #[inline]
    pub fn encode(bytes: &'a [u8]) -> Self {
        match parse_canonical_int(bytes) {
            Some(value) => Self::Int(value),
            None => Self::Bytes(bytes),
        }
    }
}

impl<'a> From<&'a [u8]> for StringInput<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::encode(bytes)
    }
}

/// A string as an entry holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringRef<'a> {
    /// Held as an integer.
    Int(i64),
    /// Held as bytes.
    Bytes(&'a [u8]),
}

impl StringRef<'_> {
    /// Length in bytes of the text.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(value) => Decimal::new(*value).as_bytes().len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with the text.
    #[inline]
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Int(value) => f(Decimal::new(*value).as_bytes()),
            Self::Bytes(bytes) => f(bytes),
        }
    }

    /// A copy of the text.
    pub fn to_vec(&self) -> Vec<u8> {
        self.with_bytes(<[u8]>::to_vec)
    }

    /// The integer this string is, if it is one in canonical form (`parse_canonical_int`).
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bytes(bytes) => parse_canonical_int(bytes),
        }
    }
}

/// Decimal text of an `i64`, without allocation.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; MAX_DECIMAL_BYTES],
    start: u8,
}

impl Decimal {
    /// Formats `value`.
    pub fn new(value: i64) -> Self {
        let mut digits = [0; MAX_DECIMAL_BYTES];
        let mut at = MAX_DECIMAL_BYTES;
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        Self {
            digits,
            start: at as u8,
        }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[usize::from(self.start)..]
    }
}

/// Reads an integer in the one form Redis accepts everywhere: what `i64` prints as. No sign `+`, no leading
/// zeros, no spaces, no `-0`.
#[inline]
pub fn parse_canonical_int(bytes: &[u8]) -> Option<i64> {
    let (digits, negative) = match bytes {
        [b'-', rest @ ..] => (rest, true),
        all => (all, false),
    };
    let (&first, rest) = digits.split_first()?;
    if first == b'0' {
        return (rest.is_empty() && !negative).then_some(0);
    }
    if digits.len() >= MAX_DECIMAL_BYTES {
        return None;
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // At most 19 digits: below 10^19, which fits in 64 bits.
        value = value * 10 + u64::from(digit);
    }
    if negative {
        0i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_recognised_only_in_canonical_form() {
        for value in [
            0,
            1,
            -1,
            9,
            10,
            -10,
            i64::MAX,
            i64::MIN,
            i64::MIN + 1,
            1_000_000_007,
        ] {
            assert_eq!(
                parse_canonical_int(value.to_string().as_bytes()),
                Some(value)
            );
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
        let others: [&[u8]; 12] = [
            b"",
            b"-",
            b"-0",
            b"00",
            b"01",
            b"+1",
            b" 1",
            b"1 ",
            b"1x",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"99999999999999999999",
        ];
        for text in others {
            assert_eq!(parse_canonical_int(text), None, "{text:?}");
        }
    }
}
