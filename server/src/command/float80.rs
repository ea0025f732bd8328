//! Numbers as C programs read them, and the 80-bit floats in which INCRBYFLOAT and HINCRBYFLOAT calculate.
//!
//! Redis adds in `long double`, which on x86 has a mantissa of 64 bits, and prints 17 decimals: that is what makes
//! 0.1 + 0.2 the 0.3 that users expect. Rust has no such type, so [`Float80`] is made of integers here; reading, adding
//! and printing each round once, to the nearest, as the C library and the processor do.
//!
//! Owns: the grammar of `strtod` ([`Written`]), [`Float80`]. Called by `args.rs`, and by the two commands.

use super::big::Big;

/// Longest text of a number that Redis reads as a `long double` (`MAX_LONG_DOUBLE_CHARS`), its end included.
const MAX_TEXT_BYTES: usize = 5 * 1024;
/// Decimals that are printed.
const PRINTED_DECIMALS: usize = 17;
const TEN_TO_DECIMALS: u128 = 100_000_000_000_000_000;
/// Decimal orders of magnitude beyond which a number is surely too large or too small for every format here.
const MAX_DECIMAL_ORDER: i64 = 5100;

/// A number as written, checked for its grammar only. There is no NaN: nobody accepts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    negative: bool,
    form: Form<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Infinity,
    Digits {
        radix: Radix,
        whole: &'a [u8],
        fraction: &'a [u8],
        exponent: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Radix {
    /// The exponent is one of ten.
    Decimal,
    /// The exponent is one of two.
    Hexadecimal,
}

impl<'a> Written<'a> {
    /// Reads all of `text`: `[+-]digits[.digits][e[+-]digits]`, `0x…[p[+-]digits]`, `inf`, `infinity`, in any case.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            let form = Form::Infinity;
            return Some(Self { negative, form });
        }
        let (radix, rest) = match rest {
            [b'0', b'x' | b'X', rest @ ..] => (Radix::Hexadecimal, rest),
            _ => (Radix::Decimal, rest),
        };
        let is_digit = |byte: &u8| match radix {
            Radix::Decimal => byte.is_ascii_digit(),
            Radix::Hexadecimal => byte.is_ascii_hexdigit(),
        };
        let split = |bytes: &'a [u8]| {
            let end = bytes.iter().position(|byte| !is_digit(byte));
            bytes.split_at(end.unwrap_or(bytes.len()))
        };
        let (whole, rest) = split(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split(rest),
            _ => (&rest[..0], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match (radix, rest) {
            (_, []) => 0,
            (Radix::Decimal, [b'e' | b'E', digits @ ..])
            | (Radix::Hexadecimal, [b'p' | b'P', digits @ ..]) => parse_exponent(digits)?,
            (Radix::Decimal | Radix::Hexadecimal, _) => return None,
        };
        let form = Form::Digits {
            radix,
            whole,
            fraction,
            exponent,
        };
        Some(Self { negative, form })
    }

    /// The number rounded to a format. `None` where it is too large for it, or too small but not 0.
    fn round_to(self, format: Format) -> Option<Float80> {
        let magnitude = match self.form {
            Form::Infinity => Magnitude::Infinite,
            Form::Digits {
                radix,
                whole,
                fraction,
                exponent,
            } => {
                let is_zero = |digits: &[u8]| digits.iter().all(|digit| *digit == b'0');
                if is_zero(whole) && is_zero(fraction) {
                    Magnitude::Zero
                } else {
                    let (mantissa, exponent) = match radix {
                        Radix::Decimal => from_decimal(whole, fraction, exponent)?,
                        Radix::Hexadecimal => from_hexadecimal(whole, fraction, exponent)?,
                    };
                    match format.round(mantissa, exponent) {
                        Magnitude::Infinite | Magnitude::Zero => return None,
                        finite @ Magnitude::Finite { .. } => finite,
                    }
                }
            }
        };
        Some(Float80 {
            negative: self.negative,
            magnitude,
        })
    }

    /// The double nearest to the number; `None` as for [`Float80::parse`]. `text` is what was parsed.
    pub(super) fn to_double(self, text: &[u8]) -> Option<f64> {
        match self.form {
            Form::Digits {
                radix: Radix::Decimal,
                whole,
                fraction,
                ..
            } => {
                let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
                let is_zero = || whole.iter().chain(fraction).all(|digit| *digit == b'0');
                (value.is_finite() && (value != 0.0 || is_zero())).then_some(value)
            }
            Form::Infinity
            | Form::Digits {
                radix: Radix::Hexadecimal,
                ..
            } => Some(self.round_to(DOUBLE)?.to_double()),
        }
    }
}

