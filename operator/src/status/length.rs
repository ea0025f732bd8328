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
}
