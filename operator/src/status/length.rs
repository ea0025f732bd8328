//! Texts that fit into the fields they are written to. Pure.

/// The end of a text that was cut.
pub const CUT_MARK: char = '…';

/// The text, or its beginning and [`CUT_MARK`] where it has more than `max_chars` characters.
#[must_use]
pub fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().nth(max_chars).is_none() {
        return text.to_owned();
    }
    let kept = text.chars().take(max_chars.saturating_sub(1));
    kept.chain([CUT_MARK]).collect()
}

/// The same by bytes of UTF-8, as Kubernetes counts some fields; `max_bytes` has room for the mark.
#[must_use]
pub fn cut_to_bytes(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(CUT_MARK.len_utf8()));
    format!("{}{CUT_MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_characters_and_says_so() {
        for (text, fitting) in [
            ("", ""),
            ("four", "four"),
            ("fives", "fiv…"),
            ("äöüß", "äöüß"),
            ("äöüßé", "äöü…"),
        ] {
            assert_eq!(cut(text, 4), fitting);
        }
    }

    #[test]
    fn a_text_is_cut_by_bytes_between_characters() {
        for (text, fitting) in [
            ("", ""),
            ("sixsix", "sixsix"),
            ("sevenby", "sev…"),
            ("äöü", "äöü"),
            ("äöüß", "ä…"),
        ] {
            assert_eq!(cut_to_bytes(text, 6), fitting);
        }
    }
}
