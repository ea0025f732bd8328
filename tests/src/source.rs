//! Rust source text as `tests/architecture.rs` reads it: without comments, literals and tests, and as the paths that
//! it names.
//!
//! It reads what rustfmt writes and no more: an item under `#[cfg(test)]` of a kind that is not known here is an error,
//! never skipped. Names that a macro puts together are not seen.

use std::collections::BTreeSet;

use anyhow::{Context, bail};

/// What an attribute says whose item exists in tests only.
const TEST_ONLY: &str = "#[cfg(test)]";

/// A file's code with every character of comments, strings and tests replaced by a space: its lines keep their number.
#[derive(Debug)]
pub struct Code {
    text: String,
    /// Lines of the file that do not belong to a test.
    pub lines: usize,
}

impl Code {
    /// Reads the text of a file.
    pub fn read(source: &str) -> anyhow::Result<Self> {
        let mut text = blank(source);
        let mut test_lines = 0;
        while let Some(start) = text.find(TEST_ONLY) {
            let item = &text[start + TEST_ONLY.len()..];
            let length = TEST_ONLY.len() + item_length(item)?;
            let tests = &text[start..start + length];
            test_lines += tests.matches('\n').count() + 1;
            let nothing = spaces(tests);
            text.replace_range(start..start + length, &nothing);
        }
        let lines = source.lines().count() - test_lines;
        Ok(Self { text, lines })
    }

    /// The code.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every path of two or more names in the code, `use` trees spelt out, `self` and `super` resolved for a file that
    /// is the module `module` of its crate (the root has no names).
    #[must_use]
    pub fn paths(&self, module: &[&str]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut rest = self.text.as_str();
        while let Some(start) = rest.find(is_name) {
            rest = path(&rest[start..], &mut Vec::new(), &mut |path| {
                if path.len() > 1 {
                    found.insert(resolve(path, module).join("::"));
                }
            });
        }
        found
    }
}

/// Whether the names of `wanted` stand next to each other in `path`: `Instant::now` is in `std::time::Instant::now`.
#[must_use]
pub fn names(path: &str, wanted: &str) -> bool {
    format!("::{path}::").contains(&format!("::{wanted}::"))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads one path, or one `use` tree, that begins at `rest`; answers what follows.
fn path<'a>(
    mut rest: &'a str,
    before: &mut Vec<&'a str>,
    found: &mut dyn FnMut(&[&'a str]),
) -> &'a str {
    let depth = before.len();
    loop {
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        before.push(&rest[..end]);
        rest = &rest[end..];
        let Some(next) = rest.trim_start().strip_prefix("::").map(str::trim_start) else {
            break found(before);
        };
        if let Some(tree) = next.strip_prefix('{') {
            rest = branches(tree, before, found);
            break;
        }
        if !next.starts_with(is_name) {
            break found(before);
        }
        rest = next;
    }
    before.truncate(depth);
    rest
}

/// Reads the branches of a `use` tree behind its `{`; answers what follows its `}`.
fn branches<'a>(
    mut rest: &'a str,
    before: &mut Vec<&'a str>,
    found: &mut dyn FnMut(&[&'a str]),
) -> &'a str {
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        if rest.starts_with(is_name) {
            rest = path(rest, before, found);
            // A new name for it, or a glob, changes nothing about what is named.
            rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
        } else if let Some(next) = rest.chars().next() {
            found(before);
            rest = &rest[next.len_utf8()..];
        } else {
            return rest;
        }
    }
}

fn resolve<'a>(path: &[&'a str], module: &[&'a str]) -> Vec<&'a str> {
    let above = path.iter().take_while(|name| **name == "super").count();
    if above == 0 && path[0] != "self" {
        return path.to_vec();
    }
    let base = &module[..module.len().saturating_sub(above)];
    let rest = &path[above.max(1)..];
    [&["crate"], base, rest].concat()
}

/// The length of the item at the beginning of `rest`, with the attributes before it.
fn item_length(rest: &str) -> anyhow::Result<usize> {
    let mut item = rest.trim_start();
    while item.starts_with("#[") {
        item = item[closing(item)?..].trim_start();
    }
    if let Some(public) = item.strip_prefix("pub") {
        item = public.trim_start();
        if item.starts_with('(') {
            item = item[closing(item)?..].trim_start();
        }
    }
    let start = rest.len() - item.len();
    let keyword = item.split(|c| !is_name(c)).next().unwrap_or_default();
    let is_function = item
        .split_once(['(', '{', ';'])
        .is_some_and(|(head, _)| head.split_whitespace().any(|word| word == "fn"));
    let length = match keyword {
        _ if is_function => body(item)?,
        "mod" | "impl" | "struct" | "enum" | "trait" | "fn" | "async" => body(item)?,
        "use" | "const" | "static" | "type" | "let" => statement(item)?,
        other => bail!("tests/src/source.rs does not know where {other:?} under {TEST_ONLY} ends"),
    };
    Ok(start + length)
}

/// Up to the first `;` outside of all brackets, or the end of the first block.
fn body(item: &str) -> anyhow::Result<usize> {
    let mut at = 0;
    loop {
        at += item[at..].find(['{', '(', '[', ';']).context("no body")?;
        match item.as_bytes()[at] {
            b';' => return Ok(at + 1),
            b'{' => return Ok(at + closing(&item[at..])?),
            _ => at += closing(&item[at..])?,
        }
    }
}

/// Up to the first `;` outside of all brackets.
fn statement(item: &str) -> anyhow::Result<usize> {
    let mut at = 0;
    loop {
        at += item[at..].find(['{', '(', '[', ';']).context("no end")?;
        match item.as_bytes()[at] {
            b';' => return Ok(at + 1),
            _ => at += closing(&item[at..])?,
        }
    }
}

/// Up to the bracket that closes the first one of `text`.
fn closing(text: &str) -> anyhow::Result<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth == 1 => return Ok(at + 1),
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    bail!("a bracket is never closed")
}

