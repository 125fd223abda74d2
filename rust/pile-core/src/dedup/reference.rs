//! Shingles by their definition, with which tests compare the fast routine.

use std::collections::BTreeSet;

use super::{
    Shingle,
    hash::{BASE, hash_bytes, hash_char, mix},
};
use crate::text::words::words;

/// The distinct hashes of the shingles of a text, ascending. Each shingle is hashed from its start.
#[must_use]
pub fn distinct_shingles(text: &str, shingle: Shingle) -> Vec<u64> {
    let digits: Vec<u64> = match shingle {
        Shingle::Words(_) => words(text)
            .map(|word| hash_bytes(word.as_bytes()))
            .collect(),
        Shingle::Chars(_) => text.chars().map(hash_char).collect(),
    };
    let number = |digits: &[u64]| {
        let add = |number: u64, digit: &u64| number.wrapping_mul(BASE).wrapping_add(*digit);
        mix(digits.iter().fold(0, add))
    };
    let hashes: BTreeSet<u64> = digits.windows(shingle.length()).map(number).collect();
    hashes.into_iter().collect()
}
