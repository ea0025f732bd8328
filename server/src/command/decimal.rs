//! Sums of decimal texts, as INCRBYFLOAT and HINCRBYFLOAT answer them.
//!
//! Redis adds in the 80-bit floats of x86 and prints 17 decimals, which makes 0.1 + 0.2 the 0.3
//! that users expect. We add decimals exactly wherever 18 of them and 20 digits in front of the
//! point suffice, and fall back to doubles beyond.

/// Decimals of the exact sums.
const SCALE_DIGITS: i32 = 18;
/// Decimals that are printed.
const PRINTED_DECIMALS: usize = 17;

/// The sum of two numbers, given as the texts and their values: without exponent and trailing
/// zeros. `None` if it is not finite.
pub fn add(one: (&[u8], f64), other: (&[u8], f64)) -> Option<String> {
    let exact = scaled(one.0)
        .zip(scaled(other.0))
        .and_then(|(a, b)| a.checked_add(b));
    match exact {
        Some(sum) => Some(print_scaled(sum)),
        None => {
            let sum = one.1 + other.1;
            sum.is_finite().then(|| print_double(sum))
        }
    }
}

/// The number in units of the last decimal, if it is exactly so many.
fn scaled(text: &[u8]) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (digits, exponent) = match digits
        .iter()
        .position(|byte| byte.eq_ignore_ascii_case(&b'e'))
    {
        Some(at) => {
            let exponent = std::str::from_utf8(&digits[at + 1..]).ok()?;
            (&digits[..at], exponent.parse::<i16>().ok()?)
        }
        None => (digits, 0),
    };
    let mut value: i128 = 0;
    let mut decimals: Option<i32> = None;
    for &byte in digits {
        match byte {
            b'.' if decimals.is_none() => decimals = Some(0),
            b'0'..=b'9' => {
                value = value
                    .checked_mul(10)?
                    .checked_add(i128::from(byte - b'0'))?;
                decimals = decimals.map(|count| count + 1);
            }
            _ => return None,
        }
    }
    let shift = SCALE_DIGITS + i32::from(exponent) - decimals.unwrap_or(0);
    let factor = 10i128.checked_pow(u32::try_from(shift).ok()?)?;
    let value = value.checked_mul(factor)?;
    Some(if negative { -value } else { value })
}

fn print_scaled(value: i128) -> String {
    let unit = 10u128.pow(SCALE_DIGITS.unsigned_abs() - PRINTED_DECIMALS as u32);
    let rounded = (value.unsigned_abs() + unit / 2) / unit;
    let one = 10u128.pow(PRINTED_DECIMALS as u32);
    let sign = if value < 0 && rounded > 0 { "-" } else { "" };
    let text = format!(
        "{sign}{}.{:0PRINTED_DECIMALS$}",
        rounded / one,
        rounded % one
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A double without exponent and trailing zeros, with at most 17 decimals.
fn print_double(value: f64) -> String {
    let shortest = format!("{value}");
    let decimals = shortest.split('.').nth(1).map_or(0, str::len);
    if decimals <= PRINTED_DECIMALS {
        return shortest;
    }
    let cut = format!("{value:.PRINTED_DECIMALS$}");
    cut.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(one: &str, other: &str) -> Option<String> {
        let value = |text: &str| text.parse().unwrap();
        add(
            (one.as_bytes(), value(one)),
            (other.as_bytes(), value(other)),
        )
    }

    #[test]
    fn sums_are_those_that_people_expect() {
        for (one, other, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("3.0e3", "200", "3200"),
            ("5.0e3", "-5000", "0"),
            ("0.5", "-1", "-0.5"),
            ("0.024390243902439025", "0", "0.02439024390243903"),
            ("1e21", "0", "1000000000000000000000"),
            ("-0.0", "0", "0"),
            ("1e-30", "0", "0"),
        ] {
            assert_eq!(
                sum(one, other).as_deref(),
                Some(expected),
                "{one} + {other}"
            );
        }
        assert_eq!(sum("1.7e308", "1.7e308"), None);
    }

    #[test]
    fn doubles_have_neither_exponent_nor_trailing_zeros() {
        assert_eq!(print_double(3.0), "3");
        assert_eq!(print_double(1e21), "1000000000000000000000");
        assert_eq!(print_double(-0.5), "-0.5");
    }
}
