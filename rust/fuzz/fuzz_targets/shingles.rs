//! Shingles of any text, compared with hashing each one from its start.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use pile_core::dedup::{Shingle, Shingler, reference::distinct_shingles};

/// The reference takes time proportional to the length of a shingle.
const MAX_TEXT_BYTES: usize = 4000;

/// Lengths of the shingles of words, and of those of characters.
const LENGTHS: [usize; 5] = [1, 2, 5, 13, 1000];

thread_local! {
    /// Reused from input to input, so that their buffers hold what earlier texts left.
    static SHINGLERS: RefCell<Vec<(Shingle, Shingler)>> = RefCell::new({
        let kinds = LENGTHS.iter().flat_map(|n| [Shingle::Words(*n), Shingle::Chars(*n)]);
        kinds.map(|shingle| (shingle, Shingler::new(shingle))).collect()
    });
}

fuzz_target!(|input: (u8, &[u8])| {
    let text = String::from_utf8_lossy(&input.1[..input.1.len().min(MAX_TEXT_BYTES)]);
    SHINGLERS.with_borrow_mut(|shinglers| {
        let index = usize::from(input.0) % shinglers.len();
        let (shingle, shingler) = &mut shinglers[index];
        assert_eq!(shingler.distinct(&text), distinct_shingles(&text, *shingle));
    });
});
