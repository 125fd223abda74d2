//! NFC with the reference's Unicode 9 tables; costs a scan where there is nothing to do.

use crate::tokenize::pretokenize::classes::{Classes, code_point_at};
use std::{borrow::Cow, ops::Range};
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// First lead byte of U+0300, before which nothing combines.
const FIRST_SUSPECT_LEAD: u8 = 0xCC;

/// `text` in NFC, borrowed where it is so already.
pub(crate) fn nfc(text: &str) -> Cow<'_, str> {
    let mut at = 0;
    while let Some(suspects) = next_suspects(text, at) {
        // What stands around them is neither changed nor moved by NFC: they can be judged alone.
        if is_nfc_quick(text[suspects.clone()].chars()) != IsNormalized::Yes {
            return Cow::Owned(nfc_always(text));
        }
        at = suspects.end;
    }
    Cow::Borrowed(text)
}

/// `text` in NFC, by the library, whatever the text.
pub(crate) fn nfc_always(text: &str) -> String {
    text.nfc().map(|(c, _)| c).collect()
}

/// The first run of characters from byte `at` that NFC may change or move.
fn next_suspects(text: &str, mut at: usize) -> Option<Range<usize>> {
    let (bytes, classes) = (text.as_bytes(), Classes::get());
    let mut first = None;
    while at < bytes.len() {
        if first.is_none() {
            at = skip_plain(bytes, at);
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

/// The first byte from `at` that leads a character from U+0300 on, or the end.
#[inline]
fn skip_plain(text: &[u8], mut at: usize) -> usize {
    const STRIDE: usize = 32;
    let is_plain = |byte: &u8| *byte < FIRST_SUSPECT_LEAD;
    while let Some(bytes) = text[at..].first_chunk::<STRIDE>() {
        // Without an early exit, so that all are compared at once.
        if !bytes.iter().fold(true, |all, byte| all & is_plain(byte)) {
            break;
        }
        at += STRIDE;
    }
    let rest = text[at..].iter().position(|byte| !is_plain(byte));
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
    }
}