/// The text with spaces for its comments and literals.
fn blank(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let in_name = out.ends_with(is_name);
        let length = comment(rest).or_else(|| literal(rest, in_name));
        let (taken, after) = rest.split_at(length.unwrap_or(next.len_utf8()));
        if length.is_some() {
            out.push_str(&spaces(taken));
        } else {
            out.push(next);
        }
        rest = after;
    }
    out
}

fn spaces(text: &str) -> String {
    let space = |c: char| if c == '\n' { c } else { ' ' };
    text.chars().map(space).collect()
}

/// The length of the comment that begins here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*")
        .then(|| rest.find("*/").map_or(rest.len(), |end| end + 2))
}

/// What follows the sign of a raw string.
fn raw_text(rest: &str) -> Option<&str> {
    rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))
}

/// The length of the string or character that begins here.
fn literal(rest: &str, in_name: bool) -> Option<usize> {
    if let Some(raw) = raw_text(rest).filter(|_| !in_name) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let text = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest.len() - text.len() + text.find(&end)? + end.len());
    }
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut inside = rest.char_indices().skip(1);
    if quote == '\'' {
        // A lifetime has no second quote where that of a character would be.
        let (_, first) = inside.next()?;
        let (at, second) = inside.next()?;
        if first != '\\' {
            return (second == '\'').then_some(at + 1);
        }
    }
    while let Some((at, c)) = inside.next() {
        match c {
            '\\' => drop(inside.next()),
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let code = Code::read(text).unwrap();
        code.text().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_the_item_under_the_attribute_is_a_test() {
        for (item, rest) in [
            ("mod tests;", "fn after() {}"),
            ("pub(in crate::plan) mod tests;", "fn after() {}"),
            ("mod tests {\n    fn x() { if a { b } }\n}", "fn after() {}"),
            (
                "mod tests {\n    const X: &str = \"}\";\n}",
                "fn after() {}",
            ),
            ("mod tests {\n    const X: char = '}';\n}", "fn after() {}"),
            (
                "mod tests {\n    // }\n    fn x<'a>() {}\n}",
                "fn after() {}",
            ),
            (
                "mod tests {\n    const X: &str = r#\"\"}\"#;\n}",
                "fn after() {}",
            ),
            ("#[path = \"x.rs\"]\nmod tests;", "fn after() {}"),
            ("use a::{b, c};", "fn after() {}"),
            ("const X: [u8; 2] = [1; 2];", "fn after() {}"),
            (
                "const fn x<A, B>(a: [u8; 2]) -> u8 {\n    1\n}",
                "fn after() {}",
            ),
            (
                "pub fn x(a: A) -> Result<(), E>\nwhere\n    A: B,\n{\n}",
                "fn after() {}",
            ),
            ("impl X {\n    fn a() {}\n}", "fn after() {}"),
        ] {
            let text = format!("fn before() {{}}\n#[cfg(test)]\n{item}\n{rest}\n");
            assert_eq!(code(&text), format!("fn before() {{}} {rest}"), "{item}");
            assert_eq!(Code::read(&text).unwrap().lines, 2, "{item}");
        }
        assert!(Code::read("#[cfg(test)]\nunion X {}\n").is_err());
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text =
            "/// crate::a\nlet x = (\"crate::b\\\"\", b'{', '\\'', 'a'); /* crate::c */ y::<'z>()";
        assert_eq!(code(text), "let x = ( , b , , ); y::<'z>()");
    }

    #[test]
    fn paths_are_spelt_out() {
        let text = "use crate::{a::{self, b::C}, d as e, f::*, g};\nuse super::super::h;\nself::i::j();\n\
                    fn x() -> std::time::Instant { super::k::<crate::l::M>(n::O) }";
        let paths = Code::read(text).unwrap().paths(&["p", "q"]);
        let wanted = [
            "crate::a::b::C",
            "crate::a::self",
            "crate::d",
            "crate::f",
            "crate::g",
            "crate::h",
            "crate::l::M",
            "crate::p::k",
            "crate::p::q::i::j",
            "n::O",
            "std::time::Instant",
        ];
        assert_eq!(paths.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_path_names_what_stands_in_it() {
        assert!(names("std::time::Instant::now", "Instant::now"));
        assert!(names("tokio::time::sleep", "tokio"));
        assert!(!names("tokio_stream::wrappers", "tokio") && !names("a::network", "net"));
    }
}