/// `[+-]digits`, cut to what cannot overflow in what follows.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const LIMIT: i64 = 1 << 40;
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: i64, digit: &u8| (sum * 10 + i64::from(digit - b'0')).min(LIMIT);
    Some(sign * digits.iter().fold(0, add))
}

/// Digits with an exponent of ten as `mantissa × 2^exponent`, as [`Big::leading`] gives it. Not all digits are 0.
fn from_decimal(whole: &[u8], fraction: &[u8], exponent: i64) -> Option<(u128, i64)> {
    let digits = || {
        let all = whole.iter().chain(fraction).copied();
        all.skip_while(|digit| *digit == b'0')
    };
    let count = digits().count() as i64;
    let exponent = exponent - fraction.len() as i64;
    if (count + exponent).abs() > MAX_DECIMAL_ORDER || count > MAX_TEXT_BYTES as i64 {
        return None;
    }
    let ten_exponent = i32::try_from(exponent).ok()?;
    let mut number = Big::from_digits(digits());
    if ten_exponent >= 0 {
        number.multiply_power(10, ten_exponent.unsigned_abs());
        let (mantissa, exponent) = number.leading();
        return Some((mantissa, i64::from(exponent)));
    }
    let mut divisor = Big::shifted(1, 0);
    divisor.multiply_power(5, ten_exponent.unsigned_abs());
    let (mantissa, exponent) = number.divide(divisor);
    Some((mantissa, i64::from(exponent) + i64::from(ten_exponent)))
}

/// Hexadecimal digits with an exponent of two, likewise.
fn from_hexadecimal(whole: &[u8], fraction: &[u8], exponent: i64) -> Option<(u128, i64)> {
    const MOST: u32 = 120;
    let mut mantissa = 0u128;
    let mut exponent = exponent - 4 * fraction.len() as i64;
    for byte in whole.iter().chain(fraction) {
        let digit = u128::from(char::from(*byte).to_digit(16)?);
        if 128 - mantissa.leading_zeros() <= MOST {
            mantissa = mantissa << 4 | digit;
        } else {
            mantissa |= u128::from(digit != 0);
            exponent += 4;
        }
    }
    Some((mantissa, exponent))
}

/// A binary format: bits of the mantissa, and the exponents of a mantissa's lowest bit.
#[derive(Clone, Copy)]
struct Format {
    bits: i64,
    lowest: i64,
    /// Of a mantissa with its highest bit at position 63.
    highest: i64,
}

/// x87's extended precision.
const EXTENDED: Format = Format {
    bits: 64,
    lowest: -16445,
    highest: 16383 - 63,
};
const DOUBLE: Format = Format {
    bits: 53,
    lowest: -1074,
    highest: 1023 - 63,
};

impl Format {
    /// Rounds to the nearest, to the even one of two equally near.
    fn round(self, mantissa: u128, exponent: i64) -> Magnitude {
        let bits = i64::from(128 - mantissa.leading_zeros());
        let surplus = (bits - self.bits).max(self.lowest - exponent);
        let (kept, exponent) = match u32::try_from(surplus) {
            Err(_) | Ok(0) => (mantissa, exponent),
            Ok(surplus @ 1..=127) => {
                let (kept, rest) = (mantissa >> surplus, mantissa & ((1 << surplus) - 1));
                let half = 1 << (surplus - 1);
                let up = rest > half || (rest == half && kept & 1 == 1);
                (kept + u128::from(up), exponent + i64::from(surplus))
            }
            Ok(128..) => (0, 0),
        };
        if kept == 0 {
            return Magnitude::Zero;
        }
        // Rounding up may have made one bit more, which is a power of two then.
        let (kept, exponent) = match u64::try_from(kept) {
            Ok(kept) => (kept, exponent),
            Err(_) => ((kept >> 1) as u64, exponent + 1),
        };
        let shift = kept.leading_zeros();
        let exponent = exponent - i64::from(shift);
        if exponent > self.highest {
            return Magnitude::Infinite;
        }
        Magnitude::Finite {
            mantissa: kept << shift,
            // Between `lowest - 63` and `highest`.
            exponent: exponent as i32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    Zero,
    /// `mantissa × 2^exponent`, the mantissa's highest bit set.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
}

/// An 80-bit float of x86, without its NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float80 {
    negative: bool,
    magnitude: Magnitude,
}

impl Float80 {
    /// Zero.
    pub const ZERO: Self = Self {
        negative: false,
        magnitude: Magnitude::Zero,
    };

