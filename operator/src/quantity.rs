//! Kubernetes quantities (`8Gi`, `500m`, `1e3`) as numbers.
//!
//! Used where a size has to be compared; objects keep the text that the user wrote.

/// The value of a quantity in its unit, rounded up to a whole number; `None` if the text is no quantity, is
/// negative, or is beyond what 98 bits hold.
pub fn parse(text: &str) -> Option<u128> {
    nanos(text).map(|nanos| nanos.div_ceil(NANOS))
}

/// Whether two texts are the same quantity: the API server rewrites `0.5` as `500m` and `1.5Gi` as `1536Mi`.
pub fn same(one: &str, other: &str) -> bool {
    nanos(one).is_some_and(|one| nanos(other) == Some(one))
}

/// Whether one quantity is more than another; `false` where a text is none.
pub fn exceeds(one: &str, other: &str) -> bool {
    nanos(one)
        .zip(nanos(other))
        .is_some_and(|(one, other)| one > other)
}

/// Parts of a unit that Kubernetes still tells apart.
const NANOS: u128 = 1_000_000_000;

/// The value in billionths, rounded up as Kubernetes does with what is finer.
fn nanos(text: &str) -> Option<u128> {
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
    let nanos = digits.checked_mul(factor)?.checked_mul(NANOS)?;
    Some(nanos.div_ceil(divisor))
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_quantity_or_none(
            text in prop_oneof![
                "\\PC{0,40}",
                "[0-9]{0,26}(\\.[0-9]{0,3})?([KMGTPE]i|[kMGTPEmun])?",
                "[0-9]{1,24}[eE][-+]?[0-9]{0,12}",
            ],
        ) {
            prop_assert_eq!(same(&text, &text), parse(&text).is_some());
        }

        #[test]
        fn every_way_to_write_a_number_means_it(number in 0_u64..=u64::MAX >> 20) {
            let wanted = Some(u128::from(number));
            prop_assert_eq!(parse(&number.to_string()), wanted);
            prop_assert_eq!(parse(&format!("{number}e0")), wanted);
            for (one, other) in [
                (format!("{number}Mi"), (number << 20).to_string()),
                (format!("{number}k"), format!("{number}000")),
                (format!("{number}m"), format!("{number}e-3")),
            ] {
                prop_assert!(same(&one, &other), "{} {}", one, other);
            }
            // Rounded up: nobody gets less than was asked for.
            let thousandths = parse(&format!("{number}m"));
            prop_assert_eq!(thousandths, wanted.map(|n| n.div_ceil(1000)));
        }
    }

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
    fn what_the_api_server_writes_is_the_same() {
        let pairs = [
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1000m", "1"),
            ("1e3", "1k"),
            ("100m", "0.1"),
            ("0.0000000001", "1n"),
        ];
        for (written, stored) in pairs {
            assert!(same(written, stored), "{written} {stored}");
        }
        for (one, other) in [("100m", "500m"), ("1Gi", "1G"), ("1", "2"), ("x", "x")] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn less_than_a_unit_counts_in_a_comparison() {
        for (more, less) in [("600m", "0.5"), ("1Gi", "1G"), ("2", "1500m")] {
            assert!(exceeds(more, less) && !exceeds(less, more), "{more} {less}");
        }
        assert!(!exceeds("500m", "0.5") && !exceeds("x", "1") && !exceeds("1", "x"));
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
