//! Words of texts by their definition, with which the fast routine is compared.

use std::ops::Range;

use super::words::{Words, words_by_definition};

/// The words of a text as the search for items reads them, each with its bytes in the text. Bytes that are not UTF-8
/// separate words.
#[must_use]
pub fn item_words(text: &[u8]) -> Vec<(String, Range<usize>)> {
    let mut words = Words::default();
    words.read(text);
    let word = |number: usize| {
        let word = words.normalized(number..number + 1);
        let word = String::from_utf8_lossy(word).into_owned();
        (word, words.source(number..number + 1))
    };
    (0..words.len()).map(word).collect()
}

/// The words of a text, normalized as a whole.
#[must_use]
pub fn defined_words(text: &str) -> Vec<String> {
    words_by_definition(text)
}
