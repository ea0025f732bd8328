//! Numbers as Redis reads and writes them: strict decimal integers, shortest doubles.
//!
//! Called by the reply writer and by the command and keyspace layers of the server, which must agree on when a
//! string "is" an integer and how a score prints. No allocation.

use std::fmt::{self, Write};
use std::ops::Deref;

const DIGIT_PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
    2021222324252627282930313233343536373839\
    4041424344454647484950515253545556575859\
    6061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";

/// Longest decimal `i64`, sign included.
const MAX_I64_CHARS: usize = 20;

/// Longest text [`format_double`] makes: sign, 17 digits and 7 zeros, or 17 digits with point and exponent.
const MAX_DOUBLE_CHARS: usize = 32;

/// Digits that tell any double from its neighbours.
const MAX_DIGITS: usize = 17;

/// The decimal text of an integer, on the stack.
#[derive(Clone, Copy)]
pub struct IntText {
    buf: [u8; MAX_I64_CHARS],
    start: u8,
}

impl Deref for IntText {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buf[usize::from(self.start)..]
    }
}

/// Decimal text of `value`.
#[inline]
pub fn format_i64(value: i64) -> IntText {
    let mut buf = [0; MAX_I64_CHARS];
    let mut at = MAX_I64_CHARS;
    let mut rest = value.unsigned_abs();
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        buf[at..at + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        let pair = rest as usize * 2;
        at -= 2;
        buf[at..at + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        buf[at] = b'0' + rest as u8;
    }
    if value < 0 {
        at -= 1;
        buf[at] = b'-';
    }
    IntText {
        buf,
        start: at as u8,
    }
}

/// Reads a decimal integer by Redis's strict rules: no blanks, no plus, no leading zeros, no `-0`, no overflow.
/// So a string is an integer exactly if printing the integer gives the same string again.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > MAX_I64_CHARS {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative {
        0i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

/// The text of a double, on the stack.
#[derive(Clone, Copy)]
pub struct DoubleText {
    buf: [u8; MAX_DOUBLE_CHARS],
    len: u8,
}

impl DoubleText {
    fn new(parts: &[&[u8]]) -> Self {
        let mut text = Self {
            buf: [0; MAX_DOUBLE_CHARS],
            len: 0,
        };
        parts.iter().for_each(|part| text.push(part));
        text
    }

    fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        self.buf[from..from + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl Deref for DoubleText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[..usize::from(self.len)]
    }
}

impl fmt::Display for DoubleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self))
    }
}

/// Receives what `core::fmt` prints, without a heap.
struct Scratch {
    buf: [u8; MAX_DOUBLE_CHARS],
    len: usize,
}

impl Write for Scratch {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len + s.len();
        self.buf
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Text of a double as Redis 7.2 prints scores: `inf`, `nan`, integers without a point, otherwise the shortest
/// digits that read back as the same value, in scientific notation only when far from 1.
pub fn format_double(value: f64) -> DoubleText {
    /// Integers up to this size are printed as such, as Redis does: every double in this range that is an integer
    /// is one exactly.
    const LARGEST_INTEGER: f64 = (i64::MAX / 2) as f64;
    if value.is_nan() {
        return DoubleText::new(&[b"nan"]);
    }
    if value.is_infinite() {
        return DoubleText::new(&[if value > 0.0 { b"inf" } else { b"-inf" }]);
    }
    if value == 0.0 {
        return DoubleText::new(&[if value.is_sign_negative() {
            b"-0"
        } else {
            b"0"
        }]);
    }
    if value.abs() <= LARGEST_INTEGER && value.fract() == 0.0 {
        return DoubleText::new(&[&format_i64(value as i64)]);
    }
    format_shortest(value)
}

/// Text of a double as C's `%.17g` prints it: 17 digits without zeros at the end, in scientific notation when its exponent is
/// below -4 or above 16.
pub fn format_double_17(value: f64) -> DoubleText {
    if !value.is_finite() || value == 0.0 {
        return format_double(value);
    }
    let number = Scientific::read(format_args!("{:.16e}", value.abs()));
    let zeros = number
        .digits()
        .iter()
        .rev()
        .take_while(|&&digit| digit == b'0');
    let number = Scientific {
        count: number.count - zeros.count(),
        ..number
    };
    match number.exponent {
        -4..17 => number.plain(sign_of(value)),
        // C prints two digits of the exponent at least.
        exponent => {
            number.with_exponent(sign_of(value), if exponent.abs() < 10 { b"0" } else { b"" })
        }
    }
}

/// Lays out the shortest digits of a finite, non-zero value: `digits × 10^k`.
fn format_shortest(value: f64) -> DoubleText {
    let number = Scientific::read(format_args!("{:e}", value.abs()));
    let (count, exponent) = (number.count as i32, number.exponent);
    let k = exponent - (count - 1);
    let is_plain = if k >= 0 {
        exponent.abs() < count + 7
    } else {
        k > -7 || exponent.abs() < 4
    };
    if is_plain {
        number.plain(sign_of(value))
    } else {
        number.with_exponent(sign_of(value), b"")
    }
}

fn sign_of(value: f64) -> &'static [u8] {
    if value < 0.0 { b"-" } else { b"" }
}

