//! Characters that differ in case only, as one: Unicode's simple case folding, a character at a time.
//!
//! It is what regular expressions do when they ignore case: `K` and the Kelvin sign are `k`, `ẞ` is `ß` but
//! not `ss`. Where a class of characters has a lower-case one, that stands for all.

use std::sync::OnceLock;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
use rustc_hash::FxHashMap;

/// What stands for a character.
pub(super) fn folded(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    table().get(&c).copied().unwrap_or(c)
}

/// Appends a text, folded.
pub(super) fn put_folded(out: &mut Vec<u8>, text: &str) {
    if text.is_ascii() {
        out.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
        return;
    }
    let mut bytes = [0; 4];
    for c in text.chars() {
        out.extend_from_slice(folded(c).encode_utf8(&mut bytes).as_bytes());
    }
}

/// Appends bytes that may not be UTF-8 everywhere: what is, folded, the rest as it is.
pub(super) fn put_folded_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        put_folded(out, chunk.valid());
        out.extend_from_slice(chunk.invalid());
    }
}

/// The characters that something else stands for.
fn table() -> &'static FxHashMap<char, char> {
    static TABLE: OnceLock<FxHashMap<char, char>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let changes =
            |c: &char| !c.is_ascii() && c.is_alphanumeric() || ('\u{345}'..='\u{24ff}').contains(c);
        let all = ('\u{80}'..='\u{1ffff}').filter(changes);
        all.map(|c| (c, lowest(c)))
            .filter(|(c, low)| c != low)
            .collect()
    })
}

/// The lower case of the first of the characters that differ from this one in case only.
fn lowest(c: char) -> char {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    if class.try_case_fold_simple().is_err() {
        return c;
    }
    let first = class.iter().next().map_or(c, |range| range.start());
    let mut lower = first.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(low), None) if class.iter().any(|r| (r.start()..=r.end()).contains(&low)) => low,
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_for_all() {
        let all = |text: &str| text.chars().map(folded).collect::<String>();
        assert_eq!(all("ABCxyz1"), "abcxyz1");
        assert_eq!(all("ÄÖÜ ß ẞ"), "äöü ß ß");
        assert_eq!(all("Kſς ΣΜµ"), all("ksσ σμΜ"));
        assert_eq!(all("Ⓐ\u{345}"), all("ⓐι"));
        assert_eq!(all("日本 İ"), "日本 İ");
        let mut out = Vec::new();
        put_folded_bytes(&mut out, b"A\xffB\xc3\x84\xc3");
        assert_eq!(out, b"a\xffb\xc3\xa4\xc3");
    }
}
