//! Unicode simple case folding, which maps characters that differ in case only to the same character.
//!
//! The equivalence is that of case-insensitive regular expressions: `K` and the Kelvin sign fold to `k`, and `ẞ`
//! to `ß` but not to `ss`. If a class of equivalent characters has a lower-case one, it is the folded character.

use std::sync::OnceLock;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
use rustc_hash::FxHashMap;

/// The folded character of `c`.
pub(crate) fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    folded_chars().get(&c).copied().unwrap_or(c)
}

/// Appends `text`, folded.
pub(crate) fn put_folded(out: &mut Vec<u8>, text: &str) {
    if text.is_ascii() {
        out.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
        return;
    }
    let mut bytes = [0; 4];
    for c in text.chars() {
        out.extend_from_slice(fold_char(c).encode_utf8(&mut bytes).as_bytes());
    }
}

/// Appends `bytes`, with its UTF-8 parts folded and all other bytes unchanged.
pub(crate) fn put_folded_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        put_folded(out, chunk.valid());
        out.extend_from_slice(chunk.invalid());
    }
}

/// Appends `text` with full case folding, which also maps characters to several: `ß` and `ẞ` to `ss`.
///
/// Texts whose `str.casefold()` in Python are equal are equal, and no others.
pub(crate) fn put_fully_folded(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c.to_ascii_lowercase());
            continue;
        }
        match expanded_chars().get(&c) {
            Some(several) => out.push_str(several),
            None => out.push(fold_char(c)),
        }
    }
}

/// The folded characters of each character that full case folding maps to several.
fn expanded_chars() -> &'static FxHashMap<char, String> {
    static EXPANDED: OnceLock<FxHashMap<char, String>> = OnceLock::new();
    EXPANDED.get_or_init(|| {
        // No character above U+FFFF has several.
        let all = '\u{80}'..='\u{ffff}';
        all.filter_map(|c| Some((c, expanded(c)?))).collect()
    })
}

/// The folded characters of `c` if full case folding maps it to several: those of its upper case, as Unicode's
/// `SpecialCasing` defines both for the same ligatures and accented letters. U+0130 alone has them in its lower case.
fn expanded(c: char) -> Option<String> {
    let lower: Vec<char> = c.to_lowercase().collect();
    let several = match lower[..] {
        [one] => one.to_uppercase().collect(),
        _ => lower,
    };
    (several.len() > 1).then(|| several.into_iter().map(fold_char).collect())
}

/// The folded character of each non-ASCII character that folding changes.
fn folded_chars() -> &'static FxHashMap<char, char> {
    static FOLDED: OnceLock<FxHashMap<char, char>> = OnceLock::new();
    FOLDED.get_or_init(|| {
        // Includes every character that folding changes; the others are skipped as `representative` is slow.
        // Characters above U+1FFFF have no case.
        let may_change =
            |c: &char| !c.is_ascii() && c.is_alphanumeric() || ('\u{345}'..='\u{24ff}').contains(c);
        let candidates = ('\u{80}'..='\u{1ffff}').filter(may_change);
        candidates
            .map(|c| (c, representative(c)))
            .filter(|(c, folded)| c != folded)
            .collect()
    })
}

/// The character that represents all characters that differ from `c` in case only: the lower case of the first
/// one, if that is one of them, or else the first one.
fn representative(c: char) -> char {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    if class.try_case_fold_simple().is_err() {
        return c;
    }
    let first = class.iter().next().map_or(c, |range| range.start());
    let mut lower = first.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None)
            if class
                .iter()
                .any(|range| (range.start()..=range.end()).contains(&lower)) =>
        {
            lower
        }
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_characters_fold_to_the_same() {
        let fold = |text: &str| text.chars().map(fold_char).collect::<String>();
        assert_eq!(fold("ABCxyz1"), "abcxyz1");
        assert_eq!(fold("ÄÖÜ ß ẞ"), "äöü ß ß");
        assert_eq!(fold("Kſς ΣΜµ"), fold("ksσ σμΜ"));
        assert_eq!(fold("Ⓐ\u{345}"), fold("ⓐι"));
        assert_eq!(fold("日本 İ"), "日本 İ");
        let mut out = Vec::new();
        put_folded_bytes(&mut out, b"A\xffB\xc3\x84\xc3");
        assert_eq!(out, b"a\xffb\xc3\xa4\xc3");
    }

    #[test]
    fn full_folding_expands() {
        let fold = |text: &str| {
            let mut folded = String::new();
            put_fully_folded(&mut folded, text);
            folded
        };
        assert_eq!(fold("Straße STRASSE ẞ"), "strasse strasse ss");
        assert_eq!(fold("ﬃ ǰ İ ı I"), "ffi j\u{30c} i\u{307} ı i");
        assert_eq!(fold("ᾈ ᾀ"), fold("ἀι ἈΙ"));
        assert_eq!(fold("\u{390}"), fold("\u{1fd3}"));
    }
}
