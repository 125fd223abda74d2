//! Normalization of texts before they are compared.

use std::borrow::Cow;

use super::Normalization;
use crate::text::{case_folding::put_fully_folded, nfc::nfc, words::each_word};

/// The normalized text.
pub(super) fn normalized(text: &str, normalization: Normalization) -> Cow<'_, str> {
    match normalization {
        Normalization::None => Cow::Borrowed(text),
        Normalization::Whitespace => Cow::Owned(joined_words(text)),
        Normalization::Case => {
            let mut folded = String::with_capacity(text.len());
            put_fully_folded(&mut folded, &nfc(text));
            Cow::Owned(joined_words(&folded))
        }
    }
}

/// The words of a text with single spaces between them.
fn joined_words(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    each_word(text, |word| {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    });
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_case_are_normalized() {
        let of = |text, normalization| normalized(text, normalization).into_owned();
        let text = "\u{a0} A\tb\n\nCafe\u{301} Stra\u{df}e \u{3000}";
        assert_eq!(of(text, Normalization::None), text);
        assert_eq!(
            of(text, Normalization::Whitespace),
            "A b Cafe\u{301} Stra\u{df}e"
        );
        assert_eq!(of(text, Normalization::Case), "a b caf\u{e9} strasse");
        assert_eq!(of(" \n", Normalization::Whitespace), "");
    }
}
