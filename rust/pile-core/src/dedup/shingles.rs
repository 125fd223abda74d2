//! Shingles of a text as hashes.

use super::{
    Shingle,
    hash::{BASE, hash_bytes, hash_char, mix},
};
use crate::text::words::each_word;

/// Hashes the shingles of texts. Its buffers are reused.
///
/// A shingle's hash is that of a number in base [`BASE`], modulo 2^64, whose digits are the hashes of its words or
/// characters. Each word is hashed once: the number of the next shingle is computed from the last one.
#[derive(Debug, Clone)]
pub struct Shingler {
    shingle: Shingle,
    /// [`BASE`] to the power of the shingle's length.
    power: u64,
    window: Window,
}

/// The last words or characters, and the hashes of the shingles so far.
#[derive(Debug, Clone)]
struct Window {
    /// A ring of the last digits, zeros at first.
    digits: Vec<u64>,
    next: usize,
    /// The number that these digits write.
    number: u64,
    n_digits: usize,
    hashes: Vec<u64>,
}

impl Window {
    fn clear(&mut self) {
        self.digits.fill(0);
        self.hashes.clear();
        (self.next, self.number, self.n_digits) = (0, 0, 0);
    }

    #[inline]
    fn push(&mut self, digit: u64, power: u64) {
        let oldest = std::mem::replace(&mut self.digits[self.next], digit);
        self.next += 1;
        if self.next == self.digits.len() {
            self.next = 0;
        }
        let shifted = self.number.wrapping_mul(BASE).wrapping_add(digit);
        self.number = shifted.wrapping_sub(oldest.wrapping_mul(power));
        self.n_digits += 1;
        if self.n_digits >= self.digits.len() {
            self.hashes.push(mix(self.number));
        }
    }
}

impl Shingler {
    /// A shingler of texts.
    #[must_use]
    pub fn new(shingle: Shingle) -> Self {
        let n = shingle.length();
        Self {
            shingle,
            power: (0..n).fold(1, |power: u64, _| power.wrapping_mul(BASE)),
            window: Window {
                digits: vec![0; n],
                next: 0,
                number: 0,
                n_digits: 0,
                hashes: Vec::new(),
            },
        }
    }

    /// The distinct hashes of the shingles of `text`, ascending; empty if the text is shorter than a shingle.
    pub fn distinct(&mut self, text: &str) -> &[u64] {
        self.read(text);
        let hashes = &mut self.window.hashes;
        // Sorting beats a hash set here.
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// The hashes of the shingles of `text` as they follow each other, those of repeated shingles too.
    pub(super) fn all(&mut self, text: &str) -> &[u64] {
        self.read(text);
        &self.window.hashes
    }

    fn read(&mut self, text: &str) {
        let (window, power) = (&mut self.window, self.power);
        window.clear();
        match self.shingle {
            Shingle::Words(_) => {
                each_word(text, |word| window.push(hash_bytes(word.as_bytes()), power));
            }
            Shingle::Chars(_) => text.chars().for_each(|c| window.push(hash_char(c), power)),
        }
    }

    /// Upper bound on the shingles of a text of `n_bytes`.
    pub(super) fn max_shingles(&self, n_bytes: usize) -> u64 {
        match self.shingle {
            // A word and a space take two bytes.
            Shingle::Words(_) => n_bytes.div_ceil(2) as u64,
            Shingle::Chars(_) => n_bytes as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reference::distinct_shingles, *};
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn rolling_equals_the_definition(
            texts in vec("([ab\u{a0}é\n ]|aa bb|\\PC){0,30}", 1..4),
            n in 1_usize..6,
        ) {
            for shingle in [Shingle::Words(n), Shingle::Chars(n)] {
                let mut shingler = Shingler::new(shingle);
                for text in &texts {
                    let found = shingler.distinct(text).to_vec();
                    prop_assert!(found.len() as u64 <= shingler.max_shingles(text.len()));
                    prop_assert_eq!(found, distinct_shingles(text, shingle));
                }
            }
        }
    }

    #[test]
    fn equal_shingles_count_once_and_short_texts_have_none() {
        let count = |text: &str, shingle| Shingler::new(shingle).distinct(text).len();
        assert_eq!(count("a b a b a b", Shingle::Words(2)), 2);
        assert_eq!(count("a b", Shingle::Words(3)), 0);
        assert_eq!(count("", Shingle::Words(1)), 0);
        assert_eq!(count("日本語", Shingle::Chars(3)), 1);
        assert_eq!(count("日本", Shingle::Chars(3)), 0);
        assert_eq!(count("a b c", Shingle::Words(3)), 1);
    }
}