    /// The number that `text` stands for, rounded; `None` where Redis refuses it: no number, NaN, too large, too small
    /// to be told from 0, too long.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= MAX_TEXT_BYTES {
            return None;
        }
        Written::parse(text)?.round_to(EXTENDED)
    }

    /// Whether it is infinite.
    pub fn is_infinite(self) -> bool {
        self.magnitude == Magnitude::Infinite
    }

    /// The sum, rounded; `None` where it is not finite.
    pub fn plus(self, other: Self) -> Option<Self> {
        let sum = match (self.magnitude, other.magnitude) {
            (Magnitude::Infinite, _) | (_, Magnitude::Infinite) => return None,
            (Magnitude::Zero, _) => other,
            (_, Magnitude::Zero) => self,
            (
                Magnitude::Finite {
                    mantissa: one,
                    exponent: exponent_one,
                },
                Magnitude::Finite {
                    mantissa: two,
                    exponent: exponent_two,
                },
            ) => {
                let one = (self.negative, one, exponent_one);
                let two = (other.negative, two, exponent_two);
                // The larger first: exponents decide, since all mantissas are equally long.
                let one_is_larger = (one.2, one.1) >= (two.2, two.1);
                let (large, small) = if one_is_larger {
                    (one, two)
                } else {
                    (two, one)
                };
                add_magnitudes(large, small)
            }
        };
        (!sum.is_infinite()).then_some(sum)
    }

    /// The number without exponent, with up to 17 decimals and no zeros behind the last: `%.17Lf` cut short.
    pub fn human(self) -> String {
        let Magnitude::Finite { mantissa, exponent } = self.magnitude else {
            return if self.is_infinite() { "inf" } else { "0" }.to_owned();
        };
        let (whole, fraction) = match usize::try_from(exponent) {
            Ok(exponent) => (Big::shifted(mantissa, exponent).decimal(), 0),
            Err(_) => {
                let (whole, fraction) = split_point(mantissa, exponent.unsigned_abs());
                (whole.to_string(), fraction)
            }
        };
        let sign = if self.negative { "-" } else { "" };
        if fraction == 0 {
            // `-0` is printed as 0.
            let sign = if whole == "0" { "" } else { sign };
            return format!("{sign}{whole}");
        }
        let text = format!("{sign}{whole}.{fraction:0PRINTED_DECIMALS$}");
        text.trim_end_matches('0').to_owned()
    }

    /// The value of one that was rounded to a double.
    fn to_double(self) -> f64 {
        let value = match self.magnitude {
            Magnitude::Zero => 0.0,
            Magnitude::Infinite => f64::INFINITY,
            Magnitude::Finite { mantissa, exponent } => {
                // In two steps: each factor is a double although the whole power may not be.
                let half = exponent / 2;
                let whole = mantissa as f64;
                whole * 2f64.powi(half) * 2f64.powi(exponent - half)
            }
        };
        if self.negative { -value } else { value }
    }
}

/// Adds two finite numbers (sign, mantissa, exponent), the one with the larger magnitude first.
fn add_magnitudes(large: (bool, u64, i32), small: (bool, u64, i32)) -> Float80 {
    /// Bits below the larger mantissa; one bit above it is left for the carry.
    const GUARD: u32 = 62;
    let (negative, mantissa, exponent) = large;
    let wide = u128::from(mantissa) << GUARD;
    let other = u128::from(small.1) << GUARD;
    let distance = exponent.abs_diff(small.2);
    let other = if distance < 127 {
        let lost = other & ((1 << distance) - 1) != 0;
        other >> distance | u128::from(lost)
    } else {
        1
    };
    let sum = if negative == small.0 {
        wide + other
    } else {
        wide - other
    };
    let magnitude = match sum {
        0 => Magnitude::Zero,
        _ => EXTENDED.round(sum, i64::from(exponent) - i64::from(GUARD)),
    };
    Float80 {
        negative: negative && sum != 0,
        magnitude,
    }
}

