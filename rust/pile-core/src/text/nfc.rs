//! NFC with the Unicode 9 tables of Hugging Face `tokenizers`. Text that the quick check accepts is not copied.

use crate::text::classes::{ClassTable, code_point_at};
use std::{borrow::Cow, ops::Range};
use unicode_normalization_alignments::{
    IsNormalized, UnicodeNormalization,
    char::{canonical_combining_class, decompose_canonical},
    is_nfc_quick,
};

/// First UTF-8 byte of U+0300. NFC leaves a text of characters below it as it is.
const FIRST_SUSPECT_LEAD: u8 = 0xCC;

/// `text` in NFC. Borrowed if the quick check finds that it is in NFC.
pub(crate) fn nfc(text: &str) -> Cow<'_, str> {
    let mut at = 0;
    while let Some(suspects) = next_suspects(text, at) {
        // A character before a run changes only by composition with one of the run, such as "e" with U+0301, and that
        // one fails the check. So the run is checked alone.
        if is_nfc_quick(text[suspects.clone()].chars()) != IsNormalized::Yes {
            return Cow::Owned(nfc_always(text));
        }
        at = suspects.end;
    }
    Cow::Borrowed(text)
}

/// `text` in NFC, without the quick check.
pub(crate) fn nfc_always(text: &str) -> String {
    text.nfc().map(|(c, _)| c).collect()
}

/// Whether NFC changes a character, if at all, without those before it: what it decomposes to starts with a character
/// that is neither moved nor composed with another.
pub(crate) fn starts_segment(c: char) -> bool {
    let mut first = None;
    decompose_canonical(c, |part| _ = first.get_or_insert(part));
    first.is_some_and(|first| {
        canonical_combining_class(first) == 0
            && is_nfc_quick(std::iter::once(first)) == IsNormalized::Yes
    })
}

/// The first run of characters from byte `at` on that NFC may change or move.
fn next_suspects(text: &str, mut at: usize) -> Option<Range<usize>> {
    let (bytes, classes) = (text.as_bytes(), ClassTable::get());
    let mut first = None;
    while at < bytes.len() {
        if first.is_none() {
            at = skip_below_suspects(bytes, at);
            if at == bytes.len() {
                break;
            }
        }
        let (code_point, len) = code_point_at(bytes, at);
        match (classes.is_nfc_suspect(code_point), first) {
            (true, None) => first = Some(at),
            (false, Some(first)) => return Some(first..at),
            _ => {}
        }
        at += len;
    }
    first.map(|first| first..bytes.len())
}

/// The first byte from `at` that starts a character of U+0300 or above, or the end of the text.
///
/// The bytes of characters below U+0300 are all below [`FIRST_SUSPECT_LEAD`], and so are continuation bytes.
#[inline]
fn skip_below_suspects(text: &[u8], mut at: usize) -> usize {
    const STRIDE: usize = 32;
    let is_below = |byte: &u8| *byte < FIRST_SUSPECT_LEAD;
    while let Some(bytes) = text[at..].first_chunk::<STRIDE>() {
        // No early exit, so that the compiler compares all bytes with SIMD.
        if !bytes.iter().fold(true, |all, byte| all & is_below(byte)) {
            break;
        }
        at += STRIDE;
    }
    let rest = text[at..].iter().position(|byte| !is_below(byte));
    rest.map_or(text.len(), |n| at + n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn composes_and_reorders() {
        assert_eq!(nfc("e\u{301}"), "é");
        assert_eq!(nfc("a\u{301}\u{323}"), "ạ\u{301}");
        assert_eq!(nfc("\u{1100}\u{1161}"), "가");
        assert!(matches!(nfc("Plain text, é, 漢字"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn equals_the_library(text in "(\\PC|[a-z\u{300}-\u{36f}\u{1100}-\u{11ff}]){0,40}") {
            prop_assert_eq!(nfc(&text), nfc_always(&text));
        }

        #[test]
        fn segments_are_changed_apart(
            before in "[ea\u{300}-\u{36f}\u{1100}-\u{11ff}\u{ac00}-\u{ac10}]{0,8}",
            after in "(\\PC|[\u{f900}-\u{f910}\u{300}-\u{36f}])[ea\u{300}-\u{36f}\u{1100}-\u{11ff}]{0,8}",
        ) {
            prop_assume!(starts_segment(after.chars().next().unwrap()));
            prop_assert_eq!(nfc_always(&format!("{before}{after}")), nfc_always(&before) + &nfc_always(&after));
        }
    }
}
