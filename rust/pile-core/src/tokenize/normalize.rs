//! NFC with the reference's Unicode 9 tables; costs a scan where there is nothing to do.

use super::classes::{Classes, code_point_at};
use std::borrow::Cow;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// First lead byte of U+0300, before which nothing combines.
const FIRST_SUSPECT_LEAD: u8 = 0xCC;

/// `text` in NFC, borrowed where it is so already.
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    if !has_suspect(text.as_bytes()) || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(nfc_always(text))
}

/// `text` in NFC, by the library, whatever the text.
pub(super) fn nfc_always(text: &str) -> String {
    text.nfc().map(|(c, _)| c).collect()
}

/// Whether a character of `text` may be one that NFC changes or moves.
fn has_suspect(text: &[u8]) -> bool {
    let classes = Classes::get();
    let mut at = 0;
    while at < text.len() {
        let is_plain = |byte: &u8| *byte < FIRST_SUSPECT_LEAD;
        if text[at..].iter().take(16).all(is_plain) && text.len() - at >= 16 {
            at += 16;
            continue;
        }
        if text[at] < FIRST_SUSPECT_LEAD {
            at += 1;
            continue;
        }
        let (code_point, len) = code_point_at(text, at);
        if classes.is_nfc_suspect(code_point) {
            return true;
        }
        at += len;
    }
    false
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
