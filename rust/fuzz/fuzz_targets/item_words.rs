//! Words of any bytes as items of benchmarks are compared: those of the text normalized as a whole, in the same order,
//! and each again from its own bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pile_core::contamination::reference::{defined_words, item_words};

/// Normalization as a whole takes a copy of the text for each step.
const MAX_TEXT_BYTES: usize = 4000;

fuzz_target!(|input: &[u8]| {
    let text = &input[..input.len().min(MAX_TEXT_BYTES)];
    let found = item_words(text);
    let words: Vec<&str> = found.iter().map(|(word, _)| word.as_str()).collect();
    let expected: Vec<String> = text
        .utf8_chunks()
        .flat_map(|chunk| defined_words(chunk.valid()))
        .collect();
    assert_eq!(words, expected);
    let mut last = 0;
    for (word, bytes) in &found {
        assert!(bytes.start >= last && bytes.start < bytes.end && bytes.end <= text.len());
        last = bytes.start;
        // One segment may become several words, which share its bytes.
        let own = item_words(&text[bytes.clone()]);
        assert!(
            own.iter().any(|(own, _)| own == word),
            "{word:?} of {own:?}"
        );
    }
});