/// A positive number: the first digit is that of `10^exponent`.
#[derive(Clone, Copy)]
struct Scientific {
    digits: [u8; MAX_DIGITS],
    count: usize,
    exponent: i32,
}

impl Scientific {
    /// Reads "d.ddde-7": at most 17 digits, a point, "e-308".
    fn read(printed: fmt::Arguments<'_>) -> Self {
        let mut scratch = Scratch {
            buf: [0; MAX_DOUBLE_CHARS],
            len: 0,
        };
        scratch
            .write_fmt(printed)
            .expect("17 digits and an exponent fit in 32 bytes");
        let printed = &scratch.buf[..scratch.len];
        let e = printed
            .iter()
            .position(|&b| b == b'e')
            .unwrap_or(printed.len());
        let exponent = printed.get(e + 1..).and_then(parse_i64).unwrap_or(0) as i32;
        let mut digits = [0; MAX_DIGITS];
        let mut count = 0;
        for (&byte, slot) in printed[..e].iter().filter(|&&b| b != b'.').zip(&mut digits) {
            *slot = byte;
            count += 1;
        }
        Self {
            digits,
            count,
            exponent,
        }
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    /// As in `0.00123`, `1.23` or `12300`; for exponents near 0.
    fn plain(&self, sign: &[u8]) -> DoubleText {
        const ZEROS: &[u8] = b"00000000000000000000000000000000";
        let digits = self.digits();
        let (point, count) = (self.exponent + 1, self.count as i32);
        if point <= 0 {
            return DoubleText::new(&[sign, b"0.", &ZEROS[..-point as usize], digits]);
        }
        if point >= count {
            return DoubleText::new(&[sign, digits, &ZEROS[..(point - count) as usize]]);
        }
        let (whole, fraction) = digits.split_at(point as usize);
        DoubleText::new(&[sign, whole, b".", fraction])
    }

    /// As in `1.23e+45`, with `zeros` in front of the exponent.
    fn with_exponent(&self, sign: &[u8], zeros: &[u8]) -> DoubleText {
        let (first, others) = self.digits().split_at(1);
        let point: &[u8] = if others.is_empty() { b"" } else { b"." };
        let exponent_sign: &[u8] = if self.exponent < 0 { b"-" } else { b"+" };
        let power = format_i64(i64::from(self.exponent.abs()));
        let exponent = [b"e", exponent_sign, zeros, &power];
        let mut text = DoubleText::new(&[sign, first, point, others]);
        exponent.iter().for_each(|part| text.push(part));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_that_do_not_print_back_as_the_same_text_are_refused() {
        for text in [
            "",
            "-",
            "-0",
            "+1",
            "01",
            "-01",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "100000000000000000000",
            "1a",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        for value in [0, 1, -1, 9, 10, 99, 100, 12345, i64::MAX, i64::MIN] {
            assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
            assert_eq!(&*format_i64(value), value.to_string().as_bytes());
        }
    }

    #[test]
    fn doubles_print_as_redis_7_2_prints_them() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (3.25, "3.25"),
            (1e18, "1000000000000000000"),
            (1e20, "1e+20"),
            (1.5e300, "1.5e+300"),
            (1e-7, "1e-7"),
            (0.0001, "0.0001"),
            (0.000001, "0.000001"),
            (1.23456789e-10, "1.23456789e-10"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (123456.789, "123456.789"),
            (17179869184.5, "17179869184.5"),
            (9007199254740993.0, "9007199254740992"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (-1.1, "-1.1"),
        ];
        for (value, text) in cases {
            assert_eq!(format_double(*value).to_string(), *text);
        }
    }

    #[test]
    fn seventeen_digits_are_those_of_c() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (0.1, "0.10000000000000001"),
            (-2.5, "-2.5"),
            (0.3, "0.29999999999999999"),
            (123_456_789.125, "123456789.125"),
            // Halfway between two texts: the even one.
            (1_234_567_890_123_456.0 + 0.25, "1234567890123456.2"),
            (1_234_567_890_123_456.0 + 0.75, "1234567890123456.8"),
            (0.0001, "0.0001"),
            (0.000_01, "1.0000000000000001e-05"),
            (1e16, "10000000000000000"),
            (12_345_678_901_234_568.0, "12345678901234568"),
            (1e17, "1e+17"),
            (-1.5e300, "-1.5000000000000001e+300"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (value, text) in cases {
            assert_eq!(format_double_17(*value).to_string(), *text);
        }
    }

    proptest! {
        #[test]
        fn every_double_reads_back_as_itself(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format_double(value), format_double_17(value)] {
                prop_assert_eq!(text.to_string().parse::<f64>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn parsing_agrees_with_printing(text in "[-+]?[0-9]{0,21}") {
            let expected = text.parse::<i64>().ok().filter(|v| v.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), expected);
        }
    }
}
