//! Numbers as Redis reads and writes them: canonical integers, and floating point scores.
//!
//! Owns: the canonical form of integers (what the compact encodings may store as a number), and
//! the text of a double as Redis 7.2 prints it. Called by: all value types and the command
//! families. Pure functions.

use std::fmt::Write;

/// Longest text of an `i64`: sign and 19 digits.
pub const MAX_INTEGER_TEXT_BYTES: usize = 20;

/// The integer that `text` is the one canonical text of: no sign but `-`, no leading zeros, no
/// white space.
pub fn canonical_i64(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > MAX_INTEGER_TEXT_BYTES {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut magnitude: u64 = 0;
    for &digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(value))?;
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Text of a number in place.
#[derive(Clone, Copy)]
pub struct NumberText {
    bytes: [u8; NUMBER_TEXT_BYTES],
    length: u8,
}

/// Room for every text of a double (sign, 17 digits, point, exponent, or seven zeros more).
const NUMBER_TEXT_BYTES: usize = 31;

impl NumberText {
    /// The canonical text of an integer.
    pub fn integer(value: i64) -> Self {
        let mut bytes = [0; NUMBER_TEXT_BYTES];
        let mut at = MAX_INTEGER_TEXT_BYTES;
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            bytes[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            bytes[at] = b'-';
        }
        bytes.copy_within(at..MAX_INTEGER_TEXT_BYTES, 0);
        Self {
            bytes,
            length: (MAX_INTEGER_TEXT_BYTES - at) as u8,
        }
    }

    /// The text of a double as replies and dumps of Redis 7.2 show it.
    pub fn double(value: f64) -> Self {
        if let Some(integer) = exact_integer(value)
            && !(integer == 0 && value.is_sign_negative())
        {
            return Self::integer(integer);
        }
        let mut text = Self {
            bytes: [0; NUMBER_TEXT_BYTES],
            length: 0,
        };
        if value.is_nan() {
            text.push(b"nan");
        } else if value.is_infinite() {
            text.push(if value < 0.0 { b"-inf" } else { b"inf" });
        } else if value == 0.0 {
            text.push(b"-0");
        } else {
            text.push_shortest(value);
        }
        text
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn push(&mut self, more: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + more.len()].copy_from_slice(more);
        self.length += more.len() as u8;
    }

    fn push_zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.push(b"0");
        }
    }

    /// The shortest digits that read back as `value`, in the layout of Redis's printer: plain
    /// where that is short, else `d.ddde+x` without padding of the exponent.
    fn push_shortest(&mut self, value: f64) {
        let mut scientific = Scratch {
            bytes: [0; 32],
            length: 0,
        };
        write!(scientific, "{value:e}").expect("a double in scientific form has under 32 bytes");
        let (digits, count, exponent) = scientific.digits_and_exponent();
        let digits = &digits[..count];
        let shift = exponent + 1 - count as i32; // value = 0.digits × 10^… = digits × 10^shift
        if value < 0.0 {
            self.push(b"-");
        }
        if shift >= 0 && exponent < count as i32 + 7 {
            self.push(digits);
            self.push_zeros(shift.unsigned_abs() as usize);
        } else if shift < 0 && (shift > -7 || exponent.abs() < 4) {
            let point = count as i32 + shift;
            if point <= 0 {
                self.push(b"0.");
                self.push_zeros(point.unsigned_abs() as usize);
                self.push(digits);
            } else {
                let (whole, fraction) = digits.split_at(point as usize);
                self.push(whole);
                self.push(b".");
                self.push(fraction);
            }
        } else {
            self.push(&digits[..1]);
            if count > 1 {
                self.push(b".");
                self.push(&digits[1..]);
            }
            self.push(if exponent < 0 { b"e-" } else { b"e+" });
            let magnitude = Self::integer(i64::from(exponent.abs()));
            self.push(magnitude.as_bytes());
        }
    }
}

impl std::fmt::Debug for NumberText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl std::ops::Deref for NumberText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The integer equal to `value`, within the range in which Redis prints doubles as integers.
pub fn exact_integer(value: f64) -> Option<i64> {
    const LIMIT: f64 = (i64::MAX / 2) as f64;
    if !(-LIMIT..=LIMIT).contains(&value) {
        return None;
    }
    let integer = value as i64;
    (integer as f64 == value).then_some(integer)
}

/// A stack buffer for `write!`.
struct Scratch {
    bytes: [u8; 32],
    length: usize,
}

impl Scratch {
    /// Splits `[-]d[.ddd]e[-]x` into digits, their number and the exponent.
    fn digits_and_exponent(&self) -> ([u8; 20], usize, i32) {
        let mut digits = [0; 20];
        let mut count = 0;
        let mut exponent = 0;
        let mut negative_exponent = false;
        let mut in_exponent = false;
        for &byte in &self.bytes[..self.length] {
            match byte {
                b'e' => in_exponent = true,
                b'-' => negative_exponent = in_exponent,
                b'0'..=b'9' if in_exponent => exponent = exponent * 10 + i32::from(byte - b'0'),
                b'0'..=b'9' => {
                    digits[count] = byte;
                    count += 1;
                }
                _ => {}
            }
        }
        (
            digits,
            count,
            if negative_exponent {
                -exponent
            } else {
                exponent
            },
        )
    }
}

impl Write for Scratch {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let target = self
            .bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?;
        target.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The score that a compact encoding or a dump holds as text. `None` for NaN and what is no number.
pub fn parse_score(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value = match text {
        "inf" | "+inf" => f64::INFINITY,
        "-inf" => f64::NEG_INFINITY,
        _ => text.parse::<f64>().ok()?,
    };
    (!value.is_nan()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_canonical_texts_are_integers() {
        for good in [
            "0",
            "7",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            let value = canonical_i64(good.as_bytes()).unwrap();
            assert_eq!(value.to_string(), good);
        }
        for bad in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "9223372036854775808",
            "1e3",
        ] {
            assert_eq!(canonical_i64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn doubles_look_as_redis_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-17.0, "-17"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (3.25e-5, "3.25e-5"),
            (1e-5, "0.00001"),
            (1e-7, "1e-7"),
            (1.5e-9, "1.5e-9"),
            (1e18, "1000000000000000000"),
            (1e20, "1e+20"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (123_456_789.125, "123456789.125"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (value, text) in cases {
            assert_eq!(format!("{:?}", NumberText::double(value)), text);
        }
    }

    proptest! {
        #[test]
        fn any_double_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(parse_score(&NumberText::double(value)).unwrap().to_bits(), bits);
        }

        #[test]
        fn any_integer_reads_back(value: i64) {
            prop_assert_eq!(canonical_i64(&NumberText::integer(value)), Some(value));
        }
    }
}
