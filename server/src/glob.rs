//! Redis's glob patterns: `*`, `?`, `[a-z]`, `[^a]` and `\` escapes.
//!
//! Used by KEYS, SCAN, CONFIG GET and pub/sub. Runs in time proportional to pattern × text at worst (a `*` is
//! retried from the last one only), so no pattern from a client can make it explode.

/// Whether letters must agree in case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// `a` and `A` differ.
    Sensitive,
    /// `a` and `A` are the same.
    Insensitive,
}

/// Whether the whole of `text` matches `pattern`. An empty text matches `*`, and no other pattern that is not empty, however
/// many `*` it has: so it is in Redis 7.2.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty() || pattern == b"*";
    }
    let (mut p, mut t) = (0, 0);
    // Where to go on when a later part fails: behind the last `*`, with one more byte of text given to it.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p..), text.get(t)) {
            (Some([]) | None, None) => return true,
            (Some(rest @ [_, ..]), Some(&byte)) => one(rest, byte, case),
            (Some(_) | None, _) => None,
        };
        match (step, retry) {
            (Some(width), _) => {
                p += width;
                t += 1;
            }
            (None, Some((after_star, from))) if from < text.len() => {
                retry = Some((after_star, from + 1));
                (p, t) = (after_star, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Whether the pattern has a character with a special meaning.
pub fn is_pattern(pattern: &[u8]) -> bool {
    pattern
        .iter()
        .any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'))
}

/// Matches one byte against the element at the front of a non-empty pattern; answers the element's width.
fn one(pattern: &[u8], byte: u8, case: Case) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (hit, width) = in_class(class, byte, case);
            hit.then_some(width + 1)
        }
        [b'\\', escaped, ..] => same(*escaped, byte, case).then_some(2),
        [literal, ..] => same(*literal, byte, case).then_some(1),
        [] => None,
    }
}

/// Looks `byte` up in a class whose `[` was read; answers the width up to and with its `]`, or up to the end of
/// the pattern where that is missing.
fn in_class(class: &[u8], byte: u8, case: Case) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    loop {
        match class.get(at..).unwrap_or(&[]) {
            [] => return (hit != negated, at),
            [b']', ..] => return (hit != negated, at + 1),
            [b'\\', escaped, ..] => {
                hit |= same(*escaped, byte, case);
                at += 2;
            }
            [low, b'-', high, ..] => {
                hit |= in_range(*low, *high, byte, case);
                at += 3;
            }
            [literal, ..] => {
                hit |= same(*literal, byte, case);
                at += 1;
            }
        }
    }
}

fn in_range(low: u8, high: u8, byte: u8, case: Case) -> bool {
    let fold = |b: u8| {
        if case == Case::Insensitive {
            b.to_ascii_lowercase()
        } else {
            b
        }
    };
    let (low, high, byte) = (fold(low), fold(high), fold(byte));
    (low.min(high)..=low.max(high)).contains(&byte)
}

fn same(a: u8, b: u8, case: Case) -> bool {
    match case {
        Case::Sensitive => a == b,
        Case::Insensitive => a.eq_ignore_ascii_case(&b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hit(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive)
    }

    #[test]
    fn patterns_mean_what_they_mean_in_redis() {
        for (pattern, text) in [
            ("*", ""),
            ("", ""),
            ("h?llo", "hello"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hbllo"),
            (r"\*", "*"),
            (r"[\]]", "]"),
            ("a*b*c", "a1b2b3c"),
            ("**a**", "a"),
            ("[a", "a"),
            ("*?", "x"),
            (r"a\", r"a\"),
            ("**", "a"),
            ("a**", "a"),
        ] {
            assert!(hit(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("h?llo", "hllo"),
            ("h[ae]llo", "hillo"),
            ("h[^e]llo", "hello"),
            ("a*b", "ac"),
            (r"\*", "a"),
            ("?", ""),
            ("**", ""),
            ("***", ""),
            ("*a", "b"),
            ("HELLO", "hello"),
        ] {
            assert!(!hit(pattern, text), "{pattern} {text}");
        }
        assert!(matches(b"MAX[A-Z]*", b"maxmemory", Case::Insensitive));
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!hit(&pattern, &"a".repeat(5000)));
    }

    /// The obvious recursive definition, for short inputs without classes.
    fn model(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| model(rest, &text[skip..])),
            ([b'?', p @ ..], [_, t @ ..]) => model(p, t),
            ([a, p @ ..], [b, t @ ..]) => a == b && model(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_recursive_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let expected = match text.as_str() {
                "" => pattern.is_empty() || pattern == "*",
                _ => model(pattern.as_bytes(), text.as_bytes()),
            };
            prop_assert_eq!(hit(&pattern, &text), expected);
        }

        #[test]
        fn garbage_never_panics(pattern in proptest::collection::vec(any::<u8>(), 0..20), text in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = matches(&pattern, &text, Case::Insensitive);
        }
    }
}