/// `mantissa / 2^shift` as whole number and 17 decimals, rounded to the nearest even.
fn split_point(mantissa: u64, shift: u32) -> (u64, u128) {
    let (whole, rest) = match shift {
        0..=63 => (mantissa >> shift, mantissa & ((1 << shift) - 1)),
        64.. => (0, mantissa),
    };
    // Below 2^121, and by 2^shift less than one unit of the whole.
    let scaled = u128::from(rest) * TEN_TO_DECIMALS;
    let fraction = match shift {
        0 => 0,
        1..=127 => {
            let (kept, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
            let half = 1 << (shift - 1);
            kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
        }
        128.. => 0,
    };
    if fraction == TEN_TO_DECIMALS {
        (whole + 1, 0)
    } else {
        (whole, fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(one: &str, other: &str) -> Option<String> {
        let parse = |text: &str| Float80::parse(text.as_bytes()).unwrap();
        parse(one).plus(parse(other)).map(Float80::human)
    }

    #[test]
    fn sums_are_those_of_redis() {
        for (one, other, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("3.0e3", "200", "3200"),
            ("5.0e3", "-5000", "0"),
            ("0.5", "-1", "-0.5"),
            ("1e21", "0", "1000000000000000000000"),
            ("-0.0", "0", "0"),
            ("1e-30", "0", "0"),
            ("-1e-30", "0", "0"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("0x10", "0x.8p1", "17"),
        ] {
            assert_eq!(
                sum(one, other).as_deref(),
                Some(expected),
                "{one} + {other}"
            );
        }
        assert_eq!(sum("1e4932", "1e4932"), None);
        assert_eq!(sum("inf", "1"), None);
    }

    #[test]
    fn what_c_refuses_is_refused() {
        for bad in [
            "", " 1", "1 ", "1e", "1e+", ".", "e5", "nan", "0x", "0xg", "1p3", "0x1e+5", "--1",
            "1_0", "1e5000", "1e-5000", "infin",
        ] {
            assert_eq!(Float80::parse(bad.as_bytes()), None, "{bad:?}");
        }
        for good in [
            "1.",
            ".5",
            "+1",
            "-.5e-3",
            "InF",
            "-INFINITY",
            "0x1P-3",
            "0e99999",
            "1e4932",
            "3.7e-4951",
        ] {
            assert!(Float80::parse(good.as_bytes()).is_some(), "{good:?}");
        }
    }

    #[test]
    fn hexadecimal_doubles_are_exact() {
        let read =
            |text: &str| Written::parse(text.as_bytes()).and_then(|w| w.to_double(text.as_bytes()));
        assert_eq!(read("0x1.8p1"), Some(3.0));
        assert_eq!(read("-0xff"), Some(-255.0));
        assert_eq!(read("0x1p-1074"), Some(5e-324));
        assert_eq!(read("0x1p1024"), None);
        assert_eq!(read("0x1.fffffffffffff8p0"), Some(2.0));
    }

    proptest! {
        /// Where the exact sum has at most 64 bits, nothing is rounded: integers tell.
        #[test]
        fn sums_of_integers_are_exact(one in -(1i64 << 61)..1 << 61, other in -(1i64 << 61)..1 << 61) {
            prop_assert_eq!(sum(&one.to_string(), &other.to_string()), Some((one + other).to_string()));
        }

        /// A double is a number of 64 bits too: rounded to 53 it is what Rust reads.
        #[test]
        fn decimals_round_to_the_doubles_of_rust(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite() && value != 0.0);
            let text = format!("{value:e}");
            let read = Written::parse(text.as_bytes()).unwrap().round_to(DOUBLE).unwrap();
            prop_assert_eq!(read.to_double().to_bits(), bits);
        }

        #[test]
        fn nothing_that_is_printed_changes_when_it_is_read_again(one in -1e15f64..1e15, other in -1e3f64..1e3) {
            let once = sum(&one.to_string(), &other.to_string()).unwrap();
            prop_assert!(Float80::parse(once.as_bytes()).is_some());
            prop_assert!(once == "0" || !once.contains('.') || !once.ends_with('0'));
        }

        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _read = Float80::parse(&text);
        }

        #[test]
        fn any_number_is_printed_without_panic(text in "[+-]?[0-9]{1,40}(\\.[0-9]{0,40})?(e[+-]?[0-9]{1,4})?") {
            if let Some(value) = Float80::parse(text.as_bytes()) {
                let _text = value.human();
            }
        }
    }
}
