//! Kubernetes quantities (`8Gi`, `500m`, `1e3`) as whole numbers of their unit, rounded up.
//!
//! Used where a size has to be compared; objects keep the text that the user wrote.

/// The value of a quantity, rounded up to a whole number; `None` if the text is no quantity, is negative, or
/// is beyond what 127 bits hold.
pub fn parse(text: &str) -> Option<u128> {
    let number_end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || number.len() > MAX_DIGITS
    {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, divisor) = scale(suffix)?;
    let divisor = divisor.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    Some(digits.checked_mul(factor)?.div_ceil(divisor))
}

/// More digits than any size has.
const MAX_DIGITS: usize = 24;

/// Factor and divisor that a suffix stands for.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    const SMALL: [&str; 3] = ["m", "u", "n"];
    let power = |index: usize| u32::try_from(index + 1).ok();
    if suffix.is_empty() {
        return Some((1, 1));
    }
    if let Some(index) = BINARY.iter().position(|s| *s == suffix) {
        return Some((1024u128.checked_pow(power(index)?)?, 1));
    }
    if let Some(index) = DECIMAL.iter().position(|s| *s == suffix) {
        return Some((1000u128.checked_pow(power(index)?)?, 1));
    }
    if let Some(index) = SMALL.iter().position(|s| *s == suffix) {
        return Some((1, 1000u128.checked_pow(power(index)?)?));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let magnitude = 10u128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 {
        (1, magnitude)
    } else {
        (magnitude, 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let cases = [
            ("0", 0),
            ("8Gi", 8 << 30),
            ("1.5Ki", 1536),
            ("500m", 1),
            ("1500m", 2),
            ("1e3", 1000),
            ("2E", 2_000_000_000_000_000_000),
            ("100M", 100_000_000),
            (".5k", 500),
            ("5.", 5),
            ("1e-1", 1),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "Gi",
            "-1",
            "1.2.3",
            "1 Gi",
            "8GB",
            "8gi",
            "1e",
            "1e99",
            "é",
            ".",
            "99999999999999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
